//! The schema in the repository is what the table of keys says. `UPDATE=1`
//! rewrites it.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail them")]

use std::path::Path;

use serde_json::Value;

#[test]
fn schema_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema/ecosystem.schema.json");
    let schema = supervisor_config::schema();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &schema).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert!(
        parsed(&committed) == parsed(&schema),
        "schema/ecosystem.schema.json is out of date: run `UPDATE=1 cargo test -p supervisor-config`"
    );
}

#[test]
fn every_key_says_what_it_is_for() {
    let schema: Value = serde_json::from_str(&supervisor_config::schema()).unwrap();
    let properties = schema["definitions"]["app"]["properties"].as_object().unwrap();
    assert!(properties.len() > 40, "{}", properties.len());
    for (name, property) in properties {
        assert!(
            property["description"].as_str().is_some_and(|text| text.ends_with('.')),
            "{name}: {property}"
        );
        let has_type = ["type", "anyOf", "enum"].iter().any(|keyword| property.get(keyword).is_some());
        assert!(has_type, "{name}: {property}");
    }
    assert_eq!(properties["backlog"]["default"], 511);
    assert_eq!(properties["listen_timeout"]["default"], "30s");
    assert_eq!(properties["autorestart"]["default"], true);
}
