//! Elements that stood where the two before them stood last: the long matches of Lempel and Ziv, a decision for each element.

use std::collections::HashMap;

use super::binary::{Bit, BitCoder};

/// Most elements of a section that has matches: what is remembered of each takes some fifty bytes.
pub(super) const MAX_LEN: usize = 1 << 18;
/// Elements told one behind the other from which on there is no telling them apart.
const MAX_RUN: usize = 15;

/// The elements so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Matches {
    /// For each two elements in a row what followed them last.
    followers: HashMap<[u64; 2], u64>,
    last: Option<[u64; 2]>,
    n_taken: usize,
    /// Elements told so one behind the other.
    run: usize,
    kinds: Kinds,
}

/// For each length of a run whether it goes on.
#[derive(Debug, Clone)]
struct Kinds([Bit; MAX_RUN + 1]);

impl Default for Kinds {
    fn default() -> Self {
        Self([Bit::NEW; MAX_RUN + 1])
    }
}

impl Matches {
    /// Codes whether the next element is the one that followed the last two before, if any did; the element if it is.
    pub(super) fn code<C: BitCoder>(&mut self, coder: &mut C, element: u64) -> Option<u64> {
        let follower = *self.followers.get(&self.last?)?;
        let kind = &mut self.kinds.0[self.run.min(MAX_RUN)];
        let is_told = coder.bit(kind, element == follower);
        self.run = if is_told { self.run + 1 } else { 0 };
        is_told.then_some(follower)
    }

    /// Takes note of an element.
    pub(super) fn take(&mut self, element: u64) {
        let [_, before] = self.last.unwrap_or_default();
        if let Some(last) = self.last.filter(|_| self.n_taken > 1) {
            self.followers.insert(last, element);
        }
        self.n_taken += 1;
        self.last = Some([before, element]);
    }
}

/// Whether so many of `elements` would be told by earlier ones that it pays to ask of each.
pub(super) fn are_common(elements: impl ExactSizeIterator<Item = u64>) -> bool {
    /// Most places that are remembered, by a hash of what stands there; no more than four for each element.
    const MAX_PLACES_LOG2: u32 = 16;
    /// One in so many has to be told.
    const ONE_IN: usize = 64;
    let n = elements.len();
    let places_log2 = (4 * n.max(1)).ilog2().min(MAX_PLACES_LOG2);
    let mut places = vec![([0u64; 2], 0u64); 1 << places_log2];
    let (mut last, mut n_told) = ([0u64; 2], 0usize);
    for element in elements {
        // The multiplier of Fibonacci hashing (D. Knuth, The Art of Computer Programming 3, 6.4).
        let mixed = (last[0].rotate_left(29) ^ last[1]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let place = usize::try_from(mixed >> (u64::BITS - places_log2)).unwrap_or(0);
        if let Some(place) = places.get_mut(place) {
            // Zeros are told by whether the one before was one.
            n_told += usize::from(*place == (last, element) && (last != [0; 2] || element != 0));
            *place = (last, element);
        }
        last = [last[1], element];
    }
    n <= MAX_LEN && n_told > 64 && n_told * ONE_IN > n
}
