//! Bad input gets a clear error, as JSON, whatever is bad about it.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::api_world::{SHORT, World};

#[tokio::test]
async fn unknown_routes_and_methods_are_refused_as_json() {
    let world = World::new();
    for path in ["/nothing", "/api", "/api/executions/1/nothing", "/api/../etc/passwd", "/api//executions"] {
        assert_eq!(world.get(path).await.refused(404)["code"], "unknown_route", "{path}");
    }
    let refused = world.with_header(Method::DELETE, "/api/executions", ("a", "b"), "").await;
    assert_eq!(refused.refused(405)["code"], "wrong_method");
    assert!(refused.headers.contains_key("allow"));
}

#[tokio::test]
async fn a_malformed_id_is_named_wherever_it_stands() {
    let world = World::new();
    let ids = ["x", "-1", "0", "1.5", "99999999999999999999", "1%2F2", "%00", "..%2F1", "%F0%9F%A6%80", "1%202"];
    for id in ids {
        for tail in ["", "/status", "/events", "/steps", "/steps/a", "/cancellation-check", "/tree"] {
            let refused = world.get(&format!("/api/executions/{id}{tail}")).await.refused(400);
            assert_eq!(refused["field"], "execution_id", "{id}{tail}");
        }
        let refused = world.post(&format!("/api/executions/{id}/cancel"), json!({})).await.refused(400);
        assert_eq!(refused["field"], "execution_id");
        assert_eq!(refused["cancelled_executions"], json!([]));
    }
    assert_eq!(world.get("/api/executions/%FF/status").await.refused(400)["field"], "execution_id");
    assert_eq!(world.get("/api/worker/playbook/x").await.refused(400)["field"], "catalog_id");
    assert_eq!(world.get("/api/commands/x").await.refused(400)["field"], "event_id");
}

#[tokio::test]
async fn an_unknown_execution_is_404_everywhere() {
    let world = World::new();
    for tail in
        ["", "/status", "/events", "/steps", "/steps/a", "/cancellation-check", "/tree", "/status?wait_seconds=1"]
    {
        let refused = world.get(&format!("/api/executions/4242{tail}")).await.refused(404);
        assert_eq!(refused["message"], "Execution 4242 not found", "{tail}");
    }
    let refused = world.post("/api/executions/4242/cancel", json!({})).await.refused(404);
    assert_eq!((&refused["execution_id"], &refused["cancelled_executions"]), (&json!("4242"), &json!([])));
}

#[tokio::test]
async fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    let world = World::new();
    for (path, body, key, meant) in [
        ("/api/execute", json!({"path": "a", "paylod": {}}), "paylod", "payload"),
        ("/api/executions/1/cancel", json!({"reson": "x"}), "reson", "reason"),
        ("/api/executions/1/cancel", json!({"cascade": true, "Reason": "x"}), "Reason", "reason"),
        ("/api/executions/1/stop", json!({"casade": true}), "casade", "cascade"),
        ("/api/catalog/register", json!({"contents": "x"}), "contents", "content"),
        ("/api/catalog/list", json!({"resource_kind": "x"}), "resource_kind", "resource_type"),
        ("/api/postgres/execute", json!({"quer": "SELECT 1"}), "quer", "query"),
        ("/api/executions/cancel", json!({"filters": {}}), "filters", "filter"),
        ("/api/executions/cleanup", json!({"older_than_minute": 5}), "older_than_minute", "older_than_minutes"),
        ("/api/db/prune", json!({"older_than_second": 1}), "older_than_second", "older_than_seconds"),
    ] {
        let refused = world.post(path, body).await.refused(400);
        assert_eq!(refused["field"], key);
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(&format!("did you mean `{meant}`?")), "{message}");
    }
    let refused = world.get("/api/executions?statuss=RUNNING").await.refused(400);
    assert!(refused["message"].as_str().unwrap().contains("statuss"), "{refused}");
}

#[tokio::test]
async fn a_wrong_type_names_its_field() {
    let world = World::new();
    for (path, body, field) in [
        ("/api/execute", json!({"path": 1}), "path"),
        ("/api/execute", json!({"path": "a", "payload": [1]}), "payload"),
        ("/api/execute", json!({"path": "a", "version": "first"}), "version"),
        ("/api/execute", json!({"path": "a", "version": 0}), "version"),
        ("/api/execute", json!({"path": "a", "version": 1.5}), "version"),
        ("/api/execute", json!({"catalog_id": "x"}), "catalog_id"),
        ("/api/execute", json!({"path": "a", "parent_execution_id": true}), "parent_execution_id"),
        ("/api/execute", json!({}), "path"),
        ("/api/execute", json!({"path": " "}), "path"),
        ("/api/execute", json!({"path": "a", "payload": {}, "args": {}}), "workload"),
        ("/api/executions/1/cancel", json!({"cascade": "yes"}), "cascade"),
        ("/api/executions/1/cancel", json!({"mode": "gently"}), "mode"),
        ("/api/executions/1/cancel", json!({"grace_seconds": -1}), "grace_seconds"),
        ("/api/executions/1/cancel", json!({"wait_seconds": 1e9}), "wait_seconds"),
        ("/api/executions/1/cancel", json!({"reason": "x".repeat(4097)}), "reason"),
        ("/api/executions/1/cancel", json!({"reason": "a\u{0}b"}), "reason"),
        ("/api/executions/1/cancel", json!({"reason": "a\u{1b}[2J", "step": "a"}), "reason"),
        ("/api/executions/cancel", json!({"all": true, "reason": "\u{0}"}), "reason"),
        ("/api/executions/1/cancel", json!({"step": "a", "cascade": true}), "cascade"),
        ("/api/executions/1/cancel", json!({"step": "a", "mode": "finish"}), "mode"),
        ("/api/executions/1/cancel", json!({"iteration": 1}), "step"),
        ("/api/executions/1/cancel", json!({"complete": true}), "step"),
        ("/api/executions/1/cancel", json!({"complete": true, "step": "a", "iteration": 1}), "iteration"),
        ("/api/executions/1/cancel", json!({"complete": true, "step": "a", "cascade": true}), "cascade"),
        ("/api/executions/1/cancel", json!({"step": "a", "iteration": -1}), "iteration"),
        ("/api/executions/cancel", json!({}), "filter"),
        ("/api/executions/cancel", json!({"filter": {}}), "filter"),
        ("/api/executions/cancel", json!({"filter": {"idle_for": "soon"}}), "filter.idle_for"),
        ("/api/executions/cancel", json!({"filter": {"status": "RUNING"}}), "filter.status"),
        ("/api/executions/cancel", json!({"filter": {"status": "FAILED"}}), "filter.status"),
        ("/api/executions/cancel", json!({"filter": {"status": ""}}), "filter.status"),
        ("/api/executions/cancel", json!({"filter": {"status": " , "}, "all": true}), "filter.status"),
        ("/api/executions/cancel", json!({"filter": {"path": ""}}), "filter.path"),
        ("/api/executions/cancel", json!({"filter": {"path": "", "idle_for": "1h"}}), "filter.path"),
        ("/api/executions/cancel", json!({"filter": {"parent": ""}}), "filter.parent"),
        ("/api/executions/cancel", json!({"filter": {"label": ""}}), "filter.label"),
        ("/api/executions/cancel", json!({"filter": {"status": "RUNNING"}}), "filter"),
        ("/api/executions/cancel", json!({"filter": {"path": "**"}}), "filter"),
        ("/api/executions/cancel", json!({"filter": {"older_than": 0, "idle_for": "0s"}}), "filter"),
        ("/api/executions/cancel", json!({"ids": []}), "ids"),
        ("/api/executions/cancel", json!({"ids": ["1"], "all": true}), "ids"),
        ("/api/executions/cancel", json!({"ids": ["x"]}), "ids[0]"),
        ("/api/executions/cancel", json!({"all": true, "rate": 0}), "rate"),
        ("/api/executions/cancel", json!({"all": true, "wait_seconds": -1}), "wait_seconds"),
        ("/api/executions/cancel", json!({"all": true, "max": 0}), "max"),
        ("/api/executions/cleanup", json!({"older_than_minutes": 0}), "older_than_minutes"),
        ("/api/catalog/register", json!({}), "content"),
        ("/api/catalog/register/batch", json!({"items": [{"content": 1}]}), "items[0].content"),
        ("/api/catalog/resource", json!({}), "path"),
        ("/api/postgres/execute", json!({}), "query"),
        ("/api/postgres/execute", json!({"query": "SELECT 1", "schema": "public"}), "schema"),
        ("/api/postgres/execute", json!({"query_base64": "%"}), "query_base64"),
        ("/api/db/prune", json!({}), "older_than_seconds"),
        ("/api/worker/hello", json!({"worker_id": "w", "slots": "many"}), "slots"),
    ] {
        let refused = world.post(path, body.clone()).await.refused(400);
        assert_eq!(refused["field"], field, "{path} {body}: {}", refused["message"]);
    }
    for (body, field) in
        [(r#"{"reason": "a", "reason": "b"}"#, "reason"), (r#"[{"reason": "a"}]"#, "body"), (r#""reason""#, "body")]
    {
        let refused = world.post_text("/api/executions/1/cancel", body).await.refused(400);
        assert_eq!(refused["field"], field, "{body}: {}", refused["message"]);
    }
    let refused =
        world.post_text("/api/executions/cancel", r#"{"filter": {"path": "a", "path": "b"}}"#).await.refused(400);
    assert_eq!(refused["field"], "filter.path", "{}", refused["message"]);
    for (query, field) in [
        ("status=SLEEPING", "status"),
        ("page=0", "page"),
        ("page_size=0", "page_size"),
        ("page_size=1001", "page_size"),
        ("page=1&offset=3", "offset"),
        ("offset=99999999", "offset"),
        ("parent_execution_id=x", "parent_execution_id"),
        ("started_before=yesterday", "started_before"),
    ] {
        assert_eq!(world.get(&format!("/api/executions?{query}")).await.refused(400)["field"], field, "{query}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused() {
    let world = World::new();
    for body in [
        "{",
        "[]",
        "[\"demo/short\"]",
        "7",
        "\"x\"",
        "{\"path\": \"a\"} tail",
        "{\"path\": \"a\", \"path\": \"b\"}",
        "\u{1}",
    ] {
        world.post_text("/api/execute", body).await.refused(400);
        world.post_text("/api/executions/1/cancel", body).await.refused(400);
    }
    world.post_text("/api/execute", vec![0xff, 0xfe]).await.refused(400);
    let deep =
        format!("{{\"path\": \"a\", \"payload\": {}{}}}", "{\"a\":".repeat(500), "1".to_owned() + &"}".repeat(500));
    world.post_text("/api/execute", deep).await.refused(400);
}

#[tokio::test]
async fn no_body_an_empty_object_and_null_are_the_same() {
    let world = World::new();
    for body in ["", " \n", "{}", "null"] {
        let refused = world.post_text("/api/executions/4242/cancel", body).await.refused(404);
        assert_eq!(refused["code"], "unknown_execution", "{body:?}");
    }
}

#[tokio::test]
async fn an_oversized_body_is_413() {
    let world = World::new();
    let large = format!("{{\"path\": \"{}\"}}", "a".repeat(noetl::api::BODY_BYTES_MAX));
    assert_eq!(world.post_text("/api/execute", large.clone()).await.refused(413)["code"], "body_too_large");
    let refused = world.post_text("/api/executions/1/cancel", large).await.refused(413);
    assert_eq!(refused["cancelled_executions"], json!([]));
    // A report may be larger.
    let report = format!("{{\"x\": \"{}\"}}", "a".repeat(noetl::api::BODY_BYTES_MAX));
    world.post_text("/api/worker/report", report).await.refused(400);
}

#[tokio::test]
async fn what_can_not_be_executed_is_refused() {
    let world = World::new();
    world.register(SHORT).await;
    for (body, status, code) in [
        (json!({"path": "demo/none"}), 404, "unknown_playbook"),
        (json!({"path": "demo/short", "version": 9}), 404, "unknown_playbook"),
        (json!({"catalog_id": "4242"}), 404, "unknown_playbook"),
        (json!({"path": "demo/short", "parent_execution_id": "4242"}), 404, "unknown_parent"),
        (json!({"path": "demo/short", "resource_kind": "credential"}), 422, "unknown_kind"),
    ] {
        assert_eq!(world.post("/api/execute", body.clone()).await.refused(status)["code"], code, "{body}");
    }
    let long_key = "k".repeat(300);
    for key in ["", " ", long_key.as_str()] {
        let answer = world
            .with_header(Method::POST, "/api/execute", ("idempotency-key", key), r#"{"path": "demo/short"}"#)
            .await;
        assert_eq!(answer.refused(400)["field"], "Idempotency-Key");
    }
}

#[tokio::test]
async fn a_handler_that_panics_answers_500_as_json() {
    // No handler of ours should: the layer is put around one that does.
    async fn broken() -> &'static str {
        panic!("on purpose")
    }
    let router = noetl::api::shielded(axum::Router::new().route("/broken", axum::routing::get(broken)));
    let request = Request::get("/broken").body(Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
    assert_eq!(response.status().as_u16(), 500);
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((&body["status"], &body["code"]), (&json!("error"), &json!("bug")));
    assert!(!body.to_string().contains("on purpose"), "what panicked is for the log only");
}
