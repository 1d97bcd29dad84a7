//! The reference page says what the tables say. `UPDATE=1` rewrites it.

use std::path::Path;

#[test]
fn page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let updated = supervisor_config::update_reference(&page);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &updated).unwrap();
    } else {
        assert!(
            page == updated,
            "docs/configuration.md is out of date: run `UPDATE=1 cargo test -p supervisor-config`"
        );
    }
}
