//! The shell of the small world: does what servers and workers do, one indivisible thing at a time, and chooses nothing.
//!
//! Every choice is the core's (`decide`, `control`, the pipeline) or the stores' (`landing`). What this file adds is
//! only what lies between two of them: who reads what when, and what is lost in a crash.

use std::collections::BTreeMap;
use std::sync::Arc;

use noetl_core::append::{Append, CommandChange, DueChange, DueKind, Guard, HeadChange, NewEvent, RefusedBy, Verdict};
use noetl_core::control::cancel::{self, BY_TIMEOUT};
use noetl_core::control::{lease, pause, settle, stop};
use noetl_core::event::{Event, StopCause, Wait};
use noetl_core::execution::draft::{Draft as Decision, start};
use noetl_core::execution::{Book, BookKey, Books, Env, Input, Refusal, Start};
use noetl_core::expr::Library;
use noetl_core::head::{CommandRow, CommandState, HeadView, Holder, StopWish};
use noetl_core::id::{CatalogId, CommandId, EventId, ExecutionId, IdSource, SessionId};
use noetl_core::labels::Labels;
use noetl_core::pipeline::{Next, Pipeline, Place};
use noetl_core::playbook::{CancelMode, Playbook, compile};
use noetl_core::result::Bound;
use noetl_core::time::Timestamp;
use noetl_core::tool::{ErrorKind, Stopped, ToolError, ToolOutcome};
use noetl_core::work::{ChildOutcome, Report, Reported, Work};
use serde_json::{Map, Value, json};

use super::mutant::Mutant;
use super::state::{Action, BY_PARENT, Cause, Draft, DraftCause, Held, Left, State};
use super::tables::{Cascade, DueKey};

/// When the small world begins. The time of a decision is this and its place in the log: so equal logs have equal ids.
const BEGINNING: Timestamp = Timestamp(1_768_900_000_000);
/// Who cancels in the small world.
const BY_PEOPLE: &str = "explorer";
/// Sources of ids per execution: decisions, and the claims of each worker.
const SOURCES: usize = 4;

/// What does not change: the playbooks, and the mistake that is made, if any.
pub(super) struct Shell {
    books: Books,
    playbooks: BTreeMap<CatalogId, Arc<Playbook>>,
    library: Arc<Library>,
    environment: Arc<Value>,
    pub(super) mutant: Option<Mutant>,
}

impl Shell {
    /// The first of `playbooks` is the one that is started.
    pub(super) fn new(playbooks: &[&str], mutant: Option<Mutant>) -> Result<Self, String> {
        let mut shell = Shell {
            books: Books::default(),
            playbooks: BTreeMap::new(),
            library: Arc::new(Library::empty()),
            environment: Arc::new(json!({})),
            mutant,
        };
        for (number, source) in (1..).zip(playbooks) {
            let compiled = compile(source).map_err(|diagnostics| format!("{diagnostics:#?}"))?;
            let playbook = Arc::new(compiled.playbook);
            let catalog_id = CatalogId(number);
            let book = Book { catalog_id, version: 1, playbook: Arc::clone(&playbook) };
            shell.books.known.insert(BookKey::Newest(Arc::clone(&playbook.path)), Some(book));
            shell.playbooks.insert(catalog_id, playbook);
        }
        Ok(shell)
    }

    /// Returns the state in which the execution has just been started.
    pub(super) fn begin(&self, left: Left) -> Result<State, String> {
        let mut state = State::new(left);
        let mut ids = IdSource::new(0);
        let request = Start {
            execution_id: ExecutionId(ids.next(BEGINNING)),
            catalog_id: CatalogId(1),
            version: 1,
            payload: Map::new(),
            parent: None,
            started_by: None,
            strict: false,
            labels: Labels::new(),
            rerun: None,
        };
        let mut hands = Vec::new();
        let Some(playbook) = self.playbooks.get(&CatalogId(1)) else { return Err("no playbook".to_owned()) };
        let mut env = self.env(playbook, BEGINNING, &mut ids, &mut hands);
        let (_, append) = start(&request, &mut env).map_err(|refusal| refusal.to_string())?;
        state.tables.land(append)?;
        Ok(state)
    }

    /// Returns the state after `action`.
    pub(super) fn apply(&self, before: &State, action: Action) -> Result<State, String> {
        let mut state = before.clone();
        match action {
            Action::Offer { worker, execution, command, epoch } => {
                if let Some(row) = state.tables.row(execution, command, epoch).cloned() {
                    let append = self.claim(&state, worker, &row);
                    let cause = DraftCause::Claim { worker, command, epoch };
                    state.drafts.push(Draft { cause, append, follows: 0 });
                }
            }
            Action::Decide { execution, cause } => self.decide(&mut state, execution, cause)?,
            Action::Land { draft, heard } => self.land(&mut state, draft, heard)?,
            Action::Hear { worker } => {
                let session = state.workers[worker].session;
                let given = state.tables.rows().find(|row| held_by(row, session));
                state.workers[worker].held = given.map(|row| Held {
                    execution: row.execution_id,
                    command: row.command_id,
                    epoch: row.epoch,
                    runs: false,
                });
            }
            Action::Begin { worker } => {
                let Some(held) = state.workers[worker].held else { return Ok(state) };
                if state.is_active(held.execution) {
                    state.workers[worker].held = Some(Held { runs: true, ..held });
                } else {
                    let outcome = Reported::Cancelled {
                        started: false,
                        stopped: None,
                        pids: Vec::new(),
                        remote_may_have_acted: false,
                    };
                    report(&mut state, worker, held, outcome);
                }
            }
            Action::End { worker, well } => {
                let Some(held) = state.workers[worker].held else { return Ok(state) };
                if !well {
                    state.left.failures -= 1;
                }
                let outcome = self.work(&state, held, well)?;
                report(&mut state, worker, held, outcome);
            }
            Action::Stop { worker } => {
                let Some(held) = state.workers[worker].held else { return Ok(state) };
                let outcome = Reported::Cancelled {
                    started: true,
                    stopped: Some(Stopped::Stopped),
                    pids: Vec::new(),
                    remote_may_have_acted: false,
                };
                report(&mut state, worker, held, outcome);
            }
            Action::Lose { session, execution } => {
                self.control(&mut state, execution, |view, now, ids| {
                    let mut append = lease::lose(view, session, now, ids)?;
                    self.spoil_loss(&mut append);
                    Some(append)
                })?;
            }
            Action::Forget { session, execution } => {
                self.control(&mut state, execution, |view, now, ids| lease::forget(view, session, now, ids))?;
            }
            Action::List { cascade, execution } => {
                let children = children(&state, execution, state.tables.cascades[cascade].requested);
                let cascade = &mut state.tables.cascades[cascade];
                cascade.front.remove(&execution);
                cascade.front.extend(children);
                cascade.listed.insert(execution);
            }
            Action::Visit { cascade, execution } => self.visit(&mut state, cascade, execution)?,
            Action::Bear { birth } => {
                let append = state.births.remove(birth);
                state.tables.force(append)?;
            }
            Action::Remember { due } => {
                let due = state.remembered.remove(due);
                state.tables.due.insert((due.execution_id, due.kind, due.key), due);
            }
            Action::Cancel { execution } => {
                state.left.cancels -= 1;
                self.cancel(&mut state, execution, &request(execution, BY_PEOPLE, false))?;
            }
            Action::StopStep { execution, command } => {
                if self.stop(&mut state, execution, command, StopCause::Cancelled)? {
                    state.left.stops -= 1;
                }
            }
            Action::Pause { execution } => {
                state.left.pauses -= 1;
                self.control(&mut state, execution, |view, now, ids| {
                    changed(pause::pause(view, &wish(view), now, ids))
                })?;
            }
            Action::Resume { execution } => {
                self.control(&mut state, execution, |view, now, ids| {
                    changed(pause::resume(view, &wish(view), now, ids))
                })?;
            }
            Action::CancelFamily { execution } => {
                state.left.cascades -= 1;
                state.tables.cascades.push(Cascade::begin(execution, BY_PEOPLE));
            }
            Action::CrashServer => {
                state.left.server_crashes -= 1;
                state.drafts.clear();
                state.births.clear();
                state.remembered.clear();
            }
            Action::CrashWorker { worker } => {
                state.left.worker_crashes -= 1;
                state.renew(worker);
            }
            Action::Silence { worker } => {
                state.left.silences -= 1;
                state.workers[worker].silenced = true;
                let session = state.workers[worker].session;
                state.gone.push(session);
            }
        }
        Ok(state)
    }

    /// One input is decided on the state as it is now; the append waits to be written.
    fn decide(&self, state: &mut State, execution: ExecutionId, cause: Cause) -> Result<(), String> {
        if let Cause::Due(kind, key) = cause
            && self.meet(state, execution, kind, key)?
        {
            return Ok(());
        }
        let Some(seat) = state.tables.seats.get(&execution) else { return Ok(()) };
        let head = &seat.member.head;
        let version = head.version;
        let (input, at) = match cause {
            Cause::Report(worker) => {
                let Some(report) = state.workers[worker].report.clone() else { return Ok(()) };
                (Input::Report(Box::new(self.spoil_report(state, report)), name(worker)), None)
            }
            Cause::Due(kind, key) => match self.due_input(state, (execution, kind, key)) {
                Some((input, at)) => (input, Some(at)),
                None => return Ok(()),
            },
        };
        let now = moment(version).max(at.unwrap_or(Timestamp(0)));
        let Some(playbook) = self.playbooks.get(&head.catalog_id) else { return Ok(()) };
        let mut ids = self.ids(state, execution, 0);
        let mut hands = Vec::new();
        let mut draft = Decision::new(seat.execution.clone());
        let answer = draft.decide(&input, &mut self.env(playbook, now, &mut ids, &mut hands));
        match answer {
            Ok(()) if !draft.is_empty() => {
                let (_, append) = draft.finish();
                let follows = head.decided;
                state.drafts.push(Draft { cause: DraftCause::Decision(cause), append, follows });
            }
            Ok(()) | Err(Refusal::Stale | Refusal::Ended(_) | Refusal::Paused) => self.late(state, execution, cause)?,
            Err(Refusal::Needs(needs)) => return Err(format!("a small world has no large results: {needs:?}")),
        }
        Ok(())
    }

    /// Meets an obligation that is no input of a workflow decision; `false` when it is one.
    fn meet(&self, state: &mut State, execution: ExecutionId, kind: DueKind, key: i64) -> Result<bool, String> {
        match kind {
            DueKind::Timer | DueKind::Continue | DueKind::ChildDone => return Ok(false),
            DueKind::Timeout | DueKind::StepTimeout | DueKind::GraceEnd | DueKind::CancelChild | DueKind::Displaced => {
            }
        }
        if !state.is_active(execution) {
            state.tables.due.remove(&(execution, kind, key));
            return Ok(true);
        }
        match kind {
            DueKind::Timeout => state.tables.cascades.push(Cascade::begin(execution, BY_TIMEOUT)),
            DueKind::StepTimeout => {
                self.stop(state, execution, CommandId(key), StopCause::Timeout)?;
            }
            DueKind::GraceEnd => self.stop_command(state, execution, CommandId(key), None)?,
            DueKind::CancelChild => {
                if state.tables.seats.get(&execution).is_some_and(|seat| seat.member.head.shield.is_some()) {
                    self.control(state, execution, |view, now, _| Some(cancel::left_alone(view, now)))?;
                } else {
                    state.tables.cascades.push(Cascade::begin(execution, BY_PARENT));
                }
            }
            // Nothing in the small world has a key.
            DueKind::Timer | DueKind::Continue | DueKind::ChildDone | DueKind::Displaced => {}
        }
        Ok(true)
    }

    /// Stops a command: the child that it waits for first, in a transaction of its own. `false` when that was all.
    fn stop(
        &self,
        state: &mut State,
        execution: ExecutionId,
        command: CommandId,
        cause: StopCause,
    ) -> Result<bool, String> {
        let waits = state.tables.rows().find(|row| row.command_id == command && row.state == CommandState::Suspended);
        if let Some(Wait::Child { execution_id: child, .. }) = waits.and_then(|row| row.wait.clone()) {
            let seat = state.tables.seats.get(&child);
            let left_alone = seat.is_some_and(|seat| seat.member.head.shield.is_some());
            if !left_alone && state.is_active(child) && !state.tables.is_begun(child, BY_PARENT) {
                state.tables.cascades.push(Cascade::begin(child, BY_PARENT));
                return Ok(false);
            }
        }
        let wish = StopWish { cause, reason: "explored".to_owned(), by: BY_PEOPLE.to_owned() };
        self.stop_command(state, execution, command, Some(&wish))?;
        Ok(true)
    }

    fn stop_command(
        &self,
        state: &mut State,
        execution: ExecutionId,
        command: CommandId,
        wish: Option<&StopWish>,
    ) -> Result<(), String> {
        self.control(state, execution, |view, now, ids| match stop::decide(view, command, wish, now, ids) {
            stop::Answer::Withdrawn(append) | stop::Answer::Over(append) | stop::Answer::Ordered { append, .. } => {
                Some(*append)
            }
            stop::Answer::Ended => None,
        })
    }

    /// What no workflow decision takes: a report is settled under the lock, an obligation of an ended execution goes.
    fn late(&self, state: &mut State, execution: ExecutionId, cause: Cause) -> Result<(), String> {
        match cause {
            Cause::Report(worker) => {
                let Some(report) = state.workers[worker].report.clone() else { return Ok(()) };
                self.control(state, execution, |view, now, ids| {
                    let mut append = settle::decide(view, &report, &name(worker), now, ids)?;
                    if self.mutant == Some(Mutant::ProofForgotten) {
                        append.events.retain(|new| !matches!(new.event, Event::ExecutionQuiesced { .. }));
                        append.head.quiesced = false;
                    }
                    Some(append)
                })?;
                answered(state, worker);
            }
            Cause::Due(kind, key) => {
                if !state.is_active(execution) {
                    state.tables.due.remove(&(execution, kind, key));
                }
            }
        }
        Ok(())
    }

    /// What was decided is written, if the guards say so.
    fn land(&self, state: &mut State, draft: usize, heard: bool) -> Result<(), String> {
        let Draft { cause, mut append, .. } = state.drafts.remove(draft);
        if self.mutant == Some(Mutant::ObligationForgotten) {
            // Written down a moment later, in a transaction of its own.
            for change in std::mem::take(&mut append.due) {
                match change {
                    DueChange::Set(due) => state.remembered.push(due),
                    met @ (DueChange::Clear { .. } | DueChange::Tick(_) | DueChange::Enter(_)) => append.due.push(met),
                }
            }
        }
        if self.mutant == Some(Mutant::ChildUnguarded) {
            state.births.append(&mut append.children);
        }
        let verdict = match cause {
            DraftCause::Claim { .. } if self.mutant == Some(Mutant::ClaimUnguarded) => {
                state.tables.force(append)?;
                return Ok(());
            }
            DraftCause::Claim { .. } | DraftCause::Decision(_) => state.tables.land(append.clone())?,
        };
        let DraftCause::Decision(cause) = cause else { return Ok(()) };
        let landed = match verdict {
            Verdict::Landed { .. } => true,
            Verdict::Refused(RefusedBy::Ended) if self.mutant == Some(Mutant::LateApplied) => {
                state.tables.force(append)?;
                true
            }
            // The input is still there, and is decided again on what stands now.
            Verdict::Conflict | Verdict::Busy | Verdict::Refused(_) => false,
        };
        if let (true, Cause::Report(worker)) = (landed, cause) {
            if heard {
                answered(state, worker);
            } else {
                state.left.unheard -= 1;
            }
        }
        Ok(())
    }

    fn visit(&self, state: &mut State, cascade: usize, execution: ExecutionId) -> Result<(), String> {
        let Cascade { requested, by, .. } = state.tables.cascades[cascade];
        self.cancel(state, execution, &request(requested, by, true))?;
        // Listed after the fence is held: nobody is born below it any more.
        let children = children(state, execution, requested);
        let cascade = &mut state.tables.cascades[cascade];
        cascade.front.remove(&execution);
        if !cascade.listed.remove(&execution) {
            cascade.front.extend(children);
        }
        Ok(())
    }

    fn cancel(&self, state: &mut State, execution: ExecutionId, request: &cancel::Request) -> Result<(), String> {
        self.control(state, execution, |view, now, ids| {
            let append = match cancel::decide(view, request, now, ids) {
                cancel::Answer::Cancelled { append, .. } | cancel::Answer::Escalated { append, .. } => append,
                cancel::Answer::Spared(_) | cancel::Answer::AlreadyEnded | cancel::Answer::Repeated { .. } => {
                    return None;
                }
            };
            let mut append = *append;
            self.spoil_cancel(&mut append, now, ids);
            Some(append)
        })
    }

    /// A decision under the lock of the head: read, decide and write are one.
    fn control(
        &self,
        state: &mut State,
        execution: ExecutionId,
        decide: impl FnOnce(&HeadView, Timestamp, &mut IdSource) -> Option<Append>,
    ) -> Result<(), String> {
        let Some(view) = state.tables.view(execution) else { return Ok(()) };
        let mut ids = self.ids(state, execution, 0);
        let Some(mut append) = decide(&view, moment(view.head.version), &mut ids) else { return Ok(()) };
        append.guard = Guard::Locked;
        match state.tables.land(append)? {
            Verdict::Landed { .. } => Ok(()),
            verdict @ (Verdict::Conflict | Verdict::Busy | Verdict::Refused(_)) => {
                Err(format!("a decision under the lock of {execution} did not land: {verdict:?}"))
            }
        }
    }

    /// Runs the real interpreter over what a worker holds.
    fn work(&self, state: &State, held: Held, well: bool) -> Result<Reported, String> {
        let Some(seat) = state.tables.seats.get(&held.execution) else { return Err("it runs nothing".to_owned()) };
        let issued = seat.execution.live.get(&held.command);
        let row = state.tables.row(held.execution, held.command, held.epoch);
        let Some(playbook) = self.playbooks.get(&seat.member.head.catalog_id) else {
            return Err("there is no playbook".to_owned());
        };
        let outcome = if well {
            ToolOutcome::ok(json!({}))
        } else {
            ToolOutcome::failed(ToolError::soft(ErrorKind::Code, "EXIT_1", "it failed"), Value::Null)
        };
        // Its row is gone when the attempt was forgotten: whatever it says then is of no effect.
        let step = issued.map(|live| Arc::clone(&live.step)).or_else(|| row.map(|row| Arc::clone(&row.step)));
        let work: Work = match row {
            Some(row) => serde_json::from_value((*row.work).clone()).map_err(|error| error.to_string())?,
            None => Work::default(),
        };
        let Some(step) = step.and_then(|name| playbook.body(&name, work.iteration.is_some())) else {
            return Ok(Reported::Cancelled {
                started: true,
                stopped: None,
                pids: Vec::new(),
                remote_may_have_acted: false,
            });
        };
        let mut pipeline = Pipeline::new(step, Arc::new(work));
        if !state.is_active(held.execution) {
            pipeline.finish_only();
        }
        let place = Place {
            playbook,
            step,
            execution_id: held.execution,
            command_id: held.command,
            library: &self.library,
            now: BEGINNING,
            on_worker: true,
        };
        loop {
            match pipeline.next(&place) {
                Next::Call(_) => pipeline.outcome(outcome.clone()),
                Next::Wait { .. } => {}
                Next::Pause(pause) => return Ok(Reported::Suspended(pause)),
                Next::Done(done) => return Ok(Reported::Done(done)),
                Next::Stop => {
                    return Ok(Reported::Cancelled {
                        started: true,
                        stopped: None,
                        pids: Vec::new(),
                        remote_may_have_acted: false,
                    });
                }
                Next::Needs(needs) => return Err(format!("a small world has no large results: {needs:?}")),
            }
        }
    }

    fn claim(&self, state: &State, worker: usize, row: &CommandRow) -> Append {
        let version = state.tables.seats.get(&row.execution_id).map_or(0, |seat| seat.member.head.version);
        let now = moment(version);
        let mut ids = self.ids(state, row.execution_id, worker + 1);
        let session_id = state.workers[worker].session;
        let holder = Holder { session_id, worker_id: name(worker), claimed_at: now, started: false };
        let mut events = Vec::new();
        let mut head = HeadChange::default();
        let step = &row.step;
        if row.enters {
            (head.steps_entered, head.current_step) = (1, Some(Arc::clone(step)));
            events.push(Event::StepEnter { step: Arc::clone(step), visit: row.visit, kind: Arc::clone(&row.kind) });
        }
        events.push(Event::CommandClaimed {
            command_id: row.command_id,
            epoch: row.epoch,
            step: Arc::clone(step),
            session_id,
            worker_id: Arc::clone(&holder.worker_id),
        });
        Append {
            execution_id: row.execution_id,
            guard: Guard::Claim { command_id: row.command_id, epoch: row.epoch, holder },
            at: now,
            events: events.into_iter().map(|event| NewEvent { event_id: EventId(ids.next(now)), event }).collect(),
            head,
            commands: Vec::new(),
            due: Vec::new(),
            children: Vec::new(),
            results: Vec::new(),
            snapshot: None,
        }
    }

    fn due_input(&self, state: &State, key: DueKey) -> Option<(Input, Timestamp)> {
        let due = state.due(key)?;
        let command = CommandId(due.key);
        let input = match due.kind {
            DueKind::Timer => Input::Timer(command),
            DueKind::Continue => Input::Continue,
            DueKind::ChildDone => Input::ChildEnded(due.command?, Box::new(outcome_of(state, ExecutionId(due.key))?)),
            // See `meet`.
            DueKind::GraceEnd | DueKind::Timeout | DueKind::StepTimeout | DueKind::CancelChild | DueKind::Displaced => {
                return None;
            }
        };
        Some((input, due.at))
    }

    fn env<'a>(
        &'a self,
        playbook: &'a Playbook,
        now: Timestamp,
        ids: &'a mut IdSource,
        hands: &'a mut Vec<noetl_core::execution::Hand>,
    ) -> Env<'a> {
        let (library, books, environment) = (&self.library, &self.books, &self.environment);
        Env { playbook, now, ids, library, books, environment, hands }
    }

    /// Ids come from the place in the log: an execution's own sources, at a time that its version says.
    fn ids(&self, state: &State, execution: ExecutionId, source: usize) -> IdSource {
        let place = state.tables.seats.keys().position(|id| *id == execution).unwrap_or(0);
        IdSource::new(u16::try_from((place + 1) * SOURCES + source).unwrap_or(u16::MAX))
    }

    fn spoil_report(&self, state: &State, report: Report) -> Report {
        if self.mutant != Some(Mutant::EpochIgnored) {
            return report;
        }
        let live =
            state.tables.seats.get(&report.execution_id).and_then(|seat| seat.execution.live.get(&report.command_id));
        Report { epoch: live.map_or(report.epoch, |live| live.epoch), ..report }
    }

    fn spoil_loss(&self, append: &mut Append) {
        if self.mutant == Some(Mutant::EpochReused) {
            for change in &mut append.commands {
                if let CommandChange::Insert(row) = change
                    && row.state == CommandState::Pending
                {
                    row.epoch -= 1;
                }
            }
        }
    }

    fn spoil_cancel(&self, append: &mut Append, now: Timestamp, ids: &mut IdSource) {
        if self.mutant == Some(Mutant::QuiescedEarly) && !append.head.quiesced {
            let event = Event::ExecutionQuiesced { commands: Vec::new() };
            append.events.push(NewEvent { event_id: EventId(ids.next(now)), event });
            append.head.quiesced = true;
        }
        if self.mutant == Some(Mutant::TimerRevived) {
            append.due.retain(|change| !matches!(change, DueChange::Clear { .. }));
            append
                .commands
                .retain(|change| !matches!(change, CommandChange::Delete { expect: CommandState::Suspended, .. }));
        }
    }
}

fn request(requested: ExecutionId, by: &str, cascade: bool) -> cancel::Request {
    cancel::Request {
        requested_execution_id: requested,
        job_id: None,
        reason: None,
        cancelled_by: by.to_owned(),
        requested_by: None,
        remote: None,
        cascade,
        mode: Some(if cascade { CancelMode::Interrupt } else { CancelMode::Finish }),
        default_mode: CancelMode::Finish,
        grace_ms: None,
        idempotency_key: None,
    }
}

fn wish(view: &HeadView) -> pause::Request {
    let (requested_execution_id, by) = (view.head.execution_id, "explorer".to_owned());
    pause::Request { requested_execution_id, reason: None, by, requested_by: None, cascade: false }
}

fn changed(answer: pause::Answer) -> Option<Append> {
    match answer {
        pause::Answer::Changed { append, .. } => Some(*append),
        pause::Answer::Already { .. } | pause::Answer::Ended => None,
    }
}

fn report(state: &mut State, worker: usize, held: Held, outcome: Reported) {
    let Held { execution, command, epoch, .. } = held;
    let worker = &mut state.workers[worker];
    worker.held = None;
    worker.report = Some(Report { execution_id: execution, command_id: command, epoch, outcome });
}

/// The worker has heard that its report was taken. One whose session is over learns that with the answer.
fn answered(state: &mut State, worker: usize) {
    state.workers[worker].report = None;
    if state.workers[worker].silenced {
        state.renew(worker);
    }
}

fn outcome_of(state: &State, child: ExecutionId) -> Option<ChildOutcome> {
    let member = &state.tables.seats.get(&child)?.member;
    let error = member.head.error.clone().or_else(|| {
        member.head.cancel.as_ref().map(|cancel| Arc::new(json!({"kind": "cancelled", "by": cancel.cancelled_by})))
    });
    Some(ChildOutcome { execution_id: child, status: member.head.status, result: Bound::null(), error })
}

/// Returns to whom a cascade from `requested` walks on: to nobody below a shield.
fn children(state: &State, execution: ExecutionId, requested: ExecutionId) -> Vec<ExecutionId> {
    let heads = state.tables.seats.values().map(|seat| &seat.member.head);
    if heads.clone().any(|head| head.execution_id == execution && head.is_shielded_from(requested)) {
        return Vec::new();
    }
    heads.filter(|head| head.parent_execution_id == Some(execution)).map(|head| head.execution_id).collect()
}

fn held_by(row: &CommandRow, session: SessionId) -> bool {
    row.state == CommandState::Claimed && row.holder.as_ref().is_some_and(|holder| holder.session_id == session)
}

fn moment(version: u64) -> Timestamp {
    BEGINNING.plus_ms(version)
}

pub(super) fn name(worker: usize) -> Arc<str> {
    format!("worker-{worker}").into()
}
