//! PM2's files as clean ones.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail them")]

use std::collections::BTreeMap;

use supervisor_config::{App, Context, Format, ImportOptions, Source, import};

fn source(format: Format, text: &str) -> Source {
    Source { path: "file".into(), text: text.to_owned(), format }
}

fn imported(text: &str, base_dir: Option<&str>) -> String {
    let caller_env = BTreeMap::from([("LANG".to_owned(), "C".to_owned())]);
    let options = ImportOptions { base_dir: base_dir.map(Into::into), caller_env };
    import(&source(Format::Json, text), &options).unwrap_or_else(|errors| panic!("{text}:\n{errors}"))
}

/// What a file means, which must give no warning unless it is PM2's.
fn apps(format: Format, text: &str, base_dir: &str) -> Vec<App> {
    let context =
        Context { base_dir: base_dir.into(), caller_env: BTreeMap::new(), env_name: None, usable_cpus: 4 };
    let loaded = supervisor_config::load(&source(format, text), &context)
        .unwrap_or_else(|errors| panic!("{text}:\n{}", errors.render(false)));
    assert!(format == Format::Json || loaded.warnings.is_empty(), "{text}:\n{:?}", loaded.warnings);
    loaded.apps
}

const ECOSYSTEM: &str = r#"{
  "apps": [
    {"name": "api", "exec": "./server.js", "execMode": "cluster_mode", "instances": "max", "killTimeout": "5s",
     "env": {"PORT": 3000, "EMPTY": "", "LIST": [1, "a b"], "QUOTES": "it's \"x\" # no\n"},
     "env_production": {"NODE_ENV": "production"}, "node_args": ["--inspect"], "args": "-a 'b c'",
     "watch": true, "vizion": false, "max_memory_restart": "300M", "exp_backoff_restart_delay": 100,
     "restart_delay": 0, "out": "logs/out.log", "err": "NULL", "nonsense": {"secret": "s3cret"}},
    {"script": "job.sh", "wait_ready": false}
  ],
  "deploy": {"production": {}}
}"#;

#[test]
fn an_ecosystem_file_becomes_clean() {
    let expected = r#"# From file by `supervisor import`.
# `deploy` means nothing here and is ignored: deploy with a tool of its own.

apps:
  - name: api
    script: ./server.js  # was exec
    args: "-a 'b c'"
    interpreter_args: ["--inspect"]  # was node_args
    instances: max
    exec_mode: cluster
    env:
      PORT: 3000
      EMPTY: ""
      LIST: [1, "a b"]
      QUOTES: "it's \"x\" # no\n"
    env_production:
      NODE_ENV: production
    restart_delay: 100  # was exp_backoff_restart_delay
    restart_backoff: 1.5
    max_memory_restart: 300M
    watch: true
    kill_timeout: 5s  # was killTimeout
    out_file: logs/out.log  # was out
    error_file: "NULL"  # was err
    # Left out: nonsense: there is no such key.
  - script: job.sh
    instances: 1  # as in PM2; otherwise one per CPU
    wait_ready: false
"#;
    assert_eq!(imported(ECOSYSTEM, None), expected);
}

#[test]
fn the_result_means_the_same() {
    let text = ECOSYSTEM.replace(r#", "nonsense": {"secret": "s3cret"}"#, "");
    assert_eq!(apps(Format::Yaml, &imported(&text, None), "/srv"), apps(Format::Json, &text, "/srv"));
}

#[test]
fn in_another_folder_it_still_means_the_same() {
    let text = r#"[{"script": "a.js", "out_file": "x.log", "error_file": "/dev/null"},
        {"name": "b", "script": "./b.py", "cwd": "sub", "error_file": "NULL"}]"#;
    let expected = apps(Format::Json, text, "/srv/shop");
    assert_eq!(apps(Format::Yaml, &imported(text, Some("/srv/shop")), "/etc"), expected);
}

#[test]
fn names_become_such_that_commands_can_tell_them() {
    let text = imported(r#"[{"name": "API server", "script": "a.js"}, {"name": 7, "script": "b.js"}]"#, None);
    assert!(text.contains("- name: API-server  # was API server\n"), "{text}");
    assert!(text.contains("- name: 7\n"), "{text}");
    assert_eq!(apps(Format::Yaml, &text, "/srv").len(), 2);
}

#[test]
fn a_dump_of_pm2_becomes_an_ecosystem_file() {
    let instance = |number: u32| {
        format!(
            r#"{{"name": "api", "node_args": ["--inspect"], "max_memory_restart": 314572800, "vizion": true,
            "autostart": true, "autorestart": true, "watch": false, "exec_mode": "cluster_mode",
            "instance_var": "NODE_APP_INSTANCE", "pmx": true, "treekill": true, "username": "root",
            "windowsHide": true, "kill_retry_time": 100, "namespace": "default", "pm_exec_path": "/srv/app.js",
            "pm_cwd": "/srv", "exec_interpreter": "node", "pm_out_log_path": "/home/me/.pm2/logs/api-out-{number}.log",
            "pm_err_log_path": "/var/log/api-err-{number}.log", "pm_pid_path": "/home/me/.pm2/pids/api-{number}.pid",
            "NODE_APP_INSTANCE": {number}, "status": "online", "axm_actions": [{{"action_name": "x"}}],
            "instances": 2, "LANG": "C", "NODE_ENV": "production",
            "env": {{"LANG": "C", "SHLVL": "1", "PM2_HOME": "/home/me/.pm2", "unique_id": "1-2", "api": "{{}}",
            "NODE_ENV": "production"}}}}"#
        )
    };
    let job = r#"{"name": "job", "args": ["-c", "run x"], "autorestart": false, "kill_timeout": 9000,
        "exec_mode": "fork_mode", "merge_logs": true, "pm_exec_path": "/bin/bash", "pm_cwd": "/srv",
        "exec_interpreter": "none", "node_args": [], "pm_out_log_path": "/srv/o-1.log", "env": {}}"#;
    let expected = r#"# From file by `supervisor import`.
# Variables that the environment of the import had as well are left out.

apps:
  - name: api
    script: ./app.js
    interpreter_args: ["--inspect"]  # was node_args
    cwd: /srv
    instances: 2
    exec_mode: cluster
    env:
      NODE_ENV: production
    max_memory_restart: 314572800
    error_file: /var/log/api-err.log
  - name: job
    script: /bin/bash
    args: ["-c", "run x"]
    cwd: /srv
    instances: 1
    exec_mode: fork
    autorestart: false
    kill_timeout: 9000
    out_file: /srv/o-1.log
"#;
    let text = imported(&format!("[{}, {job}, {}]", instance(0), instance(2)), None);
    assert_eq!(text, expected);
    assert_eq!(apps(Format::Yaml, &text, "/etc").len(), 2);
}

#[test]
fn what_is_no_list_of_apps_is_a_mistake() {
    let options = ImportOptions { base_dir: None, caller_env: BTreeMap::new() };
    for text in ["", "[", "5", "[]", "[5]", "{\"apps\": 5}", "{\"app\": []}"] {
        import(&source(Format::Json, text), &options).unwrap_err();
    }
}
