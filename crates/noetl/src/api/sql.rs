//! `POST /api/postgres/execute`: reading the tables with SQL.

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use noetl_store::SqlLimits;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, ErrorBody};
use super::extract::Body;

/// Most rows in an answer.
pub const ROWS_MAX: usize = 10_000;
/// Longest time that a query runs, in milliseconds.
pub const QUERY_MS_MAX: u64 = 10_000;
/// Longest query, in bytes.
pub const QUERY_BYTES_MAX: usize = 256 * 1024;

/// What to ask the tables.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SqlRequest {
    /// One SELECT, as PostgreSQL understands it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The same as base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_base64: Option<String>,
    /// `noetl`: where tables without a schema are looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Another name of `schema`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_schema: Option<String>,
    /// Refused: procedures are not called.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub procedure: Option<Value>,
    /// Refused unless empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub parameters: Option<Value>,
    /// Refused: only noetl's own tables are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Refused: only noetl's own tables are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// Refused: only noetl's own tables are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_string: Option<String>,
}

/// What the tables say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SqlReply {
    /// Always `ok`; a query that fails is a 400.
    pub status: String,
    /// The rows.
    #[schema(value_type = Vec<Object>)]
    pub result: Vec<Map<String, Value>>,
    /// Always null.
    pub error: Option<String>,
    /// Column names in their order.
    pub columns: Vec<String>,
    /// There would have been more rows.
    pub truncated: bool,
}

/// Runs a read-only query on noetl's own tables.
#[utoipa::path(
    post, path = "/api/postgres/execute", operation_id = "query", tag = "sql", request_body = SqlRequest,
    responses((status = 200, body = SqlReply), (status = 400, body = ErrorBody, description = "The query is refused"))
)]
pub(super) async fn execute(
    State(api): State<Api>,
    Body(request): Body<SqlRequest>,
) -> Result<Json<SqlReply>, ApiError> {
    let query = query(request)?;
    let rows = api.store().sql(&query, SqlLimits { rows: ROWS_MAX, ms: QUERY_MS_MAX }).await?;
    let columns = distinct(rows.columns);
    let result =
        rows.rows.into_iter().map(|row| columns.iter().cloned().zip(row).collect::<Map<String, Value>>()).collect();
    Ok(Json(SqlReply { status: "ok".to_owned(), result, error: None, columns, truncated: rows.truncated }))
}

fn query(request: SqlRequest) -> Result<String, ApiError> {
    let elsewhere = [
        ("database", request.database.is_some()),
        ("credential", request.credential.is_some()),
        ("connection_string", request.connection_string.is_some()),
    ];
    if let Some((field, _)) = elsewhere.into_iter().find(|(_, given)| *given) {
        let problem = "queries read noetl's own tables only; use a `postgres` step for other databases";
        return Err(ApiError::bad_field(field, problem));
    }
    if request.procedure.is_some_and(|procedure| !procedure.is_null()) {
        return Err(ApiError::bad_field("procedure", "procedures are not called; send a `query`"));
    }
    let no_parameters = match &request.parameters {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => false,
    };
    if !no_parameters {
        return Err(ApiError::bad_field("parameters", "are not supported; write the values into the query"));
    }
    if let Some(schema) = request.schema.or(request.db_schema).filter(|schema| schema != "noetl") {
        return Err(ApiError::bad_field("schema", format!("`{schema}` is not there; the only schema is `noetl`")));
    }
    let query = match (request.query, request.query_base64) {
        (Some(query), None) => query,
        (None, Some(packed)) => STANDARD
            .decode(packed.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| ApiError::bad_field("query_base64", "is not the base64 of a text"))?,
        (Some(_), Some(_)) => return Err(ApiError::bad_field("query", "give either `query` or `query_base64`")),
        (None, None) => return Err(ApiError::bad_field("query", "is needed: one SELECT")),
    };
    if query.len() > QUERY_BYTES_MAX {
        return Err(ApiError::bad_field("query", format!("must be at most {QUERY_BYTES_MAX} bytes")));
    }
    Ok(query)
}

/// Gives columns of the same name numbers: rows are objects, so one would hide the other.
fn distinct(columns: Vec<String>) -> Vec<String> {
    let mut seen: Vec<String> = Vec::with_capacity(columns.len());
    for column in columns {
        let mut name = column.clone();
        let mut number = 2;
        while seen.contains(&name) {
            name = format!("{column}_{number}");
            number += 1;
        }
        seen.push(name);
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_one_name_are_told_apart() {
        let columns = ["a", "b", "a", "a"].map(str::to_owned).to_vec();
        assert_eq!(distinct(columns), ["a", "b", "a_2", "a_3"]);
    }

    #[test]
    fn another_database_is_refused_by_name() {
        let request =
            SqlRequest { query: Some("SELECT 1".into()), credential: Some("pg".into()), ..Default::default() };
        assert_eq!(query(request).unwrap_err().body.field.as_deref(), Some("credential"));
    }
}
