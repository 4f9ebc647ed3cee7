//! The definition: eight values a turn, through a 64-bit word.

pub(super) fn pack(n_bits: u32, src: &[u8], dst: &mut [u8]) {
    let mask = (1u64 << n_bits) - 1;
    let n_bytes = n_bits as usize;
    for (values, packed) in src.as_chunks::<8>().0.iter().zip(dst.chunks_exact_mut(n_bytes)) {
        let word = values.iter().rev().fold(0u64, |word, &value| word << n_bits | u64::from(value) & mask);
        packed.copy_from_slice(&word.to_le_bytes()[..n_bytes]);
    }
}

pub(super) fn unpack(n_bits: u32, src: &[u8], dst: &mut [u8]) {
    let mask = (1u64 << n_bits) - 1;
    let n_bytes = n_bits as usize;
    for (packed, values) in src.chunks_exact(n_bytes).zip(dst.as_chunks_mut::<8>().0) {
        let mut bytes = [0; 8];
        bytes[..n_bytes].copy_from_slice(packed);
        let mut word = u64::from_le_bytes(bytes);
        for value in values {
            *value = (word & mask).to_le_bytes()[0];
            word >>= n_bits;
        }
    }
}
