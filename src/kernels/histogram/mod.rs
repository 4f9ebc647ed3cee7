//! Counts and sums of bytes, for choosing tables.

/// Counts of the 256 byte values.
pub type Histogram = [u32; 256];

/// Byte counters filled by turns, so that runs of one value do not wait for their own last addition.
#[derive(Debug, Clone)]
pub struct Counters([Histogram; 4]);

impl Default for Counters {
    fn default() -> Self {
        Self([[0; 256]; 4])
    }
}

impl Counters {
    /// Counts every byte of `bytes`.
    pub fn count(&mut self, bytes: &[u8]) {
        let [first, second, third, fourth] = &mut self.0;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let [a, b, c, d, e, f, g, h] = *word;
            first[usize::from(a)] += 1;
            second[usize::from(b)] += 1;
            third[usize::from(c)] += 1;
            fourth[usize::from(d)] += 1;
            first[usize::from(e)] += 1;
            second[usize::from(f)] += 1;
            third[usize::from(g)] += 1;
            fourth[usize::from(h)] += 1;
        }
        for &byte in rest {
            first[usize::from(byte)] += 1;
        }
    }

    /// The counts so far.
    #[must_use]
    pub fn total(&self) -> Histogram {
        std::array::from_fn(|value| self.0.iter().map(|counts| counts[value]).sum())
    }
}

/// Sum of the bytes.
#[must_use]
pub fn byte_sum(bytes: &[u8]) -> u64 {
    /// Every other byte of a word.
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    let mut sum = 0u64;
    // 1 KiB is 128 words: 128 · 2 · 255 fits the 16-bit lanes.
    for chunk in bytes.chunks(1024) {
        let (words, rest) = chunk.as_chunks::<8>();
        let lanes = words.iter().fold(0u64, |lanes, word| {
            let word = u64::from_le_bytes(*word);
            lanes.wrapping_add((word & EVEN) + (word >> 8 & EVEN))
        });
        sum += (0..4).map(|lane| lanes >> (16 * lane) & 0xffff).sum::<u64>();
        sum += rest.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_sums_agree_with_one_at_a_time() {
        let bytes: Vec<u8> = (0..5003u32).map(|i| ((i * i) >> 5).to_le_bytes()[0]).collect();
        for len in [0, 1, 7, 8, 255, 1024, 1025, 5003] {
            let mut counters = Counters::default();
            counters.count(&bytes[..len]);
            let mut counts = [0; 256];
            bytes[..len].iter().for_each(|&byte| counts[usize::from(byte)] += 1);
            assert_eq!(counters.total(), counts);
            assert_eq!(
                byte_sum(&bytes[..len]),
                bytes[..len].iter().map(|&byte| u64::from(byte)).sum::<u64>()
            );
        }
        assert_eq!(byte_sum(&[255; 4096]), 255 * 4096);
    }
}
