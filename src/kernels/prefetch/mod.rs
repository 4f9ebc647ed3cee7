//! Memory brought into the caches before it is needed.

/// Bytes of a cache line, on nearly every machine; another size only makes the hint less useful.
const LINE_BYTES: usize = 64;

/// Asks for `bytes` to be fetched into the first-level cache; a hint without effect on results, and none where the
/// instruction is missing.
#[inline]
#[allow(unsafe_code, reason = "the intrinsic takes a pointer")]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "there is no such hint yet"))]
pub fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    // The last byte too: the slice may begin in the middle of a line.
    for place in bytes.iter().step_by(LINE_BYTES).chain(bytes.last()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the pointer is a reference's, and the instruction, part of every x86-64, only hints.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) }
    }
}

/// Asks for the `n_lines` lines of the caches that begin `ahead` bytes behind the beginning of `items`, for loops that
/// read or write one item after another: what the processor foresees by itself ends with each page.
///
/// They need not be part of `items`, nor exist.
#[inline]
#[allow(unsafe_code, reason = "the intrinsic takes a pointer")]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "there is no such hint yet"))]
pub fn prefetch_ahead<T>(items: &[T], ahead: usize, n_lines: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..n_lines {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let place = items.as_ptr().wrapping_byte_add(ahead + line * LINE_BYTES);
        // SAFETY: the instruction, part of every x86-64, only hints, and does nothing for an address that is not there.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) }
    }
}

/// Memory that is asked for bit by bit, with each turn of a loop that waits for other things: all at once would fill the
/// processor's buffers, and it would wait for them.
#[derive(Debug, Clone)]
pub struct Spread<'a> {
    rest: &'a [u8],
    /// Lines of a part.
    n_lines: usize,
}

impl<'a> Spread<'a> {
    /// `bytes`, over `n_turns` turns.
    #[must_use]
    pub fn over(bytes: &'a [u8], n_turns: usize) -> Self {
        Self { rest: bytes, n_lines: bytes.len().div_ceil(LINE_BYTES).div_ceil(n_turns.max(1)) }
    }

    /// Nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::over(&[], 1)
    }

    /// Asks for the next part.
    #[inline(always)]
    pub fn turn(&mut self) {
        let Some(rest) = self.rest.get(self.n_lines * LINE_BYTES..) else { return };
        prefetch_ahead(self.rest, 0, self.n_lines);
        self.rest = rest;
    }
}
