//! Why this process cannot go on, told to the keeper, who says it, and what
//! it does about it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::{panic, thread};

use supervisor_protocol::keeper::{MAX_TEXT, ToKeeper};
use supervisor_sys::fdpass;

/// What is left of the room for words when others are put around them.
const MOST: usize = MAX_TEXT / 2;

/// A way to the keeper for whatever happens.
#[derive(Debug, Clone)]
pub(crate) struct LastWords(Arc<OwnedFd>);

impl LastWords {
    /// Prepares to tell of a panic, too.
    pub(crate) fn new(keeper: &OwnedFd) -> std::io::Result<Self> {
        let own = Self(Arc::new(keeper.try_clone()?));
        let hooked = own.clone();
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // Another thread's is not the end.
            if thread::current().name() == Some("main") {
                hooked.say(&info.to_string().replace('\n', " "));
            }
            default(info);
        }));
        Ok(own)
    }

    /// Tells why.
    pub(crate) fn say(&self, words: &str) {
        let text = words.chars().take(MOST / char::MAX_LEN_UTF8).collect();
        // A keeper that is gone needs no words.
        let _ = fdpass::send(&*self.0, &ToKeeper::Failed { text }.encode(), &[]);
    }
}
