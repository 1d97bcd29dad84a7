//! Death at a chosen step, for tests: a debug build that finds
//! `SUPERVISOR_FAULT` in its environment counts the number in that file down at
//! each step, and kills itself when it is 0. The file is taken away first, so
//! that the next master lives.
//!
//! When the file says `poison NAME` instead, whoever adopts that app panics: the
//! file stays, so that each master dies of it.
//!
//! A step is what others can see: a message to the keeper, an action, a part of
//! a spawn, an answer to a worker's call.

#[cfg(not(debug_assertions))]
pub(crate) const fn step() {}

#[cfg(not(debug_assertions))]
pub(crate) const fn adopt(_app: &str) {}

#[cfg(debug_assertions)]
pub(crate) fn adopt(app: &str) {
    let text = file().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    assert_ne!(text.trim().strip_prefix("poison "), Some(app), "poisoned");
}

#[cfg(debug_assertions)]
fn file() -> Option<&'static std::path::Path> {
    use std::path::PathBuf;
    use std::sync::OnceLock;

    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    FILE.get_or_init(|| std::env::var_os("SUPERVISOR_FAULT").map(PathBuf::from)).as_deref()
}

#[cfg(debug_assertions)]
pub(crate) fn step() {
    use std::fs;

    use supervisor_sys::signal::Signal;

    let Some(file) = file() else { return };
    let Some(left) = fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u32>().ok()) else {
        return;
    };
    match left.checked_sub(1) {
        Some(left) => _ = fs::write(file, left.to_string()),
        None => {
            let _ = fs::remove_file(file);
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL.into());
        }
    }
}
