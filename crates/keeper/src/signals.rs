//! Signals as something to wait for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use supervisor_sys::signal::Signal;

/// The signals that are passed on to the master. QUIT is what some containers
/// send for TERM.
const PASSED: [Signal; 6] =
    [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP, Signal::USR1, Signal::USR2];

/// Signals that have come and were not looked at yet. The same one twice counts
/// once, as in the kernel.
#[derive(Debug)]
pub(crate) struct Signals {
    wake: UnixStream,
    passed: [Arc<AtomicBool>; PASSED.len()],
    child: Arc<AtomicBool>,
}

impl Signals {
    /// Begins to catch them.
    pub(crate) fn new() -> io::Result<Self> {
        let (wake, sender) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let catch = |signal: Signal| -> io::Result<Arc<AtomicBool>> {
            let flag = Arc::new(AtomicBool::new(false));
            // The flag first: whoever wakes up finds it.
            signal_hook::flag::register(signal.as_raw(), Arc::clone(&flag))?;
            signal_hook::low_level::pipe::register(signal.as_raw(), sender.try_clone()?)?;
            Ok(flag)
        };
        let mut passed = PASSED.map(|_| Arc::default());
        for (flag, signal) in passed.iter_mut().zip(PASSED) {
            *flag = catch(signal)?;
        }
        Ok(Self { passed, child: catch(Signal::CHLD)?, wake })
    }

    /// Takes the signals to pass on that have come.
    pub(crate) fn take(&mut self) -> Vec<Signal> {
        let mut scratch = [0; 64];
        while rustix::io::read(&self.wake, &mut scratch).is_ok_and(|read| read == scratch.len()) {}
        let come = PASSED.iter().zip(&self.passed).filter(|(_, flag)| flag.swap(false, Ordering::SeqCst));
        come.map(|(signal, _)| if *signal == Signal::QUIT { Signal::TERM } else { *signal }).collect()
    }

    /// Whether children have ended since the last look.
    pub(crate) fn take_child(&mut self) -> bool {
        self.child.swap(false, Ordering::SeqCst)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
