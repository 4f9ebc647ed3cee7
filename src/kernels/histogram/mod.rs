//! Counts and sums of bytes, for choosing tables.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::Isa;

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
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn byte_sum(isa: Isa, bytes: &[u8]) -> u64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::byte_sum_avx512(bytes) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::byte_sum_avx2(bytes) }
        }
        _ => scalar::byte_sum(bytes),
    }
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
            for isa in Isa::ALL {
                let sum = bytes[..len].iter().map(|&byte| u64::from(byte)).sum::<u64>();
                assert_eq!(byte_sum(isa, &bytes[..len]), sum);
            }
        }
        assert_eq!(byte_sum(Isa::Scalar, &[255; 4096]), 255 * 4096);
    }
}
