//! The concurrency probe: how many callers were inside at the same time.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::{Answer, Refusal};
use super::params::{Params, unprocessable};
use super::state::{Services, locked};

/// Longest stay, in seconds.
const DELAY_SECONDS_MAX: f64 = 300.0;
/// Arrivals and departures that are remembered.
const EVENTS_MAX: usize = 200;

pub(super) fn routes() -> Router<Services> {
    Router::new()
        .route("/api/v1/concurrency/reset", post(reset))
        .route("/api/v1/concurrency/stats", get(stats))
        .route("/api/v1/concurrency/probe", get(probe))
}

/// Who came and went.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// Rises with every reset, so that who came before it does not leave after it.
    age: u64,
    started: u64,
    completed: u64,
    active: u64,
    max_active: u64,
    events: VecDeque<Value>,
}

/// A caller who is inside.
#[derive(Debug)]
struct Visit {
    age: u64,
    request_id: u64,
    label: String,
    active_at_start: u64,
}

impl Probe {
    /// Starts a new age, after that of `other`.
    pub(super) fn begin_after(&mut self, other: &Probe) {
        self.age = other.age + 1;
    }

    fn arrive(&mut self, label: String) -> Visit {
        self.started += 1;
        self.active += 1;
        self.max_active = self.max_active.max(self.active);
        let visit = Visit { age: self.age, request_id: self.started, label, active_at_start: self.active };
        self.note("start", &visit);
        visit
    }

    fn leave(&mut self, visit: &Visit) {
        if visit.age == self.age {
            self.active -= 1;
            self.completed += 1;
            self.note("end", visit);
        }
    }

    fn note(&mut self, phase: &str, visit: &Visit) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(json!({
            "phase": phase,
            "request_id": visit.request_id,
            "label": visit.label,
            "ts": now.as_secs_f64(),
            "active": self.active,
            "max_active": self.max_active,
        }));
    }
}

async fn reset(State(services): State<Services>) -> Json<Value> {
    let mut memory = locked(&services);
    let mut fresh = Probe::default();
    fresh.begin_after(&memory.probe);
    memory.probe = fresh;
    Json(json!({"status": "reset"}))
}

async fn stats(State(services): State<Services>) -> Json<Value> {
    let memory = locked(&services);
    let probe = &memory.probe;
    Json(json!({
        "started": probe.started,
        "completed": probe.completed,
        "active": probe.active,
        "max_active": probe.max_active,
        "recent_events": probe.events,
    }))
}

async fn probe(State(services): State<Services>, params: Params) -> Answer {
    let delay = params.float("delay_seconds", 0.0)?;
    if !(0.0..=DELAY_SECONDS_MAX).contains(&delay) {
        return Err(unprocessable(format!("`delay_seconds` must be 0 to {DELAY_SECONDS_MAX}, is {delay}")));
    }
    let label = params.text("label").unwrap_or("probe").to_owned();
    // In a task of its own: a caller who hangs up drops this handler, and must leave the room all the same.
    let stay = tokio::spawn(async move {
        let arrived = Instant::now();
        let visit = locked(&services).probe.arrive(label);
        tokio::time::sleep(Duration::from_secs_f64(delay)).await;
        let mut memory = locked(&services);
        memory.probe.leave(&visit);
        let probe = &memory.probe;
        json!({
            "request_id": visit.request_id,
            "label": visit.label,
            "delay_seconds": delay,
            "duration_seconds": arrived.elapsed().as_secs_f64(),
            "active_at_start": visit.active_at_start,
            "started": probe.started,
            "completed": probe.completed,
            "active": probe.active,
            "max_active": probe.max_active,
        })
    });
    let answer = stay.await.map_err(|gone| Refusal::error(StatusCode::INTERNAL_SERVER_ERROR, gone.to_string()))?;
    Ok(Json(answer))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use crate::services::router;
    use crate::services::tests::ask;

    #[tokio::test(start_paused = true)]
    async fn forty_callers_wait_at_the_same_time_and_hold_up_nobody() {
        let router = router();
        let started = Instant::now();
        let mut waiting = JoinSet::new();
        for n in 0..40 {
            let router = router.clone();
            waiting.spawn(async move {
                ask(&router, "GET", &format!("/api/v1/concurrency/probe?delay_seconds=5&label=p{n}")).await
            });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(ask(&router, "GET", "/api/v1/concurrency/stats").await.1["active"], 40);
        while let Some(answer) = waiting.join_next().await {
            let (status, body) = answer.unwrap();
            assert_eq!((status, &body["delay_seconds"], &body["max_active"]), (200, &json!(5.0), &json!(40)));
        }
        assert_eq!(started.elapsed(), Duration::from_secs(5));
        let (_, stats) = ask(&router, "GET", "/api/v1/concurrency/stats").await;
        assert_eq!((&stats["completed"], &stats["active"], &stats["max_active"]), (&json!(40), &json!(0), &json!(40)));
        assert_eq!(stats["recent_events"].as_array().unwrap().len(), 80);
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_before_a_reset_does_not_leave_after_it() {
        let router = router();
        let early = tokio::spawn({
            let router = router.clone();
            async move { ask(&router, "GET", "/api/v1/concurrency/probe?delay_seconds=2").await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        ask(&router, "POST", "/api/v1/concurrency/reset").await;
        early.await.unwrap();
        let (_, stats) = ask(&router, "GET", "/api/v1/concurrency/stats").await;
        assert_eq!((&stats["completed"], &stats["active"]), (&json!(0), &json!(0)));
    }

    #[tokio::test]
    async fn a_stay_outside_its_range_is_unprocessable() {
        let router = router();
        for delay in ["-1", "301", "long"] {
            let uri = format!("/api/v1/concurrency/probe?delay_seconds={delay}");
            assert_eq!(ask(&router, "GET", &uri).await.0, 422, "{delay}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_hangs_up_leaves_when_the_stay_is_over() {
        let router = router();
        let hung_up = tokio::time::timeout(
            Duration::from_secs(1),
            ask(&router, "GET", "/api/v1/concurrency/probe?delay_seconds=3"),
        );
        assert!(hung_up.await.is_err());
        assert_eq!(ask(&router, "GET", "/api/v1/concurrency/stats").await.1["active"], 1);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (_, stats) = ask(&router, "GET", "/api/v1/concurrency/stats").await;
        assert_eq!((&stats["active"], &stats["completed"]), (&json!(0), &json!(1)));
    }
}
