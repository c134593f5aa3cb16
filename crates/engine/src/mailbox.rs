//! Mailboxes: what waits to be decided, per execution, so that one task at a time decides for one execution.
//!
//! That this process decides for an execution in one task is only for speed; what makes it safe is the guard of the
//! append.

use std::collections::BTreeMap;
use std::sync::Mutex;

use noetl_core::append::Due;
use noetl_core::execution::Input;
use noetl_core::id::ExecutionId;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use crate::desk::Promise;
use crate::hold;
use crate::queue::Queue;

/// Inputs that may wait for one execution.
pub(crate) const LETTERS_MAX: usize = 4096;
/// Inputs that one append answers at most.
pub(crate) const FOLD_MAX: usize = 256;
/// How long an execution whose decision failed in itself is left alone, in milliseconds.
const QUARANTINE_MS: u64 = 10_000;
/// Executions in quarantine at most.
const QUARANTINE_MAX: usize = 1000;

/// An input on its way to a decision.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) input: Input,
    /// The obligation that brought it, to be forgotten when it is moot.
    pub(crate) due: Option<Due>,
    /// Who wants to know: `true` when it is durable, or durably of no effect.
    pub(crate) answer: Option<oneshot::Sender<bool>>,
    /// The slot that a report frees, kept for what the report brings about.
    pub(crate) slot: Option<Promise>,
}

impl Letter {
    pub(crate) fn of(input: Input) -> Self {
        Letter { input, due: None, answer: None, slot: None }
    }

    /// Tells whoever wants to know.
    pub(crate) fn answer(self, durable: bool) {
        if let Some(answer) = self.answer {
            // The worker may have hung up; it will ask again.
            let _ = answer.send(durable);
        }
    }

    /// Returns whether deciding both would be deciding one twice. A report is never the same: each has its answer.
    fn repeats(&self, other: &Letter) -> bool {
        match (&self.input, &other.input) {
            (Input::Continue, Input::Continue) => true,
            (Input::Timer(one), Input::Timer(other)) => one == other,
            // One command may have waited for several, one after the other.
            (Input::ChildEnded(_, one), Input::ChildEnded(_, other)) => one.execution_id == other.execution_id,
            (
                Input::Continue | Input::Report(..) | Input::Timer(_) | Input::ChildEnded(..) | Input::CompleteLoop(_),
                _,
            ) => false,
        }
    }
}

/// All mailboxes with something in them, or being emptied.
#[derive(Debug)]
pub(crate) struct Mailboxes {
    boxes: Mutex<Boxes>,
    /// Executions that nobody decides for yet.
    pub(crate) ready: Queue<ExecutionId>,
}

#[derive(Debug, Default)]
struct Boxes {
    boxes: BTreeMap<ExecutionId, Vec<Letter>>,
    quarantine: BTreeMap<ExecutionId, Instant>,
}

impl Mailboxes {
    pub(crate) fn new() -> Self {
        Mailboxes { boxes: Mutex::new(Boxes::default()), ready: Queue::new() }
    }

    /// Puts a letter in; whoever waits for its answer is told at once when that is not possible.
    pub(crate) fn post(&self, execution_id: ExecutionId, letter: Letter) {
        let mut boxes = hold(&self.boxes);
        if let Some(until) = boxes.quarantine.get(&execution_id) {
            if Instant::now() < *until {
                drop(boxes);
                letter.answer(false);
                return;
            }
            boxes.quarantine.remove(&execution_id);
        }
        match boxes.boxes.get_mut(&execution_id) {
            Some(waiting) if letter.answer.is_none() && waiting.iter().any(|other| letter.repeats(other)) => {}
            Some(waiting) if waiting.len() >= LETTERS_MAX => {
                // Not lost: the worker reports again, and the sweep finds every obligation again.
                drop(boxes);
                letter.answer(false);
            }
            Some(waiting) => waiting.push(letter),
            None => {
                boxes.boxes.insert(execution_id, vec![letter]);
                drop(boxes);
                if !self.ready.put(execution_id) {
                    self.give_up(execution_id);
                }
            }
        }
    }

    /// Takes what waits for an execution; an empty box is removed, and the next letter makes it ready again.
    pub(crate) fn open(&self, execution_id: ExecutionId) -> Vec<Letter> {
        let mut boxes = hold(&self.boxes);
        let Some(waiting) = boxes.boxes.get_mut(&execution_id) else { return Vec::new() };
        if waiting.len() > FOLD_MAX {
            return waiting.drain(..FOLD_MAX).collect();
        }
        let taken = std::mem::take(waiting);
        if taken.is_empty() {
            boxes.boxes.remove(&execution_id);
        }
        taken
    }

    /// The decision itself failed: leaves the execution alone for a while, so that it can not keep a processor busy.
    pub(crate) fn quarantine(&self, execution_id: ExecutionId) {
        let mut boxes = hold(&self.boxes);
        if boxes.quarantine.len() >= QUARANTINE_MAX {
            boxes.quarantine.pop_first();
        }
        boxes.quarantine.insert(execution_id, Instant::now() + Duration::from_millis(QUARANTINE_MS));
        drop(boxes);
        self.give_up(execution_id);
    }

    fn give_up(&self, execution_id: ExecutionId) {
        let letters = hold(&self.boxes).boxes.remove(&execution_id).unwrap_or_default();
        for letter in letters {
            letter.answer(false);
        }
    }

    /// Lets nothing more in.
    pub(crate) fn shut(&self) {
        self.ready.shut();
        let boxes = std::mem::take(&mut hold(&self.boxes).boxes);
        for letter in boxes.into_values().flatten() {
            letter.answer(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use noetl_core::id::CommandId;

    use super::*;

    #[tokio::test]
    async fn an_execution_is_ready_once_however_many_letters_come() {
        let mailboxes = Mailboxes::new();
        let id = ExecutionId(7);
        for command in [1, 2, 1] {
            mailboxes.post(id, Letter::of(Input::Timer(CommandId(command))));
        }
        assert_eq!(mailboxes.ready.take_now(10), [id]);
        let inputs: Vec<_> = mailboxes.open(id).into_iter().map(|letter| letter.input).collect();
        assert_eq!(inputs, [Input::Timer(CommandId(1)), Input::Timer(CommandId(2))]);
        mailboxes.post(id, Letter::of(Input::Continue));
        assert!(mailboxes.ready.take_now(10).is_empty(), "somebody is still deciding for it");
        assert_eq!(mailboxes.open(id).len(), 1);
        assert!(mailboxes.open(id).is_empty());
        mailboxes.post(id, Letter::of(Input::Continue));
        assert_eq!(mailboxes.ready.take_now(10), [id]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quarantined_execution_is_left_alone_for_a_while() {
        let mailboxes = Mailboxes::new();
        let id = ExecutionId(7);
        mailboxes.quarantine(id);
        let (answer, told) = oneshot::channel();
        mailboxes.post(id, Letter { answer: Some(answer), ..Letter::of(Input::Continue) });
        assert_eq!(told.await, Ok(false));
        tokio::time::advance(Duration::from_millis(QUARANTINE_MS)).await;
        mailboxes.post(id, Letter::of(Input::Continue));
        assert_eq!(mailboxes.open(id).len(), 1);
    }
}
