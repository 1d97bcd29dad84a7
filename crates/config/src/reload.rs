//! How a reload goes about it: `reload: all`,
//! `reload: {mode: canary, steps: [10%, 50%, 100%], hold: 1m}`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::app::millis;
use crate::fields::{Fields, unknown_key};
use crate::report::Problem;
use crate::tree::{Entry, Node, Value};
use crate::value::{duration, expected, one_of, whole};

/// The shares of connections that canaries get, in percent.
const STEPS: [u32; 3] = [5, 25, 100];
/// How long each is kept.
const HOLD: Duration = Duration::from_secs(30);
/// The most steps there may be: one for each percent.
const MAX_STEPS: usize = 100;

/// How new workers take the place of old ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Reload {
    /// Slot by slot.
    #[default]
    Rolling,
    /// All at once, when all are ready and stable.
    All,
    /// As `All`, after they have had shares of the new connections.
    Canary {
        /// In percent, ascending, the last one 100; never empty.
        steps: Vec<u32>,
        /// How long each but the last is kept.
        #[serde(with = "millis")]
        hold: Duration,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Rolling,
    All,
    Canary,
}

const MODES: [(&str, Mode); 3] = [("rolling", Mode::Rolling), ("all", Mode::All), ("canary", Mode::Canary)];

impl Reload {
    /// Whether steps ascend to 100, as a file's always do.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Rolling | Self::All => true,
            Self::Canary { steps, hold: _ } => {
                steps.first() > Some(&0)
                    && steps.last() == Some(&100)
                    && steps.is_sorted_by(|one, next| one < next)
            }
        }
    }
}

/// `max_surge` is what holds for the app.
pub(crate) fn read(fields: &mut Fields<'_, '_, '_>, max_surge: u32) -> Reload {
    let Some(entry) = fields.given("reload") else { return Reload::Rolling };
    let Some(reload) = value(entry, fields) else { return Reload::Rolling };
    if reload != Reload::Rolling && max_surge == 0 {
        let problem = Problem::new("needs old and new workers side by side, and `max_surge` is 0");
        let help = "use `rolling`, or say how two can live side by side: `listen`, `exec_mode: cluster` or `max_surge`";
        fields.wrong(entry, &entry.value, problem.help(help));
    }
    reload
}

/// `None` when it is wrong, which has been said.
fn value(entry: &Entry, fields: &mut Fields<'_, '_, '_>) -> Option<Reload> {
    let Value::Map(given) = &entry.value.value else {
        let short = |node: &Node| {
            one_of(&MODES)(node)
                .map_err(|problem| problem.help("or a mapping with `mode`, `steps` and `hold`"))
        };
        return Some(named(fields.optional("reload", short)?, STEPS.to_vec(), HOLD));
    };
    let (mut mode, mut steps, mut hold) = (None, None, None);
    let mut right = true;
    for part in given {
        let problem = match part.key.as_str() {
            "mode" => one_of(&MODES)(&part.value).map(|read| mode = Some(read)).err(),
            "steps" => shares(&part.value).map(|read| steps = Some(read)).err(),
            "hold" => duration(&part.value).map(|read| hold = Some(read)).err(),
            _ => {
                unknown_key(part, ["mode", "steps", "hold"].into_iter(), fields.report);
                right = false;
                None
            }
        };
        if let Some(problem) = problem {
            fields.wrong(part, &part.value, problem);
            right = false;
        }
    }
    if !right {
        return None;
    }
    let Some(mode) = mode else {
        fields.wrong(entry, &entry.value, Problem::new("has no `mode`").help("add `mode: canary`"));
        return None;
    };
    let only_canary = given.iter().find(|part| part.key != "mode");
    if let (Mode::Rolling | Mode::All, Some(part)) = (mode, only_canary) {
        let problem = Problem::new("goes with `mode: canary` only");
        fields.wrong(part, &part.value, problem);
        return None;
    }
    Some(named(mode, steps.unwrap_or_else(|| STEPS.to_vec()), hold.unwrap_or(HOLD)))
}

fn named(mode: Mode, steps: Vec<u32>, hold: Duration) -> Reload {
    match mode {
        Mode::Rolling => Reload::Rolling,
        Mode::All => Reload::All,
        Mode::Canary => Reload::Canary { steps, hold },
    }
}

/// `[5%, 25%, 100%]`
fn shares(node: &Node) -> Result<Vec<u32>, Problem> {
    let list = || expected("a list of shares such as `[5%, 25%, 100%]`", node);
    let Value::List(nodes) = &node.value else { return Err(list()) };
    if nodes.len() > MAX_STEPS {
        return Err(Problem::new(format!("must have at most {MAX_STEPS} steps")));
    }
    let steps = nodes.iter().map(share).collect::<Result<Vec<u32>, Problem>>()?;
    if let Some(pair) = steps.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(Problem::new(format!("must ascend: {}% comes before {}%", pair[0], pair[1])));
    }
    match steps.last() {
        Some(100) => Ok(steps),
        Some(_) => Err(Problem::new("must end with 100%: then the new workers take over")),
        None => Err(list()),
    }
}

fn share(node: &Node) -> Result<u32, Problem> {
    let problem = || expected("shares from 1% to 100%", node);
    let number = match &node.value {
        Value::Text(text) => text.strip_suffix('%').ok_or_else(problem)?,
        Value::Number(number) => return Err(problem().help(format!("write `{number}%`"))),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => return Err(problem()),
    };
    whole::<u32>(number).filter(|share| (1..=100).contains(share)).ok_or_else(problem)
}
