//! A data directory in use, and workers that reach it over HTTP.

use std::sync::Arc;

use async_trait::async_trait;
use noetl::clock;
use noetl::embed::{DataDir, Place, Role};
use noetl::http_transport::HttpTransport;
use noetl::server::node::{Node, NodeError, NodeOptions};
use noetl_core::id::SessionId;
use noetl_core::tool::{ToolCall, ToolOutcome};
use noetl_engine::transport::{Poll, Transport, WorkerError};
use noetl_engine::worker::{CommandSecrets, Stop, Tools, Worker, WorkerOptions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api_world::{Answer, LONG};

/// Tools that are done at once and say what they were asked.
struct Echo;

#[async_trait]
impl Tools for Echo {
    async fn run(&self, _slot: usize, call: ToolCall, _stop: Stop, _secrets: &Arc<CommandSecrets>) -> ToolOutcome {
        ToolOutcome::ok(json!({"kind": &*call.kind, "step": &*call.step}))
    }
}

async fn node(dir: &DataDir) -> Node {
    let owned = dir.try_take(Role::Server, clock::now()).unwrap().unwrap();
    Node::start(owned, NodeOptions::working(Role::Server, None)).await.unwrap()
}

async fn ask(node: &Node, path: &str, body: Option<Value>) -> Value {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;
    let request = match body {
        Some(body) => Request::post(path).body(Body::from(body.to_string())),
        None => Request::get(path).body(Body::empty()),
    };
    Answer::of(node.router().oneshot(request.unwrap()).await.unwrap()).await.ok()
}

async fn start(node: &Node) -> String {
    ask(node, "/api/catalog/register", Some(json!({"content": LONG}))).await;
    let started = ask(node, "/api/execute", Some(json!({"path": "demo/long"}))).await;
    started["execution_id"].as_str().unwrap().to_owned()
}

async fn quiesced(node: &Node, id: &str) -> Value {
    loop {
        let status = ask(node, &format!("/api/executions/{id}/status?wait_seconds=20&until=quiesced"), None).await;
        if status["quiesced"] == json!(true) {
            return status;
        }
    }
}

#[tokio::test]
async fn a_worker_outside_runs_what_it_is_given_over_the_socket() {
    let home = tempfile::tempdir().unwrap();
    let dir = DataDir::resolve(Some(home.path())).unwrap();
    let node = node(&dir).await;
    let Place::Guest(guest) = dir.take_or_join(Role::Run, clock::now()).await.unwrap() else {
        panic!("the directory has an owner");
    };
    let transport = Arc::new(HttpTransport::to_socket(guest.socket.path()).unwrap());
    let shutdown = CancellationToken::new();
    let options = WorkerOptions { worker_id: "outside".into(), ..WorkerOptions::default() };
    let worker = Worker::new(transport.clone(), Arc::new(Echo), clock::real(), options);
    let working = tokio::spawn(worker.run(shutdown.clone()));
    let id = start(&node).await;
    assert_eq!(quiesced(&node, &id).await["status"], "COMPLETED");
    let step = ask(&node, &format!("/api/executions/{id}/steps/after"), None).await;
    assert_eq!(step["result"], json!({"kind": "python", "step": "after"}));
    shutdown.cancel();
    working.await.unwrap();
    // What only the transport can say.
    let unknown = Poll {
        session_id: SessionId(4242),
        held: vec![],
        free: 0,
        wait_ms: 0,
        offer: false,
        draining: false,
        serial: 0,
        protocol: 1,
    };
    assert!(matches!(transport.poll(unknown).await, Err(WorkerError::UnknownSession(SessionId(4242)))));
    assert!(matches!(transport.result("noetl://nothing").await, Err(WorkerError::Bad(_))));
    node.stop().await;
    assert!(matches!(transport.result("noetl://nothing").await, Err(WorkerError::Unreachable(_))));
}

#[tokio::test]
async fn what_one_owner_began_the_next_one_finds() {
    let home = tempfile::tempdir().unwrap();
    let dir = DataDir::resolve(Some(home.path())).unwrap();
    let first = node(&dir).await;
    let id = start(&first).await;
    first.stop().await;
    assert!(!dir.socket().unwrap().path().exists());
    let owned = dir.try_take(Role::Visit, clock::now()).unwrap().unwrap();
    let visit = Node::start(owned, NodeOptions::visit()).await.unwrap();
    let reply = ask(&visit, &format!("/api/executions/{id}/cancel"), Some(json!({"reason": "from a visit"}))).await;
    assert_eq!((&reply["cancelled_executions"], &reply["quiesced"]), (&json!([id]), &json!(true)));
    let verified = ask(&visit, "/api/db/verify", None).await;
    assert_eq!((&verified["executions"], &verified["problems"]), (&json!(1), &json!([])));
    let backup = home.path().join("copy.db");
    let reply = ask(&visit, "/api/db/backup", Some(json!({"path": backup}))).await;
    assert!(reply["bytes"].as_u64().unwrap() > 0, "{reply}");
    visit.stop().await;
    let last = node(&dir).await;
    assert_eq!(quiesced(&last, &id).await["status"], "CANCELLED");
    last.stop().await;
}

#[tokio::test]
async fn the_tables_are_read_with_sql_and_never_written() {
    let home = tempfile::tempdir().unwrap();
    let dir = DataDir::resolve(Some(home.path())).unwrap();
    let node = node(&dir).await;
    let id = start(&node).await;
    ask(&node, &format!("/api/executions/{id}/cancel"), Some(json!({"reason": "Detected infinite loop"}))).await;
    let query = "SELECT execution_id, created_at, context->>'reason' as reason FROM noetl.event \
                 WHERE event_type = 'execution.cancelled' ORDER BY created_at DESC LIMIT 10";
    let reply = ask(&node, "/api/postgres/execute", Some(json!({"query": query, "schema": "noetl"}))).await;
    assert_eq!(reply["columns"], json!(["execution_id", "created_at", "reason"]));
    assert_eq!(reply["result"][0]["reason"], "Detected infinite loop");
    assert_eq!((&reply["status"], &reply["error"], &reply["truncated"]), (&json!("ok"), &json!(null), &json!(false)));
    let twice = ask(&node, "/api/postgres/execute", Some(json!({"query": "SELECT 1 AS n, 2 AS n"}))).await;
    assert_eq!(twice["result"], json!([{"n": 1, "n_2": 2}]));
    for query in [
        "INSERT INTO noetl.event (event_type) VALUES ('execution.cancelled')",
        "DELETE FROM noetl.event",
        "SELECT 1; DROP TABLE noetl.event",
        "SELECT * FROM noetl.nothing",
        "PRAGMA journal_mode",
        "ATTACH 'x' AS y",
        "nonsense",
    ] {
        let body = json!({"query": query}).to_string();
        let request = axum::http::Request::post("/api/postgres/execute").body(axum::body::Body::from(body)).unwrap();
        let answer = Answer::of(tower::ServiceExt::oneshot(node.router(), request).await.unwrap()).await;
        assert_eq!(answer.refused(400)["code"], "bad_query", "{query}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_directory_that_can_not_be_opened_is_given_up_again() {
    let home = tempfile::tempdir().unwrap();
    let dir = DataDir::resolve(Some(home.path())).unwrap();
    let garbage = vec![7_u8; 8192];
    std::fs::write(dir.database(), &garbage).unwrap();
    let owned = dir.try_take(Role::Server, clock::now()).unwrap().unwrap();
    let refused = Node::start(owned, NodeOptions::working(Role::Server, None)).await;
    assert!(matches!(refused, Err(NodeError::Store(_))), "{refused:?}");
    assert_eq!(std::fs::read(dir.database()).unwrap(), garbage, "what can not be read is left as it is");
    assert!(dir.try_take(Role::Server, clock::now()).unwrap().is_some());
}

#[test]
fn templates_see_only_what_is_exposed() {
    let seen = noetl::server::node::environment(&["CARGO_MANIFEST_DIR".to_owned()]);
    let names: Vec<&str> = seen.as_object().unwrap().keys().map(String::as_str).collect();
    assert!(names.contains(&"PATH") && names.contains(&"CARGO_MANIFEST_DIR"), "{names:?}");
    let allowed = ["CARGO_MANIFEST_DIR", "HOME", "LANG", "PATH", "TMPDIR", "TZ"];
    assert!(names.iter().all(|name| allowed.contains(name)), "{names:?}");
}

#[tokio::test]
async fn only_a_run_gives_way_to_a_server() {
    let home = tempfile::tempdir().unwrap();
    let dir = DataDir::resolve(Some(home.path())).unwrap();
    let owned = dir.try_take(Role::Run, clock::now()).unwrap().unwrap();
    let run = Node::start(owned, NodeOptions::working(Role::Run, None)).await.unwrap();
    assert!(!run.leaving().is_cancelled());
    assert_eq!(ask(&run, "/api/owner/leave", Some(json!({}))).await["status"], "leaving");
    assert!(run.leaving().is_cancelled());
    run.stop().await;
    let server = node(&dir).await;
    let request = axum::http::Request::post("/api/owner/leave").body(axum::body::Body::empty()).unwrap();
    let answer = tower::ServiceExt::oneshot(server.router(), request).await.unwrap();
    assert_eq!(Answer::of(answer).await.refused(409)["code"], "stays");
    assert!(!server.leaving().is_cancelled());
    server.stop().await;
}
