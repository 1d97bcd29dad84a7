//! What is on screens of several sizes.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use supervisor_protocol::control::{LogLine, Status, Stream};

use super::super::keys::{Input, Motion};
use super::super::state::tests::state;
use super::super::state::{Note, Subject};
use super::*;
use crate::render::status::tests::{canvas, example};

fn buffer(state: &mut State, width: u16, height: u16, color: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(state, canvas(80, false).now, color, frame)).unwrap();
    terminal.backend().buffer().clone()
}

fn lines(state: &mut State, width: u16, height: u16) -> Vec<String> {
    let buffer = buffer(state, width, height, false);
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn web() -> Subject {
    Subject { app: "web".to_owned(), slot: Some(1) }
}

/// A state with output of the selected worker, `web:1`.
fn busy() -> State {
    let mut state = state();
    for (stream, line) in [(Stream::Out, "hello"), (Stream::Error, "\x1b[2Joh \x1b[31mno")] {
        let line = LogLine::Line {
            app: "web".to_owned(),
            slot: Some(1),
            stream,
            line: line.to_owned(),
            position: None,
        };
        state.add_line(&web(), line);
    }
    state
}

#[test]
fn a_screen_of_80_by_24() {
    insta::assert_snapshot!(lines(&mut busy(), 80, 24).join("\n"));
}

#[test]
fn a_screen_of_200_by_50() {
    insta::assert_snapshot!(lines(&mut busy(), 200, 50).join("\n"));
}

#[test]
fn the_smallest_screen() {
    insta::assert_snapshot!(lines(&mut busy(), 40, 10).join("\n"));
}

#[test]
fn no_size_is_too_small_or_too_large() {
    for (width, height) in [(1, 1), (39, 10), (40, 9), (40, 10), (41, 19), (119, 19), (120, 19), (400, 12)] {
        for input in [Input::Pane, Input::Filter, Input::Cancel, Input::Help, Input::Cancel] {
            let mut state = busy();
            state.press(input);
            let shown = lines(&mut state, width, height);
            assert_eq!(shown.concat().contains("supervisor 0.1.0"), width >= 40 && height >= 10);
        }
    }
    assert!(lines(&mut busy(), 39, 10).join(" ").contains("too small: monit needs 40 columns and 10 lines"));
}

#[test]
fn nothing_to_show() {
    let mut state = State::new(Status { apps: Vec::new(), ..example() });
    assert!(lines(&mut state, 80, 24).join("\n").contains("no apps yet"));
    let mut state = busy();
    state.press(Input::Filter);
    state.press(Input::Type('?'));
    let shown = lines(&mut state, 80, 24);
    assert!(shown.contains(&"/?▏".to_owned()) && shown.join("\n").contains("nothing matches"), "{shown:#?}");
}

#[test]
fn questions_news_and_notes_share_a_line() {
    let line = |state: &mut State| lines(state, 80, 24)[22].clone();
    let mut state = busy();
    assert_eq!(line(&mut state), "1: serving 12 clients");
    state.press(Input::Go(Motion::Down));
    assert_eq!(line(&mut state), "2: exited with code 1, 12s ago; next start in 4s");
    state.note(Note { tone: Tone::Bad, text: "web:0 failed\x1b[2J".to_owned() });
    assert_eq!(line(&mut state), "web:0 failed");
    state.press(Input::Toggle);
    assert_eq!(line(&mut state), "stop web:2? y/n");
    state.press(Input::Cancel);
    state.press(Input::Fold);
    assert_eq!(line(&mut state), "serves [::]:8080");
}

#[test]
fn a_daemon_that_is_away_is_told() {
    let mut state = busy();
    state.lost = Some("no daemon is running".to_owned());
    let shown = lines(&mut state, 80, 24);
    assert_eq!(shown[0], "supervisor 0.1.0 · trying again: no daemon is running");
    state.log.problem = Some("gone".to_owned());
    state.add_line(&web(), LogLine::Missed { chunks: 3 });
    let shown = lines(&mut state, 80, 24).join("\n");
    assert!(shown.contains("log web:1 · 3 pieces missed · gone"), "{shown}");
}

#[test]
fn colours_only_where_they_are_wanted() {
    let colors = |color| {
        let buffer = buffer(&mut busy(), 80, 24, color);
        buffer.content.iter().filter(|cell| cell.fg != ratatui::style::Color::Reset).count()
    };
    assert_eq!(colors(false), 0);
    assert!(colors(true) > 20);
}

#[test]
fn a_thousand_workers_are_a_screen_of_them() {
    let mut status = example();
    let app = status.apps.last_mut().unwrap();
    let worker = app.workers[0].clone();
    app.workers =
        (0..1000).map(|slot| supervisor_protocol::control::WorkerStatus { slot, ..worker.clone() }).collect();
    let mut state = State::new(status);
    state.press(Input::Go(Motion::Last));
    let shown = lines(&mut state, 80, 24);
    assert!(shown.iter().any(|line| line.contains(" 999 ")), "{shown:#?}");
    assert_eq!(shown.iter().filter(|line| line.contains("ready ")).count(), 10, "{shown:#?}");
    state.press(Input::Go(Motion::PageUp));
    let shown = lines(&mut state, 80, 24);
    assert!(shown.iter().any(|line| line.contains(" 990 ")), "{shown:#?}");
}
