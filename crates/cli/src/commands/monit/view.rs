//! How the screen looks: pure drawing into a buffer, with the time given.

mod graphs;
mod log;
mod paint;
mod table;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Widget, Wrap};

use self::paint::Paint;
use super::history;
use super::keys::{Focus, HELP};
use super::state::{State, Tone};
use crate::render::status::notes;
use crate::render::style::{BAD, BUSY, GOOD, QUIET, STRONG};
use crate::render::text::{count, one_line};
use crate::render::units;

/// The smallest screen that something can be seen on.
const MIN: (u16, u16) = (40, 10);

/// From this width on, the graphs are beside the table.
const WIDE: u16 = 120;

/// From so many lines on there are graphs below the table.
const HIGH: u16 = 19;

/// The height of graphs below the table.
const GRAPHS: u16 = 4;

/// The keys that the last line names, the most important ones first.
const KEYS: [&str; 9] =
    ["q quit", "? help", "↑↓ select", "r restart", "R reload", "s stop", "+- scale", "/ filter", "Tab log"];

/// Where everything is.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    header: Rect,
    table: Rect,
    graphs: Option<[Rect; 2]>,
    log: Rect,
    status: Rect,
    keys: Rect,
}

impl Places {
    /// `None` when the screen is too small.
    fn new(area: Rect) -> Option<Places> {
        if area.width < MIN.0 || area.height < MIN.1 {
            return None;
        }
        let lines = [Constraint::Length(1), Constraint::Min(0), Constraint::Length(1), Constraint::Length(1)];
        let [header, middle, status, keys] = Layout::vertical(lines).areas(area);
        let share = |height: u16| height * 3 / 5;
        let (table, graphs, log) = if area.height < HIGH {
            let [table, log] =
                Layout::vertical([Constraint::Length(share(middle.height)), Constraint::Min(0)])
                    .areas(middle);
            (table, None, log)
        } else if area.width < WIDE {
            let rest = middle.height - GRAPHS;
            let parts = [Constraint::Length(share(rest)), Constraint::Length(GRAPHS), Constraint::Min(0)];
            let [table, graphs, log] = Layout::vertical(parts).areas(middle);
            (table, Some(Layout::horizontal([Constraint::Fill(1); 2]).spacing(1).areas(graphs)), log)
        } else {
            let parts = [Constraint::Length(share(middle.height)), Constraint::Min(0)];
            let [upper, log] = Layout::vertical(parts).areas(middle);
            let halves = [Constraint::Percentage(60), Constraint::Min(0)];
            let [table, graphs] = Layout::horizontal(halves).spacing(2).areas(upper);
            (table, Some(Layout::vertical([Constraint::Fill(1); 2]).areas(graphs)), log)
        };
        Some(Places { header, table, graphs, log, status, keys })
    }
}

/// Draws everything, and tells the state how much of it is on the screen.
pub(super) fn draw(state: &mut State, now: jiff::Timestamp, color: bool, frame: &mut Frame<'_>) {
    let (area, paint) = (frame.area(), Paint { color });
    let buffer = frame.buffer_mut();
    let Some(places) = Places::new(area) else {
        let text = format!("too small: monit needs {} columns and {} lines; q quits", MIN.0, MIN.1);
        Paragraph::new(text).wrap(Wrap { trim: true }).render(area, buffer);
        return;
    };
    // One line of each is its heading.
    let rows = |area: Rect| usize::from(area.height.saturating_sub(1));
    state.fit(rows(places.table), rows(places.log));
    header(state, paint).render(places.header, buffer);
    table::draw(state, paint, places.table, buffer);
    if let Some(areas) = places.graphs {
        graphs::draw(state, paint, areas, buffer);
    }
    log::draw(state, paint, places.log, buffer);
    status_line(state, now, paint).render(places.status, buffer);
    keys(places.keys.width, paint).render(places.keys, buffer);
    if state.focus() == Focus::Help {
        let middle = places.table.union(places.log);
        help(paint, Rect { x: area.x, width: area.width, ..middle }, buffer);
    }
}

/// A line above a part of the screen, with what that part is about.
fn heading(title: Line<'_>, paint: Paint) -> Block<'_> {
    Block::new().borders(Borders::TOP).border_style(paint.style(QUIET)).title(title)
}

fn header(state: &State, paint: Paint) -> Line<'_> {
    let daemon = &state.status.daemon;
    let name = paint.span(format!("supervisor {}", one_line(&daemon.version)), STRONG);
    if let Some(problem) = &state.lost {
        return Line::from(vec![name, paint.span(format!(" · trying again: {}", one_line(problem)), BAD)]);
    }
    let apps = &state.status.apps;
    let sum = |number: fn(&supervisor_protocol::control::Instances) -> u32| {
        apps.iter().map(|app| u64::from(number(&app.instances))).sum::<u64>()
    };
    let mut text = format!(
        " · pid {} · up {} · {} · {} of {} ready",
        daemon.pid,
        units::duration(daemon.uptime_s),
        count(apps.len() as u64, "app"),
        sum(|instances| instances.ready),
        sum(|instances| instances.wanted),
    );
    if let Some(cpu) = apps.iter().filter_map(history::cpu).reduce(|a, b| a + b) {
        text.push_str(&format!(" · {}", units::percent(cpu)));
    }
    if let Some(memory) = apps.iter().filter_map(history::memory).reduce(u64::saturating_add) {
        text.push_str(&format!(" · {}", units::bytes(memory)));
    }
    Line::from(vec![name, Span::raw(text)])
}

/// A question, the filter, news, or what there is to say of what is selected.
fn status_line(state: &State, now: jiff::Timestamp, paint: Paint) -> Line<'static> {
    if let Some(question) = state.question() {
        return paint.span(question, BUSY.bold()).into();
    }
    if state.focus() == Focus::Filter {
        return paint.span(format!("/{}▏", one_line(&state.filter)), STRONG).into();
    }
    if let Some(note) = state.news() {
        let meaning = match note.tone {
            Tone::Busy => BUSY,
            Tone::Good => GOOD,
            Tone::Bad => BAD,
        };
        return paint.span(one_line(&note.text), meaning).into();
    }
    let Some((app, worker)) = state.selection() else { return Line::default() };
    let mut spans = Vec::new();
    if let Some(worker) = worker {
        for (text, meaning) in notes(worker, now) {
            if !spans.is_empty() {
                spans.push(Span::raw("; "));
            }
            spans.push(paint.span(text, meaning));
        }
    } else if let Some(reason) = &app.reason {
        spans.push(paint.span(one_line(reason), BAD));
    } else if !app.listeners.is_empty() {
        let addresses: Vec<String> = app.listeners.iter().map(|one| one_line(&one.address)).collect();
        spans.push(paint.span(format!("serves {}", addresses.join(", ")), QUIET));
    }
    spans.into()
}

/// As many keys as there is room for.
fn keys(width: u16, paint: Paint) -> Line<'static> {
    let mut spans = Vec::new();
    let mut used = 0;
    for text in KEYS {
        let length = text.chars().count() + 2;
        // The gap after the last one need not be seen.
        if used + length - 2 > usize::from(width) {
            break;
        }
        used += length;
        let (key, rest) = text.split_once(' ').unwrap_or((text, ""));
        spans.push(paint.span(key, STRONG));
        spans.push(paint.span(format!(" {rest}  "), QUIET));
    }
    spans.into()
}

fn help(paint: Paint, area: Rect, buffer: &mut Buffer) {
    Clear.render(area, buffer);
    let width = HELP.iter().map(|(keys, _)| keys.chars().count()).max().unwrap_or(0);
    let line = |(keys, does): &(&'static str, &'static str)| {
        Line::from(vec![paint.span(format!("{keys:width$}  "), STRONG), Span::raw(*does)])
    };
    let title = Line::from(paint.span("keys; any key closes this ", STRONG));
    Paragraph::new(HELP.iter().map(line).collect::<Vec<_>>())
        .block(heading(title, paint))
        .render(area, buffer);
}

#[cfg(test)]
mod tests;
