//! Sums by `vpsadbw`, the sum of absolute differences from zero.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::scalar;

#[target_feature(enable = "avx2")]
pub(super) fn byte_sum_avx2(bytes: &[u8]) -> u64 {
    let (vectors, rest) = bytes.as_chunks::<32>();
    let zero = _mm256_setzero_si256();
    let sums = vectors
        .iter()
        .fold(zero, |sums, vector| _mm256_add_epi64(sums, _mm256_sad_epu8(cast(*vector), zero)));
    let sums: [u64; 4] = cast(sums);
    sums.iter().sum::<u64>() + scalar::byte_sum(rest)
}

#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn byte_sum_avx512(bytes: &[u8]) -> u64 {
    let (vectors, rest) = bytes.as_chunks::<64>();
    let zero = _mm512_setzero_si512();
    let sums = vectors
        .iter()
        .fold(zero, |sums, vector| _mm512_add_epi64(sums, _mm512_sad_epu8(cast(*vector), zero)));
    let sums: [u64; 8] = cast(sums);
    sums.iter().sum::<u64>() + scalar::byte_sum(rest)
}
