//! What is told of a run can be trusted.

use fastrand::Rng;

use crate::play::play;
use crate::shrink::told;
use crate::simulation::{Run, Simulation};

const STEPS: u32 = 250;

#[test]
fn a_story_is_a_scenario() {
    for seed in 0..100 {
        let run = lived(seed);
        let story = run.observed.trace.story().join("\n") + "\n";
        assert_eq!(play(&story).unwrap(), story, "seed {seed}");
    }
}

#[test]
fn a_script_tells_the_same_again() {
    for seed in 0..100 {
        let run = lived(seed);
        let (again, outcome) = told(&Simulation::new(seed, STEPS), &run.observed.script);
        outcome.unwrap();
        assert_eq!(again.trace.hash(), run.observed.trace.hash(), "seed {seed}");
    }
}

/// A script that shrinks shows the same fault as long as no part of one without
/// a fault breaks a property.
#[test]
fn what_is_left_out_breaks_nothing() {
    for seed in 0..100 {
        let mut script = lived(seed).observed.script;
        let mut rng = Rng::with_seed(seed);
        let often = [2, 10, 100][rng.usize(..3)];
        script.retain(|_| rng.u32(..often) > 0);
        let (observed, outcome) = told(&Simulation::new(seed, STEPS), &script);
        if let Err(broken) = outcome {
            panic!("seed {seed}, {broken:?}\n{}", observed.trace.story().join("\n"));
        }
    }
}

fn lived(seed: u64) -> Run {
    let simulation = Simulation::new(seed, STEPS);
    let mut run = Run::new(&simulation);
    run.live(&simulation).unwrap();
    run
}
