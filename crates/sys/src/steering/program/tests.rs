//! Programs do what they are to do, and the kernel takes them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use super::model::{Packet, reference, run};
use super::*;
use crate::socket::{self, TcpOptions};
use crate::steering::steer;

const fn share(number: u32, weight: u32, home: u32) -> Share {
    Share { number, weight, home }
}

fn pick(by: By, homes: u32, shares: impl IntoIterator<Item = Share>) -> Pick {
    Pick { by, homes, shares: shares.into_iter().collect() }
}

/// Connections of all sorts, with every chance and CPU below `chances` and some beyond.
fn packets(chances: u32) -> impl Iterator<Item = Packet> {
    let edges = [u32::MAX - 1, u32::MAX, 1 << 31];
    (0..chances).chain(edges).flat_map(|number| {
        let v4 = Ipv4Addr::from_bits(number.wrapping_mul(0x0101_0101) ^ 0x7f00_0001);
        let v6 = Ipv6Addr::from_bits(u128::from(number) << (number % 97) | 0xfd00 << 112);
        [IpAddr::V4(v4), IpAddr::V6(v6)].map(|source| Packet { source, port: 1, cpu: number, random: number })
    })
}

/// That a program does what it is to do, that the kernel takes it, and how long it is.
#[track_caller]
fn check(pick: &Pick, instructions: usize) {
    let program = of(pick).unwrap();
    assert_eq!(program.len(), instructions, "{pick:?}");
    let sum: u32 = pick.shares.iter().map(|share| share.weight).sum();
    let mut picked = BTreeSet::new();
    for packet in packets(5 * sum.max(pick.homes).max(64)) {
        let number = run(&program, packet);
        assert_eq!(number, reference(pick, packet), "{packet:?} {pick:?}");
        picked.insert(number);
    }
    let may: BTreeSet<u32> =
        pick.shares.iter().filter(|share| share.weight > 0).map(|share| share.number).collect();
    assert!(picked.is_subset(&may), "{picked:?} of {may:?}");
    if pick.by == By::Chance {
        assert_eq!(picked, may);
    }
    steer(group(), &[], Some(pick)).unwrap();
}

/// A group of one socket: that is enough for the kernel to look at a program.
fn group() -> OwnedFd {
    let shared = TcpOptions { reuse_port: true, v6only: None };
    let member = socket::bind_tcp((Ipv4Addr::LOCALHOST, 0).into(), shared).unwrap();
    socket::listen(&member, 1).unwrap();
    member
}

fn even(numbers: &[u32]) -> Pick {
    pick(By::Chance, 0, numbers.iter().map(|number| share(*number, 1, 0)))
}

#[test]
fn by_chance() {
    check(&even(&[0]), 3);
    check(&even(&[7]), 3);
    check(&even(&[0, 1, 2, 3]), 4);
    check(&even(&[3, 1, 0, 2]), 4);
    check(&even(&[1, 2, 5, 6, 7]), 7);
    check(&even(&[0, 2, 4, 9]), 9);
    let many: Vec<u32> = (0..1000).filter(|number| number % 7 != 0).collect();
    check(&even(&many), 2 + 143 * 3 - 1);
}

#[test]
fn by_weight() {
    check(&pick(By::Chance, 0, [share(0, 5, 0), share(1, 1, 0)]), 5);
    check(&pick(By::Chance, 0, [share(0, 0, 0), share(1, 1, 0), share(2, 3, 0)]), 5);
    // What has one measure is no weight.
    check(&pick(By::Chance, 0, [share(0, 10, 0), share(1, 10, 0)]), 4);
    check(&pick(By::Chance, 0, [share(2, 20, 0), share(1, 10, 0), share(3, 10, 0)]), 7);
    let many = (0..1000).map(|number| share(number, 1 + number % 2, 0));
    check(&pick(By::Chance, 0, many), 2 + 1000 * 2 - 1);
}

/// The instructions that find a client's hashes.
const HASHING: usize = 17 + 12 + 1 + 8 + 2;

#[test]
fn by_the_client() {
    let all = |homes: u32| (0..homes).map(|home| share(home, 1, home));
    check(&pick(By::Source, 4, all(4)), HASHING + 1 + 2 + 4);
    check(&pick(By::Source, 1, all(1)), HASHING + 1 + 1 + 3);
    // Nobody at home, in the middle and at both ends.
    let some = [share(4, 1, 1), share(2, 1, 3), share(0, 1, 4)];
    check(&pick(By::Source, 6, some), HASHING + 1 + 11 + 7);
    // A successor beside the worker that it is to replace.
    let two = [share(0, 1, 0), share(1, 95, 1), share(2, 5, 1)];
    check(&pick(By::Source, 2, two), HASHING + 1 + 3 + 7 + 5);
    // Who is at home nowhere is for those who have no home.
    check(&pick(By::Source, 2, [share(3, 1, 0), share(5, 1, 7)]), HASHING + 1 + 3 + 5);
    check(&pick(By::Source, 1000, all(1000)), HASHING + 1 + 2 + 4);
}

#[test]
fn by_the_cpu() {
    check(&pick(By::Cpu, 2, [share(1, 1, 0), share(0, 1, 1)]), 2 + 3 + 5);
    check(&pick(By::Cpu, 4, [share(1, 1, 0), share(0, 1, 3), share(2, 1, 3)]), 2 + 5 + 7 + 5);
}

/// The share of all clients whose member changes from one pick to the other, and whether those of
/// members that both have stay.
fn moved(before: &Pick, after: &Pick) -> u32 {
    let (one, other) = (of(before).unwrap(), of(after).unwrap());
    let mut moved = 0;
    for client in 0..1000 {
        let packet =
            Packet { source: Ipv4Addr::from_bits(0x7f00_0001 + client).into(), port: 1, cpu: 0, random: 0 };
        let (from, to) = (run(&one, packet), run(&other, packet));
        moved += u32::from(from != to);
        let stays = after.shares.iter().any(|share| share.number == from);
        assert!(from == to || !stays, "{packet:?}: {from} to {to}");
    }
    moved
}

#[test]
fn only_clients_of_the_lost_move() {
    let all = |lost: &[u32]| {
        let shares = (0..5).filter(|home| !lost.contains(home)).map(|home| share(home, 1, home));
        pick(By::Source, 5, shares)
    };
    let lost = moved(&all(&[]), &all(&[2]));
    assert!((150..250).contains(&lost), "{lost} of 1000");
    assert_eq!(moved(&all(&[]), &all(&[])), 0);
}

#[test]
fn clients_are_spread_evenly() {
    // Neighbours in one network, of both families, and those of a lost worker.
    let all = pick(By::Source, 5, (0..5).map(|home| share(home, 1, home)));
    let four = pick(By::Source, 5, (1..5).map(|home| share(home, 1, home)));
    for (pick, members) in [(all, 5), (four, 4)] {
        let program = of(&pick).unwrap();
        let v4 = (0..2000).map(|client| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + client)));
        let v6 = |shift: u32| {
            let client = move |client: u128| Ipv6Addr::from_bits(0xfd00 << 112 | client << shift);
            (0..2000).map(move |number| IpAddr::from(client(number))).collect::<Vec<_>>()
        };
        for sources in [v4.collect(), v6(0), v6(32), v6(64), v6(90)] {
            let mut got = [0_u32; 5];
            for source in sources {
                got[run(&program, Packet { source, port: 1, cpu: 0, random: 0 }) as usize] += 1;
            }
            let least = got.into_iter().filter(|got| *got > 0).min().unwrap();
            let most = got.into_iter().max().unwrap();
            assert!(got.into_iter().filter(|got| *got > 0).count() == members && most < 2 * least, "{got:?}");
        }
    }
}

#[test]
fn any_pick_is_programmed_or_refused() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..300 {
        let by = [By::Chance, By::Source, By::Cpu][random.usize(..3)];
        let count = random.u32(1..40);
        let mut numbers: Vec<u32> = (0..count * 2).collect();
        random.shuffle(&mut numbers);
        let homes = random.u32(..count + 3);
        let shares: Vec<Share> = numbers[..count as usize]
            .iter()
            .map(|number| share(*number, random.u32(..4), random.u32(..count)))
            .collect();
        let pick = pick(by, homes, shares);
        let Some(program) = of(&pick) else {
            assert!(pick.shares.iter().all(|share| share.weight == 0), "{pick:?}");
            continue;
        };
        for packet in packets(200) {
            assert_eq!(run(&program, packet), reference(&pick, packet), "{packet:?} {pick:?}");
        }
        steer(group(), &[], Some(&pick)).unwrap();
    }
}

#[test]
fn what_cannot_be_programmed() {
    assert!(of(&even(&[])).is_none());
    assert!(of(&pick(By::Chance, 0, [share(0, 0, 0)])).is_none());
    assert!(of(&pick(By::Chance, 0, [share(0, u32::MAX, 0), share(1, 2, 0)])).is_none());
    let apart: Vec<u32> = (0..3000).map(|number| number * 2).collect();
    assert!(of(&even(&apart[..2047])).is_some());
    assert!(of(&even(&apart[..2048])).is_none());
    // A thousand clients' homes in no order at all.
    let shuffled = (0..1000).map(|home| share(home * 7 % 1000, 1, home));
    assert_eq!(of(&pick(By::Source, 1000, shuffled)).map(|program| program.len()), Some(4041));
}
