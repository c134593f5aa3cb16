//! Collections that are read page by page, by page number, offset or cursor.

use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::answer::Answer;
use super::params::Params;
use super::state::Services;

/// Items of each collection.
const TOTAL: i64 = 35;
/// Items on a page when the request does not say.
const SIZE_DEFAULT: i64 = 10;
/// Items of the generic data service.
const ROWS_TOTAL: i64 = 25;

pub(super) fn routes() -> Router<Services> {
    Router::new()
        .route("/api/v1/assessments", get(assessments))
        .route("/api/v1/users", get(users))
        .route("/api/v1/events", get(events))
        .route("/data", get(rows))
}

/// A page of items that are numbered from 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    pub(super) number: i64,
    pub(super) size: i64,
    pub(super) total: i64,
}

impl Page {
    /// Returns the numbers of the items on this page.
    pub(super) fn numbers(self) -> impl Iterator<Item = i64> {
        let before = self.number.saturating_sub(1).saturating_mul(self.size);
        before.saturating_add(1)..=before.saturating_add(self.size).min(self.total)
    }

    /// Says whether there is a later page.
    pub(super) fn more(self) -> bool {
        self.number.saturating_mul(self.size) < self.total
    }

    /// Returns what `item` makes of the numbers on this page.
    pub(super) fn map(self, item: impl Fn(i64) -> Value) -> Vec<Value> {
        self.numbers().map(item).collect()
    }
}

/// Returns the "value page" that several endpoints share.
pub(super) fn value_page(number: i64) -> Value {
    let page = Page { number, size: SIZE_DEFAULT, total: TOTAL };
    let items = page.map(|i| json!({"id": i, "value": format!("item_{i}")}));
    json!({"data": items, "paging": {"hasMore": page.more(), "page": number, "pageSize": SIZE_DEFAULT}})
}

async fn assessments(params: Params) -> Answer {
    let page = Page { number: params.positive("page", 1)?, size: params.int("pageSize", SIZE_DEFAULT)?, total: TOTAL };
    let items = page.map(|i| json!({"id": i, "name": format!("Assessment {i}"), "score": 50 + i % 50}));
    let paging = json!({"hasMore": page.more(), "page": page.number, "pageSize": page.size, "total": page.total});
    Ok(Json(json!({"data": items, "paging": paging})))
}

async fn users(params: Params) -> Answer {
    let offset = params.int("offset", 0)?;
    let limit = params.int("limit", SIZE_DEFAULT)?;
    let end = offset.saturating_add(limit);
    let user = |i| json!({"id": i, "username": format!("user{i}"), "email": format!("user{i}@example.com")});
    let users: Vec<Value> = (offset.saturating_add(1)..=end.min(TOTAL)).map(user).collect();
    Ok(Json(json!({"users": users, "has_more": end < TOTAL, "offset": offset, "limit": limit, "total": TOTAL})))
}

async fn events(params: Params) -> Answer {
    let number = params.text("cursor").and_then(decode_cursor).unwrap_or(1);
    let page = Page { number, size: params.int("limit", SIZE_DEFAULT)?, total: TOTAL };
    let event = |i: i64| {
        json!({
            "id": i,
            "type": "user_action",
            "timestamp": format!("2024-01-{:02}T12:00:00Z", i % 28 + 1),
            "data": {"action": format!("event_{i}")},
        })
    };
    let next = page.more().then(|| STANDARD.encode(number.saturating_add(1).to_string()));
    Ok(Json(json!({"events": page.map(event), "next_cursor": next, "limit": page.size})))
}

async fn rows(params: Params) -> Answer {
    let page =
        Page { number: params.positive("page", 1)?, size: params.int("pageSize", SIZE_DEFAULT)?, total: ROWS_TOTAL };
    let items = page.map(|i| json!({"id": i, "value": format!("row_{i}")}));
    let paging = json!({"hasMore": page.more(), "page": page.number, "pageSize": page.size, "total": page.total});
    Ok(Json(json!({"items": items, "paging": paging})))
}

/// Returns the page that a cursor stands for: the base64 text of a decimal number.
fn decode_cursor(cursor: &str) -> Option<i64> {
    let text = String::from_utf8(STANDARD.decode(cursor).ok()?).ok()?;
    text.trim().parse().ok().filter(|&number| number >= 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::services::router;
    use crate::services::tests::ask;

    #[tokio::test]
    async fn pages_end_where_the_items_end() {
        let router = router();
        let (status, last) = ask(&router, "GET", "/api/v1/assessments?page=4").await;
        assert_eq!(status, 200);
        let ids: Vec<_> = last["data"].as_array().unwrap().iter().map(|item| item["id"].as_i64().unwrap()).collect();
        assert_eq!(ids, [31, 32, 33, 34, 35]);
        assert_eq!(last["data"][4], json!({"id": 35, "name": "Assessment 35", "score": 85}));
        assert_eq!(last["paging"], json!({"hasMore": false, "page": 4, "pageSize": 10, "total": 35}));
        let (_, beyond) = ask(&router, "GET", "/api/v1/assessments?page=9").await;
        assert_eq!(beyond["data"], json!([]));
        let (_, exact) = ask(&router, "GET", "/data?page=1&pageSize=25").await;
        assert_eq!(exact["paging"]["hasMore"], false);
        assert_eq!(exact.as_object().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_wrong_parameter_is_unprocessable_and_an_unknown_one_is_ignored() {
        let router = router();
        for uri in ["/api/v1/assessments?page=x", "/api/v1/assessments?page=", "/data?pageSize=1.5", "/data?page=0"] {
            let (status, body) = ask(&router, "GET", uri).await;
            assert_eq!(status, 422, "{uri}");
            assert!(body.get("detail").is_some(), "{uri}");
        }
        assert_eq!(ask(&router, "GET", "/api/v1/assessments?colour=red").await.0, 200);
    }

    #[tokio::test]
    async fn a_cursor_leads_through_all_events_once() {
        let router = router();
        let mut uri = "/api/v1/events".to_owned();
        let mut ids = Vec::new();
        loop {
            let (_, page) = ask(&router, "GET", &uri).await;
            ids.extend(page["events"].as_array().unwrap().iter().map(|event| event["id"].as_i64().unwrap()));
            match page["next_cursor"].as_str() {
                Some(cursor) => uri = format!("/api/v1/events?cursor={}", cursor.replace('=', "%3D")),
                None => break,
            }
        }
        assert_eq!(ids, (1..=35).collect::<Vec<_>>());
        let (_, junk) = ask(&router, "GET", "/api/v1/events?cursor=%21%21").await;
        assert_eq!(junk["events"][0]["timestamp"], "2024-01-02T12:00:00Z");
    }

    #[tokio::test]
    async fn an_offset_and_a_limit_cut_a_window() {
        let (_, users) = ask(&router(), "GET", "/api/v1/users?offset=30&limit=10").await;
        assert_eq!(users["users"].as_array().unwrap().len(), 5);
        assert_eq!(users["has_more"], false);
        assert_eq!(users["users"][0], json!({"id": 31, "username": "user31", "email": "user31@example.com"}));
    }
}
