//! Orders about selected apps: an operation for each of them.

use std::collections::BTreeSet;

use supervisor_core::{AppId, OperationId, Order, Refusal, Slots};
use supervisor_protocol::control::{Change, ErrorCode, Progress, Scale, Select};
use supervisor_protocol::events::Happening;

use super::Answered;
use crate::master::Master;
use crate::operations::{Answer, OrderId, failure};
use crate::registry::refuse;
use crate::{budget, clock, words};

impl Master {
    pub(super) fn start(&mut self, select: &Select) -> Answered<Answer> {
        let selected = self.select(&select.selectors)?;
        let note = |master: &mut Self, id, slots: &Slots| master.note_stopped(id, slots, false);
        Ok(self.order_selected(selected, Change::Started, note, Order::Start))
    }

    pub(super) fn stop(&mut self, select: &Select) -> Answered<Answer> {
        let selected = self.select(&select.selectors)?;
        let note = |master: &mut Self, id, slots: &Slots| master.note_stopped(id, slots, true);
        let now = select.now;
        Ok(self.order_selected(selected, Change::Stopped, note, |slots| Order::Stop { slots, now }))
    }

    pub(super) fn restart(&mut self, select: &Select) -> Answered<Answer> {
        let selected = self.select(&select.selectors)?;
        let note = |master: &mut Self, id, slots: &Slots| master.note_stopped(id, slots, false);
        let now = select.now;
        Ok(self.order_selected(selected, Change::Restarted, note, |slots| Order::Restart { slots, now }))
    }

    pub(super) fn delete(&mut self, select: &Select) -> Answered<Answer> {
        let instead = |name: &str| format!("a slot cannot be deleted; stop it, or use `scale {name} -1`");
        let selected = self.select_whole(&select.selectors, instead)?;
        let now = select.now;
        Ok(self.order_selected(
            selected,
            Change::Deleted,
            |master, id, _| master.note_deleted(id),
            |_| Order::Delete { now },
        ))
    }

    pub(super) fn scale(&mut self, scale: &Scale) -> Answered<Answer> {
        let entry = self.registry.get(&scale.app).ok_or_else(|| self.registry.unknown(&scale.app))?;
        let (id, before) = (entry.id, entry.instances);
        let instances = scaled(before, &scale.instances)?;
        budget::check(self.registry.iter().map(|(_, other)| {
            (if other.id == id { instances } else { other.instances }, &other.settings.app)
        }))?;
        // The new slots of an app that is stopped stay stopped.
        let start = if entry.is_stopped() { Slots::Only(BTreeSet::new()) } else { Slots::All };
        let note = |master: &mut Self, id, _: &Slots| master.note_scaled(id, instances);
        let order = |_| Order::Scale { instances, start: start.clone() };
        Ok(self.order_selected(vec![(id, Slots::All)], Change::Scaled, note, order))
    }

    /// One operation for each selected app. `note` records what is wanted from
    /// now on; it is passed over for an app that another order is about.
    pub(super) fn order_selected(
        &mut self,
        selected: Vec<(AppId, Slots)>,
        change: Change,
        mut note: impl FnMut(&mut Self, AppId, &Slots),
        what: impl Fn(Slots) -> Order,
    ) -> Answer {
        let order = self.operations.open();
        let answer = self.operations.read(order);
        for (id, slots) in selected {
            let app = self.registry.name(id).to_owned();
            if let Some(refusal) = self.core.refusal(id, &what(slots.clone())) {
                let exit_code = if refusal == Refusal::NoReload { 1 } else { 5 };
                let failure = failure(app, self.why_not(id, refusal));
                self.operations.refuse(order, exit_code, failure);
                continue;
            }
            note(self, id, &slots);
            let all = self.registry.by_id(id).map_or(0, |entry| entry.instances);
            let concerned = (0..all).filter(|index| slots.contains(*index)).count();
            // There are no more than `all`.
            let instances = u32::try_from(concerned).unwrap_or(all);
            self.say(order, app, change, instances);
            let operation = self.begin_operation(order, id, change);
            self.order(operation, id, what(slots));
        }
        self.operations.close(order, &self.link);
        answer
    }

    /// A new operation of an order about an app.
    pub(super) fn begin_operation(&mut self, order: OrderId, id: AppId, change: Change) -> OperationId {
        let name = self.registry.name(id);
        let generation = self.registry.by_id(id).map_or(0, |entry| entry.settings.generation);
        self.operations.begin(order, (id, name), change, generation)
    }

    /// Tells what an order means for an app.
    pub(super) fn say(&mut self, order: OrderId, app: String, change: Change, instances: u32) {
        if !matches!(change, Change::Unchanged | Change::Missing) {
            self.events.tell(|| Happening::App { app: app.clone(), change, instances, reason: None });
        }
        self.operations.say(order, Progress::App { app, change, instances });
    }

    /// Why an order is refused, with what stands in its way.
    pub(super) fn why_not(&self, app: AppId, refusal: Refusal) -> String {
        let Some(begun) = self.operations.about(app).filter(|_| refusal == Refusal::Busy) else {
            return words::refusal(refusal);
        };
        let (what, since) = (words::under_way(begun.change), words::duration(clock::now().since(begun.at)));
        let name = self.registry.name(app);
        let way_out = if self.core.refusal(app, &Order::Abort).is_none() {
            format!("end it by `supervisor reload --abort {name}`")
        } else {
            "stop the app first".to_owned()
        };
        format!("another order is under way, {what} that began {since} ago; wait for it, or {way_out}")
    }
}

/// The number of workers that `4`, `+2` or `-1` means.
pub(crate) fn scaled(before: u32, text: &str) -> Answered<u32> {
    let malformed =
        || refuse(ErrorCode::Usage, format!("`{text}` is no number of workers; write 4, +2 or -1"));
    let number = |digits: &str| {
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse::<u32>().ok())
            .flatten()
            .ok_or_else(malformed)
    };
    if let Some(more) = text.strip_prefix('+') {
        return before.checked_add(number(more)?).ok_or_else(malformed);
    }
    if let Some(fewer) = text.strip_prefix('-') {
        let fewer = number(fewer)?;
        let message = format!("there are {before} workers, {fewer} cannot be taken away");
        return before.checked_sub(fewer).ok_or_else(|| refuse(ErrorCode::Usage, message));
    }
    number(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_is_absolute_or_relative() {
        assert_eq!(scaled(3, "5"), Ok(5));
        assert_eq!(scaled(3, "+2"), Ok(5));
        assert_eq!(scaled(3, "-3"), Ok(0));
        for bad in ["", "+", "-4", "x", "+-1", "1.5", "99999999999"] {
            assert_eq!(scaled(3, bad).unwrap_err().code, ErrorCode::Usage, "{bad}");
        }
    }
}
