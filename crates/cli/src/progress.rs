//! An order's answer while it arrives: what each app is at, a line for each
//! step, and the cause of a failure.

use std::collections::{BTreeMap, BTreeSet};

use supervisor_protocol::control::{Change, Failure, Progress, Step, WorkerState};

use crate::render::style::{BAD, GOOD, STRONG, paint, worker_state};
use crate::render::text::{count, one_line};

/// What the lines of an answer add up to. Steps in between may be missing when
/// the reader was slow, so the end does not depend on them.
#[derive(Debug)]
pub(crate) struct Tracker {
    apps: BTreeMap<String, Course>,
    whole: bool,
    color: bool,
    /// The slots that the order names, if it names nothing else.
    named: BTreeMap<String, BTreeSet<u32>>,
}

/// One app in the course of an order.
#[derive(Debug)]
struct Course {
    change: Change,
    instances: u32,
    slots: BTreeMap<u32, WorkerState>,
    /// How far its reload is, where the daemon tells.
    step: Option<String>,
    failed: bool,
    rolled_back: bool,
}

impl Course {
    /// Whether workers were started and have all ended as they may, as those
    /// of a job do.
    fn has_finished(&self) -> bool {
        let starts =
            matches!(self.change, Change::Created | Change::Changed | Change::Started | Change::Restarted);
        let all_known = u32::try_from(self.slots.len()).is_ok_and(|known| known >= self.instances.max(1));
        starts && all_known && self.slots.values().all(|state| *state == WorkerState::Stopped)
    }
}

/// What there is to tell after a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// An app is part of the order.
    App(String),
    /// Something happened in an app, told by a line.
    Step {
        /// The app.
        app: String,
        /// `web:2 ready`
        text: String,
    },
    /// The order failed for an app; the text has several lines.
    Failed {
        /// The app.
        app: String,
        /// The cause, and the worker's last lines.
        text: String,
    },
    /// The order is over, with this code.
    Done(u8),
}

impl Tracker {
    /// Nothing has arrived. `whole` says that the order is about all apps, so
    /// that those which it leaves out are worth a word.
    pub(crate) const fn new(whole: bool, color: bool) -> Tracker {
        Tracker { apps: BTreeMap::new(), whole, color, named: BTreeMap::new() }
    }

    /// The same for an order with these selectors: where all of them are
    /// slots, the outcome tells of slots, not of apps.
    pub(crate) fn of_slots(mut self, selectors: &[String]) -> Tracker {
        let slot = |selector: &String| {
            let (app, slot) = selector.rsplit_once(':')?;
            Some((app.to_owned(), slot.parse::<u32>().ok()?))
        };
        let slots: Option<Vec<(String, u32)>> = selectors.iter().map(slot).collect();
        for (app, slot) in slots.unwrap_or_default() {
            self.named.entry(app).or_default().insert(slot);
        }
        self
    }

    /// Notes a line of the answer; `None` if there is nothing to tell.
    pub(crate) fn note(&mut self, progress: Progress) -> Option<News> {
        Some(match progress {
            Progress::App { change: Change::Missing, .. } if !self.whole => return None,
            Progress::App { app, change, instances } => {
                let course = Course {
                    change,
                    instances,
                    slots: BTreeMap::new(),
                    step: None,
                    failed: false,
                    rolled_back: false,
                };
                self.apps.insert(app.clone(), course);
                News::App(app)
            }
            Progress::Worker { app, slot, state, detail } => {
                if let Some(course) = self.apps.get_mut(&app) {
                    course.slots.insert(slot, state);
                }
                let text = self.step(&app, slot, state, &detail);
                News::Step { app, text }
            }
            Progress::Step(Step { app, detail, .. }) => {
                let detail = one_line(&detail);
                let text = format!("{} {detail}", paint(one_line(&app), STRONG, self.color));
                if let Some(course) = self.apps.get_mut(&app) {
                    course.step = Some(detail);
                }
                News::Step { app, text }
            }
            Progress::Failed(failure) => {
                if let Some(course) = self.apps.get_mut(&failure.app) {
                    course.failed = true;
                    course.rolled_back = failure.rolled_back;
                }
                let text = self.failure(&failure);
                News::Failed { app: failure.app, text }
            }
            Progress::Done { exit_code } => News::Done(exit_code),
        })
    }

    /// The apps of the order, by name.
    pub(crate) fn apps(&self) -> impl Iterator<Item = &str> {
        self.apps.keys().map(String::as_str)
    }

    /// Whether the order asks for workers of an app that failed: the daemon
    /// goes on trying to start them.
    pub(crate) fn has_failed_start(&self) -> bool {
        self.apps.values().any(|course| course.failed && !course.rolled_back && starts_workers(course.change))
    }

    /// The new apps that failed, which a person may want to be rid of.
    pub(crate) fn failed_new(&self) -> impl Iterator<Item = &str> {
        let failed = |course: &Course| course.failed && course.change == Change::Created;
        self.apps.iter().filter(move |(_, course)| failed(course)).map(|(app, _)| app.as_str())
    }

    /// `web: start ordered, 4 workers`: what the daemon is about to do.
    pub(crate) fn ordered(&self, app: &str) -> String {
        let Some(course) = self.apps.get(app) else { return String::new() };
        let what = match course.change {
            Change::Created | Change::Started => "start",
            Change::Changed => "change",
            Change::Stopped => "stop",
            Change::Restarted => "restart",
            Change::Reloaded => "reload",
            Change::Deleted => "delete",
            Change::Scaled => "scale",
            Change::Aborted => "abort of the reload",
            Change::Unchanged | Change::Missing => return self.outcome(app),
        };
        let workers = count(u64::from(course.instances), "worker");
        format!("{}: {what} ordered, {workers}", self.title(app))
    }

    /// `web`, or `web:1, web:2` for an order that is about these slots.
    fn title(&self, app: &str) -> String {
        let name = one_line(app);
        let title = match self.named.get(app) {
            Some(slots) => slots.iter().map(|slot| format!("{name}:{slot}")).collect::<Vec<_>>().join(", "),
            None => name,
        };
        paint(title, STRONG, self.color)
    }

    /// `web 3/4 ready`: where an app is while the order is under way.
    pub(crate) fn current(&self, app: &str) -> String {
        let Some(course) = self.apps.get(app) else { return String::new() };
        if course.failed {
            return self.outcome(app);
        }
        let name = paint(one_line(app), STRONG, self.color);
        let among = |state| course.slots.values().filter(|known| **known == state).count();
        match course.change {
            Change::Unchanged | Change::Missing => self.outcome(app),
            Change::Stopped | Change::Deleted => {
                format!("{name} stopping, {} stopped", among(WorkerState::Stopped))
            }
            // Of a smaller app only the workers that go are heard of.
            Change::Scaled => format!("{name} scaling to {}", course.instances),
            Change::Aborted => format!("{name} going back"),
            Change::Changed | Change::Reloaded if let Some(step) = &course.step => {
                format!("{name} reloading, {step}")
            }
            // The old ones serve on meanwhile.
            Change::Changed | Change::Reloaded => {
                format!("{name} reloading, {} of {} replaced", among(WorkerState::Ready), course.instances)
            }
            Change::Created | Change::Started | Change::Restarted => {
                format!("{name} {}/{} ready", among(WorkerState::Ready), course.instances)
            }
        }
    }

    /// `web started, 4 workers ready`: what became of an app once the order is
    /// over.
    pub(crate) fn outcome(&self, app: &str) -> String {
        let Some(course) = self.apps.get(app) else { return String::new() };
        let name = self.title(app);
        if course.failed {
            let how = if course.rolled_back { "rolled back" } else { "failed" };
            return format!("{name} {}", paint(how, BAD, self.color));
        }
        let good = |text: &str| paint(text, GOOD, self.color);
        let workers = count(u64::from(course.instances), "worker");
        if course.instances == 0 && course.change == Change::Started {
            return format!("{name} has no slots: `supervisor scale {} 1` gives it one", one_line(app));
        }
        if course.has_finished() {
            return format!("{name} {}", good("has finished"));
        }
        match course.change {
            Change::Created if course.instances == 0 => format!("{name} declared, not started"),
            Change::Created => format!("{name} {}, {workers} ready", good("started")),
            Change::Changed => format!("{name} {}, {workers} ready", good("changed")),
            // An order may be for some of the slots only.
            Change::Started => format!("{name} {}", good("started")),
            Change::Restarted => format!("{name} {}", good("restarted")),
            Change::Reloaded => format!("{name} {}, {workers} ready", good("reloaded")),
            Change::Scaled => format!("{name} {} to {workers}", good("scaled")),
            Change::Stopped => format!("{name} {}", good("stopped")),
            Change::Deleted => format!("{name} {}", good("deleted")),
            Change::Aborted => format!("{name} {}, the old version serves", good("reload aborted")),
            Change::Unchanged => format!("{name} unchanged"),
            Change::Missing => {
                format!(
                    "{name} is declared but no longer in this file: it stays as it is (--prune deletes it)"
                )
            }
        }
    }

    fn step(&self, app: &str, slot: u32, state: WorkerState, detail: &str) -> String {
        let (name, style) = worker_state(state);
        let detail = one_line(detail);
        // Details are sentences of their own, and often begin with the state.
        let rest = match detail.strip_prefix(name) {
            Some(rest) if rest.is_empty() || rest.starts_with(' ') => rest.to_owned(),
            _ if detail.is_empty() => String::new(),
            _ => format!(": {detail}"),
        };
        format!("{}:{slot} {}{rest}", one_line(app), paint(name, style, self.color))
    }

    fn failure(&self, failure: &Failure) -> String {
        let slot = failure.slot.map(|slot| format!(":{slot}")).unwrap_or_default();
        let failed = paint("failed", BAD, self.color);
        let mut text = format!("{}{slot} {failed}: {}", one_line(&failure.app), one_line(&failure.reason));
        for line in &failure.last_lines {
            text.push_str("\n    ");
            text.push_str(&one_line(line));
        }
        text
    }
}

/// Whether workers are to be ready in the end.
const fn starts_workers(change: Change) -> bool {
    match change {
        Change::Created
        | Change::Changed
        | Change::Started
        | Change::Restarted
        | Change::Reloaded
        | Change::Scaled => true,
        Change::Unchanged | Change::Missing | Change::Stopped | Change::Deleted | Change::Aborted => false,
    }
}

#[cfg(test)]
mod tests {
    use supervisor_protocol::control::StepKind;

    use super::*;

    fn app(name: &str, change: Change) -> Progress {
        Progress::App { app: name.to_owned(), change, instances: 2 }
    }

    fn worker(slot: u32, state: WorkerState, detail: &str) -> Progress {
        Progress::Worker { app: "web".to_owned(), slot, state, detail: detail.to_owned() }
    }

    #[test]
    fn a_start_counts_ready_workers() {
        let mut tracker = Tracker::new(true, false);
        assert_eq!(tracker.note(app("web", Change::Created)), Some(News::App("web".to_owned())));
        assert_eq!(tracker.current("web"), "web 0/2 ready");
        let step = |text: &str| Some(News::Step { app: "web".to_owned(), text: text.to_owned() });
        assert_eq!(tracker.note(worker(0, WorkerState::Starting, "starting")), step("web:0 starting"));
        assert_eq!(tracker.note(worker(0, WorkerState::Ready, "")), step("web:0 ready"));
        let crash = worker(0, WorkerState::Backoff, "exited with\tcode 1\n");
        let ready = worker(1, WorkerState::Ready, "ready after 1s");
        assert_eq!(tracker.note(ready), step("web:1 ready after 1s"));
        assert_eq!(tracker.current("web"), "web 2/2 ready");
        assert_eq!(tracker.note(crash), step("web:0 backoff: exited with code 1"));
        assert_eq!(tracker.current("web"), "web 1/2 ready");
        assert_eq!(tracker.note(Progress::Done { exit_code: 0 }), Some(News::Done(0)));
        assert_eq!(tracker.outcome("web"), "web started, 2 workers ready");
        assert!(!tracker.has_failed_start());
    }

    #[test]
    fn a_failure_shows_the_last_lines() {
        let mut tracker = Tracker::new(true, false);
        tracker.note(app("web", Change::Changed));
        let news = tracker.note(Progress::Failed(Failure {
            app: "web".to_owned(),
            slot: Some(2),
            reason: "exec /x/nodee: no such file or directory".to_owned(),
            last_lines: vec!["one".to_owned(), "\x1b[31mtwo".to_owned()],
            rolled_back: false,
        }));
        let text = "web:2 failed: exec /x/nodee: no such file or directory\n    one\n    two".to_owned();
        assert_eq!(news, Some(News::Failed { app: "web".to_owned(), text }));
        assert_eq!(tracker.outcome("web"), "web failed");
        assert!(tracker.has_failed_start());
    }

    #[test]
    fn every_change_has_its_words() {
        let check = |change, current: &str, outcome: &str| {
            let mut tracker = Tracker::new(true, false);
            tracker.note(app("web", change));
            assert_eq!(tracker.current("web"), current);
            assert_eq!(tracker.outcome("web"), outcome);
        };
        let missing = "web is declared but no longer in this file: it stays as it is (--prune deletes it)";
        check(Change::Created, "web 0/2 ready", "web started, 2 workers ready");
        check(Change::Changed, "web reloading, 0 of 2 replaced", "web changed, 2 workers ready");
        check(Change::Unchanged, "web unchanged", "web unchanged");
        check(Change::Missing, missing, missing);
        check(Change::Started, "web 0/2 ready", "web started");
        check(Change::Stopped, "web stopping, 0 stopped", "web stopped");
        check(Change::Restarted, "web 0/2 ready", "web restarted");
        check(Change::Reloaded, "web reloading, 0 of 2 replaced", "web reloaded, 2 workers ready");
        check(Change::Deleted, "web stopping, 0 stopped", "web deleted");
        check(Change::Scaled, "web scaling to 2", "web scaled to 2 workers");
        check(Change::Aborted, "web going back", "web reload aborted, the old version serves");
    }

    #[test]
    fn a_step_is_shown_until_the_next() {
        let mut tracker = Tracker::new(false, false);
        tracker.note(app("web", Change::Changed));
        let step = Step {
            app: "web".to_owned(),
            step: StepKind::Holding,
            share_percent: Some(25),
            workers: Some(1),
            of: Some(2),
            hold_s: Some(30.0),
            detail: "canary 25 %: 1 of 2 workers, holding 30s".to_owned(),
        };
        let text = "web canary 25 %: 1 of 2 workers, holding 30s".to_owned();
        let told = tracker.note(Progress::Step(step));
        assert_eq!(told, Some(News::Step { app: "web".to_owned(), text }));
        assert_eq!(tracker.current("web"), "web reloading, canary 25 %: 1 of 2 workers, holding 30s");
    }

    #[test]
    fn a_job_has_finished() {
        let mut tracker = Tracker::new(true, false);
        tracker.note(app("web", Change::Created));
        tracker.note(worker(0, WorkerState::Ready, ""));
        tracker.note(worker(0, WorkerState::Stopped, "exited with code 0"));
        assert_eq!(tracker.outcome("web"), "web started, 2 workers ready");
        tracker.note(worker(1, WorkerState::Stopped, "exited with code 0"));
        assert_eq!(tracker.outcome("web"), "web has finished");
    }

    #[test]
    fn an_order_for_slots_tells_of_slots() {
        let outcome = |selectors: &[&str]| {
            let selectors: Vec<String> = selectors.iter().map(|text| (*text).to_owned()).collect();
            let mut tracker = Tracker::new(false, false).of_slots(&selectors);
            tracker.note(app("web", Change::Stopped));
            tracker.outcome("web")
        };
        assert_eq!(outcome(&["web:1"]), "web:1 stopped");
        assert_eq!(outcome(&["web:2", "web:1"]), "web:1, web:2 stopped");
        assert_eq!(outcome(&["web:1", "all"]), "web stopped");
        assert_eq!(outcome(&["web"]), "web stopped");
    }

    #[test]
    fn an_app_without_slots_cannot_be_started() {
        let mut tracker = Tracker::new(false, false);
        tracker.note(Progress::App { app: "web".to_owned(), change: Change::Started, instances: 0 });
        assert_eq!(tracker.outcome("web"), "web has no slots: `supervisor scale web 1` gives it one");
    }

    #[test]
    fn an_order_for_some_apps_is_silent_about_the_others() {
        let mut tracker = Tracker::new(false, false);
        assert_eq!(tracker.note(app("web", Change::Missing)), None);
        assert_eq!(tracker.apps().count(), 0);
    }

    #[test]
    fn steps_of_unknown_apps_are_told_all_the_same() {
        let mut tracker = Tracker::new(true, false);
        let news = tracker.note(worker(0, WorkerState::Stopping, ""));
        assert_eq!(news, Some(News::Step { app: "web".to_owned(), text: "web:0 stopping".to_owned() }));
        assert_eq!(tracker.current("web"), "");
    }
}
