//! The doors: who may speak to a server over the network, and from which pages.
//!
//! Playbooks are code, so whoever can start one owns the machine. On loopback the danger is a web page in the user's
//! own browser, hence the checks of `Host` (a page that rebinds its name to 127.0.0.1) and `Origin` (a page that just
//! posts). Beyond loopback a token is needed as well. The unix socket has no doors: the directory's rights guard it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::api::caller::{CLIENT_HEADER, IDEMPOTENCY_HEADER, Identity, REQUESTED_BY_HEADER};
use crate::api::error::{ApiError, Discreet};

/// Header in which older clients send the token, beside `Authorization`.
pub const SESSION_TOKEN_HEADER: &str = "x-session-token";
/// Environment variable that holds a token.
pub const TOKEN_VARIABLE: &str = "NOETL_TOKEN";
/// Shortest token that is accepted, in bytes: what can be guessed is no token.
pub const TOKEN_BYTES_MIN: usize = 16;
/// Names that the log uses in `cancelled_by` for what noetl itself does.
const RESERVED_NAMES: [&str; 6] = ["api", "cli", "timeout", "parent", "cleanup", "concurrency"];
/// Where a browser says that a request comes from: `same-origin`, `same-site`, `cross-site` or `none`.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// What a browser does with the answer: `navigate` shows it.
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// The paths that need no token: load balancers ask them.
const OPEN_PATHS: [&str; 2] = ["/health", "/ready"];

/// Why the doors can not be set up.
#[derive(Debug, thiserror::Error)]
pub enum DoorsError {
    /// The token file can not be used.
    #[error("token file {path}: {problem}")]
    TokenFile {
        /// Which.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The token is too short.
    #[error(
        "{origin}: a token needs at least {TOKEN_BYTES_MIN} characters; `head -c 32 /dev/urandom | base64` makes one"
    )]
    ShortToken {
        /// Where it stands.
        origin: String,
    },
    /// A token has a name that the log uses for what nobody asked for.
    #[error("{origin}: a token can not be called `{name}`: the log says so of what noetl itself does")]
    ReservedName {
        /// Where it stands.
        origin: String,
        /// Which name.
        name: String,
    },
    /// Listening beyond loopback without a token.
    #[error(
        "listening on {host} lets others start playbooks, which are code: give --token-file or {TOKEN_VARIABLE}, or \
         --insecure-no-auth if the network itself is trusted"
    )]
    TokenNeeded {
        /// Where it would listen.
        host: String,
    },
    /// An origin is not one.
    #[error("--cors-origin {0}: must be like https://example.com, without a path")]
    Origin(String),
}

/// The tokens that open a server, and whom each stands for. Only digests are kept.
#[derive(Clone, Default)]
pub struct Tokens {
    known: Vec<([u8; 32], Option<Arc<str>>)>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({} known)", self.known.len())
    }
}

impl Tokens {
    /// Reads a token file, see [`token_lines`].
    pub fn from_file(path: &Path) -> Result<Self, DoorsError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| DoorsError::TokenFile { path: shown.clone(), problem: error.to_string() })?;
        let tokens = Tokens::parse(&text, &format!("token file {shown}"))?;
        if tokens.is_empty() {
            return Err(DoorsError::TokenFile { path: shown, problem: "holds no token".to_owned() });
        }
        Ok(tokens)
    }

    /// Reads tokens as they stand in a token file. `origin` is named in complaints.
    pub fn parse(text: &str, origin: &str) -> Result<Self, DoorsError> {
        let mut tokens = Tokens::default();
        for (name, token) in token_lines(text) {
            let name = name.map(Arc::<str>::from);
            if token.len() < TOKEN_BYTES_MIN {
                return Err(DoorsError::ShortToken { origin: origin.to_owned() });
            }
            if let Some(name) = name.as_deref().filter(|name| RESERVED_NAMES.contains(name)) {
                return Err(DoorsError::ReservedName { origin: origin.to_owned(), name: name.to_owned() });
            }
            tokens.known.push((digest(token), name));
        }
        Ok(tokens)
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Returns whom a token stands for: `Some(None)` when it is known and has no name.
    fn identify(&self, token: &str) -> Option<Option<Arc<str>>> {
        let given = digest(token);
        // Every one is compared, and each in constant time, so that time says nothing about the tokens.
        let mut found = None;
        for (known, name) in &self.known {
            if bool::from(known.ct_eq(&given)) {
                found = Some(name.clone());
            }
        }
        found
    }
}

/// Returns the tokens of a token file, and what each is called: one `token` or `name:token` a line. A `#` at the
/// beginning of a line, or after white space, begins a comment.
pub fn token_lines(text: &str) -> impl Iterator<Item = (Option<&str>, &str)> {
    let comment = |(at, _): &(usize, &str), line: &str| line[..*at].chars().next_back().is_none_or(char::is_whitespace);
    let said = text.lines().map(move |line| match line.match_indices('#').find(|found| comment(found, line)) {
        Some((at, _)) => line[..at].trim(),
        None => line.trim(),
    });
    said.filter(|line| !line.is_empty()).map(|line| match line.split_once(':') {
        Some((name, token)) => (Some(name.trim()), token.trim()),
        None => (None, line),
    })
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// What the doors of one server let through.
#[derive(Debug, Clone)]
pub struct Doors {
    tokens: Tokens,
    hosts: BTreeSet<String>,
    origins: Vec<HeaderValue>,
}

/// How the doors are to be.
#[derive(Debug, Clone, Default)]
pub struct DoorOptions {
    /// Who may come in. None = everybody who reaches the server.
    pub tokens: Tokens,
    /// Listening beyond loopback without a token is meant.
    pub insecure_no_auth: bool,
    /// Names under which the server is reached, beside `localhost` and addresses.
    pub allowed_hosts: Vec<String>,
    /// Pages elsewhere that may use the interface.
    pub cors_origins: Vec<String>,
}

impl Doors {
    /// Returns the doors of a server that listens on `host`.
    pub fn new(host: &str, options: DoorOptions) -> Result<Self, DoorsError> {
        if !is_loopback(host) && options.tokens.is_empty() && !options.insecure_no_auth {
            return Err(DoorsError::TokenNeeded { host: host.to_owned() });
        }
        let mut hosts: BTreeSet<String> = options.allowed_hosts.iter().map(|name| name.to_lowercase()).collect();
        hosts.insert("localhost".to_owned());
        hosts.insert(host.to_lowercase());
        if !is_loopback(host) {
            hosts.insert(rustix::system::uname().nodename().to_string_lossy().to_lowercase());
        }
        let origins = options.cors_origins.iter().map(|origin| origin_value(origin)).collect::<Result<_, _>>()?;
        Ok(Doors { tokens: options.tokens, hosts, origins })
    }

    /// Returns whether everybody who reaches the server may use it.
    pub fn are_open(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Puts the doors around a service.
    pub fn guard(self, router: Router) -> Router {
        let cors = (!self.origins.is_empty()).then(|| self.cors());
        let guarded = router.layer(middleware::from_fn_with_state(Arc::new(self), check));
        // Outside of the check: a preflight carries no token.
        match cors {
            Some(cors) => guarded.layer(cors),
            None => guarded,
        }
    }

    fn cors(&self) -> CorsLayer {
        let named = [CLIENT_HEADER, IDEMPOTENCY_HEADER, REQUESTED_BY_HEADER, SESSION_TOKEN_HEADER];
        let headers = named.into_iter().map(HeaderName::from_static);
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(self.origins.clone()))
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers(headers.chain([AUTHORIZATION, axum::http::header::CONTENT_TYPE]).collect::<Vec<_>>())
    }

    fn check_host(&self, request: &Request) -> Result<(), ApiError> {
        // A target that names a host itself goes before the header.
        if let Some(authority) = request.uri().authority() {
            self.check_name(authority.as_str())?;
        }
        let mut hosts = request.headers().get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => self.check_name(host.to_str().unwrap_or_default()),
            // Whoever stands in between may have looked at the other one.
            (Some(_), Some(_)) => Err(ApiError::bad_request("the request has more than one Host")),
            // Old health checkers send none; browsers always do.
            (None, _) if request.version() == Version::HTTP_10 => Ok(()),
            (None, _) => Err(ApiError::bad_request("the request has no Host")),
        }
    }

    fn check_name(&self, host: &str) -> Result<(), ApiError> {
        let name = host_name(host).to_lowercase();
        // An address can not be rebound: only names can.
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        if is_address || self.hosts.contains(&name) {
            return Ok(());
        }
        let message =
            format!("this server is not called `{name}`: start it with --allowed-host {name} if it should be");
        Err(ApiError::new(StatusCode::FORBIDDEN, "foreign_host", message))
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let word = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some(origin) = headers.get(ORIGIN) else {
            // A page elsewhere that has the browser fetch a picture or a script sends no origin, and may not look at
            // the answer, but makes the server work. Following a link is another thing.
            let elsewhere = matches!(word(&SEC_FETCH_SITE), "cross-site" | "same-site");
            if elsewhere && word(&SEC_FETCH_MODE) != "navigate" {
                let message = "pages elsewhere may not use this server: start it with --cors-origin if they should";
                return Err(ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", message));
            }
            return Ok(());
        };
        if self.origins.contains(origin) {
            return Ok(());
        }
        let text = origin.to_str().unwrap_or_default();
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let own = text.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
        if own && !host.is_empty() {
            return Ok(());
        }
        let message =
            format!("pages from `{text}` may not use this server: start it with --cors-origin if they should");
        Err(ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", message))
    }

    fn check_token(&self, request: &mut Request) -> Result<(), ApiError> {
        if self.tokens.is_empty() || OPEN_PATHS.contains(&request.uri().path()) {
            return Ok(());
        }
        let unauthorized = |message: &str| ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message);
        let token = token_of(request.headers()).ok_or_else(|| {
            unauthorized("a token is needed: Authorization: Bearer <token> (NOETL_TOKEN for the command line)")
        })?;
        let name = self.tokens.identify(token).ok_or_else(|| unauthorized("the token is not known here"))?;
        if let Some(name) = name {
            request.extensions_mut().insert(Identity(name.to_string()));
        }
        Ok(())
    }
}

async fn check(State(doors): State<Arc<Doors>>, mut request: Request, next: Next) -> Response {
    let checked = doors
        .check_host(&request)
        .and_then(|()| doors.check_origin(request.headers()))
        .and_then(|()| doors.check_token(&mut request));
    match checked {
        Ok(()) => {
            let response = next.run(request).await;
            match response.extensions().get::<Discreet>() {
                Some(discreet) => discreet.clone().into_response(),
                None => response,
            }
        }
        Err(refusal) => {
            let refusal = match to_be_cancelled(request.uri().path()) {
                Some(id) => refusal.as_cancel(id),
                None => refusal,
            };
            tracing::warn!(code = refusal.body.code, path = request.uri().path(), "refused at the door");
            let unauthorized = refusal.status == StatusCode::UNAUTHORIZED;
            let mut response = refusal.into_response();
            if unauthorized {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

/// Returns the execution that a request is to cancel: a refused cancel has one shape, wherever it is refused.
fn to_be_cancelled(path: &str) -> Option<&str> {
    let (id, verb) = path.strip_prefix("/api/executions/")?.split_once('/')?;
    (verb == "cancel" || verb == "stop").then_some(id)
}

fn token_of(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    bearer.or_else(|| headers.get(SESSION_TOKEN_HEADER)?.to_str().ok().map(str::trim))
}

/// Returns the host without its port.
fn host_name(host: &str) -> &str {
    if let Some(end) = host.strip_prefix('[').and_then(|rest| rest.find(']')) {
        return &host[..end + 2];
    }
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

fn origin_value(origin: &str) -> Result<HeaderValue, DoorsError> {
    let refuse = || DoorsError::Origin(origin.to_owned());
    let (scheme, authority) = origin.split_once("://").ok_or_else(refuse)?;
    if scheme.is_empty() || authority.is_empty() || authority.contains(['/', '*', ' ']) {
        return Err(refuse());
    }
    HeaderValue::from_str(origin).map_err(|_| refuse())
}

/// Returns whether only this machine can reach a server that listens on `host`.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_a_token_is_needed() {
        for host in ["0.0.0.0", "::", "192.168.1.4", "example.com"] {
            assert!(matches!(Doors::new(host, DoorOptions::default()), Err(DoorsError::TokenNeeded { .. })), "{host}");
            let meant = DoorOptions { insecure_no_auth: true, ..DoorOptions::default() };
            assert!(Doors::new(host, meant).is_ok());
        }
        for host in ["localhost", "127.0.0.1", "::1", "[::1]", "127.8.8.8"] {
            assert!(Doors::new(host, DoorOptions::default()).is_ok(), "{host}");
        }
    }

    #[test]
    fn tokens_may_have_names_and_must_be_long() {
        let tokens = Tokens::parse("# ours\nalice:0123456789abcdef\n\nfedcba9876543210\n", "test").unwrap();
        assert_eq!(tokens.identify("0123456789abcdef").unwrap().as_deref(), Some("alice"));
        assert_eq!(tokens.identify("fedcba9876543210"), Some(None));
        assert_eq!(tokens.identify("alice:0123456789abcdef"), None);
        assert!(Tokens::parse("bob:short", "test").is_err());
        let reserved = Tokens::parse("timeout:0123456789abcdef", "test").unwrap_err();
        assert!(reserved.to_string().contains("can not be called `timeout`"), "{reserved}");
        assert!(!format!("{tokens:?}").contains("0123"));
    }

    #[test]
    fn a_comment_begins_a_line_or_stands_behind_white_space() {
        let text = "# ours\nbob:0123456789abcdef # laptop\n\t# none\nab#cd:01234567#89abcdef\t#\nplain#token\n";
        let lines: Vec<_> = token_lines(text).collect();
        let expected = [(Some("bob"), "0123456789abcdef"), (Some("ab#cd"), "01234567#89abcdef"), (None, "plain#token")];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_cancel_is_known_by_its_path() {
        assert_eq!(to_be_cancelled("/api/executions/17/cancel"), Some("17"));
        assert_eq!(to_be_cancelled("/api/executions/17/stop"), Some("17"));
        for other in ["/api/executions/17/status", "/api/executions/cancel", "/api/jobs/17/stop"] {
            assert_eq!(to_be_cancelled(other), None, "{other}");
        }
    }

    #[test]
    fn ports_are_no_part_of_a_name() {
        for (host, name) in
            [("localhost:8082", "localhost"), ("[::1]:8082", "[::1]"), ("127.0.0.1", "127.0.0.1"), ("a.b:", "a.b")]
        {
            assert_eq!(host_name(host), name);
        }
    }
}
