//! Credentials over the interface: kept, shown masked, given to whoever runs a command.

use axum::body::Body;
use axum::http::{Method, Request};
use noetl_core::secret::MASKED;
use serde_json::{Value, json};

use crate::api_world::{Answer, LONG, World};

async fn delete(world: &World, path: &str) -> Answer {
    world.send(Request::builder().method(Method::DELETE).uri(path).body(Body::empty()).unwrap()).await
}

fn postgres() -> Value {
    json!({
        "name": "pg main/1", "type": "postgres", "description": "main", "tags": "prod, eu", "meta": {"team": "data"},
        "data": {"db_host": "db", "db_port": "5432", "db_user": "app", "db_password": "swordfish-1", "db_name": "shop"},
        "unknown": "keys of a file are no mistake",
    })
}

#[tokio::test]
async fn a_credential_is_registered_listed_shown_and_deleted() {
    let world = World::new();
    let made = world.post("/api/credentials", postgres()).await.ok();
    assert_eq!((&made["name"], &made["type"], &made["data"]), (&json!("pg main/1"), &json!("postgres"), &Value::Null));
    assert_eq!((&made["tags"], &made["meta"]), (&json!(["prod", "eu"]), &json!({"team": "data"})));
    let again = json!({"name": "pg main/1", "credential_type": "postgres", "data": {"db_password": "swordfish-2"}});
    let again = world.post("/api/credentials", again).await.ok();
    assert_eq!((&again["id"], &again["created_at"]), (&made["id"], &made["created_at"]));
    world.post("/api/credentials", json!({"name": "api", "data": {"token": "t"}})).await.ok();
    let all = world.get("/api/credentials").await.ok();
    let names: Vec<&Value> = all["items"].as_array().unwrap().iter().map(|item| &item["name"]).collect();
    assert_eq!(names, ["api", "pg main/1"]);
    assert_eq!(all["items"][0]["type"], "generic");
    for (filter, count) in [("type=Postgres", 1), ("q=MAIN", 1), ("q=nothing", 0), ("type=generic&q=api", 1)] {
        let some = world.get(&format!("/api/credentials?{filter}")).await.ok();
        assert_eq!(some["items"].as_array().unwrap().len(), count, "{filter}");
    }
    for name in ["pg%20main%2F1".to_owned(), made["id"].as_str().unwrap().to_owned()] {
        let plain = world.get(&format!("/api/credentials/{name}")).await.ok();
        assert_eq!(plain["data"], Value::Null);
        let shown = world.get(&format!("/api/credentials/{name}?include_data=true&execution_id=1")).await;
        assert_eq!(shown.ok()["data"], json!({"db_password": MASKED}));
        assert!(!shown.text.contains("swordfish"));
    }
    assert_eq!(delete(&world, "/api/credentials/pg%20main%2F1").await.ok()["id"], made["id"]);
    assert_eq!(delete(&world, "/api/credentials/pg%20main%2F1").await.refused(404)["code"], "unknown_credential");
    world.get("/api/credentials/pg").await.refused(404);
}

#[tokio::test]
async fn data_is_shown_as_it_is_where_the_server_allows_it() {
    let world = World::with(true);
    world.post("/api/credentials", postgres()).await.ok();
    let shown = world.get("/api/credentials/pg%20main%2F1?include_data=true").await.ok();
    assert_eq!(shown["data"]["db_password"], "swordfish-1");
    assert_eq!(world.get("/api/credentials/pg%20main%2F1").await.ok()["data"], Value::Null);
}

#[tokio::test]
async fn a_refusal_names_the_field_and_repeats_nothing() {
    let world = World::new();
    for (body, field) in [
        (json!({"name": "a", "data": "swordfish"}), Some("data")),
        (json!({"name": "a", "data": {}, "tags": {"swordfish": 1}}), Some("tags")),
        (json!({"name": "a"}), Some("data")),
        (json!({"data": {"token": "swordfish"}}), Some("name")),
        (json!({"name": "a", "type": " ", "data": {"token": "swordfish"}}), Some("type")),
        (json!(["swordfish"]), None),
    ] {
        let refused = world.post("/api/credentials", body.clone()).await;
        assert_eq!(refused.refused(400).get("field").and_then(Value::as_str), field, "{body}");
        assert!(!refused.text.contains("swordfish"), "{}", refused.text);
    }
    let refused = world.post_text("/api/credentials", "{\"name\": \"a\", \"data\": {swordfish").await;
    refused.refused(400);
    assert!(!refused.text.contains("swordfish"), "{}", refused.text);
}

#[tokio::test]
async fn a_worker_gets_a_credential_while_it_runs_a_command() {
    let world = World::new();
    world.post("/api/credentials", json!({"name": "api", "type": "bearer", "data": {"token": "swordfish"}})).await.ok();
    world.register(LONG).await;
    let id = world.start("demo/long").await;
    let hello = world.post("/api/worker/hello", json!({"worker_id": "w", "slots": 1})).await.ok();
    let session = &hello["session_id"];
    let orders =
        world.post("/api/worker/poll", json!({"session_id": session, "free": 1, "wait_ms": 20_000})).await.ok();
    let command = &orders["commands"][0];
    let ask = |alias: &str, epoch: u64| {
        json!({
            "session_id": session, "execution_id": id, "command_id": command["command_id"], "epoch": epoch,
            "alias": alias,
        })
    };
    let given = world.post("/api/worker/credential", ask("api", 1)).await.ok();
    assert_eq!(given, json!({"name": "api", "type": "bearer", "data": {"token": "swordfish"}}));
    let refused = |body: Value, status: u16| {
        let world = &world;
        async move { world.post("/api/worker/credential", body).await.refused(status)["code"].clone() }
    };
    assert_eq!(refused(ask("nothing", 1), 404).await, "unknown_credential");
    assert_eq!(refused(ask("api", 2), 403).await, "withheld");
    world.post(&format!("/api/executions/{id}/cancel"), json!({"mode": "interrupt"})).await.ok();
    assert_eq!(refused(ask("api", 1), 403).await, "withheld");
}
