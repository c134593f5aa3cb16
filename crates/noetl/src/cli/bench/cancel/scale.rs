//! `noetl bench cancel`, the large lines: a family, a stock of stale executions, bystanders, and races.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use noetl_core::event::Event;
use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_engine::{BulkRequest, CancelAnswer, CancelError, CancelRequest, Engine, Filter, Selected, WaitFor};
use noetl_store::EventQuery;
use serde::Serialize;

use super::stock::Stock;
use super::{EXECUTION_MS_MAX, milliseconds, order, percentiles, register, start};
use crate::cli::bench::Percentiles;

/// Where the playbook stands that waits for a worker.
pub(in super::super) const WAITING: &str = "bench/stale";
/// Members of a large family per child of its top.
const BROOD: usize = 1_000;
/// One-step runs that are measured with nothing else going on.
const IDLE_RUNS: u32 = 500;
/// Longest wait for a large cancel, in milliseconds.
const LARGE_MS_MAX: u64 = 600_000;
/// Races that are run at the same time.
const RACES_AT_ONCE: usize = 32;
/// A race's cancel comes up to so many hundred microseconds after its start, so that every stage is met.
const RACE_STAGES: usize = 50;

/// What a large cascade took, and what it did to others.
#[derive(Debug, Serialize)]
pub(super) struct Cascade {
    pub(super) descendants: usize,
    pub(super) ms: f64,
    /// An unrelated one-step run, from start to known end, with nothing else going on.
    pub(super) bystander_idle_ms: Percentiles,
    /// The same while the cascade goes on.
    pub(super) bystander_beside_ms: Percentiles,
}

/// What became of the races.
#[derive(Debug, Default, Serialize)]
pub(super) struct Races {
    /// Cancelled while something of it was still to come.
    pub(super) cancelled: u64,
    /// Over before the cancel.
    pub(super) too_late: u64,
    /// Commands that workers held when they were cancelled.
    pub(super) in_flight: u64,
    /// Tools that started after the decision and are not in the answer's `in_flight`: must be 0.
    pub(super) escaped: u64,
}

pub(in super::super) async fn prepare(engine: &Engine) -> Result<(), String> {
    register(engine, WAITING, "{step: start, tool: {kind: noop}, spec: {run_on: worker}}").await?;
    register(engine, "bench/brief", "{step: start, tool: {kind: noop}}").await
}

/// One cascade over a large family, with bystanders beside it.
pub(super) async fn cascade(engine: &Arc<Engine>, descendants: usize) -> Result<Cascade, String> {
    let top = start(engine, WAITING).await?;
    let mut stock = Stock::of(engine, top).await?;
    family(engine, &mut stock, top, descendants).await?;
    let mut idle = Vec::new();
    for _ in 0..IDLE_RUNS {
        idle.push(one_run(engine).await?);
    }
    let over = Arc::new(AtomicBool::new(false));
    let bystander = {
        let (engine, over) = (Arc::clone(engine), Arc::clone(&over));
        tokio::spawn(async move {
            let mut took = Vec::new();
            while !over.load(Ordering::Relaxed) {
                took.push(one_run(&engine).await?);
            }
            Ok::<_, String>(took)
        })
    };
    let began = Instant::now();
    let answer =
        engine.cancel(CancelRequest { cascade: true, ..order(top) }).await.map_err(|error| error.to_string())?;
    whole(engine, &answer, descendants + 1).await?;
    let took = began.elapsed();
    over.store(true, Ordering::Relaxed);
    let beside = bystander.await.map_err(|error| error.to_string())??;
    Ok(Cascade {
        descendants,
        ms: milliseconds(took),
        bystander_idle_ms: percentiles(idle),
        bystander_beside_ms: percentiles(beside),
    })
}

/// Writes so many descendants of `top`, in broods below its children.
pub(in super::super) async fn family(
    engine: &Engine,
    stock: &mut Stock,
    top: ExecutionId,
    descendants: usize,
) -> Result<(), String> {
    let mut left = descendants;
    while left > 0 {
        let child = stock.write(engine, 1, Some(top)).await?;
        let brood = BROOD.min(left) - 1;
        stock.write(engine, brood, child.first().copied()).await?;
        left -= brood + 1;
    }
    Ok(())
}

/// Waits until a cascade has cancelled the whole family, which has so many members.
pub(in super::super) async fn whole(engine: &Engine, answer: &CancelAnswer, members: usize) -> Result<(), String> {
    let cancelled = match answer.job_id.filter(|_| !answer.complete) {
        Some(job) => done(engine, job).await?,
        None => answer.cancelled_executions.len() as u64,
    };
    if cancelled == members as u64 {
        Ok(())
    } else {
        Err(format!("{cancelled} of a family of {members} were cancelled"))
    }
}

/// One cancel by filter over a stock of stale executions; returns how long it took.
pub(super) async fn bulk(engine: &Arc<Engine>, stale: usize) -> Result<Duration, String> {
    let pattern = start(engine, WAITING).await?;
    let mut stock = Stock::of(engine, pattern).await?;
    stock.write(engine, stale - 1, None).await?;
    let request = BulkRequest {
        selected: Selected::Matching(Filter { path: Some(WAITING.into()), ..Filter::default() }),
        how: order(ExecutionId(0)),
        max: stale as u64,
        rate: None,
        answer_ms: LARGE_MS_MAX,
    };
    let began = Instant::now();
    let answer = engine.cancel_matching(&request).await.map_err(|error| error.to_string())?;
    let took = began.elapsed();
    match answer.complete && answer.cancelled_count == stale as u64 {
        true => Ok(took),
        false => Err(format!("{} of {stale} were cancelled", answer.cancelled_count)),
    }
}

/// Cancels that meet short chains at every stage, on an engine with a worker.
pub(super) async fn races(engine: &Arc<Engine>, count: usize) -> Result<Races, String> {
    register(
        engine,
        "bench/race",
        "{step: start, tool: {kind: noop}, spec: {run_on: worker}, next: {arcs: [{step: middle}]}}\n  \
         - {step: middle, tool: {kind: noop}, spec: {run_on: worker}, next: {arcs: [{step: end}]}}\n  \
         - {step: end, tool: {kind: noop}, spec: {run_on: worker}}",
    )
    .await?;
    let races = stream::iter(0..count).map(|number| race(engine, number)).buffer_unordered(RACES_AT_ONCE);
    races
        .try_fold(Races::default(), async |sum, one| {
            Ok(Races {
                cancelled: sum.cancelled + one.cancelled,
                too_late: sum.too_late + one.too_late,
                in_flight: sum.in_flight + one.in_flight,
                escaped: sum.escaped + one.escaped,
            })
        })
        .await
}

async fn race(engine: &Arc<Engine>, number: usize) -> Result<Races, String> {
    let id = start(engine, "bench/race").await?;
    tokio::time::sleep(Duration::from_micros((number % RACE_STAGES) as u64 * 100)).await;
    let answer = match engine.cancel(order(id)).await {
        Ok(answer) => answer,
        Err(CancelError::AlreadyEnded { .. }) => return Ok(Races { too_late: 1, ..Races::default() }),
        Err(error) => return Err(error.to_string()),
    };
    let quiesced = engine.wait(id, WaitFor::Quiesced, EXECUTION_MS_MAX).await.map_err(|error| error.to_string())?;
    if quiesced.is_none_or(|head| head.quiesced_at.is_none()) {
        return Err(format!("execution {id} has not quiesced"));
    }
    let query = EventQuery { execution_id: Some(id), limit: 1_000, ..EventQuery::default() };
    let (log, _) = engine.store().events(query).await.map_err(|error| error.to_string())?;
    let after = log.iter().skip_while(|recorded| !matches!(recorded.event, Event::ExecutionCancelled(_)));
    let held = |command_id| answer.in_flight.iter().any(|held| held.command_id == command_id);
    // Nothing is handed out any more, and what starts was held.
    let handed_out = |event: &Event| {
        matches!(event, Event::CommandIssued(_) | Event::CommandClaimed { .. } | Event::StepEnter { .. })
    };
    let escaped = after.filter(|recorded| {
        let event = &recorded.event;
        match event {
            Event::CommandStarted { command_id, .. } => !held(*command_id),
            Event::CommandDone(done) => !held(done.command_id),
            other => handed_out(other),
        }
    });
    let escaped = escaped.count() as u64;
    Ok(Races { cancelled: 1, too_late: 0, in_flight: answer.in_flight.len() as u64, escaped })
}

/// Waits for the end of a job; returns how many it has cancelled.
async fn done(engine: &Engine, job: noetl_core::id::CancellationId) -> Result<u64, String> {
    let deadline = Instant::now() + Duration::from_millis(LARGE_MS_MAX);
    loop {
        match engine.job(job).await.map_err(|error| error.to_string())? {
            Some((row, _)) if row.done_at.is_some() => return Ok(row.cancelled),
            Some(_) if Instant::now() < deadline => tokio::time::sleep(super::LOOK_AGAIN).await,
            Some(_) | None => return Err(format!("job {job} does not end")),
        }
    }
}

async fn one_run(engine: &Arc<Engine>) -> Result<Duration, String> {
    let began = Instant::now();
    let id = start(engine, "bench/brief").await?;
    let head = engine.wait(id, WaitFor::Terminal, EXECUTION_MS_MAX).await.map_err(|error| error.to_string())?;
    match head.map(|head| head.status) {
        Some(Status::Completed) => Ok(began.elapsed()),
        other => Err(format!("execution {id} is {other:?}, not completed")),
    }
}
