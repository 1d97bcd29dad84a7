//! What another version, or a broken one, may have left: with the keeper, and
//! on disk.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};
use supervisor_config::App;
use supervisor_core::{AppId, Event, Exit, OperationId, Supervisor, Timestamp, WorkerId};

use crate::capture::CallsRecord;
use crate::memory::{self, Memories};
use crate::records::{self, AppRecord, WorkerRecord};
use crate::state as text;

const APP: AppId = AppId(0);

/// Entries of the keeper's table: a key, a line end, a record, a byte 0. A memo is
/// taken over by a core, which must then come to an end.
pub fn records(data: &[u8]) {
    let mut memories = Memories::default();
    for entry in data.split(|byte| *byte == 0) {
        let Some(end) = entry.iter().position(|byte| *byte == b'\n') else { continue };
        let (Ok(key), record) = (std::str::from_utf8(&entry[..end]), &entry[end + 1..]) else { continue };
        // Some are in a descriptor, which may be missing.
        let mut fds = if record.is_empty() { Vec::new() } else { vec![file(record)] };
        if memories.take(key, record, &mut fds) {
            continue;
        }
        if key.starts_with(records::WORKER) {
            let _ = records::read::<WorkerRecord>(record);
        } else if key.starts_with(records::CALLS) {
            let _ = records::read::<CallsRecord>(record);
        } else {
            let _ = records::load::<(App, AppRecord)>(file(record));
        }
    }
    if let Some(found) = memories.of("web") {
        let mut core = Supervisor::new(1, WorkerId(1 << 32));
        if core.adopt(Timestamp::default(), APP, OperationId(1), found.app, found.slots).is_some() {
            check_memory(&core);
            end(&mut core);
        }
    }
}

/// What is written of it is read as the same.
fn check_memory(core: &Supervisor) {
    let (Some(app), slots) = (core.memo(APP), core.slot_memos(APP).collect::<Vec<_>>()) else { return };
    let mut memories = Memories::default();
    let mut fds = vec![memory::account(1, &app, &slots).expect("a file in memory")];
    assert!(memories.take("memo:web", &[], &mut fds));
    let found = memories.of("web").expect("it was just written");
    assert_eq!((found.app, found.slots), (app, slots));
}

/// Lets time pass for a while, then ends all workers, then everything.
fn end(core: &mut Supervisor) {
    let mut now = Timestamp::default();
    for turn in 0..200 {
        let event = match turn {
            20 => Event::ShutdownOrdered { now: false },
            40 => Event::ShutdownOrdered { now: true },
            _ => Event::TimePassed,
        };
        let _ = core.handle(now, event);
        if core.is_finished() {
            return;
        }
        if turn >= 40 {
            let workers: Vec<WorkerId> = core
                .slot_memos(APP)
                .flat_map(|slot| slot.workers().map(|worker| worker.id).collect::<Vec<_>>())
                .collect();
            for worker in workers {
                let _ = core.handle(now, Event::WorkerSpawned(worker));
                let _ = core.handle(now, Event::WorkerExited { worker, exit: Exit::Signal(9) });
            }
        }
        if let Some(deadline) = core.next_deadline() {
            now = now.max(deadline);
        }
    }
    panic!("it does not end: {core:?}");
}

/// The text of `state.json`: what is understood of it is written as it was.
pub fn state(data: &[u8]) {
    let Ok(contents) = text::decode(data) else { return };
    let encode = |contents: &text::Contents| {
        let apps = contents.apps.iter().map(|(app, record)| (app, record.clone()));
        text::encode(apps, &contents.daemon, &contents.rest)
    };
    let written = encode(&contents);
    let again = text::decode(&written).expect("what was written is read");
    assert_eq!(again.apps, contents.apps);
    assert_eq!(encode(&again), written);
}

fn file(bytes: &[u8]) -> OwnedFd {
    let mut file = File::from(memfd_create("record", MemfdFlags::CLOEXEC).expect("a file in memory"));
    file.write_all(bytes).expect("there is room");
    file.into()
}
