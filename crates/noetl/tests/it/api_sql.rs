//! Reading the tables.

use serde_json::json;

use crate::api_world::World;

#[tokio::test]
async fn the_tables_say_that_they_are_in_order() {
    let world = World::new();
    let init = world.post("/api/db/init", json!({})).await.ok();
    assert_eq!(init["status"], "ok");
    assert!(init["tables"].as_array().unwrap().contains(&json!("event")), "{init}");
    let validate = world.get("/api/db/validate").await.ok();
    assert_eq!((&validate["valid"], &validate["missing"]), (&json!(true), &json!([])));
    let size = world.get("/api/db/size").await.ok();
    assert!(size["tables"].as_array().unwrap().iter().any(|table| table["table"] == "event"), "{size}");
    let pruned = world.post("/api/db/prune", json!({"older_than_seconds": 0})).await.ok();
    assert_eq!((&pruned["status"], &pruned["executions"]), (&json!("dry_run"), &json!(0)));
    let refused = world.post("/api/db/backup", json!({"path": "relative"})).await.refused(400);
    assert_eq!(refused["field"], "path");
}
