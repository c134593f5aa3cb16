//! `GET /api/executions/{execution_id}/tree`: a family.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use noetl_core::id::ExecutionId;
use noetl_store::ListQuery;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Summary, head_of};
use crate::api::Api;
use crate::api::error::{ApiError, ErrorBody};
use crate::api::extract::PathId;

/// Most members of a family that are read to answer.
pub const MEMBERS_MAX: u64 = 20_000;

/// An execution and its descendants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TreeReply {
    /// The one asked for; the first in `executions`.
    #[schema(value_type = String)]
    pub execution_id: ExecutionId,
    /// Top of the family.
    #[schema(value_type = String)]
    pub root_execution_id: ExecutionId,
    /// Parents before their children.
    pub executions: Vec<Summary>,
    /// The family is larger than what is shown.
    pub truncated: bool,
}

/// Shows an execution and all its descendants.
#[utoipa::path(
    get, path = "/api/executions/{execution_id}/tree", tag = "executions",
    params(("execution_id" = String, Path, description = "Where to begin")),
    responses((status = 200, body = TreeReply), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(in crate::api) async fn tree(
    State(api): State<Api>,
    PathId(execution_id): PathId<ExecutionId>,
) -> Result<Json<TreeReply>, ApiError> {
    let head = head_of(&api, execution_id).await?;
    let now = api.store().now().await?;
    let family = ListQuery { root: Some(head.root_execution_id), limit: MEMBERS_MAX, ..ListQuery::default() };
    let mut members = api.store().executions(family).await?;
    let truncated = members.len() as u64 >= MEMBERS_MAX;
    // A parent exists before its child, so at equal depth order does not matter, and by depth parents come first.
    members.sort_by_key(|member| (member.depth, member.execution_id));
    let mut inside = HashSet::from([execution_id]);
    let mut executions = vec![Summary::of(&head, now)];
    for member in &members {
        let below = member.parent_execution_id.is_some_and(|parent| inside.contains(&parent));
        if below && inside.insert(member.execution_id) {
            executions.push(Summary::of(member, now));
        }
    }
    Ok(Json(TreeReply { execution_id, root_execution_id: head.root_execution_id, executions, truncated }))
}
