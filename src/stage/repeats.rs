//! Whether elements repeat: tables of positions, fused weights with few values a row, padding.

/// Elements compared at one place.
const SAMPLE_LEN: usize = 512;

/// Bytes of a block in which a table of 256 entries is next to nothing.
const LONG_BLOCK: usize = 64 << 10;

/// Whether at least 1 in 16 of some neighbouring elements has been seen shortly before. Among trained weights of 4
/// bytes or more that is nearly never so, among those of 2 bytes often by chance: there neighbouring pairs count, of single
/// bytes four. In long blocks of them eight do: they may be integers of a few bits, and what is won by a general compressor
/// if nothing but their values repeats is a smaller table.
pub(super) fn are_common(unit_bytes: usize, bytes: &[u8]) -> bool {
    let span = if unit_bytes == 1 && bytes.len() > LONG_BLOCK { 8 } else { unit_bytes.max(4) };
    // Two places, since the start of a tensor may be padding.
    let middle = bytes.len() / 2 / unit_bytes * unit_bytes;
    bytes.len() >= span * 64
        && [0, middle].into_iter().any(|from| {
            let mut seen = [u64::MAX; 4 * SAMPLE_LEN];
            let (mut n_repeats, mut n_seen) = (0usize, 0usize);
            for idx in 0..SAMPLE_LEN {
                let Some(rest) = bytes.get(from + idx * unit_bytes..) else { break };
                let value = match (span, rest.first_chunk::<4>(), rest.first_chunk::<8>()) {
                    (4, Some(window), _) => u64::from(u32::from_le_bytes(*window)),
                    (_, _, Some(window)) => u64::from_le_bytes(*window),
                    _ => break,
                };
                // Fibonacci hashing to 11 bits.
                let slot = (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as usize % seen.len();
                n_repeats += usize::from(seen[slot] == value);
                seen[slot] = value;
                n_seen += 1;
            }
            n_repeats * 16 > n_seen
        })
}

/// Whether a general compressor may make something of a plane of integers' bytes: of a short one mostly, of a long one only
/// where more than single values repeats.
pub(super) fn are_worth_a_look(plane: &[u8]) -> bool {
    plane.len() <= LONG_BLOCK || are_common(1, plane)
}
