//! What the kernel says of one socket: `struct inet_diag_msg` and its attributes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Numbers in the machine's byte order, at offsets that the kernel's headers give.
pub(super) trait Fields {
    fn array_at<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    fn u16_at(&self, offset: usize) -> Option<u16> {
        self.array_at(offset).map(u16::from_ne_bytes)
    }
    fn u32_at(&self, offset: usize) -> Option<u32> {
        self.array_at(offset).map(u32::from_ne_bytes)
    }
    fn i32_at(&self, offset: usize) -> Option<i32> {
        self.array_at(offset).map(i32::from_ne_bytes)
    }
    fn u64_at(&self, offset: usize) -> Option<u64> {
        self.array_at(offset).map(u64::from_ne_bytes)
    }
}

impl Fields for [u8] {
    fn array_at<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// Its number.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// One socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    /// As the kernel numbers them, `TCP_…`.
    pub(super) state: u8,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    /// The index of the interface that it is bound to; 0 for any.
    pub(super) interface: u32,
    pub(super) cookie: u64,
    /// Bytes received and not read; for a listener, connections that wait.
    pub(super) receive_queue: u32,
    /// Bytes sent and not acknowledged; for a listener, the backlog.
    pub(super) send_queue: u32,
    pub(super) uid: u32,
    /// 0 if no process has it.
    pub(super) inode: u32,
    attributes: &'a [u8],
}

impl<'a> Message<'a> {
    /// `None` for anything else than such a message of IPv4 or IPv6.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let [family, state] = bytes.array_at(0)?;
        let interface = bytes.u32_at(40)?;
        let address = |port, ip| {
            let port = u16::from_be_bytes(bytes.array_at(port)?);
            let ip: IpAddr = match family {
                2 => Ipv4Addr::from(bytes.array_at::<4>(ip)?).into(),
                10 => Ipv6Addr::from(bytes.array_at::<16>(ip)?).into(),
                _ => return None,
            };
            Some(match ip {
                // Such an address means nothing without its interface.
                IpAddr::V6(ip) if ip.is_unicast_link_local() => {
                    SocketAddrV6::new(ip, port, 0, interface).into()
                }
                ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => SocketAddr::new(ip, port),
            })
        };
        Some(Self {
            state,
            local: address(4, 8)?,
            peer: address(6, 24)?,
            interface,
            cookie: bytes.u64_at(44)?,
            receive_queue: bytes.u32_at(56)?,
            send_queue: bytes.u32_at(60)?,
            uid: bytes.u32_at(64)?,
            inode: bytes.u32_at(68)?,
            attributes: bytes.get(72..)?,
        })
    }

    /// What the attribute of this number carries.
    pub(super) fn attribute(&self, number: u16) -> Option<&'a [u8]> {
        let mut left = self.attributes;
        loop {
            let length = usize::from(left.u16_at(0)?);
            let value = left.get(4..length)?;
            if left.u16_at(2)? == number {
                return Some(value);
            }
            left = left.get(length.next_multiple_of(4)..)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket of IPv6 on [fe80::1%3]:80 with two attributes, one of a byte and one empty.
    fn bytes() -> Vec<u8> {
        let mut bytes = vec![10, 1, 0, 0, 0, 80, 1, 0];
        bytes.extend(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets());
        bytes.extend(Ipv6Addr::LOCALHOST.octets());
        bytes.extend(3_u32.to_ne_bytes());
        bytes.extend(0x1_0000_0002_u64.to_ne_bytes());
        bytes.extend([0, 5, 6, 7, 8].map(u32::to_ne_bytes).concat());
        for header in [[5_u16, 11], [1, 0], [4, 2]] {
            bytes.extend(header.map(u16::to_ne_bytes).concat());
        }
        bytes
    }

    #[test]
    fn all_fields_are_read() {
        let bytes = bytes();
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.local.to_string(), "[fe80::1%3]:80");
        assert_eq!(message.peer.to_string(), "[::1]:256");
        assert_eq!((message.state, message.interface, message.cookie), (1, 3, 0x1_0000_0002));
        assert_eq!((message.receive_queue, message.send_queue, message.uid, message.inode), (5, 6, 7, 8));
        assert_eq!(message.attribute(11), Some(&[1][..]));
        assert_eq!(message.attribute(2), Some(&[][..]));
        assert_eq!(message.attribute(3), None);
    }

    #[test]
    fn no_bytes_are_a_surprise() {
        let mut bytes = bytes();
        for length in 0..bytes.len() {
            let message = Message::parse(&bytes[..length]);
            assert_eq!(message.is_some(), length >= 72, "{length}");
            let _ = message.map(|message| message.attribute(2));
        }
        for length in [0_u16, 3, 13, u16::MAX] {
            bytes[72..74].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Message::parse(&bytes).unwrap().attribute(2), None, "{length}");
        }
        bytes[0] = 1;
        assert!(Message::parse(&bytes).is_none(), "another family");
    }
}
