//! Cascades and jobs: the ids they have still to visit, and the steps that visit them.

use noetl_core::id::{CancellationId, ExecutionId};
use noetl_core::time::Timestamp;

use super::Prepared;
use super::tables::Tables;
use crate::{Cancellation, Chunk, ChunkDecide, DRIVE_CLAIM_MS, LockedView, Pick, StoreError, Visit, landing};

impl Tables {
    pub(super) fn open_cancellation(&mut self, cancellation: Cancellation) {
        let id = cancellation.cancellation_id;
        if !self.cancellations.contains_key(&id) {
            self.front.extend(cancellation.first_front().into_iter().map(|first| ((id, first), first)));
            self.cancellations.insert(id, cancellation);
        }
    }

    /// One step of a cascade or job: fence, then look.
    pub(super) fn cancel_chunk(
        &mut self,
        id: CancellationId,
        pick: &Pick,
        mut decide: ChunkDecide,
        now: Timestamp,
    ) -> Result<Chunk, StoreError> {
        let before = self.cancellations.get(&id).and_then(|job| job.cursor);
        let (picked, after): (Vec<(ExecutionId, ExecutionId)>, _) = match pick {
            Pick::Front(max) => (self.front(id).take(*max).collect(), before),
            // Somebody else looked there already, or the job was stopped.
            Pick::Page { from, .. } if before != Some(*from) => (Vec::new(), before),
            Pick::Page { ids, to, .. } => (ids.iter().map(|id| (*id, *id)).collect(), *to),
        };
        // Decided one by one and written together, so that an error leaves nothing behind. No visit reads what
        // another one writes.
        let mut visited = Vec::new();
        let mut walked = Vec::new();
        let mut landings = Vec::new();
        let mut spared = 0;
        for (member, through) in &picked {
            let Some(view) = self.view(*member) else { continue };
            visited.push(*member);
            let Visit { append, walks_on } = decide(&LockedView { now, view, tail: Vec::new() }, *through);
            if walks_on {
                walked.push((*member, *through));
            }
            match append {
                None => spared += u64::from(!walks_on),
                Some(append) => {
                    landing::decided_under_lock(&append, *member)?;
                    match self.prepare(append, true)? {
                        Prepared::Lands(append, landing) => landings.push((append, landing)),
                        Prepared::Stays(verdict) => return Err(landing::stayed_under_lock(*member, &verdict)),
                    }
                }
            }
        }
        let cancelled = landings.len() as u64;
        for (append, landing) in landings {
            self.write(*append, *landing);
        }
        for (member, _) in &picked {
            self.front.remove(&(id, *member));
        }
        for (member, through) in &walked {
            let children = self.children.get(member).cloned().unwrap_or_default();
            // A listed one that is a child too is reached as a child: stopping the job must not leave it behind.
            self.front.extend(children.into_iter().map(|child| ((id, child), *through)));
        }
        let front = self.front(id).next().is_some();
        let done = !front && after.is_none();
        if let Some(job) = self.cancellations.get_mut(&id) {
            job.cancelled += cancelled;
            job.visited += visited.len() as u64;
            job.spared += spared;
            job.cursor = after;
            job.claimed_until = Some(now.plus_ms(DRIVE_CLAIM_MS));
            if done && job.done_at.is_none() {
                job.done_at = Some(now);
            }
        }
        Ok(Chunk { visited, front, cursor: after, done })
    }

    pub(super) fn claim_cancellation(&mut self, id: CancellationId, now: Timestamp) -> bool {
        let Some(job) = self.cancellations.get_mut(&id) else { return false };
        let free = job.done_at.is_none() && job.claimed_until.is_none_or(|until| until < now);
        if free {
            job.claimed_until = Some(now.plus_ms(DRIVE_CLAIM_MS));
        }
        free
    }

    pub(super) fn stop_cancellation(&mut self, id: CancellationId, by: &str, now: Timestamp) -> Option<Cancellation> {
        let job = self.cancellations.get_mut(&id)?;
        if job.selection.is_some() && job.done_at.is_none() && job.stopped_at.is_none() {
            job.stopped_at = Some(now);
            job.stopped_by = Some(by.to_owned());
            job.cursor = None;
            // What was not begun; the descendants of what was begun stay.
            self.front.retain(|(job, member), through| *job != id || member != through);
            let done = self.front(id).next().is_none();
            if let Some(job) = self.cancellations.get_mut(&id).filter(|_| done) {
                job.done_at = Some(now);
            }
        }
        self.cancellations.get(&id).cloned()
    }

    /// Ids to visit, each with the one it is reached through.
    fn front(&self, id: CancellationId) -> impl Iterator<Item = (ExecutionId, ExecutionId)> {
        let all = (id, ExecutionId(i64::MIN))..=(id, ExecutionId(i64::MAX));
        self.front.range(all).map(|((_, member), through)| (*member, *through))
    }
}
