//! Quantization indices to symbol bytes and low bits, and back.
//!
//! An index `k` is `h · 2^r + low` with h = k >> r, rounded down. Its symbol is h + 128 where h lies in −127 to 126; otherwise
//! 0, or 255 where the symbol has to show the parity and `k` is odd. The low `r` bits go into byte planes from the lowest
//! on, and what is left of a byte into a plane of its own.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::Isa;

/// Values of `h` that have a symbol of their own.
pub const HIGH_PARTS: std::ops::RangeInclusive<i32> = -127..=126;
/// What is added to `h` for its symbol.
pub const SYMBOL_BIAS: i32 = 128;
/// Most low bits: an `h` has at least 8.
pub const MAX_LOW_BITS: u32 = 24;

/// Sets the symbol of every index; `dst.len()` is `indices.len()`.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn symbols(isa: Isa, indices: &[i32], low_bits: u32, shows_parity: bool, dst: &mut [u8]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::symbols_avx512(indices, low_bits, shows_parity, dst) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::symbols_avx2(indices, low_bits, shows_parity, dst) }
        }
        _ => scalar::symbols(indices, low_bits, shows_parity, dst),
    }
}

/// Bits `shift` to `shift` + 7 of every index, masked.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn low_plane(isa: Isa, indices: &[i32], shift: u32, mask: u8, dst: &mut [u8]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::low_plane_avx512(indices, shift, mask, dst) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::low_plane_avx2(indices, shift, mask, dst) }
        }
        _ => scalar::low_plane(indices, shift, mask, dst),
    }
}

/// Indices of symbols with one plane of their low bits, shifted by `shift`, or with low bits of zero if `plane` is empty.
/// Says whether any symbol is 0 or 255 and has no index.
#[must_use]
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn join_symbols(
    isa: Isa,
    symbols: &[u8],
    low_bits: u32,
    plane: &[u8],
    shift: u32,
    dst: &mut [i32],
) -> bool {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::join_symbols_avx512(symbols, low_bits, plane, shift, dst) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::join_symbols_avx2(symbols, low_bits, plane, shift, dst) }
        }
        _ => scalar::join_symbols(symbols, low_bits, plane, shift, dst),
    }
}

/// Puts a plane of low bits into its place.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn join_low_plane(isa: Isa, plane: &[u8], shift: u32, dst: &mut [i32]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::join_low_plane_avx512(plane, shift, dst) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::join_low_plane_avx2(plane, shift, dst) }
        }
        _ => scalar::join_low_plane(plane, shift, dst),
    }
}

/// Sum of the distances of symbols from [`SYMBOL_BIAS`].
#[must_use]
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn distance_sum(isa: Isa, symbols: &[u8]) -> u64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx2 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::distance_sum_avx2(symbols) }
        }
        _ => scalar::distance_sum(symbols),
    }
}

/// As [`distance_sum`], for each segment of `LEN` symbols, of which the last may be shorter. `LEN` is at most 511, for what
/// fits 16 bits.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn distance_sums<const LEN: usize>(isa: Isa, symbols: &[u8], sums: &mut [u16]) {
    const { assert!(LEN <= 511) }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx2 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::distance_sums_avx2::<LEN>(symbols, sums) }
        }
        _ => scalar::distance_sums::<LEN>(symbols, sums),
    }
}

/// Adds the distances of symbols from [`SYMBOL_BIAS`], times `weight`, to `sums`, one for each column of rows that are as long;
/// the last row may be cut short. `scratch` is as long as `sums`.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn add_column_distances(isa: Isa, symbols: &[u8], weight: u16, scratch: &mut [u16], sums: &mut [u64]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx2 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::add_column_distances_avx2(symbols, weight, scratch, sums) }
        }
        _ => scalar::add_column_distances(symbols, weight, scratch, sums),
    }
}

/// Whether any symbol is not one of `first` to `last`.
#[must_use]
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn any_outside(isa: Isa, symbols: &[u8], first: u8, last: u8) -> bool {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx2 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::any_outside_avx2(symbols, first, last) }
        }
        _ => scalar::any_outside(symbols, first, last),
    }
}

/// Most ranges that symbols are held against one by one.
pub const MAX_RANGES: usize = 16;

/// First and last symbol of each range.
#[derive(Debug, Clone, Copy)]
pub struct Ranges {
    /// First symbols.
    pub first: [u8; MAX_RANGES],
    /// Last symbols.
    pub last: [u8; MAX_RANGES],
}

/// Appends the places of symbols that are not in their range to `places`, in order; `ids`, as many, say which range is whose.
/// Only their low four bits count.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn push_outside(isa: Isa, symbols: &[u8], ids: &[u8], ranges: &Ranges, places: &mut Vec<usize>) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx2 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::push_outside_avx2(symbols, ids, ranges, places) }
        }
        _ => scalar::push_outside(symbols, ids, ranges, 0, places),
    }
}

/// How many of `bounds` each class has reached.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn count_bounds(isa: Isa, classes: &[u8], bounds: &[u8], counts: &mut [u8]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::count_bounds_avx512(classes, bounds, counts) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::count_bounds_avx2(classes, bounds, counts) }
        }
        _ => scalar::count_bounds(classes, bounds, counts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_isa_splits_alike_and_joins_back() {
        let indices: Vec<i32> =
            (0..1003i32).map(|i| i.wrapping_mul(i).wrapping_mul(747_796_405) >> (i % 32)).collect();
        let (mut expected, mut symbols_of) = (vec![0; indices.len()], vec![0; indices.len()]);
        let (mut plane, mut joined) = (vec![0; indices.len()], vec![0; indices.len()]);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            for low_bits in [0, 1, 3, 8, 13, MAX_LOW_BITS] {
                for shows_parity in [false, true] {
                    symbols(isa, &indices, low_bits, shows_parity, &mut symbols_of);
                    scalar::symbols(&indices, low_bits, shows_parity, &mut expected);
                    assert_eq!(symbols_of, expected, "{isa:?} {low_bits}");
                }
                let sum = expected.iter().map(|&symbol| u64::from(symbol.abs_diff(128))).sum::<u64>();
                assert_eq!(distance_sum(isa, &expected), sum, "{isa:?}");
                let has_others = symbols_of.iter().any(|symbol| matches!(symbol, 0 | 255));
                let (shift, mask) = (low_bits / 8 * 8, u8::try_from((1u32 << (low_bits % 8)) - 1).unwrap());
                low_plane(isa, &indices, shift, mask, &mut plane);
                assert_eq!(join_symbols(isa, &symbols_of, low_bits, &plane, shift, &mut joined), has_others);
                let inside = [1, 254, 128];
                assert!(!join_symbols(isa, &inside, low_bits, &[], 0, &mut [0; 3]));
                for shift in (0..low_bits).step_by(8) {
                    let mask = u8::try_from((1u32 << (low_bits - shift).min(8)) - 1).unwrap();
                    low_plane(isa, &indices, shift, mask, &mut plane);
                    join_low_plane(isa, &plane, shift, &mut joined);
                }
                for ((&index, &joined), &symbol) in indices.iter().zip(&joined).zip(&symbols_of) {
                    let fits = HIGH_PARTS.contains(&(index >> low_bits));
                    assert_eq!(fits, symbol != 0 && symbol != 255, "{isa:?} {low_bits} {index}");
                    assert!(!fits || joined == index, "{isa:?} {low_bits} {index}");
                }
            }
        }
        assert_eq!(distance_sum(Isa::detect(), &vec![0; 1 << 20]), 128 << 20);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            for n in [0usize, 1, 63, 64, 65, 1000] {
                let mut sums = vec![9; n.div_ceil(64)];
                distance_sums::<64>(isa, &symbols_of[..n], &mut sums);
                let expected = symbols_of[..n].chunks(64).map(|segment| distance_sum(Isa::Scalar, segment));
                assert!(sums.into_iter().map(u64::from).eq(expected), "{isa:?} {n}");
            }
            for (width, weight) in [(1, 3), (7, u16::MAX), (64, 1), (1000, 9), (2000, 5)] {
                let (mut sums, mut expected) = (vec![1; width], vec![1; width]);
                for (at, symbol) in symbols_of.iter().enumerate() {
                    expected[at % width] += u64::from(symbol.abs_diff(128)) * u64::from(weight);
                }
                add_column_distances(isa, &symbols_of, weight, &mut vec![9; width], &mut sums);
                assert_eq!(sums, expected, "{isa:?} {width}");
            }
            for place in [0, 63, 64, 130] {
                let mut symbols = [7; 131];
                assert!(!any_outside(isa, &symbols, 7, 7), "{isa:?}");
                symbols[place] = 8;
                assert!(any_outside(isa, &symbols, 7, 7) && any_outside(isa, &symbols, 8, 8), "{isa:?}");
                assert!(!any_outside(isa, &symbols, 7, 8), "{isa:?}");
            }
        }
    }

    #[test]
    fn symbols_out_of_their_range_are_found_alike_on_every_isa() {
        let symbols: Vec<u8> = (0..1003u32).map(|i| (i * i * 7 % 251).to_le_bytes()[0]).collect();
        let ids: Vec<u8> = (0..1003u32).map(|i| (i * 5 % 16).to_le_bytes()[0]).collect();
        let first = std::array::from_fn(|id| (3 * id + 1).to_le_bytes()[0]);
        let last = std::array::from_fn(|id| (200 + id).to_le_bytes()[0]);
        let ranges = Ranges { first, last };
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            for n in [0, 1, 31, 32, 33, 1003] {
                let mut places = vec![7];
                push_outside(isa, &symbols[..n], &ids[..n], &ranges, &mut places);
                let is_outside = |place: &usize| {
                    let id = usize::from(ids[*place]);
                    !(first[id]..=last[id]).contains(&symbols[*place])
                };
                let expected: Vec<usize> = [7].into_iter().chain((0..n).filter(is_outside)).collect();
                assert_eq!(places, expected, "{isa:?} {n}");
            }
        }
    }

    #[test]
    fn bounds_are_counted_alike_on_every_isa() {
        let classes: Vec<u8> = (0..1000u32).map(|i| (i * i % 61).to_le_bytes()[0]).collect();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            for bounds in [&[][..], &[0], &[3, 17, 60], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 40, 50, 127]]
            {
                let mut counts = vec![9; classes.len()];
                count_bounds(isa, &classes, bounds, &mut counts);
                for (&class, &count) in classes.iter().zip(&counts) {
                    assert_eq!(usize::from(count), bounds.iter().filter(|bound| **bound <= class).count());
                }
            }
        }
    }
}
