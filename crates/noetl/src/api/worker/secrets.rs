//! `/api/worker/credential` and `/api/worker/keychain`: secrets for whoever runs a command, for as long as it does.

use std::fmt;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use noetl_core::secret::keychain::KeptUnder;
use noetl_core::secret::{Credential, Warrant};
use noetl_engine::secrets::SecretError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::super::Api;
use super::super::error::{ApiError, ErrorBody};
use super::{Said, schema};

/// Code of the refusal of a claim that does not hold.
pub const WITHHELD: &str = "withheld";
/// Code of the refusal of an alias that nobody registered.
pub const UNKNOWN: &str = "unknown_credential";
/// Code of the refusal of what can not be opened.
pub const LOCKED: &str = "vault_locked";

/// A worker asks for a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialAsk {
    /// The claim under which it asks.
    #[serde(flatten)]
    pub warrant: Warrant,
    /// The alias.
    pub alias: String,
}

/// Gives a credential to the worker that holds a live command. A cancelled, settled or lost one gets nothing.
#[utoipa::path(
    post, path = "/api/worker/credential", operation_id = "worker_credential", tag = "worker",
    request_body = schema::CredentialAsk,
    responses(
        (status = 200, body = schema::Credential),
        (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody, description = "The command is not (any more) this session's to run"),
        (status = 404, body = ErrorBody, description = "No such credential"),
        (status = 503, body = ErrorBody, description = "It can not be opened now"),
    )
)]
pub(in crate::api) async fn credential(
    State(api): State<Api>,
    Said(ask): Said<CredentialAsk>,
) -> Result<Json<Credential>, ApiError> {
    Ok(Json(api.engine.credential(&ask.warrant, &ask.alias).await?))
}

/// A worker asks for a token that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAsk {
    /// The claim under which it asks.
    #[serde(flatten)]
    pub warrant: Warrant,
    /// Under what it is kept.
    pub under: KeptUnder,
}

/// A token that is kept.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptReply {
    /// The issuer's answer; null if none is kept.
    pub value: Option<Value>,
}

/// A worker has a token to be kept.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct KeepRequest {
    /// The claim under which it speaks.
    #[serde(flatten)]
    pub warrant: Warrant,
    /// Under what to keep it.
    pub under: KeptUnder,
    /// The issuer's answer.
    pub value: Value,
    /// For how long, in milliseconds.
    pub life_ms: u64,
}

impl fmt::Debug for KeptReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptReply").field("found", &self.value.is_some()).finish_non_exhaustive()
    }
}

impl fmt::Debug for KeepRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepRequest")
            .field("warrant", &self.warrant)
            .field("under", &self.under)
            .finish_non_exhaustive()
    }
}

/// A token is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeepReply {
    /// Always `ok`.
    pub status: String,
}

/// Returns a token that is kept, to the worker that holds a live command.
#[utoipa::path(
    post, path = "/api/worker/keychain/find", operation_id = "worker_kept", tag = "worker",
    request_body = schema::KeptAsk,
    responses(
        (status = 200, body = schema::KeptReply),
        (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody, description = "The command is not (any more) this session's to run"),
    )
)]
pub(in crate::api) async fn kept(
    State(api): State<Api>,
    Said(ask): Said<KeptAsk>,
) -> Result<Json<KeptReply>, ApiError> {
    Ok(Json(KeptReply { value: api.engine.kept_secret(&ask.warrant, &ask.under).await? }))
}

/// Keeps a token, sealed, that the worker of a live command has been issued.
#[utoipa::path(
    post, path = "/api/worker/keychain/keep", operation_id = "worker_keep", tag = "worker",
    request_body = schema::KeepRequest,
    responses(
        (status = 200, body = KeepReply),
        (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody, description = "The command is not (any more) this session's to run"),
    )
)]
pub(in crate::api) async fn keep(
    State(api): State<Api>,
    Said(request): Said<KeepRequest>,
) -> Result<Json<KeepReply>, ApiError> {
    api.engine.keep_secret(&request.warrant, &request.under, request.value, request.life_ms).await?;
    Ok(Json(KeepReply { status: "ok".to_owned() }))
}

impl From<SecretError> for ApiError {
    fn from(error: SecretError) -> Self {
        let message = error.to_string();
        match error {
            SecretError::Unknown(_) => ApiError::new(StatusCode::NOT_FOUND, UNKNOWN, message),
            SecretError::Withheld(_) => ApiError::new(StatusCode::FORBIDDEN, WITHHELD, message),
            SecretError::Locked(_) => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, LOCKED, message),
            SecretError::Store(error) => error.into(),
            SecretError::Unreachable(_) => ApiError::new(StatusCode::BAD_GATEWAY, "unreachable", message),
        }
    }
}
