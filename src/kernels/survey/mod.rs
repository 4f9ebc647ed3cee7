//! Which bits of a run of elements vary.

use wide::u64x4;

/// Bits that are set in some element and bits that are set in all, for elements of `element_bytes` (1, 2, 4 or 8).
///
/// `(0, u64::MAX)`, cut to the element, for no elements.
#[must_use]
pub fn or_and(bytes: &[u8], element_bytes: usize) -> (u64, u64) {
    let (lines, rest) = bytes.as_chunks::<32>();
    let load = |line: &[u8; 32]| {
        let (words, _) = line.as_chunks::<8>();
        u64x4::new([0, 1, 2, 3].map(|word| u64::from_le_bytes(words[word])))
    };
    let mut any = u64x4::splat(0);
    let mut all = u64x4::splat(u64::MAX);
    for line in lines {
        let line = load(line);
        any |= line;
        all &= line;
    }
    let mut any = any.to_array().into_iter().fold(0, |any, word| any | word);
    let mut all = all.to_array().into_iter().fold(u64::MAX, |all, word| all & word);
    for tail in rest.chunks(8) {
        let mut zeros = [0; 8];
        let mut ones = [0xff; 8];
        zeros[..tail.len()].copy_from_slice(tail);
        ones[..tail.len()].copy_from_slice(tail);
        any |= u64::from_le_bytes(zeros);
        all &= u64::from_le_bytes(ones);
    }
    let mut width = 64;
    while width > 8 * element_bytes {
        width /= 2;
        any |= any >> width;
        all &= all >> width;
    }
    let mask = u64::MAX >> (64 - width);
    (any & mask, all & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_folded_to_the_element() {
        let bytes: Vec<u8> = (0..77u32).flat_map(|i| (0x8040_0000 | i << 8).to_le_bytes()).collect();
        assert_eq!(or_and(&bytes, 4), (0x8040_7f00, 0x8040_0000 & !(0x7f << 8)));
        assert_eq!(or_and(&bytes[..44], 4), (0x8040_0f00, 0x8040_0000));
        assert_eq!(or_and(&[], 2), (0, 0xffff));
        assert_eq!(or_and(&[3, 5, 1], 1), (7, 1));
    }
}
