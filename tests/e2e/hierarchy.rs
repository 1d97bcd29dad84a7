//! A cgroup for one test, in the machine's hierarchy of version 2.

use std::fs;
use std::net::SocketAddr;

use supervisor_sys::process::process_table;

use crate::harness::{Finished, Home, finish};
use crate::process::{self, Number};
use crate::programs::installed;

/// The name of a cgroup right below the root. It and all in it end with this.
#[derive(Debug)]
pub(crate) struct TestCgroup<'a> {
    home: &'a Home,
    name: String,
}

impl<'a> TestCgroup<'a> {
    /// One that no other test has. Whoever is started first makes it.
    pub(crate) fn new(home: &'a Home) -> Self {
        fs::create_dir(home.path("cgroup")).unwrap();
        let SocketAddr::V4(address) = home.address() else {
            unreachable!("the tests' addresses are of IPv4")
        };
        Self { home, name: format!("supervisor-test-{}", address.ip()) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The processes in a cgroup below it, or in itself.
    pub(crate) fn members(&self, below: &str) -> Vec<Number> {
        let line = format!("0::/{}{below}", self.name);
        let all = process_table().unwrap().into_iter().filter(|entry| !entry.zombie);
        all.map(|entry| entry.pid.as_raw_pid().unsigned_abs())
            .filter(|pid| {
                let text = fs::read_to_string(process::path(*pid, "cgroup")).unwrap_or_default();
                text.lines().any(|own| own == line)
            })
            .collect()
    }

    /// The cgroups below it.
    pub(crate) fn all(&self) -> Vec<String> {
        let listed = self.script(r#"cd "$1" && find . -mindepth 1 -type d"#).stdout;
        let mut all: Vec<String> =
            listed.lines().map(|line| line.trim_start_matches('.').to_owned()).collect();
        all.sort();
        all
    }

    /// Those of workers, by their names.
    pub(crate) fn workers(&self) -> Vec<String> {
        self.all().iter().filter_map(|path| Some(path.strip_prefix("/workers/")?.to_owned())).collect()
    }

    /// Runs a script in the hierarchy's root; `$1` is the cgroup.
    fn script(&self, script: &str) -> Finished {
        let script = format!("mount -t cgroup2 none \"$0\" && cd \"$0\" && {script}");
        let mut unshare = self.home.program(installed("unshare"));
        unshare.args(["--mount", "sh", "-c", &script]).arg(self.home.path("cgroup")).arg(&self.name);
        finish(unshare.spawn().unwrap())
    }
}

impl Drop for TestCgroup<'_> {
    fn drop(&mut self) {
        let remove = r#"[ -d "$1" ] && echo 1 >"$1/cgroup.kill"
            for _ in $(seq 100); do
                [ -d "$1" ] || exit 0
                find "$1" -depth -type d -exec rmdir {} \; 2>/dev/null
                sleep 0.05
            done"#;
        self.script(remove);
    }
}
