//! What is told of a run can be trusted.

use fastrand::Rng;

use crate::panics::caught;
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

#[test]
fn a_panic_breaks_a_property() {
    let broken = caught(|| panic!("of fear")).unwrap_err();
    assert_eq!(broken.property, "nothing panics");
    assert!(broken.detail.contains("tests.rs") && broken.detail.ends_with("of fear"), "{broken:?}");
    caught(|| Ok(())).unwrap();
}

fn lived(seed: u64) -> Run {
    let simulation = Simulation::new(seed, STEPS);
    let mut run = Run::new(&simulation);
    run.live(&simulation).unwrap();
    run
}
