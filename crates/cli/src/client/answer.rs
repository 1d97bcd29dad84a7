//! An order's answer, to its end: over the deaths of masters that happen
//! meanwhile.
//!
//! The order goes with a key. When its answer breaks off the same order is sent
//! again: the next master knows by the key whether the one before had taken it,
//! and goes on telling; otherwise it takes it now.

use hyper::Method;
use hyper::body::Bytes;
use supervisor_protocol::control::{Failure as Failed, Progress};

use tokio::time::sleep;

use super::{BrokenOff, Client, LOOK_EVERY, Lines, decode};
use crate::exit_code::{ExitCode, Failure};

/// The answer of an order that has been given.
#[derive(Debug)]
pub(crate) struct Answer {
    client: Client,
    path: String,
    body: Bytes,
    key: String,
    lines: Lines,
    /// What has been told and is told again by the next master: what the order
    /// means, and what failed.
    told: Vec<Progress>,
    /// What of that this master may still tell again.
    again: Vec<Progress>,
}

impl Answer {
    pub(super) async fn new(client: &Client, path: &str, body: Bytes) -> Result<Answer, Failure> {
        let key = new_key();
        let lines = client.lines(Method::POST, path, body.clone(), Some(&key)).await?;
        Ok(Answer {
            client: client.clone(),
            path: path.to_owned(),
            body,
            key,
            lines,
            told: Vec::new(),
            again: Vec::new(),
        })
    }

    /// The next line, as the daemon wrote it and as what it means. The last one is
    /// [`Progress::Done`].
    ///
    /// # Errors
    /// When the daemon is gone before the order is over, or says what makes no
    /// sense.
    pub(crate) async fn next(&mut self) -> Result<(Vec<u8>, Progress), Failure> {
        loop {
            match self.lines.next().await {
                Ok(Some(line)) => {
                    let progress = decode::<Progress>(&line)?;
                    if self.is_news(&progress) {
                        return Ok((line, progress));
                    }
                }
                // The last line is missing.
                Ok(None) => self.go_on().await?,
                Err(error) if error.is::<BrokenOff>() => self.go_on().await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether a line was not told by an earlier master.
    fn is_news(&mut self, progress: &Progress) -> bool {
        let lasts = matches!(progress, Progress::App { .. } | Progress::Failed(_));
        if !lasts {
            return true;
        }
        if let Some(place) = self.again.iter().position(|told| is_same(told, progress)) {
            self.again.swap_remove(place);
            return false;
        }
        self.told.push(progress.clone());
        true
    }

    /// Finds the next master, and gives it the order again.
    async fn go_on(&mut self) -> Result<(), Failure> {
        sleep(LOOK_EVERY).await;
        if !self.is_kept() {
            return Err(broken_off());
        }
        let lines = self.client.lines(Method::POST, &self.path, self.body.clone(), Some(&self.key)).await;
        // Waiting for a master ends when its keeper does.
        self.lines = lines.map_err(|failure| if self.is_kept() { failure } else { broken_off() })?;
        self.again.clone_from(&self.told);
        Ok(())
    }

    /// Whether there is a keeper, which starts another master.
    fn is_kept(&self) -> bool {
        self.client.home().is_locked().unwrap_or(true)
    }
}

/// Whether two lines say the same: another master has not the last lines that a
/// failed worker wrote.
fn is_same(one: &Progress, other: &Progress) -> bool {
    match (one, other) {
        (Progress::Failed(one), Progress::Failed(other)) => {
            let place = |failed: &Failed| (failed.app.clone(), failed.slot, failed.reason.clone());
            place(one) == place(other)
        }
        (one, other) => one == other,
    }
}

/// A key that no other order has.
pub(super) fn new_key() -> String {
    format!("{:032x}", fastrand::u128(..))
}

fn broken_off() -> Failure {
    Failure::new(
        ExitCode::Failed,
        "the daemon's answer broke off before the order was over, as the daemon has ended; \
         its log may tell more",
    )
}
