//! An order that a person waits for, as a plan that events step forward.

use alloc::collections::BTreeSet;
use alloc::rc::Rc;

use crate::action::Failure;
use crate::id::OperationId;
use crate::policy::Version;
use crate::steps::Steps;

/// What must come true before an operation is done. One app has at most one.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) id: OperationId,
    /// Slots whose worker must become ready. A failed life fails the operation.
    pub(crate) ready: BTreeSet<u32>,
    /// Whether those workers must be stable too.
    pub(crate) stable: bool,
    /// Slots that must be empty.
    pub(crate) gone: BTreeSet<u32>,
    /// Slots that get a new worker: the next one when `ready` has fewer than
    /// `at_once`.
    pub(crate) waiting: BTreeSet<u32>,
    pub(crate) at_once: usize,
    /// Slots that had nobody to start beside: their new worker gets connections
    /// when it has proved the new settings.
    pub(crate) fresh: BTreeSet<u32>,
    /// Whether the new worker starts beside the old one.
    pub(crate) beside: bool,
    /// The number of slots that the app shrinks to when the rest is done.
    pub(crate) shrink: Option<u32>,
    /// What to go back to when a worker fails.
    pub(crate) before: Option<Before>,
    /// How the new workers get connections until they take over together.
    pub(crate) steps: Option<Steps>,
    /// It is going back.
    pub(crate) returning: Option<Returning>,
}

/// Why an operation goes back.
#[derive(Debug, Clone)]
pub(crate) enum Returning {
    /// A worker of the new settings failed.
    Failed(Failure),
    /// A person wants it. The order is over when it has gone back, and `None`
    /// when it is over before.
    Ordered(Option<OperationId>),
}

/// What an app was before it was declared anew.
#[derive(Debug, Clone)]
pub(crate) struct Before {
    pub(crate) version: Version,
    pub(crate) instances: u32,
    /// The slots that were to run.
    pub(crate) wanted: Rc<BTreeSet<u32>>,
}

impl Operation {
    pub(crate) const fn new(id: OperationId) -> Self {
        Self {
            id,
            ready: BTreeSet::new(),
            stable: false,
            gone: BTreeSet::new(),
            waiting: BTreeSet::new(),
            at_once: 1,
            fresh: BTreeSet::new(),
            beside: false,
            shrink: None,
            before: None,
            steps: None,
            returning: None,
        }
    }

    /// Whether it replaces a generation by another.
    pub(crate) const fn is_reload(&self) -> bool {
        self.before.is_some() || self.returning.is_some()
    }

    /// Whether new settings have to prove themselves beside those before.
    pub(crate) const fn is_careful(&self) -> bool {
        self.before.is_some() && self.beside
    }

    pub(crate) fn is_done(&self) -> bool {
        self.ready.is_empty() && self.gone.is_empty() && self.waiting.is_empty()
    }
}
