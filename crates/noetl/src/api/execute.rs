//! `POST /api/execute`: starting an execution.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use noetl_core::id::{CatalogId, ExecutionId};
use noetl_engine::{StartError, StartRequest};
use noetl_store::catalog::ResourceKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::caller::{Caller, IdempotencyKey};
use super::error::{ApiError, ErrorBody, WireDiagnostic};
use super::extract::Body;
use super::{Api, labels};

/// What to start. Either `path` or `catalog_id` is needed; `catalog_id` wins.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExecuteRequest {
    /// Catalog path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Catalog id, as a string or an integer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub catalog_id: Option<CatalogId>,
    /// Catalog version: a number, a numeric string, or `latest`. Without it the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub version: Option<VersionRef>,
    /// Inputs, laid over the playbook's defaults. Data, never rendered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub workload: Option<Map<String, Value>>,
    /// Another name of `workload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub payload: Option<Map<String, Value>>,
    /// Another name of `workload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub args: Option<Map<String, Value>>,
    /// The execution that starts this one: cancelling it with `cascade` reaches the new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub parent_execution_id: Option<ExecutionId>,
    /// `playbook`, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_kind: Option<String>,
    /// Every error that nothing handles fails the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Laid over the playbook's `metadata.labels`: names and values to find it by and to cancel it by.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub labels: Option<Map<String, Value>>,
    /// Sent by older clients; without effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge: Option<bool>,
}

/// Which version of a playbook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionRef {
    /// The newest.
    Latest,
    /// This one.
    Number(i64),
}

impl Serialize for VersionRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            VersionRef::Latest => serializer.serialize_str("latest"),
            VersionRef::Number(number) => serializer.serialize_i64(*number),
        }
    }
}

impl<'de> Deserialize<'de> for VersionRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VersionVisitor)
    }
}

struct VersionVisitor;

impl de::Visitor<'_> for VersionVisitor {
    type Value = VersionRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a positive version number or `latest`")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<VersionRef, E> {
        if number > 0 {
            Ok(VersionRef::Number(number))
        } else {
            Err(E::invalid_value(de::Unexpected::Signed(number), &self))
        }
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<VersionRef, E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<VersionRef, E> {
        if text.eq_ignore_ascii_case("latest") {
            return Ok(VersionRef::Latest);
        }
        match text.parse::<i64>() {
            Ok(number) if number > 0 => Ok(VersionRef::Number(number)),
            Ok(_) | Err(_) => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

/// The execution runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecuteReply {
    /// Its id.
    #[schema(value_type = String)]
    pub execution_id: ExecutionId,
    /// `started`, or `cancelled` when others have its concurrency key and the playbook wants it so.
    pub status: String,
    /// Commands issued by the start; in the answer to a repeat, by now.
    pub commands_generated: u64,
    /// Catalog path.
    pub path: String,
    /// Catalog version.
    pub version: i64,
    /// Catalog id.
    #[schema(value_type = String)]
    pub catalog_id: CatalogId,
}

/// Starts an execution.
///
/// The same `Idempotency-Key` gets the first answer again and starts nothing.
#[utoipa::path(
    post, path = "/api/execute", tag = "execute", request_body = ExecuteRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key gets the first answer again")),
    responses(
        (status = 200, body = ExecuteReply),
        (status = 400, body = ErrorBody, description = "The request is malformed"),
        (status = 404, body = ErrorBody, description = "No such playbook, or no such parent"),
        (status = 409, body = ErrorBody, description = "The parent has ended, or others have the concurrency key"),
        (status = 422, body = ErrorBody, description = "The playbook or the payload can not be used"),
    )
)]
pub(super) async fn execute(
    State(api): State<Api>,
    caller: Caller,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    Body(request): Body<ExecuteRequest>,
) -> Result<Json<ExecuteReply>, ApiError> {
    if let Some(kind) = request.resource_kind.as_deref().filter(|kind| !kind.eq_ignore_ascii_case("playbook")) {
        let message = format!("resource_kind: `{kind}` can not be executed; only `playbook` can");
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_kind", message));
    }
    let target = target(&request)?;
    let mut start = StartRequest {
        target,
        payload: payload(request.workload, request.payload, request.args)?,
        parent_execution_id: request.parent_execution_id,
        started_by: Some(caller.name()),
        strict: request.strict.unwrap_or(false),
        labels: labels::given(request.labels.as_ref())?,
        idempotency_key,
    };
    let started = match api.engine.start(start.clone()).await {
        // Older clients send a catalog id as the path.
        Err(StartError::UnknownPlaybook(name)) => match id_in_place_of_path(&start.target) {
            Some(target) => {
                start.target = target;
                api.engine.start(start).await?
            }
            None => return Err(StartError::UnknownPlaybook(name).into()),
        },
        started => started?,
    };
    Ok(Json(ExecuteReply {
        execution_id: started.execution_id,
        status: if started.cancelled { "cancelled" } else { "started" }.to_owned(),
        commands_generated: started.commands_generated,
        path: started.path.to_string(),
        version: started.version,
        catalog_id: started.catalog_id,
    }))
}

fn target(request: &ExecuteRequest) -> Result<ResourceKey, ApiError> {
    key(request.path.as_deref(), request.catalog_id, request.version)
}

fn id_in_place_of_path(target: &ResourceKey) -> Option<ResourceKey> {
    match target {
        ResourceKey::Latest(path) => path.parse().ok().map(ResourceKey::Id),
        ResourceKey::Version(..) | ResourceKey::Id(_) => None,
    }
}

/// Returns how a request names a playbook.
pub(super) fn key(
    path: Option<&str>,
    catalog_id: Option<CatalogId>,
    version: Option<VersionRef>,
) -> Result<ResourceKey, ApiError> {
    if let Some(catalog_id) = catalog_id {
        return Ok(ResourceKey::Id(catalog_id));
    }
    let Some(path) = path.map(str::trim).filter(|path| !path.is_empty()) else {
        return Err(ApiError::bad_field("path", "either `path` or `catalog_id` is needed"));
    };
    let path: Arc<str> = path.into();
    Ok(match version {
        None | Some(VersionRef::Latest) => ResourceKey::Latest(path),
        Some(VersionRef::Number(number)) => ResourceKey::Version(path, number),
    })
}

fn payload(
    workload: Option<Map<String, Value>>,
    payload: Option<Map<String, Value>>,
    args: Option<Map<String, Value>>,
) -> Result<Map<String, Value>, ApiError> {
    let mut given = [workload, payload, args].into_iter().flatten();
    let first = given.next().unwrap_or_default();
    if given.next().is_some() {
        return Err(ApiError::bad_field("workload", "give only one of `workload`, `payload` and `args`"));
    }
    Ok(first)
}

impl From<StartError> for ApiError {
    fn from(error: StartError) -> Self {
        let message = error.to_string();
        match error {
            StartError::UnknownPlaybook(_) => ApiError::new(StatusCode::NOT_FOUND, "unknown_playbook", message),
            StartError::ParentUnknown(_) => ApiError::new(StatusCode::NOT_FOUND, "unknown_parent", message),
            StartError::ParentEnded(..) => ApiError::new(StatusCode::CONFLICT, "parent_ended", message),
            StartError::KeyHeld { .. } => ApiError::new(StatusCode::CONFLICT, "concurrency_key_held", message),
            StartError::Labels(_) => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "too_many_labels", message),
            StartError::Key { .. } => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_concurrency_key", message),
            StartError::TooDeep { .. } => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "too_deep", message),
            StartError::Workload { .. } => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_workload", message),
            StartError::Broken { diagnostics, .. } => {
                let mut refusal = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_playbook", message);
                refusal.body.diagnostics = diagnostics.iter().map(WireDiagnostic::from).collect();
                refusal
            }
            StartError::TickTaken => ApiError::new(StatusCode::CONFLICT, "tick_taken", message),
            StartError::Store(error) => error.into(),
        }
    }
}
