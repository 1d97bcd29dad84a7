//! Orders: what each of them means for its apps, who waits for it, and what
//! became of it. All but the steps in between is with the keeper (`ledger`), so
//! that the next master goes on with it, and tells whoever asks again.

mod ledger;

use std::collections::{BTreeMap, BTreeSet};

use supervisor_core::{AppId, OperationId, Timestamp};
use supervisor_protocol::control::{Change, Failure, LastOrder, OrderOutcome, Progress};
use tokio::sync::{mpsc, oneshot};

use crate::clock;
use crate::link::Link;
pub(crate) use ledger::{ORDER, OrderRecord, Part};

/// Lines that wait for a slow reader before steps in between are left out.
const LINES: usize = 256;
/// Orders that are over and still remembered, for those who ask again.
const KEPT: usize = 64;

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

/// Which order. The number is never used again, by no master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OrderId(u64);

/// An operation that is under way.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    pub(crate) app: AppId,
    pub(crate) change: Change,
    /// The generation that the app has, or is to have.
    pub(crate) generation: u64,
    pub(crate) at: Timestamp,
    /// An earlier master has begun it.
    pub(crate) is_adopted: bool,
    /// How it has ended, when that is known and not told yet.
    pub(crate) conclusion: Option<Conclusion>,
}

/// How an operation has ended.
#[derive(Debug, Clone)]
pub(crate) struct Conclusion {
    pub(crate) exit_code: u8,
    /// What went wrong; its last lines are still to be fetched.
    pub(crate) failure: Option<Failure>,
}

/// Somebody who waits for an order.
#[derive(Debug)]
struct Reader {
    lines: mpsc::Sender<Line>,
    end: oneshot::Sender<End>,
    late: Vec<Line>,
}

/// An order: an operation for each of its apps.
#[derive(Debug, Default)]
struct Order {
    record: OrderRecord,
    apps: BTreeSet<AppId>,
    /// What it waits for.
    pending: BTreeSet<OperationId>,
    readers: Vec<Reader>,
    /// It is all there, and with the keeper.
    is_whole: bool,
}

/// All orders that are under way, and the last ones that are over.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    orders: BTreeMap<OrderId, Order>,
    /// Which order an operation belongs to, and what it is.
    of_operation: BTreeMap<OperationId, (OrderId, Begun)>,
    /// Operations of an earlier master whose apps have not been met yet.
    left: BTreeMap<OperationId, (OrderId, Part)>,
    /// The number of the next order or operation.
    next: u64,
    /// The key of the order that is being taken, which its client has chosen.
    key: Option<String>,
}

impl Reader {
    fn new() -> (Self, Answer) {
        let (lines, reader) = mpsc::channel(LINES);
        let (end, ended) = oneshot::channel();
        (Self { lines, end, late: Vec::new() }, Answer { lines: reader, end: ended })
    }

    /// A step in between: a reader that is too slow misses it.
    fn say(&self, progress: Progress) {
        let _ = self.lines.try_send(Line::Progress(progress));
    }

    fn must_say(&mut self, line: Line) {
        if let Err(mpsc::error::TrySendError::Full(line)) = self.lines.try_send(line) {
            self.late.push(line);
        }
    }

    fn finish(self, exit_code: u8) {
        // The reader may have left.
        let _ = self.end.send(End { late: self.late, exit_code });
    }
}

impl Order {
    fn is_over(&self) -> bool {
        self.is_whole && self.pending.is_empty() && !self.record.ends_all
    }

    fn must_say(&mut self, progress: Progress) {
        for reader in &mut self.readers {
            reader.must_say(Line::Progress(progress.clone()));
        }
        self.record.lines.push(progress);
    }

    fn end(&mut self) {
        let exit_code = self.record.exit_code;
        self.readers.drain(..).for_each(|reader| reader.finish(exit_code));
    }
}

impl Operations {
    /// Numbers from here on are free.
    pub(crate) fn count_from(&mut self, first: u64) {
        self.next = first;
    }

    /// The order that is taken next has this key.
    pub(crate) fn expect(&mut self, key: Option<String>) {
        self.key = key;
    }

    /// The order with this key, if it has been taken.
    pub(crate) fn find(&self, key: &str) -> Option<OrderId> {
        let known = |order: &&Order| order.record.key.as_deref() == Some(key);
        self.orders.iter().find(|(_, order)| known(order)).map(|(id, _)| *id)
    }

    /// Whether an order must not be carried out twice, and nothing is known of
    /// how it ended.
    pub(crate) fn is_blind(&self, order: OrderId) -> bool {
        self.orders.get(&order).is_some_and(|order| order.record.is_blind)
    }

    /// A new order, which is put together until it is [closed](Self::close).
    pub(crate) fn open(&mut self) -> OrderId {
        let id = OrderId(self.number());
        let record = OrderRecord { key: self.key.take(), ..OrderRecord::default() };
        self.orders.insert(id, Order { record, ..Order::default() });
        id
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// What whoever gave an order hears of it: what it means for each app and what
    /// has failed, from the beginning; the rest from now on.
    pub(crate) fn read(&mut self, order: OrderId) -> Answer {
        let (mut reader, answer) = Reader::new();
        if let Some(order) = self.orders.get_mut(&order) {
            order.record.lines.iter().cloned().for_each(|line| reader.must_say(Line::Progress(line)));
            order.readers.push(reader);
            if order.is_over() {
                order.end();
            }
        }
        answer
    }

    /// A new operation of an order, which means this change for the app.
    pub(crate) fn begin(
        &mut self,
        order: OrderId,
        (app, name): (AppId, &str),
        change: Change,
        generation: u64,
    ) -> OperationId {
        let (id, at) = (self.number(), clock::now());
        if let Some(order) = self.orders.get_mut(&order) {
            order.record.pending.insert(id, Part::new(name, change, generation, at));
        }
        let begun = Begun { app, change, generation, at, is_adopted: false, conclusion: None };
        self.add(order, OperationId(id), begun)
    }

    /// The same for one that is nothing for another master.
    pub(crate) fn begin_passing(&mut self, order: OrderId, app: AppId) -> OperationId {
        let (id, at, change) = (OperationId(self.number()), clock::now(), Change::Started);
        self.add(order, id, Begun { app, change, generation: 0, at, is_adopted: false, conclusion: None })
    }

    fn add(&mut self, id: OrderId, operation: OperationId, begun: Begun) -> OperationId {
        if let Some(order) = self.orders.get_mut(&id) {
            order.apps.insert(begun.app);
            order.pending.insert(operation);
        }
        self.of_operation.insert(operation, (id, begun));
        operation
    }

    /// Takes an operation back that could not be begun.
    pub(crate) fn withdraw(&mut self, operation: OperationId) {
        let Some((id, _)) = self.of_operation.remove(&operation) else { return };
        if let Some(order) = self.orders.get_mut(&id) {
            order.pending.remove(&operation);
            order.record.pending.remove(&operation.0);
        }
    }

    /// Tells what an order means.
    pub(crate) fn say(&mut self, order: OrderId, progress: Progress) {
        if let Some(order) = self.orders.get_mut(&order) {
            order.must_say(progress);
        }
    }

    /// Notes that an order failed for one app before it was begun.
    pub(crate) fn refuse(&mut self, order: OrderId, exit_code: u8, failure: Failure) {
        if let Some(order) = self.orders.get_mut(&order) {
            order.record.exit_code = order.record.exit_code.max(exit_code);
            order.must_say(Progress::Failed(failure));
        }
    }

    /// An order is all there. It is over at once when it waits for nothing.
    pub(crate) fn close(&mut self, id: OrderId, link: &Link) {
        let Some(order) = self.orders.get_mut(&id) else { return };
        order.is_whole = true;
        order.record.store(id.0, link);
        self.end_if_over(id, link);
    }

    /// The order is to end everything.
    pub(crate) fn close_the_last(&mut self, id: OrderId, link: &Link) {
        if let Some(order) = self.orders.get_mut(&id) {
            order.record.ends_all = true;
        }
        self.close(id, link);
    }

    /// Notes an order whose end nobody can know of if this master dies: it must
    /// not be carried out twice.
    pub(crate) fn note_blind(&mut self, link: &Link) {
        if self.key.is_some() {
            let id = self.open();
            if let Some(order) = self.orders.get_mut(&id) {
                order.record.is_blind = true;
            }
            self.close(id, link);
        }
    }

    /// Tells everybody whose order is about this app.
    pub(crate) fn tell(&self, app: AppId, progress: &Progress) {
        let concerned = |order: &&Order| order.record.ends_all || order.apps.contains(&app);
        let readers = self.orders.values().filter(concerned).flat_map(|order| &order.readers);
        readers.for_each(|reader| reader.say(progress.clone()));
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

    /// Notes how an operation has ended, and lets the keeper know. It is told
    /// later. Returns what there is to say of it as its app's last order.
    pub(crate) fn conclude(
        &mut self,
        operation: OperationId,
        conclusion: Conclusion,
        link: &Link,
    ) -> Option<LastOrder> {
        let (id, begun) = self.of_operation.get_mut(&operation)?;
        let order = self.orders.get_mut(id)?;
        let last = last_order((begun.change, begun.generation, begun.is_adopted), &conclusion);
        order.record.conclude(operation.0, &conclusion, last.clone());
        begun.conclusion = Some(conclusion);
        if order.is_whole {
            order.record.store(id.0, link);
        }
        Some(last)
    }

    /// Tells those who wait for an operation what went wrong: a line for each.
    pub(crate) fn fail(&mut self, operation: OperationId, line: impl Fn() -> Line) {
        let order = self.of_operation.get(&operation).and_then(|(id, _)| self.orders.get_mut(id));
        for reader in order.into_iter().flat_map(|order| &mut order.readers) {
            reader.must_say(line());
        }
    }

    /// An operation is over.
    pub(crate) fn finish(&mut self, operation: OperationId, link: &Link) {
        let Some((id, _)) = self.of_operation.remove(&operation) else { return };
        if let Some(order) = self.orders.get_mut(&id) {
            order.pending.remove(&operation);
            self.end_if_over(id, link);
        }
    }

    fn end_if_over(&mut self, id: OrderId, link: &Link) {
        let Some(order) = self.orders.get_mut(&id).filter(|order| order.is_over()) else { return };
        order.end();
        let over: Vec<OrderId> =
            self.orders.iter().filter(|(_, order)| order.is_over()).map(|(id, _)| *id).collect();
        for old in over.iter().take(over.len().saturating_sub(KEPT)) {
            self.orders.remove(old);
            link.delete(&ledger::key(old.0));
        }
    }

    /// Everything has ended.
    pub(crate) fn finish_all(&mut self) {
        self.orders.values_mut().for_each(Order::end);
    }

    /// Takes over what an earlier master knew of its orders.
    pub(crate) fn inherit(&mut self, records: BTreeMap<u64, OrderRecord>) {
        for (id, record) in records {
            let id = OrderId(id);
            let left = record.pending.iter().map(|(operation, part)| (OperationId(*operation), part.clone()));
            let left: Vec<_> = left.collect();
            let pending = left.iter().map(|(operation, _)| *operation).collect();
            self.left.extend(left.into_iter().map(|(operation, part)| (operation, (id, part))));
            self.orders.insert(id, Order { record, pending, is_whole: true, ..Order::default() });
        }
    }

    /// Goes on with an operation of an earlier master. Where it is not known what
    /// that was, it is a change of the app.
    pub(crate) fn adopt(&mut self, operation: OperationId, (app, name): (AppId, &str), generation: u64) {
        let (id, part) = self.left.remove(&operation).unwrap_or_else(|| {
            let (id, part) = (self.open(), Part::new(name, Change::Changed, generation, clock::now()));
            if let Some(order) = self.orders.get_mut(&id) {
                order.record.pending.insert(operation.0, part.clone());
                order.is_whole = true;
            }
            (id, part)
        });
        let Part { change, generation, .. } = part;
        let begun = Begun { app, change, generation, at: part.at(), is_adopted: true, conclusion: None };
        self.add(id, operation, begun);
    }

    /// What is left of an earlier master's operations when every app has been met
    /// is about nothing that goes on.
    pub(crate) fn drop_left(&mut self, link: &Link) {
        for (operation, (id, part)) in std::mem::take(&mut self.left) {
            let Some(order) = self.orders.get_mut(&id) else { continue };
            let reason = "the master that took it has died, and left nothing of it".to_owned();
            let failure = failure(part.app.clone(), reason);
            let conclusion = Conclusion { exit_code: 1, failure: Some(failure) };
            let last = last_order((part.change, part.generation, true), &conclusion);
            order.record.conclude(operation.0, &conclusion, last);
            order.record.store(id.0, link);
            order.pending.remove(&operation);
            self.end_if_over(id, link);
        }
    }

    /// How the last orders ended, the older ones first.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (&str, &LastOrder)> {
        self.orders.values().flat_map(|order| order.record.outcomes())
    }
}

/// What there is to say of an operation that has ended.
fn last_order(
    (change, generation, by_next_master): (Change, u64, bool),
    conclusion: &Conclusion,
) -> LastOrder {
    let now = clock::now();
    LastOrder {
        change,
        generation,
        at: clock::rfc3339(now, now),
        outcome: match &conclusion.failure {
            None => OrderOutcome::Done,
            Some(failure) if failure.rolled_back => OrderOutcome::RolledBack,
            Some(_) => OrderOutcome::Failed,
        },
        reason: conclusion.failure.as_ref().map(|failure| failure.reason.clone()),
        by_next_master,
    }
}

/// What went wrong with an app as a whole, not with one of its slots.
pub(crate) fn failure(app: String, reason: String) -> Failure {
    Failure { app, slot: None, reason, last_lines: Vec::new(), rolled_back: false }
}
