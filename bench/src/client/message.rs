//! Messages cut out of a stream of bytes, each with its head only: what follows is counted, not kept.
//!
//! In: bytes as they come, and how long the next message is. Out: the first bytes of each message, once the whole of it
//! is there. Always: a message that lies in one piece is not copied.

/// So much of a message is looked at. The hash of a list stands within the first 128 bytes of its message, and what
/// etcd puts before it takes less than as much again.
pub(super) const HEAD_BYTES: usize = 512;

/// One message that is coming in.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    head: Vec<u8>,
    remaining: usize,
}

impl Incoming {
    /// Begins a message of so many bytes.
    pub(super) fn begin(&mut self, bytes: usize) {
        self.head.clear();
        self.remaining = bytes;
    }

    /// How many bytes of it are still to come.
    pub(super) fn remaining(&self) -> usize {
        self.remaining
    }

    /// Takes what belongs to it from `bytes`, and gives its head to `whole` if that was the last of it.
    pub(super) fn take(&mut self, bytes: &mut &[u8], whole: &mut impl FnMut(&[u8])) {
        let (own, rest) = bytes.split_at(self.remaining.min(bytes.len()));
        *bytes = rest;
        self.remaining -= own.len();
        if self.head.is_empty() && self.remaining == 0 {
            return whole(&own[..own.len().min(HEAD_BYTES)]);
        }
        let room = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&own[..own.len().min(room)]);
        if self.remaining == 0 {
            whole(&self.head);
            self.head = Vec::new();
        }
    }
}

/// A prefix of fixed length that may come in pieces.
#[derive(Debug)]
pub(super) struct Prefix<const N: usize> {
    bytes: [u8; N],
    have: usize,
}

impl<const N: usize> Default for Prefix<N> {
    fn default() -> Self {
        Prefix { bytes: [0; N], have: 0 }
    }
}

impl<const N: usize> Prefix<N> {
    /// Takes what is missing; the prefix, once it is whole. The next call begins another one.
    pub(super) fn take(&mut self, bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (own, rest) = bytes.split_at((N - self.have).min(bytes.len()));
        *bytes = rest;
        self.bytes[self.have..self.have + own.len()].copy_from_slice(own);
        self.have += own.len();
        if self.have < N {
            return None;
        }
        self.have = 0;
        Some(self.bytes)
    }
}

/// Messages, each behind a prefix of `N` bytes that ends in its length (32 bits, big-endian): `N` is 4 for the floors'
/// frames and 5 for gRPC's.
#[derive(Debug, Default)]
pub(super) struct Messages<const N: usize> {
    prefix: Prefix<N>,
    incoming: Incoming,
    is_inside: bool,
}

impl<const N: usize> Messages<N> {
    /// Takes all bytes, and gives the head of each whole message to `whole`.
    pub(super) fn take(&mut self, mut bytes: &[u8], whole: &mut impl FnMut(&[u8])) {
        loop {
            if !self.is_inside {
                let Some(prefix) = self.prefix.take(&mut bytes) else { return };
                let length = [prefix[N - 4], prefix[N - 3], prefix[N - 2], prefix[N - 1]];
                self.incoming.begin(u32::from_be_bytes(length) as usize);
                self.is_inside = true;
            }
            if bytes.is_empty() && self.incoming.remaining() > 0 {
                return;
            }
            self.incoming.take(&mut bytes, whole);
            if self.incoming.remaining() > 0 {
                return;
            }
            self.is_inside = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_the_same_however_their_bytes_are_cut() {
        let mut wire = Vec::new();
        let sizes = [0, 1, 511, 512, 513, 9_000];
        for size in sizes {
            wire.extend_from_slice(&[0]);
            wire.extend_from_slice(&u32::try_from(size).unwrap().to_be_bytes());
            wire.extend((0..size).map(|at| (at % 251) as u8));
        }
        for piece in [1, 2, 5, 7, 600, wire.len()] {
            let mut messages = Messages::<5>::default();
            let mut heads = Vec::new();
            for bytes in wire.chunks(piece) {
                messages.take(bytes, &mut |head| heads.push(head.to_vec()));
            }
            let expected: Vec<Vec<u8>> = sizes
                .iter()
                .map(|size| (0..*size.min(&HEAD_BYTES)).map(|at| (at % 251) as u8).collect())
                .collect();
            assert_eq!(heads, expected, "in pieces of {piece}");
        }
    }
}
