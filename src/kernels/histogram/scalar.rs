//! The definition of sums and counts, eight bytes at a time where that is faster.

pub(super) fn run_sums(bytes: &[u8], run_len: usize, sums: &mut [u32]) {
    for (sum, run) in sums.iter_mut().zip(bytes.chunks(run_len)) {
        *sum = byte_sum(run);
    }
}

#[inline(always)]
pub(super) fn count_of(value: u8, bytes: &[u8]) -> usize {
    // Counts of a byte hold 255 of a run.
    let count = |run: &[u8]| run.iter().fold(0u8, |count, &byte| count + u8::from(byte == value));
    let (runs, rest) = bytes.as_chunks::<128>();
    runs.iter().map(|run| usize::from(count(run))).sum::<usize>() + usize::from(count(rest))
}

pub(super) fn byte_sum(bytes: &[u8]) -> u32 {
    /// Every other byte of a word.
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    let mut sum = 0u32;
    // 1 KiB is 128 words: 128 · 2 · 255 fits the 16-bit lanes.
    for chunk in bytes.chunks(1024) {
        let (words, rest) = chunk.as_chunks::<8>();
        let lanes = words.iter().fold(0u64, |lanes, word| {
            let word = u64::from_le_bytes(*word);
            lanes.wrapping_add((word & EVEN) + (word >> 8 & EVEN))
        });
        let lanes: [u16; 4] = bytemuck::cast(lanes);
        sum += lanes.into_iter().map(u32::from).sum::<u32>();
        sum += rest.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    }
    sum
}
