//! The scalar loops, compiled for AVX2 and AVX-512.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::{MAX_RANGES, Ranges, scalar};

#[target_feature(enable = "avx2")]
pub(super) fn symbols_avx2(indices: &[i32], low_bits: u32, shows_parity: bool, dst: &mut [u8]) {
    scalar::symbols(indices, low_bits, shows_parity, dst);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn symbols_avx512(indices: &[i32], low_bits: u32, shows_parity: bool, dst: &mut [u8]) {
    scalar::symbols(indices, low_bits, shows_parity, dst);
}

#[target_feature(enable = "avx2")]
pub(super) fn low_plane_avx2(indices: &[i32], shift: u32, mask: u8, dst: &mut [u8]) {
    scalar::low_plane(indices, shift, mask, dst);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn low_plane_avx512(indices: &[i32], shift: u32, mask: u8, dst: &mut [u8]) {
    scalar::low_plane(indices, shift, mask, dst);
}

#[target_feature(enable = "avx2")]
pub(super) fn join_symbols_avx2(
    symbols: &[u8],
    low_bits: u32,
    plane: &[u8],
    shift: u32,
    dst: &mut [i32],
) -> bool {
    scalar::join_symbols(symbols, low_bits, plane, shift, dst)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn join_symbols_avx512(
    symbols: &[u8],
    low_bits: u32,
    plane: &[u8],
    shift: u32,
    dst: &mut [i32],
) -> bool {
    scalar::join_symbols(symbols, low_bits, plane, shift, dst)
}

#[target_feature(enable = "avx2")]
pub(super) fn join_low_plane_avx2(plane: &[u8], shift: u32, dst: &mut [i32]) {
    scalar::join_low_plane(plane, shift, dst);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn join_low_plane_avx512(plane: &[u8], shift: u32, dst: &mut [i32]) {
    scalar::join_low_plane(plane, shift, dst);
}

#[target_feature(enable = "avx2")]
pub(super) fn count_bounds_avx2(classes: &[u8], bounds: &[u8], counts: &mut [u8]) {
    scalar::count_bounds(classes, bounds, counts);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn count_bounds_avx512(classes: &[u8], bounds: &[u8], counts: &mut [u8]) {
    scalar::count_bounds(classes, bounds, counts);
}

#[target_feature(enable = "avx2")]
pub(super) fn distance_sum_avx2(symbols: &[u8]) -> u64 {
    scalar::distance_sum(symbols)
}

#[target_feature(enable = "avx2")]
pub(super) fn distance_sums_avx2<const LEN: usize>(symbols: &[u8], sums: &mut [u16]) {
    scalar::distance_sums::<LEN>(symbols, sums);
}

#[target_feature(enable = "avx2")]
pub(super) fn add_column_distances_avx2(symbols: &[u8], weight: u16, scratch: &mut [u16], sums: &mut [u64]) {
    scalar::add_column_distances(symbols, weight, scratch, sums);
}

#[target_feature(enable = "avx2")]
pub(super) fn any_outside_avx2(symbols: &[u8], first: u8, last: u8) -> bool {
    scalar::any_outside(symbols, first, last)
}

#[target_feature(enable = "avx2,bmi1")]
pub(super) fn push_outside_avx2(symbols: &[u8], ids: &[u8], ranges: &Ranges, places: &mut Vec<usize>) {
    const LEN: usize = 32;
    let [first, last] = [ranges.first, ranges.last].map(|bounds| _mm256_broadcastsi128_si256(cast(bounds)));
    let (vectors, rest) = symbols.as_chunks::<LEN>();
    let (id_vectors, _) = ids.as_chunks::<LEN>();
    for (idx, (symbols, ids)) in vectors.iter().zip(id_vectors).enumerate() {
        let symbols: __m256i = cast(*symbols);
        let ids =
            _mm256_and_si256(cast(*ids), _mm256_set1_epi8(MAX_RANGES.to_le_bytes()[0].cast_signed() - 1));
        let [first, last] = [first, last].map(|bounds| _mm256_shuffle_epi8(bounds, ids));
        let nearest = _mm256_min_epu8(_mm256_max_epu8(symbols, first), last);
        let mut outside = !_mm256_movemask_epi8(_mm256_cmpeq_epi8(nearest, symbols)).cast_unsigned();
        while outside != 0 {
            places.push(idx * LEN + outside.trailing_zeros() as usize);
            outside &= outside - 1;
        }
    }
    let from = vectors.len() * LEN;
    scalar::push_outside(rest, ids.get(from..).unwrap_or_default(), ranges, from, places);
}
