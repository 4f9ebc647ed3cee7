//! Counts of floats by sign and octave, which is what the top nine bits of an f32 say.
//!
//! One variant for all instruction sets: counting is bound by stores, and four tables keep runs of one octave from
//! waiting for their own last addition.

/// Counts by the top nine bits: sign, then the exponent field; 0 and subnormals, 255 infinity and NaN.
pub type OctaveCounts = [u32; 512];

/// Values that 16-bit counters take without overflow: each table sees a quarter.
const RUN_LEN: usize = 1 << 15;

/// Adds `values` to `counts`; a counter that would overflow stays at its largest.
pub fn count(values: &[f32], counts: &mut OctaveCounts) {
    for run in values.chunks(RUN_LEN) {
        let mut tables = [[0u16; 512]; 4];
        let octave = |value: f32| (value.to_bits() >> 23) as usize;
        let (fours, rest) = run.as_chunks::<4>();
        for four in fours {
            for (table, value) in tables.iter_mut().zip(four) {
                table[octave(*value)] += 1;
            }
        }
        for value in rest {
            tables[0][octave(*value)] += 1;
        }
        let [first, second, third, fourth] = &tables;
        for (at, count) in counts.iter_mut().enumerate() {
            let parts = [first[at], second[at], third[at], fourth[at]];
            *count = count.saturating_add(parts.iter().map(|part| u32::from(*part)).sum());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_agree_with_one_at_a_time() {
        let values: Vec<f32> = (0..40_003u32)
            .map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9)))
            .chain([0.0; 70_000])
            .collect();
        let mut counts = [0; 512];
        count(&values, &mut counts);
        let mut expected = [0u32; 512];
        values.iter().for_each(|value| expected[(value.to_bits() >> 23) as usize] += 1);
        assert_eq!(counts, expected);
        counts[0] = u32::MAX;
        count(&[0.0, -1.0], &mut counts);
        assert_eq!((counts[0], counts[256 + 127]), (u32::MAX, expected[256 + 127] + 1));
    }
}
