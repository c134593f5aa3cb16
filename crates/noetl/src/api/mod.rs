//! The HTTP interface: wire types and routes, one file per resource, shared by server, worker and command line.
//!
//! A route is registered by the same line that documents it, so [`openapi`] can not drift from what is served.

pub mod caller;
pub mod catalog;
pub mod connections;
pub mod credentials;
pub mod db;
mod docs;
pub mod error;
pub mod execute;
pub mod executions;
pub mod extract;
pub mod health;
pub mod jobs;
mod labels;
mod metrics;
pub mod owner;
pub mod page;
pub mod schedules;
pub mod sql;
pub mod suggest;
pub mod time;
pub mod verify;
pub mod worker;
pub mod workers;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use noetl_engine::Engine;
use noetl_store::Store;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::connections::Connections;
use self::docs::Served;
use self::error::ApiError;
use self::extract::BodyLimit;
use self::metrics::Numbers;
use crate::arrivals;
use crate::embed::Role;
use crate::vault::Vault;

/// Largest request body where nothing larger is meant, in bytes.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest body of a catalog request, in bytes.
pub const CATALOG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest body of a worker's report, in bytes.
pub const REPORT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Longest time in which a request that does not wait by itself is answered.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Executions of one client may look again so often when nothing in this process tells them of news.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What every handler may use.
#[derive(Debug, Clone)]
pub struct Api {
    /// The engine.
    pub engine: Arc<Engine>,
    vault: Option<Arc<Vault>>,
    connections: Arc<Connections>,
    numbers: Arc<Numbers>,
    started: Instant,
    stopping: CancellationToken,
    role: Role,
    leaving: CancellationToken,
    readiness: Arc<health::Readiness>,
}

impl Api {
    /// Returns what handlers use. `stopping` ends everything that hangs.
    pub fn new(engine: Arc<Engine>, stopping: CancellationToken) -> Self {
        let connections = Arc::<Connections>::default();
        let numbers = Arc::new(Numbers::new(&engine, &connections));
        Api {
            engine,
            vault: None,
            connections,
            numbers,
            started: Instant::now(),
            stopping,
            role: Role::Server,
            leaving: CancellationToken::new(),
            readiness: Arc::default(),
        }
    }

    /// Says where secrets are kept.
    #[must_use]
    pub fn keeping(self, vault: Arc<Vault>) -> Self {
        Api { vault: Some(vault), ..self }
    }

    /// Says what the owner is there for, and how it hears that a server wants its place.
    #[must_use]
    pub fn leaving_by(self, role: Role, leaving: CancellationToken) -> Self {
        Api { role, leaving, ..self }
    }

    /// Returns where whoever listens counts connections.
    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }

    pub(in crate::api) fn store(&self) -> &dyn Store {
        self.engine.store().as_ref()
    }

    pub(in crate::api) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Returns when the server begins to stop.
    pub(in crate::api) async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Waits for news of an execution, until `deadline` at most; looks again now and then, because another process
    /// may write.
    pub(in crate::api) async fn woken_before(&self, deadline: Instant, versions: &mut watch::Receiver<u64>) {
        let look = deadline.min(Instant::now() + LOOK_AGAIN);
        let news = async {
            // A closed channel brings no news, but is no reason to look without a pause.
            if versions.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = news => {}
            () = tokio::time::sleep_until(look) => {}
            () = self.stopping() => {}
        }
    }
}

/// Routes that answer at once.
fn quick() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(execute::execute))
        .routes(routes!(executions::list::list))
        .routes(routes!(executions::rerun::rerun))
        .routes(routes!(executions::detail::detail))
        .routes(routes!(executions::steps::steps))
        .routes(routes!(executions::steps::step))
        .routes(routes!(executions::check::check))
        .routes(routes!(executions::tree::tree))
        .routes(routes!(sql::execute))
        .routes(routes!(credentials::register, credentials::list))
        .routes(routes!(credentials::show, credentials::delete))
        .routes(routes!(worker::hello))
        .routes(routes!(worker::claim))
        .routes(routes!(workers::list))
        .routes(routes!(schedules::add, schedules::list))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(schedules::remove))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::stop))
        .routes(routes!(worker::command))
        .routes(routes!(worker::playbook))
        .routes(routes!(worker::resolve))
        .routes(routes!(worker::log))
        .routes(routes!(worker::secrets::credential))
        .routes(routes!(worker::secrets::kept))
        .routes(routes!(worker::secrets::keep))
        .routes(routes!(health::root))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::health))
        .routes(routes!(health::pool))
        .routes(routes!(metrics::show))
        .routes(routes!(db::init))
        .routes(routes!(owner::leave))
}

/// Routes that take large bodies.
fn catalog() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(catalog::register))
        .routes(routes!(catalog::register_batch))
        .routes(routes!(catalog::list))
        .routes(routes!(catalog::resource))
}

/// Routes that hang until there is something to say, or work for as long as the data is large. Each has its own bound.
fn waiting() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(executions::status::status))
        .routes(routes!(executions::events::events))
        .routes(routes!(executions::logs::logs))
        .routes(routes!(executions::cancel::cancel))
        .routes(routes!(executions::cancel::stop))
        .routes(routes!(executions::pause::pause))
        .routes(routes!(executions::pause::resume))
        .routes(routes!(executions::bulk::cancel))
        .routes(routes!(executions::bulk::cleanup))
        .routes(routes!(db::validate))
        .routes(routes!(verify::verify))
        .routes(routes!(db::size))
        .routes(routes!(db::prune))
        .routes(routes!(db::backup))
}

/// The route that workers hear on.
fn polls() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(worker::poll))
}

/// Routes that take the results of work.
fn reports() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(worker::report)).routes(routes!(worker::advance::advance))
}

/// Bounds the bodies of routes, whether they say how long they are or not.
fn takes(routes: OpenApiRouter<Api>, bytes: usize) -> OpenApiRouter<Api> {
    routes.layer(DefaultBodyLimit::max(bytes)).layer(Extension(BodyLimit(bytes)))
}

fn all() -> (Router<Api>, utoipa::openapi::OpenApi) {
    let in_time = || middleware::from_fn(in_time);
    let stamp = || middleware::from_fn(arrivals::stamp);
    let (router, mut description) = OpenApiRouter::with_openapi(docs::Above::openapi())
        .merge(takes(quick().layer(in_time()), BODY_BYTES_MAX))
        .merge(takes(catalog().layer(in_time()), CATALOG_BYTES_MAX))
        .merge(takes(waiting(), BODY_BYTES_MAX))
        .merge(takes(polls().layer(stamp()), BODY_BYTES_MAX))
        .merge(takes(reports().layer(stamp()), REPORT_BYTES_MAX))
        .split_for_parts();
    docs::plain_paths(&mut description);
    docs::refusals(&mut description);
    (router, description)
}

/// Returns the description of the interface, as `docs/reference/openapi.json` keeps it.
pub fn openapi() -> String {
    docs::text(&all().1)
}

/// Returns the whole interface as one service. The doors are put around it by the listener.
pub fn router(api: Api) -> Router {
    let (router, description) = all();
    let served = Served(docs::text(&description).into());
    let pages = Router::new()
        .route("/api/openapi.json", get(docs::openapi))
        .route("/api/docs", get(docs::page))
        .with_state(served);
    let router =
        router.with_state(api.clone()).merge(pages).fallback(unknown_route).method_not_allowed_fallback(wrong_method);
    shielded(router).layer(middleware::from_fn_with_state(api, metrics::count))
}

/// Turns a handler's panic into an answer: a bug of ours is no reason to drop a connection.
pub fn shielded(router: Router) -> Router {
    router.layer(CatchPanicLayer::custom(panicked))
}

async fn unknown_route(method: Method, uri: Uri) -> ApiError {
    let message = format!("there is no {method} {}; /api/docs lists what there is", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, "unknown_route", message)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}; /api/docs says what it takes", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("no answer within {} s; it may still be done", REQUEST_TIMEOUT.as_secs());
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", message).into_response()
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the layer gives it away")]
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&'static str>().copied())
        .unwrap_or("no message");
    tracing::error!(panic = text, "a handler panicked");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", "this is a bug in noetl; the server's log says more")
        .into_response()
}
