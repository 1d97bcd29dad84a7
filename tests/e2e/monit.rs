//! The full-screen view, in terminals of several sizes.

use supervisor_sys::signal::Signal;

use crate::harness::{Home, text};
use crate::process;
use crate::programs::supervisor;
use crate::terminal::{Left, SIZES, Screen};

const SPEAKER: &str =
    "command: [sh, -c, 'echo slot $SUPERVISOR_INSTANCE speaks; exec sleep 600']\nmin_uptime: 50ms";

/// `monit` in a terminal, and then how it left the terminal.
fn monit(home: &Home, size: (u16, u16)) -> Screen {
    let program = supervisor();
    Screen::start(home, size, &format!("{} monit; code=$?; stty -a; exit $code", text(&program)))
}

/// The end of `monit`: the terminal is as it was.
#[track_caller]
fn left(screen: Screen, code: i32) -> Left {
    let left = screen.finish();
    let shown = left.screen.contents();
    assert_eq!(left.code, Some(code), "{shown}");
    assert!(!left.screen.alternate_screen() && !left.screen.hide_cursor(), "{shown}");
    assert!(shown.contains(" icanon") && shown.contains(" echo "), "{shown}");
    left
}

#[test]
fn it_shows_workers_and_their_output_and_takes_orders() {
    for size in SIZES {
        let home = Home::new();
        home.start_app("web", &format!("{SPEAKER}\ninstances: 2"));
        let pids: Vec<String> = home.pids("web").iter().map(ToString::to_string).collect();
        let mut screen = monit(&home, size);
        screen.shows_all(&["1 app · 2 of 2 ready", "online", &pids[0], &pids[1], "log web "]);
        screen.shows_all(&["web:0 | slot 0 speaks", "web:1 | slot 1 speaks"]);
        // Measured, and drawn.
        screen.shows_what("memory", |shown| shown.contains("memory web  ") && shown.contains('█'));

        screen.assert_unwrapped();

        screen.press("j");
        screen.shows_all(&["log web:0 ", "| slot 0 speaks"]);
        screen.shows_what("one slot's lines", |shown| !shown.contains("slot 1 speaks"));
        screen.press("r");
        screen.shows("restart web:0? y/n");
        screen.press("n");
        screen.shows_what("no question", |shown| !shown.contains("y/n"));
        screen.press("\x1b[Br");
        screen.shows("restart web:1? y/n");
        screen.press("y");
        screen.shows("web:1 restarted");
        let before = pids[1].as_str();
        home.app_when("web", "has another worker", |app| {
            app["workers"][1]["pid"].as_u64().is_some_and(|pid| pid.to_string() != before)
        });
        let now = home.pids("web");
        screen.shows(&now[1].to_string());
        assert_eq!(now[0].to_string(), pids[0], "the other slot is left alone");

        screen.press("q");
        let left = left(screen, 0);
        assert!(!left.screen.contents().contains("ready"), "{}", left.screen.contents());
    }
}

#[test]
fn apps_are_stopped_started_scaled_and_reloaded() {
    let home = Home::new();
    home.start_app("web", &format!("{SPEAKER}\ninstances: 1"));
    let mut screen = monit(&home, SIZES[0]);
    screen.shows("online");
    screen.press("+");
    screen.shows_all(&["web scaled to 2 workers", "2/2"]);
    screen.press("-");
    screen.shows_all(&["web scaled to 1 worker", "1/1"]);
    screen.press("sy");
    screen.shows_all(&["web stopped", "0/0"]);
    screen.press("s");
    screen.shows_all(&["web started", "online"]);
    screen.press("R");
    screen.shows("web reloaded, 1 worker ready");
    screen.press("\x03");
    left(screen, 0);
}

#[test]
fn what_went_wrong_is_told() {
    let home = Home::new();
    // Only its first life is a good one.
    let script = "test -e second && exit 3; touch second; exec sleep 600";
    home.start_app("web", &format!("command: [sh, -c, '{script}']\ninstances: 1\nmin_uptime: 3s"));
    let mut screen = monit(&home, SIZES[1]);
    screen.shows("online");
    screen.press("R");
    screen.shows_all(&["web:0 failed: exited with code 3", "rolled back: the old version serves on"]);
    screen.press("/");
    screen.press("api");
    screen.shows_all(&["/api", "nothing matches the filter"]);
    screen.press("\x1b");
    screen.shows("online");
    screen.press("?");
    screen.shows("any key closes this");
    screen.press("?q");
    left(screen, 0);
}

#[test]
fn it_goes_on_with_the_next_master() {
    let home = Home::new();
    home.start_app("web", &format!("{SPEAKER}\ninstances: 1"));
    let mut screen = monit(&home, SIZES[0]);
    screen.shows("slot 0 speaks");
    let before = home.daemon().1;
    process::signal(before, Signal::KILL);
    screen.shows("the daemon's master was replaced: pid ");
    home.app_in_state("web", "online");
    let pid = home.pids("web")[0].to_string();
    screen.shows_all(&["online", &pid]);
    // Of a daemon that is away it says so until there is one again.
    home.ok(&["kill", "--now"]);
    screen.shows("trying again: ");
    home.ok(&["start", "app.yaml"]);
    screen.shows_what("the next daemon", |shown| !shown.contains("trying again") && shown.contains("online"));
    screen.press("q");
    left(screen, 0);
}

#[test]
fn it_follows_the_size_of_the_terminal() {
    let home = Home::new();
    home.start_app("web", &format!("{SPEAKER}\ninstances: 1"));
    let screen = monit(&home, SIZES[1]);
    screen.shows_all(&["memory web", "Tab log"]);
    screen.resize((8, 30));
    screen.shows("too small");
    screen.resize((10, 40));
    screen.shows_what("a small screen", |shown| shown.contains("log web") && !shown.contains("memory web"));
    screen.resize(SIZES[0]);
    screen.shows_all(&["memory web", "slot 0 speaks"]);
    let mut screen = screen;
    screen.press("q");
    left(screen, 0);
}

#[test]
fn signals_end_it_and_the_terminal_is_restored() {
    let home = Home::new();
    home.start_app("web", &format!("{SPEAKER}\ninstances: 1"));
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let program = supervisor();
        let line =
            format!("sh -c 'echo $$ > pid; exec {} monit'; code=$?; stty -a; exit $code", text(&program));
        let screen = Screen::start(&home, SIZES[0], &line);
        screen.shows("online");
        let pid = std::fs::read_to_string(home.path("pid")).unwrap();
        process::signal(pid.trim().parse().unwrap(), signal);
        left(screen, 0);
    }
}

#[test]
fn colours_are_left_out_when_nobody_wants_them() {
    let home = Home::new();
    home.start_app("web", &format!("{SPEAKER}\ninstances: 1"));
    for (before, after, coloured) in [("", "", true), ("NO_COLOR=1", "", false), ("", "--color never", false)]
    {
        let line = format!("{before} {} monit {after}; code=$?; stty -a; exit $code", text(&supervisor()));
        let mut screen = Screen::start(&home, SIZES[0], &line);
        screen.shows_all(&["online", "slot 0 speaks"]);
        screen.press("q");
        let bytes = String::from_utf8_lossy(&left(screen, 0).bytes).into_owned();
        assert_eq!(bytes.contains("38;5;2"), coloured, "{bytes:?}");
    }
}

#[test]
fn where_it_cannot_be_shown_it_says_so() {
    let home = Home::new();
    // Nobody has to be there to tell that stdout is none.
    let failed = home.ends(2, &["monit"]);
    assert!(failed.stderr.contains("monit needs a terminal"), "{failed:?}");
    let check = |before: &str, code, expected: &str| {
        let line = format!("{before} {} monit; code=$?; stty -a; exit $code", text(&supervisor()));
        let left = left(Screen::start(&home, (40, 160), &line), code);
        assert!(left.screen.contents().contains(expected), "{}", left.screen.contents());
    };
    check("", 4, "error: no daemon is running in ");
    check("TERM=dumb", 2, "TERM=dumb");
    check("stty rows 0 cols 0;", 2, "has no size");
}
