//! Answers that fail on request, and one that lets only so many callers in.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::{Answer, Refusal};
use super::collections::value_page;
use super::params::Params;
use super::state::{Services, locked};

/// How long an answer that simulates a timeout is held back.
const SIMULATED_TIMEOUT: Duration = Duration::from_secs(30);
/// What a caller beyond the limit is told to wait, in seconds.
pub(super) const RETRY_AFTER_SECONDS: i64 = 1;

pub(super) fn routes() -> Router<Services> {
    Router::new()
        .route("/api/v1/flaky", get(flaky))
        .route("/api/v1/flaky/reset", post(reset_flaky))
        .route("/api/v1/errors", get(errors))
        .route("/api/v1/rate-limited", get(rate_limited))
}

async fn flaky(State(services): State<Services>, params: Params) -> Answer {
    let page = params.int("page", 1)?;
    let fail_on = params.text("fail_on").unwrap_or_default();
    let listed = fail_on.split(',').any(|number| number.trim().parse() == Ok(page));
    let visits = {
        let mut memory = locked(&services);
        let visits = memory.flaky.entry(page).or_insert(0);
        *visits += 1;
        *visits
    };
    if listed && visits == 1 {
        return Err(Refusal::error(StatusCode::INTERNAL_SERVER_ERROR, "Simulated failure"));
    }
    Ok(Json(value_page(page)))
}

async fn reset_flaky(State(services): State<Services>) -> Json<Value> {
    locked(&services).flaky.clear();
    Json(json!({"status": "reset", "message": "all pages fail their first visit again"}))
}

async fn errors(params: Params) -> Answer {
    let page = params.int("page", 1)?;
    let retry_after = params.int("retry_after", 5)?;
    match params.text("error_type").unwrap_or_default() {
        "429" => Err(too_many("Rate limit exceeded").retry_after(retry_after)),
        "500" => Err(Refusal::error(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")),
        "503" => {
            let body = json!({"error": "Service Unavailable", "message": "Service temporarily unavailable"});
            Err(Refusal::with_body(StatusCode::SERVICE_UNAVAILABLE, body).retry_after(retry_after))
        }
        "timeout" => {
            tokio::time::sleep(SIMULATED_TIMEOUT).await;
            Ok(Json(json!({"data": [], "simulated": "timeout"})))
        }
        "auth" => Err(Refusal::error(StatusCode::UNAUTHORIZED, "Unauthorized")),
        "403" => Err(Refusal::error(StatusCode::FORBIDDEN, "Forbidden")),
        "404" => Err(Refusal::error(StatusCode::NOT_FOUND, "Not Found")),
        _ => Ok(Json(value_page(page))),
    }
}

async fn rate_limited(State(services): State<Services>, params: Params) -> Answer {
    let page = params.int("page", 1)?;
    let limit = params.int("requests_per_second", 2)?;
    let accepted = locked(&services).limited.accept(Instant::now(), limit);
    let in_window = accepted.map_err(|in_window| {
        let body = json!({"error": "Rate limit exceeded", "requests_in_window": in_window, "limit": limit});
        Refusal::with_body(StatusCode::TOO_MANY_REQUESTS, body).retry_after(RETRY_AFTER_SECONDS)
    })?;
    let mut answer = value_page(page);
    for item in answer["data"].as_array_mut().into_iter().flatten() {
        item["rate_limited"] = json!(true);
    }
    answer["rate_limit"] = json!({"requests_in_window": in_window, "limit": limit});
    Ok(Json(answer))
}

/// Refuses with the body that clients of public services know.
pub(super) fn too_many(message: &str) -> Refusal {
    let body = json!({"error": "Too Many Requests", "message": message});
    Refusal::with_body(StatusCode::TOO_MANY_REQUESTS, body)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use axum::http::{Request, header};
    use serde_json::json;
    use tower::ServiceExt;

    use crate::services::router;
    use crate::services::tests::ask;

    #[tokio::test]
    async fn a_listed_page_fails_exactly_its_first_visit() {
        let router = router();
        let page_two = "/api/v1/flaky?page=2&fail_on=2,%203";
        assert_eq!(ask(&router, "GET", page_two).await, (500, json!({"detail": "Simulated failure"})));
        assert_eq!(ask(&router, "GET", page_two).await.0, 200);
        // Page 3 is counted by a visit that does not list it; then its first visit is over.
        assert_eq!(ask(&router, "GET", "/api/v1/flaky?page=3").await.0, 200);
        assert_eq!(ask(&router, "GET", "/api/v1/flaky?page=3&fail_on=2,3").await.0, 200);
        assert_eq!(ask(&router, "POST", "/api/v1/flaky/reset").await.1["status"], "reset");
        assert_eq!(ask(&router, "GET", page_two).await.0, 500);
    }

    #[tokio::test]
    async fn each_error_type_has_its_status() {
        let router = router();
        let cases = [("429", 429), ("500", 500), ("503", 503), ("auth", 401), ("403", 403), ("404", 404), ("x", 200)];
        for (error_type, status) in cases {
            let uri = format!("/api/v1/errors?error_type={error_type}");
            assert_eq!(ask(&router, "GET", &uri).await.0, status, "{error_type}");
        }
        let request = Request::get("/api/v1/errors?error_type=429&retry_after=9").body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.headers()[header::RETRY_AFTER], "9");
    }

    #[tokio::test(start_paused = true)]
    async fn a_simulated_timeout_answers_after_thirty_seconds() {
        let started = tokio::time::Instant::now();
        let answer = ask(&router(), "GET", "/api/v1/errors?error_type=timeout").await;
        assert_eq!(answer, (200, json!({"data": [], "simulated": "timeout"})));
        assert_eq!(started.elapsed(), Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn the_third_caller_in_a_second_is_refused() {
        let router = router();
        let uri = "/api/v1/rate-limited?page=4&requests_per_second=2";
        let (_, first) = ask(&router, "GET", uri).await;
        assert_eq!(first["rate_limit"], json!({"requests_in_window": 1, "limit": 2}));
        assert_eq!(first["data"][0], json!({"id": 31, "value": "item_31", "rate_limited": true}));
        assert_eq!(ask(&router, "GET", uri).await.1["rate_limit"]["requests_in_window"], 2);
        let refused = json!({"error": "Rate limit exceeded", "requests_in_window": 2, "limit": 2});
        assert_eq!(ask(&router, "GET", uri).await, (429, refused));
        tokio::time::advance(Duration::from_millis(1_001)).await;
        assert_eq!(ask(&router, "GET", uri).await.1["rate_limit"]["requests_in_window"], 1);
    }
}
