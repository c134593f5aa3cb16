//! The HTTP client: one way to ask for everything, wherever the server is.
//!
//! A server is reached over the network, over the unix socket in its data directory, or, when this process owns the
//! directory itself, by calling the router. The caller can not tell the difference.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::{Router, body};
use reqwest::Url;
use serde_json::Value;
use tower::ServiceExt;

/// How long to wait for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for an answer, beyond what the request itself asks the server to wait.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

const CLIENT: HeaderName = HeaderName::from_static("x-noetl-client");
const REQUESTED_BY: HeaderName = HeaderName::from_static("x-noetl-requested-by");
const SESSION_TOKEN: HeaderName = HeaderName::from_static("x-session-token");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A way to one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    route: Route,
    place: String,
    headers: HeaderMap,
}

#[derive(Debug, Clone)]
enum Route {
    Network { base: Url, http: reqwest::Client },
    InProcess(Router),
}

/// Why no request can be made at all.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("`{0}` is no server URL: write it like http://localhost:8082")]
    BadUrl(String),
    /// The token can not stand in a header.
    #[error("the token holds characters that can not be sent; is it the right file?")]
    BadToken,
    /// TLS or the resolver could not be set up.
    #[error("can not set up the HTTP client: {0}")]
    Setup(String),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("can not reach the server at {place}: {why}")]
pub struct Unreachable {
    /// Where.
    pub place: String,
    /// What happened, down to the operating system's word.
    pub why: String,
    /// The answer did not come in time; the request may have been carried out all the same.
    pub timed_out: bool,
}

impl Client {
    /// Returns a client for a server on the network.
    pub fn to_url(url: &str, token: Option<&str>) -> Result<Client, ClientError> {
        let bad = || ClientError::BadUrl(url.to_owned());
        let with_scheme = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let mut base = Url::parse(&with_scheme).map_err(|_| bad())?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none_or(str::is_empty) {
            return Err(bad());
        }
        base.set_query(None);
        base.set_fragment(None);
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT);
        if is_loopback(&base) {
            // A proxy could not reach it, and would learn what is asked.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| ClientError::Setup(causes(&error)))?;
        let place = base.as_str().trim_end_matches('/').to_owned();
        Ok(Client { route: Route::Network { base, http }, place, headers: headers(token)? })
    }

    /// Returns a client for the owner of a data directory.
    pub fn to_socket(socket: &Path) -> Result<Client, ClientError> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .unix_socket(socket)
            .build()
            .map_err(|error| ClientError::Setup(causes(&error)))?;
        let base = Url::parse("http://localhost/").map_err(|error| ClientError::Setup(error.to_string()))?;
        Ok(Client {
            route: Route::Network { base, http },
            place: socket.display().to_string(),
            headers: headers(None)?,
        })
    }

    /// Returns a client for a server in this process.
    pub fn to_router(router: Router, place: impl Into<String>) -> Result<Client, ClientError> {
        Ok(Client { route: Route::InProcess(router), place: place.into(), headers: headers(None)? })
    }

    /// Returns where the server is, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Begins a GET of `/api/…`; each segment is escaped.
    pub fn get(&self, segments: &[&str]) -> Request<'_> {
        Request::new(self, Method::GET, segments)
    }

    /// Begins a DELETE of `/api/…`.
    pub fn delete(&self, segments: &[&str]) -> Request<'_> {
        Request::new(self, Method::DELETE, segments)
    }

    /// Begins a POST to `/api/…`.
    pub fn post(&self, segments: &[&str]) -> Request<'_> {
        Request::new(self, Method::POST, segments)
    }
}

/// A request in the making.
#[derive(Debug)]
pub struct Request<'a> {
    client: &'a Client,
    method: Method,
    segments: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    headers: HeaderMap,
    timeout: Duration,
}

impl<'a> Request<'a> {
    fn new(client: &'a Client, method: Method, segments: &[&str]) -> Self {
        Request {
            client,
            method,
            segments: segments.iter().map(|segment| (*segment).to_owned()).collect(),
            query: Vec::new(),
            body: None,
            headers: client.headers.clone(),
            timeout: ANSWER_TIMEOUT,
        }
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    /// Adds a query parameter when there is a value.
    #[must_use]
    pub fn query_opt(self, name: &'static str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Sends a JSON document along.
    #[must_use]
    pub fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Makes the request repeatable.
    #[must_use]
    pub fn idempotency_key(mut self, key: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(key) {
            self.headers.insert(IDEMPOTENCY_KEY, value);
        }
        self
    }

    /// The server is asked to wait so long before it answers.
    #[must_use]
    pub fn patience(mut self, wait: Duration) -> Self {
        self.timeout = ANSWER_TIMEOUT.saturating_add(wait);
        self
    }

    /// Returns whether the server is asked to wait.
    pub fn hangs(&self) -> bool {
        self.timeout > ANSWER_TIMEOUT
    }

    /// Sends it and reads the whole answer.
    pub async fn send(self) -> Result<Answer, Unreachable> {
        let (client, timeout) = (self.client, self.timeout);
        match tokio::time::timeout(timeout, self.exchange()).await {
            Ok(answer) => answer,
            Err(_) => Err(Unreachable {
                place: client.place.clone(),
                why: format!("no answer within {} s", timeout.as_secs()),
                timed_out: true,
            }),
        }
    }

    async fn exchange(self) -> Result<Answer, Unreachable> {
        let place = self.client.place.clone();
        let lost = |why: String| Unreachable { place: place.clone(), why, timed_out: false };
        match &self.client.route {
            Route::Network { base, http } => {
                let mut request = http.request(self.method.clone(), self.url(base)).headers(self.headers.clone());
                if let Some(body) = &self.body {
                    request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
                }
                let mut response = request.send().await.map_err(|error| lost(causes(&error)))?;
                let status = response.status();
                let mut text = Vec::new();
                while let Some(chunk) = response.chunk().await.map_err(|error| lost(causes(&error)))? {
                    if text.len() + chunk.len() > ANSWER_BYTES_MAX {
                        return Err(lost(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes")));
                    }
                    text.extend_from_slice(&chunk);
                }
                Ok(Answer { status, text: String::from_utf8_lossy(&text).into_owned() })
            }
            Route::InProcess(router) => {
                let base = Url::parse("http://localhost/").map_err(|error| lost(error.to_string()))?;
                let url = self.url(&base);
                let target = match url.query() {
                    Some(query) => format!("{}?{query}", url.path()),
                    None => url.path().to_owned(),
                };
                let mut request = axum::http::Request::builder().method(self.method.clone()).uri(target);
                if let Some(headers) = request.headers_mut() {
                    headers.extend(self.headers.clone());
                    headers.insert(axum::http::header::HOST, HeaderValue::from_static("localhost"));
                }
                let body = self.body.as_ref().map_or_else(Body::empty, |body| Body::from(body.to_string()));
                let request = request
                    .header(CONTENT_TYPE, "application/json")
                    .body(body)
                    .map_err(|error| lost(error.to_string()))?;
                let response = router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
                let status = response.status();
                let bytes = body::to_bytes(response.into_body(), ANSWER_BYTES_MAX)
                    .await
                    .map_err(|error| lost(error.to_string()))?;
                Ok(Answer { status, text: String::from_utf8_lossy(&bytes).into_owned() })
            }
        }
    }

    fn url(&self, base: &Url) -> Url {
        let mut url = base.clone();
        // Only URLs that can not be a base have no segments; `to_url` admits http and https alone.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("api");
            path.extend(&self.segments);
        }
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        url
    }
}

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The body.
    pub text: String,
}

impl Answer {
    /// Returns whether the request was carried out.
    pub fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// Returns the body as a document.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.text).ok()
    }

    /// Returns what a refusal says, from the fields that servers use; the body itself when it has none of them.
    pub fn message(&self) -> String {
        let body = self.json();
        let said = ["message", "detail", "error"].iter().find_map(|key| match body.as_ref()?.get(key)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
            Value::Array(_) | Value::Object(_) => Some(body.as_ref()?.get(key)?.to_string()),
        });
        match said {
            Some(text) => text,
            None if self.text.trim().is_empty() => self.status.to_string(),
            None => format!("{} - {}", self.status, self.text.trim()),
        }
    }
}

fn headers(token: Option<&str>) -> Result<HeaderMap, ClientError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("noetl/", env!("CARGO_PKG_VERSION"))));
    headers.insert(CLIENT, HeaderValue::from_static("cli"));
    if let Ok(value) = HeaderValue::from_str(&requested_by()) {
        headers.insert(REQUESTED_BY, value);
    }
    if let Some(token) = token {
        let secret = |text: &str| {
            let mut value = HeaderValue::from_str(text).map_err(|_| ClientError::BadToken)?;
            value.set_sensitive(true);
            Ok(value)
        };
        headers.insert(AUTHORIZATION, secret(&format!("Bearer {token}"))?);
        headers.insert(SESSION_TOKEN, secret(token)?);
    }
    Ok(headers)
}

/// Returns `user@host`, what this process says of itself.
fn requested_by() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let user = user.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{host}")
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What a client of HTTP says of bytes that are none.
const NO_HTTP: &str = "invalid HTTP version parsed";

/// Returns an error with its causes, innermost last, each once.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    if text.contains(NO_HTTP) {
        text.push_str(" (perhaps it speaks TLS: then its address begins with https://)");
    }
    text
}

#[cfg(test)]
mod tests {
    use axum::extract::Request as Incoming;
    use serde_json::json;

    use super::*;

    fn url_of(client: &Client, segments: &[&str]) -> String {
        match &client.route {
            Route::Network { base, .. } => client.get(segments).query("q", "a b&c").url(base).to_string(),
            Route::InProcess(_) => panic!("a network client"),
        }
    }

    fn install() {
        // Another test of this process may have done it.
        drop(rustls::crypto::ring::default_provider().install_default());
    }

    #[test]
    fn paths_are_escaped_and_put_below_the_base() {
        install();
        let client = Client::to_url("http://h:1/prefix/", None).unwrap();
        assert_eq!(
            url_of(&client, &["executions", "../x", "steps", "a/b c"]),
            "http://h:1/prefix/api/executions/..%2Fx/steps/a%2Fb%20c?q=a+b%26c"
        );
        let client = Client::to_url("h:1", None).unwrap();
        assert_eq!(url_of(&client, &["x"]), "http://h:1/api/x?q=a+b%26c");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        install();
        for text in ["", "ftp://h", "http://", "http://[", "file:///x"] {
            assert!(matches!(Client::to_url(text, None), Err(ClientError::BadUrl(_))), "{text}");
        }
        assert!(matches!(Client::to_url("http://h", Some("a\nb")), Err(ClientError::BadToken)));
    }

    #[test]
    fn loopback_is_never_asked_through_a_proxy() {
        for (url, expected) in [
            ("http://localhost:1", true),
            ("http://127.0.0.2", true),
            ("http://[::1]:8082", true),
            ("http://example.org", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn a_router_is_asked_like_a_server() {
        let router = Router::new().fallback(|request: Incoming| async move {
            let (parts, body) = request.into_parts();
            let body = body::to_bytes(body, 1000).await.unwrap();
            axum::Json(json!({
                "uri": parts.uri.to_string(),
                "key": parts.headers["idempotency-key"].to_str().unwrap(),
                "client": parts.headers["x-noetl-client"].to_str().unwrap(),
                "body": String::from_utf8_lossy(&body),
            }))
        });
        let client = Client::to_router(router, "here").unwrap();
        let request = client.post(&["execute"]).query("a", 1).body(json!({"x": 1})).idempotency_key("k1");
        let answer = request.send().await.unwrap();
        assert_eq!(
            answer.json().unwrap(),
            json!({"uri": "/api/execute?a=1", "key": "k1", "client": "cli", "body": "{\"x\":1}"})
        );
    }

    #[test]
    fn the_message_of_a_refusal_is_found_in_every_shape() {
        let message = |text: &str| Answer { status: StatusCode::CONFLICT, text: text.into() }.message();
        assert_eq!(message(r#"{"message":"a","detail":"b"}"#), "a");
        assert_eq!(message(r#"{"detail":"b"}"#), "b");
        assert_eq!(message(r#"{"detail":[{"loc":["x"]}]}"#), r#"[{"loc":["x"]}]"#);
        assert_eq!(message(r#"{"error":"c","status":409}"#), "c");
        assert_eq!(message("plain"), "409 Conflict - plain");
        assert_eq!(message(""), "409 Conflict");
    }
}
