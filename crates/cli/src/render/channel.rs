//! `tail-channel`: what workers say, a line each.

use supervisor_protocol::control::Overheard;

use super::style::{BUSY, STRONG, paint};
use super::text::{count, one_line};

/// The line of a message, ended by `\n`.
pub(crate) fn line(overheard: &Overheard, color: bool) -> String {
    let Overheard { app, slot, message, missed } = overheard;
    if let Some(missed) = missed {
        let text = format!("… {} left out: this reader was too slow", count(*missed, "message"));
        return format!("{}\n", paint(text, BUSY, color));
    }
    let app = one_line(app.as_deref().unwrap_or_default());
    let place = format!("{app}:{}", slot.unwrap_or_default());
    let message = message.as_ref().map_or("", |message| message.get());
    format!("{}  {}\n", paint(place, STRONG, color), one_line(message))
}
