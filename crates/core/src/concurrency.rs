//! Concurrency keys: how many executions that share a key run at a time.
//!
//! A key guards against overlap, so an execution has its key from its start until nothing of it runs any more: an
//! execution that was cancelled and has not quiesced still stands in the way of one that would rather not start. Who
//! takes the place of what runs (`cancel_running`) does not wait for that: it starts at once, and what it displaces is
//! interrupted.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::ExecutionId;
use crate::time::Timestamp;

/// The `cancelled_by` of what a concurrency key ends.
pub const BY_CONCURRENCY: &str = "concurrency";
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Highest `limit`.
pub const LIMIT_MAX: u64 = 1_000;

/// What happens when a key is taken (`executor.spec.concurrency.on_conflict`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// The new one starts; the oldest ones over the limit are cancelled.
    CancelRunning,
    /// The new one is cancelled where it begins.
    CancelNew,
    /// Nothing is started.
    Reject,
}

/// The key that a start asks for, rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The key; one for all playbooks.
    pub key: Arc<str>,
    /// How many may run with it.
    pub limit: u32,
    /// What happens beyond.
    pub on_conflict: OnConflict,
}

/// An execution that has a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHolder {
    /// Which; an older one has a smaller id.
    pub execution_id: ExecutionId,
    /// It has not ended; else it has, and something of it still runs.
    pub active: bool,
    /// Since when.
    pub started_at: Timestamp,
}

/// What a start found, to be looked at again under the lock of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The key.
    pub key: Arc<str>,
    /// How many may run with it.
    pub limit: u32,
    /// Those that give way; `None`: nobody does, and whoever has not quiesced counts.
    pub displaced: Option<Vec<ExecutionId>>,
}

/// What a wish means now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// It starts, if this still holds when it is written.
    Starts(Admission),
    /// It exists, cancelled because of this holder.
    CancelledBy(ExecutionId),
    /// It does not.
    Rejected,
}

/// Decides a start with a key that `holders` have.
///
/// | on_conflict | holders that count | fewer than the limit | else |
/// | --- | --- | --- | --- |
/// | cancel_running | active ones | starts | starts; the oldest over the limit give way |
/// | cancel_new | those that have not quiesced | starts | cancelled where it begins |
/// | reject | those that have not quiesced | starts | not started |
pub fn decide(wish: &Wish, holders: &[KeyHolder]) -> Entry {
    let admission = |displaced| Admission { key: Arc::clone(&wish.key), limit: wish.limit, displaced };
    let limit = wish.limit as usize;
    match wish.on_conflict {
        OnConflict::CancelRunning => {
            let mut active: Vec<_> = holders.iter().filter(|one| one.active).map(|one| one.execution_id).collect();
            active.sort_unstable();
            active.truncate((active.len() + 1).saturating_sub(limit));
            Entry::Starts(admission(Some(active)))
        }
        OnConflict::CancelNew | OnConflict::Reject if holders.len() < limit => Entry::Starts(admission(None)),
        OnConflict::CancelNew => match holders.iter().map(|one| one.execution_id).max() {
            Some(newest) => Entry::CancelledBy(newest),
            None => Entry::Starts(admission(None)),
        },
        OnConflict::Reject => Entry::Rejected,
    }
}

impl Admission {
    /// Returns whether there is room among `holders`, as they stand under the lock of the key.
    pub fn holds(&self, holders: &[KeyHolder]) -> bool {
        let counts = |holder: &&KeyHolder| match &self.displaced {
            Some(displaced) => holder.active && !displaced.contains(&holder.execution_id),
            None => true,
        };
        holders.iter().filter(counts).count() < self.limit as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(list: &[(i64, bool)]) -> Vec<KeyHolder> {
        let one = |(id, active): &(i64, bool)| KeyHolder {
            execution_id: ExecutionId(*id),
            active: *active,
            started_at: Timestamp(*id),
        };
        list.iter().map(one).collect()
    }

    fn entry(limit: u32, on_conflict: OnConflict, list: &[(i64, bool)]) -> Entry {
        decide(&Wish { key: "k".into(), limit, on_conflict }, &holders(list))
    }

    fn starts(limit: u32, displaced: Option<&[i64]>) -> Entry {
        let displaced = displaced.map(|ids| ids.iter().copied().map(ExecutionId).collect());
        Entry::Starts(Admission { key: "k".into(), limit, displaced })
    }

    #[test]
    fn what_a_taken_key_means() {
        use OnConflict::{CancelNew, CancelRunning, Reject};
        for (limit, on_conflict, list, expected) in [
            (1, CancelRunning, &[][..], starts(1, Some(&[]))),
            (1, CancelRunning, &[(5, true)], starts(1, Some(&[5]))),
            // What has ended does not stand in the way of who takes the place of what runs.
            (1, CancelRunning, &[(5, false)], starts(1, Some(&[]))),
            (2, CancelRunning, &[(7, true), (5, true)], starts(2, Some(&[5]))),
            (2, CancelRunning, &[(7, true)], starts(2, Some(&[]))),
            // A limit that was lowered.
            (1, CancelRunning, &[(5, true), (7, true), (6, true)], starts(1, Some(&[5, 6, 7]))),
            (1, CancelNew, &[], starts(1, None)),
            (1, CancelNew, &[(5, true)], Entry::CancelledBy(ExecutionId(5))),
            (1, CancelNew, &[(5, false)], Entry::CancelledBy(ExecutionId(5))),
            (2, CancelNew, &[(5, true)], starts(2, None)),
            (1, Reject, &[(5, true)], Entry::Rejected),
            (1, Reject, &[(5, false)], Entry::Rejected),
            (1, Reject, &[], starts(1, None)),
        ] {
            assert_eq!(entry(limit, on_conflict, list), expected, "{limit} {on_conflict:?} {list:?}");
        }
    }

    #[test]
    fn an_admission_is_looked_at_again() {
        let alone = Admission { key: "k".into(), limit: 1, displaced: None };
        assert!(alone.holds(&holders(&[])));
        assert!(!alone.holds(&holders(&[(5, false)])), "what still runs counts");
        let displacing = Admission { displaced: Some(vec![ExecutionId(5)]), ..alone };
        assert!(displacing.holds(&holders(&[(5, true)])));
        assert!(displacing.holds(&holders(&[(5, true), (4, false)])));
        assert!(!displacing.holds(&holders(&[(5, true), (6, true)])), "somebody came in between");
    }
}
