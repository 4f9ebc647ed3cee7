//! Sums by `vpsadbw`, the sum of absolute differences from zero; counts by the plain loop, which widens by itself, or by
//! the bits of a comparison's mask.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::scalar;

#[target_feature(enable = "avx2")]
pub(super) fn run_sums_avx2(bytes: &[u8], run_len: usize, sums: &mut [u32]) {
    let zero = _mm256_setzero_si256();
    for (sum, run) in sums.iter_mut().zip(bytes.chunks(run_len)) {
        let (vectors, rest) = run.as_chunks::<32>();
        let lanes = vectors
            .iter()
            .fold(zero, |lanes, vector| _mm256_add_epi64(lanes, _mm256_sad_epu8(cast(*vector), zero)));
        // Each of the eight halves of lanes is below 2^32, and every other one is 0.
        let lanes: [u32; 8] = cast(lanes);
        *sum = lanes.iter().sum::<u32>() + scalar::byte_sum(rest);
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn run_sums_avx512(bytes: &[u8], run_len: usize, sums: &mut [u32]) {
    let zero = _mm512_setzero_si512();
    for (sum, run) in sums.iter_mut().zip(bytes.chunks(run_len)) {
        let (vectors, rest) = run.as_chunks::<64>();
        let lanes = vectors
            .iter()
            .fold(zero, |lanes, vector| _mm512_add_epi64(lanes, _mm512_sad_epu8(cast(*vector), zero)));
        *sum = _mm512_reduce_add_epi32(lanes).cast_unsigned() + scalar::byte_sum(rest);
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn count_of_avx2(value: u8, bytes: &[u8]) -> usize {
    scalar::count_of(value, bytes)
}

#[target_feature(enable = "avx512f,avx512bw,popcnt")]
pub(super) fn count_of_avx512(value: u8, bytes: &[u8]) -> usize {
    let value_everywhere = _mm512_set1_epi8(value.cast_signed());
    let (vectors, rest) = bytes.as_chunks::<64>();
    let count = |vector: &[u8; 64]| _mm512_cmpeq_epi8_mask(cast(*vector), value_everywhere).count_ones();
    vectors.iter().map(|vector| count(vector) as usize).sum::<usize>() + scalar::count_of(value, rest)
}
