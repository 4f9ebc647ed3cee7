//! The definition of the sum, eight bytes at a time.

pub(super) fn byte_sum(bytes: &[u8]) -> u64 {
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
