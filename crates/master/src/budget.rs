//! How many workers there is room for.
//!
//! Each costs descriptors, in this process and in the keeper, and entries of the
//! keeper's table. What an order would need is added up before it is begun: a
//! worker that there is no room for would be missed only in the middle of it.

use supervisor_config::{App, ExecMode, Reload};
use supervisor_protocol::control::{ErrorCode, ErrorDetail};
use supervisor_protocol::keeper::MAX_ENTRIES;
use supervisor_sys::limits::{self, Resource};

use crate::registry::refuse;

/// Descriptors that a worker costs this process beside its sockets: its pidfd,
/// two pipes, where its messages and its calls come, its channel, two files of
/// `/proc`; one for what is under way, and the keeper's six again, which are
/// copied for its death.
const MASTER: u64 = 15;
/// Those of each of its sockets, with the copy.
const MASTERS_SOCKET: u64 = 2;
/// Those that it costs the keeper: the same without the last three.
const KEEPER: u64 = 6;
/// Entries of the table: itself, its slot, what it was told, its calls, and three
/// about its channel.
const ENTRIES: u64 = 7;
/// Descriptors that this process needs for itself and for clients, and the
/// keeper for itself and for messages under way.
const OWN: u64 = 400;
const KEEPERS_OWN: u64 = 512;

/// Refuses more workers than there is room for. Each app comes with its number
/// of workers.
///
/// # Errors
///
/// The numbers, and what can be done.
pub(crate) fn check<'a>(apps: impl Iterator<Item = (u32, &'a App)>) -> Result<(), ErrorDetail> {
    check_against(limits::get(Resource::Nofile).soft, apps)
}

fn check_against<'a>(
    limit: Option<u64>,
    apps: impl Iterator<Item = (u32, &'a App)>,
) -> Result<(), ErrorDetail> {
    let (mut workers, mut master, mut keeper, mut entries) = (0_u64, OWN, KEEPERS_OWN, 0);
    for (instances, app) in apps {
        let most = most_at_once(instances, app);
        let sockets = sockets(app);
        workers += most;
        master += most * (MASTER + MASTERS_SOCKET * sockets);
        keeper += most * (KEEPER + sockets);
        entries += most * (ENTRIES + sockets);
    }
    let needed = master.max(keeper);
    if let Some(limit) = limit.filter(|limit| needed > *limit) {
        let message = format!(
            "{workers} workers may need {needed} descriptors, but the daemon's limit is {limit}; \
             scale down, or raise the hard limit of open files (`LimitNOFILE=`, `ulimit -Hn`) and start \
             the daemon anew"
        );
        return Err(refuse(ErrorCode::Busy, message));
    }
    if entries > MAX_ENTRIES as u64 {
        let message = format!(
            "{workers} workers may need {entries} entries in the keeper's table, which has room for \
             {MAX_ENTRIES}; scale down"
        );
        return Err(refuse(ErrorCode::Busy, message));
    }
    Ok(())
}

/// Workers that an app has at once in a reload.
fn most_at_once(instances: u32, app: &App) -> u64 {
    let beside = match app.reload {
        Reload::Rolling => app.max_surge.min(instances),
        Reload::All | Reload::Canary { .. } => instances,
    };
    u64::from(instances) + u64::from(beside)
}

/// Listening sockets of one worker; of those that it will bind itself one is
/// expected.
fn sockets(app: &App) -> u64 {
    let captured = usize::from(app.exec_mode == ExecMode::Cluster);
    app.listen.len().max(captured) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state;

    fn app() -> App {
        let text = br#"{"schema": 1, "apps": [{"generation": 1, "instances": 1,
            "settings": {"name": "web", "command": ["true"], "cwd": "/"}}]}"#;
        let (app, _) = state::decode(text).unwrap().apps.remove(0);
        App { max_surge: 1, exec_mode: ExecMode::Cluster, reload: Reload::Rolling, ..app }
    }

    #[track_caller]
    fn check(limit: u64, instances: u32, app: &App, expected: Result<(), &str>) {
        match (check_against(Some(limit), [(instances, app)].into_iter()), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(words)) => {
                assert!(error.code == ErrorCode::Busy && error.message.contains(words), "{error:?}");
            }
            (result, _) => panic!("{instances} under {limit}: {result:?}"),
        }
    }

    #[test]
    fn a_thousand_workers_need_less_than_20_000_descriptors() {
        check(20_000, 1000, &app(), Ok(()));
        check(20_000, 550, &App { reload: Reload::All, ..app() }, Ok(()));
    }

    #[test]
    fn refusals_have_the_numbers() {
        let told = "37 workers may need 1029 descriptors, but the daemon's limit is 1024";
        check(1024, 35, &app(), Ok(()));
        check(1024, 36, &app(), Err(told));
        check(1024, 19, &App { reload: Reload::All, ..app() }, Err("38 workers"));
        check(1 << 20, 8190, &app(), Ok(()));
        check(1 << 20, 8192, &app(), Err("65544 entries"));
    }
}
