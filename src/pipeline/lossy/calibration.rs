//! What tensors take at a step, as counted rather than predicted.
//!
//! A model knows moments and octaves of units, not which thresholds their tensor will have, which of them will share a
//! table, how many low bits stay raw, and what lists of channels take. All that can be counted: of a tensor that is one
//! block everything; of longer ones samples of some blocks, which say how far the model is off, and one whole block, which
//! says how far samples are. Nothing is coded but tensors that are no longer than a sample.

use rayon::prelude::*;

use super::method::Method;
use super::rate::{self, RateUnit, UNIT_LEN};
use super::settings::LossySettings;
use super::tensor_source::{RUN_LEN, SAMPLE_LEN, TensorSource, spread};
use crate::checkpoint::BlockSpan;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::convert;
use crate::pipeline::timings::Step;
use crate::quantize::predictor::EntropyModel;
use crate::stage::{BlockEncoder, Level, QuantRun, QuantSpec};

/// Most blocks of a tensor that are sampled.
const MAX_SAMPLED_BLOCKS: usize = 4;
/// Runs of a sample of a block. Twice as many do not bring rates closer.
const MAX_RUNS: u64 = 32;

/// A tensor at a step.
struct Question<'q> {
    model: &'q dyn EntropyModel,
    common: Method,
    /// The tensor's units.
    own: &'q [RateUnit],
    /// The common step.
    step: f64,
    spec: &'q QuantSpec,
}

impl TensorSource<'_> {
    /// Bits that the tensor takes at the common `step`, everything included, by what can be counted and what `model` says of
    /// the rest. `own` are its units.
    pub(super) fn stored_bits(
        &self,
        model: &dyn EntropyModel,
        settings: &LossySettings,
        own: &[RateUnit],
        step: f64,
    ) -> Result<f64> {
        let spec = self.rate_spec(settings, own, step)?;
        let spans = self.spans();
        if spans.len() == 1 {
            return self.counted_bits(&spec);
        }
        let question =
            Question { model, common: Method::best_of(settings.quantizer), own, step, spec: &spec };
        let n_sampled = spans.len().min(MAX_SAMPLED_BLOCKS);
        let sampled: Vec<&BlockSpan> = (0..n_sampled)
            .filter_map(|idx| spans.get((2 * idx + 1) * spans.len() / (2 * n_sampled)))
            .collect();
        let excesses: Vec<Result<f64>> =
            sampled.par_iter().with_max_len(1).map(|span| self.excess_of_sample(&question, span)).collect();
        let excesses = excesses.into_iter().collect::<Result<Vec<f64>>>()?;
        let weighted = |(excess, span): (&f64, &&BlockSpan)| excess * span.len as f64;
        let n_bytes: usize = sampled.iter().map(|span| span.len).sum();
        let mut excess = excesses.iter().zip(&sampled).map(weighted).sum::<f64>() / n_bytes as f64;
        // Not the last, which may be short.
        let counted = (n_sampled - 1) / 2;
        if let (Some(span), Some(by_sample)) = (sampled.get(counted), excesses.get(counted)) {
            let n_elements = span.len as u64 / self.unit_bytes();
            let first = self.first_element(span);
            let place = |element| own.partition_point(|unit| unit.first_element < element);
            let within = own.get(place(first)..place(first + n_elements)).unwrap_or_default();
            let predicted = self.time(Step::Prediction, || question.mean_bits(within));
            excess += self.block_bits(span, &spec)? / n_elements as f64 - predicted - by_sample;
        }
        let predicted = self.time(Step::Prediction, || question.mean_bits(own));
        Ok((predicted + excess) * self.n_elements() as f64)
    }

    /// Bits that the tensor takes quantized by `spec`, everything counted.
    pub(super) fn counted_bits(&self, spec: &QuantSpec) -> Result<f64> {
        let blocks: Vec<Result<f64>> =
            self.spans().par_iter().with_max_len(1).map(|span| self.block_bits(span, spec)).collect();
        // In order, so that the sum does not depend on the threads.
        blocks.into_iter().sum()
    }

    /// Bits of the record of the block at `span`, quantized by `spec`.
    fn block_bits(&self, span: &BlockSpan, spec: &QuantSpec) -> Result<f64> {
        let mut bytes = self.memory.buffer(span.len);
        self.time(Step::Read, || self.source.read(span.offset, &mut bytes))?;
        let run = QuantRun { spec, dtype: self.candidate.dtype, first_element: self.first_element(span) };
        let mut encoder = self.memory.trial_encoders.take(|| BlockEncoder::new(Level::Default, self.ctx.isa));
        let bits = self.time(Step::Prediction, || {
            if self.n_elements() <= SAMPLE_LEN {
                // What is around symbols weighs: it is written to know how much.
                let mut payload = Vec::new();
                encoder.encode_quantized_watched(run, &mut bytes, &mut payload, &mut |_| {});
                8.0 * payload.len() as f64
            } else {
                encoder.planned_quantized(run, &mut bytes)
            }
        });
        self.memory.trial_encoders.put(encoder);
        self.memory.give_back(bytes);
        Ok(bits + 8.0 * rate::RECORD_BYTES as f64)
    }

    /// Bits an element by which a sample of the block at `span` takes more than the model says of it.
    fn excess_of_sample(&self, question: &Question<'_>, span: &BlockSpan) -> Result<f64> {
        let first = self.first_element(span);
        let n_elements = span.len as u64 / self.unit_bytes();
        let n_runs = (n_elements / RUN_LEN).clamp(1, MAX_RUNS);
        let starts: Vec<u64> =
            (0..n_runs).map(|idx| first + spread(idx, n_runs, n_elements, RUN_LEN)).collect();
        let mut bytes = self
            .memory
            .buffer(usize::try_from(n_runs * RUN_LEN.min(n_elements) * self.unit_bytes()).unwrap_or(0));
        let run_bytes = bytes.len() / starts.len().max(1);
        self.time(Step::Read, || {
            let mut runs = starts.iter().zip(bytes.chunks_mut(run_bytes.max(1)));
            runs.try_for_each(|(start, run)| {
                self.source.read(self.candidate.info.start + start * self.unit_bytes(), run)
            })
        })?;
        let excess = self.time(Step::Prediction, || {
            let predicted = self.predicted_bits(question, &starts, &bytes);
            let n_sampled = (bytes.len() / self.candidate.dtype.unit_bytes()) as f64;
            self.estimated_bits(question.spec, &starts, &mut bytes) / n_sampled - predicted
        });
        self.memory.give_back(bytes);
        Ok(excess)
    }

    /// Bits an element that the model says of runs that begin at `starts` and are `sample`, unit by unit.
    fn predicted_bits(&self, question: &Question<'_>, starts: &[u64], sample: &[u8]) -> f64 {
        let Question { model, common, own, step, .. } = *question;
        let mut bits = 0.0;
        for (start, run) in starts.iter().zip(sample.chunks(UNIT_LEN * self.candidate.dtype.unit_bytes())) {
            let kept = own.binary_search_by_key(start, |unit| unit.first_element);
            let unit = match (kept.ok().and_then(|at| own.get(at)), own.first()) {
                (Some(kept), _) => kept.bits_per_element(model, common, step),
                // Where not all units are kept, none has a step of its own.
                (None, Some(like)) => {
                    let unit = self.measure_unit(run).unwrap_or_default();
                    RateUnit { unit, ..like.clone() }.bits_per_element(model, common, step)
                }
                (None, None) => 0.0,
            };
            bits += unit * run.len() as f64;
        }
        bits / sample.len().max(1) as f64
    }

    /// Bits that `sample`, runs that begin at `starts`, takes quantized by `spec`, but for what every block takes.
    fn estimated_bits(&self, spec: &QuantSpec, starts: &[u64], sample: &mut [u8]) -> f64 {
        let dtype = self.candidate.dtype;
        let mut encoder = self.memory.trial_encoders.take(|| BlockEncoder::new(Level::Default, self.ctx.isa));
        let bits = if let Some(channels) = &spec.channels {
            // The runs do not lie together: they are brought to the common step here.
            let mut values = self.values(sample);
            for (start, run) in starts.iter().zip(values.chunks_mut(UNIT_LEN)) {
                for (element, value) in (*start..).zip(run) {
                    *value /= channels.multiplier_of(element);
                }
            }
            let mut bytes = vec![0; 4 * values.len()];
            let _ = convert::from_f32(self.ctx.isa, Dtype::F32, &values, &mut bytes);
            let spec = QuantSpec { channels: None, ..spec.clone() };
            let run = QuantRun { spec: &spec, dtype: Dtype::F32, first_element: 0 };
            encoder.estimate_quantized(run, &mut bytes).0
        } else {
            encoder.estimate_quantized(QuantRun { spec, dtype, first_element: 0 }, sample).0
        };
        self.memory.trial_encoders.put(encoder);
        bits
    }
}

impl Question<'_> {
    /// Bits an element that the model says of `units`.
    fn mean_bits(&self, units: &[RateUnit]) -> f64 {
        rate::predicted_rate(self.model, self.common, units, self.step, rate::MAX_UNITS)
    }
}
