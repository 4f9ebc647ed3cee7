//! Elements with scales of their own, as those of channels have: largest magnitudes, division by scales, and
//! multiplication.
//!
//! Every operation is a single IEEE operation, so that all instruction sets give the same bits.

mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::Isa;

/// Magnitudes that are too close to what a format or `f32` can hold to be quantized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Headroom {
    /// The largest finite magnitude that an element may be rebuilt as.
    pub largest: f32,
    /// By how much a reconstruction may lie above its element, at a scale of 1.
    pub margin: f32,
}

/// Divides each value by its scale, which is positive. NaN takes the place of values that could be rebuilt as infinity, or
/// whose quotient could. As many as the shorter slice holds.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn divide(isa: Isa, values: &mut [f32], scales: &[f32], headroom: Headroom) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::divide_avx512(values, scales, headroom) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::divide_avx2(values, scales, headroom) }
        }
        _ => scalar::divide(values, scales, headroom),
    }
}

/// Multiplies each value by its scale. As many as the shorter slice holds.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn multiply(isa: Isa, values: &mut [f32], scales: &[f32]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::multiply_avx512(values, scales) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::multiply_avx2(values, scales) }
        }
        _ => scalar::multiply(values, scales),
    }
}

/// The largest magnitude of the finite `values`; 0 where there are none.
#[must_use]
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn largest_finite(isa: Isa, values: &[f32]) -> f32 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::largest_finite_avx512(values) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::largest_finite_avx2(values) }
        }
        _ => scalar::largest_finite(values),
    }
}
