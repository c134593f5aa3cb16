//! Pausing executions and letting them go on, alone or with their descendants.
//!
//! The decision is one append under the lock of the head; a family is decided member by member by the same walk as a
//! cancel, recorded durably before the first of them, so that any server finishes it.

use std::sync::{Arc, Mutex};

use noetl_core::append::Append;
use noetl_core::control::cancel::InFlight;
use noetl_core::control::pause::{self, Answer, Request};
use noetl_core::head::{Head, HeadView, PauseInfo};
use noetl_core::id::{CancellationId, ExecutionId, IdSource};
use noetl_core::time::Timestamp;
use noetl_store::{Cancellation, FamilyAction, LockedView, StoreError};
use tokio::time::{Duration, Instant};

use crate::cascade::{CHUNK_MAX, Driving};
use crate::engine::Engine;
use crate::hold;
use crate::landing::Landing;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing more is to begin.
    Pause,
    /// It is to go on.
    Resume,
}

impl Change {
    fn decide(self, view: &HeadView, request: &Request, now: Timestamp, ids: &mut IdSource) -> Answer {
        match self {
            Change::Pause => pause::pause(view, request, now, ids),
            Change::Resume => pause::resume(view, request, now, ids),
        }
    }

    fn action(self) -> FamilyAction {
        match self {
            Change::Pause => FamilyAction::Pause,
            Change::Resume => FamilyAction::Resume,
        }
    }

    fn done(self) -> &'static str {
        match self {
            Change::Pause => "Paused",
            Change::Resume => "Resumed",
        }
    }

    fn state(self) -> &'static str {
        match self {
            Change::Pause => "paused",
            Change::Resume => "running",
        }
    }
}

/// Who wants what paused or resumed.
#[derive(Debug, Clone)]
pub struct PauseRequest {
    /// Which.
    pub execution_id: ExecutionId,
    /// Which way.
    pub change: Change,
    /// Free text.
    pub reason: Option<String>,
    /// Descendants too, at any depth.
    pub cascade: bool,
    /// The authenticated identity, else `api`, `cli`.
    pub by: String,
    /// Self-declared.
    pub requested_by: Option<String>,
}

/// What became of a request to pause or to resume.
#[derive(Debug, Clone, PartialEq)]
pub struct PauseAnswer {
    /// The execution that the request named.
    pub execution_id: ExecutionId,
    /// What this request changed, the named one first if it is among them.
    pub changed: Vec<ExecutionId>,
    /// What workers hold of those: it runs to its end.
    pub in_flight: Vec<InFlight>,
    /// Who paused the named one and why, when it is paused now.
    pub pause: Option<PauseInfo>,
    /// Where the named one stands now: `paused`, `running` or `ended`.
    pub state: &'static str,
    /// Everything asked for has been decided.
    pub complete: bool,
    /// The walk down the family, when there was one.
    pub job_id: Option<CancellationId>,
    /// One sentence for people.
    pub message: String,
}

/// Why nothing was paused or resumed.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// 404.
    #[error("Execution {0} not found")]
    Unknown(ExecutionId),
    /// 409.
    #[error("Execution {} is already {}", head.execution_id, head.status.as_str())]
    AlreadyEnded {
        /// As it stands.
        head: Box<Head>,
    },
    /// 503 or 507.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a request made of one execution.
#[derive(Debug)]
struct Decided {
    execution_id: ExecutionId,
    what: What,
    in_flight: Vec<InFlight>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Changed,
    Already,
    Ended,
}

fn decide(
    view: &HeadView,
    change: Change,
    request: &Request,
    now: Timestamp,
    ids: &mut IdSource,
) -> (Decided, Option<Append>) {
    let execution_id = view.head.execution_id;
    match change.decide(view, request, now, ids) {
        Answer::Changed { append, in_flight } => {
            (Decided { execution_id, what: What::Changed, in_flight }, Some(*append))
        }
        Answer::Already { in_flight } => (Decided { execution_id, what: What::Already, in_flight }, None),
        Answer::Ended => (Decided { execution_id, what: What::Ended, in_flight: Vec::new() }, None),
    }
}

impl Engine {
    /// Pauses an execution or lets it go on, and with `cascade` its descendants. What it answers is durable.
    pub async fn pause(&self, asked: &PauseRequest) -> Result<PauseAnswer, PauseError> {
        let (decided, complete, job_id) =
            if asked.cascade { self.pause_family(asked).await? } else { (self.pause_one(asked).await?, true, None) };
        let named = decided.iter().find(|one| one.execution_id == asked.execution_id).map(|one| one.what);
        let changed: Vec<_> =
            decided.iter().filter(|one| one.what == What::Changed).map(|one| one.execution_id).collect();
        let head = self.store.head(asked.execution_id).await?.ok_or(PauseError::Unknown(asked.execution_id))?;
        if named == Some(What::Ended) && changed.is_empty() && complete {
            return Err(PauseError::AlreadyEnded { head: Box::new(head) });
        }
        let message = match (changed.len(), complete) {
            (0, true) => format!("Execution {} is already {}", asked.execution_id, asked.change.state()),
            (count, true) => format!("{} {count} execution(s)", asked.change.done()),
            (count, false) => format!("{} {count} execution(s) so far; the rest follows", asked.change.done()),
        };
        Ok(PauseAnswer {
            execution_id: asked.execution_id,
            in_flight: decided
                .into_iter()
                .filter(|one| one.what == What::Changed || one.execution_id == asked.execution_id)
                .flat_map(|one| one.in_flight)
                .collect(),
            changed,
            state: match (head.is_active(), &head.pause) {
                (false, _) => "ended",
                (true, Some(_)) => "paused",
                (true, None) => "running",
            },
            pause: head.pause,
            complete,
            job_id,
            message,
        })
    }

    async fn pause_one(&self, asked: &PauseRequest) -> Result<Vec<Decided>, PauseError> {
        let (change, request) = (asked.change, request(asked));
        let seen: Arc<Mutex<Option<Decided>>> = Arc::default();
        let out = Arc::clone(&seen);
        self.under_lock(asked.execution_id, None, move |locked, ids| {
            let (decided, append) = decide(&locked.view, change, &request, locked.now, ids);
            *hold(&out) = Some(decided);
            append
        })
        .await?;
        let decided = hold(&seen).take().ok_or(PauseError::Unknown(asked.execution_id))?;
        self.go_on_after(change, std::slice::from_ref(&decided), &asked.by);
        Ok(vec![decided])
    }

    async fn pause_family(
        &self,
        asked: &PauseRequest,
    ) -> Result<(Vec<Decided>, bool, Option<CancellationId>), PauseError> {
        if self.store.head(asked.execution_id).await?.is_none() {
            return Err(PauseError::Unknown(asked.execution_id));
        }
        let now = self.now().await?;
        let walk = Cancellation {
            cancellation_id: CancellationId(self.next_id(now)),
            action: asked.change.action(),
            requested_execution_id: asked.execution_id,
            reason: asked.reason.clone(),
            cancelled_by: asked.by.clone(),
            requested_by: asked.requested_by.clone(),
            remote: None,
            mode: None,
            grace_ms: None,
            idempotency_key: None,
            cancelled: 0,
            visited: 0,
            created_at: now,
            done_at: None,
        };
        // Before the first fence: a crash right after it must leave somebody who knows that there is more to do.
        self.store.open_cancellation(walk.clone()).await?;
        let Some(mut driving) = self.cascades.drive(walk.cancellation_id) else {
            return Err(StoreError::Unavailable(format!("cascade {} is driven twice", walk.cancellation_id)).into());
        };
        let deadline = Instant::now() + Duration::from_millis(self.options.cascade_answer_ms);
        let mut all = Vec::new();
        while !driving.done && Instant::now() < deadline {
            let (decided, done) = self.pause_chunk(&walk, asked.change).await?;
            all.extend(decided);
            driving.done = done;
            tokio::task::yield_now().await;
        }
        Ok((all, driving.done, Some(walk.cancellation_id)))
    }

    /// Goes on with a walk that somebody left or lost, to its end.
    pub(crate) async fn finish_pausing(
        &self,
        walk: &Cancellation,
        change: Change,
        mut driving: Driving,
    ) -> Result<(), StoreError> {
        while !self.pause_chunk(walk, change).await?.1 {
            tokio::task::yield_now().await;
        }
        driving.done = true;
        Ok(())
    }

    /// Decides the next members; returns what was decided, and whether nothing is left.
    async fn pause_chunk(&self, walk: &Cancellation, change: Change) -> Result<(Vec<Decided>, bool), StoreError> {
        type Seen = Vec<(Decided, Option<(Landing, u64)>)>;
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let request = Request {
            requested_execution_id: walk.requested_execution_id,
            reason: walk.reason.clone(),
            by: walk.cancelled_by.clone(),
            requested_by: walk.requested_by.clone(),
            cascade: true,
        };
        let fence = {
            let (seen, ids) = (Arc::clone(&seen), Arc::clone(&self.ids));
            Box::new(move |locked: &LockedView| -> Option<Append> {
                let (decided, append) = decide(&locked.view, change, &request, locked.now, &mut hold(&ids));
                let landing = append.as_ref().map(|append| {
                    let version = locked.view.head.version + append.events.len() as u64;
                    (Landing::of_control(append, &locked.view.head), version)
                });
                hold(&seen).push((decided, landing));
                append
            })
        };
        let chunk = self.store.cancel_chunk(walk.cancellation_id, CHUNK_MAX, fence).await?;
        let mut all = Vec::new();
        for (decided, landing) in std::mem::take(&mut *hold(&seen)) {
            if let Some((landing, version)) = landing {
                self.landed(landing, version);
            }
            all.push(decided);
        }
        self.go_on_after(change, &all, &walk.cancelled_by);
        Ok((all, chunk.done))
    }

    /// Says what was decided, and has what waited in the tables looked at soon.
    fn go_on_after(&self, change: Change, decided: &[Decided], by: &str) {
        for one in decided.iter().filter(|one| one.what == What::Changed) {
            let (execution, in_flight) = (one.execution_id, one.in_flight.len());
            match change {
                Change::Pause => tracing::info!(%execution, by, in_flight, "execution paused"),
                Change::Resume => {
                    tracing::info!(%execution, by, in_flight, "execution resumed");
                    self.alarms.set_in(0);
                }
            }
        }
    }
}

fn request(asked: &PauseRequest) -> Request {
    Request {
        requested_execution_id: asked.execution_id,
        reason: asked.reason.clone(),
        by: asked.by.clone(),
        requested_by: asked.requested_by.clone(),
        cascade: asked.cascade,
    }
}
