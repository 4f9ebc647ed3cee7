//! The definition: plain loops, which the compiler makes vectors of for whatever is enabled where they are inlined.

use super::{HIGH_PARTS, MAX_RANGES, Ranges, SYMBOL_BIAS};

#[inline(always)]
pub(super) fn symbols(indices: &[i32], low_bits: u32, shows_parity: bool, dst: &mut [u8]) {
    let odd_escape = if shows_parity { 255 } else { 0 };
    for (symbol, &index) in dst.iter_mut().zip(indices) {
        let high = index >> (low_bits & 31);
        let escape = -(index & 1) & odd_escape;
        // Bitwise: a branch would cost more than the work.
        let is_inside = (high >= *HIGH_PARTS.start()) & (high <= *HIGH_PARTS.end());
        *symbol = (if is_inside { high + SYMBOL_BIAS } else { escape }).to_le_bytes()[0];
    }
}

#[inline(always)]
pub(super) fn low_plane(indices: &[i32], shift: u32, mask: u8, dst: &mut [u8]) {
    for (byte, &index) in dst.iter_mut().zip(indices) {
        *byte = (index >> (shift & 31)).to_le_bytes()[0] & mask;
    }
}

#[inline(always)]
pub(super) fn join_symbols(symbols: &[u8], low_bits: u32, plane: &[u8], shift: u32, dst: &mut [i32]) -> bool {
    // The two symbols without an index are the least ones after this addition.
    let mut least = u8::MAX;
    let high = |symbol: u8| (i32::from(symbol) - SYMBOL_BIAS) << (low_bits & 31);
    if plane.is_empty() {
        for (index, &symbol) in dst.iter_mut().zip(symbols) {
            least = least.min(symbol.wrapping_add(1));
            *index = high(symbol);
        }
    } else {
        for ((index, &symbol), &byte) in dst.iter_mut().zip(symbols).zip(plane) {
            least = least.min(symbol.wrapping_add(1));
            *index = high(symbol) | i32::from(byte) << (shift & 31);
        }
    }
    least < 2
}

#[inline(always)]
pub(super) fn join_low_plane(plane: &[u8], shift: u32, dst: &mut [i32]) {
    for (index, &byte) in dst.iter_mut().zip(plane) {
        *index |= i32::from(byte) << (shift & 31);
    }
}

#[inline(always)]
pub(super) fn count_bounds(classes: &[u8], bounds: &[u8], counts: &mut [u8]) {
    const N: usize = 64;
    let n = classes.len().min(counts.len());
    let (classes, counts) = (&classes[..n], &mut counts[..n]);
    let count = |class: u8| bounds.iter().map(|&bound| u8::from(class >= bound)).sum();
    let ((classes, rest), (counts, rest_counts)) = (classes.as_chunks::<N>(), counts.as_chunks_mut::<N>());
    for (classes, counts) in classes.iter().zip(counts) {
        let mut reached = [0; N];
        for &bound in bounds {
            reached.iter_mut().zip(classes).for_each(|(count, &class)| *count += u8::from(class >= bound));
        }
        *counts = reached;
    }
    rest.iter().zip(rest_counts).for_each(|(&class, reached)| *reached = count(class));
}

#[inline(always)]
pub(super) fn distance_sum(symbols: &[u8]) -> u64 {
    // 2^16: 128 times as many fit 32 bits.
    let sum_of = |run: &[u8]| run.iter().map(|&symbol| u32::from(symbol.abs_diff(128))).sum::<u32>();
    symbols.chunks(1 << 16).map(|run| u64::from(sum_of(run))).sum()
}

#[inline(always)]
pub(super) fn distance_sums<const LEN: usize>(symbols: &[u8], sums: &mut [u16]) {
    let (segments, rest) = symbols.as_chunks::<LEN>();
    let sum_of = |segment: &[u8]| segment.iter().map(|&symbol| u16::from(symbol.abs_diff(128))).sum::<u16>();
    let mut places = sums.iter_mut();
    for (segment, sum) in segments.iter().zip(&mut places) {
        *sum = sum_of(segment);
    }
    if let Some(sum) = places.next() {
        *sum = sum_of(rest);
    }
}

#[inline(always)]
pub(super) fn add_column_distances(symbols: &[u8], weight: u16, scratch: &mut [u16], sums: &mut [u64]) {
    /// So many distances of at most 128 fit 16 bits.
    const MOST_ROWS: usize = 511;
    let width = scratch.len().max(1);
    for rows in symbols.chunks(width * MOST_ROWS) {
        scratch.fill(0);
        for row in rows.chunks(width) {
            let distances = row.iter().map(|symbol| u16::from(symbol.abs_diff(128)));
            scratch.iter_mut().zip(distances).for_each(|(sum, distance)| *sum += distance);
        }
        for (sum, &scratch) in sums.iter_mut().zip(&*scratch) {
            *sum += u64::from(u32::from(scratch) * u32::from(weight));
        }
    }
}

#[inline(always)]
pub(super) fn any_outside(symbols: &[u8], first: u8, last: u8) -> bool {
    let is_outside = |&symbol: &u8| (symbol < first) | (symbol > last);
    let (chunks, rest) = symbols.as_chunks::<64>();
    let any = |symbols: &[u8]| symbols.iter().fold(false, |any, symbol| any | is_outside(symbol));
    chunks.iter().any(|chunk| any(chunk)) || any(rest)
}

/// The general case, from symbol `from` on.
pub(super) fn push_outside(
    symbols: &[u8],
    ids: &[u8],
    ranges: &Ranges,
    from: usize,
    places: &mut Vec<usize>,
) {
    for (place, (&symbol, &id)) in (from..).zip(symbols.iter().zip(ids)) {
        let id = usize::from(id) % MAX_RANGES;
        if symbol < ranges.first[id] || symbol > ranges.last[id] {
            places.push(place);
        }
    }
}
