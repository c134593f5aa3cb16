//! What the iterations of a loop gave, so that a clone is cheap and recording one end stays cheap in a long loop.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::state::Outcome;

/// Results of one chunk.
const CHUNK: usize = 256;

type Chunk = Vec<Option<Outcome>>;

/// What each iteration gave, by index: chunks that clones share. A decision works on a clone of the state; in one list
/// every decision of a loop would copy the results of all iterations before it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Results {
    len: usize,
    chunks: Vec<Arc<Chunk>>,
}

impl Results {
    /// Returns room for `len` results that are not known yet.
    pub fn unknown(len: usize) -> Self {
        let mut results = Results::default();
        results.grow(len);
        results
    }

    /// Returns how many there is room for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there is room for none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes room for `len` results, if there is less.
    pub fn grow(&mut self, len: usize) {
        if len <= self.len {
            return;
        }
        // Chunks of nothing are all the same one, until something is recorded.
        let blank = Arc::new(vec![None; CHUNK]);
        self.chunks.resize(len.div_ceil(CHUNK), blank);
        self.len = len;
    }

    /// Returns what the iteration gave, when it is kept and known.
    pub fn get(&self, index: usize) -> Option<&Outcome> {
        if index >= self.len {
            return None;
        }
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)?.as_ref()
    }

    /// Records what an iteration gave; beyond the room there is it is not kept.
    pub fn record(&mut self, index: usize, outcome: Outcome) {
        if index >= self.len {
            return;
        }
        if let Some(place) =
            self.chunks.get_mut(index / CHUNK).and_then(|chunk| Arc::make_mut(chunk).get_mut(index % CHUNK))
        {
            *place = Some(outcome);
        }
    }

    /// Returns them in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<&Outcome>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).take(self.len).map(Option::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::result::Bound;

    fn outcome(n: usize) -> Outcome {
        Outcome { result: Bound::inline(json!(n)), error: None, hard: false, handled: false }
    }

    #[test]
    fn results_are_found_where_they_were_recorded_and_clones_share_what_did_not_change() {
        let mut results = Results::unknown(2 * CHUNK + 3);
        for index in [0, CHUNK - 1, CHUNK, 2 * CHUNK + 2] {
            results.record(index, outcome(index));
        }
        let before = results.clone();
        results.record(CHUNK + 1, outcome(7));
        results.record(2 * CHUNK + 3, outcome(8));
        let known: Vec<_> = (0..=results.len()).filter(|index| results.get(*index).is_some()).collect();
        assert_eq!(known, [0, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 2]);
        assert_eq!(results.iter().count(), results.len());
        assert_eq!(results.iter().flatten().count(), 5);
        assert!(before.get(CHUNK + 1).is_none());
        assert!(Arc::ptr_eq(&before.chunks[0], &results.chunks[0]));
        assert!(!Arc::ptr_eq(&before.chunks[1], &results.chunks[1]));
    }

    #[test]
    fn there_is_more_room_after_growing_and_never_less() {
        let mut results = Results::unknown(0);
        assert!(results.is_empty());
        results.grow(CHUNK + 1);
        results.record(CHUNK, outcome(1));
        results.grow(3);
        assert_eq!((results.len(), results.get(CHUNK)), (CHUNK + 1, Some(&outcome(1))));
        let text = serde_json::to_string(&results).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
    }
}
