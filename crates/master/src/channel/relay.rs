//! The thread: reads what workers say and has it delivered.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use supervisor_core::WorkerId;
use supervisor_protocol::channel::{Ask, Line, Tell};
use supervisor_protocol::keeper::FdRole;
use supervisor_sys::poll::{Event, Interest, Waker};
use tokio::sync::{broadcast, mpsc::UnboundedSender};

use super::hub::{Deliver, Hub, Meaning};
use super::inbound::{Heard, Inbound, WINDOW};
use super::outbound::PIECE;
use super::ports::{Port, Ports};
use super::{Command, Joining, Overheard};
use crate::records;

/// The poller's token of the waker; workers' tokens are far below.
const WAKER: u64 = u64::MAX;
/// How long the beginning of a line stays in the socket for its end. Then it is
/// consumed, so that there is room for more.
const PATIENCE: Duration = Duration::from_millis(20);

/// The state of the thread.
#[derive(Debug)]
pub(super) struct Relay {
    waker: Arc<Waker>,
    inbox: Receiver<Command>,
    /// Workers that have said that they are ready.
    ready: UnboundedSender<WorkerId>,
    listeners: broadcast::Sender<Overheard>,
    hub: Hub,
    ports: Ports,
    /// Those to be read, in turn.
    turns: VecDeque<WorkerId>,
    /// Those that have begun a line and not ended it.
    beginnings: Vec<WorkerId>,
    window: Vec<u8>,
}

impl Relay {
    pub(super) fn new(
        waker: Arc<Waker>,
        inbox: mpsc::Receiver<Command>,
        ready: UnboundedSender<WorkerId>,
        listeners: broadcast::Sender<Overheard>,
        ports: Ports,
    ) -> io::Result<Self> {
        ports.poller.add(&*waker, WAKER, Interest::Read)?;
        Ok(Self {
            waker,
            inbox,
            ready,
            listeners,
            hub: Hub::default(),
            ports,
            turns: VecDeque::new(),
            beginnings: Vec::new(),
            window: vec![0; WINDOW],
        })
    }

    /// Runs until the master is gone.
    pub(super) fn run(mut self) {
        let mut events: Vec<Event> = Vec::new();
        loop {
            if let Err(error) = self.ports.poller.wait(&mut events, self.timeout()) {
                tracing::error!("the channel between workers has ended: {error}");
                return;
            }
            for event in &events {
                if event.token == WAKER {
                    self.waker.reset();
                    continue;
                }
                let worker = WorkerId(event.token);
                if event.writable {
                    self.ports.flush(worker);
                }
                if event.readable || event.hangup || event.error {
                    self.take_turn(worker);
                }
            }
            if !self.obey_all() {
                return;
            }
            // One window each: nobody keeps the others waiting.
            for _ in 0..self.turns.len() {
                if let Some(worker) = self.turns.pop_front() {
                    self.hear(worker);
                }
            }
            let now = Instant::now();
            self.hub.expire(now, &mut self.ports);
            self.look_after_beginnings(now);
        }
    }

    /// How long nothing but news is to be done.
    fn timeout(&self) -> Option<Duration> {
        if !self.turns.is_empty() {
            return Some(Duration::ZERO);
        }
        let patience = (!self.beginnings.is_empty()).then_some(PATIENCE / 4);
        let request = self.hub.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        patience.into_iter().chain(request).min()
    }

    fn take_turn(&mut self, worker: WorkerId) {
        if let Some(port) = self.ports.all.get_mut(&worker)
            && !port.has_turn
            && !port.waits
        {
            port.has_turn = true;
            self.turns.push_back(worker);
        }
    }

    /// Does what the master says. Returns whether there is more to come.
    fn obey_all(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(command) => {
                    if !self.obey(command) {
                        return false;
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Join(joining) => self.join(joining),
            Command::Begin => self.begin(),
            Command::Ready(worker) => self.hub.ready(worker),
            Command::Drain(worker) => self.hub.drain(worker),
            Command::End(worker) => {
                self.hub.drain(worker);
                if let Some(port) = self.ports.all.get_mut(&worker) {
                    // A descendant may hold the other end open: what is there
                    // now is the last.
                    port.ended = true;
                    self.take_turn(worker);
                }
            }
            Command::Forget(app) => self.hub.forget(&app),
            Command::Tell(worker, line) => self.ports.deliver(worker, line),
            Command::Send { app, slot, line, reply } => {
                // Nobody may wait for the answer any more.
                let _ = reply.send(self.hub.send(&app, slot, &line, &mut self.ports));
            }
            Command::Leave(done) => {
                self.hub.give_up(&mut self.ports);
                self.ports.leave();
                let _ = done.send(());
                return false;
            }
        }
        true
    }

    fn join(&mut self, joining: Joining) {
        let Joining { worker, member, socket, left, figures, max_message, buffer } = joining;
        let mut port = Port::new(socket, figures, max_message, buffer);
        if left.within_a_line {
            port.inbound = Inbound::within_a_line();
            port.is_noted = true;
        }
        port.is_held = left.line.is_some();
        port.speaks = left.topics.is_some();
        port.waits = left.is_adopted;
        if let Some(line) = left.line
            && let Err(error) = port.outbound.go_on(line)
        {
            tracing::warn!("{}:{}: a long message breaks off: {error}", member.app, member.slot);
        }
        if let Err(error) = self.ports.poller.add(&port.socket, worker.0, Interest::ReadEdge) {
            tracing::error!("{}:{}: it has no channel: {error}", member.app, member.slot);
            port.figures.closed();
            return;
        }
        self.ports.all.insert(worker, Box::new(port));
        self.hub.join(worker, member);
        self.hub.restore_topics(worker, &left.topics.unwrap_or_default());
        self.ports.flush(worker);
        self.take_turn(worker);
    }

    fn begin(&mut self) {
        let waiting: Vec<WorkerId> = self
            .ports
            .all
            .iter_mut()
            .filter_map(|(worker, port)| std::mem::take(&mut port.waits).then_some(*worker))
            .collect();
        waiting.into_iter().for_each(|worker| self.take_turn(worker));
    }

    /// Reads a window of what a worker says. It gets another turn while there
    /// is more.
    fn hear(&mut self, worker: WorkerId) {
        let mut window = std::mem::take(&mut self.window);
        let Some(port) = self.ports.all.get_mut(&worker) else {
            self.window = window;
            return;
        };
        port.has_turn = false;
        let at_once = std::mem::take(&mut port.is_late) || port.ended;
        let keeper = &self.ports.keeper;
        let mut is_noted = port.is_noted;
        let note = |is_within: bool| {
            is_noted = is_within;
            let key = records::channel_key(worker);
            if is_within { keeper.put(&key, &[], &[]) } else { keeper.delete(&key) }
        };
        let heard = port.inbound.read(port.socket.as_fd(), &mut window, port.max_message, at_once, note);
        port.is_noted = is_noted;
        let ended = port.ended;
        if heard != Heard::Beginning {
            port.beginning = None;
        }
        let more = match heard {
            Heard::Lines(len) => {
                self.relay(worker, window.get(..len).unwrap_or_default());
                true
            }
            Heard::Line(mut line) => {
                line.push(b'\n');
                self.relay(worker, &line);
                true
            }
            Heard::TooLong => {
                self.refuse_long(worker);
                true
            }
            Heard::Part => true,
            Heard::Beginning => {
                if port.beginning.is_none() {
                    port.beginning = Some(Instant::now());
                    self.beginnings.push(worker);
                }
                false
            }
            Heard::Nothing => {
                if ended {
                    self.remove(worker);
                }
                false
            }
            Heard::End => {
                self.remove(worker);
                false
            }
        };
        if more {
            self.take_turn(worker);
        }
        self.window = window;
    }

    /// Has the beginnings of lines consumed whose ends do not come.
    fn look_after_beginnings(&mut self, now: Instant) {
        let ports = &self.ports.all;
        let since = |worker: &WorkerId| ports.get(worker).and_then(|port| port.beginning);
        self.beginnings.retain(|worker| since(worker).is_some());
        let late =
            self.beginnings.iter().filter(|worker| since(worker).is_some_and(|at| now - at >= PATIENCE));
        for worker in late.copied().collect::<Vec<_>>() {
            if let Some(port) = self.ports.all.get_mut(&worker) {
                port.is_late = true;
            }
            self.take_turn(worker);
        }
    }

    fn remove(&mut self, worker: WorkerId) {
        self.hub.leave(worker, &mut self.ports);
        self.ports.remove(worker);
    }

    /// Has lines delivered. Those that all others get are passed on together.
    fn relay(&mut self, from: WorkerId, lines: &[u8]) {
        let Some(port) = self.ports.all.get(&from) else { return };
        let max = port.max_message;
        let (mut begin, mut end, mut received) = (0, 0, 0);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let next = end + line.len();
            let text = line.trim_ascii();
            // An empty line is no message: it may be the end of one that came in parts.
            received += usize::from(!text.is_empty());
            let read = if text.len() > max { None } else { Some(Line::read(text)) };
            if let Some(Ok(Line::Broadcast)) = read {
                if next - begin > PIECE {
                    self.pass_on(from, lines.get(begin..end).unwrap_or_default());
                    begin = end;
                }
            } else {
                self.pass_on(from, lines.get(begin..end).unwrap_or_default());
                begin = next;
                match read {
                    None => self.refuse_long(from),
                    Some(Ok(read)) => self.obey_line(from, &read, text),
                    Some(Err(_)) if text.is_empty() => {}
                    Some(Err(error)) => self.refuse(from, &error.to_string()),
                }
            }
            end = next;
        }
        self.pass_on(from, lines.get(begin..end).unwrap_or_default());
        if let Some(port) = self.ports.all.get(&from) {
            port.figures.received(received);
        }
    }

    /// Sends lines to all other workers of the app.
    fn pass_on(&mut self, from: WorkerId, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        self.hub.broadcast(from, lines, &mut self.ports);
        if self.listeners.receiver_count() > 0 {
            lines.split_inclusive(|byte| *byte == b'\n').for_each(|line| self.overhear(from, line));
        }
    }

    /// Does what a line says that is not for everybody as it stands.
    fn obey_line(&mut self, from: WorkerId, line: &Line<'_>, text: &[u8]) {
        if self.listeners.receiver_count() > 0 && !matches!(line, Line::Internal) {
            self.overhear(from, text);
        }
        match line {
            Line::Broadcast | Line::Internal | Line::Other => {}
            Line::Ready => self.say_ready(from),
            Line::Envelope(ask) => {
                let port = self.ports.all.get_mut(&from);
                let is_new = port.is_some_and(|port| !std::mem::replace(&mut port.speaks, true));
                let ask = Ask::read(ask);
                let subscribes = matches!(ask, Ok(Ask::Subscribe { .. } | Ask::Unsubscribe { .. }));
                match ask {
                    Ok(ask) => match self.hub.ask(Instant::now(), from, ask, &mut self.ports) {
                        Meaning::Done => {}
                        Meaning::Ready => self.say_ready(from),
                        Meaning::Metric(changes) => {
                            let port = self.ports.all.get(&from);
                            if port.is_some_and(|port| !port.figures.change(changes)) {
                                self.refuse(from, "there are too many metrics");
                            }
                        }
                    },
                    Err(error) => self.refuse(from, &error.to_string()),
                }
                if is_new || subscribes {
                    self.remember_topics(from);
                }
            }
        }
    }

    /// Lets the keeper know what a worker has subscribed to.
    fn remember_topics(&self, worker: WorkerId) {
        match records::store_json(&self.hub.topics(worker)) {
            Ok(fd) => {
                self.ports.keeper.put(&records::topics_key(worker), &[], &[(FdRole::Hold, fd.as_fd())]);
            }
            Err(error) => {
                tracing::warn!("worker {}: the next master will not know its topics: {error}", worker.0)
            }
        }
    }

    /// Once in its life.
    fn say_ready(&mut self, worker: WorkerId) {
        if let Some(port) = self.ports.all.get_mut(&worker)
            && !std::mem::replace(&mut port.said_ready, true)
        {
            let _ = self.ready.send(worker);
        }
    }

    fn refuse_long(&mut self, worker: WorkerId) {
        let max = self.ports.all.get(&worker).map_or(0, |port| port.max_message);
        self.refuse(worker, &format!("a message has more than {max} bytes, which is `ipc_max_message`"));
    }

    /// Counts a line that is refused, and tells the worker if it knows the
    /// envelope.
    fn refuse(&mut self, worker: WorkerId, why: &str) {
        let Some(port) = self.ports.all.get(&worker) else { return };
        port.figures.refused();
        if port.speaks {
            self.ports.deliver(worker, &Tell::Error { error: why }.line());
        }
    }

    /// Passes a line to those who look at the channel.
    fn overhear(&self, worker: WorkerId, line: &[u8]) {
        if let Some((app, slot)) = self.hub.place(worker) {
            let text = line.trim_ascii();
            let bytes = text.len();
            let text = if bytes > PIECE { &[] } else { text };
            // The last one may leave at this moment.
            let _ = self.listeners.send(Overheard { app, slot, text: text.into(), bytes });
        }
    }
}
