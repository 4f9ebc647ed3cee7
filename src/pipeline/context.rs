//! What all parts of a run share: threads, limits, and memory that is used again.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use rayon::ThreadPool;

use super::progress::{NoProgress, Progress};
use crate::kernels::Isa;
use crate::limits::Limits;

/// Bytes of blocks under way for each thread: 16 blocks of 256 Ki two-byte elements.
const WINDOW_BYTES_PER_THREAD: usize = 8 << 20;
/// Most bytes of blocks under way. A stream holds both the bytes and the records of each: twice this.
const MAX_WINDOW_BYTES: usize = 96 << 20;

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
    /// Bytes of blocks that are under way at a time.
    pub(crate) fn window_bytes(&self) -> usize {
        self.pool.current_num_threads().saturating_mul(WINDOW_BYTES_PER_THREAD).min(MAX_WINDOW_BYTES)
    }
}

/// Objects that are costly to make, kept for the next task that needs one.
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
