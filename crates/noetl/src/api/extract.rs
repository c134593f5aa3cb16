//! What handlers read from a request, each refusing bad input as JSON that names the field.

use std::str::FromStr;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use noetl_core::id::{CancellationId, CatalogId, EventId, ExecutionId, ParseIdError};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::PartialSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use super::error::ApiError;
use super::suggest;

/// Longest time in which a request body must arrive.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// What is wrong when it is no field: the body as a whole.
const WHOLE_BODY: &str = "body";
/// Characters of an unreadable body that a refusal repeats.
const BODY_TEXT_SHOWN: usize = 80;

/// A JSON body. Its content type does not matter: `curl -d '{…}'` says `x-www-form-urlencoded`.
///
/// No body, `{}` and `null` are the same.
#[derive(Debug, Clone)]
pub struct Body<T>(pub T);

impl<S, T> FromRequest<S> for Body<T>
where
    S: Send + Sync,
    T: DeserializeOwned + PartialSchema,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        parse_body(&read(request, state).await?).map(Body)
    }
}

/// A JSON body with secrets in it: a refusal names the field and repeats nothing of what was sent.
#[derive(Debug, Clone)]
pub struct SecretBody<T>(pub T);

impl<S, T> FromRequest<S> for SecretBody<T>
where
    S: Send + Sync,
    T: DeserializeOwned + PartialSchema,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        parse_body(&read(request, state).await?).map(SecretBody).map_err(|refusal: ApiError| match refusal.body.field {
            Some(field) if field != WHOLE_BODY => ApiError::bad_field(&field, "is not what is expected here"),
            Some(_) | None => ApiError::bad_request("the body must be a JSON object"),
        })
    }
}

/// Largest body of a route, in bytes, for whoever reads one. The route's layer puts it into the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BodyLimit(pub(super) usize);

/// Reads the bytes of a body, in bounded time and size.
pub(super) async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    // One that says itself that it is too large is not waited for.
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let limit = request.extensions().get::<BodyLimit>().map_or(u64::MAX, |BodyLimit(bytes)| *bytes as u64);
    if declared.is_some_and(|length| length > limit) {
        return Err(ApiError::body_too_large());
    }
    let reading = Bytes::from_request(request, state);
    let bytes = tokio::time::timeout(BODY_READ_TIMEOUT, reading).await.map_err(|_| {
        let message = format!("the request body did not arrive within {} s", BODY_READ_TIMEOUT.as_secs());
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
    })?;
    Ok(bytes?)
}

/// Reads a JSON body.
pub fn parse_body<T: DeserializeOwned + PartialSchema>(bytes: &[u8]) -> Result<T, ApiError> {
    let text = bytes.trim_ascii();
    let text: &[u8] = if text.is_empty() || text == b"null" { b"{}" } else { text };
    // Checked by hand: serde would read a list as the fields in their order.
    if text[0] != b'{' {
        let mut refusal = ApiError::bad_request(format!("the body must be a JSON object, not `{}`", start_of(text)));
        refusal.body.field = Some(WHOLE_BODY.to_owned());
        return Err(refusal);
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let error = match serde_path_to_error::deserialize(&mut reader) {
        Ok(body) => match reader.end() {
            Ok(()) => return Ok(body),
            Err(error) => return Err(ApiError::bad_request(format!("the body is not JSON: {error}"))),
        },
        Err(error) => error,
    };
    // Only on the way to a refusal is the body looked at twice: to say which key is unknown and what was meant.
    match serde_json::from_slice::<Map<String, Value>>(text) {
        Err(error) => Err(ApiError::bad_request(format!("the body is not JSON: {error}, in `{}`", start_of(text)))),
        Ok(map) => {
            let known = keys_of::<T>();
            if let Some(key) = map.keys().find(|key| !known.contains(key)) {
                let mut refusal = ApiError::bad_request(suggest::unknown_key(key, &known));
                refusal.body.field = Some(key.clone());
                return Err(refusal);
            }
            let problem = meant(plain(error.inner()));
            let field = match twice(&problem) {
                // The path is that of the object that has the key.
                Some(key) if error.path().iter().len() == 0 => key.to_owned(),
                Some(key) => format!("{}.{key}", error.path()),
                None => error.path().to_string(),
            };
            Err(if field == "." { ApiError::bad_request(problem) } else { ApiError::bad_field(&field, problem) })
        }
    }
}

fn start_of(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(BODY_TEXT_SHOWN).collect()
}

/// The error without its place in the text: the field says where.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Returns the key that stands twice in an object, if that is what is wrong.
fn twice(problem: &str) -> Option<&str> {
    problem.strip_prefix("duplicate field `")?.strip_suffix('`')
}

/// Says which key was meant, where serde lists what it expected inside an object.
fn meant(problem: String) -> String {
    let Some((given, expected)) =
        problem.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, expected "))
    else {
        return problem;
    };
    let known: Vec<String> = expected.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    suggest::unknown_key(given, &known)
}

/// Returns the keys of a body, from the schema that the documentation shows.
fn keys_of<T: PartialSchema>() -> Vec<String> {
    match T::schema() {
        RefOr::T(Schema::Object(object)) => object.properties.keys().cloned().collect(),
        RefOr::T(_) | RefOr::Ref(_) => Vec::new(),
    }
}

/// A query string.
#[derive(Debug, Clone, Default)]
pub struct Query<T>(pub T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let axum::extract::Query(query) = axum::extract::Query::<T>::from_request_parts(parts, state).await?;
        Ok(Query(query))
    }
}

/// An id in the path, by the name of its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathId<T>(pub T);

/// An id that stands in paths under one name.
pub trait NamedId: FromStr<Err = ParseIdError> {
    /// The name of the path segment.
    const NAME: &'static str;
}

impl NamedId for ExecutionId {
    const NAME: &'static str = "execution_id";
}

impl NamedId for CatalogId {
    const NAME: &'static str = "catalog_id";
}

impl NamedId for EventId {
    const NAME: &'static str = "event_id";
}

impl NamedId for CancellationId {
    const NAME: &'static str = "job_id";
}

impl<S: Send + Sync, T: NamedId> FromRequestParts<S> for PathId<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = segment(parts, state, T::NAME).await?;
        text.parse().map(PathId).map_err(|error: ParseIdError| {
            let refusal = ApiError::bad_field(T::NAME, error);
            if T::NAME == ExecutionId::NAME { refusal.about_execution(text) } else { refusal }
        })
    }
}

/// The rest of the path: a step name, which may hold slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepName(pub String);

impl<S: Send + Sync> FromRequestParts<S> for StepName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        segment(parts, state, "step").await.map(StepName)
    }
}

/// A credential in the path, by name or id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialName(pub String);

impl<S: Send + Sync> FromRequestParts<S> for CredentialName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        segment(parts, state, "credential").await.map(CredentialName)
    }
}

async fn segment<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<String, ApiError> {
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|rejection| ApiError::bad_field(name, rejection.body_text()))?;
    match params.iter().find(|(key, _)| *key == name) {
        Some((_, value)) => Ok(value.to_owned()),
        None => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", format!("the route has no `{name}`"))),
    }
}
