//! The command line, as clap reads it: every command, option and example.

use std::ffi::OsString;
use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use serde_json::value::RawValue;
use supervisor_master::EchoForm;
use supervisor_protocol::release::RELEASE;

use crate::exit_code::ExitCode;

const SELECTORS_HELP: &str = "A name, `name:slot`, a namespace, `all`, `/regex/`, or an ecosystem file";

const GLOBAL: &str = "Options of every command";

/// Runs copies of a program behind shared sockets and keeps them running.
#[derive(Debug, Parser)]
#[command(name = "supervisor", version = RELEASE, max_term_width = 100, after_help = ExitCode::help())]
pub(crate) struct Args {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Say which daemon is asked, and more of what happens
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    pub(crate) verbose: bool,
    /// Print the daemon's JSON instead of text: an object, or one a line for what goes on
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,
    /// When to use colours; `auto` obeys NO_COLOR
    #[arg(
        long, global = true, help_heading = GLOBAL, value_enum, value_name = "auto|always|never",
        default_value_t = Color::Auto, hide_possible_values = true, hide_default_value = true
    )]
    pub(crate) color: Color,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Start(Start),
    Run(Run),
    Stop(Select),
    Restart(Restart),
    Reload(Reload),
    Delete(Delete),
    Scale(Scale),
    Status(Status),
    Describe(Describe),
    Signal(Signal),
    Send(Send),
    TailChannel(TailChannel),
    Env(Env),
    Reset(Reset),
    Flush(Flush),
    #[command(alias = "reloadLogs")]
    ReloadLogs(ReloadLogs),
    Logs(Logs),
    Events(Events),
    Monit(Monit),
    Ping(Ping),
    Upgrade(Upgrade),
    Kill(Kill),
    Startup(Startup),
    Unstartup(Unstartup),
    /// Not needed: what is declared outlives the daemon and the machine
    #[command(after_help = "Examples:\n  supervisor save")]
    Save,
    /// Not needed: a new daemon starts what is declared
    #[command(after_help = "Examples:\n  supervisor resurrect")]
    Resurrect,
    Check(Check),
    Init(Init),
    Import(Import),
    Completions(Completions),
    Man(Man),
    #[command(hide = true)]
    Keeper(Keeper),
    #[command(hide = true)]
    Master(Master),
    /// Tells another version what this binary is
    #[command(hide = true)]
    Identify,
}

impl Command {
    /// The name of a command whose output is no data of the daemon, so that it
    /// has no JSON.
    pub(crate) const fn without_json(&self) -> Option<&'static str> {
        Some(match self {
            Self::Run(_) => "run",
            Self::Startup(_) => "startup",
            Self::Unstartup(_) => "unstartup",
            Self::Save => "save",
            Self::Resurrect => "resurrect",
            Self::Init(_) => "init",
            Self::Import(_) => "import",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
            Self::Monit(_) => "monit",
            Self::Start(_)
            | Self::Stop(_)
            | Self::Restart(_)
            | Self::Reload(_)
            | Self::Delete(_)
            | Self::Scale(_)
            | Self::Status(_)
            | Self::Describe(_)
            | Self::Signal(_)
            | Self::Send(_)
            | Self::TailChannel(_)
            | Self::Env(_)
            | Self::Reset(_)
            | Self::Flush(_)
            | Self::ReloadLogs(_)
            | Self::Logs(_)
            | Self::Events(_)
            | Self::Ping(_)
            | Self::Upgrade(_)
            | Self::Kill(_)
            | Self::Check(_)
            | Self::Keeper(_)
            | Self::Master(_)
            | Self::Identify => return None,
        })
    }
}

/// Start apps: those of a file, a program, or stopped ones by name
///
/// Starts the daemon first if none is running, with all that is declared. A file's apps are made as the file says: new ones start, changed
/// ones are replaced, unchanged ones stay untouched. Waits until every worker is ready and ends at the first that
/// fails, with the cause; the daemon goes on trying.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor start                            the ecosystem file in this folder
  supervisor start shop.yaml --env production
  supervisor start ./app.js -i 4              a script, by its extension
  supervisor start --listen 8080 -- ./server --quiet
  supervisor start web                        an app that was stopped")]
pub(crate) struct Start {
    /// An ecosystem file, a program, or selectors; the file in this folder when left out
    #[arg(value_name = "FILE|PROGRAM|NAME")]
    pub(crate) targets: Vec<String>,
    /// Only these apps of the file, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Delete the apps that the file does not have
    #[arg(long, conflicts_with = "only")]
    pub(crate) prune: bool,
    /// Add each app's `env_NAME` variables
    #[arg(long = "env", value_name = "NAME")]
    pub(crate) env_name: Option<String>,
    /// Do not wait for the workers to be ready
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// A program and its arguments, or the arguments of a program named before
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// How to run a program that no file describes; last, for its heading
    /// would be that of whatever follows.
    #[command(flatten)]
    pub(crate) app: AppOptions,
}

/// How to run a program that no file describes.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Options for a program")]
pub(crate) struct AppOptions {
    /// The app's name; the program's when left out
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The group of apps that it belongs to
    #[arg(long)]
    pub(crate) namespace: Option<String>,
    /// How many workers: a number, `max`, or `-1` for one less than there are CPUs
    #[arg(short, long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) instances: Option<String>,
    /// An address to serve: `8080`, `127.0.0.1:8080`, `unix:/path`; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,
    /// The working directory
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cwd: Option<PathBuf>,
    /// A file of `NAME=value` lines; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
}

impl AppOptions {
    /// The first option that was given, for a message.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let all = [
            ("--name", self.name.is_some()),
            ("--namespace", self.namespace.is_some()),
            ("--instances", self.instances.is_some()),
            ("--listen", !self.listen.is_empty()),
            ("--cwd", self.cwd.is_some()),
            ("--env-file", !self.env_file.is_empty()),
        ];
        all.into_iter().find_map(|(name, given)| given.then_some(name))
    }
}

/// Run apps in the foreground, under systemd, in a container or at a terminal
///
/// Becomes the daemon: the process keeps its pid, and what happens goes to stderr. Ctrl-C or SIGTERM ends the
/// workers gracefully; a second one ends them at once.
///
/// Without a file or a program it runs what is declared: the apps that `start` was given and `delete` has not taken
/// away. With one it runs only that, and keeps nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor run                              what is declared
  supervisor run shop.yaml --env production
  supervisor run -i 2 --listen 8080 -- ./server
  supervisor run shop.yaml --output none      workers' lines go to files only")]
pub(crate) struct Run {
    /// An ecosystem file or a program; what is declared when left out
    #[arg(value_name = "FILE|PROGRAM")]
    pub(crate) target: Option<String>,
    /// Add each app's `env_NAME` variables
    #[arg(long = "env", value_name = "NAME")]
    pub(crate) env_name: Option<String>,
    /// How workers' output is shown on stdout and stderr, besides its files [default: `named` at a terminal, `plain`
    /// elsewhere; `none` for what is declared]
    #[arg(long, value_name = "HOW")]
    pub(crate) output: Option<Shown>,
    /// A program and its arguments, or the arguments of a program named before
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// How to run a program that no file describes; last, for its heading
    /// would be that of whatever follows.
    #[command(flatten)]
    pub(crate) app: AppOptions,
}

/// How workers' output is shown in the foreground.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shown {
    /// As the workers write it
    Plain,
    /// With `NAME:SLOT | ` before each line
    Named,
    /// Not at all
    None,
}

impl Shown {
    pub(crate) const fn form(self) -> Option<EchoForm> {
        match self {
            Self::Plain => Some(EchoForm::Plain),
            Self::Named => Some(EchoForm::Named),
            Self::None => None,
        }
    }
}

/// Stop apps; they stay declared, and stopped
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor stop web
  supervisor stop web:2 --now
  supervisor stop all")]
pub(crate) struct Select {
    #[arg(required = true, value_name = "SELECTOR", help = SELECTORS_HELP)]
    pub(crate) selectors: Vec<String>,
    /// Kill the workers instead of letting them finish
    #[arg(long)]
    pub(crate) now: bool,
}

/// Restart apps slot by slot, with the same settings
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor restart web
  supervisor restart web:0
  supervisor restart all --now")]
pub(crate) struct Restart {
    #[arg(required = true, value_name = "SELECTOR", help = SELECTORS_HELP)]
    pub(crate) selectors: Vec<String>,
    /// All slots at once
    #[arg(long)]
    pub(crate) now: bool,
}

/// Replace the workers of apps by new ones, without losing a connection
///
/// Slot by slot a successor starts beside the old worker. When it is ready and has been for `min_uptime`, new
/// connections go to it, the old worker takes those that wait for it, and ends. When one fails, everything goes back to
/// the version before, its cause is printed, and the exit code is 6.
///
/// With `reload: all` in the app's settings all successors take over in one moment, with `reload: canary` they get
/// growing shares of the new connections before. `--abort` takes back a reload that is under way.
///
/// A file is read anew, and so is the environment. By name, apps keep the settings that they have.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor reload                           the ecosystem file in this folder
  supervisor reload shop.yaml --env production
  supervisor reload web
  supervisor reload --abort web               back to the version before, while it is under way
  supervisor reload --all --json              a line of JSON for each step")]
pub(crate) struct Reload {
    /// An ecosystem file, or selectors: a name, a namespace, `all` or `/regex/`; the file in this folder when left out
    #[arg(value_name = "FILE|SELECTOR")]
    pub(crate) targets: Vec<String>,
    /// Every app that runs, as `all` means it
    #[arg(long, conflicts_with = "targets")]
    pub(crate) all: bool,
    /// Take back the reload of these apps that is under way
    #[arg(long, conflicts_with_all = ["only", "prune", "env_name"])]
    pub(crate) abort: bool,
    /// Only these apps of the file, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Delete the apps that the file does not have
    #[arg(long, conflicts_with = "only")]
    pub(crate) prune: bool,
    /// Add each app's `env_NAME` variables
    #[arg(long = "env", value_name = "NAME")]
    pub(crate) env_name: Option<String>,
    /// Wait until it is done, as it does anyway
    #[arg(long, conflicts_with = "no_wait")]
    pub(crate) wait: bool,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// Stop apps and forget them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor delete web
  supervisor delete shop.yaml                 the apps that the file names")]
pub(crate) struct Delete {
    #[arg(required = true, value_name = "SELECTOR", help = SELECTORS_HELP)]
    pub(crate) selectors: Vec<String>,
    /// Kill the workers instead of letting them finish
    #[arg(long)]
    pub(crate) now: bool,
}

/// Change how many workers an app has
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor scale web 4
  supervisor scale web +2
  supervisor scale web -1")]
pub(crate) struct Scale {
    /// The app's name
    #[arg(value_parser = one_app)]
    pub(crate) app: String,
    /// The new number, or how many more or fewer
    #[arg(value_name = "N|+N|-N", allow_hyphen_values = true, value_parser = instances_change)]
    pub(crate) instances: String,
}

/// The name of an app, which is neither a slot nor `all`.
fn one_app(text: &str) -> Result<String, String> {
    if text == "all" || text.contains([':', '/']) {
        return Err("scale takes the name of one app".to_owned());
    }
    Ok(text.to_owned())
}

/// `4`, `+2` or `-1`, as the daemon takes it.
fn instances_change(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u32>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err("use a number such as 4, +2 or -1".to_owned())
    }
}

/// Show apps and their workers
#[derive(Debug, clap::Args)]
#[command(visible_aliases = ["list", "ls"], after_help = "\
Examples:
  supervisor status
  supervisor status web --watch
  supervisor status --json | jq '.apps[].state'")]
pub(crate) struct Status {
    #[arg(value_name = "SELECTOR", help = SELECTORS_HELP)]
    pub(crate) selectors: Vec<String>,
    /// Show it again every SECONDS until Ctrl-C
    #[arg(
        short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
        require_equals = true, conflicts_with = "json", value_parser = pause
    )]
    pub(crate) watch: Option<NonZeroU16>,
}

/// A pause in whole seconds.
fn pause(text: &str) -> Result<NonZeroU16, String> {
    text.parse().map_err(|_| "use whole seconds, such as 2".to_owned())
}

/// Show everything that there is to know of an app
///
/// Of an app that comes from a file, the settings that the file has changed since are named. Values of environment
/// variables are left out: they may hold secrets.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "show",
    after_help = "\
Examples:
  supervisor describe web
  supervisor describe web --json | jq '.apps[0].logs'"
)]
pub(crate) struct Describe {
    #[arg(required = true, value_name = "SELECTOR", help = SELECTORS_HELP)]
    pub(crate) selectors: Vec<String>,
}

/// Send a signal to workers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor signal HUP web
  supervisor signal SIGUSR2 web:0 api")]
pub(crate) struct Signal {
    /// A signal's name or number
    #[arg(value_parser = signal)]
    pub(crate) signal: String,
    #[arg(required = true, value_name = "SELECTOR", help = SELECTORS_HELP)]
    pub(crate) selectors: Vec<String>,
}

/// Send workers a message on their channel
///
/// It is for the workers that are ready. In Node it comes by process.on('message').
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor send web '{\"cmd\":\"reload-flags\"}'
  supervisor send web:0 '\"dump\"'")]
pub(crate) struct Send {
    #[arg(value_name = "SELECTOR", help = SELECTORS_HELP)]
    pub(crate) selector: String,
    /// Any JSON value; text is in quotes
    #[arg(value_name = "JSON", value_parser = json)]
    pub(crate) message: Box<RawValue>,
}

/// A message: checked here, so that a slip ends as any other wrong argument does.
fn json(text: &str) -> Result<Box<RawValue>, String> {
    RawValue::from_string(text.to_owned())
        .map_err(|error| format!("{error}; a text needs quotes: '\"text\"'"))
}

/// Show what workers say on their channel, until Ctrl-C
///
/// A reader that is too slow is told how many messages it missed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor tail-channel web
  supervisor tail-channel web:0 --json")]
pub(crate) struct TailChannel {
    #[arg(value_name = "SELECTOR", help = SELECTORS_HELP)]
    pub(crate) selectors: Vec<String>,
}

/// A signal as the daemon takes it: checked here, so that a slip ends as any
/// other wrong argument does.
fn signal(text: &str) -> Result<String, String> {
    match text.parse::<supervisor_sys::signal::Signal>() {
        Ok(signal) => Ok(signal.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Show the variables that a worker was started with
///
/// Of an app the first worker is shown, with --json every selected one. What seems secret is masked.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor env web
  supervisor env web:2 --reveal
  supervisor env all --json")]
pub(crate) struct Env {
    #[arg(required = true, value_name = "SELECTOR", help = SELECTORS_HELP)]
    pub(crate) selectors: Vec<String>,
    /// Show secrets, too
    #[arg(long)]
    pub(crate) reveal: bool,
}

/// Count restarts from 0 again
///
/// Nothing else changes: pauses between restarts go on as they were.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor reset web
  supervisor reset all")]
pub(crate) struct Reset {
    #[arg(required = true, value_name = "SELECTOR", help = SELECTORS_HELP)]
    pub(crate) selectors: Vec<String>,
}

/// Empty log files
///
/// What was rotated from them is deleted. Workers write on, from the beginning of the empty files.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor flush web
  supervisor flush all")]
pub(crate) struct Flush {
    #[arg(required = true, value_name = "SELECTOR", help = SELECTORS_HELP)]
    pub(crate) selectors: Vec<String>,
}

/// Open all log files anew
///
/// For programs that rename log files, such as logrotate. The daemon notices a renamed file by itself within a second.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor reload-logs")]
pub(crate) struct ReloadLogs {}

/// Show what workers write
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor logs                             the last lines of every app
  supervisor logs -f web:0
  supervisor logs web --err --lines 100
  supervisor logs web --since 10m --grep 'status=5..'")]
pub(crate) struct Logs {
    #[arg(value_name = "SELECTOR", help = SELECTORS_HELP)]
    pub(crate) selectors: Vec<String>,
    /// Go on with new lines until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many of the last lines of each worker to begin with; 15, or all with --since or --grep
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) lines: Option<u32>,
    /// Only lines since then: `10m` ago, or a time such as `2026-03-01T12:00`
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) since: Option<jiff::Timestamp>,
    /// Only lines that match this regular expression
    #[arg(short, long, value_name = "REGEX")]
    pub(crate) grep: Option<String>,
    /// Only standard error
    #[arg(long, conflicts_with = "out")]
    pub(crate) err: bool,
    /// Only standard output
    #[arg(long)]
    pub(crate) out: bool,
}

/// Follow what happens to apps and workers, until Ctrl-C
///
/// Orders, starts, crashes and their causes, reloads and how they end, each as it happens. What happened before is in
/// the daemon's log.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor events
  supervisor events web
  supervisor events --json | jq 'select(.event == \"failed\")'")]
pub(crate) struct Events {
    #[arg(value_name = "SELECTOR", help = SELECTORS_HELP)]
    pub(crate) selectors: Vec<String>,
}

/// A time, or how long ago it was.
fn since(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(ago) = text.parse::<jiff::SignedDuration>() {
        return jiff::Timestamp::now().checked_sub(ago.abs()).map_err(|error| error.to_string());
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time);
    }
    let local = text.parse::<jiff::civil::DateTime>().ok();
    let time = local.and_then(|time| time.to_zoned(jiff::tz::TimeZone::system()).ok());
    time.map(|time| time.timestamp())
        .ok_or_else(|| "a duration such as `10m` or a time such as `2026-03-01T12:00` is expected".to_owned())
}

/// Watch apps, their use of the machine and their output, full screen
///
/// Keys restart, reload, stop, start and scale what is selected; `?` lists them. Leaving ends no order.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor monit
  NO_COLOR=1 supervisor monit")]
pub(crate) struct Monit {}

/// Ask whether the daemon answers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor ping
  supervisor ping --json | jq .daemon.pid")]
pub(crate) struct Ping {}

/// Replace the daemon by another version of it, while everything runs
///
/// The new binary is asked what it is, restores a copy of what the daemon knows, and then runs the daemon on trial:
/// until it has proved itself the old one comes back when anything fails, and the exit code is 6. No worker notices.
/// Without --binary it is the file where the running one was: the one that a package has put there.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  apt-get install supervisor-cluster && supervisor upgrade
  supervisor upgrade --binary ./supervisor-0.2.0")]
pub(crate) struct Upgrade {
    /// The new binary
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
}

/// End the daemon and all workers
///
/// What is declared stays declared: the next daemon starts it again. To forget it, `delete` it before.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor kill
  supervisor kill --now
  supervisor delete all; supervisor kill      nothing is left")]
pub(crate) struct Kill {
    /// Kill the workers instead of letting them finish
    #[arg(long)]
    pub(crate) now: bool,
}

/// Start the daemon at boot: write and enable a systemd unit
///
/// The unit runs what is declared. Run it again after the program has moved.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo supervisor startup
  supervisor startup --user
  supervisor startup --print > supervisor-cluster.service")]
pub(crate) struct Startup {
    /// A unit of your own instead of the system's
    #[arg(long)]
    pub(crate) user: bool,
    /// Print the unit, and change nothing
    #[arg(long)]
    pub(crate) print: bool,
}

/// Do not start the daemon at boot any more: remove the systemd unit
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo supervisor unstartup
  supervisor unstartup --user")]
pub(crate) struct Unstartup {
    /// The unit of your own instead of the system's
    #[arg(long)]
    pub(crate) user: bool,
    /// Print which file would be removed, and change nothing
    #[arg(long)]
    pub(crate) print: bool,
}

/// Check an ecosystem file and show what it means
///
/// With --json, each app with every setting filled in; values of variables are masked.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor check
  supervisor check shop.yaml --env production --json")]
pub(crate) struct Check {
    /// The file; the ecosystem file in this folder when left out
    pub(crate) file: Option<PathBuf>,
    /// Add each app's `env_NAME` variables
    #[arg(long = "env", value_name = "NAME")]
    pub(crate) env_name: Option<String>,
    /// Show the values of variables
    #[arg(long, requires = "json")]
    pub(crate) reveal: bool,
}

/// Write a commented ecosystem file to begin with
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor init
  supervisor init deploy/shop.yaml")]
pub(crate) struct Init {
    /// The file to write
    #[arg(default_value = "ecosystem.yaml")]
    pub(crate) file: PathBuf,
    /// Overwrite a file that is there
    #[arg(long)]
    pub(crate) force: bool,
}

/// Turn a file or a dump of PM2 into a clean ecosystem file
///
/// Keys get their documented names, and comments tell what is left out and why. The file may hold secrets from
/// `env`, so only its owner can read it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor import ecosystem.config.js
  supervisor import ~/.pm2/dump.pm2 -o shop.yaml     what `pm2 save` wrote
  supervisor import shop.json -o -                   to stdout")]
pub(crate) struct Import {
    /// An ecosystem file, or PM2's dump; `-` for standard input
    pub(crate) file: PathBuf,
    /// The file to write; `-` for stdout
    #[arg(short, long, value_name = "FILE", default_value = "ecosystem.yaml")]
    pub(crate) output: PathBuf,
    /// Overwrite a file that is there
    #[arg(long)]
    pub(crate) force: bool,
}

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor completions bash > ~/.local/share/bash-completion/completions/supervisor
  supervisor completions zsh > ~/.zfunc/_supervisor")]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

/// Print the manual page, or write those of all commands
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  supervisor man | man -l -
  sudo supervisor man --output /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Write `supervisor.1` and a page for each command into this folder
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
}

/// The keeper: holds sockets and records, starts the master
#[derive(Debug, clap::Args)]
pub(crate) struct Keeper {
    #[command(flatten)]
    pub(crate) folders: Folders,
    /// A file with the `Apply` that the first master begins with, open as this
    /// number
    #[arg(long, value_name = "FD")]
    pub(crate) apply_fd: Option<i32>,
    /// The state of the keeper whose place this one takes, open as this number
    #[arg(long, value_name = "FD")]
    pub(crate) state_fd: Option<i32>,
}

/// The master: decides
#[derive(Debug, clap::Args)]
pub(crate) struct Master {
    #[command(flatten)]
    pub(crate) folders: Folders,
    /// Only look whether what the keeper has could be taken over
    #[arg(long)]
    pub(crate) rehearse: bool,
}

/// Where the daemon's things are
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Folders {
    /// See `Home`
    #[arg(long)]
    pub(crate) runtime_dir: PathBuf,
    /// See `Home`
    #[arg(long)]
    pub(crate) log_dir: PathBuf,
    /// See `Home`; without it nothing that is declared is kept
    #[arg(long)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Stay with the terminal or the service manager
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) foreground: bool,
    /// Show workers' output
    #[arg(long)]
    pub(crate) echo: Option<Shown>,
}

impl Folders {
    /// The options as they are passed on to another process of the daemon.
    pub(crate) fn to_args(&self) -> Vec<OsString> {
        let Folders { runtime_dir, log_dir, state_dir, foreground, echo } = self;
        let folders = [
            ("--runtime-dir", Some(runtime_dir)),
            ("--log-dir", Some(log_dir)),
            ("--state-dir", state_dir.as_ref()),
        ];
        let mut args: Vec<OsString> = folders
            .into_iter()
            .filter_map(|(option, folder)| Some([option.into(), folder?.into()]))
            .flatten()
            .collect();
        if *foreground {
            args.push("--foreground".into());
        }
        if let Some(shown) = echo.and_then(|shown| shown.to_possible_value()) {
            args.extend(["--echo".into(), shown.get_name().into()]);
        }
        args
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for command in Args::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("  supervisor {}", command.get_name());
            assert!(help.starts_with("Examples:\n") && help.contains(&example), "{}", command.get_name());
        }
    }

    #[test]
    fn folders_are_passed_on() {
        for text in [
            "--runtime-dir /r --log-dir /l --foreground --echo named",
            "--runtime-dir /r --log-dir /l --state-dir /s",
        ] {
            let args = Args::try_parse_from("supervisor master".split(' ').chain(text.split(' '))).unwrap();
            let Command::Master(Master { folders, rehearse: false }) = args.command else {
                panic!("{args:?}")
            };
            assert_eq!(folders.to_args().join(" ".as_ref()).to_str(), Some(text));
        }
    }

    #[test]
    fn numbers_may_have_a_sign() {
        for text in ["4", "+2", "-1", "0"] {
            let args = Args::try_parse_from(["supervisor", "scale", "web", text]).unwrap();
            let Command::Scale(scale) = args.command else { panic!("{args:?}") };
            assert_eq!(scale.instances, text);
        }
        for text in ["", "+", "max", "++1", "1.5", "99999999999"] {
            Args::try_parse_from(["supervisor", "scale", "web", text]).unwrap_err();
        }
        let args = Args::try_parse_from(["supervisor", "start", "-i", "-1", "--", "x", "-v"]).unwrap();
        let Command::Start(start) = args.command else { panic!("{args:?}") };
        assert_eq!(start.app.instances.as_deref(), Some("-1"));
        assert_eq!(start.command, ["x", "-v"]);
        assert!(!args.global.verbose);
    }
}
