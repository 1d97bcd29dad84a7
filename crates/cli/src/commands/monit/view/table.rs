//! Apps and workers, as many as there is room for.

use anstyle::Style as Meaning;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::super::history;
use super::super::state::{Pane, Row, State};
use super::paint::Paint;
use crate::render::style::{QUIET, STRONG, app_state, worker_state};
use crate::render::text::{one_line, shorten};
use crate::render::units;

/// Blanks between columns.
const GAP: u16 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Slot,
    Pid,
    State,
    Uptime,
    Restarts,
    Cpu,
    Memory,
}

/// A column after that of the names, which takes what is left.
#[derive(Debug)]
struct Column {
    kind: Kind,
    heading: &'static str,
    width: u16,
    /// The width of the table from which on it is shown.
    from: u16,
}

const COLUMNS: [Column; 7] = [
    Column { kind: Kind::Slot, heading: "SLOT", width: 7, from: 0 },
    Column { kind: Kind::Pid, heading: "PID", width: 7, from: 68 },
    Column { kind: Kind::State, heading: "STATE", width: 9, from: 0 },
    Column { kind: Kind::Uptime, heading: "UPTIME", width: 8, from: 60 },
    Column { kind: Kind::Restarts, heading: "↺", width: 5, from: 52 },
    Column { kind: Kind::Cpu, heading: "CPU", width: 6, from: 0 },
    Column { kind: Kind::Memory, heading: "MEM", width: 7, from: 0 },
];

/// Draws the headings and the lines from `state.top` on.
pub(super) fn draw(state: &State, paint: Paint, area: Rect, buffer: &mut Buffer) {
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| area.width >= column.from).collect();
    let used: u16 = columns.iter().map(|column| column.width + GAP).sum();
    let line = Drawing { columns, name: area.width.saturating_sub(used), area };
    let is_active = state.pane == Pane::Table;
    let meaning = if is_active { STRONG.underline() } else { QUIET.underline() };
    let name = match state.filter.as_str() {
        "" => "NAME".to_owned(),
        filter => format!("NAME /{}", one_line(filter)),
    };
    line.row(area.y, &name, paint.style(meaning), paint.style(meaning), buffer, |column| {
        (column.heading.to_owned(), paint.style(meaning))
    });
    let rows = state.rows.iter().enumerate().skip(state.top);
    for ((index, row), y) in rows.zip(area.y + 1..area.bottom()) {
        let Some(cells) = Cells::new(state, *row) else { continue };
        let base = if index == state.selected { Style::new().reversed() } else { Style::new() };
        let name = paint.style(cells.name_meaning).patch(base);
        line.row(y, &cells.name, base, name, buffer, |column| {
            let (text, meaning) = cells.cell(column.kind);
            (text, paint.style(meaning).patch(base))
        });
    }
    if state.rows.is_empty() && area.height > 1 {
        let text = if state.filter.is_empty() {
            "no apps yet: start some with `supervisor start FILE`"
        } else {
            "nothing matches the filter; Esc clears it"
        };
        buffer.set_stringn(area.x, area.y + 1, text, area.width.into(), paint.style(QUIET));
    }
}

/// How a line is laid out.
struct Drawing<'a> {
    columns: Vec<&'a Column>,
    name: u16,
    area: Rect,
}

impl Drawing<'_> {
    fn row(
        &self,
        y: u16,
        name: &str,
        base: Style,
        name_style: Style,
        buffer: &mut Buffer,
        cell: impl Fn(&Column) -> (String, Style),
    ) {
        buffer.set_style(Rect { y, height: 1, ..self.area }, base);
        let mut x = self.area.x;
        buffer.set_stringn(x, y, shorten(name, self.name.into()), self.name.into(), name_style);
        x += self.name;
        for column in &self.columns {
            let (text, style) = cell(column);
            let width = usize::from(column.width);
            let text = match column.kind {
                Kind::State => format!("{text:width$}"),
                Kind::Slot | Kind::Pid | Kind::Uptime | Kind::Restarts | Kind::Cpu | Kind::Memory => {
                    format!("{text:>width$}")
                }
            };
            buffer.set_stringn(x + GAP, y, shorten(&text, width), width, style);
            x += GAP + column.width;
        }
    }
}

/// What stands in a line.
struct Cells {
    name: String,
    name_meaning: Meaning,
    slot: String,
    pid: Option<u32>,
    state: (&'static str, Meaning),
    uptime: Option<f64>,
    restarts: u64,
    cpu: Option<f64>,
    memory: Option<u64>,
}

impl Cells {
    fn new(state: &State, row: Row) -> Option<Cells> {
        let (app, worker) = state.at(row)?;
        let name = one_line(&app.name);
        Some(match worker {
            None => {
                let mark = if state.is_folded(&app.name) { '▸' } else { '▾' };
                Cells {
                    name: format!("{mark} {name}"),
                    name_meaning: STRONG,
                    slot: format!("{}/{}", app.instances.ready, app.instances.wanted),
                    pid: None,
                    state: app_state(app.state),
                    uptime: None,
                    restarts: app.restarts,
                    cpu: history::cpu(app),
                    memory: history::memory(app),
                }
            }
            Some(worker) => Cells {
                name: format!("  {name}"),
                name_meaning: QUIET,
                slot: worker.slot.to_string(),
                pid: worker.pid,
                state: worker_state(worker.state),
                uptime: worker.uptime_s,
                restarts: worker.restarts,
                cpu: worker.cpu_percent,
                memory: worker.memory_bytes,
            },
        })
    }

    fn cell(&self, kind: Kind) -> (String, Meaning) {
        let plain = |text: Option<String>| (text.unwrap_or_default(), Meaning::new());
        match kind {
            Kind::Slot => plain(Some(self.slot.clone())),
            Kind::Pid => plain(self.pid.map(|pid| pid.to_string())),
            Kind::State => (self.state.0.to_owned(), self.state.1),
            Kind::Uptime => plain(self.uptime.map(units::seconds)),
            Kind::Restarts => plain(Some(self.restarts.to_string())),
            Kind::Cpu => plain(self.cpu.map(units::percent)),
            Kind::Memory => plain(self.memory.map(units::bytes)),
        }
    }
}
