//! Any bytes as a program, its probes and connections: the program does what it is to do, and the kernel
//! takes it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use super::program::model::{Packet, reference, run};
use super::*;
use crate::socket::{self, TcpOptions};

/// So few members with so few probes fit into a program whatever they are like.
const FEW: usize = 100;

/// Checks a program.
///
/// # Panics
///
/// When it is wrong.
pub fn fuzz(data: &[u8]) {
    let mut bytes = Bytes(data);
    let probes: Vec<Probe> = (0..bytes.byte() % 70).map(|_| bytes.probe()).collect();
    let by = [By::Chance, By::Source, By::Cpu][usize::from(bytes.byte() % 3)];
    let homes = u32::from(bytes.half());
    let count = bytes.half() % 3000;
    let shares: Vec<Share> = (0..count).map_while(|_| bytes.share()).collect();
    let pick = Pick { by, homes, shares };
    let weights = pick.shares.iter().map(|share| u64::from(share.weight));
    let Some(program) = program(&probes, Some(&pick)) else {
        let sum: u64 = weights.sum();
        let may = sum > 0 && sum <= u64::from(u32::MAX);
        assert!(!may || pick.shares.len() > FEW || probes.len() > MAX_PROBES, "refused: {probes:?} {pick:?}");
        return;
    };
    let members: BTreeSet<u32> =
        pick.shares.iter().filter(|share| share.weight > 0).map(|share| share.number).collect();
    let clients: Vec<Packet> = probes
        .iter()
        .map(|probe| Packet { source: probe.client.ip(), port: probe.client.port(), cpu: 0, random: 0 })
        .collect();
    let others: Vec<Packet> = std::iter::from_fn(|| bytes.packet()).take(64).collect();
    for packet in clients.into_iter().chain(others) {
        let number = run(&program, packet);
        let client = (packet.source, packet.port);
        match probes.iter().find(|probe| (probe.client.ip(), probe.client.port()) == client) {
            Some(probe) => assert_eq!(number, probe.index, "{packet:?} {probes:?}"),
            None => {
                assert_eq!(number, reference(&pick, packet), "{packet:?} {pick:?}");
                assert!(members.contains(&number), "{number} of {members:?}");
            }
        }
    }
    steer(group(), &probes, Some(&pick)).expect("the kernel takes it");
}

/// A group of one socket: that is enough for the kernel to look at a program.
fn group() -> &'static OwnedFd {
    static GROUP: std::sync::OnceLock<OwnedFd> = std::sync::OnceLock::new();
    GROUP.get_or_init(|| {
        let shared = TcpOptions { reuse_port: true, v6only: None };
        let member = socket::bind_tcp((Ipv4Addr::LOCALHOST, 0).into(), shared).expect("a socket");
        socket::listen(&member, 1).expect("it listens");
        member
    })
}

/// Bytes to be taken; zeros when there are no more.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let length = N.min(self.0.len());
        taken[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    fn half(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn ip(&mut self) -> IpAddr {
        if self.byte().is_multiple_of(2) {
            IpAddr::from(self.take::<4>())
        } else {
            IpAddr::from(self.take::<16>())
        }
    }

    fn probe(&mut self) -> Probe {
        Probe { client: (self.ip(), self.half()).into(), index: u32::from(self.half()) }
    }

    fn share(&mut self) -> Option<Share> {
        let more = !self.0.is_empty();
        let number = u32::from(self.half());
        // Mostly small weights; sometimes any.
        let weight = match self.byte() {
            255 => self.word(),
            small => u32::from(small),
        };
        more.then(|| Share { number, weight, home: u32::from(self.half()) })
    }

    fn packet(&mut self) -> Option<Packet> {
        let more = !self.0.is_empty();
        let packet = Packet { source: self.ip(), port: self.half(), cpu: self.word(), random: self.word() };
        more.then_some(packet)
    }
}

#[cfg(test)]
#[path = "../../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn steering() {
        replay("steering", super::fuzz);
    }
}
