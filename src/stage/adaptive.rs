//! Coding 8, adaptive: floats of a short block without any table. FORMAT.md section 3.8.

use super::payload::corrupt;
use crate::dtype::Dtype;
use crate::entropy::adaptive::{FloatLayout, decode_floats, encode_floats};
use crate::error::Result;

/// Float types by their id in the payload.
const DTYPES: [(Dtype, FloatLayout); 4] = [
    (Dtype::F32, FloatLayout { n_bytes: 4, exponent_bits: 8, mantissa_bits: 23 }),
    (Dtype::F16, FloatLayout { n_bytes: 2, exponent_bits: 5, mantissa_bits: 10 }),
    (Dtype::Bf16, FloatLayout { n_bytes: 2, exponent_bits: 8, mantissa_bits: 7 }),
    (Dtype::F64, FloatLayout { n_bytes: 8, exponent_bits: 11, mantissa_bits: 52 }),
];

/// Largest block that it is tried on: behind it tables cost little, and are forty times as fast.
const MAX_BYTES: usize = 512 << 10;

/// Appends the payload of a short block of floats; `false`, and nothing written, for other blocks.
pub(super) fn encode(dtype: Dtype, bytes: &[u8], dst: &mut Vec<u8>) -> bool {
    let place = DTYPES.iter().position(|(known, _)| *known == dtype);
    let Some((id, (_, layout))) = place.and_then(|id| Some((u8::try_from(id).ok()?, DTYPES.get(id)?))) else {
        return false;
    };
    if bytes.len() > MAX_BYTES {
        return false;
    }
    dst.push(id);
    encode_floats(*layout, bytes, dst);
    true
}

/// Fills `dst` with the elements of `payload`.
pub(super) fn decode(payload: &[u8], dst: &mut [u8]) -> Result<()> {
    let decoded = payload.split_first().and_then(|(&id, section)| {
        let (_, layout) = DTYPES.get(usize::from(id))?;
        let is_whole = dst.len().is_multiple_of(layout.n_bytes);
        is_whole.then(|| decode_floats(*layout, section, dst))?
    });
    decoded.ok_or_else(|| corrupt("the adaptive block's payload breaks the format"))
}
