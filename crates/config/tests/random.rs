//! Whatever a file holds, it is read or refused, and shown without a panic.

use std::collections::BTreeMap;

use supervisor_config::{Context, EXAMPLE, Format, Source};

const SEED: u64 = 0x5eed;
const ROUNDS: usize = 3000;

/// What files are made of, so that they get past the first character.
const PIECES: &[&str] = &[
    "apps:",
    "apps",
    "[[apps]]",
    "[apps.env]",
    "\n",
    "\n  ",
    "\n    ",
    "\n- ",
    "  - ",
    "- ",
    "\t",
    "\r\n",
    " ",
    ": ",
    ":",
    " = ",
    ",",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "\\",
    "\\u12",
    "#",
    "//",
    "/*",
    "*/",
    "&a",
    "*a",
    "<<",
    "!",
    "!!str ",
    "|",
    ">",
    "---",
    "%",
    "~",
    "null",
    "true",
    "no",
    "0",
    "-1",
    "1.5",
    "0x1F",
    "0022",
    "1e9",
    "99999999999999999999",
    ".inf",
    "10s",
    "1h30m",
    "1G",
    "8080",
    "[::1]:80",
    "unix:/a",
    "name",
    "command",
    "script",
    "args",
    "env",
    "env_x",
    "listen",
    "limits",
    "nofile",
    "instances",
    "umask",
    "kill_signal",
    "ready",
    "user",
    "node",
    "a b",
    "$HOME",
    "é",
    "😀",
    "\u{2028}",
    "\u{feff}",
    "\0",
    "\u{1b}[31m",
    "...",
    "?",
    "killTimeout",
    "watch",
];

/// `xorshift64*`: the same run for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap_or(0) % limit
    }
}

fn read(text: &str) {
    let context =
        Context { base_dir: "/srv".into(), caller_env: BTreeMap::new(), env_name: None, usable_cpus: 4 };
    for format in [Format::Yaml, Format::Json, Format::Toml] {
        let source = Source { path: "file".into(), text: text.to_owned(), format };
        match supervisor_config::load(&source, &context) {
            Ok(loaded) => loaded.warnings.iter().for_each(|warning| drop(warning.render(false))),
            Err(errors) => {
                let shown = errors.render(false);
                assert!(!shown.contains('\u{1b}'), "seed {SEED}: {text:?} steers the terminal: {shown:?}");
            }
        }
    }
}

#[test]
fn pieces_of_files() {
    let mut random = Random(SEED);
    for _ in 0..ROUNDS {
        let length = random.below(40);
        let text: String = (0..length).map(|_| PIECES[random.below(PIECES.len())]).collect();
        read(&text);
    }
}

#[test]
fn bytes() {
    let mut random = Random(SEED);
    for _ in 0..ROUNDS {
        let length = random.below(64);
        let bytes: Vec<u8> = (0..length).filter_map(|_| u8::try_from(random.below(256)).ok()).collect();
        read(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn a_good_file_with_wrong_places() {
    let mut random = Random(SEED);
    for _ in 0..ROUNDS {
        let mut text: Vec<char> = EXAMPLE
            .lines()
            .filter(|line| !line.contains("# "))
            .flat_map(|line| line.chars().chain(['\n']))
            .collect();
        for _ in 0..=random.below(4) {
            let place = random.below(text.len());
            let piece = PIECES[random.below(PIECES.len())].chars();
            text.splice(place..(place + random.below(3)).min(text.len()), piece);
        }
        read(&text.iter().collect::<String>());
    }
}
