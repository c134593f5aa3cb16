//! One HTTP server that stands in for all services which the playbooks call.
//!
//! Plain HTTP/1.1, JSON answers, everything in memory, shared by all callers. Its specification is the page
//! `HTTP-TEST-SERVER.md` beside the manifest; each file here is a part of that page.

mod answer;
mod collections;
mod failures;
mod large;
mod params;
mod patients;
mod probe;
mod public;
mod state;

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Fault;
use answer::Refusal;
use state::{Services, locked};

/// The port that the playbooks' authors chose.
pub const PORT_DEFAULT: u16 = 5555;

/// A server that answers until it is dropped.
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Listening {
    /// Returns where it listens, as `HOST:PORT`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it ends, which it does not do by itself.
    pub async fn ended(&mut self) -> Result<(), Fault> {
        (&mut self.task).await.map_err(Fault::while_doing("serve http"))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts the server on loopback; port 0 is any free one.
pub async fn listen(port: u16) -> Result<Listening, Fault> {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(wanted).await.map_err(Fault::while_doing(format!("listen on {wanted}")))?;
    let address = listener.local_addr().map_err(Fault::while_doing("read the address of the listener"))?;
    let task = tokio::spawn(async move {
        // `serve` meets errors of single connections by itself and never ends.
        drop(axum::serve(listener, router()).await);
    });
    Ok(Listening { address, task })
}

/// Returns all routes over a state of their own.
pub fn router() -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/__test/reset", post(reset))
        .merge(collections::routes())
        .merge(failures::routes())
        .merge(large::routes())
        .merge(probe::routes())
        .merge(patients::routes())
        .merge(public::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        // Playbooks send bodies of several MiB.
        .layer(DefaultBodyLimit::disable())
        .with_state(Services::default())
}

async fn health() -> axum::Json<Value> {
    axum::Json(json!({"status": "ok"}))
}

async fn reset(State(services): State<Services>) -> axum::Json<Value> {
    let mut memory = locked(&services);
    memory.clear();
    axum::Json(json!({"status": "reset"}))
}

async fn unknown_path() -> Response {
    Refusal::error(StatusCode::NOT_FOUND, "Not Found").into_response()
}

async fn wrong_method() -> Response {
    Refusal::error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed").into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, header};
    use tower::ServiceExt;

    use super::*;

    /// Asks `router` and returns status, headers of interest and the JSON body.
    pub(super) async fn ask(router: &Router, method: &str, uri: &str) -> (u16, Value) {
        let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json", "{method} {uri}");
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn unknown_paths_and_wrong_methods_answer_with_a_detail() {
        let router = router();
        assert_eq!(ask(&router, "GET", "/nowhere").await, (404, json!({"detail": "Not Found"})));
        assert_eq!(ask(&router, "POST", "/health").await, (405, json!({"detail": "Method Not Allowed"})));
        assert_eq!(ask(&router, "GET", "/post").await, (405, json!({"detail": "Method Not Allowed"})));
        assert_eq!(ask(&router, "GET", "/health").await, (200, json!({"status": "ok"})));
    }

    #[tokio::test]
    async fn reset_forgets_counters_windows_and_objects() {
        let router = router();
        let flaky = "/api/v1/flaky?page=1&fail_on=1";
        assert_eq!(ask(&router, "GET", flaky).await.0, 500);
        assert_eq!(ask(&router, "GET", flaky).await.0, 200);
        let limited = "/api/v1/rate-limited?requests_per_second=1";
        assert_eq!(ask(&router, "GET", limited).await.0, 200);
        assert_eq!(ask(&router, "GET", limited).await.0, 429);
        assert_eq!(ask(&router, "POST", "/upload/storage/v1/b/x/o?name=a").await.0, 200);
        assert_eq!(ask(&router, "GET", "/api/v1/concurrency/probe").await.0, 200);

        assert_eq!(ask(&router, "POST", "/__test/reset").await, (200, json!({"status": "reset"})));

        assert_eq!(ask(&router, "GET", flaky).await.0, 500);
        assert_eq!(ask(&router, "GET", limited).await.0, 200);
        assert_eq!(ask(&router, "GET", "/storage/v1/b/x/o").await.1["items"], json!([]));
        assert_eq!(ask(&router, "GET", "/api/v1/concurrency/stats").await.1["started"], 0);
    }

    #[tokio::test]
    async fn a_listening_server_says_where_and_ends_when_it_is_dropped() {
        let listening = listen(0).await.unwrap();
        let address = listening.address();
        assert_ne!(address.port(), 0);
        assert!(tokio::net::TcpStream::connect(address).await.is_ok());
        let twice = listen(address.port()).await.unwrap_err();
        assert!(twice.0.contains(&address.to_string()), "{twice}");
    }
}
