//! What `start` and `run` are to start: one argument may be a file, a program
//! or a name.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use supervisor_sys::spawn::resolve_program;

use crate::exit_code::{ExitCode, Failure};
use crate::load;

/// Extensions of programs that an interpreter runs.
const SCRIPTS: [&str; 10] = ["js", "cjs", "mjs", "ts", "py", "sh", "bash", "rb", "php", "pl"];

/// What to start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The apps of an ecosystem file.
    File(PathBuf),
    /// A program.
    Program(Program),
    /// Apps that are declared already. A single word that is the name of a
    /// program here as well means the program when no app has that name.
    Names(Vec<String>, Option<Program>),
}

/// A program and its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// What to run; never empty.
    pub(crate) words: Vec<String>,
    /// Whether the first word is for the interpreter that its extension names.
    pub(crate) script: bool,
}

/// Reads the arguments: `targets` before `--`, `command` after it.
///
/// # Errors
/// [`ExitCode::Usage`] when they do not go together.
pub(crate) fn read(targets: &[String], command: Vec<String>) -> Result<Target, Failure> {
    match targets {
        [] if command.is_empty() => Ok(Target::File(load::default_file()?)),
        [] => Ok(Target::Program(Program { words: command, script: false })),
        [target] => single(target, command),
        several => {
            if let Some(file) = several.iter().find(|target| load::is_config(Path::new(target))) {
                let rest: Vec<&str> =
                    several.iter().filter(|name| *name != file).map(String::as_str).collect();
                return Err(usage(format!(
                    "{file}: one file at a time; for some of its apps use `--only {}`",
                    rest.join(",")
                )));
            }
            without_arguments(several, &command)?;
            Ok(Target::Names(several.to_vec(), None))
        }
    }
}

fn single(target: &str, command: Vec<String>) -> Result<Target, Failure> {
    let path = Path::new(target);
    if load::is_file(target) {
        without_arguments(&[target.to_owned()], &command)?;
        return Ok(Target::File(path.to_owned()));
    }
    if path.is_dir() && target.contains('/') && !target.starts_with('/') {
        return Err(usage(format!("{target} is a folder: name a file in it")));
    }
    if !path.is_file() {
        let regex = target.len() > 1 && target.starts_with('/') && target.ends_with('/');
        if target.contains('/') && !regex {
            return Err(usage(format!("there is no file {target:?}")));
        }
        without_arguments(&[target.to_owned()], &command)?;
        return Ok(Target::Names(vec![target.to_owned()], None));
    }
    let has_arguments = !command.is_empty();
    let program = program(path, command);
    // A bare word is first of all a name, as in every other command.
    if target.contains('/') || has_arguments {
        program.map(Target::Program)
    } else {
        Ok(Target::Names(vec![target.to_owned()], program.ok()))
    }
}

/// What words may have meant that no app is called, if there is a guess.
pub(crate) fn guess(words: &[String]) -> Option<String> {
    let first = words.first()?;
    let path = Path::new(first);
    if words.len() > 1 {
        let is_program = path.is_file() || resolve_program(first.as_ref(), None, Path::new("/")).is_ok();
        return is_program.then(|| format!("to run a program, write `start -- {}`", words.join(" ")));
    }
    if path.is_dir() {
        return Some(format!("{first} is a folder: name a file in it"));
    }
    if path.is_file() {
        return program(path, Vec::new()).err().map(|failure| failure.cause.to_string());
    }
    Some(format!("there is no file {first:?} here"))
}

fn program(path: &Path, arguments: Vec<String>) -> Result<Program, Failure> {
    let script =
        path.extension().and_then(|extension| extension.to_str()).is_some_and(|e| SCRIPTS.contains(&e));
    let executable = path.metadata().is_ok_and(|file| file.permissions().mode() & 0o111 != 0);
    if !script && !executable {
        return Err(usage(format!(
            "{} is neither executable, nor a script by its extension, nor a configuration file by its extension \
             (.yaml, .yml, .json, .json5, .toml)",
            path.display()
        )));
    }
    let absolute = std::path::absolute(path).ok().and_then(|path| path.into_os_string().into_string().ok());
    let absolute = absolute.ok_or_else(|| usage(format!("{}: its path is not UTF-8", path.display())))?;
    Ok(Program { words: std::iter::once(absolute).chain(arguments).collect(), script })
}

fn without_arguments(targets: &[String], command: &[String]) -> Result<(), Failure> {
    if command.is_empty() {
        return Ok(());
    }
    Err(usage(format!(
        "{} takes no arguments: what follows `--` is for a program; to run one, write `start -- {} {}`",
        targets.join(" "),
        targets.join(" "),
        command.join(" ")
    )))
}

fn usage(message: String) -> Failure {
    Failure::new(ExitCode::Usage, message)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn arguments_mean_files_programs_or_names() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
        for name in ["app.js", "shop.yaml", "shop.config.js", "server", "notes.txt"] {
            fs::write(path(name), "").unwrap();
        }
        fs::set_permissions(path("server"), fs::Permissions::from_mode(0o755)).unwrap();
        let check = |targets: &[&str], command: &[&str], expected: Option<Target>| {
            let target = read(&words(targets), words(command));
            assert_eq!(
                target.map_err(|failure| failure.code),
                expected.ok_or(ExitCode::Usage),
                "{targets:?}"
            );
        };
        let program = |list: &[&str], script| Some(Target::Program(Program { words: words(list), script }));
        let names = |list: &[&str]| Some(Target::Names(words(list), None));

        check(&[&path("shop.yaml")], &[], Some(Target::File(path("shop.yaml").into())));
        check(&[&path("shop.yaml")], &["x"], None);
        check(&[&path("shop.yaml"), "web"], &[], None);
        check(&[&path("app.js")], &["-p", "1"], program(&[&path("app.js"), "-p", "1"], true));
        check(&[&path("server")], &[], program(&[&path("server")], false));
        check(&[&path("notes.txt")], &[], None);
        check(&[&path("shop.config.js")], &[], Some(Target::File(path("shop.config.js").into())));
        check(&["-"], &[], Some(Target::File("-".into())));
        check(&["-", "web"], &[], None);
        check(&[], &["echo", "hi"], program(&["echo", "hi"], false));
        check(&["web", "api:2"], &[], names(&["web", "api:2"]));
        check(&["web"], &["x"], None);
        check(&["absent.yaml"], &[], names(&["absent.yaml"]));
        check(&["/web-.*/"], &[], names(&["/web-.*/"]));
        check(&["./absent"], &[], None);

        let guessed = |list: &[&str], expected: &str| {
            let guess = guess(&words(list)).unwrap_or_default();
            assert!(guess.contains(expected) && guess.is_empty() == expected.is_empty(), "{guess}");
        };
        guessed(&["sh", "-c", "true"], "`start -- sh -c true`");
        guessed(&[&path("")], "is a folder");
        guessed(&[&path("notes.txt")], "neither executable");
        guessed(&["absent"], "there is no file \"absent\" here");
        guessed(&["web", "api"], "");
    }
}
