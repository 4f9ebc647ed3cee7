//! What samples say that tensors take at a step, as counted rather than predicted.
//!
//! A model knows moments and octaves of units, not which thresholds their tensor will have, how many low bits stay raw, and
//! what is escaped. All that a sample of a block shows, made up for what the scales of the sampled units differ from those of
//! all; what it does not show, [`super::whole_blocks`] does. Nothing is coded but tensors that are no longer than a sample.

use rayon::prelude::*;

use super::method::Method;
use super::rate;
use super::survey::{Scale, Survey, UNIT_LEN};
use super::tensor_source::{RUN_LEN, SAMPLE_LEN, TensorSource, spread};
use crate::checkpoint::BlockSpan;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::convert;
use crate::pipeline::timings::Step;
use crate::stage::{ChannelSteps, QuantRun, QuantSpec};

/// Most blocks of a tensor that are sampled: few do not stand for the others, as the first and last rows of an embedding
/// are of other tokens than the rest.
const MAX_SAMPLED_BLOCKS: usize = 16;
/// Runs of all samples of a tensor together. Twice as many do not bring rates closer.
const N_RUNS: u64 = 256;
/// Most runs of the sample of a block.
const MAX_RUNS: u64 = 32;
/// Tensors of fewer elements are counted at every step: what is around their symbols is too much of what they take.
const LEAST_SAMPLED: u64 = 4096;

/// What samples say of a tensor at a step.
pub(super) struct Sampled {
    /// How it is quantized then.
    pub(super) spec: QuantSpec,
    /// Bits that it takes.
    pub(super) bits: f64,
    /// The blocks that were sampled; none of a short tensor, all of which is counted.
    pub(super) blocks: Vec<SampledBlock>,
}

/// A block, and the bits that it takes by its sample.
pub(super) struct SampledBlock {
    pub(super) span: BlockSpan,
    pub(super) n_elements: f64,
    pub(super) bits: f64,
}

impl TensorSource<'_> {
    /// What samples say that the tensor takes by `method`, quantized by `spec`, made up for what the scales of `survey` say
    /// of the rest.
    pub(super) fn look_at_samples(
        &self,
        (survey, method): (&Survey, Method),
        spec: QuantSpec,
    ) -> Result<Sampled> {
        if self.n_elements() < LEAST_SAMPLED {
            return Ok(Sampled { bits: self.counted_bits(&spec)?, spec, blocks: Vec::new() });
        }
        let rough = self.rough_bits(survey, method, &spec);
        let spans = self.sampled_spans();
        let max_runs = (N_RUNS / spans.len().max(1) as u64).min(MAX_RUNS);
        let look = |span: &BlockSpan| self.excess_of_sample(&spec, &rough, (span, max_runs));
        let excesses: Vec<Result<f64>> = spans.par_iter().with_max_len(1).map(look).collect();
        let excesses = excesses.into_iter().collect::<Result<Vec<f64>>>()?;
        let block = |(span, excess): (&BlockSpan, &f64)| {
            let (first, n_elements) = (self.first_element(span), self.n_elements_of(span));
            let mean = rough.mean((first..first + n_elements).step_by(UNIT_LEN)) + excess;
            let bits = mean * n_elements as f64 + rate::BLOCK_BITS;
            SampledBlock { span: *span, n_elements: n_elements as f64, bits }
        };
        let blocks: Vec<SampledBlock> = spans.iter().zip(&excesses).map(block).collect();
        let excess: f64 = blocks.iter().zip(&excesses).map(|(block, excess)| excess * block.n_elements).sum();
        let excess = excess / blocks.iter().map(|block| block.n_elements).sum::<f64>();
        let mean = rough.mean((0..self.n_elements()).step_by(UNIT_LEN)) + excess;
        let bits = mean * self.n_elements() as f64 + rate::BLOCK_BITS * survey.n_blocks as f64;
        Ok(Sampled { spec, bits, blocks })
    }

    fn n_elements_of(&self, span: &BlockSpan) -> u64 {
        span.len as u64 / self.unit_bytes()
    }

    /// The blocks that are sampled.
    fn sampled_spans(&self) -> Vec<BlockSpan> {
        let spans = self.spans();
        let n_sampled = spans.len().min(MAX_SAMPLED_BLOCKS);
        let spread = (0..n_sampled).map(|idx| (2 * idx + 1) * spans.len() / (2 * n_sampled));
        spread.filter_map(|idx| spans.get(idx).copied()).collect()
    }

    /// What scales say of all units, quantized by `spec`; nothing where there are none.
    fn rough_bits(&self, survey: &Survey, method: Method, spec: &QuantSpec) -> RoughBits {
        let step = f64::from(spec.step);
        let bits = |(unit_idx, scale): (usize, &Scale)| {
            let multiplier_of =
                |channels: &ChannelSteps| channels.multiplier_of((unit_idx * UNIT_LEN) as u64);
            let multiplier = spec.channels.as_ref().map_or(1.0, multiplier_of);
            scale.rough_bits(method, step * f64::from(multiplier))
        };
        let of_units = self.time(Step::Prediction, || survey.scales.iter().enumerate().map(bits).collect());
        RoughBits { of_units }
    }

    /// Bits that the tensor takes quantized by `spec`, everything counted.
    pub(super) fn counted_bits(&self, spec: &QuantSpec) -> Result<f64> {
        let blocks: Vec<Result<f64>> =
            self.spans().par_iter().with_max_len(1).map(|span| self.block_bits(span, spec)).collect();
        // In order, so that the sum does not depend on the threads.
        blocks.into_iter().sum()
    }

    /// Bits of the record of the block at `span`, quantized by `spec`.
    pub(super) fn block_bits(&self, span: &BlockSpan, spec: &QuantSpec) -> Result<f64> {
        let mut bytes = self.memory.buffer(span.len);
        self.time(Step::Read, || self.source.read(span.offset, &mut bytes))?;
        let run = QuantRun { spec, dtype: self.candidate.dtype, first_element: self.first_element(span) };
        let bits = self.time(Step::Prediction, || {
            self.with_trial_encoder(|encoder| {
                if self.n_elements() <= SAMPLE_LEN {
                    // What is around symbols weighs: it is written to know how much.
                    let mut payload = Vec::new();
                    encoder.encode_quantized_watched(run, &mut bytes, &mut payload, &mut |_| {});
                    8.0 * payload.len() as f64
                } else {
                    encoder.planned_quantized(run, &mut bytes)
                }
            })
        });
        self.memory.give_back(bytes);
        Ok(bits + 8.0 * rate::RECORD_BYTES as f64)
    }

    /// Bits an element by which a sample of the block at `span`, quantized by `spec`, takes more than its scales say.
    fn excess_of_sample(
        &self,
        spec: &QuantSpec,
        rough: &RoughBits,
        (span, max_runs): (&BlockSpan, u64),
    ) -> Result<f64> {
        let first = self.first_element(span);
        let n_elements = self.n_elements_of(span);
        let n_runs = (n_elements / RUN_LEN).clamp(1, max_runs);
        let starts: Vec<u64> =
            (0..n_runs).map(|idx| first + spread(idx, n_runs, n_elements, RUN_LEN)).collect();
        let run_bytes = usize::try_from(RUN_LEN.min(n_elements) * self.unit_bytes()).unwrap_or(0);
        let mut bytes = self.memory.buffer(starts.len() * run_bytes);
        self.time(Step::Read, || {
            let mut runs = starts.iter().zip(bytes.chunks_mut(run_bytes.max(1)));
            runs.try_for_each(|(start, run)| {
                self.source.read(self.candidate.info.start + start * self.unit_bytes(), run)
            })
        })?;
        let n_sampled = (bytes.len() as u64 / self.unit_bytes()) as f64;
        let bits = self.time(Step::Prediction, || self.estimated_bits(spec, &starts, &mut bytes));
        // What would be longer than its elements is kept as these.
        let bits = bits.min(8.0 * bytes.len() as f64);
        self.memory.give_back(bytes);
        Ok(bits / n_sampled - rough.mean(starts.iter().copied()))
    }

    /// Bits that `sample`, runs that begin at `starts`, takes quantized by `spec`, but for what every block takes.
    fn estimated_bits(&self, spec: &QuantSpec, starts: &[u64], sample: &mut [u8]) -> f64 {
        let estimate = |spec: &QuantSpec, dtype: Dtype, bytes: &mut [u8]| {
            let run = QuantRun { spec, dtype, first_element: 0 };
            self.with_trial_encoder(|encoder| encoder.estimate_quantized(run, bytes).0)
        };
        let Some(channels) = &spec.channels else {
            return estimate(spec, self.candidate.dtype, sample);
        };
        // The runs do not lie together: they are brought to the common step here.
        let mut values = self.values(sample);
        for (start, run) in starts.iter().zip(values.chunks_mut(UNIT_LEN)) {
            for (element, value) in (*start..).zip(run) {
                *value /= channels.multiplier_of(element);
            }
        }
        let mut bytes = vec![0; 4 * values.len()];
        let _ = convert::from_f32(self.ctx.isa, Dtype::F32, &values, &mut bytes);
        estimate(&QuantSpec { channels: None, ..spec.clone() }, Dtype::F32, &mut bytes)
    }
}

/// Bits an element that scales say of units, in order.
struct RoughBits {
    of_units: Vec<f64>,
}

impl RoughBits {
    /// Their mean over the units that begin with elements `starts`.
    fn mean(&self, starts: impl Iterator<Item = u64>) -> f64 {
        let (mut sum, mut n) = (0.0, 0u64);
        for start in starts {
            let unit_idx = usize::try_from(start).unwrap_or(usize::MAX) / UNIT_LEN;
            sum += self.of_units.get(unit_idx).copied().unwrap_or(0.0);
            n += 1;
        }
        sum / n.max(1) as f64
    }
}
