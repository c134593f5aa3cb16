//! Starting executions and looking at them.

use axum::http::Method;
use serde_json::json;

use crate::api_world::{LONG, SHORT, World};

#[tokio::test]
async fn an_execution_runs_to_its_end_and_every_look_agrees() {
    let world = World::new();
    world.register(SHORT).await;
    let started = world.post("/api/execute", json!({"path": "demo/short", "payload": {"name": "x"}})).await.ok();
    insta::assert_json_snapshot!(started, { ".execution_id" => "[id]", ".catalog_id" => "[id]" });
    let id = started["execution_id"].as_str().unwrap();
    let status = world.quiesced(id).await;
    insta::assert_json_snapshot!("status_of_a_completed_one", status, {
        ".execution_id" => "[id]", ".root_execution_id" => "[id]", ".catalog_id" => "[id]",
        ".start_time" => "[time]", ".end_time" => "[time]", ".updated_at" => "[time]", ".quiesced_at" => "[time]",
        ".duration_seconds" => "[n]", ".last_version" => "[n]",
    });
    let list = world.get("/api/executions").await.ok();
    insta::assert_json_snapshot!("list_item", list[0], {
        ".execution_id" => "[id]", ".root_execution_id" => "[id]", ".catalog_id" => "[id]",
        ".start_time" => "[time]", ".end_time" => "[time]", ".updated_at" => "[time]", ".duration_seconds" => "[n]",
    });
    let check = world.get(&format!("/api/executions/{id}/cancellation-check")).await.ok();
    assert_eq!(check["event_type"], "playbook.completed");
    assert_eq!(
        (&check["completed"], &check["cancelled"], &check["failed"]),
        (&json!(true), &json!(false), &json!(false))
    );
    let detail = world.get(&format!("/api/executions/{id}?page=1&page_size=10")).await.ok();
    assert_eq!(detail["status"], "COMPLETED");
    assert_eq!(detail["workload"], json!({"greeting": "hello", "name": "x"}));
    assert_eq!(detail["events"][0]["status"], "COMPLETED", "the newest comes first: {}", detail["events"]);
    for key in ["start_time", "end_time", "started_at", "completed_at", "duration_human", "events_endpoint", "error"] {
        assert!(detail.as_object().unwrap().contains_key(key), "{key}");
    }
}

#[tokio::test]
async fn steps_show_their_results_also_under_names_with_slashes() {
    let world = World::new();
    world.register(SHORT).await;
    let id = world.start("demo/short").await;
    world.quiesced(&id).await;
    let steps = world.get(&format!("/api/executions/{id}/steps")).await.ok();
    assert_eq!(
        steps["steps"],
        json!([
            {"step": "start", "status": "COMPLETED", "visits": 1},
            {"step": "deep/er", "status": "COMPLETED", "visits": 1},
        ])
    );
    for name in ["deep/er", "deep%2Fer"] {
        let step = world.get(&format!("/api/executions/{id}/steps/{name}")).await.ok();
        assert_eq!((&step["step"], &step["visits"]), (&json!("deep/er"), &json!(1)));
        assert!(step.as_object().unwrap().contains_key("result"));
    }
    let refused = world.get(&format!("/api/executions/{id}/steps/strat")).await.refused(404);
    assert!(refused["message"].as_str().unwrap().contains("did you mean `start`?"), "{refused}");
}

#[tokio::test]
async fn events_come_in_pages_and_from_any_point() {
    let world = World::new();
    world.register(SHORT).await;
    let id = world.start("demo/short").await;
    world.quiesced(&id).await;
    let all = world.get(&format!("/api/executions/{id}/events?order=asc")).await.ok();
    let events = all["events"].as_array().unwrap();
    assert_eq!(events[0]["event_type"], "playbook.initialized");
    let versions: Vec<u64> = events.iter().map(|event| event["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, (1..=events.len() as u64).collect::<Vec<_>>());
    assert!(events.iter().all(|event| event["event_id"].is_string() && event["execution_id"] == json!(id)));
    let page = world.get(&format!("/api/executions/{id}/events?page=2&page_size=2")).await.ok();
    assert_eq!(page["events"].as_array().unwrap().len(), 2);
    assert_eq!(page["events"][0]["version"], json!(events.len() - 2), "newest first");
    assert_eq!(page["pagination"]["total_events"], json!(events.len()));
    assert_eq!(page["pagination"]["has_prev"], json!(true));
    let since = events[2]["event_id"].as_str().unwrap();
    let later = world.get(&format!("/api/executions/{id}/events?since_event_id={since}")).await.ok();
    assert_eq!(later["pagination"]["total_events"], json!(events.len() - 3));
    let after = world.get(&format!("/api/executions/{id}/events?after_version=3&order=asc")).await.ok();
    assert_eq!(after["events"][0]["version"], 4);
    let entered = world.get(&format!("/api/executions/{id}/events?event_type=step.enter")).await.ok();
    assert_eq!(entered["pagination"]["total_events"], 2);
    let without = world.get(&format!("/api/executions/{id}?include_events=false")).await.ok();
    assert_eq!((&without["events"], &without["events_included"]), (&json!([]), &json!(false)));
}

#[tokio::test]
async fn a_follower_is_woken_by_what_happens() {
    let world = World::new();
    world.register(LONG).await;
    let id = world.start("demo/long").await;
    let seen = world.get(&format!("/api/executions/{id}/events?order=asc")).await.ok();
    let last = seen["events"].as_array().unwrap().last().unwrap()["version"].clone();
    let path = format!("/api/executions/{id}/events?order=asc&wait_seconds=20&after_version={last}");
    let follow = world.get(&path);
    let cancel = format!("/api/executions/{id}/cancel");
    let cancel = world.post(&cancel, json!({}));
    let (news, cancelled) = tokio::join!(follow, cancel);
    cancelled.ok();
    assert_eq!(news.ok()["events"][0]["event_type"], "execution.cancelled");
}

#[tokio::test]
async fn what_hangs_ends_when_the_server_stops() {
    let world = World::new();
    world.register(LONG).await;
    let id = world.start("demo/long").await;
    let paths = [
        format!("/api/executions/{id}/events?order=asc&wait_seconds=20&after_version=1000"),
        format!("/api/executions/{id}/status?wait_seconds=20"),
    ];
    let hanging = async { tokio::join!(world.get(&paths[0]), world.get(&paths[1])) };
    let stop = async {
        tokio::task::yield_now().await;
        world.stopping.cancel();
    };
    let ((events, status), ()) = tokio::join!(hanging, stop);
    assert_eq!(events.ok()["events"], json!([]));
    assert_eq!(status.ok()["status"], "RUNNING");
}

#[tokio::test]
async fn a_repeated_start_gets_the_first_answer() {
    let world = World::new();
    world.register(SHORT).await;
    let send =
        |key| world.with_header(Method::POST, "/api/execute", ("Idempotency-Key", key), r#"{"path": "demo/short"}"#);
    let first = send("k1").await.ok();
    assert_eq!(send("k1").await.ok(), first);
    assert_ne!(send("k2").await.ok()["execution_id"], first["execution_id"]);
}

#[tokio::test]
async fn what_is_to_run_can_be_named_in_many_ways() {
    let world = World::new();
    let entry = world.register(SHORT).await;
    world.register(SHORT).await;
    let catalog_id = entry["catalog_id"].as_str().unwrap();
    for (body, version) in [
        (json!({"path": "demo/short"}), 2),
        (json!({"path": "demo/short", "version": "latest"}), 2),
        (json!({"path": "demo/short", "version": 1, "workload": {}, "resource_kind": "playbook"}), 1),
        (json!({"path": "demo/short", "version": "1", "args": {"a": 1}, "merge": false}), 1),
        (json!({"catalog_id": catalog_id}), 1),
        (json!({"catalog_id": catalog_id.parse::<i64>().unwrap(), "path": "ignored"}), 1),
        (json!({"path": catalog_id}), 1),
    ] {
        assert_eq!(world.post("/api/execute", body.clone()).await.ok()["version"], version, "{body}");
    }
}

#[tokio::test]
async fn the_list_can_be_narrowed_and_paged() {
    let world = World::new();
    world.register(SHORT).await;
    world.register(LONG).await;
    let parent = world.start("demo/long").await;
    let child = json!({"path": "demo/short", "parent_execution_id": parent});
    let child = world.post("/api/execute", child).await.ok()["execution_id"].as_str().unwrap().to_owned();
    world.quiesced(&child).await;
    let ids = async |query: &str| -> Vec<String> {
        let list = world.get(&format!("/api/executions?{query}")).await.ok();
        list.as_array().unwrap().iter().map(|item| item["execution_id"].as_str().unwrap().to_owned()).collect()
    };
    let (both, only_parent, only_child) = ([&*child, &*parent], [&*parent], [&*child]);
    assert_eq!(ids("").await, both);
    assert_eq!(ids("active_first=true").await, [&*parent, &*child]);
    assert_eq!(ids("status=running").await, only_parent);
    assert_eq!(ids("status=COMPLETED,FAILED").await, only_child);
    assert_eq!(ids("path=demo/*").await, both);
    assert_eq!(ids("path=*short").await, only_child);
    assert_eq!(ids(&format!("parent_execution_id={parent}")).await, only_child);
    assert_eq!(ids(&format!("root_execution_id={parent}")).await, both);
    assert_eq!(ids("page=2&page_size=1").await, only_parent);
    assert_eq!(ids("limit=1&offset=1").await, only_parent);
    assert_eq!(ids(&format!("before={child}")).await, only_parent);
    let tree = world.get(&format!("/api/executions/{parent}/tree")).await.ok();
    let members: Vec<_> = tree["executions"].as_array().unwrap().iter().map(|member| &member["execution_id"]).collect();
    assert_eq!(members, [&json!(parent), &json!(child)]);
    let below = world.get(&format!("/api/executions/{child}/tree")).await.ok();
    assert_eq!(below["executions"].as_array().unwrap().len(), 1);
    assert_eq!(below["root_execution_id"], json!(parent));
    let verified = world.get("/api/db/verify").await.ok();
    assert_eq!((&verified["executions"], &verified["problems"]), (&json!(2), &json!([])));
}

#[tokio::test]
async fn the_numbers_are_there_for_prometheus() {
    let world = World::new();
    world.register(SHORT).await;
    world.register(LONG).await;
    let id = world.start("demo/short").await;
    world.quiesced(&id).await;
    let metrics = world.get("/metrics").await;
    for line in ["noetl_up 1", "noetl_executions_started_total 1", "noetl_build_info{", "noetl_commit_ms_bucket{le="] {
        assert!(metrics.text.contains(line), "{line} is missing in\n{}", metrics.text);
    }
    world.post(&format!("/api/executions/{id}/cancel"), json!({})).await.refused(409);
    let running = world.start("demo/long").await;
    world.post(&format!("/api/executions/{running}/cancel"), json!({"mode": "interrupt"})).await.ok();
    let cancels = world.get("/metrics").await.text;
    for line in [
        r#"noetl_cancels_total{mode="finish",cause="request",result="already_ended"} 1"#,
        r#"noetl_cancels_total{mode="interrupt",cause="request",result="cancelled"} 1"#,
        "noetl_cancel_quiesce_seconds_count 1",
        r#"noetl_cancel_quiesce_seconds_bucket{le="0.001"}"#,
        "noetl_unquiesced_executions 0",
        "noetl_oldest_unquiesced_seconds 0",
        "noetl_open_cascades 0",
        "noetl_open_selections 0",
    ] {
        assert!(cancels.contains(line), "{line} is missing in\n{cancels}");
    }
    assert!(metrics.text.contains(r#"route="/api/executions/{execution_id}/status""#), "{}", metrics.text);
    assert!(!metrics.text.contains(&id), "ids are no labels");
    assert_eq!(world.get("/health").await.ok(), json!({"status": "ok"}));
    assert_eq!(world.get("/ready").await.ok(), json!({"status": "ok"}));
    let health = world.get("/api/health").await.ok();
    assert_eq!((&health["status"], &health["database"]), (&json!("ok"), &json!("ok")));
    assert_eq!(world.get("/api/pool/status").await.ok()["workers"], json!([]));
    assert_eq!(world.get("/").await.ok()["openapi"], "/api/openapi.json");
}
