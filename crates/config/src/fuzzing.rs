//! What the fuzz target calls: any text as a file, and what must hold of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::{App, Context, Format, ImportOptions, Source, import, load};

/// An ecosystem file: the first byte says in which format. A mistake is an error
/// that can be shown; what is right survives its way to the daemon.
///
/// # Panics
///
/// When that does not hold.
pub fn config(data: &[u8]) {
    let [format, text @ ..] = data else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let format = [Format::Yaml, Format::Json, Format::Toml][usize::from(format % 3)];
    let source = Source { path: PathBuf::from("/nowhere/ecosystem"), text: text.to_owned(), format };
    let context = Context {
        base_dir: PathBuf::from("/nowhere"),
        caller_env: BTreeMap::from([("PATH".to_owned(), "/nowhere".to_owned())]),
        env_name: Some("production".to_owned()),
        usable_cpus: 4,
    };
    match load(&source, &context) {
        Ok(loaded) => {
            for app in &loaded.apps {
                let json = serde_json::to_vec(app).expect("an app has a JSON form");
                let again: App = serde_json::from_slice(&json).expect("which is read again");
                assert_eq!(*app, again);
            }
            loaded.warnings.iter().for_each(|warning| assert!(!warning.render(false).is_empty()));
        }
        Err(errors) => assert!(!errors.render(true).is_empty()),
    }
    let options = ImportOptions { base_dir: None, caller_env: BTreeMap::new() };
    if let Ok(text) = import(&source, &options) {
        let source = Source { text, format: Format::Yaml, ..source };
        let _ = load(&source, &context);
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn config() {
        replay("config", super::config);
    }
}
