//! Places that are counted by who has them: so many for each at one time.
//!
//! Always: who has none takes no memory; one key's places are no other's.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// How many places each key has taken.
#[derive(Debug)]
pub struct Places<K: Hash + Eq + Copy> {
    most: usize,
    taken: Mutex<HashMap<K, usize>>,
}

/// One place of a key; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place<K: Hash + Eq + Copy> {
    places: Arc<Places<K>>,
    key: K,
}

impl<K: Hash + Eq + Copy> Places<K> {
    /// So many places for each key.
    pub fn new(most: usize) -> Arc<Places<K>> {
        Arc::new(Places { most, taken: Mutex::default() })
    }

    /// Takes a place; `None`: the key has as many as it may.
    pub fn take(self: &Arc<Self>, key: K) -> Option<Place<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(key).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { places: Arc::clone(self), key })
    }
}

impl<K: Hash + Eq + Copy> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = taken.entry(self.key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_so_many_places_of_its_own_and_is_forgotten_with_the_last() {
        let places = Places::new(2);
        let first = places.take("a").unwrap();
        let second = places.take("a").unwrap();
        assert!(places.take("a").is_none());
        drop(places.take("b").unwrap());
        drop(first);
        let third = places.take("a").unwrap();
        assert!(places.take("a").is_none());
        assert_eq!(places.taken.lock().unwrap().len(), 1);
        drop((second, third));
        assert!(places.taken.lock().unwrap().is_empty());
    }
}
