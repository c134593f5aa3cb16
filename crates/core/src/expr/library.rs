//! Large results that expressions may look into, by reference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// The large results at hand, and a note of those that were asked for and are not.
///
/// An expression never waits: when it touches a stored result that is not here, the reference is noted and the
/// evaluation ends with [`super::ExprError::Needs`]. Whoever asked loads what [`Library::take_needs`] names into a
/// new library and evaluates again.
#[derive(Debug, Default)]
pub struct Library {
    loaded: Mutex<BTreeMap<String, Arc<Value>>>,
    needs: Mutex<BTreeSet<String>>,
    misses: AtomicU64,
}

impl Library {
    /// Returns a library without any result.
    pub fn empty() -> Self {
        Library::default()
    }

    /// Returns a library of the given results by reference.
    pub fn with(loaded: BTreeMap<String, Arc<Value>>) -> Self {
        Library { loaded: Mutex::new(loaded), ..Library::default() }
    }

    /// Returns a result that is at hand.
    pub fn get(&self, reference: &str) -> Option<Arc<Value>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(reference).cloned()
    }

    /// Puts a result at hand that is about to be stored.
    pub fn insert(&self, reference: &str, data: Arc<Value>) {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(reference.to_owned(), data);
    }

    /// Returns the references that were asked for in vain since the last call, each once, and forgets them.
    pub fn take_needs(&self) -> Vec<String> {
        std::mem::take(&mut *self.noted()).into_iter().collect()
    }

    /// Notes that a result is needed.
    pub fn note(&self, reference: &str) {
        self.noted().insert(reference.to_owned());
    }

    /// Returns a result, or notes that it is needed.
    pub(super) fn get_or_note(&self, reference: &str) -> Option<Arc<Value>> {
        let found = self.get(reference);
        if found.is_none() {
            self.noted().insert(reference.to_owned());
            self.misses.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// Returns how often something was asked for in vain, so that an evaluation can tell whether it did.
    pub(super) fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    fn noted(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.needs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
