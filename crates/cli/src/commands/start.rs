//! `supervisor start` and `supervisor reload`

use supervisor_config::App;
use supervisor_protocol::control::{Apply, Select};

use crate::args::{Reload, Start};
use crate::client::{Search, find, search};
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::home::{self, Home};
use crate::load;
use crate::order::{self, Scope};
use crate::target::{self, Program, Target};
use crate::terminal::Terminal;

pub(super) async fn start(mut options: Start, terminal: Terminal) -> Result<ExitCode, Failure> {
    let homes = home::homes()?;
    let command = std::mem::take(&mut options.command);
    match target::read(&options.targets, command)? {
        Target::File(path) => {
            reject("an ecosystem file", options.app.given())?;
            let (mut apps, daemon) = load::whole_file(&path, options.env_name.as_deref(), terminal)?;
            keep_only(&mut apps, &options.only)?;
            let source = load::origin(&path)?;
            let scope = if options.only.is_empty() { Scope::Whole } else { Scope::Part };
            let env_name = options.env_name;
            let order = Apply { apps, source, env_name, prune: options.prune, reload: false, daemon };
            apply(&homes, order, scope, options.no_wait, terminal).await
        }
        Target::Program(program) => start_program(&homes, program, options, terminal).await,
        Target::Names(_, Some(program)) if options.app.given().is_some() => {
            start_program(&homes, program, options, terminal).await
        }
        Target::Names(names, program) => {
            reject("the name of an app", options.app.given().or_else(|| file_option(&options)))?;
            start_names(&homes, names, program, options, terminal).await
        }
    }
}

pub(super) async fn reload(options: Reload, terminal: Terminal) -> Result<ExitCode, Failure> {
    let homes = home::homes()?;
    let Reload { targets, all, abort, only, prune, env_name, wait: _, no_wait } = options;
    if abort {
        return take_back(&homes, targets, all, no_wait, terminal).await;
    }
    let target =
        if all { Target::Names(vec!["all".to_owned()], None) } else { target::read(&targets, Vec::new())? };
    let names = match target {
        Target::File(path) => {
            let (mut apps, daemon) = load::whole_file(&path, env_name.as_deref(), terminal)?;
            keep_only(&mut apps, &only)?;
            let source = load::origin(&path)?;
            let scope = if only.is_empty() { Scope::Whole } else { Scope::Part };
            return apply(
                &homes,
                Apply { apps, source, env_name, prune, reload: true, daemon },
                scope,
                no_wait,
                terminal,
            )
            .await;
        }
        Target::Names(names, _) => names,
        Target::Program(_) => targets,
    };
    let file_only = [("--only", !only.is_empty()), ("--prune", prune), ("--env", env_name.is_some())];
    reject("the name of an app", file_only.into_iter().find_map(|(name, given)| given.then_some(name)))?;
    let order = Select { selectors: names, now: false };
    let answer = find(&homes).await?.order("/v1/reload", &order).await?;
    if no_wait {
        return order::accepted(answer, None, terminal).await;
    }
    order::follow(answer, Scope::Part, terminal).await
}

/// Takes back reloads that are under way.
async fn take_back(
    homes: &[Home],
    targets: Vec<String>,
    all: bool,
    no_wait: bool,
    terminal: Terminal,
) -> Result<ExitCode, Failure> {
    let selectors = if all { vec!["all".to_owned()] } else { super::selectors(targets, terminal)? };
    if selectors.is_empty() {
        let message = "--abort needs the name of an app; `--all` takes back every reload";
        return Err(Failure::new(ExitCode::Usage, message));
    }
    let order = Select { selectors, now: false };
    let answer = find(homes).await?.order("/v1/abort", &order).await?;
    if no_wait {
        return order::accepted(answer, None, terminal).await;
    }
    order::follow(answer, Scope::Part, terminal).await
}

/// The first given option that only goes with a file.
fn file_option(options: &Start) -> Option<&'static str> {
    let all = [
        ("--only", !options.only.is_empty()),
        ("--prune", options.prune),
        ("--env", options.env_name.is_some()),
    ];
    all.into_iter().find_map(|(name, given)| given.then_some(name))
}

fn reject(target: &str, option: Option<&str>) -> Result<(), Failure> {
    match option {
        None => Ok(()),
        Some(option) => Err(Failure::new(ExitCode::Usage, format!("{option} does not go with {target}"))),
    }
}

/// Keeps the apps with these names; all without any.
fn keep_only(apps: &mut Vec<App>, names: &[String]) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    if let Some(unknown) = names.iter().find(|name| apps.iter().all(|app| app.name != **name)) {
        let known: Vec<&str> = apps.iter().map(|app| app.name.as_str()).collect();
        let message = format!("--only {unknown}: the file has {}", known.join(", "));
        return Err(Failure::new(ExitCode::Usage, message));
    }
    apps.retain(|app| names.contains(&app.name));
    Ok(())
}

async fn start_program(
    homes: &[Home],
    program: Program,
    options: Start,
    terminal: Terminal,
) -> Result<ExitCode, Failure> {
    reject("a program", file_option(&options))?;
    let Start { app, no_wait, .. } = options;
    let app = load::command(program.words, program.script, app, terminal)?;
    let order = Apply { apps: vec![app], ..Apply::default() };
    apply(homes, order, Scope::Part, no_wait, terminal).await
}

async fn start_names(
    homes: &[Home],
    names: Vec<String>,
    program: Option<Program>,
    options: Start,
    terminal: Terminal,
) -> Result<ExitCode, Failure> {
    let order = Select { selectors: names, now: false };
    let failure = match start_declared(homes, &order, options.no_wait, terminal).await {
        Err(failure) if matches!(failure.code, ExitCode::NoSuchApp | ExitCode::NoDaemon) => failure,
        result => return result,
    };
    // No app has that name, or there is nobody who would know: the other reading.
    if let Some(program) = program {
        return start_program(homes, program, options, terminal).await;
    }
    let Failure { code, cause } = failure;
    Err(match target::guess(&order.selectors) {
        Some(guess) => Failure { code, cause: cause.context(guess) },
        None => Failure { code, cause },
    })
}

async fn start_declared(
    homes: &[Home],
    order: &Select,
    no_wait: bool,
    terminal: Terminal,
) -> Result<ExitCode, Failure> {
    let client = match search(homes).await? {
        Search::Found(client) => client,
        // A new daemon knows the apps that are declared.
        Search::Nothing { .. } if homes.first().is_some_and(Home::has_state) => {
            daemon::ensure(homes, terminal).await?
        }
        Search::Nothing { .. } => find(homes).await?,
    };
    let answer = client.order("/v1/start", order).await?;
    if no_wait {
        return order::accepted(answer, None, terminal).await;
    }
    order::follow_selected(answer, &order.selectors, terminal).await
}

/// Hands apps to the daemon, which is started if need be.
async fn apply(
    homes: &[Home],
    order: Apply,
    scope: Scope,
    no_wait: bool,
    terminal: Terminal,
) -> Result<ExitCode, Failure> {
    let client = daemon::ensure(homes, terminal).await?;
    terminal.explain(&format!("asking the daemon in {}", client.home()));
    let answer = client.order("/v1/apply", &order).await?;
    if no_wait {
        let names = order.apps.into_iter().map(|app| app.name).collect();
        return order::accepted(answer, Some(names), terminal).await;
    }
    order::follow(answer, scope, terminal).await
}
