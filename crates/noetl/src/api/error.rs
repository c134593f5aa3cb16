//! Refusals as JSON: one shape for every error that a client can meet.

use axum::Json;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use noetl_core::diag::{Diagnostic, Severity};
use noetl_store::StoreError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What every refusal looks like.
///
/// `message` is the sentence for people, `detail` and `error` say the same to clients of older servers. A cancel that
/// is refused carries `execution_id` and an empty `cancelled_executions` as well.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// Always `error`.
    pub status: String,
    /// The execution that the request named, as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<String>,
    /// Always empty; only a refused cancel has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_executions: Option<Vec<String>>,
    /// What is wrong and what to do.
    pub message: String,
    /// The same as `message`.
    pub detail: String,
    /// The same as `message`.
    pub error: String,
    /// A stable word for programs: `unknown_execution`, `already_ended`, `bad_request`, …
    pub code: String,
    /// The field of the request that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The status of the execution that has ended already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_status: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Whether nothing of it runs any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiesced: Option<bool>,
    /// What of it, and with `cascade` below it, has ended and has something running still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unquiesced_executions: Option<Vec<String>>,
    /// Who cancelled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<String>,
    /// Who said to have asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// The execution that was named when it was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_execution_id: Option<String>,
    /// Why it was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Everything that is wrong with a playbook.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<WireDiagnostic>,
}

/// One finding about one place of a playbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WireDiagnostic {
    /// Stable code, `NE` and four digits.
    pub code: String,
    /// `error` or `warning`.
    pub severity: String,
    /// What is wrong.
    pub message: String,
    /// Line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in characters, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// Byte offset of the first byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<usize>,
    /// Byte offset after the last byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<usize>,
    /// What to write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<&Diagnostic> for WireDiagnostic {
    fn from(diagnostic: &Diagnostic) -> Self {
        let span = diagnostic.span;
        WireDiagnostic {
            code: diagnostic.code.to_owned(),
            severity: diagnostic.severity.to_string(),
            message: diagnostic.message.clone(),
            line: span.map(|span| span.line),
            column: span.map(|span| span.column),
            start: span.map(|span| span.start),
            end: span.map(|span| span.end),
            hint: diagnostic.hint.clone(),
        }
    }
}

/// A refusal on its way out.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// The body.
    pub body: Box<ErrorBody>,
    /// The sentence that the network hears instead of the message, which may name paths, hosts and tables. Whoever may
    /// open the data directory, and the log, know all of it.
    pub discreet: Option<&'static str>,
}

/// What stands in place of a refusal that is not for everybody. The response carries it to the doors.
#[derive(Debug, Clone)]
pub struct Discreet(ApiError);

impl IntoResponse for Discreet {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl ApiError {
    /// Returns a refusal with `message`.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let body = ErrorBody {
            status: "error".to_owned(),
            detail: message.clone(),
            error: message.clone(),
            message,
            code: code.to_owned(),
            ..ErrorBody::default()
        };
        ApiError { status, body: Box::new(body), discreet: None }
    }

    /// Returns a 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// Returns a 400 about one field.
    pub fn bad_field(field: &str, problem: impl std::fmt::Display) -> Self {
        let mut error = ApiError::bad_request(format!("{field}: {problem}"));
        error.body.field = Some(field.to_owned());
        error
    }

    /// Returns a 413.
    pub fn body_too_large() -> Self {
        let message = "the request body is larger than this endpoint takes";
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    /// Returns a 404 for an execution.
    pub fn unknown_execution(execution_id: impl std::fmt::Display) -> Self {
        let id = execution_id.to_string();
        ApiError::new(StatusCode::NOT_FOUND, "unknown_execution", format!("Execution {id} not found"))
            .about_execution(id)
    }

    /// Returns a 422 that lists everything wrong with a playbook.
    pub fn invalid_playbook(diagnostics: &[Diagnostic]) -> Self {
        let errors: Vec<_> = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).collect();
        let first = errors.first().map_or_else(|| "unknown reason".to_owned(), ToString::to_string);
        let more = match errors.len() {
            0 | 1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        let mut error = ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_playbook",
            format!("the playbook is invalid: {first}{more}"),
        );
        error.body.diagnostics = diagnostics.iter().map(WireDiagnostic::from).collect();
        error
    }

    /// Says what the network hears instead of the message.
    #[must_use]
    pub fn discreet(mut self, sentence: &'static str) -> Self {
        self.discreet = Some(sentence);
        self
    }

    /// Says which execution the refusal is about.
    #[must_use]
    pub fn about_execution(mut self, execution_id: impl Into<String>) -> Self {
        self.body.execution_id = Some(execution_id.into());
        self
    }

    /// Gives the refusal the shape of a refused cancel.
    #[must_use]
    pub fn as_cancel(mut self, execution_id: impl Into<String>) -> Self {
        self.body.execution_id = Some(execution_id.into());
        self.body.cancelled_executions = Some(Vec::new());
        self
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.body.message)
    }
}

impl std::error::Error for ApiError {}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Some(sentence) = self.discreet else {
            return (self.status, Json(self.body)).into_response();
        };
        let mut body = self.body.clone();
        body.message = sentence.to_owned();
        body.detail = sentence.to_owned();
        body.error = sentence.to_owned();
        let discreet = Discreet(ApiError { status: self.status, body, discreet: None });
        let mut response = (self.status, Json(self.body)).into_response();
        response.extensions_mut().insert(discreet);
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let (status, code, discreet) = match &error {
            StoreError::Full(_) => (StatusCode::INSUFFICIENT_STORAGE, "store_full", Some("the store is full")),
            StoreError::Corrupt(_) => {
                let sentence = "the store is damaged; the server's log says where";
                (StatusCode::INTERNAL_SERVER_ERROR, "store_damaged", Some(sentence))
            }
            StoreError::Closed(_) => {
                let sentence = "the store is closed; the server's log says why";
                (StatusCode::SERVICE_UNAVAILABLE, "store_closed", Some(sentence))
            }
            StoreError::BadData(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_data", None),
            StoreError::Query(_) => (StatusCode::BAD_REQUEST, "bad_query", None),
            StoreError::Unavailable(_) => {
                let sentence = "the store does not do it now; it may later, and the server's log says why";
                (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", Some(sentence))
            }
        };
        if status.is_server_error() {
            tracing::error!(%error, "the store refused a request");
        }
        let refusal = ApiError::new(status, code, error.to_string());
        ApiError { discreet, ..refusal }
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        let status = rejection.status();
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::body_too_large()
        } else {
            ApiError::new(status, "unreadable_body", format!("the request body can not be read: {rejection}"))
        }
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        ApiError::bad_request(rejection.body_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_refuses_has_a_status_of_its_own() {
        for (error, status) in [
            (StoreError::Full("disk".into()), 507),
            (StoreError::Corrupt("bytes".into()), 500),
            (StoreError::Closed("newer".into()), 503),
            (StoreError::BadData("NaN".into()), 422),
            (StoreError::Query("syntax".into()), 400),
            (StoreError::Unavailable("busy".into()), 503),
        ] {
            let refusal = ApiError::from(error);
            assert_eq!(refusal.status.as_u16(), status, "{refusal}");
            assert_eq!(refusal.body.message, refusal.body.detail);
        }
    }
}
