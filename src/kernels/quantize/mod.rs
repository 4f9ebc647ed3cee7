//! Uniform quantization: `f32` values to indices and back, and the error that this leaves.
//!
//! ```text
//! quantize    q = |x| / step;  k = floor(q);  k += (q − k > threshold[min(k, 31)]);  k takes the sign of x
//! dequantize  x̂ = (k as f32) · step
//! ```
//!
//! The reconstruction points are uniform; rate–distortion optimised rounding lies in the thresholds alone (a dead zone
//! is a first threshold above one half), as in G. J. Sullivan, "Efficient scalar quantization of exponential and
//! Laplacian random variables" (1996). Every operation is a single IEEE operation, none of them fused, so that
//! indices, values and error sums are the same on every instruction set.

mod error_sums;
mod even_sums;
mod in_place;
mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
mod x86_avx2;

pub use error_sums::ErrorSums;
pub use even_sums::{COLUMN_LEN, ROW_LEN, SHEET_LEN};
pub use in_place::Replaced;
pub(super) use scalar::floor;

use super::Isa;
use crate::dtype::Dtype;

/// The index of an element that has none: not finite, or more than [`MAX_STEPS`] steps from zero. It is even.
pub const ESCAPE: i32 = i32::MIN;
/// Largest magnitude that is quantized, in steps: below it fractions of a step still have a place in `f32`.
pub const MAX_STEPS: f32 = 4_194_304.0;
/// Entries of a threshold table.
pub const N_THRESHOLDS: usize = 32;

/// How a magnitude between two reconstruction points chooses.
#[derive(Debug, Clone, PartialEq)]
pub enum Rounding {
    /// The nearer point, ties towards zero.
    Nearest,
    /// The upper point `k + 1` only where the fraction above `k` exceeds entry `min(k, 31)`; entries lie in
    /// [0, 1], one half being nearest.
    Thresholds([f32; N_THRESHOLDS]),
    /// The same, but so that indices lie on the lattice of [`SHEET_LEN`]: where the sum of a column of eight is odd, the
    /// element that is nearest to its threshold, and not zero, takes its other neighbour.
    EvenSums([f32; N_THRESHOLDS]),
}

impl Rounding {
    /// The same with no error above `max_error` steps, which is at least one half.
    #[must_use]
    pub fn within(self, max_error: f32) -> Self {
        match self {
            Self::Nearest => Self::Nearest,
            // The other neighbour may be a whole step away.
            Self::Thresholds(table) | Self::EvenSums(table) => {
                Self::Thresholds(table.map(|threshold| threshold.max(1.0 - max_error).min(max_error)))
            }
        }
    }
}

/// Writes the index of each value; `step` is positive and finite. As many as the shorter slice holds.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn quantize(isa: Isa, values: &[f32], step: f32, rounding: &Rounding, indices: &mut [i32]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::quantize_avx512(values, step, rounding, indices) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::quantize_avx2(values, step, rounding, indices) }
        }
        _ => scalar::quantize(values, step, rounding, indices),
    }
}

/// Writes the value of each index; any `i32` will do, and that of [`ESCAPE`] means nothing. As many as the shorter
/// slice holds.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn dequantize(isa: Isa, indices: &[i32], step: f32, values: &mut [f32]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::dequantize_avx512(indices, step, values) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::dequantize_avx2(indices, step, values) }
        }
        _ => scalar::dequantize(indices, step, values),
    }
}

/// [`dequantize`], and each value rounded to `dtype` as little-endian bytes.
///
/// `None`, with nothing written, for a dtype that [`super::convert`] does not take, or unless `bytes` are as many elements
/// as `indices`.
#[must_use]
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn dequantize_elements(
    isa: Isa,
    dtype: Dtype,
    indices: &[i32],
    step: f32,
    bytes: &mut [u8],
) -> Option<()> {
    if !super::convert::fits(dtype, bytes.len(), indices.len()) {
        return None;
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::dequantize_elements_avx512(dtype, indices, step, bytes) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::dequantize_elements_avx2(dtype, indices, step, bytes) }
        }
        _ => scalar::dequantize_elements(dtype, indices, step, bytes),
    }
    Some(())
}

/// [`quantize`], [`dequantize`] and [`measure`] in one go over the little-endian F32 elements in `source`, or in `bytes`
/// themselves, which become their reconstruction; those whose index is [`ESCAPE`] stay as they are. `None`, with nothing done,
/// unless all of them are as many elements as `indices`. Meanwhile `next` is fetched from memory, as far as it is no longer
/// than `bytes`.
#[must_use]
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn replace_f32(
    isa: Isa,
    source: Option<&[u8]>,
    bytes: &mut [u8],
    step: f32,
    rounding: &Rounding,
    indices: &mut [i32],
    next: &[u8],
) -> Option<Replaced> {
    let (elements, []) = bytes.as_chunks_mut::<4>() else { return None };
    let source = match source.map(<[u8]>::as_chunks::<4>) {
        Some((source, [])) if source.len() == elements.len() => Some(source),
        Some(_) => return None,
        None => None,
    };
    if elements.len() != indices.len() {
        return None;
    }
    Some(match (isa, rounding) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Rounding::Thresholds(_) | Rounding::EvenSums(_)) if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::replace_f32_avx512(source, elements, step, rounding, indices, next) }
        }
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, Rounding::Thresholds(_) | Rounding::EvenSums(_)) if isa.available() => {
            // SAFETY: as above.
            unsafe { x86_avx2::replace_f32(source, elements, step, rounding, indices, next) }
        }
        _ => in_place::replace_f32(isa, source, elements, step, rounding, indices),
    })
}

/// Compares the elements of a tensor, or of a run of it, with their reconstruction, both of `dtype`.
///
/// `None` for a dtype that [`super::convert`] does not take, or unless both hold the same whole number of elements.
#[must_use]
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn measure(isa: Isa, dtype: Dtype, original: &[u8], decoded: &[u8]) -> Option<ErrorSums> {
    let is_whole = original.len().is_multiple_of(dtype.unit_bytes());
    if !super::convert::is_convertible(dtype) || original.len() != decoded.len() || !is_whole {
        return None;
    }
    Some(match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::measure_avx512(dtype, original, decoded) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::measure_avx2(dtype, original, decoded) }
        }
        _ => error_sums::measure(dtype, original, decoded),
    })
}

/// Largest `|x − x̂| ÷ scale` of the elements of a run, each with a positive scale of its own; errors as in [`ErrorSums`].
///
/// `None` for a dtype that [`super::convert`] does not take, or unless both runs hold as many elements as there are scales.
#[must_use]
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn max_scaled(isa: Isa, dtype: Dtype, original: &[u8], decoded: &[u8], scales: &[f32]) -> Option<f64> {
    let fits = |bytes: &[u8]| super::convert::fits(dtype, bytes.len(), scales.len());
    if !(fits(original) && fits(decoded)) {
        return None;
    }
    Some(match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::max_scaled_avx512(dtype, original, decoded, scales) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::max_scaled_avx2(dtype, original, decoded, scales) }
        }
        _ => error_sums::max_scaled(dtype, original, decoded, scales),
    })
}
