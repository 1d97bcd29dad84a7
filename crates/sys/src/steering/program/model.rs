//! What programs are to do: they are run here as the kernel would, and the same is said in plain words.

use std::net::IpAddr;

use super::*;

const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;

/// A connection as programs see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) port: u16,
    pub(crate) cpu: u32,
    pub(crate) random: u32,
}

impl Packet {
    /// The IP header, and the ports behind it.
    fn headers(&self) -> Vec<u8> {
        let mut headers = match self.source {
            IpAddr::V4(source) => [&[0x45; 12][..], &source.octets(), &[0; 4]].concat(),
            IpAddr::V6(source) => [&[0x6f, 0, 0, 0, 0, 0, 6, 0][..], &source.octets(), &[0; 16]].concat(),
        };
        headers.extend(self.port.to_be_bytes());
        headers
    }

    fn load(&self, offset: u32, width: usize) -> u32 {
        match (offset, self.source) {
            (RANDOM, _) => self.random,
            (CPU, _) => self.cpu,
            (PROTOCOL, IpAddr::V4(_)) => 0x800,
            (PROTOCOL, IpAddr::V6(_)) => 0x86dd,
            (offset, _) => {
                let start = offset.wrapping_sub(extension(libc::SKF_NET_OFF)) as usize;
                let headers = self.headers();
                assert!(start + width <= headers.len(), "a load from {offset:#x}");
                headers[start..start + width].iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
            }
        }
    }
}

/// What a program returns for a connection.
pub(crate) fn run(program: &[sock_filter], packet: Packet) -> u32 {
    let (mut a, mut x, mut kept, mut at) = (0_u32, 0_u32, [None; 16], 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let jump = |condition| usize::from(if condition { jt } else { jf });
        match u32::from(code) {
            LOAD => a = packet.load(k, 4),
            LOAD_HALF => a = packet.load(k, 2),
            LOAD_BYTE => a = packet.load(k, 1),
            LOAD_KEPT => a = kept[k as usize].expect("it was kept before"),
            KEEP => kept[k as usize] = Some(a),
            ADD => a = a.wrapping_add(k),
            AND => a &= k,
            MULTIPLY => a = a.wrapping_mul(k),
            MODULO => a %= k,
            SHIFT_RIGHT => a >>= k,
            XOR_X => a ^= x,
            TO_X => x = a,
            GO => at += k as usize,
            IF_AT_LEAST => at += jump(a >= k),
            IF_EQUAL => at += jump(a == k),
            RETURN => return k,
            RETURN_A => return a,
            code => panic!("an unknown instruction {code:#x}"),
        }
    }
}

/// What it is to return: the same in plain words.
pub(crate) fn reference(pick: &Pick, packet: Packet) -> u32 {
    let mix = |hash: u32, multiply: u32, shift: u32| {
        let hash = hash.wrapping_mul(multiply);
        hash ^ hash >> shift
    };
    let words = match packet.source {
        IpAddr::V4(source) => vec![source.to_bits()],
        IpAddr::V6(source) => {
            source.octets().chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect()
        }
    };
    let folded = words.into_iter().reduce(|hash, word| hash.wrapping_mul(MIX[0]) ^ word).unwrap();
    let hash = mix(mix(mix(folded, MIX[0], 16), MIX[1], 13), MIX[2], 16);
    let by = if pick.homes == 0 { By::Chance } else { pick.by };
    let (key, chance) = match by {
        By::Chance => (None, packet.random),
        By::Cpu => (Some(packet.cpu), packet.random),
        By::Source => (Some(hash), mix(mix(hash, MIX[3], 15), MIX[1], 16)),
    };
    let mut all: Vec<Share> = pick.shares.iter().copied().filter(|share| share.weight > 0).collect();
    match by {
        By::Chance => all.sort_by_key(|share| share.number),
        By::Source | By::Cpu => all.sort_by_key(|share| share.home),
    }
    let home = key.map(|key| key % pick.homes);
    let at_home: Vec<Share> = all.iter().copied().filter(|share| home == Some(share.home)).collect();
    let among = if at_home.is_empty() { all } else { at_home };
    let divisor = among.iter().map(|share| share.weight).fold(0, greatest_common_divisor);
    let sum: u32 = among.iter().map(|share| share.weight / divisor).sum();
    let mut chance = chance % sum;
    for share in among {
        match chance.checked_sub(share.weight / divisor) {
            Some(rest) => chance = rest,
            None => return share.number,
        }
    }
    panic!("nobody is picked");
}
