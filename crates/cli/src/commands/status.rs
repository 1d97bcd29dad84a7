//! `supervisor status`

use std::time::Duration;

use supervisor_protocol::control;

use super::{find_daemon, interrupts, selectors, with_selectors};
use crate::args::Status;
use crate::client::{Client, decode};
use crate::exit_code::{ExitCode, Failure};
use crate::render::status::render;
use crate::render::style::{BAD, paint};
use crate::terminal::{Terminal, print};

pub(super) async fn status(options: Status, terminal: Terminal) -> Result<ExitCode, Failure> {
    let path = with_selectors("/v1/status", &selectors(options.selectors, terminal)?);
    let client = find_daemon(terminal).await?;
    if terminal.json {
        print(&client.get(&path).await?)?;
        return Ok(ExitCode::Done);
    }
    let Some(seconds) = options.watch else {
        print(draw(&client, &path, terminal).await?.as_bytes())?;
        return Ok(ExitCode::Done);
    };
    let mut interrupts = interrupts()?;
    tokio::select! {
        result = watch(&client, &path, Duration::from_secs(seconds.get().into()), terminal) => {
            result.map(|()| ExitCode::Done)
        }
        _ = interrupts.recv() => Ok(ExitCode::Done),
    }
}

async fn draw(client: &Client, path: &str, terminal: Terminal) -> Result<String, Failure> {
    let answer = client.get(path).await?;
    Ok(render(&decode::<control::Status>(&answer)?, terminal.canvas()))
}

/// Draws again and again. A daemon that is away for a moment does not end it.
async fn watch(client: &Client, path: &str, pause: Duration, terminal: Terminal) -> Result<(), Failure> {
    let mut text = draw(client, path, terminal).await?;
    if terminal.redraws {
        print(CLEAR)?;
    }
    loop {
        if terminal.redraws {
            print(frame(&text, Terminal::rows()).as_bytes())?;
        } else {
            print(format!("{text}\n").as_bytes())?;
        }
        tokio::time::sleep(pause).await;
        text = match draw(client, path, terminal).await {
            Ok(text) => text,
            Err(Failure { cause, .. }) => {
                format!("{}\n", paint(format_args!("error: {cause:#}"), BAD, terminal.color))
            }
        };
    }
}

/// Erases the screen.
const CLEAR: &[u8] = b"\x1b[2J";

/// The text drawn over what is on the screen, without flicker: each line erases
/// the rest of the old one. What does not fit is counted.
fn frame(text: &str, rows: Option<usize>) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let room = rows.map_or(usize::MAX, |rows| rows - 1);
    let shown = if lines.len() <= room { lines.len() } else { room.saturating_sub(1) };
    let mut frame = String::from("\x1b[H");
    for line in &lines[..shown] {
        frame.push_str(line);
        frame.push_str("\x1b[K\n");
    }
    if shown < lines.len() {
        frame.push_str(&format!("… {} more lines\x1b[K\n", lines.len() - shown));
    }
    frame.push_str("\x1b[J");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_screen() {
        let check = |rows, expected: &str| {
            let frame = frame("a\nb\nc\n", rows);
            assert_eq!(frame, format!("\x1b[H{expected}\x1b[J").replace('\n', "\x1b[K\n"));
        };
        check(None, "a\nb\nc\n");
        check(Some(4), "a\nb\nc\n");
        check(Some(3), "a\n… 2 more lines\n");
        check(Some(2), "… 3 more lines\n");
    }
}
