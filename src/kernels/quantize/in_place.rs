//! Elements replaced by their reconstruction, by way of the other kernels.

use super::{ESCAPE, ErrorSums, Isa, Rounding, dequantize, measure, quantize};
use crate::dtype::Dtype;

/// What became of a run of elements.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Replaced {
    /// Their errors.
    pub errors: ErrorSums,
    /// Elements that are 0 now.
    pub n_zeros: u64,
    /// Elements without an index.
    pub n_escapes: u64,
}

impl Replaced {
    /// Adds what became of the elements that follow.
    pub(super) fn add(&mut self, next: &Self) {
        self.errors.add(&next.errors);
        self.n_zeros += next.n_zeros;
        self.n_escapes += next.n_escapes;
    }
}

/// Elements that are worked on at a time; a multiple of what [`measure`] sums at a time, so that the sums are the same.
const RUN_LEN: usize = 4096;

pub(super) fn replace_f32(
    isa: Isa,
    source: Option<&[[u8; 4]]>,
    elements: &mut [[u8; 4]],
    step: f32,
    rounding: &Rounding,
    indices: &mut [i32],
) -> Replaced {
    if let Some(source) = source {
        elements.copy_from_slice(source);
    }
    let (mut values, mut rebuilt) = ([0.0; RUN_LEN], [[0; 4]; RUN_LEN]);
    let mut total = Replaced::default();
    for (elements, indices) in elements.chunks_mut(RUN_LEN).zip(indices.chunks_mut(RUN_LEN)) {
        let values = &mut values[..elements.len()];
        values.iter_mut().zip(&*elements).for_each(|(value, le)| *value = f32::from_le_bytes(*le));
        quantize(isa, values, step, rounding, indices);
        dequantize(isa, indices, step, values);
        let rebuilt = &mut rebuilt[..elements.len()];
        let sources = indices.iter().zip(&*values).zip(&*elements);
        for (dst, ((index, value), element)) in rebuilt.iter_mut().zip(sources) {
            let is_escape = *index == ESCAPE;
            *dst = if is_escape { *element } else { value.to_le_bytes() };
            total.n_escapes += u64::from(is_escape);
            total.n_zeros += u64::from(!is_escape && *value == 0.0);
        }
        let errors = measure(isa, Dtype::F32, elements.as_flattened(), rebuilt.as_flattened());
        total.errors.add(&errors.unwrap_or_default());
        elements.copy_from_slice(rebuilt);
    }
    total
}
