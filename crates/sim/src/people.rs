//! People: they start executions and cancel some, and keep the answers they got.

use std::collections::BTreeSet;
use std::time::Duration;

use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_core::labels::Labels;
use noetl_core::playbook::CancelMode;
use noetl_engine::{
    CancelAnswer, CancelError, CancelRequest, Change, CompleteRequest, PauseError, PauseRequest, StartRequest,
    StopRequest,
};
use noetl_store::catalog::ResourceKey;
use serde_json::Map;
use tokio::time::Instant;

use crate::chance::Chance;
use crate::flaky::{Servers, some_server};
use crate::scenario::Scenario;

/// Who people say they are.
pub(crate) const BY: &str = "sim";

/// An answer that somebody got.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) answer: CancelAnswer,
    pub(crate) cascade: bool,
    pub(crate) at: Instant,
}

/// What people remember.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) started: BTreeSet<ExecutionId>,
    pub(crate) answers: Vec<Answered>,
    /// What somebody wanted cancelled, and whether with everything below it; answered or not.
    pub(crate) asked: Vec<(ExecutionId, bool)>,
}

/// Starts executions and cancels some of them, for as long as the scenario says.
pub(crate) async fn live(scenario: Scenario, servers: Servers, chance: Chance) -> Memory {
    let mut memory = Memory::default();
    let mut starts = scenario.starts;
    let end = Instant::now() + Duration::from_millis(scenario.busy_ms);
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(chance.between(1, 400))).await;
        let Some(engine) = some_server(&servers, &chance) else { continue };
        if starts > 0 && chance.per_mille(600) {
            starts -= 1;
            let Some((path, _)) = chance.pick(Scenario::PLAYBOOKS) else { continue };
            let request = StartRequest {
                target: ResourceKey::Latest((*path).into()),
                payload: Map::new(),
                parent_execution_id: None,
                started_by: Some(BY.to_owned()),
                strict: chance.per_mille(100),
                labels: Labels::new(),
                idempotency_key: None,
            };
            // An answer that got lost leaves an execution that nobody here knows: the store knows it.
            if let Ok(started) = engine.start(request).await {
                memory.started.insert(started.execution_id);
            }
        } else if chance.per_mille(scenario.cancels) {
            cancel(&engine, &servers, &chance, &mut memory).await;
        } else if chance.per_mille(400) {
            stop_step(&engine, &chance).await;
        } else if chance.per_mille(600) {
            pause(&engine, &chance).await;
        }
    }
    memory
}

/// Stops one step of anybody's execution, or one iteration of it, or completes its loop. Whether that comes in time is left to chance.
async fn stop_step(engine: &std::sync::Arc<noetl_engine::Engine>, chance: &Chance) {
    let query = noetl_store::ListQuery { status: vec![Status::Running], limit: 200, ..Default::default() };
    let Ok(known) = engine.store().executions(query).await else { return };
    let Some(head) = chance.pick(&known) else { return };
    let Ok(Some(view)) = engine.store().view(head.execution_id).await else { return };
    let Some(row) = chance.pick(&view.commands) else { return };
    if row.iteration.is_some() && chance.per_mille(300) {
        let request = CompleteRequest {
            execution_id: head.execution_id,
            step: row.step.to_string(),
            mode: chance.pick(&[None, Some(CancelMode::Finish), Some(CancelMode::Interrupt)]).copied().flatten(),
            reason: None,
            grace_ms: None,
            by: "sim".to_owned(),
            idempotency_key: None,
        };
        drop(engine.complete_loop(&request).await);
        return;
    }
    let request = StopRequest {
        execution_id: head.execution_id,
        step: row.step.to_string(),
        iteration: if chance.per_mille(500) { row.iteration } else { None },
        reason: None,
        grace_ms: chance.per_mille(300).then(|| chance.between(0, 3_000)),
        by: BY.to_owned(),
        idempotency_key: None,
    };
    // Ended, over, or the store was away: people try once.
    drop(engine.stop_step(&request).await);
}

/// Pauses anybody's execution, or lets it go on.
async fn pause(engine: &std::sync::Arc<noetl_engine::Engine>, chance: &Chance) {
    let query = noetl_store::ListQuery { status: vec![Status::Running], limit: 200, ..Default::default() };
    let Ok(known) = engine.store().executions(query).await else { return };
    let Some(head) = chance.pick(&known) else { return };
    let request = PauseRequest {
        execution_id: head.execution_id,
        change: if chance.per_mille(600) { Change::Pause } else { Change::Resume },
        reason: None,
        cascade: chance.per_mille(400),
        by: "sim".to_owned(),
        requested_by: None,
    };
    // Ended in between, or the store was away: people try once.
    drop(engine.pause(&request).await);
}

/// Lets everything go on, so that the world can come to rest.
pub(crate) async fn resume_all(engine: &std::sync::Arc<noetl_engine::Engine>) -> Result<(), noetl_store::StoreError> {
    let query = noetl_store::ListQuery { status: vec![Status::Running], limit: 10_000, ..Default::default() };
    for head in engine.store().executions(query).await?.into_iter().filter(|head| head.pause.is_some()) {
        let request = PauseRequest {
            execution_id: head.execution_id,
            change: Change::Resume,
            reason: None,
            cascade: false,
            by: "sim".to_owned(),
            requested_by: None,
        };
        match engine.pause(&request).await {
            Ok(_) | Err(PauseError::Unknown(_) | PauseError::AlreadyEnded { .. }) => {}
            Err(PauseError::Store(error)) => return Err(error),
        }
    }
    Ok(())
}

async fn cancel(
    engine: &std::sync::Arc<noetl_engine::Engine>,
    servers: &Servers,
    chance: &Chance,
    memory: &mut Memory,
) {
    // Anybody's execution, children included.
    let query = noetl_store::ListQuery { limit: 200, ..Default::default() };
    let Ok(known) = engine.store().executions(query).await else { return };
    let Some(head) = chance.pick(&known) else { return };
    let cascade = chance.per_mille(500);
    let request = CancelRequest {
        execution_id: head.execution_id,
        reason: Some("the simulated person did not like it".to_owned()),
        cascade,
        mode: if chance.per_mille(300) { Some(CancelMode::Interrupt) } else { None },
        grace_ms: chance.per_mille(300).then(|| chance.between(0, 3_000)),
        wait_ms: 0,
        wait_for_cleanup: false,
        dry_run: false,
        cancelled_by: BY.to_owned(),
        requested_by: None,
        remote: None,
        idempotency_key: chance.per_mille(500).then(|| format!("key-{}", chance.below(1_000_000))),
    };
    memory.asked.push((request.execution_id, cascade));
    let keyed = request.idempotency_key.is_some();
    let mut tries = 0;
    loop {
        tries += 1;
        let server = if tries == 1 { Some(engine.clone()) } else { some_server(servers, chance) };
        let Some(server) = server else { return };
        match server.cancel(request.clone()).await {
            Ok(answer) => {
                return memory.answers.push(Answered { answer, cascade, at: Instant::now() });
            }
            Err(CancelError::Unknown(_) | CancelError::AlreadyEnded { .. }) => return,
            // With a key it is safe to ask again: the first answer comes again.
            Err(CancelError::Store(_)) if keyed && tries < 5 => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(CancelError::Store(_)) => return,
        }
    }
}
