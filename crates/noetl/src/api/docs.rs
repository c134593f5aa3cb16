//! The description of this interface: for programs, and a page that shows it to people.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Description;

/// The page: one file, nothing from elsewhere. It reads `/api/openapi.json`.
const PAGE: &str = include_str!("docs.html");
/// Nothing but itself: its own script and style, and this server.
const PAGE_POLICY: &str =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'";

/// What stands above the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "noetl",
        description = "Runs playbooks, and stops them when told. Every id is a string in answers and a string or an \
                       integer in requests: ids exceed 2^53.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "execute", description = "Starting"),
        (name = "executions", description = "Looking and stopping"),
        (name = "jobs", description = "Cascades and cancels of many, under way and done"),
        (name = "catalog", description = "Playbooks by path and version"),
        (name = "sql", description = "Reading the tables"),
        (name = "db", description = "The tables themselves"),
        (name = "worker", description = "The way from workers to this server"),
        (name = "health", description = "Whether it is there, and well"),
    )
)]
pub(super) struct Above;

/// Returns the description as text, as it is served and as `docs/reference/openapi.json` keeps it.
pub(super) fn text(description: &Description) -> String {
    let mut text = description.to_pretty_json().unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"));
    text.push('\n');
    text
}

/// Turns axum's `{*step}` into OpenAPI's `{step}`.
pub(super) fn plain_paths(description: &mut Description) {
    let paths = std::mem::take(&mut description.paths.paths);
    description.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
}

/// The description, served.
#[derive(Debug, Clone)]
pub(super) struct Served(pub(super) Arc<str>);

pub(super) async fn openapi(State(Served(text)): State<Served>) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], text.to_string()).into_response()
}

pub(super) async fn page() -> Response {
    ([(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY))], Html(PAGE)).into_response()
}
