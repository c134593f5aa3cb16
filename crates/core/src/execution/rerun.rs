//! Reruns: a new execution of the same playbook with the same inputs, from its beginning or from where an earlier one
//! stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::execution::state::{Ctx, Execution, StepState, Token};
use crate::id::ExecutionId;
use crate::playbook::{Playbook, StepIx};
use crate::result::{Bound, LargeResult, StoredRef, json_size};

/// Largest part of an execution that a rerun keeps in its first event, in bytes of JSON. Results beyond 64 KiB do not
/// count: they stand beside the log.
pub const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Where a rerun comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rerun {
    /// The execution before.
    pub of: ExecutionId,
    /// What it goes on with; `None` = it begins from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
}

/// What an execution leaves to its rerun: the state between its steps.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Kept {
    /// Variables under `ctx`.
    #[serde(default)]
    pub ctx: Ctx,
    /// What is known of each step that has finished.
    #[serde(default)]
    pub steps: BTreeMap<Arc<str>, StepState>,
    /// Where it goes on.
    #[serde(default)]
    pub tokens: Vec<Token>,
    /// The step that finished last.
    #[serde(default)]
    pub last_finished: Option<Arc<str>>,
}

/// Why there is nothing to go on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NothingKept {
    /// Every step that was begun has finished, and no arc leads on.
    #[error("nothing is left to run: every step has finished; rerun it without keeping what has finished")]
    Finished,
    /// The playbook has changed.
    #[error("the playbook has no step `{0}` any more: rerun it from the start, or with the version it had")]
    NoStep(Arc<str>),
    /// More than the log of the new execution may begin with.
    #[error("what has finished takes {bytes} bytes, more than {KEPT_BYTES_MAX} (limits.kept_bytes)")]
    TooLarge {
        /// How much.
        bytes: usize,
    },
}

impl Kept {
    /// Returns what `before` leaves to a rerun on `playbook`; it is the state just before its end.
    ///
    /// A step that was under way, or that failed the run, begins anew: of a loop every iteration. In a run that ended
    /// well, the steps that failed and were handled by nothing begin anew, and what follows them runs again.
    pub fn of(before: &Execution, playbook: &Playbook) -> Result<Kept, NothingKept> {
        let mut tokens: Vec<Token> = before.tokens.iter().cloned().collect();
        let under_way =
            before.visits.iter().map(|visit| Token { step: Arc::clone(&visit.step), from: visit.from.clone() });
        tokens.extend(under_way);
        let failed = before.failing.as_ref().and_then(|failure| failure.step.clone());
        tokens.extend(failed.map(|step| Token { step, from: None }));
        if tokens.is_empty() {
            tokens.extend(before.failed_steps.iter().map(|step| Token { step: Arc::clone(step), from: None }));
        }
        if tokens.is_empty() {
            return Err(NothingKept::Finished);
        }
        if let Some(token) = tokens.iter().find(|token| playbook.find(&token.step).is_none()) {
            return Err(NothingKept::NoStep(Arc::clone(&token.step)));
        }
        let finished = |name: &str| !tokens.iter().any(|token| &*token.step == name);
        let steps: BTreeMap<_, _> = before
            .steps
            .iter()
            .filter(|(name, state)| finished(name) || state.result.is_some() && state.error.is_none())
            .map(|(name, state)| (Arc::clone(name), state.clone()))
            .collect();
        let kept = Kept { ctx: Arc::clone(&before.ctx), steps, tokens, last_finished: before.last_finished.clone() };
        let bytes = serde_json::to_value(&kept).map_or(0, |value| json_size(&value));
        if bytes > KEPT_BYTES_MAX {
            return Err(NothingKept::TooLarge { bytes });
        }
        Ok(kept)
    }

    /// Returns the finished steps whose results the rerun builds on, by name. One that only follows where it goes on
    /// is not among them: it runs again.
    pub fn built_on(&self, playbook: &Playbook) -> Vec<Arc<str>> {
        let begins: Vec<_> = self.tokens.iter().filter_map(|token| playbook.find(&token.step)).collect();
        let reaches = |from: StepIx, to: StepIx| playbook.graph.reaches[from.0][to.0];
        let follows = |name: &str| {
            // What is on a cycle with a beginning comes before it as well.
            playbook.find(name).is_some_and(|step| {
                begins.iter().any(|&begin| reaches(begin, step)) && !begins.iter().any(|&begin| reaches(step, begin))
            })
        };
        self.steps.keys().filter(|name| !follows(name)).cloned().collect()
    }

    /// Returns the large results that are kept.
    pub fn stored(&self) -> Vec<Arc<StoredRef>> {
        let results = self.steps.values().filter_map(|state| state.result.as_ref());
        results
            .filter_map(|result| match result {
                Bound::Stored(stored) => Some(Arc::clone(stored)),
                Bound::Inline(_) => None,
            })
            .collect()
    }

    /// Makes the large results the new execution's own: the one before may be pruned. `copy` gives each a number and
    /// its data.
    pub fn adopt<E>(
        &mut self,
        execution_id: ExecutionId,
        mut copy: impl FnMut(&StoredRef) -> Result<(i64, Arc<serde_json::Value>), E>,
    ) -> Result<Vec<LargeResult>, E> {
        let mut adopted = Vec::new();
        for (name, state) in &mut self.steps {
            let Some(Bound::Stored(stored)) = &mut state.result else { continue };
            let (id, data) = copy(stored)?;
            let reference = format!("noetl://execution/{execution_id}/result/{name}/{id}");
            let own = StoredRef { reference: reference.clone(), ..(**stored).clone() };
            adopted.push(LargeResult { execution_id, reference, store: own.store.clone(), bytes: own.bytes, data });
            *stored = Arc::new(own);
        }
        Ok(adopted)
    }
}
