//! The plain loops, widened by the features that they are compiled with; table lookups in registers.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::{ErrorSums, MAX_STEPS, N_THRESHOLDS, Replaced, Rounding, error_sums, in_place, scalar};
use crate::dtype::Dtype;
use crate::kernels::Isa;

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

/// The indices of 16 elements by the thresholds `low` and `high`, and which of them are within [`MAX_STEPS`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn indices_of(x: __m512, step: __m512, low: __m512, high: __m512) -> (__m512i, __mmask16) {
    let steps = _mm512_abs_ps(_mm512_div_ps(x, step));
    let floor = _mm512_cvttps_epi32(steps);
    let fraction = _mm512_sub_ps(steps, _mm512_cvtepi32_ps(floor));
    let entry = _mm512_min_epu32(floor, _mm512_set1_epi32(LAST_ENTRY));
    let threshold = _mm512_permutex2var_ps(low, entry, high);
    let up = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(fraction, threshold);
    let k = _mm512_mask_add_epi32(floor, up, floor, _mm512_set1_epi32(1));
    let negative = _mm512_movepi32_mask(_mm512_castps_si512(x));
    let k = _mm512_mask_sub_epi32(k, negative, _mm512_setzero_si512(), k);
    let is_in_range = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(steps, _mm512_set1_ps(MAX_STEPS));
    (k, is_in_range)
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
        let (k, is_in_range) = indices_of(x, _mm512_set1_ps(step), low, high);
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
pub(super) fn dequantize_elements_avx2(dtype: Dtype, indices: &[i32], step: f32, bytes: &mut [u8]) {
    scalar::dequantize_elements(dtype, indices, step, bytes);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn dequantize_elements_avx512(dtype: Dtype, indices: &[i32], step: f32, bytes: &mut [u8]) {
    scalar::dequantize_elements(dtype, indices, step, bytes);
}

#[target_feature(enable = "avx2")]
pub(super) fn measure_avx2(dtype: Dtype, original: &[u8], decoded: &[u8]) -> ErrorSums {
    error_sums::measure(dtype, original, decoded)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn measure_avx512(dtype: Dtype, original: &[u8], decoded: &[u8]) -> ErrorSums {
    error_sums::measure(dtype, original, decoded)
}

/// Classes of `vfpclassps`: NaN of either kind, and infinities.
const NOT_FINITE: i32 = 0x99;

/// As [`in_place::replace_f32`], with everything in registers. The sums are those of [`error_sums`]: 16 lanes, that of each
/// run of [`error_sums::CHUNK_LEN`] elements added to the total by itself.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn replace_f32_avx512(
    elements: &mut [[u8; 4]],
    step: f32,
    table: &[f32; N_THRESHOLDS],
    indices: &mut [i32],
) -> Replaced {
    let mut total = Replaced::default();
    let chunks = elements.chunks_mut(error_sums::CHUNK_LEN).zip(indices.chunks_mut(error_sums::CHUNK_LEN));
    for (elements, indices) in chunks {
        if !elements.len().is_multiple_of(16) {
            let rounding = Rounding::Thresholds(*table);
            add(&mut total, &in_place::replace_f32(Isa::Avx512, elements, step, &rounding, indices));
            continue;
        }
        let replaced = replace_chunk(elements.as_chunks_mut().0, step, table, indices.as_chunks_mut().0);
        add(&mut total, &replaced);
    }
    total
}

fn add(total: &mut Replaced, next: &Replaced) {
    total.errors.add(&next.errors);
    total.n_zeros += next.n_zeros;
    total.n_escapes += next.n_escapes;
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn replace_chunk(
    rows: &mut [[[u8; 4]; 16]],
    step: f32,
    table: &[f32; N_THRESHOLDS],
    indices: &mut [[i32; 16]],
) -> Replaced {
    let [low, high]: [__m512; 2] = cast(*table);
    let step = _mm512_set1_ps(step);
    let zero = _mm512_setzero_ps();
    // Halves of a row apart.
    let mut max_abs = [_mm512_setzero_pd(); 2];
    let mut error_sq = [_mm512_setzero_pd(); 2];
    let mut value_sq = [_mm512_setzero_pd(); 2];
    // Counts by lane: changed, zeroed, zero, escapes.
    let mut counts = [_mm512_setzero_si512(); 4];
    let n_elements = 16 * rows.len() as u64;
    for (row, dst) in rows.iter_mut().zip(indices) {
        let x: __m512 = cast(*row);
        let (k, is_in_range) = indices_of(x, step, low, high);
        *dst = cast(_mm512_mask_mov_epi32(_mm512_set1_epi32(super::ESCAPE), is_in_range, k));
        let rebuilt = _mm512_mask_mul_ps(x, is_in_range, _mm512_cvtepi32_ps(k), step);
        *row = cast(rebuilt);
        let is_zero = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(rebuilt, zero) & is_in_range;
        let counted = [
            is_in_range & _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(x, rebuilt),
            is_zero & _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(x, zero),
            is_zero,
            !is_in_range,
        ];
        for (count, mask) in counts.iter_mut().zip(counted) {
            *count = _mm512_mask_sub_epi32(*count, mask, *count, _mm512_set1_epi32(-1));
        }
        // What is not finite has no square, and what has no index no error.
        let finite = _mm512_maskz_mov_ps(!_mm512_fpclass_ps_mask::<NOT_FINITE>(x), x);
        let from = _mm512_maskz_mov_ps(is_in_range, x);
        let to = _mm512_maskz_mov_ps(is_in_range, rebuilt);
        for half in 0..2 {
            let wide = |x: __m512| {
                let part = if half == 0 { _mm512_castps512_ps256(x) } else { _mm512_extractf32x8_ps::<1>(x) };
                _mm512_cvtps_pd(part)
            };
            let error = _mm512_sub_pd(wide(from), wide(to));
            let value = wide(finite);
            max_abs[half] = _mm512_max_pd(max_abs[half], _mm512_abs_pd(error));
            error_sq[half] = _mm512_add_pd(error_sq[half], _mm512_mul_pd(error, error));
            value_sq[half] = _mm512_add_pd(value_sq[half], _mm512_mul_pd(value, value));
        }
    }
    let lanes = |halves: [__m512d; 2]| -> [f64; 16] { cast(halves) };
    let sum = |count: __m512i| cast::<_, [u32; 16]>(count).into_iter().map(u64::from).sum::<u64>();
    let [n_changed, n_zeroed, n_zeros, n_escapes] = counts.map(sum);
    Replaced {
        errors: ErrorSums {
            n_elements,
            n_changed,
            n_zeroed,
            max_abs: lanes(max_abs).into_iter().fold(0.0, f64::max),
            error_sq: lanes(error_sq).into_iter().fold(0.0, |sum, lane| sum + lane),
            value_sq: lanes(value_sq).into_iter().fold(0.0, |sum, lane| sum + lane),
        },
        n_zeros,
        n_escapes,
    }
}
