//! What an endpoint answers: JSON, or a refusal that is JSON as well.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What a handler returns.
pub(super) type Answer = Result<Json<Value>, Refusal>;

/// A status that is not 200, with its body.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    retry_after: Option<i64>,
    body: Value,
}

impl Refusal {
    /// Refuses with `{"detail": text}`.
    pub(super) fn error(status: StatusCode, text: impl Into<String>) -> Self {
        Refusal::with_body(status, json!({"detail": text.into()}))
    }

    /// Refuses with a body of its own.
    pub(super) fn with_body(status: StatusCode, body: Value) -> Self {
        Refusal { status, retry_after: None, body }
    }

    /// Adds `Retry-After`.
    pub(super) fn retry_after(mut self, seconds: i64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
