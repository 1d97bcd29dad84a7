//! Connections that must reach one certain member, whatever a group's policy says.
//!
//! A client that has bound its socket before it connects is known by its address and port: nobody else
//! can have both. So a program can begin with "if this is the client, return that member", which holds for
//! programs of any kind, and takes a few instructions for each new connection while it lasts. What a
//! program of a TCP group loads from begins behind the TCP header; the headers are at `SKF_NET_OFF`.

use std::net::{IpAddr, SocketAddr};

use libc::sock_filter;

use super::statement;

/// The most that one program can have: what is left of its length is the policy's.
pub const MAX_PROBES: usize = 64;

/// A client whose connections go to a certain member of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The address and port that it has bound.
    pub client: SocketAddr,
    /// The number of the member.
    pub index: u32,
}

/// The instructions that come before a policy's own.
pub(super) fn prefix(probes: &[Probe]) -> Vec<sock_filter> {
    probes.iter().flat_map(|probe| probe.instructions()).collect()
}

impl Probe {
    /// ```text
    ///   if the packet is one of IP without options, from the client's address and port { return index }
    /// ```
    fn instructions(&self) -> Vec<sock_filter> {
        let mut conditions = match self.client.ip() {
            // Version 4, with a header of five words.
            IpAddr::V4(ip) => vec![(vec![byte(0)], 0x45), (vec![word(12)], ip.to_bits())],
            IpAddr::V6(ip) => {
                let version = vec![byte(0), statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0xf0)];
                let mut conditions = vec![(version, 0x60), (vec![byte(6)], TCP)];
                let [a, b, c, d] = [96, 64, 32, 0].map(|shift| low_word(ip.to_bits() >> shift));
                conditions
                    .extend([(8, a), (12, b), (16, c), (20, d)].map(|(at, part)| (vec![word(at)], part)));
                conditions
            }
        };
        let header = if self.client.is_ipv4() { 20 } else { 40 };
        conditions.push((vec![half(header)], self.client.port().into()));

        let mut rest: usize = conditions.iter().map(|(loads, _)| loads.len() + 1).sum();
        let mut instructions = Vec::with_capacity(rest + 1);
        for (loads, value) in conditions {
            rest -= loads.len() + 1;
            instructions.extend(loads);
            instructions.push(skip_unless_equal(value, rest + 1));
        }
        instructions.push(statement(libc::BPF_RET | libc::BPF_K, self.index));
        instructions
    }
}

/// The number of TCP in an IPv6 header.
const TCP: u32 = 6;

#[expect(clippy::cast_possible_truncation, reason = "the lowest 32 bits are meant")]
const fn low_word(bits: u128) -> u32 {
    bits as u32
}

/// Loads a byte of the IP header, or of what comes after it.
const fn byte(at: u32) -> sock_filter {
    load(libc::BPF_B, at)
}

const fn half(at: u32) -> sock_filter {
    load(libc::BPF_H, at)
}

const fn word(at: u32) -> sock_filter {
    load(libc::BPF_W, at)
}

const fn load(size: u32, at: u32) -> sock_filter {
    #[expect(clippy::cast_sign_loss, reason = "the kernel's offsets of headers are negative")]
    const NETWORK_HEADER: u32 = libc::SKF_NET_OFF as u32;
    statement(libc::BPF_LD | size | libc::BPF_ABS, NETWORK_HEADER + at)
}

/// Jumps are at most as long as the instructions of one probe.
#[expect(clippy::cast_possible_truncation, reason = "a probe has fewer than 20 instructions")]
fn skip_unless_equal(value: u32, instructions: usize) -> sock_filter {
    let jump = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value);
    sock_filter { jt: 0, jf: instructions as u8, ..jump }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the prefix returns for a packet with this IP header and what follows; `None` when the policy
    /// would come next.
    fn run(program: &[sock_filter], packet: &[u8]) -> Option<u32> {
        let mut a = 0;
        let mut at = 0;
        let bytes = |instruction: &sock_filter, length: usize| {
            let start = instruction.k.wrapping_sub(load(libc::BPF_B, 0).k) as usize;
            packet[start..start + length].iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
        };
        while let Some(instruction) = program.get(at) {
            at += 1;
            match instruction.code {
                0x30 => a = bytes(instruction, 1),
                0x28 => a = bytes(instruction, 2),
                0x20 => a = bytes(instruction, 4),
                0x54 => a &= instruction.k,
                0x15 => at += usize::from(if a == instruction.k { instruction.jt } else { instruction.jf }),
                0x06 => return Some(instruction.k),
                code => panic!("an unknown instruction {code:#x}"),
            }
        }
        None
    }

    /// The headers of a packet from this client.
    fn packet(client: &str) -> Vec<u8> {
        let client: SocketAddr = client.parse().unwrap();
        let mut packet = match client.ip() {
            IpAddr::V4(ip) => [&[0x45; 12][..], &ip.octets(), &[0; 4]].concat(),
            IpAddr::V6(ip) => [&[0x6f, 0, 0, 0, 0, 0, 6, 0][..], &ip.octets(), &[0; 16]].concat(),
        };
        packet.extend(client.port().to_be_bytes());
        packet.extend([0; 18]);
        packet
    }

    #[test]
    fn each_client_has_its_member() {
        let clients = ["127.0.0.1:40000", "127.0.0.1:40001", "[::1]:40000", "[2001:db8::1:2]:65535"];
        let probes: Vec<Probe> = (0..)
            .zip(clients)
            .map(|(index, client)| Probe { client: client.parse().unwrap(), index })
            .collect();
        let program = prefix(&probes);
        for (index, client) in (0..).zip(clients) {
            assert_eq!(run(&program, &packet(client)), Some(index), "{client}");
        }
        for other in ["127.0.0.1:40002", "127.0.0.2:40000", "[::1]:40001", "[2001:db8::2:2]:65535"] {
            assert_eq!(run(&program, &packet(other)), None, "{other}");
        }
        let mut with_options = packet("127.0.0.1:40000");
        with_options[0] = 0x46;
        assert_eq!(run(&program, &with_options), None);
    }
}
