//! The channel with blocking calls: one thread reads, any may write.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::message::{self, Message, Read, Reply};

/// The longest line that is taken, bytes: more than any worker may send.
const MAX_LINE: u64 = 4 << 20;

/// The way to the other workers; any number of threads may have one.
#[derive(Debug, Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stream: Mutex<UnixStream>,
    waiting: Mutex<HashMap<u64, mpsc::Sender<Reply>>>,
    next: AtomicU64,
}

/// What comes on the channel, in order. Replies to requests are passed to those
/// who wait for them while somebody iterates here.
#[derive(Debug)]
pub struct Messages {
    reader: BufReader<UnixStream>,
    shared: Arc<Shared>,
    line: Vec<u8>,
}

/// A request that was sent.
#[derive(Debug)]
pub struct Pending {
    reply: mpsc::Receiver<Reply>,
}

impl Pending {
    /// Waits for the reply. Another thread must read [`Messages`] meanwhile.
    ///
    /// # Errors
    ///
    /// Why there is none: in time, or because nobody has subscribed, or the
    /// channel is closed.
    pub fn wait(self) -> Reply {
        self.reply.recv().unwrap_or_else(|_| Err("the channel is closed".to_owned()))
    }
}

impl Channel {
    /// The two sides of a channel on this socket.
    ///
    /// # Errors
    ///
    /// When there are no descriptors left.
    pub fn new(stream: UnixStream) -> io::Result<(Self, Messages)> {
        stream.set_nonblocking(false)?;
        let reader = BufReader::new(stream.try_clone()?);
        let shared = Arc::new(Shared {
            stream: Mutex::new(stream),
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
        });
        Ok((Self { shared: Arc::clone(&shared) }, Messages { reader, shared, line: Vec::new() }))
    }

    /// The socket, for a channel of another kind.
    ///
    /// # Errors
    ///
    /// When there are no descriptors left.
    pub fn into_stream(self) -> io::Result<UnixStream> {
        self.shared.stream.lock().unwrap_or_else(PoisonError::into_inner).try_clone()
    }

    /// Sends an object with these members and `"broadcast": true` to all other
    /// ready workers of the app.
    ///
    /// # Errors
    ///
    /// As [`Self::publish`].
    pub fn broadcast<'a>(&self, members: impl IntoIterator<Item = (&'a str, Value)>) -> io::Result<()> {
        self.write(&message::broadcast(&members.into_iter().collect()))
    }

    /// Publishes to the other workers that have subscribed to the topic.
    ///
    /// # Errors
    ///
    /// When `data` has no JSON form, or the channel is closed.
    pub fn publish(&self, topic: &str, data: &impl Serialize) -> io::Result<()> {
        self.ask(&json!({"publish": topic, "data": message::value(data)?}))
    }

    /// Publishes, and lets the last `count` messages of the topic be replayed.
    ///
    /// # Errors
    ///
    /// As [`Self::publish`].
    pub fn publish_retained(&self, topic: &str, data: &impl Serialize, count: u32) -> io::Result<()> {
        self.ask(&json!({"publish": topic, "data": message::value(data)?, "retain": count}))
    }

    /// Gets messages about these topics from now on. A topic may end in `*`.
    ///
    /// # Errors
    ///
    /// As [`Self::publish`].
    pub fn subscribe(&self, topics: &[&str]) -> io::Result<()> {
        self.ask(&json!({"subscribe": topics}))
    }

    /// The same, with the last `count` messages of each before, as far as they
    /// are retained.
    ///
    /// # Errors
    ///
    /// As [`Self::publish`].
    pub fn subscribe_with_replay(&self, topics: &[&str], count: u32) -> io::Result<()> {
        self.ask(&json!({"subscribe": topics, "replay": count}))
    }

    /// Gets them no more.
    ///
    /// # Errors
    ///
    /// As [`Self::publish`].
    pub fn unsubscribe(&self, topics: &[&str]) -> io::Result<()> {
        self.ask(&json!({"unsubscribe": topics}))
    }

    /// Asks one other worker that has subscribed to the topic.
    ///
    /// # Errors
    ///
    /// As [`Self::publish`].
    pub fn request(&self, topic: &str, data: &impl Serialize, timeout: Duration) -> io::Result<Pending> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let ask = json!({"request": topic, "id": id, "timeout": timeout, "data": message::value(data)?});
        let (sender, reply) = mpsc::channel();
        self.shared.waiting().insert(id, sender);
        self.ask(&ask).inspect_err(|_| {
            self.shared.waiting().remove(&id);
        })?;
        Ok(Pending { reply })
    }

    /// Replies to a [`Message::Request`].
    ///
    /// # Errors
    ///
    /// As [`Self::publish`].
    pub fn reply(&self, id: u64, data: &impl Serialize) -> io::Result<()> {
        self.ask(&json!({"reply": id, "data": message::value(data)?}))
    }

    /// The worker is ready: it counts with `ready: ipc`.
    ///
    /// # Errors
    ///
    /// As [`Self::publish`].
    pub fn ready(&self) -> io::Result<()> {
        self.write(b"\"ready\"\n")
    }

    /// Sets a metric that `status --json` shows.
    ///
    /// # Errors
    ///
    /// As [`Self::publish`].
    pub fn metric(&self, name: &str, value: f64) -> io::Result<()> {
        self.ask(&json!({"metric": {name: value}}))
    }

    fn ask(&self, ask: &Value) -> io::Result<()> {
        self.write(&message::ask(ask))
    }

    fn write(&self, line: &[u8]) -> io::Result<()> {
        self.shared.stream.lock().unwrap_or_else(PoisonError::into_inner).write_all(line)
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Iterator for Messages {
    type Item = io::Result<Message>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.line.clear();
            match io::Read::take(&mut self.reader, MAX_LINE).read_until(b'\n', &mut self.line) {
                Ok(1..) => {}
                ended => {
                    // Nobody will reply any more.
                    self.shared.waiting().clear();
                    return ended.err().map(Err);
                }
            }
            match message::read(&self.line) {
                Ok(Read::Message(message)) => return Some(Ok(message)),
                Ok(Read::Reply(id, reply)) => {
                    if let Some(waiting) = self.shared.waiting().remove(&id) {
                        // Nobody may wait for it any more.
                        let _ = waiting.send(reply);
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (channel, mut messages) = Channel::new(ours).unwrap();
        let mut lines = BufReader::new(theirs.try_clone().unwrap()).lines();
        let mut said = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
        let tell = |line: &str| writeln!(&theirs, "{line}").unwrap();

        channel.broadcast([("cmd", json!("evict"))]).unwrap();
        assert_eq!(said(), json!({"broadcast": true, "cmd": "evict"}));
        channel.publish("a", &[1, 2]).unwrap();
        assert_eq!(said(), json!({"supervisor": {"publish": "a", "data": [1, 2]}}));
        channel.publish_retained("a", &7, 5).unwrap();
        assert_eq!(said(), json!({"supervisor": {"publish": "a", "data": 7, "retain": 5}}));
        channel.subscribe_with_replay(&["a.*"], 5).unwrap();
        assert_eq!(said(), json!({"supervisor": {"subscribe": ["a.*"], "replay": 5}}));
        channel.ready().unwrap();
        assert_eq!(said(), json!("ready"));

        tell(r#"{"broadcast":true,"n":1}"#);
        assert_eq!(messages.next().unwrap().unwrap(), Message::Plain(json!({"broadcast": true, "n": 1})));
        tell(r#"{"supervisor":{"message":"a.b","app":"web","slot":2,"data":null}}"#);
        let published =
            Message::Published { topic: "a.b".into(), app: "web".into(), slot: 2, data: Value::Null };
        assert_eq!(messages.next().unwrap().unwrap(), published);
        tell(r#"{"supervisor":{"request":"sum","id":9,"slot":1,"data":[1]}}"#);
        let request = Message::Request { topic: "sum".into(), id: 9, slot: 1, data: json!([1]) };
        assert_eq!(messages.next().unwrap().unwrap(), request);
        tell(r#"{"supervisor":{"lost":3}}"#);
        assert_eq!(messages.next().unwrap().unwrap(), Message::Lost(3));

        let asked = channel.request("sum", &[1, 2], Duration::from_secs(1)).unwrap();
        assert_eq!(said()["supervisor"]["timeout"], 1000);
        let refused = channel.request("sum", &0, Duration::from_secs(1)).unwrap();
        tell(r#"{"supervisor":{"reply":0,"slot":1,"data":3}}"#);
        tell(r#"{"supervisor":{"reply":1,"error":"no reply in time"}}"#);
        tell(r#"{"supervisor":{"error":"bad"}}"#);
        assert_eq!(messages.next().unwrap().unwrap(), Message::Refused("bad".into()));
        assert_eq!(asked.wait(), Ok(json!(3)));
        assert_eq!(refused.wait(), Err("no reply in time".to_owned()));

        let last = channel.request("sum", &0, Duration::from_secs(1)).unwrap();
        said();
        drop(lines);
        drop(theirs);
        assert!(messages.next().is_none());
        assert!(last.wait().is_err());
    }
}
