//! What a worker is given: descriptors, signals, user, limits, environment.
//!
//! The workers are ordinary programs that show what they have, so nothing of
//! ours is between the daemon and what is seen.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Home, finish, text};
use crate::process::{field, has_capability, path};
use crate::programs::{installed, search_path, supervisor};
use crate::wait::eventually;

/// A program that shows something and ends, with these settings beside it.
fn write_job(home: &Home, command: &str, settings: &str) {
    let settings =
        format!("command: {command}\ninstances: 1\nautorestart: false\nout_file: shown\n{settings}");
    home.write_app("job", &settings);
}

/// What the job shows when it is started with this command.
#[track_caller]
fn shown_by(home: &Home, mut start: Command) -> String {
    let finished = finish(start.spawn().unwrap());
    assert_eq!(finished.code, Some(0), "{finished:?}");
    // They may be on their way when it has ended. Such programs write all that
    // they have to show at once, so it has come whole or not at all.
    eventually("it shows something", || {
        let shown = std::fs::read_to_string(home.path("shown")).ok()?;
        shown.ends_with('\n').then_some(shown)
    })
}

/// What a program shows that is started with these settings.
#[track_caller]
fn shown(home: &Home, command: &str, settings: &str) -> String {
    write_job(home, command, settings);
    shown_by(home, home.command(&["start", "app.yaml"]))
}

/// A shell that starts the job after these commands.
fn after(home: &Home, commands: &str) -> Command {
    let mut shell = home.program("/bin/sh");
    shell
        .args(["-c", &format!("{commands}\nexec \"$@\""), "sh"])
        .arg(supervisor())
        .args(["start", "app.yaml"]);
    shell
}

#[test]
fn descriptors() {
    let home = Home::new();
    write_job(&home, "[ls, -l, /proc/self/fd]", &format!("listen: '{}'", home.address()));
    // What the caller has open reaches nobody.
    let shown = shown_by(&home, after(&home, "exec 5</dev/null 6</dev/zero 7>leak 9<."));
    let links: BTreeMap<u32, &str> = shown
        .lines()
        .filter_map(|line| line.rsplit_once(" -> "))
        .map(|(head, target)| (head.rsplit(' ').next().unwrap().parse().unwrap(), target))
        .collect();
    assert_eq!(links[&0], "/dev/null");
    assert!(links[&1].starts_with("pipe:"), "{shown}");
    assert!(links[&2].starts_with("pipe:"), "{shown}");
    assert_ne!(links[&1], links[&2]);
    assert!(links[&3].starts_with("socket:"), "{shown}");
    // The channel.
    assert!(links[&4].starts_with("socket:"), "{shown}");
    // The other ends, which are to outlive the daemon.
    assert_eq!((links[&5], links[&6]), (links[&1], links[&2]), "{shown}");
    assert!(links[&7].starts_with("socket:"), "{shown}");
    // Its own descriptor of the folder is the only other one.
    assert!(links[&8].starts_with("/proc/"), "{shown}");
    assert_eq!(links.len(), 9, "{shown}");
}

#[test]
fn signals() {
    let home = Home::new();
    write_job(&home, "[cat, /proc/self/status]", "");
    // The shell ignores some, `env` blocks others.
    let mut start = after(&home, "trap '' HUP INT QUIT TERM USR1 PIPE CHLD");
    let args: Vec<_> = start.get_args().map(ToOwned::to_owned).collect();
    start = home.program(installed("env"));
    start.args(["--block-signal=USR2,ALRM,RTMIN", "/bin/sh"]).args(args);
    let shown = shown_by(&home, start);
    for name in ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"] {
        assert_eq!(field(&shown, name), Some("0000000000000000"), "{name}: {shown}");
    }
}

#[test]
fn a_session_and_a_group_of_its_own() {
    let home = Home::new();
    let shown = shown(&home, "[cat, /proc/self/stat]", "");
    let fields: Vec<&str> = shown.rsplit_once(") ").unwrap().1.split(' ').collect();
    let pid = shown.split(' ').next().unwrap();
    // Group, session, and no terminal.
    assert_eq!(fields[2..5], [pid, pid, "0"]);
}

#[test]
fn another_user_with_nothing_of_ours() {
    let home = Home::new();
    home.let_others_in();
    write_job(&home, "[cat, /proc/self/status]", "user: nobody");
    // The daemon has groups that the worker must not keep.
    let mut start = home.program(installed("setpriv"));
    start.args(["--groups", "1,2,3"]).arg(supervisor()).args(["start", "app.yaml"]);
    let shown = shown_by(&home, start);
    let all_four = |id: &str| [id; 4].join("\t");
    assert_eq!(field(&shown, "Uid"), Some(&*all_four("65534")));
    assert_eq!(field(&shown, "Gid"), Some(&*all_four("65534")));
    assert_eq!(field(&shown, "Groups"), Some("65534"));
    for name in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(field(&shown, name), Some("0000000000000000"), "{name}");
    }
    assert_eq!(field(&shown, "NoNewPrivs"), Some("0"));
}

#[test]
fn another_group() {
    let home = Home::new();
    home.let_others_in();
    let shown = shown(&home, "[cat, /proc/self/status]", "user: nobody\ngroup: daemon");
    assert_eq!(field(&shown, "Uid").unwrap().split('\t').next(), Some("65534"));
    assert_eq!(field(&shown, "Gid").unwrap().split('\t').next(), Some("1"));
}

/// The soft and hard limit of this name in `/proc/self/limits`.
fn limit<'a>(shown: &'a str, name: &str) -> (&'a str, &'a str) {
    let line = shown.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let mut words = line.split_whitespace();
    (words.next().unwrap(), words.next().unwrap())
}

#[test]
fn limits_that_the_daemon_raised_for_itself_are_not_passed_on() {
    let home = Home::new();
    write_job(&home, "[cat, /proc/self/limits]", "");
    let shown = shown_by(&home, after(&home, "ulimit -Sn 300; ulimit -Hn 4000"));
    assert_eq!(limit(&shown, "Max open files"), ("300", "4000"));
    let (keeper, _) = home.daemon();
    let daemon = std::fs::read_to_string(path(keeper, "limits")).unwrap();
    assert_ne!(limit(&daemon, "Max open files").0, "300");
}

#[test]
fn limits_of_its_own() {
    let home = Home::new();
    let shown = shown(&home, "[cat, /proc/self/limits]", "limits: {nofile: 256, core: 0, nproc: '100:200'}");
    assert_eq!(limit(&shown, "Max open files"), ("256", "256"));
    assert_eq!(limit(&shown, "Max core file size"), ("0", "0"));
    assert_eq!(limit(&shown, "Max processes"), ("100", "200"));
}

#[test]
fn umask_niceness_and_score() {
    const SHOW: &str = "echo $(umask) $(nice) $(cat /proc/self/oom_score_adj)";
    let command = format!("[sh, -c, '{SHOW}']");
    assert_eq!(shown(&Home::new(), &command, "umask: '0027'\nnice: 5\noom_score_adj: 300"), "0027 5 300\n");
    // The daemon protects itself, not its workers.
    let home = Home::new();
    let own = finish(home.program("sh").args(["-c", SHOW]).spawn().unwrap()).stdout;
    assert_eq!(shown(&home, &command, ""), own);
    let (keeper, master) = home.daemon();
    // It takes CAP_SYS_RESOURCE, which root in a container may lack.
    let score = |pid| std::fs::read_to_string(path(pid, "oom_score_adj")).unwrap().trim().to_owned();
    let expected = if has_capability(24) { "-900".to_owned() } else { score(std::process::id()) };
    assert_eq!([keeper, master].map(score), [expected.clone(), expected]);
}

#[test]
fn cpus_of_its_own() {
    let allowed = supervisor_sys::cpus::allowed_cpus().unwrap();
    let list = |shown: &str| field(shown, "Cpus_allowed_list").map(str::to_owned);
    let (first, last) = (allowed[0], allowed[allowed.len() - 1]);
    // CPUs that are not there are passed over.
    let settings = format!("cpu_affinity: [{last}, '8000-8010']");
    let shown = shown(&Home::new(), "[cat, /proc/self/status]", &settings);
    assert_eq!(list(&shown), Some(last.to_string()));

    // One for each slot, round and round.
    let home = Home::new();
    let slots = allowed.len() + 1;
    home.write_app("web", &format!("command: [sleep, '600']\ninstances: {slots}\ncpu_affinity: auto"));
    home.ok(&["start", "app.yaml"]);
    let cpus = home
        .pids("web")
        .into_iter()
        .map(|pid| list(&std::fs::read_to_string(path(pid, "status")).unwrap()).unwrap().parse().unwrap());
    let expected: Vec<u32> = allowed.iter().copied().chain([first]).collect();
    assert_eq!(cpus.collect::<Vec<u32>>(), expected);
}

#[test]
fn cpus_that_are_not_there_fail_a_start() {
    let home = Home::new();
    home.write_app("web", "command: [sleep, '600']\ninstances: 1\ncpu_affinity: 8000");
    let failed = home.ends(1, &["start", "app.yaml"]);
    assert!(failed.stderr.contains("cpu_affinity: none of the CPUs 8000 may be used here"), "{failed:?}");
}

#[test]
fn the_working_directory() {
    let home = Home::new();
    let canonical = |path: PathBuf| path.canonicalize().unwrap();
    let own = canonical(home.path("."));
    assert_eq!(shown(&home, "[pwd, -P]", ""), format!("{}\n", text(&own)));
    let home = Home::new();
    std::fs::create_dir(home.path("below")).unwrap();
    let below = canonical(home.path("below"));
    assert_eq!(shown(&home, "[pwd, -P]", "cwd: below"), format!("{}\n", text(&below)));
}

/// The variables that `env` shows.
fn variables(shown: &str) -> BTreeMap<&str, &str> {
    shown.lines().map(|line| line.split_once('=').unwrap()).collect()
}

#[test]
fn the_environment_is_the_callers_and_ours_and_nothing_else() {
    let home = Home::new();
    write_job(&home, "[env]", "env: {COLOUR: blue, NUMBER: 5}");
    let mut start = home.command(&["start", "app.yaml"]);
    // Ours mean something else to a worker, so the caller's own are dropped.
    start
        .env("GREETING", "hello world")
        .env("LISTEN_FDS", "3")
        .env("LISTEN_PID", "1")
        .env("NOTIFY_SOCKET", "/nowhere")
        .env("WATCHDOG_USEC", "1")
        .env("SUPERVISOR_IPC", "1:2:3")
        .env("NODE_CHANNEL_FD", "1")
        .env("SUPERVISOR_APP", "another");
    let shown = shown_by(&home, start);
    let mut variables = variables(&shown);
    let notify = variables.remove("NOTIFY_SOCKET").unwrap();
    assert!(notify.starts_with("@"), "{notify}");
    let channel = variables.remove("SUPERVISOR_IPC").unwrap();
    assert!(channel.starts_with("3:"), "{channel}");
    let path = search_path();
    let folder = home.path("");
    let expected = BTreeMap::from([
        ("PATH", path.as_str()),
        ("HOME", text(&folder).trim_end_matches('/')),
        ("LANG", "C.UTF-8"),
        ("GREETING", "hello world"),
        ("COLOUR", "blue"),
        ("NUMBER", "5"),
        ("SUPERVISOR_APP", "job"),
        ("SUPERVISOR_INSTANCE", "0"),
        ("SUPERVISOR_INSTANCES", "1"),
        ("SUPERVISOR_GENERATION", "1"),
        ("NODE_APP_INSTANCE", "0"),
    ]);
    assert_eq!(variables, expected);
}

#[test]
fn the_environment_of_the_last_start_is_taken_whole() {
    let home = Home::new();
    let start = |settings: &str, variable: &str| {
        let _ = std::fs::remove_file(home.path("shown"));
        write_job(&home, "[env]", settings);
        let mut start = home.command(&["start", "app.yaml"]);
        start.env(variable, "yes");
        shown_by(&home, start)
    };
    assert!(variables(&start("", "FIRST")).contains_key("FIRST"));
    let shown = start("env: {CHANGED: '1'}", "SECOND");
    let variables = variables(&shown);
    assert!(variables.contains_key("SECOND") && !variables.contains_key("FIRST"), "{shown}");
}

#[test]
fn an_environment_that_is_narrowed() {
    let names = |shown: &str| variables(shown).into_keys().map(str::to_owned).collect::<Vec<_>>();
    const OURS: [&str; 7] = [
        "NODE_APP_INSTANCE",
        "NOTIFY_SOCKET",
        "SUPERVISOR_APP",
        "SUPERVISOR_GENERATION",
        "SUPERVISOR_INSTANCE",
        "SUPERVISOR_INSTANCES",
        "SUPERVISOR_IPC",
    ];
    assert_eq!(names(&shown(&Home::new(), "[/usr/bin/env]", "inherit_env: false")), OURS);
    let mut more = OURS.to_vec();
    more.push("LANG");
    more.sort_unstable();
    assert_eq!(names(&shown(&Home::new(), "[/usr/bin/env]", "inherit_env: [LANG, ABSENT]")), more);
}

#[test]
fn variables_from_files_and_the_slots_number() {
    let home = Home::new();
    home.write("one.env", "# comment\nA=file\nB='with space'\n");
    let settings = "env_file: one.env\nenv: {A: settings}\ninstance_var: WORKER";
    let shown = shown(&home, "[env]", settings);
    let variables = variables(&shown);
    assert_eq!(variables["A"], "settings");
    assert_eq!(variables["B"], "with space");
    assert_eq!(variables["WORKER"], "0");
    assert!(!variables.contains_key("NODE_APP_INSTANCE"));
}

#[test]
fn a_variable_that_each_slot_increases() {
    let home = Home::new();
    let print = "command: [sh, -c, 'echo $PORT; exec sleep 600']\nmin_uptime: 50ms\nout_file: shown";
    home.start_app("web", &format!("{print}\ninstances: 2\nport: 3000\nincrement_var: PORT"));
    for (slot, port) in [(0, "3000\n"), (1, "3001\n")] {
        let file = home.path(&format!("shown-{slot}"));
        eventually("it shows its port", || {
            std::fs::read_to_string(&file).is_ok_and(|shown| shown == port).then_some(())
        });
    }
}

#[test]
fn a_users_own_names() {
    let home = Home::new();
    home.let_others_in();
    let shown = shown(&home, "[env]", "user: nobody");
    let variables = variables(&shown);
    assert_eq!(variables["USER"], "nobody");
    assert_eq!(variables["LOGNAME"], "nobody");
    assert_ne!(variables["HOME"], text(&home.path("")).trim_end_matches('/'));
}

#[test]
fn the_environment_is_shown_without_secrets() {
    let home = Home::new();
    let settings = "command: [sleep, '600']
        min_uptime: 1ms
        instances: 2
        env: {COLOUR: blue, API_TOKEN: hunter2, DB: 'pg://web:hunter2@db/shop'}";
    home.start_app("web", settings);
    let shown = home.ok(&["env", "web"]).stdout;
    for line in ["COLOUR=blue", "API_TOKEN=***", "DB=pg://web:***@db/shop", "SUPERVISOR_INSTANCE=0"] {
        assert!(shown.lines().any(|shown| shown == line), "{shown}");
    }
    assert!(!shown.contains("hunter2") && !shown.contains("SUPERVISOR_INSTANCE=1"), "{shown}");
    let all = home.ok(&["env", "web:1", "--reveal"]).stdout;
    assert!(all.contains("API_TOKEN=hunter2") && all.contains("SUPERVISOR_INSTANCE=1"), "{all}");
    let json: serde_json::Value = serde_json::from_str(&home.ok(&["env", "web", "--json"]).stdout).unwrap();
    assert_eq!(json["workers"][1]["env"]["API_TOKEN"], "***");
    home.ok(&["stop", "web"]);
    home.ends(1, &["env", "web"]);
    home.ends(3, &["env", "api"]);
}
