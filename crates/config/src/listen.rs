//! The addresses of `listen:`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::ListenAddress;
use crate::path;
use crate::report::Problem;
use crate::tree::{Node, Value};
use crate::value::{self, expected};

/// The most that one app may have.
pub(crate) const MAX_LISTEN: usize = 64;
/// The longest path that a Unix socket can have (`unix(7)`), in bytes.
const MAX_UNIX_PATH: usize = 107;
const FORMS: &str = "a port, `ADDRESS:PORT` or `unix:PATH`";

/// Reads one address; a relative path starts from `base`.
pub(crate) fn parse(node: &Node, base: &Path) -> Result<ListenAddress, Problem> {
    let text = match &node.value {
        Value::Number(number) => return port(number, node).map(any_address),
        Value::Text(text) => value::without_nul(text)?,
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => return Err(expected(FORMS, node)),
    };
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path, base);
    }
    if text.starts_with(['/', '.']) {
        return unix(text, base);
    }
    let Some((host, port_text)) = text.rsplit_once(':') else {
        return match text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            true => port(text, node).map(any_address),
            false => Err(expected(FORMS, node).help("a path starts with `unix:`, `/` or `./`")),
        };
    };
    let address: IpAddr =
        match host {
            "" => return port(port_text, node).map(any_address),
            "*" => return Err(expected(FORMS, node).help(format!("`{port_text}` alone means every address"))),
            bracketed if bracketed.starts_with('[') => {
                let inside = bracketed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let address: Option<Ipv6Addr> = inside.and_then(|inside| inside.parse().ok());
                IpAddr::V6(address.ok_or_else(|| expected(FORMS, node).help("IPv6 looks like `[::1]:8080`"))?)
            }
            host => match host.parse() {
                Ok(IpAddr::V4(address)) => IpAddr::V4(address),
                Ok(IpAddr::V6(_)) => {
                    return Err(expected(FORMS, node)
                        .help(format!("put brackets around IPv6: `[{host}]:{port_text}`")));
                }
                Err(_) if text.parse::<Ipv6Addr>().is_ok() => {
                    return Err(expected(FORMS, node)
                        .help(format!("it has no port; IPv6 looks like `[{text}]:8080`")));
                }
                Err(_) => {
                    return Err(expected(FORMS, node)
                        .help("names are not looked up: give an address such as `127.0.0.1:8080`"));
                }
            },
        };
    let address = SocketAddr::new(address, port(port_text, node)?);
    Ok(ListenAddress::Tcp { address, dual_stack: false })
}

/// Whether two addresses cannot both be bound.
pub(crate) fn overlap(one: &ListenAddress, other: &ListenAddress) -> bool {
    if one == other {
        return true;
    }
    match (one, other) {
        (
            ListenAddress::Tcp { address: one, dual_stack: one_dual },
            ListenAddress::Tcp { address: other, dual_stack: other_dual },
        ) => {
            let both_any = one.ip().is_unspecified() && other.ip().is_unspecified();
            one.port() == other.port() && both_any && (*one_dual || *other_dual)
        }
        (ListenAddress::Unix(_), ListenAddress::Unix(_) | ListenAddress::Tcp { .. })
        | (ListenAddress::Tcp { .. }, ListenAddress::Unix(_)) => false,
    }
}

fn any_address(port: u16) -> ListenAddress {
    ListenAddress::Tcp { address: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), dual_stack: true }
}

fn port(text: &str, node: &Node) -> Result<u16, Problem> {
    match value::whole(text) {
        Some(0) => {
            Err(Problem::new("must not have port 0: the kernel would choose another port at each start"))
        }
        Some(port) => Ok(port),
        None => Err(expected(FORMS, node).help("a port is a number from 1 to 65535")),
    }
}

fn unix(path: &str, base: &Path) -> Result<ListenAddress, Problem> {
    if path.starts_with('@') {
        return Err(Problem::new("must not be an abstract Unix socket, which has no file permissions")
            .help("give a path"));
    }
    let path = path::absolute(path, base)?;
    match path.as_os_str().len() {
        length if length <= MAX_UNIX_PATH => Ok(ListenAddress::Unix(path)),
        length => Err(Problem::new(format!(
            "is {length} bytes long as an absolute path, and a Unix socket's can have {MAX_UNIX_PATH}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::plain_scalar;

    fn read(text: &str) -> Result<ListenAddress, Problem> {
        parse(&Node::new(plain_scalar(text.to_owned())), Path::new("/srv"))
    }

    #[test]
    fn reads_every_form() {
        let tcp =
            |address: &str, dual_stack| ListenAddress::Tcp { address: address.parse().unwrap(), dual_stack };
        for (text, address) in [
            ("8080", tcp("[::]:8080", true)),
            (":8080", tcp("[::]:8080", true)),
            ("127.0.0.1:65535", tcp("127.0.0.1:65535", false)),
            ("0.0.0.0:1", tcp("0.0.0.0:1", false)),
            ("[::1]:8080", tcp("[::1]:8080", false)),
            ("[::]:8080", tcp("[::]:8080", false)),
            ("unix:/run/web.sock", ListenAddress::Unix("/run/web.sock".into())),
            ("unix:web.sock", ListenAddress::Unix("/srv/web.sock".into())),
            ("/run/web.sock", ListenAddress::Unix("/run/web.sock".into())),
            ("./web.sock", ListenAddress::Unix("/srv/web.sock".into())),
        ] {
            assert_eq!(read(text), Ok(address), "{text}");
        }
    }

    #[test]
    fn refuses_all_else() {
        let long = format!("/{}", "x".repeat(MAX_UNIX_PATH));
        for text in [
            "0",
            ":0",
            "127.0.0.1:0",
            "65536",
            "-1",
            "8080.5",
            "",
            ":",
            "web",
            "localhost:8080",
            "*:8080",
            "::1",
            "::1:8080",
            "[::1]",
            "[::1]8080",
            "[::1:8080",
            "[127.0.0.1]:80",
            "127.0.0.1:",
            "127.0.0.1:http",
            "127.1:80",
            "1.2.3.4:080",
            "unix:",
            "unix:@web",
            "true",
            "~",
            &long,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wildcards_overlap_with_dual_stack() {
        for (one, other, expected) in [
            ("8080", "8080", true),
            ("8080", "0.0.0.0:8080", true),
            ("[::]:8080", "8080", true),
            ("[::]:8080", "0.0.0.0:8080", false),
            ("8080", "8081", false),
            ("8080", "127.0.0.1:8080", false),
            ("/a", "/a", true),
            ("/a", "/b", false),
            ("/a", "8080", false),
        ] {
            assert_eq!(overlap(&read(one).unwrap(), &read(other).unwrap()), expected, "{one} {other}");
        }
    }
}
