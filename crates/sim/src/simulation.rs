//! One run, from its seed to its end.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use supervisor_core::{Event, Timestamp};

use crate::coverage::Coverage;
use crate::machine::Machine;
use crate::observed::{Entry, Observed};
use crate::panics::caught;
use crate::people::{APPS, People};
use crate::properties::{self, Broken, Check};

/// How long it may take until all is well once the machine behaves: every slot
/// of an app in turn may wait for its try, and no other wait is longer.
const CALM: Duration = Duration::from_secs(30 * 60);

/// How long an ordered end may take beyond `kill_timeout` and what a worker was
/// granted: a spawn that was under way, late news of it, the end of a killed
/// process and late news of that.
const END: Duration = Duration::from_secs(60);

/// In how many of 256 turns the master dies: when its actions are performed,
/// or before, or in between.
const DEATHS: u8 = 8;

/// What to simulate. Equal simulations run equally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simulation {
    /// Decides everything.
    pub seed: u64,
    /// Events until the machine begins to behave.
    pub steps: u32,
    /// The apps that people give orders about, by number.
    pub apps: BTreeSet<u32>,
}

/// A run in which every property held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Of everything that happened, in order.
    pub hash: u64,
    /// Events that were handled.
    pub events: u64,
    /// Workers that were started.
    pub workers: u64,
    /// How much time passed in the simulation.
    pub simulated: Duration,
    /// Which event met which state.
    pub coverage: Coverage,
}

/// A run in which a property broke.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The run.
    pub simulation: Simulation,
    /// The property, in words.
    pub property: &'static str,
    /// What was seen instead.
    pub detail: String,
    /// Events that were handled until then.
    pub events: u64,
    /// What happened, as lines of a scenario.
    pub story: Vec<String>,
    /// What the supervisor was told.
    pub(crate) script: Vec<Entry>,
}

impl Simulation {
    /// A simulation with all apps.
    #[must_use]
    pub fn new(seed: u64, steps: u32) -> Self {
        Self { seed, steps, apps: (0..APPS).collect() }
    }

    /// Runs it.
    ///
    /// # Errors
    ///
    /// The first property that broke, and the story up to there.
    pub fn run(&self) -> Result<Report, Box<Violation>> {
        let mut run = Run::new(self);
        match caught(|| run.live(self)) {
            Ok(()) => Ok(Report {
                hash: run.observed.trace.hash(),
                events: run.events,
                workers: run.observed.next_worker.0 - 1,
                simulated: run.now.since(Timestamp::default()),
                coverage: run.observed.coverage,
            }),
            Err(Broken { property, detail }) => Err(Box::new(Violation {
                simulation: self.clone(),
                property,
                detail,
                events: run.events,
                story: run.observed.trace.story(),
                script: run.observed.script,
            })),
        }
    }
}

impl fmt::Display for Violation {
    /// A scenario: how to repeat the run, as a comment, and the story.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Simulation { seed, steps, apps } = &self.simulation;
        let apps = apps.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        writeln!(f, "# Seed {seed} breaks the property \"{}\":", self.property)?;
        self.detail.lines().try_for_each(|line| writeln!(f, "# {line}"))?;
        writeln!(f, "# repeat: supervisor-sim --from {seed} --seeds 1 --steps {steps} --apps {apps}")?;
        self.story.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A simulation under way.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) observed: Observed,
    machine: Machine,
    people: People,
    rng: Rng,
    now: Timestamp,
    events: u64,
}

impl Run {
    pub(crate) fn new(simulation: &Simulation) -> Self {
        let seed = simulation.seed;
        Self {
            observed: Observed::new(seed, &simulation.apps),
            machine: Machine::new(seed),
            people: People::new(seed),
            rng: Rng::with_seed(seed),
            now: Timestamp::default(),
            events: 0,
        }
    }

    /// Chaos, then calm, then the end.
    pub(crate) fn live(&mut self, simulation: &Simulation) -> Check {
        while self.events < u64::from(simulation.steps) {
            self.step(simulation)?;
        }
        // Sometimes the end comes in the middle of it all.
        if self.rng.bool() {
            self.machine.chaotic = false;
            let limit = self.now + CALM;
            self.pass(limit)?;
            properties::all_is_well(&self.observed.witness, &self.observed.supervisor)?;
        }
        self.shut_down(simulation)
    }

    /// One thing happens.
    fn step(&mut self, simulation: &Simulation) -> Check {
        match self.rng.u8(..) {
            0..=24 => {
                self.creep();
                let (operation, app, order) = self.people.order();
                if simulation.apps.contains(&app.0) {
                    self.handle(Event::Ordered { operation, app, order })
                } else {
                    self.events += 1;
                    Ok(())
                }
            }
            25..=35 => {
                self.creep();
                self.machine.outgrow(self.now);
                Ok(())
            }
            36..=45 => {
                self.creep();
                self.machine.strike(self.now);
                Ok(())
            }
            46..=50 => {
                self.creep();
                self.machine.hang(self.now);
                Ok(())
            }
            // The machine sleeps, or is busy, and everything is late.
            51..=54 => {
                let sleep = Duration::from_millis(self.rng.u64(..100_000));
                self.advance(self.now + sleep);
                Ok(())
            }
            55..=255 => {
                if !self.proceed(None)? {
                    self.events += 1;
                }
                Ok(())
            }
        }
    }

    /// Lets some of the time pass that nobody uses.
    fn creep(&mut self) {
        let next =
            [self.machine.next_at(), self.observed.supervisor.next_deadline()].into_iter().flatten().min();
        let longest = Duration::from_secs(10);
        let free = next.map_or(longest, |at| at.since(self.now).min(longest));
        let part = u64::try_from(free.as_millis()).map_or(0, |most| self.rng.u64(..=most));
        self.advance(self.now + Duration::from_millis(part));
    }

    fn advance(&mut self, to: Timestamp) {
        self.now = self.now.max(to);
    }

    /// Lets the next thing happen, or the next deadline come, whichever is
    /// first, if it is before the limit. Returns whether there was one.
    fn proceed(&mut self, limit: Option<Timestamp>) -> Result<bool, Broken> {
        let deadline = self.observed.supervisor.next_deadline();
        let thing = self.machine.next_at();
        let Some(next) = [deadline, thing].into_iter().flatten().min() else { return Ok(false) };
        if limit.is_some_and(|limit| next > limit) {
            return Ok(false);
        }
        self.advance(next);
        // When both are due either may come first.
        let both = thing.is_some_and(|at| at <= self.now) && deadline.is_some_and(|at| at <= self.now);
        let tick = if both { self.rng.bool() } else { deadline.is_some_and(|at| at <= self.now) };
        if tick {
            self.handle(Event::TimePassed)?;
        } else if let Some(event) = self.machine.happen(self.now) {
            self.handle(event)?;
        }
        Ok(true)
    }

    /// Lets everything happen until then.
    fn pass(&mut self, limit: Timestamp) -> Check {
        while self.proceed(Some(limit))? {}
        Ok(())
    }

    fn shut_down(&mut self, simulation: &Simulation) -> Check {
        let granted = self.observed.witness.longest_end(self.now);
        let limit = self.now + granted + END;
        let hurry = self.rng.bool();
        let at_once = hurry && self.rng.bool();
        self.handle(Event::ShutdownOrdered { now: at_once })?;
        let mut more = self.rng.u8(..4);
        while !self.observed.supervisor.is_finished() {
            if more > 0 && self.rng.bool() {
                more -= 1;
                let (operation, app, order) = self.people.order();
                if simulation.apps.contains(&app.0) {
                    self.handle(Event::Ordered { operation, app, order })?;
                }
            } else if hurry && self.rng.u8(..8) == 0 {
                self.handle(Event::ShutdownOrdered { now: true })?;
            } else if !self.proceed(Some(limit))? {
                break;
            }
        }
        properties::end_comes(&self.observed.witness, &self.observed.supervisor, limit)
    }

    /// Hands an event to the supervisor, and its actions to the machine, unless
    /// the master dies before it has performed all of them.
    fn handle(&mut self, event: Event) -> Check {
        self.events += 1;
        let actions = self.observed.handle(self.now, event)?;
        let dies = self.machine.chaotic && self.rng.u8(..) < DEATHS;
        let performed = if dies { self.rng.usize(..=actions.len()) } else { actions.len() };
        for action in &actions[..performed] {
            self.machine.perform(self.now, action);
        }
        if dies {
            for action in self.observed.replace(self.now)? {
                self.machine.perform_again(self.now, &action);
            }
        }
        Ok(())
    }
}
