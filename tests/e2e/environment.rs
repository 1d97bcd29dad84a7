//! What variables a worker has after changes of the file, of the caller's own
//! environment, and after restarts.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{Home, finish, pids};
use crate::process;

/// What is changed, what is done then, and what the worker has after it. Without
/// a change a text is empty.
struct Case {
    what: &'static str,
    /// The variables of the file as `env` lines, before and after.
    file: [&'static str; 2],
    /// The text of its `env_file`, before and after.
    env_file: [&'static str; 2],
    /// The caller's `NAME=value`, before and after.
    caller: [&'static str; 2],
    /// Commands, or one of [`CRASH`], [`NEXT_MASTER`], [`NEXT_DAEMON`].
    steps: &'static [&'static str],
    /// `NAME=value`, or `NAME` for one that must not be there.
    expected: &'static [&'static str],
}

const CRASH: &str = "(the worker crashes)";
const NEXT_MASTER: &str = "(the master is killed)";
const NEXT_DAEMON: &str = "(the daemon ends and is started again)";

const SAME: Case = Case {
    what: "",
    file: ["env: {A: '1', B: '1'}"; 2],
    env_file: ["F=1\n"; 2],
    caller: ["C=1"; 2],
    steps: &[],
    expected: &[],
};

const CASES: [Case; 18] = [
    Case {
        what: "a value that the file changed comes with `start FILE`",
        file: ["env: {A: '1', B: '1'}", "env: {A: '2', B: '1'}"],
        steps: &["start app.yaml"],
        expected: &["A=2", "B=1", "C=1", "F=1"],
        ..SAME
    },
    Case {
        what: "one that the file removed vanishes",
        file: ["env: {A: '1', B: '1'}", "env: {A: '1'}"],
        steps: &["start app.yaml"],
        expected: &["A=1", "B"],
        ..SAME
    },
    Case {
        what: "the same goes for `reload FILE`",
        file: ["env: {A: '1', B: '1'}", "env: {A: '2'}"],
        steps: &["reload app.yaml"],
        expected: &["A=2", "B"],
        ..SAME
    },
    Case {
        what: "`restart` brings the settings that are in force",
        file: ["env: {A: '1', B: '1'}", "env: {A: '2'}"],
        steps: &["restart web"],
        expected: &["A=1", "B=1"],
        ..SAME
    },
    Case {
        what: "so does `reload` by name",
        file: ["env: {A: '1', B: '1'}", "env: {A: '2'}"],
        steps: &["reload web"],
        expected: &["A=1", "B=1"],
        ..SAME
    },
    Case {
        what: "and a crash",
        file: ["env: {A: '1', B: '1'}", "env: {A: '2'}"],
        caller: ["C=1", "C=2"],
        steps: &[CRASH],
        expected: &["A=1", "B=1", "C=1"],
        ..SAME
    },
    Case {
        what: "and a new master",
        file: ["env: {A: '1', B: '1'}", "env: {A: '2'}"],
        steps: &[NEXT_MASTER],
        expected: &["A=1", "B=1", "C=1", "F=1"],
        ..SAME
    },
    Case {
        what: "and a new daemon, whoever starts it",
        file: ["env: {A: '1', B: '1'}", "env: {A: '2'}"],
        caller: ["C=1", "C=2"],
        steps: &[NEXT_DAEMON],
        expected: &["A=1", "B=1", "C=1", "F=1"],
        ..SAME
    },
    Case {
        what: "an `env_file` is read anew",
        env_file: ["F=1\nG=1\n", "F=2\n"],
        steps: &["start app.yaml"],
        expected: &["F=2", "G", "A=1"],
        ..SAME
    },
    Case {
        what: "the file's variables win over those of its `env_file`, and those over the caller's",
        file: ["env: {A: '1'}", "env: {A: '1', F: file}"],
        env_file: ["F=1\n", "F=2\nC=env_file\n"],
        steps: &["reload app.yaml"],
        expected: &["F=file", "C=env_file"],
        ..SAME
    },
    Case {
        what: "the caller's environment alone replaces no worker",
        caller: ["C=1", "C=2"],
        steps: &["start app.yaml"],
        expected: &["C=1"],
        ..SAME
    },
    Case {
        what: "it comes with the next reload of the file, whole",
        caller: ["C=1", "D=1"],
        steps: &["reload app.yaml"],
        expected: &["C", "D=1"],
        ..SAME
    },
    Case {
        what: "`--env NAME` adds variables, and nothing remembers them",
        file: ["env: {A: '1'}\nenv_production: {A: live, P: '1'}"; 2],
        steps: &["reload app.yaml --env production", "reload app.yaml"],
        expected: &["A=1", "P"],
        ..SAME
    },
    Case {
        what: "with it, they are there",
        file: ["env: {A: '1', B: '1'}\nenv_production: {A: live, P: '1'}"; 2],
        steps: &["reload app.yaml --env production", CRASH],
        expected: &["A=live", "B=1", "P=1"],
        ..SAME
    },
    Case {
        what: "`inherit_env: false` keeps the caller's out",
        file: ["env: {A: '1'}", "env: {A: '1'}\ninherit_env: false"],
        steps: &["start app.yaml"],
        expected: &["C", "HOME", "A=1"],
        ..SAME
    },
    Case {
        what: "a list lets some of it in",
        file: ["env: {A: '1'}", "env: {A: '1'}\ninherit_env: [C]"],
        steps: &["start app.yaml"],
        expected: &["C=1", "HOME", "LANG"],
        ..SAME
    },
    Case {
        what: "a release that fails leaves what was there",
        file: ["env: {A: '1', B: '1'}", "env: {A: '2'}\ncommand: [/nowhere]"],
        steps: &["reload app.yaml"],
        expected: &["A=1", "B=1"],
        ..SAME
    },
    Case {
        what: "what speaks of another process is not inherited",
        caller: ["C=1", "NODE_CHANNEL_FD=3"],
        steps: &["reload app.yaml"],
        expected: &["NODE_CHANNEL_FD", "SUPERVISOR_HOME", "SUPERVISOR_APP=web", "SUPERVISOR_INSTANCE=0"],
        ..SAME
    },
];

impl Case {
    fn write(&self, home: &Home, version: usize) {
        let file = self.file[version];
        let command = if file.contains("command:") { "" } else { "command: [sleep, '600']\n" };
        let settings = format!("{command}instances: 1\nmin_uptime: 50ms\nenv_file: vars\n{file}");
        home.write_app("web", &settings);
        home.write("vars", self.env_file[version]);
    }

    /// Runs a command in the environment of this version.
    fn run(&self, home: &Home, version: usize, step: &str) {
        let (name, value) = self.caller[version].split_once('=').unwrap();
        let args: Vec<&str> = step.split(' ').collect();
        finish(home.command(&args).env(name, value).spawn().unwrap());
    }

    fn check(&self) {
        let home = Home::new();
        self.write(&home, 0);
        self.run(&home, 0, "start app.yaml");
        self.write(&home, 1);
        for step in self.steps {
            match *step {
                CRASH => {
                    let before = home.pids("web");
                    process::kill_and_wait(before[0]);
                    home.app_when("web", "has another worker", |app| {
                        app["state"] == "online" && pids(app) != before
                    });
                }
                NEXT_MASTER => process::kill_and_wait(home.daemon().1),
                NEXT_DAEMON => {
                    home.ok(&["kill", "--now"]);
                    self.run(&home, 1, "start web");
                }
                step => self.run(&home, 1, step),
            }
            home.app_in_state("web", "online");
        }
        let answer: Value =
            serde_json::from_str(&home.ok(&["env", "web", "--json", "--reveal"]).stdout).unwrap();
        let env: BTreeMap<String, String> =
            serde_json::from_value(answer["workers"][0]["env"].clone()).unwrap();
        for expected in self.expected {
            let is_so = match expected.split_once('=') {
                Some((name, value)) => env.get(name).is_some_and(|found| found == value),
                None => !env.contains_key(*expected),
            };
            assert!(is_so, "{}: {expected} is not so in {env:#?}", self.what);
        }
    }
}

#[test]
fn variables_come_and_go_as_documented() {
    for case in CASES {
        case.check();
    }
}
