//! The definition's loops, as the compiler widens them for each instruction set.

use super::{Headroom, scalar};

#[target_feature(enable = "avx2")]
pub(super) fn divide_avx2(values: &mut [f32], scales: &[f32], headroom: Headroom) {
    scalar::divide(values, scales, headroom);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn divide_avx512(values: &mut [f32], scales: &[f32], headroom: Headroom) {
    scalar::divide(values, scales, headroom);
}

#[target_feature(enable = "avx2")]
pub(super) fn multiply_avx2(values: &mut [f32], scales: &[f32]) {
    scalar::multiply(values, scales);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn multiply_avx512(values: &mut [f32], scales: &[f32]) {
    scalar::multiply(values, scales);
}

#[target_feature(enable = "avx2")]
pub(super) fn largest_finite_avx2(values: &[f32]) -> f32 {
    scalar::largest_finite(values)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn largest_finite_avx512(values: &[f32]) -> f32 {
    scalar::largest_finite(values)
}
