//! The heads that the writer has in mind.
//!
//! Only the writer writes, so what it wrote last is what stands in the table, until a transaction is rolled back: then
//! it forgets everything.

use std::collections::HashMap;

use noetl_core::head::Head;
use noetl_core::id::ExecutionId;

/// Most heads kept; about 4 MB.
const HEADS_KEPT: usize = 8_192;

/// Two generations: what is not used while one fills up is forgotten with the other.
#[derive(Default)]
pub(super) struct Heads {
    young: HashMap<ExecutionId, Head>,
    old: HashMap<ExecutionId, Head>,
}

impl Heads {
    pub(super) fn get(&mut self, execution_id: ExecutionId) -> Option<&Head> {
        if !self.young.contains_key(&execution_id) {
            let head = self.old.remove(&execution_id)?;
            self.put(head);
        }
        self.young.get(&execution_id)
    }

    pub(super) fn put(&mut self, head: Head) {
        if self.young.len() >= HEADS_KEPT / 2 && !self.young.contains_key(&head.execution_id) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(head.execution_id, head);
    }

    pub(super) fn forget(&mut self, execution_id: ExecutionId) {
        self.young.remove(&execution_id);
        self.old.remove(&execution_id);
    }

    pub(super) fn forget_all(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
