//! Styles by meaning, for the full screen.

use std::borrow::Cow;

use anstyle::{AnsiColor, Effects, Style as Meaning};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;

/// Turns what the other commands paint with into styles of the screen, without
/// colours where they are not wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    /// Whether to use colours.
    pub(super) color: bool,
}

impl Paint {
    /// The style of this meaning.
    pub(super) fn style(self, meaning: Meaning) -> Style {
        let effects = meaning.get_effects();
        let modifiers = [
            (Effects::BOLD, Modifier::BOLD),
            (Effects::DIMMED, Modifier::DIM),
            (Effects::UNDERLINE, Modifier::UNDERLINED),
        ];
        let modifiers = modifiers.into_iter().filter(|(effect, _)| effects.contains(*effect));
        let style = Style::new().add_modifier(modifiers.map(|(_, modifier)| modifier).collect());
        match meaning.get_fg_color() {
            Some(anstyle::Color::Ansi(color)) if self.color => style.fg(ansi(color)),
            Some(anstyle::Color::Ansi256(color)) if self.color => style.fg(Color::Indexed(color.0)),
            Some(anstyle::Color::Rgb(color)) if self.color => style.fg(Color::Rgb(color.0, color.1, color.2)),
            Some(_) | None => style,
        }
    }

    /// Text with this meaning.
    pub(super) fn span<'a>(self, text: impl Into<Cow<'a, str>>, meaning: Meaning) -> Span<'a> {
        Span::styled(text, self.style(meaning))
    }
}

/// The terminal's own colours, which both libraries number alike.
fn ansi(color: AnsiColor) -> Color {
    Color::Indexed(anstyle::Ansi256Color::from_ansi(color).0)
}
