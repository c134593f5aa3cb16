//! Answering workers: hello, poll, report, claim.

use std::collections::BTreeSet;
use std::sync::Arc;

use noetl_core::append::{RefusedBy, Verdict};
use noetl_core::event::Event;
use noetl_core::execution::Input;
use noetl_core::head::{CommandRow, CommandState, Head, Holder, Status};
use noetl_core::id::{CommandId, EventId, ExecutionId, SessionId};
use noetl_core::turns::Turns;
use noetl_core::work::{Assignment, Report, Reported};
use noetl_store::{EventQuery, RunningNote, Session, StoreError};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, sleep_until};

use crate::claim;
use crate::desk::{Attention, Channel, REPEAT_LOST_MS, REPEAT_MS, Say};
use crate::engine::Engine;
use crate::landing::Whose;
use crate::mailbox::Letter;
use crate::transport::{
    Attempt, Claim, ClaimError, Held, Hello, Offer, Orders, POLL_MS_MAX, POLLS_PER_LEASE, PROTOCOL, Poll, REPORTS_MAX,
    RUNNING_TOOL_BYTES_MAX, Reports, SLOTS_MAX, Welcome, WorkerError,
};

/// How long a report may hold back commands that the open poll could bring sooner, in milliseconds.
const REPORT_HOLDS_BACK_MS: u64 = 5;
/// The same for what is given to its worker later, while the report still waits for one decision.
const REPORT_HOLDS_BACK_MS_MAX: u64 = 50;
/// Readings of the tables for one comparison with the desk.
const READINGS_MAX: u32 = 3;
/// Offers in one answer at most.
const OFFERS_MAX: u64 = 64;
/// Events looked through for the command that an id names.
const CLAIM_EVENTS_MAX: u64 = 16;

impl Engine {
    /// Begins a worker's session. Commands of an older session under the same name are lost at once.
    pub async fn hello(&self, hello: Hello) -> Result<Welcome, WorkerError> {
        if hello.worker_id.is_empty() {
            return Err(WorkerError::Bad("worker_id: a worker needs a name".into()));
        }
        if hello.slots == 0 || hello.slots > SLOTS_MAX {
            return Err(WorkerError::Bad(format!("slots: expected 1 to {SLOTS_MAX}, got {}", hello.slots)));
        }
        if hello.protocol == 0 {
            return Err(WorkerError::Bad(format!("protocol: expected 1 to {PROTOCOL}, got 0")));
        }
        let now = self.now().await?;
        if let (Some(before), Some(instance)) = (hello.session_id, &hello.instance) {
            // The race: two processes go by one name. The later one has ended the session of the earlier one, which comes
            // back and would end its; each would lose what the other began, for ever. An answer to an earlier greeting of
            // this very process that was lost is no such thing.
            let taken = |other: &Session| {
                let theirs = other.meta.get("instance").and_then(Value::as_str);
                other.worker_id == hello.worker_id
                    && other.session_id != before
                    && other.lease_until > now
                    && theirs.is_some_and(|theirs| theirs != instance.as_ref())
            };
            if self.store.sessions().await?.iter().any(taken) {
                let name = &hello.worker_id;
                return Err(WorkerError::NameTaken(format!(
                    "another worker called `{name}` has taken this one's place: give each worker a name of its own"
                )));
            }
        }
        let protocol = hello.protocol.min(PROTOCOL);
        let pools = if hello.pools.is_empty() { vec![Arc::from("default")] } else { hello.pools };
        let session = Session {
            session_id: SessionId(self.next_id(now)),
            worker_id: hello.worker_id,
            slots: hello.slots,
            pools,
            lease_until: now.plus_ms(self.options.lease_ms),
            started_at: now,
            meta: json!({
                "version": hello.version,
                "protocol": protocol,
                "instance": hello.instance,
                "meta": hello.meta,
            }),
        };
        let welcome = Welcome {
            session_id: session.session_id,
            lease_ms: self.options.lease_ms,
            poll_ms: self.poll_ms_max(),
            protocol,
        };
        let older = self.store.open_session(session.clone()).await?;
        self.desk.seat(session);
        for old in older {
            // Only the process itself knows that nothing of its old session runs any more.
            let known_gone = hello.session_id == Some(old.session_id);
            self.desk.dismiss(old.session_id);
            self.store.close_session(old.session_id).await?;
            self.lose_session(old.session_id).await?;
            if known_gone {
                self.confirm_gone(old.session_id).await?;
            }
        }
        Ok(welcome)
    }

    /// Returns whether a worker takes nothing new, as far as it has said so to this server.
    pub fn drains(&self, session_id: SessionId) -> bool {
        self.desk.drains(session_id)
    }

    /// Returns how long a poll hangs at most, in milliseconds.
    fn poll_ms_max(&self) -> u64 {
        (self.options.lease_ms / POLLS_PER_LEASE).clamp(1, POLL_MS_MAX)
    }

    /// Answers a worker's poll, as soon as there is something to say.
    pub async fn poll(&self, poll: Poll) -> Result<Orders, WorkerError> {
        let (mut attention, unknown) = self.attend(&poll, Channel::Poll).await?;
        if poll.draining && poll.held.is_empty() {
            self.store.close_session(poll.session_id).await?;
            self.desk.dismiss(poll.session_id);
            return Ok(self.orders());
        }
        let deadline = Instant::now() + Duration::from_millis(poll.wait_ms.min(self.poll_ms_max()));
        let mut offers = if poll.offer { self.offer(&attention).await? } else { Vec::new() };
        let wake = Arc::clone(&attention.wake);
        loop {
            // Enabled before the look, so that nothing said in between is missed.
            let woken = wake.notified();
            let offered = self.desk.offers.notified();
            tokio::pin!(woken, offered);
            woken.as_mut().enable();
            offered.as_mut().enable();
            let again = match attention.say(self.options.lease_ms) {
                Say::Now(orders) => return Ok(Orders { unknown, offers, ..orders }),
                Say::Nothing(_) if !unknown.is_empty() || !offers.is_empty() => {
                    return Ok(Orders { unknown, offers, ..self.orders() });
                }
                Say::Nothing(again) => again,
                Say::Superseded => return Ok(self.orders()),
                Say::Unknown => return Err(WorkerError::UnknownSession(poll.session_id)),
            };
            if Instant::now() >= deadline {
                return Ok(self.orders());
            }
            // A report may take a command along while this hangs, and its answer get lost: looking finds it.
            let repeat = Instant::now() + Duration::from_millis(REPEAT_MS);
            let mut until = again.unwrap_or(repeat).min(deadline);
            if poll.offer {
                // Another server may have issued something.
                until = until.min(Instant::now() + Duration::from_millis(self.options.sweep_ms));
            }
            tokio::select! {
                biased;
                () = woken => {}
                () = offered, if poll.offer => {}
                () = sleep_until(until) => {}
            }
            if poll.offer {
                offers = self.offer(&attention).await?;
            }
        }
    }

    /// Takes a worker's reports; answers when they are durable.
    pub async fn report(&self, batch: Reports) -> Result<Orders, WorkerError> {
        if batch.reports.len() > REPORTS_MAX {
            return Err(WorkerError::Bad(format!("reports: at most {REPORTS_MAX} in one request")));
        }
        let (mut attention, unknown) = self.attend(&batch.poll, Channel::Report).await?;
        let session_id = batch.poll.session_id;
        let mut answers = Vec::with_capacity(batch.reports.len());
        for report in batch.reports {
            self.metrics.reports.add_one();
            let attempt = Attempt { command_id: report.command_id, epoch: report.epoch };
            let execution_id = report.execution_id;
            let slot = if frees_slot(&report) { self.desk.keep_slot(session_id, execution_id) } else { None };
            let settles = !matches!(report.outcome, Reported::Started { .. });
            if settles {
                self.desk.reported(attempt);
            }
            let input = Input::Report(Box::new(report), Arc::clone(&attention.worker_id));
            let (answer, told) = oneshot::channel();
            self.mailboxes.post(execution_id, Letter { input, due: None, answer: Some(answer), slot });
            answers.push((attempt, settles, told));
        }
        let mut settled = Vec::with_capacity(answers.len());
        let began = Instant::now();
        let mut hold_back = Duration::from_millis(REPORT_HOLDS_BACK_MS);
        for (attempt, settles, mut told) in answers {
            let durable = loop {
                tokio::select! {
                    biased;
                    durable = &mut told => break durable,
                    // What one decision waits for must not keep a worker from everything else.
                    () = sleep_until(began + hold_back) => {
                        attention.nudge_poll();
                        hold_back += hold_back.min(Duration::from_millis(REPORT_HOLDS_BACK_MS_MAX));
                    }
                }
            };
            // A report that could not be written is not acknowledged, and will be repeated.
            if durable == Ok(true) && settles {
                self.desk.acknowledged(attempt);
                settled.push(attempt);
            }
        }
        match attention.say(self.options.lease_ms) {
            Say::Now(orders) => Ok(Orders { unknown, settled, ..orders }),
            Say::Nothing(_) | Say::Superseded => Ok(Orders { unknown, settled, ..self.orders() }),
            // What was reported stands all the same; the next poll says so.
            Say::Unknown => Ok(Orders { settled, ..self.orders() }),
        }
    }

    /// Claims one command for a worker that chooses by itself. Claiming what one holds gives it again.
    pub async fn claim(&self, claim: Claim) -> Result<Assignment, ClaimError> {
        let poll = Poll::of(claim.session_id);
        let Some(session) = self.session(poll.session_id).await? else {
            return Err(ClaimError::UnknownSession(claim.session_id));
        };
        let Some(execution_id) = self.whose_command(claim.id).await? else {
            return Err(ClaimError::Unknown(claim.id));
        };
        loop {
            let Some(view) = self.store.view(execution_id).await? else { return Err(ClaimError::Unknown(claim.id)) };
            if !self.can_decide(&view.head) {
                let what = format!("execution {execution_id} needs a newer server");
                return Err(StoreError::Closed(what).into());
            }
            match view.head.status {
                Status::Running => {}
                Status::Cancelled => return Err(ClaimError::Cancelled),
                ended @ (Status::Completed | Status::Failed) => return Err(ClaimError::Ended(ended)),
            }
            let command_id = self.command_named(execution_id, claim.id).await?;
            let rows = view.commands.iter().filter(|row| Some(row.command_id) == command_id);
            let Some(row) = rows.max_by_key(|row| row.epoch) else { return Err(ClaimError::Unknown(claim.id)) };
            match (row.state, &row.holder) {
                (CommandState::Pending, _) => {}
                (CommandState::Claimed, Some(holder)) if holder.session_id == claim.session_id => {
                    return Ok(Whose::of_head(&view.head).assignment(row));
                }
                (CommandState::Claimed | CommandState::Lost, holder) => {
                    let by =
                        holder.as_ref().map_or_else(|| Arc::from("another worker"), |one| Arc::clone(&one.worker_id));
                    return Err(ClaimError::Taken(by));
                }
                (CommandState::Suspended, _) => return Err(ClaimError::Suspended),
                (CommandState::Paused, _) => return Err(ClaimError::Paused),
            }
            if let Some(assignment) = self.claim_row(&session, &view.head, row).await? {
                return Ok(assignment);
            }
            // Somebody else was faster, or the execution has ended: the next look says who or why.
        }
    }

    async fn claim_row(
        &self,
        session: &Session,
        head: &Head,
        row: &CommandRow,
    ) -> Result<Option<Assignment>, StoreError> {
        let now = self.now().await?;
        let holder = Holder {
            session_id: session.session_id,
            worker_id: Arc::clone(&session.worker_id),
            claimed_at: now,
            started: false,
        };
        let assignment = Whose::of_head(head).assignment(row);
        let (append, landing) = claim::append(self, row, holder, assignment.clone(), now);
        match self.batcher.append(append, landing).await.0? {
            Verdict::Landed { .. } => {
                self.metrics.claimed_apart.add_one();
                let attempt = Attempt { command_id: row.command_id, epoch: row.epoch };
                self.desk.handed_over(session.session_id, attempt);
                Ok(Some(assignment))
            }
            Verdict::Conflict
            | Verdict::Busy
            | Verdict::Refused(
                RefusedBy::NotPending
                | RefusedBy::Ended
                | RefusedBy::Unknown
                | RefusedBy::Exists
                | RefusedBy::ParentUnknown
                | RefusedBy::ParentEnded
                | RefusedBy::TickTaken
                | RefusedBy::KeyHeld,
            ) => Ok(None),
        }
    }

    /// Takes what a worker says of itself; returns also what it holds although it is not its own (any more).
    async fn attend(&self, said: &Poll, channel: Channel) -> Result<(Attention, Vec<Attempt>), WorkerError> {
        let unknown_session = || WorkerError::UnknownSession(said.session_id);
        if said.protocol > PROTOCOL {
            let spoken = said.protocol;
            return Err(WorkerError::TooNew(format!(
                "protocol {spoken} is newer than this server, which speaks {PROTOCOL}: ask a newer server, or upgrade this one"
            )));
        }
        let named = |held: &Held| held.running.as_ref().is_none_or(|one| one.tool.len() <= RUNNING_TOOL_BYTES_MAX);
        if !said.held.iter().all(named) {
            return Err(WorkerError::Bad(format!("held.running.tool: at most {RUNNING_TOOL_BYTES_MAX} bytes")));
        }
        let mut attention = match self.desk.attend(said, channel) {
            Some(attention) => attention,
            // It spoke to another server before, or this one has come up again.
            None => {
                self.session(said.session_id).await?.ok_or_else(unknown_session)?;
                self.correct(said.session_id).await?;
                self.desk.attend(said, channel).ok_or_else(unknown_session)?
            }
        };
        if attention.renewed.elapsed() >= Duration::from_millis(self.options.lease_ms / 10)
            && !self.renewals.renew(said.session_id).await?
        {
            self.desk.dismiss(said.session_id);
            return Err(unknown_session());
        }
        // Every server can show it: a status may be asked of another one. One write when a tool has run for a while, and
        // one when it has ended before its command; no event, no part of the state.
        let news = std::mem::take(&mut attention.running);
        if !news.is_empty() {
            let noted = self.store.note_running(said.session_id, news).await?;
            self.desk.noted(said.session_id, noted);
        }
        // What it does not confirm may be over long since at another server, and takes a slot here until that is seen.
        let after_ms = if attention.doubted { REPEAT_LOST_MS } else { self.options.lease_ms / 3 };
        let stale = attention.corrected.elapsed() >= Duration::from_millis(after_ms);
        if stale || !attention.strangers.is_empty() {
            self.correct(said.session_id).await?;
        }
        let unknown = self.desk.disown(said.session_id, &attention.strangers);
        Ok((attention, unknown))
    }

    /// Returns a session with a lease, and seats it.
    pub(crate) async fn session(&self, session_id: SessionId) -> Result<Option<Session>, StoreError> {
        if let unknown @ [_, ..] = self.store.renew_sessions(&[session_id], self.options.lease_ms).await?.as_slice() {
            debug_assert_eq!(unknown, [session_id]);
            return Ok(None);
        }
        let session = self.store.sessions().await?.into_iter().find(|session| session.session_id == session_id);
        if let Some(session) = &session {
            self.desk.seat(session.clone());
        }
        Ok(session)
    }

    /// Compares what the desk knows of a session with the tables.
    async fn correct(&self, session_id: SessionId) -> Result<(), StoreError> {
        for _ in 0..READINGS_MAX {
            if self.compare(session_id).await? {
                return Ok(());
            }
        }
        Err(StoreError::Unavailable("more ends than can be compared with the tables".into()))
    }

    /// Does so with one reading; `false` when that was too old by the time it was compared.
    async fn compare(&self, session_id: SessionId) -> Result<bool, StoreError> {
        let before = self.desk.counts();
        let (mut held, mut known) = (Vec::new(), Vec::new());
        let mut sent_again = BTreeSet::new();
        for row in self.store.held(session_id).await? {
            match row.state {
                CommandState::Claimed => {}
                // It has been given up; its worker is told that it is not its own any more.
                CommandState::Lost | CommandState::Pending | CommandState::Paused | CommandState::Suspended => continue,
            }
            let attempt = Attempt { command_id: row.command_id, epoch: row.epoch };
            known.push(RunningNote {
                execution_id: row.execution_id,
                command_id: row.command_id,
                epoch: row.epoch,
                running: row.running.clone(),
            });
            let assignment = if self.desk.knows(session_id, attempt) {
                None
            } else {
                self.whose(row.execution_id).await?.map(|whose| whose.assignment(&row))
            };
            if assignment.is_some() {
                sent_again.insert(row.execution_id);
            }
            held.push((attempt, assignment));
        }
        if !self.desk.correct(session_id, before, &held) {
            return Ok(false);
        }
        // What was noted by another server, or while nobody here knew, is known from here on.
        self.desk.noted(session_id, known);
        // Another server may have cancelled what its worker has not heard of yet: the order goes with the work, so that
        // it is skipped and not started.
        for execution_id in sent_again {
            if let Some(view) = self.store.view(execution_id).await? {
                self.order_cancels(&view);
            }
        }
        Ok(true)
    }

    /// Returns what assignments say of an execution.
    pub(crate) async fn whose(&self, execution_id: ExecutionId) -> Result<Option<Whose>, StoreError> {
        if let Some(known) = self.executions.get(execution_id) {
            return Ok(Some(Whose::of_init(&known.init)));
        }
        // What a worker of this server runs is reported here, and has to be decided here.
        let head = self.store.head(execution_id).await?.filter(|head| self.can_decide(head));
        Ok(head.map(|head| Whose::of_head(&head)))
    }

    async fn offer(&self, attention: &Attention) -> Result<Vec<Offer>, StoreError> {
        let rows = self.store.candidates(&attention.pools, &Turns::default(), 0, OFFERS_MAX).await?;
        let mut offered = crate::hold(&self.offered);
        for row in &rows {
            offered.put(row.command_id, row.execution_id);
        }
        Ok(rows.iter().map(Offer::of).collect())
    }

    /// Finds the execution of a command by the id of the command, or of its `command.issued`.
    async fn whose_command(&self, id: i64) -> Result<Option<ExecutionId>, StoreError> {
        if let Some(execution_id) = crate::hold(&self.offered).get(&CommandId(id)) {
            return Ok(Some(*execution_id));
        }
        Ok(self.issued_near(None, id).await?.map(|(execution_id, _)| execution_id))
    }

    async fn command_named(&self, execution_id: ExecutionId, id: i64) -> Result<Option<CommandId>, StoreError> {
        if crate::hold(&self.offered).contains(&CommandId(id)) {
            return Ok(Some(CommandId(id)));
        }
        Ok(self.issued_near(Some(execution_id), id).await?.map(|(_, command_id)| command_id))
    }

    /// Looks at the events from `id` on: a command's id is made just before that of its `command.issued`.
    async fn issued_near(
        &self,
        execution_id: Option<ExecutionId>,
        id: i64,
    ) -> Result<Option<(ExecutionId, CommandId)>, StoreError> {
        let query = EventQuery {
            execution_id,
            since_event_id: Some(EventId(id - 1)),
            limit: CLAIM_EVENTS_MAX,
            ..EventQuery::default()
        };
        let (events, _) = self.store.events(query).await?;
        Ok(events.iter().find_map(|recorded| match &recorded.event {
            Event::CommandIssued(issued) if recorded.event_id.0 == id || issued.command_id.0 == id => {
                Some((recorded.execution_id, issued.command_id))
            }
            _ => None,
        }))
    }

    fn orders(&self) -> Orders {
        Orders { lease_ms: self.options.lease_ms, ..Orders::default() }
    }
}

/// Returns whether the worker has a slot more after this.
fn frees_slot(report: &Report) -> bool {
    match report.outcome {
        Reported::Started { .. } => false,
        Reported::Done(_) | Reported::Suspended(_) | Reported::Cancelled { .. } | Reported::Released => true,
    }
}

impl Poll {
    /// Returns a poll that says nothing and waits for nothing.
    pub fn of(session_id: SessionId) -> Self {
        Poll {
            session_id,
            held: Vec::new(),
            free: 0,
            wait_ms: 0,
            offer: false,
            draining: false,
            serial: 0,
            protocol: PROTOCOL,
        }
    }
}

/// Returns the executions of rows, each once, in order.
pub(crate) fn executions_of(rows: &[CommandRow]) -> BTreeSet<ExecutionId> {
    rows.iter().map(|row| row.execution_id).collect()
}
