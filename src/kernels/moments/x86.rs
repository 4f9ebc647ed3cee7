//! The definition's operations on whole registers, in the definition's order.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::scalar::Lanes;
use super::{Block, CHUNK, Squares, padded, padding, squares};
use crate::kernels::prefetch::Spread;

/// Classes of `vfpclassps`: quiet NaN, positive and negative infinity, signalling NaN.
const NOT_FINITE: i32 = 0x01 | 0x08 | 0x10 | 0x80;

#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
pub(super) fn squares_avx512(values: &[f32], ahead: &mut Spread<'_>) -> Squares {
    squares::block(values, ahead)
}

#[target_feature(enable = "avx2")]
pub(super) fn squares_avx2(values: &[f32], ahead: &mut Spread<'_>) -> Squares {
    squares::block(values, ahead)
}

#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn block_avx512(pivot: f32, values: &[f32]) -> Block {
    let mut sums = Sums512::new(pivot);
    let (chunks, tail) = values.as_chunks::<CHUNK>();
    for chunk in chunks {
        sums.add(cast(*chunk));
    }
    if !tail.is_empty() {
        sums.add(cast(padded(tail)));
    }
    sums.lanes(pivot).finish(padding(values.len()))
}

#[derive(Clone, Copy)]
struct Sums512 {
    pivot: __m512,
    pivot_pd: __m512d,
    powers: [__m512d; 4],
    abs: __m512d,
    zeros: __m512i,
    n_not_finite: __m512i,
    min: __m512,
    max: __m512,
}

impl Sums512 {
    #[target_feature(enable = "avx512f,avx512dq")]
    fn new(pivot: f32) -> Self {
        let (none, pivots) = (_mm512_setzero_pd(), _mm512_set1_ps(pivot));
        Self {
            pivot: pivots,
            pivot_pd: _mm512_set1_pd(f64::from(pivot)),
            powers: [none; 4],
            abs: none,
            zeros: _mm512_setzero_si512(),
            n_not_finite: _mm512_setzero_si512(),
            min: pivots,
            max: pivots,
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn add(&mut self, x: __m512) {
        let one = _mm512_set1_epi32(1);
        let zero = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(x, _mm512_setzero_ps());
        let not_finite = _mm512_fpclass_ps_mask::<NOT_FINITE>(x);
        self.zeros = _mm512_mask_add_epi32(self.zeros, zero, self.zeros, one);
        self.n_not_finite = _mm512_mask_add_epi32(self.n_not_finite, not_finite, self.n_not_finite, one);
        let x = _mm512_mask_blend_ps(not_finite, x, self.pivot);
        self.min = _mm512_min_ps(x, self.min);
        self.max = _mm512_max_ps(x, self.max);
        self.add_half(_mm512_cvtps_pd(_mm512_castps512_ps256(x)));
        self.add_half(_mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(x)));
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn add_half(&mut self, x: __m512d) {
        let d = _mm512_sub_pd(x, self.pivot_pd);
        let d2 = _mm512_mul_pd(d, d);
        self.abs = _mm512_add_pd(self.abs, _mm512_abs_pd(x));
        let powers = [d, d2, _mm512_mul_pd(d2, d), _mm512_mul_pd(d2, d2)];
        for (sum, power) in self.powers.iter_mut().zip(powers) {
            *sum = _mm512_add_pd(*sum, power);
        }
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    fn lanes(self, pivot: f32) -> Lanes {
        Lanes {
            pivot,
            powers: cast(self.powers),
            abs: cast(self.abs),
            zeros: cast(self.zeros),
            n_not_finite: cast(self.n_not_finite),
            min: cast(self.min),
            max: cast(self.max),
        }
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn block_avx2(pivot: f32, values: &[f32]) -> Block {
    let mut sums = Sums256::new(pivot);
    let (chunks, tail) = values.as_chunks::<CHUNK>();
    for chunk in chunks {
        sums.add(cast(*chunk));
    }
    if !tail.is_empty() {
        sums.add(cast(padded(tail)));
    }
    sums.lanes(pivot).finish(padding(values.len()))
}

#[derive(Clone, Copy)]
struct Sums256 {
    pivot: __m256,
    pivot_pd: __m256d,
    powers: [[__m256d; 2]; 4],
    abs: [__m256d; 2],
    zeros: [__m256i; 2],
    n_not_finite: [__m256i; 2],
    min: [__m256; 2],
    max: [__m256; 2],
}

impl Sums256 {
    #[target_feature(enable = "avx2")]
    fn new(pivot: f32) -> Self {
        let (none, pivots) = ([_mm256_setzero_pd(); 2], _mm256_set1_ps(pivot));
        Self {
            pivot: pivots,
            pivot_pd: _mm256_set1_pd(f64::from(pivot)),
            powers: [none; 4],
            abs: none,
            zeros: [_mm256_setzero_si256(); 2],
            n_not_finite: [_mm256_setzero_si256(); 2],
            min: [pivots; 2],
            max: [pivots; 2],
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(&mut self, chunk: [__m256; 2]) {
        let magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fff_ffff));
        for (half, x) in chunk.into_iter().enumerate() {
            // All ones, which is −1, where the comparison holds; NaN compares as not below.
            let zero = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_EQ_OQ>(x, _mm256_setzero_ps()));
            let below =
                _mm256_cmp_ps::<_CMP_LT_OQ>(_mm256_and_ps(x, magnitude), _mm256_set1_ps(f32::INFINITY));
            let not_finite = _mm256_add_epi32(_mm256_castps_si256(below), _mm256_set1_epi32(1));
            self.zeros[half] = _mm256_sub_epi32(self.zeros[half], zero);
            self.n_not_finite[half] = _mm256_add_epi32(self.n_not_finite[half], not_finite);
            let x = _mm256_blendv_ps(self.pivot, x, below);
            self.min[half] = _mm256_min_ps(x, self.min[half]);
            self.max[half] = _mm256_max_ps(x, self.max[half]);
            self.add_quarter(0, _mm256_cvtps_pd(_mm256_castps256_ps128(x)));
            self.add_quarter(1, _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(x)));
        }
    }

    /// Four elements of lanes 4 × `side` on.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add_quarter(&mut self, side: usize, x: __m256d) {
        let d = _mm256_sub_pd(x, self.pivot_pd);
        let d2 = _mm256_mul_pd(d, d);
        let abs = _mm256_andnot_pd(_mm256_set1_pd(-0.0), x);
        self.abs[side] = _mm256_add_pd(self.abs[side], abs);
        let powers = [d, d2, _mm256_mul_pd(d2, d), _mm256_mul_pd(d2, d2)];
        for (sums, power) in self.powers.iter_mut().zip(powers) {
            sums[side] = _mm256_add_pd(sums[side], power);
        }
    }

    #[target_feature(enable = "avx2")]
    fn lanes(self, pivot: f32) -> Lanes {
        Lanes {
            pivot,
            powers: cast(self.powers),
            abs: cast(self.abs),
            zeros: cast(self.zeros),
            n_not_finite: cast(self.n_not_finite),
            min: cast(self.min),
            max: cast(self.max),
        }
    }
}
