//! Whether a memo can be of an app at all. It is data that others have kept:
//! what is damaged must cost its app's memory, and nobody anything else.

use alloc::collections::BTreeSet;

use super::{AppMemo, SlotMemo};
use crate::app::{MAX_SLOTS, Turn};

impl AppMemo {
    /// Whether it is that of an app with these slots: no more of them than there
    /// can be, now or when its operation ends, and in them workers that have been
    /// numbered, each in one place.
    pub(crate) fn is_sound(&self, slots: &[SlotMemo], turn: &Turn<'_>) -> bool {
        let operation = self.operation.as_ref();
        let shrink = operation.and_then(|operation| operation.shrink);
        let before = operation.and_then(|operation| Some(operation.before.as_ref()?.instances));
        let mut instances = [Some(self.instances), shrink, before].into_iter().flatten();
        let mut seen = BTreeSet::new();
        instances.all(|instances| instances <= MAX_SLOTS)
            && slots.len() <= MAX_SLOTS as usize
            && slots.iter().flat_map(SlotMemo::workers).all(|worker| {
                worker.id < *turn.next_worker
                    && !turn.places.contains_key(&worker.id)
                    && seen.insert(worker.id)
            })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::time::Duration;

    use crate::event::{Event, Order, Slots};
    use crate::id::{AppId, Generation, OperationId, WorkerId};
    use crate::memo::{AppMemo, SlotMemo};
    use crate::policy::{Policy, ReadyWhen, Reload};
    use crate::supervisor::Supervisor;
    use crate::time::Timestamp;

    const APP: AppId = AppId(0);

    fn policy() -> Policy {
        Policy {
            ready: ReadyWhen::Started,
            listen_timeout: Duration::from_secs(30),
            min_uptime: Duration::from_secs(1),
            max_restarts: 16,
            restart_delay: Duration::from_millis(100),
            restart_backoff_percent: 200,
            breaker_retry: Duration::from_secs(60),
            autorestart: true,
            stop_exit_codes: Vec::new(),
            kill_timeout: Duration::from_secs(5),
            listens: true,
            drain_timeout: Duration::from_secs(30),
            max_surge: 1,
            reload: Reload::Rolling,
        }
    }

    fn second(seconds: u64) -> Timestamp {
        Timestamp::new(Duration::from_secs(seconds))
    }

    /// Declares the app, and lets its first two workers run.
    fn declare(core: &mut Supervisor, now: Timestamp, number: u64, instances: u32) {
        let (generation, policy) = (Generation(number), policy());
        let order = Order::Declare { generation, policy, instances, start: Slots::All };
        let _ = core.handle(now, Event::Ordered { operation: OperationId(number), app: APP, order });
        for worker in 1..=2 {
            let _ = core.handle(now, Event::WorkerSpawned(WorkerId(worker)));
        }
    }

    /// What is remembered of two workers that are replaced by one.
    fn memo() -> (AppMemo, Vec<SlotMemo>) {
        let mut core = Supervisor::new(1, WorkerId(1));
        declare(&mut core, second(0), 1, 2);
        let _ = core.handle(second(5), Event::TimePassed);
        declare(&mut core, second(6), 2, 1);
        (core.memo(APP).unwrap(), core.slot_memos(APP).collect())
    }

    #[track_caller]
    fn check(is_adopted: bool, damage: impl FnOnce(&mut AppMemo, &mut Vec<SlotMemo>)) {
        let (mut app, mut slots) = memo();
        damage(&mut app, &mut slots);
        let mut core = Supervisor::new(1, WorkerId(100));
        assert_eq!(core.adopt(Timestamp::default(), APP, app, slots).is_some(), is_adopted);
        assert_eq!(core.app(APP).is_some(), is_adopted);
    }

    #[test]
    fn what_an_app_can_be_is_adopted() {
        check(true, |_, _| {});
        check(true, |app, _| app.instances = 10_000);
        check(true, |_, slots| slots.truncate(1));
    }

    #[test]
    fn slots_are_bounded() {
        check(false, |app, _| app.instances = 10_001);
        check(false, |app, _| app.instances = u32::MAX);
        check(false, |_, slots| slots.resize(10_001, SlotMemo { worker: None, ..slots[0].clone() }));
        check(false, |app, _| *app.operation.as_mut().unwrap().shrink.as_mut().unwrap() = u32::MAX);
        check(false, |app, _| {
            app.operation.as_mut().unwrap().before.as_mut().unwrap().instances = u32::MAX;
        });
    }

    #[test]
    fn a_worker_has_one_place() {
        check(false, |_, slots| slots[1].worker = slots[0].worker.clone());
        check(false, |_, slots| slots[1].retired = slots[0].worker.clone());
        let (app, slots) = memo();
        let mut core = Supervisor::new(1, WorkerId(100));
        assert!(core.adopt(Timestamp::default(), APP, app.clone(), slots.clone()).is_some());
        assert!(core.adopt(Timestamp::default(), AppId(1), app, slots).is_none());
    }

    #[test]
    fn a_worker_has_been_numbered() {
        check(false, |_, slots| slots[0].worker.as_mut().unwrap().id = WorkerId(100));
    }

    #[test]
    fn counts_go_on() {
        let (app, mut slots) = memo();
        slots[0].restarts = u64::MAX;
        let mut core = Supervisor::new(1, WorkerId(100));
        assert!(core.adopt(Timestamp::default(), APP, app, slots).is_some());
        let exited = |worker| Event::WorkerExited { worker: WorkerId(worker), exit: crate::Exit::Signal(9) };
        let _ = core.handle(second(9), exited(1));
        assert!(core.app(APP).is_some());
    }
}
