//! What the corpora have, on any toolchain: each crate's tests include this file.
//! `SUPERVISOR_FUZZ_SECONDS=N` has each target try that much longer what comes of it
//! by chance.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;

/// What numbers and texts break at.
const EDGES: &[&str] =
    &["-1", "0", "255", "65536", "4294967295", "18446744073709551615", "1e999", "\"", "\\", "null"];

/// Lets a target see all that is kept for it. What breaks it is put into
/// `fuzz/artifacts`.
pub(crate) fn replay(target: &str, check: impl Fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|folder| folder.join("fuzz").is_dir());
    let fuzz = root.expect("the folder of the project").join("fuzz");
    let folder = fuzz.join("corpus").join(target);
    let files = fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("a file").path());
    let corpus: Vec<Vec<u8>> = files.map(|path| fs::read(path).expect("a file")).collect();
    assert!(!corpus.is_empty(), "{} is empty", folder.display());
    let attempt = |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
            let artifacts = fuzz.join("artifacts").join(target);
            let artifact = artifacts.join(format!("replay-{:016x}", hash(input)));
            let written = fs::create_dir_all(&artifacts).and_then(|()| fs::write(&artifact, input));
            eprintln!("{target} is broken by {}: {written:?}", artifact.display());
            resume_unwind(panic);
        }
    };
    corpus.iter().for_each(|input| attempt(input));

    let seconds = std::env::var("SUPERVISOR_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
    // The same ones each time: a change is judged by what it changes.
    let (mut random, mut tries) = (Rng::with_seed(hash(target.as_bytes())), 0);
    while Instant::now() < until {
        attempt(&changed(&corpus, &mut random));
        tries += 1;
    }
    eprintln!("{target}: {} inputs, and {tries} that came of them", corpus.len());
}

/// One of these with a few changes.
fn changed(corpus: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let mut input = corpus[random.usize(..corpus.len())].clone();
    for _ in 0..random.usize(1..6) {
        let from = random.usize(..=input.len());
        let to = random.usize(from..=input.len().min(from + 16));
        match random.u8(..6) {
            0 => input[from..to].iter_mut().for_each(|byte| *byte = random.u8(..)),
            1 => drop(input.drain(from..to)),
            2 => {
                let again = input[from..to].to_vec();
                input.splice(to..to, again);
            }
            3 => drop(input.splice(from..to, EDGES[random.usize(..EDGES.len())].bytes())),
            4 => {
                let digits = input[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                input.splice(from..from + digits, EDGES[random.usize(..EDGES.len())].bytes());
            }
            _ => {
                let other = &corpus[random.usize(..corpus.len())];
                let start = random.usize(..=other.len());
                input.truncate(from);
                input.extend_from_slice(&other[start..]);
            }
        }
    }
    input
}

/// FNV-1a: a name for an input.
fn hash(input: &[u8]) -> u64 {
    input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
