//! Samples of a block, from which it is seen what the block is before all of it is read.

use crate::kernels::prefetch::prefetch;

/// Places that a sample is taken from.
const N_PLACES: usize = 64;
/// Elements next to each other at a place.
const RUN_LEN: usize = 64;

/// Runs of elements of `element_bytes` from all over `bytes`: of few elements all.
pub(super) fn runs(bytes: &[u8], element_bytes: usize) -> impl Iterator<Item = &[u8]> {
    let run_bytes = RUN_LEN * element_bytes;
    let stride = (bytes.len() / element_bytes / N_PLACES).max(RUN_LEN) * element_bytes;
    bytes.chunks(stride).map(move |chunk| &chunk[..chunk.len().min(run_bytes)])
}

/// Asks for [`runs`] to be fetched: most of the time that a sample takes goes into waiting for memory, which is far less for
/// all of it at once, and nothing behind other work.
pub(super) fn fetch(bytes: &[u8], element_bytes: usize) {
    runs(bytes, element_bytes).for_each(prefetch);
}
