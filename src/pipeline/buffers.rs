//! Memory for blocks that is used again. A fresh buffer costs a page fault for each 4 KiB, which is more than
//! decoding them.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Most bytes kept for later.
const MAX_IDLE_BYTES: usize = 48 << 20;
/// Buffers below this size are left to the allocator. Were they kept, those of many small blocks between large ones
/// would all grow in the end.
const MIN_IDLE_BYTES: usize = 64 << 10;

/// Buffers that wait for their next use.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffers {
    /// A buffer of any capacity with unspecified contents.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let buffer = idle.buffers.pop().unwrap_or_default();
        idle.bytes -= buffer.capacity();
        buffer
    }

    /// A buffer with room for `capacity` bytes; what it holds is left over from its last use, to be written over.
    pub(crate) fn take_with_room(&self, capacity: usize) -> Vec<u8> {
        let mut buffer = if capacity < MIN_IDLE_BYTES { Vec::new() } else { self.take() };
        if buffer.capacity() < capacity {
            buffer = Vec::with_capacity(capacity);
        }
        buffer
    }

    /// `len` bytes with unspecified contents.
    pub(crate) fn take_len(&self, len: usize) -> Buffer {
        let mut bytes = if len < MIN_IDLE_BYTES { Vec::new() } else { self.take() };
        if bytes.len() < len {
            // What it held is not worth copying.
            bytes = vec![0; len];
        }
        Buffer { bytes, len }
    }

    /// Gives a buffer back.
    pub(crate) fn put(&self, buffer: Vec<u8>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.capacity() >= MIN_IDLE_BYTES && idle.bytes + buffer.capacity() <= MAX_IDLE_BYTES {
            idle.bytes += buffer.capacity();
            idle.buffers.push(buffer);
        }
    }

    /// Gives a buffer of [`Self::take_len`] back.
    pub(crate) fn put_len(&self, buffer: Buffer) {
        self.put(buffer.bytes);
    }
}

/// The first bytes of a buffer. What is behind them stays as it is: cut off, it would have to be filled with zeros
/// at the next use, which takes a good part of the time of coding it.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// At least `len`.
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// Leaves the first `len` bytes, if it has more.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_have_the_length_asked_for_and_come_back() {
        let buffers = Buffers::default();
        for len in [3, 0, 80_000, 100, 70_000] {
            let mut buffer = buffers.take_len(len);
            assert_eq!(buffer.len(), len);
            buffer.fill(7);
            buffer.truncate(4);
            assert_eq!(*buffer, vec![7; len.min(4)]);
            buffers.put_len(buffer);
        }
        // The one of 80 000 bytes has served again.
        let large = buffers.take_with_room(75_000);
        assert_eq!(large.capacity(), 80_000);
        assert_eq!(buffers.take().capacity(), 0);
        assert!(buffers.take_with_room(90_000).capacity() >= 90_000);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let buffers = Buffers::default();
        let n_fit = MAX_IDLE_BYTES >> 20;
        (0..n_fit + 5).for_each(|_| buffers.put(Vec::with_capacity(1 << 20)));
        let kept = (0..n_fit + 5).filter(|_| buffers.take().capacity() > 0).count();
        assert_eq!(kept, n_fit);
    }
}
