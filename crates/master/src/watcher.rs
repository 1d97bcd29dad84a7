//! Files that change, on a thread of its own: walking folders takes time.
//!
//! inotify is used as it is. The usual library for it asks to be told of every
//! `open`, which would cost each worker that serves files.

mod folders;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use supervisor_config::Watch;
use supervisor_core::{AppId, OperationId};
use supervisor_sys::poll::{Interest, Poller, Waker};
use tokio::sync::mpsc as news;

use folders::Folders;

/// News that waits for the loop; the thread waits with more.
const NEWS: usize = 64;
/// What the thread needs; it does not recurse.
const STACK: usize = 256 * 1024;
/// How often what has vanished is looked for.
const RETRY: Duration = Duration::from_secs(1);
/// A reload waits for a quiet moment, but no longer than so many times the
/// delay.
const PATIENCE: u32 = 10;
/// The poller's token of the waker; apps' tokens are 32 bits.
const WAKER: u64 = u64::MAX;

/// What to watch for one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) watch: Watch,
    /// Where patterns start from.
    pub(crate) cwd: PathBuf,
    /// The app's own output, which is no change.
    pub(crate) logs: Vec<PathBuf>,
}

/// What the thread tells.
#[derive(Debug)]
pub(crate) enum FileNews {
    /// Whether an app is watched from now on.
    Set {
        app: AppId,
        /// The operation that waits for it.
        operation: Option<OperationId>,
        /// Whether all of it is there.
        result: Result<bool, String>,
    },
    /// A file of an app has changed, and then none for a while.
    Changed { app: AppId, path: PathBuf },
}

enum Command {
    Set(AppId, Watched, Option<OperationId>),
    Remove(AppId),
}

/// The master's side. The thread begins with the first app that is watched, and
/// ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    thread: Option<Thread>,
    publish: news::Sender<FileNews>,
    news: news::Receiver<FileNews>,
}

#[derive(Debug)]
struct Thread {
    commands: mpsc::Sender<Command>,
    waker: Arc<Waker>,
}

impl Default for Watcher {
    fn default() -> Self {
        let (publish, news) = news::channel(NEWS);
        Self { thread: None, publish, news }
    }
}

impl Watcher {
    /// Watches these files of an app and no others. The answer is a
    /// [`FileNews::Set`] with the same operation.
    ///
    /// # Errors
    ///
    /// When there can be no thread.
    pub(crate) fn set(
        &mut self,
        app: AppId,
        watched: Watched,
        operation: Option<OperationId>,
    ) -> io::Result<()> {
        if self.thread.is_none() {
            self.thread = Some(start(self.publish.clone())?);
        }
        self.command(Command::Set(app, watched, operation));
        Ok(())
    }

    /// Watches an app no more.
    pub(crate) fn remove(&self, app: AppId) {
        self.command(Command::Remove(app));
    }

    fn command(&self, command: Command) {
        if let Some(thread) = &self.thread {
            // The thread lives as long as this handle.
            let _ = thread.commands.send(command);
            thread.waker.wake();
        }
    }

    /// What the thread tells next. Nothing is lost when this is given up.
    pub(crate) async fn next(&mut self) -> Option<FileNews> {
        self.news.recv().await
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(Thread { commands, waker }) = self.thread.take() {
            drop(commands);
            waker.wake();
        }
    }
}

fn start(publish: news::Sender<FileNews>) -> io::Result<Thread> {
    let waker = Arc::new(Waker::new()?);
    let poller = Poller::new()?;
    poller.add(&*waker, WAKER, Interest::Read)?;
    let (commands, inbox) = mpsc::channel();
    let reader = Reader { poller, waker: Arc::clone(&waker), apps: BTreeMap::new(), publish };
    thread::Builder::new().name("watcher".to_owned()).stack_size(STACK).spawn(move || reader.run(&inbox))?;
    Ok(Thread { commands, waker })
}

/// An app's folders, and what has happened there.
struct App {
    folders: Folders,
    delay: Duration,
    changed: Option<Changed>,
}

/// Changes that are not told yet.
struct Changed {
    /// The first that changed.
    path: PathBuf,
    since: Instant,
    last: Instant,
}

impl App {
    /// When the changes are to be told.
    fn due(&self) -> Option<Instant> {
        let changed = self.changed.as_ref()?;
        Some((changed.last + self.delay).min(changed.since + self.delay * PATIENCE))
    }

    fn note(&mut self, path: PathBuf) {
        let now = Instant::now();
        self.changed.get_or_insert(Changed { path, since: now, last: now }).last = now;
    }
}

struct Reader {
    poller: Poller,
    waker: Arc<Waker>,
    apps: BTreeMap<AppId, App>,
    publish: news::Sender<FileNews>,
}

impl Reader {
    fn run(mut self, inbox: &mpsc::Receiver<Command>) {
        let mut events = Vec::new();
        let mut retry_at = Instant::now() + RETRY;
        loop {
            let missing = self.apps.values().any(|app| app.folders.is_incomplete());
            let due = self.apps.values().filter_map(App::due).chain(missing.then_some(retry_at)).min();
            let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
            if let Err(error) = self.poller.wait(&mut events, timeout) {
                tracing::error!("files are not watched any more: {error}");
                return;
            }
            self.waker.reset();
            loop {
                match inbox.try_recv() {
                    Ok(command) => self.obey(command),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            for event in &events {
                // The waker has no app.
                let app = u32::try_from(event.token).ok().and_then(|id| self.apps.get_mut(&AppId(id)));
                if let Some(app) = app
                    && let Some(path) = app.folders.read()
                {
                    app.note(path);
                }
            }
            if retry_at <= Instant::now() {
                retry_at = Instant::now() + RETRY;
                for app in self.apps.values_mut().filter(|app| app.folders.is_incomplete()) {
                    if let Some(path) = app.folders.complete() {
                        app.note(path);
                    }
                }
            }
            if self.tell_changes().is_err() {
                return;
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Remove(app) => self.remove(app),
            Command::Set(app, watched, operation) => {
                self.remove(app);
                let delay = watched.watch.delay;
                // After a boot a path may be there later.
                let folders = Folders::new(watched, operation.is_none()).and_then(|folders| {
                    let watch = self.poller.add(folders.inotify(), app.0.into(), Interest::Read);
                    watch.map(|()| folders).map_err(|error| error.to_string())
                });
                let result = folders.map(|folders| {
                    let complete = !folders.is_incomplete();
                    self.apps.insert(app, App { folders, delay, changed: None });
                    complete
                });
                // The loop takes all news that there is, or is gone.
                let _ = self.publish.blocking_send(FileNews::Set { app, operation, result });
            }
        }
    }

    fn remove(&mut self, app: AppId) {
        if let Some(app) = self.apps.remove(&app) {
            let _ = self.poller.remove(app.folders.inotify());
        }
    }

    /// Tells of apps whose files have been quiet for their delay. Fails when
    /// nobody listens any more.
    fn tell_changes(&mut self) -> Result<(), news::error::SendError<FileNews>> {
        let now = Instant::now();
        for (id, app) in &mut self.apps {
            if app.due().is_some_and(|due| due <= now)
                && let Some(Changed { path, .. }) = app.changed.take()
            {
                self.publish.blocking_send(FileNews::Changed { app: *id, path })?;
            }
        }
        Ok(())
    }
}
