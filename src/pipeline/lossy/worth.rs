//! Whether a tensor is worth quantizing: one that takes no more bytes as it is stays exact.

use super::tensor_source::{RUN_LEN, SAMPLE_LEN, TensorSource};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::pipeline::timings::Step;
use crate::stage::{BlockSource, QuantRun, QuantSpec};

/// Elements of a sample that shows how many bits quantized ones take about.
const FEW: u64 = 1 << 14;
/// Of an element's bits one in this many: what is quantized to fewer is taken to be smaller, since nobody codes signs and
/// mantissas in less, where there are any.
const ONE_IN: f64 = 4.0;
/// Most elements, one in this many, that may be zero for that to be said.
const ZEROS_ONE_IN: u64 = 16;

impl TensorSource<'_> {
    /// Bits an element that the tensor takes as it is, if these are no more than quantized by `spec`, as a sample of it shows.
    pub(super) fn exact_if_smaller(&self, spec: &QuantSpec) -> Result<Option<f64>> {
        if spec.channels.is_some() && self.n_elements() > SAMPLE_LEN {
            // The sample's elements are not of the channels that their numbers say.
            return Ok(None);
        }
        if self.is_sample_far_smaller(spec)? {
            return Ok(None);
        }
        let dtype = self.candidate.dtype;
        let sample = self.time(Step::Statistics, || self.read_sample(SAMPLE_LEN, RUN_LEN))?;
        let mut rebuilt = self.memory.buffer(sample.len());
        rebuilt.copy_from_slice(&sample);
        let (quantized_len, exact_len) = self.time(Step::Backend, || {
            self.with_trial_encoder(|encoder| {
                let (mut quantized, mut exact) = (Vec::new(), Vec::new());
                let run = QuantRun { spec, dtype, first_element: 0 };
                encoder.encode_quantized_watched(run, &mut rebuilt, &mut quantized, &mut |_| {});
                encoder.encode(BlockSource { dtype, bytes: &sample, row_len: 0, row_start: 0 }, &mut exact);
                (quantized.len(), exact.len())
            })
        });
        let n_sampled = (sample.len() / dtype.unit_bytes()) as f64;
        self.memory.give_back(rebuilt);
        self.memory.give_back(sample);
        Ok((exact_len <= quantized_len).then_some(8.0 * exact_len as f64 / n_sampled))
    }

    /// Whether the tensor quantized by `spec` takes fewer bytes than any coding of it as it is, by what a few elements show.
    fn is_sample_far_smaller(&self, spec: &QuantSpec) -> Result<bool> {
        let mut few = self.time(Step::Statistics, || self.read_sample(FEW, RUN_LEN))?;
        let dtype = self.candidate.dtype;
        let run = QuantRun { spec, dtype, first_element: 0 };
        let (bits, loss) = self.time(Step::Backend, || {
            self.with_trial_encoder(|encoder| encoder.estimate_quantized(run, &mut few))
        });
        let n_zeros = loss.zeros.saturating_sub(loss.errors.n_zeroed);
        let n_bytes = few.len() as u64;
        self.memory.give_back(few);
        Ok(is_far_smaller(dtype, n_bytes, n_zeros, bits))
    }
}

/// Whether `bits` are fewer than any coding takes of `n_bytes` of elements of `dtype` as they are, `n_zeros` of them zero.
pub(super) fn is_far_smaller(dtype: Dtype, n_bytes: u64, n_zeros: u64, bits: f64) -> bool {
    let is_dense = n_zeros * ZEROS_ONE_IN < n_bytes / dtype.unit_bytes() as u64;
    is_dense && bits * ONE_IN < 8.0 * n_bytes as f64
}
