//! `http`: one request, and its answer as data.
//!
//! Configuration: `url`; `method` (default GET); `headers` and `params`, mappings (null leaves one out, a list gives
//! several); the body from one of `json`, `payload`, `data`, `body`, `form`; `auth`; `follow_redirects` (default
//! true); `verify_ssl` (default true). What is not a text becomes one as JSON writes it. A task without `timeout`
//! has [`TIMEOUT_DEFAULT_MS`] for the whole exchange, a stalled body included.
//!
//! Data: `{status_code, headers, data, body, url, elapsed}`: names of headers in lower case, `data` the parsed body
//! (`body` is the same), `url` where the answer came from, `elapsed` in seconds. A status of 400 or more is a soft
//! error with the same data, code `HTTP_<status>`. Without an answer it is a hard one.
//!
//! Stopping drops the connection. What the other side made of the request by then is unknown, and the error says so.

use std::time::Duration;

use noetl_core::tool::{ErrorKind, Stopped, ToolCall, ToolError, ToolOutcome};
use serde_json::{Map, Value, json};

use crate::Outside;
use crate::stop::Brake;

mod answer;
mod auth;
mod client;
mod failure;
mod request;
#[cfg(test)]
mod tests;

pub(crate) use client::Clients;

use answer::Answer;
use request::Request;

/// Time limit of an exchange whose task names none, in milliseconds.
pub const TIMEOUT_DEFAULT_MS: u64 = 30_000;

/// Longest body of an answer, after decompression, in bytes. The data holds it twice, as `data` and as `body`.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// Redirects followed in one exchange at most.
pub const REDIRECTS_MAX: usize = 10;

/// Makes the request of a call.
pub(crate) async fn run(clients: &Clients, call: &ToolCall, brake: &mut Brake, outside: Outside<'_>) -> ToolOutcome {
    match exchange(clients, &call.config, brake, outside).await {
        Ok(Exchange { answer, name, hidden }) => {
            let http = json!({ "status": answer.status.as_u16(), "headers": answer.headers });
            let error = failure::of_status(&answer, &name);
            ToolOutcome { error, http: Some(http), ..ToolOutcome::ok(answer.into_data(hidden.as_deref())) }
        }
        Err(outcome) => *outcome,
    }
}

/// Asks an issuer for a token and returns its answer. What was sent and what came stay out of errors.
pub(crate) async fn token(clients: &Clients, config: &Map<String, Value>) -> Result<Value, ToolError> {
    let request = Request::read(config).map_err(|error| *error)?;
    let name = request.to_string();
    let sent = tokio::time::timeout(Duration::from_millis(TIMEOUT_DEFAULT_MS), clients.send(request)).await;
    let answer = match sent {
        Ok(Ok(answer)) => answer,
        Ok(Err(failure)) => return Err(failure.of(&name)),
        Err(_) => {
            let message = format!("{name} gave no token within {TIMEOUT_DEFAULT_MS} ms");
            return Err(ToolError::hard(ErrorKind::Timeout, "TOKEN_TIMEOUT", message).retryable());
        }
    };
    if !answer.status.is_success() {
        let message = format!("{name} gave no token: it answered {}", answer.status.as_u16());
        return Err(ToolError::hard(ErrorKind::Auth, "TOKEN_REFUSED", message));
    }
    match answer.into_data(None).get_mut("data").map(Value::take) {
        Some(Value::Object(token)) => Ok(Value::Object(token)),
        Some(_) | None => {
            let message = format!("{name} gave no token: its answer is no JSON object");
            Err(ToolError::hard(ErrorKind::Auth, "TOKEN_ANSWER", message))
        }
    }
}

/// Returns the text at an address, for another tool. Whatever else comes is a hard error.
pub(crate) async fn text(
    clients: &Clients,
    config: &Map<String, Value>,
    limit_ms: u64,
    bytes_max: u64,
    brake: &mut Brake,
    outside: Outside<'_>,
) -> Result<String, Box<ToolOutcome>> {
    let limit = tokio::time::timeout(Duration::from_millis(limit_ms), exchange(clients, config, brake, outside));
    let failed = |error| Box::new(ToolOutcome::failed(error, Value::Null));
    let Exchange { answer, name, .. } = limit.await.map_err(|_| failed(failure::too_slow(limit_ms)))??;
    if let Some(error) = failure::of_status(&answer, &name) {
        return Err(failed(ToolError { hard: true, ..error }));
    }
    let size = answer.body.len();
    match answer.into_text() {
        Some(text) if size as u64 <= bytes_max => Ok(text),
        Some(_) => Err(failed(failure::unusable(&name, &format!("{size} bytes exceed the limit of {bytes_max}")))),
        None => Err(failed(failure::unusable(&name, "the answer is no text"))),
    }
}

struct Exchange {
    answer: Answer,
    /// The request for people.
    name: String,
    /// A query parameter that is a secret.
    hidden: Option<String>,
}

/// Sends what is configured and takes the answer, unless the brake comes first.
async fn exchange(
    clients: &Clients,
    config: &Map<String, Value>,
    brake: &mut Brake,
    outside: Outside<'_>,
) -> Result<Exchange, Box<ToolOutcome>> {
    // What the request is called, as soon as it is on its way.
    let mut sent = None;
    let ended = {
        let exchange = async {
            let mut request = Request::read(config)?;
            let authorization = auth::authorization(config.get("auth"), outside.secrets).await?;
            let hidden = request.sign(authorization)?;
            let name = request.to_string();
            sent = Some(name.clone());
            let answer = clients.send(request).await.map_err(|failure| Box::new(failure.of(&name)))?;
            Ok(Exchange { answer, name, hidden })
        };
        tokio::select! {
            biased;
            ended = exchange => Some(ended),
            _grace = brake.next() => None,
        }
    };
    // Without an end the exchange has been dropped, and its connection with it: there is nothing to be graceful about.
    let failed = |error| Box::new(ToolOutcome::failed(error, Value::Null));
    match ended {
        Some(ended) => ended.map_err(|error: Box<ToolError>| failed(*error)),
        None => {
            let outcome = failed(failure::cut_short(brake.cause(), sent.as_deref()));
            Err(Box::new(ToolOutcome { stopped: Some(Stopped::Stopped), ..*outcome }))
        }
    }
}
