//! Free slots, promised.

use std::sync::Arc;

use noetl_core::execution::Hand;
use noetl_core::head::Holder;

use super::Desk;

/// Free slots promised to one decision. What it does not use is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Promise {
    pub(super) desk: Arc<Desk>,
    pub(super) hands: Vec<Hand>,
}

impl Promise {
    /// Returns a promise of nothing.
    pub(crate) fn none(desk: &Arc<Desk>) -> Self {
        Promise { desk: Arc::clone(desk), hands: Vec::new() }
    }

    /// Returns the hands that a decision may fill.
    pub(crate) fn hands(&self) -> Vec<Hand> {
        self.hands.clone()
    }

    /// Keeps what the decision used; `after` are the same hands after it.
    pub(crate) fn keep_used(&mut self, after: &[Hand]) {
        for (hand, after) in self.hands.iter_mut().zip(after) {
            let unused = after.free.min(hand.free);
            if unused > 0 {
                self.desk.release(hand.holder.session_id, unused);
                hand.free -= unused;
            }
        }
        self.hands.retain(|hand| hand.free > 0);
    }

    /// Adds another promise.
    pub(crate) fn join(&mut self, mut other: Promise) {
        for hand in std::mem::take(&mut other.hands) {
            match self.hands.iter_mut().find(|own| own.holder.session_id == hand.holder.session_id) {
                Some(own) => own.free += hand.free,
                None => self.hands.push(hand),
            }
        }
    }

    /// Splits one slot of the worker with the most free ones among those that serve `pool` off.
    pub(crate) fn take_for(&mut self, pool: &Arc<str>) -> Option<(Holder, Promise)> {
        let serving = self.hands.iter_mut().filter(|hand| hand.free > 0 && hand.pools.contains(pool));
        let hand = serving.max_by_key(|hand| hand.free)?;
        hand.free -= 1;
        let one = Hand { free: 1, ..hand.clone() };
        Some((hand.holder.clone(), Promise { desk: Arc::clone(&self.desk), hands: vec![one] }))
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        for hand in self.hands.iter().filter(|hand| hand.free > 0) {
            self.desk.release(hand.holder.session_id, hand.free);
        }
    }
}
