//! Work that may take long, on a thread of its own.
//!
//! The runtime's own threads for that panic when there can be no more of them.

use std::{io, thread};

use tokio::sync::oneshot;

/// Bytes of stack: no work of ours goes deep.
const STACK: usize = 512 * 1024;

/// Does some work, and waits for it.
///
/// # Errors
///
/// When there can be no thread, for which the limit of processes counts, or the
/// work has panicked.
pub(crate) async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    thread::Builder::new().name("elsewhere".to_owned()).stack_size(STACK).spawn(move || {
        // Nobody waits for it any more when this fails.
        let _ = done.send(work());
    })?;
    result.await.map_err(|_| io::Error::other("it was given up half-way"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_or_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(elsewhere(|| 7)).unwrap(), 7);
        runtime.block_on(elsewhere(|| panic!("on purpose"))).unwrap_err();
    }
}
