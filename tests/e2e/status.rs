//! What is shown: the JSON, the table, and the exit codes.

use std::io::{BufRead, BufReader, pipe};
use std::os::unix::process::ExitStatusExt;

use serde_json::Value;
use supervisor_sys::signal::Signal;

use crate::harness::{Home, finish, text};
use crate::process;
use crate::programs::{supervisor, worker};
use crate::terminal::{SIZES, Screen};

const SLEEP: &str = "command: [sleep, '600']\nmin_uptime: 50ms\ninstances: 2";

/// Checks an object's keys and the types of their values: `name: type`, where a
/// type is one or more of `null`, `bool`, `number`, `string`, `list`, `object`.
#[track_caller]
fn check_shape(value: &Value, shape: &[(&str, &str)]) {
    let object = value.as_object().unwrap_or_else(|| panic!("{value} is no object"));
    let mut expected: Vec<&str> = shape.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, expected);
    for (name, types) in shape {
        let found = match &object[*name] {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "list",
            Value::Object(_) => "object",
        };
        assert!(types.split(' ').any(|one| one == found), "{name} is {}", object[*name]);
    }
}

#[test]
fn json_has_the_documented_shape() {
    let home = Home::new();
    let worker = worker();
    let settings =
        format!("command: [{}]\nmin_uptime: 50ms\ninstances: 2\nlisten: '{}'", text(&worker), home.address());
    home.write_apps("app.yaml", &[("web", &settings), ("off", SLEEP)]);
    home.ok(&["start", "app.yaml"]);
    home.ok(&["stop", "off"]);
    process::signal(home.pids("web")[1], Signal::KILL);
    home.app_when("web", "is measured", |app| {
        app["restarts"] == 1
            && app["state"] == "online"
            && app["workers"].as_array().unwrap().iter().all(|worker| worker["memory_bytes"].is_u64())
    });

    let printed = home.ok(&["status", "--json"]);
    assert_eq!(printed.stdout.lines().count(), 1);
    let status: Value = serde_json::from_str(&printed.stdout).unwrap();
    check_shape(&status, &[("schema", "number"), ("daemon", "object"), ("apps", "list")]);
    assert_eq!(status["schema"], 1);
    let daemon = [
        ("version", "string"),
        ("pid", "number"),
        ("keeper_pid", "number"),
        ("uptime_s", "number"),
        ("safe_mode", "null"),
        ("problems", "list"),
    ];
    check_shape(&status["daemon"], &daemon);
    for app in status["apps"].as_array().unwrap() {
        check_shape(
            app,
            &[
                ("name", "string"),
                ("namespace", "string"),
                ("state", "string"),
                ("reason", "null string"),
                ("exec_mode", "string"),
                ("generation", "number"),
                ("instances", "object"),
                ("restarts", "number"),
                ("listeners", "list"),
                ("last_order", "null object"),
                ("workers", "list"),
            ],
        );
        check_shape(&app["instances"], &[("wanted", "number"), ("ready", "number"), ("running", "number")]);
        for listener in app["listeners"].as_array().unwrap() {
            check_shape(listener, &[("address", "string"), ("origin", "string"), ("policy", "string")]);
            assert_eq!(listener["origin"], "declared");
        }
        for worker in app["workers"].as_array().unwrap() {
            check_shape(
                worker,
                &[
                    ("slot", "number"),
                    ("id", "null number"),
                    ("pid", "null number"),
                    ("generation", "number"),
                    ("state", "string"),
                    ("uptime_s", "null number"),
                    ("restarts", "number"),
                    ("cpu_percent", "null number"),
                    ("memory_bytes", "null number"),
                    ("pss_bytes", "null number"),
                    ("dropped_log_bytes", "number"),
                    ("lost_log_bytes", "number"),
                    ("queue", "null number"),
                    ("in_rotation", "bool"),
                    ("weight", "null number"),
                    ("channel", "null object"),
                    ("cgroup", "null string"),
                    ("message", "null string"),
                    ("next_start_s", "null number"),
                    ("last_exit", "null object"),
                ],
            );
            if worker["last_exit"].is_object() {
                check_shape(
                    &worker["last_exit"],
                    &[
                        ("code", "null number"),
                        ("signal", "null string"),
                        ("reason", "string"),
                        ("at", "string"),
                    ],
                );
            }
        }
    }
    let [off, web] = status["apps"].as_array().unwrap().as_slice() else { panic!("two apps: {status}") };
    assert_eq!((&off["name"], &web["name"]), (&"off".into(), &"web".into()));
    assert_eq!((&off["state"], &web["state"]), (&"stopped".into(), &"online".into()));
    assert!(web["workers"][1]["last_exit"].is_object());
    assert_eq!(web["workers"][0]["last_exit"], Value::Null);
    assert_eq!(off["workers"][0]["pid"], Value::Null);
}

#[test]
fn use_of_the_machine_is_measured() {
    let home = Home::new();
    let command = format!("command: [{}, --flood]\nout_file: /dev/null", text(&worker()));
    home.start_app("busy", &format!("{command}\nmin_uptime: 50ms\ninstances: 1"));
    let worker = |app: &Value| app["workers"][0].clone();
    let app = home.app_when("busy", "is measured", |app| {
        worker(app)["cpu_percent"].as_f64().is_some_and(|percent| percent > 1.0)
    });
    let worker = worker(&app);
    assert!(worker["memory_bytes"].as_u64().unwrap() > 100_000, "{worker}");
    assert!(worker["uptime_s"].as_f64().unwrap() > 0.0, "{worker}");
}

#[test]
fn the_table_names_what_there_is() {
    let home = Home::new();
    home.start_app("web", SLEEP);
    let table = home.ok(&["status"]).stdout;
    assert!(table.contains("web") && table.contains("online"), "{table}");
    for pid in home.pids("web") {
        assert!(table.contains(&pid.to_string()), "{table}");
    }
    assert!(!table.contains('\x1b'), "colours where there is no terminal: {table:?}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert_eq!(home.ok(&["ls"]).stdout.lines().count(), table.lines().count());
    assert!(home.ok(&["status", "--color", "always"]).stdout.contains('\x1b'));
}

#[test]
fn it_can_be_watched() {
    let home = Home::new();
    home.start_app("web", SLEEP);
    let mut watch = home.command(&["status", "--watch"]).spawn().unwrap();
    let shown = BufReader::new(watch.stdout.take().unwrap()).lines();
    // Seen once and again.
    assert_eq!(shown.map(Result::unwrap).filter(|line| line.contains("web")).take(2).count(), 2);
    process::signal(watch.id(), Signal::INT);
    assert_eq!(finish(watch).code, Some(0));
}

#[test]
fn it_can_be_watched_on_screens_of_any_size() {
    let home = Home::new();
    let name = "a-name-that-is-as-long-as-the-name-of-an-app-can-be-for-a-person";
    // Too many lines for one screen, enough for the other.
    let instances = SLEEP.replace("instances: 2", "instances: 30");
    let failing = "command: [sh, -c, 'sleep 0.1; exit 3']\nmin_uptime: 50ms\ninstances: 1";
    home.write_apps("app.yaml", &[(name, SLEEP), ("many", &instances), ("bad", failing)]);
    home.ok(&["start", "app.yaml", "--no-wait"]);
    home.app_in_state("many", "online");
    for size in SIZES {
        let line = format!("exec {} status --watch", text(&supervisor()));
        let mut screen = Screen::start(&home, size, &line);
        let last = if size.0 < 30 { "more lines" } else { " 29 " };
        screen.shows_all(&["NAME", "bad", last]);
        screen.assert_unwrapped();
        // Another frame lies exactly over the first.
        home.ok(&["stop", "bad"]);
        screen.shows_what("bad stopped", |shown| {
            shown.lines().any(|line| line.starts_with("bad") && line.contains("stopped"))
                && shown.matches("NAME").count() == 1
        });
        // Nothing is left over of what was longer.
        home.ok(&["stop", "many", name]);
        screen.shows_what("all stopped", |shown| {
            let states = |state: &str| shown.lines().filter(|line| line.contains(state)).count();
            states("online") + states("ready") == 0 && states("stopped") >= 3
        });
        screen.assert_unwrapped();
        screen.press("\x03");
        let left = screen.finish();
        assert_eq!(left.code, Some(0), "{}", left.screen.contents());
        home.ok(&["start", "all", "--no-wait"]);
        home.app_in_state("many", "online");
    }
}

#[test]
fn selectors() {
    let home = Home::new();
    let shop = format!("{SLEEP}\nnamespace: shop");
    home.write_apps("app.yaml", &[("web-one", &shop), ("web-two", SLEEP), ("api", &shop)]);
    home.ok(&["start", "app.yaml"]);
    let select = |selectors: &[&str]| -> Vec<String> {
        let status = home.ok(&[&["status", "--json"], selectors].concat()).stdout;
        let status: Value = serde_json::from_str(&status).unwrap();
        let name = |app: &Value| {
            let slots = app["workers"].as_array().unwrap().iter().map(|worker| worker["slot"].to_string());
            format!("{}:{}", app["name"].as_str().unwrap(), slots.collect::<String>())
        };
        status["apps"].as_array().unwrap().iter().map(name).collect()
    };
    assert_eq!(select(&[]), ["api:01", "web-one:01", "web-two:01"]);
    assert_eq!(select(&["all"]), ["api:01", "web-one:01", "web-two:01"]);
    assert_eq!(select(&["api", "web-two:1"]), ["api:01", "web-two:1"]);
    assert_eq!(select(&["shop"]), ["api:01", "web-one:01"]);
    assert_eq!(select(&["/^web-/"]), ["web-one:01", "web-two:01"]);
    assert_eq!(select(&["app.yaml"]), ["api:01", "web-one:01", "web-two:01"]);
}

#[test]
fn exit_codes() {
    let home = Home::new();
    for args in [
        &["status"][..],
        &["ping"],
        &["stop", "web"],
        &["restart", "all"],
        &["delete", "web"],
        &["scale", "web", "2"],
        &["describe", "web"],
        &["signal", "HUP", "web"],
        &["logs"],
        &["kill"],
    ] {
        let failed = home.ends(4, args);
        assert!(failed.stderr.starts_with("error: no daemon is running in "), "{failed:?}");
    }
    home.start_app("web", SLEEP);
    for args in [
        &["status", "api"][..],
        &["stop", "api"],
        &["restart", "web:2"],
        &["delete", "/^api/"],
        &["scale", "api", "2"],
        &["describe", "api"],
        &["signal", "HUP", "api"],
        &["logs", "api"],
    ] {
        let failed = home.ends(3, args);
        assert!(failed.stderr.starts_with("error: "), "{failed:?}");
        assert_eq!(failed.stdout, "", "{failed:?}");
    }
    for args in [&["statsu"][..], &["stop"], &["scale", "web"], &["status", "--colour"], &["stop", "web:x"]] {
        home.ends(2, args);
    }
    assert_eq!(home.app("web")["state"], "online");
}

#[test]
fn a_reader_that_has_gone_ends_it_silently() {
    let home = Home::new();
    home.start_app("web", SLEEP);
    for args in [&["status"][..], &["status", "--json"], &["describe", "web"]] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let output = home.command(args).stdout(writer).output().unwrap();
        assert_eq!(output.status.signal(), Some(Signal::PIPE.as_raw()), "{args:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}

#[test]
fn ping_tells_who_answers() {
    let home = Home::new();
    home.start_app("web", SLEEP);
    let ping: Value = serde_json::from_str(&home.ok(&["ping", "--json"]).stdout).unwrap();
    let (keeper, master) = home.daemon();
    assert_eq!(ping["daemon"]["pid"], master);
    assert_eq!(ping["daemon"]["keeper_pid"], keeper);
    assert!(home.ok(&["ping"]).stdout.contains(&master.to_string()));
}

#[test]
fn descriptions_keep_secrets() {
    let home = Home::new();
    home.write_app("web", &format!("{SLEEP}\nenv: {{TOKEN: hush}}\nkill_timeout: 7s"));
    let start = home.command(&["start", "app.yaml"]).env("PASSWORD", "hush").spawn().unwrap();
    assert_eq!(finish(start).code, Some(0));
    for args in [&["describe", "web"][..], &["describe", "web", "--json"]] {
        let shown = home.ok(args).stdout;
        assert!(shown.contains("TOKEN") && shown.contains("PASSWORD"), "{shown}");
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.contains("web-out-0.log"), "{shown}");
    }
    // Nor does the daemon keep the environment of whoever started it.
    let (keeper, master) = home.daemon();
    for pid in [keeper, master] {
        let environment = std::fs::read(process::path(pid, "environ")).unwrap();
        assert!(!String::from_utf8_lossy(&environment).contains("PASSWORD"));
    }
}

#[test]
fn it_says_which_daemon_it_asks() {
    let home = Home::new();
    home.start_app("web", SLEEP);
    let folder = home.daemon_folder();
    assert!(home.ok(&["status", "-v"]).stderr.contains(text(&folder)));
    assert_eq!(home.ok(&["status"]).stderr, "");
}
