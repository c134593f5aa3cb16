//! `/api/catalog`: playbooks by path and version.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use noetl_core::id::CatalogId;
use noetl_engine::{RegisterError, Registered};
use noetl_store::catalog::Resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, ErrorBody, WireDiagnostic};
use super::execute::{self, VersionRef};
use super::extract::Body;

/// Most playbooks in one batch.
pub const BATCH_MAX: usize = 1000;
/// Largest playbook, in bytes of text.
pub const CONTENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A playbook on its way into the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RegisterRequest {
    /// The YAML text, or the base64 of it.
    pub content: String,
    /// `Playbook`, in any case. The text's own `kind` wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
}

/// A playbook is in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisterReply {
    /// Always `success`.
    pub status: String,
    /// One sentence for people.
    pub message: String,
    /// Catalog path.
    pub path: String,
    /// Its new version.
    pub version: i64,
    /// Catalog id.
    #[schema(value_type = String)]
    pub catalog_id: CatalogId,
    /// `playbook`.
    pub kind: String,
    /// What works but looks wrong.
    #[serde(default)]
    pub warnings: Vec<WireDiagnostic>,
}

/// Many playbooks on their way into the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchRequest {
    /// At most 1000.
    pub items: Vec<RegisterRequest>,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchReply {
    /// `success`, or `partial` when some were refused.
    pub status: String,
    /// How many are in the catalog now.
    pub registered: u64,
    /// How many were refused.
    pub failed: u64,
    /// One per item, in their order.
    pub results: Vec<BatchResult>,
}

/// What became of one item of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchResult {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// `registered` or `failed`.
    pub status: String,
    /// Catalog path.
    pub path: Option<String>,
    /// Its new version.
    pub version: Option<i64>,
    /// Catalog id.
    #[schema(value_type = Option<String>)]
    pub catalog_id: Option<CatalogId>,
    /// Why it was refused.
    pub error: Option<String>,
    /// Everything found in it.
    #[serde(default)]
    pub diagnostics: Vec<WireDiagnostic>,
}

/// Which part of the catalog to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListRequest {
    /// Only this kind, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
    /// Only this path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A part of the catalog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ListReply {
    /// Newest first.
    pub entries: Vec<Entry>,
}

/// One version of one playbook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Catalog id.
    #[schema(value_type = String)]
    pub catalog_id: CatalogId,
    /// Catalog path.
    pub path: String,
    /// From 1, per path.
    pub version: i64,
    /// `playbook`.
    pub kind: String,
    /// The text as it was given.
    pub content: String,
    /// Always null.
    #[schema(value_type = Value)]
    pub layout: Value,
    /// Always null.
    #[schema(value_type = Value)]
    pub payload: Value,
    /// Always null.
    #[schema(value_type = Value)]
    pub meta: Value,
    /// When it was registered.
    pub created_at: String,
}

impl From<&Resource> for Entry {
    fn from(resource: &Resource) -> Self {
        Entry {
            catalog_id: resource.catalog_id,
            path: resource.path.to_string(),
            version: resource.version,
            kind: resource.kind.to_string(),
            content: resource.content.to_string(),
            layout: Value::Null,
            payload: Value::Null,
            meta: Value::Null,
            created_at: resource.created_at.to_iso(),
        }
    }
}

/// Which playbook is meant: by `catalog_id`, or by `path` and `version`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceRequest {
    /// Catalog path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Catalog version: a number, a numeric string, or `latest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub version: Option<VersionRef>,
    /// Catalog id, as a string or an integer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub catalog_id: Option<CatalogId>,
}

/// Checks a playbook and adds it to the catalog as the next version of its path.
#[utoipa::path(
    post, path = "/api/catalog/register", operation_id = "register", tag = "catalog", request_body = RegisterRequest,
    responses(
        (status = 200, body = RegisterReply),
        (status = 400, body = ErrorBody),
        (status = 422, body = ErrorBody, description = "The playbook is invalid; `diagnostics` says where"),
    )
)]
pub(super) async fn register(
    State(api): State<Api>,
    Body(request): Body<RegisterRequest>,
) -> Result<Json<RegisterReply>, ApiError> {
    let registered = add(&api, &request).await?;
    let resource = &registered.resource;
    Ok(Json(RegisterReply {
        status: "success".to_owned(),
        message: format!("Resource '{}' version '{}' registered.", resource.path, resource.version),
        path: resource.path.to_string(),
        version: resource.version,
        catalog_id: resource.catalog_id,
        kind: resource.kind.to_string(),
        warnings: registered.warnings.iter().map(WireDiagnostic::from).collect(),
    }))
}

/// Adds many playbooks, each on its own.
#[utoipa::path(
    post, path = "/api/catalog/register/batch", tag = "catalog", request_body = BatchRequest,
    responses((status = 200, body = BatchReply), (status = 400, body = ErrorBody))
)]
pub(super) async fn register_batch(
    State(api): State<Api>,
    Body(request): Body<BatchRequest>,
) -> Result<Json<BatchReply>, ApiError> {
    if request.items.len() > BATCH_MAX {
        return Err(ApiError::bad_field("items", format!("must be at most {BATCH_MAX}")));
    }
    let mut results = Vec::with_capacity(request.items.len());
    for (index, item) in request.items.iter().enumerate() {
        results.push(match add(&api, item).await {
            Ok(registered) => BatchResult {
                index,
                status: "registered".to_owned(),
                path: Some(registered.resource.path.to_string()),
                version: Some(registered.resource.version),
                catalog_id: Some(registered.resource.catalog_id),
                error: None,
                diagnostics: registered.warnings.iter().map(WireDiagnostic::from).collect(),
            },
            // A store that is full or closed concerns the rest as well.
            Err(refusal) if refusal.status.is_server_error() => return Err(refusal),
            Err(refusal) => BatchResult {
                index,
                status: "failed".to_owned(),
                path: None,
                version: None,
                catalog_id: None,
                error: Some(refusal.body.message),
                diagnostics: refusal.body.diagnostics,
            },
        });
    }
    let failed = results.iter().filter(|result| result.error.is_some()).count() as u64;
    Ok(Json(BatchReply {
        status: if failed == 0 { "success" } else { "partial" }.to_owned(),
        registered: results.len() as u64 - failed,
        failed,
        results,
    }))
}

/// Lists the catalog.
#[utoipa::path(
    post, path = "/api/catalog/list", operation_id = "list_catalog", tag = "catalog", request_body = Option<ListRequest>,
    responses((status = 200, body = ListReply), (status = 400, body = ErrorBody))
)]
pub(super) async fn list(
    State(api): State<Api>,
    Body(request): Body<ListRequest>,
) -> Result<Json<ListReply>, ApiError> {
    let resources = api.store().resources(request.resource_type.as_deref()).await?;
    let wanted = |resource: &&Resource| request.path.as_deref().is_none_or(|path| *resource.path == *path);
    Ok(Json(ListReply { entries: resources.iter().filter(wanted).map(Entry::from).collect() }))
}

/// Returns one version of one playbook.
#[utoipa::path(
    post, path = "/api/catalog/resource", tag = "catalog", request_body = ResourceRequest,
    responses((status = 200, body = Entry), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(super) async fn resource(
    State(api): State<Api>,
    Body(request): Body<ResourceRequest>,
) -> Result<Json<Entry>, ApiError> {
    let key = execute::key(request.path.as_deref(), request.catalog_id, request.version)?;
    match api.store().resource(key).await? {
        Some(resource) => Ok(Json(Entry::from(&resource))),
        None => {
            let name = match (request.catalog_id, request.path, request.version) {
                (Some(id), ..) => id.to_string(),
                (None, Some(path), Some(VersionRef::Number(version))) => format!("{path} version {version}"),
                (None, path, _) => path.unwrap_or_default(),
            };
            let message = format!("playbook {name} is not in the catalog");
            Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_playbook", message))
        }
    }
}

async fn add(api: &Api, request: &RegisterRequest) -> Result<Registered, ApiError> {
    let content = decode(&request.content)?;
    match api.engine.register(&content, request.resource_type.as_deref()).await {
        Ok(registered) => Ok(registered),
        Err(RegisterError::Invalid(diagnostics)) => Err(ApiError::invalid_playbook(&diagnostics)),
        Err(RegisterError::Store(error)) => Err(error.into()),
    }
}

/// Returns the YAML text: `content` itself, unless all of it is base64 of text. No playbook is valid base64, because
/// each has a colon.
fn decode(content: &str) -> Result<String, ApiError> {
    if content.trim().is_empty() {
        return Err(ApiError::bad_field("content", "is needed: the YAML text of a playbook, or the base64 of it"));
    }
    let packed: String = content.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    let text = match STANDARD.decode(packed).ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(decoded) => decoded,
        None => content.to_owned(),
    };
    if text.len() > CONTENT_BYTES_MAX {
        return Err(ApiError::bad_field("content", format!("must be at most {CONTENT_BYTES_MAX} bytes of text")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_text_or_base64_of_text() {
        let yaml = "kind: Playbook\n";
        assert_eq!(decode(yaml).unwrap(), yaml);
        assert_eq!(decode(&STANDARD.encode(yaml)).unwrap(), yaml);
        assert_eq!(decode("a2luZDog\nUGxheWJvb2sK\n").unwrap(), yaml);
        assert!(decode(" ").is_err());
    }
}
