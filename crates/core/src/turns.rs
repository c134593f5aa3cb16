//! Turns: how executions share the workers of a pool.
//!
//! By age alone the thousand pending iterations of a loop would stand before everything that starts after them. So
//! among the commands of one pool and one priority the executions take turns: a look at what is pending goes on behind
//! the execution served last, and takes one command of each before it takes a second one of any. Whoever was there
//! when a round began is served in it; what starts later waits for the next one, so that a stream of new executions
//! starves nobody either.
//!
//! Where the turns stand is memory of one server, a hint: claims are safe whatever it says.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::id::{EPOCH_MS, ExecutionId, TIME_SHIFT};
use crate::time::Timestamp;

/// Queues (pool and priority) whose turns are remembered at most.
pub const QUEUES_MAX: usize = 1024;
/// How many freed slots in a row an execution may keep for what it does next while others wait for one.
pub const STREAK_MAX: u32 = 8;

/// Whose turn it is, per pool and priority.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turns {
    queues: BTreeMap<(Arc<str>, i32), Round>,
}

/// A round through the executions of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Round {
    /// Served last.
    after: ExecutionId,
    /// The youngest that was there when the round began.
    last: ExecutionId,
}

/// A range of executions, in the order of their ids.
pub type Stretch = (Bound<ExecutionId>, Bound<ExecutionId>);

impl Turns {
    /// Returns the executions of a queue in the order of their turns: the rest of this round, then the next one.
    pub fn order(&self, pool: &Arc<str>, priority: i32) -> Vec<Stretch> {
        match self.queues.get(&(Arc::clone(pool), priority)) {
            None => vec![(Bound::Unbounded, Bound::Unbounded)],
            Some(Round { after, last }) if after < last => vec![
                (Bound::Excluded(*after), Bound::Included(*last)),
                (Bound::Unbounded, Bound::Included(*after)),
                (Bound::Excluded(*last), Bound::Unbounded),
            ],
            Some(_) => vec![(Bound::Unbounded, Bound::Unbounded)],
        }
    }

    /// Notes that a command of an execution has been given to a worker, this server's or another's.
    pub fn served(&mut self, pool: &Arc<str>, priority: i32, execution_id: ExecutionId, now: Timestamp) {
        if self.queues.len() >= QUEUES_MAX {
            // Pools come and go; the turns begin anew.
            self.queues.clear();
        }
        let youngest = youngest(now).max(execution_id);
        let round =
            self.queues.entry((Arc::clone(pool), priority)).or_insert(Round { after: ExecutionId(0), last: youngest });
        if execution_id <= round.after || execution_id > round.last {
            round.last = youngest;
        }
        round.after = execution_id;
    }
}

/// Returns an id that no execution started by `now` exceeds.
fn youngest(now: Timestamp) -> ExecutionId {
    ExecutionId((now.0 - EPOCH_MS).max(0) << TIME_SHIFT | ((1 << TIME_SHIFT) - 1))
}

/// A slot that a report has freed, as seen when somebody has to get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freed {
    /// Slots of the worker.
    pub slots: u32,
    /// Of these, held by the execution that freed this one, besides it.
    pub held: u32,
    /// Freed slots in a row that the worker's executions have kept.
    pub streak: u32,
    /// Other executions known to wait for a slot.
    pub waiting: usize,
}

impl Freed {
    /// Returns whether the execution may keep the slot for what it does next, although something is pending.
    ///
    /// Keeping it makes a chain one commit per step. But not for ever, and no more than its share of the worker.
    pub fn is_kept(self) -> bool {
        let waiting = u32::try_from(self.waiting).unwrap_or(u32::MAX);
        let share = (self.slots / waiting.saturating_add(1)).max(1);
        self.streak < STREAK_MAX && self.held < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(EPOCH_MS + 1_000);

    fn at(ms: i64) -> ExecutionId {
        ExecutionId(ms << TIME_SHIFT)
    }

    /// Serves the first of `pending` in the order of the turns, and returns it.
    fn serve(turns: &mut Turns, pool: &Arc<str>, pending: &[ExecutionId], now: Timestamp) -> ExecutionId {
        let mut pending = pending.to_vec();
        pending.sort_unstable();
        let order = turns.order(pool, 0);
        let next = order.iter().find_map(|stretch| {
            use std::ops::RangeBounds;
            pending.iter().find(|id| stretch.contains(*id))
        });
        let next = *next.expect("the stretches hold every execution");
        turns.served(pool, 0, next, now);
        next
    }

    #[test]
    fn executions_take_turns_by_age() {
        let (mut turns, pool) = (Turns::default(), Arc::from("default"));
        let pending = [at(3), at(1), at(2)];
        let served: Vec<_> = (0..6).map(|_| serve(&mut turns, &pool, &pending, NOW)).collect();
        assert_eq!(served, [at(1), at(2), at(3), at(1), at(2), at(3)]);
    }

    #[test]
    fn a_stream_of_new_executions_starves_nobody() {
        let (mut turns, pool) = (Turns::default(), Arc::from("default"));
        let old = [at(1), at(2)];
        let mut counts = [0, 0];
        let mut pending = old.to_vec();
        for round in 0..300 {
            // Two more start for every one that is served; the old ones always have more to do.
            pending.extend([at(1_000 + round * 2), at(1_001 + round * 2)]);
            let now = Timestamp(NOW.0 + round * 2);
            let served = serve(&mut turns, &pool, &pending, now);
            pending.retain(|id| *id != served || old.contains(id));
            for (count, id) in counts.iter_mut().zip(old) {
                *count += u32::from(served == id);
            }
        }
        assert!(counts.iter().all(|count| *count >= 5), "{counts:?}");
    }

    #[test]
    fn pools_and_priorities_have_turns_of_their_own() {
        let (mut turns, one, other) = (Turns::default(), Arc::from("one"), Arc::from("other"));
        turns.served(&one, 0, at(5), NOW);
        assert_eq!(turns.order(&one, 0).len(), 3);
        assert_eq!(turns.order(&one, 1), [(Bound::Unbounded, Bound::Unbounded)]);
        assert_eq!(turns.order(&other, 0), [(Bound::Unbounded, Bound::Unbounded)]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut turns = Turns::default();
        for n in 0..5_000 {
            turns.served(&Arc::from("default"), n, at(1), NOW);
        }
        assert!(turns.queues.len() <= QUEUES_MAX);
    }

    #[test]
    fn a_slot_is_kept_within_the_share_and_for_a_while() {
        let freed = Freed { slots: 8, held: 0, streak: 0, waiting: 0 };
        for (kept, freed) in [
            (true, freed),
            (true, Freed { held: 7, ..freed }),
            (false, Freed { streak: STREAK_MAX, ..freed }),
            // One other waits: half of the slots each.
            (true, Freed { held: 3, waiting: 1, ..freed }),
            (false, Freed { held: 4, waiting: 1, ..freed }),
            // A chain holds nothing else, whoever waits.
            (true, Freed { waiting: 1_000, ..freed }),
            (false, Freed { held: 1, waiting: 1_000, ..freed }),
        ] {
            assert_eq!(freed.is_kept(), kept, "{freed:?}");
        }
    }
}
