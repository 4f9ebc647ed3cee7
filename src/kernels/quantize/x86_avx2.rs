//! [`in_place::replace_f32`] with AVX2 and everything in registers.
//!
//! The error sums are those of [`error_sums`]: 16 lanes, that of each run of [`error_sums::CHUNK_LEN`] elements added to the
//! total by itself.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::even_sums::{COLUMN_LEN, ROW_LEN as SHEET_ROW_LEN, SHEET_LEN};
use super::x86::LAST_ENTRY;
use super::{ESCAPE, ErrorSums, MAX_STEPS, N_THRESHOLDS, Replaced, Rounding, error_sums, in_place};
use crate::kernels::Isa;
use crate::kernels::prefetch::Spread;

/// Elements of a row: the lanes of the sums.
const ROW_LEN: usize = 16;

/// As [`in_place::replace_f32`].
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn replace_f32(
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
            _ => elements.len().is_multiple_of(ROW_LEN),
        };
        let (Rounding::Thresholds(table) | Rounding::EvenSums(table), true) = (rounding, is_whole) else {
            total.add(&in_place::replace_f32(Isa::Avx2, source, elements, step, rounding, indices));
            continue;
        };
        let are_given = matches!(rounding, Rounding::EvenSums(_));
        if are_given {
            let sheets = source.unwrap_or(elements).as_chunks().0.iter().zip(indices.as_chunks_mut().0);
            sheets.for_each(|(values, indices)| quantize_sheet(values, step, table, indices));
        }
        let source = source.map(|source| source.as_chunks().0);
        let (rows, indices) = (elements.as_chunks_mut().0, indices.as_chunks_mut().0);
        let replaced = if are_given {
            replace_chunk::<true>(source, rows, step, table, indices, &mut next)
        } else {
            replace_chunk::<false>(source, rows, step, table, indices, &mut next)
        };
        total.add(&replaced);
    }
    total
}

/// The threshold of each magnitude; of 31 and above the last.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn thresholds_of(quarters: [__m256; 4], magnitudes: __m256i) -> __m256 {
    let entry = _mm256_min_epu32(magnitudes, _mm256_set1_epi32(LAST_ENTRY));
    // Bit 4 and bit 3 of the entry choose among the quarters.
    let bit3 = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(entry));
    let bit4 = _mm256_castsi256_ps(_mm256_slli_epi32::<27>(entry));
    let [a, b, c, d] = quarters.map(|quarter| _mm256_permutevar8x32_ps(quarter, entry));
    _mm256_blendv_ps(_mm256_blendv_ps(a, b, bit3), _mm256_blendv_ps(c, d, bit3), bit4)
}

/// Indices of eight elements, of no meaning where they are not in range, and which are.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn indices_of(x: __m256, step: __m256, quarters: [__m256; 4]) -> (__m256i, __m256) {
    let steps = _mm256_andnot_ps(_mm256_set1_ps(-0.0), _mm256_div_ps(x, step));
    let floor = _mm256_cvttps_epi32(steps);
    let fraction = _mm256_sub_ps(steps, _mm256_cvtepi32_ps(floor));
    let up = _mm256_cmp_ps::<_CMP_GT_OQ>(fraction, thresholds_of(quarters, floor));
    let k = _mm256_sub_epi32(floor, _mm256_castps_si256(up));
    let sign = _mm256_srai_epi32::<31>(_mm256_castps_si256(x));
    let k = _mm256_sub_epi32(_mm256_xor_si256(k, sign), sign);
    (k, _mm256_cmp_ps::<_CMP_LE_OQ>(steps, _mm256_set1_ps(MAX_STEPS)))
}

/// Sums and counts over rows.
struct Sums {
    /// Four lanes each.
    max_abs: [__m256d; 2],
    error_sq: [__m256d; 4],
    value_sq: [__m256d; 4],
    zeros: __m256i,
    /// Elements with an index that are as they were, and zeros among them.
    n_same: u32,
    n_same_zeros: u32,
    n_escapes: u32,
}

#[target_feature(enable = "avx2")]
#[inline]
fn widened(x: __m256) -> [__m256d; 2] {
    [_mm256_cvtps_pd(_mm256_castps256_ps128(x)), _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(x))]
}

#[target_feature(enable = "avx2,popcnt")]
#[inline]
fn count(mask: __m256) -> u32 {
    _mm256_movemask_ps(mask).count_ones()
}

impl Sums {
    /// Replaces one half of a row, the first or the second. `ALL`: all of it is in range, as is nearly always so.
    #[target_feature(enable = "avx2,popcnt")]
    #[inline]
    fn replace<const ALL: bool>(
        &mut self,
        half: usize,
        x: __m256,
        (k, in_range): (__m256i, __m256),
        step: __m256,
    ) -> (__m256, __m256i) {
        let mut rebuilt = _mm256_mul_ps(_mm256_cvtepi32_ps(k), step);
        let mut is_zero = _mm256_cmpeq_epi32(k, _mm256_setzero_si256());
        let mut is_same = _mm256_cmp_ps::<_CMP_EQ_OQ>(x, rebuilt);
        let (mut index, mut from, mut to) = (k, widened(x), widened(rebuilt));
        let mut value = from;
        if !ALL {
            let magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0), x);
            let finite = _mm256_cmp_ps::<_CMP_LT_OQ>(magnitude, _mm256_set1_ps(f32::INFINITY));
            // What has no index has no error, and what is not finite no square.
            (from, to) = (widened(_mm256_and_ps(x, in_range)), widened(_mm256_and_ps(rebuilt, in_range)));
            value = widened(_mm256_and_ps(x, finite));
            rebuilt = _mm256_blendv_ps(x, rebuilt, in_range);
            is_zero = _mm256_and_si256(is_zero, _mm256_castps_si256(in_range));
            is_same = _mm256_and_ps(is_same, in_range);
            let escape = _mm256_set1_epi32(ESCAPE);
            index = _mm256_blendv_epi8(escape, k, _mm256_castps_si256(in_range));
            self.n_escapes += 8 - count(in_range);
        }
        for quarter in 0..2 {
            let error = _mm256_sub_pd(from[quarter], to[quarter]);
            let magnitude = _mm256_andnot_pd(_mm256_set1_pd(-0.0), error);
            self.max_abs[quarter] = _mm256_max_pd(self.max_abs[quarter], magnitude);
            let add = |sum: &mut __m256d, x: __m256d| *sum = _mm256_add_pd(*sum, _mm256_mul_pd(x, x));
            add(&mut self.error_sq[2 * half + quarter], error);
            add(&mut self.value_sq[2 * half + quarter], value[quarter]);
        }
        self.zeros = _mm256_sub_epi32(self.zeros, is_zero);
        // Rare but for exact zeros.
        if _mm256_movemask_ps(is_same) != 0 {
            self.n_same += count(is_same);
            self.n_same_zeros += count(_mm256_and_ps(is_same, _mm256_castsi256_ps(is_zero)));
        }
        (rebuilt, index)
    }
}

/// As [`super::even_sums::quantize_sheet`], of the little-endian bytes of a sheet: eight columns at a time.
#[target_feature(enable = "avx2")]
pub(super) fn quantize_sheet(
    values: &[[u8; 4]; SHEET_LEN],
    step: f32,
    table: &[f32; N_THRESHOLDS],
    indices: &mut [i32; SHEET_LEN],
) {
    const VECTORS: usize = SHEET_ROW_LEN / 8;
    let quarters: [__m256; 4] = cast(*table);
    let (step, one) = (_mm256_set1_ps(step), _mm256_set1_epi32(1));
    let magnitude = |x| _mm256_andnot_ps(_mm256_set1_ps(-0.0), x);
    let values = values.as_chunks::<8>().0;
    let indices = indices.as_chunks_mut::<8>().0;
    for part in 0..VECTORS {
        let mut nearest = _mm256_set1_ps(f32::INFINITY);
        let (mut others, mut places, mut sums) =
            (_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256());
        for row in 0..COLUMN_LEN {
            let x: __m256 = cast(values[row * VECTORS + part]);
            let steps = magnitude(_mm256_div_ps(x, step));
            let floor = _mm256_cvttps_epi32(steps);
            let fraction = _mm256_sub_ps(steps, _mm256_cvtepi32_ps(floor));
            let threshold = thresholds_of(quarters, floor);
            let up = _mm256_cmp_ps::<_CMP_GT_OQ>(fraction, threshold);
            let sign = _mm256_srai_epi32::<31>(_mm256_castps_si256(x));
            let signed = |k| _mm256_sub_epi32(_mm256_xor_si256(k, sign), sign);
            let up = _mm256_castps_si256(up);
            let is_in_range = _mm256_cmp_ps::<_CMP_LE_OQ>(steps, _mm256_set1_ps(MAX_STEPS));
            let k = signed(_mm256_sub_epi32(floor, up));
            let k = _mm256_blendv_epi8(_mm256_set1_epi32(ESCAPE), k, _mm256_castps_si256(is_in_range));
            indices[row * VECTORS + part] = cast(k);
            sums = _mm256_xor_si256(sums, k);
            let distance = magnitude(_mm256_sub_ps(fraction, threshold));
            let is_nonzero = _mm256_cmp_ps::<_CMP_NEQ_OQ>(x, _mm256_setzero_ps());
            let may_move = _mm256_and_ps(is_in_range, is_nonzero);
            let is_nearer = _mm256_and_ps(may_move, _mm256_cmp_ps::<_CMP_LT_OQ>(distance, nearest));
            nearest = _mm256_blendv_ps(nearest, distance, is_nearer);
            let is_nearer = _mm256_castps_si256(is_nearer);
            let other = signed(_mm256_add_epi32(_mm256_add_epi32(floor, one), up));
            others = _mm256_blendv_epi8(others, other, is_nearer);
            #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "one of eight")]
            let place = _mm256_set1_epi32(row as i32);
            places = _mm256_blendv_epi8(places, place, is_nearer);
        }
        let is_odd = _mm256_cmpeq_epi32(_mm256_and_si256(sums, one), one);
        for row in 0..COLUMN_LEN {
            #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "one of eight")]
            let place = _mm256_set1_epi32(row as i32);
            let moves = _mm256_and_si256(is_odd, _mm256_cmpeq_epi32(places, place));
            let dst = &mut indices[row * VECTORS + part];
            *dst = cast(_mm256_blendv_epi8(cast(*dst), others, moves));
        }
    }
}

/// Replaces rows by what their indices stand for, which are chosen by `table` or, if they are `GIVEN`, have been.
#[target_feature(enable = "avx2,popcnt")]
fn replace_chunk<const GIVEN: bool>(
    source: Option<&[[[u8; 4]; ROW_LEN]]>,
    rows: &mut [[[u8; 4]; ROW_LEN]],
    step: f32,
    table: &[f32; N_THRESHOLDS],
    indices: &mut [[i32; ROW_LEN]],
    next: &mut Spread<'_>,
) -> Replaced {
    let quarters: [__m256; 4] = cast(*table);
    let (step, none) = (_mm256_set1_ps(step), [_mm256_setzero_pd(); 4]);
    let (max_abs, zeros) = ([_mm256_setzero_pd(); 2], _mm256_setzero_si256());
    let mut sums =
        Sums { max_abs, error_sq: none, value_sq: none, zeros, n_same: 0, n_same_zeros: 0, n_escapes: 0 };
    let n_elements = (ROW_LEN * rows.len()) as u64;
    for (row_idx, (row, dst)) in rows.iter_mut().zip(indices).enumerate() {
        next.turn();
        let x: [__m256; 2] = cast(source.map_or(*row, |source| source[row_idx]));
        let found = if GIVEN {
            let given: [__m256i; 2] = cast(*dst);
            given.map(|k| {
                let is_escape = _mm256_cmpeq_epi32(k, _mm256_set1_epi32(ESCAPE));
                (k, _mm256_castsi256_ps(_mm256_xor_si256(is_escape, _mm256_set1_epi32(-1))))
            })
        } else {
            [indices_of(x[0], step, quarters), indices_of(x[1], step, quarters)]
        };
        let in_range = _mm256_and_ps(found[0].1, found[1].1);
        let replaced = if _mm256_movemask_ps(in_range) == 0xff {
            [sums.replace::<true>(0, x[0], found[0], step), sums.replace::<true>(1, x[1], found[1], step)]
        } else {
            [sums.replace::<false>(0, x[0], found[0], step), sums.replace::<false>(1, x[1], found[1], step)]
        };
        *row = cast([replaced[0].0, replaced[1].0]);
        *dst = cast([replaced[0].1, replaced[1].1]);
    }
    let Sums { max_abs, error_sq, value_sq, zeros, n_same, n_same_zeros, n_escapes } = sums;
    let lanes = |quarters: [__m256d; 4]| -> [f64; ROW_LEN] { cast(quarters) };
    let n_zeros = cast::<_, [u32; 8]>(zeros).iter().sum::<u32>();
    Replaced {
        errors: ErrorSums {
            n_elements,
            n_changed: n_elements - u64::from(n_escapes + n_same),
            n_zeroed: u64::from(n_zeros - n_same_zeros),
            max_abs: cast::<_, [f64; 8]>(max_abs).into_iter().fold(0.0, f64::max),
            error_sq: lanes(error_sq).into_iter().fold(0.0, |sum, lane| sum + lane),
            value_sq: lanes(value_sq).into_iter().fold(0.0, |sum, lane| sum + lane),
        },
        n_zeros: n_zeros.into(),
        n_escapes: n_escapes.into(),
    }
}
