//! People who give orders at bad moments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use supervisor_core::{AppId, Generation, OperationId, Order, Policy, ReadyWhen, Reload, Slots};

/// How many apps they know of.
pub(crate) const APPS: u32 = 3;

/// The most workers that they want of one app.
const INSTANCES: u32 = 4;

/// People, and the versions of their apps.
#[derive(Debug)]
pub(crate) struct People {
    rng: Rng,
    /// The settings of each generation.
    declared: BTreeMap<AppId, Vec<Policy>>,
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
            0..=6 => self.declare(app),
            7 if self.rng.bool() => Order::Abort,
            7..=8 => Order::Start(self.slots()),
            9..=10 => Order::Stop { slots: self.slots(), now: self.rng.bool() },
            11..=12 => Order::Restart { slots: self.slots(), now: self.rng.bool() },
            13..=14 => Order::Scale { instances: self.rng.u32(..=INSTANCES), start: self.slots() },
            _ => Order::Delete { now: self.rng.bool() },
        };
        (OperationId(self.orders), app, order)
    }

    /// Mostly with new settings, sometimes with the last ones or those before, or
    /// only with another number.
    fn declare(&mut self, app: AppId) -> Order {
        let policies = self.declared.entry(app).or_default();
        // The last ones are 1 back.
        let back = self.rng.usize(..4).min(policies.len());
        let back = if back == 3 { 0 } else { back };
        if back == 0 {
            policies.push(policy(&mut self.rng));
        }
        let index = policies.len() - back.max(1);
        let (generation, policy) = (Generation(index as u64 + 1), policies[index].clone());
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
        drain_timeout: one_of(rng, &[0, 100, 5_000, 30_000]),
        max_surge: rng.u32(..=3),
        reload: reload(rng),
    }
}

fn reload(rng: &mut Rng) -> Reload {
    let shares: &[u32] = match rng.u8(..8) {
        0..=3 => return Reload::Rolling,
        4..=5 => &[100],
        6 => &[5, 25, 100],
        _ => &[50, 51, 99, 100],
    };
    Reload::Steps { shares: shares.to_vec(), hold: one_of(rng, &[0, 100, 3_000, 30_000]) }
}

fn one_of(rng: &mut Rng, milliseconds: &[u64]) -> Duration {
    Duration::from_millis(milliseconds[rng.usize(..milliseconds.len())])
}
