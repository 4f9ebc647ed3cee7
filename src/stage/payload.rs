//! Scratch memory that stages share, and errors of payloads.

use crate::error::{Error, ErrorKind};

/// A payload that breaks a rule of the format.
pub(super) fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

/// A length as the wire's 32 bits; blocks are bounded far below.
pub(super) fn le32(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

/// `buffer` at no less than `len` items, its contents unspecified.
pub(super) fn scratch<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}

/// Keeps the shorter of the payloads from `start` to `end` of `dst` and from `end` on, the first of equals; says whether it
/// is the second.
pub(super) fn keep_shorter(dst: &mut Vec<u8>, start: usize, end: usize) -> bool {
    let is_second = dst.len() - end < end - start;
    if is_second {
        dst.drain(start..end);
    } else {
        dst.truncate(end);
    }
    is_second
}
