//! The description of the interface.

use std::path::Path;

use serde_json::Value;

use crate::api_world::World;

/// `NOETL_UPDATE=1` writes the file anew.
#[test]
fn the_committed_description_is_what_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/openapi.json");
    let served = noetl::api::openapi();
    if std::env::var_os("NOETL_UPDATE").is_some() {
        std::fs::write(&path, &served).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == served, "docs/reference/openapi.json is old: run the tests once with NOETL_UPDATE=1");
}

#[tokio::test]
async fn description_and_page_are_served_and_name_nothing_elsewhere() {
    let world = World::new();
    let description = world.get("/api/openapi.json").await.ok();
    assert_eq!(description["info"]["title"], "noetl");
    let page = world.get("/api/docs").await;
    assert!(page.text.contains("openapi.json"));
    assert!(!page.text.contains("://"), "the page loads from elsewhere");
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
}

#[test]
fn every_reference_in_the_description_leads_somewhere() {
    let description: Value = serde_json::from_str(&noetl::api::openapi()).unwrap();
    let mut references = Vec::new();
    collect(&description, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.trim_start_matches('#');
        assert!(description.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn every_route_says_what_it_does_and_what_it_answers() {
    let description: Value = serde_json::from_str(&noetl::api::openapi()).unwrap();
    let mut names = std::collections::BTreeSet::new();
    for (path, verbs) in description["paths"].as_object().unwrap() {
        assert!(!path.contains('*'), "{path} is axum's, not OpenAPI's");
        for (verb, operation) in verbs.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{verb} {path} says nothing");
            assert!(names.insert(operation["operationId"].to_string()), "{verb} {path} has a name that is taken");
            assert!(operation["responses"]["200"].is_object(), "{verb} {path} answers nothing");
        }
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                references.push(reference.clone());
            }
            map.values().for_each(|item| collect(item, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
