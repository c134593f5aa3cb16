//! The only write: what one decision changes, for one execution, atomically.
//!
//! A decision never fixes versions or counters that others may move; the store assigns them from the locked head.
//! What the store computes from an append is written here once, so that every store computes the same.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::concurrency::Admission;
use crate::event::{Ended, Event};
use crate::head::{CancelInfo, CommandRow, CommandState, FAILED_STEPS_MAX, Head, Holder, PauseInfo, Status};
use crate::id::{CommandId, EventId, ExecutionId};
use crate::result::LargeResult;
use crate::schedule::Tick;
use crate::time::Timestamp;

/// One atomic write to one execution.
#[derive(Debug, Clone, PartialEq)]
pub struct Append {
    /// Whose.
    pub execution_id: ExecutionId,
    /// What must hold for it to land.
    pub guard: Guard,
    /// When it was decided, by the store's clock.
    pub at: Timestamp,
    /// The facts, in order. The first one's id is the id of the append.
    pub events: Vec<NewEvent>,
    /// Changes to the head besides versions, `updated_at` and `in_flight`, which the store derives.
    pub head: HeadChange,
    /// Changes to the live commands.
    pub commands: Vec<CommandChange>,
    /// Obligations made or met.
    pub due: Vec<DueChange>,
    /// Children born in the same transaction; each has guard [`Guard::New`] and this execution as parent.
    pub children: Vec<Append>,
    /// Large results that the events refer to.
    pub results: Vec<LargeResult>,
    /// The folded state after this append, when it is time for one.
    pub snapshot: Option<Arc<Value>>,
}

/// A fact before it has a version.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Its id.
    pub event_id: EventId,
    /// The fact.
    pub event: Event,
}

/// What must hold for an append to land.
#[derive(Debug, Clone, PartialEq)]
pub enum Guard {
    /// The execution does not exist yet; its parent, if any, exists and is active. Carries the first head, with
    /// version and decided 0.
    New(Box<Head>),
    /// No other decision came in between and the execution is active.
    At(u64),
    /// The execution is active and the command is pending under this epoch. Appends `command.claimed` (behind the
    /// `step.enter` of a visit's first command) and does not count as a decision.
    Claim {
        /// Which.
        command_id: CommandId,
        /// Attempt.
        epoch: u32,
        /// Who gets it.
        holder: Holder,
    },
    /// The head is locked by the caller, who decided on what stands under the lock.
    Locked,
}

/// A change to the live commands. A deletion whose row is not there in the expected state is a conflict.
#[derive(Debug, Clone, PartialEq)]
pub enum CommandChange {
    /// A new row.
    Insert(Box<CommandRow>),
    /// The row goes.
    Delete {
        /// Which.
        command_id: CommandId,
        /// Attempt.
        epoch: u32,
        /// In which state it must be.
        expect: CommandState,
    },
    /// The tool is known to have started.
    Started {
        /// Which.
        command_id: CommandId,
        /// Attempt.
        epoch: u32,
    },
    /// Nobody waits for it any more, and nobody shall begin it: a pending row waits from now on and can not be
    /// claimed, one that a worker holds is not tried again when it is lost. The decision does not know which it is.
    Withdraw {
        /// Which.
        command_id: CommandId,
        /// Attempt.
        epoch: u32,
    },
}

/// Something that has to happen later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// Whose.
    pub execution_id: ExecutionId,
    /// What.
    pub kind: DueKind,
    /// Which of that kind: a command, an execution, or 0.
    pub key: i64,
    /// When.
    pub at: Timestamp,
    /// For [`DueKind::ChildDone`]: the command that waits, or waited.
    pub command: Option<CommandId>,
}

/// Kinds of obligation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DueKind {
    /// A suspended command's moment has come.
    Timer,
    /// A child ended; written for the parent by the child's terminal append. Key: the child, because a command may wait
    /// for one after the other, and the end of an earlier one that took too long must not take the place of a later one's.
    ChildDone,
    /// The head is runnable.
    Continue,
    /// A command was ordered to stop: whether it has is looked at again. Key: the command.
    GraceEnd,
    /// A time limit of the whole execution.
    Timeout,
    /// The time limit of a step, for one of its commands. Key: the command.
    StepTimeout,
    /// The step of its parent does not wait for it any more: it is to be cancelled with its descendants. Written
    /// for the child by its parent, without locking the child.
    CancelChild,
    /// Another execution takes its place: it is cancelled, with its descendants. Key: that execution.
    Displaced,
}

impl DueKind {
    /// Every kind.
    pub const ALL: [DueKind; 8] = [
        DueKind::Timer,
        DueKind::ChildDone,
        DueKind::Continue,
        DueKind::GraceEnd,
        DueKind::Timeout,
        DueKind::StepTimeout,
        DueKind::CancelChild,
        DueKind::Displaced,
    ];

    /// Returns whether it would begin something, so that it waits while its execution is paused. Time limits do not.
    pub fn waits_while_paused(self) -> bool {
        match self {
            DueKind::Timer | DueKind::ChildDone | DueKind::Continue => true,
            DueKind::GraceEnd | DueKind::Timeout | DueKind::StepTimeout | DueKind::CancelChild | DueKind::Displaced => {
                false
            }
        }
    }

    /// Returns the word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            DueKind::Timer => "timer",
            DueKind::ChildDone => "child_done",
            DueKind::Continue => "continue",
            DueKind::GraceEnd => "grace_end",
            DueKind::Timeout => "timeout",
            DueKind::StepTimeout => "step_timeout",
            DueKind::CancelChild => "cancel_child",
            DueKind::Displaced => "displaced",
        }
    }

    /// Returns the kind that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        DueKind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// An obligation made or met. Its own execution's, or (a child's end) its parent's, or (the end of the parent's wait)
/// its child's, without locking that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DueChange {
    /// Made; a second one with the same key replaces the first.
    Set(Due),
    /// Met, or moot.
    Clear {
        /// Whose.
        execution_id: ExecutionId,
        /// What.
        kind: DueKind,
        /// Which.
        key: i64,
    },
    /// The clock's own obligation: this start is a schedule's tick, and the schedule goes on to the next one. The
    /// start lands only while the schedule waits for this very tick, so each tick starts once.
    Tick(Tick),
    /// This start takes a concurrency key. It lands only while that still holds, so no two starts take the same place.
    Enter(Admission),
}

/// What changes in the head besides what the store derives. `None` and empty leave things as they are.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeadChange {
    /// New status; a terminal one sets `ended_at`.
    pub status: Option<Status>,
    /// Nothing runs any more; sets `quiesced_at`.
    pub quiesced: bool,
    /// New value of `runnable`.
    pub runnable: Option<bool>,
    /// The step entered last.
    pub current_step: Option<Arc<str>>,
    /// Added to `steps_entered`.
    pub steps_entered: u64,
    /// Added to `commands_issued`.
    pub commands_issued: u64,
    /// Added to `failed_steps`, each once.
    pub failed_steps: Vec<Arc<str>>,
    /// Why it failed.
    pub error: Option<Arc<Value>>,
    /// How it was cancelled, or the escalation of it.
    pub cancel: Option<CancelInfo>,
    /// That it is paused from now on, or not any more.
    pub pause: Option<Option<PauseInfo>>,
    /// Lines added to the certificate in the making.
    pub ended: Vec<Ended>,
}

/// What became of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is durable; the head stands at this version.
    Landed {
        /// Version of its last event.
        version: u64,
    },
    /// Somebody else decided in between: read, evolve, decide again.
    Conflict,
    /// It can never land as it is.
    Refused(RefusedBy),
    /// The head was held by another transaction; try again with the next batch.
    Busy,
}

/// Why an append can never land as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedBy {
    /// There is no such execution.
    Unknown,
    /// The execution is terminal.
    Ended,
    /// The command is not pending under that epoch.
    NotPending,
    /// The execution exists already.
    Exists,
    /// The parent does not exist.
    ParentUnknown,
    /// The parent is terminal.
    ParentEnded,
    /// The schedule does not wait for this tick (any more): another server has started it, or it is paused.
    TickTaken,
    /// Its concurrency key is taken, or not by those (any more) that it was decided on.
    KeyHeld,
}

impl Append {
    /// Returns the concurrency key that this start takes.
    pub fn admission(&self) -> Option<&Admission> {
        self.due.iter().find_map(|change| match change {
            DueChange::Enter(admission) => Some(admission),
            DueChange::Set(_) | DueChange::Clear { .. } | DueChange::Tick(_) => None,
        })
    }

    /// Returns by how much this append changes the number of attempts in flight.
    pub fn in_flight_delta(&self) -> i64 {
        let claim = match self.guard {
            Guard::Claim { .. } => 1,
            Guard::New(_) | Guard::At(_) | Guard::Locked => 0,
        };
        claim
            + self
                .commands
                .iter()
                .map(|change| match change {
                    CommandChange::Insert(row) => i64::from(row.state.in_flight()),
                    CommandChange::Delete { expect, .. } => -i64::from(expect.in_flight()),
                    CommandChange::Started { .. } | CommandChange::Withdraw { .. } => 0,
                })
                .sum::<i64>()
    }
}

impl Head {
    /// Returns whether anything may still start.
    pub fn is_active(&self) -> bool {
        !self.status.is_terminal()
    }

    /// Returns whether a cancel that named `requested` leaves this execution alone, and what is below it: it is
    /// shielded, and was not named itself. Every store asks this on its walk down a family.
    pub fn is_shielded_from(&self, requested: ExecutionId) -> bool {
        self.shield.is_some() && self.execution_id != requested
    }

    /// Applies `append` to the head it lands on. Every store calls this under its lock and writes what comes out.
    pub fn land(&mut self, append: &Append) {
        self.version += append.events.len() as u64;
        match append.guard {
            // A blind claim raises only the version: two counters, because claims that counted as decisions
            // starved every decision.
            Guard::Claim { .. } => {}
            Guard::New(_) | Guard::At(_) | Guard::Locked => self.decided = self.version,
        }
        let in_flight = i64::from(self.in_flight) + append.in_flight_delta();
        debug_assert!(in_flight >= 0, "more attempts settled than claimed in {}", self.execution_id);
        self.in_flight = u32::try_from(in_flight).unwrap_or(0);
        self.updated_at = self.updated_at.max(append.at);
        let change = &append.head;
        if let Some(status) = change.status {
            self.status = status;
            if status.is_terminal() {
                self.ended_at = Some(append.at);
                self.pause = None;
            }
        }
        if change.quiesced {
            self.quiesced_at = Some(append.at);
        }
        if let Some(runnable) = change.runnable {
            self.runnable = runnable;
        }
        if let Some(step) = &change.current_step {
            self.current_step = Some(Arc::clone(step));
        }
        self.steps_entered += change.steps_entered;
        self.commands_issued += change.commands_issued;
        for step in &change.failed_steps {
            if self.failed_steps.len() < FAILED_STEPS_MAX && !self.failed_steps.contains(step) {
                self.failed_steps.push(Arc::clone(step));
            }
        }
        if let Some(error) = &change.error {
            self.error = Some(Arc::clone(error));
        }
        if let Some(pause) = &change.pause {
            self.pause.clone_from(pause);
        }
        if let Some(cancel) = &change.cancel {
            self.cancel = Some(cancel.clone());
        }
        if let Some(cancel) = &mut self.cancel {
            cancel.ended.extend(change.ended.iter().cloned());
        }
    }
}
