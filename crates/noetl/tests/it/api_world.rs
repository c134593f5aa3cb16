//! A whole server without a network: the router over the engine over the memory store, or over PostgreSQL where the
//! environment of the test asks for that.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::Response;
use noetl::api::{self, Api};
use noetl::vault::Vault;
use noetl::vault::key::KeySource;
use noetl::vault::seal::MasterKey;
use noetl_core::time::Timestamp;
use noetl_engine::{Engine, EngineOptions, Running};
use noetl_store::Store;
use noetl_store::memory::MemoryStore;
use noetl_store::postgres::{Postgres, PostgresOptions};
use noetl_testkit::TestDatabase;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::support::wants_postgres;

/// A server.
pub(crate) struct World {
    pub(crate) router: Router,
    pub(crate) stopping: CancellationToken,
    _running: Running,
    // After what uses it.
    _database: Option<TestDatabase>,
}

/// What it answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// Reads a response to its end.
    pub(crate) async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    /// The body, which must be JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body of an answer that must be 200.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()
    }

    /// The body of a refusal, which must have the shape of one.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        let body = self.json();
        assert_eq!(body["status"], "error", "{body}");
        for field in ["message", "detail", "error", "code"] {
            assert!(body[field].as_str().is_some_and(|text| !text.is_empty()), "{field} is missing: {body}");
        }
        body
    }
}

impl World {
    /// A server that is up.
    pub(crate) fn new() -> Self {
        World::with(false)
    }

    /// A server that is up, and shows credentials as they are if `reading`.
    pub(crate) fn with(reading: bool) -> Self {
        let (store, database) = store();
        let key = MasterKey::generate().unwrap();
        let vault = Arc::new(Vault::new(Arc::clone(&store), KeySource::Given(key), 1, reading));
        let kept: Arc<dyn noetl_engine::secrets::Vault> = Arc::clone(&vault) as _;
        let options = EngineOptions { node: 1, vault: Some(kept), ..EngineOptions::default() };
        let engine = Engine::new(store, options);
        let running = engine.spawn();
        let stopping = CancellationToken::new();
        let router = api::router(Api::new(engine, stopping.clone()).keeping(vault));
        World { router, stopping, _running: running, _database: database }
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        Answer::of(self.router.clone().oneshot(request).await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.post_text(path, body.to_string()).await
    }

    pub(crate) async fn post_text(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.with_header(Method::POST, path, ("x-test", "1"), body).await
    }

    pub(crate) async fn with_header(
        &self,
        method: Method,
        path: &str,
        header: (&str, &str),
        body: impl Into<Body>,
    ) -> Answer {
        let request = Request::builder().method(method).uri(path).header(header.0, header.1).body(body.into()).unwrap();
        self.send(request).await
    }

    /// Registers a playbook.
    pub(crate) async fn register(&self, yaml: &str) -> Value {
        self.post("/api/catalog/register", json!({ "content": yaml })).await.ok()
    }

    /// Starts what is registered under `path`, and returns the execution's id.
    pub(crate) async fn start(&self, path: &str) -> String {
        let started = self.post("/api/execute", json!({ "path": path })).await.ok();
        started["execution_id"].as_str().unwrap().to_owned()
    }

    /// Waits until an execution has ended and come to rest, and returns its status.
    pub(crate) async fn quiesced(&self, id: &str) -> Value {
        loop {
            let path = format!("/api/executions/{id}/status?wait_seconds=20&until=quiesced");
            let status = self.get(&path).await.ok();
            if status["quiesced"] == json!(true) {
                return status;
            }
        }
    }
}

/// Returns the store that the environment of the test asks for, and the database that it is in.
fn store() -> (Arc<dyn Store>, Option<TestDatabase>) {
    if !wants_postgres() {
        return (Arc::new(MemoryStore::new(Arc::new(now))), None);
    }
    // Its tasks outlive the test that asks first, and a test can not wait for one runtime inside of another.
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let opened = std::thread::spawn(|| {
        let runtime = RUNTIME.get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
        });
        runtime.block_on(async {
            let database = TestDatabase::start().await.unwrap()?;
            let address = database.address().url().parse().unwrap();
            let store = Postgres::open(PostgresOptions::new(address)).await.unwrap();
            Some((Arc::new(store) as Arc<dyn Store>, database))
        })
    });
    match opened.join().unwrap() {
        Some((store, database)) => (store, Some(database)),
        None => (Arc::new(MemoryStore::new(Arc::new(now))), None),
    }
}

fn now() -> Timestamp {
    noetl::clock::now()
}

/// Ends by itself, without a worker.
pub(crate) const SHORT: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata:
  name: short
  path: demo/short
workload:
  greeting: hello
workflow:
  - step: start
    tool:
      kind: noop
    next:
      arcs:
        - step: deep/er
  - step: deep/er
    tool:
      kind: noop
";

/// Waits for a worker, which these tests play.
pub(crate) const LONG: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata:
  name: long
  path: demo/long
workflow:
  - step: start
    tool:
      kind: python
      code: 'result = {\"n\": 1}'
    next:
      arcs:
        - step: after
  - step: after
    tool:
      kind: python
      code: 'result = {\"n\": 2}'
";
