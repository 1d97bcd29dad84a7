//! Steering of new connections among the sockets of a `SO_REUSEPORT` group.
//!
//! The sockets that listen on one address with `SO_REUSEPORT` are a group. The kernel numbers them in
//! the order of their `listen(2)`; when one stops to listen, the last one takes its number. A program
//! attached to the group picks the number of the socket that gets a new connection
//! (`SO_ATTACH_REUSEPORT_CBPF` in `socket(7)`); a number that nobody has falls back to the kernel's
//! hash over all members. A program takes effect at once, for all members, and needs no privilege.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{sock_filter, sock_fprog};

/// The longest program that the kernel takes, in instructions.
const MAX_PROGRAM: usize = libc::BPF_MAXINSNS as usize;

/// Lets only these members of a group get new connections, chosen at random for each of them.
///
/// `socket` is any member that listens; one that is bound only would keep others from listening.
/// `indexes` are numbers of members, ascending.
///
/// # Errors
///
/// `InvalidInput` without an index, for indexes out of order, and for more than about 1,360 separate
/// runs of them; `EINVAL` for a socket without `SO_REUSEPORT`; `EPERM` where a filter forbids it.
pub fn steer(socket: impl AsFd, indexes: &[u32]) -> io::Result<()> {
    attach(socket, pick_one_of(indexes).ok_or(io::ErrorKind::InvalidInput)?)
}

/// As [`steer`], but each member gets as many connections as its weight says in relation to the others.
///
/// `members` are numbers of members, ascending, with their weights.
///
/// # Errors
///
/// As [`steer`]; also for a weight of 0, for weights whose sum is above 2³²−1, and for more than about
/// 810 separate runs of members with equal weights.
pub fn steer_weighted(socket: impl AsFd, members: &[(u32, u32)]) -> io::Result<()> {
    attach(socket, pick_by_weight(members).ok_or(io::ErrorKind::InvalidInput)?)
}

fn attach(socket: impl AsFd, mut program: Vec<sock_filter>) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: `program` points to `len` instructions that live until the call is over; the kernel
    // copies them. The length given is that of the structure given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            SIZE_OF_PROGRAM,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(clippy::cast_possible_truncation, reason = "it is 16")]
const SIZE_OF_PROGRAM: libc::socklen_t = size_of::<sock_fprog>() as libc::socklen_t;

/// Lets the kernel's hash choose among all members again. It is no error if nothing was attached.
///
/// # Errors
///
/// `EPERM` where a filter forbids it.
pub fn unsteer(socket: impl AsFd) -> io::Result<()> {
    /// `SO_DETACH_REUSEPORT_BPF`, which libc does not name on every platform.
    const DETACH: libc::c_int = 68;
    let unused: libc::c_int = 0;
    // SAFETY: the value is a number that is not even looked at; its length is given.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, DETACH, (&raw const unused).cast(), 4)
    };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            error => Err(error),
        },
    }
}

/// A program that returns one of the numbers, at random; `None` if there is none or they are too many.
///
/// A random number below their count is looked up in the runs of consecutive numbers:
///
/// ```text
///   A = random; A %= count
///   if A < 2 { return A + 1 }        numbers 1 and 2
///   return A + 3                     numbers 5, 6 and so on
/// ```
fn pick_one_of(indexes: &[u32]) -> Option<Vec<sock_filter>> {
    let count = u32::try_from(indexes.len()).ok().filter(|count| *count > 0)?;
    if !indexes.is_sorted_by(|a, b| a < b) {
        return None;
    }
    let mut program = vec![
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, RANDOM),
        statement(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, count),
    ];
    let mut before: u32 = 0;
    for run in indexes.chunk_by(|a, b| a + 1 == *b) {
        // It is no longer than all of them.
        let length = u32::try_from(run.len()).ok()?;
        let after = before + length;
        if after < count {
            program.push(skip_two_unless_below(after));
        }
        // Ascending numbers are never below their position.
        program.push(statement(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, run[0] - before));
        program.push(statement(libc::BPF_RET | libc::BPF_A, 0));
        before = after;
    }
    (program.len() <= MAX_PROGRAM).then_some(program)
}

/// A program that returns one of the numbers, at random by their weights; `None` if there is none, they
/// are out of order, or are too many.
///
/// Each run of consecutive numbers with one weight has a stretch of the numbers below the sum:
///
/// ```text
///   A = random; A %= sum
///   if A < 6 { A /= 3; return A + 1 }     numbers 1 and 2, three times each
///   A -= 6; A /= 1; return A + 5          numbers 5, 6 and so on, once each
/// ```
fn pick_by_weight(members: &[(u32, u32)]) -> Option<Vec<sock_filter>> {
    let ascend = members.is_sorted_by(|(one, _), (next, _)| one < next);
    let sum = members.iter().try_fold(0_u32, |sum, (_, weight)| sum.checked_add(*weight))?;
    if !ascend || members.iter().any(|(_, weight)| *weight == 0) || sum == 0 {
        return None;
    }
    let mut program = vec![
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, RANDOM),
        statement(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, sum),
    ];
    let mut left = sum;
    for run in members.chunk_by(|(one, of_one), (next, of_next)| one + 1 == *next && of_one == of_next) {
        let (first, weight) = run[0];
        // It is a part of the sum.
        let stretch = u32::try_from(run.len()).ok()? * weight;
        if stretch < left {
            program.push(skip_three_unless_below(stretch));
        }
        program.push(statement(libc::BPF_ALU | libc::BPF_DIV | libc::BPF_K, weight));
        program.push(statement(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, first));
        program.push(statement(libc::BPF_RET | libc::BPF_A, 0));
        if stretch < left {
            program.push(statement(libc::BPF_ALU | libc::BPF_SUB | libc::BPF_K, stretch));
        }
        left -= stretch;
    }
    (program.len() <= MAX_PROGRAM).then_some(program)
}

/// Where a load finds a random number.
#[expect(clippy::cast_sign_loss, reason = "the kernel's offsets of such values are negative")]
const RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;

/// The codes of instructions fit into 16 bits.
#[expect(clippy::cast_possible_truncation, reason = "they are below 0x100")]
const fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

const fn skip_two_unless_below(limit: u32) -> sock_filter {
    let jump = statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, limit);
    sock_filter { jt: 2, jf: 0, ..jump }
}

const fn skip_three_unless_below(limit: u32) -> sock_filter {
    sock_filter { jt: 3, ..skip_two_unless_below(limit) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What a program returns for a random number.
    fn run(program: &[sock_filter], random: u32) -> u32 {
        let mut a = 0;
        let mut at = 0;
        loop {
            let instruction = program[at];
            at += 1;
            match u32::from(instruction.code) {
                0x20 => a = random,
                0x94 => a %= instruction.k,
                0x35 => at += usize::from(if a >= instruction.k { instruction.jt } else { instruction.jf }),
                0x04 => a += instruction.k,
                0x14 => a -= instruction.k,
                0x34 => a /= instruction.k,
                0x16 => return a,
                code => panic!("an unknown instruction {code:#x}"),
            }
        }
    }

    #[track_caller]
    fn check(indexes: &[u32], instructions: usize) {
        let program = pick_one_of(indexes).unwrap();
        assert_eq!(program.len(), instructions, "{indexes:?}");
        let picked: BTreeSet<u32> =
            (0..5 * u32::try_from(indexes.len()).unwrap()).map(|random| run(&program, random)).collect();
        assert!(picked.iter().eq(indexes), "{picked:?} of {indexes:?}");
    }

    #[test]
    fn every_number_is_picked() {
        check(&[0], 4);
        check(&[7], 4);
        check(&[0, 1, 2, 3], 4);
        check(&[1, 2, 5, 6, 7], 7);
        check(&[0, 2, 4, 9], 13);
        let many: Vec<u32> = (0..1000).filter(|number| number % 7 != 0).collect();
        check(&many, 2 + 143 * 3 - 1);
    }

    #[test]
    fn every_number_is_picked_by_its_weight() {
        let check = |members: &[(u32, u32)], instructions: usize| {
            let program = pick_by_weight(members).unwrap();
            assert_eq!(program.len(), instructions, "{members:?}");
            let sum: u32 = members.iter().map(|(_, weight)| weight).sum();
            let picked: Vec<u32> = (0..sum).map(|random| run(&program, random)).collect();
            let expected: Vec<u32> =
                members.iter().flat_map(|(number, weight)| vec![*number; *weight as usize]).collect();
            assert_eq!(picked, expected);
        };
        check(&[(3, 7)], 5);
        check(&[(0, 19), (1, 4), (2, 19), (3, 19)], 15);
        check(&[(1, 3), (2, 3), (5, 1), (6, 1)], 10);
        for bad in [&[][..], &[(0, 0)], &[(1, 1), (0, 1)], &[(0, u32::MAX), (1, 1)]] {
            assert!(pick_by_weight(bad).is_none());
        }
    }

    #[test]
    fn what_cannot_be_programmed() {
        assert!(pick_one_of(&[]).is_none());
        assert!(pick_one_of(&[2, 1]).is_none());
        assert!(pick_one_of(&[1, 1]).is_none());
        let apart: Vec<u32> = (0..2000).map(|number| number * 2).collect();
        assert!(pick_one_of(&apart[..1365]).is_some());
        assert!(pick_one_of(&apart[..1366]).is_none());
    }
}
