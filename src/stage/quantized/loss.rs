//! What quantizing cost, as measured on the elements that a decoder gives.

use crate::kernels::quantize::ErrorSums;

/// What became of a run of elements.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BlockLoss {
    /// Errors of the elements.
    pub errors: ErrorSums,
    /// Largest |x − x̂| ÷ the multiplier of the element's channel; the same as the largest |x − x̂| without channels.
    pub max_scaled: f64,
    /// Elements that are 0 now.
    pub zeros: u64,
    /// Elements that are kept exactly, because they could not be quantized.
    pub escapes: u64,
}

impl BlockLoss {
    /// Adds the elements that follow; sums depend on the order, so blocks are added in the tensor's.
    pub fn add(&mut self, next: &Self) {
        self.errors.add(&next.errors);
        self.max_scaled = self.max_scaled.max(next.max_scaled);
        self.zeros += next.zeros;
        self.escapes += next.escapes;
    }
}
