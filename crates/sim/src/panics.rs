//! A panic breaks a property like any other: its seed is known, and it is told
//! once, however often it comes again in shorter runs.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::properties::{Broken, Check};

thread_local! {
    /// Where this thread has panicked and why, empty until it has; `None` where
    /// nobody asks, and it is printed as ever.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Does it, unless it panics.
pub(crate) fn caught(part: impl FnOnce() -> Check) -> Check {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |panic| match PANIC.take() {
            Some(_) => PANIC.set(Some(panic.to_string())),
            None => print(panic),
        }));
    });
    PANIC.set(Some(String::new()));
    // What it leaves behind is told, and not used again.
    let outcome = catch_unwind(AssertUnwindSafe(part));
    let detail = PANIC.take().unwrap_or_default();
    outcome.unwrap_or(Err(Broken { property: "nothing panics", detail }))
}
