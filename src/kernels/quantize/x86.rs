//! The plain loops, widened by the features that they are compiled with; table lookups in registers.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::{ErrorSums, MAX_STEPS, Rounding, error_sums, scalar};
use crate::dtype::Dtype;

/// Magnitudes from here on share the last threshold.
const LAST_ENTRY: i32 = 31;

#[target_feature(enable = "avx2")]
pub(super) fn quantize_avx2(values: &[f32], step: f32, rounding: &Rounding, indices: &mut [i32]) {
    let Rounding::Thresholds(table) = rounding else {
        return scalar::quantize(values, step, rounding, indices);
    };
    let quarters: [__m256; 4] = cast(*table);
    let (vectors, rest) = values.as_chunks::<8>();
    let (index_vectors, index_rest) = indices.as_chunks_mut::<8>();
    for (vector, dst) in vectors.iter().zip(index_vectors) {
        let x: __m256 = cast(*vector);
        let steps = _mm256_andnot_ps(_mm256_set1_ps(-0.0), _mm256_div_ps(x, _mm256_set1_ps(step)));
        let floor = _mm256_cvttps_epi32(steps);
        let fraction = _mm256_sub_ps(steps, _mm256_cvtepi32_ps(floor));
        let entry = _mm256_min_epu32(floor, _mm256_set1_epi32(LAST_ENTRY));
        // Bit 4 and bit 3 of the entry choose among the quarters.
        let bit3 = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(entry));
        let bit4 = _mm256_castsi256_ps(_mm256_slli_epi32::<27>(entry));
        let [a, b, c, d] = quarters.map(|quarter| _mm256_permutevar8x32_ps(quarter, entry));
        let threshold = _mm256_blendv_ps(_mm256_blendv_ps(a, b, bit3), _mm256_blendv_ps(c, d, bit3), bit4);
        let up = _mm256_cmp_ps::<_CMP_GT_OQ>(fraction, threshold);
        let k = _mm256_sub_epi32(floor, _mm256_castps_si256(up));
        let sign = _mm256_srai_epi32::<31>(_mm256_castps_si256(x));
        let k = _mm256_sub_epi32(_mm256_xor_si256(k, sign), sign);
        let is_in_range = _mm256_cmp_ps::<_CMP_LE_OQ>(steps, _mm256_set1_ps(MAX_STEPS));
        let escape = _mm256_set1_epi32(super::ESCAPE);
        *dst = cast(_mm256_blendv_epi8(escape, k, _mm256_castps_si256(is_in_range)));
    }
    scalar::quantize(rest, step, rounding, index_rest);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn quantize_avx512(values: &[f32], step: f32, rounding: &Rounding, indices: &mut [i32]) {
    let Rounding::Thresholds(table) = rounding else {
        return scalar::quantize(values, step, rounding, indices);
    };
    let [low, high]: [__m512; 2] = cast(*table);
    let (vectors, rest) = values.as_chunks::<16>();
    let (index_vectors, index_rest) = indices.as_chunks_mut::<16>();
    for (vector, dst) in vectors.iter().zip(index_vectors) {
        let x: __m512 = cast(*vector);
        let steps = _mm512_abs_ps(_mm512_div_ps(x, _mm512_set1_ps(step)));
        let floor = _mm512_cvttps_epi32(steps);
        let fraction = _mm512_sub_ps(steps, _mm512_cvtepi32_ps(floor));
        let entry = _mm512_min_epu32(floor, _mm512_set1_epi32(LAST_ENTRY));
        let threshold = _mm512_permutex2var_ps(low, entry, high);
        let up = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(fraction, threshold);
        let k = _mm512_mask_add_epi32(floor, up, floor, _mm512_set1_epi32(1));
        let negative = _mm512_movepi32_mask(_mm512_castps_si512(x));
        let k = _mm512_mask_sub_epi32(k, negative, _mm512_setzero_si512(), k);
        let is_in_range = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(steps, _mm512_set1_ps(MAX_STEPS));
        *dst = cast(_mm512_mask_mov_epi32(_mm512_set1_epi32(super::ESCAPE), is_in_range, k));
    }
    scalar::quantize(rest, step, rounding, index_rest);
}

#[target_feature(enable = "avx2")]
pub(super) fn dequantize_avx2(indices: &[i32], step: f32, values: &mut [f32]) {
    scalar::dequantize(indices, step, values);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn dequantize_avx512(indices: &[i32], step: f32, values: &mut [f32]) {
    scalar::dequantize(indices, step, values);
}

#[target_feature(enable = "avx2")]
pub(super) fn measure_avx2(dtype: Dtype, original: &[u8], decoded: &[u8]) -> ErrorSums {
    error_sums::measure(dtype, original, decoded)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn measure_avx512(dtype: Dtype, original: &[u8], decoded: &[u8]) -> ErrorSums {
    error_sums::measure(dtype, original, decoded)
}
