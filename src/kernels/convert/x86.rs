//! The plain loops, widened by the features that they are compiled with.

use super::scalar;
use crate::dtype::Dtype;

#[target_feature(enable = "avx2")]
pub(super) fn to_f32_avx2(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    scalar::to_f32(dtype, bytes, values);
}

#[target_feature(enable = "avx2")]
pub(super) fn from_f32_avx2(dtype: Dtype, values: &[f32], bytes: &mut [u8]) {
    scalar::from_f32(dtype, values, bytes);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn to_f32_avx512(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    scalar::to_f32(dtype, bytes, values);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn from_f32_avx512(dtype: Dtype, values: &[f32], bytes: &mut [u8]) {
    scalar::from_f32(dtype, values, bytes);
}
