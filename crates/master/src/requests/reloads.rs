//! Reloads: apps get the settings that they have as a new generation, and may go
//! back.

use supervisor_core::{AppId, Order, Refusal};
use supervisor_protocol::control::{Change, ErrorCode, Select};

use super::Answered;
use crate::master::Master;
use crate::operations::{Answer, OrderId, failure};
use crate::registry::refuse;
use crate::settings::Settings;

impl Master {
    /// Replaces the workers of apps one after another, with the settings that
    /// they have.
    pub(super) fn reload(&mut self, select: &Select) -> Answered<Answer> {
        let selected = self.select_whole(&select.selectors, |name| {
            format!("an app is reloaded as a whole: `reload {name}`; `restart` takes single slots")
        })?;
        let everything = select.selectors.iter().any(|selector| selector == "all");
        let order = self.operations.open();
        let answer = self.operations.read(order);
        for (id, _) in selected {
            let Some(entry) = self.registry.by_id(id) else { continue };
            let app = entry.settings.app.name.clone();
            if let Some(refusal) = self.refusal_to_declare(id) {
                let failure = failure(app, self.why_not(id, refusal));
                self.operations.refuse(order, 5, failure);
            } else if !entry.is_stopped() {
                let instances = entry.count_running();
                self.say(order, app, Change::Reloaded, instances);
                self.renew(order, id);
            } else if !everything {
                let reason = format!("it is stopped; `supervisor start {app}` starts it");
                self.operations.refuse(order, 1, failure(app, reason));
            }
        }
        self.operations.close(order, &self.link);
        Ok(answer)
    }

    /// Lets the reloads of these apps go back.
    pub(super) fn abort(&mut self, select: &Select) -> Answered<Answer> {
        let instead = |name: &str| format!("an app is reloaded as a whole: `reload --abort {name}`");
        let mut selected = self.select_whole(&select.selectors, instead)?;
        if select.selectors.iter().any(|selector| selector == "all") {
            selected.retain(|(id, _)| self.core.refusal(*id, &Order::Abort) != Some(Refusal::NoReload));
            if selected.is_empty() {
                return Err(refuse(ErrorCode::Failed, "no reload is under way".to_owned()));
            }
        }
        Ok(self.order_selected(selected, Change::Aborted, |_, _, _| {}, |_| Order::Abort))
    }

    /// Reloads every app that runs. Nobody waits for it; the log tells how it
    /// went.
    pub(crate) fn reload_all(&mut self) {
        tracing::info!("reloading all apps");
        for (name, entry) in self.registry.iter() {
            if let Some(refusal) = self.refusal_to_declare(entry.id) {
                tracing::warn!("{name} is not reloaded: {}", self.why_not(entry.id, refusal));
            }
        }
        let all = Select { selectors: vec!["all".to_owned()], now: false };
        self.link.begin();
        if let Err(error) = self.reload(&all) {
            tracing::error!("cannot reload: {}", error.message);
        }
        self.link.commit();
    }

    /// Gives an app the settings that it has as a new generation.
    pub(crate) fn renew(&mut self, order: OrderId, app: AppId) {
        let generation = self.next_generation(app);
        if let Some(entry) = self.registry.by_id_mut(app) {
            entry.before = Some(Box::new(entry.declaration()));
            entry.settings = Settings::new(entry.settings.app.clone(), generation);
        }
        let operation = self.begin_operation(order, app, Change::Reloaded);
        self.declare(operation, app);
    }

    /// A number for settings that no worker of the app has: one that was given up
    /// may have left some, where going back failed.
    pub(super) fn next_generation(&self, app: AppId) -> u64 {
        let declared = self.registry.by_id(app).map_or(0, |entry| entry.settings.generation);
        self.workers.latest_generation(app).map_or(declared, |latest| latest.max(declared)) + 1
    }

    /// Why a change of an app's settings would not be begun now.
    pub(crate) fn refusal_to_declare(&self, app: AppId) -> Option<Refusal> {
        let entry = self.registry.by_id(app)?;
        self.core.refusal(app, &entry.order(self.captures))
    }
}
