//! An order that a person waits for, as a plan that events step forward.

use alloc::collections::BTreeSet;

use crate::id::OperationId;

/// What must come true before an operation is done. One app has at most one.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) id: OperationId,
    /// Slots whose worker must become ready. A failed life fails the operation.
    pub(crate) ready: BTreeSet<u32>,
    /// Whether those workers must be stable too.
    pub(crate) stable: bool,
    /// Slots whose worker must be gone.
    pub(crate) gone: BTreeSet<u32>,
    /// Slots that get a new worker, one after another: the next one when
    /// `ready` is empty.
    pub(crate) waiting: BTreeSet<u32>,
}

impl Operation {
    pub(crate) const fn new(id: OperationId) -> Self {
        Self { id, ready: BTreeSet::new(), stable: false, gone: BTreeSet::new(), waiting: BTreeSet::new() }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.ready.is_empty() && self.gone.is_empty() && self.waiting.is_empty()
    }
}
