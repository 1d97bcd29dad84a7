//! What the screen shows: pure, changed by keys and by news of the daemon.

use std::collections::BTreeSet;

use supervisor_protocol::control::{AppState, AppStatus, LogLine, Status, WorkerState, WorkerStatus};

use super::history::Histories;
use super::keys::{Focus, Input, Motion};
use super::log::Log;
use super::order::{Order, Verb};
use crate::render::style::{app_state, worker_state};

/// How many of the last lines of all files are asked for, more or less.
const HISTORY_LINES: usize = 200;

/// How many orders may be under way at a time.
const ORDERS_MAX: usize = 8;

/// How long good news stay, in snapshots, which come once a second.
const NOTE_AGE_MAX: u32 = 10;

/// The longest filter, in characters.
const FILTER_MAX: usize = 64;

/// A line of the table: an app, or one of its slots, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// The index of the app in the status.
    pub(super) app: usize,
    /// The index of the worker in the app; `None` for the app's own line.
    pub(super) worker: Option<usize>,
}

/// An app or one of its slots, over all snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    /// The app's name.
    pub(super) app: String,
    /// The slot.
    pub(super) slot: Option<u32>,
}

impl Subject {
    /// `web`, or `web:0`.
    pub(super) fn selector(&self) -> String {
        match self.slot {
            Some(slot) => format!("{}:{slot}", self.app),
            None => self.app.clone(),
        }
    }
}

/// Which part the arrows move in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    /// Apps and workers.
    Table,
    /// Output.
    Log,
}

/// What the keys are for at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    Browse,
    Filter,
    Confirm(Order),
    Help,
}

/// How news are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// Something is under way.
    Busy,
    /// It is done.
    Good,
    /// It failed.
    Bad,
}

/// A line of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// How it is meant.
    pub(super) tone: Tone,
    /// One line.
    pub(super) text: String,
}

/// What follows from a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing beyond the screen.
    Nothing,
    /// The end.
    Quit,
    /// An order to give.
    Give(Order),
}

/// Everything that the screen shows.
#[derive(Debug)]
pub(super) struct State {
    /// The last snapshot.
    pub(super) status: Status,
    /// Why there is no newer one.
    pub(super) lost: Option<String>,
    /// What was used.
    pub(super) histories: Histories,
    /// The lines of the table, without what is folded or filtered away.
    pub(super) rows: Vec<Row>,
    /// The line that is selected; beyond the end when there is none.
    pub(super) selected: usize,
    /// The first line on the screen.
    pub(super) top: usize,
    /// Where the arrows move.
    pub(super) pane: Pane,
    /// The text that lines must match.
    pub(super) filter: String,
    /// The output of `subject`.
    pub(super) log: Log,
    note: Option<(Note, u32)>,
    subject: Option<Subject>,
    folded: BTreeSet<String>,
    mode: Mode,
    orders: usize,
    page: (usize, usize),
}

impl State {
    /// The state that a first snapshot gives.
    pub(super) fn new(status: Status) -> State {
        let mut state = State {
            status,
            lost: None,
            histories: Histories::default(),
            rows: Vec::new(),
            selected: 0,
            top: 0,
            pane: Pane::Table,
            filter: String::new(),
            log: Log::default(),
            note: None,
            subject: None,
            folded: BTreeSet::new(),
            mode: Mode::Browse,
            orders: 0,
            page: (1, 1),
        };
        state.histories.add(&state.status.apps);
        state.list();
        state
    }

    /// Takes a new snapshot. What was selected stays selected.
    pub(super) fn update(&mut self, status: Status) {
        let (before, now) = (self.status.daemon.pid, status.daemon.pid);
        if before != now {
            self.note(Note {
                tone: Tone::Good,
                text: format!("the daemon's master was replaced: pid {now} after {before}"),
            });
        } else if let Some((note, age)) = &mut self.note {
            *age += 1;
            if note.tone == Tone::Good && *age > NOTE_AGE_MAX {
                self.note = None;
            }
        }
        self.lost = None;
        self.histories.add(&status.apps);
        self.status = status;
        self.folded.retain(|name| self.status.apps.iter().any(|app| app.name == *name));
        self.list();
    }

    /// Takes a line of output, unless it is of what was selected before.
    pub(super) fn add_line(&mut self, of: &Subject, line: LogLine) {
        if self.subject.as_ref() == Some(of) {
            self.log.add(line);
        }
    }

    /// Notes why there is no output, or that there is again.
    pub(super) fn set_log_problem(&mut self, of: &Subject, problem: Option<String>) {
        if self.subject.as_ref() == Some(of) {
            self.log.problem = problem;
        }
    }

    /// Shows news. What failed stays until a key is pressed or the next failure.
    pub(super) fn note(&mut self, note: Note) {
        let failed = self.note.as_ref().is_some_and(|(note, _)| note.tone == Tone::Bad);
        if !failed || note.tone == Tone::Bad {
            self.note = Some((note, 0));
        }
    }

    /// Shows how an order ended.
    pub(super) fn order_ended(&mut self, note: Note) {
        self.orders = self.orders.saturating_sub(1);
        self.note(note);
    }

    /// Does what a key asks for.
    pub(super) fn press(&mut self, input: Input) -> Effect {
        if input == Input::Quit {
            return Effect::Quit;
        }
        match std::mem::replace(&mut self.mode, Mode::Browse) {
            Mode::Browse => return self.browse(input),
            Mode::Filter => self.type_filter(input),
            Mode::Confirm(order) if input == Input::Accept => return self.give(order),
            Mode::Confirm(_) | Mode::Help => {}
        }
        Effect::Nothing
    }

    fn browse(&mut self, input: Input) -> Effect {
        // Whoever presses a key has seen what failed.
        if self.note.as_ref().is_some_and(|(note, _)| note.tone != Tone::Busy) {
            self.note = None;
        }
        match input {
            Input::Quit => return Effect::Quit,
            Input::Cancel if self.filter.is_empty() => return Effect::Quit,
            Input::Cancel => {
                self.filter.clear();
                self.list();
            }
            Input::Go(motion) => self.go(motion),
            Input::Pane => {
                self.pane = match self.pane {
                    Pane::Table => Pane::Log,
                    Pane::Log => Pane::Table,
                }
            }
            Input::Fold => self.fold(),
            Input::Order(verb) => return self.order(verb),
            Input::Toggle => return self.toggle(),
            Input::Filter => self.mode = Mode::Filter,
            Input::Help => self.mode = Mode::Help,
            Input::Type(_) | Input::Erase | Input::Accept => {}
        }
        Effect::Nothing
    }

    fn type_filter(&mut self, input: Input) {
        match input {
            Input::Type(letter) if self.filter.chars().count() < FILTER_MAX => self.filter.push(letter),
            Input::Erase => {
                self.filter.pop();
            }
            Input::Cancel => self.filter.clear(),
            Input::Go(motion) => self.go(motion),
            Input::Type(_)
            | Input::Accept
            | Input::Quit
            | Input::Pane
            | Input::Fold
            | Input::Order(_)
            | Input::Toggle
            | Input::Filter
            | Input::Help => {}
        }
        if !matches!(input, Input::Accept | Input::Cancel) {
            self.mode = Mode::Filter;
        }
        self.list();
    }

    fn go(&mut self, motion: Motion) {
        let (table, log) = self.page;
        let page = match self.pane {
            Pane::Table => table,
            Pane::Log => log,
        };
        let (up, lines) = match motion {
            Motion::Up => (true, 1),
            Motion::Down => (false, 1),
            Motion::PageUp => (true, page),
            Motion::PageDown => (false, page),
            Motion::First => (true, usize::MAX),
            Motion::Last => (false, usize::MAX),
        };
        match (self.pane, up) {
            (Pane::Table, true) => self.select(self.selected.saturating_sub(lines)),
            (Pane::Table, false) => self.select(self.selected.saturating_add(lines)),
            (Pane::Log, true) => self.log.scroll_up(lines),
            (Pane::Log, false) => self.log.scroll_down(lines),
        }
    }

    fn fold(&mut self) {
        let Some(Subject { app, .. }) = self.subject.clone() else { return };
        if !self.folded.remove(&app) {
            self.folded.insert(app.clone());
            self.set_subject(Some(Subject { app, slot: None }));
        }
        self.list();
    }

    fn toggle(&mut self) -> Effect {
        let is_stopped = match self.selection() {
            None => return Effect::Nothing,
            Some((app, None)) => app.state == AppState::Stopped,
            Some((_, Some(worker))) => worker.state == WorkerState::Stopped,
        };
        self.order(if is_stopped { Verb::Start } else { Verb::Stop })
    }

    /// Gives an order for what is selected, or asks first.
    fn order(&mut self, verb: Verb) -> Effect {
        let Some((app, _)) = self.selection() else { return Effect::Nothing };
        let last = app.instances.wanted <= 1;
        let Some(subject) = &self.subject else { return Effect::Nothing };
        let (selector, takes_away) = match verb {
            Verb::Start => (subject.selector(), false),
            Verb::Stop | Verb::Restart => (subject.selector(), true),
            // These are for whole apps.
            Verb::Reload | Verb::More => (subject.app.clone(), false),
            Verb::Fewer => (subject.app.clone(), last),
        };
        let order = Order { verb, selector };
        if takes_away {
            self.mode = Mode::Confirm(order);
            return Effect::Nothing;
        }
        self.give(order)
    }

    fn give(&mut self, order: Order) -> Effect {
        if self.orders >= ORDERS_MAX {
            let text = format!("{ORDERS_MAX} orders are under way: wait until one has ended");
            self.note(Note { tone: Tone::Bad, text });
            return Effect::Nothing;
        }
        self.orders += 1;
        self.note(Note { tone: Tone::Busy, text: format!("{} …", order.title()) });
        Effect::Give(order)
    }

    /// Notes how many lines the table and the log have on the screen, so that
    /// the selected one is among them.
    pub(super) fn fit(&mut self, table: usize, log: usize) {
        self.page = (table.max(1), log.max(1));
        let last = self.rows.len().saturating_sub(table);
        let lowest = (self.selected + 1).saturating_sub(table);
        self.top = self.top.clamp(lowest, self.selected.max(lowest)).min(last.max(lowest));
    }

    /// Who gets the keys.
    pub(super) fn focus(&self) -> Focus {
        match self.mode {
            Mode::Browse => Focus::Screen,
            Mode::Filter => Focus::Filter,
            Mode::Confirm(_) => Focus::Question,
            Mode::Help => Focus::Help,
        }
    }

    /// What is asked, if anything.
    pub(super) fn question(&self) -> Option<String> {
        match &self.mode {
            Mode::Confirm(order) => Some(format!("{}? y/n", order.title())),
            Mode::Browse | Mode::Filter | Mode::Help => None,
        }
    }

    /// The last news.
    pub(super) fn news(&self) -> Option<&Note> {
        self.note.as_ref().map(|(note, _)| note)
    }

    /// Whose use and output are shown.
    pub(super) fn subject(&self) -> Option<&Subject> {
        self.subject.as_ref()
    }

    /// How many of the last lines of each of its files are worth asking for:
    /// fewer the more workers there are.
    pub(super) fn history_lines(&self) -> usize {
        match self.selection() {
            Some((app, None)) => (HISTORY_LINES / app.workers.len().max(1)).max(1),
            Some((_, Some(_))) | None => HISTORY_LINES,
        }
    }

    /// Whether the workers of an app are hidden.
    pub(super) fn is_folded(&self, app: &str) -> bool {
        self.folded.contains(app)
    }

    /// The app of a line, and its worker.
    pub(super) fn at(&self, row: Row) -> Option<(&AppStatus, Option<&WorkerStatus>)> {
        let app = self.status.apps.get(row.app)?;
        match row.worker {
            None => Some((app, None)),
            Some(worker) => Some((app, Some(app.workers.get(worker)?))),
        }
    }

    /// What is selected.
    pub(super) fn selection(&self) -> Option<(&AppStatus, Option<&WorkerStatus>)> {
        self.at(*self.rows.get(self.selected)?)
    }

    fn select(&mut self, row: usize) {
        self.selected = row.min(self.rows.len().saturating_sub(1));
        let subject = self
            .selection()
            .map(|(app, worker)| Subject { app: app.name.clone(), slot: worker.map(|worker| worker.slot) });
        self.set_subject(subject);
    }

    fn set_subject(&mut self, subject: Option<Subject>) {
        if self.subject != subject {
            self.subject = subject;
            self.log = Log::default();
        }
    }

    /// Lists the lines anew. What is selected moves along; if it has gone, its
    /// place is selected.
    fn list(&mut self) {
        let filter = self.filter.to_lowercase();
        let mut rows = Vec::new();
        for (index, app) in self.status.apps.iter().enumerate() {
            let whole = matches_app(app, &filter);
            let begin = rows.len();
            rows.push(Row { app: index, worker: None });
            for (slot, worker) in app.workers.iter().enumerate() {
                if whole || matches_worker(app, worker, &filter) {
                    rows.push(Row { app: index, worker: Some(slot) });
                }
            }
            if !whole && rows.len() == begin + 1 {
                rows.truncate(begin);
            } else if self.folded.contains(&app.name) {
                rows.truncate(begin + 1);
            }
        }
        self.rows = rows;
        let subject = self.subject.as_ref();
        let same = subject.and_then(|subject| {
            self.rows.iter().position(|row| {
                self.at(*row).is_some_and(|(app, worker)| {
                    app.name == subject.app && worker.map(|worker| worker.slot) == subject.slot
                })
            })
        });
        self.select(same.unwrap_or(self.selected));
    }
}

fn matches_app(app: &AppStatus, filter: &str) -> bool {
    [app.name.as_str(), app.namespace.as_str(), app_state(app.state).0]
        .iter()
        .any(|text| text.to_lowercase().contains(filter))
}

fn matches_worker(app: &AppStatus, worker: &WorkerStatus, filter: &str) -> bool {
    let name = format!("{}:{}", app.name.to_lowercase(), worker.slot);
    name.contains(filter)
        || worker_state(worker.state).0.contains(filter)
        || worker.pid.is_some_and(|pid| pid.to_string() == filter)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::render::status::tests::example;

    /// The example with the worker `web:1` selected.
    pub(crate) fn state() -> State {
        let mut state = State::new(example());
        state.press(Input::Go(Motion::Last));
        state.press(Input::Go(Motion::Up));
        state
    }

    fn selected(state: &State) -> String {
        state.subject().map(Subject::selector).unwrap_or_default()
    }

    fn names(state: &State) -> Vec<String> {
        let name = |row: &Row| {
            let (app, worker) = state.at(*row).unwrap();
            worker.map_or(app.name.clone(), |worker| format!("{}:{}", app.name, worker.slot))
        };
        state.rows.iter().map(name).collect()
    }

    fn line(text: &str) -> LogLine {
        let stream = supervisor_protocol::control::Stream::Out;
        LogLine::Line { app: "web".to_owned(), slot: Some(1), stream, line: text.to_owned(), position: None }
    }

    #[test]
    fn motions_select() {
        let mut state = State::new(example());
        let all = names(&state);
        assert_eq!(all.len(), 8, "{all:?}");
        state.fit(3, 3);
        let mut check = |motion, index: usize| {
            state.press(Input::Go(motion));
            assert_eq!(selected(&state), all[index], "{motion:?}");
        };
        check(Motion::Up, 0);
        check(Motion::Down, 1);
        check(Motion::PageDown, 4);
        check(Motion::PageUp, 1);
        check(Motion::Last, 7);
        check(Motion::Down, 7);
        check(Motion::First, 0);
    }

    #[test]
    fn the_selected_line_is_on_the_screen() {
        let mut state = State::new(example());
        let mut check = |motion, rows, top| {
            state.press(Input::Go(motion));
            state.fit(rows, 1);
            assert_eq!(state.top, top, "{motion:?} {rows}");
        };
        check(Motion::Down, 3, 0);
        check(Motion::Last, 3, 5);
        check(Motion::Up, 3, 5);
        check(Motion::First, 3, 0);
        check(Motion::Last, 3, 5);
        check(Motion::Last, 5, 3);
        check(Motion::Last, 50, 0);
        check(Motion::Last, 0, 8);
    }

    #[test]
    fn what_is_selected_stays_selected() {
        let mut state = state();
        assert_eq!(selected(&state), "web:1");
        state.add_line(&Subject { app: "web".to_owned(), slot: Some(1) }, line("kept"));
        let mut status = example();
        status.apps.remove(0);
        state.update(status.clone());
        assert_eq!(selected(&state), "web:1");
        assert_eq!(state.log.entries.len(), 1);
        // Gone: what comes in its place is selected, with a log of its own.
        status.apps.last_mut().unwrap().workers.truncate(1);
        state.update(status);
        assert_eq!(selected(&state), "web:0");
        assert_eq!(state.log.entries.len(), 0);
        state.update(Status { apps: Vec::new(), ..example() });
        assert_eq!(selected(&state), "");
        for input in [Input::Toggle, Input::Fold, Input::Order(Verb::Reload), Input::Go(Motion::Down)] {
            assert_eq!(state.press(input), Effect::Nothing);
        }
    }

    #[test]
    fn late_lines_of_others_are_left_out() {
        let mut state = state();
        state.add_line(&Subject { app: "web".to_owned(), slot: Some(0) }, line("late"));
        assert_eq!(state.log.entries.len(), 0);
    }

    #[test]
    fn folding_selects_the_app() {
        let mut state = state();
        state.press(Input::Fold);
        assert_eq!(selected(&state), "web");
        assert!(names(&state).iter().all(|name| !name.starts_with("web:")));
        state.press(Input::Fold);
        assert_eq!(names(&state).len(), 8);
    }

    #[test]
    fn a_filter_leaves_what_matches() {
        let check = |filter: &str, expected: &[&str]| {
            let mut state = State::new(example());
            state.press(Input::Filter);
            for letter in filter.chars() {
                state.press(Input::Type(letter));
            }
            assert_eq!(names(&state), expected, "{filter}");
            // Esc ends it, and the next one quits.
            state.press(Input::Accept);
            assert_eq!(state.press(Input::Cancel), Effect::Nothing);
            assert_eq!((names(&state).len(), state.press(Input::Cancel)), (8, Effect::Quit));
        };
        check("WE", &["web", "web:0", "web:1", "web:2"]);
        check("web:2", &["web", "web:2"]);
        check("backoff", &["web", "web:2"]);
        check("4712", &["web", "web:1"]);
        check("no such app", &[]);
    }

    #[test]
    fn service_is_taken_away_after_a_question_only() {
        let order = |verb, selector: &str| Order { verb, selector: selector.to_owned() };
        let asked = |input, question: &str, expected| {
            let mut state = state();
            assert_eq!(state.press(input), Effect::Nothing);
            assert_eq!(state.question().as_deref(), Some(question));
            assert_eq!(state.press(Input::Cancel), Effect::Nothing);
            assert_eq!((state.question(), state.focus()), (None, Focus::Screen));
            state.press(input);
            assert_eq!(state.press(Input::Accept), Effect::Give(expected));
        };
        asked(Input::Toggle, "stop web:1? y/n", order(Verb::Stop, "web:1"));
        asked(Input::Order(Verb::Restart), "restart web:1? y/n", order(Verb::Restart, "web:1"));
        let mut state = state();
        let mut at_once = |verb| {
            assert_eq!(state.press(Input::Order(verb)), Effect::Give(order(verb, "web")));
        };
        at_once(Verb::Reload);
        at_once(Verb::More);
        at_once(Verb::Fewer);
        state.status.apps.last_mut().unwrap().instances.wanted = 1;
        assert_eq!(state.press(Input::Order(Verb::Fewer)), Effect::Nothing);
        assert_eq!(state.question().as_deref(), Some("scale web -1? y/n"));
        state.press(Input::Cancel);
        state.status.apps.last_mut().unwrap().workers[1].state = WorkerState::Stopped;
        assert_eq!(state.press(Input::Toggle), Effect::Give(order(Verb::Start, "web:1")));
    }

    #[test]
    fn orders_are_bounded() {
        let mut state = state();
        for _ in 0..ORDERS_MAX {
            assert!(matches!(state.press(Input::Order(Verb::More)), Effect::Give(_)));
        }
        assert_eq!(state.press(Input::Order(Verb::More)), Effect::Nothing);
        assert_eq!(state.news().unwrap().tone, Tone::Bad);
        state.order_ended(Note { tone: Tone::Good, text: String::new() });
        assert!(matches!(state.press(Input::Order(Verb::More)), Effect::Give(_)));
    }

    #[test]
    fn failures_stay_until_they_are_seen() {
        let mut state = state();
        let note = |tone| Note { tone, text: format!("{tone:?}") };
        state.note(note(Tone::Bad));
        state.note(note(Tone::Good));
        for _ in 0..=NOTE_AGE_MAX {
            state.update(example());
        }
        assert_eq!(state.news(), Some(&note(Tone::Bad)));
        state.press(Input::Pane);
        assert_eq!(state.news(), None);
        state.note(note(Tone::Good));
        for _ in 0..=NOTE_AGE_MAX {
            state.update(example());
        }
        assert_eq!(state.news(), None);
    }

    #[test]
    fn another_master_is_told() {
        let mut state = state();
        state.lost = Some("gone".to_owned());
        let mut status = example();
        status.daemon.pid += 1;
        state.update(status);
        assert_eq!(state.lost, None);
        assert_eq!(state.news().unwrap().text, "the daemon's master was replaced: pid 12 after 11");
    }
}
