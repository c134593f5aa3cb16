//! Claims written apart from what issued the command: the append, and the matcher that makes them.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use noetl_core::append::{Append, Guard, HeadChange, NewEvent, Verdict};
use noetl_core::event::Event;
use noetl_core::head::{CommandRow, Holder};
use noetl_core::id::{EventId, ExecutionId};
use noetl_core::time::Timestamp;
use noetl_core::turns::Turns;
use noetl_core::work::Assignment;
use noetl_store::StoreError;
use tokio::time::Duration;

use crate::engine::Engine;
use crate::landing::{Fold, Landing, Whose};

/// Claims made in one round at most.
const ROUND_MAX: u32 = 256;
/// Candidates read beyond those that there are slots for, to know who else waits.
const LOOK_AHEAD: u32 = 16;
/// How far behind the first candidate a server begins after it lost most of its claims to others, at most.
const SKIP_MAX: u64 = 256;

/// Returns the append that gives `row` to `holder`.
pub(crate) fn append(
    engine: &Engine,
    row: &CommandRow,
    holder: Holder,
    assignment: Assignment,
    now: Timestamp,
) -> (Append, Landing) {
    let mut events = Vec::with_capacity(2);
    let mut head = HeadChange::default();
    if row.enters {
        head.steps_entered = 1;
        head.current_step = Some(Arc::clone(&row.step));
        events.push(Event::StepEnter { step: Arc::clone(&row.step), visit: row.visit, kind: Arc::clone(&row.kind) });
    }
    events.push(Event::CommandClaimed {
        command_id: row.command_id,
        epoch: row.epoch,
        step: Arc::clone(&row.step),
        session_id: holder.session_id,
        worker_id: Arc::clone(&holder.worker_id),
    });
    let session_id = holder.session_id;
    let append = Append {
        execution_id: row.execution_id,
        guard: Guard::Claim { command_id: row.command_id, epoch: row.epoch, holder },
        at: now,
        events: events.into_iter().map(|event| NewEvent { event_id: EventId(engine.next_id(now)), event }).collect(),
        head,
        commands: Vec::new(),
        due: Vec::new(),
        children: Vec::new(),
        results: Vec::new(),
        snapshot: None,
    };
    let whose =
        Whose { catalog_id: assignment.catalog_id, path: Arc::clone(&assignment.path), version: assignment.version };
    let landing = Landing::of(&append, &whose, Fold::Blind).claiming(session_id, assignment);
    (append, landing)
}

/// Finds workers for pending commands until it is dropped.
pub(crate) async fn run(engine: &Engine) {
    let mut skip = 0;
    let mut turns = Turns::default();
    loop {
        // The hint may be lost, and other servers issue commands too.
        tokio::select! {
            biased;
            () = engine.desk.work.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(engine.options.sweep_ms)) => {}
        }
        loop {
            match round(engine, &mut turns, &mut skip).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    engine.metrics.store_errors.add_one();
                    tracing::warn!(%error, "pending commands can not be read; trying again");
                    tokio::time::sleep(Duration::from_millis(engine.options.sweep_ms)).await;
                    break;
                }
            }
        }
    }
}

/// One look at the pending commands; returns whether there is reason for another one at once.
async fn round(engine: &Engine, turns: &mut Turns, skip: &mut u64) -> Result<bool, StoreError> {
    let (pools, slots) = engine.desk.hungry();
    if slots == 0 {
        return Ok(false);
    }
    let limit = slots.min(ROUND_MAX);
    // Cleared before the read: what is issued after it sets it again.
    engine.desk.look_begins();
    let mut rows = engine.store.candidates(&pools, turns, *skip, u64::from(limit + LOOK_AHEAD)).await?;
    if rows.is_empty() {
        let skipped = *skip > 0;
        *skip = 0;
        if skipped {
            engine.desk.set_backlog();
        }
        return Ok(skipped);
    }
    let behind = rows.split_off(rows.len().min(limit as usize));
    let full = !behind.is_empty();
    let mut promise = engine.desk.promise(u32::try_from(rows.len()).unwrap_or(limit));
    let now = engine.now().await?;
    let mut waiting: BTreeSet<ExecutionId> = behind.iter().map(|row| row.execution_id).collect();
    let mut claims = Vec::with_capacity(rows.len());
    let mut unplaced = false;
    for row in &rows {
        let Some((mut holder, slot)) = promise.take_for(&row.pool) else {
            unplaced = true;
            waiting.insert(row.execution_id);
            continue;
        };
        holder.claimed_at = now;
        // Whoever wins the claim: it is served.
        turns.served(&row.pool, row.priority, row.execution_id, now);
        // An execution that has vanished (pruned) has no commands either, by the next look.
        let Some(whose) = engine.whose(row.execution_id).await? else { continue };
        let (append, landing) = append(engine, row, holder, whose.assignment(row), now);
        claims.push(engine.batcher.append(append, landing.with(slot)));
    }
    drop(promise);
    engine.desk.others_wait(waiting);
    let (mut won, mut lost) = (0_u64, 0_u64);
    for (verdict, _) in join_all(claims).await {
        match verdict? {
            Verdict::Landed { .. } => won += 1,
            // Another server was faster, or a cancel was: both normal.
            Verdict::Conflict | Verdict::Refused(_) | Verdict::Busy => lost += 1,
        }
    }
    engine.metrics.claimed_apart.add(won);
    engine.metrics.claims_lost.add(lost);
    // Several servers that all begin with the oldest command would lose most claims to each other.
    *skip = if lost > won { (*skip + 7 + u64::from(engine.options.node) * 13) % SKIP_MAX } else { 0 };
    if full || unplaced || lost > 0 {
        engine.desk.set_backlog();
    }
    Ok(won + lost > 0 && (full || lost > 0))
}
