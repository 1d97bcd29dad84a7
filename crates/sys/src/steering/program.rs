//! Picks as programs of classic BPF.
//!
//! ```text
//!   A = hash of the client, or its CPU       nothing of this for chance alone
//!   A %= homes
//!   if A < 2 { return A + 1 }                homes 0 and 1: members 1 and 2
//!   if A < 3 { goto any }                    home 2: nobody
//!   if A < 4 { goto several }                home 3: members 5 and 7
//!   return 9                                 home 4
//! several:
//!   A = chance, or another hash
//!   A %= 10
//!   if A < 9 { return 5 }
//!   return 7
//! any:                                       as `several`, among all
//! ```

use libc::sock_filter;

use super::{By, MAX_PROGRAM, Pick, Share, statement};

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_KEPT: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_MEM;
const KEEP: u32 = libc::BPF_ST;
const ADD: u32 = libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K;
const MULTIPLY: u32 = libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K;
const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
const SHIFT_RIGHT: u32 = libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K;
const XOR_X: u32 = libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X;
const TO_X: u32 = libc::BPF_MISC | libc::BPF_TAX;
const GO: u32 = libc::BPF_JMP | libc::BPF_JA;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const RETURN_A: u32 = libc::BPF_RET | libc::BPF_A;

/// Where loads find what belongs to the connection.
const RANDOM: u32 = extension(libc::SKF_AD_OFF + libc::SKF_AD_RANDOM);
const CPU: u32 = extension(libc::SKF_AD_OFF + libc::SKF_AD_CPU);
const PROTOCOL: u32 = extension(libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL);
const SOURCE_V4: u32 = extension(libc::SKF_NET_OFF + 12);
const SOURCE_V6: u32 = extension(libc::SKF_NET_OFF + 8);
/// What `PROTOCOL` is for IPv6. IPv4 on a socket of both is IPv4 here.
const IS_V6: u32 = 0x86dd;

/// Odd numbers that mix well: of Fibonacci hashing, and of MurmurHash3.
const MIX: [u32; 4] = [0x9e37_79b1, 0x85eb_ca6b, 0xc2b2_ae35, 0x27d4_eb2f];

/// Where the client's hashes are kept: that of its home, and another one.
const HASH: u32 = 0;
const OTHER_HASH: u32 = 1;

#[expect(clippy::cast_sign_loss, reason = "the kernel's offsets of such values are negative")]
const fn extension(offset: libc::c_int) -> u32 {
    offset as u32
}

/// The program that picks so; `None` if nobody is to be picked, or if it is too long.
pub(super) fn of(pick: &Pick) -> Option<Vec<sock_filter>> {
    let mut shares: Vec<Share> = pick.shares.iter().copied().filter(|share| share.weight > 0).collect();
    let by = if pick.homes == 0 { By::Chance } else { pick.by };
    let chance = match by {
        By::Chance | By::Cpu => (LOAD, RANDOM),
        By::Source => (LOAD_KEPT, OTHER_HASH),
    };
    let mut program = Program::default();
    match by {
        By::Chance => {}
        By::Source => program.hash_source(),
        By::Cpu => program.add(LOAD, CPU),
    }
    let mut several = Vec::new();
    if by == By::Chance {
        // Consecutive numbers make a short program.
        shares.sort_by_key(|share| share.number);
    } else {
        program.add(MODULO, pick.homes);
        shares.sort_by_key(|share| share.home);
        several = program.go_home(pick.homes, &shares)?;
    }
    // All that begins here is jumped to from above, or is all that there is.
    let any = program.0.len();
    program.choose(&shares, chance)?;
    for (at, members) in several {
        let target = if members.is_empty() { any } else { program.0.len() };
        program.0[at].k = u32::try_from(target - at - 1).ok()?;
        if !members.is_empty() {
            program.choose(&members, chance)?;
        }
    }
    (program.0.len() <= MAX_PROGRAM).then_some(program.0)
}

#[derive(Default)]
struct Program(Vec<sock_filter>);

impl Program {
    fn add(&mut self, code: u32, k: u32) {
        self.0.push(statement(code, k));
    }

    /// Leaves the hash of the client's address in `A`, and both where they are kept.
    fn hash_source(&mut self) {
        self.add(LOAD, PROTOCOL);
        let is_v6 = self.0.len();
        self.add(IF_EQUAL, IS_V6);
        self.add(LOAD, SOURCE_V4);
        let over_v6 = self.0.len();
        self.add(GO, 0);
        for word in 0..4 {
            if word > 0 {
                self.add(MULTIPLY, MIX[0]);
                self.add(TO_X, 0);
            }
            self.add(LOAD, SOURCE_V6.wrapping_add(4 * word));
            if word > 0 {
                self.add(XOR_X, 0);
            }
        }
        let mixed = self.0.len();
        self.0[is_v6].jf = 0;
        // Over the two instructions for IPv4.
        self.0[is_v6].jt = 2;
        #[expect(clippy::cast_possible_truncation, reason = "it is 13")]
        {
            self.0[over_v6].k = (mixed - over_v6 - 1) as u32;
        }
        for (multiply, shift) in [(MIX[0], 16), (MIX[1], 13), (MIX[2], 16)] {
            self.mix(multiply, shift);
        }
        self.add(KEEP, HASH);
        self.mix(MIX[3], 15);
        self.mix(MIX[1], 16);
        self.add(KEEP, OTHER_HASH);
        self.add(LOAD_KEPT, HASH);
    }

    /// `A *= multiply; A ^= A >> shift`
    fn mix(&mut self, multiply: u32, shift: u32) {
        self.add(MULTIPLY, multiply);
        self.add(TO_X, 0);
        self.add(SHIFT_RIGHT, shift);
        self.add(XOR_X, 0);
    }

    /// Returns the member whose home is in `A`. The jumps that lead elsewhere are yet to be aimed:
    /// where they are, and to whom. `shares` are in order of their homes.
    fn go_home(&mut self, homes: u32, shares: &[Share]) -> Option<Vec<(usize, Vec<Share>)>> {
        let mut pieces = Pieces::default();
        let mut next = 0;
        for members in shares.chunk_by(|a, b| a.home == b.home) {
            let home = members[0].home;
            if home >= homes {
                break;
            }
            pieces.go(home - next, Vec::new());
            match members {
                [one] => pieces.number(1, one.number),
                several => pieces.go(1, several.to_vec()),
            }
            next = home + 1;
        }
        pieces.go(homes - next, Vec::new());
        self.look_up(pieces)
    }

    /// Returns one of these members, by weight.
    fn choose(&mut self, shares: &[Share], chance: (u32, u32)) -> Option<()> {
        let divisor = shares.iter().map(|share| share.weight).fold(0, greatest_common_divisor);
        if divisor == 0 {
            return None;
        }
        let mut pieces = Pieces::default();
        let mut sum: u32 = 0;
        for share in shares {
            let weight = share.weight / divisor;
            sum = sum.checked_add(weight)?;
            pieces.number(weight, share.number);
        }
        self.add(chance.0, chance.1);
        self.add(MODULO, sum);
        self.look_up(pieces).map(|_| ())
    }

    /// Looks up the piece that `A` is in. Returns the jumps that are yet to be aimed.
    fn look_up(&mut self, pieces: Pieces) -> Option<Vec<(usize, Vec<Share>)>> {
        let mut jumps = Vec::new();
        let last = pieces.0.len().checked_sub(1)?;
        let mut before: u32 = 0;
        for (position, Piece { width, target }) in pieces.0.into_iter().enumerate() {
            let after = before + width;
            let length = if matches!(target, Target::Run(_)) { 2 } else { 1 };
            if position < last {
                self.0.push(sock_filter { jt: length, jf: 0, ..statement(IF_AT_LEAST, after) });
            }
            match target {
                Target::Number(number) => self.add(RETURN, number),
                Target::Run(first) => {
                    // As the kernel adds: modulo 2³².
                    self.add(ADD, first.wrapping_sub(before));
                    self.add(RETURN_A, 0);
                }
                Target::Go(members) => {
                    jumps.push((self.0.len(), members));
                    self.add(GO, 0);
                }
            }
            before = after;
        }
        Some(jumps)
    }
}

/// Consecutive values and what becomes of them.
struct Piece {
    width: u32,
    target: Target,
}

enum Target {
    /// All mean this number.
    Number(u32),
    /// They mean consecutive numbers, from this one on.
    Run(u32),
    /// One of these members, or any.
    Go(Vec<Share>),
}

#[derive(Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    fn number(&mut self, width: u32, number: u32) {
        if let Some(last) = self.0.last_mut()
            && width == 1
        {
            let first = match last.target {
                Target::Number(first) if last.width == 1 => Some(first),
                Target::Run(first) => Some(first),
                Target::Number(_) | Target::Go(_) => None,
            };
            if let Some(first) = first.filter(|first| first.checked_add(last.width) == Some(number)) {
                (last.width, last.target) = (last.width + 1, Target::Run(first));
                return;
            }
        }
        self.0.push(Piece { width, target: Target::Number(number) });
    }

    fn go(&mut self, width: u32, members: Vec<Share>) {
        if width > 0 {
            self.0.push(Piece { width, target: Target::Go(members) });
        }
    }
}

const fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod model;
#[cfg(test)]
mod tests;
