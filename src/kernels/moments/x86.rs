//! The definition, compiled for wider vectors; Rust contracts no multiplication and addition into one rounding.

use super::{Moments, measure_with};
use crate::dtype::Dtype;

#[target_feature(enable = "avx2")]
pub(super) fn measure_avx2(dtype: Dtype, bytes: &[u8]) -> Option<Moments> {
    measure_with(dtype, bytes)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn measure_avx512(dtype: Dtype, bytes: &[u8]) -> Option<Moments> {
    measure_with(dtype, bytes)
}
