//! What may enter a store: every text and value of an append is looked at before it joins a batch.
//!
//! One bad value rolled back all 63 others of its batch, so nothing that a database could refuse may get that far:
//! `\0` (PostgreSQL stores none) becomes U+FFFD; values that are too deep to be read back, and appends that are too
//! large, are refused. Lone surrogates and NaN cannot stand in a `Value` at all.

use std::sync::Arc;

use noetl_core::append::{Append, CommandChange, Guard};
use noetl_core::event::{
    Call, Cancelled, CommandDone, Completing, Ended, Escalated, Event, Exit, Initialized, Issued, Parent,
    StepCancelled, StepExited, Stopping, Suspended, Wait, Write,
};
use noetl_core::head::{CancelInfo, CommandRow, Head, PauseInfo};
use noetl_core::result::{Bound, StoredRef};
use serde_json::{Map, Value};

use crate::StoreError;

/// Deepest nesting of a value; the JSON reader stops at 127, and rows wrap values a few levels deep.
pub const VALUE_DEPTH_MAX: usize = 112;
/// Largest append, children and large results included, in bytes of JSON.
pub const APPEND_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Cleans `append` in place; returns about how many bytes it takes as JSON.
pub(crate) fn scrub(append: &mut Append) -> Result<usize, StoreError> {
    let mut scrub = Scrub { bytes: 0 };
    scrub.append(append)?;
    if scrub.bytes > APPEND_BYTES_MAX {
        return Err(StoreError::BadData(format!(
            "an append of {} bytes is larger than {APPEND_BYTES_MAX} bytes",
            scrub.bytes
        )));
    }
    Ok(scrub.bytes)
}

struct Scrub {
    bytes: usize,
}

/// What a look at a value found.
enum Found {
    Clean,
    Nul,
    TooDeep,
}

impl Scrub {
    fn append(&mut self, append: &mut Append) -> Result<(), StoreError> {
        if let Guard::New(head) = &mut append.guard {
            self.head(head)?;
        }
        if let Guard::Claim { holder, .. } = &mut append.guard {
            self.shared_text(&mut holder.worker_id);
        }
        for new in &mut append.events {
            // Ids, numbers and names of columns.
            self.bytes += 100;
            self.event(&mut new.event)?;
        }
        let change = &mut append.head;
        self.maybe_shared_text(change.current_step.as_mut());
        change.failed_steps.iter_mut().for_each(|step| self.shared_text(step));
        self.maybe_value(change.error.as_mut())?;
        if let Some(cancel) = &mut change.cancel {
            self.cancel_info(cancel);
        }
        if let Some(Some(pause)) = &mut change.pause {
            self.pause_info(pause);
        }
        self.certificate(&mut change.ended);
        for change in &mut append.commands {
            match change {
                CommandChange::Insert(row) => self.command(row)?,
                CommandChange::Delete { .. } | CommandChange::Started { .. } | CommandChange::Withdraw { .. } => {}
            }
        }
        for result in &mut append.results {
            self.text(&mut result.reference);
            self.text(&mut result.store);
            self.value(&mut result.data)?;
        }
        self.maybe_value(append.snapshot.as_mut())?;
        append.children.iter_mut().try_for_each(|child| self.append(child))
    }

    fn head(&mut self, head: &mut Head) -> Result<(), StoreError> {
        self.shared_text(&mut head.path);
        self.maybe_shared_text(head.current_step.as_mut());
        head.failed_steps.iter_mut().for_each(|step| self.shared_text(step));
        if let Some(cancel) = &mut head.cancel {
            self.cancel_info(cancel);
        }
        if let Some(pause) = &mut head.pause {
            self.pause_info(pause);
        }
        self.maybe_value(head.error.as_mut())
    }

    fn cancel_info(&mut self, cancel: &mut CancelInfo) {
        self.maybe_text(cancel.reason.as_mut());
        self.text(&mut cancel.cancelled_by);
        self.maybe_text(cancel.requested_by.as_mut());
        self.maybe_text(cancel.idempotency_key.as_mut());
        self.certificate(&mut cancel.ended);
    }

    fn pause_info(&mut self, pause: &mut PauseInfo) {
        self.maybe_text(pause.reason.as_mut());
        self.text(&mut pause.paused_by);
        self.maybe_text(pause.requested_by.as_mut());
    }

    fn command(&mut self, row: &mut CommandRow) -> Result<(), StoreError> {
        self.shared_text(&mut row.step);
        self.shared_text(&mut row.kind);
        self.shared_text(&mut row.pool);
        if let Some(Wait::Child { path, .. }) = &mut row.wait {
            self.shared_text(path);
        }
        if let Some(holder) = &mut row.holder {
            self.shared_text(&mut holder.worker_id);
        }
        self.value(&mut row.work)
    }

    /// Every field by name: a new one has to say here whether it is text or data.
    fn event(&mut self, event: &mut Event) -> Result<(), StoreError> {
        match event {
            Event::PlaybookInitialized(initialized) => self.initialized(initialized),
            Event::StepEnter { step, visit: _, kind } => {
                self.shared_text(step);
                self.shared_text(kind);
                Ok(())
            }
            Event::StepSkipped { step, exit } => {
                self.shared_text(step);
                self.exit(exit)
            }
            Event::CommandIssued(issued) => {
                let Issued { command_id: _, step, visit: _, iteration: _, kind, input } = &mut **issued;
                self.shared_text(step);
                self.shared_text(kind);
                self.value(input)
            }
            Event::CommandClaimed { command_id: _, epoch: _, step, session_id: _, worker_id }
            | Event::CommandStarted { command_id: _, epoch: _, step, worker_id, started_at: _, late: _ } => {
                self.shared_text(step);
                self.shared_text(worker_id);
                Ok(())
            }
            Event::CallDone(call) => self.call(call),
            Event::CommandDone(done) => self.command_done(done),
            Event::CommandSuspended(suspended) => {
                let Suspended { command_id: _, epoch: _, step, wait, continuation, ctx } = &mut **suspended;
                self.shared_text(step);
                match wait {
                    Wait::Until(_) => {}
                    Wait::Child { execution_id: _, path } => self.shared_text(path),
                }
                self.writes(ctx)?;
                self.value(continuation)
            }
            Event::CommandResumed { command_id: _, epoch: _, step, continuation } => {
                self.shared_text(step);
                self.maybe_value(continuation.as_mut())
            }
            Event::CommandLost { command_id: _, epoch: _, step, session_id: _, reason, again: _ } => {
                self.shared_text(step);
                self.text(reason);
                Ok(())
            }
            Event::CommandStopping(stopping) => {
                let Stopping { command_id: _, epoch: _, step, cause: _, reason, by, held: _ } = &mut **stopping;
                self.shared_text(step);
                self.text(reason);
                self.text(by);
                Ok(())
            }
            Event::CommandReleased { command_id: _, epoch: _, step }
            | Event::CommandForgotten { command_id: _, epoch: _, step, end: _ } => {
                self.shared_text(step);
                Ok(())
            }
            Event::CommandCancelled { command_id: _, epoch: _, step, reason, worker_id } => {
                self.shared_text(step);
                self.text(reason);
                self.maybe_shared_text(worker_id.as_mut());
                Ok(())
            }
            Event::LoopStarted { step, visit: _, items, total: _, max_in_flight: _, cursor: _ } => {
                self.shared_text(step);
                self.bound(items)
            }
            Event::LoopClaimed { step, visit: _, rows, count: _, full: _ } => {
                self.shared_text(step);
                self.bound(rows)
            }
            Event::LoopCompleting(completing) => {
                let Completing { step, visit: _, mode: _, by, reason, commands: _ } = &mut **completing;
                self.shared_text(step);
                self.text(by);
                self.maybe_text(reason.as_mut());
                Ok(())
            }
            Event::StepCancelled(cancelled) => {
                let StepCancelled { step, by, visits: _, arrivals: _, commands: _ } = &mut **cancelled;
                self.shared_text(step);
                self.shared_text(by);
                Ok(())
            }
            Event::LoopDone { step, visit: _, total: _, failed: _, left_out: _, result } => {
                self.shared_text(step);
                self.bound(result)
            }
            Event::StepExit(exited) => {
                let StepExited { step, visit: _, result, error, fatal: _, handled: _, exit } = &mut **exited;
                self.shared_text(step);
                if let Some(result) = result {
                    self.bound(result)?;
                }
                self.maybe_value(error.as_mut())?;
                self.exit(exit)
            }
            Event::PlaybookCompleted { path, result } => {
                self.shared_text(path);
                self.bound(result)
            }
            Event::PlaybookFailed { path, error, step } => {
                self.shared_text(path);
                self.maybe_shared_text(step.as_mut());
                self.value(error)
            }
            Event::ExecutionCancelled(cancelled) => {
                self.cancelled(cancelled);
                Ok(())
            }
            Event::ExecutionCancelEscalated(escalated) => {
                let Escalated { reason, cancelled_by, requested_by, mode: _, grace_ms: _ } = &mut **escalated;
                self.maybe_text(reason.as_mut());
                self.text(cancelled_by);
                self.maybe_text(requested_by.as_mut());
                Ok(())
            }
            Event::ExecutionPaused(order) | Event::ExecutionResumed(order) => {
                self.maybe_text(order.reason.as_mut());
                self.text(&mut order.by);
                self.maybe_text(order.requested_by.as_mut());
                Ok(())
            }
            // Read from a log, where it was cleaned.
            Event::CleanupPrepared(_) => Ok(()),
            Event::ExecutionQuiesced { commands } => {
                self.certificate(commands);
                Ok(())
            }
        }
    }

    fn initialized(&mut self, initialized: &mut Initialized) -> Result<(), StoreError> {
        let Initialized {
            catalog_id: _,
            path,
            version: _,
            entry,
            parent,
            root_execution_id: _,
            depth: _,
            workload,
            cancel_mode: _,
            cancel_grace_ms: _,
            shield: _,
            // Without control characters: checked where it was rendered.
            concurrency_key: _,
            // Without control characters: checked where they were given.
            labels: _,
            started_by,
            strict: _,
            // Read from a log, where it was cleaned.
            rerun: _,
            cleanup,
        } = initialized;
        self.shared_text(path);
        self.shared_text(entry);
        if let Some(Parent { execution_id: _, command_id: _, return_step }) = parent {
            self.maybe_shared_text(return_step.as_mut());
        }
        self.maybe_text(started_by.as_mut());
        if let Some(of) = cleanup {
            self.text(&mut of.cancelled_by);
            self.maybe_text(of.requested_by.as_mut());
            self.maybe_text(of.reason.as_mut());
        }
        self.value(workload)
    }

    fn call(&mut self, call: &mut Call) -> Result<(), StoreError> {
        let Call { command_id: _, epoch: _, step, visit: _, iteration: _, result, error, hard: _, handled: _, ctx } =
            call;
        self.shared_text(step);
        self.bound(result)?;
        self.writes(ctx)?;
        self.maybe_value(error.as_mut())
    }

    fn command_done(&mut self, done: &mut CommandDone) -> Result<(), StoreError> {
        let CommandDone {
            command_id: _,
            epoch: _,
            step,
            visit: _,
            iteration: _,
            error,
            late_result,
            ctx,
            started_at: _,
            worker_id,
            duration_ms: _,
            late: _,
        } = done;
        self.shared_text(step);
        if let Some(result) = late_result {
            self.bound(result)?;
        }
        self.maybe_shared_text(worker_id.as_mut());
        self.writes(ctx)?;
        self.maybe_value(error.as_mut())
    }

    fn cancelled(&mut self, cancelled: &mut Cancelled) {
        let Cancelled {
            reason,
            cancelled_by,
            requested_by,
            remote,
            cascade: _,
            mode: _,
            grace_ms: _,
            root_execution_id: _,
            requested_execution_id: _,
            job_id: _,
            in_flight: _,
            cleanup: _,
        } = cancelled;
        self.maybe_text(reason.as_mut());
        self.text(cancelled_by);
        self.maybe_text(requested_by.as_mut());
        self.maybe_text(remote.as_mut());
    }

    fn certificate(&mut self, lines: &mut [Ended]) {
        lines.iter_mut().for_each(|line| self.shared_text(&mut line.step));
    }

    fn exit(&mut self, exit: &mut Exit) -> Result<(), StoreError> {
        exit.routed.iter_mut().for_each(|target| self.shared_text(target));
        self.writes(&mut exit.ctx)
    }

    fn writes(&mut self, writes: &mut [Write]) -> Result<(), StoreError> {
        for write in writes {
            write.path.iter_mut().for_each(|key| self.shared_text(key));
            self.bare_value(&mut write.value)?;
        }
        Ok(())
    }

    fn bound(&mut self, bound: &mut Bound) -> Result<(), StoreError> {
        match bound {
            Bound::Inline(data) => self.value(data),
            Bound::Stored(stored) => match self.look(&stored.summary, 0) {
                Found::Clean if !stored.reference.contains('\0') && !stored.store.contains('\0') => Ok(()),
                Found::Clean | Found::Nul => {
                    let StoredRef { reference, store, bytes: _, summary } = Arc::make_mut(stored);
                    self.text(reference);
                    self.text(store);
                    clean(summary);
                    Ok(())
                }
                Found::TooDeep => Err(too_deep()),
            },
        }
    }

    fn maybe_value(&mut self, value: Option<&mut Arc<Value>>) -> Result<(), StoreError> {
        value.map_or(Ok(()), |value| self.value(value))
    }

    fn value(&mut self, value: &mut Arc<Value>) -> Result<(), StoreError> {
        match self.look(value, 0) {
            Found::Clean => Ok(()),
            Found::Nul => {
                clean(Arc::make_mut(value));
                Ok(())
            }
            Found::TooDeep => Err(too_deep()),
        }
    }

    fn bare_value(&mut self, value: &mut Value) -> Result<(), StoreError> {
        match self.look(value, 0) {
            Found::Clean => Ok(()),
            Found::Nul => {
                clean(value);
                Ok(())
            }
            Found::TooDeep => Err(too_deep()),
        }
    }

    fn maybe_text(&mut self, text: Option<&mut String>) {
        if let Some(text) = text {
            self.text(text);
        }
    }

    fn text(&mut self, text: &mut String) {
        self.bytes += text.len();
        if text.contains('\0') {
            *text = replaced(text);
        }
    }

    fn maybe_shared_text(&mut self, text: Option<&mut Arc<str>>) {
        if let Some(text) = text {
            self.shared_text(text);
        }
    }

    fn shared_text(&mut self, text: &mut Arc<str>) {
        self.bytes += text.len();
        if text.contains('\0') {
            *text = replaced(text).into();
        }
    }

    /// Counts the bytes of `value` and says what is wrong with it, without changing it.
    fn look(&mut self, value: &Value, depth: usize) -> Found {
        if depth > VALUE_DEPTH_MAX {
            return Found::TooDeep;
        }
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                self.bytes += 5;
                Found::Clean
            }
            Value::String(text) => {
                self.bytes += text.len() + 2;
                if text.contains('\0') { Found::Nul } else { Found::Clean }
            }
            Value::Array(items) => {
                self.bytes += 2 + items.len();
                let mut found = Found::Clean;
                for item in items {
                    found = match (found, self.look(item, depth + 1)) {
                        (_, Found::TooDeep) => return Found::TooDeep,
                        (Found::Nul, _) | (_, Found::Nul) => Found::Nul,
                        (found, Found::Clean) => found,
                    };
                }
                found
            }
            Value::Object(map) => {
                self.bytes += 2;
                let mut found = Found::Clean;
                for (key, item) in map {
                    self.bytes += key.len() + 4;
                    let below = self.look(item, depth + 1);
                    found = match (found, below) {
                        (_, Found::TooDeep) => return Found::TooDeep,
                        (Found::Nul, _) | (_, Found::Nul) => Found::Nul,
                        (_, Found::Clean) if key.contains('\0') => Found::Nul,
                        (found, Found::Clean) => found,
                    };
                }
                found
            }
        }
    }
}

fn too_deep() -> StoreError {
    StoreError::BadData(format!("a value is nested deeper than {VALUE_DEPTH_MAX} levels"))
}

fn replaced(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn clean(value: &mut Value) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => *text = replaced(text),
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Object(map) => {
            if map.keys().any(|key| key.contains('\0')) {
                let old: Map<String, Value> = std::mem::take(map);
                map.extend(old.into_iter().map(|(key, item)| (replaced(&key), item)));
            }
            map.values_mut().for_each(clean);
        }
    }
}
