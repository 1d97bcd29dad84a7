//! Makes a failing run short enough to be read.

use std::collections::{BTreeMap, BTreeSet};

use supervisor_core::{Event, WorkerId};

use crate::observed::{Entry, Input, Observed};
use crate::panics::caught;
use crate::properties::Check;
use crate::simulation::{Simulation, Violation};

/// How many shorter scripts are tried at most.
const TRIES: usize = 20_000;

impl Violation {
    /// The same property broken in a shorter run, if one is found: first by a seed
    /// nearby that needs few steps and one app only, or by the same seed with
    /// fewer of them; then by leaving out whatever that run does not need.
    #[must_use]
    pub fn shrunk(self) -> Self {
        let mut best = self.nearby().unwrap_or(self);
        while let Some(smaller) = best.smaller() {
            best = smaller;
        }
        best.without_what_it_does_not_need()
    }

    /// Dropping an app moves everything that the others do; so it takes some
    /// seeds until one breaks the property in this way.
    fn nearby(&self) -> Option<Self> {
        let Simulation { seed, steps, apps } = &self.simulation;
        let app = BTreeSet::from([*apps.first()?]);
        let shorter = [10, 20, 40, 80, 160, 320].into_iter().filter(|fewer| fewer < steps);
        let mut simulations = shorter.flat_map(|steps| {
            let seeds = (0..200).map(|offset| seed.wrapping_add(offset));
            let app = &app;
            seeds.map(move |seed| Simulation { seed, steps, apps: app.clone() })
        });
        simulations.find_map(|simulation| self.again(&simulation))
    }

    fn smaller(&self) -> Option<Self> {
        let current = &self.simulation;
        let without = current.apps.iter().filter(|_| current.apps.len() > 1).map(|app| {
            let mut fewer = current.clone();
            fewer.apps.remove(app);
            fewer
        });
        // As many steps as it took, a half, three quarters, one less.
        let steps = current.steps.min(u32::try_from(self.events).unwrap_or(u32::MAX));
        let shorter = [steps, steps / 2, steps / 4 * 3, steps.saturating_sub(1)]
            .into_iter()
            .filter(|steps| *steps < current.steps)
            .map(|steps| Simulation { steps, ..current.clone() });
        without.chain(shorter).find_map(|simulation| self.again(&simulation))
    }

    /// How the simulation breaks the same property.
    fn again(&self, simulation: &Simulation) -> Option<Self> {
        let other = simulation.run().err()?;
        (other.property == self.property).then_some(*other)
    }

    /// Leaves out halves of what happened, quarters and so on down to single
    /// events, as long as the same property breaks. What must come true in the
    /// end is nothing that a script can break, which may end anywhere.
    fn without_what_it_does_not_need(mut self) -> Self {
        let mut tries = TRIES;
        let mut length = self.script.len();
        while length > 0 {
            let before = self.script.len();
            let mut end = before;
            while end > 0 && tries > 0 {
                let begin = end.saturating_sub(length);
                let parts = [&self.script[..begin], &self.script[end..]];
                if let Some(shorter) = self.told_again(&parts.concat()) {
                    self = shorter;
                }
                end = begin.min(self.script.len());
                tries -= 1;
            }
            length = if length == 1 && self.script.len() < before { 1 } else { length / 2 };
        }
        self
    }

    /// How the script breaks the same property.
    fn told_again(&self, script: &[Entry]) -> Option<Self> {
        let (observed, outcome) = told(&self.simulation, script);
        let broken = outcome.err().filter(|broken| broken.property == self.property)?;
        Some(Self {
            simulation: self.simulation.clone(),
            property: broken.property,
            detail: broken.detail,
            events: self.events,
            story: observed.trace.story(),
            script: observed.script,
        })
    }
}

/// Tells a new supervisor what another was told. A worker that it spawns at the
/// same point goes by its own number. News of who never was is left out, and so is
/// that nothing waits for a worker which was not told to drain.
pub(crate) fn told(simulation: &Simulation, script: &[Entry]) -> (Observed, Check) {
    let mut observed = Observed::new(simulation.seed, &simulation.apps);
    let outcome = caught(|| tell(&mut observed, script));
    (observed, outcome)
}

fn tell(observed: &mut Observed, script: &[Entry]) -> Check {
    let mut numbers = BTreeMap::new();
    for entry in script {
        match &entry.input {
            Input::Event(event) => match renumbered(event, &numbers) {
                Some(event) if is_possible(&event, observed) => observed.handle(entry.at, event)?,
                Some(_) | None => continue,
            },
            Input::Replaced => observed.replace(entry.at)?,
        };
        let spawned = observed.script.last().map_or(&[][..], |entry| &entry.spawned);
        numbers.extend(entry.spawned.iter().copied().zip(spawned.iter().copied()));
    }
    Ok(())
}

fn is_possible(event: &Event, observed: &Observed) -> bool {
    let Event::WorkerDrained(worker) = event else { return true };
    observed.witness.lives.get(worker).is_none_or(|life| life.drained)
}

fn renumbered(event: &Event, numbers: &BTreeMap<WorkerId, WorkerId>) -> Option<Event> {
    let mut event = event.clone();
    match &mut event {
        Event::WorkerSpawned(worker)
        | Event::WorkerReady(worker)
        | Event::WorkerUnready { worker, .. }
        | Event::WorkerLeaving(worker)
        | Event::SpawnFailed { worker, .. }
        | Event::WorkerDelayed { worker, .. }
        | Event::WorkerDrained(worker)
        | Event::MemoryExceeded { worker, .. }
        | Event::WorkerHung { worker, .. }
        | Event::WorkerExited { worker, .. } => *worker = *numbers.get(worker)?,
        Event::Ordered { .. } | Event::TimePassed | Event::ShutdownOrdered { .. } => {}
    }
    Some(event)
}
