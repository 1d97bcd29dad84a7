//! Programs of others as workers: four on one port, and every one answers.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use supervisor_sys::signal::Signal;

use crate::harness::{Home, text};
use crate::process::{self, Number};
use crate::programs::{compile, fixture, in_python_environment, installed};
use crate::wait::{eventually, until};

const INSTANCES: usize = 4;

/// Starts four workers with these settings, of a program that answers with its
/// pid or that of a child. Each must answer, and so must the replacement of one
/// that is killed.
#[track_caller]
fn check(home: &Home, settings: &str) {
    let address = home.address();
    home.start_app("web", &format!("{settings}\ninstances: {INSTANCES}\nlisten: '{address}'"));
    let pids = home.pids("web");
    assert_eq!(pids.len(), INSTANCES);
    all_answer(home, pids.clone());

    process::signal(pids[1], Signal::KILL);
    let app = home.app_when("web", "has a replacement", |app| {
        app["state"] == "online" && app["workers"][1]["pid"] != pids[1]
    });
    assert_eq!(app["restarts"], 1);
    all_answer(home, home.pids("web"));

    home.ok(&["stop", "web"]);
    home.until_refused();
}

#[track_caller]
fn all_answer(home: &Home, mut missing: Vec<Number>) {
    let known = missing.clone();
    until("every worker has answered", || {
        // Right after a start the program may still be on its way to `accept`;
        // the connection waits in its queue.
        let pid: Number = eventually("an answer", || home.get("/").ok()?.parse().ok());
        let pid = if known.contains(&pid) { pid } else { process::parent(pid) };
        assert!(known.contains(&pid), "{pid} is none of {known:?}");
        missing.retain(|one| *one != pid);
        missing.is_empty()
    });
}

#[test]
fn node() {
    let home = Home::new();
    let (node, server) = (installed("node"), fixture("server.js"));
    check(&home, &format!("command: [{}, {}]", text(&node), text(&server)));
}

#[test]
fn node_as_a_script() {
    let home = Home::new();
    check(&home, &format!("script: {}", text(&fixture("server.js"))));
}

#[test]
fn python() {
    let home = Home::new();
    let (python, server) = (in_python_environment("python"), fixture("server.py"));
    check(&home, &format!("command: [{}, {}]", text(&python), text(&server)));
}

#[test]
fn gunicorn() {
    let home = Home::new();
    let gunicorn = in_python_environment("gunicorn");
    let folder = fixture("wsgi.py");
    let folder = folder.parent().unwrap();
    check(
        &home,
        &format!(
            "command: [{}, --workers, '1', --chdir, {}, wsgi]
            env: {{PYTHONDONTWRITEBYTECODE: '1'}}",
            text(&gunicorn),
            text(folder)
        ),
    );
}

#[test]
fn a_static_c_program() {
    let home = Home::new();
    let program = home.path("worker");
    compile("worker.c", &program);
    check(&home, &format!("command: [{}]", text(&program)));
}

#[test]
fn nginx_as_another_user() {
    let home = Home::new();
    let folder = home.path("nginx");
    fs::create_dir(&folder).unwrap();
    home.let_others_in();
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    let config = fs::read_to_string(fixture("nginx.conf")).unwrap();
    let config = config.replace("ADDRESS", &home.address().to_string());
    let config = home.write("nginx/nginx.conf", &config);
    check(&home, &nginx(&folder, &config));

    // `/dev/stdout` could be opened: its pipe belongs to the worker's user.
    let log: String = (0..INSTANCES).map(|slot| home.log(&format!("web-out-{slot}.log"))).collect();
    assert!(log.contains("\"GET / HTTP/1.1\" 200"), "{log}");
}

fn nginx(folder: &Path, config: &Path) -> String {
    let (nginx, folder, config) = (installed("nginx"), text(folder), text(config));
    let pid_file = "pid nginx-$SUPERVISOR_INSTANCE.pid;";
    format!(
        "command: [sh, -c, 'exec {} -p {folder} -e stderr -c {config} -g \"{pid_file}\"']
        user: www-data
        env: {{NGINX: '3;'}}",
        text(&nginx)
    )
}
