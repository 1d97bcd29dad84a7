//! Clients that ask without a pause, each request on a connection of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::http;
use crate::wait::until;

/// As many as most tests want.
const CLIENTS: usize = 4;

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    counts: Arc<Counts>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

#[derive(Debug, Default)]
struct Counts {
    answers: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    /// Starts clients that ask for `/pid`.
    pub(crate) fn start(address: SocketAddr) -> Self {
        Self::with_clients(address, CLIENTS)
    }

    /// Starts this many clients that ask for `/pid`.
    pub(crate) fn with_clients(address: SocketAddr, clients: usize) -> Self {
        let counts = Arc::new(Counts::default());
        let client = |_| {
            let counts = Arc::clone(&counts);
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !counts.over.load(Ordering::Relaxed) {
                    match http::get(address, "/pid") {
                        Ok(_) => {
                            counts.answers.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => failures.push(error.to_string()),
                    }
                }
                failures
            })
        };
        let clients = (0..clients).map(client).collect();
        Self { counts, clients }
    }

    /// How many answers there have been.
    pub(crate) fn answers(&self) -> usize {
        self.counts.answers.load(Ordering::Relaxed)
    }

    /// Waits for this many more answers.
    #[track_caller]
    pub(crate) fn more(&self, answers: usize) {
        let enough = self.counts.answers.load(Ordering::Relaxed) + answers;
        until("clients are answered", || self.counts.answers.load(Ordering::Relaxed) >= enough);
    }

    /// Ends the clients. Returns what failed.
    pub(crate) fn finish(self) -> Vec<String> {
        self.counts.over.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}
