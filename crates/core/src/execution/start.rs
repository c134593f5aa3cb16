//! Starting: the workload is fixed, the run exists, and (for a run that nobody's command waits for) it advances.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::append::{Append, Due, DueChange, DueKind, Guard};
use crate::concurrency::{self, BY_CONCURRENCY, Entry, KEY_BYTES_MAX, KeyHolder, Wish};
use crate::event::{Cancelled, Event, Initialized};
use crate::execution::cleanup::CleanupPlan;
use crate::execution::draft::{Draft, Halt};
use crate::execution::state::Execution;
use crate::execution::{DEPTH_MAX, Env, Needs, Start};
use crate::expr::{Binding, Names, Scope};
use crate::head::{CancelInfo, ENGINE_VERSION, Head, Status};
use crate::id::ExecutionId;
use crate::labels::{self, LabelError};
use crate::playbook::{CancelMode, Playbook};
use crate::time::Timestamp;

/// Why an execution can not be started.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StartRefusal {
    /// Something must be at hand first.
    #[error("something must be loaded first")]
    Needs(Needs),
    /// A workload default can not be rendered.
    #[error("workload.{name}: {message}")]
    Workload {
        /// Which.
        name: String,
        /// Why.
        message: String,
    },
    /// A concurrency key can not be rendered, or is none.
    #[error("executor.spec.concurrency.key: {message}")]
    Key {
        /// Why.
        message: String,
    },
    /// Those of the playbook and those of the request are too many.
    #[error("labels: {0}")]
    Labels(LabelError),
    /// The concurrency key is taken, and the playbook wants the start refused then.
    #[error("concurrency key `{}` is held by {} (limit {})", wish.key, names(holders), wish.limit)]
    KeyHeld {
        /// The key.
        wish: Wish,
        /// Who has it.
        holders: Vec<KeyHolder>,
    },
    /// The family would become too deep.
    #[error("the family is {depth} levels deep already (limits.max_depth)")]
    TooDeep {
        /// How deep the parent is.
        depth: u32,
    },
}

/// Decides the start of an execution, and advances it as far as one decision may. The guard is `New`.
pub fn start(start: &Start, env: &mut Env<'_>) -> Result<(Execution, Append), StartRefusal> {
    let (mut draft, head) = begin(start, env.playbook, env, &[])?;
    draft.advance(env).map_err(|Halt::Needs(needs)| StartRefusal::Needs(needs))?;
    let (execution, mut append) = draft.finish();
    append.guard = Guard::New(Box::new(head));
    Ok((execution, append))
}

/// Decides the birth of a child: it exists and is runnable; whoever drives it advances it.
///
/// `siblings`: children that are born in the same append.
pub(super) fn bear(
    start: &Start,
    playbook: &Playbook,
    env: &mut Env<'_>,
    siblings: &[Append],
) -> Result<Append, StartRefusal> {
    let (draft, mut head) = begin(start, playbook, env, siblings)?;
    let (born, mut append) = draft.finish();
    if born.status.is_terminal() {
        append.guard = Guard::New(Box::new(head));
        return Ok(append);
    }
    head.runnable = true;
    append.head.runnable = Some(true);
    append.due.push(DueChange::Set(Due {
        execution_id: start.execution_id,
        kind: DueKind::Continue,
        key: 0,
        at: env.now,
        command: None,
    }));
    append.guard = Guard::New(Box::new(head));
    Ok(append)
}

fn begin(
    start: &Start,
    playbook: &Playbook,
    env: &mut Env<'_>,
    siblings: &[Append],
) -> Result<(Draft, Head), StartRefusal> {
    let depth = start.parent.as_ref().map_or(0, |parent| parent.depth + 1);
    if depth > DEPTH_MAX {
        return Err(StartRefusal::TooDeep { depth: depth - 1 });
    }
    let workload = workload(start, playbook, env)?;
    let labels = labels::over(&playbook.labels, &start.labels).map_err(StartRefusal::Labels)?;
    let wish = wish(start, playbook, &workload, env)?;
    let init = Initialized {
        catalog_id: start.catalog_id,
        path: Arc::clone(&playbook.path),
        version: start.version,
        entry: Arc::clone(&playbook.step(playbook.entry).name),
        parent: start.parent.as_ref().map(|parent| parent.parent.clone()),
        root_execution_id: start.parent.as_ref().map_or(start.execution_id, |parent| parent.root_execution_id),
        depth,
        workload: Arc::new(Value::Object(workload)),
        cancel_mode: playbook.executor.cancel_mode,
        cancel_grace_ms: playbook.executor.cancel_grace_ms,
        shield: start.parent.as_ref().and_then(|parent| parent.shield),
        concurrency_key: wish.as_ref().map(|wish| Arc::clone(&wish.key)),
        labels,
        started_by: start.started_by.clone(),
        strict: start.strict,
        rerun: start.rerun.clone().map(Box::new),
        cleanup: None,
    };
    let head = head(start, &init, playbook, env.now);
    let mut execution = Execution::begin(start.execution_id, Arc::new(init.clone()), env.now);
    (execution.version, execution.decided) = (0, 0);
    let mut draft = Draft::new(execution);
    draft.out.at = env.now;
    draft.emit(env, Event::PlaybookInitialized(Box::new(init)));
    if let Some(wish) = wish
        && !draft.enter_key(start, wish, siblings, env)?
    {
        return Ok((draft, head));
    }
    if let Some(timeout_ms) = playbook.executor.timeout_ms {
        draft.out.due.push(DueChange::Set(Due {
            execution_id: start.execution_id,
            kind: DueKind::Timeout,
            key: 0,
            at: env.now.plus_ms(timeout_ms),
            command: None,
        }));
    }
    Ok((draft, head))
}

fn head(start: &Start, init: &Initialized, playbook: &Playbook, now: Timestamp) -> Head {
    Head {
        execution_id: start.execution_id,
        catalog_id: init.catalog_id,
        path: Arc::clone(&init.path),
        playbook_version: init.version,
        parent_execution_id: init.parent.as_ref().map(|parent| parent.execution_id),
        parent_command_id: init.parent.as_ref().and_then(|parent| parent.command_id),
        root_execution_id: init.root_execution_id,
        depth: init.depth,
        status: Status::Running,
        version: 0,
        decided: 0,
        in_flight: 0,
        runnable: false,
        engine: ENGINE_VERSION,
        cancel_mode: init.cancel_mode,
        cancel_grace_ms: init.cancel_grace_ms,
        shield: init.shield,
        concurrency_key: init.concurrency_key.clone(),
        labels: init.labels.clone(),
        started_at: now,
        updated_at: now,
        ended_at: None,
        quiesced_at: None,
        current_step: None,
        steps_entered: 0,
        commands_issued: 0,
        failed_steps: Vec::new(),
        error: None,
        cancel: None,
        pause: None,
        cleanup: CleanupPlan::of(playbook),
        cleanup_of: None,
    }
}

/// Returns the concurrency key that a start asks for.
fn wish(
    start: &Start,
    playbook: &Playbook,
    workload: &Map<String, Value>,
    env: &Env<'_>,
) -> Result<Option<Wish>, StartRefusal> {
    let Some(spec) = &playbook.executor.concurrency else { return Ok(None) };
    let refuse = |message: String| Err(StartRefusal::Key { message });
    let payload = Arc::new(Value::Object(start.payload.clone()));
    let names = WorkloadNames { start, playbook, payload: &payload, so_far: workload, env };
    let key = match spec.key.render(&Scope { names: &names, library: env.library, now: env.now }) {
        Ok(Value::String(text)) => text,
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
        Ok(Value::Null | Value::Array(_) | Value::Object(_)) => {
            return refuse("is no text, number or boolean: nothing could be told apart by it".to_owned());
        }
        Err(error) => return refuse(error.to_string()),
    };
    if key.is_empty() || key.len() > KEY_BYTES_MAX || key.chars().any(char::is_control) {
        return refuse(format!("has to be one line of 1 to {KEY_BYTES_MAX} bytes, and has {}", key.len()));
    }
    Ok(Some(Wish { key: key.into(), limit: spec.limit, on_conflict: spec.on_conflict }))
}

impl Draft {
    /// Takes a concurrency key, or is cancelled where it begins: then `false`.
    fn enter_key(
        &mut self,
        start: &Start,
        wish: Wish,
        siblings: &[Append],
        env: &mut Env<'_>,
    ) -> Result<bool, StartRefusal> {
        let Some(known) = env.books.holders.get(&wish.key) else {
            return Err(StartRefusal::Needs(Needs { keys: vec![wish.key], ..Needs::default() }));
        };
        let mut holders = known.clone();
        // A start that is sent again finds itself: the store tells it so.
        holders.retain(|holder| holder.execution_id != start.execution_id);
        holders.extend(siblings.iter().filter_map(|sibling| sibling_holder(sibling, &wish.key)));
        match concurrency::decide(&wish, &holders) {
            Entry::Starts(admission) => {
                for execution_id in admission.displaced.iter().flatten() {
                    self.out.due.push(DueChange::Set(Due {
                        execution_id: *execution_id,
                        kind: DueKind::Displaced,
                        key: start.execution_id.0,
                        at: env.now,
                        command: None,
                    }));
                }
                self.out.due.push(DueChange::Enter(admission));
                Ok(true)
            }
            Entry::Rejected => Err(StartRefusal::KeyHeld { wish, holders }),
            Entry::CancelledBy(holder) => {
                self.cancel_new(start, &wish, holder, env);
                Ok(false)
            }
        }
    }

    /// It begins and ends here: nothing of it has run or will.
    fn cancel_new(&mut self, start: &Start, wish: &Wish, holder: ExecutionId, env: &mut Env<'_>) {
        let reason = format!("execution {holder} has its concurrency key `{}`", wish.key);
        let init = Arc::clone(&self.execution.init);
        let (mode, grace_ms) = (init.cancel_mode.unwrap_or(CancelMode::Finish), init.cancel_grace_ms.unwrap_or(0));
        self.emit(
            env,
            Event::ExecutionCancelled(Box::new(Cancelled {
                reason: Some(reason.clone()),
                cancelled_by: BY_CONCURRENCY.to_owned(),
                // Nobody asked for this: who wanted the start stands with its birth.
                requested_by: None,
                remote: None,
                cascade: false,
                mode,
                grace_ms,
                root_execution_id: init.root_execution_id,
                requested_execution_id: start.execution_id,
                job_id: None,
                in_flight: Vec::new(),
                // It has begun nothing, and others have its key: there is nothing to clean up.
                cleanup: None,
            })),
        );
        self.emit(env, Event::ExecutionQuiesced { commands: Vec::new() });
        self.out.head.status = Some(Status::Cancelled);
        self.out.head.quiesced = true;
        self.out.head.cancel = Some(CancelInfo {
            reason: Some(reason),
            cancelled_by: BY_CONCURRENCY.to_owned(),
            requested_by: None,
            remote: None,
            job_id: None,
            mode,
            grace_ms,
            since: env.now,
            requested_execution_id: start.execution_id,
            idempotency_key: None,
            cascade: false,
            cleanup: None,
            ended: Vec::new(),
        });
        self.tell_parent(env);
    }
}

/// Returns a child that is born with the key in the same append.
fn sibling_holder(sibling: &Append, key: &str) -> Option<KeyHolder> {
    let Guard::New(head) = &sibling.guard else { return None };
    let has = head.concurrency_key.as_deref() == Some(key) && sibling.head.status.is_none();
    has.then_some(KeyHolder { execution_id: head.execution_id, active: true, started_at: head.started_at })
}

fn names(holders: &[KeyHolder]) -> String {
    let one = |holder: &KeyHolder| {
        let rest = if holder.active { "" } else { " (ended, and still stopping)" };
        format!("execution {}{rest}", holder.execution_id)
    };
    holders.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Renders the defaults and lays the payload over them, shallowly. The payload is data and is never rendered.
fn workload(start: &Start, playbook: &Playbook, env: &Env<'_>) -> Result<Map<String, Value>, StartRefusal> {
    let mut workload = Map::new();
    let payload = Arc::new(Value::Object(start.payload.clone()));
    for name in rendering_order(start, playbook) {
        let Some(template) = playbook.workload.get(&name) else { continue };
        let names = WorkloadNames { start, playbook, payload: &payload, so_far: &workload, env };
        let value = template
            .render(&Scope { names: &names, library: env.library, now: env.now })
            .map_err(|error| StartRefusal::Workload { name: name.to_string(), message: error.to_string() })?;
        workload.insert(name.to_string(), value);
    }
    // The keys stand as the playbook has them, whatever the order they were rendered in.
    let mut laid = Map::new();
    for name in playbook.workload.keys() {
        let value = start.payload.get(&**name).cloned().or_else(|| workload.remove(&**name));
        laid.insert(name.to_string(), value.unwrap_or(Value::Null));
    }
    for (name, given) in &start.payload {
        laid.entry(name.clone()).or_insert_with(|| given.clone());
    }
    Ok(laid)
}

/// Returns the defaults to render, each behind those that it reads. Keys that read each other keep their order: the
/// first one finds nothing.
fn rendering_order(start: &Start, playbook: &Playbook) -> Vec<Arc<str>> {
    let mut seen: std::collections::BTreeSet<&str> = start.payload.keys().map(String::as_str).collect();
    let mut order = Vec::new();
    for name in playbook.workload.keys() {
        // Each entry: a key, and whether what it reads stands before it already.
        let mut open = vec![(name, false)];
        while let Some((name, ready)) = open.pop() {
            if ready {
                order.push(Arc::clone(name));
            } else if seen.insert(name)
                && let Some((name, template)) = playbook.workload.get_key_value(name)
            {
                open.push((name, true));
                let reads = template.roots().filter_map(|root| playbook.workload.get_key_value(root));
                open.extend(reads.map(|(name, _)| (name, false)));
            }
        }
    }
    order
}

/// The names that workload defaults see.
struct WorkloadNames<'a> {
    start: &'a Start,
    playbook: &'a Playbook,
    payload: &'a Arc<Value>,
    /// Keys rendered so far.
    so_far: &'a Map<String, Value>,
    env: &'a Env<'a>,
}

impl Names for WorkloadNames<'_> {
    fn lookup(&self, name: &str) -> Option<Binding> {
        let data = |value: Value| Some(Binding::Data(Arc::new(value)));
        let id = || Value::from(self.start.execution_id.to_string());
        match name {
            "execution_id" => return data(id()),
            "catalog_id" => return data(self.start.catalog_id.to_string().into()),
            "path" => return data(self.playbook.path.to_string().into()),
            "version" => return data(self.start.version.into()),
            "job" => return data(serde_json::json!({ "uuid": id(), "id": id(), "execution_id": id() })),
            "env" => return Some(Binding::Data(Arc::clone(self.env.environment))),
            _ => {}
        }
        if let Some(given) = self.start.payload.get(name).or_else(|| self.so_far.get(name)) {
            return data(given.clone());
        }
        match name {
            "payload" | "input" => return Some(Binding::Data(Arc::clone(self.payload))),
            "workload" => {
                let mut all: Map<String, Value> = self.literals().collect();
                all.extend(self.so_far.clone());
                all.extend(self.start.payload.clone());
                return data(Value::Object(all));
            }
            _ => {}
        }
        // A key further down, when it needs no rendering itself.
        let later = self.playbook.workload.get(name).and_then(|template| template.as_literal());
        later.or_else(|| self.playbook.extras.get(name)).and_then(|value| data(value.clone()))
    }
}

impl WorkloadNames<'_> {
    fn literals(&self) -> impl Iterator<Item = (String, Value)> {
        self.playbook
            .workload
            .iter()
            .filter_map(|(name, template)| Some((name.to_string(), template.as_literal()?.clone())))
    }
}
