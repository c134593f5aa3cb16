//! `GET /api/executions`: the list.

use axum::Json;
use axum::extract::State;
use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_core::time::Timestamp;
use noetl_store::ListQuery;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::Summary;
use crate::api::Api;
use crate::api::error::{ApiError, ErrorBody};
use crate::api::extract::Query;
use crate::api::labels;
use crate::api::page;
use crate::api::suggest;

/// Executions on a page when the request does not say.
pub const PAGE_SIZE_DEFAULT: u64 = 100;
/// Most executions on a page.
pub const PAGE_SIZE_MAX: u64 = 1000;

/// Which executions to list. All conditions hold together.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Any of these, with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Catalog path; `*` matches anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Direct children of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_execution_id: Option<String>,
    /// Members of the family with this top.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_execution_id: Option<String>,
    /// With this label: `name=value`; several with commas between, all of which they have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Started before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_before: Option<String>,
    /// No event since this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<String>,
    /// Only those that have ended and still have something running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unquiesced: Option<bool>,
    /// Running ones first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_first: Option<bool>,
    /// Only ids below this one: pages without skipping rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Page, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u64>,
    /// Executions on a page, at most 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u64>,
    /// Another name of `page_size`, for use with `offset`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// How many to skip, instead of `page`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// Lists executions, newest first.
#[utoipa::path(
    get, path = "/api/executions", operation_id = "list_executions", tag = "executions", params(ListParams),
    responses((status = 200, body = Vec<Summary>), (status = 400, body = ErrorBody))
)]
pub(in crate::api) async fn list(
    State(api): State<Api>,
    Query(params): Query<ListParams>,
) -> Result<Json<Vec<Summary>>, ApiError> {
    let query = query(&params)?;
    let now = api.store().now().await?;
    let heads = api.store().executions(query).await?;
    Ok(Json(heads.iter().map(|head| Summary::of(head, now)).collect()))
}

fn query(params: &ListParams) -> Result<ListQuery, ApiError> {
    let size = params.page_size.or(params.limit);
    let (limit, mut offset) = page::window(params.page, size, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)?;
    if let Some(skip) = params.offset {
        if params.page.is_some() {
            return Err(ApiError::bad_field("offset", "give either `page` or `offset`"));
        }
        if skip > page::OFFSET_MAX {
            let problem = format!("must be at most {}; use `before` to go further", page::OFFSET_MAX);
            return Err(ApiError::bad_field("offset", problem));
        }
        offset = skip;
    }
    Ok(ListQuery {
        status: statuses("status", params.status.as_deref())?,
        path: params.path.clone().filter(|path| !path.is_empty()),
        parent: id("parent_execution_id", params.parent_execution_id.as_deref())?,
        root: id("root_execution_id", params.root_execution_id.as_deref())?,
        labels: labels::wanted("label", params.label.as_deref())?,
        started_before: moment("started_before", params.started_before.as_deref())?,
        idle_since: moment("idle_since", params.idle_since.as_deref())?,
        unquiesced: params.unquiesced.unwrap_or(false),
        job: None,
        active_first: params.active_first.unwrap_or(false),
        before: id("before", params.before.as_deref())?,
        offset,
        limit,
    })
}

pub(in crate::api) fn statuses(field: &str, text: Option<&str>) -> Result<Vec<Status>, ApiError> {
    let words = text.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
    words
        .map(|word| {
            Status::from_word(word).ok_or_else(|| {
                let known = ["RUNNING", "COMPLETED", "FAILED", "CANCELLED"];
                let hint = match suggest::closest(word, known.map(|word| word)) {
                    Some(close) => format!("did you mean {close}?"),
                    None => format!("known are {}", known.join(", ")),
                };
                ApiError::bad_field(field, format!("`{word}` is no status; {hint}"))
            })
        })
        .collect()
}

pub(in crate::api) fn id(field: &str, text: Option<&str>) -> Result<Option<ExecutionId>, ApiError> {
    text.map(|text| text.parse().map_err(|error| ApiError::bad_field(field, error))).transpose()
}

pub(in crate::api) fn moment(field: &str, text: Option<&str>) -> Result<Option<Timestamp>, ApiError> {
    text.map(|text| {
        Timestamp::from_iso(text).ok_or_else(|| {
            ApiError::bad_field(field, format!("`{text}` is no time: write it like 2026-01-20T09:08:00Z"))
        })
    })
    .transpose()
}
