//! People who give orders at bad moments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use supervisor_core::{AppId, Generation, OperationId, Order, Policy, ReadyWhen, Slots};

/// How many apps they know of.
pub(crate) const APPS: u32 = 3;

/// The most workers that they want of one app.
const INSTANCES: u32 = 4;

/// People, and the versions of their apps.
#[derive(Debug)]
pub(crate) struct People {
    rng: Rng,
    declared: BTreeMap<AppId, (Generation, Policy)>,
    orders: u64,
}

impl People {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed ^ 0x7065_6f70_6c65), declared: BTreeMap::new(), orders: 0 }
    }

    /// The next order.
    pub(crate) fn order(&mut self) -> (OperationId, AppId, Order) {
        self.orders += 1;
        let app = AppId(self.rng.u32(..APPS));
        let order = match self.rng.u8(..16) {
            _ if !self.declared.contains_key(&app) => self.declare(app),
            0..=3 => self.declare(app),
            4..=5 => Order::Start(self.slots()),
            6..=8 => Order::Stop { slots: self.slots(), now: self.rng.bool() },
            9..=11 => Order::Restart { slots: self.slots(), now: self.rng.bool() },
            12..=14 => {
                let start = if self.rng.u8(..4) > 0 { Slots::All } else { self.slots() };
                Order::Scale { instances: self.rng.u32(..=INSTANCES), start }
            }
            _ => Order::Delete { now: self.rng.bool() },
        };
        (OperationId(self.orders), app, order)
    }

    /// Sometimes with new settings, sometimes only with another number.
    fn declare(&mut self, app: AppId) -> Order {
        let (generation, policy) = match self.declared.get(&app) {
            Some((generation, policy)) if self.rng.bool() => (*generation, policy.clone()),
            Some((generation, _)) => (Generation(generation.0 + 1), policy(&mut self.rng)),
            None => (Generation(1), policy(&mut self.rng)),
        };
        self.declared.insert(app, (generation, policy.clone()));
        let instances = self.rng.u32(..=INSTANCES);
        Order::Declare { generation, policy, instances, start: self.slots() }
    }

    fn slots(&mut self) -> Slots {
        if self.rng.u8(..3) > 0 {
            return Slots::All;
        }
        let indexes: BTreeSet<u32> = (0..INSTANCES).filter(|_| self.rng.bool()).collect();
        Slots::Only(indexes)
    }
}

fn policy(rng: &mut Rng) -> Policy {
    let ready = if rng.bool() { ReadyWhen::Started } else { ReadyWhen::Reported };
    Policy {
        ready,
        listen_timeout: one_of(rng, &[1_000, 5_000, 30_000]),
        min_uptime: one_of(rng, &[1, 100, 1_000, 3_000]),
        max_restarts: [0, 1, 2, 3, 16][rng.usize(..5)],
        restart_delay: one_of(rng, &[0, 10, 100, 1_000, 20_000]),
        restart_backoff_percent: [100, 150, 200][rng.usize(..3)],
        breaker_retry: one_of(rng, &[0, 5_000, 60_000]),
        autorestart: rng.u8(..8) > 0,
        stop_exit_codes: [vec![], vec![], vec![0], vec![0, 3]][rng.usize(..4)].clone(),
        kill_timeout: one_of(rng, &[0, 100, 1_000, 5_000]),
        listens: rng.u8(..4) > 0,
        drain_timeout: one_of(rng, &[0, 200, 5_000, 30_000]),
        max_surge: [0, 1, 1, 2][rng.usize(..4)],
    }
}

fn one_of(rng: &mut Rng, milliseconds: &[u64]) -> Duration {
    Duration::from_millis(milliseconds[rng.usize(..milliseconds.len())])
}
