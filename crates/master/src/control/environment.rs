//! What variables a worker has, read from `/proc`, where secrets are masked.

use std::fs::File;
use std::io::Read;

use supervisor_protocol::control::Environment;
use supervisor_sys::{Pid, process};

/// The largest environment that is read, bytes.
const LIMIT: u64 = 4 * 1024 * 1024;
/// What stands for a secret.
const MASK: &str = "***";
/// Words in a name that tell of a secret.
const SECRET: [&str; 12] = [
    "SECRET",
    "TOKEN",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "PRIVATE",
    "APIKEY",
    "AUTH",
    "COOKIE",
    "DSN",
    "SALT",
];

/// A worker whose variables are asked for.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) app: String,
    pub(crate) slot: u32,
    pub(crate) pid: Pid,
    /// When its process started, clock ticks since the boot: its number may have
    /// become another's.
    pub(crate) start_time: u64,
}

/// The variables of those that still run. It may wait for a process that is busy
/// with its memory.
pub(crate) fn read(subjects: Vec<Subject>, reveal: bool) -> Vec<Environment> {
    subjects.into_iter().filter_map(|subject| read_one(subject, reveal)).collect()
}

fn read_one(subject: Subject, reveal: bool) -> Option<Environment> {
    let Subject { app, slot, pid, start_time } = subject;
    let mut block = Vec::new();
    let file = File::open(format!("/proc/{pid}/environ")).ok()?;
    file.take(LIMIT).read_to_end(&mut block).ok()?;
    if process::start_time(pid).ok()? != start_time {
        return None;
    }
    let variables = block.split(|byte| *byte == 0).filter_map(|variable| {
        let text = String::from_utf8_lossy(variable);
        let (name, value) = text.split_once('=')?;
        let value = if reveal { value.to_owned() } else { masked(name, value) };
        Some((name.to_owned(), value))
    });
    Some(Environment { app, slot, pid: pid.as_raw_pid().unsigned_abs(), env: variables.collect() })
}

/// A value without what seems secret: all of it, or the password of a URL.
fn masked(name: &str, value: &str) -> String {
    let name = name.to_ascii_uppercase();
    let key = name == "KEY" || name.ends_with("_KEY");
    if key || SECRET.iter().any(|word| name.contains(word)) {
        return MASK.to_owned();
    }
    let password = value.split_once("://").and_then(|(scheme, rest)| {
        let authority = rest.split(['/', '?', '#']).next()?;
        let (user_info, _) = authority.rsplit_once('@')?;
        let (user, password) = user_info.split_once(':')?;
        let begin = scheme.len() + "://".len() + user.len() + 1;
        (!password.is_empty()).then_some(begin..begin + password.len())
    });
    match password {
        Some(range) => format!("{}{MASK}{}", &value[..range.start], &value[range.end..]),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked() {
        let check = |name, value, expected: &str| assert_eq!(masked(name, value), expected, "{name}");
        for name in
            ["DB_PASSWORD", "github_token", "AWS_SECRET_ACCESS_KEY", "STRIPE_KEY", "KEY", "SENTRY_DSN"]
        {
            check(name, "hunter2", "***");
        }
        check("KEYBOARD", "us", "us");
        check("PORT", "8080", "8080");
        check("URL", "postgres://web:hunter2@db:5432/shop?x=1", "postgres://web:***@db:5432/shop?x=1");
        check("URL", "redis://:hunter2@cache", "redis://:***@cache");
        check("URL", "http://user@host/a:b@c", "http://user@host/a:b@c");
        check("URL", "http://host:80/", "http://host:80/");
        check("URL", "://", "://");
        check("URL", "ä://ö:ü@ß", "ä://ö:***@ß");
    }
}
