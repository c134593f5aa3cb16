//! A desk: runs an execution through the pure core, with functions for tools and a list for a store.
//!
//! Every append is folded from scratch as well: the state that a draft ends with must be the state that its events
//! fold to, and the log must keep every property.

use std::collections::BTreeMap;
use std::sync::Arc;

use noetl_core::append::{Append, CommandChange, DueChange, DueKind, Guard};
use noetl_core::concurrency::{BY_CONCURRENCY, KeyHolder};
use noetl_core::control::cancel::{self, Answer, Request};
use noetl_core::control::stop;
use noetl_core::event::{Event, Recorded, row};
use noetl_core::execution::draft::{Draft, StartRefusal, start};
use noetl_core::execution::state::Execution;
use noetl_core::execution::{Book, BookKey, Books, Env, Input, Needs, Refusal, Start};
use noetl_core::expr::Library;
use noetl_core::head::{CommandRow, CommandState, Head, HeadView, Holder, Status};
use noetl_core::id::{CatalogId, CommandId, EventId, ExecutionId, IdSource, SessionId};
use noetl_core::labels::Labels;
use noetl_core::pipeline::{Next, Pipeline, Place};
use noetl_core::playbook::{CancelMode, Playbook, compile};
use noetl_core::properties::{Member, check_family};
use noetl_core::result::Bound;
use noetl_core::time::Timestamp;
use noetl_core::tool::{ToolCall, ToolOutcome};
use noetl_core::work::{ChildOutcome, Report, Reported, Work};
use serde_json::{Map, Value, json};

type Tool = Box<dyn FnMut(&ToolCall) -> ToolOutcome>;

/// Runs one family.
pub(crate) struct Desk {
    pub(crate) now: Timestamp,
    pub(crate) ids: IdSource,
    pub(crate) members: BTreeMap<ExecutionId, Seat>,
    books: Books,
    playbooks: BTreeMap<CatalogId, Arc<Playbook>>,
    /// Large results, as the table holds them: decisions and workers say which of them they need.
    results: BTreeMap<String, Arc<Value>>,
    tool: Tool,
    /// Every tool call, as `step/label`.
    pub(crate) calls: Vec<String>,
    /// Ends of children that their parents have still to hear of, by the parent and the key, as the tables hold them.
    ends: BTreeMap<(ExecutionId, i64), Input>,
}

/// One execution at the desk.
pub(crate) struct Seat {
    pub(crate) head: Head,
    pub(crate) execution: Execution,
    pub(crate) events: Vec<Recorded>,
    pub(crate) commands: Vec<CommandRow>,
    timers: BTreeMap<(DueKind, i64), Timestamp>,
}

/// What became of a run.
pub(crate) struct Ran {
    pub(crate) desk: Desk,
    pub(crate) id: ExecutionId,
}

/// A cancel of `requested` that stops what runs, with what is below it if `cascade`.
pub(crate) fn interrupt(requested: ExecutionId, by: &str, cascade: bool) -> Request {
    Request {
        requested_execution_id: requested,
        job_id: None,
        reason: None,
        cancelled_by: by.to_owned(),
        requested_by: None,
        remote: None,
        cascade,
        mode: Some(CancelMode::Interrupt),
        default_mode: CancelMode::Finish,
        grace_ms: None,
        idempotency_key: None,
    }
}

/// Runs `playbook` to its end with a tool that answers `{"step", "input"}`.
pub(crate) fn run(playbook: &str) -> Ran {
    run_with(playbook, json!({}), |call| ToolOutcome::ok(json!({ "step": &*call.step, "input": call.input.clone() })))
}

/// Runs `playbook` to its end with the given payload and tool.
pub(crate) fn run_with(playbook: &str, payload: Value, tool: impl FnMut(&ToolCall) -> ToolOutcome + 'static) -> Ran {
    let mut desk = Desk::new(&[playbook], tool);
    let id = desk.start(0, payload);
    desk.run();
    Ran { desk, id }
}

impl Desk {
    pub(crate) fn new(playbooks: &[&str], tool: impl FnMut(&ToolCall) -> ToolOutcome + 'static) -> Self {
        let mut desk = Desk {
            now: Timestamp(1_768_900_000_000),
            ids: IdSource::new(1),
            members: BTreeMap::new(),
            books: Books::default(),
            playbooks: BTreeMap::new(),
            results: BTreeMap::new(),
            tool: Box::new(tool),
            calls: Vec::new(),
            ends: BTreeMap::new(),
        };
        for (number, source) in playbooks.iter().enumerate() {
            let playbook = match compile(&document(source, number)) {
                Ok(compiled) => Arc::new(compiled.playbook),
                Err(diagnostics) => panic!("{diagnostics:#?}"),
            };
            let catalog_id = CatalogId(number as i64 + 1);
            let book = Book { catalog_id, version: 1, playbook: Arc::clone(&playbook) };
            desk.books.known.insert(BookKey::Newest(Arc::clone(&playbook.path)), Some(book.clone()));
            desk.books.known.insert(BookKey::Id(catalog_id), Some(book));
            desk.playbooks.insert(catalog_id, playbook);
        }
        desk
    }

    /// Starts the playbook at `number`.
    pub(crate) fn start(&mut self, number: usize, payload: Value) -> ExecutionId {
        self.start_as(number, payload, false)
    }

    /// Starts the playbook at `number`, strictly or not.
    pub(crate) fn start_as(&mut self, number: usize, payload: Value, strict: bool) -> ExecutionId {
        self.try_start(number, payload, strict).unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    /// Starts the playbook at `number`, or says why not.
    pub(crate) fn try_start(
        &mut self,
        number: usize,
        payload: Value,
        strict: bool,
    ) -> Result<ExecutionId, StartRefusal> {
        self.look_at_keys([]);
        let execution_id = ExecutionId(self.ids.next(self.now));
        let catalog_id = CatalogId(number as i64 + 1);
        let Value::Object(payload) = payload else { panic!("a payload is a mapping") };
        let request = Start {
            execution_id,
            catalog_id,
            version: 1,
            payload,
            parent: None,
            started_by: None,
            strict,
            labels: Labels::new(),
            rerun: None,
        };
        let playbook = Arc::clone(&self.playbooks[&catalog_id]);
        let environment = Arc::new(json!({ "HOME": "/home/ann" }));
        let mut env = Env {
            playbook: &playbook,
            now: self.now,
            ids: &mut self.ids,
            library: &Arc::new(Library::empty()),
            books: &self.books,
            environment: &environment,
            hands: &mut Vec::new(),
        };
        match start(&request, &mut env) {
            Ok((_, append)) => self.land(append),
            Err(StartRefusal::Needs(needs)) => {
                self.books.known.extend(needs.playbooks.into_iter().map(|key| (key, None)));
                self.look_at_keys(needs.keys);
                return self.try_start(number, Value::Object(request.payload), strict);
            }
            Err(refusal) => return Err(refusal),
        }
        Ok(execution_id)
    }

    /// Reads who has the concurrency keys that are known, and these.
    fn look_at_keys(&mut self, keys: impl IntoIterator<Item = Arc<str>>) {
        let known: Vec<_> = self.books.holders.keys().cloned().chain(keys).collect();
        for key in known {
            let heads = self.members.values().map(|seat| &seat.head);
            let with_it =
                heads.filter(|head| head.concurrency_key.as_ref() == Some(&key) && head.quiesced_at.is_none());
            let holders = with_it.map(|head| KeyHolder {
                execution_id: head.execution_id,
                active: head.is_active(),
                started_at: head.started_at,
            });
            let holders = holders.collect();
            self.books.holders.insert(key, holders);
        }
    }

    /// Returns an execution that has to give way: at once, before it does anything more.
    fn displaced(&self) -> Option<(ExecutionId, i64)> {
        let mut all =
            self.members.iter().flat_map(|(id, seat)| seat.timers.keys().map(|(kind, key)| (*id, *kind, *key)));
        all.find(|(_, kind, _)| *kind == DueKind::Displaced).map(|(id, _, key)| (id, key))
    }

    /// Another execution has taken the place of this one.
    fn displace(&mut self, id: ExecutionId) {
        self.cancel(id, &interrupt(id, BY_CONCURRENCY, true));
    }

    /// Runs everything to its end, jumping to the next timer when nothing else is to be done.
    pub(crate) fn run(&mut self) {
        let mut rounds = 0;
        while self.step() {
            rounds += 1;
            assert!(rounds < 100_000, "the run does not end");
        }
        self.check();
    }

    /// Does one thing; `false` when there is nothing to do.
    pub(crate) fn step(&mut self) -> bool {
        if let Some((id, key)) = self.displaced() {
            self.seat(id).timers.remove(&(DueKind::Displaced, key));
            self.displace(id);
            return true;
        }
        // What would begin something waits while its execution is paused, as the stores let it wait.
        if self.tell_of_an_end() {
            return true;
        }
        if let Some(row) = self.pending() {
            self.claim_and_work(&row);
            return true;
        }
        self.next_due()
    }

    /// Does one thing that needs no worker.
    pub(crate) fn step_without_workers(&mut self) -> bool {
        self.tell_of_an_end() || self.next_due()
    }

    /// Tells a parent that a child has ended, as often as it takes until its decision says that this is met.
    fn tell_of_an_end(&mut self) -> bool {
        let mut waiting = self.ends.iter().filter(|((id, _), _)| self.members[id].head.pause.is_none());
        let Some((key, input)) = waiting.next().map(|(key, input)| (*key, input.clone())) else { return false };
        self.decide(key.0, &[input]);
        if !self.members[&key.0].head.is_active() {
            // What is owed to an execution that has ended is forgotten, as by the sweep.
            self.ends.remove(&key);
        }
        true
    }

    /// Returns whether nothing is left to be told of the end of `child`.
    pub(crate) fn is_met(&self, parent: ExecutionId, child: ExecutionId) -> bool {
        !self.ends.contains_key(&(parent, child.0))
    }

    /// Returns the oldest pending command.
    pub(crate) fn pending(&self) -> Option<CommandRow> {
        let rows = self.members.values().flat_map(|seat| &seat.commands);
        rows.filter(|row| row.state == CommandState::Pending).min_by_key(|row| row.command_id).cloned()
    }

    fn next_due(&mut self) -> bool {
        let all = self.members.iter().flat_map(|(id, seat)| {
            let paused = seat.head.pause.is_some();
            let timers = seat.timers.iter().filter(move |(key, _)| !(paused && key.0.waits_while_paused()));
            timers.map(|(key, at)| (*at, *id, *key))
        });
        let Some((at, id, (kind, key))) = all.min() else { return false };
        self.now = self.now.max(at);
        self.seat(id).timers.remove(&(kind, key));
        let input = match kind {
            DueKind::Timer => Input::Timer(CommandId(key)),
            DueKind::Continue => Input::Continue,
            DueKind::GraceEnd => {
                self.look_again(id, CommandId(key));
                return true;
            }
            DueKind::CancelChild => {
                self.cancel_child(id);
                return true;
            }
            DueKind::ChildDone | DueKind::Timeout | DueKind::StepTimeout | DueKind::Displaced => return true,
        };
        self.decide(id, &[input]);
        true
    }

    /// Looks again at a command that was ordered to stop; what the worker holds is the test's.
    fn look_again(&mut self, id: ExecutionId, command_id: CommandId) {
        self.control(id, |view, now, ids| match stop::decide(view, command_id, None, now, ids) {
            stop::Answer::Withdrawn(append) | stop::Answer::Over(append) => Some(*append),
            stop::Answer::Ordered { mut append, .. } => {
                // Once is enough here: no order is lost at a desk.
                append.due.retain(|due| !matches!(due, DueChange::Set(due) if due.kind == DueKind::GraceEnd));
                Some(*append)
            }
            stop::Answer::Ended => None,
        });
    }

    /// Cancels a child that nobody waits for any more.
    fn cancel_child(&mut self, id: ExecutionId) {
        self.cancel(id, &interrupt(id, "parent", true));
    }

    /// Cancels as asked, and returns what the answer was.
    pub(crate) fn cancel(&mut self, id: ExecutionId, request: &Request) -> Answer {
        let mut kept = None;
        self.control(id, |view, now, ids| {
            let answer = cancel::decide(view, request, now, ids);
            let append = match &answer {
                Answer::Cancelled { append, .. } | Answer::Escalated { append, .. } => Some((**append).clone()),
                Answer::Spared(_) | Answer::AlreadyEnded | Answer::Repeated { .. } => None,
            };
            kept = Some(answer);
            append
        });
        kept.expect("an answer")
    }

    /// Claims a pending command for the one worker there is.
    pub(crate) fn claim(&mut self, row: &CommandRow) {
        let holder =
            Holder { session_id: SessionId(7), worker_id: "desk".into(), claimed_at: self.now, started: false };
        let mut events = Vec::new();
        if row.enters {
            events.push(Event::StepEnter {
                step: Arc::clone(&row.step),
                visit: row.visit,
                kind: Arc::clone(&row.kind),
            });
        }
        events.push(Event::CommandClaimed {
            command_id: row.command_id,
            epoch: row.epoch,
            step: Arc::clone(&row.step),
            session_id: holder.session_id,
            worker_id: Arc::clone(&holder.worker_id),
        });
        let (now, entered) = (self.now, u64::from(row.enters));
        let ids: Vec<_> = events.iter().map(|_| EventId(self.ids.next(now))).collect();
        let seat = self.seat(row.execution_id);
        let stored = seat
            .commands
            .iter_mut()
            .find(|known| known.command_id == row.command_id && known.epoch == row.epoch)
            .expect("a row");
        assert_eq!(stored.state, CommandState::Pending);
        (stored.state, stored.holder, stored.enters) = (CommandState::Claimed, Some(holder), false);
        for (event, event_id) in events.into_iter().zip(ids) {
            seat.head.version += 1;
            let version = seat.head.version;
            seat.events.push(Recorded { execution_id: row.execution_id, version, event_id, at: now, event });
        }
        seat.head.in_flight += 1;
        seat.head.steps_entered += entered;
        // Blind: the state that decisions read knows only that the version has risen.
        seat.execution.version = seat.head.version;
    }

    /// Runs a claimed command's pipeline and returns what a worker would report.
    pub(crate) fn work(&mut self, row: &CommandRow) -> Report {
        let catalog_id = self.members[&row.execution_id].head.catalog_id;
        let playbook = Arc::clone(&self.playbooks[&catalog_id]);
        let work: Work = serde_json::from_value((*row.work).clone()).expect("work");
        let step = playbook.body(&row.step, work.iteration.is_some()).expect("a step");
        let mut pipeline = Pipeline::new(step, Arc::new(work));
        let library = Arc::new(Library::empty());
        let outcome = loop {
            let place = Place {
                playbook: &playbook,
                step,
                execution_id: row.execution_id,
                command_id: row.command_id,
                library: &library,
                now: self.now,
                on_worker: true,
            };
            match pipeline.next(&place) {
                Next::Call(call) => {
                    self.calls.push(format!("{}/{}", call.step, call.label));
                    pipeline.outcome((self.tool)(&call));
                }
                Next::Wait { ms } => self.now = self.now.plus_ms(ms),
                Next::Pause(pause) => break Reported::Suspended(pause),
                Next::Done(done) => break Reported::Done(done),
                Next::Needs(needs) => needs.iter().for_each(|reference| self.load(&library, reference)),
                Next::Stop => {
                    break Reported::Cancelled {
                        started: true,
                        stopped: None,
                        pids: Vec::new(),
                        remote_may_have_acted: false,
                    };
                }
            }
        };
        Report { execution_id: row.execution_id, command_id: row.command_id, epoch: row.epoch, outcome }
    }

    fn claim_and_work(&mut self, row: &CommandRow) {
        self.claim(row);
        let report = self.work(row);
        self.decide(row.execution_id, &[Input::Report(Box::new(report), "desk".into())]);
    }

    /// Decides inputs on one draft and lands it. Stale and late inputs change nothing.
    pub(crate) fn decide(&mut self, id: ExecutionId, inputs: &[Input]) -> Vec<Result<(), Refusal>> {
        self.decide_with(id, inputs, &BTreeMap::new())
    }

    fn decide_with(
        &mut self,
        id: ExecutionId,
        inputs: &[Input],
        loaded: &BTreeMap<String, Arc<Value>>,
    ) -> Vec<Result<(), Refusal>> {
        self.look_at_keys([]);
        let library = Arc::new(Library::with(loaded.clone()));
        let seat = &self.members[&id];
        let playbook = Arc::clone(&self.playbooks[&seat.head.catalog_id]);
        let environment = Arc::new(json!({}));
        let mut draft = Draft::new(seat.execution.clone());
        let answers: Vec<_> = inputs
            .iter()
            .map(|input| {
                let mut env = Env {
                    playbook: &playbook,
                    now: self.now,
                    ids: &mut self.ids,
                    library: &library,
                    books: &self.books,
                    environment: &environment,
                    hands: &mut Vec::new(),
                };
                draft.decide(input, &mut env)
            })
            .collect();
        for answer in &answers {
            if let Err(Refusal::Needs(Needs { playbooks, keys, origins, results, .. })) = answer {
                for origin in origins {
                    let state = self.members.get(origin).map(|seat| Arc::new(seat.execution.clone()));
                    self.books.origins.insert(*origin, state);
                }
                self.look_at_keys(keys.iter().cloned());
                for key in playbooks {
                    self.books.known.insert(key.clone(), None);
                }
                let mut loaded = loaded.clone();
                for reference in results {
                    let data = self.results.get(reference).expect("a result that was stored");
                    loaded.insert(reference.clone(), Arc::clone(data));
                }
                return self.decide_with(id, inputs, &loaded);
            }
        }
        if !draft.is_empty() {
            let (execution, append) = draft.finish();
            self.land(append);
            // The fold must come to the state that the draft ended with.
            let seat = self.seat(id);
            assert_eq!(without_numbers(&seat.execution), without_numbers(&execution));
        }
        answers
    }

    /// Writes a control decision.
    pub(crate) fn control(
        &mut self,
        id: ExecutionId,
        decide: impl FnOnce(&HeadView, Timestamp, &mut IdSource) -> Option<Append>,
    ) -> bool {
        let seat = &self.members[&id];
        let view = HeadView { head: seat.head.clone(), commands: seat.commands.clone() };
        match decide(&view, self.now, &mut self.ids) {
            Some(append) => {
                self.land(append);
                true
            }
            None => false,
        }
    }

    fn land(&mut self, append: Append) {
        let id = append.execution_id;
        if let Guard::New(head) = &append.guard {
            let Some(Event::PlaybookInitialized(init)) = append.events.first().map(|new| &new.event) else {
                panic!("a log begins with playbook.initialized")
            };
            let mut execution = Execution::begin(id, Arc::new((**init).clone()), append.at);
            (execution.version, execution.decided) = (0, 0);
            let seat = Seat {
                head: (**head).clone(),
                execution,
                events: Vec::new(),
                commands: Vec::new(),
                timers: BTreeMap::new(),
            };
            self.members.insert(id, seat);
        }
        let at = append.at;
        let seat = self.seat(id);
        if let Guard::At(decided) = append.guard {
            assert!(seat.head.is_active() && seat.head.decided == decided, "the guard holds at a desk");
        }
        for (place, new) in append.events.iter().enumerate() {
            let version = seat.head.version + place as u64 + 1;
            let recorded = Recorded { execution_id: id, version, event_id: new.event_id, at, event: new.event.clone() };
            seat.execution.follow(&recorded).expect("no holes");
            seat.events.push(recorded);
        }
        seat.head.land(&append);
        seat.execution.decided = seat.head.decided;
        for change in &append.commands {
            match change {
                CommandChange::Insert(row) => seat.commands.push((**row).clone()),
                CommandChange::Delete { command_id, epoch, expect } => {
                    let place = seat
                        .commands
                        .iter()
                        .position(|row| row.command_id == *command_id && row.epoch == *epoch && row.state == *expect)
                        .unwrap_or_else(|| panic!("no {} row of {command_id}/{epoch}", expect.as_str()));
                    seat.commands.remove(place);
                }
                CommandChange::Started { .. } => {}
                CommandChange::Withdraw { command_id, epoch } => {
                    let row = seat.commands.iter_mut();
                    let row = row.into_iter().find(|row| row.command_id == *command_id && row.epoch == *epoch);
                    let row = row.unwrap_or_else(|| panic!("no row of {command_id}/{epoch} to withdraw"));
                    row.at_most_once = true;
                    if row.state == CommandState::Pending {
                        row.state = CommandState::Suspended;
                    }
                }
            }
        }
        for due in append.due {
            match due {
                DueChange::Set(due) if due.kind == DueKind::ChildDone => {
                    let outcome = self.child_outcome(ExecutionId(due.key));
                    let input = Input::ChildEnded(due.command.expect("a command"), Box::new(outcome));
                    self.ends.insert((due.execution_id, due.key), input);
                }
                DueChange::Set(due) => {
                    self.seat(due.execution_id).timers.insert((due.kind, due.key), due.at);
                }
                DueChange::Tick(_) | DueChange::Enter(_) => {}
                DueChange::Clear { execution_id, kind: DueKind::ChildDone, key } => {
                    self.ends.remove(&(execution_id, key));
                }
                DueChange::Clear { execution_id, kind, key } => {
                    self.seat(execution_id).timers.remove(&(kind, key));
                }
            }
        }
        for large in append.results {
            self.results.insert(large.reference, large.data);
        }
        for child in append.children {
            self.land(child);
        }
    }

    fn load(&self, library: &Library, reference: &str) {
        library.insert(reference, Arc::clone(self.results.get(reference).expect("a result that was stored")));
    }

    fn child_outcome(&self, child: ExecutionId) -> ChildOutcome {
        let seat = &self.members[&child];
        let end = seat.events.iter().find(|recorded| recorded.event.is_terminal()).expect("an end");
        let (result, error) = match &end.event {
            Event::PlaybookCompleted { result, .. } => (result.clone(), None),
            Event::PlaybookFailed { error, .. } => (Bound::null(), Some(Arc::clone(error))),
            _ => (Bound::null(), None),
        };
        ChildOutcome { execution_id: child, status: seat.head.status, result, error }
    }

    fn seat(&mut self, id: ExecutionId) -> &mut Seat {
        self.members.get_mut(&id).expect("a member")
    }

    /// Checks every property of every log.
    pub(crate) fn check(&self) {
        let members: Vec<_> = self
            .members
            .values()
            .map(|seat| Member {
                head: seat.head.clone(),
                events: seat.events.clone(),
                commands: seat.commands.clone(),
            })
            .collect();
        let violations = check_family(&members, &Default::default());
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

impl Ran {
    pub(crate) fn seat(&self) -> &Seat {
        &self.desk.members[&self.id]
    }

    pub(crate) fn status(&self) -> Status {
        self.seat().head.status
    }

    /// Returns what later templates see under the step's name.
    pub(crate) fn result(&self, step: &str) -> Value {
        match self.seat().execution.steps.get(step).and_then(|state| state.result.as_ref()) {
            Some(Bound::Inline(data)) => (**data).clone(),
            Some(Bound::Stored(stored)) => {
                (**self.desk.results.get(&stored.reference).expect("a stored result")).clone()
            }
            None => Value::Null,
        }
    }

    pub(crate) fn ctx(&self, name: &str) -> Value {
        self.seat().execution.ctx.get(name).map_or(Value::Null, |value| (**value).clone())
    }

    /// Returns the steps entered, in order.
    pub(crate) fn entered(&self) -> Vec<String> {
        let entered = self.seat().events.iter().filter_map(|recorded| match &recorded.event {
            Event::StepEnter { step, .. } => Some(step.to_string()),
            _ => None,
        });
        entered.collect()
    }

    /// Returns the names of the events, in order.
    pub(crate) fn log(&self) -> Vec<&'static str> {
        self.seat().events.iter().map(|recorded| row::wire_name(&recorded.event)).collect()
    }

    pub(crate) fn failed_steps(&self) -> Vec<String> {
        self.seat().head.failed_steps.iter().map(ToString::to_string).collect()
    }
}

/// Claims are not in the state that decisions read, so versions may differ.
fn without_numbers(execution: &Execution) -> Execution {
    Execution { version: 0, decided: 0, ..execution.clone() }
}

/// Puts the head of a document before a `workflow`, unless it is there.
fn document(source: &str, number: usize) -> String {
    if source.contains("apiVersion") {
        return source.to_owned();
    }
    format!(
        "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata:\n  name: p{number}\n  path: test/p{number}\n{}",
        unindent(source)
    )
}

/// Removes the indentation of the first line from every line.
fn unindent(source: &str) -> String {
    let lines: Vec<_> = source.lines().skip_while(|line| line.trim().is_empty()).collect();
    let indent = lines.first().map_or(0, |line| line.len() - line.trim_start().len());
    lines.iter().map(|line| line.get(indent..).unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// A tool that answers by the table of `step → data`.
pub(crate) fn table(answers: &[(&'static str, Value)]) -> impl FnMut(&ToolCall) -> ToolOutcome + use<> {
    let answers: BTreeMap<_, _> = answers.iter().cloned().collect();
    move |call| ToolOutcome::ok(answers.get(&*call.step).cloned().unwrap_or_else(|| Value::Object(Map::new())))
}
