//! Ecosystem files: mistakes are told before anything happens.

use crate::harness::{Home, text};
use crate::wait::until;

const MISTAKES: &str = "\
apps:
  - name: web
    command: [sleep, '60']
    instnaces: 4
    env:
      PASSWORD: hush-hush
    listen: 127.0.0.1:99999
    # the token is open-sesame
    kill_timeout: 5 parsecs
";

#[test]
fn three_mistakes_are_told_at_once() {
    let home = Home::new();
    home.write("bad.yaml", MISTAKES);
    for command in ["check", "start", "run"] {
        let failed = home.ends(2, &[command, "bad.yaml"]);
        let told = format!("{}{}", failed.stdout, failed.stderr);
        for (line, text, hint) in [(4, "instnaces", "instances"), (7, "99999", ""), (9, "5 parsecs", "")] {
            assert!(told.contains(&format!("bad.yaml:{line}:")), "{command}: no line {line} in {told}");
            assert!(told.contains(text) && told.contains(hint), "{command}: no {text} in {told}");
        }
        assert!(told.matches('^').count() >= 3, "{command}: no carets in {told}");
        // Neighbouring lines may hold secrets.
        assert!(!told.contains("hush-hush") && !told.contains("sesame"), "{told}");
    }
    home.ends(4, &["status"]);
}

#[test]
fn a_file_that_is_no_file() {
    let home = Home::new();
    home.write("broken.yaml", "apps: [\n");
    home.write("empty.yaml", "");
    home.write("list.json", "{\"apps\": 5}");
    std::fs::write(home.path("bytes.yaml"), b"apps: \xff\xfe").unwrap();
    for file in ["broken.yaml", "empty.yaml", "list.json", "bytes.yaml"] {
        let failed = home.ends(2, &["check", file]);
        assert!(failed.stderr.contains(file), "{failed:?}");
    }
    home.ends(2, &["check", "absent.yaml"]);
}

#[test]
fn check_tells_what_a_file_means() {
    let home = Home::new();
    home.write_app("web", "command: [sleep, '60']\ninstances: 3\nenv: {TOKEN: hush}");
    let shown = home.ok(&["check", "app.yaml"]).stdout;
    assert!(shown.contains("web") && shown.contains('3'), "{shown}");
    let json = home.ok(&["check", "app.yaml", "--json"]).stdout;
    assert!(json.contains("TOKEN") && !json.contains("hush"), "{json}");
    assert!(home.ok(&["check", "app.yaml", "--json", "--reveal"]).stdout.contains("hush"));
    home.ends(4, &["status"]);
}

#[test]
fn check_warns_of_what_this_machine_lacks() {
    let home = Home::new();
    home.write_apps(
        "app.yaml",
        &[
            ("a", "command: no-such-program"),
            ("b", "command: 'true'\nuser: no-such-user"),
            ("c", "command: 'true'\ncwd: gone"),
        ],
    );
    let warnings = home.ok(&["check", "app.yaml"]).stderr;
    for expected in ["a: command: no program no-such-program", "b: user: ", "c: cwd: there is no folder "] {
        assert!(warnings.contains(&format!("warning: {expected}")), "{warnings}");
    }
}

#[test]
fn the_same_app_in_every_format() {
    let home = Home::new();
    home.write(
        "app.json",
        r#"{"apps": [{"name": "web", "command": ["sleep", "60"], "instances": 2, "min_uptime": 50}]}"#,
    );
    home.write(
        "app.toml",
        "[[apps]]\nname = \"web\"\ncommand = [\"sleep\", \"60\"]\ninstances = 2\nmin_uptime = 50\n",
    );
    home.start_app("web", "command: [sleep, '60']\ninstances: 2\nmin_uptime: 50ms");
    for file in ["app.json", "app.toml"] {
        let again = home.ok(&["start", file]);
        assert!(again.stderr.contains("web unchanged"), "{file}: {}", again.stderr);
    }
}

#[test]
fn javascript_is_evaluated_in_the_callers_process() {
    let home = Home::new();
    home.write("names.json", r#"{"web": "web"}"#);
    home.write(
        "ecosystem.config.js",
        "console.log('from the file');
         const names = require('./names.json');
         module.exports = async () => ({
             apps: [{ name: names.web, script: 'sleep', args: '60', env: { CALLER: process.env.CALLER } }],
         });",
    );
    let mut command = home.command(&["check", "--json", "--reveal"]);
    let shown = crate::harness::finish(command.env("CALLER", "me").spawn().unwrap());
    let apps: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(apps[0]["env"]["CALLER"], "me", "{shown:?}");
    assert_eq!(apps[0]["instances"], 1, "{shown:?}");
    assert!(shown.stderr.contains("from the file"), "{shown:?}");
    home.ok(&["start"]);
    assert!(home.ok(&["start", "ecosystem.config.js"]).stderr.contains("web unchanged"));
    home.ok(&["delete", "ecosystem.config.js"]);
}

#[test]
fn a_mistake_in_javascript_is_shown_as_node_tells_it() {
    let home = Home::new();
    home.write("bad.config.js", "module.exports = {\n  apps: nope,\n};\n");
    let failed = home.ends(2, &["check", "bad.config.js"]);
    for part in ["bad.config.js:2", "ReferenceError: nope is not defined", "node could not evaluate it"] {
        assert!(failed.stderr.contains(part), "{failed:?}");
    }
    home.write("wrong.config.mjs", "export default [{ command: 'sleep 60', instnaces: 2 }];");
    let failed = home.ends(2, &["check", "wrong.config.mjs"]);
    for part in ["wrong.config.mjs (as JSON):4:5", "did you mean `instances`?"] {
        assert!(failed.stderr.contains(part), "{failed:?}");
    }
}

#[test]
fn a_file_may_come_from_standard_input() {
    let home = Home::new();
    for text in ["{apps: [{name: 'web', command: 'sleep 60'}]}", "apps: [{name: web, command: sleep 60}]"] {
        let file = std::fs::File::open(home.write("input", text)).unwrap();
        let checked = crate::harness::finish(home.command(&["check", "-"]).stdin(file).spawn().unwrap());
        assert!(checked.code == Some(0) && checked.stdout.contains("web"), "{text}: {checked:?}");
    }
    let file = std::fs::File::open(home.write("input", "apps: [{command: 5 5, nmae: x}]")).unwrap();
    let failed = crate::harness::finish(home.command(&["check", "-"]).stdin(file).spawn().unwrap());
    assert!(failed.code == Some(2) && failed.stderr.contains("standard input:1:"), "{failed:?}");
}

/// What files of PM2 usually have.
const PM2: &str = r#"{
  "apps": [{
    "name": "api", "script": "./server.js", "instances": 2, "exec_mode": "cluster",
    "env": {"NODE_ENV": "development", "OPTIONS": {"deep": [1, 2]}}, "env_production": {"NODE_ENV": "production"},
    "max_memory_restart": "300M", "min_uptime": 100, "max_restarts": 10, "autorestart": true, "watch": false,
    "error_file": "./err.log", "out_file": "./out.log", "log_file": "./all.log", "time": true,
    "log_date_format": "YYYY-MM-DD HH:mm Z", "merge_logs": true, "kill_timeout": 5000, "wait_ready": true,
    "listen_timeout": 10000, "instance_var": "INSTANCE_ID", "cron_restart": "0 3 * * *",
    "node_args": "--max-old-space-size=64"
  }],
  "deploy": {"production": {"host": "example.org"}}
}"#;

#[test]
fn a_file_of_pm2_runs_as_it_is_in_every_format() {
    let home = Home::new();
    home.write(
        "server.js",
        "if (process.send) process.send('ready');
         process.on('SIGINT', () => process.exit(0));
         require('fs').writeFileSync(`env-${process.env.INSTANCE_ID}`, process.env.NODE_ENV + process.env.OPTIONS);
         setInterval(() => {}, 1000);",
    );
    home.write("a.config.js", &format!("module.exports = {PM2}"));
    home.write("a.json", PM2);
    home.write("a.yaml", PM2);
    let started = home.ok(&["start", "a.config.js", "--env", "production"]);
    assert!(started.stderr.contains("api started, 2 workers ready"), "{}", started.stderr);
    for slot in ["env-0", "env-1"] {
        let written = || std::fs::read_to_string(home.path(slot)).unwrap_or_default();
        until("node has written it", || written() == r#"production{"deep":[1,2]}"#);
    }
    for file in ["a.json", "a.yaml"] {
        let again = home.ok(&["start", file, "--env", "production"]);
        assert!(again.stderr.contains("api unchanged"), "{file}: {}", again.stderr);
    }
}

#[test]
fn import_turns_a_file_of_pm2_into_a_clean_one() {
    let home = Home::new();
    home.write(
        "ecosystem.config.js",
        "module.exports = { apps: [{ name: 'my app', exec: 'sleep', args: 60, watch: true, pid_file: 'x', env: { KEY: 'hush' } }] };",
    );
    let written = home.ok(&["import", "ecosystem.config.js"]);
    assert!(written.stderr.contains("ecosystem.yaml written, 1 app"), "{written:?}");
    let file = home.path("ecosystem.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let lines = [
        "  - name: my-app  # was my app",
        "    script: sleep  # was exec",
        "    watch: true",
        "    # Left out: pid_file: ",
    ];
    for line in lines {
        assert!(text.contains(line), "{text}");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let checked = home.ok(&["check"]);
    assert!(checked.stdout.contains("my-app") && checked.stderr.is_empty(), "{checked:?}");

    assert!(home.ends(2, &["import", "ecosystem.config.js"]).stderr.contains("--force"));
    home.write(
        "dump.pm2",
        r#"[{"name": "job", "pm_exec_path": "/bin/sleep", "pm_cwd": "/", "args": ["60"]}]"#,
    );
    let dumped = home.ok(&["import", "dump.pm2", "-o", "-"]).stdout;
    assert!(dumped.contains("script: ./bin/sleep") && dumped.contains("cwd: /\n"), "{dumped}");
    home.ends(2, &["import", "absent.pm2"]);
    home.write("bad.json", "{\"apps\": [");
    home.ends(2, &["import", "bad.json", "--force"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn our_own_examples_are_right() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folders = std::fs::read_dir(root.join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let files = folders
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .map(|file| file.unwrap().path());
    let is_config = |file: &std::path::PathBuf| file.extension().is_some_and(|extension| extension == "yaml");
    let mut configs: Vec<_> = files.filter(is_config).collect();
    assert!(!configs.is_empty());
    configs.push(root.join("ecosystem.example.yaml"));
    for config in configs {
        let checked = Home::new().ok(&["check", text(&config)]);
        // Some are built or installed first, as they say.
        let warnings = checked.stderr.lines().filter(|line| !line.contains("command: no program"));
        assert_eq!(warnings.collect::<Vec<_>>(), [""; 0]);
    }
}

#[test]
fn init_writes_a_file_that_is_right() {
    let home = Home::new();
    home.ok(&["init"]);
    home.ok(&["check"]);
    let before = std::fs::read_to_string(home.path("ecosystem.yaml")).unwrap();
    let refused = home.ends(2, &["init"]);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    home.write("ecosystem.yaml", "mine");
    home.ok(&["init", "--force"]);
    assert_eq!(std::fs::read_to_string(home.path("ecosystem.yaml")).unwrap(), before);
}
