//! Binary logarithms and powers of `f32`, for values that are quantized by their logarithm (Adam's second moment).
//!
//! Both are computed in `f64` by fixed additions, multiplications and one division, none of them fused and none from a
//! C library, and rounded to `f32` once: the error stays below 0.51 units in the last place, both functions are
//! monotone, powers of two are exact both ways, and every machine gives the same bits.

mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::Isa;

/// Writes log₂ of each value; that of zero is −∞, of infinity ∞, and of a NaN or anything negative NaN, none of which a
/// quantizer takes. As many as the shorter slice holds.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn log2(isa: Isa, values: &[f32], logs: &mut [f32]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::log2_avx512(values, logs) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::log2_avx2(values, logs) }
        }
        _ => scalar::log2(values, logs),
    }
}

/// Writes 2 to the power of each logarithm, rounded to `f32` (0 from −150 down, infinity from 128 up; NaN for NaN). As
/// many as the shorter slice holds.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn exp2(isa: Isa, logs: &[f32], values: &mut [f32]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::exp2_avx512(logs, values) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::exp2_avx2(logs, values) }
        }
        _ => scalar::exp2(logs, values),
    }
}
