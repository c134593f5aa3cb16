//! The names that a task's templates and code see.

use std::cell::OnceCell;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::state::State;
use crate::event::{Write, error_value};
use crate::execution::evolve::write;
use crate::execution::state::Ctx;
use crate::expr::{Binding, ExprError, Library, Names, ResultBinding};
use crate::playbook::{KeychainEntry, Step};
use crate::result::{Bound, StoredRef};
use crate::secret::keychain::Reference;
use crate::tool::ToolError;
use crate::work::{Named, Work};

/// Names, from the innermost to the outermost: `output`, pipeline locals, the task's arguments, earlier tasks by
/// label, the iteration, `ctx` with the pipeline's own writes, and what the command brought along.
pub(super) struct PipelineNames<'a> {
    work: &'a Work,
    state: &'a State,
    writes: &'a [Write],
    step: &'a Step,
    input: Option<&'a Map<String, Value>>,
    output: Option<Binding>,
    /// The task at hand has run.
    judging: bool,
    /// The keychain, where secrets may be asked for.
    keychain: Option<&'a [KeychainEntry]>,
    /// What the task that is being judged gives, under its own label.
    own: Option<(&'a str, Binding)>,
    ctx: OnceCell<Ctx>,
}

impl<'a> PipelineNames<'a> {
    pub(super) fn new(work: &'a Work, state: &'a State, writes: &'a [Write], step: &'a Step) -> Self {
        PipelineNames {
            work,
            state,
            writes,
            step,
            input: None,
            output: None,
            judging: false,
            keychain: None,
            own: None,
            ctx: OnceCell::new(),
        }
    }

    pub(super) fn with_input(mut self, input: Option<&'a Map<String, Value>>) -> Self {
        self.input = input;
        self
    }

    /// Lets templates read the keychain.
    pub(super) fn with_keychain(mut self, keychain: Option<&'a [KeychainEntry]>) -> Self {
        self.keychain = keychain;
        self
    }

    /// `output` in a policy.
    pub(super) fn with_envelope(mut self, envelope: Option<Value>) -> Self {
        self.judging = envelope.is_some();
        self.output = envelope.map(|envelope| Binding::Data(Arc::new(envelope)));
        self
    }

    /// `output` in the task's own `set`: the data, with the helper attributes of a result.
    pub(super) fn with_output(mut self, data: &Value) -> Self {
        self.judging = true;
        self.output = Some(Binding::Result(ResultBinding::ok(Bound::inline(data.clone()))));
        self
    }

    /// The task's own new result, by its label.
    pub(super) fn with_own(mut self, label: &'a str, data: &Value, error: Option<&ToolError>) -> Self {
        let own = ResultBinding {
            bound: Bound::inline(data.clone()),
            status: Some(if error.is_some() { "error" } else { "ok" }),
            error: error.map(|error| Arc::new(error_value(error))),
            labels: None,
        };
        self.own = Some((label, Binding::Result(own)));
        self
    }

    /// Returns the flat names as one object: all of them, or those that `mentions` lists.
    pub(super) fn context(&self, mentions: Option<&[Arc<str>]>, library: &Library) -> Result<Value, ExprError> {
        let mut flat = Map::new();
        let mut missing = Vec::new();
        // `result` in code is the variable that code assigns, not the data of the step before.
        let wanted = |name: &str| {
            !matches!(name, "result" | "response")
                && mentions.is_none_or(|mentions| mentions.iter().any(|mention| &**mention == name))
        };
        for (name, named) in &self.work.names {
            if wanted(name) {
                flat.insert(name.to_string(), whole(named, library, &mut missing));
            }
        }
        for (label, result) in &self.state.results {
            if wanted(label) {
                flat.insert(label.to_string(), data_of(&result.bound, library, &mut missing));
            }
        }
        for (name, value) in self.ctx().iter() {
            if wanted(name) {
                flat.insert(name.to_string(), (**value).clone());
            }
        }
        for (name, value) in &self.state.locals {
            if wanted(name) {
                flat.insert(name.clone(), value.clone());
            }
        }
        for (name, stored) in &self.state.stored_locals {
            if wanted(name) {
                flat.insert(name.clone(), data_of(&Bound::Stored(Arc::clone(stored)), library, &mut missing));
            }
        }
        if missing.is_empty() {
            return Ok(Value::Object(flat));
        }
        for reference in missing {
            library.note(&reference);
        }
        Err(ExprError::Needs)
    }

    /// `ctx` as it stands for this pipeline: what the command brought, with the pipeline's own writes.
    fn ctx(&self) -> &Ctx {
        self.ctx.get_or_init(|| {
            let mut ctx = Ctx::default();
            if let Some(Named { bound: Bound::Inline(known), .. }) = self.work.names.get("ctx")
                && let Value::Object(map) = &**known
            {
                let all = map.iter().map(|(name, value)| (Arc::from(name.as_str()), Arc::new(value.clone())));
                ctx = Arc::new(all.collect());
            }
            write(&mut ctx, self.writes);
            ctx
        })
    }

    fn task(&self, label: &str) -> Option<Binding> {
        let result = self.state.results.get(label)?;
        Some(Binding::Result(ResultBinding {
            bound: result.bound.clone(),
            status: Some(if result.error.is_some() { "error" } else { "ok" }),
            error: result.error.clone(),
            labels: None,
        }))
    }

    fn iteration(&self, name: &str) -> Option<Binding> {
        let iteration = self.work.iteration.as_ref()?;
        let data = |value: Value| Some(Binding::Data(Arc::new(value)));
        match name {
            "_index" | "loop_index" => data(iteration.index.into()),
            "_total" => data(iteration.total.into()),
            "loop" => data(serde_json::json!({
                "index": iteration.index,
                "index0": iteration.index,
                "first": iteration.index == 0,
                "last": iteration.index + 1 == iteration.total,
                "length": iteration.total,
                "done": false,
            })),
            _ if name == &*iteration.iterator => data(iteration.item.clone()),
            _ => None,
        }
    }

    fn iter_group(&self) -> Binding {
        let mut group = IndexMap::new();
        let mut bind = |name: &str, value: Value| {
            group.insert(Arc::from(name), Binding::Data(Arc::new(value)));
        };
        if let Some(iteration) = &self.work.iteration {
            bind(&iteration.iterator, iteration.item.clone());
            bind("_index", iteration.index.into());
            bind("_total", iteration.total.into());
            bind("_first", (iteration.index == 0).into());
            bind("_last", (iteration.index + 1 == iteration.total).into());
        }
        for (name, value) in &self.state.iter {
            bind(name, value.clone());
        }
        for (name, kept) in &self.state.stored_iter {
            group.insert(Arc::from(name.as_str()), stored(kept));
        }
        Binding::Group(Arc::new(group))
    }
}

impl Names for PipelineNames<'_> {
    fn lookup(&self, name: &str) -> Option<Binding> {
        match name {
            "output" => {
                return self.output.clone().or_else(|| {
                    // Outside policies: the data of the task before.
                    self.state.results.keys().next_back().and_then(|label| self.task(label))
                });
            }
            "keychain" if self.keychain.is_some_and(|entries| !entries.is_empty()) => {
                let entries = self.keychain.into_iter().flatten();
                let all =
                    entries.map(|entry| (Arc::clone(&entry.name), Reference::Entry(Arc::clone(&entry.name)).binding()));
                return Some(Binding::Group(Arc::new(all.collect())));
            }
            "_prev" => return self.state.results.keys().next_back().and_then(|label| self.task(label)),
            "_attempt" => {
                // Before a task runs, its number is that of the execution to come.
                let attempt = self.state.executions + u32::from(!self.judging);
                return Some(Binding::Data(Arc::new(attempt.into())));
            }
            "_task" => {
                let task = self.step.body.tasks.get(self.state.at)?;
                return Some(Binding::Data(Arc::new(task.label.to_string().into())));
            }
            "iter" => return Some(self.iter_group()),
            "ctx" => {
                let group = self.ctx().iter().map(|(name, value)| (Arc::clone(name), Binding::Data(Arc::clone(value))));
                return Some(Binding::Group(Arc::new(group.collect())));
            }
            "results" if self.step.body.pipeline => {
                let all = self.state.results.keys().filter_map(|label| Some((Arc::clone(label), self.task(label)?)));
                return Some(Binding::Group(Arc::new(all.collect())));
            }
            _ => {}
        }
        if let Some(value) = self.state.locals.get(name) {
            return Some(Binding::Data(Arc::new(value.clone())));
        }
        if let Some(kept) = self.state.stored_locals.get(name) {
            return Some(stored(kept));
        }
        if let Some(value) = self.input.and_then(|input| input.get(name)) {
            return Some(Binding::Data(Arc::new(value.clone())));
        }
        if let Some((_, own)) = self.own.as_ref().filter(|(label, _)| *label == name) {
            return Some(own.clone());
        }
        if let Some(task) = self.task(name) {
            return Some(task);
        }
        if let Some(binding) = self.iteration(name) {
            return Some(binding);
        }
        if self.writes.iter().any(|write| write.path.first().is_some_and(|first| &**first == name)) {
            return self.ctx().get(name).map(|value| Binding::Data(Arc::clone(value)));
        }
        self.work.names.get(name).map(binding)
    }

    fn may_ask_secrets(&self) -> bool {
        self.keychain.is_some()
    }
}

/// Returns all of what a name stands for; what is stored and not at hand is noted as missing.
fn whole(named: &Named, library: &Library, missing: &mut Vec<String>) -> Value {
    if let Some(group) = &named.group {
        return group.iter().map(|(name, named)| (name.to_string(), whole(named, library, missing))).collect();
    }
    data_of(&named.bound, library, missing)
}

fn data_of(bound: &Bound, library: &Library, missing: &mut Vec<String>) -> Value {
    match bound {
        Bound::Inline(data) => (**data).clone(),
        Bound::Stored(stored) => library.get(&stored.reference).map_or_else(
            || {
                missing.push(stored.reference.clone());
                Value::Null
            },
            |data| (*data).clone(),
        ),
    }
}

/// Returns what a name is bound to whose value was moved out of the log.
fn stored(kept: &Arc<StoredRef>) -> Binding {
    Binding::Result(ResultBinding::ok(Bound::Stored(Arc::clone(kept))))
}

/// Returns what a name that the command brought along is bound to.
fn binding(named: &Named) -> Binding {
    if let Some(group) = &named.group {
        let names = group.iter().map(|(name, named)| (Arc::clone(name), binding(named)));
        return Binding::Group(Arc::new(names.collect()));
    }
    match (&named.bound, &named.result) {
        (bound, Some(shape)) => Binding::Result(ResultBinding {
            bound: bound.clone(),
            status: Some(if shape.error.is_some() { "error" } else { "ok" }),
            error: shape.error.clone(),
            labels: shape.labels.clone(),
        }),
        (Bound::Inline(data), None) => Binding::Data(Arc::clone(data)),
        (bound @ Bound::Stored(_), None) => Binding::Result(ResultBinding::ok(bound.clone())),
    }
}
