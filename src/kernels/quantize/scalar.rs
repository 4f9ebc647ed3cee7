//! The definition, as plain loops that the gated wrappers widen.

use super::even_sums::quantize_sheet;
use super::{ESCAPE, MAX_STEPS, N_THRESHOLDS, Rounding};
use crate::dtype::Dtype;
use crate::kernels::convert::from_values;

/// 2^23: a number below 2^22 that has been added to it is rounded to a whole one.
const ROUNDER: f32 = 8_388_608.0;

#[inline(always)]
pub(super) fn quantize(values: &[f32], step: f32, rounding: &Rounding, indices: &mut [i32]) {
    match rounding {
        Rounding::Nearest => quantize_by(values, step, |_| 0.5, indices),
        Rounding::Thresholds(table) => quantize_by(values, step, |k| lookup(table, k), indices),
        Rounding::EvenSums(table) => {
            let (sheets, rest) = values.as_chunks();
            let (index_sheets, index_rest) = indices.as_chunks_mut();
            let sheets = sheets.iter().zip(index_sheets);
            sheets.for_each(|(values, indices)| quantize_sheet(values, step, table, indices));
            quantize_by(rest, step, |k| lookup(table, k), index_rest);
        }
    }
}

/// The whole part of a number from 0 to 2^22, as a float and as an integer; of any other it is of no meaning.
#[inline(always)]
pub(in crate::kernels) fn floor(steps: f32) -> (f32, i32) {
    // Where the sum has rounded up, the whole part is one less.
    let rounded = (steps + ROUNDER) - ROUNDER;
    let whole = if rounded > steps { rounded - 1.0 } else { rounded };
    (whole, (whole + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits()).cast_signed())
}

/// The threshold of magnitude `k`.
#[inline(always)]
pub(super) fn lookup(table: &[f32; N_THRESHOLDS], k: i32) -> f32 {
    table[(k as usize).min(N_THRESHOLDS - 1)]
}

#[inline(always)]
fn quantize_by(values: &[f32], step: f32, threshold: impl Fn(i32) -> f32, indices: &mut [i32]) {
    for (value, index) in values.iter().zip(indices) {
        let steps = (value / step).abs();
        let (whole, below) = floor(steps);
        let k = below.wrapping_add(i32::from(steps - whole > threshold(below)));
        let signed = if value.is_sign_negative() { k.wrapping_neg() } else { k };
        // False for NaN.
        *index = if steps <= MAX_STEPS { signed } else { ESCAPE };
    }
}

#[inline(always)]
pub(super) fn dequantize(indices: &[i32], step: f32, values: &mut [f32]) {
    for (index, value) in indices.iter().zip(values) {
        *value = *index as f32 * step;
    }
}

#[inline(always)]
pub(super) fn dequantize_elements(dtype: Dtype, indices: &[i32], step: f32, bytes: &mut [u8]) {
    from_values(dtype, indices.iter().map(|index| *index as f32 * step), bytes);
}
