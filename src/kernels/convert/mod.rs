//! Element bytes to `f32` and back, for the four float dtypes that quantizers take.
//!
//! Narrowing rounds to nearest, ties to even, as IEEE 754 asks; subnormal numbers are kept, infinity stays infinity,
//! and a NaN stays a NaN (its sign and upper payload bits kept, made quiet). All of it is integer arithmetic or
//! single IEEE operations, so that every instruction set gives the same bits.

mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(super) use scalar::{f16_to_f32, from_values};

use super::Isa;
use super::prefetch::{Spread, prefetch_ahead};
use crate::dtype::Dtype;

/// Whether [`to_f32`] and [`from_f32`] take this dtype.
#[must_use]
pub fn is_convertible(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::Bf16)
}

/// Little-endian elements of `dtype` as `f32`; exact but for F64, which is rounded.
///
/// `None`, with nothing written, for another dtype or unless `bytes` holds `values.len()` elements.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn to_f32(isa: Isa, dtype: Dtype, bytes: &[u8], values: &mut [f32]) -> Option<()> {
    if !fits(dtype, bytes.len(), values.len()) {
        return None;
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::to_f32_avx512(dtype, bytes, values) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::to_f32_avx2(dtype, bytes, values) }
        }
        _ => scalar::to_f32(dtype, bytes, values),
    }
    Some(())
}

/// How far ahead of the elements that are read memory is fetched, in bytes.
const AHEAD: usize = 8 << 10;

/// Shows `take` the values of `bytes`, little-endian elements of `dtype`, in blocks of `LEN`, of which the last may be shorter:
/// F32 where they lie, if they lie as floats do. With a block comes what is to be fetched meanwhile, a part with each 16
/// values. `None`, with nothing shown, unless they convert and are whole.
pub fn for_each_block<const LEN: usize>(
    isa: Isa,
    dtype: Dtype,
    bytes: &[u8],
    mut take: impl FnMut(&[f32], &mut Spread<'_>),
) -> Option<()> {
    if !is_convertible(dtype) || !bytes.len().is_multiple_of(dtype.unit_bytes()) {
        return None;
    }
    if let (Dtype::F32, Ok(values), true) =
        (dtype, bytemuck::try_cast_slice::<u8, f32>(bytes), cfg!(target_endian = "little"))
    {
        for (block_idx, values) in values.chunks(LEN).enumerate() {
            let ahead = bytes.get(4 * LEN * block_idx + AHEAD..).unwrap_or_default();
            let ahead = &ahead[..ahead.len().min(4 * values.len())];
            take(values, &mut Spread::over(ahead, values.len() / 16));
        }
        return Some(());
    }
    let mut values = [0f32; LEN];
    for block in bytes.chunks(LEN * dtype.unit_bytes()) {
        let values = &mut values[..block.len() / dtype.unit_bytes()];
        convert_block(isa, dtype, block, values)?;
        take(values, &mut Spread::none());
    }
    Some(())
}

/// [`to_f32`] part by part, fetching what follows: what is asked for all at once waits for its turn.
fn convert_block(isa: Isa, dtype: Dtype, block: &[u8], values: &mut [f32]) -> Option<()> {
    const PART_LEN: usize = 256;
    let part_bytes = PART_LEN * dtype.unit_bytes();
    for (part, values) in block.chunks(part_bytes).zip(values.chunks_mut(PART_LEN)) {
        prefetch_ahead(part, AHEAD, part_bytes / 64);
        to_f32(isa, dtype, part, values)?;
    }
    Some(())
}

/// The inverse of [`to_f32`]: each value rounded to `dtype`, as little-endian bytes.
///
/// `None`, with nothing written, for another dtype or unless `bytes` holds `values.len()` elements.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn from_f32(isa: Isa, dtype: Dtype, values: &[f32], bytes: &mut [u8]) -> Option<()> {
    if !fits(dtype, bytes.len(), values.len()) {
        return None;
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::from_f32_avx512(dtype, values, bytes) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::from_f32_avx2(dtype, values, bytes) }
        }
        _ => scalar::from_f32(dtype, values, bytes),
    }
    Some(())
}

pub(super) fn fits(dtype: Dtype, bytes_len: usize, n_values: usize) -> bool {
    is_convertible(dtype) && n_values.checked_mul(dtype.unit_bytes()) == Some(bytes_len)
}
