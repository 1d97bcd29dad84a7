//! One thing done again and again at random moments, while workers are killed
//! and orders given and nothing else goes wrong.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;

use crate::{World, locked, rest, upgrade};

/// The longest pause between two times, in milliseconds.
const PAUSE: u64 = 400;
/// How many clients there are in all, as many for each app that has any.
pub(crate) const CLIENTS: usize = 32;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// The master is killed; it is done when the next one's status is right.
    KillMaster,
    /// The daemon is upgraded, back, or to a version that is broken; it is done when that is over.
    Upgrade,
}

/// What is done, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drill {
    pub(crate) act: Act,
    pub(crate) times: u64,
}

impl Drill {
    /// How often it has still to be done.
    pub(crate) fn left(self, world: &World) -> u64 {
        self.times.saturating_sub(locked(&world.drilled).len().try_into().unwrap_or(u64::MAX))
    }

    /// Goes on with it until it is done, or it is time to rest.
    pub(crate) fn go_on(self, world: &World, rng: &mut Rng, end: Instant) -> Result<()> {
        while self.left(world) > 0 && Instant::now() < end && !world.is_over() {
            world.count(format!("fault: {:?}", self.act));
            let took = match self.act {
                Act::KillMaster => rest::kill_master(world)?,
                Act::Upgrade => {
                    let begin = Instant::now();
                    upgrade::carry_out(world, rng)?;
                    begin.elapsed()
                }
            };
            locked(&world.drilled).push(took);
            sleep(Duration::from_millis(rng.u64(0..PAUSE)));
        }
        Ok(())
    }
}
