//! How many elements of a block have each exponent, and the rate that this lets expect at any step.

use crate::dtype::Dtype;
use crate::kernels::dyadic::{self, FloatFormat};

/// The counts of a block.
#[derive(Debug, Clone)]
pub(super) struct Octaves {
    format: FloatFormat,
    /// Exponent fields that occur, with their counts, ascending.
    counts: Vec<(u32, u32)>,
    n_elements: u64,
}

impl Octaves {
    /// Counts the elements of `bytes`; `None` of a dtype without layers.
    pub(super) fn count(dtype: Dtype, bytes: &[u8]) -> Option<Self> {
        let format = FloatFormat::of(dtype)?;
        let exponent_bits = dtype.element_bits() - 1 - format.mantissa_bits as usize;
        let mut counts = vec![0; 1 << exponent_bits];
        dyadic::count_exponents(format, bytes, &mut counts);
        let counts = (0..).zip(counts).filter(|(_, count)| *count > 0).collect();
        Some(Self { format, counts, n_elements: (bytes.len() / format.element_bytes) as u64 })
    }

    pub(super) fn n_elements(&self) -> u64 {
        self.n_elements
    }

    /// Bits that the indices at a step of 2^`step` smallest numbers take, if all cells of a binade are equally likely;
    /// falls as the step grows.
    pub(super) fn bits(&self, step: u32) -> f64 {
        let m = self.format.mantissa_bits;
        let n = self.n_elements as f64;
        let plain = |count: f64| if count > 0.0 { count * (n / count).log2() } else { 0.0 };
        let (mut in_zero, mut bits) = (0.0, 0.0);
        for (exponent, count) in &self.counts {
            let (above, count) = ((exponent + m).checked_sub(step + 1), f64::from(*count));
            match above {
                Some(octave) if *exponent > 0 => bits += plain(count) + count * f64::from(1 + octave.min(m)),
                _ => in_zero += count,
            }
        }
        bits + plain(in_zero)
    }

    /// The step at which [`Self::bits`] are nearest to `bits`.
    pub(super) fn step_of_bits(&self, bits: f64) -> u32 {
        let (mut low, mut high) = (0, self.format.max_step() + 1);
        while low + 1 < high {
            let middle = low.midpoint(high);
            if self.bits(middle) >= bits {
                low = middle;
            } else {
                high = middle;
            }
        }
        let is_nearer = high <= self.format.max_step() && bits - self.bits(high) < self.bits(low) - bits;
        if is_nearer { high } else { low }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_fall_by_one_an_octave_and_the_step_is_found_again() {
        let values: Vec<f32> = (1..20_000u16).map(|i| f32::from(i) / 1e4).collect();
        let octaves = Octaves::count(Dtype::F32, bytemuck::cast_slice(&values)).unwrap();
        let n = values.len() as f64;
        // Steps of 2^-7 and 2^-6: 256 and 128 cells below 2, and as many that negative numbers would have.
        let (fine, coarse) = (octaves.bits(142) / n, octaves.bits(143) / n);
        assert!((fine - 9.0).abs() < 0.05 && (coarse - 8.0).abs() < 0.05, "{fine} {coarse}");
        assert_eq!(octaves.step_of_bits(8.6 * n), 142);
        assert_eq!(octaves.step_of_bits(8.4 * n), 143);
        assert_eq!(octaves.step_of_bits(1e9), 0);
        assert!(Octaves::count(Dtype::I32, &[0; 8]).is_none());
    }
}
