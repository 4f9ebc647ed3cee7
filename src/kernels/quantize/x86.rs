//! The plain loops, widened by the features that they are compiled with; table lookups in registers.

use std::arch::x86_64::*;

use bytemuck::{cast, cast_ref};

use super::even_sums::{COLUMN_LEN, ROW_LEN, SHEET_LEN};
use super::{ErrorSums, MAX_STEPS, N_THRESHOLDS, Replaced, Rounding, error_sums, in_place, scalar, x86_avx2};
use crate::dtype::Dtype;
use crate::kernels::Isa;
use crate::kernels::prefetch::Spread;

/// Magnitudes from here on share the last threshold.
pub(super) const LAST_ENTRY: i32 = 31;

#[target_feature(enable = "avx2")]
pub(super) fn quantize_avx2(values: &[f32], step: f32, rounding: &Rounding, indices: &mut [i32]) {
    let table = match rounding {
        Rounding::Nearest => return scalar::quantize(values, step, rounding, indices),
        Rounding::Thresholds(table) => table,
        Rounding::EvenSums(table) => {
            let (sheets, rest) = values.as_chunks::<SHEET_LEN>();
            let (index_sheets, index_rest) = indices.as_chunks_mut();
            let sheets = sheets.iter().zip(index_sheets);
            sheets.for_each(|(values, indices)| {
                x86_avx2::quantize_sheet(cast_ref(values), step, table, indices);
            });
            return quantize_avx2(rest, step, &Rounding::Thresholds(*table), index_rest);
        }
    };
    let (quarters, step_vector) = (cast(*table), _mm256_set1_ps(step));
    let (vectors, rest) = values.as_chunks::<8>();
    let (index_vectors, index_rest) = indices.as_chunks_mut::<8>();
    for (vector, dst) in vectors.iter().zip(index_vectors) {
        let (k, is_in_range) = x86_avx2::indices_of(cast(*vector), step_vector, quarters);
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
    let table = match rounding {
        Rounding::Nearest => return scalar::quantize(values, step, rounding, indices),
        Rounding::Thresholds(table) => table,
        Rounding::EvenSums(table) => {
            let (sheets, rest) = values.as_chunks::<SHEET_LEN>();
            let (index_sheets, index_rest) = indices.as_chunks_mut();
            let sheets = sheets.iter().zip(index_sheets);
            sheets.for_each(|(values, indices)| quantize_sheet(cast_ref(values), step, table, indices));
            return quantize_avx512(rest, step, &Rounding::Thresholds(*table), index_rest);
        }
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

/// As [`super::even_sums::quantize_sheet`], of the little-endian bytes of a sheet: 16 columns at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn quantize_sheet(
    values: &[[u8; 4]; SHEET_LEN],
    step: f32,
    table: &[f32; N_THRESHOLDS],
    indices: &mut [i32; SHEET_LEN],
) {
    const VECTORS: usize = ROW_LEN / 16;
    let [low, high]: [__m512; 2] = cast(*table);
    let (step, one) = (_mm512_set1_ps(step), _mm512_set1_epi32(1));
    let values = values.as_chunks::<16>().0;
    let indices = indices.as_chunks_mut::<16>().0;
    for part in 0..VECTORS {
        let mut nearest = _mm512_set1_ps(f32::INFINITY);
        let (mut others, mut places, mut sums) =
            (_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512());
        for row in 0..COLUMN_LEN {
            let x: __m512 = cast(values[row * VECTORS + part]);
            let steps = _mm512_abs_ps(_mm512_div_ps(x, step));
            let floor = _mm512_cvttps_epi32(steps);
            let fraction = _mm512_sub_ps(steps, _mm512_cvtepi32_ps(floor));
            let entry = _mm512_min_epu32(floor, _mm512_set1_epi32(LAST_ENTRY));
            let threshold = _mm512_permutex2var_ps(low, entry, high);
            let up = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(fraction, threshold);
            let above = _mm512_add_epi32(floor, one);
            let negative = _mm512_movepi32_mask(_mm512_castps_si512(x));
            let signed = |k| _mm512_mask_sub_epi32(k, negative, _mm512_setzero_si512(), k);
            let is_in_range = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(steps, _mm512_set1_ps(MAX_STEPS));
            let k = signed(_mm512_mask_mov_epi32(floor, up, above));
            let k = _mm512_mask_mov_epi32(_mm512_set1_epi32(super::ESCAPE), is_in_range, k);
            indices[row * VECTORS + part] = cast(k);
            sums = _mm512_xor_si512(sums, k);
            let distance = _mm512_abs_ps(_mm512_sub_ps(fraction, threshold));
            let may_move = _mm512_mask_cmp_ps_mask::<_CMP_NEQ_OQ>(is_in_range, x, _mm512_setzero_ps());
            let is_nearer = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(may_move, distance, nearest);
            nearest = _mm512_mask_mov_ps(nearest, is_nearer, distance);
            let other = signed(_mm512_mask_mov_epi32(above, up, floor));
            others = _mm512_mask_mov_epi32(others, is_nearer, other);
            #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "one of eight")]
            let place = _mm512_set1_epi32(row as i32);
            places = _mm512_mask_mov_epi32(places, is_nearer, place);
        }
        let is_odd = _mm512_test_epi32_mask(sums, one);
        for row in 0..COLUMN_LEN {
            #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "one of eight")]
            let place = _mm512_set1_epi32(row as i32);
            let moves = _mm512_mask_cmpeq_epi32_mask(is_odd, places, place);
            let dst = &mut indices[row * VECTORS + part];
            *dst = cast(_mm512_mask_mov_epi32(cast(*dst), moves, others));
        }
    }
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

#[target_feature(enable = "avx2")]
pub(super) fn max_scaled_avx2(dtype: Dtype, original: &[u8], decoded: &[u8], scales: &[f32]) -> f64 {
    error_sums::max_scaled(dtype, original, decoded, scales)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn max_scaled_avx512(dtype: Dtype, original: &[u8], decoded: &[u8], scales: &[f32]) -> f64 {
    error_sums::max_scaled(dtype, original, decoded, scales)
}

/// Classes of `vfpclassps`: NaN of either kind, and infinities.
const NOT_FINITE: i32 = 0x99;

/// As [`in_place::replace_f32`], with everything in registers. The sums are those of [`error_sums`]: 16 lanes, that of each
/// run of [`error_sums::CHUNK_LEN`] elements added to the total by itself.
///
/// Where the first threshold is at least one half, as it mostly is, errors are differences of `f32` and yet exact: the
/// reconstruction is 0, or neither of the two is more than twice the other (P. Sterbenz, "Floating-Point Computation",
/// 1974).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn replace_f32_avx512(
    source: Option<&[[u8; 4]]>,
    elements: &mut [[u8; 4]],
    step: f32,
    rounding: &Rounding,
    indices: &mut [i32],
    next: &[u8],
) -> Replaced {
    // A row is a line.
    let mut next = Spread::over(next, next.len().div_ceil(64));
    let mut total = Replaced::default();
    let chunks = elements.chunks_mut(error_sums::CHUNK_LEN).zip(indices.chunks_mut(error_sums::CHUNK_LEN));
    for (chunk_idx, (elements, indices)) in chunks.enumerate() {
        let source = source.map(|all| &all[chunk_idx * error_sums::CHUNK_LEN..][..elements.len()]);
        let is_whole = match rounding {
            Rounding::EvenSums(_) => elements.len().is_multiple_of(SHEET_LEN),
            _ => elements.len().is_multiple_of(16),
        };
        let (Rounding::Thresholds(table) | Rounding::EvenSums(table), true) = (rounding, is_whole) else {
            total.add(&in_place::replace_f32(Isa::Avx512, source, elements, step, rounding, indices));
            continue;
        };
        if matches!(rounding, Rounding::EvenSums(_)) {
            let sheets = source.unwrap_or(elements).as_chunks().0.iter().zip(indices.as_chunks_mut().0);
            sheets.for_each(|(values, indices)| quantize_sheet(values, step, table, indices));
        }
        let source = source.map(|source| source.as_chunks().0);
        let (rows, indices) = (elements.as_chunks_mut().0, indices.as_chunks_mut().0);
        let replaced = match rounding {
            Rounding::EvenSums(_) => {
                replace_chunk::<false, true>(source, rows, step, table, indices, &mut next)
            }
            _ if table[0] >= 0.5 => {
                replace_chunk::<true, false>(source, rows, step, table, indices, &mut next)
            }
            _ => replace_chunk::<false, false>(source, rows, step, table, indices, &mut next),
        };
        total.add(&replaced);
    }
    total
}

/// Sums and counts over rows of 16; `NARROW` where differences of `f32` are exact.
#[derive(Clone, Copy)]
struct RowSums<const NARROW: bool> {
    max_abs: __m512,
    /// The same where they are not; halves of a row apart, as of sums.
    max_abs_wide: [__m512d; 2],
    error_sq: [__m512d; 2],
    value_sq: [__m512d; 2],
    /// Zeros by lane.
    zeros: __m512i,
    /// Elements with an index that are as they were, and zeros among them.
    n_same: u64,
    n_same_zeros: u64,
    n_escapes: u64,
}

/// The halves of a row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn widened(x: __m512) -> [__m512d; 2] {
    [_mm512_cvtps_pd(_mm512_castps512_ps256(x)), _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(x))]
}

impl<const NARROW: bool> RowSums<NARROW> {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn new() -> Self {
        let none = [_mm512_setzero_pd(); 2];
        Self {
            max_abs: _mm512_setzero_ps(),
            max_abs_wide: none,
            error_sq: none,
            value_sq: none,
            zeros: _mm512_setzero_si512(),
            n_same: 0,
            n_same_zeros: 0,
            n_escapes: 0,
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn add_sums(&mut self, values: __m512, from: __m512, to: __m512) {
        let values = widened(values);
        let errors = if NARROW {
            let errors = _mm512_sub_ps(from, to);
            self.max_abs = _mm512_max_ps(self.max_abs, _mm512_abs_ps(errors));
            widened(errors)
        } else {
            let (from, to) = (widened(from), widened(to));
            [_mm512_sub_pd(from[0], to[0]), _mm512_sub_pd(from[1], to[1])]
        };
        for half in 0..2 {
            let (value, error) = (values[half], errors[half]);
            // The square of an `f32` is exact: the sum is rounded once, as if it were done in two steps.
            self.value_sq[half] = _mm512_fmadd_pd(value, value, self.value_sq[half]);
            if NARROW {
                self.error_sq[half] = _mm512_fmadd_pd(error, error, self.error_sq[half]);
            } else {
                self.error_sq[half] = _mm512_add_pd(self.error_sq[half], _mm512_mul_pd(error, error));
                self.max_abs_wide[half] = _mm512_max_pd(self.max_abs_wide[half], _mm512_abs_pd(error));
            }
        }
    }

    /// Adds a row all of whose elements have an index.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn add_plain(&mut self, x: __m512, k: __m512i, rebuilt: __m512) {
        self.add_sums(x, x, rebuilt);
        let is_zero = _mm512_testn_epi32_mask(k, k);
        self.zeros = _mm512_mask_sub_epi32(self.zeros, is_zero, self.zeros, _mm512_set1_epi32(-1));
        let is_same = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(x, rebuilt);
        // Rare but for exact zeros.
        if is_same != 0 {
            self.n_same += u64::from(is_same.count_ones());
            self.n_same_zeros += u64::from((is_same & is_zero).count_ones());
        }
    }

    /// With any row added. Takes and gives copies, so that the sums of the loop stay in registers.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline(never)]
    fn with_any(mut self, x: __m512, rebuilt: __m512, is_in_range: __mmask16) -> Self {
        let is_zero = _mm512_mask_cmp_ps_mask::<_CMP_EQ_OQ>(is_in_range, rebuilt, _mm512_setzero_ps());
        self.zeros = _mm512_mask_sub_epi32(self.zeros, is_zero, self.zeros, _mm512_set1_epi32(-1));
        let is_same = _mm512_mask_cmp_ps_mask::<_CMP_EQ_OQ>(is_in_range, x, rebuilt);
        self.n_same += u64::from(is_same.count_ones());
        self.n_same_zeros += u64::from((is_same & is_zero).count_ones());
        self.n_escapes += u64::from((!is_in_range).count_ones());
        // What is not finite has no square, and what has no index no error.
        let finite = _mm512_maskz_mov_ps(!_mm512_fpclass_ps_mask::<NOT_FINITE>(x), x);
        let in_range = |x| _mm512_maskz_mov_ps(is_in_range, x);
        self.add_sums(finite, in_range(x), in_range(rebuilt));
        self
    }
}

/// Replaces rows by what their indices stand for, which are chosen by `table` or, if they are `GIVEN`, have been.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn replace_chunk<const NARROW: bool, const GIVEN: bool>(
    source: Option<&[[[u8; 4]; 16]]>,
    rows: &mut [[[u8; 4]; 16]],
    step: f32,
    table: &[f32; N_THRESHOLDS],
    indices: &mut [[i32; 16]],
    next: &mut Spread<'_>,
) -> Replaced {
    let [low, high]: [__m512; 2] = cast(*table);
    let step = _mm512_set1_ps(step);
    let mut sums = RowSums::<NARROW>::new();
    let n_elements = 16 * rows.len() as u64;
    for (row_idx, (row, dst)) in rows.iter_mut().zip(indices).enumerate() {
        next.turn();
        let x: __m512 = cast(source.map_or(*row, |source| source[row_idx]));
        let (k, is_in_range) = if GIVEN {
            let k = cast(*dst);
            (k, _mm512_cmpneq_epi32_mask(k, _mm512_set1_epi32(super::ESCAPE)))
        } else {
            indices_of(x, step, low, high)
        };
        let values = _mm512_cvtepi32_ps(k);
        if is_in_range == __mmask16::MAX {
            let rebuilt = _mm512_mul_ps(values, step);
            *dst = cast(k);
            *row = cast(rebuilt);
            sums.add_plain(x, k, rebuilt);
        } else {
            *dst = cast(_mm512_mask_mov_epi32(_mm512_set1_epi32(super::ESCAPE), is_in_range, k));
            let rebuilt = _mm512_mask_mul_ps(x, is_in_range, values, step);
            *row = cast(rebuilt);
            sums = sums.with_any(x, rebuilt, is_in_range);
        }
    }
    let RowSums { max_abs, max_abs_wide, error_sq, value_sq, zeros, n_same, n_same_zeros, n_escapes } = sums;
    let lanes = |halves: [__m512d; 2]| -> [f64; 16] { cast(halves) };
    let max_abs = cast::<_, [f32; 16]>(max_abs).into_iter().fold(0.0, f32::max);
    let n_zeros = cast::<_, [u32; 16]>(zeros).into_iter().map(u64::from).sum::<u64>();
    Replaced {
        errors: ErrorSums {
            n_elements,
            n_changed: n_elements - n_escapes - n_same,
            n_zeroed: n_zeros - n_same_zeros,
            max_abs: lanes(max_abs_wide).into_iter().fold(max_abs.into(), f64::max),
            error_sq: lanes(error_sq).into_iter().fold(0.0, |sum, lane| sum + lane),
            value_sq: lanes(value_sq).into_iter().fold(0.0, |sum, lane| sum + lane),
        },
        n_zeros,
        n_escapes,
    }
}
