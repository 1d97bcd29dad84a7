//! Who gets what: members, topics and requests, without any socket.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use serde_json::value::RawValue;
use supervisor_core::WorkerId;
use supervisor_protocol::channel::{Ask, Change, Peer, Tell, To};

use super::requests::Requests;
use super::topics::{Retained, Subscriptions};

/// Where lines go.
pub(super) trait Deliver {
    /// Sends whole lines to a worker, or drops them.
    fn deliver(&mut self, to: WorkerId, lines: &[u8]);
}

/// A worker as it joins.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) app: Arc<str>,
    pub(super) slot: u32,
    pub(super) generation: u64,
    /// How many of the last messages of a topic its app retains, unless they say so.
    pub(super) retain: usize,
    /// How many bytes these may have.
    pub(super) retain_bytes: usize,
    /// The apps that may publish to its own.
    pub(super) from: Arc<[String]>,
}

/// What an ask means beyond the channel.
#[derive(Debug, PartialEq)]
pub(super) enum Meaning {
    /// Nothing.
    Done,
    /// The worker is ready.
    Ready,
    /// Its metrics change.
    Metric(BTreeMap<String, Change>),
}

/// All members.
#[derive(Debug, Default)]
pub(super) struct Hub {
    seats: HashMap<WorkerId, Seat>,
    apps: HashMap<Arc<str>, Group>,
    requests: Requests,
}

#[derive(Debug)]
struct Seat {
    member: Member,
    is_ready: bool,
    /// It is told what it subscribed to, ready or not.
    is_early: bool,
    /// It does not take messages any more.
    is_leaving: bool,
    topics: Subscriptions,
}

/// The members of one app.
#[derive(Debug, Default)]
struct Group {
    /// In the order in which they joined.
    all: Vec<WorkerId>,
    /// In the order in which they became ready.
    ready: Vec<WorkerId>,
    /// Whose turn it is to be asked.
    turn: usize,
    retained: Retained,
}

impl Seat {
    /// Whether it gets messages about a topic.
    fn hears(&self, topic: &str) -> bool {
        (self.is_ready || self.is_early && !self.is_leaving) && self.topics.contains(topic)
    }
}

impl Hub {
    /// A worker can speak from now on.
    pub(super) fn join(&mut self, worker: WorkerId, member: Member) {
        self.apps.entry(Arc::clone(&member.app)).or_default().all.push(worker);
        let seat = Seat {
            member,
            is_ready: false,
            is_early: false,
            is_leaving: false,
            topics: Subscriptions::default(),
        };
        self.seats.insert(worker, seat);
    }

    /// A worker gets messages from now on.
    pub(super) fn ready(&mut self, worker: WorkerId) {
        let Some(seat) = self.seats.get_mut(&worker) else { return };
        if !seat.is_ready && !seat.is_leaving {
            seat.is_ready = true;
            if let Some(group) = self.apps.get_mut(&seat.member.app) {
                group.ready.push(worker);
            }
        }
    }

    /// A worker gets none any more, but can still speak.
    pub(super) fn drain(&mut self, worker: WorkerId) {
        let Some(seat) = self.seats.get_mut(&worker) else { return };
        seat.is_ready = false;
        seat.is_leaving = true;
        if let Some(group) = self.apps.get_mut(&seat.member.app) {
            group.ready.retain(|other| *other != worker);
        }
    }

    /// A worker is gone.
    pub(super) fn leave(&mut self, worker: WorkerId, out: &mut impl Deliver) {
        self.drain(worker);
        let Some(seat) = self.seats.remove(&worker) else { return };
        if let Some(group) = self.apps.get_mut(&seat.member.app) {
            group.all.retain(|other| *other != worker);
        }
        for request in self.requests.forget(worker) {
            fail(out, request.from, request.id, "the worker that was asked has gone");
        }
    }

    /// An app is gone, and what was retained for it.
    pub(super) fn forget(&mut self, app: &str) {
        if self.apps.get(app).is_some_and(|group| group.all.is_empty()) {
            self.apps.remove(app);
        }
    }

    /// Sends lines of a worker to all other ready ones of its app.
    pub(super) fn broadcast(&self, from: WorkerId, lines: &[u8], out: &mut impl Deliver) {
        let group = self.seats.get(&from).and_then(|seat| self.apps.get(&seat.member.app));
        for to in group.into_iter().flat_map(|group| &group.ready).filter(|to| **to != from) {
            out.deliver(*to, lines);
        }
    }

    /// Sends a line of an operator to the ready workers of an app, or those in
    /// one of its slots. Returns to how many.
    pub(super) fn send(&self, app: &str, slot: Option<u32>, line: &[u8], out: &mut impl Deliver) -> u32 {
        let ready = self.apps.get(app).into_iter().flat_map(|group| &group.ready);
        let wanted = |worker: &&WorkerId| slot.is_none_or(|slot| self.slot(**worker) == Some(slot));
        let mut count = 0;
        for to in ready.filter(wanted) {
            out.deliver(*to, line);
            count += 1;
        }
        count
    }

    /// Does what a worker asks for. What is wrong with it, the worker is told.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        from: WorkerId,
        ask: Ask<'_>,
        out: &mut impl Deliver,
    ) -> Meaning {
        match ask {
            Ask::Publish { topic, to, retain, data } => {
                self.publish(from, &Publication { topic: &topic, to, retain, data }, out);
            }
            Ask::Subscribe { topics, replay } => self.subscribe(from, &topics, replay, out),
            Ask::Unsubscribe { topics } => {
                if let Some(seat) = self.seats.get_mut(&from) {
                    topics.iter().for_each(|topic| seat.topics.remove(topic));
                }
            }
            Ask::Request { topic, id, to, timeout, data } => {
                let request = Request { topic: &topic, id, to, until: now + timeout, data };
                if let Err(why) = self.request(from, &request, out) {
                    fail(out, from, id, &why);
                }
            }
            Ask::Reply { id, data } => {
                // One that comes too late has been answered for it.
                if let (Some(request), Some(slot)) = (self.requests.reply(id, from), self.slot(from)) {
                    out.deliver(request.from, &Tell::Reply { reply: request.id, slot, data }.line());
                }
            }
            Ask::Status { id } => self.tell_status(from, id, out),
            Ask::Ready => return Meaning::Ready,
            Ask::Metric { changes } => return Meaning::Metric(changes),
        }
        Meaning::Done
    }

    /// Tells those whose requests were not replied to in time.
    pub(super) fn expire(&mut self, now: Instant, out: &mut impl Deliver) {
        for request in self.requests.expire(now) {
            fail(out, request.from, request.id, "no reply in time");
        }
    }

    /// Tells all whose requests wait for replies that none will come from here.
    pub(super) fn give_up(&mut self, out: &mut impl Deliver) {
        for request in self.requests.take_all() {
            fail(out, request.from, request.id, "the daemon was upgraded meanwhile");
        }
    }

    /// When [`Self::expire`] must be called.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.requests.next_deadline()
    }

    /// The app and the slot of a worker.
    pub(super) fn place(&self, worker: WorkerId) -> Option<(Arc<str>, u32)> {
        self.seats.get(&worker).map(|seat| (Arc::clone(&seat.member.app), seat.member.slot))
    }

    fn slot(&self, worker: WorkerId) -> Option<u32> {
        self.seats.get(&worker).map(|seat| seat.member.slot)
    }

    fn publish(&mut self, from: WorkerId, publication: &Publication<'_>, out: &mut impl Deliver) {
        let Publication { topic, to, retain, data } = publication;
        let Some(Seat { member, .. }) = self.seats.get(&from) else { return };
        let app = match to {
            To::Others | To::All | To::Slot(_) => &member.app,
            To::App(app) => {
                let Some(group) =
                    self.apps.get_key_value(app.as_str()).filter(|_| self.allows(app, &member.app))
                else {
                    let error = format!("`{app}` takes no messages of `{}`: see `ipc_from`", member.app);
                    out.deliver(from, &Tell::Error { error: &error }.line());
                    return;
                };
                group.0
            }
        };
        let app = Arc::clone(app);
        let line = Tell::Message { message: topic, app: &member.app, slot: member.slot, data }.line();
        let Some(group) = self.apps.get(&app) else { return };
        for id in &group.all {
            let Some(seat) = self.seats.get(id).filter(|seat| seat.hears(topic)) else { continue };
            let is_meant = match to {
                To::Others => *id != from,
                To::All | To::App(_) => true,
                To::Slot(slot) => seat.member.slot == *slot,
            };
            if is_meant {
                out.deliver(*id, &line);
            }
        }
        let newest = group.all.last().and_then(|last| self.seats.get(last));
        let limits = newest.map(|seat| (seat.member.retain, seat.member.retain_bytes));
        if let (Some((default, bytes)), Some(group), To::Others | To::All | To::App(_)) =
            (limits, self.apps.get_mut(&app), to)
        {
            group.retained.add(topic, &line, *retain, default, bytes);
        }
    }

    /// Whether the workers of an app take messages of another's: their newest
    /// settings say so.
    fn allows(&self, app: &str, from: &str) -> bool {
        let newest =
            self.apps.get(app).and_then(|group| group.all.last()).and_then(|last| self.seats.get(last));
        newest
            .is_some_and(|seat| *seat.member.app == *from || seat.member.from.iter().any(|name| name == from))
    }

    /// What a worker has subscribed to.
    pub(super) fn topics(&self, worker: WorkerId) -> Vec<String> {
        self.seats.get(&worker).map(|seat| seat.topics.list()).unwrap_or_default()
    }

    /// Goes on with what a worker subscribed to with an earlier master.
    pub(super) fn restore_topics(&mut self, worker: WorkerId, topics: &[String]) {
        if let Some(seat) = self.seats.get_mut(&worker) {
            topics.iter().for_each(|topic| _ = seat.topics.add(topic));
        }
    }

    fn subscribe(
        &mut self,
        from: WorkerId,
        topics: &[String],
        replay: Option<usize>,
        out: &mut impl Deliver,
    ) {
        let Some(seat) = self.seats.get_mut(&from) else { return };
        if !topics.iter().all(|topic| seat.topics.add(topic)) {
            out.deliver(from, &Tell::Error { error: "there are too many subscriptions" }.line());
        }
        if let Some(count) = replay {
            seat.is_early = true;
            let retained = self.apps.get(&seat.member.app).map(|group| group.retained.of(topics, count));
            for line in retained.unwrap_or_default() {
                out.deliver(from, &line);
            }
        }
    }

    fn request(
        &mut self,
        from: WorkerId,
        request: &Request<'_>,
        out: &mut impl Deliver,
    ) -> Result<(), String> {
        let Request { topic, id, to, until, data } = *request;
        let gone = || "this worker is leaving".to_owned();
        let Seat { member, .. } = self.seats.get(&from).ok_or_else(gone)?;
        let group = self.apps.get_mut(&member.app).ok_or_else(gone)?;
        let seats = &self.seats;
        let can = |worker: &WorkerId| {
            *worker != from
                && seats.get(worker).is_some_and(|seat| {
                    seat.topics.contains(topic) && to.is_none_or(|slot| seat.member.slot == slot)
                })
        };
        let count = group.ready.len();
        let turns = (0..count).map(|step| (group.turn + step) % count);
        let found =
            turns.filter_map(|turn| Some((turn, *group.ready.get(turn)?))).find(|(_, worker)| can(worker));
        let Some((turn, worker)) = found else {
            return Err(match to {
                Some(slot) => format!("no ready worker in slot {slot} has subscribed to `{topic}`"),
                None => format!("no other ready worker has subscribed to `{topic}`"),
            });
        };
        group.turn = turn + 1;
        let too_many = || "too many requests of this worker wait for a reply".to_owned();
        let number = self.requests.add(from, id, worker, until).ok_or_else(too_many)?;
        out.deliver(worker, &Tell::Request { request: topic, id: number, slot: member.slot, data }.line());
        Ok(())
    }

    fn tell_status(&self, to: WorkerId, id: u64, out: &mut impl Deliver) {
        let Some(Seat { member, .. }) = self.seats.get(&to) else { return };
        let all = self.apps.get(&member.app).into_iter().flat_map(|group| &group.all);
        let mut workers: Vec<Peer> = all
            .filter_map(|worker| self.seats.get(worker))
            .map(|Seat { member, is_ready, .. }| Peer {
                slot: member.slot,
                generation: member.generation,
                ready: *is_ready,
            })
            .collect();
        workers.sort_by_key(|peer| (peer.slot, peer.generation));
        let status = Tell::Status { status: id, app: &member.app, slot: member.slot, workers };
        out.deliver(to, &status.line());
    }
}

/// A message to those who have subscribed to its topic.
struct Publication<'a> {
    topic: &'a str,
    to: To,
    retain: Option<usize>,
    data: &'a RawValue,
}

/// A request as it is passed on.
#[derive(Clone, Copy)]
struct Request<'a> {
    topic: &'a str,
    id: u64,
    to: Option<u32>,
    until: Instant,
    data: &'a RawValue,
}

/// Tells a worker that there is no reply to its request.
fn fail(out: &mut impl Deliver, to: WorkerId, id: u64, why: &str) {
    out.deliver(to, &Tell::Failed { reply: id, error: why }.line());
}
