//! `supervisor monit`: a live view of everything, full screen.
//!
//! [`State`] is what is shown, pure: [`keys`] say what a key asks for, [`view`]
//! draws it. [`feed`] asks the daemon in the background, [`screen`] has the
//! terminal. The loop here connects them and waits for nobody but the next
//! event.

mod feed;
mod history;
mod keys;
mod log;
mod order;
mod screen;
mod state;
mod view;

use std::time::Duration;

use anyhow::Context;
use ratatui::crossterm::event::Event;
use supervisor_protocol::control::Status;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::feed::{Feed, News};
use self::screen::Screen;
use self::state::{Effect, State};
use super::find_daemon;
use crate::client::decode;
use crate::exit_code::{ExitCode, Failure};
use crate::terminal::Terminal;

/// The least time between two frames, however much there is to show.
const FRAME: Duration = Duration::from_millis(40);

pub(super) async fn monit(terminal: Terminal) -> Result<ExitCode, Failure> {
    Screen::check(terminal.redraws)?;
    let client = find_daemon(terminal).await?;
    let status: Status = decode(&client.get("/v1/status").await?)?;
    let mut ends = Ends::new()?;
    let mut screen = Screen::take(terminal.color)?;
    let (feed, mut news) = Feed::start(client);
    let mut inputs = screen::inputs();
    let mut state = State::new(status);
    tokio::select! {
        result = run(&mut state, &mut screen, &feed, &mut inputs, &mut news, terminal.color) => result?,
        () = ends.recv() => {}
    }
    Ok(ExitCode::Done)
}

/// Shows what happens until somebody wants to leave.
async fn run(
    state: &mut State,
    screen: &mut Screen,
    feed: &Feed,
    inputs: &mut mpsc::Receiver<Event>,
    news: &mut mpsc::Receiver<News>,
    color: bool,
) -> anyhow::Result<()> {
    let mut next_frame = Instant::now();
    let mut is_stale = true;
    loop {
        feed.follow(state.subject(), state.history_lines());
        if is_stale && Instant::now() >= next_frame {
            screen.draw(|frame| view::draw(state, jiff::Timestamp::now(), color, frame))?;
            is_stale = false;
            next_frame = Instant::now() + FRAME;
        }
        tokio::select! {
            biased;
            input = inputs.recv() => match input {
                // The terminal has gone.
                None => return Ok(()),
                Some(Event::Key(key)) => {
                    let Some(input) = keys::read(key, state.focus()) else { continue };
                    match state.press(input) {
                        Effect::Nothing => {}
                        Effect::Quit => return Ok(()),
                        Effect::Give(order) => feed.give(order),
                    }
                }
                Some(Event::Resize(..)) => {}
                Some(Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_)) => continue,
            },
            Some(news) = news.recv() => take(state, news),
            () = sleep_until(next_frame), if is_stale => continue,
        }
        is_stale = true;
    }
}

fn take(state: &mut State, news: News) {
    match news {
        News::Status(Ok(status)) => state.update(*status),
        News::Status(Err(problem)) => state.lost = Some(problem),
        News::Line(subject, line) => state.add_line(&subject, line),
        News::Log(subject, problem) => state.set_log_problem(&subject, problem),
        News::Order(note) => state.note(note),
        News::Ended(note) => state.order_ended(note),
    }
}

/// The signals that ask for an end. With the screen taken, Ctrl-C is a key.
#[derive(Debug)]
struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Ends {
    fn new() -> anyhow::Result<Ends> {
        let wait = |kind| signal(kind).context("cannot wait for signals");
        Ok(Ends {
            interrupt: wait(SignalKind::interrupt())?,
            terminate: wait(SignalKind::terminate())?,
            hangup: wait(SignalKind::hangup())?,
        })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
