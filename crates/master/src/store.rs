//! Where the state is kept: a file that is only ever replaced whole.
//!
//! Writing takes as long as the disk takes, so it is done on another thread.
//! Texts are written in the order in which they came; of several that wait only
//! the last one is.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use supervisor_config::{App, DaemonSettings};
use tokio::sync::{oneshot, watch};

use crate::records::AppRecord;
use crate::state::{self, Contents, Rest};

/// Enough for writing a file.
const STACK: usize = 128 * 1024;

/// The state file of a daemon; one that keeps nothing when it has none.
#[derive(Debug, Default)]
pub(crate) struct Store {
    file: Option<StateFile>,
}

#[derive(Debug)]
struct StateFile {
    path: PathBuf,
    /// What another version wrote and this one does not understand.
    rest: Rest,
    /// The last text; at first the one that was found.
    wanted: watch::Sender<Text>,
    written: watch::Receiver<Written>,
}

#[derive(Debug, Clone)]
struct Text {
    number: u64,
    text: Arc<[u8]>,
}

/// How far the writing has come.
#[derive(Debug, Default)]
struct Written {
    /// Texts up to this one.
    number: u64,
    /// Why it could not be written, in words.
    error: Option<String>,
}

/// A text on its way to the disk.
#[derive(Debug)]
pub(crate) struct Pending {
    number: u64,
    written: watch::Receiver<Written>,
}

impl Store {
    /// The store in a file, the apps that it has, and the daemon's settings. A file that is damaged is
    /// moved aside. Must be called within a runtime.
    pub(crate) fn open(path: PathBuf) -> (Self, Vec<(App, AppRecord)>, DaemonSettings) {
        let (text, Contents { apps, daemon, rest, mistakes }) = read(&path);
        for mistake in mistakes {
            tracing::error!("{}: {mistake}; it is kept there, and not run", path.display());
        }
        let (wanted, texts) = watch::channel(Text { number: 0, text: text.into() });
        let (progress, written) = watch::channel(Written::default());
        tokio::spawn(write_texts(path.clone(), texts, progress));
        (Self { file: Some(StateFile { path, rest, wanted, written }) }, apps, daemon)
    }

    /// Lets these apps and settings be what is declared from now on. `None` when
    /// nothing is kept.
    pub(crate) fn keep<'a>(
        &self,
        apps: impl Iterator<Item = (&'a App, AppRecord)>,
        daemon: &DaemonSettings,
    ) -> Option<Pending> {
        let file = self.file.as_ref()?;
        let text = state::encode(apps, daemon, &file.rest);
        let number = file.wanted.borrow().number;
        let failed = {
            let written = file.written.borrow();
            written.number == number && written.error.is_some()
        };
        let same = *file.wanted.borrow().text == *text;
        let number = if same && !failed { number } else { number + 1 };
        if number > file.wanted.borrow().number {
            file.wanted.send_replace(Text { number, text: text.into() });
        }
        Some(Pending { number, written: file.written.clone() })
    }

    /// Where it is kept, for messages.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// Waits until everything is written, or cannot be.
    pub(crate) async fn finish(&self) {
        if let Some(file) = &self.file {
            let number = file.wanted.borrow().number;
            let _ = Pending { number, written: file.written.clone() }.written().await;
        }
    }
}

impl Pending {
    /// Waits until it is on disk.
    ///
    /// # Errors
    ///
    /// In words, why it is not.
    pub(crate) async fn written(mut self) -> Result<(), String> {
        let number = self.number;
        match self.written.wait_for(|written| written.number >= number).await {
            Ok(written) => written.error.clone().map_or(Ok(()), Err),
            Err(_) => Err("nothing is written any more".to_owned()),
        }
    }
}

async fn write_texts(path: PathBuf, mut texts: watch::Receiver<Text>, progress: watch::Sender<Written>) {
    while texts.changed().await.is_ok() {
        let Text { number, text } = texts.borrow_and_update().clone();
        let to = path.clone();
        let (done, result) = oneshot::channel();
        // Where there may be no further thread, it is an error like any other; the next text has another try.
        let thread = thread::Builder::new().name("store".to_owned()).stack_size(STACK);
        let thread = thread.spawn(move || done.send(write(&to, &text)));
        let error = match thread {
            Ok(_) => match result.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the thread for it has ended".to_owned()),
            },
            Err(error) => Some(format!("no thread for it: {error}")),
        };
        if let Some(error) = &error {
            tracing::error!("cannot write {}: {error}", path.display());
        }
        progress.send_replace(Written { number, error });
    }
}

/// What a file has; nothing when there is none, or none that can be read.
fn read(path: &Path) -> (Vec<u8>, Contents) {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::error!("cannot read {}: {error}; beginning without apps", path.display());
            }
            return Default::default();
        }
    };
    match state::decode(&text) {
        Ok(contents) => (text, contents),
        Err(damage) => {
            let aside = aside(path);
            let outcome = match fs::rename(path, &aside) {
                Ok(()) => format!("it is moved to {}", aside.display()),
                Err(error) => format!("it cannot be moved to {}: {error}", aside.display()),
            };
            tracing::error!("{} is damaged: {damage}; {outcome}; beginning without apps", path.display());
            Default::default()
        }
    }
}

/// Where a damaged file goes: `state.json.damaged-2026-01-31T12:00:00.123Z`.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".damaged-{:.3}", jiff::Timestamp::now()));
    path.with_file_name(name)
}

/// Replaces a file: whoever reads it, even after a power cut, finds the old
/// text or the new one.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // It may hold secrets: the environment of apps.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn in_runtime<F: Future>(test: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test)
    }

    const APP: &str = r#"{"schema": 1, "apps": [{"generation": 1, "instances": 1, "stopped": [], "source": null,
        "settings": {"name": "web", "command": ["true"], "cwd": "/"}}]}"#;

    #[test]
    fn what_is_kept_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/state.json");
        in_runtime(async {
            let (store, apps, _) = Store::open(path.clone());
            assert!(apps.is_empty());
            assert!(!path.exists(), "nothing is written unasked");
            let apps = state::decode(APP.as_bytes()).unwrap().apps;
            let own = DaemonSettings::default();
            let list = || apps.iter().map(|(app, record)| (app, record.clone()));
            store.keep(list(), &own).unwrap().written().await.unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            let first = fs::metadata(&path).unwrap().ino();
            store.keep(list(), &own).unwrap().written().await.unwrap();
            assert_eq!(fs::metadata(&path).unwrap().ino(), first, "the same text is written once");
            let (_, again, _) = Store::open(path.clone());
            assert_eq!(again, apps);
            // Each text counts, the last one wins.
            let early = store.keep(std::iter::empty(), &own).unwrap();
            store.keep(list(), &own).unwrap();
            store.keep(std::iter::empty(), &own).unwrap();
            store.finish().await;
            early.written().await.unwrap();
            assert!(Store::open(path.clone()).1.is_empty());
        });
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/state.json");
        fs::write(folder.path().join("a"), "in the way").unwrap();
        in_runtime(async {
            let (store, ..) = Store::open(path.clone());
            let own = DaemonSettings::default();
            assert!(store.keep(std::iter::empty(), &own).unwrap().written().await.is_err());
            fs::remove_file(folder.path().join("a")).unwrap();
            store.keep(std::iter::empty(), &own).unwrap().written().await.unwrap();
            assert!(path.is_file());
        });
    }

    #[test]
    fn a_damaged_file_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        fs::write(&path, "{\"schema\": 1, \"apps\": [").unwrap();
        in_runtime(async { assert!(Store::open(path.clone()).1.is_empty()) });
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 1);
        assert!(names[0].to_str().unwrap().starts_with("state.json.damaged-"), "{names:?}");
    }

    #[test]
    fn without_a_file_nothing_is_kept() {
        assert!(Store::default().keep(std::iter::empty(), &DaemonSettings::default()).is_none());
    }
}
