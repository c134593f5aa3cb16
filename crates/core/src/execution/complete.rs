//! Completing a loop early: it ends with the results there are, because the playbook or somebody says it is enough.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Value, json};

use crate::event::{Completing, Event};
use crate::execution::draft::{Draft, Halt, halt, scope};
use crate::execution::names::StateNames;
use crate::execution::state::{LoopState, Outcome};
use crate::execution::{CompleteLoop, Env};
use crate::expr::{Binding, Names, ResultBinding};
use crate::playbook::{CancelMode, Loop, Step};
use crate::result::Bound;
use crate::tool::{ErrorKind, ToolError};
use crate::work::Iteration;

/// Who completes a loop when its own condition does, as `loop.completing` says.
const BY_CONDITION: &str = "complete_when";

/// An iteration that has just ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending<'a> {
    pub(super) iteration: &'a Iteration,
    pub(super) outcome: &'a Outcome,
}

impl Draft {
    /// Somebody wants the loops of a step to end. `false` when no loop of it runs, or those that do end already.
    ///
    /// | the loop | the wish | what is written |
    /// | --- | --- | --- |
    /// | runs | any | `loop.completing`; `loop.done` too, unless it waits for what runs |
    /// | waits for what runs | `interrupt` | the same again, harder |
    /// | waits for what runs | any other | nothing: it is being completed |
    /// | is done | any | nothing: the last report was first |
    pub(super) fn complete_loops(&mut self, wish: &CompleteLoop, env: &mut Env<'_>) -> Result<bool, Halt> {
        let Some(step) = env.playbook.find(&wish.step).map(|ix| env.playbook.step(ix)) else { return Ok(false) };
        let Some(looping) = &step.looping else { return Ok(false) };
        let mode = wish.mode.unwrap_or(looping.on_complete);
        let running = self.execution.visits.iter().filter(|visit| visit.step == step.name);
        let visits: Vec<u32> = running
            .filter(|visit| match visit.looping.as_ref().map(|state| state.early) {
                Some(None) => true,
                Some(Some(early)) => early.mode == CancelMode::Finish && wish.mode == Some(CancelMode::Interrupt),
                None => false,
            })
            .map(|visit| visit.visit)
            .collect();
        for visit in &visits {
            self.complete_loop(step, *visit, mode, &wish.by, wish.reason.clone(), env)?;
        }
        Ok(!visits.is_empty())
    }

    /// Ends a loop when its condition holds after an iteration.
    pub(super) fn complete_when(
        &mut self,
        step: &Step,
        looping: &Loop,
        visit: u32,
        ending: Ending<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), Halt> {
        let Some(state) = self.looping(&step.name, visit).filter(|state| state.early.is_none()) else { return Ok(()) };
        match self.is_enough(looping, state, ending, env)? {
            Ok(false) => Ok(()),
            Ok(true) => self.complete_loop(step, visit, looping.on_complete, BY_CONDITION, None, env),
            Err(message) => {
                // As with an arc that can not be evaluated: nobody can say how to go on.
                let message = format!("`complete_when` of `{}`: {message}", step.name);
                let error = ToolError::hard(ErrorKind::Transform, "TEMPLATE", message);
                let outcome = Outcome { result: Bound::null(), error: None, hard: true, handled: false };
                self.exit_fatally(step, visit, outcome, false, &error, env)
            }
        }
    }

    fn is_enough(
        &self,
        looping: &Loop,
        state: &LoopState,
        ending: Ending<'_>,
        env: &Env<'_>,
    ) -> Result<Result<bool, String>, Halt> {
        let Some(condition) = &looping.complete_when else { return Ok(Ok(false)) };
        // As many as have ended; made only for a condition that reads them, since it costs as much as they are many.
        let results = match condition.roots().any(|name| name == "results") {
            true => Some(self.ended_results(state, env)?),
            false => None,
        };
        let outer = self.names(env, None);
        let names = LoopNames { outer, looping, state, ending, results };
        match condition.holds(&scope(env, &names)) {
            Ok(holds) => Ok(Ok(holds)),
            Err(error) => halt(env, error).map(Err),
        }
    }

    fn ended_results(&self, state: &LoopState, env: &Env<'_>) -> Result<Arc<Value>, Halt> {
        let mut results = Vec::new();
        for outcome in state.results.iter().flatten() {
            results.push((*self.data(env, &outcome.result)?).clone());
        }
        Ok(Arc::new(Value::Array(results)))
    }

    /// Decides that a loop ends with the results there are. Nothing further begins; what runs is withdrawn, and the loop
    /// is done at once, or (`finish`) it is done when what runs has ended.
    fn complete_loop(
        &mut self,
        step: &Step,
        visit: u32,
        mode: CancelMode,
        by: &str,
        reason: Option<String>,
        env: &mut Env<'_>,
    ) -> Result<(), Halt> {
        let commands = match mode {
            CancelMode::Interrupt => self.unsettled(&step.name, &[visit]),
            CancelMode::Finish => Vec::new(),
        };
        let completing = Completing {
            step: Arc::clone(&step.name),
            visit,
            mode,
            by: by.to_owned(),
            reason,
            commands: commands.clone(),
        };
        self.emit(env, Event::LoopCompleting(Box::new(completing)));
        self.withdraw(&commands, env);
        self.end_loop_when_over(step, visit, env)
    }
}

/// Returns how many elements a loop that is completed early leaves out.
pub(super) fn left_out(state: &LoopState) -> u32 {
    if state.early.is_some() { state.total.saturating_sub(state.done) } else { 0 }
}

/// Returns what `stats` says of a loop. Of the elements that are left out, those that had begun were cancelled, the
/// others were skipped; what has ended and what is left out make the total.
pub(super) fn stats(state: &LoopState) -> Value {
    let cancelled = state.early.map_or(0, |early| early.cancelled);
    let mut stats = json!({
        "total": state.total,
        "completed": state.done - state.failed,
        "success": state.done - state.failed,
        "failed": state.failed,
        "skipped": left_out(state).saturating_sub(cancelled),
    });
    if state.early.is_some() {
        stats["cancelled"] = cancelled.into();
    }
    stats
}

/// The names that `complete_when` sees: those of the loop and of the iteration that has just ended, then all others.
struct LoopNames<'a> {
    outer: StateNames<'a>,
    looping: &'a Loop,
    state: &'a LoopState,
    ending: Ending<'a>,
    results: Option<Arc<Value>>,
}

impl LoopNames<'_> {
    fn iter_group(&self) -> Binding {
        let Iteration { item, index, total, .. } = self.ending.iteration;
        let mut group = IndexMap::new();
        for (name, value) in
            [(&*self.looping.iterator, item.clone()), ("_index", (*index).into()), ("_total", (*total).into())]
        {
            group.insert(Arc::from(name), Binding::Data(Arc::new(value)));
        }
        Binding::Group(Arc::new(group))
    }
}

impl Names for LoopNames<'_> {
    fn lookup(&self, name: &str) -> Option<Binding> {
        let data = |value: Value| Some(Binding::Data(Arc::new(value)));
        let Ending { iteration, outcome } = self.ending;
        match name {
            "results" => self.results.clone().map(Binding::Data),
            "stats" => data(stats(self.state)),
            "output" => Some(Binding::Result(ResultBinding {
                bound: outcome.result.clone(),
                status: Some(if outcome.error.is_some() { "error" } else { "ok" }),
                error: outcome.error.clone(),
                labels: None,
            })),
            "error" if outcome.error.is_some() => outcome.error.clone().map(Binding::Data),
            "iter" => Some(self.iter_group()),
            "_index" | "loop_index" => data(iteration.index.into()),
            "_total" => data(iteration.total.into()),
            _ if name == &*self.looping.iterator => data(iteration.item.clone()),
            _ => self.outer.lookup(name),
        }
    }
}
