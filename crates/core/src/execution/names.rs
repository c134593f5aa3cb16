//! The names that the server's own templates see: admission, loops, step `set`, arcs; and what a command takes along.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use crate::execution::cleanup;
use crate::execution::state::{Ctx, Execution, Outcome};
use crate::expr::{Binding, Names, ResultBinding};
use crate::playbook::{Playbook, Step};
use crate::result::{Bound, stored_value};
use crate::time::Timestamp;
use crate::work::{Named, Shape};

/// Names, from the innermost to the outermost. What comes first here hides what comes later.
#[derive(Debug, Clone, Copy)]
pub(super) struct StateNames<'a> {
    pub(super) execution: &'a Execution,
    pub(super) playbook: &'a Playbook,
    pub(super) environment: &'a Arc<Value>,
    /// `ctx` with writes that are not in the state yet.
    pub(super) ctx: &'a Ctx,
    /// The visit that has just finished, in its own `set` and arcs.
    pub(super) finished: Option<Finished<'a>>,
    /// The step before, whose data is `result` in the next step's inputs.
    pub(super) previous: Option<&'a str>,
    /// The step that has just been skipped, in its arcs: there is no visit of it.
    pub(super) skipped: Option<&'a Step>,
    /// `event.name` in arcs.
    pub(super) event: Option<&'a str>,
    /// `event.timestamp` in arcs.
    pub(super) now: Timestamp,
    /// The expression is one over the fields of the result: they are names.
    pub(super) fields: bool,
}

/// A visit that has just finished.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finished<'a> {
    pub(super) step: &'a Step,
    pub(super) outcome: &'a Outcome,
}

impl StateNames<'_> {
    /// Returns the result bound to a step's name.
    fn step(&self, name: &str) -> Option<ResultBinding> {
        if let Some(finished) = self.finished.filter(|finished| &*finished.step.name == name) {
            return Some(self.result(finished.step, &finished.outcome.result, finished.outcome.error.as_ref()));
        }
        let known = self.execution.steps.get(name)?;
        let bound = known.result.as_ref()?;
        let step = self.playbook.step(self.playbook.find(name)?);
        Some(self.result(step, bound, known.error.as_ref()))
    }

    fn result(&self, step: &Step, bound: &Bound, error: Option<&Arc<Value>>) -> ResultBinding {
        let labels = (step.body.pipeline && step.looping.is_none())
            .then(|| step.body.tasks.iter().map(|task| Arc::clone(&task.label)).collect());
        ResultBinding {
            bound: bound.clone(),
            status: Some(if error.is_some() { "error" } else { "ok" }),
            error: error.cloned(),
            labels,
        }
    }

    /// Returns the field of the result at hand, in an expression over its fields.
    fn field(&self, name: &str) -> Option<Binding> {
        let outcome = self.finished.filter(|_| self.fields)?.outcome;
        match &outcome.result {
            Bound::Inline(data) => Some(Binding::Data(Arc::new(data.get(name)?.clone()))),
            Bound::Stored(stored) => Some(Binding::Data(Arc::new(stored.summary.get(name)?.clone()))),
        }
    }

    fn system(&self, name: &str) -> Option<Value> {
        let init = &self.execution.init;
        let id = || Value::from(self.execution.execution_id.to_string());
        Some(match name {
            "execution_id" => id(),
            "catalog_id" => init.catalog_id.to_string().into(),
            "path" => init.path.to_string().into(),
            "version" => init.version.into(),
            "job" => serde_json::json!({ "uuid": id(), "id": id(), "execution_id": id() }),
            // Only a cleanup has it; elsewhere the name is free.
            cleanup::NAME => {
                let late = self.execution.cleaning.as_ref().map(|cleaning| &*cleaning.late);
                init.cleanup.as_ref()?.value(late.unwrap_or_default())
            }
            _ => return None,
        })
    }

    fn workload(&self, name: &str) -> Option<&Value> {
        self.execution.init.workload.get(name)
    }

    /// Returns the names that `wanted` lists, or (with `all`) every flat name too, as a command takes them along.
    pub(super) fn project<'n>(&self, wanted: impl Iterator<Item = &'n str>, all: bool) -> IndexMap<Arc<str>, Named> {
        let mut taken = IndexMap::new();
        let mut take = |name: &str| {
            if !taken.contains_key(name)
                && let Some(binding) = self.lookup(name)
            {
                taken.insert(Arc::from(name), named(binding));
            }
        };
        wanted.for_each(&mut take);
        if all {
            if let Value::Object(workload) = &*self.execution.init.workload {
                workload.keys().for_each(|name| take(name));
            }
            self.execution.steps.keys().for_each(|name| take(name));
            self.ctx.keys().for_each(|name| take(name));
            ["ctx", "workload", "execution_id", "job", cleanup::NAME].into_iter().for_each(take);
        }
        taken
    }
}

impl Names for StateNames<'_> {
    fn lookup(&self, name: &str) -> Option<Binding> {
        let data = |value: Value| Some(Binding::Data(Arc::new(value)));
        if let Some(finished) = self.finished {
            match name {
                "output" => {
                    let outcome = finished.outcome;
                    return Some(Binding::Result(self.result(finished.step, &outcome.result, outcome.error.as_ref())));
                }
                "error" => {
                    if let Some(error) = &finished.outcome.error {
                        return Some(Binding::Data(Arc::clone(error)));
                    }
                }
                "event" => {
                    let payload = match &finished.outcome.result {
                        Bound::Inline(payload) => (**payload).clone(),
                        Bound::Stored(stored) => stored_value(stored),
                    };
                    return data(serde_json::json!({
                        "name": self.event,
                        "step": &*finished.step.name,
                        "payload": payload,
                        "timestamp": self.now.to_iso(),
                    }));
                }
                _ => {}
            }
        }
        if let Some(step) = self.skipped.filter(|_| name == "event") {
            return data(serde_json::json!({
                "name": self.event,
                "step": &*step.name,
                "payload": null,
                "timestamp": self.now.to_iso(),
            }));
        }
        match name {
            "ctx" => {
                let group = self.ctx.iter().map(|(name, value)| (Arc::clone(name), Binding::Data(Arc::clone(value))));
                return Some(Binding::Group(Arc::new(group.collect())));
            }
            "env" => return Some(Binding::Data(Arc::clone(self.environment))),
            "steps" => {
                let all = self
                    .execution
                    .steps
                    .keys()
                    .filter_map(|name| Some((Arc::clone(name), Binding::Result(self.step(name)?))));
                return Some(Binding::Group(Arc::new(all.collect())));
            }
            _ => {}
        }
        // The system's words win over a workload key of the same name.
        if let Some(value) = self.system(name) {
            return data(value);
        }
        if let Some(field) = self.field(name) {
            return Some(field);
        }
        if matches!(name, "result" | "response") {
            let finished = self.finished.map(|finished| &*finished.step.name);
            // Before anything has finished, a workload key of that name is meant.
            if let Some(result) = finished.or(self.previous).and_then(|step| self.step(step)) {
                return Some(Binding::Result(result));
            }
        }
        if let Some(value) = self.ctx.get(name) {
            return Some(Binding::Data(Arc::clone(value)));
        }
        if let Some(result) = self.step(name) {
            return Some(Binding::Result(result));
        }
        if name == "workload" {
            return Some(Binding::Data(Arc::clone(&self.execution.init.workload)));
        }
        if let Some(value) = self.workload(name) {
            return data(value.clone());
        }
        self.playbook.extras.get(name).and_then(|value| data(value.clone()))
    }
}

/// Returns a binding as it stands in a command. A group without results in it becomes plain data.
fn named(binding: Binding) -> Named {
    match binding {
        Binding::Data(data) => Named::data(Bound::Inline(data)),
        Binding::Result(result) => {
            let shape = Shape { error: result.error, labels: result.labels };
            Named { bound: result.bound, result: Some(shape), group: None }
        }
        Binding::Group(group) => {
            let plain = group.iter().map(|(name, binding)| match binding {
                Binding::Data(data) => Some((name.to_string(), (**data).clone())),
                Binding::Result(_) | Binding::Group(_) => None,
            });
            match plain.collect() {
                Some(plain) => Named::data(Bound::inline(Value::Object(plain))),
                None => {
                    let names = group.iter().map(|(name, binding)| (Arc::clone(name), named(binding.clone())));
                    Named { bound: Bound::null(), result: None, group: Some(names.collect()) }
                }
            }
        }
    }
}
