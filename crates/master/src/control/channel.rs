//! `GET /v1/channel`: what workers say from now on.

use axum::body::Bytes;
use http_body_util::channel::Sender;
use supervisor_protocol::control;
use tokio::sync::broadcast::{self, error::RecvError};

use super::Selection;
use super::routes::send_line;
use crate::channel::Overheard;

/// What a reader asked for.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) messages: broadcast::Receiver<Overheard>,
    pub(crate) selection: Selection,
}

/// Writes messages until the client leaves or the master ends.
pub(super) async fn tell(mut listening: Listening, mut to: Sender<Bytes>) {
    loop {
        let line = match listening.messages.recv().await {
            Ok(Overheard { app, slot, text, bytes }) => {
                if !listening.selection.contains(&app, Some(slot)) {
                    continue;
                }
                // It was read as JSON before it came here.
                let message = serde_json::from_slice(&text).ok();
                let bytes = (bytes > text.len()).then_some(bytes);
                let app = Some(app.to_string());
                control::Overheard { app, slot: Some(slot), message, bytes, missed: None }
            }
            Err(RecvError::Lagged(missed)) => {
                control::Overheard { missed: Some(missed), ..control::Overheard::default() }
            }
            Err(RecvError::Closed) => return,
        };
        if send_line(&mut to, &line).await.is_err() {
            return;
        }
    }
}
