//! Coding 1, constant: one element, repeated. FORMAT.md section 3.1.

use super::payload::corrupt;
use crate::dtype::Dtype;
use crate::error::Result;

/// The element that all of `bytes` repeats, if there is one.
pub(super) fn element(dtype: Dtype, bytes: &[u8]) -> Option<&[u8]> {
    let unit_bytes = dtype.unit_bytes();
    let element = bytes.get(..unit_bytes)?;
    // Each byte equals the one an element before: compared as two slices, which is fast.
    (bytes[unit_bytes..] == bytes[..bytes.len() - unit_bytes]).then_some(element)
}

/// Fills `dst` with the element that `payload` is.
pub(super) fn decode(dtype: Dtype, payload: &[u8], dst: &mut [u8]) -> Result<()> {
    if payload.len() != dtype.unit_bytes() || !dst.len().is_multiple_of(payload.len()) {
        return Err(corrupt("a constant block's payload is not one element"));
    }
    dst.chunks_exact_mut(payload.len()).for_each(|element| element.copy_from_slice(payload));
    Ok(())
}
