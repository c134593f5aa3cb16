//! Batches: one transaction, in which each append lands, conflicts, is refused or finds its head busy on its own.

use std::sync::Arc;

use futures_util::future::join_all;
use noetl_core::append::{Append, Guard, Verdict};
use noetl_core::id::ExecutionId;

use super::Inner;
use super::error::{Failed, failed};
use super::transaction::{self, Patience, Pauses, Trouble};
use super::write::{Ready, Stage, Wanted};
use crate::StoreError;

/// Most appends in one transaction.
const GROUP_APPENDS_MAX: usize = 512;
/// Most bytes in one transaction; a single larger append goes alone.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How often a busy head is left out before its append goes into a lane of its own, and waits.
const BUSY_TURNS: u32 = 3;
/// Most appends of one batch that get such a lane; the others are answered busy, and come with the caller's next batch.
const LANES: usize = 2;
/// How often a batch that was unlucky (a deadlock, a partition that was dropped) is tried again as it is.
const UNLUCKY_MAX: u32 = 5;

type Answer = Result<Verdict, StoreError>;

/// Writes a batch; answers stand in its order.
pub(super) async fn append(
    inner: &Arc<Inner>,
    batch: impl Iterator<Item = Result<Ready, StoreError>> + Send,
) -> Vec<Answer> {
    let mut answers: Vec<Option<Answer>> = Vec::new();
    let mut groups: Vec<Vec<Ready>> = Vec::new();
    let mut bytes = 0;
    for ready in batch {
        match ready {
            Ok(ready) => {
                bytes += ready.bytes;
                match groups.last_mut().filter(|group| group.len() < GROUP_APPENDS_MAX && bytes <= GROUP_BYTES_MAX) {
                    Some(group) => group.push(ready),
                    None => {
                        bytes = ready.bytes;
                        groups.push(vec![ready]);
                    }
                }
                answers.push(None);
            }
            Err(error) => answers.push(Some(Err(error))),
        }
    }
    let size = answers.iter().filter(|answer| answer.is_none()).count();
    let inner = Arc::clone(inner);
    // A task of its own: a caller that stops waiting leaves no transaction half-way.
    let writing = tokio::spawn(async move {
        let mut answers = Vec::with_capacity(size);
        for group in groups {
            answers.extend(write(&inner, &group).await);
        }
        answers
    });
    let mut written = match writing.await {
        Ok(written) => written.into_iter(),
        Err(error) => vec![Err(StoreError::Unavailable(format!("the batch was given up: {error}"))); size].into_iter(),
    };
    let missing = || Err(StoreError::Unavailable("the batch gave no answer".into()));
    answers.into_iter().map(|answer| answer.or_else(|| written.next()).unwrap_or_else(missing)).collect()
}

/// Writes a group; appends whose heads are busy come again with the next turn, and wait with the last one.
async fn write(inner: &Inner, group: &[Ready]) -> Vec<Answer> {
    let mut answers: Vec<Answer> = vec![Ok(Verdict::Busy); group.len()];
    let mut left: Vec<usize> = (0..group.len()).collect();
    for _ in 0..BUSY_TURNS {
        let part: Vec<&Ready> = left.iter().map(|place| &group[*place]).collect();
        let verdicts = together(inner, &part, Patience::None).await;
        for (place, answer) in left.iter().zip(verdicts) {
            answers[*place] = answer;
        }
        left.retain(|place| answers[*place] == Ok(Verdict::Busy));
        if left.is_empty() {
            return answers;
        }
    }
    // Each waits for its own head only. Whoever waits for a lock is served before those who skip it.
    let lanes = left.iter().take(LANES).map(|place| async move {
        let alone = [&group[*place]];
        (*place, together(inner, &alone, Patience::Short).await)
    });
    for (place, verdicts) in join_all(lanes).await {
        if let [answer] = verdicts.as_slice() {
            answers[place] = answer.clone();
        }
    }
    answers
}

/// Writes appends in one transaction; if that fails as a whole, each in one of its own.
async fn together(inner: &Inner, part: &[&Ready], patience: Patience) -> Vec<Answer> {
    let everybody = |answer: Answer| vec![answer; part.len()];
    let mut pauses = Pauses::away();
    let mut unlucky = 0;
    loop {
        let mut verdicts = Vec::new();
        let mut witness = None;
        let trouble = match attempt(inner, part, patience, &mut verdicts, &mut witness).await {
            Ok(()) => return verdicts,
            Err(trouble) => trouble,
        };
        match trouble {
            Trouble::Final(error) => return everybody(Err(error)),
            Trouble::Away(error) => {
                tracing::warn!(%error, appends = part.len(), "the database is away; nothing was written yet");
                if !pauses.pause().await {
                    return everybody(Err(error));
                }
            }
            Trouble::Unknown(error) => {
                tracing::warn!(%error, appends = part.len(), "the answer to a commit was lost; looking it up");
                let committed = match witness {
                    Some(witness) => transaction::was_committed(inner, key(part), witness).await,
                    None => None,
                };
                match committed {
                    Some(true) => return verdicts,
                    Some(false) => {}
                    None => return everybody(Err(error)),
                }
            }
            Trouble::Refused(error) => {
                let kind = failed(&error);
                match kind {
                    Failed::LockTimeout if patience == Patience::Short => return everybody(Ok(Verdict::Busy)),
                    Failed::Passing | Failed::NoPartition if unlucky < UNLUCKY_MAX => {
                        unlucky += 1;
                        if kind == Failed::NoPartition {
                            inner.partitions.forget();
                        }
                    }
                    Failed::Passing
                    | Failed::NoPartition
                    | Failed::LockTimeout
                    | Failed::Connection
                    | Failed::Refused => {
                        let [one, _, ..] = part else { return everybody(Err(error.into())) };
                        let error = StoreError::from(error);
                        tracing::warn!(%error, execution_id = %one.append.execution_id, appends = part.len(),
                            "a batch was refused as a whole; each of its appends is tried alone");
                        let mut answers = Vec::with_capacity(part.len());
                        for ready in part {
                            answers.extend(Box::pin(together(inner, &[ready], patience)).await);
                        }
                        return answers;
                    }
                }
            }
        }
    }
}

/// What is held while a part is written.
fn key(part: &[&Ready]) -> i64 {
    let first = part.first().map(|ready| &ready.append);
    first.map_or(0, |append| append.events.first().map_or(append.execution_id.0, |new| new.event_id.0))
}

async fn attempt(
    inner: &Inner,
    part: &[&Ready],
    patience: Patience,
    verdicts: &mut Vec<Answer>,
    witness: &mut Option<(ExecutionId, noetl_core::id::EventId)>,
) -> Result<(), Trouble> {
    let client = transaction::take(&inner.writers).await?;
    let mut wanted = Wanted::default();
    part.iter().for_each(|ready| wanted.add(&ready.append));
    let missing = inner.partitions.missing(wanted.births.iter().copied());
    if !missing.is_empty() {
        inner.partitions.make(&client, &missing).await?;
    }
    let mut stage = match transaction::look(inner, &client, key(part), &wanted, patience).await {
        Ok(look) => Stage::new(look.heads, look.held, look.states).waiting_for(look.ticks).with_keys(look.keys),
        Err(trouble) => {
            transaction::give_up(&client).await;
            return Err(trouble);
        }
    };
    verdicts.extend(part.iter().map(|ready| stage.append(ready, false)));
    if stage.is_empty() {
        transaction::give_up(&client).await;
        return Ok(());
    }
    *witness = stage.witness();
    let committed = transaction::commit(inner, &client, &stage).await;
    if matches!(committed, Err(Trouble::Refused(_) | Trouble::Final(_))) {
        // When the statement could not even be prepared, the transaction is still open.
        transaction::give_up(&client).await;
    }
    committed
}

/// Returns the months of births in an append decided under a lock.
pub(super) fn births(append: &Append) -> Vec<ExecutionId> {
    let mut born = Vec::new();
    if matches!(append.guard, Guard::New(_)) {
        born.push(append.execution_id);
    }
    for child in &append.children {
        born.extend(births(child));
    }
    born
}
