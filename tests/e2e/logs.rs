//! Workers' output.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;
use supervisor_sys::signal::Signal;
use supervisor_sys::user::User;

use crate::follow::Follow;
use crate::harness::{Home, text};
use crate::mounts::Tmpfs;
use crate::process;
use crate::programs::worker;
use crate::wait::until;

/// Our worker, which writes what it is asked to.
fn start(home: &Home, flags: &str, settings: &str) {
    let (worker, address) = (worker(), home.address());
    home.start_app(
        "web",
        &format!("command: [{}{flags}]\nmin_uptime: 50ms\nlisten: '{address}'\n{settings}", text(&worker)),
    );
}

#[test]
fn both_streams_of_all_slots_are_shown() {
    let home = Home::new();
    home.start_app(
        "web",
        "command: [sh, -c, 'echo out $SUPERVISOR_INSTANCE; echo err $SUPERVISOR_INSTANCE >&2; exec sleep 600']
        min_uptime: 50ms
        instances: 2",
    );
    until("all has arrived", || home.ok(&["logs"]).stdout.lines().count() == 4);
    let sorted = |args: &[&str]| {
        let mut lines: Vec<String> = home.ok(args).stdout.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&["logs"]), ["web:0 ! err 0", "web:0 | out 0", "web:1 ! err 1", "web:1 | out 1"]);
    assert_eq!(sorted(&["logs", "web:1"]), ["web:1 ! err 1", "web:1 | out 1"]);
    assert_eq!(sorted(&["logs", "--err"]), ["web:0 ! err 0", "web:1 ! err 1"]);
    assert_eq!(sorted(&["logs", "--out"]), ["web:0 | out 0", "web:1 | out 1"]);
    let json = home.ok(&["logs", "web:0", "--out", "--json"]).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"event": "line", "app": "web", "slot": 0, "stream": "out", "line": "out 0"})
    );
}

#[test]
fn the_last_lines_of_each_file() {
    let home = Home::new();
    home.start_app("web", "command: [sh, -c, 'seq 1 1000; exec sleep 600']\nmin_uptime: 50ms\ninstances: 1");
    until("all has arrived", || home.log("web-out-0.log").lines().count() == 1000);
    let lines = |args: &[&str]| home.ok(args).stdout.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&["logs", "--lines", "2"]), ["web:0 | 999", "web:0 | 1000"]);
    assert_eq!(lines(&["logs"]).len(), 15);
    assert_eq!(lines(&["logs", "--lines", "0"]), [""; 0]);
    assert_eq!(lines(&["logs", "--lines", "5000"]).len(), 1000);
}

/// The files that were rotated from one of the log folder, oldest first.
fn rotated(home: &Home, name: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(home.daemon_folder().join("log")).unwrap().flatten().map(|file| file.path());
    let begin = format!("{name}.2");
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with(&begin)).collect();
    files.sort();
    files
}

#[test]
fn a_link_in_a_folder_of_the_apps_user_leads_nowhere() {
    let home = Home::new();
    home.let_others_in();
    let secret = home.write("secret", "only root's\n");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let folder = home.path("theirs");
    fs::create_dir(&folder).unwrap();
    let nobody = User::lookup("nobody").unwrap();
    chown(&folder, Some(nobody.uid), Some(nobody.gid)).unwrap();
    symlink(&secret, folder.join("out.log")).unwrap();
    home.start_app(
        "web",
        &format!(
            "command: [sh, -c, 'echo planted; echo error >&2; exec sleep 600']
            min_uptime: 50ms
            instances: 1
            user: nobody
            out_file: {0}/out.log
            error_file: {0}/error.log",
            text(&folder)
        ),
    );
    home.until_logged("out.log: it is a symbolic link");
    until("the other has arrived", || {
        fs::read_to_string(folder.join("error.log")).is_ok_and(|text| text == "error\n")
    });
    assert_eq!(fs::metadata(folder.join("error.log")).unwrap().uid(), nobody.uid);
    // It is not told to those who read logs either, nor emptied.
    assert_eq!(home.ok(&["logs"]).stdout, "web:0 ! error\n");
    home.ok(&["flush", "web"]);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "only root's\n");
}

#[test]
fn last_words_are_written() {
    let home = Home::new();
    let script = r#"trap "seq 1 10000; printf end; exit" TERM; echo ready; while :; do sleep 0.01; done"#;
    home.start_app(
        "web",
        &format!("command: [sh, -c, '{script}']\nmin_uptime: 50ms\ninstances: 2\nmerge_logs: true"),
    );
    until("the traps are set", || home.log("web-out.log") == "ready\nready\n");
    home.ok(&["kill"]);
    let text = home.log("web-out.log");
    for last in ["10000", "end"] {
        assert_eq!(text.lines().filter(|line| *line == last).count(), 2, "{last} in {} bytes", text.len());
    }
}

#[test]
fn rotation_at_full_speed_loses_no_line() {
    const LINES: usize = 100_000;
    let home = Home::new();
    // `seq` writes in blocks, which end in the middle of lines.
    home.start_app(
        "web",
        &format!(
            "command: [sh, -c, 'seq 1 {LINES}; exec sleep 600']
            min_uptime: 50ms
            instances: 3
            merge_logs: true
            log_max_size: 64K
            log_keep: 10000"
        ),
    );
    let all = || {
        let mut files = rotated(&home, "web-out.log");
        files.push(home.daemon_folder().join("log/web-out.log"));
        files
    };
    let bytes = 3 * (1..=LINES).map(|line| line.to_string().len() as u64 + 1).sum::<u64>();
    let size = |file: &PathBuf| fs::metadata(file).map_or(0, |file| file.len());
    until("all has arrived", || all().iter().map(size).sum::<u64>() == bytes);
    let files: Vec<String> = all().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    assert!(files.iter().all(|file| file.len() <= 64 << 10 && file.ends_with('\n')));
    let mut counts = vec![0; LINES];
    for line in files.iter().flat_map(|file| file.lines()) {
        counts[line.parse::<usize>().unwrap() - 1] += 1;
    }
    assert!(counts.iter().all(|count| *count == 3));
}

#[test]
fn rotated_files_are_kept_compressed_and_read() {
    let home = Home::new();
    home.start_app(
        "web",
        "command: [sh, -c, 'seq 1 10000; exec sleep 600']
        min_uptime: 50ms
        instances: 1
        log_max_size: 1K
        log_keep: 3
        log_compress: true",
    );
    let are_tidy = |files: &[PathBuf]| {
        files.len() == 3 && files.iter().all(|file| file.extension().is_some_and(|end| end == "gz"))
    };
    until("three are left", || {
        home.log("web-out-0.log").ends_with("10000\n") && are_tidy(&rotated(&home, "web-out-0.log"))
    });
    let lines = |args: &[&str]| home.ok(args).stdout.lines().map(str::to_owned).collect::<Vec<_>>();
    let last: Vec<String> = (9501..=10000).map(|line| format!("web:0 | {line}")).collect();
    assert_eq!(lines(&["logs", "--lines", "500"]), last);
    assert_eq!(lines(&["logs", "--grep", "99.7$", "-n", "2"]), ["web:0 | 9987", "web:0 | 9997"]);
    assert_eq!(lines(&["logs", "--since", "1h"]).last().unwrap(), "web:0 | 10000");
    assert_eq!(lines(&["logs", "--since", "2999-01-01T00:00"]), [""; 0]);
    assert!(home.ends(2, &["logs", "--since", "soon"]).stderr.contains("10m"));
    assert!(home.ends(2, &["logs", "--grep", "("]).stderr.contains("regular expression"));

    assert_eq!(home.ok(&["flush", "web"]).stderr, "2 log files emptied\n");
    assert!(rotated(&home, "web-out-0.log").is_empty());
    assert_eq!(home.log("web-out-0.log"), "");
}

#[test]
fn forms_of_lines() {
    let home = Home::new();
    let with = |settings: &str| {
        format!(
            "command: [sh, -c, 'echo \"hi\"; exec sleep 600']
            min_uptime: 50ms
            instances: 1
            env: {{TZ: America/New_York}}
            {settings}"
        )
    };
    let apps = [
        ("dated", with("log_date_format: '[at] YYYY Z'")),
        ("object", with("log_type: json\nlog_file: all.log")),
        ("off", with("disable_logs: true")),
    ];
    home.write_apps("app.yaml", &apps.each_ref().map(|(name, settings)| (*name, settings.as_str())));
    home.ok(&["start", "app.yaml"]);
    until("all has arrived", || home.ok(&["logs"]).stdout.lines().count() == 2);
    until("it is in all files", || {
        let all = fs::read_to_string(home.path("all.log")).unwrap_or_default();
        home.log("dated-out-0.log").ends_with('\n') && all.ends_with('\n')
    });
    let dated = home.log("dated-out-0.log");
    assert!(dated.starts_with("at 2") && dated.ends_with(":00: hi\n") && dated.contains(" -0"), "{dated}");

    let text = home.log("object-out-0.log");
    let object: Value = serde_json::from_str(&text).unwrap();
    assert!(text.starts_with(r#"{"timestamp":"2"#), "{text}");
    for (key, value) in [
        ("app", serde_json::json!("object")),
        ("instance", serde_json::json!(0)),
        ("pid", serde_json::json!(home.pids("object")[0])),
        ("generation", serde_json::json!(1)),
        ("stream", serde_json::json!("out")),
        ("message", serde_json::json!("hi")),
    ] {
        assert_eq!(object[key], value, "{key}");
    }
    assert_eq!(fs::read_to_string(home.path("all.log")).unwrap(), text);
    assert_eq!(home.ok(&["logs", "object"]).stdout, "object:0 | hi\n");
    assert!(!home.daemon_folder().join("log/off-out-0.log").exists());
}

#[test]
fn renamed_files_are_left_and_opened_anew() {
    let home = Home::new();
    start(&home, "", "instances: 1");
    let file = home.daemon_folder().join("log/web-out-0.log");
    let moved = home.path("moved.log");
    for reopen in [true, false] {
        home.get("/out?before").unwrap();
        until("it has arrived", || home.log("web-out-0.log") == "before\n");
        fs::rename(&file, &moved).unwrap();
        if reopen {
            process::signal(home.daemon().0, Signal::USR1);
        } else {
            home.ok(&["reload-logs"]);
        }
        until("there is a new file", || file.exists());
        home.get("/out?after").unwrap();
        until("it has arrived", || home.log("web-out-0.log") == "after\n");
        assert_eq!(fs::read_to_string(&moved).unwrap(), "before\n");
        fs::remove_file(&file).unwrap();
        home.ok(&["reload-logs"]);
        until("there is a new file", || file.exists());
    }
}

#[test]
fn a_full_disk_stops_nobody() {
    let home = Home::new();
    let disk = Tmpfs::mount(home.path("disk"));
    start(
        &home,
        ", --flood",
        &format!("instances: 1\nout_file: {}\nlog_max_size: 0", text(&disk.0.join("out.log"))),
    );
    let dropped = || home.app("web")["workers"][0]["dropped_log_bytes"].as_u64().unwrap();
    until("the disk is full", || dropped() > 0);
    // The worker goes on, and what is there are whole lines.
    home.get("/pid").unwrap();
    let before = dropped();
    until("more is dropped", || dropped() > before);
    assert!(home.ok(&["status"]).stdout.contains("could not be written"));
    let line = format!("{}\n", "flood ".repeat(30));
    // A part that found room is taken back a moment later.
    until("there are whole lines", || {
        let full = fs::read_to_string(disk.0.join("out.log")).unwrap();
        full.len().is_multiple_of(line.len())
            && full.lines().all(|found| found == line.trim_end_matches('\n'))
    });
    // Space comes back, and so does output.
    fs::remove_file(disk.0.join("out.log")).unwrap();
    until("it is written again", || fs::metadata(disk.0.join("out.log")).is_ok_and(|file| file.len() > 0));
    home.ok(&["kill", "--now"]);
}

#[test]
fn new_lines_are_followed() {
    let home = Home::new();
    start(&home, "", "instances: 1");
    home.get("/out?before").unwrap();
    let follow = Follow::start(&home, &["logs", "-f", "web"]);
    assert_eq!(follow.next(), "web:0 | before");
    home.get("/out?one").unwrap();
    assert_eq!(follow.next(), "web:0 | one");
    home.get("/error?two").unwrap();
    assert_eq!(follow.next(), "web:0 ! two");
    // Over the end of a life, too.
    process::kill_and_wait(home.pids("web")[0]);
    home.get("/out?three").unwrap();
    assert_eq!(follow.next(), "web:0 | three");
    assert_eq!(follow.interrupt().code, Some(0));
    until("all is in the file", || home.log("web-out-0.log") == "before\none\nthree\n");
}

#[test]
fn the_next_master_is_followed() {
    let home = Home::new();
    start(&home, "", "instances: 1");
    home.get("/out?before").unwrap();
    let follow = Follow::start(&home, &["logs", "-f", "web"]);
    assert_eq!(follow.next(), "web:0 | before");
    process::kill_and_wait(home.daemon().1);
    home.ok(&["ping"]);
    home.app_in_state("web", "online");
    // Until it follows again, what is written passes it by.
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = home.get("/out?after");
            }
        });
        let line = follow.next();
        over.store(true, Ordering::Relaxed);
        assert_eq!(line, "web:0 | after");
    });
    assert_eq!(follow.interrupt().code, Some(0));
}

#[test]
fn following_ends_with_the_daemon() {
    let home = Home::new();
    start(&home, "", "instances: 1");
    home.get("/out?before").unwrap();
    let follow = Follow::start(&home, &["logs", "-f"]);
    follow.next();
    // An app that is declared later is followed as well.
    home.write_app("late", "command: [sh, -c, 'echo hello; exec sleep 600']\ninstances: 1");
    home.ok(&["start", "app.yaml"]);
    follow.until("late:0 | hello");
    home.ok(&["kill"]);
    let followed = follow.finish();
    assert_eq!(followed.code, Some(1), "{followed:?}");
}

#[test]
fn files_of_the_apps_own() {
    let home = Home::new();
    start(&home, "", "instances: 1\nout_file: own/out.log\nerror_file: /dev/null");
    home.get("/error?nowhere").unwrap();
    home.get("/out?hello").unwrap();
    let read = |name: &str| std::fs::read_to_string(home.path(name)).unwrap_or_default();
    until("it has arrived", || read("own/out.log") == "hello\n");
    assert!(!home.daemon_folder().join("log/web-error-0.log").exists());
    assert_eq!(home.ok(&["logs"]).stdout, "web:0 | hello\n");

    // Several workers do not share a file.
    start(&home, "", "instances: 2\nout_file: own/both.log");
    until("both have written", || {
        home.get("/out?hello").unwrap();
        !read("own/both-0.log").is_empty() && !read("own/both-1.log").is_empty()
    });
}

#[test]
fn lines_that_are_odd() {
    let home = Home::new();
    // Bytes that are no text, escape codes, a carriage return, no end.
    let script = r#"printf "\377\376\n\033[31mred\033[0m\ncr\r\nno end"; exec sleep 600"#;
    home.start_app("web", &format!("command: [sh, -c, '{script}']\nmin_uptime: 50ms\ninstances: 1"));
    until("all has arrived", || {
        std::fs::read(home.daemon_folder().join("log/web-out-0.log")).unwrap_or_default().ends_with(b"no end")
    });
    let shown = home.ok(&["logs"]).stdout;
    assert_eq!(shown.lines().count(), 4, "{shown:?}");
    assert!(shown.contains("web:0 | cr\n") && shown.contains("web:0 | no end\n"), "{shown:?}");
}

#[test]
fn a_flood_delays_nobody() {
    let home = Home::new();
    let worker = worker();
    let flood = format!(
        "command: [{}, --flood]
min_uptime: 50ms
instances: 2",
        text(&worker)
    );
    let calm = format!(
        "command: [{}]
min_uptime: 50ms
instances: 1
listen: '{}'",
        text(&worker),
        home.address()
    );
    home.write_apps("app.yaml", &[("flood", &flood), ("calm", &calm)]);
    home.ok(&["start", "app.yaml"]);
    for restarts in 1..=3 {
        process::kill_and_wait(home.pids("calm")[0]);
        home.get("/out?still here").unwrap();
        home.app_when("calm", "is back", |app| app["restarts"] == restarts && app["state"] == "online");
    }
    until("its lines arrive", || home.log("calm-out-0.log").lines().count() == 3);
    home.ok(&["stop", "flood"]);
}

#[test]
fn files_are_rotated_at_times_of_a_cron_expression() {
    let home = Home::new();
    let script = "while :; do echo line; sleep 0.05; done";
    home.start_app(
        "web",
        &format!("command: [sh, -c, '{script}']\nmin_uptime: 1ms\ninstances: 1\nlog_rotate: '* * * * * *'"),
    );
    until("each second has a file", || rotated(&home, "web-out-0.log").len() >= 2);
}
