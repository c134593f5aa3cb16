//! Driving: takes what waits for an execution, has it decided on one draft, commits, answers.
//!
//! One task at a time decides for an execution in this process. Losing a race to another server is normal: read what
//! it wrote, decide again; after two lost races decide under the lock, where nothing can come in between.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use noetl_core::append::{Append, Guard, RefusedBy, Verdict};
use noetl_core::control::settle;
use noetl_core::execution::draft::Draft;
use noetl_core::execution::state::Execution;
use noetl_core::execution::{Env, Hand, Input, Needs, Refusal};
use noetl_core::head::CommandState;
use noetl_core::id::{ExecutionId, IdSource};
use noetl_core::playbook::Playbook;
use noetl_core::time::Timestamp;
use noetl_core::work::{Report, Reported};
use noetl_store::StoreError;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::catalog::Stock;
use crate::desk::Promise;
use crate::engine::Engine;
use crate::hold;
use crate::landing::{Fold, Landing, Whose};
use crate::lock::UnderLock;
use crate::mailbox::Letter;

/// Executions decided for at the same time.
const DRIVES_MAX: usize = 512;
/// Races lost before a decision is made under the lock.
const CONFLICTS_MAX: u32 = 2;
/// How often a decision may ask for something to be loaded.
const NEEDS_MAX: u32 = 64;

/// Drives whatever is ready until the mailboxes are shut.
pub(crate) async fn run(engine: Arc<Engine>) {
    let mut drives = JoinSet::new();
    loop {
        let room = DRIVES_MAX - drives.len();
        tokio::select! {
            biased;
            Some(_) = drives.join_next() => {}
            ready = engine.mailboxes.ready.take(room), if room > 0 => {
                if ready.is_empty() {
                    return;
                }
                for execution_id in ready {
                    drives.spawn(drive(Arc::clone(&engine), execution_id));
                }
            }
        }
    }
}

async fn drive(engine: Arc<Engine>, execution_id: ExecutionId) {
    loop {
        let letters = engine.mailboxes.open(execution_id);
        if letters.is_empty() {
            return;
        }
        let answered = AssertUnwindSafe(engine.answer(execution_id, letters)).catch_unwind().await;
        if answered.is_err() {
            tracing::error!(%execution_id, "deciding failed: this is a mistake of ours; the execution is left alone");
            engine.mailboxes.quarantine(execution_id);
            return;
        }
    }
}

/// What a decision made of one letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is part of the append.
    Decided,
    /// It changes nothing: it is about something that is over.
    Moot,
}

/// What was decided on one state.
enum Decided {
    /// Something must be loaded first.
    Needs(Needs),
    /// This is to be written, if anything.
    Done(Vec<Fate>, Option<Box<(Execution, Append)>>),
}

/// All that a decision reads besides the state.
#[derive(Clone)]
struct Reading {
    playbook: Arc<Playbook>,
    stock: Stock,
    environment: Arc<Value>,
}

impl Reading {
    fn decide<'a>(
        &self,
        state: &Execution,
        inputs: impl Iterator<Item = &'a Input>,
        now: Timestamp,
        ids: &mut IdSource,
        hands: &mut Vec<Hand>,
    ) -> Decided {
        let mut env = Env {
            playbook: &self.playbook,
            now,
            ids,
            library: &self.stock.library,
            books: &self.stock.books,
            environment: &self.environment,
            hands,
        };
        let mut draft = Draft::new(state.clone());
        let mut fates = Vec::new();
        for input in inputs {
            fates.push(match draft.decide(input, &mut env) {
                Ok(()) => Fate::Decided,
                // What waits for the end of a pause stands in the tables: the letter is not needed.
                Err(Refusal::Stale | Refusal::Ended(_) | Refusal::Paused) => Fate::Moot,
                Err(Refusal::Needs(needs)) => return Decided::Needs(needs),
            });
        }
        let write = if draft.is_empty() { None } else { Some(Box::new(draft.finish())) };
        Decided::Done(fates, write)
    }
}

impl Engine {
    /// Decides what waits for an execution and tells whoever wants to know.
    async fn answer(&self, execution_id: ExecutionId, mut letters: Vec<Letter>) {
        self.metrics.inputs.add(letters.len() as u64);
        let mut slots = Promise::none(&self.desk);
        for letter in &mut letters {
            if let Some(slot) = letter.slot.take() {
                slots.join(slot);
            }
        }
        if self.executions.has_ended(execution_id) {
            drop(slots);
            return self.late(execution_id, letters).await;
        }
        match self.decide_and_write(execution_id, &letters, slots).await {
            Ok(fates) => {
                let mut moot = Vec::new();
                for (letter, fate) in letters.into_iter().zip(fates) {
                    match fate {
                        Fate::Decided => letter.answer(true),
                        Fate::Moot => moot.push(letter),
                    }
                }
                if !moot.is_empty() {
                    self.late(execution_id, moot).await;
                }
            }
            Err(error) => {
                self.failed(execution_id, &error);
                for letter in letters {
                    letter.answer(false);
                }
            }
        }
    }

    /// Decides one input for whoever waits for the answer: `false` when it changes nothing. What is decided for the
    /// execution at the same time is kept apart by the guards.
    pub(crate) async fn decide_now(&self, execution_id: ExecutionId, input: Input) -> Result<bool, StoreError> {
        let letters = [Letter::of(input)];
        let fates = self.decide_and_write(execution_id, &letters, Promise::none(&self.desk)).await?;
        Ok(fates == [Fate::Decided])
    }

    async fn decide_and_write(
        &self,
        execution_id: ExecutionId,
        letters: &[Letter],
        mut slots: Promise,
    ) -> Result<Vec<Fate>, StoreError> {
        let all_moot = || vec![Fate::Moot; letters.len()];
        let mut at_hand = self.executions.get(execution_id);
        // A state read after the letters had come: what it calls moot is moot.
        let mut fresh = false;
        let (mut conflicts, mut needed) = (0, 0);
        let mut stock = Stock::default();
        loop {
            let state = match at_hand.take() {
                Some(state) => state,
                None => {
                    fresh = true;
                    match self.load(execution_id).await? {
                        Some(state) => state,
                        None => return Ok(all_moot()),
                    }
                }
            };
            if state.status.is_terminal() {
                self.executions.end(execution_id);
                return Ok(all_moot());
            }
            let playbook = self.compiled(state.init.catalog_id).await?;
            let reading = Reading { playbook, stock, environment: Arc::clone(&self.options.environment) };
            if conflicts > CONFLICTS_MAX {
                drop(slots);
                let mut reading = reading;
                reading.stock.forget_holders();
                return self.decide_locked(state, letters, reading).await;
            }
            let now = self.now().await?;
            slots.join(self.desk.spare());
            let mut hands = slots.hands();
            let inputs = letters.iter().map(|letter| &letter.input);
            let decided = reading.decide(&state, inputs, now, &mut hold(&self.ids), &mut hands);
            stock = reading.stock;
            match decided {
                Decided::Needs(needs) => {
                    needed += 1;
                    if needed > NEEDS_MAX {
                        return Err(StoreError::Corrupt(format!("a decision asks for ever more: {needs:?}")));
                    }
                    self.fetch(needs, &mut stock).await?;
                    at_hand = Some(state);
                }
                Decided::Done(fates, None) => {
                    if fresh || fates.iter().all(|fate| *fate == Fate::Decided) {
                        return Ok(fates);
                    }
                    // What is moot here may have been made by another server since.
                    at_hand = self.refresh(state).await?;
                    fresh = true;
                }
                Decided::Done(fates, Some(write)) => {
                    let (after, append) = *write;
                    slots.keep_used(&hands);
                    let whose = Whose::of_init(&after.init);
                    let landing = Landing::of(&append, &whose, Fold::State(Box::new(after))).with(slots);
                    let (verdict, landing) = self.batcher.append(append, landing).await;
                    slots = landing.and_then(|landing| landing.promise).unwrap_or_else(|| Promise::none(&self.desk));
                    match verdict? {
                        // Landing proves that the state was the newest one, so what it called moot is moot.
                        Verdict::Landed { .. } => return Ok(fates),
                        Verdict::Conflict => {
                            self.metrics.conflicts.add_one();
                            conflicts += 1;
                            at_hand = self.refresh(state).await?;
                            fresh = true;
                        }
                        // A child's concurrency key has changed hands: who has it is looked at anew.
                        Verdict::Refused(RefusedBy::KeyHeld) => {
                            needed += 1;
                            if needed > NEEDS_MAX {
                                return Err(StoreError::Unavailable("a concurrency key changes hands too fast".into()));
                            }
                            stock.forget_holders();
                            at_hand = Some(state);
                        }
                        Verdict::Busy => {
                            conflicts += 1;
                            at_hand = Some(state);
                        }
                        // Cancelled in the meantime.
                        Verdict::Refused(RefusedBy::Ended) => {
                            self.executions.end(execution_id);
                            return Ok(all_moot());
                        }
                        Verdict::Refused(RefusedBy::Unknown) => {
                            self.executions.forget(execution_id);
                            return Ok(all_moot());
                        }
                        Verdict::Refused(
                            by @ (RefusedBy::NotPending
                            | RefusedBy::Exists
                            | RefusedBy::ParentUnknown
                            | RefusedBy::ParentEnded
                            | RefusedBy::TickTaken),
                        ) => {
                            return Err(StoreError::BadData(format!("a decision was refused: {by:?}")));
                        }
                    }
                }
            }
        }
    }

    /// Decides under the lock of the head, where no race can be lost.
    async fn decide_locked(
        &self,
        state: Arc<Execution>,
        letters: &[Letter],
        mut reading: Reading,
    ) -> Result<Vec<Fate>, StoreError> {
        enum Outcome {
            Decided(Decided),
            Ended,
            Broken(String),
        }
        let execution_id = state.execution_id;
        let inputs: Arc<Vec<Input>> = Arc::new(letters.iter().map(|letter| letter.input.clone()).collect());
        for _ in 0..NEEDS_MAX {
            let outcome: Arc<Mutex<Option<Outcome>>> = Arc::default();
            let shared = Arc::new(reading);
            let (seen, known, inputs, read) =
                (Arc::clone(&outcome), Arc::clone(&state), Arc::clone(&inputs), Arc::clone(&shared));
            let decide = move |locked: &noetl_store::LockedView, ids: &mut IdSource| {
                let note = |outcome| *hold(&seen) = Some(outcome);
                if !locked.view.head.is_active() {
                    note(Outcome::Ended);
                    return None;
                }
                let mut state = (*known).clone();
                for recorded in &locked.tail {
                    if let Err(error) = state.follow(recorded) {
                        note(Outcome::Broken(error.to_string()));
                        return None;
                    }
                }
                (state.version, state.decided) = (locked.view.head.version, locked.view.head.decided);
                match read.decide(&state, inputs.iter(), locked.now, ids, &mut Vec::new()) {
                    Decided::Done(fates, Some(write)) => {
                        let (after, mut append) = *write;
                        append.guard = Guard::Locked;
                        note(Outcome::Decided(Decided::Done(fates, None)));
                        let whose = Whose::of_init(&after.init);
                        let landing = Landing::of(&append, &whose, Fold::State(Box::new(after)));
                        Some((append, landing))
                    }
                    other @ (Decided::Done(_, None) | Decided::Needs(_)) => {
                        note(Outcome::Decided(other));
                        None
                    }
                }
            };
            let mut stock = shared.stock.clone();
            match self.under_lock_with(execution_id, Some(state.version), decide).await? {
                UnderLock::Wrote | UnderLock::Nothing => {}
                // A child's concurrency key has changed hands since it was looked at; the lock of the head holds no key.
                UnderLock::KeyHeld => {
                    stock.forget_holders();
                    reading = Reading { stock, ..Reading::clone(&shared) };
                    continue;
                }
            }
            let outcome = hold(&outcome).take();
            match outcome {
                // Nobody was asked: there is no such execution (any more).
                None => return Ok(vec![Fate::Moot; letters.len()]),
                Some(Outcome::Ended) => {
                    self.executions.end(execution_id);
                    return Ok(vec![Fate::Moot; letters.len()]);
                }
                Some(Outcome::Broken(what)) => return Err(StoreError::Corrupt(what)),
                Some(Outcome::Decided(Decided::Done(fates, _))) => return Ok(fates),
                Some(Outcome::Decided(Decided::Needs(needs))) => {
                    self.fetch(needs, &mut stock).await?;
                    reading = Reading { stock, ..Reading::clone(&shared) };
                }
            }
        }
        Err(StoreError::Corrupt("a decision asks for ever more".into()))
    }

    /// Sees to letters that no workflow decision takes: reports are settled under the lock, the rest is moot.
    async fn late(&self, execution_id: ExecutionId, letters: Vec<Letter>) {
        let mut met = Vec::new();
        for letter in letters {
            match &letter.input {
                Input::Report(report, worker_id) => {
                    let settled = self.settle(execution_id, report, worker_id).await;
                    if let Err(error) = &settled {
                        self.failed(execution_id, error);
                    }
                    letter.answer(matches!(settled, Ok(true)));
                }
                Input::Continue | Input::Timer(_) | Input::ChildEnded(..) | Input::CompleteLoop(_) => {
                    // Deleted only if the execution has ended; on an active one whoever made it moot deletes it.
                    met.extend(letter.due.clone());
                    letter.answer(true);
                }
            }
        }
        if !met.is_empty()
            && let Err(error) = self.store.forget_due(met).await
        {
            self.failed(execution_id, &error);
        }
    }

    /// Settles a report under the lock; `false` when the workflow should have decided it: it is to be repeated.
    async fn settle(
        &self,
        execution_id: ExecutionId,
        report: &Report,
        worker_id: &Arc<str>,
    ) -> Result<bool, StoreError> {
        let behind = Arc::new(Mutex::new(false));
        let (seen, told, worker_id) = (Arc::clone(&behind), report.clone(), Arc::clone(worker_id));
        let wrote = self
            .under_lock(execution_id, None, move |locked, ids| {
                let held = locked.view.commands.iter().any(|row| {
                    row.command_id == told.command_id && row.epoch == told.epoch && row.state == CommandState::Claimed
                });
                let append = settle::decide(&locked.view, &told, &worker_id, locked.now, ids);
                *hold(&seen) = held && append.is_none() && locked.view.head.is_active();
                append
            })
            .await?;
        let behind = *hold(&behind);
        if behind {
            self.executions.forget(execution_id);
            return Ok(false);
        }
        let counts = match report.outcome {
            Reported::Released => false,
            Reported::Started { .. } | Reported::Done(_) | Reported::Suspended(_) | Reported::Cancelled { .. } => wrote,
        };
        if counts {
            self.metrics.reports_late.add_one();
        }
        Ok(true)
    }

    fn failed(&self, execution_id: ExecutionId, error: &StoreError) {
        self.metrics.store_errors.add_one();
        match error {
            StoreError::BadData(_) | StoreError::Corrupt(_) | StoreError::Closed(_) => {
                tracing::error!(%execution_id, %error, "the execution can not go on; it is left alone for a while");
                self.executions.forget(execution_id);
                self.mailboxes.quarantine(execution_id);
            }
            StoreError::Full(_) | StoreError::Query(_) | StoreError::Unavailable(_) => {
                tracing::warn!(%execution_id, %error, "the store could not do it; it is tried again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use noetl_core::event::Event;
    use noetl_core::execution::CompleteLoop;
    use noetl_core::head::Status;
    use noetl_core::playbook::CancelMode;
    use noetl_store::EventQuery;
    use noetl_store::catalog::ResourceKey;
    use noetl_store::memory::MemoryStore;

    use super::*;
    use crate::engine::EngineOptions;
    use crate::start::StartRequest;

    async fn start(engine: &Engine, path: &str) -> ExecutionId {
        let request = StartRequest {
            target: ResourceKey::Latest(path.into()),
            payload: serde_json::Map::new(),
            parent_execution_id: None,
            started_by: None,
            strict: false,
            labels: noetl_core::labels::Labels::new(),
            idempotency_key: None,
        };
        engine.start(request).await.unwrap().execution_id
    }

    /// The race: somebody takes a child's concurrency key between the look at who has it and the lock of the parent's
    /// head. Then who has it is looked at anew, and the execution goes on.
    #[tokio::test]
    async fn a_key_that_is_taken_before_the_lock_is_looked_at_again() {
        let engine = Engine::new(
            Arc::new(MemoryStore::new(Arc::new(|| Timestamp(1_768_900_080_123)))),
            EngineOptions::default(),
        );
        let running = engine.spawn();
        let book = |path: &str, rest: &str| {
            format!("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: {path}, path: {path}}}\n{rest}")
        };
        let noop = "tool: {kind: noop}, spec: {run_on: worker}";
        let key = "executor: {spec: {concurrency: {key: the key, on_conflict: reject}}}";
        engine.register(&book("child", &format!("{key}\nworkflow: [{{step: start, {noop}}}]")), None).await.unwrap();
        let parent = format!(
            "workflow:\n- {{step: each, loop: {{in: [1], iterator: n}}, {noop}, next: {{arcs: [{{step: call}}]}}}}\n\
             - {{step: call, tool: {{kind: playbook, path: child}}}}\n"
        );
        engine.register(&book("parent", &parent), None).await.unwrap();
        let id = start(&engine, "parent").await;
        let state = engine.load(id).await.unwrap().unwrap();
        let mut stock = Stock::default();
        engine.fetch(Needs { keys: vec!["the key".into()], ..Needs::default() }, &mut stock).await.unwrap();
        let holder = start(&engine, "child").await;
        let reading = Reading {
            playbook: engine.compiled(state.init.catalog_id).await.unwrap(),
            stock,
            environment: Arc::clone(&engine.options.environment),
        };
        let complete =
            CompleteLoop { step: "each".into(), mode: Some(CancelMode::Interrupt), by: "test".into(), reason: None };
        let letters = [Letter::of(Input::CompleteLoop(Box::new(complete)))];
        let fates = engine.decide_locked(state, &letters, reading).await.unwrap();
        assert_eq!(fates, [Fate::Decided]);
        let query = EventQuery { execution_id: Some(id), limit: 100, ..EventQuery::default() };
        let (log, _) = engine.store.events(query).await.unwrap();
        let refused = log.iter().any(|recorded| {
            let Event::StepExit(exited) = &recorded.event else { return false };
            exited.error.as_ref().is_some_and(|error| error["code"] == "CONCURRENCY_KEY_HELD")
        });
        assert!(refused, "{log:#?}");
        assert_eq!(engine.store.head(holder).await.unwrap().unwrap().status, Status::Running);
        running.stop().await;
    }
}
