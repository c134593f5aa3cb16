//! `/api/credentials`: what tools need to get in elsewhere.

use std::fmt;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use noetl_core::secret::shown;
use noetl_store::secret::CredentialRow;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::error::{ApiError, ErrorBody};
use super::extract::{CredentialName, Query, SecretBody};
use crate::vault::{NewCredential, Vault, VaultError};

/// What a credential is for, when nobody says.
const KIND_DEFAULT: &str = "generic";

/// A credential on its way into the vault. Keys that are not listed are ignored: the file may have more to say.
#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct CredentialRequest {
    /// The alias that playbooks use. One that is taken is written anew.
    name: String,
    /// What it is for: `postgres`, `bearer`, `basic`, `api_key`, `oauth2`, …
    #[serde(rename = "type")]
    kind: Option<String>,
    /// The same as `type`.
    credential_type: Option<String>,
    /// The secret part: `db_host`, `db_password`, `token`, …
    #[schema(value_type = Option<Object>)]
    data: Option<Map<String, Value>>,
    /// What its author wants to remember.
    #[schema(value_type = Option<Value>)]
    meta: Option<Value>,
    /// Words to find it by, as a list or with commas between.
    #[serde(deserialize_with = "words")]
    tags: Vec<String>,
    /// One sentence for people.
    description: Option<String>,
}

impl fmt::Debug for CredentialRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Reads a list of words, or words with commas between.
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of words, or words with commas between")]
    enum Words {
        List(Vec<String>),
        Text(String),
        Nothing(()),
    }
    Ok(match Words::deserialize(deserializer)? {
        Words::List(words) => words,
        Words::Text(text) => {
            text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
        }
        Words::Nothing(()) => Vec::new(),
    })
}

/// A credential, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CredentialReply {
    /// Its id.
    pub id: String,
    /// The alias that playbooks use.
    pub name: String,
    /// What it is for.
    #[serde(rename = "type")]
    pub kind: String,
    /// What its author wants to remember.
    #[schema(value_type = Option<Value>)]
    pub meta: Option<Value>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// One sentence for people.
    pub description: Option<String>,
    /// When it was first registered.
    pub created_at: String,
    /// When it was last written.
    pub updated_at: String,
    /// Null unless asked for. Secret values are masked unless the server runs with `--allow-secret-read`.
    #[schema(value_type = Option<Object>)]
    pub data: Option<Map<String, Value>>,
}

impl CredentialReply {
    fn of(row: &CredentialRow, data: Option<Map<String, Value>>) -> Self {
        CredentialReply {
            id: row.id.to_string(),
            name: row.name.to_string(),
            kind: row.kind.to_string(),
            meta: row.meta.clone(),
            tags: row.tags.clone(),
            description: row.description.clone(),
            created_at: row.created_at.to_iso(),
            updated_at: row.updated_at.to_iso(),
            data,
        }
    }
}

/// Which credentials to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct CredentialFilter {
    /// Only this type, in any case.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only those whose name, description or tags hold this text, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
}

impl CredentialFilter {
    fn takes(&self, row: &CredentialRow) -> bool {
        let kind = self.kind.as_deref().is_none_or(|kind| row.kind.eq_ignore_ascii_case(kind));
        let holds = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
        kind && self.q.as_deref().is_none_or(|part| {
            holds(&row.name, part)
                || row.description.as_deref().is_some_and(|text| holds(text, part))
                || row.tags.iter().any(|tag| holds(tag, part))
        })
    }
}

/// Credentials by name, without their data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CredentialList {
    /// By name.
    pub items: Vec<CredentialReply>,
    /// What was asked for.
    pub filter: CredentialFilter,
}

/// How to show one credential.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct CredentialParams {
    /// With its data, secret values masked unless the server runs with `--allow-secret-read`.
    pub include_data: bool,
    /// Sent by older workers; without effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<String>,
}

/// A credential is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CredentialDeleted {
    /// One sentence for people.
    pub message: String,
    /// Its id.
    pub id: String,
}

/// Registers a credential, in the place of one with the same name.
#[utoipa::path(
    post, path = "/api/credentials", operation_id = "register_credential", tag = "credentials",
    request_body = CredentialRequest,
    responses(
        (status = 200, body = CredentialReply),
        (status = 400, body = ErrorBody),
        (status = 503, body = ErrorBody, description = "The key that secrets are sealed with can not be used"),
    )
)]
pub(super) async fn register(
    State(api): State<Api>,
    SecretBody(request): SecretBody<CredentialRequest>,
) -> Result<Json<CredentialReply>, ApiError> {
    let Some(data) = request.data else {
        return Err(ApiError::bad_field("data", "is needed: an object with the secret values"));
    };
    let row = vault(&api)?.register(NewCredential {
        name: request.name.into(),
        kind: request.kind.or(request.credential_type).unwrap_or_else(|| KIND_DEFAULT.to_owned()).into(),
        data,
        meta: request.meta,
        tags: request.tags,
        description: request.description,
    });
    Ok(Json(CredentialReply::of(&row.await?, None)))
}

/// Lists credentials by name, without their data.
#[utoipa::path(
    get, path = "/api/credentials", operation_id = "list_credentials", tag = "credentials", params(CredentialFilter),
    responses((status = 200, body = CredentialList), (status = 400, body = ErrorBody))
)]
pub(super) async fn list(
    State(api): State<Api>,
    Query(filter): Query<CredentialFilter>,
) -> Result<Json<CredentialList>, ApiError> {
    let rows = vault(&api)?.list().await?;
    let items = rows.iter().filter(|row| filter.takes(row)).map(|row| CredentialReply::of(row, None)).collect();
    Ok(Json(CredentialList { items, filter }))
}

/// Shows one credential.
#[utoipa::path(
    get, path = "/api/credentials/{credential}", operation_id = "credential", tag = "credentials",
    params(("credential" = String, Path, description = "Name, or id"), CredentialParams),
    responses(
        (status = 200, body = CredentialReply),
        (status = 404, body = ErrorBody),
        (status = 503, body = ErrorBody, description = "The key that it is sealed with is missing"),
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    CredentialName(name): CredentialName,
    Query(params): Query<CredentialParams>,
) -> Result<Json<CredentialReply>, ApiError> {
    let vault = vault(&api)?;
    let row = vault.find(&name).await?.ok_or_else(|| unknown(&name))?;
    let data = match (params.include_data, vault.allows_read()) {
        (false, _) => None,
        (true, false) => Some(shown(&vault.open(&row).await?)),
        (true, true) => Some(vault.open(&row).await?),
    };
    Ok(Json(CredentialReply::of(&row, data)))
}

/// Removes a credential. What runs keeps what it has asked for already.
#[utoipa::path(
    delete, path = "/api/credentials/{credential}", operation_id = "delete_credential", tag = "credentials",
    params(("credential" = String, Path, description = "Name, or id")),
    responses((status = 200, body = CredentialDeleted), (status = 404, body = ErrorBody))
)]
pub(super) async fn delete(
    State(api): State<Api>,
    CredentialName(name): CredentialName,
) -> Result<Json<CredentialDeleted>, ApiError> {
    let row = vault(&api)?.delete(&name).await?.ok_or_else(|| unknown(&name))?;
    let message = format!("Credential '{}' deleted.", row.name);
    Ok(Json(CredentialDeleted { message, id: row.id.to_string() }))
}

fn vault(api: &Api) -> Result<&Vault, ApiError> {
    api.vault.as_deref().ok_or_else(|| locked("this server keeps no secrets"))
}

fn unknown(name: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "unknown_credential", format!("there is no credential `{name}`"))
}

fn locked(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "vault_locked", message)
}

impl From<VaultError> for ApiError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Store(error) => error.into(),
            VaultError::Bad { field, problem } => ApiError::bad_field(field, problem),
            VaultError::Busy(_) => ApiError::new(StatusCode::CONFLICT, "busy", error.to_string()),
            VaultError::BadKey { .. }
            | VaultError::KeyFile { .. }
            | VaultError::KeyFileOpen { .. }
            | VaultError::KeyNotGiven
            | VaultError::KeyLost { .. }
            | VaultError::OtherKey { .. }
            | VaultError::Locked(_) => {
                tracing::error!(%error, "the secrets can not be opened");
                locked(error.to_string()).discreet("the secrets can not be opened; the server's log says why")
            }
        }
    }
}
