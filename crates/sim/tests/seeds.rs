//! Fixed seeds: every property holds in each, and a seed tells one story.

use std::num::NonZero;
use std::thread;

use supervisor_sim::{Coverage, Simulation};

const SEEDS: u64 = 2000;
const STEPS: u32 = 250;

#[test]
fn every_property_holds() {
    let threads = thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let share = |first: u64| {
        let mut coverage = Coverage::default();
        for seed in (first..SEEDS).step_by(usize::try_from(threads).unwrap()) {
            match Simulation::new(seed, STEPS).run() {
                Ok(report) => coverage.add(&report.coverage),
                Err(violation) => panic!("{}", violation.shrunk()),
            }
        }
        coverage
    };
    let mut coverage = Coverage::default();
    thread::scope(|scope| {
        let shares: Vec<_> = (0..threads).map(|first| scope.spawn(move || share(first))).collect();
        for share in shares {
            coverage.add(&share.join().unwrap());
        }
    });
    assert_eq!(coverage.missing(), [""; 0], "a pair that cannot meet has a reason in coverage.rs");
    assert_eq!(coverage.surprising(), [""; 0], "a pair that has met needs no reason in coverage.rs");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let mut hashes = Vec::new();
    for seed in 0..50 {
        let report = Simulation::new(seed, STEPS).run().unwrap();
        assert_eq!(Simulation::new(seed, STEPS).run().unwrap(), report);
        hashes.push(report.hash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 50, "each seed has a story of its own");
}
