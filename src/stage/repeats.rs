//! Whether elements repeat: tables of positions, fused weights with few values a row, padding.

/// Elements compared.
const SAMPLE_LEN: usize = 2048;

/// Whether at least 1 in 16 of some neighbouring elements has been seen shortly before. Among trained weights of 4
/// bytes or more that is nearly never so, among those of 2 bytes often by chance: there neighbouring pairs count.
pub(super) fn are_common(unit_bytes: usize, bytes: &[u8]) -> bool {
    let span = unit_bytes.max(4);
    if bytes.len() < span * 64 {
        return false;
    }
    // Two places, since the start of a tensor may be padding.
    let middle = bytes.len() / 2 / unit_bytes * unit_bytes;
    [0, middle].into_iter().any(|from| {
        let places = bytes[from..].chunks_exact(unit_bytes).take(SAMPLE_LEN).enumerate();
        let mut seen = [u64::MAX; 4 * SAMPLE_LEN];
        let mut n_repeats = 0usize;
        let mut n_seen = 0usize;
        for (idx, _) in places {
            let Some(window) = bytes.get(from + idx * unit_bytes..from + idx * unit_bytes + span) else {
                break;
            };
            let value = window.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
            // Fibonacci hashing to 13 bits.
            let slot = (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51) as usize & (seen.len() - 1);
            n_repeats += usize::from(seen[slot] == value);
            seen[slot] = value;
            n_seen += 1;
        }
        n_repeats * 16 > n_seen
    })
}
