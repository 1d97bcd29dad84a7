//! What the machine gives: on one that has nothing to spare, times mean little.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::{World, locked};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// From which share on that the host takes the story says so, in percent.
const MUCH: u64 = 25;

/// How much of the CPUs' time the host of a virtual machine took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Machine {
    total: Times,
    /// The largest share that was taken in one look, in percent.
    most: u64,
}

/// In ticks of all CPUs: the first line of `/proc/stat`, `proc_stat(5)`.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    all: u64,
    stolen: u64,
}

impl Times {
    fn parse(text: &str) -> Option<Self> {
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are in the first two.
        let mut fields = text.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
        let mut times = Self::default();
        for place in 0..8 {
            let ticks: u64 = fields.next()?.parse().ok()?;
            times.all += ticks;
            if place == 7 {
                times.stolen = ticks;
            }
        }
        Some(times)
    }

    fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn since(self, before: Self) -> Self {
        Self { all: self.all.saturating_sub(before.all), stolen: self.stolen.saturating_sub(before.stolen) }
    }

    fn percent(self) -> u64 {
        (self.stolen * 100).checked_div(self.all).unwrap_or_default()
    }
}

impl Machine {
    /// Looks until the run is over.
    pub(crate) fn watch(world: &World) {
        let Some(first) = Times::now() else { return };
        let mut last = first;
        while !world.is_over() {
            sleep(LOOK);
            let Some(now) = Times::now() else { return };
            let percent = now.since(last).percent();
            if percent >= MUCH {
                world.story.tell(format_args!("the host takes {percent} % of the CPUs' time"));
            }
            let mut machine = locked(&world.machine);
            machine.most = machine.most.max(percent);
            machine.total = now.since(first);
            last = now;
        }
    }
}

impl Display for Machine {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "the host took {} % of the CPUs' time, at most {} % in a second",
            self.total.percent(),
            self.most
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_takes() {
        let parse = |text: &str| Times::parse(text).map(|times| (times.all, times.stolen));
        assert_eq!(parse("cpu  1 2 3 4 5 6 7 8 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n"), Some((36, 8)));
        assert_eq!(parse("cpu  1 2 3\n"), None);
        assert_eq!(parse(""), None);
        let before = Times { all: 1_000, stolen: 100 };
        assert_eq!(Times { all: 1_400, stolen: 200 }.since(before).percent(), 25);
        assert_eq!(before.since(before).percent(), 0);
    }
}
