//! What the daemon tells, asked in the background: snapshots, output, and how
//! orders go on. All of it comes through one bounded queue.

use std::sync::Arc;
use std::time::Duration;

use supervisor_protocol::control::{LogLine, Status};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::order::Order;
use super::state::{Note, Subject, Tone};
use crate::client::{BrokenOff, Client, Connection, Lines, decode, with_query};
use crate::exit_code::{ExitCode, Failure};
use crate::log_cursor::{LogCursor, Note as Shown};
use crate::progress::{News as Step, Tracker};

/// Where snapshots are.
const STATUS: &str = "/v1/status";

/// How often a snapshot is asked for, and a stream that has ended begun again.
const EVERY: Duration = Duration::from_secs(1);

/// How long a selection must stand before its output is asked for: whoever
/// scrolls through the table asks for nothing.
const SETTLE: Duration = Duration::from_millis(150);

/// How many news wait to be shown. The daemon leaves output out meanwhile.
const NEWS_MAX: usize = 256;

/// Something that the daemon tells.
#[derive(Debug)]
pub(super) enum News {
    /// A snapshot, or why there is none.
    Status(Result<Box<Status>, String>),
    /// A line of output.
    Line(Arc<Subject>, LogLine),
    /// Why there is no output, or that there is again.
    Log(Arc<Subject>, Option<String>),
    /// How an order goes on.
    Order(Note),
    /// How an order ended.
    Ended(Note),
}

/// The questions under way.
#[derive(Debug)]
pub(super) struct Feed {
    client: Arc<Client>,
    sender: mpsc::Sender<News>,
    wanted: watch::Sender<Option<Wanted>>,
}

/// Whose output is to be followed.
#[derive(Debug, Clone)]
struct Wanted {
    subject: Arc<Subject>,
    /// How many of the last lines of each file come first.
    lines: usize,
}

impl Feed {
    /// Begins to ask for snapshots. The news arrive at the receiver.
    pub(super) fn start(client: Client) -> (Feed, mpsc::Receiver<News>) {
        let client = Arc::new(client);
        let (sender, receiver) = mpsc::channel(NEWS_MAX);
        let (wanted, changes) = watch::channel(None);
        tokio::spawn(poll(Arc::clone(&client), sender.clone()));
        tokio::spawn(follow_wanted(Arc::clone(&client), changes, sender.clone()));
        (Feed { client, sender, wanted }, receiver)
    }

    /// Follows the output of this app or slot and of no other, beginning with so
    /// many of the last lines of each of its files.
    pub(super) fn follow(&self, subject: Option<&Subject>, lines: usize) {
        self.wanted.send_if_modified(|wanted| {
            let differs = wanted.as_ref().map(|wanted| &*wanted.subject) != subject;
            if differs {
                *wanted = subject.map(|subject| Wanted { subject: Arc::new(subject.clone()), lines });
            }
            differs
        });
    }

    /// Gives an order.
    pub(super) fn give(&self, order: Order) {
        let (client, sender) = (Arc::clone(&self.client), self.sender.clone());
        tokio::spawn(async move {
            let note = carry_out(&client, &order, &sender)
                .await
                .unwrap_or_else(|failure| bad(format!("{}: {:#}", order.title(), failure.cause)));
            // Whoever has left does not want to know.
            let _ = sender.send(News::Ended(note)).await;
        });
    }
}

/// Asks for a snapshot again and again, over one connection as long as it
/// lasts.
async fn poll(client: Arc<Client>, sender: mpsc::Sender<News>) {
    let mut connection = None;
    loop {
        let answer = ask(&client, &mut connection).await.map(Box::new);
        if answer.is_err() {
            connection = None;
        }
        let answer = answer.map_err(|failure| format!("{:#}", failure.cause));
        if sender.send(News::Status(answer)).await.is_err() {
            return;
        }
        sleep(EVERY).await;
    }
}

/// Asks over the connection that there is, or over a new one: another master
/// answers.
async fn ask(client: &Client, connection: &mut Option<Connection>) -> Result<Status, Failure> {
    if let Some(connection) = connection
        && let Ok(answer) = connection.get(STATUS).await
    {
        return Ok(decode(&answer)?);
    }
    let answer = client.get(STATUS).await?;
    *connection = Some(client.connect().await?);
    Ok(decode(&answer)?)
}

async fn follow_wanted(
    client: Arc<Client>,
    mut changes: watch::Receiver<Option<Wanted>>,
    sender: mpsc::Sender<News>,
) {
    loop {
        let wanted = changes.borrow_and_update().clone();
        let following = async {
            match wanted {
                Some(wanted) => follow(&client, wanted, &sender).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = following => return,
            changed = changes.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Passes output on until nobody listens. Another master goes on where the one
/// before was.
async fn follow(client: &Client, wanted: Wanted, sender: &mpsc::Sender<News>) {
    let Wanted { subject, lines } = wanted;
    let (selector, lines) = (subject.selector(), lines.to_string());
    let mut cursor = LogCursor::default();
    sleep(SETTLE).await;
    loop {
        let query = cursor.query(&lines);
        let query = query.iter().map(|(name, value)| (*name, value.as_str()));
        let path = with_query("/v1/logs", query.chain([("selector", selector.as_str())]));
        let problem = match client.get_lines(&path).await {
            Ok(stream) => {
                if sender.send(News::Log(Arc::clone(&subject), None)).await.is_err() {
                    return;
                }
                match pass_on(stream, &subject, &mut cursor, sender).await {
                    Err(error) if error.is::<BrokenOff>() => continue,
                    Err(error) => format!("{error:#}"),
                    Ok(()) => "the daemon ended the stream".to_owned(),
                }
            }
            Err(failure) => format!("{:#}", failure.cause),
        };
        if sender.send(News::Log(Arc::clone(&subject), Some(problem))).await.is_err() {
            return;
        }
        sleep(EVERY).await;
    }
}

async fn pass_on(
    mut stream: Lines,
    subject: &Arc<Subject>,
    cursor: &mut LogCursor,
    sender: &mpsc::Sender<News>,
) -> anyhow::Result<()> {
    while let Some(line) = stream.next().await? {
        let line = decode(&line)?;
        match cursor.note(&line) {
            Shown::Show => sender.send(News::Line(Arc::clone(subject), line)).await?,
            Shown::Pass => {}
            Shown::Resume => return Err(anyhow::Error::msg(BrokenOff)),
        }
    }
    Ok(())
}

/// Gives an order and tells how it goes on, up to its outcome.
async fn carry_out(client: &Client, order: &Order, sender: &mpsc::Sender<News>) -> Result<Note, Failure> {
    let mut answer = order.send(client).await?;
    let mut tracker = Tracker::new(false, false).of_slots(std::slice::from_ref(&order.selector));
    let mut failed = None;
    loop {
        let (_, progress) = answer.next().await?;
        let text = match tracker.note(progress) {
            None => continue,
            Some(Step::App(app)) => tracker.ordered(&app),
            Some(Step::Step { text, .. }) => text,
            Some(Step::Failed { text, .. }) => {
                // The worker's last lines, which follow, are in its log.
                failed = text.lines().next().map(str::to_owned);
                continue;
            }
            Some(Step::Done(code)) => return Ok(outcome(order, &tracker, code, failed)),
        };
        sender.send(News::Order(Note { tone: Tone::Busy, text })).await.map_err(anyhow::Error::from)?;
    }
}

/// What became of an order, in one line.
fn outcome(order: &Order, tracker: &Tracker, code: u8, failed: Option<String>) -> Note {
    let what = || failed.clone().unwrap_or_else(|| order.title());
    match ExitCode::from_number(code) {
        ExitCode::Done => {
            let outcomes: Vec<String> = tracker.apps().map(|app| tracker.outcome(app)).collect();
            let text =
                if outcomes.is_empty() { format!("{}: done", order.title()) } else { outcomes.join("; ") };
            Note { tone: Tone::Good, text }
        }
        ExitCode::RolledBack => bad(format!("{}; rolled back: the old version serves on", what())),
        ExitCode::Refused => bad(format!("{}; refused: another order is under way", what())),
        ExitCode::Failed | ExitCode::Usage | ExitCode::NoSuchApp | ExitCode::NoDaemon => {
            bad(failed.clone().unwrap_or_else(|| format!("{} failed", order.title())))
        }
    }
}

fn bad(text: String) -> Note {
    Note { tone: Tone::Bad, text }
}

#[cfg(test)]
mod tests {
    use supervisor_protocol::control::{Change, Progress};

    use super::super::order::Verb;
    use super::*;

    #[test]
    fn outcomes_are_one_line() {
        let order = Order { verb: Verb::Reload, selector: "web".to_owned() };
        let mut tracker = Tracker::new(false, false);
        tracker.note(Progress::App { app: "web".to_owned(), change: Change::Reloaded, instances: 2 });
        let check = |code, failed: Option<&str>, tone, text: &str| {
            let note = outcome(&order, &tracker, code, failed.map(str::to_owned));
            assert_eq!(note, Note { tone, text: text.to_owned() });
        };
        check(0, None, Tone::Good, "web reloaded, 2 workers ready");
        check(1, Some("web:0 failed: no"), Tone::Bad, "web:0 failed: no");
        check(1, None, Tone::Bad, "reload web failed");
        check(5, None, Tone::Bad, "reload web; refused: another order is under way");
        let back = "web:0 failed: no; rolled back: the old version serves on";
        check(6, Some("web:0 failed: no"), Tone::Bad, back);
    }
}
