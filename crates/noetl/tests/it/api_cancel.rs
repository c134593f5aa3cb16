//! Stopping executions.

use axum::http::Method;
use serde_json::{Value, json};

use crate::api_world::{LONG, SHORT, World};

async fn cancel(world: &World, id: &str, body: Value) -> Value {
    world.post(&format!("/api/executions/{id}/cancel"), body).await.ok()
}

#[tokio::test]
async fn the_answer_begins_with_the_four_documented_fields() {
    let world = World::new();
    world.register(LONG).await;
    let id = world.start("demo/long").await;
    let reply = world.post(&format!("/api/executions/{id}/cancel"), json!({"reason": "Detected infinite loop"})).await;
    let keys: Vec<String> = reply.ok().as_object().unwrap().keys().take(4).cloned().collect();
    assert_eq!(keys, ["status", "execution_id", "cancelled_executions", "message"]);
    insta::assert_json_snapshot!(reply.ok(), { ".execution_id" => "[id]", ".cancelled_executions[]" => "[id]" });
    assert_eq!(reply.ok()["cancelled_executions"], json!([id]));
    let check = world.get(&format!("/api/executions/{id}/cancellation-check")).await.ok();
    insta::assert_json_snapshot!(check, { ".execution_id" => "[id]" }, @r#"
    {
      "execution_id": "[id]",
      "status": "CANCELLED",
      "event_type": "execution.cancelled",
      "cancelled": true,
      "completed": false,
      "failed": false,
      "is_cancelled": true,
      "quiesced": true
    }
    "#);
    let status = world.get(&format!("/api/executions/{id}/status")).await.ok();
    assert_eq!(
        (&status["completed"], &status["failed"], &status["is_cancelled"]),
        (&json!(true), &json!(false), &json!(true))
    );
    assert_eq!(status["cancellation"]["reason"], "Detected infinite loop");
    assert_eq!(status["cancellation"]["cancelled_by"], "api");
    assert_eq!(status["completed_steps"], json!([]), "what was cut off has not completed");
    let steps = world.get(&format!("/api/executions/{id}/steps")).await.ok();
    assert_eq!(steps["steps"][1], json!({"step": "after", "status": "PENDING", "visits": 0}));
}

#[tokio::test]
async fn a_step_that_was_cut_off_shows_as_cancelled() {
    let world = World::new();
    world.register(LONG).await;
    let id = world.start("demo/long").await;
    let welcome = world.post("/api/worker/hello", json!({"worker_id": "w1", "slots": 1})).await.ok();
    let poll = json!({"session_id": welcome["session_id"], "free": 1, "wait_ms": 10_000});
    world.post("/api/worker/poll", poll).await.ok();
    let step = async || world.get(&format!("/api/executions/{id}/steps/start")).await.ok()["status"].clone();
    assert_eq!(step().await, "RUNNING");
    let reply = cancel(&world, &id, json!({})).await;
    assert_eq!((&reply["quiesced"], &reply["in_flight"][0]["step"]), (&json!(false), &json!("start")));
    assert_eq!(step().await, "CANCELLED");
}

#[tokio::test]
async fn what_has_ended_answers_409_with_the_documented_body() {
    let world = World::new();
    world.register(SHORT).await;
    let id = world.start("demo/short").await;
    world.quiesced(&id).await;
    let refused = world.post(&format!("/api/executions/{id}/cancel"), json!({})).await.refused(409);
    assert_eq!(refused["execution_id"], json!(id));
    assert_eq!(refused["cancelled_executions"], json!([]));
    assert_eq!(refused["message"], json!(format!("Execution {id} is already COMPLETED")));
    assert!(refused["ended_at"].is_string());
}

#[tokio::test]
async fn a_second_cancel_says_who_and_why_and_changes_nothing() {
    let world = World::new();
    world.register(LONG).await;
    let id = world.start("demo/long").await;
    let path = format!("/api/executions/{id}/cancel");
    let by = |name, body| world.with_header(Method::POST, &path, ("x-noetl-requested-by", name), body);
    by("ada@host", r#"{"reason": "first"}"#).await.ok();
    let refused = by("bob@host", r#"{"reason": "second"}"#).await.refused(409);
    assert_eq!(refused["message"], json!(format!("Execution {id} is already CANCELLED")));
    assert_eq!((&refused["reason"], &refused["requested_by"]), (&json!("first"), &json!("ada@host")));
    assert_eq!(refused["requested_execution_id"], json!(id));
    let events = world.get(&format!("/api/executions/{id}/events?event_type=execution.cancelled")).await.ok();
    assert_eq!(events["pagination"]["total_events"], 1);
    assert_eq!(events["events"][0]["context"]["reason"], "first");
    assert_eq!(events["events"][0]["node_name"], "cancel");
}

#[tokio::test]
async fn the_same_key_gets_the_first_answer() {
    let world = World::new();
    world.register(LONG).await;
    let id = world.start("demo/long").await;
    let path = format!("/api/executions/{id}/cancel");
    let send = |key| world.with_header(Method::POST, &path, ("idempotency-key", key), "");
    let first = send("k1").await.ok();
    assert_eq!(send("k1").await.ok()["cancelled_executions"], first["cancelled_executions"]);
    send("k2").await.refused(409);
}

#[tokio::test]
async fn a_cascade_reaches_children_and_a_dry_run_nobody() {
    let world = World::new();
    world.register(LONG).await;
    let root = world.start("demo/long").await;
    let child = json!({"path": "demo/long", "parent_execution_id": root});
    let child = world.post("/api/execute", child).await.ok()["execution_id"].clone();
    let dry = cancel(&world, &root, json!({"cascade": true, "dry_run": true})).await;
    assert_eq!((&dry["status"], &dry["cancelled_executions"]), (&json!("dry_run"), &json!([])));
    assert_eq!(dry["would_cancel"], json!([root, child]));
    let alone = cancel(&world, &root, json!({})).await;
    assert_eq!((&alone["cancelled_executions"], &alone["active_descendants"]), (&json!([root]), &json!(1)));
    // With `cascade` an ended root is no error while a descendant is active.
    let rest = cancel(&world, &root, json!({"cascade": true})).await;
    assert_eq!((&rest["cancelled_executions"], &rest["complete"]), (&json!([child]), &json!(true)));
    assert_eq!(rest["message"], "Cancelled 1 execution(s)");
    world.post(&format!("/api/executions/{root}/cancel"), json!({"cascade": true})).await.refused(409);
    let ended =
        world.post("/api/execute", json!({"path": "demo/long", "parent_execution_id": root})).await.refused(409);
    assert_eq!(ended["code"], "parent_ended");
}

#[tokio::test]
async fn stop_is_cancel() {
    let world = World::new();
    world.register(LONG).await;
    let id = world.start("demo/long").await;
    let reply = world.post_text(&format!("/api/executions/{id}/stop"), "").await.ok();
    assert_eq!(reply["cancelled_executions"], json!([id]));
}

#[tokio::test]
async fn many_are_listed_and_their_job_is_kept() {
    let world = World::new();
    world.register(LONG).await;
    let (one, two, three) =
        (world.start("demo/long").await, world.start("demo/long").await, world.start("demo/long").await);
    let many = |body: Value| world.post("/api/executions/cancel", body);
    let listed = many(json!({"ids": [one, two, "77"], "reason": "listed"})).await.ok();
    assert_eq!(listed["cancelled_count"], 2);
    assert_eq!((&listed["unknown"], &listed["complete"]), (&json!(["77"]), &json!(true)));
    let job = listed["job_id"].as_str().unwrap();
    let shown = world.get(&format!("/api/jobs/{job}")).await.ok();
    for (field, expected) in [
        ("kind", json!("selection")),
        ("state", json!("done")),
        ("reason", json!("listed")),
        ("cancelled", json!(2)),
        ("unquiesced", json!(0)),
        ("requested_execution_id", json!(null)),
    ] {
        assert_eq!(shown[field], expected, "{field} of {shown}");
    }
    // Nothing that matched is an answer, and no job.
    let none = many(json!({"filter": {"path": "nowhere/*"}})).await.ok();
    assert_eq!((&none["cancelled_count"], &none["job_id"]), (&json!(0), &json!(null)));
    // One that nobody waits for goes on by itself.
    let begun = many(json!({"all": true, "wait_seconds": 0, "rate": 1})).await.ok();
    assert_eq!((&begun["complete"], &begun["cancelled_count"]), (&json!(false), &json!(0)), "{begun}");
    let message = begun["message"].as_str().unwrap();
    assert!(message.starts_with("Cancelled 0 execution(s) so far; job "), "{message}");
    let slow = begun["job_id"].as_str().unwrap();
    world.quiesced(&three).await;
    let jobs = world.get("/api/jobs").await.ok();
    let ids: Vec<&str> = jobs["jobs"].as_array().unwrap().iter().map(|job| job["job_id"].as_str().unwrap()).collect();
    assert_eq!(ids, [slow, job]);
    assert_eq!(world.get(&format!("/api/jobs?before={slow}&limit=1")).await.ok()["jobs"][0]["job_id"], job);
    world.get("/api/jobs?limit=0").await.refused(400);
    world.get("/api/jobs/78").await.refused(404);
    assert_eq!(world.get("/api/jobs/x").await.refused(400)["field"], "job_id");
}

#[tokio::test]
async fn a_filter_that_leaves_nothing_out_cancels_only_what_is_meant_to_be_everything() {
    let world = World::new();
    world.register(LONG).await;
    let id = world.start("demo/long").await;
    let many = |body: Value| world.post("/api/executions/cancel", body);
    for filter in [json!({"path": ""}), json!({"status": "RUNNING"}), json!({"path": "*"}), json!({"older_than": 0})] {
        many(json!({"filter": filter})).await.refused(400);
        many(json!({"filter": filter, "dry_run": true})).await.refused(400);
    }
    assert_eq!(world.get(&format!("/api/executions/{id}/status")).await.ok()["status"], "RUNNING");
    let all = many(json!({"filter": {"status": "RUNNING"}, "all": true})).await.ok();
    assert_eq!(all["cancelled_executions"], json!([id]));
}

#[tokio::test]
async fn a_job_is_stopped_and_a_cascade_is_not() {
    let world = World::new();
    world.register(LONG).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.start("demo/long").await);
    }
    let begun = world.post("/api/executions/cancel", json!({"all": true, "wait_seconds": 0, "rate": 1})).await.ok();
    let stop = format!("/api/jobs/{}/stop", begun["job_id"].as_str().unwrap());
    let stopped = world.post(&stop, json!({})).await.ok();
    assert_eq!((&stopped["state"], &stopped["stopped_by"]), (&json!("stopped"), &json!("api")), "{stopped}");
    assert_eq!(world.post(&stop, json!({})).await.ok(), stopped, "once is enough");
    let cascade = cancel(&world, &ids[0], json!({"cascade": true})).await;
    let shown = world.get(&format!("/api/jobs/{}", cascade["job_id"].as_str().unwrap())).await.ok();
    assert_eq!((&shown["kind"], &shown["requested_execution_id"]), (&json!("cascade"), &json!(ids[0])));
    let refused = world.post(&format!("/api/jobs/{}/stop", cascade["job_id"].as_str().unwrap()), json!({})).await;
    assert_eq!(refused.refused(409)["code"], "not_stoppable");
}
