//! Following an order on stderr: live lines on a terminal, plain ones elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::client::{Answer, as_it_is};
use crate::exit_code::{ExitCode, Failure};
use crate::progress::{News, Tracker};
use crate::render::text::one_line;
use crate::terminal::{Terminal, print};

/// How often a live line moves.
const TICK: Duration = Duration::from_millis(100);

/// What an order is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything there is: what is left out is worth a word.
    Whole,
    /// Some apps.
    Part,
}

/// Follows an order to its end and returns its exit code.
///
/// # Errors
/// When the daemon ends before the order is over.
pub(crate) async fn follow(answer: Answer, scope: Scope, terminal: Terminal) -> Result<ExitCode, Failure> {
    track(answer, Tracker::new(scope == Scope::Whole, terminal.error_color), terminal).await
}

/// Follows an order for what these selectors mean.
///
/// # Errors
/// As [`follow`].
pub(crate) async fn follow_selected(
    answer: Answer,
    selectors: &[String],
    terminal: Terminal,
) -> Result<ExitCode, Failure> {
    track(answer, Tracker::new(false, terminal.error_color).of_slots(selectors), terminal).await
}

async fn track(mut answer: Answer, mut tracker: Tracker, terminal: Terminal) -> Result<ExitCode, Failure> {
    let mut display = Display::new(terminal);
    loop {
        let (line, progress) = answer.next().await?;
        let news = tracker.note(progress);
        if terminal.json {
            print(&as_it_is(line))?;
        } else if let Some(news) = &news {
            display.show(news, &tracker);
        }
        if let Some(News::Done(code)) = news {
            let code = ExitCode::from_number(code);
            if terminal.json {
                return Ok(code);
            }
            if code == ExitCode::RolledBack {
                Terminal::say("rolled back: the old version serves on");
            } else if tracker.has_failed_start() {
                Terminal::say("the daemon keeps trying; see `supervisor status`");
                for app in tracker.failed_new() {
                    Terminal::say(&format!("`supervisor delete {}` forgets it", one_line(app)));
                }
            }
            return Ok(code);
        }
    }
}

/// Reads until the daemon has begun, and leaves the rest to it: it has told
/// what the order means for each of `expected`, or done a first step. What
/// fails by then is told.
///
/// # Errors
/// As [`follow`].
pub(crate) async fn accepted(
    mut answer: Answer,
    mut expected: Option<BTreeSet<String>>,
    terminal: Terminal,
) -> Result<ExitCode, Failure> {
    let mut tracker = Tracker::new(false, terminal.error_color);
    let say = |text: &str| {
        if !terminal.json {
            Terminal::say(text);
        }
    };
    loop {
        let (line, progress) = answer.next().await?;
        let news = tracker.note(progress);
        if terminal.json {
            print(&as_it_is(line))?;
        }
        match news {
            None => {}
            Some(News::App(app)) => {
                say(&tracker.ordered(&app));
                if let Some(expected) = &mut expected
                    && expected.remove(&app)
                    && expected.is_empty()
                {
                    return Ok(ExitCode::Done);
                }
            }
            // What an order means is told before its steps.
            Some(News::Step { .. }) => return Ok(ExitCode::Done),
            Some(News::Failed { text, .. }) => {
                say(&text);
                return Ok(ExitCode::Failed);
            }
            Some(News::Done(code)) => return Ok(ExitCode::from_number(code)),
        }
    }
}

/// Where the news of an order go: a line for each step, or one line an app
/// that is rewritten as it goes on.
#[derive(Debug)]
struct Display {
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    screen: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
}

impl Display {
    fn new(terminal: Terminal) -> Display {
        // Details are steps, and steps are lines.
        let live = terminal.error_redraws && !terminal.verbose && !terminal.json;
        Display { live: live.then(Live::new) }
    }

    fn show(&mut self, news: &News, tracker: &Tracker) {
        match &mut self.live {
            Some(live) => live.show(news, tracker),
            None => show_plain(news, tracker),
        }
    }
}

impl Live {
    fn new() -> Live {
        let screen = MultiProgress::new();
        // Lines are written over the old ones: erased first, they would flicker.
        screen.set_move_cursor(true);
        Live { screen, bars: BTreeMap::new() }
    }

    fn show(&mut self, news: &News, tracker: &Tracker) {
        match news {
            News::App(app) => {
                let bar = self.screen.add(ProgressBar::new_spinner().with_style(line_style()));
                bar.set_message(tracker.current(app));
                bar.enable_steady_tick(TICK);
                self.bars.insert(app.clone(), bar);
            }
            News::Step { app, .. } => self.update(app, tracker),
            News::Failed { app, text } => {
                self.screen.suspend(|| Terminal::say(text));
                self.update(app, tracker);
            }
            News::Done(_) => {
                // There is a line less each time, which has to be erased.
                self.screen.set_move_cursor(false);
                for (app, bar) in &self.bars {
                    bar.finish_and_clear();
                    self.screen.suspend(|| Terminal::say(&tracker.outcome(app)));
                }
            }
        }
    }

    fn update(&self, app: &str, tracker: &Tracker) {
        if let Some(bar) = self.bars.get(app) {
            bar.set_message(tracker.current(app));
        }
    }
}

/// One line, cut where the terminal ends: a longer one would leave rests of
/// itself behind.
fn line_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn show_plain(news: &News, tracker: &Tracker) {
    match news {
        // What becomes of it is told in the end.
        News::App(_) => {}
        News::Step { text, .. } | News::Failed { text, .. } => Terminal::say(text),
        News::Done(_) => {
            for app in tracker.apps() {
                Terminal::say(&tracker.outcome(app));
            }
        }
    }
}
