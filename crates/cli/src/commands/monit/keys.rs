//! What keys mean.

#![expect(clippy::wildcard_enum_match_arm, reason = "a key that is not named has no meaning")]

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::order::Verb;

/// Who gets the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Focus {
    /// The table and the log.
    Screen,
    /// The line in which the filter is typed.
    Filter,
    /// A question.
    Question,
    /// The list of keys.
    Help,
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// Leave.
    Quit,
    /// Go somewhere in the table or the log.
    Go(Motion),
    /// The other pane.
    Pane,
    /// Fold or unfold the selected app.
    Fold,
    /// Order this.
    Order(Verb),
    /// Stop what runs, start what is stopped.
    Toggle,
    /// Type a filter.
    Filter,
    /// Show the keys.
    Help,
    /// A letter of the filter.
    Type(char),
    /// Take the filter's last letter back.
    Erase,
    /// The filter is complete; the answer is yes.
    Accept,
    /// Leave what was begun.
    Cancel,
}

/// Where to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Motion {
    /// A line up.
    Up,
    /// A line down.
    Down,
    /// A screen up.
    PageUp,
    /// A screen down.
    PageDown,
    /// To the beginning.
    First,
    /// To the end.
    Last,
}

/// The keys and what they do, for the help.
pub(super) const HELP: [(&str, &str); 12] = [
    ("↑ ↓  j k", "select; in the log: scroll"),
    ("PgUp PgDn  Home End  g G", "the same, further"),
    ("Tab", "from the table to the log and back"),
    ("Enter  Space", "fold or unfold an app"),
    ("r", "restart the app or the worker, slot by slot"),
    ("R", "reload the app: new workers beside the old ones, nothing is lost"),
    ("s", "stop what runs, start what is stopped"),
    ("+  -", "one worker more or less"),
    ("/", "filter by name, namespace, state or pid"),
    ("Esc", "clear the filter; quit"),
    ("?", "these keys"),
    ("q  Ctrl-C", "quit; orders go on without you"),
];

/// What a key asks for; `None` for one without a meaning.
pub(super) fn read(key: KeyEvent, focus: Focus) -> Option<Input> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Input::Quit);
    }
    match focus {
        Focus::Screen => on_screen(key.code),
        Focus::Filter => in_filter(key.code),
        Focus::Question => Some(match key.code {
            KeyCode::Char('y' | 'Y') => Input::Accept,
            _ => Input::Cancel,
        }),
        Focus::Help => Some(Input::Cancel),
    }
}

fn on_screen(code: KeyCode) -> Option<Input> {
    let input = match code {
        KeyCode::Char('q') => Input::Quit,
        KeyCode::Esc => Input::Cancel,
        KeyCode::Char('k') => Input::Go(Motion::Up),
        KeyCode::Char('j') => Input::Go(Motion::Down),
        KeyCode::Char('g') => Input::Go(Motion::First),
        KeyCode::Char('G') => Input::Go(Motion::Last),
        KeyCode::Tab | KeyCode::BackTab => Input::Pane,
        KeyCode::Enter | KeyCode::Char(' ') => Input::Fold,
        KeyCode::Char('r') => Input::Order(Verb::Restart),
        KeyCode::Char('R') => Input::Order(Verb::Reload),
        KeyCode::Char('s') => Input::Toggle,
        KeyCode::Char('+') => Input::Order(Verb::More),
        KeyCode::Char('-') => Input::Order(Verb::Fewer),
        KeyCode::Char('/') => Input::Filter,
        KeyCode::Char('?') => Input::Help,
        code => return motion(code).map(Input::Go),
    };
    Some(input)
}

fn in_filter(code: KeyCode) -> Option<Input> {
    match code {
        KeyCode::Char(letter) => Some(Input::Type(letter)),
        KeyCode::Backspace => Some(Input::Erase),
        KeyCode::Enter => Some(Input::Accept),
        KeyCode::Esc => Some(Input::Cancel),
        code => motion(code).map(Input::Go),
    }
}

fn motion(code: KeyCode) -> Option<Motion> {
    let known = [
        (KeyCode::Up, Motion::Up),
        (KeyCode::Down, Motion::Down),
        (KeyCode::PageUp, Motion::PageUp),
        (KeyCode::PageDown, Motion::PageDown),
        (KeyCode::Home, Motion::First),
        (KeyCode::End, Motion::Last),
    ];
    known.into_iter().find_map(|(key, motion)| (key == code).then_some(motion))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_their_place_says() {
        let check = |focus, code: KeyCode, expected| {
            assert_eq!(read(KeyEvent::from(code), focus), expected, "{focus:?} {code:?}");
        };
        check(Focus::Screen, KeyCode::Char('q'), Some(Input::Quit));
        check(Focus::Screen, KeyCode::Char('j'), Some(Input::Go(Motion::Down)));
        check(Focus::Screen, KeyCode::PageUp, Some(Input::Go(Motion::PageUp)));
        check(Focus::Screen, KeyCode::Char('R'), Some(Input::Order(Verb::Reload)));
        check(Focus::Screen, KeyCode::Char('x'), None);
        check(Focus::Filter, KeyCode::Char('q'), Some(Input::Type('q')));
        check(Focus::Filter, KeyCode::Down, Some(Input::Go(Motion::Down)));
        check(Focus::Filter, KeyCode::F(1), None);
        check(Focus::Question, KeyCode::Char('y'), Some(Input::Accept));
        check(Focus::Question, KeyCode::Enter, Some(Input::Cancel));
        check(Focus::Help, KeyCode::Char('q'), Some(Input::Cancel));
    }

    #[test]
    fn ctrl_c_quits_everywhere() {
        let ctrl = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
        for focus in [Focus::Screen, Focus::Filter, Focus::Question, Focus::Help] {
            assert_eq!(read(ctrl('c'), focus), Some(Input::Quit));
            assert_eq!(read(ctrl('s'), focus), None);
        }
    }
}
