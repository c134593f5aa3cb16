//! One state of the small world: the tables, what the server has in its memory, what the workers hold, and how many
//! misfortunes are left.

use std::hash::{DefaultHasher, Hash, Hasher};

use noetl_core::append::{Append, Due, DueKind};
use noetl_core::control::cancel::BY_TIMEOUT;
use noetl_core::head::{CommandState, Holder};
use noetl_core::id::{CommandId, ExecutionId, SessionId};
use noetl_core::work::Report;

use super::tables::{DueKey, Tables};

/// Who says that a child nobody waits for is cancelled.
pub(super) const BY_PARENT: &str = "parent";
/// Workers of the small world.
pub(super) const WORKERS: usize = 2;
/// Lives of a worker are numbered: `worker * LIVES + life`.
const LIVES: i64 = 100;

/// Something that may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Action {
    /// The server reads a pending command and means to give it to a worker.
    Offer { worker: usize, execution: ExecutionId, command: CommandId, epoch: u32 },
    /// The server decides what waits for an execution; nothing is written yet.
    Decide { execution: ExecutionId, cause: Cause },
    /// What was decided is written, if it still may be. Whoever is told may not hear it.
    Land { draft: usize, heard: bool },
    /// A worker hears what it was given.
    Hear { worker: usize },
    /// A worker looks whether the execution is cancelled, and starts the tool if not.
    Begin { worker: usize },
    /// The tool ends, well or not; the worker has something to report.
    End { worker: usize, well: bool },
    /// The worker was told to stop the tool, and did.
    Stop { worker: usize },
    /// The lease of a session that is gone has run out.
    Lose { session: SessionId, execution: ExecutionId },
    /// A lost attempt has not been heard of for ages.
    Forget { session: SessionId, execution: ExecutionId },
    /// The cascade visits an execution.
    Visit { cascade: usize, execution: ExecutionId },
    /// (A mistake only.) The cascade lists the children of an execution that it has not fenced yet.
    List { cascade: usize, execution: ExecutionId },
    /// (A mistake only.) A child is born apart from its parent.
    Bear { birth: usize },
    /// (A mistake only.) The server writes down what it has only remembered.
    Remember { due: usize },
    /// Somebody cancels one execution, with mode `finish`.
    Cancel { execution: ExecutionId },
    /// Somebody pauses one execution.
    Pause { execution: ExecutionId },
    /// Somebody resumes it: sooner or later somebody does.
    Resume { execution: ExecutionId },
    /// Somebody stops one command, and the child that it waits for.
    StopStep { execution: ExecutionId, command: CommandId },
    /// Somebody cancels a family, with mode `interrupt`.
    CancelFamily { execution: ExecutionId },
    /// The server dies where it stands and comes back.
    CrashServer,
    /// A worker dies with its tool and comes back under a new session.
    CrashWorker { worker: usize },
    /// A worker is cut off until its lease has run out; its tool runs on.
    Silence { worker: usize },
}

/// Why the server decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Cause {
    /// A worker's report.
    Report(usize),
    /// An obligation.
    Due(DueKind, i64),
}

/// Something decided that has not been written.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) cause: DraftCause,
    pub(super) append: Append,
    /// The decision that it follows.
    pub(super) follows: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum DraftCause {
    Claim { worker: usize, command: CommandId, epoch: u32 },
    Decision(Cause),
}

/// A worker with one slot.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) session: SessionId,
    pub(super) held: Option<Held>,
    /// Said again until it is answered.
    pub(super) report: Option<Report>,
    /// Its session is over, and it does not know.
    pub(super) silenced: bool,
}

/// A command in a worker's hands.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) execution: ExecutionId,
    pub(super) command: CommandId,
    pub(super) epoch: u32,
    pub(super) runs: bool,
}

/// How many misfortunes, and wishes of people, are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Left {
    /// Cancels of one execution.
    pub cancels: u8,
    /// Cancels of the family.
    pub cascades: u8,
    /// Pauses of one execution.
    pub pauses: u8,
    /// Stops of one command.
    pub stops: u8,
    /// Crashes of the server.
    pub server_crashes: u8,
    /// Crashes of a worker.
    pub worker_crashes: u8,
    /// Workers cut off until their lease has run out.
    pub silences: u8,
    /// Answers that do not arrive.
    pub unheard: u8,
    /// Tools that fail.
    pub failures: u8,
}

#[derive(Clone)]
pub(super) struct State {
    pub(super) tables: Tables,
    pub(super) drafts: Vec<Draft>,
    pub(super) workers: [Worker; WORKERS],
    /// Sessions that will never poll again.
    pub(super) gone: Vec<SessionId>,
    pub(super) left: Left,
    /// (A mistake only.) Children decided and not yet born.
    pub(super) births: Vec<Append>,
    /// (A mistake only.) Obligations that only the server knows.
    pub(super) remembered: Vec<Due>,
}

impl State {
    pub(super) fn new(left: Left) -> Self {
        State {
            tables: Tables::default(),
            drafts: Vec::new(),
            workers: std::array::from_fn(|worker| Worker::new(SessionId(worker as i64 * LIVES + 1))),
            gone: Vec::new(),
            left,
            births: Vec::new(),
            remembered: Vec::new(),
        }
    }

    /// Returns a number that two different states do not share (by chance in 2^64), and two equal ones do. Ids are made
    /// from the place in the log, so the order in which other things happened does not show in them.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.tables.hash_into(&mut hasher);
        for draft in &self.drafts {
            (draft.cause, draft.append.execution_id, draft.follows).hash(&mut hasher);
        }
        for worker in &self.workers {
            (worker.session, worker.held, worker.silenced).hash(&mut hasher);
            let report = worker.report.as_ref();
            report.map(|report| (report.command_id, report.epoch, format!("{:?}", report.outcome))).hash(&mut hasher);
        }
        (&self.gone, self.left).hash(&mut hasher);
        for birth in &self.births {
            birth.execution_id.hash(&mut hasher);
        }
        for due in &self.remembered {
            (due.execution_id, due.kind, due.key).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Returns what may happen now: what goes on by itself, and what needs a misfortune or somebody's wish.
    pub(super) fn actions(&self, list_first: bool) -> (Vec<Action>, Vec<Action>) {
        let mut progress = Vec::new();
        let drafted = |cause| self.drafts.iter().any(|draft| draft.cause == cause);
        for draft in 0..self.drafts.len() {
            progress.push(Action::Land { draft, heard: true });
        }
        for (number, worker) in self.workers.iter().enumerate() {
            let told = worker.held.is_some() || worker.report.is_some() || worker.silenced;
            let given = |row: &&noetl_core::head::CommandRow| {
                let holder = row.holder.as_ref().map(|holder: &Holder| holder.session_id);
                row.state == CommandState::Claimed && holder == Some(worker.session)
            };
            let claims = self.tables.rows().find(given).is_some();
            let offered = self
                .drafts
                .iter()
                .any(|draft| matches!(draft.cause, DraftCause::Claim { worker, .. } if worker == number));
            if !told && claims {
                progress.push(Action::Hear { worker: number });
            }
            if !told && !claims && !offered {
                for row in self.tables.rows().filter(|row| row.state == CommandState::Pending) {
                    let (execution, command, epoch) = (row.execution_id, row.command_id, row.epoch);
                    progress.push(Action::Offer { worker: number, execution, command, epoch });
                }
            }
            if let Some(held) = &worker.held {
                if held.runs {
                    progress.push(Action::End { worker: number, well: true });
                    if self.may_stop(number) {
                        progress.push(Action::Stop { worker: number });
                    }
                } else {
                    progress.push(Action::Begin { worker: number });
                }
            }
            if let Some(report) = &worker.report
                && !self.decides(report.execution_id)
            {
                let cause = Cause::Report(number);
                progress.push(Action::Decide { execution: report.execution_id, cause });
            }
        }
        for (execution, kind, key) in self.tables.due.keys().copied() {
            // What would begin something waits in the tables.
            if self.is_paused(execution) && kind.waits_while_paused() {
                continue;
            }
            let begins = !self.decides(execution) && !drafted(DraftCause::Decision(Cause::Due(kind, key)));
            if begins && self.must_be_met(execution, kind, key) {
                progress.push(Action::Decide { execution, cause: Cause::Due(kind, key) });
            }
        }
        for session in &self.gone {
            for execution in self.tables.held(*session, CommandState::Claimed) {
                progress.push(Action::Lose { session: *session, execution });
            }
            // Whoever still runs it will say so.
            let lives = self.workers.iter().any(|worker| worker.session == *session);
            for execution in self.tables.held(*session, CommandState::Lost).into_iter().filter(|_| !lives) {
                progress.push(Action::Forget { session: *session, execution });
            }
        }
        for (cascade, known) in self.tables.cascades.iter().enumerate() {
            for execution in known.front.iter().copied() {
                progress.push(match list_first {
                    true => Action::List { cascade, execution },
                    false => Action::Visit { cascade, execution },
                });
            }
            progress.extend(known.listed.iter().map(|execution| Action::Visit { cascade, execution: *execution }));
        }
        let paused = self.tables.seats.keys().filter(|execution| self.is_paused(**execution));
        progress.extend(paused.map(|execution| Action::Resume { execution: *execution }));
        progress.extend((0..self.births.len()).map(|birth| Action::Bear { birth }));
        progress.extend((0..self.remembered.len()).map(|due| Action::Remember { due }));
        (progress, self.mishaps())
    }

    fn mishaps(&self) -> Vec<Action> {
        let mut mishaps = Vec::new();
        let left = &self.left;
        for seat in self.tables.seats.values().filter(|seat| seat.member.head.is_active()) {
            let execution = seat.member.head.execution_id;
            if left.cancels > 0 {
                mishaps.push(Action::Cancel { execution });
            }
            if left.pauses > 0 && seat.member.head.pause.is_none() {
                mishaps.push(Action::Pause { execution });
            }
            if left.cascades > 0 && seat.member.head.depth == 0 {
                mishaps.push(Action::CancelFamily { execution });
            }
        }
        if left.stops > 0 {
            let live = self.tables.rows().filter(|row| row.state != CommandState::Lost && row.stopping.is_none());
            let of_active = live.filter(|row| {
                self.tables.seats.get(&row.execution_id).is_some_and(|seat| seat.member.head.is_active())
            });
            mishaps
                .extend(of_active.map(|row| Action::StopStep { execution: row.execution_id, command: row.command_id }));
        }
        // Time passes as it likes: a limit may be over at any moment, or never before the end.
        for (execution, kind, key) in self.tables.due.keys().copied() {
            if self.may_run_out(execution, kind) {
                mishaps.push(Action::Decide { execution, cause: Cause::Due(kind, key) });
            }
        }
        if left.server_crashes > 0 && !(self.drafts.is_empty() && self.births.is_empty() && self.remembered.is_empty())
        {
            mishaps.push(Action::CrashServer);
        }
        for (worker, state) in self.workers.iter().enumerate() {
            let busy = state.held.is_some() || state.report.is_some();
            if left.worker_crashes > 0 && busy {
                mishaps.push(Action::CrashWorker { worker });
            }
            if left.silences > 0 && busy && !state.silenced {
                mishaps.push(Action::Silence { worker });
            }
            if left.failures > 0 && state.held.is_some_and(|held| held.runs) {
                mishaps.push(Action::End { worker, well: false });
            }
        }
        if left.unheard > 0 {
            for (draft, state) in self.drafts.iter().enumerate() {
                if matches!(state.cause, DraftCause::Decision(Cause::Report(_))) {
                    mishaps.push(Action::Land { draft, heard: false });
                }
            }
        }
        mishaps
    }

    /// A server decides for one execution at a time.
    fn decides(&self, execution: ExecutionId) -> bool {
        self.drafts
            .iter()
            .any(|draft| draft.append.execution_id == execution && matches!(draft.cause, DraftCause::Decision(_)))
    }

    /// Returns whether an obligation is one that has to be met sooner or later, and that can be met now.
    fn must_be_met(&self, execution: ExecutionId, kind: DueKind, key: i64) -> bool {
        if !self.is_active(execution) {
            // It goes with its execution.
            return true;
        }
        match kind {
            DueKind::Timer | DueKind::Continue | DueKind::ChildDone => true,
            DueKind::Timeout | DueKind::StepTimeout | DueKind::Displaced => false,
            // What a worker holds it is told, see `may_stop`; the order is given again until it has answered.
            DueKind::GraceEnd => !self
                .tables
                .rows()
                .any(|row| (row.execution_id, row.command_id.0, row.state) == (execution, key, CommandState::Claimed)),
            DueKind::CancelChild => !self.tables.is_begun(execution, BY_PARENT),
        }
    }

    /// Returns whether an obligation is a time limit that has not been over yet.
    fn may_run_out(&self, execution: ExecutionId, kind: DueKind) -> bool {
        match kind {
            DueKind::Timeout => self.is_active(execution) && !self.tables.is_begun(execution, BY_TIMEOUT),
            DueKind::StepTimeout => self.is_active(execution),
            DueKind::Timer
            | DueKind::Continue
            | DueKind::ChildDone
            | DueKind::GraceEnd
            | DueKind::CancelChild
            | DueKind::Displaced => false,
        }
    }

    pub(super) fn is_active(&self, execution: ExecutionId) -> bool {
        self.tables.seats.get(&execution).is_some_and(|seat| seat.member.head.is_active())
    }

    fn is_paused(&self, execution: ExecutionId) -> bool {
        self.tables.seats.get(&execution).is_some_and(|seat| seat.member.head.pause.is_some())
    }

    fn may_stop(&self, worker: usize) -> bool {
        let worker = &self.workers[worker];
        let Some(held) = worker.held.filter(|_| !worker.silenced) else { return false };
        let seat = self.tables.seats.get(&held.execution);
        let ordered = (held.execution, DueKind::GraceEnd, held.command.0);
        if self.tables.due.contains_key(&ordered) && self.is_active(held.execution) {
            return true;
        }
        let cancel = seat.and_then(|seat| seat.member.head.cancel.as_ref());
        cancel.is_some_and(|cancel| cancel.mode == noetl_core::playbook::CancelMode::Interrupt)
    }

    /// The worker begins a new life; what it held is for its lease to lose.
    pub(super) fn renew(&mut self, worker: usize) {
        let session = self.workers[worker].session;
        if !self.gone.contains(&session) {
            self.gone.push(session);
        }
        self.workers[worker] = Worker::new(SessionId(session.0 + 1));
    }

    pub(super) fn due(&self, key: DueKey) -> Option<&Due> {
        self.tables.due.get(&key)
    }
}

impl Worker {
    fn new(session: SessionId) -> Self {
        Worker { session, held: None, report: None, silenced: false }
    }
}
