//! The names that the server's own templates see: admission, loops, step `set`, arcs; and what a command takes along.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use crate::execution::state::{Ctx, Execution, Outcome};
use crate::expr::{Binding, Names, ResultBinding};
use crate::playbook::{Playbook, Step};
use crate::result::{Bound, stored_value};
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
    /// `event.name` in arcs.
    pub(super) event: Option<&'a str>,
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

    fn system(&self, name: &str) -> Option<Value> {
        let init = &self.execution.init;
        let id = || Value::from(self.execution.execution_id.to_string());
        Some(match name {
            "execution_id" => id(),
            "catalog_id" => init.catalog_id.to_string().into(),
            "path" => init.path.to_string().into(),
            "version" => init.version.into(),
            "job" => serde_json::json!({ "uuid": id(), "id": id(), "execution_id": id() }),
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
            ["ctx", "workload", "execution_id", "job"].into_iter().for_each(take);
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
                    }));
                }
                _ => {}
            }
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
        if let Some(value) = self.playbook.extras.get(name) {
            return data(value.clone());
        }
        match name {
            "result" | "response" => {
                let finished = self.finished.map(|finished| &*finished.step.name);
                Some(Binding::Result(self.step(finished.or(self.previous)?)?))
            }
            _ => None,
        }
    }
}

/// Returns a binding as it stands in a command. A group becomes plain data.
fn named(binding: Binding) -> Named {
    match binding {
        Binding::Data(data) => Named { bound: Bound::Inline(data), result: None },
        Binding::Result(result) => {
            let shape = Shape { error: result.error, labels: result.labels };
            Named { bound: result.bound, result: Some(shape) }
        }
        Binding::Group(group) => {
            let plain = group.iter().map(|(name, binding)| (name.to_string(), plain(binding))).collect();
            Named { bound: Bound::inline(Value::Object(plain)), result: None }
        }
    }
}

fn plain(binding: &Binding) -> Value {
    match binding {
        Binding::Data(data) => (**data).clone(),
        Binding::Result(result) => match &result.bound {
            Bound::Inline(data) => (**data).clone(),
            Bound::Stored(stored) => stored_value(stored),
        },
        Binding::Group(group) => {
            Value::Object(group.iter().map(|(name, binding)| (name.to_string(), plain(binding))).collect())
        }
    }
}
