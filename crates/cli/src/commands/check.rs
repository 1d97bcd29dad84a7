//! `supervisor check`

use anyhow::Context;
use supervisor_config::App;

use crate::args::Check;
use crate::exit_code::{ExitCode, Failure};
use crate::load;
use crate::render::check::{masked, render};
use crate::render::style::{BUSY, paint};
use crate::render::text::one_line;
use crate::surroundings::missing;
use crate::terminal::{Terminal, print};

pub(super) fn check(options: Check, terminal: Terminal) -> Result<ExitCode, Failure> {
    let path = options.file.map_or_else(load::default_file, Ok)?;
    let apps = load::file(&path, options.env_name.as_deref(), terminal)?;
    for (app, missing) in
        apps.iter().flat_map(|app| missing(app).into_iter().map(move |missing| (app, missing)))
    {
        let warning = paint("warning:", BUSY.bold(), terminal.error_color);
        Terminal::say(&format!("{warning} {}: {missing}", one_line(&app.name)));
    }
    if terminal.json {
        let apps: Vec<App> = if options.reveal { apps } else { apps.into_iter().map(masked).collect() };
        let mut json = serde_json::to_vec_pretty(&apps).context("cannot write the apps as JSON")?;
        json.push(b'\n');
        print(&json)?;
    } else {
        print(render(&apps, terminal.canvas()).as_bytes())?;
    }
    Ok(ExitCode::Done)
}
