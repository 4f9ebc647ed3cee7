//! The mean square alone, in a third of the time that all moments take.

use super::{BLOCK_LEN, Isa, block_squares};
use crate::dtype::Dtype;
use crate::kernels::convert::for_each_block;
use crate::kernels::prefetch::Spread;

/// Running sums: element `i` of a block belongs to lane `i mod 16`.
const LANES: usize = 16;

/// The finite elements of a run, and their squares.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Squares {
    /// Finite elements.
    pub n: u64,
    /// Σx² over them.
    pub sum: f64,
}

impl Squares {
    /// The squares of `bytes`, little-endian elements of `dtype`; `None` unless that is F32, F16, BF16 or F64 and the
    /// elements are whole. Summed by blocks in lanes, so that every `isa` gives the same bits.
    #[must_use]
    pub fn measure(isa: Isa, dtype: Dtype, bytes: &[u8]) -> Option<Self> {
        let mut total = Self::default();
        for_each_block::<BLOCK_LEN>(isa, dtype, bytes, |values, ahead| {
            total.merge(&block_squares(isa, values, ahead));
        })?;
        Some(total)
    }

    /// Takes in the elements of `next`, which follow. The result depends on the order, by rounding.
    pub fn merge(&mut self, next: &Self) {
        self.n += next.n;
        self.sum += next.sum;
    }

    /// Mean of x²; 0 of no elements.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.sum / self.n.max(1) as f64
    }
}

/// The squares of one block, as a plain loop that the gated wrappers widen; a turn of `ahead` for each row.
#[inline(always)]
pub(super) fn block(values: &[f32], ahead: &mut Spread<'_>) -> Squares {
    let (mut sums, mut counts) = ([0f64; LANES], [0u32; LANES]);
    let mut add = |row: &[f32; LANES]| {
        for lane in 0..LANES {
            let is_finite = row[lane].abs() < f32::INFINITY;
            let x = f64::from(if is_finite { row[lane] } else { 0.0 });
            sums[lane] += x * x;
            counts[lane] += u32::from(is_finite);
        }
    };
    let (rows, rest) = values.as_chunks::<LANES>();
    for row in rows {
        ahead.turn();
        add(row);
    }
    if !rest.is_empty() {
        // What fills the last row is not finite, so that it does not count.
        let mut row = [f32::NAN; LANES];
        row[..rest.len()].copy_from_slice(rest);
        add(&row);
    }
    Squares {
        n: counts.iter().map(|&n| u64::from(n)).sum(),
        sum: sums.iter().fold(0.0, |total, sum| total + sum),
    }
}
