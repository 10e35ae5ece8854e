//! [`Fresh`]: which of many things are new since somebody last looked.
//!
//! In: keys, from those who own the things. Out: all of them, each once, to the one who looks.
//! Always: costs one look at a flag while nobody does. Never: says what is new of a thing; that, the thing itself shows.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// See the module. Cloning shares it. It holds no more keys than there are things.
#[derive(Debug)]
pub struct Fresh<K> {
    inner: Arc<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    is_followed: AtomicBool,
    keys: Mutex<HashSet<K>>,
}

impl<K> Clone for Fresh<K> {
    fn clone(&self) -> Self {
        Fresh { inner: Arc::clone(&self.inner) }
    }
}

impl<K> Default for Fresh<K> {
    fn default() -> Self {
        let (is_followed, keys) = Default::default();
        Fresh { inner: Arc::new(Inner { is_followed, keys }) }
    }
}

impl<K: Hash + Eq> Fresh<K> {
    /// Notes that something is new of a thing. It must be so already: whoever looks may do so at once.
    pub fn mark(&self, key: K) {
        if self.is_followed() {
            self.inner.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        }
    }

    /// Whether somebody looks.
    pub fn is_followed(&self) -> bool {
        self.inner.is_followed.load(Ordering::Acquire)
    }

    /// From now on somebody looks, or nobody does any more; then what was noted is forgotten.
    pub fn follow(&self, is_followed: bool) {
        self.inner.is_followed.store(is_followed, Ordering::Release);
        if !is_followed {
            *self.inner.keys.lock().unwrap_or_else(PoisonError::into_inner) = HashSet::new();
        }
    }

    /// The keys that were noted since the last call.
    pub fn take(&self) -> HashSet<K> {
        std::mem::take(&mut *self.inner.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_noted_once_and_only_while_somebody_looks() {
        let fresh = Fresh::default();
        fresh.mark(1);
        assert!(fresh.take().is_empty(), "nobody looked");
        fresh.follow(true);
        [2, 3, 2].into_iter().for_each(|key| fresh.clone().mark(key));
        assert_eq!(fresh.take(), [2, 3].into());
        assert!(fresh.take().is_empty());
        fresh.mark(4);
        fresh.follow(false);
        assert!(fresh.take().is_empty());
    }
}
