//! What becomes of rotated files: surplus ones are deleted, the rest is
//! compressed, on a thread of its own that lives as long as there is work.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::access::{Access, Place};
use super::rotation::{COMPRESSED, Rotation, UNFINISHED, rotated_files, unfinished_files};

/// Compressing needs little; the default would reserve much more.
const STACK: usize = 256 * 1024;
/// How much the thread steps back behind others: `nice(2)`.
const NICENESS: i32 = 10;

/// The side that gives orders.
#[derive(Debug, Default)]
pub(crate) struct Tidy {
    work: Arc<Mutex<Work>>,
}

/// One entry for each file that was rotated, however often: it cannot grow
/// beyond the number of files.
#[derive(Debug, Default)]
struct Work {
    files: BTreeMap<PathBuf, Order>,
    /// Somebody is at it.
    is_running: bool,
}

#[derive(Debug, Clone)]
struct Order {
    access: Access,
    keep: u32,
    compress: bool,
}

impl Tidy {
    /// Has the files that were rotated from `path` looked after.
    pub(crate) fn order(&self, path: &Path, access: &Access, rotation: &Rotation) {
        let Rotation { keep, compress, .. } = *rotation;
        let mut work = lock(&self.work);
        work.files.insert(path.to_owned(), Order { access: access.clone(), keep, compress });
        if work.is_running {
            return;
        }
        let shared = Arc::clone(&self.work);
        let thread = thread::Builder::new().name("tidy".to_owned()).stack_size(STACK);
        match thread.spawn(move || run(&shared)) {
            Ok(_) => work.is_running = true,
            // The next rotation tries again.
            Err(error) => tracing::warn!("cannot start a thread for rotated log files: {error}"),
        }
    }
}

fn lock(work: &Mutex<Work>) -> MutexGuard<'_, Work> {
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(work: &Mutex<Work>) {
    // On Linux it is a thread's own; without it, work is done all the same.
    let _ = rustix::process::nice(NICENESS);
    loop {
        let next = {
            let mut work = lock(work);
            let next = work.files.pop_first();
            work.is_running = next.is_some();
            next
        };
        let Some((path, order)) = next else { return };
        if let Err(error) = order.access.reach(&path, |place| tidy(&path, place, &order)) {
            tracing::warn!("cannot look after what was rotated from {}: {error}", path.display());
        }
    }
}

fn tidy(path: &Path, place: Place, order: &Order) -> io::Result<()> {
    for file in unfinished_files(path)? {
        fs::remove_file(file)?;
    }
    loop {
        // Looked at anew after each step: meanwhile more may have been rotated.
        let files = rotated_files(path)?;
        let surplus = files.len().saturating_sub(order.keep as usize);
        for file in &files[..surplus] {
            remove(file)?;
        }
        let is_plain =
            |file: &&PathBuf| !file.as_os_str().as_encoded_bytes().ends_with(COMPRESSED.as_bytes());
        match files[surplus..].iter().find(is_plain) {
            Some(file) if order.compress => compress(file, place)?,
            Some(_) | None => return Ok(()),
        }
    }
}

/// Deletes a rotated file, and what compressing has left beside it.
pub(crate) fn remove(file: &Path) -> io::Result<()> {
    for end in ["", COMPRESSED] {
        match fs::remove_file(with_end(file, end)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Replaces a file by a compressed one. A kill at any moment leaves either.
fn compress(file: &Path, place: Place) -> io::Result<()> {
    // Somebody else may have taken it away.
    let mut from = match place.open(file, OpenOptions::new().read(true)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let unfinished = with_end(file, UNFINISHED);
    let mode = from.metadata()?.mode() & 0o777;
    let result =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished).and_then(|to| {
            let mut encoder = GzEncoder::new(to, Compression::fast());
            io::copy(&mut from, &mut encoder)?;
            encoder.finish()?;
            fs::rename(&unfinished, with_end(file, COMPRESSED))
        });
    if result.is_err() {
        // What is there is of no use, and the disk may be full.
        let _ = fs::remove_file(&unfinished);
    }
    result?;
    fs::remove_file(file)
}

fn with_end(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use flate2::read::GzDecoder;
    use jiff::Timestamp;

    use super::super::rotation::rotated_name;
    use super::*;

    #[test]
    fn surplus_files_go_and_the_rest_is_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        for second in 0..5 {
            let name = rotated_name(&path, Timestamp::from_second(second).unwrap());
            fs::write(name, format!("{second}\n")).unwrap();
        }
        let check = |keep, compress| {
            let order = Order { access: Access::default(), keep, compress };
            tidy(&path, Place::Safe, &order).unwrap();
        };
        check(4, false);
        assert_eq!(rotated_files(&path).unwrap().len(), 4);
        check(3, true);
        // Once more: nothing is done twice.
        check(3, true);
        let texts: Vec<String> = rotated_files(&path)
            .unwrap()
            .iter()
            .map(|file| {
                let mut text = String::new();
                GzDecoder::new(File::open(file).unwrap()).read_to_string(&mut text).unwrap();
                text
            })
            .collect();
        assert_eq!(texts, ["2\n", "3\n", "4\n"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
