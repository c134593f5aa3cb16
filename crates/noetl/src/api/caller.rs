//! Who asks: what the doors found out, and what the caller says of itself.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::error::ApiError;

/// Header in which our own clients say what they are: `cli`.
pub const CLIENT_HEADER: &str = "x-noetl-client";
/// Header in which a client says on whose behalf it asks: `user@host`. Self-declared, so never `cancelled_by`.
pub const REQUESTED_BY_HEADER: &str = "x-noetl-requested-by";
/// Header that makes a request repeatable.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";
/// Longest value of one of these headers, in bytes.
pub const HEADER_BYTES_MAX: usize = 255;

/// Where a request came from. The listener puts it into the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A network address.
    Tcp(SocketAddr),
    /// The unix socket in the data directory: somebody who may open the directory.
    Socket,
}

/// The identity that a token stands for. The doors put it into the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity(pub String);

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Where from; `None` inside one process.
    pub peer: Option<Peer>,
    /// The authenticated identity.
    pub identity: Option<String>,
    /// It says to be the command line.
    pub is_cli: bool,
    /// Self-declared.
    pub requested_by: Option<String>,
}

impl Caller {
    /// Returns what stands as `cancelled_by` and `started_by`: the authenticated identity, else `cli` or `api`.
    pub fn name(&self) -> String {
        match (&self.identity, self.is_cli) {
            (Some(identity), _) => identity.clone(),
            (None, true) => "cli".to_owned(),
            (None, false) => "api".to_owned(),
        }
    }

    /// Returns the remote address.
    pub fn remote(&self) -> Option<String> {
        match self.peer? {
            Peer::Tcp(address) => Some(address.ip().to_string()),
            Peer::Socket => Some("socket".to_owned()),
        }
    }

    /// Returns whether the caller is on this machine with the rights of the data directory.
    pub fn is_at_home(&self) -> bool {
        match self.peer {
            None | Some(Peer::Socket) => true,
            Some(Peer::Tcp(_)) => false,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Caller {
            peer: parts.extensions.get::<Peer>().copied(),
            identity: parts.extensions.get::<Identity>().map(|Identity(name)| name.clone()),
            is_cli: text(&parts.headers, CLIENT_HEADER).is_some_and(|client| client.eq_ignore_ascii_case("cli")),
            requested_by: text(&parts.headers, REQUESTED_BY_HEADER).map(str::to_owned),
        })
    }
}

/// `Idempotency-Key`, when the request has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(IDEMPOTENCY_HEADER) else {
            return Ok(IdempotencyKey(None));
        };
        match value.to_str() {
            Ok(key) if !key.trim().is_empty() && key.len() <= HEADER_BYTES_MAX => {
                Ok(IdempotencyKey(Some(key.trim().to_owned())))
            }
            Ok(_) | Err(_) => Err(ApiError::bad_field(
                "Idempotency-Key",
                format!("must be 1 to {HEADER_BYTES_MAX} visible ASCII characters"),
            )),
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty() && value.len() <= HEADER_BYTES_MAX).then_some(value)
}
