//! Dependent (trellis-coded) quantization with 8 states.
//!
//! Two scalar quantizers share the work: Q0 reconstructs at even multiples of the step, Q1 at odd ones and at zero.
//! Which one an element uses follows from the parities of the indices before it, through a state machine, so that
//! together they pack space more densely than a uniform quantizer of the same rate:
//!
//! ```text
//! x̂ = (2k − (s & 1)·sgn k) · step;    s ← NEXT_STATE[s][k & 1];    s = 0 at the start
//! ```
//!
//! The method is trellis-coded quantization (M. W. Marcellin, T. R. Fischer, 1990) in the form of the video coding
//! standard VVC (H. Schwarz et al., "Hybrid video coding with trellis-coded quantization", 2019) and of the coding of
//! neural networks (ISO/IEC 15938-17), with 8 states as in VVC's successor model ECM. Here 32 chains run side by side:
//! element `i` belongs to chain `i mod 32`, and every chain starts anew with each call.
//!
//! The encoder finds each chain's path of least `squared error ÷ step² + cost of the index` by the Viterbi algorithm, in
//! single IEEE operations in a fixed order, so that every instruction set chooses the same indices. An element that is
//! not finite or too large gets [`ESCAPE`], whose parity is 0.

mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
mod x86_avx512;

use super::Isa;
use super::quantize::{ESCAPE, MAX_STEPS};

/// States of a chain; the quantizer in use is `state & 1`.
pub const N_STATES: usize = 8;
/// Chains that run side by side.
pub const N_CHAINS: usize = 32;
/// The state after a state, by the parity of the index.
pub const NEXT_STATE: [[u8; 2]; N_STATES] = [[0, 2], [5, 7], [1, 3], [6, 4], [2, 0], [4, 6], [3, 1], [7, 5]];
/// Entries of a cost table.
pub const N_COSTS: usize = 32;

/// What an index costs in each quantizer, by `min(|k|, 31)`, in units of `step²`: finite, not negative, below 2^20.
#[derive(Debug, Clone, PartialEq)]
pub struct Costs(pub [[f32; N_COSTS]; 2]);

impl Costs {
    /// No index costs anything: least squared error alone decides.
    pub const FREE: Self = Self([[0.0; N_COSTS]; 2]);
}

/// Scratch that [`quantize`] needs for `n_values` elements.
#[must_use]
pub fn scratch_len(n_values: usize) -> usize {
    n_values.next_multiple_of(N_CHAINS)
}

/// Writes the index of each value; `step`, half of the distance between the points of one quantizer, is positive and
/// finite. `scratch` holds [`scratch_len`] entries of any content.
///
/// `None`, with nothing written, where `scratch` or `indices` is too short.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn quantize(
    isa: Isa,
    values: &[f32],
    step: f32,
    costs: &Costs,
    scratch: &mut [u16],
    indices: &mut [i32],
) -> Option<()> {
    let scratch = scratch.get_mut(..scratch_len(values.len()))?;
    let indices = indices.get_mut(..values.len())?;
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86_avx512::quantize(values, step, costs, scratch, indices) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::quantize_avx2(values, step, costs, scratch, indices) }
        }
        _ => scalar::quantize(values, step, costs, scratch, indices),
    }
    Some(())
}

/// States of the chains, each below [`N_STATES`].
pub type ChainStates = [u32; N_CHAINS];

/// Writes the value of each index; any `i32` will do, and that of [`ESCAPE`] means nothing. As many as the shorter
/// slice holds. `states` are those before the first index, all 0 at the start, and become those after the last; only the
/// last of several runs may have a length that is no multiple of [`N_CHAINS`].
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn dequantize(isa: Isa, indices: &[i32], step: f32, states: &mut ChainStates, values: &mut [f32]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::dequantize_avx512(indices, step, states, values) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::dequantize_avx2(indices, step, states, values) }
        }
        _ => scalar::dequantize(indices, step, states, values),
    }
}

/// Largest magnitude that a label tells.
pub const MAX_LABEL: u8 = 126;
/// The magnitude in the label of an [`ESCAPE`].
pub const ESCAPE_LABEL: u8 = 127;

/// Labels indices, which begin their chains, for counting: the magnitude up to [`MAX_LABEL`], or [`ESCAPE_LABEL`], in the low
/// seven bits, the quantizer in use in the top one. As many as the shorter slice holds.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn label(isa: Isa, indices: &[i32], labels: &mut [u8]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::label_avx512(indices, labels) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::label_avx2(indices, labels) }
        }
        _ => scalar::label(indices, labels),
    }
}
