//! What a benchmark loads: an engine of its own in this process, or a server that somebody else has started.

use std::sync::Arc;
use std::time::{Duration, Instant};

use noetl_core::head::Status;
use noetl_core::labels::Labels;
use noetl_engine::{Engine, StartRequest, WaitFor};
use noetl_store::catalog::ResourceKey;
use serde_json::{Value, json};

use super::EXECUTION_MS_MAX;
use crate::client::{Answer, Client};
use crate::render::document;

/// How long one request may hang.
const HANG: Duration = Duration::from_secs(20);

/// What is loaded. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// An engine in this process.
    Engine(Arc<Engine>),
    /// A server.
    Server(Arc<Client>),
}

impl Target {
    /// Puts a playbook into the catalog.
    pub(super) async fn register(&self, source: &str) -> Result<(), String> {
        match self {
            Target::Engine(engine) => {
                engine.register(source, None).await.map(drop).map_err(|error| format!("{error:?}"))
            }
            Target::Server(client) => {
                let body = json!({ "content": source, "resource_type": "playbook" });
                let answer = client.post(&["catalog", "register"]).body(body).send().await;
                answered(&answer.map_err(|error| error.to_string())?).map(drop)
            }
        }
    }

    /// Runs a playbook, and returns when it has completed.
    pub(super) async fn run(&self, path: &str) -> Result<(), String> {
        self.run_with(path, json!({})).await
    }

    /// The same, with a payload.
    pub(super) async fn run_with(&self, path: &str, payload: Value) -> Result<(), String> {
        match self {
            Target::Engine(engine) => {
                let request = StartRequest {
                    target: ResourceKey::Latest(path.into()),
                    payload: payload.as_object().cloned().unwrap_or_default(),
                    parent_execution_id: None,
                    started_by: Some("bench".to_owned()),
                    strict: true,
                    labels: Labels::new(),
                    idempotency_key: None,
                };
                let id = engine.start(request).await.map_err(|error| error.to_string())?.execution_id;
                let waited = engine.wait(id, WaitFor::Terminal, EXECUTION_MS_MAX).await;
                let status = waited.map_err(|error| error.to_string())?.map(|head| head.status);
                completed(&id.to_string(), status.map_or("unknown", Status::as_str))
            }
            Target::Server(client) => {
                let body = json!({ "path": path, "strict": true, "payload": payload });
                let answer = client.post(&["execute"]).body(body).send().await.map_err(|error| error.to_string())?;
                let started = answered(&answer)?;
                let id = document::text(&started, "execution_id").unwrap_or_default().to_owned();
                let deadline = Instant::now() + Duration::from_millis(EXECUTION_MS_MAX);
                loop {
                    let left = deadline.saturating_duration_since(Instant::now()).min(HANG);
                    let request = client.get(&["executions", &id, "status"]).patience(left);
                    let request = request.query("wait_seconds", left.as_secs_f64()).query("until", "terminal");
                    let body = answered(&request.send().await.map_err(|error| error.to_string())?)?;
                    let status = document::status(&body);
                    if document::is_terminal(&status) || left.is_zero() {
                        return completed(&id, &status);
                    }
                }
            }
        }
    }
}

fn completed(id: &str, status: &str) -> Result<(), String> {
    match status {
        "COMPLETED" => Ok(()),
        other => Err(format!("execution {id} is {other}, not COMPLETED")),
    }
}

pub(super) fn answered(answer: &Answer) -> Result<Value, String> {
    match answer.json() {
        Some(body) if answer.is_success() => Ok(body),
        Some(_) | None => Err(format!("{}: {}", answer.status, answer.message())),
    }
}
