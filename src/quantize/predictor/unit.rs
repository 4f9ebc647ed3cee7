//! What is known of a unit of elements before any step is chosen, from one pass.

use crate::dtype::Dtype;
use crate::kernels::Isa;
use crate::kernels::convert::for_each_block;
use crate::kernels::moments::{BLOCK_LEN, Moments};
use crate::kernels::octaves::OctaveCounts;

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
            let moments = Moments::of_values(isa, values);
            if waiting.counts.room() < values.len() {
                unit.octaves.merge(&std::mem::take(&mut waiting).octaves());
            }
            waiting.add(values, &moments);
            unit.moments.merge(&moments);
        })?;
        unit.octaves.merge(&waiting.octaves());
        Some(unit)
    }

    /// Takes in the elements of `next`, which follow. The result depends on the order, by rounding.
    pub fn merge(&mut self, next: &Self) {
        self.moments.merge(&next.moments);
        self.octaves.merge(&next.octaves);
    }
}

/// Blocks that have been counted, before their octaves are put in order.
#[derive(Default)]
struct Waiting {
    counts: OctaveCounts,
    zeros: u64,
    abs_max: f64,
}

impl Waiting {
    fn add(&mut self, values: &[f32], moments: &Moments) {
        self.counts.add(values);
        self.zeros += moments.zeros;
        self.abs_max = self.abs_max.max(moments.abs_max());
    }

    fn octaves(self) -> Octaves {
        if self.abs_max == 0.0 {
            return Octaves::default();
        }
        #[expect(clippy::cast_possible_truncation, reason = "it is one of the values")]
        let top = (self.abs_max as f32).to_bits() >> 23;
        let mut counts = [[0u64; N_OCTAVES]; 2];
        for (sign_bit, counts) in [0, 256].into_iter().zip(&mut counts) {
            for below in 0..=top {
                // The last holds all that is smaller.
                let place = (below as usize).min(N_OCTAVES - 1);
                counts[place] += u64::from(self.counts.of(sign_bit + (top - below) as usize));
            }
        }
        // Zeros of either sign come off the subnormals together; which of the two they were has no effect on indices.
        let last = (top as usize).min(N_OCTAVES - 1);
        let from_positive = self.zeros.min(self.counts.of(0).into());
        counts[0][last] -= from_positive;
        counts[1][last] -= (self.zeros - from_positive).min(self.counts.of(256).into());
        Octaves { top_log2: top.cast_signed() - EXPONENT_BIAS, counts }
    }
}

impl Octaves {
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
