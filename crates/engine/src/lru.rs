//! A bounded memory that forgets what was used longest ago.

use std::collections::BTreeMap;

/// Values by key, up to a total weight.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    /// Keys by when they were last used.
    order: BTreeMap<u64, K>,
    tick: u64,
    weight: u64,
    weight_max: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    used: u64,
    weight: u64,
}

impl<K: Ord + Clone, V> Lru<K, V> {
    /// Returns an empty memory of at most `weight_max`; at least the newest entry is always kept.
    pub(crate) fn new(weight_max: u64) -> Self {
        Lru { entries: BTreeMap::new(), order: BTreeMap::new(), tick: 0, weight: 0, weight_max }
    }

    /// Returns a value and marks it as used.
    pub(crate) fn get(&mut self, key: &K) -> Option<&mut V> {
        self.tick += 1;
        let entry = self.entries.get_mut(key)?;
        self.order.remove(&entry.used);
        self.order.insert(self.tick, key.clone());
        entry.used = self.tick;
        Some(&mut entry.value)
    }

    /// Returns whether there is such a key, without marking it.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Returns a value without marking it.
    pub(crate) fn peek(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Keeps a value of weight 1.
    pub(crate) fn put(&mut self, key: K, value: V) {
        self.put_weighing(key, value, 1);
    }

    /// Keeps a value, and forgets old ones when there is too much.
    pub(crate) fn put_weighing(&mut self, key: K, value: V, weight: u64) {
        self.remove(&key);
        self.tick += 1;
        self.weight += weight;
        self.order.insert(self.tick, key.clone());
        self.entries.insert(key, Entry { value, used: self.tick, weight });
        while self.weight > self.weight_max && self.entries.len() > 1 {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.weight -= entry.weight;
            }
        }
    }

    /// Forgets a value.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.used);
        self.weight -= entry.weight;
        Some(entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_used_longest_ago_goes_first() {
        let mut memory = Lru::new(3);
        for key in ["a", "b", "c"] {
            memory.put(key, key.len());
        }
        memory.get(&"a");
        memory.put("d", 1);
        assert!(memory.contains(&"a") && memory.contains(&"c") && memory.contains(&"d"));
        assert!(!memory.contains(&"b"));
    }

    #[test]
    fn weight_counts_and_the_newest_stays_however_heavy() {
        let mut memory = Lru::new(10);
        memory.put_weighing(1, (), 4);
        memory.put_weighing(2, (), 4);
        memory.put_weighing(3, (), 99);
        assert!(!memory.contains(&1) && !memory.contains(&2) && memory.contains(&3));
        memory.put_weighing(3, (), 1);
        memory.put_weighing(4, (), 9);
        assert!(memory.contains(&3) && memory.contains(&4));
        assert_eq!(memory.remove(&3), Some(()));
        assert_eq!(memory.peek(&3), None);
    }
}
