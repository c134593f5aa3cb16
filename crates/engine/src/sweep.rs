//! The sweep: looks into the tables for what has to happen, whoever wrote it there.
//!
//! Everything it finds is usually seen to already, by a hint. Hints may be lost; the tables are the truth.

use std::sync::Arc;

use noetl_core::append::{Due, DueKind};
use noetl_core::control::cancel;
use noetl_core::execution::Input;
use noetl_core::head::{CommandState, HeadView};
use noetl_core::id::{CommandId, ExecutionId, SessionId};
use noetl_core::playbook::CancelMode;
use noetl_store::{Cancellation, ListQuery, StoreError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use crate::cascade::Driving;
use crate::engine::Engine;
use crate::landing::child_outcome;
use crate::mailbox::Letter;
use crate::schedule::Ticks;
use crate::transport::Attempt;

/// Obligations, sessions, executions read at a time.
const LOOK_MAX: u64 = 1000;
/// How soon after a hint everything is looked at, in milliseconds.
const HINTED_MS: u64 = 5;

/// Sweeps until it is dropped.
pub(crate) async fn run(engine: Arc<Engine>) {
    let mut cascades = Cascades::default();
    let mut ticks = Ticks::default();
    let mut regular = Instant::now();
    let mut hints = engine.store.hints();
    loop {
        let swept = if Instant::now() >= regular {
            regular = Instant::now() + Duration::from_millis(engine.options.sweep_ms);
            everything(&engine, &mut cascades, &mut ticks).await
        } else {
            due(&engine, &mut cascades).await
        };
        if let Err(error) = swept {
            engine.metrics.store_errors.add_one();
            tracing::warn!(%error, "the store can not be swept; trying again");
        }
        tokio::select! {
            biased;
            () = engine.alarms.next(regular) => {}
            // Another server wrote something: soon is now. Hints come in crowds, so not at once.
            () = hinted(&mut hints) => {
                regular = regular.min(Instant::now() + Duration::from_millis(HINTED_MS));
                engine.desk.work.notify_one();
                engine.alarms.next(regular).await;
            }
        }
    }
}

/// Waits until another server says that it wrote something others may want to look at.
async fn hinted(hints: &mut Option<watch::Receiver<u64>>) {
    if let Some(receiver) = hints
        && receiver.changed().await.is_ok()
    {
        return;
    }
    // Nobody else writes, or the store has been closed.
    *hints = None;
    std::future::pending::<()>().await;
}

async fn everything(engine: &Arc<Engine>, cascades: &mut Cascades, ticks: &mut Ticks) -> Result<(), StoreError> {
    // First of all, because everything else may take its time: an order to stop is to reach its worker soon.
    let unquiesced = engine.store.unquiesced(LOOK_MAX).await?;
    for view in &unquiesced {
        engine.order_cancels(view);
    }
    due(engine, cascades).await?;
    silent_workers(engine).await?;
    count_unquiesced(engine, &unquiesced).await?;
    cascades.resume(engine).await?;
    ticks.look(engine);
    engine.desk.forget_silent(Duration::from_millis(engine.options.lease_ms.saturating_mul(2)));
    Ok(())
}

/// Notes how many have ended and still run somewhere, and for how long.
async fn count_unquiesced(engine: &Engine, unquiesced: &[HeadView]) -> Result<(), StoreError> {
    let mut count = unquiesced.len() as u64;
    if count >= LOOK_MAX {
        let all = ListQuery { unquiesced: true, limit: u64::MAX, ..ListQuery::default() };
        count = engine.store.count_executions(all).await?;
    }
    let oldest = unquiesced.iter().filter_map(|view| view.head.ended_at).min();
    let age_ms = match oldest {
        Some(ended_at) => engine.now().await?.since_ms(ended_at),
        None => 0,
    };
    engine.metrics.unquiesced.set(count);
    engine.metrics.oldest_unquiesced_ms.set(age_ms);
    Ok(())
}

/// Obligations whose time has come.
async fn due(engine: &Arc<Engine>, cascades: &mut Cascades) -> Result<(), StoreError> {
    let (now, found) = engine.store.due(LOOK_MAX).await?;
    engine.clock.note(now);
    let mut moot = Vec::new();
    for due in found {
        if engine.executions.has_ended(due.execution_id) {
            moot.push(due);
            continue;
        }
        let input = match due.kind {
            DueKind::Continue => Input::Continue,
            DueKind::Timer => Input::Timer(CommandId(due.key)),
            DueKind::ChildDone => match child_ended(engine, &due).await? {
                Some(input) => input,
                None => continue,
            },
            DueKind::Timeout => {
                if let Some((cancellation, driving)) = engine.time_out(&due).await? {
                    cascades.go_on_with(engine, cancellation, driving);
                }
                moot.push(due);
                continue;
            }
            DueKind::Displaced => {
                if let Some((cancellation, driving)) = engine.displace(&due).await? {
                    cascades.go_on_with(engine, cancellation, driving);
                }
                moot.push(due);
                continue;
            }
            // The decision clears or renews the obligation; on an execution that has ended it is deleted here.
            DueKind::StepTimeout => {
                engine.time_out_step(due.execution_id, CommandId(due.key)).await?;
                moot.push(due);
                continue;
            }
            DueKind::CancelChild => {
                if let Some((cancellation, driving)) = engine.cancel_left_child(&due).await? {
                    cascades.go_on_with(engine, cancellation, driving);
                }
                moot.push(due);
                continue;
            }
            DueKind::GraceEnd => {
                engine.stop_again(due.execution_id, CommandId(due.key)).await?;
                moot.push(due);
                continue;
            }
        };
        engine.mailboxes.post(due.execution_id, Letter { due: Some(due), ..Letter::of(input) });
    }
    if moot.is_empty() { Ok(()) } else { engine.store.forget_due(moot).await }
}

async fn child_ended(engine: &Engine, due: &Due) -> Result<Option<Input>, StoreError> {
    let Some(command_id) = due.command else { return Ok(None) };
    let child = ExecutionId(due.key);
    let Some(terminal) = engine.store.terminal_event(child).await? else { return Ok(None) };
    let outcome = child_outcome(child, &terminal.event);
    Ok(outcome.map(|outcome| Input::ChildEnded(command_id, Box::new(outcome))))
}

/// Workers whose lease has run out: what they hold is lost, and after a long silence forgotten.
async fn silent_workers(engine: &Engine) -> Result<(), StoreError> {
    let expired = engine.store.expired_sessions(LOOK_MAX).await?;
    if expired.is_empty() {
        return Ok(());
    }
    let now = engine.store.now().await?;
    for session in expired {
        let SessionId(id) = session.session_id;
        let rows = engine.store.held(session.session_id).await?;
        if rows.iter().any(|row| row.state == CommandState::Claimed) {
            tracing::warn!(session = id, worker = %session.worker_id, "a worker fell silent; its commands are lost");
            engine.desk.dismiss(session.session_id);
            engine.lose_session(session.session_id).await?;
        }
        let lost = rows.iter().any(|row| row.state == CommandState::Lost);
        if lost && now.since_ms(session.lease_until) >= engine.options.session_forget_ms {
            engine.forget_session(session.session_id).await?;
        }
    }
    Ok(())
}

impl Engine {
    /// Orders the end of what workers that speak to this server hold of an execution that has ended.
    pub(crate) fn order_cancels(&self, view: &HeadView) {
        if view.head.is_active() {
            return;
        }
        for row in view.commands.iter().filter(|row| row.state == CommandState::Claimed) {
            let mode = view.head.cancel.as_ref().map_or(CancelMode::Finish, |cancel| cancel.mode);
            let attempt = Attempt { command_id: row.command_id, epoch: row.epoch };
            if self.desk.cancel(attempt, mode, cancel::grace_ms(&view.head, row)) {
                self.metrics.cancel_orders.add_one();
            }
        }
    }
}

/// Cascades and jobs that this server has taken over.
#[derive(Debug, Default)]
struct Cascades {
    running: JoinSet<()>,
}

impl Cascades {
    async fn resume(&mut self, engine: &Arc<Engine>) -> Result<(), StoreError> {
        while self.running.try_join_next().is_some() {}
        let left = engine.cascades.left();
        let open = engine.store.open_cancellations().await?;
        let cascades = open.iter().filter(|job| job.selection.is_none()).count() as u64;
        engine.metrics.open_cascades.set(cascades);
        engine.metrics.open_selections.set(open.len() as u64 - cascades);
        if open.is_empty() {
            return Ok(());
        }
        let now = engine.store.now().await?;
        for job in open {
            let id = job.cancellation_id;
            // A request of this server is at it. Claimed here once more whenever that is slow, it would be kept from
            // others for as long, and nobody would go on with it.
            if engine.cascades.drives(id) {
                continue;
            }
            // Left here: it is driven on here. Else it is whoever's until its driver has been silent for so long; of
            // several who find it so one gets it.
            let silent = || job.claimed_until.is_none_or(|until| until < now);
            let mine = left.contains(&id) || (silent() && engine.store.claim_cancellation(id).await?);
            if mine && let Some(driving) = engine.cascades.drive(id) {
                self.go_on_with(engine, job, driving);
            }
        }
        Ok(())
    }

    fn go_on_with(&mut self, engine: &Arc<Engine>, job: Cancellation, driving: Driving) {
        let engine = Arc::clone(engine);
        self.running.spawn(async move {
            if let Err(error) = engine.finish_job(&job, driving).await {
                engine.metrics.store_errors.add_one();
                tracing::warn!(%error, job = %job.cancellation_id, "a job stopped; it is resumed");
            }
        });
    }
}
