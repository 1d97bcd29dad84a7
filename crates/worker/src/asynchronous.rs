//! The channel for tokio. Writing blocks no task for long: a line goes into the
//! socket at once unless the supervisor is behind.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, oneshot};

use crate::message::{self, Message, Read, Reply};

/// The way to the other workers; any number of tasks may have one.
#[derive(Debug, Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stream: Mutex<OwnedWriteHalf>,
    waiting: StdMutex<HashMap<u64, oneshot::Sender<Reply>>>,
    next: AtomicU64,
}

/// What comes on the channel, in order.
#[derive(Debug)]
pub struct Messages {
    reader: BufReader<OwnedReadHalf>,
    shared: Arc<Shared>,
    line: Vec<u8>,
}

impl Channel {
    /// The two sides of a channel on this socket, within a runtime of tokio.
    /// [`crate::Channel::into_stream`] gives the socket of a blocking one.
    ///
    /// # Errors
    ///
    /// When tokio cannot watch it.
    pub fn new(stream: StdStream) -> io::Result<(Self, Messages)> {
        stream.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(stream)?.into_split();
        let shared = Arc::new(Shared {
            stream: Mutex::new(write),
            waiting: StdMutex::default(),
            next: AtomicU64::new(0),
        });
        let reader = BufReader::new(read);
        Ok((Self { shared: Arc::clone(&shared) }, Messages { reader, shared, line: Vec::new() }))
    }

    /// As [`crate::Channel::broadcast`].
    ///
    /// # Errors
    ///
    /// When the channel is closed.
    pub async fn broadcast<'a>(&self, members: impl IntoIterator<Item = (&'a str, Value)>) -> io::Result<()> {
        let line = message::broadcast(&members.into_iter().collect());
        self.write(&line).await
    }

    /// As [`crate::Channel::publish`].
    ///
    /// # Errors
    ///
    /// When `data` has no JSON form, or the channel is closed.
    pub async fn publish(&self, topic: &str, data: &impl Serialize) -> io::Result<()> {
        let ask = json!({"publish": topic, "data": message::value(data)?});
        self.ask(&ask).await
    }

    /// As [`crate::Channel::publish_retained`].
    ///
    /// # Errors
    ///
    /// When `data` has no JSON form, or the channel is closed.
    pub async fn publish_retained(&self, topic: &str, data: &impl Serialize, count: u32) -> io::Result<()> {
        let ask = json!({"publish": topic, "data": message::value(data)?, "retain": count});
        self.ask(&ask).await
    }

    /// As [`crate::Channel::subscribe_with_replay`]; none are replayed with 0.
    ///
    /// # Errors
    ///
    /// When the channel is closed.
    pub async fn subscribe(&self, topics: &[&str], replay: u32) -> io::Result<()> {
        self.ask(&json!({"subscribe": topics, "replay": replay})).await
    }

    /// As [`crate::Channel::unsubscribe`].
    ///
    /// # Errors
    ///
    /// When the channel is closed.
    pub async fn unsubscribe(&self, topics: &[&str]) -> io::Result<()> {
        self.ask(&json!({"unsubscribe": topics})).await
    }

    /// Asks one other worker that has subscribed to the topic, and waits for the
    /// reply. Another task must read [`Messages`] meanwhile.
    ///
    /// # Errors
    ///
    /// Why there is none, in words.
    pub async fn request(&self, topic: &str, data: &impl Serialize, timeout: Duration) -> Reply {
        let words = |error: io::Error| error.to_string();
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let data = message::value(data).map_err(words)?;
        let (sender, reply) = oneshot::channel();
        self.shared.waiting().insert(id, sender);
        let ask = json!({"request": topic, "id": id, "timeout": timeout, "data": data});
        if let Err(error) = self.ask(&ask).await {
            self.shared.waiting().remove(&id);
            return Err(words(error));
        }
        reply.await.unwrap_or_else(|_| Err("the channel is closed".to_owned()))
    }

    /// As [`crate::Channel::reply`].
    ///
    /// # Errors
    ///
    /// When `data` has no JSON form, or the channel is closed.
    pub async fn reply(&self, id: u64, data: &impl Serialize) -> io::Result<()> {
        let ask = json!({"reply": id, "data": message::value(data)?});
        self.ask(&ask).await
    }

    /// As [`crate::Channel::ready`].
    ///
    /// # Errors
    ///
    /// When the channel is closed.
    pub async fn ready(&self) -> io::Result<()> {
        self.write(b"\"ready\"\n").await
    }

    async fn ask(&self, ask: &Value) -> io::Result<()> {
        self.write(&message::ask(ask)).await
    }

    async fn write(&self, line: &[u8]) -> io::Result<()> {
        self.shared.stream.lock().await.write_all(line).await
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Messages {
    /// The next message; `None` when the channel is closed. It may be dropped
    /// while it waits, without losing anything.
    ///
    /// # Errors
    ///
    /// When the socket fails, or what comes is not as documented.
    pub async fn next(&mut self) -> io::Result<Option<Message>> {
        loop {
            // What has been read of a line is kept there when this is dropped.
            if self.reader.read_until(b'\n', &mut self.line).await? == 0 {
                self.shared.waiting().clear();
                return Ok(None);
            }
            let read = message::read(&self.line);
            self.line.clear();
            match read? {
                Read::Message(message) => return Ok(Some(message)),
                Read::Reply(id, reply) => {
                    if let Some(waiting) = self.shared.waiting().remove(&id) {
                        // Nobody may wait for it any more.
                        let _ = waiting.send(reply);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};

    use super::*;

    #[test]
    fn a_request_and_its_reply() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = StdStream::pair().unwrap();
            let (channel, mut messages) = Channel::new(ours).unwrap();
            let reading = tokio::spawn(async move { messages.next().await.unwrap() });
            let asking = {
                let channel = channel.clone();
                tokio::spawn(async move { channel.request("sum", &1, Duration::from_secs(1)).await })
            };
            let mut reader = BufReader::new(theirs.try_clone().unwrap());
            let line = tokio::task::spawn_blocking(move || {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                line
            });
            assert!(line.await.unwrap().contains(r#""request":"sum""#));
            theirs.write_all(b"{\"supervisor\":{\"reply\":0,\"slot\":1,\"data\":2}}\n[1]\n").unwrap();
            assert_eq!(asking.await.unwrap(), Ok(json!(2)));
            assert_eq!(reading.await.unwrap(), Some(Message::Plain(json!([1]))));
        });
    }
}
