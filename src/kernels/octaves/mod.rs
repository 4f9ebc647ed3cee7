//! Counts of floats by sign and octave, which is what the top nine bits of an f32 say.
//!
//! One variant for all instruction sets: counting is bound by stores, and four tables keep runs of one octave from
//! waiting for their own last addition.

/// Values that no 16-bit counter overflows by, even if one counts them all.
pub const MAX_VALUES: usize = 1 << 15;

/// Counts by the top nine bits of at most [`MAX_VALUES`] values: sign, then the exponent field; 0 and subnormals, 255
/// infinity and NaN.
#[derive(Debug, Clone)]
pub struct OctaveCounts {
    tables: [[u16; 512]; 4],
    n_values: usize,
}

impl Default for OctaveCounts {
    fn default() -> Self {
        Self { tables: [[0; 512]; 4], n_values: 0 }
    }
}

impl OctaveCounts {
    /// How many values may be added.
    #[must_use]
    pub fn room(&self) -> usize {
        MAX_VALUES - self.n_values
    }

    /// Counts `values`, of which those that there is no [`Self::room`] for are left out.
    pub fn add(&mut self, values: &[f32]) {
        let values = &values[..values.len().min(self.room())];
        self.n_values += values.len();
        let octave = |value: f32| (value.to_bits() >> 23) as usize;
        let (fours, rest) = values.as_chunks::<4>();
        for four in fours {
            for (table, value) in self.tables.iter_mut().zip(four) {
                table[octave(*value)] += 1;
            }
        }
        for value in rest {
            self.tables[0][octave(*value)] += 1;
        }
    }

    /// How many values have these top nine bits.
    #[must_use]
    pub fn of(&self, top_bits: usize) -> u32 {
        self.tables.iter().map(|table| table.get(top_bits).map_or(0, |count| u32::from(*count))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_agree_with_one_at_a_time() {
        let values: Vec<f32> =
            (0..20_003u32).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9))).chain([0.0; 5_000]).collect();
        let mut counts = OctaveCounts::default();
        counts.add(&values);
        assert_eq!(counts.room(), MAX_VALUES - values.len());
        let mut expected = [0u32; 512];
        values.iter().for_each(|value| expected[(value.to_bits() >> 23) as usize] += 1);
        assert!((0..512).all(|bits| counts.of(bits) == expected[bits]));
        assert_eq!(counts.of(512), 0);
    }

    #[test]
    fn no_counter_overflows() {
        let mut counts = OctaveCounts::default();
        // Value by value, too, which all come to the first table.
        for _ in 0..5 {
            counts.add(&[1.0]);
        }
        counts.add(&[1.0; 2 * MAX_VALUES]);
        counts.add(&[2.0]);
        assert_eq!((counts.of(127), counts.of(128), counts.room()), (MAX_VALUES as u32, 0, 0));
    }
}
