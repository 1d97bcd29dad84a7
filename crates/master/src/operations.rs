//! The people who wait for orders: what happens to their apps is told to them,
//! and in the end the exit code.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use supervisor_core::{AppId, OperationId};
use supervisor_protocol::control::{Change, Failure, Progress};
use tokio::sync::{mpsc, oneshot};

/// Lines that wait for a slow reader before steps in between are left out.
const LINES: usize = 256;

/// A line of an order's answer.
#[derive(Debug)]
pub(crate) enum Line {
    /// Ready to be sent.
    Progress(Progress),
    /// A failure whose last lines of output are still being fetched.
    Failed(Failure, oneshot::Receiver<Vec<String>>),
}

/// The reader's side of an order's answer: first the lines as they come, then
/// what is left and the exit code.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) lines: mpsc::Receiver<Line>,
    pub(crate) end: oneshot::Receiver<End>,
}

/// The end of an order's answer.
#[derive(Debug)]
pub(crate) struct End {
    /// Lines that found no room, but must not be lost.
    pub(crate) late: Vec<Line>,
    pub(crate) exit_code: u8,
}

/// An operation that is under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) app: AppId,
    pub(crate) change: Change,
    pub(crate) at: Instant,
}

/// An order that somebody waits for. It may be one operation for each of
/// several apps.
#[derive(Debug)]
struct Watch {
    apps: BTreeSet<AppId>,
    pending: BTreeMap<OperationId, Begun>,
    lines: mpsc::Sender<Line>,
    end: oneshot::Sender<End>,
    late: Vec<Line>,
    exit_code: u8,
}

/// An order that is being put together.
#[derive(Debug)]
pub(crate) struct Draft(Watch);

impl Draft {
    /// An order, and the answer for whoever gave it.
    pub(crate) fn new() -> (Self, Answer) {
        let (lines, reader) = mpsc::channel(LINES);
        let (end, ended) = oneshot::channel();
        let watch = Watch {
            apps: BTreeSet::new(),
            pending: BTreeMap::new(),
            lines,
            end,
            late: Vec::new(),
            exit_code: 0,
        };
        (Self(watch), Answer { lines: reader, end: ended })
    }

    /// Tells a line.
    pub(crate) fn say(&mut self, progress: Progress) {
        self.0.must_say(Line::Progress(progress));
    }

    /// Takes an operation back that could not be begun.
    pub(crate) fn withdraw(&mut self, operation: OperationId) {
        self.0.pending.remove(&operation);
    }

    /// Notes that the order failed for one app.
    pub(crate) fn fail(&mut self, exit_code: u8, failure: Failure) {
        self.0.exit_code = self.0.exit_code.max(exit_code);
        self.say(Progress::Failed(failure));
    }
}

impl Watch {
    /// A step in between: a reader that is too slow misses it.
    fn say(&self, progress: Progress) {
        let _ = self.lines.try_send(Line::Progress(progress));
    }

    fn must_say(&mut self, line: Line) {
        if let Err(mpsc::error::TrySendError::Full(line)) = self.lines.try_send(line) {
            self.late.push(line);
        }
    }

    fn finish(self) {
        // The reader may have left.
        let _ = self.end.send(End { late: self.late, exit_code: self.exit_code });
    }
}

/// All orders that are under way.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    watches: BTreeMap<u64, Watch>,
    /// Which watch an operation belongs to, and what it is.
    of_operation: BTreeMap<OperationId, (u64, Begun)>,
    next_watch: u64,
    next_operation: u64,
    /// The orders that wait for everything to end.
    until_the_end: Vec<Watch>,
}

impl Operations {
    /// A new operation of an order, which means this change for the app.
    pub(crate) fn begin(&mut self, draft: &mut Draft, app: AppId, change: Change) -> OperationId {
        let id = OperationId(self.next_operation);
        self.next_operation += 1;
        draft.0.apps.insert(app);
        draft.0.pending.insert(id, Begun { app, change, at: Instant::now() });
        id
    }

    /// Follows an order. It is over at once when it has no operation.
    pub(crate) fn watch(&mut self, draft: Draft) {
        let watch = draft.0;
        if watch.pending.is_empty() {
            watch.finish();
            return;
        }
        let id = self.next_watch;
        self.next_watch += 1;
        self.of_operation.extend(watch.pending.iter().map(|(operation, begun)| (*operation, (id, *begun))));
        self.watches.insert(id, watch);
    }

    /// Follows the order to end everything.
    pub(crate) fn watch_the_end(&mut self, draft: Draft) {
        self.until_the_end.push(draft.0);
    }

    /// Tells everybody whose order is about this app.
    pub(crate) fn tell(&self, app: AppId, progress: &Progress) {
        let concerned = self.watches.values().filter(|watch| watch.apps.contains(&app));
        for watch in concerned.chain(&self.until_the_end) {
            watch.say(progress.clone());
        }
    }

    /// An operation that is under way.
    pub(crate) fn get(&self, operation: OperationId) -> Option<&Begun> {
        self.of_operation.get(&operation).map(|(_, begun)| begun)
    }

    /// Whether an operation about an app is under way.
    pub(crate) fn is_about(&self, app: AppId) -> bool {
        self.about(app).is_some()
    }

    /// The first operation about an app that is under way.
    pub(crate) fn about(&self, app: AppId) -> Option<&Begun> {
        self.of_operation.values().map(|(_, begun)| begun).find(|begun| begun.app == app)
    }

    /// Notes that an operation failed, and how.
    pub(crate) fn fail(&mut self, operation: OperationId, exit_code: u8, line: Line) {
        if let Some(watch) = self.of_operation.get(&operation).and_then(|(id, _)| self.watches.get_mut(id)) {
            watch.exit_code = watch.exit_code.max(exit_code);
            watch.must_say(line);
        }
    }

    /// Notes that an operation is over.
    pub(crate) fn finish(&mut self, operation: OperationId) {
        let Some((id, _)) = self.of_operation.remove(&operation) else { return };
        let Some(watch) = self.watches.get_mut(&id) else { return };
        watch.pending.remove(&operation);
        if watch.pending.is_empty()
            && let Some(watch) = self.watches.remove(&id)
        {
            watch.finish();
        }
    }

    /// Everything has ended.
    pub(crate) fn finish_all(&mut self) {
        for watch in self.until_the_end.drain(..) {
            watch.finish();
        }
    }
}
