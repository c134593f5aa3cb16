//! What went wrong, in the words of policies.

use std::error::Error as StdError;
use std::io;

use jiff::Timestamp;
use noetl_core::tool::{ErrorKind, ToolError};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::answer::Answer;
use super::{BODY_BYTES_MAX, REDIRECTS_MAX};
use crate::stop::Cause;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// A client could not be made.
    NoClient(reqwest::Error),
    /// The exchange failed.
    Exchange(reqwest::Error),
    /// The answer is larger than is taken.
    TooLarge,
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        Failure::Exchange(error)
    }
}

impl Failure {
    /// Returns the error of a request, which `name` names.
    pub(super) fn of(self, name: &str) -> ToolError {
        match self {
            Failure::NoClient(error) => {
                let message = format!("an HTTP client can not be made on this worker: {}", causes(&error));
                ToolError::hard(ErrorKind::Config, "HTTP_CLIENT", message)
            }
            Failure::TooLarge => {
                let message = format!("{name}: the body of the answer exceeds the limit of {BODY_BYTES_MAX} bytes");
                ToolError::hard(ErrorKind::Limit, "HTTP_BODY_TOO_LARGE", message)
            }
            Failure::Exchange(error) => of_exchange(&error, name),
        }
    }
}

fn of_exchange(error: &reqwest::Error, name: &str) -> ToolError {
    let because = causes(error);
    let hard = |kind, code, message: String| ToolError::hard(kind, code, format!("{name}: {message}"));
    if error.is_redirect() {
        // Our own refusals say why; the library's is the limit.
        let because = match error.source() {
            Some(cause) if !because.contains("too many redirects") => cause.to_string(),
            Some(_) | None => format!("more than {REDIRECTS_MAX} redirects"),
        };
        return hard(ErrorKind::ClientError, "HTTP_REDIRECT", because);
    }
    if is_tls(error) {
        return hard(ErrorKind::Connection, "HTTP_TLS", format!("no secure connection: {because}"));
    }
    if error.is_connect() {
        return hard(ErrorKind::Connection, "HTTP_CONNECT", format!("could not connect: {because}")).retryable();
    }
    if error.is_builder() {
        return hard(ErrorKind::Config, "HTTP_CONFIG", because);
    }
    hard(ErrorKind::Connection, "HTTP_CONNECTION", format!("the connection was lost: {because}")).retryable()
}

fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    // An `io::Error` shows what it wraps only to whoever asks.
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>() || wrapped.is_some_and(|inner| is_tls(inner)) || error.source().is_some_and(is_tls)
}

/// Returns the chain of causes, from the second on: the first is the library's, and names the whole address.
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Many a cause repeats what it is caused by.
        if !text.contains(&cause_text) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    if text.is_empty() { "no reason is known".to_owned() } else { text }
}

/// Returns the soft error of an answer whose status says that it is one.
pub(super) fn of_status(answer: &Answer, name: &str) -> Option<ToolError> {
    let status = answer.status;
    if !(status.is_client_error() || status.is_server_error() || status.as_u16() >= 600) {
        return None;
    }
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::RateLimit,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Auth,
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        status if status.is_client_error() => ErrorKind::ClientError,
        _ => ErrorKind::ServerError,
    };
    let number = status.as_u16();
    let words = status.canonical_reason().map(|words| format!(" {words}")).unwrap_or_default();
    let mut error = ToolError::soft(kind, format!("HTTP_{number}"), format!("{name} answered {number}{words}"))
        .with("status", number)
        .with("status_code", number)
        .with("http_status", number);
    if let Some(seconds) = retry_after(answer.headers.get("retry-after"), Timestamp::now()) {
        error = error.with("retry_after", seconds);
    }
    Some(if matches!(kind, ErrorKind::RateLimit | ErrorKind::ServerError) { error.retryable() } else { error })
}

/// Returns after how many seconds the other side wants to be asked again.
fn retry_after(header: Option<&Value>, now: Timestamp) -> Option<Value> {
    let text = header?.as_str()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.into());
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
    Some(json!(at.as_second().saturating_sub(now.as_second()).max(0)))
}

/// Returns the error of an exchange that was ended before it was done; `sent` names a request that had gone out.
pub(super) fn cut_short(cause: Option<Cause>, sent: Option<&str>) -> ToolError {
    let unknown = if sent.is_some() { "; the remote may have acted" } else { "" };
    let error = match cause {
        Some(Cause::TimedOut { timeout_ms }) => {
            let name = sent.map(|name| format!("{name}: ")).unwrap_or_default();
            let message = format!("{name}no complete answer within {timeout_ms} ms{unknown}");
            ToolError::hard(ErrorKind::Timeout, "HTTP_TIMEOUT", message).retryable()
        }
        Some(Cause::Ordered) | None => {
            ToolError::soft(ErrorKind::Cancelled, "CANCELLED", format!("stopped on request{unknown}"))
        }
    };
    if sent.is_some() { error.with("remote_may_have_acted", true) } else { error }
}

/// Returns the error of something that was not there in time.
pub(super) fn too_slow(limit_ms: u64) -> ToolError {
    ToolError::hard(ErrorKind::Timeout, "HTTP_TIMEOUT", format!("no complete answer within {limit_ms} ms")).retryable()
}

/// Returns the error of an answer that is not what was asked for.
pub(super) fn unusable(name: &str, why: &str) -> ToolError {
    ToolError::hard(ErrorKind::Parse, "HTTP_UNUSABLE", format!("{name}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let table = [
            ("5", Some(json!(5))),
            (" 0 ", Some(json!(0))),
            ("Fri, 02 Jan 2026 03:04:35 GMT", Some(json!(30))),
            ("Fri, 02 Jan 2026 03:04:00 GMT", Some(json!(0))),
            ("soon", None),
            ("-1", None),
        ];
        for (text, expected) in table {
            assert_eq!(retry_after(Some(&json!(text)), now), expected, "{text}");
        }
    }
}
