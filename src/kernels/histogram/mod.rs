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
        // One histogram behind the other, which compilers turn into vector code.
        let [first, rest @ ..] = &self.0;
        let mut total = *first;
        for counts in rest {
            total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        }
        total
    }
}

/// Fills `sums` with the sum of the bytes of each run of `run_len` (1 to 2^24), of which the last may be shorter.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn run_sums(isa: Isa, bytes: &[u8], run_len: usize, sums: &mut [u32]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::run_sums_avx512(bytes, run_len, sums) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::run_sums_avx2(bytes, run_len, sums) }
        }
        _ => scalar::run_sums(bytes, run_len, sums),
    }
}

/// How many bytes are `value`.
#[must_use]
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn count_of(isa: Isa, value: u8, bytes: &[u8]) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::count_of_avx512(value, bytes) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::count_of_avx2(value, bytes) }
        }
        _ => scalar::count_of(value, bytes),
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
            for (isa, run_len) in Isa::ALL.into_iter().flat_map(|isa| [1, 64, 300, 4096].map(|n| (isa, n))) {
                let mut sums = vec![0; len.div_ceil(run_len)];
                run_sums(isa, &bytes[..len], run_len, &mut sums);
                let sum = |run: &[u8]| run.iter().map(|&byte| u32::from(byte)).sum::<u32>();
                assert!(sums.into_iter().eq(bytes[..len].chunks(run_len).map(sum)));
                assert_eq!(count_of(isa, 7, &bytes[..len]), counts[7] as usize);
            }
        }
        for isa in Isa::ALL {
            let mut sums = [0; 2];
            run_sums(isa, &[255; 8192], 4096, &mut sums);
            assert_eq!(sums, [255 * 4096; 2]);
            assert_eq!(count_of(isa, 255, &[255; 8192]), 8192);
        }
    }
}
