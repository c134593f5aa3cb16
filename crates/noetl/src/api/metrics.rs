//! `GET /metrics`: numbers for Prometheus. Labels are routes and words, never ids.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use noetl_engine::Engine;
use noetl_engine::metrics::{BUCKETS, Counter as EngineCounter, Gauge, Histogram as EngineHistogram, Metrics};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::Api;
use super::connections::Connections;
use super::error::ApiError;
use super::executions::mode_word;
use crate::telemetry;

/// Upper bounds of the request durations, in seconds. A long poll is no slow request, so the last is its length.
const SECONDS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 10.0, 25.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CancelLabels {
    mode: &'static str,
    cause: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

/// What is counted about requests, and the way to everything else that is counted.
pub(super) struct Numbers {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram>,
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Numbers").finish_non_exhaustive()
    }
}

impl Numbers {
    pub(super) fn new(engine: &Arc<Engine>, connections: &Arc<Connections>) -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let seconds = Family::<RouteLabels, Histogram>::new_with_constructor(|| Histogram::new(SECONDS));
        let mut registry = Registry::with_prefix("noetl");
        let info = Info::new([("version", env!("CARGO_PKG_VERSION")), ("name", "noetl")]);
        registry.register("build", "What runs", info);
        registry.register("request", "Requests answered", requests.clone());
        registry.register("request_seconds", "How long requests took, long polls included", seconds.clone());
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        registry.register_collector(Box::new(FromEngine { engine: Arc::clone(engine), started }));
        registry.register_collector(Box::new(FromProcess { connections: Arc::clone(connections) }));
        Numbers { registry, requests, seconds }
    }
}

/// Counts a request.
pub(super) async fn count(State(api): State<Api>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = method_word(request.method());
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let took = began.elapsed();
    tracing::debug!(method, route, status, took_ms = took.as_millis() as u64, "answered");
    api.numbers.requests.get_or_create(&RequestLabels { method, route: route.clone(), status }).inc();
    api.numbers.seconds.get_or_create(&RouteLabels { route }).observe(took.as_secs_f64());
    response
}

/// A client may invent methods; labels may not be invented.
fn method_word(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Shows every number in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "health", responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn show(State(api): State<Api>) -> Result<Response, ApiError> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &api.numbers.registry)
        .map_err(|error| ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "bug", error.to_string()))?;
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, format)], text).into_response())
}

/// Reads the engine's numbers when somebody asks.
struct FromEngine {
    engine: Arc<Engine>,
    started: Duration,
}

impl fmt::Debug for FromEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromEngine").finish_non_exhaustive()
    }
}

impl Collector for FromEngine {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // Each by name: a new number must be shown, or it does not compile.
        let Metrics {
            started,
            completed,
            failed,
            cancelled,
            events,
            appends,
            batches,
            batch_size,
            commit_ms,
            conflicts,
            locked,
            inputs,
            loads,
            claimed_with_issue,
            claimed_apart,
            claims_lost,
            reports,
            reports_late,
            lost,
            cancels,
            cancel_quiesce_ms,
            unquiesced,
            oldest_unquiesced_ms,
            open_cascades,
            open_selections,
            cancel_orders,
            store_errors,
        } = self.engine.metrics();
        let counters: [(&str, &str, &EngineCounter); 19] = [
            ("executions_started", "Executions started", started),
            ("executions_completed", "Executions that completed", completed),
            ("executions_failed", "Executions that failed", failed),
            ("executions_cancelled", "Executions cancelled", cancelled),
            ("events", "Events written", events),
            ("appends", "Appends that landed", appends),
            ("batches", "Transactions of appends", batches),
            ("conflicts", "Appends that lost a race and were decided again", conflicts),
            ("locked", "Decisions made under the lock", locked),
            ("inputs", "Inputs decided", inputs),
            ("loads", "Executions read from the store because they were not at hand", loads),
            ("claimed_with_issue", "Commands handed out together with what issued them", claimed_with_issue),
            ("claimed_apart", "Commands handed out by an append of their own", claimed_apart),
            ("claims_lost", "Claims that somebody else won", claims_lost),
            ("reports", "Reports taken", reports),
            ("reports_late", "Reports that came too late to count", reports_late),
            ("attempts_lost", "Attempts lost with their worker", lost),
            ("cancel_orders", "Cancel orders sent to workers", cancel_orders),
            ("store_errors", "Errors of the store", store_errors),
        ];
        for (name, help, counter) in counters {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(counter.get()).encode(metric)?;
        }
        let mut family = encoder.encode_descriptor("cancels", "What cancels came to", None, MetricType::Counter)?;
        for (mode, cause, result, count) in cancels.each().filter(|(.., count)| *count > 0) {
            let labels = CancelLabels { mode: mode_word(mode), cause: cause.as_str(), result: result.as_str() };
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        let quiesce = "Seconds from the end of an execution to the proof that nothing of it runs";
        let histograms: [(&str, &str, &EngineHistogram, f64); 3] = [
            ("batch_size", "Appends per transaction", batch_size, 1.0),
            ("commit_ms", "Milliseconds a transaction took", commit_ms, 1.0),
            ("cancel_quiesce_seconds", quiesce, cancel_quiesce_ms, 0.001),
        ];
        for (name, help, histogram, unit) in histograms {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            let (bounds, sum, count) = read(histogram, unit);
            metric.encode_histogram::<NoLabelSet>(sum, count, &bounds, None)?;
        }
        #[expect(clippy::cast_precision_loss, reason = "an age for a graph")]
        let oldest = oldest_unquiesced_ms.get() as f64 / 1000.0;
        let gauges: [(&str, &str, f64); 4] = [
            (
                "unquiesced_executions",
                "Executions that have ended while something of them still runs",
                whole(unquiesced),
            ),
            ("oldest_unquiesced_seconds", "For how long the oldest of them has ended", oldest),
            ("open_cascades", "Cascades with something left to visit", whole(open_cascades)),
            ("open_selections", "Cancels of many with something left to visit", whole(open_selections)),
        ];
        for (name, help, value) in gauges {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let up = encoder.encode_descriptor("up", "The server answers", None, MetricType::Gauge)?;
        ConstGauge::new(1_i64).encode(up)?;
        let name = "process_start_time_seconds";
        let start = encoder.encode_descriptor(name, "When the process began", None, MetricType::Gauge)?;
        ConstGauge::new(self.started.as_secs_f64()).encode(start)
    }
}

/// Reads what listeners and the log have counted.
#[derive(Debug)]
struct FromProcess {
    connections: Arc<Connections>,
}

impl Collector for FromProcess {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let open = encoder.encode_descriptor("connections", "Connections open", None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(self.connections.open()).unwrap_or(i64::MAX)).encode(open)?;
        let counters = [
            (
                "connections_evicted",
                "Connections that waited for their client and were closed to make room for others",
                self.connections.evicted(),
            ),
            (
                "log_lines_dropped",
                "Lines of the log that were dropped because nobody took those before them",
                telemetry::dropped(),
            ),
        ];
        for (name, help, count) in counters {
            ConstCounter::new(count).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number for a graph")]
fn whole(gauge: &Gauge) -> f64 {
    gauge.get() as f64
}

/// Returns buckets, sum and count; `unit` is what one of the histogram's units is in the metric's.
fn read(histogram: &EngineHistogram, unit: f64) -> (Vec<(f64, u64)>, f64, u64) {
    let counts = histogram.buckets();
    #[expect(clippy::cast_precision_loss, reason = "bounds and sums for a graph")]
    let bounds = BUCKETS.iter().map(|bound| *bound as f64 * unit).chain([f64::MAX]).zip(counts).collect();
    #[expect(clippy::cast_precision_loss, reason = "bounds and sums for a graph")]
    let sum = histogram.sum() as f64 * unit;
    (bounds, sum, counts.iter().sum())
}
