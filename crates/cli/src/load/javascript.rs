//! `ecosystem.config.js`: a program whose value is a configuration.
//!
//! The caller's own `node` runs it, in a process of its own with the caller's
//! rights, folder and environment; the daemon never does. What comes back is
//! JSON, which is read as any other file.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use supervisor_config::{Format, Source};

/// How long a file may take. Some ask a server for secrets.
const LIMIT: Duration = Duration::from_secs(30);

/// The most JSON that it may come to, in bytes; as for any other file.
const MAX_BYTES: usize = 8 << 20;

/// Imports the file and writes its value as JSON: for people too, since
/// messages show lines of it. `import` takes both kinds of modules, and what it
/// throws is shown by node, with the line.
const LOADER: &str = "
    const [path, pipe] = process.argv.slice(1);
    (async () => {
        let value = await import(require('node:url').pathToFileURL(path));
        if (value.default !== undefined) value = value.default;
        if (value?.__esModule && value.default !== undefined) value = value.default;
        if (typeof value === 'function') value = value();
        const json = JSON.stringify(await value, null, 2) ?? 'null';
        require('node:fs').writeFileSync(Number(pipe), json);
        process.exit(0);
    })();
";

/// Whether the path is that of such a file. PM2 has the same names.
pub(super) fn is_javascript(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    [".config.js", ".config.cjs", ".config.mjs"].iter().any(|end| name.ends_with(end))
}

/// Runs the file. Messages about its value show lines of the JSON and say so.
///
/// # Errors
/// In words. What node says of a mistake goes to stderr before.
pub(super) fn read(path: &Path) -> anyhow::Result<Source> {
    let json = evaluate(path, LIMIT).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8(json).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Source { path: format!("{} (as JSON)", path.display()).into(), text, format: Format::Json })
}

fn evaluate(path: &Path, limit: Duration) -> anyhow::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        bail!("it is not a regular file");
    }
    let deadline = Instant::now() + limit;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    let mut child = spawn(path, writer)?;
    let result = collect(reader, &child, deadline);
    if !matches!(result, Ok(Some(_))) {
        // It may have ended by itself meanwhile.
        let _ = child.kill();
    }
    let status = child.wait().context("cannot wait for node")?;
    let json = result?.ok_or_else(|| anyhow!("it took longer than {} s", limit.as_secs_f32()))?;
    check(status, &json)?;
    Ok(json)
}

/// Starts node, which gets `writer` under its number.
fn spawn(path: &Path, writer: OwnedFd) -> anyhow::Result<Child> {
    // This process has a single thread here, so no other child can inherit it.
    fcntl_setfd(&writer, FdFlags::empty()).context("cannot pass a pipe on")?;
    let mut node = Command::new("node");
    node.args(["-e", LOADER, "--"]).arg(std::path::absolute(path)?).arg(writer.as_raw_fd().to_string());
    // A channel to the caller's parent is not for this process.
    node.env_remove("NODE_CHANNEL_FD");
    node.stdin(Stdio::null());
    // What a file prints is for the person, and not part of our own output.
    node.stdout(rustix::io::dup(io::stderr()).context("cannot pass stderr on")?);
    node.spawn().map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            anyhow!("it is JavaScript, and there is no `node` in PATH; YAML, JSON and TOML need none")
        } else {
            anyhow!(error).context("cannot start node")
        }
    })
}

/// What the child writes until it has ended; `None` past the deadline.
fn collect(reader: OwnedFd, child: &Child, deadline: Instant) -> anyhow::Result<Option<Vec<u8>>> {
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).context("cannot watch node")?;
    let mut pipe = File::from(reader);
    let mut json = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    let mut is_open = true;
    loop {
        let mut watched = vec![PollFd::new(&ended, PollFlags::IN)];
        if is_open {
            watched.push(PollFd::new(&pipe, PollFlags::IN));
        }
        let rest = deadline.saturating_duration_since(Instant::now());
        match poll(&mut watched, Some(&Timespec::try_from(rest).context("the time limit is too long")?)) {
            Ok(0) => return Ok(None),
            Err(rustix::io::Errno::INTR) => continue,
            polled => polled.context("cannot wait for node")?,
        };
        let has_data = watched.get(1).is_some_and(|pipe| !pipe.revents().is_empty());
        if !has_data {
            return Ok(Some(json));
        }
        let length = pipe.read(&mut chunk).context("cannot read from node")?;
        is_open = length > 0;
        json.extend_from_slice(&chunk[..length]);
        if json.len() > MAX_BYTES {
            bail!("its value is larger than {} MiB", MAX_BYTES >> 20);
        }
    }
}

fn check(status: ExitStatus, json: &[u8]) -> anyhow::Result<()> {
    if !status.success() {
        bail!("node could not evaluate it ({status})");
    }
    if json.is_empty() {
        bail!("node ended before it had a value: a promise that it exports never comes true");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// Evaluates a file of this name and text.
    fn value(name: &str, text: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let source = read(&path).map_err(|error| format!("{error:#}"))?;
        assert_eq!(source.path, PathBuf::from(format!("{} (as JSON)", path.display())));
        Ok(source.text.split_whitespace().collect())
    }

    #[test]
    fn every_kind_of_module_has_a_value() {
        for (name, text) in [
            ("a.config.js", "module.exports = [{name: 'a'}]"),
            ("a.config.cjs", "exports.__esModule = true; exports.default = [{name: 'a'}]"),
            ("a.config.mjs", "export default [{name: 'a'}]"),
            ("a.config.js", "module.exports = () => [{name: 'a', no: undefined}]"),
            ("a.config.mjs", "export default async () => [{name: 'a'}]"),
            ("a.config.js", "module.exports = Promise.resolve([{name: 'a'}])"),
            ("a.config.js", "console.log('noise'); module.exports = [{name: 'a'}]; setInterval(() => {}, 1)"),
        ] {
            assert_eq!(value(name, text).as_deref(), Ok(r#"[{"name":"a"}]"#), "{text}");
        }
        assert_eq!(value("a.config.mjs", "export const apps = [1]").as_deref(), Ok(r#"{"apps":[1]}"#));
        assert_eq!(value("a.config.js", "module.exports = undefined").as_deref(), Ok("{}"));
    }

    #[test]
    fn a_large_value_comes_whole() {
        let text = "module.exports = ['x'.repeat(1 << 20)]";
        assert_eq!(value("a.config.js", text).map(|json| json.len()), Ok((1 << 20) + 4));
        let error = value("a.config.js", "module.exports = 'x'.repeat(9 << 20)").unwrap_err();
        assert!(error.ends_with("its value is larger than 8 MiB"), "{error}");
    }

    #[test]
    fn says_why_there_is_no_value() {
        for (text, reason) in [
            ("module.exports = {", "node could not evaluate it (exit status: 1)"),
            ("module.exports = nope", "node could not evaluate it (exit status: 1)"),
            ("module.exports = async () => { throw 1 }", "node could not evaluate it (exit status: 1)"),
            ("process.kill(process.pid, 'SIGKILL')", "node could not evaluate it (signal: 9 (SIGKILL))"),
            ("module.exports = new Promise(() => {})", "a promise that it exports never comes true"),
        ] {
            let error = value("a.config.js", text).unwrap_err();
            assert!(error.starts_with("cannot read /") && error.ends_with(reason), "{text}: {error}");
        }
        assert!(read(Path::new("/absent.config.js")).is_err());
        assert!(read(Path::new("/")).is_err());
    }

    #[test]
    fn an_endless_file_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.config.js");
        fs::write(&path, "while (true);").unwrap();
        let error = evaluate(&path, Duration::from_millis(200)).unwrap_err();
        assert_eq!(error.to_string(), "it took longer than 0.2 s");
    }

    #[test]
    fn names_tell_a_file_from_a_program() {
        for (path, is_one) in [
            ("ecosystem.config.js", true),
            ("/a/shop.config.mjs", true),
            ("x.config.cjs", true),
            ("app.js", false),
            ("config.js", false),
            ("x.config.ts", false),
        ] {
            assert_eq!(is_javascript(Path::new(path)), is_one, "{path}");
        }
    }
}
