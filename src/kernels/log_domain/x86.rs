//! The plain loops, widened by the features that they are compiled with.

use super::scalar;

#[target_feature(enable = "avx2")]
pub(super) fn log2_avx2(values: &[f32], logs: &mut [f32]) {
    scalar::log2(values, logs);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn log2_avx512(values: &[f32], logs: &mut [f32]) {
    scalar::log2(values, logs);
}

#[target_feature(enable = "avx2")]
pub(super) fn exp2_avx2(logs: &[f32], values: &mut [f32]) {
    scalar::exp2(logs, values);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn exp2_avx512(logs: &[f32], values: &mut [f32]) {
    scalar::exp2(logs, values);
}
