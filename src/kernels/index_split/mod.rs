//! Quantization indices to symbol bytes and low bits, and back.
//!
//! An index `k` is `h · 2^r + low` with h = k >> r, rounded down. Its symbol is h + 128 where h lies in −127 to 126; otherwise
//! 0, or 255 where the symbol has to show the parity and `k` is odd. The low `r` bits go into byte planes from the lowest
//! on, and what is left of a byte into a plane of its own.

use super::Isa;

/// Values of `h` that have a symbol of their own.
pub const HIGH_PARTS: std::ops::RangeInclusive<i32> = -127..=126;
/// What is added to `h` for its symbol.
pub const SYMBOL_BIAS: i32 = 128;
/// Most low bits: an `h` has at least 8.
pub const MAX_LOW_BITS: u32 = 24;

/// Sets the symbol of every index; `dst.len()` is `indices.len()`.
pub fn symbols(isa: Isa, indices: &[i32], low_bits: u32, shows_parity: bool, dst: &mut [u8]) {
    let _ = isa;
    for (symbol, &index) in dst.iter_mut().zip(indices) {
        let high = index >> low_bits;
        *symbol = if HIGH_PARTS.contains(&high) {
            (high + SYMBOL_BIAS).to_le_bytes()[0]
        } else if shows_parity && index & 1 == 1 {
            255
        } else {
            0
        };
    }
}

/// Bits `shift` to `shift` + 7 of every index, masked.
pub fn low_plane(isa: Isa, indices: &[i32], shift: u32, mask: u8, dst: &mut [u8]) {
    let _ = isa;
    for (byte, &index) in dst.iter_mut().zip(indices) {
        *byte = (index >> shift).to_le_bytes()[0] & mask;
    }
}

/// Indices of symbols, their low bits zero.
pub fn join_symbols(isa: Isa, symbols: &[u8], low_bits: u32, dst: &mut [i32]) {
    let _ = isa;
    for (index, &symbol) in dst.iter_mut().zip(symbols) {
        *index = (i32::from(symbol) - SYMBOL_BIAS) << low_bits;
    }
}

/// Puts a plane of low bits into its place.
pub fn join_low_plane(isa: Isa, plane: &[u8], shift: u32, dst: &mut [i32]) {
    let _ = isa;
    for (index, &byte) in dst.iter_mut().zip(plane) {
        *index |= i32::from(byte) << shift;
    }
}

/// Sum of the distances of symbols from [`SYMBOL_BIAS`].
#[must_use]
pub fn distance_sum(isa: Isa, symbols: &[u8]) -> u64 {
    let _ = isa;
    symbols.iter().map(|&symbol| u64::from(symbol.abs_diff(128))).sum()
}
