//! PM2's files run as they are: each of its keys is honoured, or named in a
//! warning unless it asks for nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail them")]

use std::collections::BTreeMap;
use std::time::Duration;

use supervisor_config::{App, Context, Errors, ExecMode, Format, Loaded, LogTarget, Ready, Source};

fn load_as(format: Format, text: &str) -> Result<Loaded, Errors> {
    let caller_env = ["PATH", "MY_SECRET", "REACT_APP", "HOME"].map(|name| (name.to_owned(), "x".to_owned()));
    let context = Context {
        base_dir: "/srv".into(),
        caller_env: caller_env.into(),
        env_name: Some("production".into()).filter(|_| text.contains("env_production")),
        usable_cpus: 4,
    };
    supervisor_config::load(&Source { path: "file".into(), text: text.to_owned(), format }, &context)
}

/// One app of YAML, and the warnings about it.
fn app(settings: &str) -> (App, Vec<String>) {
    let text = format!("script: server.js\n{settings}");
    let loaded =
        load_as(Format::Yaml, &text).unwrap_or_else(|errors| panic!("{text}:\n{}", errors.render(false)));
    let warnings = loaded.warnings.iter().map(|warning| warning.message.clone()).collect();
    (loaded.apps.into_iter().next().unwrap(), warnings)
}

/// The app, about which there is no warning.
fn quiet(settings: &str) -> App {
    let (app, warnings) = app(settings);
    assert!(warnings.is_empty(), "{settings}: {warnings:?}");
    app
}

fn mistake(settings: &str) -> String {
    load_as(Format::Yaml, &format!("script: server.js\n{settings}")).unwrap_err().to_string()
}

fn variables(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Everything that such files usually have.
const ECOSYSTEM: &str = r#"{
  "apps": [{
    "name": "api", "script": "./server.js", "instances": "max", "exec_mode": "cluster",
    "env": {"NODE_ENV": "development", "OPTIONS": {"a": [1, "b", null]}},
    "env_production": {"NODE_ENV": "production"},
    "max_memory_restart": "300M", "min_uptime": "10s", "max_restarts": 10, "autorestart": true,
    "watch": false, "error_file": "./logs/err.log", "out_file": "./logs/out.log", "log_file": "./logs/all.log",
    "time": true, "log_date_format": "YYYY-MM-DD HH:mm Z", "merge_logs": true, "kill_timeout": 5000,
    "wait_ready": true, "listen_timeout": 10000, "instance_var": "INSTANCE_ID", "cron_restart": "0 3 * * *",
    "node_args": "--max-old-space-size=256", "vizion": false, "source_map_support": true
  }],
  "deploy": {"production": {"user": "me", "host": "s3cret.example"}}
}"#;

#[test]
fn a_whole_file_runs_as_it_is() {
    for format in [Format::Json, Format::Yaml] {
        let loaded = load_as(format, ECOSYSTEM).unwrap();
        let app = &loaded.apps[0];
        assert_eq!(app.command, ["node", "--max-old-space-size=256", "/srv/server.js"]);
        assert_eq!((app.name.as_str(), app.instances, app.exec_mode), ("api", 4, ExecMode::Cluster));
        assert_eq!((app.min_uptime, app.max_restarts), (Duration::from_secs(10), 10));
        assert_eq!((app.kill_timeout, app.listen_timeout), (Duration::from_secs(5), Duration::from_secs(10)));
        assert_eq!(app.out_file, LogTarget::File("/srv/logs/out.log".into()));
        assert_eq!(app.instance_var, "INSTANCE_ID");
        assert_eq!(app.max_memory_restart, Some(300 << 20));
        let env = [("NODE_ENV", "production"), ("OPTIONS", r#"{"a":[1,"b",null]}"#)];
        assert_eq!(app.env, variables(&env));
        let warned: Vec<&str> =
            loaded.warnings.iter().filter_map(|warning| warning.message.split('`').nth(1)).collect();
        assert_eq!(app.ready, Ready::Ipc);
        let expected = ["source_map_support", "deploy"];
        assert_eq!(warned, expected);
        assert!(loaded.warnings.iter().all(|warning| warning.help.is_some() && warning.line.is_some()));
        assert!(loaded.warnings.iter().all(|warning| !warning.render(false).contains("s3cret")));
    }
}

#[test]
fn what_asks_for_nothing_is_passed_over_in_silence() {
    for key in ["watch_options", "pidFile", "vizion", "pmx"] {
        for off in ["false", "0", "''", "~", "[]"] {
            quiet(&format!("{key}: {off}"));
        }
        let (_, warnings) = app(&format!("{key}: true"));
        assert_eq!(warnings.len(), 1, "{key}: {warnings:?}");
    }
    quiet("{treekill: true, force: true}".trim_matches(['{', '}']).replace(", ", "\n").as_str());
    assert_eq!(app("treekill: false").1, ["`treekill` is not honoured yet"]);
    assert_eq!(app("windowsHide: true").1, ["`windowsHide` means nothing here and is ignored"]);
}

#[test]
fn patterns_to_watch_become_folders() {
    let (app, warnings) = app("watch: [lib, 'src/**/*.js', '*.json']");
    let paths = ["/srv/lib", "/srv/src", "/srv"].map(std::path::PathBuf::from);
    assert_eq!(app.watch.unwrap().paths, paths);
    let all_of = |folder: &str| format!("`watch` takes no patterns: all of {folder} is watched");
    assert_eq!(warnings, [all_of("/srv/src"), all_of("/srv")]);
    let ignored = "watch: true\nignore_watch: ['node_modules', '[\\/\\\\]\\./', './logs', '*.db']";
    assert_eq!(quiet(ignored).watch.unwrap().ignore.len(), 4);
}

#[test]
fn name_prefix() {
    assert_eq!(quiet("name_prefix: shop-").name, "shop-server");
    assert_eq!(quiet("namePrefix: 2.\nname: web").name, "2.web");
    assert!(mistake("name_prefix: 'shop:'").contains("`name_prefix` contains `:`"));
}

#[test]
fn port() {
    assert_eq!(quiet("port: 3000").env, variables(&[("PORT", "3000")]));
    assert_eq!(quiet("port: 3000\nenv: {PORT: 1, A: b}").env, variables(&[("A", "b"), ("PORT", "3000")]));
    let of_a_set = quiet("port: 3000\nenv_production: {PORT: 80}");
    assert_eq!(of_a_set.env, variables(&[("PORT", "80")]));
    for wrong in ["65536", "-1", "'3000'", "", "[1]"] {
        assert!(mistake(&format!("port: {wrong}")).contains("`port` must be"), "{wrong}");
    }
}

#[test]
fn increment_var() {
    assert_eq!(quiet("increment_var: PORT\nenv: {PORT: 3000}").increment_var.as_deref(), Some("PORT"));
    assert_eq!(quiet("increment_var: PORT\nport: 3000").increment_var.as_deref(), Some("PORT"));
    for wrong in ["increment_var: PORT", "increment_var: A\nenv: {A: b}", "increment_var: ''"] {
        assert!(mistake(wrong).contains("`increment_var`"), "{wrong}");
    }
}

#[test]
fn filter_env() {
    let inherited =
        |value: &str| quiet(&format!("filter_env: {value}")).inherited_env.into_keys().collect::<Vec<_>>();
    assert_eq!(inherited("false").len(), 4);
    assert!(inherited("true").is_empty());
    assert_eq!(inherited("SECRET"), ["HOME", "PATH", "REACT_APP"]);
    assert_eq!(inherited("[MY_, REACT_, ABSENT]"), ["HOME", "PATH"]);
    for wrong in ["''", "{}", "[true]", ""] {
        assert!(mistake(&format!("filter_env: {wrong}")).contains("`filter_env`"), "{wrong}");
    }
}

#[test]
fn starting_and_restarting() {
    assert!(quiet("").autostart && !quiet("autostart: false").autostart);
    let pause = |settings: &str| {
        let (app, warnings) = app(settings);
        (app.restart_delay.as_millis(), app.restart_backoff_percent, warnings.len())
    };
    assert_eq!(pause("exp_backoff_restart_delay: 250"), (250, 150, 0));
    assert_eq!(pause("exp_backoff_restart_delay: 0\nrestart_delay: 10"), (10, 200, 0));
    assert_eq!(pause("exp_backoff_restart_delay: 250\nrestart_delay: 0"), (250, 150, 0));
    assert_eq!(pause("exp_backoff_restart_delay: 250\nrestart_delay: 10\nrestart_backoff: 3"), (250, 150, 2));
}

#[test]
fn lists_and_mappings_in_variables_become_json() {
    let app = quiet("env: {A: [1, 1.10, yes, true, 'q\"'], B: {b: {c: ~}}, C: {}, D: [0x10, .inf]}");
    let expected = [
        ("A", r#"[1,1.10,"yes",true,"q\""]"#),
        ("B", r#"{"b":{"c":null}}"#),
        ("C", "{}"),
        ("D", r#"["0x10",".inf"]"#),
    ];
    assert_eq!(app.env, variables(&expected));
}
