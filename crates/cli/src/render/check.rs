//! `check`: what a file's apps resolve to.

use supervisor_config::{App, ListenAddress, Ready};

use super::Canvas;
use super::describe::{command_line, mode};
use super::style::STRONG;
use super::table::{Align, Cell, Column, Table};
use super::text::one_line;
use crate::difference::MASK;

const COLUMNS: [Column; 6] = [
    ("NAME", Align::Left),
    ("WORKERS", Align::Right),
    ("MODE", Align::Left),
    ("READY", Align::Left),
    ("LISTEN", Align::Left),
    ("COMMAND", Align::Left),
];

/// One line an app.
pub(crate) fn render(apps: &[App], canvas: Canvas) -> String {
    let mut table = Table::new(COLUMNS, COLUMNS.len() - 1);
    for app in apps {
        let listen: Vec<String> = app.listen.iter().map(address).collect();
        let ready = match app.ready {
            Ready::Auto => "auto",
            Ready::Listen => "listen",
            Ready::Started => "started",
            Ready::Notify => "notify",
            Ready::Ipc => "ipc",
        };
        table.row([
            Cell::new(one_line(&app.name), STRONG),
            app.instances.to_string().into(),
            mode(app.exec_mode).into(),
            ready.into(),
            one_line(&listen.join(" ")).into(),
            one_line(&command_line(&app.command)).into(),
        ]);
    }
    table.render(canvas.width, canvas.color)
}

fn address(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp { address, .. } => address.to_string(),
        ListenAddress::Unix(path) => path.display().to_string(),
    }
}

/// The app without what may be secret.
pub(crate) fn masked(mut app: App) -> App {
    for value in app.env.values_mut().chain(app.inherited_env.values_mut()) {
        MASK.clone_into(value);
    }
    app
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::describe::tests::app;
    use crate::render::status::tests::canvas;

    #[test]
    fn a_line_for_each_app() {
        let mut other = app();
        other.name = "a-second-one".to_owned();
        other.listen.push(ListenAddress::Unix("/run/web.sock".into()));
        let text = render(&[app(), other], canvas(80, false));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn secrets_are_masked() {
        let json = serde_json::to_string(&masked(app())).unwrap();
        assert!(json.contains("PASSWORD") && !json.contains("hunter2") && !json.contains("/root"), "{json}");
    }
}
