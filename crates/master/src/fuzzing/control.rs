//! Requests on the control socket, from their bytes to what becomes of them.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use jiff::tz::TimeZone;
use supervisor_core::{Action, Event, Exit, OperationId, Slots, Supervisor, Timestamp, WorkerId};
use supervisor_protocol::control::{Apply, ErrorDetail};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::control::{Ask, Reply, Request, router};
use crate::output::{Author, Form, Rotation};
use crate::records::Origin;
use crate::registry::Registry;
use crate::settings::Settings;
use crate::{automatic, requests};

/// The most workers of an app that are declared here: others are refused for
/// want of descriptors, and so many take long.
const INSTANCES: u32 = 50;

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(Builder::new_current_thread().enable_all().build().expect("a runtime"));
}

/// All that a client sends until it closes its side: the server answers what is
/// whole, and ends.
pub fn control(data: &[u8]) {
    RUNTIME.with_borrow(|runtime| {
        let served = async { tokio::time::timeout(Duration::from_secs(5), serve(data)).await };
        runtime.block_on(served).expect("it hangs");
    });
}

async fn serve(data: &[u8]) {
    let (mut client, server) = duplex(64 * 1024);
    let (requests, mut asked) = mpsc::channel::<Request>(1);
    // Otherwise what was sent before the end would not be answered any more.
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(server), TowerToHyperService::new(router(requests)));
    let taken = Cell::new(0);
    let speak = async {
        // It may hang up in the middle of a request that is none.
        let _ = client.write_all(data).await;
        let _ = client.shutdown().await;
        let mut answers = Vec::new();
        let _ = client.read_to_end(&mut answers).await;
        assert!(answers.is_empty() || answers.starts_with(b"HTTP/1."), "no answer: {answers:?}");
        let given = answers.windows(7).filter(|part| *part == b"HTTP/1.").count();
        assert!(given >= taken.get(), "{given} answers to {} requests", taken.get());
    };
    let answer = async {
        let mut master = Master::default();
        while let Some(Request { ask, reply, .. }) = asked.recv().await {
            taken.set(taken.get() + 1);
            let _ = reply.send(master.take(ask).map(|()| Reply::Json(b"{}".to_vec())));
        }
    };
    let _ = tokio::join!(async { drop(connection.await) }, speak, answer);
}

/// The parts of a master that look at what requests say.
#[derive(Default)]
struct Master {
    registry: Registry,
    operations: u64,
}

impl Master {
    fn take(&mut self, ask: Ask) -> Result<(), ErrorDetail> {
        match ask {
            Ask::Apply(apply) => self.apply(apply),
            Ask::Status { selectors }
            | Ask::Describe { selectors, .. }
            | Ask::Env { selectors, .. }
            | Ask::Events { selectors, .. }
            | Ask::Channel { selectors } => self.registry.select(&selectors).map(drop),
            Ask::Start(select)
            | Ask::Stop(select)
            | Ask::Restart(select)
            | Ask::Reload(select)
            | Ask::Abort(select)
            | Ask::Delete(select) => self.registry.select(&select.selectors).map(drop),
            Ask::Logs(query) => self.registry.select(&query.selectors).map(drop),
            Ask::Scale(scale) => requests::scaled(4, &scale.instances).map(drop),
            Ask::Ping
            | Ask::Signal(_)
            | Ask::Send(_)
            | Ask::Reset(_)
            | Ask::Flush(_)
            | Ask::Reopen(_)
            | Ask::Upgrades
            | Ask::Upgrade(_)
            | Ask::Kill(_) => Ok(()),
        }
    }

    /// Declares apps to a core, and ends it.
    fn apply(&mut self, apply: Apply) -> Result<(), ErrorDetail> {
        requests::check(&apply.apps)?;
        automatic::check(&apply.apps)?;
        let mut core = Supervisor::new(1, WorkerId(1));
        for app in apply.apps {
            if let Some(message) = self.registry.conflict(&app) {
                assert!(!message.is_empty());
            }
            let instances = app.instances.min(INSTANCES);
            let author = Author { app: &app.name, slot: 0, pid: 1, generation: 1, stream: "out" };
            let mut form = Form::new(&app.logs, TimeZone::UTC, &author);
            let (mut lines, mut out) = (&b"a\nb"[..], Vec::new());
            form.render(&mut lines, jiff::Timestamp::UNIX_EPOCH, &mut out);
            let _ = Rotation::new(&app.logs, TimeZone::UTC).next(jiff::Timestamp::UNIX_EPOCH);
            let (source, env_name) = (apply.source.clone(), apply.env_name.clone());
            let origin = Origin { source, env_name, ..Origin::default() };
            let id = self.registry.insert(Settings::new(app, 1), origin, instances, Default::default());
            let Some(entry) = self.registry.by_id(id) else { continue };
            assert!(matches!(entry.running(), Slots::Only(slots) if slots.len() == instances as usize));
            self.operations += 1;
            let (operation, order) = (OperationId(self.operations), entry.order(true));
            live(&mut core, Timestamp::default(), Event::Ordered { operation, app: id, order });
        }
        for _ in 0..8 {
            let Some(deadline) = core.next_deadline() else { break };
            live(&mut core, deadline, Event::TimePassed);
        }
        let _ = core.handle(Timestamp::default(), Event::ShutdownOrdered { now: true });
        Ok(())
    }
}

/// Handles an event. Of the workers that it starts every second one crashes.
fn live(core: &mut Supervisor, now: Timestamp, event: Event) {
    for action in core.handle(now, event) {
        let Action::Spawn { worker, .. } = action else { continue };
        let _ = core.handle(now, Event::WorkerSpawned(worker));
        if worker.0.is_multiple_of(2) {
            let _ = core.handle(now, Event::WorkerExited { worker, exit: Exit::Signal(11) });
        }
    }
}
