//! Runs of numbers that a file's format tells of, between bytes that are anything.

use crate::dtype::Dtype;

/// A run shorter than this is left to the bytes around it: each costs a block of its own, and so do the bytes before it.
pub(super) const MIN_RUN_BYTES: u64 = 4 << 10;

/// Numbers in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NumberRun {
    /// Where they begin.
    pub(super) start: u64,
    /// And end.
    pub(super) end: u64,
    /// What they are, where the format says so.
    pub(super) dtype: Option<Dtype>,
    /// Elements in a row, as of a region.
    pub(super) row_len: usize,
}

/// Fails unless `runs` are in order, apart from each other, long enough, and within `len` bytes.
#[cfg(test)]
pub(super) fn assert_in_order(runs: &[NumberRun], len: usize) {
    let mut end = 0;
    for run in runs {
        assert!(run.start >= end && run.end >= run.start + MIN_RUN_BYTES, "{runs:?}");
        end = run.end;
    }
    assert!(end <= len as u64, "{runs:?}");
}
