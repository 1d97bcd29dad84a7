//! `tail-channel`: what workers say, a line each.

use supervisor_protocol::control::Overheard;

use super::style::{BUSY, STRONG, paint};
use super::text::{count, one_line};

/// The line of a message, ended by `\n`.
pub(crate) fn line(overheard: &Overheard, color: bool) -> String {
    let Overheard { app, slot, message, bytes, missed } = overheard;
    if let Some(missed) = missed {
        let text = format!("… {} left out: this reader was too slow", count(*missed, "message"));
        return format!("{}\n", paint(text, BUSY, color));
    }
    let app = one_line(app.as_deref().unwrap_or_default());
    let place = format!("{app}:{}", slot.unwrap_or_default());
    let text = match (message, bytes) {
        (Some(message), _) => one_line(message.get()),
        (None, Some(bytes)) => format!("… a message of {bytes} bytes"),
        (None, None) => String::new(),
    };
    format!("{}  {text}\n", paint(place, STRONG, color))
}
