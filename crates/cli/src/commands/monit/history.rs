//! What workers used in the last minutes.

use std::collections::{BTreeMap, VecDeque};

use supervisor_protocol::control::AppStatus;

/// How many samples are kept, one a second.
const SAMPLES: usize = 120;

/// The use of one worker or of a whole app, newest first. Of what is unknown
/// there is `None`.
#[derive(Debug, Default)]
pub(super) struct History {
    /// In tenths of a per cent of one core.
    pub(super) cpu: VecDeque<Option<u64>>,
    /// In bytes.
    pub(super) memory: VecDeque<Option<u64>>,
}

impl History {
    fn add(&mut self, cpu_percent: Option<f64>, memory: Option<u64>) {
        #[expect(clippy::cast_possible_truncation, reason = "a cast from f64 saturates")]
        #[expect(clippy::cast_sign_loss, reason = "a cast from f64 saturates")]
        let tenths = |percent: f64| (percent * 10.0).round() as u64;
        for (samples, sample) in [(&mut self.cpu, cpu_percent.map(tenths)), (&mut self.memory, memory)] {
            samples.truncate(SAMPLES - 1);
            samples.push_front(sample);
        }
    }
}

/// The use of an app and of its slots. A slot's goes on over its workers' lives.
#[derive(Debug, Default)]
struct AppHistory {
    whole: History,
    slots: BTreeMap<u32, History>,
}

/// The use of all apps there are.
#[derive(Debug, Default)]
pub(super) struct Histories(BTreeMap<String, AppHistory>);

impl Histories {
    /// Adds a sample of everything; what is no longer there is forgotten.
    pub(super) fn add(&mut self, apps: &[AppStatus]) {
        let mut before = std::mem::take(&mut self.0);
        for app in apps {
            let AppHistory { mut whole, mut slots } = before.remove(&app.name).unwrap_or_default();
            whole.add(cpu(app), memory(app));
            let slots = app.workers.iter().map(|worker| {
                let mut history = slots.remove(&worker.slot).unwrap_or_default();
                history.add(worker.cpu_percent, worker.memory_bytes);
                (worker.slot, history)
            });
            self.0.insert(app.name.clone(), AppHistory { whole, slots: slots.collect() });
        }
    }

    /// The history of an app, or of one of its slots.
    pub(super) fn get(&self, app: &str, slot: Option<u32>) -> Option<&History> {
        let history = self.0.get(app)?;
        match slot {
            None => Some(&history.whole),
            Some(slot) => history.slots.get(&slot),
        }
    }
}

/// What all workers of an app use, as far as it is known.
pub(super) fn cpu(app: &AppStatus) -> Option<f64> {
    app.workers.iter().filter_map(|worker| worker.cpu_percent).reduce(|a, b| a + b)
}

/// The memory of all workers of an app, as far as it is known.
pub(super) fn memory(app: &AppStatus) -> Option<u64> {
    app.workers.iter().filter_map(|worker| worker.memory_bytes).reduce(u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::status::tests::example;

    #[test]
    fn it_is_bounded_and_forgets() {
        let mut status = example();
        let mut histories = Histories::default();
        for _ in 0..SAMPLES + 5 {
            histories.add(&status.apps);
        }
        let web = histories.get("web", None).unwrap();
        assert_eq!((web.cpu.len(), web.memory.len()), (SAMPLES, SAMPLES));
        assert_eq!(web.cpu[0], Some(61));
        assert_eq!(histories.get("web", Some(0)).unwrap().cpu[0], Some(30));
        assert_eq!(histories.get("web", Some(2)).unwrap().cpu[0], None);
        status.apps.retain(|app| app.name == "web");
        status.apps[0].workers.truncate(1);
        histories.add(&status.apps);
        assert!(histories.get("web", Some(1)).is_none());
        assert_eq!(histories.0.len(), 1);
    }
}
