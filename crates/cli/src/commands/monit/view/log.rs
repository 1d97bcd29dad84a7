//! The output of what is selected.

use anstyle::Style as Meaning;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::super::log::Entry;
use super::super::state::{Pane, State, Subject};
use super::heading;
use super::paint::Paint;
use crate::render::logs::worker_style;
use crate::render::style::{BAD, BUSY, QUIET, STRONG};
use crate::render::text::{count, one_line};

/// Draws the lines that there is room for; longer ones are cut.
pub(super) fn draw(state: &State, paint: Paint, area: Rect, buffer: &mut Buffer) {
    let title = title(state, paint);
    let block = heading(title, paint);
    let inner = block.inner(area);
    block.render(area, buffer);
    let of_app = state.subject().is_some_and(|subject| subject.slot.is_none());
    for (entry, y) in state.log.shown(usize::from(inner.height)).zip(inner.y..inner.bottom()) {
        buffer.set_line(inner.x, y, &line(entry, of_app, paint), inner.width);
    }
}

fn title(state: &State, paint: Paint) -> Line<'static> {
    let selector = state.subject().map(Subject::selector).unwrap_or_default();
    let meaning = if state.pane == Pane::Log { STRONG.underline() } else { Meaning::new() };
    let mut title = vec![paint.span(format!("log {selector}"), meaning)];
    let log = &state.log;
    if log.missed > 0 {
        title.push(paint.span(format!(" · {} missed", count(log.missed, "piece")), BUSY));
    }
    if log.below() > 0 {
        title.push(Span::raw(format!(" · {} below", count(log.below() as u64, "line"))));
    }
    if let Some(problem) = &log.problem {
        title.push(paint.span(format!(" · {}", one_line(problem)), BAD));
    }
    title.push(Span::raw(" "));
    title.into()
}

fn line<'a>(entry: &'a Entry, of_app: bool, paint: Paint) -> Line<'a> {
    let mark = if entry.is_error { paint.span("! ", BAD) } else { paint.span("| ", QUIET) };
    let mut spans = Vec::with_capacity(3);
    if of_app {
        let name = match entry.slot {
            Some(slot) => format!("{}:{slot} ", one_line(&entry.app)),
            None => format!("{} ", one_line(&entry.app)),
        };
        spans.push(paint.span(name, worker_style(&entry.app, entry.slot.unwrap_or(0))));
    }
    spans.extend([mark, Span::raw(&entry.text)]);
    spans.into()
}
