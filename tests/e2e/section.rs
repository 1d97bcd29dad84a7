//! The section about the daemon.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::harness::{Finished, Home, finish, text};
use crate::process;
use crate::programs::{installed, supervisor};
use crate::wait::eventually;

/// A group that no user has.
const GROUP: u32 = 29_170;

fn apply(home: &Home, section: &str) -> Finished {
    let app = "apps:\n  - name: web\n    command: [sleep, '600']\n    instances: 1\n    min_uptime: 50ms\n";
    home.write("app.yaml", &format!("{section}\n{app}"));
    home.run(&["start", "app.yaml"])
}

/// Mode and group of the control socket and its folder.
fn access(home: &Home) -> [(u32, u32); 2] {
    let socket = home.socket();
    [socket.clone(), socket.parent().unwrap().to_owned()].map(|path| {
        // A new master makes the socket anew.
        let metadata = eventually("it is there", || fs::metadata(&path).ok());
        (metadata.mode() & 0o777, metadata.gid())
    })
}

/// `ping` of another user with this supplementary group.
fn ping_in_group(home: &Home, group: u32) -> Finished {
    let program = home.copy("supervisor", &supervisor());
    let mut command = home.program(installed("setpriv"));
    command.args(["--reuid=65534", "--regid=65534", &format!("--groups={group}")]);
    command.args([text(&program), "ping"]);
    finish(command.spawn().unwrap())
}

#[test]
fn a_group_may_use_the_daemon() {
    let home = Home::new();
    home.let_others_in();
    assert_eq!(apply(&home, "").code, Some(0));
    fs::set_permissions(home.daemon_folder(), fs::Permissions::from_mode(0o711)).unwrap();
    let closed = access(&home);
    assert_eq!(closed.map(|(mode, _)| mode), [0o600, 0o700]);
    assert_eq!(ping_in_group(&home, GROUP).code, Some(5));

    let pids = home.pids("web");
    assert_eq!(apply(&home, &format!("daemon: {{control_group: {GROUP}}}")).code, Some(0));
    let open = [(0o660, GROUP), (0o750, GROUP)];
    assert_eq!(access(&home), open);
    assert_eq!(ping_in_group(&home, GROUP).code, Some(0));
    assert_eq!(ping_in_group(&home, GROUP + 1).code, Some(5));
    // It is nothing that workers are replaced for.
    assert_eq!(home.pids("web"), pids);

    // It outlives the master, the daemon, and files that say nothing of it.
    let (_, master) = home.daemon();
    process::kill_and_wait(master);
    home.until_other_master(master);
    home.app_in_state("web", "online");
    assert_eq!(access(&home), open);
    assert_eq!(ping_in_group(&home, GROUP).code, Some(0));
    home.ok(&["kill"]);
    assert_eq!(apply(&home, "").code, Some(0));
    assert_eq!(access(&home), open);

    assert_eq!(apply(&home, "daemon: {}").code, Some(0));
    assert_eq!(access(&home), closed);
    assert_eq!(ping_in_group(&home, GROUP).code, Some(5));
}

#[test]
fn a_group_that_is_not_there_changes_nothing() {
    let home = Home::new();
    assert_eq!(apply(&home, "").code, Some(0));
    let refused = apply(&home, "daemon: {control_group: nobody-at-all}");
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("control_group"), "{refused:?}");
    assert!(refused.stderr.contains("nobody-at-all"), "{refused:?}");
    assert_eq!(access(&home).map(|(mode, _)| mode), [0o600, 0o700]);
}

#[test]
fn the_daemon_says_as_much_as_it_is_told() {
    let home = Home::new();
    assert_eq!(apply(&home, "daemon: {log_level: error}").code, Some(0));
    home.ok(&["restart", "web"]);
    assert_eq!(apply(&home, "daemon: {}").code, Some(0));
    home.ok(&["restart", "web"]);
    // What was logged before would be there by then.
    let log = home.until_logged("web:0: ready after ");
    assert_eq!(log.matches("web:0: ready after ").count(), 1, "{log}");
}
