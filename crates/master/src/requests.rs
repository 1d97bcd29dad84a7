//! What people and programs ask for, and how it is answered.

mod apply;
mod direct;
mod logs;
mod orders;
mod queries;
mod reloads;

use std::collections::BTreeMap;
use std::path::Path;

use supervisor_core::{AppId, Refusal, Slots};
use supervisor_protocol::control::{Daemon, ErrorCode, ErrorDetail, Kill, Ping, Reopen, Reopened};
use supervisor_protocol::release::RELEASE;

use crate::control::{Ask, Reply, Request, Selection, to_json};
use crate::master::Master;
use crate::operations::OrderId;
use crate::registry::refuse;
use crate::run::{Ending, end};
use crate::words;
pub(crate) use apply::check;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use orders::scaled;

type Answered<T> = Result<T, ErrorDetail>;

/// Answers a request.
pub(crate) fn answer(master: &mut Master, request: Request, ending: &mut Ending) {
    if let Some(order) = request.key.as_deref().and_then(|key| master.operations.find(key)) {
        let _ = request.reply.send(master.again(order));
        return;
    }
    let declares = request.ask.declares();
    // An order is taken whole, with all that it changes, or not at all.
    master.operations.expect(request.key);
    master.link.begin();
    let reply = match request.ask {
        _ if declares && ending.is_begun() => {
            Err(refuse(ErrorCode::Busy, words::refusal(Refusal::ShuttingDown)))
        }
        Ask::Ping => {
            Ok(Reply::Json(to_json(&Ping { daemon: master.daemon(), notices: master.notices.clone() })))
        }
        Ask::Status { selectors } => master.status(&selectors).map(|status| Reply::Json(to_json(&status))),
        Ask::Describe { selectors, reveal } => {
            master.describe(&selectors, reveal).map(|apps| Reply::Json(to_json(&apps)))
        }
        Ask::Env { selectors, reveal } => {
            master.environments(&selectors).map(|subjects| Reply::Env(subjects, reveal))
        }
        Ask::Logs(query) => master.logs(query).map(Reply::Logs),
        Ask::Events { selectors, since } => master.follow(&selectors, since).map(Reply::Events),
        Ask::Apply(apply) => master.apply(apply).map(Reply::Order),
        Ask::Start(select) => master.start(&select).map(Reply::Order),
        Ask::Stop(select) => master.stop(&select).map(Reply::Order),
        Ask::Restart(select) => master.restart(&select).map(Reply::Order),
        Ask::Reload(select) => master.reload(&select).map(Reply::Order),
        Ask::Abort(select) => master.abort(&select).map(Reply::Order),
        Ask::Delete(select) => master.delete(&select).map(Reply::Order),
        Ask::Scale(scale) => master.scale(&scale).map(Reply::Order),
        Ask::Signal(send) => {
            master.begin_blind();
            master.signal(&send).map(|sent| Reply::Json(to_json(&sent)))
        }
        Ask::Send(send) => {
            master.begin_blind();
            master.send(&send).map(Reply::Sent)
        }
        Ask::Channel { selectors } => master.overhear(&selectors).map(Reply::Channel),
        Ask::Reset(reset) => master.reset(&reset).map(|done| Reply::Json(to_json(&done))),
        Ask::Flush(flush) => master.flush(&flush),
        Ask::Reopen(Reopen {}) => {
            master.reopen_logs();
            Ok(Reply::Json(to_json(&Reopened {})))
        }
        Ask::Upgrades => Ok(Reply::Json(to_json(&master.upgrades()))),
        Ask::Upgrade(_) if ending.is_begun() => {
            Err(refuse(ErrorCode::Busy, words::refusal(Refusal::ShuttingDown)))
        }
        Ask::Upgrade(order) => master.begin_upgrade(order).map(|begun| Reply::Json(to_json(&begun))),
        Ask::Kill(Kill { now }) => {
            let order = master.operations.open();
            let answer = master.operations.read(order);
            master.operations.close_the_last(order, &master.link);
            end(master, ending, now);
            Ok(Reply::Order(answer))
        }
    };
    if let Ok(Reply::Json(text)) = &reply {
        master.note_answer(text.len());
    }
    master.link.commit();
    // An order that was refused may have been taken for some apps.
    let pending = if declares { master.keep_declared() } else { None };
    let Some(pending) = pending else {
        // A client that has gone needs no answer.
        let _ = request.reply.send(reply);
        return;
    };
    let path = master.store.path().map(Path::to_owned).unwrap_or_default();
    tokio::spawn(async move {
        // What a person is told is done outlives a power cut.
        let reply = match pending.written().await {
            Ok(()) => reply,
            Err(error) => reply.and(Err(refuse(
                ErrorCode::Failed,
                format!(
                    "it is being done, but the next daemon will not know of it: cannot write {}: {error}",
                    path.display()
                ),
            ))),
        };
        let _ = request.reply.send(reply);
    });
}

impl Master {
    /// What is answered to whoever gives an order again, which has been taken.
    fn again(&mut self, order: OrderId) -> Answered<Reply> {
        if self.operations.is_blind(order) {
            let message = "the daemon's master died when it had begun this: some workers may have got it, \
                           some may not; it is not sent again";
            return Err(refuse(ErrorCode::Failed, message.to_owned()));
        }
        Ok(Reply::Order(self.operations.read(order)))
    }

    /// What follows cannot be taken back, nor looked up by another master.
    fn begin_blind(&mut self) {
        self.operations.note_blind(&self.link);
        self.link.commit();
        self.link.begin();
    }

    pub(crate) fn daemon(&self) -> Daemon {
        Daemon {
            version: RELEASE.to_owned(),
            pid: std::process::id(),
            keeper_pid: self.link.keeper_pid(),
            uptime_s: self.started.elapsed().as_secs(),
            safe_mode: None,
            problems: self.problems.all(),
        }
    }

    /// What selectors mean; everything without any.
    fn select_or_all(&self, selectors: &[String]) -> Answered<BTreeMap<AppId, Slots>> {
        let all = ["all".to_owned()];
        self.registry.select(if selectors.is_empty() { &all } else { selectors })
    }

    /// The same by name, for a stream that may outlive the apps.
    fn selection(&self, selectors: &[String], selected: BTreeMap<AppId, Slots>) -> Selection {
        if selectors.is_empty() || selectors.iter().any(|selector| selector == "all") {
            return Selection::Everything;
        }
        let name = |id| self.registry.name(id).to_owned();
        Selection::These(selected.into_iter().map(|(id, slots)| (name(id), slots)).collect())
    }

    fn select(&self, selectors: &[String]) -> Answered<Vec<(AppId, Slots)>> {
        if selectors.is_empty() {
            return Err(refuse(ErrorCode::Usage, "nothing is selected; `all` means everything".to_owned()));
        }
        Ok(self.registry.select(selectors)?.into_iter().collect())
    }

    /// The same for what is done to whole apps only. `instead` is what somebody is told who selects a slot of
    /// the app with this name.
    fn select_whole(
        &self,
        selectors: &[String],
        instead: impl Fn(&str) -> String,
    ) -> Answered<Vec<(AppId, Slots)>> {
        let selected = self.select(selectors)?;
        match selected.iter().find(|(_, slots)| *slots != Slots::All) {
            Some((id, _)) => Err(refuse(ErrorCode::Usage, instead(self.registry.name(*id)))),
            None => Ok(selected),
        }
    }
}
