//! Answers given before, up to a limit.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

/// Remembers values by key. When full it forgets all: an answer is quickly found again, and nothing
/// needs to be kept in order meanwhile.
pub(super) struct Cache<K, V> {
    capacity: usize,
    values: Mutex<HashMap<K, V>>,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    /// A cache of so many values at most.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, values: Mutex::default() }
    }

    /// The remembered value, or a new one. Others can ask while it is being made.
    pub(super) fn get_or(&self, key: K, make: impl FnOnce() -> V) -> V {
        if let Some(value) = self.lock().get(&key) {
            return value.clone();
        }
        let value = make();
        let mut values = self.lock();
        if values.len() >= self.capacity {
            values.clear();
        }
        values.insert(key, value.clone());
        value
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, V>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_within_its_limit() {
        let cache = Cache::new(2);
        assert_eq!(cache.get_or(1, || "a"), "a");
        assert_eq!(cache.get_or(1, || "b"), "a");
        for key in 2..100 {
            cache.get_or(key, || "c");
            assert!(cache.lock().len() <= 2);
        }
        assert_eq!(cache.get_or(1, || "b"), "b");
    }
}
