//! Stopping a step, or one iteration of its loop, while its execution goes on.

use std::sync::{Arc, Mutex};

use noetl_core::control::cancel::{self, InFlight};
use noetl_core::control::stop::{self, Answer};
use noetl_core::event::{StopCause, Wait};
use noetl_core::execution::{CompleteLoop, Input};
use noetl_core::head::{CommandRow, CommandState, Head, HeadView, StopWish};
use noetl_core::id::{CommandId, ExecutionId};
use noetl_core::playbook::CancelMode;
use noetl_store::StoreError;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::hold;
use crate::landing::Landing;
use crate::transport::Attempt;

/// Who a child says cancelled it when its parent's step was stopped.
pub(crate) const BY_PARENT: &str = "parent";

/// Who wants which step stopped.
#[derive(Debug, Clone)]
pub struct StopRequest {
    /// Which execution.
    pub execution_id: ExecutionId,
    /// Which step.
    pub step: String,
    /// Which iteration of its loop, from 0; `None` = all that have begun.
    pub iteration: Option<u32>,
    /// Free text.
    pub reason: Option<String>,
    /// Between the polite stop and the kill, in milliseconds.
    pub grace_ms: Option<u64>,
    /// The authenticated identity, else `api`, `cli`.
    pub by: String,
    /// A repeat with the same key gets the first answer.
    pub idempotency_key: Option<String>,
}

/// Who wants the loops of a step to end with the results there are.
#[derive(Debug, Clone)]
pub struct CompleteRequest {
    /// Which execution.
    pub execution_id: ExecutionId,
    /// Which step.
    pub step: String,
    /// `finish` waits for the iterations that run, `interrupt` withdraws them; `None` = as the loop says.
    pub mode: Option<CancelMode>,
    /// Free text.
    pub reason: Option<String>,
    /// Between the polite stop and the kill, in milliseconds.
    pub grace_ms: Option<u64>,
    /// The authenticated identity, else `api`, `cli`.
    pub by: String,
    /// A repeat with the same key gets the first answer.
    pub idempotency_key: Option<String>,
}

/// What was stopped, or runs to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stopped {
    /// `interrupt`: what workers hold was told to stop; `finish`: it runs to its end and counts.
    pub mode: CancelMode,
    /// Commands that workers hold.
    pub in_flight: Vec<InFlight>,
    /// Commands that ran nowhere and are over.
    pub withdrawn: Vec<CommandId>,
    /// Nothing of what the request is about runs or goes on.
    pub quiesced: bool,
}

/// Why nothing was stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// 404.
    #[error("Execution {0} not found")]
    Unknown(ExecutionId),
    /// 409.
    #[error("Execution {} is already {}", head.execution_id, head.status.as_str())]
    AlreadyEnded {
        /// As it stands.
        head: Box<Head>,
    },
    /// 409.
    #[error("step `{step}` of execution {execution_id} has nothing to stop: no command of it runs or waits")]
    NotRunning {
        /// Whose.
        execution_id: ExecutionId,
        /// Which, with its iteration when one was named.
        step: String,
    },
    /// 409.
    #[error("step `{step}` of execution {execution_id} has no loop that could be completed: none of it runs")]
    NoLoop {
        /// Whose.
        execution_id: ExecutionId,
        /// Which.
        step: String,
    },
    /// 503 or 507.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Stops what a step has begun. Its outcome is an error of kind `cancelled` that policies and arcs may handle.
    pub async fn stop_step(&self, request: &StopRequest) -> Result<Stopped, StopError> {
        let key = request.idempotency_key.as_ref().map(|key| format!("stop/{}/{key}", request.execution_id));
        self.once(key, self.stop_step_now(request)).await
    }

    /// Ends the loops of a step with the results there are: a success, unlike a stop.
    pub async fn complete_loop(&self, request: &CompleteRequest) -> Result<Stopped, StopError> {
        let key = request.idempotency_key.as_ref().map(|key| format!("complete/{}/{key}", request.execution_id));
        self.once(key, self.complete_loop_now(request)).await
    }

    async fn stop_step_now(&self, request: &StopRequest) -> Result<Stopped, StopError> {
        let execution_id = request.execution_id;
        let Some(view) = self.store.view(execution_id).await? else { return Err(StopError::Unknown(execution_id)) };
        if !view.head.is_active() {
            return Err(StopError::AlreadyEnded { head: Box::new(view.head) });
        }
        let reason = match &request.reason {
            Some(reason) => format!("cancelled by {}: {reason}", request.by),
            None => format!("cancelled by {}", request.by),
        };
        let wish = StopWish { cause: StopCause::Cancelled, reason, by: request.by.clone() };
        let (mut in_flight, mut withdrawn) = (Vec::new(), Vec::new());
        for row in view.commands.iter().filter(|row| wanted(row, request)) {
            self.stop_child(row, &wish).await?;
            match self.stop_command(execution_id, row.command_id, Some(wish.clone()), request.grace_ms).await? {
                Some(Ordered::Held(held)) => in_flight.push(*held),
                Some(Ordered::Withdrawn) => withdrawn.push(row.command_id),
                // It ended by itself in between.
                None => {}
            }
        }
        if in_flight.is_empty() && withdrawn.is_empty() {
            let step = match request.iteration {
                Some(iteration) => format!("{}[{iteration}]", request.step),
                None => request.step.clone(),
            };
            return Err(StopError::NotRunning { execution_id, step });
        }
        let quiesced = in_flight.is_empty();
        Ok(Stopped { mode: CancelMode::Interrupt, in_flight, withdrawn, quiesced })
    }

    async fn complete_loop_now(&self, request: &CompleteRequest) -> Result<Stopped, StopError> {
        let execution_id = request.execution_id;
        let Some(view) = self.store.view(execution_id).await? else { return Err(StopError::Unknown(execution_id)) };
        let playbook = self.compiled(view.head.catalog_id).await?;
        let looping = playbook.find(&request.step).and_then(|ix| playbook.step(ix).looping.as_ref());
        let mode = request.mode.or(looping.map(|looping| looping.on_complete));
        let wish = CompleteLoop {
            step: Arc::from(request.step.as_str()),
            mode,
            by: request.by.clone(),
            reason: request.reason.clone(),
        };
        if !self.decide_now(execution_id, Input::CompleteLoop(Box::new(wish))).await? {
            // It has ended, or its loop was done before the wish came.
            let Some(head) = self.store.head(execution_id).await? else { return Err(StopError::Unknown(execution_id)) };
            return Err(match head.is_active() {
                false => StopError::AlreadyEnded { head: Box::new(head) },
                true => StopError::NoLoop { execution_id, step: request.step.clone() },
            });
        }
        let of_step = |row: &&CommandRow| is_live(row) && *row.step == *request.step;
        let (mut in_flight, mut withdrawn) = (Vec::new(), Vec::new());
        match mode.unwrap_or(CancelMode::Interrupt) {
            CancelMode::Interrupt => {
                // The orders are obligations already; given here they come sooner, and with the grace of the request.
                for row in view.commands.iter().filter(of_step) {
                    match self.stop_command(execution_id, row.command_id, None, request.grace_ms).await? {
                        Some(Ordered::Held(held)) => in_flight.push(*held),
                        Some(Ordered::Withdrawn) => withdrawn.push(row.command_id),
                        None if row.state == CommandState::Suspended => withdrawn.push(row.command_id),
                        // It ended by itself in between.
                        None => {}
                    }
                }
                let quiesced = in_flight.is_empty();
                Ok(Stopped { mode: CancelMode::Interrupt, in_flight, withdrawn, quiesced })
            }
            CancelMode::Finish => {
                // As it stands behind the decision: what has begun runs to its end and counts.
                let Some(view) = self.store.view(execution_id).await? else {
                    return Err(StopError::Unknown(execution_id));
                };
                let quiesced = !view.commands.iter().any(|row| of_step(&row));
                in_flight.extend(cancel::in_flight(&view).into_iter().filter(|held| *held.step == *request.step));
                Ok(Stopped { mode: CancelMode::Finish, in_flight, withdrawn, quiesced })
            }
        }
    }

    /// The time limit of a step has passed for one of its commands.
    pub(crate) async fn time_out_step(
        &self,
        execution_id: ExecutionId,
        command_id: CommandId,
    ) -> Result<(), StoreError> {
        let Some(view) = self.store.view(execution_id).await? else { return Ok(()) };
        let wish = StopWish {
            cause: StopCause::Timeout,
            reason: "the step took longer than its limit (spec.timeout)".to_owned(),
            by: cancel::BY_TIMEOUT.to_owned(),
        };
        for row in view.commands.iter().filter(|row| row.command_id == command_id) {
            self.stop_child(row, &wish).await?;
        }
        self.stop_command(execution_id, command_id, Some(wish), None).await.map(drop)
    }

    /// Looks again at a command that was ordered to stop.
    pub(crate) async fn stop_again(&self, execution_id: ExecutionId, command_id: CommandId) -> Result<(), StoreError> {
        self.stop_command(execution_id, command_id, None, None).await.map(drop)
    }

    async fn stop_command(
        &self,
        execution_id: ExecutionId,
        command_id: CommandId,
        wish: Option<StopWish>,
        grace_ms: Option<u64>,
    ) -> Result<Option<Ordered>, StoreError> {
        type Seen = Option<(Ordered, Option<(Attempt, u64)>)>;
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let out = Arc::clone(&seen);
        self.under_lock_with(execution_id, None, move |locked, ids| {
            let (append, ordered) = match stop::decide(&locked.view, command_id, wish.as_ref(), locked.now, ids) {
                Answer::Withdrawn(append) => (append, Some((Ordered::Withdrawn, None))),
                Answer::Ordered { append, row } => {
                    let grace_ms = grace_ms.unwrap_or_else(|| cancel::grace_ms(&locked.view.head, &row));
                    let attempt = Attempt { command_id, epoch: row.epoch };
                    (append, held(&locked.view, &row).map(|held| (held, Some((attempt, grace_ms)))))
                }
                Answer::Over(append) => (append, None),
                Answer::Ended => return None,
            };
            *hold(&out) = ordered;
            let landing = Landing::of_control(&append, &locked.view.head);
            Some((*append, landing))
        })
        .await?
        .wrote()?;
        let Some((ordered, order)) = hold(&seen).take() else { return Ok(None) };
        if let Some((attempt, grace_ms)) = order
            && self.desk.cancel(attempt, CancelMode::Interrupt, grace_ms)
        {
            self.metrics.cancel_orders.add_one();
        }
        Ok(Some(ordered))
    }

    /// A step that waits for a child does not leave it behind: the child is cancelled with its descendants, unless it
    /// is shielded.
    ///
    /// Recorded before the step is stopped; the sweep drives it.
    async fn stop_child(&self, row: &CommandRow, wish: &StopWish) -> Result<(), StoreError> {
        match (row.state, &row.wait) {
            (CommandState::Suspended, Some(Wait::Child { execution_id, .. })) => {
                if self.store.head(*execution_id).await?.is_some_and(|child| child.shield.is_some()) {
                    return Ok(());
                }
                let reason = format!("step `{}` of its parent was stopped: {}", row.step, wish.reason);
                self.begin_cascade(*execution_id, reason, BY_PARENT).await.map(drop)
            }
            (CommandState::Suspended, Some(Wait::Until(_)) | None)
            | (CommandState::Pending | CommandState::Paused | CommandState::Claimed | CommandState::Lost, _) => Ok(()),
        }
    }
}

/// What became of one command.
enum Ordered {
    Held(Box<InFlight>),
    Withdrawn,
}

fn held(view: &HeadView, row: &CommandRow) -> Option<Ordered> {
    let all = cancel::in_flight(view);
    let of = all.into_iter().find(|held| (held.command_id, held.epoch) == (row.command_id, row.epoch));
    of.map(Box::new).map(Ordered::Held)
}

fn wanted(row: &CommandRow, request: &StopRequest) -> bool {
    is_live(row) && *row.step == *request.step && (request.iteration.is_none() || row.iteration == request.iteration)
}

fn is_live(row: &CommandRow) -> bool {
    match row.state {
        CommandState::Pending | CommandState::Paused | CommandState::Claimed | CommandState::Suspended => true,
        CommandState::Lost => false,
    }
}
