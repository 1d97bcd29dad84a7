//! `GET /v1/events`: what happens from now on.

use axum::body::Bytes;
use http_body_util::channel::Sender;
use jiff::Timestamp;
use supervisor_protocol::events::{Event, Happening};
use tokio::sync::broadcast::{self, error::RecvError};

use super::Selection;
use super::routes::send_line;

/// What a reader asked for.
#[derive(Debug)]
pub(crate) struct Following {
    /// What has happened before.
    pub(crate) past: Vec<Event>,
    pub(crate) events: broadcast::Receiver<Event>,
    pub(crate) selection: Selection,
}

/// Writes events until the client leaves or the master ends.
pub(super) async fn tell(following: Following, mut to: Sender<Bytes>) {
    let Following { past, mut events, selection } = following;
    let mut past = past.into_iter();
    loop {
        let event = match past.next() {
            Some(event) => event,
            None => match events.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(events)) => {
                    Event { at: Timestamp::now().to_string(), what: Happening::Missed { events } }
                }
                Err(RecvError::Closed) => return,
            },
        };
        let wanted = event.what.place().is_none_or(|(app, slot)| selection.contains(app, slot));
        if wanted && send_line(&mut to, &event).await.is_err() {
            return;
        }
    }
}
