//! [`Index`]: which things have a key, so that nobody has to look at all of them.
//!
//! In: pairs of a key and an id, as things come, change and go. Out: the ids of one key, in order. Cheap to clone.
//! Always: costs follow the pairs that change and the ids of the key that is asked for, never how many there are; a key
//! that nothing has takes no memory.

use std::borrow::Borrow;
use std::hash::Hash;

use rpds::{HashTrieMapSync, RedBlackTreeSetSync};

/// The ids of the things that have a key, for each key. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Index<K: Hash + Eq, V: Ord> {
    ids: HashTrieMapSync<K, Ids<V>>,
}

/// Mostly there is one, which then takes no tree.
#[derive(Clone, Debug)]
enum Ids<V: Ord> {
    One(V),
    Several(RedBlackTreeSetSync<V>),
}

impl<K: Hash + Eq, V: Ord> Default for Index<K, V> {
    fn default() -> Index<K, V> {
        Index { ids: HashTrieMapSync::new_sync() }
    }
}

impl<K: Hash + Eq + Clone, V: Ord + Copy> Index<K, V> {
    /// Notes that the thing of this id has the key.
    pub fn add(&mut self, key: K, id: V) {
        let ids = match self.ids.get(&key) {
            None => Ids::One(id),
            Some(Ids::One(one)) if *one == id => return,
            Some(Ids::One(one)) => Ids::Several([*one, id].into_iter().collect()),
            Some(Ids::Several(several)) => Ids::Several(several.insert(id)),
        };
        self.ids.insert_mut(key, ids);
    }

    /// Notes that the thing of this id no longer has the key.
    pub fn remove<Q: Hash + Eq + ?Sized + ToOwned<Owned = K>>(&mut self, key: &Q, id: V)
    where
        K: Borrow<Q>,
    {
        let left = match self.ids.get(key) {
            Some(Ids::Several(several)) => several.remove(&id),
            Some(Ids::One(one)) if *one == id => RedBlackTreeSetSync::new_sync(),
            Some(Ids::One(_)) | None => return,
        };
        match (left.first().copied(), left.size()) {
            (None, _) => {
                self.ids.remove_mut(key);
            }
            (Some(one), 1) => self.ids.insert_mut(key.to_owned(), Ids::One(one)),
            _ => self.ids.insert_mut(key.to_owned(), Ids::Several(left)),
        }
    }

    /// The ids of the things that have the key, in order.
    pub fn of<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> impl Iterator<Item = V> + use<'_, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let (one, several) = match self.ids.get(key) {
            None => (None, None),
            Some(Ids::One(one)) => (Some(*one), None),
            Some(Ids::Several(several)) => (None, Some(several)),
        };
        one.into_iter().chain(several.into_iter().flatten().copied())
    }
}

/// Numbers that a seed decides, for tests that compare an index with a look at everything.
#[cfg(test)]
pub(crate) mod dice {
    /// SplitMix64.
    pub(crate) struct Dice(u64);

    impl Dice {
        pub(crate) fn new(seed: u64) -> Dice {
            Dice(seed)
        }

        /// A number below `end`.
        pub(crate) fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % end
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_ids_that_were_added_and_not_removed() {
        let mut index: Index<String, u32> = Index::default();
        let of = |index: &Index<String, u32>, key: &str| index.of(key).collect::<Vec<_>>();
        for (key, id) in [("a", 3), ("a", 1), ("a", 3), ("b", 2)] {
            index.add(key.to_owned(), id);
        }
        let before = index.clone();
        index.remove("a", 3);
        index.remove("a", 9);
        index.remove("b", 1);
        index.remove("c", 1);
        assert_eq!((of(&index, "a"), of(&index, "b"), of(&index, "c")), (vec![1], vec![2], vec![]));
        index.remove("a", 1);
        assert!(of(&index, "a").is_empty());
        assert_eq!(index.ids.size(), 1, "what has no id is forgotten");
        assert_eq!(of(&before, "a"), [1, 3], "a copy stays as it was");
    }
}
