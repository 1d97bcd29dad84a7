//! What an app needs of the machine and this one does not have.

use std::ffi::OsStr;

use supervisor_config::App;
use supervisor_sys::spawn::resolve_program;
use supervisor_sys::user::{User, lookup_group};

/// What is missing, in words; as far as this caller can see.
pub(crate) fn missing(app: &App) -> Vec<String> {
    let mut missing = Vec::new();
    if let Some(Err(error)) = app.user.as_deref().map(User::lookup) {
        missing.push(format!("user: {error}"));
    }
    if let Some(Err(error)) = app.group.as_deref().map(lookup_group) {
        missing.push(format!("group: {error}"));
    }
    if !app.cwd.is_dir() {
        missing.push(format!("cwd: there is no folder {}", app.cwd.display()));
        return missing;
    }
    let path = app.env.get("PATH").or_else(|| app.inherited_env.get("PATH"));
    let program = app.command.first().map_or("", String::as_str);
    if let Err(error) = resolve_program(program.as_ref(), path.map(OsStr::new), &app.cwd) {
        missing.push(format!("command: {error}"));
    }
    missing
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::render::describe::tests::app;

    #[test]
    fn what_is_missing_is_named() {
        let check = |change: fn(&mut App), expected: &str| {
            let mut app = App { user: None, cwd: PathBuf::from("/"), ..app() };
            app.command = vec!["sh".to_owned()];
            change(&mut app);
            let found = missing(&app).join("; ");
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{found}");
        };
        check(|_| {}, "");
        check(|app| app.user = Some("nobody-at-all".to_owned()), "user: ");
        check(|app| app.group = Some("nobody-at-all".to_owned()), "group: ");
        check(|app| app.cwd = PathBuf::from("/no/such"), "cwd: there is no folder /no/such");
        check(|app| app.command = vec!["no-such-program".to_owned()], "no-such-program");
        check(|app| app.command = vec!["/etc/passwd".to_owned()], "/etc/passwd");
    }
}
