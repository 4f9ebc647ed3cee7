//! The plain loops, widened by the features that they are compiled with.

use super::{ChainStates, Costs, scalar};

#[target_feature(enable = "avx2")]
pub(super) fn quantize_avx2(
    values: &[f32],
    step: f32,
    costs: &Costs,
    scratch: &mut [u16],
    indices: &mut [i32],
) {
    scalar::quantize(values, step, costs, scratch, indices);
}

#[target_feature(enable = "avx2")]
pub(super) fn dequantize_avx2(indices: &[i32], step: f32, states: &mut ChainStates, values: &mut [f32]) {
    scalar::dequantize(indices, step, states, values);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn dequantize_avx512(indices: &[i32], step: f32, states: &mut ChainStates, values: &mut [f32]) {
    scalar::dequantize(indices, step, states, values);
}

#[target_feature(enable = "avx2")]
pub(super) fn label_avx2(indices: &[i32], labels: &mut [u8]) {
    scalar::label(indices, labels);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn label_avx512(indices: &[i32], labels: &mut [u8]) {
    scalar::label(indices, labels);
}
