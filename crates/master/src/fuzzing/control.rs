//! Requests on the control socket, from their bytes to what becomes of them.

use std::cell::RefCell;
use std::time::Duration;

use hyper::Method;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
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

/// All that a client sends until it closes its side: the server answers each
/// request of which the head is whole, once, and ends.
pub fn control(data: &[u8]) {
    RUNTIME.with_borrow(|runtime| {
        let served = async { tokio::time::timeout(Duration::from_secs(5), serve(data)).await };
        runtime.block_on(served).expect("it hangs");
    });
}

async fn serve(data: &[u8]) {
    let (mut client, server) = duplex(64 * 1024);
    let (requests, mut asked) = mpsc::channel::<Request>(1);
    let router = TowerToHyperService::new(router(requests));
    // Of each request, whether only the head of its answer is wanted.
    let asked_for_head = RefCell::new(Vec::new());
    let seen = &asked_for_head;
    let counted = service_fn(move |request: hyper::Request<Incoming>| {
        seen.borrow_mut().push(*request.method() == Method::HEAD);
        router.call(request)
    });
    // Otherwise what was sent before the end would not be answered any more.
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(server), counted);
    let speak = async {
        // It may hang up in the middle of a request that is none.
        let _ = client.write_all(data).await;
        let _ = client.shutdown().await;
        let mut answers = Vec::new();
        let _ = client.read_to_end(&mut answers).await;
        check_answers(&answers, &asked_for_head.borrow());
    };
    let answer = async {
        let mut master = Master::default();
        while let Some(Request { ask, reply, .. }) = asked.recv().await {
            let _ = reply.send(master.take(ask).map(|()| Reply::Json(b"{}".to_vec())));
        }
    };
    let _ = tokio::join!(async { drop(connection.await) }, speak, answer);
}

/// Each request has its answer, in their order. What follows is refused at most:
/// it has no head that could be read.
fn check_answers(mut answers: &[u8], asked_for_head: &[bool]) {
    let mut given = 0;
    while !answers.is_empty() {
        let end = memchr::memmem::find(answers, b"\r\n\r\n").expect("an answer's head is whole") + 4;
        let head = str::from_utf8(&answers[..end]).expect("an answer's head is text").to_ascii_lowercase();
        answers = &answers[end..];
        let (_, status) = head.split_once(' ').expect("an answer has a status");
        assert!(head.starts_with("http/1."), "no answer: {head}");
        // The client is asked for the body.
        if status.starts_with("100 ") {
            continue;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = match asked_for_head.get(given) {
            Some(true) => 0,
            Some(false) => length.expect("an answer has a length").parse().expect("a number"),
            None => {
                assert!(given == asked_for_head.len() && status.starts_with('4'), "for nothing: {head}");
                0
            }
        };
        answers = answers.get(length..).expect("an answer is whole");
        given += 1;
    }
    assert!(given >= asked_for_head.len(), "{given} answers to {} requests", asked_for_head.len());
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
