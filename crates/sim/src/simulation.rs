//! One run, from its seed to its end.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use supervisor_core::{Action, Event, Supervisor, Timestamp, WorkerId};

use crate::coverage::Coverage;
use crate::machine::Machine;
use crate::people::{APPS, People};
use crate::properties::{self, Broken, Check};
use crate::trace::Trace;
use crate::witness::{Shutdown, Witness};

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
        match run.live(self) {
            Ok(()) => Ok(Report {
                hash: run.trace.hash(),
                events: run.events,
                workers: run.next_worker.0 - 1,
                simulated: run.now.since(Timestamp::default()),
                coverage: run.coverage,
            }),
            Err(Broken { property, detail }) => Err(Box::new(Violation {
                simulation: self.clone(),
                property,
                detail,
                events: run.events,
                story: run.trace.story(),
            })),
        }
    }
}

impl Violation {
    /// The same property broken in a shorter run, if one is found: by a seed
    /// nearby that needs few steps and one app only, or by the same seed with
    /// fewer of them.
    #[must_use]
    pub fn shrunk(self) -> Self {
        let mut best = self.nearby().unwrap_or(self);
        loop {
            let current = &best.simulation;
            let without = current.apps.iter().filter(|_| current.apps.len() > 1).map(|app| {
                let mut fewer = current.clone();
                fewer.apps.remove(app);
                fewer
            });
            // As many steps as it took, a half, three quarters, one less.
            let steps = current.steps.min(u32::try_from(best.events).unwrap_or(u32::MAX));
            let shorter = [steps, steps / 2, steps / 4 * 3, steps.saturating_sub(1)]
                .into_iter()
                .filter(|steps| *steps < current.steps)
                .map(|steps| Simulation { steps, ..current.clone() });
            let smaller = without.chain(shorter).find_map(|simulation| {
                simulation.run().err().filter(|other| other.property == best.property)
            });
            match smaller {
                Some(smaller) => best = *smaller,
                None => return best,
            }
        }
    }

    /// Dropping an app moves everything that the others do; so it takes some
    /// seeds until one breaks the property in this way.
    fn nearby(&self) -> Option<Self> {
        let Simulation { seed, steps, apps } = &self.simulation;
        let app = BTreeSet::from([*apps.first()?]);
        let shorter = [10, 20, 40, 80, 160, 320].into_iter().filter(|fewer| fewer < steps);
        let simulations = shorter.flat_map(|steps| {
            let seeds = (0..200).map(|offset| seed.wrapping_add(offset));
            let app = &app;
            seeds.map(move |seed| Simulation { seed, steps, apps: app.clone() })
        });
        simulations
            .filter_map(|simulation| simulation.run().err())
            .find(|other| other.property == self.property)
            .map(|other| *other)
    }
}

impl fmt::Display for Violation {
    /// The property, how to repeat the run, and the story's last 40 lines; the
    /// whole story with `{:#}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Simulation { seed, steps, apps } = &self.simulation;
        let apps = apps.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        writeln!(f, "seed {seed} breaks the property \"{}\": {}", self.property, self.detail)?;
        writeln!(f, "repeat: supervisor-sim --from {seed} --seeds 1 --steps {steps} --apps {apps}")?;
        let skipped = if f.alternate() { 0 } else { self.story.len().saturating_sub(40) };
        if skipped > 0 {
            writeln!(f, "… {skipped} lines")?;
        }
        for line in &self.story[skipped..] {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

/// A simulation under way.
#[derive(Debug)]
struct Run {
    seed: u64,
    supervisor: Supervisor,
    machine: Machine,
    people: People,
    witness: Witness,
    trace: Trace,
    coverage: Coverage,
    rng: Rng,
    now: Timestamp,
    next_worker: WorkerId,
    events: u64,
    /// How often the clock was looked at since it last moved or anything happened.
    ticks: u32,
}

impl Run {
    fn new(simulation: &Simulation) -> Self {
        let seed = simulation.seed;
        Self {
            seed,
            supervisor: Supervisor::new(seed, WorkerId(1)),
            machine: Machine::new(seed),
            people: People::new(seed),
            witness: Witness::default(),
            trace: Trace::new(seed),
            coverage: Coverage::default(),
            rng: Rng::with_seed(seed),
            now: Timestamp::default(),
            next_worker: WorkerId(1),
            events: 0,
            ticks: 0,
        }
    }

    /// Chaos, then calm, then the end.
    fn live(&mut self, simulation: &Simulation) -> Check {
        while self.events < u64::from(simulation.steps) {
            self.step(simulation)?;
        }
        // Sometimes the end comes in the middle of it all.
        if self.rng.bool() {
            self.machine.chaotic = false;
            let limit = self.now + CALM;
            self.pass(limit)?;
            properties::all_is_well(&self.witness, &self.supervisor)?;
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
        let next = [self.machine.next_at(), self.supervisor.next_deadline()].into_iter().flatten().min();
        let longest = Duration::from_secs(10);
        let free = next.map_or(longest, |at| at.since(self.now).min(longest));
        let part = u64::try_from(free.as_millis()).map_or(0, |most| self.rng.u64(..=most));
        self.advance(self.now + Duration::from_millis(part));
    }

    fn advance(&mut self, to: Timestamp) {
        if to > self.now {
            self.now = to;
            self.ticks = 0;
        }
    }

    /// Lets the next thing happen, or the next deadline come, whichever is
    /// first, if it is before the limit. Returns whether there was one.
    fn proceed(&mut self, limit: Option<Timestamp>) -> Result<bool, Broken> {
        let deadline = self.supervisor.next_deadline();
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
            self.ticks += 1;
            self.handle(Event::TimePassed)?;
            properties::time_moves_on(&self.supervisor, self.now, self.ticks)?;
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
        let granted = self.witness.longest_end(self.now);
        let limit = self.now + granted + END;
        let hurry = self.rng.bool();
        let at_once = hurry && self.rng.bool();
        self.handle(Event::ShutdownOrdered { now: at_once })?;
        let mut more = self.rng.u8(..4);
        while !self.supervisor.is_finished() {
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
        properties::end_comes(&self.witness, &self.supervisor, limit)
    }

    /// Hands an event to the supervisor, and what comes out of it to everybody.
    fn handle(&mut self, event: Event) -> Check {
        self.events += 1;
        if event != Event::TimePassed {
            self.ticks = 0;
        }
        let ending = self.witness.shutdown.is_some();
        let slot = subject(&event).and_then(|worker| Some((worker, self.witness.slot_of(worker)?)));
        self.coverage.count(&self.supervisor, ending, &event, slot);
        let serving = properties::Serving::of(&self.witness);
        self.trace.event(self.now, &event);
        let actions = self.supervisor.handle(self.now, event.clone());
        for action in &actions {
            self.trace.action(self.now, action);
        }
        if let Event::Ordered { operation, app, order } = &event {
            let expected = self.witness.refusals(*app, order);
            properties::refusal_is_right(expected, *operation, &actions)?;
        }
        let dies = self.machine.chaotic && self.rng.u8(..) < DEATHS;
        let performed = if dies { self.rng.usize(..=actions.len()) } else { actions.len() };
        self.note(&event, &actions, performed)?;
        self.witness.settle(&self.supervisor);
        properties::check_turn(&self.witness, &self.supervisor, self.now, &event, &serving)?;
        if dies { self.replace_master() } else { Ok(()) }
    }

    /// The master dies, and another one takes over what is remembered of it. What
    /// it had ordered and not performed is ordered again.
    fn replace_master(&mut self) -> Check {
        self.trace.replaced();
        let mut next = Supervisor::new(self.seed, self.next_worker);
        let mut again = Vec::new();
        for id in self.witness.apps.keys() {
            let Some(memo) = self.supervisor.memo(*id) else { continue };
            let slots = self.supervisor.slot_memos(*id).collect();
            again.extend(next.adopt(self.now, *id, memo, slots).unwrap_or_default());
        }
        let before = std::mem::replace(&mut self.supervisor, next);
        for action in &again {
            self.trace.action(self.now, action);
            self.machine.perform_again(self.now, action);
        }
        properties::nothing_is_forgotten(&self.witness, &before, &self.supervisor)?;
        match self.witness.shutdown {
            Some(Shutdown { hurry }) => self.handle(Event::ShutdownOrdered { now: hurry }),
            None => Ok(()),
        }
    }

    /// Lets the witness follow, and checks each action on the way. Only so many
    /// of them are performed.
    fn note(&mut self, event: &Event, actions: &[Action], performed: usize) -> Check {
        self.witness.note_event(self.now, event, self.next_worker);
        let ends = match event {
            Event::WorkerExited { .. }
            | Event::SpawnFailed { .. }
            | Event::WorkerHung { .. }
            | Event::MemoryExceeded { hard: true, .. } => true,
            Event::Ordered { .. }
            | Event::WorkerSpawned(_)
            | Event::WorkerReady(_)
            | Event::WorkerUnready { .. }
            | Event::WorkerLeaving(_)
            | Event::WorkerDelayed { .. }
            | Event::WorkerDrained(_)
            | Event::MemoryExceeded { hard: false, .. }
            | Event::TimePassed
            | Event::ShutdownOrdered { .. } => false,
        };
        self.witness.note_time(self.now, subject(event).filter(|_| ends));
        for (number, action) in actions.iter().enumerate() {
            properties::check_action(&self.witness, self.now, event, action)?;
            self.witness.note_action(self.now, action);
            if number < performed {
                self.machine.perform(self.now, action);
            }
            if let Action::Spawn { worker, .. } = action {
                self.next_worker = WorkerId(worker.0 + 1);
            }
            self.coverage.count_action(action);
        }
        Ok(())
    }
}

/// The worker that an event is about.
const fn subject(event: &Event) -> Option<WorkerId> {
    match event {
        Event::WorkerSpawned(worker)
        | Event::WorkerReady(worker)
        | Event::WorkerUnready { worker, .. }
        | Event::WorkerLeaving(worker)
        | Event::SpawnFailed { worker, .. }
        | Event::WorkerDelayed { worker, .. }
        | Event::WorkerDrained(worker)
        | Event::MemoryExceeded { worker, .. }
        | Event::WorkerHung { worker, .. }
        | Event::WorkerExited { worker, .. } => Some(*worker),
        Event::Ordered { .. } | Event::TimePassed | Event::ShutdownOrdered { .. } => None,
    }
}
