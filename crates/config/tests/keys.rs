//! What each key takes, what it does not, and what holds without it.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail them")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use supervisor_config::{
    App, Balance, ChannelOptions, CommandOptions, Context, DaemonSettings, EXAMPLE, Errors, ExecMode, Format,
    Inherit, ListenAddress, Loaded, LogLevel, LogOptions, LogPeriod, LogTarget, Ready, Reload, Source,
    app_from_command,
};

fn context() -> Context {
    let caller_env = [("PATH", "/bin:/usr/bin"), ("LANG", "C"), ("HOME", "/root")];
    Context {
        base_dir: "/srv".into(),
        caller_env: caller_env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        env_name: None,
        usable_cpus: 4,
    }
}

fn load_as(format: Format, text: &str, context: &Context) -> Result<Loaded, Errors> {
    supervisor_config::load(&Source { path: "file".into(), text: text.to_owned(), format }, context)
}

fn load(text: &str) -> Result<Loaded, Errors> {
    load_as(Format::Yaml, text, &context())
}

/// The one app of a YAML file.
fn app(text: &str) -> App {
    let loaded = load(text).unwrap_or_else(|errors| panic!("{text}:\n{}", errors.render(false)));
    assert_eq!(loaded.apps.len(), 1, "{text}");
    loaded.apps.into_iter().next().unwrap()
}

/// The one mistake of a YAML file, as a line.
fn mistake(text: &str) -> String {
    match load(text) {
        Ok(loaded) => panic!("{text} is fine: {loaded:?}"),
        Err(errors) => {
            assert_eq!(errors.iter().count(), 1, "{text}:\n{errors}");
            errors.to_string()
        }
    }
}

/// Reads `KEY: VALUE` in an app and compares one field of it.
fn check(key: &str, field: &str, good: &[(&str, Value)], bad: &[&str]) {
    for (value, expected) in good {
        let app = serde_json::to_value(app(&format!("command: ./web\n{key}: {value}"))).unwrap();
        assert_eq!(app[field], *expected, "{key}: {value}");
    }
    for value in bad {
        let mistake = mistake(&format!("command: ./web\n{key}: {value}"));
        assert!(mistake.starts_with("file:2:"), "{key}: {value}: {mistake}");
        assert!(mistake.contains(&format!("`{key}`")), "{key}: {value}: {mistake}");
    }
}

#[test]
fn defaults() {
    let app = app("command: ./bin/web.sh --port 80");
    let expected = App {
        name: "web".into(),
        namespace: "default".into(),
        command: vec!["./bin/web.sh".into(), "--port".into(), "80".into()],
        cwd: "/srv".into(),
        exec_mode: ExecMode::Cluster,
        instances: 4,
        inherit: Inherit::default(),
        inherited_env: context().caller_env,
        env: BTreeMap::new(),
        instance_var: "NODE_APP_INSTANCE".into(),
        increment_var: None,
        listen: vec![],
        backlog: 511,
        balance: Balance::Random,
        weights: vec![],
        ready: Ready::Auto,
        listen_timeout: Duration::from_secs(30),
        min_uptime: Duration::from_secs(1),
        max_restarts: 16,
        restart_delay: Duration::from_millis(100),
        restart_backoff_percent: 200,
        breaker_retry: Duration::from_secs(60),
        autostart: true,
        autorestart: true,
        stop_exit_codes: vec![],
        max_memory_restart: None,
        max_memory_hard: None,
        cron_restart: None,
        watch: None,
        kill_signal: 15,
        kill_timeout: Duration::from_secs(5),
        drain_timeout: Duration::from_secs(30),
        drain_quiet: None,
        hang_timeout: Duration::from_secs(10),
        watchdog: None,
        max_surge: 1,
        reload: Reload::Rolling,
        channel: ChannelOptions {
            enabled: true,
            max_message: 32 << 10,
            buffer: 4 << 20,
            retain: 0,
            from: vec![],
            shutdown_with_message: false,
        },
        user: None,
        group: None,
        umask: None,
        nice: None,
        cpu_affinity: None,
        limits: BTreeMap::new(),
        oom_score_adj: None,
        out_file: LogTarget::Default,
        error_file: LogTarget::Default,
        logs: LogOptions {
            combined_file: None,
            merge: false,
            json: false,
            date_format: None,
            max_size: 100 << 20,
            rotate: LogPeriod::Never,
            rotate_cron: None,
            keep: 10,
            compress: false,
        },
    };
    assert_eq!(app, expected);
}

#[test]
fn a_script_has_defaults_of_its_own() {
    let app = app("script: server.js");
    assert_eq!(
        (app.name.as_str(), app.kill_signal, app.kill_timeout),
        ("server", 2, Duration::from_millis(1600))
    );
}

#[test]
fn names() {
    let long = "x".repeat(64);
    let too_long = "x".repeat(65);
    let good =
        [("web", json!("web")), ("a.B_c-1", json!("a.B_c-1")), ("1", json!("1")), (&*long, json!(long))];
    let bad = ["", "''", "all", "-web", "web:1", "a/b", "/web/", "a b", "é", "true", "[web]", &too_long];
    check("name", "name", &good, &bad);
    check("namespace", "namespace", &good, &bad);
    assert_eq!(app("command: /opt/my.app.bin -x").name, "my.app");
    assert!(mistake("command: ['/opt/my app']").contains("the name `my app`, which comes from the program,"));
}

#[test]
fn commands() {
    for (text, words) in [
        ("command: node server.js", vec!["node", "server.js"]),
        ("command: [node, 'my server.js', 80, '$HOME', '']", vec!["node", "my server.js", "80", "$HOME", ""]),
        ("command: sh -c 'exec server > log'", vec!["sh", "-c", "exec server > log"]),
    ] {
        assert_eq!(app(text).command, words, "{text}");
    }
    for text in [
        "command: ''",
        "command: []",
        "command: ['', x]",
        "command: a | b",
        "command: a && b",
        "command: $HOME/a",
        "command: 'a\"'",
    ] {
        assert!(mistake(text).contains("`command`"), "{text}");
    }
}

#[test]
fn scripts() {
    for (text, words) in [
        ("script: server.js", vec!["node", "/srv/server.js"]),
        ("script: ./a/server.cjs", vec!["node", "/srv/a/server.cjs"]),
        ("exec: /a/server.mjs", vec!["node", "/a/server.mjs"]),
        ("cmd: a.py", vec!["python3", "/srv/a.py"]),
        ("script: a.sh", vec!["bash", "/srv/a.sh"]),
        ("script: a.rb", vec!["ruby", "/srv/a.rb"]),
        ("script: a.php", vec!["php", "/srv/a.php"]),
        ("script: a.pl", vec!["perl", "/srv/a.pl"]),
        ("script: ./run", vec!["/srv/run"]),
        ("script: a.bin", vec!["/srv/a.bin"]),
        ("{script: a.js, cwd: app}", vec!["node", "/srv/app/a.js"]),
        ("{script: a.js, interpreter: none}", vec!["/srv/a.js"]),
        ("{script: a.js, exec_interpreter: bun}", vec!["bun", "/srv/a.js"]),
        ("{script: a, interpreter: deno, interpreter_args: [run, -A]}", vec!["deno", "run", "-A", "/srv/a"]),
        (
            "{script: a.js, args: \"--name 'a b'\", node_args: --inspect}",
            vec!["node", "--inspect", "/srv/a.js", "--name", "a b"],
        ),
        (
            "{script: a.js, args: [x, 1], nodeArgs: [--inspect]}",
            vec!["node", "--inspect", "/srv/a.js", "x", "1"],
        ),
        ("{script: a.js, args: 80}", vec!["node", "/srv/a.js", "80"]),
        // A program in PATH, and no file of the folder.
        ("{script: sh, args: -c true}", vec!["sh", "-c", "true"]),
        ("script: there-is-no-such-program", vec!["/srv/there-is-no-such-program"]),
    ] {
        assert_eq!(app(text).command, words, "{text}");
    }
    for (text, part) in [
        ("{script: a.js, command: a}", "both"),
        ("{command: a, args: b}", "`args` belongs"),
        ("{command: a, node_args: b}", "`node_args` belongs"),
        ("{script: ./a, node_args: b}", "no interpreter"),
        ("script: a.js --port 80", "no file"),
        ("script: ''", "empty"),
        ("script: [a.js]", "must be text"),
        ("{script: a.js, args: {}}", "`args` must"),
        ("{script: a.js, args: a > b}", "`args` contains"),
        ("{script: a.js, interpreter: ''}", "`interpreter` is empty"),
        ("name: web", "neither"),
    ] {
        let mistake = mistake(text);
        assert!(mistake.contains(part), "{text}: {mistake}");
    }
}

#[test]
fn typescript_prefers_bun() {
    let folder = tempfile::tempdir().unwrap();
    let command = |caller_path: &str| {
        let mut context = context();
        context.caller_env.insert("PATH".into(), caller_path.into());
        load_as(Format::Yaml, "script: a.ts", &context).unwrap().apps[0].command.clone()
    };
    let path = folder.path().to_str().unwrap();
    assert_eq!(command(path), ["node", "/srv/a.ts"]);
    std::fs::write(folder.path().join("bun"), "").unwrap();
    assert_eq!(command(path), ["node", "/srv/a.ts"], "it is not executable");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path().join("bun"), executable).unwrap();
    assert_eq!(command(path), ["bun", "/srv/a.ts"]);
}

#[test]
fn workers() {
    let good = [
        ("1", json!(1)),
        ("10000", json!(10_000)),
        ("max", json!(4)),
        ("0", json!(4)),
        ("-1", json!(3)),
        ("-9", json!(1)),
    ];
    check(
        "instances",
        "instances",
        &good,
        &["'2'", "1.5", "10001", "-10001", "many", "'max '", "true", "[1]", "", "08"],
    );
    let good =
        [("cluster", json!("cluster")), ("fork_mode", json!("fork")), ("cluster_mode", json!("cluster"))];
    check("exec_mode", "exec_mode", &good, &["Cluster", "1", "", "[fork]"]);
    assert_eq!(app("{command: a, exec_mode: fork}").instances, 1);
    assert_eq!(app("{command: a, exec_mode: fork, instances: 3}").instances, 3);
    check(
        "instance_var",
        "instance_var",
        &[("SLOT_1", json!("SLOT_1"))],
        &["", "1A", "A-B", "A=B", "'A B'", "7"],
    );
}

#[test]
fn sockets() {
    let tcp = |address: &str, dual: bool| json!({"tcp": {"address": address, "dual_stack": dual}});
    let good = [
        ("8080", json!([tcp("[::]:8080", true)])),
        ("[8080, '127.0.0.1:81']", json!([tcp("[::]:8080", true), tcp("127.0.0.1:81", false)])),
        ("./web.sock", json!([{"unix": "/srv/web.sock"}])),
        ("[]", json!([])),
    ];
    check(
        "listen",
        "listen",
        &good,
        &["0", "65536", "'0'", "localhost:80", "[80, ':80']", "", "true", "{}", "[[80]]"],
    );
    let many: Vec<String> = (1..=65).map(|port| port.to_string()).collect();
    assert!(mistake(&format!("command: a\nlisten: [{}]", many.join(", "))).contains("at most 64"));
    check(
        "backlog",
        "backlog",
        &[("1", json!(1)), ("65535", json!(65_535))],
        &["0", "65536", "-1", "'511'", "1e3", ""],
    );
    let good = ["random", "weighted", "source-ip", "cpu", "least-queue", "kernel"].map(|by| (by, json!(by)));
    check("balance", "balance", &good, &["even", "source_ip", "1", "true", "", "[cpu]"]);
    let warnings = |text: &str| load(text).unwrap().warnings.len();
    assert_eq!(app("command: a\nbalance: shared").balance, Balance::Shared);
    assert_eq!(warnings("command: a\nbalance: shared"), 1);
    assert_eq!(warnings("command: a\nexec_mode: fork\nbalance: cpu"), 1);
    assert_eq!(warnings("command: a\nexec_mode: fork\nlisten: 80\nbalance: cpu"), 0);
    let weights = |text: &str| app(&format!("command: a\nbalance: weighted\nweights: {text}")).weights;
    assert_eq!(weights("[0, 1000]"), [0, 1000]);
    assert_eq!(weights("[]"), [0; 0]);
    check("weights", "weights", &[], &["[1]", "3", "", "{0: 1}"]);
    for (text, expected) in [("[-1]", "from 0 to 1000"), ("[1001]", "from 0 to 1000"), ("['1']", "text `1`")]
    {
        let mistake = mistake(&format!("command: a\nbalance: weighted\nweights: {text}"));
        assert!(mistake.starts_with("file:3:") && mistake.contains(expected), "{mistake}");
    }
    let good = ["auto", "listen", "started", "notify"].map(|when| (when, json!(when)));
    check("ready", "ready", &good, &["exec", "other", "true", "", "{http: /}"]);
    assert_eq!(app("command: a\nlisten: 80").ready, Ready::Started);
    assert_eq!(app("command: a\nexec_mode: fork").ready, Ready::Started);
    assert!(mistake("command: a\nexec_mode: fork\nready: listen").contains("cannot be `listen`"));
    check(
        "listen_timeout",
        "listen_timeout",
        &[("3000", json!(3000)), ("1m", json!(60_000))],
        &["0", "0s", "-1", "'5'", "1 m", ""],
    );
}

#[test]
fn readiness_checks() {
    let http = |path: &str, status: serde_json::Value| {
        let attempt = json!({"http": {"address": null, "path": path, "status": status}});
        json!({"check": {"attempt": attempt, "interval": 250, "timeout": 1000}})
    };
    let range = |start: u16, end: u16| json!({"start": start, "end": end});
    let of = |lines: &str| serde_json::to_value(app(&format!("command: a\n{lines}")).ready).unwrap();
    assert_eq!(of("ready: http"), http("/", json!([range(200, 399)])));
    assert_eq!(of("ready_check: {path: /health?deep=1}"), http("/health?deep=1", json!([range(200, 399)])));
    let several = json!([range(200, 200), range(300, 308), range(404, 404)]);
    assert_eq!(of("ready_check: {status: [200, 300-308, '404']}"), http("/", several));
    let tcp = json!({"tcp": {"address": {"tcp": {"address": "127.0.0.1:80", "dual_stack": false}}}});
    let expected = json!({"check": {"attempt": tcp, "interval": 1000, "timeout": 60_000}});
    assert_eq!(of("ready_check: {address: '127.0.0.1:80', interval: 1s, timeout: 1m}"), expected);
    let tcp = json!({"tcp": {"address": {"unix": "/srv/a.sock"}}});
    let expected = json!({"check": {"attempt": tcp, "interval": 250, "timeout": 1000}});
    assert_eq!(of("exec_mode: fork\nready: tcp\nready_check: {address: ./a.sock}"), expected);
    let exec = json!({"exec": {"command": ["curl", "-f", "a b"]}});
    let expected = json!({"check": {"attempt": exec, "interval": 250, "timeout": 1000}});
    assert_eq!(of("ready_check: {command: curl -f 'a b'}"), expected);
    assert_eq!(of("ready: exec\nready_check: {command: [curl, -f, a b]}"), expected);
    // Who is given its sockets is known to have an address.
    assert_eq!(of("exec_mode: fork\nlisten: 80\nready: http"), http("/", json!([range(200, 399)])));
    for (lines, expected) in [
        ("ready: exec", "needs a command"),
        ("ready: exec\nready_check: {interval: 1s}", "needs a command"),
        ("ready_check: {command: []}", "names no program"),
        ("ready_check: {command: 5 'a}", "quote"),
        ("ready_check: {interval: 1s}", "does not say what is checked"),
        ("ready_check: /health", "must be a mapping"),
        ("ready: http\nready_check: [1]", "must be a mapping"),
        ("ready: http\nready_check: {pth: /}", "unknown key `pth`"),
        ("ready: tcp\nready_check: {path: /}", "has no meaning for `ready: tcp`"),
        ("ready_check: {command: a, address: 80}", "has no meaning for `ready: exec`"),
        ("ready: notify\nready_check: {path: /}", "belongs to `ready: http`"),
        ("ready: http\nexec_mode: fork", "needs an address"),
        ("ready_check: {path: health}", "begins with `/`"),
        ("ready_check: {path: /a b}", "contains ` `"),
        ("ready_check: {path: '/a\\r\\nb'}", "contains `\\\\`"),
        ("ready_check: {status: 600}", "from 100 to 599"),
        ("ready_check: {status: 399-200}", "must be a status"),
        ("ready_check: {status: 2xx}", "must be a status"),
        ("ready_check: {status: []}", "names no status"),
        ("ready_check: {path: /, timeout: 0}", "longer than zero"),
        ("ready_check: {address: localhost:80}", "must be a port"),
    ] {
        let mistake = mistake(&format!("command: a\n{lines}"));
        assert!(mistake.contains(expected), "{lines}: {mistake}");
    }
}

#[test]
fn restarts() {
    let durations = [
        ("0", json!(0)),
        ("5000", json!(5000)),
        ("1.5s", json!(1500)),
        ("1h30m", json!(5_400_000)),
        ("3650d", json!(315_360_000_000_u64)),
    ];
    let no_durations = [
        "-1",
        "1.5",
        "'5000'",
        "ten",
        "5 s",
        "3651d",
        "315360000001",
        "99999999999999999999",
        "true",
        "[1]",
        "",
    ];
    for key in ["restart_delay", "breaker_retry", "kill_timeout"] {
        check(key, key, &durations, &no_durations);
    }
    check(
        "max_restarts",
        "max_restarts",
        &[("1", json!(1)), ("1000000", json!(1_000_000))],
        &["0", "1000001", "-1", "many", ""],
    );
    let good = [
        ("1", json!(100)),
        ("1.5", json!(150)),
        ("1.25", json!(125)),
        ("100", json!(10_000)),
        ("2.", json!(200)),
    ];
    check(
        "restart_backoff",
        "restart_backoff_percent",
        &good,
        &["0", "0.99", "100.01", "101", "1.234", "-2", "1e1", "'2'", ".inf", ""],
    );
    check(
        "autorestart",
        "autorestart",
        &[("true", json!(true)), ("false", json!(false))],
        &["yes", "no", "on", "1", "'true'", ""],
    );
    let good = [("0", json!([0])), ("[0, 255]", json!([0, 255])), ("[]", json!([]))];
    check("stop_exit_codes", "stop_exit_codes", &good, &["256", "-1", "[0, x]", "'0'", "", "{}"]);
    let good = [("SIGTERM", json!(15)), ("int", json!(2)), ("9", json!(9)), ("SIGRTMIN+1", json!(35))];
    check("kill_signal", "kill_signal", &good, &["SIGFOO", "0", "65", "SIGSTOP", "'15'", "true", ""]);
}

#[test]
fn memory_ceilings() {
    let good = [("300M", json!(300 << 20)), ("1000000", json!(1_000_000)), ("'5G'", json!(5_u64 << 30))];
    let off = [("0", json!(null)), ("false", json!(null))];
    for key in ["max_memory_restart", "max_memory_hard"] {
        check(key, key, &[&good[..], &off[..]].concat(), &["300MB", "-1", "1.5G", "true", "[1]", ""]);
    }
    app("command: ./web\nmax_memory_restart: 300M\nmax_memory_hard: 400M");
    let mistake = mistake("command: ./web\nmax_memory_restart: 300M\nmax_memory_hard: 300M");
    assert!(mistake.contains("`max_memory_hard` must be above `max_memory_restart`"), "{mistake}");
}

#[test]
fn times_that_recur() {
    let cron = |expression: &str| json!({"expression": expression, "timezone": null});
    let good = [
        ("'0 3 * * *'", cron("0 3 * * *")),
        ("' */10 * * * * * '", cron("*/10 * * * * *")),
        ("'@daily'", cron("@daily")),
        ("'0'", json!(null)),
        ("0", json!(null)),
        ("false", json!(null)),
        ("''", json!(null)),
    ];
    for key in ["cron_restart", "cron", "cronRestart"] {
        check(
            key,
            "cron_restart",
            &good,
            &["'0 3 * *'", "'60 * * * *'", "'0 0 31 2 *'", "true", "3", "[1]", ""],
        );
    }
    let app = app("command: ./web\ncron: 0 3 * * 1\ncron_timezone: Europe/Berlin");
    assert_eq!(app.cron_restart.unwrap().timezone.as_deref(), Some("Europe/Berlin"));
    check("cron_timezone", "cron_restart", &[("UTC", json!(null))], &["Mars/Olympus", "''", "1", "[UTC]"]);
}

#[test]
fn watched_files() {
    let watch = |paths: &[&str]| json!({"paths": paths, "ignore": [], "delay": 500});
    let good = [
        ("true", watch(&["/srv"])),
        ("src", watch(&["/srv/src"])),
        ("[src, /etc/app.conf, '.']", watch(&["/srv/src", "/etc/app.conf", "/srv"])),
        ("src/[id]", watch(&["/srv/src/[id]"])),
        ("false", json!(null)),
        ("0", json!(null)),
        ("''", json!(null)),
        ("[]", json!(null)),
    ];
    check("watch", "watch", &good, &["1", "['']", "{a: b}", "[true]", "[1]", "~/src", ""]);
    let app = app("command: ./web\ncwd: sub\nwatch: true\nignoreWatch: ['*.tmp', '!.env']\nwatchDelay: 2s");
    let watch = app.watch.unwrap();
    assert_eq!(watch.paths, [PathBuf::from("/srv/sub")]);
    assert_eq!(watch.ignore, ["*.tmp", "!.env"]);
    assert_eq!(watch.delay, Duration::from_secs(2));
    for wrong in ["ignore_watch: '{a'", "ignore_watch: [[a]]", "watch_delay: soon"] {
        mistake(&format!("command: ./web\n{wrong}"));
    }
}

#[test]
fn settings_of_the_daemon() {
    let daemon = |section: &str| {
        let loaded = load(&format!("apps: [{{command: a}}]\n{section}"));
        loaded.unwrap_or_else(|errors| panic!("{section}:\n{}", errors.render(false))).daemon
    };
    let expected = |log_level, group: Option<&str>| {
        Some(DaemonSettings {
            log_level,
            control_group: group.map(str::to_owned),
            ..DaemonSettings::default()
        })
    };
    assert_eq!(daemon(""), None);
    assert_eq!(daemon("daemon: {}"), expected(LogLevel::Info, None));
    assert_eq!(
        daemon("daemon: {log_level: debug, control_group: adm}"),
        expected(LogLevel::Debug, Some("adm"))
    );
    assert_eq!(daemon("daemon: {control_group: 4}"), expected(LogLevel::Info, Some("4")));
    for (section, expected) in [
        ("daemon: debug", "`daemon` must be a mapping"),
        ("daemon:", "`daemon` must be a mapping"),
        ("daemon: {log_level: loud}", "`log_level` must be `error` or `warn` or `info` or `debug`"),
        ("daemon: {log_level: }", "`log_level` must be"),
        ("daemon: {control_group: ''}", "`control_group` is empty"),
        ("daemon: {log_leve: info}", "unknown key `log_leve`"),
        ("daemon: {log_dir: /var/log}", "`log_dir` is not decided here"),
    ] {
        let mistake = mistake(&format!("apps: [{{command: a}}]\n{section}"));
        assert!(mistake.contains(expected) && mistake.starts_with("file:2:"), "{mistake}");
    }
}

#[test]
fn reloads() {
    let canary = |steps: &[u32], hold: u32| json!({"mode": "canary", "steps": steps, "hold": hold});
    let good = [
        ("rolling", json!({"mode": "rolling"})),
        ("all", json!({"mode": "all"})),
        ("canary", canary(&[5, 25, 100], 30_000)),
        ("{mode: all}", json!({"mode": "all"})),
        ("{mode: canary, hold: 1m}", canary(&[5, 25, 100], 60_000)),
        ("{mode: canary, steps: [50%, 100%], hold: 0}", canary(&[50, 100], 0)),
    ];
    check("reload", "reload", &good, &["canaries", "1", "[all]", "{}", "{steps: [100%]}", ""]);
    for (value, expected) in [
        ("{mode: slow}", "`mode` must be `rolling` or `all` or `canary`"),
        ("{mode: canary, steps: [5%, 50%]}", "`steps` must end with 100%"),
        ("{mode: canary, steps: [50%, 5%, 100%]}", "`steps` must ascend: 50% comes before 5%"),
        ("{mode: canary, steps: [0%, 100%]}", "`steps` must be shares from 1% to 100%"),
        ("{mode: canary, steps: [5, 100]}", "`steps` must be shares from 1% to 100%, not `5`"),
        ("{mode: canary, steps: []}", "`steps` must be a list of shares"),
        ("{mode: canary, hold: soon}", "`hold` must be a duration"),
        ("{mode: all, hold: 3s}", "`hold` goes with `mode: canary` only"),
        ("{mode: canary, share: 5%}", "unknown key `share`"),
        ("all\nmax_surge: 0", "`reload` needs old and new workers side by side, and `max_surge` is 0"),
        ("canary\nexec_mode: fork", "`reload` needs old and new workers side by side"),
    ] {
        let mistake = mistake(&format!("command: ./web\nreload: {value}"));
        assert!(mistake.starts_with("file:2:") && mistake.contains(expected), "{value}: {mistake}");
    }
}

#[test]
fn process_attributes() {
    let good = [("www-data", json!("www-data")), ("1000", json!("1000"))];
    for (key, field) in [("user", "user"), ("uid", "user"), ("group", "group"), ("gid", "group")] {
        check(key, field, &good, &["''", "-1", "1.5", "4294967295", "true", "[1]", ""]);
    }
    let good = [
        ("'0022'", json!(0o22)),
        ("'022'", json!(0o22)),
        ("0027", json!(0o27)),
        ("0o77", json!(0o77)),
        ("'0'", json!(0)),
    ];
    check("umask", "umask", &good, &["22", "'1000'", "'8'", "''", "'00022'", "u=rwx", "true", ""]);
    check("nice", "nice", &[("-20", json!(-20)), ("19", json!(19))], &["-21", "20", "'5'", "1.5", ""]);
    let good = [
        ("auto", json!("auto")),
        ("3", json!({"cpus": [3]})),
        ("[2, '0-1', 2]", json!({"cpus": [0, 1, 2]})),
        ("8-9", json!({"cpus": [8, 9]})),
    ];
    check("cpu_affinity", "cpu_affinity", &good, &["[]", "-1", "8192", "2-1", "'1'", "all", "[auto]", ""]);
    check(
        "oom_score_adj",
        "oom_score_adj",
        &[("-1000", json!(-1000)), ("1000", json!(1000))],
        &["-1001", "1001", "x", ""],
    );
    let good = [
        ("{nofile: 65536}", json!({"nofile": {"soft": 65536, "hard": 65536}})),
        (
            "{core: unlimited, as: 1G}",
            json!({"core": {"soft": null, "hard": null}, "as": {"soft": 1 << 30, "hard": 1 << 30}}),
        ),
        ("{nproc: '10:20'}", json!({"nproc": {"soft": 10, "hard": 20}})),
        ("{}", json!({})),
    ];
    check("limits", "limits", &good, &["1024", "[nofile]", "unlimited", ""]);
    for text in [
        "{files: 1}",
        "{nofile: 1G}",
        "{nofile: -1}",
        "{nofile: '2:1'}",
        "{core: 1g}",
        "{nofile: }",
        "{cpu: [1]}",
    ] {
        mistake(&format!("command: a\nlimits: {text}"));
    }
}

#[test]
fn output() {
    for (key, field) in [
        ("out_file", "out_file"),
        ("out", "out_file"),
        ("output", "out_file"),
        ("out_log", "out_file"),
        ("outFile", "out_file"),
        ("error_file", "error_file"),
        ("error", "error_file"),
        ("err", "error_file"),
        ("err_file", "error_file"),
        ("err_log", "error_file"),
        ("errorFile", "error_file"),
    ] {
        let good = [
            ("log/web.log", json!({"file": "/srv/log/web.log"})),
            ("/var/log/web.log", json!({"file": "/var/log/web.log"})),
            ("/dev/null", json!("null")),
            ("'NULL'", json!("null")),
            ("NULL", json!("null")),
        ];
        check(key, field, &good, &["", "''", "~/x", "1", "true", "[a]"]);
    }
}

#[test]
fn log_options() {
    let logs = |text: &str| serde_json::to_value(app(&format!("command: a\n{text}")).logs).unwrap();
    let good = [
        ("log_file: all.log", "combined_file", json!("/srv/all.log")),
        ("log: /x", "combined_file", json!("/x")),
        ("log_file: NULL", "combined_file", json!(null)),
        ("merge_logs: true", "merge", json!(true)),
        ("combineLogs: true", "merge", json!(true)),
        ("log_type: json", "json", json!(true)),
        ("log_type: raw", "json", json!(false)),
        ("time: true", "date_format", json!("YYYY-MM-DDTHH:mm:ss")),
        ("time: true\nlog_date_format: HH:mm", "date_format", json!("HH:mm")),
        ("log_max_size: 10M", "max_size", json!(10 << 20)),
        ("log_max_size: 0", "max_size", json!(0)),
        ("log_max_size: 4096", "max_size", json!(4096)),
        ("log_rotate: daily", "rotate", json!("daily")),
        ("log_rotate: '0 3 * * SUN'", "rotate_cron", json!("0 3 * * SUN")),
        ("log_rotate: '@daily'", "rotate_cron", json!("@daily")),
        ("log_keep: 0", "keep", json!(0)),
        ("log_compress: true", "compress", json!(true)),
    ];
    for (text, field, expected) in good {
        assert_eq!(logs(text)[field], expected, "{text}");
    }
    for text in [
        "log_file: 1",
        "merge_logs: 1",
        "log_type: xml",
        "time: now",
        "log_date_format: ''",
        "log_date_format: 5",
        "log_max_size: 10MB",
        "log_max_size: -1",
        "log_rotate: yearly",
        "log_rotate: '0 25 * * *'",
        "log_keep: -1",
        "log_keep: 10001",
        "log_compress: gzip",
    ] {
        mistake(&format!("command: a\n{text}"));
    }
    let off = app("command: a\ndisable_logs: true\nout_file: a\nlog_file: b");
    assert_eq!((off.out_file, off.error_file), (LogTarget::Null, LogTarget::Null));
    assert_eq!(off.logs.combined_file, None);
}

#[test]
fn folders() {
    let good = [
        ("app", json!("/srv/app")),
        ("/x/./y/", json!("/x/y")),
        ("../x", json!("/srv/../x")),
        (".", json!("/srv")),
    ];
    check("cwd", "cwd", &good, &["", "''", "~", "1", "[a]"]);
}

#[test]
fn camel_case_and_aliases_are_the_same_key() {
    let app = app(
        "{command: a, killTimeout: 1s, minUptime: 2s, maxRestarts: 3, stopExitCodes: 4, execMode: fork, uid: u}",
    );
    assert_eq!((app.kill_timeout, app.min_uptime), (Duration::from_secs(1), Duration::from_secs(2)));
    assert_eq!((app.max_restarts, app.stop_exit_codes, app.exec_mode), (3, vec![4], ExecMode::Fork));
    assert_eq!(app.user.as_deref(), Some("u"));
    assert!(mistake("{command: a, user: x, uid: y}").contains("`user` and `uid` are the same key"));
}

#[test]
fn environment() {
    let app = app("
        command: a
        env: {TEXT: a b, VERSION: 1.10, MODE: 0022, YES: true, WORD: yes, EMPTY: '', DATE: 2026-01-01}");
    let expected = [
        ("DATE", "2026-01-01"),
        ("EMPTY", ""),
        ("MODE", "0022"),
        ("TEXT", "a b"),
        ("VERSION", "1.10"),
        ("WORD", "yes"),
        ("YES", "true"),
    ];
    assert_eq!(app.env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    for text in ["{A: }", "{A: ~}", "{'': x}", "{'A=B': x}", "[A=1]", "A=1", "{A: \"\\0\"}"] {
        let mistake = mistake(&format!("command: a\nenv: {text}"));
        assert!(mistake.contains("variable"), "{text}: {mistake}");
    }
}

#[test]
fn inherited_environment() {
    let inherited = |value: &str| {
        let app = app(&format!("command: a\ninherit_env: {value}"));
        app.inherited_env.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(inherited("true"), ["HOME", "LANG", "PATH"]);
    assert!(inherited("false").is_empty());
    // Another rule is another app, whatever the caller has.
    assert_ne!(app("command: a").inherit, app("command: a\ninherit_env: [HOME, LANG, PATH]").inherit);
    assert_eq!(inherited("[PATH, ABSENT]"), ["PATH"]);
    for value in ["PATH", "'true'", "1", "{}", "", "[true]", "['']"] {
        assert!(mistake(&format!("command: a\ninherit_env: {value}")).contains("`inherit_env`"), "{value}");
    }
}

#[test]
fn named_environments() {
    let text = "
        - {command: ./a, env: {A: base, B: base}, env_production: {A: production}, env_test: {A: test}}
        - {command: ./b, env: {A: base}}";
    let load = |name: Option<&str>| {
        let context = Context { env_name: name.map(str::to_owned), ..context() };
        load_as(Format::Yaml, text, &context)
    };
    let variables =
        |name| load(name).unwrap().apps.into_iter().map(|app| app.env["A"].clone()).collect::<Vec<_>>();
    assert_eq!(variables(None), ["base", "base"]);
    assert_eq!(variables(Some("production")), ["production", "base"]);
    let errors = load(Some("staging")).unwrap_err();
    assert!(errors.render(false).contains("`production`, `test`"), "{errors}");
    assert_eq!(errors.iter().next().unwrap().line, None);
}

#[test]
fn environment_files() {
    let folder = tempfile::tempdir().unwrap();
    let context = Context { base_dir: folder.path().into(), ..context() };
    let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).unwrap();
    write("one.env", b"\xEF\xBB\xBF# comment\nA=one\nB='$A ${A}'\nexport C=\"a b\" # more\nD=$A\n");
    write("two.env", b"A=two\nE=two\n");
    write("wrong.env", b"A=1\n\nSECRET hunter2\n");
    write("bytes.env", b"A=1\nB=\xff\n");
    write("large.env", &vec![b'#'; (1 << 20) + 1]);

    let text =
        "[{command: ./a, env_file: [one.env, ./two.env], env: {E: own}}, {command: ./b, env_file: two.env}]";
    let apps = load_as(Format::Yaml, text, &context).unwrap().apps;
    let expected = [("A", "two"), ("B", "$A ${A}"), ("C", "a b"), ("D", "one"), ("E", "own")];
    assert_eq!(apps[0].env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert_eq!(apps[1].env.len(), 2, "nothing leaks from one app to the next");

    for (file, part) in [
        ("absent.env", "there is no such file"),
        (".", "not a regular file"),
        ("wrong.env", "line 3 has no `=` after the name, at column 8"),
        ("bytes.env", "line 2 is not UTF-8"),
        ("large.env", "larger than 1024 KiB"),
        ("''", "is empty"),
        ("{}", "must be text"),
    ] {
        let errors =
            load_as(Format::Yaml, &format!("{{command: ./a, env_file: {file}}}"), &context).unwrap_err();
        let shown = errors.render(false);
        assert!(shown.contains(part) && !shown.contains("hunter2"), "{file}: {shown}");
    }
}

#[test]
fn the_same_file_in_every_format() {
    let yaml =
        "apps: [{name: web, command: [./web, '1'], instances: 2, env: {A: 1.10, B: true}, kill_timeout: 5s}]";
    let json = r#"{"apps": [{"name": "web", "command": ["./web", "1"], "instances": 2, "env": {"A": 1.10, "B": true}, "kill_timeout": "5s"}]}"#;
    let json5 = "// comment\n{apps: [{name: 'web', command: ['./web', '1',], instances: 2, env: {A: 1.10, B: true}, kill_timeout: '5s',},],}";
    let toml = "[[apps]]\nname = 'web'\ncommand = ['./web', '1']\ninstances = 2\nkill_timeout = '5s'\nenv = { A = 1.10, B = true }\n";
    let apps = |format, text| load_as(format, text, &context()).unwrap().apps;
    let expected = apps(Format::Yaml, yaml);
    assert_eq!(apps(Format::Json, json), expected);
    assert_eq!(apps(Format::Json, json5), expected);
    assert_eq!(apps(Format::Toml, toml), expected);
    assert_eq!(apps(Format::Yaml, json), expected, "plain JSON is YAML");
}

#[test]
fn instances_of_a_json_file_are_one() {
    let apps = load_as(Format::Json, r#"{"command": "./web"}"#, &context()).unwrap().apps;
    assert_eq!(apps[0].instances, 1);
}

#[test]
fn top_level() {
    for text in [
        "apps: [{command: ./a}]",
        "[{command: ./a}]",
        "command: ./a",
        "apps: {command: ./a}",
        "pm2: [{command: ./a}]",
        "pm2: {command: ./a}",
        "pm2: {apps: [{command: ./a}]}",
        "x-a: 1\napps: [{command: ./a}]",
        "$schema: ecosystem.schema.json\napps: [{command: ./a}]",
    ] {
        assert_eq!(app(text).name, "a", "{text}");
    }
    for (text, part) in [
        ("", "no app"),
        ("[]", "no app"),
        ("{}", "no app"),
        ("apps: []", "no app"),
        ("apps:", "must be a list"),
        ("apps: text", "must be a list"),
        ("5", "must be a list"),
        ("{apps: [{command: a}], aps: 1}", "unknown key `aps`"),
        ("{pm2: {apps: [{command: a}], daemon: {}}}", "unknown key `daemon`"),
        ("{apps: [{command: a}], pm2: []}", "`apps` and `pm2` are the same key"),
        ("pm2: text", "`pm2` must be a list"),
        ("[{command: a}, {command: b, name: a}]", "two apps are called `a`"),
        ("[{command: a, listen: 80}, {command: b, listen: '0.0.0.0:80'}]", "the app `a`"),
        ("[{command: a, listen: /a}, {command: b, listen: /a}]", "the app `a`"),
    ] {
        let mistake = mistake(text);
        assert!(mistake.contains(part), "{text}: {mistake}");
    }
    let many = "- command: ./a\n".repeat(1001);
    assert!(mistake(&many).contains("1000 is the most"));
}

#[test]
fn anchors_and_merge_keys() {
    let apps = load(
        "
x-base: &base {instances: 2, env: &env {A: 1}, kill_timeout: 1s}
apps:
  - {name: a, command: ./a, <<: *base, instances: 3}
  - {<<: [{nice: 5}, *base], name: b, command: ./b, env: *env}
",
    )
    .unwrap()
    .apps;
    assert_eq!((apps[0].instances, apps[0].kill_timeout), (3, Duration::from_secs(1)));
    assert_eq!((apps[1].instances, apps[1].nice), (2, Some(5)));
    assert_eq!(apps[0].env, apps[1].env);
    assert!(mistake("{command: a, <<: [1]}").contains("`<<`"));
    assert!(mistake("{command: a, env: &e {A: *e}}").contains("inside"));
    assert!(mistake("{command: *a}").contains("anchor"));
}

#[test]
fn the_example_is_right() {
    let app = app(EXAMPLE);
    assert_eq!((app.name.as_str(), app.instances), ("web", 2));
    let port = ListenAddress::Tcp { address: "[::]:8080".parse().unwrap(), dual_stack: true };
    assert_eq!(app.listen, [port]);
}

#[test]
fn every_option_of_the_example_is_right() {
    // What is commented out with one blank is prose; a setting has no capital.
    let all: String = EXAMPLE
        .lines()
        .map(|line| {
            let setting = line.trim_start().strip_prefix("# ").filter(|rest| {
                rest.split_once(": ").is_some_and(|(key, _)| {
                    key.trim().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                }) || *rest == "limits:"
            });
            setting.map_or_else(|| format!("{line}\n"), |setting| format!("    {setting}\n"))
        })
        .filter(|line| !line.contains("env_file"))
        .collect();
    let app = app(&all);
    assert_eq!(app.ready, Ready::Notify);
    assert_eq!(app.limits["nofile"].soft, Some(65_536));
    assert_eq!(app.user.as_deref(), Some("www-data"));
}

#[test]
fn apps_of_a_command_line() {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let options = CommandOptions {
        namespace: Some("shop".into()),
        instances: Some("max".into()),
        listen: words(&["8080", "/run/web.sock"]),
        cwd: Some(PathBuf::from("app")),
        ..CommandOptions::default()
    };
    let app = app_from_command(words(&["node", "server.js", "a > b"]), options, &context()).unwrap();
    assert_eq!((app.name.as_str(), app.namespace.as_str(), app.instances), ("node", "shop", 4));
    assert_eq!((app.command, app.listen.len()), (words(&["node", "server.js", "a > b"]), 2));
    assert_eq!((app.cwd, app.kill_signal), (PathBuf::from("/srv/app"), 15));

    let options = CommandOptions { script: true, ..CommandOptions::default() };
    let app = app_from_command(words(&["./app.js", "-x"]), options, &context()).unwrap();
    assert_eq!((app.command, app.instances, app.kill_signal), (words(&["node", "/srv/app.js", "-x"]), 1, 2));
}

#[test]
fn mistakes_of_a_command_line_name_the_option() {
    let options = CommandOptions {
        name: Some("all".into()),
        instances: Some("many".into()),
        listen: vec!["8080".into(), "0".into()],
        env_file: vec!["absent.env".into()],
        ..CommandOptions::default()
    };
    let errors = app_from_command(Vec::new(), options, &context()).unwrap_err();
    let expected = "\
the command names no program
`--name` must not be `all`, which commands take for every app
`--listen` must not have port 0: the kernel would choose another port at each start
`--env-file` fails: cannot read /srv/absent.env: there is no such file
`--instances` must be a number or `max`, not the text `many`";
    assert_eq!(errors.to_string(), expected);
    assert!(errors.render(false).starts_with("error: the command names no program\n\nerror: `--name`"));
}

#[test]
fn the_channel() {
    let text = "command: a
channel: true
ipc_max_message: 1M
ipc_buffer: 65536
ipc_retain: 8
ipc_from: [jobs, web-2]
shutdownWithMessage: true";
    let expected = ChannelOptions {
        enabled: true,
        max_message: 1 << 20,
        buffer: 64 << 10,
        retain: 8,
        from: vec!["jobs".into(), "web-2".into()],
        shutdown_with_message: true,
    };
    assert_eq!(app(text).channel, expected);
    for (key, bad) in [
        ("channel", "maybe"),
        ("ipc_max_message", "1023"),
        ("ipc_max_message", "2M"),
        ("ipc_buffer", "1K"),
        ("ipc_buffer", "0"),
        ("ipc_retain", "-1"),
        ("ipc_from", "a b"),
        ("shutdown_with_message", "1"),
    ] {
        let mistake = mistake(&format!("command: a\n{key}: {bad}"));
        assert!(mistake.contains(&format!("`{key}`")), "{key}: {bad}: {mistake}");
    }
}

#[test]
fn ready_by_a_message() {
    assert_eq!(app("command: a\nready: ipc").ready, Ready::Ipc);
    assert_eq!(app("command: a\nwait_ready: true").ready, Ready::Ipc);
    assert_eq!(app("command: a\nwait_ready: false").ready, Ready::Auto);
    assert_eq!(app("command: a\nready: notify\nwait_ready: true").ready, Ready::Notify);
    for key in ["ready: ipc", "wait_ready: true", "shutdown_with_message: true"] {
        let mistake = mistake(&format!("command: a\nchannel: false\n{key}"));
        assert!(mistake.contains("needs the channel"), "{key}: {mistake}");
    }
}

#[test]
fn a_launcher_keeps_the_channel() {
    for command in ["npm start", "[/usr/bin/npx, tsx, a.ts]", "yarn run serve"] {
        let warnings = |more: &str| load(&format!("name: web\ncommand: {command}{more}")).unwrap().warnings;
        assert_eq!(warnings("").len(), 1, "{command}");
        assert!(warnings("\nchannel: false").is_empty(), "{command}");
    }
}
