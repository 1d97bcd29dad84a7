//! One app's entry to the checked app.

use std::path::{Path, PathBuf};
use std::time::Duration;

use supervisor_core::MAX_SLOTS;

use crate::fields::Fields;
use crate::listen::{self, MAX_LISTEN};
use crate::program::{self, is_variable_name};
use crate::report::{Problem, Report};
use crate::tree::{Entry, Node, Span, Value};
use crate::value::{
    boolean, duration, expected, integer, non_empty, one_of, positive_duration, text, whole, word,
};
use crate::{
    App, ChannelOptions, Context, ExecMode, ListenAddress, Ready, balance, channel, cpu_affinity, cron,
    environment, limits, logs, memory, path, ready, reload, signal, watch,
};

/// The longest name, in characters.
const MAX_NAME: usize = 64;

/// An app, and where it says what must be unique.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) app: App,
    /// Where its name comes from.
    pub(crate) name_at: Option<Span>,
    /// Where each address of `app.listen` stands.
    pub(crate) listen_at: Vec<Option<Span>>,
    /// The `NAME` of each `env_NAME`.
    pub(crate) env_sets: Vec<String>,
}

/// Reads an app. After an error some values are stand-ins, and the app must not
/// be used.
pub(crate) fn read(
    at: Option<Span>,
    entries: &[Entry],
    default_instances: u32,
    context: &Context,
    report: &mut Report<'_>,
) -> Declared {
    let fields = &mut Fields::new(at, entries, report);
    let base = context.base_dir.as_path();
    let cwd = match fields.optional("cwd", |node| path::absolute(text(node)?, base)) {
        Some(cwd) => cwd,
        None => path::absolute(".", base).unwrap_or_else(|problem| {
            fields.report.file_error(problem.of("the file"));
            PathBuf::new()
        }),
    };
    let program = program::read(fields, &cwd, &context.caller_env);
    let (name, name_at) = name(fields, &program);
    let exec_mode = fields.value("exec_mode", exec_mode);
    let default_instances = match exec_mode {
        ExecMode::Cluster => default_instances,
        ExecMode::Fork => 1,
    };
    let (listen, listen_at) = listen(fields, base);
    // Two that bind an address for themselves cannot live side by side, unless
    // they share it.
    let shares = exec_mode == ExecMode::Cluster;
    let max_surge = u32::from(shares || !listen.is_empty());
    let ready = ready::read(fields, base, shares, !listen.is_empty());
    let (balance, weights) = balance::read(fields, shares || !listen.is_empty());
    let channel = channel::read(fields);
    needs_channel(fields, &channel, &ready);
    if channel.enabled {
        channel::warn_of_launcher(fields, &program.command);
    }
    let inherit = environment::read_inherit(fields);
    let env = environment::read_own(fields, context);
    let max_surge = fields.optional("max_surge", integer(0..=10_000)).unwrap_or(max_surge);
    let reload = reload::read(fields, max_surge);
    let (restart_delay, restart_backoff_percent) = restart_pause(fields);
    let (max_memory_restart, max_memory_hard) = memory::read(fields);
    let (out_file, error_file, logs) = logs::read(fields, base);
    let app = App {
        name,
        namespace: fields.value("namespace", checked_name),
        command: program.command,
        exec_mode,
        instances: fields.optional("instances", instances(context.usable_cpus)).unwrap_or(default_instances),
        inherited_env: inherit.of(&context.caller_env),
        inherit,
        increment_var: environment::read_increment_var(fields, &env),
        env,
        instance_var: fields.value("instance_var", variable_name),
        listen,
        backlog: fields.value("backlog", integer(1..=65_535)),
        balance,
        weights,
        ready,
        listen_timeout: fields.value("listen_timeout", positive_duration),
        min_uptime: fields.value("min_uptime", positive_duration),
        max_restarts: fields.value("max_restarts", max_restarts),
        restart_delay,
        restart_backoff_percent,
        breaker_retry: fields.value("breaker_retry", duration),
        autostart: fields.value("autostart", boolean),
        autorestart: fields.value("autorestart", boolean),
        stop_exit_codes: fields.list("stop_exit_codes", integer(0..=255)),
        max_memory_restart,
        max_memory_hard,
        cron_restart: cron::read(fields),
        watch: watch::read(fields, &cwd),
        hang_timeout: fields.value("hang_timeout", duration),
        watchdog: fields.optional("watchdog", positive_duration),
        kill_signal: fields.value("kill_signal", signal::kill_signal),
        kill_timeout: fields.value("kill_timeout", duration),
        drain_timeout: fields.value("drain_timeout", duration),
        drain_quiet: fields.optional("drain_quiet", duration),
        max_surge,
        reload,
        user: fields.optional("user", account),
        group: fields.optional("group", account),
        umask: fields.optional("umask", umask),
        nice: fields.optional("nice", integer(-20..=19)),
        cpu_affinity: cpu_affinity::read(fields),
        limits: limits::read(fields),
        oom_score_adj: fields.optional("oom_score_adj", integer(-1000..=1000)),
        channel,
        out_file,
        error_file,
        logs,
        cwd,
    };
    let env_sets = fields.env_sets.iter().map(|(name, _)| (*name).to_owned()).collect();
    Declared { app, name_at, listen_at, env_sets }
}

/// The name with its prefix, and where it comes from.
fn name(fields: &mut Fields<'_, '_, '_>, program: &program::Program) -> (String, Option<Span>) {
    let (name, at) = own_name(fields, program);
    let prefixed = fields.optional("name_prefix", |node| {
        let prefixed = format!("{}{name}", word(node)?);
        // What is wrong with the name alone has been said.
        if check_name(&name).is_ok() {
            check_name(&prefixed)?;
        }
        Ok(prefixed)
    });
    (prefixed.unwrap_or(name), at)
}

/// The name, given or derived, and where it comes from.
fn own_name(fields: &mut Fields<'_, '_, '_>, program: &program::Program) -> (String, Option<Span>) {
    if let Some(entry) = fields.given("name") {
        let name = fields.optional("name", checked_name).unwrap_or_default();
        return (name, entry.value.span.or(entry.key_span));
    }
    // Without a program the name has nothing to come from, which has been said.
    if program.command.first().is_some_and(|word| !word.is_empty())
        && let Err(problem) = check_name(&program.default_name)
    {
        let title = format!("the name `{}`, which comes from the program,", program.default_name);
        fields.report.error(program.at, problem.of(&title).help("give the app a `name`"));
    }
    (program.default_name.clone(), program.at)
}

fn checked_name(node: &Node) -> Result<String, Problem> {
    let name = word(node)?;
    check_name(name)?;
    Ok(name.to_owned())
}

/// Whether a name may contain it.
pub(crate) fn is_name_char(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-')
}

/// Whether a command could tell this name from its other arguments.
pub(crate) fn check_name(name: &str) -> Result<(), Problem> {
    if name.is_empty() {
        return Err(Problem::new("is empty"));
    }
    if name.len() > MAX_NAME {
        return Err(Problem::new(format!(
            "must have at most {MAX_NAME} characters, and it has {}",
            name.chars().count()
        )));
    }
    if let Some(wrong) = name.chars().find(|char| !is_name_char(*char)) {
        return Err(
            Problem::new(format!("contains `{wrong}`")).help("letters, digits, `.`, `_` and `-` are fine")
        );
    }
    if name == "all" {
        return Err(Problem::new("must not be `all`, which commands take for every app"));
    }
    if name.starts_with('-') {
        return Err(Problem::new("must not start with `-`, which commands take for an option"));
    }
    Ok(())
}

fn exec_mode(node: &Node) -> Result<ExecMode, Problem> {
    const PM2: &[(&str, ExecMode)] = &[("cluster_mode", ExecMode::Cluster), ("fork_mode", ExecMode::Fork)];
    one_of(PM2)(node).or_else(|_| one_of(&[("cluster", ExecMode::Cluster), ("fork", ExecMode::Fork)])(node))
}

fn instances(usable_cpus: u32) -> impl Fn(&Node) -> Result<u32, Problem> {
    let usable = i64::from(usable_cpus.clamp(1, MAX_SLOTS));
    move |node| {
        let number = match &node.value {
            Value::Text(text) if text == "max" => usable,
            Value::Number(number) if number.starts_with('-') => {
                (usable + integer(-i64::from(MAX_SLOTS)..=-1)(node)?).max(1)
            }
            Value::Number(number) if number == "0" => usable,
            Value::Number(_) => integer(0..=i64::from(MAX_SLOTS))(node)?,
            Value::Text(text) if whole::<i64>(text).is_some() => {
                return Err(expected("a number or `max`", node).help("remove the quotes"));
            }
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                return Err(expected("a number or `max`", node));
            }
        };
        u32::try_from(number).map_err(|_| expected("a number or `max`", node))
    }
}

fn listen(fields: &mut Fields<'_, '_, '_>, base: &Path) -> (Vec<ListenAddress>, Vec<Option<Span>>) {
    let Some(entry) = fields.given("listen") else {
        return (Vec::new(), Vec::new());
    };
    let read = fields.list("listen", |node| Ok((listen::parse(node, base)?, node)));
    if read.len() > MAX_LISTEN {
        fields.wrong(
            entry,
            &entry.value,
            Problem::new(format!("must have at most {MAX_LISTEN} addresses, not {}", read.len())),
        );
        return (Vec::new(), Vec::new());
    }
    let (mut addresses, mut places) = (Vec::new(), Vec::new());
    for (address, node) in read {
        if addresses.iter().any(|other| listen::overlap(&address, other)) {
            fields.wrong(entry, node, Problem::new("has this address twice"));
        }
        addresses.push(address);
        places.push(node.span);
    }
    (addresses, places)
}

/// Reports what does not go without a channel.
fn needs_channel(fields: &mut Fields<'_, '_, '_>, channel: &ChannelOptions, ready: &Ready) {
    if channel.enabled {
        return;
    }
    let waits = (*ready == Ready::Ipc).then_some(["ready", "wait_ready"]);
    let asks = channel.shutdown_with_message.then_some("shutdown_with_message");
    for name in waits.into_iter().flatten().chain(asks) {
        if let Some(entry) = fields.given(name) {
            fields.wrong(
                entry,
                &entry.value,
                Problem::new("needs the channel").help("remove `channel: false`"),
            );
        }
    }
}

fn variable_name(node: &Node) -> Result<String, Problem> {
    match text(node)? {
        name if is_variable_name(name) => Ok(name.to_owned()),
        _ => Err(expected("a name of letters, digits and `_`", node)),
    }
}

fn max_restarts(node: &Node) -> Result<u32, Problem> {
    match &node.value {
        Value::Number(number) if number == "0" => Err(Problem::new("must be at least 1")
            .help("use `autorestart: false` for an app that is not started again")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            integer(1..=1_000_000)(node)
        }
    }
}

/// The pause after the first unstable life, and its factor in hundredths.
fn restart_pause(fields: &mut Fields<'_, '_, '_>) -> (Duration, u32) {
    /// PM2's factor.
    const EXPONENTIAL: u32 = 150;
    let delay = fields.value("restart_delay", duration);
    let backoff = fields.value("restart_backoff", backoff_percent);
    match fields.optional("exp_backoff_restart_delay", duration) {
        None | Some(Duration::ZERO) => (delay, backoff),
        Some(exponential) => {
            for name in ["restart_delay", "restart_backoff"] {
                if let Some(other) = fields.given(name).filter(|other| !is_zero(&other.value)) {
                    let problem = Problem::new(format!(
                        "`{}` is ignored: `exp_backoff_restart_delay` says how long the pause is",
                        other.key
                    ));
                    fields.report.warning(other.key_span, problem.help("remove one of them"));
                }
            }
            (exponential, EXPONENTIAL)
        }
    }
}

fn is_zero(node: &Node) -> bool {
    matches!(&node.value, Value::Number(number) if number == "0")
}

/// A factor as hundredths.
fn backoff_percent(node: &Node) -> Result<u32, Problem> {
    let problem = || expected("a number from 1 to 100 with at most two decimals", node);
    let Value::Number(number) = &node.value else {
        return Err(problem());
    };
    let (ones, decimals) = number.split_once('.').unwrap_or((number, ""));
    let ones = whole::<u32>(ones).filter(|ones| *ones <= 100).ok_or_else(problem)?;
    if decimals.len() > 2 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(problem());
    }
    let hundredths = format!("{decimals:0<2}").parse::<u32>().map_err(|_| problem())?;
    Some(ones * 100 + hundredths).filter(|percent| (100..=10_000).contains(percent)).ok_or_else(problem)
}

/// A user or group: the kernel's numbers or the system's names.
fn account(node: &Node) -> Result<String, Problem> {
    let account = non_empty(node)?;
    match &node.value {
        Value::Number(number) if whole::<u32>(number).is_none_or(|id| id == u32::MAX) => {
            Err(expected("a name or a number", node))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            Ok(account.to_owned())
        }
    }
}

/// Octal digits: in quotes, or with a leading zero that says so.
fn umask(node: &Node) -> Result<u32, Problem> {
    let problem = || expected("octal digits in quotes, such as `\"0022\"`", node);
    let digits = match &node.value {
        Value::Text(text) => text,
        Value::Number(number) if number.starts_with('0') => number.strip_prefix("0o").unwrap_or(number),
        Value::Number(number) => {
            return Err(problem().help(format!(
                "a plain number is decimal; write `\"0{}\"` if it is octal",
                number.trim_start_matches('0')
            )));
        }
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => return Err(problem()),
    };
    let is_octal = (1..=4).contains(&digits.len()) && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mask = if is_octal { u32::from_str_radix(digits, 8).ok() } else { None };
    mask.filter(|mask| *mask <= 0o777).ok_or_else(problem)
}
