//! Playbooks in and out of the catalog.

use serde_json::json;

use crate::api_world::{SHORT, World};

#[tokio::test]
async fn each_registration_is_a_new_version() {
    let world = World::new();
    let first = world.register(SHORT).await;
    insta::assert_json_snapshot!(first, { ".catalog_id" => "[id]" }, @r#"
    {
      "status": "success",
      "message": "Resource 'demo/short' version '1' registered.",
      "path": "demo/short",
      "version": 1,
      "catalog_id": "[id]",
      "kind": "playbook",
      "warnings": []
    }
    "#);
    let second = world.register(SHORT).await;
    assert_eq!(second["version"], 2);
    let entries = world.post("/api/catalog/list", json!({"resource_type": "PLAYBOOK"})).await.ok();
    let versions: Vec<_> =
        entries["entries"].as_array().unwrap().iter().map(|entry| entry["version"].clone()).collect();
    assert_eq!(versions, [json!(2), json!(1)]);
    for (request, version) in [
        (json!({"path": "demo/short"}), 2),
        (json!({"path": "demo/short", "version": "latest"}), 2),
        (json!({"path": "demo/short", "version": 1}), 1),
        (json!({"path": "demo/short", "version": "1"}), 1),
        (json!({"catalog_id": first["catalog_id"], "path": "elsewhere"}), 1),
        (json!({"catalog_id": first["catalog_id"].as_str().unwrap().parse::<i64>().unwrap()}), 1),
    ] {
        let entry = world.post("/api/catalog/resource", request.clone()).await.ok();
        assert_eq!(entry["version"], version, "{request}");
        assert_eq!(entry["content"], SHORT);
        for key in ["layout", "payload", "meta"] {
            assert!(entry.as_object().unwrap().contains_key(key), "{key}");
        }
    }
    let refused = world.post("/api/catalog/resource", json!({"path": "demo/short", "version": 9})).await.refused(404);
    assert_eq!(refused["message"], "playbook demo/short version 9 is not in the catalog");
}

#[tokio::test]
async fn base64_is_the_same_text() {
    use base64::Engine as _;
    let world = World::new();
    let packed = base64::engine::general_purpose::STANDARD.encode(SHORT);
    let body = json!({"content": packed, "resource_type": "Playbook"});
    world.post("/api/catalog/register", body).await.ok();
    let entry = world.post("/api/catalog/resource", json!({"path": "demo/short"})).await.ok();
    assert_eq!(entry["content"], SHORT);
}

#[tokio::test]
async fn a_broken_playbook_is_refused_with_every_mistake_and_its_place() {
    let world = World::new();
    let broken = SHORT
        .replace("step: deep/er\n  - step", "step: nowhere\n  - step")
        .replace("kind: noop\n    next", "kind: nop\n    next");
    let refused = world.post("/api/catalog/register", json!({"content": broken})).await.refused(422);
    assert_eq!(refused["code"], "invalid_playbook");
    let diagnostics = refused["diagnostics"].as_array().unwrap();
    assert!(diagnostics.len() >= 2, "{refused}");
    for diagnostic in diagnostics {
        assert!(diagnostic["line"].as_u64().is_some_and(|line| line > 1), "{diagnostic}");
        assert!(diagnostic["code"].as_str().unwrap().starts_with("NE"), "{diagnostic}");
    }
    assert_eq!(world.post("/api/catalog/list", json!({})).await.ok()["entries"], json!([]));
    world.post("/api/catalog/register", json!({"content": "- just\n- a list\n"})).await.refused(422);
    world.post("/api/catalog/register", json!({"content": "a: [\n"})).await.refused(422);
}

#[tokio::test]
async fn a_batch_takes_what_it_can() {
    let world = World::new();
    let items = json!({"items": [{"content": SHORT}, {"content": "kind: Nothing\n"}, {"content": SHORT}]});
    let reply = world.post("/api/catalog/register/batch", items).await.ok();
    assert_eq!((&reply["registered"], &reply["failed"], &reply["status"]), (&json!(2), &json!(1), &json!("partial")));
    let results = reply["results"].as_array().unwrap();
    assert_eq!(results[0]["status"], "registered");
    assert_eq!((&results[1]["index"], &results[1]["status"]), (&json!(1), &json!("failed")));
    assert!(results[1]["error"].is_string());
    assert_eq!(results[2]["version"], 2);
}
