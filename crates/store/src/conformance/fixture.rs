//! Executions to try a store with, in few words.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use noetl_core::append::{Append, CommandChange, Due, DueKind, Guard, HeadChange, NewEvent, Verdict};
use noetl_core::event::{AttemptEnd, Cancelled, CommandDone, Ended, Event, Initialized, Issued, Parent, Recorded};
use noetl_core::head::{CancelInfo, CommandRow, CommandState, ENGINE_VERSION, Head, HeadView, Holder, Status};
use noetl_core::id::{CancellationId, CatalogId, CommandId, EventId, ExecutionId, SessionId};
use noetl_core::labels::Labels;
use noetl_core::playbook::{CancelMode, Shield};
use noetl_core::result::Bound;
use noetl_core::time::Timestamp;
use serde_json::json;

use super::{ManualClock, Reopen, Subject};
use crate::{Cancellation, Chunk, EventQuery, FamilyAction, LockedView, Pick, Session, Store, StoreError, Visit};

/// A store with a clock and ids of its own.
pub struct Stage {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: ManualClock,
    pub(super) reopen: Option<Reopen>,
    script: Script,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Ids and appends in few words, for a task of its own.
#[derive(Debug, Clone)]
pub struct Script {
    ids: Arc<AtomicI64>,
    clock: ManualClock,
}

impl Stage {
    /// Returns a stage around an empty store.
    pub fn new(subject: Subject) -> Self {
        let Subject { store, clock, reopen } = subject;
        let script = Script::new(&clock);
        Stage { store, clock, reopen, script }
    }

    pub(super) fn script(&self) -> Script {
        self.script.clone()
    }

    pub(super) fn id(&self) -> i64 {
        self.script().id()
    }

    /// Writes one append, written out beforehand as the engine does it; batches go the other way.
    pub(super) async fn write(&self, append: Append) -> Result<Verdict, StoreError> {
        let mut verdicts = self.store.append_prepared(vec![self.store.prepare(append)?]).await;
        assert_eq!(verdicts.len(), 1);
        verdicts.remove(0)
    }

    /// Writes one append that has to land; returns the version.
    pub(super) async fn land(&self, append: Append) -> u64 {
        match self.write(append.clone()).await {
            Ok(Verdict::Landed { version }) => version,
            other => panic!("{append:?} did not land: {other:?}"),
        }
    }

    pub(super) async fn head(&self, id: ExecutionId) -> Head {
        self.store.head(id).await.unwrap().unwrap_or_else(|| panic!("no head {id}"))
    }

    pub(super) async fn view(&self, id: ExecutionId) -> HeadView {
        self.store.view(id).await.unwrap().unwrap_or_else(|| panic!("no head {id}"))
    }

    pub(super) async fn log(&self, id: ExecutionId) -> Vec<Recorded> {
        let query = EventQuery { execution_id: Some(id), limit: 100_000, ..EventQuery::default() };
        self.store.events(query).await.unwrap().0
    }

    /// Starts an execution without commands.
    pub(super) async fn start(&self) -> ExecutionId {
        let append = self.script().birth(None);
        self.land(append.clone()).await;
        append.execution_id
    }

    /// Starts a child of `parent` from outside.
    pub(super) async fn start_below(&self, parent: ExecutionId) -> ExecutionId {
        let append = self.script().birth(Some(&self.head(parent).await));
        self.land(append.clone()).await;
        append.execution_id
    }

    /// Starts an execution with one pending command.
    pub(super) async fn start_with_command(&self) -> (ExecutionId, CommandId) {
        let script = self.script();
        let mut append = script.birth(None);
        let command_id = script.add_command(&mut append, CommandState::Pending);
        self.land(append.clone()).await;
        (append.execution_id, command_id)
    }

    /// Starts an execution with one command that `session` holds.
    pub(super) async fn start_claimed(&self, session: SessionId) -> (ExecutionId, CommandId) {
        let (id, command) = self.start_with_command().await;
        self.land(self.script().claim(id, command, 1, session)).await;
        (id, command)
    }

    /// Completes an execution.
    pub(super) async fn complete(&self, id: ExecutionId) {
        let append = self.script().complete(&self.head(id).await);
        self.land(append).await;
    }

    /// Takes a step of a cascade or job over its front, of at most `max`.
    pub(super) async fn chunk(&self, id: CancellationId, max: usize) -> Result<Chunk, StoreError> {
        let script = self.script();
        let decide = Box::new(move |locked: &LockedView, _| script.cancel(locked).into());
        self.store.cancel_chunk(id, Pick::Front(max), decide).await
    }

    /// Cancels an execution under its lock.
    pub(super) async fn cancel(&self, id: ExecutionId) -> Verdict {
        let script = self.script();
        self.store.locked(id, None, Box::new(move |locked| script.cancel(locked))).await.unwrap().unwrap()
    }
}

impl Script {
    /// Returns a script with ids of its own.
    pub fn new(clock: &ManualClock) -> Self {
        // Far above 2^53, so that an id that passes through a float is found out.
        Script::from_id(clock, 543_857_931_469_455_001)
    }

    /// Returns a script whose first id is `first`: two of them say the same.
    pub fn from_id(clock: &ManualClock, first: i64) -> Self {
        Script { ids: Arc::new(AtomicI64::new(first)), clock: clock.clone() }
    }

    /// Returns an id that was never given.
    pub fn id(&self) -> i64 {
        self.ids.fetch_add(1, Ordering::SeqCst)
    }

    /// Returns the time of the clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Gives an event its id.
    pub fn event(&self, event: Event) -> NewEvent {
        NewEvent { event_id: EventId(self.id()), event }
    }

    /// Returns an append with nothing in it.
    pub fn empty(&self, execution_id: ExecutionId, guard: Guard) -> Append {
        Append {
            execution_id,
            guard,
            at: self.now(),
            events: vec![],
            head: HeadChange::default(),
            commands: vec![],
            due: vec![],
            children: vec![],
            results: vec![],
            snapshot: None,
        }
    }

    /// Returns the first append of an execution.
    pub fn birth(&self, parent: Option<&Head>) -> Append {
        let execution_id = ExecutionId(self.id());
        let root = parent.map_or(execution_id, |parent| parent.root_execution_id);
        let head = Head {
            execution_id,
            catalog_id: CatalogId(31),
            path: "flows/fetch".into(),
            playbook_version: 2,
            parent_execution_id: parent.map(|parent| parent.execution_id),
            parent_command_id: None,
            root_execution_id: root,
            depth: parent.map_or(0, |parent| parent.depth + 1),
            status: Status::Running,
            version: 0,
            decided: 0,
            in_flight: 0,
            runnable: false,
            engine: ENGINE_VERSION,
            cancel_mode: None,
            cancel_grace_ms: None,
            shield: None,
            started_at: self.now(),
            updated_at: self.now(),
            ended_at: None,
            quiesced_at: None,
            current_step: None,
            steps_entered: 0,
            commands_issued: 0,
            failed_steps: vec![],
            error: None,
            cancel: None,
            pause: None,
            cleanup: None,
            cleanup_of: None,
            concurrency_key: None,
            labels: Labels::new(),
        };
        let first = Event::PlaybookInitialized(Box::new(Initialized {
            catalog_id: head.catalog_id,
            path: Arc::clone(&head.path),
            version: head.playbook_version,
            entry: "fetch".into(),
            parent: parent.map(|parent| Parent {
                execution_id: parent.execution_id,
                command_id: None,
                return_step: None,
            }),
            root_execution_id: root,
            depth: head.depth,
            workload: Arc::new(json!({"n": 1})),
            cancel_mode: None,
            cancel_grace_ms: None,
            shield: None,
            concurrency_key: None,
            labels: Labels::new(),
            started_by: None,
            strict: false,
            rerun: None,
            cleanup: None,
        }));
        Append { events: vec![self.event(first)], ..self.empty(execution_id, Guard::New(Box::new(head))) }
    }

    /// Returns the first append of a child that is shielded from its ancestors' cancels.
    pub fn shielded_birth(&self, parent: &Head, shield: Shield) -> Append {
        let mut birth = self.birth(Some(parent));
        if let Guard::New(head) = &mut birth.guard {
            head.shield = Some(shield);
        }
        if let Some(NewEvent { event: Event::PlaybookInitialized(init), .. }) = birth.events.first_mut() {
            init.shield = Some(shield);
        }
        birth
    }

    /// Returns a decision that enters a step.
    pub fn enter(&self, id: ExecutionId, decided: u64) -> Append {
        let enter = Event::StepEnter { step: "fetch".into(), visit: 1, kind: "http".into() };
        Append {
            events: vec![self.event(enter)],
            head: HeadChange { current_step: Some("fetch".into()), steps_entered: 1, ..HeadChange::default() },
            ..self.empty(id, Guard::At(decided))
        }
    }

    /// Adds a new command to an append.
    pub fn add_command(&self, append: &mut Append, state: CommandState) -> CommandId {
        let command_id = CommandId(self.id());
        let mut row = self.command(append.execution_id, command_id, 1, state);
        if let Guard::New(head) = &append.guard {
            row.root_execution_id = head.root_execution_id;
        }
        append.commands.push(CommandChange::Insert(Box::new(row)));
        append.head.commands_issued += 1;
        append.events.push(self.event(Event::CommandIssued(Box::new(Issued {
            command_id,
            step: "fetch".into(),
            visit: 1,
            iteration: None,
            kind: "http".into(),
            input: Arc::new(json!({})),
        }))));
        command_id
    }

    /// Returns a command as it stands when it was just issued.
    pub fn command(&self, id: ExecutionId, command_id: CommandId, epoch: u32, state: CommandState) -> CommandRow {
        CommandRow {
            execution_id: id,
            command_id,
            epoch,
            root_execution_id: id,
            state,
            step: "fetch".into(),
            visit: 1,
            iteration: None,
            kind: "http".into(),
            pool: "default".into(),
            priority: 0,
            enters: true,
            at_most_once: false,
            losses: 0,
            losses_max: 3,
            stopping: None,
            grace_ms: None,
            wait: None,
            since: self.now(),
            running: None,
            holder: state.in_flight().then(|| self.holder(SessionId(1))),
            work: Arc::new(json!({"tasks": []})),
        }
    }

    /// Returns who holds a command from now on.
    pub fn holder(&self, session_id: SessionId) -> Holder {
        Holder { session_id, worker_id: "worker-1".into(), claimed_at: self.now(), started: false }
    }

    /// Returns a claim, behind the `step.enter` of a first command.
    pub fn claim(&self, id: ExecutionId, command_id: CommandId, epoch: u32, session_id: SessionId) -> Append {
        let holder = self.holder(session_id);
        let enter = Event::StepEnter { step: "fetch".into(), visit: 1, kind: "http".into() };
        let claimed = Event::CommandClaimed {
            command_id,
            epoch,
            step: "fetch".into(),
            session_id,
            worker_id: Arc::clone(&holder.worker_id),
        };
        Append {
            events: vec![self.event(enter), self.event(claimed)],
            head: HeadChange { current_step: Some("fetch".into()), steps_entered: 1, ..HeadChange::default() },
            ..self.empty(id, Guard::Claim { command_id, epoch, holder })
        }
    }

    /// Returns the report of a command that completed.
    pub fn done(&self, command_id: CommandId, epoch: u32, late: bool) -> NewEvent {
        self.event(Event::CommandDone(Box::new(CommandDone {
            late_result: None,
            command_id,
            epoch,
            step: "fetch".into(),
            visit: 1,
            iteration: None,
            error: None,
            ctx: vec![],
            started_at: Some(self.now()),
            worker_id: Some("worker-1".into()),
            duration_ms: Some(3),
            late,
        })))
    }

    /// Returns the decision that settles a claimed command.
    pub fn settle(&self, head: &Head, command_id: CommandId, epoch: u32) -> Append {
        Append {
            events: vec![self.done(command_id, epoch, false)],
            commands: vec![CommandChange::Delete { command_id, epoch, expect: CommandState::Claimed }],
            ..self.empty(head.execution_id, Guard::At(head.decided))
        }
    }

    /// Returns the decision that completes an execution.
    pub fn complete(&self, head: &Head) -> Append {
        let done = Event::PlaybookCompleted { path: Arc::clone(&head.path), result: Bound::null() };
        Append {
            events: vec![self.event(done)],
            head: HeadChange { status: Some(Status::Completed), quiesced: true, ..HeadChange::default() },
            ..self.empty(head.execution_id, Guard::At(head.decided))
        }
    }

    /// Visits what a walk reaches through `through`: cancels it, unless it is shielded from that.
    pub fn cancel_open(&self, locked: &LockedView, through: ExecutionId) -> Visit {
        match locked.view.head.is_shielded_from(through) {
            true => Visit { append: None, walks_on: false },
            false => self.cancel(locked).into(),
        }
    }

    /// Decides a cancel as the engine would, without the playbook; `None` when it has ended.
    pub fn cancel(&self, locked: &LockedView) -> Option<Append> {
        let HeadView { head, commands } = &locked.view;
        if !head.is_active() {
            return None;
        }
        let mut append = self.empty(head.execution_id, Guard::Locked);
        let in_flight: Vec<CommandId> =
            commands.iter().filter(|row| row.state.in_flight()).map(|row| row.command_id).collect();
        let quiet = in_flight.is_empty();
        append.events.push(self.event(Event::ExecutionCancelled(Box::new(Cancelled {
            reason: Some("enough".into()),
            cancelled_by: "api".into(),
            requested_by: None,
            remote: None,
            cascade: true,
            mode: CancelMode::Finish,
            grace_ms: 10_000,
            root_execution_id: head.root_execution_id,
            requested_execution_id: head.root_execution_id,
            job_id: None,
            in_flight,
            cleanup: None,
        }))));
        for row in commands.iter().filter(|row| !row.state.in_flight()) {
            append.events.push(self.event(Event::CommandCancelled {
                command_id: row.command_id,
                epoch: row.epoch,
                step: Arc::clone(&row.step),
                reason: "execution cancelled".into(),
                worker_id: None,
            }));
            append.commands.push(CommandChange::Delete {
                command_id: row.command_id,
                epoch: row.epoch,
                expect: row.state,
            });
        }
        if quiet {
            append.events.push(self.event(Event::ExecutionQuiesced { commands: vec![] }));
        }
        append.head = HeadChange {
            status: Some(Status::Cancelled),
            quiesced: quiet,
            cancel: Some(CancelInfo {
                reason: Some("enough".into()),
                cancelled_by: "api".into(),
                requested_by: None,
                remote: None,
                mode: CancelMode::Finish,
                grace_ms: 10_000,
                since: locked.now,
                requested_execution_id: head.root_execution_id,
                job_id: None,
                idempotency_key: None,
                cleanup: None,
                cascade: true,
                ended: vec![],
            }),
            ..HeadChange::default()
        };
        Some(append)
    }

    /// Decides a late report under the lock: evidence, and the certificate when it was the last.
    pub fn late_report(&self, locked: &LockedView, command_id: CommandId, epoch: u32) -> Option<Append> {
        let HeadView { head, commands } = &locked.view;
        let row = commands.iter().find(|row| row.command_id == command_id && row.epoch == epoch)?;
        let ended = Ended { command_id, epoch, step: Arc::clone(&row.step), end: AttemptEnd::Finished, pids: vec![] };
        let last = head.in_flight == 1;
        let mut append = self.empty(head.execution_id, Guard::Locked);
        append.events.push(self.done(command_id, epoch, true));
        append.commands.push(CommandChange::Delete { command_id, epoch, expect: row.state });
        if last {
            let mut all = head.cancel.as_ref().map_or_else(Vec::new, |cancel| cancel.ended.clone());
            all.push(ended.clone());
            append.events.push(self.event(Event::ExecutionQuiesced { commands: all }));
        }
        append.head = HeadChange { quiesced: last, ended: vec![ended], ..HeadChange::default() };
        Some(append)
    }

    /// Returns an obligation `in_ms` from now.
    pub fn due(&self, id: ExecutionId, kind: DueKind, key: i64, in_ms: u64) -> Due {
        Due { execution_id: id, kind, key, at: self.now().plus_ms(in_ms), command: None }
    }

    /// Returns a session with a lease from now.
    pub fn session(&self, session_id: SessionId, worker: &str, lease_ms: u64) -> Session {
        Session {
            session_id,
            worker_id: worker.into(),
            slots: 4,
            pools: vec!["default".into(), "gpu".into()],
            lease_until: self.now().plus_ms(lease_ms),
            started_at: self.now(),
            meta: json!({"host": "box", "pid": 4711}),
        }
    }

    /// Returns a cascade from `requested` down.
    pub fn cancellation(&self, requested: ExecutionId) -> Cancellation {
        Cancellation {
            action: FamilyAction::Cancel,
            cancellation_id: CancellationId(self.id()),
            requested_execution_id: Some(requested),
            selection: None,
            cascade: true,
            reason: Some("enough".into()),
            cancelled_by: "api".into(),
            requested_by: Some("ann@box".into()),
            remote: Some("127.0.0.1".into()),
            mode: Some(CancelMode::Interrupt),
            grace_ms: Some(500),
            idempotency_key: Some("key-1".into()),
            rate: None,
            selected: None,
            cursor: None,
            cancelled: 0,
            visited: 0,
            spared: 0,
            created_at: self.now(),
            claimed_until: None,
            stopped_at: None,
            stopped_by: None,
            done_at: None,
        }
    }
}
