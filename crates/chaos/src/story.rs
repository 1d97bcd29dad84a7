//! What was done when: for the reader, and for those who judge what followed.

use std::collections::HashSet;
use std::fmt::{self, Display};
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::locked;

/// Milliseconds since 1970: workers note them, too.
pub(crate) type Moment = u64;

/// How long before the death of a master that may have been written or sent which is lost with it.
const UNDER_WAY: Moment = 1_500;
/// How long after trouble things may still be lost by it: writing is tried again each second.
const AFTERMATH: Moment = 2_500;

/// The time.
pub(crate) fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(Moment::MAX)
}

/// What may explain that something is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A worker was struck, or stands still.
    Worker,
    /// A worker stands still for longer than it would be drained.
    Still,
    /// There is no master, or it stands still.
    Master,
    /// The keeper stands still.
    Keeper,
    /// The keeper was killed, and the master is about to be the keeper.
    KeeperDeath,
    /// Nobody can fork.
    Forks,
    /// No descriptors are left.
    Descriptors,
    /// No space is left.
    Disk,
    /// A worker sends more than its siblings may be able to take.
    Flood,
    /// Nobody is to serve the app.
    Nobody,
}

/// A time of trouble.
#[derive(Debug)]
struct Span {
    trouble: Trouble,
    app: Option<&'static str>,
    begin: Moment,
    /// `None`: it goes on.
    end: Option<Moment>,
}

impl Span {
    /// Whether some of it was between two times.
    fn is_within(&self, from: Moment, to: Moment) -> bool {
        self.begin <= to && self.end.is_none_or(|end| end >= from)
    }
}

/// A worker that was struck, and the clients whose connections it had accepted.
#[derive(Debug)]
pub(crate) struct Strike {
    pub(crate) at: Moment,
    pub(crate) peers: HashSet<SocketAddr>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Story {
    begin: Moment,
    lines: Mutex<Vec<String>>,
    file: Mutex<File>,
    spans: Mutex<Vec<Span>>,
    strikes: Mutex<Vec<Strike>>,
}

impl Story {
    /// One that begins now, and is also written to a file.
    pub(crate) fn new(file: &Path) -> Result<Self> {
        Ok(Self {
            begin: now(),
            lines: Mutex::default(),
            file: Mutex::new(File::create(file)?),
            spans: Mutex::default(),
            strikes: Mutex::default(),
        })
    }

    /// Notes what was done or seen.
    pub(crate) fn tell(&self, what: impl Display) {
        let line = format!("{:>10} {what}", self.since_begin(now()));
        // The story in memory is what counts.
        let _ = writeln!(locked(&self.file), "{line}");
        locked(&self.lines).push(line);
    }

    /// A time as the story shows it.
    pub(crate) fn since_begin(&self, moment: Moment) -> impl Display + use<> {
        let millis = moment.saturating_sub(self.begin);
        fmt::from_fn(move |formatter| formatter.pad(&format!("{}.{:03} s", millis / 1000, millis % 1000)))
    }

    /// The last lines.
    pub(crate) fn last(&self, lines: usize) -> String {
        let all = locked(&self.lines);
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Trouble begins. Returns what [`Self::over`] wants.
    pub(crate) fn trouble(&self, trouble: Trouble, app: Option<&'static str>) -> usize {
        let mut spans = locked(&self.spans);
        spans.push(Span { trouble, app, begin: now(), end: None });
        spans.len() - 1
    }

    /// It is over.
    pub(crate) fn over(&self, number: usize) {
        if let Some(span) = locked(&self.spans).get_mut(number) {
            span.end = Some(now());
        }
    }

    /// Whether there was such trouble, for this app or all, between two times.
    pub(crate) fn was(&self, trouble: Trouble, app: Option<&str>, from: Moment, to: Moment) -> bool {
        let is_for = |span: &Span| span.app.is_none() || app.is_none() || span.app == app;
        locked(&self.spans)
            .iter()
            .any(|span| span.trouble == trouble && is_for(span) && span.is_within(from, to))
    }

    /// Whether all the time between two moments is one of such troubles, each for its app or for all: with what
    /// was on its way when it began, and what was not well at once when it was over.
    pub(crate) fn covers(&self, troubles: &[(Trouble, Option<&str>)], from: Moment, to: Moment) -> bool {
        let mut until = from;
        for span in locked(&self.spans).iter() {
            let is_meant =
                troubles.contains(&(span.trouble, None)) || troubles.contains(&(span.trouble, span.app));
            // They are in the order of their beginnings.
            if is_meant && span.begin.saturating_sub(UNDER_WAY) <= until {
                until = until.max(span.end.map_or(Moment::MAX, |end| end.saturating_add(AFTERMATH)));
            }
        }
        until >= to
    }

    /// Whether there was a lack between two times, and since its beginning trouble that it kept from being
    /// mended.
    pub(crate) fn was_lacking(
        &self,
        lack: Trouble,
        trouble: Trouble,
        app: &str,
        from: Moment,
        to: Moment,
    ) -> bool {
        let spans = locked(&self.spans);
        let mut lacks = spans.iter().filter(|span| span.trouble == lack && span.is_within(from, to));
        lacks.any(|lack| {
            let is_kept = |span: &&Span| span.trouble == trouble && span.is_within(lack.begin, to);
            spans.iter().filter(is_kept).any(|span| span.app == Some(app))
        })
    }

    /// How often there was such trouble between two times.
    pub(crate) fn count(&self, trouble: Trouble, from: Moment, to: Moment) -> usize {
        let spans = locked(&self.spans);
        spans.iter().filter(|span| span.trouble == trouble && span.is_within(from, to)).count()
    }

    /// A worker is about to be struck.
    pub(crate) fn strike(&self, strike: Strike) {
        locked(&self.strikes).push(strike);
    }

    /// Whether this client's connection had been accepted by a worker that was struck, between two times.
    pub(crate) fn was_struck(&self, client: SocketAddr, from: Moment, to: Moment) -> bool {
        let strikes = locked(&self.strikes);
        strikes.iter().any(|strike| (from..=to).contains(&strike.at) && strike.peers.contains(&client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_trouble_does_not_cover_a_long_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let story = Story::new(file.path()).unwrap();
        let span = |trouble, app, begin, end| Span { trouble, app, begin, end: Some(end) };
        locked(&story.spans).extend([
            span(Trouble::Master, None, 100_000, 100_200),
            span(Trouble::Worker, Some("web"), 102_000, 110_000),
            span(Trouble::Master, None, 112_000, 112_100),
            span(Trouble::Disk, None, 115_000, 116_000),
        ]);
        let masters = |from, to| story.covers(&[(Trouble::Master, None)], from, to);
        assert!(masters(99_000, 102_000));
        assert!(!masters(98_000, 102_000), "nothing was under way so early");
        assert!(!masters(99_000, 104_000), "it was well again");
        assert!(!masters(99_000, 113_000), "not between them");

        let both =
            |app| story.covers(&[(Trouble::Master, None), (Trouble::Worker, Some(app))], 99_000, 114_000);
        assert!(both("web"));
        assert!(!both("other"));

        story.trouble(Trouble::Forks, None);
        assert!(story.covers(&[(Trouble::Forks, None)], now(), now() + 60_000), "it goes on");
    }
}
