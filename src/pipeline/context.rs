//! What all parts of a run share: threads, limits, and memory that is used again.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use rayon::ThreadPool;

use super::progress::{NoProgress, Progress};
use crate::kernels::Isa;
use crate::limits::Limits;

/// Bytes of blocks in one batch for each thread: 8 blocks of 256 Ki two-byte elements.
const BATCH_BYTES_PER_THREAD: usize = 4 << 20;
/// Most bytes in one batch. Two batches are in flight, one being coded and one being written, and a stream holds
/// both the bytes and the records of each: four times this.
const MAX_BATCH_BYTES: usize = 48 << 20;
/// Most blocks in one batch; a hostile archive may have blocks of one byte.
pub(crate) const MAX_BATCH_BLOCKS: usize = 4096;

/// Threads, limits and onlooker of a run.
#[derive(Clone)]
pub struct Context<'a> {
    /// The threads that work; the global pool is never used.
    pub pool: &'a ThreadPool,
    /// Who is told how far the run has come.
    pub progress: &'a dyn Progress,
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Bounds on what files may claim.
    pub limits: Limits,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("isa", &self.isa)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<'a> Context<'a> {
    /// A context with `pool`, the fastest instruction set, the default limits and nobody watching.
    #[must_use]
    pub fn new(pool: &'a ThreadPool) -> Self {
        Self { pool, progress: &NoProgress, isa: Isa::detect(), limits: Limits::default() }
    }
}

impl Context<'_> {
    /// Bytes of blocks that one batch holds.
    pub(crate) fn batch_bytes(&self) -> usize {
        self.pool.current_num_threads().saturating_mul(BATCH_BYTES_PER_THREAD).min(MAX_BATCH_BYTES)
    }
}

/// Objects that are costly to make, kept for the next task that needs one. A fresh buffer costs a page fault
/// for each 4 KiB, which is more than decoding them.
#[derive(Debug)]
pub(crate) struct Checkout<T> {
    idle: Mutex<Vec<T>>,
}

impl<T> Default for Checkout<T> {
    fn default() -> Self {
        Self { idle: Mutex::default() }
    }
}

impl<T> Checkout<T> {
    /// An idle object, or a new one.
    pub(crate) fn take(&self, make: impl FnOnce() -> T) -> T {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(make)
    }

    /// Gives an object back.
    pub(crate) fn put(&self, object: T) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(object);
    }

    /// All idle objects.
    pub(crate) fn into_idle(self) -> Vec<T> {
        self.idle.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Checkout;

    #[test]
    fn objects_come_back() {
        let checkout = Checkout::default();
        let first = checkout.take(|| 1);
        let second = checkout.take(|| 2);
        checkout.put(first);
        assert_eq!(checkout.take(|| 3), 1);
        checkout.put(second);
        assert_eq!(checkout.into_idle(), [2]);
    }
}
