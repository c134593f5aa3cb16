//! The description of this interface: for programs, and a page that shows it to people.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use utoipa::OpenApi;
use utoipa::openapi::{ContentBuilder, OpenApi as Description, Ref, ResponseBuilder};

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

/// A refusal that a route need not document itself.
struct Refusal {
    status: &'static str,
    name: &'static str,
    description: &'static str,
    /// Whether an operation can be refused so.
    of: fn(&Asked) -> bool,
}

/// What matters of an operation about how it may be refused.
struct Asked {
    has_body: bool,
    reads: bool,
}

/// What the doors, the reading of a request and the store say, whatever the route.
const REFUSALS: [Refusal; 9] = [
    Refusal { status: "400", name: "BadRequest", description: "The request is malformed", of: |_| true },
    Refusal { status: "401", name: "Unauthorized", description: "A token is needed, or is not known", of: |_| true },
    Refusal { status: "403", name: "Forbidden", description: "A foreign `Host` or `Origin`", of: |_| true },
    Refusal { status: "408", name: "BodyTimeout", description: "The body did not arrive in time", of: |a| a.has_body },
    Refusal { status: "413", name: "BodyTooLarge", description: "The body is too large", of: |a| a.has_body },
    Refusal { status: "422", name: "BadData", description: "The data can not be kept or used", of: |a| !a.reads },
    Refusal { status: "500", name: "Defect", description: "A defect, or the store is damaged", of: |_| true },
    Refusal {
        status: "503",
        name: "Busy",
        description: "The store is closed or busy; it may work later",
        of: |_| true,
    },
    Refusal { status: "507", name: "StoreFull", description: "There is no room in the store", of: |a| !a.reads },
];

/// Adds to every operation how any operation may be refused.
pub(super) fn refusals(description: &mut Description) {
    let components = description.components.get_or_insert_default();
    for refusal in &REFUSALS {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        let response =
            ResponseBuilder::new().description(refusal.description).content("application/json", content).build();
        components.responses.insert(refusal.name.to_owned(), response.into());
    }
    for item in description.paths.paths.values_mut() {
        let reading = [&mut item.get, &mut item.head].map(|operation| (operation.as_mut(), true));
        let writing = [&mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        let writing = writing.map(|operation| (operation.as_mut(), false));
        for (operation, reads) in reading.into_iter().chain(writing) {
            let Some(operation) = operation else { continue };
            let asked = Asked { has_body: operation.request_body.is_some(), reads };
            for refusal in REFUSALS.iter().filter(|refusal| (refusal.of)(&asked)) {
                // What a route says of it itself is more to the point.
                let responses = &mut operation.responses.responses;
                let shared = || Ref::from_response_name(refusal.name).into();
                responses.entry(refusal.status.to_owned()).or_insert_with(shared);
            }
        }
    }
}

/// The description, served.
#[derive(Debug, Clone)]
pub(super) struct Served(pub(super) Bytes);

pub(super) async fn openapi(State(Served(text)): State<Served>) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}

pub(super) async fn page() -> Response {
    ([(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY))], Html(PAGE)).into_response()
}
