//! The mean square alone, in a third of the time that all moments take.

use super::Isa;
use crate::dtype::Dtype;

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
        super::for_each_block(isa, dtype, bytes, |values| total.merge(&super::block_squares(isa, values)))?;
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

/// The squares of one block, as a plain loop that the gated wrappers widen.
#[inline(always)]
pub(super) fn block(values: &[f32]) -> Squares {
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
    rows.iter().for_each(&mut add);
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
