//! Whether a tensor is worth quantizing: one that takes no more bytes as it is stays exact.

use super::tensor_source::{RUN_LEN, TensorSource};
use crate::error::Result;
use crate::pipeline::timings::Step;
use crate::stage::{BlockEncoder, BlockSource, Level, QuantRun, QuantSpec};

/// Elements that both ways of coding are tried on.
const SAMPLE_LEN: u64 = 1 << 14;
/// Of an element's bits one in this many: what is quantized to fewer is taken to be smaller, since of numbers that are not
/// repeated or zero nobody codes signs and mantissas in less.
const ONE_IN: f64 = 4.0;

impl TensorSource<'_> {
    /// Whether the tensor takes no more bytes as it is than quantized by `spec`, as a sample of it shows.
    pub(super) fn is_smaller_exact(&self, spec: &QuantSpec) -> Result<bool> {
        if spec.channels.is_some() && self.n_elements() > SAMPLE_LEN {
            // The sample's elements are not of the channels that their numbers say.
            return Ok(false);
        }
        let dtype = self.candidate.dtype;
        let sample = self.time(Step::Statistics, || self.read_sample(SAMPLE_LEN, RUN_LEN))?;
        let mut rebuilt = self.memory.buffer(sample.len());
        rebuilt.copy_from_slice(&sample);
        let make = || BlockEncoder::new(Level::Default, self.ctx.isa);
        let mut encoder = self.memory.trial_encoders.take(make);
        let compare = || {
            let run = QuantRun { spec, dtype, first_element: 0 };
            let (quantized_bits, _) = encoder.estimate_quantized(run, &mut rebuilt);
            if quantized_bits * ONE_IN < 8.0 * sample.len() as f64 {
                return false;
            }
            let mut exact = Vec::new();
            encoder.encode(BlockSource { dtype, bytes: &sample, row_len: 0 }, &mut exact);
            8.0 * exact.len() as f64 <= quantized_bits
        };
        let is_smaller = self.time(Step::Backend, compare);
        self.memory.trial_encoders.put(encoder);
        self.memory.give_back(rebuilt);
        self.memory.give_back(sample);
        Ok(is_smaller)
    }
}
