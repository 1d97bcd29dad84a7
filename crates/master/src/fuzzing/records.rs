//! What another version, or a broken one, may have left: with the keeper, and
//! on disk.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};
use supervisor_core::{AppId, Event, Exit, Generation, Slots, Supervisor, Timestamp, WorkerId};
use supervisor_protocol::keeper::Hello;

use crate::inherit::{Entry, Table};
use crate::memory::{self, Memories};
use crate::settings::Settings;
use crate::state as text;

const APP: AppId = AppId(0);
/// An app of more slots is taken over, and not ended: that takes long.
const FEW: usize = 100;

/// What the keeper says first.
const HELLO: Hello = Hello {
    keeper_pid: 1,
    nofile_soft: None,
    nofile_hard: None,
    oom_score_adj: None,
    service_manager: false,
};

/// Entries of the keeper's table: a key, a line end, a record, a byte 0. What is
/// known of the app `web` is taken over by a core, which must then come to an end.
pub fn records(data: &[u8]) {
    let mut table = Table::new(HELLO);
    for entry in data.split(|byte| *byte == 0) {
        let Some(end) = entry.iter().position(|byte| *byte == b'\n') else { continue };
        let (Ok(key), record) = (str::from_utf8(&entry[..end]), &entry[end + 1..]) else { continue };
        // Some are in a descriptor, which may be missing.
        let fds = if record.is_empty() { Vec::new() } else { vec![file(record)] };
        table.take(Entry { key: key.to_owned(), record: record.to_vec(), fds });
    }
    assert!(table.unreadable.iter().all(|(_, why)| !why.is_empty()));
    let _ = table.set_aside();
    let mut core = Supervisor::new(1, WorkerId(1 << 32));
    if let Some(found) = table.apps.memories.of("web") {
        if core.adopt(Timestamp::default(), APP, found.app, found.slots).is_some() {
            check_memory(&core);
            end(&mut core);
        }
    } else if let Some((app, record)) = table.apps.known.into_iter().find(|(app, _)| app.name == "web") {
        let policy = Settings::new(app, record.generation).policy(true, true);
        let generation = Generation(record.generation);
        core.restore(Timestamp::default(), APP, generation, policy, record.instances, &Slots::All);
        check_memory(&core);
        end(&mut core);
    }
}

/// What is written of it is read as the same.
fn check_memory(core: &Supervisor) {
    let (Some(app), slots) = (core.memo(APP), core.slot_memos(APP).collect::<Vec<_>>()) else { return };
    let mut memories = Memories::default();
    let mut fds = vec![memory::account(1, &app, &slots).expect("a file in memory")];
    assert!(memories.take("memo:web", &[], &mut fds).expect("it is read"));
    let found = memories.of("web").expect("it was just written");
    assert_eq!((found.app, found.slots), (app, slots));
}

/// Lets time pass for a while, then ends all workers, then everything.
fn end(core: &mut Supervisor) {
    if core.slot_memos(APP).count() > FEW {
        return;
    }
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
