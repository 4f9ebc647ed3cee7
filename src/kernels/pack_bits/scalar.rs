//! The definition: eight values a turn in a 64-bit word. Pairs of bytes, then of 16 and of 32 bits, close up; unpacking
//! opens them again.

/// Bits of a lane to keep, and how far what is above them moves, for lanes of 16, 32 and 64 bits.
fn steps(n_bits: u32) -> [(u64, u32, u32); 3] {
    let ones = |n_bits: u32| (1u64 << n_bits) - 1;
    [
        (ones(n_bits) * 0x0001_0001_0001_0001, n_bits, 8 - n_bits),
        (ones(2 * n_bits) * 0x0000_0001_0000_0001, 2 * n_bits, 16 - 2 * n_bits),
        (ones(4 * n_bits), 4 * n_bits, 32 - 4 * n_bits),
    ]
}

pub(super) fn pack(n_bits: u32, src: &[u8], dst: &mut [u8]) {
    let (steps, n_bytes) = (steps(n_bits), n_bits as usize);
    for (values, packed) in src.as_chunks::<8>().0.iter().zip(dst.chunks_exact_mut(n_bytes)) {
        let mut word = u64::from_le_bytes(*values);
        for (low, width, gap) in steps {
            word = word & low | word >> gap & low << width;
        }
        packed.copy_from_slice(&word.to_le_bytes()[..n_bytes]);
    }
}

pub(super) fn unpack(n_bits: u32, src: &[u8], dst: &mut [u8]) {
    let (steps, n_bytes) = (steps(n_bits), n_bits as usize);
    for (idx, values) in dst.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let Some(rest) = src.get(idx * n_bytes..) else { return };
        // Eight bytes at once where they are there; the bits beyond the first `n_bytes` do not count.
        let mut word = match rest.first_chunk() {
            Some(word) => u64::from_le_bytes(*word),
            None => rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
        };
        for (low, width, gap) in steps.into_iter().rev() {
            word = word & low | (word & low << width) << gap;
        }
        *values = word.to_le_bytes();
    }
}
