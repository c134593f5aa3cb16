//! `/api/worker/credential`: secrets for whoever runs a command, for as long as it does.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use noetl_core::secret::{Credential, Warrant};
use noetl_engine::secrets::SecretError;
use serde::{Deserialize, Serialize};

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
