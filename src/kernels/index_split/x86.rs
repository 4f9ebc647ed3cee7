//! The scalar loops, compiled for AVX2 and AVX-512.

use super::scalar;

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
pub(super) fn any_outside_avx2(symbols: &[u8], first: u8, last: u8) -> bool {
    scalar::any_outside(symbols, first, last)
}
