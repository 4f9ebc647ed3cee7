//! Points of the checkerboard lattice D₈: indices of which eight at a time sum to an even number.
//!
//! A sheet is 512 indices as 8 rows of 64; the eight of each column have an even sum. One bit of every eight indices
//! then follows from the others and is not stored, which is worth more than the twelfth by which the mean squared error
//! grows: at the same rate the error is 4.5 % less than that of single indices, and at 1.5 bits still 4.
//! The nearest point is found as J. H. Conway and N. J. A. Sloane do ("Fast quantizing and decoding algorithms for
//! lattice quantizers and codes", 1982): each value is rounded by itself, and where the sum of a column is odd, the one
//! that was closest to being rounded the other way is. What follows the last whole sheet is rounded and no more.

use super::{ESCAPE, MAX_STEPS, N_THRESHOLDS, scalar};

/// Rows of a sheet, which are the indices of a column.
pub const COLUMN_LEN: usize = 8;
/// Columns of a sheet.
pub const ROW_LEN: usize = 64;
/// Indices of a sheet.
pub const SHEET_LEN: usize = COLUMN_LEN * ROW_LEN;

/// Indices of the values of a sheet.
#[inline(always)]
pub(super) fn quantize_sheet(
    values: &[f32; SHEET_LEN],
    step: f32,
    table: &[f32; N_THRESHOLDS],
    indices: &mut [i32; SHEET_LEN],
) {
    let mut nearest = [f32::INFINITY; ROW_LEN];
    let (mut others, mut places, mut sums) = ([0; ROW_LEN], [0; ROW_LEN], [0; ROW_LEN]);
    let rows = values.as_chunks::<ROW_LEN>().0.iter().zip(indices.as_chunks_mut::<ROW_LEN>().0);
    for (row_idx, (values, indices)) in rows.enumerate() {
        for (column, (&value, index)) in values.iter().zip(indices).enumerate() {
            let steps = (value / step).abs();
            let (whole, below) = scalar::floor(steps);
            let (fraction, threshold) = (steps - whole, scalar::lookup(table, below));
            let is_up = fraction > threshold;
            let signed = |k: i32| if value.is_sign_negative() { k.wrapping_neg() } else { k };
            let is_in_range = steps <= MAX_STEPS;
            *index = if is_in_range { signed(below.wrapping_add(i32::from(is_up))) } else { ESCAPE };
            sums[column] ^= *index;
            // Zeros stay zeros.
            let distance =
                if is_in_range && value != 0.0 { (fraction - threshold).abs() } else { f32::INFINITY };
            if distance < nearest[column] {
                nearest[column] = distance;
                others[column] = signed(below.wrapping_add(i32::from(!is_up)));
                places[column] = row_idx;
            }
        }
    }
    for column in 0..ROW_LEN {
        if sums[column] & 1 == 1 {
            indices[places[column] * ROW_LEN + column] = others[column];
        }
    }
}
