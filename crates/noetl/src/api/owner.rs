//! `/api/owner`: asking whoever has the data directory to leave it. Only on the directory's own socket.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::caller::Caller;
use super::error::{ApiError, ErrorBody};
use crate::embed::Role;

/// What the owner will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaveReply {
    /// Always `leaving`: it lets what runs end, then gives the directory up.
    pub status: String,
    /// Process id.
    pub pid: u32,
}

/// Asks the owner of the data directory to leave it to a server. A server stays.
#[utoipa::path(
    post, path = "/api/owner/leave", tag = "db",
    responses((status = 200, body = LeaveReply), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn leave(State(api): State<Api>, caller: Caller) -> Result<Json<LeaveReply>, ApiError> {
    if !caller.is_at_home() {
        let message = "only a process on the data directory's own socket may ask";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "not_permitted", message));
    }
    match api.role {
        Role::Server => {
            let message = format!("process {} is a server and stays", std::process::id());
            Err(ApiError::new(StatusCode::CONFLICT, "stays", message))
        }
        Role::Run | Role::Visit => {
            api.leaving.cancel();
            Ok(Json(LeaveReply { status: "leaving".to_owned(), pid: std::process::id() }))
        }
    }
}
