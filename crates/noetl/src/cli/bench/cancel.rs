//! `noetl bench cancel`: how long a cancel takes, from the request to the proof.

pub(super) mod scale;
pub(super) mod stock;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use noetl_core::head::{Head, Status};
use noetl_core::id::ExecutionId;
use noetl_core::labels::Labels;
use noetl_core::playbook::CancelMode;
use noetl_engine::{CancelRequest, Engine, StartRequest, WaitFor};
use noetl_store::ListQuery;
use noetl_store::catalog::ResourceKey;
use serde::Serialize;
use serde_json::Map;

use super::chain::{self, call};
use super::target::Target;
use super::{EXECUTION_MS_MAX, On, Percentiles, measured_on, show};
use crate::cli::stop::{Exit, Stop};

/// Members of the family that is cancelled: each level starts ten.
const FAMILY: usize = 1_111;
/// Callers that run chains at full speed beside the cancels.
const CALLERS: u32 = 128;
/// Longest wait for something to come about, before a benchmark is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what the engine tells nobody about.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

#[derive(Debug, Args)]
pub(super) struct Cancel {
    /// Cancels that are measured, per line
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    cancels: u32,
    /// Descendants of the large family that one cascade cancels beside other runs; 0 leaves the line out
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    family: u32,
    /// Stale executions that are cancelled by one filter; 0 leaves the line out
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    stale: u32,
    /// Cancels that meet a short chain at every stage; 0 leaves the line out
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    races: u32,
    /// Print one line of JSON
    #[arg(short, long)]
    json: bool,
}

/// What was measured. Times are in milliseconds.
#[derive(Debug, Serialize)]
struct Figures {
    scenario: &'static str,
    cancels: u32,
    /// From the request to the durable answer, nothing else going on.
    idle_ms: Percentiles,
    /// The same while chains run at full speed.
    busy_ms: Percentiles,
    /// From the request of an interrupt to the proof that the shell and its child are gone.
    interrupt_ms: Percentiles,
    /// One cascade over a family of waiting executions.
    cascade_ms: f64,
    cascade_executions: usize,
    /// One cascade over a large family, and unrelated runs beside it.
    large: Option<scale::Cascade>,
    /// One request by filter.
    bulk_executions: usize,
    bulk_per_second: Option<f64>,
    /// Cancels at every stage of a short chain.
    races: Option<scale::Races>,
}

impl Cancel {
    pub(super) async fn run(self) -> Result<Exit, Stop> {
        let defect = |what: String| Stop::new(Exit::Defect, what);
        // Without a worker nothing is ever claimed: what is cancelled there waits.
        let waiting = measured_on("waiting", None, async |engine| self.waiting(engine).await).await.map_err(defect)?;
        let (idle_ms, cascade_ms) = waiting;
        let slots = Some(64);
        let working = measured_on("working", slots, async |engine| self.working(engine).await).await.map_err(defect)?;
        let (busy_ms, interrupt_ms) = working;
        let large = match self.family {
            0 => None,
            family => Some(
                measured_on("family", None, async |engine| {
                    scale::prepare(engine).await?;
                    scale::cascade(engine, family as usize).await
                })
                .await
                .map_err(defect)?,
            ),
        };
        let bulk = match self.stale {
            0 => None,
            stale => Some(
                measured_on("stale", None, async |engine| {
                    scale::prepare(engine).await?;
                    scale::bulk(engine, stale as usize).await
                })
                .await
                .map_err(defect)?,
            ),
        };
        let races = match self.races {
            0 => None,
            races => Some(
                measured_on("races", slots, async |engine| scale::races(engine, races as usize).await)
                    .await
                    .map_err(defect)?,
            ),
        };
        let figures = Figures {
            scenario: "cancel",
            cancels: self.cancels,
            idle_ms,
            busy_ms,
            interrupt_ms,
            cascade_ms,
            cascade_executions: FAMILY,
            large,
            bulk_executions: self.stale as usize,
            bulk_per_second: bulk.map(|took| (f64::from(self.stale) / took.as_secs_f64()).round()),
            races,
        };
        show(self.json, &figures, || figures.to_text())?;
        // The one line that is right or wrong, whatever the machine.
        let escaped = figures.races.as_ref().map_or(0, |races| races.escaped);
        if escaped > 0 {
            let what = format!("{escaped} tool(s) started after a cancel that did not list them");
            return Err(Stop::new(Exit::Failed, what));
        }
        Ok(Exit::Done)
    }

    async fn waiting(&self, engine: &Arc<Engine>) -> Result<(Percentiles, f64), String> {
        for (path, body) in [
            ("bench/one", "{step: start, tool: {kind: noop}, spec: {run_on: worker}}"),
            (
                "bench/two",
                "{step: start, loop: {in: 10, iterator: n, spec: {mode: parallel}}, tool: {kind: playbook, path: bench/one}}",
            ),
            (
                "bench/three",
                "{step: start, loop: {in: 10, iterator: n, spec: {mode: parallel}}, tool: {kind: playbook, path: bench/two}}",
            ),
            (
                "bench/four",
                "{step: start, loop: {in: 10, iterator: n, spec: {mode: parallel}}, tool: {kind: playbook, path: bench/three}}",
            ),
        ] {
            register(engine, path, body).await?;
        }
        let mut idle = Vec::new();
        for _ in 0..self.cancels {
            let id = start(engine, "bench/one").await?;
            idle.push(cancel(engine, &order(id)).await?);
        }
        let top = start(engine, "bench/four").await?;
        until("the family is there", async || {
            let query = ListQuery { root: Some(top), limit: FAMILY as u64 + 1, ..ListQuery::default() };
            let family = engine.store().executions(query).await.map_err(|error| error.to_string())?;
            // Each waits: for its children, or for a worker that never comes.
            let waits = |head: &Head| head.commands_issued >= 1 && !head.runnable;
            Ok(family.len() == FAMILY && family.iter().all(waits))
        })
        .await?;
        let cascade = cancel(engine, &CancelRequest { cascade: true, ..order(top) }).await?;
        Ok((percentiles(idle), milliseconds(cascade)))
    }

    async fn working(&self, engine: &Arc<Engine>) -> Result<(Percentiles, Percentiles), String> {
        register(engine, "bench/sleep", "{step: start, tool: {kind: shell, cmds: ['sleep 600; true']}}").await?;
        let mut interrupted = Vec::new();
        for _ in 0..self.cancels.min(50) {
            let id = start(engine, "bench/sleep").await?;
            until("its tool runs", async || {
                let view = engine.store().view(id).await.map_err(|error| error.to_string())?;
                let started = |view: &noetl_core::head::HeadView| {
                    view.commands.iter().any(|row| row.holder.as_ref().is_some_and(|holder| holder.started))
                };
                Ok(view.is_some_and(|view| started(&view)))
            })
            .await?;
            let order = CancelRequest { mode: Some(CancelMode::Interrupt), wait_ms: EXECUTION_MS_MAX, ..order(id) };
            interrupted.push(cancel(engine, &order).await?);
        }
        let target = Target::Engine(Arc::clone(engine));
        target.register(&chain::playbook(10, On::Worker)).await?;
        let (counting, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| tokio::spawn(call(target.clone(), Arc::clone(&counting), Arc::clone(&over))))
            .collect();
        let mut busy = Vec::new();
        for _ in 0..self.cancels {
            let id = start(engine, chain::PATH).await?;
            let began = Instant::now();
            match engine.cancel(order(id)).await {
                Ok(_) => busy.push(began.elapsed()),
                // It was faster; that is no cancel to be measured.
                Err(noetl_engine::CancelError::AlreadyEnded { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        over.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.await.map_err(|error| error.to_string())??;
        }
        Ok((percentiles(busy), percentiles(interrupted)))
    }
}

pub(super) async fn register(engine: &Engine, path: &str, step: &str) -> Result<(), String> {
    let text = format!(
        "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: bench, path: {path}}}\nworkflow:\n  - {step}\n"
    );
    engine.register(&text, None).await.map(drop).map_err(|error| format!("{error:?}"))
}

pub(super) async fn start(engine: &Arc<Engine>, path: &str) -> Result<ExecutionId, String> {
    let request = StartRequest {
        target: ResourceKey::Latest(path.into()),
        payload: Map::new(),
        parent_execution_id: None,
        started_by: Some("bench".to_owned()),
        strict: false,
        labels: Labels::new(),
        idempotency_key: None,
    };
    engine.start(request).await.map(|started| started.execution_id).map_err(|error| error.to_string())
}

pub(super) fn order(execution_id: ExecutionId) -> CancelRequest {
    CancelRequest {
        execution_id,
        reason: Some("bench".to_owned()),
        cascade: false,
        mode: None,
        grace_ms: None,
        wait_ms: 0,
        wait_for_cleanup: false,
        dry_run: false,
        cancelled_by: "bench".to_owned(),
        requested_by: None,
        remote: None,
        idempotency_key: None,
    }
}

/// Cancels, and returns how long the answer took. What is answered must be so.
pub(super) async fn cancel(engine: &Engine, order: &CancelRequest) -> Result<Duration, String> {
    let began = Instant::now();
    let answer = engine.cancel(order.clone()).await.map_err(|error| error.to_string())?;
    let took = began.elapsed();
    if order.wait_ms > 0 && !answer.quiesced {
        return Err(format!("execution {} has not quiesced", order.execution_id));
    }
    let head = engine.wait(order.execution_id, WaitFor::Terminal, 0).await.map_err(|error| error.to_string())?;
    match head.map(|head| head.status) {
        Some(Status::Cancelled) => Ok(took),
        other => Err(format!("execution {} is {other:?}, not cancelled", order.execution_id)),
    }
}

pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool, String>) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await? {
        if Instant::now() >= deadline {
            return Err(format!("not within {} s: {what}", PATIENCE.as_secs()));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

fn percentiles(mut took: Vec<Duration>) -> Percentiles {
    took.sort_unstable();
    Percentiles::of(&took, 1)
}

fn milliseconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 100_000.0).round() / 100.0
}

impl Figures {
    fn to_text(&self) -> String {
        let line = |name: &str, of: &Percentiles| {
            format!(
                "  {name:<24} p50 {:>8.2}   p90 {:>8.2}   p99 {:>8.2}   max {:>8.2}",
                of.p50, of.p90, of.p99, of.max
            )
        };
        let mut lines = vec![
            format!("{} cancels a line, embedded store, synchronous=FULL", self.cancels),
            line("idle ms", &self.idle_ms),
            line("beside 128 chains ms", &self.busy_ms),
            line("interrupt to proof ms", &self.interrupt_ms),
            format!("  {:<24} {:.2} ms for {} executions", "cascade", self.cascade_ms, self.cascade_executions),
        ];
        if let Some(large) = &self.large {
            let text = format!("  {:<24} {:.2} ms for {} descendants", "large cascade", large.ms, large.descendants);
            lines.push(text);
            lines.push(line("one-step run, idle ms", &large.bystander_idle_ms));
            lines.push(line("the same beside it ms", &large.bystander_beside_ms));
        }
        if let Some(rate) = self.bulk_per_second {
            lines.push(format!("  {:<24} {rate:.0} a second, {} by one filter", "bulk", self.bulk_executions));
        }
        if let Some(races) = &self.races {
            let scale::Races { cancelled, too_late, in_flight, escaped } = races;
            lines.push(format!(
                "  {:<24} {escaped} escaped; {cancelled} cancelled with {in_flight} commands in flight, {too_late} too late",
                "races"
            ));
        }
        lines.join("\n") + "\n"
    }
}
