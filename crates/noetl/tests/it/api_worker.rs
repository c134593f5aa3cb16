//! The worker protocol, spoken by hand.

use serde_json::{Value, json};

use crate::api_world::{LONG, World};

async fn hello(world: &World) -> String {
    let welcome = world.post("/api/worker/hello", json!({"worker_id": "w1", "slots": 2, "unknown": 1})).await.ok();
    assert!(welcome["lease_ms"].as_u64().unwrap() > 0);
    welcome["session_id"].as_str().unwrap().to_owned()
}

fn done(command: &Value, n: u64) -> Value {
    json!({
        "execution_id": command["execution_id"], "command_id": command["command_id"], "epoch": command["epoch"],
        "outcome": {"done": {"data": {"n": n}, "error": null, "handled": false, "ctx": [], "started_at": null, "duration_ms": 1}},
    })
}

#[tokio::test]
async fn a_worker_is_given_commands_and_the_next_comes_with_the_report() {
    let world = World::new();
    world.register(LONG).await;
    let session = hello(&world).await;
    let poll = json!({"session_id": session, "free": 1, "wait_ms": 10_000});
    let id = world.start("demo/long").await;
    let orders = world.post("/api/worker/poll", poll.clone()).await.ok();
    let first = &orders["commands"][0];
    assert_eq!(
        (&first["execution_id"], &first["step"], &first["kind"]),
        (&json!(id), &json!("start"), &json!("python"))
    );
    let playbook = world.get(&format!("/api/worker/playbook/{}", first["catalog_id"].as_str().unwrap())).await.ok();
    assert_eq!(playbook["content"], LONG);
    let status = world.get(&format!("/api/executions/{id}/status")).await.ok();
    assert_eq!(status["in_flight"], 1);
    assert_eq!(
        (&status["commands"][0]["worker_id"], &status["commands"][0]["state"]),
        (&json!("w1"), &json!("claimed"))
    );
    let report = json!({"reports": [done(first, 1)], "poll": poll});
    let orders = world.post("/api/worker/report", report).await.ok();
    assert_eq!(orders["settled"][0]["command_id"], first["command_id"]);
    let mut second = orders["commands"][0].clone();
    if second.is_null() {
        second = world.post("/api/worker/poll", poll.clone()).await.ok()["commands"][0].clone();
    }
    assert_eq!(second["step"], "after");
    let pool = world.get("/api/pool/status").await.ok();
    assert_eq!((&pool["pool_size"], &pool["workers"][0]["held"]), (&json!(2), &json!(1)));
    world.post("/api/worker/report", json!({"reports": [done(&second, 2)], "poll": poll})).await.ok();
    let status = world.quiesced(&id).await;
    assert_eq!(status["status"], "COMPLETED");
    let step = world.get(&format!("/api/executions/{id}/steps/after")).await.ok();
    assert_eq!(step["result"], json!({"n": 2}));
}

#[tokio::test]
async fn a_large_result_is_shown_in_full_wherever_it_is_kept() {
    let world = World::new();
    world.register(LONG).await;
    let session = hello(&world).await;
    let poll = json!({"session_id": session, "free": 1, "wait_ms": 10_000});
    let id = world.start("demo/long").await;
    let large = json!({"n": 1, "text": "x".repeat(100_000)});
    for _ in ["start", "after"] {
        let orders = world.post("/api/worker/poll", poll.clone()).await.ok();
        let mut outcome = done(&orders["commands"][0], 1);
        outcome["outcome"]["done"]["data"] = large.clone();
        let report = json!({"reports": [outcome], "poll": {"session_id": session}});
        world.post("/api/worker/report", report).await.ok();
    }
    world.quiesced(&id).await;
    let step = world.get(&format!("/api/executions/{id}/steps/after")).await.ok();
    assert_eq!(step["result"], large);
    let detail = world.get(&format!("/api/executions/{id}")).await.ok();
    let stored = &detail["result"]["reference"];
    assert_eq!(stored["summary"]["n"], 1);
    let reference = stored["ref"].as_str().unwrap();
    assert_eq!(world.get(&format!("/api/result/resolve?ref={reference}")).await.ok(), large);
}

#[tokio::test]
async fn a_simple_worker_claims_what_it_is_offered() {
    let world = World::new();
    world.register(LONG).await;
    let id = world.start("demo/long").await;
    let issued = world.get(&format!("/api/executions/{id}/events?event_type=command.issued")).await.ok();
    let event_id = issued["events"][0]["event_id"].as_str().unwrap().to_owned();
    let shown = world.get(&format!("/api/commands/{event_id}")).await.ok();
    assert_eq!(
        (&shown["status"], &shown["node_name"], &shown["action"]),
        (&json!("pending"), &json!("start"), &json!("python"))
    );
    let path = format!("/api/commands/{event_id}/claim");
    let claimed = world.post(&path, json!({"worker_id": "simple"})).await.ok();
    assert_eq!((&claimed["status"], &claimed["execution_id"]), (&json!("ok"), &json!(id)));
    let again = world.post(&path, json!({"worker_id": "simple"})).await.ok();
    assert_eq!(again["session_id"], claimed["session_id"], "the same worker may ask again");
    let refused = world.post(&path, json!({"worker_id": "other"})).await.refused(409);
    assert_eq!(refused["message"], "Command already claimed by simple");
    assert_eq!(world.get(&format!("/api/commands/{event_id}")).await.ok()["status"], "claimed");
    let body = json!({"worker_id": ""});
    assert_eq!(world.post(&path, body).await.refused(400)["field"], "worker_id");
    let refused = world.post("/api/worker/hello", json!({"slots": 1})).await.refused(400);
    assert!(refused["message"].as_str().unwrap().starts_with("missing field `worker_id`"), "{refused}");
    assert_eq!(refused["field"], Value::Null);
    world.get("/api/commands/4242").await.refused(404);
    world.post("/api/commands/4242/claim", json!({"worker_id": "simple"})).await.refused(404);
}

#[tokio::test]
async fn a_cancelled_execution_can_not_be_claimed() {
    let world = World::new();
    world.register(LONG).await;
    let id = world.start("demo/long").await;
    let issued = world.get(&format!("/api/executions/{id}/events?event_type=command.issued")).await.ok();
    let event_id = issued["events"][0]["event_id"].as_str().unwrap().to_owned();
    world.post(&format!("/api/executions/{id}/cancel"), json!({})).await.ok();
    let refused = world.post(&format!("/api/commands/{event_id}/claim"), json!({"worker_id": "simple"})).await;
    assert_eq!(refused.refused(409)["message"], "Execution has been cancelled");
    assert_eq!(world.get(&format!("/api/commands/{event_id}")).await.ok()["status"], "settled");
}

#[tokio::test]
async fn a_cancel_is_pushed_over_the_open_poll() {
    let world = World::new();
    world.register(LONG).await;
    let session = hello(&world).await;
    let id = world.start("demo/long").await;
    let orders =
        world.post("/api/worker/poll", json!({"session_id": session, "free": 1, "wait_ms": 10_000})).await.ok();
    let command = orders["commands"][0].clone();
    let held = json!([{
        "execution_id": id, "command_id": command["command_id"], "epoch": command["epoch"], "started": true,
    }]);
    let poll = world.post("/api/worker/poll", json!({"session_id": session, "held": held, "wait_ms": 20_000}));
    let path = format!("/api/executions/{id}/cancel");
    let cancel = world.post(&path, json!({"mode": "interrupt", "grace_seconds": 1.5}));
    let (orders, reply) = tokio::join!(poll, cancel);
    let reply = reply.ok();
    assert_eq!(reply["in_flight"][0]["command_id"], command["command_id"]);
    assert_eq!((&reply["in_flight"][0]["worker"], &reply["quiesced"]), (&json!("w1"), &json!(false)));
    let order = orders.ok()["cancels"][0].clone();
    assert_eq!((&order["mode"], &order["grace_ms"]), (&json!("interrupt"), &json!(1500)));
    let status = world.get(&format!("/api/executions/{id}/status")).await.ok();
    assert_eq!(status["status"], "CANCELLED");
    assert!(status["commands"][0]["kill_at"].is_string(), "{status}");
    let outcome = json!({
        "execution_id": id, "command_id": command["command_id"], "epoch": command["epoch"],
        "outcome": {"cancelled": {"started": true, "stopped": "killed", "pids": []}},
    });
    let report = json!({"reports": [outcome], "poll": {"session_id": session}});
    world.post("/api/worker/report", report).await.ok();
    assert_eq!(world.quiesced(&id).await["status"], "CANCELLED");
}

#[tokio::test]
async fn a_session_that_is_over_must_say_hello_again() {
    let world = World::new();
    let refused = world.post("/api/worker/poll", json!({"session_id": "4242"})).await.refused(410);
    assert_eq!(refused["code"], "unknown_session");
    let body = json!({"reports": [], "poll": {"session_id": "4242"}});
    world.post("/api/worker/report", body).await.refused(410);
    world.get("/api/result/resolve?ref=noetl://execution/1/result/a/1").await.refused(404);
    world.get("/api/result/resolve").await.refused(400);
}

/// The documentation's types are written by hand; these are the engine's.
#[test]
fn the_documented_shapes_are_those_on_the_wire() {
    let description: Value = serde_json::from_str(&noetl::api::openapi()).unwrap();
    let documented = |name: &str| -> Vec<String> {
        let mut keys: Vec<String> = description["components"]["schemas"][name]["properties"]
            .as_object()
            .unwrap_or_else(|| panic!("{name} is not documented"))
            .keys()
            .cloned()
            .collect();
        keys.sort();
        keys
    };
    for (name, sample) in crate::api_worker_samples::samples() {
        let mut keys: Vec<String> = sample.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        assert_eq!(documented(name), keys, "{name}");
    }
}
