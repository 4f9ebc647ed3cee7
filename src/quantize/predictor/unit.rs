//! What is known of a unit of elements before any step is chosen, from one pass.

use crate::dtype::Dtype;
use crate::kernels::Isa;
use crate::kernels::convert::for_each_block;
use crate::kernels::moments::{BLOCK_LEN, Moments};
use crate::kernels::octaves::{OctaveCounts, count};

/// Octaves that are told apart below a unit's largest magnitude; what is smaller counts to the last.
pub const N_OCTAVES: usize = 32;

/// Exponent field of 1.0.
const EXPONENT_BIAS: i32 = 127;

/// A run of elements that is quantized at one step: a channel, several channels, a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Unit {
    /// Moments, count, zeros, extremes.
    pub moments: Moments,
    /// Elements by magnitude.
    pub octaves: Octaves,
}

/// Counts of non-zero finite elements by sign and octave, from the largest magnitude down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Octaves {
    /// log2 of the lower end of octave 0; without meaning where all counts are zero.
    top_log2: i32,
    /// Positive, then negative elements with |x| in [2^(top − i), 2^(top − i + 1)) at i; the last holds all below, too.
    counts: [[u64; N_OCTAVES]; 2],
}

impl Unit {
    /// Measures `bytes`, little-endian elements of `dtype`; `None` unless that is F32, F16, BF16 or F64 and the elements
    /// are whole. The same for every `isa`.
    #[must_use]
    pub fn measure(isa: Isa, dtype: Dtype, bytes: &[u8]) -> Option<Self> {
        let mut unit = Self::default();
        let mut waiting = Waiting::default();
        for_each_block::<BLOCK_LEN>(isa, dtype, bytes, |values, _| {
            waiting.add(isa, values);
            if waiting.n_blocks == RUN_BLOCKS {
                unit.merge(&std::mem::take(&mut waiting).unit());
            }
        })?;
        if waiting.n_blocks > 0 {
            unit.merge(&waiting.unit());
        }
        Some(unit)
    }

    /// Takes in the elements of `next`, which follow. The result depends on the order, by rounding.
    pub fn merge(&mut self, next: &Self) {
        self.moments.merge(&next.moments);
        self.octaves.merge(&next.octaves);
    }
}

/// Blocks counted before the counts are added up: far from overflow, and rare enough to cost nothing.
const RUN_BLOCKS: usize = 1 << 10;

/// What is known of some blocks, whose octaves have not been gathered.
struct Waiting {
    moments: Moments,
    counts: OctaveCounts,
    n_blocks: usize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { moments: Moments::default(), counts: [0; 512], n_blocks: 0 }
    }
}

impl Waiting {
    fn add(&mut self, isa: Isa, values: &[f32]) {
        self.moments.merge(&Moments::of_values(isa, values));
        count(values, &mut self.counts);
        self.n_blocks += 1;
    }

    fn unit(self) -> Unit {
        Unit { moments: self.moments, octaves: Octaves::new(&self.counts, self.moments.zeros) }
    }
}

impl Octaves {
    /// Gathers `counts`, of which the `zeros` lie among the subnormals.
    fn new(counts: &OctaveCounts, zeros: u64) -> Self {
        let (positive, negative) = counts.split_at(256);
        let mut signs = [[0u64; 255]; 2];
        for (sign, counts) in signs.iter_mut().zip([positive, negative]) {
            for (octave, count) in sign.iter_mut().zip(counts) {
                *octave = u64::from(*count);
            }
        }
        // Zeros of either sign come off the subnormals together; which of the two they were has no effect on indices.
        let [positive, negative] = &mut signs;
        let from_positive = zeros.min(positive[0]);
        positive[0] -= from_positive;
        negative[0] -= (zeros - from_positive).min(negative[0]);
        let mut octaves = Self::default();
        let Some(top) = (0..255usize).rev().find(|octave| signs.iter().any(|sign| sign[*octave] > 0)) else {
            return octaves;
        };
        octaves.top_log2 = i32::try_from(top).unwrap_or(0) - EXPONENT_BIAS;
        for (kept, sign) in octaves.counts.iter_mut().zip(&signs) {
            for (below, count) in sign[..=top].iter().rev().enumerate() {
                kept[below.min(N_OCTAVES - 1)] += count;
            }
        }
        octaves
    }

    fn is_empty(&self) -> bool {
        self.counts.iter().flatten().all(|count| *count == 0)
    }

    fn merge(&mut self, next: &Self) {
        if next.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = *next;
            return;
        }
        let top_log2 = self.top_log2.max(next.top_log2);
        let mut merged = Self { top_log2, ..Self::default() };
        for part in [&*self, next] {
            let lower = usize::try_from(top_log2 - part.top_log2).unwrap_or(N_OCTAVES);
            for (into, counts) in merged.counts.iter_mut().zip(&part.counts) {
                for (octave, count) in counts.iter().enumerate() {
                    into[(octave + lower).min(N_OCTAVES - 1)] += count;
                }
            }
        }
        *self = merged;
    }

    /// log2 of the lower end of the largest octave; without meaning where there are no elements.
    #[must_use]
    pub fn top_log2(&self) -> i32 {
        self.top_log2
    }

    /// Counts of the positive, then of the negative elements, `[2, N_OCTAVES]`, largest octave first.
    #[must_use]
    pub fn counts(&self) -> &[[u64; N_OCTAVES]; 2] {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(values: &[f32]) -> Unit {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Unit::measure(Isa::detect(), Dtype::F32, &bytes).unwrap()
    }

    #[test]
    fn octaves_are_counted_from_the_top() {
        let unit = unit(&[0.75, -0.5, 0.3, 0.0, -0.0, 1e-30, -1e-44, f32::NAN, f32::INFINITY]);
        assert_eq!(unit.octaves.top_log2(), -1);
        let [positive, negative] = unit.octaves.counts();
        assert_eq!((positive[0], negative[0], positive[1], negative[1]), (1, 1, 1, 0));
        assert_eq!((positive[N_OCTAVES - 1], negative[N_OCTAVES - 1]), (1, 1));
        assert_eq!((positive.iter().sum::<u64>(), negative.iter().sum::<u64>()), (3, 2));
        assert_eq!((unit.moments.zeros, unit.moments.n, unit.moments.n_not_finite), (2, 7, 2));
    }

    #[test]
    fn merged_units_are_the_whole() {
        let values: Vec<f32> = (0..3 * BLOCK_LEN)
            .map(|i| (i as f32 * 0.7).sin() * 2f32.powi(-((i / BLOCK_LEN) as i32) * 9))
            .collect();
        for order in [[0, 1, 2], [2, 1, 0]] {
            let mut merged = Unit::default();
            order.iter().for_each(|part| {
                merged.merge(&unit(&values[part * BLOCK_LEN..(part + 1) * BLOCK_LEN]));
            });
            let whole = unit(&values);
            assert_eq!(merged.octaves, whole.octaves);
            assert!(order[0] != 0 || merged == whole);
            assert!((merged.moments.m4 / whole.moments.m4 - 1.0).abs() < 1e-12);
        }
        let mut empty = Unit::default();
        empty.merge(&unit(&values));
        assert_eq!(empty, unit(&values));
    }
}
