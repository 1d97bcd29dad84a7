//! CPU and memory of what is selected, over the last minutes.

use std::collections::VecDeque;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{RenderDirection, Sparkline, Widget};

use super::super::state::{State, Subject};
use super::heading;
use super::paint::Paint;
use crate::render::style::{BUSY, GOOD, STRONG};
use crate::render::units;

/// The least height of the CPU's scale, in tenths of a per cent: what hardly
/// works looks so.
const CPU_SCALE_MIN: u64 = 100;

/// Draws CPU and memory, the newest sample on the right.
pub(super) fn draw(state: &State, paint: Paint, [cpu_area, memory_area]: [Rect; 2], buffer: &mut Buffer) {
    let history = state.subject().and_then(|Subject { app, slot }| {
        Some((state.subject()?.selector(), state.histories.get(app, *slot)?))
    });
    let empty = VecDeque::new();
    let (of, cpu, memory) = match &history {
        Some((of, history)) => (of.as_str(), &history.cpu, &history.memory),
        None => ("", &empty, &empty),
    };
    // Tenths of a per cent lose nothing worth seeing.
    let percent = |tenths: u64| units::percent(tenths as f64 / 10.0);
    let graphs = [
        ("CPU", cpu, CPU_SCALE_MIN, GOOD, cpu_area, &percent as &dyn Fn(u64) -> String),
        ("memory", memory, 1, BUSY, memory_area, &units::bytes),
    ];
    for (what, samples, scale_min, meaning, area, text) in graphs {
        let max = samples.iter().flatten().copied().max();
        let now = samples.front().copied().flatten();
        let mut title = vec![paint.span(format!("{what} {of}"), STRONG)];
        if let Some(now) = now {
            title.push(Span::raw(format!("  {}", text(now))));
        }
        if let Some(max) = max {
            title.push(Span::raw(format!("  max {}", text(max))));
        }
        title.push(Span::raw(" "));
        Sparkline::default()
            .block(heading(Line::from(title), paint))
            .data(samples.iter().copied())
            .max(max.unwrap_or(0).max(scale_min))
            .direction(RenderDirection::RightToLeft)
            .style(paint.style(meaning))
            .render(area, buffer);
    }
}
