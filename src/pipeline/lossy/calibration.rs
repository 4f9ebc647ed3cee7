//! How far an entropy model is off about a tensor, as a sample of it shows.
//!
//! A model knows moments and octaves of units, not which thresholds their tensor will have, which of them will share a
//! table, and what lists of channels take. At one step, and for some ten thousand elements, all that can be counted:
//! nothing is coded but tensors that are no longer than a sample.

use super::method::Method;
use super::rate::{self, RateUnit, UNIT_LEN};
use super::search::to_step;
use super::settings::LossySettings;
use super::tensor_source::{RUN_LEN, SAMPLE_LEN, TensorSource};
use crate::checkpoint::BlockSpan;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::convert;
use crate::pipeline::timings::Step;
use crate::quantize::predictor::EntropyModel;
use crate::stage::{BlockEncoder, ChannelSteps, Level, QuantRun, QuantSpec};

impl TensorSource<'_> {
    /// Bits an element by which a sample takes more at `step` than `model` says of it. `own` are the tensor's units, where
    /// all are kept.
    pub(super) fn excess_bits(
        &self,
        model: &dyn EntropyModel,
        settings: &LossySettings,
        own: &[RateUnit],
        step: f64,
    ) -> Result<f64> {
        let common = Method::best_of(settings.quantizer);
        let method = own.first().map_or(common, |unit| unit.method);
        let step = step * method.step_beside(common);
        let Some(rounded) = to_step(step) else { return Ok(0.0) };
        let mut sample = self.time(Step::Statistics, || self.read_sample(SAMPLE_LEN, RUN_LEN))?;
        let predicted =
            self.time(Step::Prediction, || self.predicted_bits(model, method, own, step, &sample));
        let values = self.values(&sample);
        let choose = || QuantSpec {
            channels: self.channel_steps(own),
            ..self.plain_spec(settings, method, &values, rounded)
        };
        let spec = self.time(Step::Prediction, choose);
        let n_sampled = (sample.len() / self.candidate.dtype.unit_bytes()) as f64;
        let saved = self.saving_of_columns(&spec)?;
        let estimated = self.time(Step::Prediction, || self.estimated_bits(spec, values, &mut sample));
        self.memory.give_back(sample);
        Ok(estimated / n_sampled - saved - predicted)
    }

    /// Bits an element that columns of different scale save: of a block in the midst of the tensor, for samples have no
    /// columns. 0 where the sample is the tensor.
    fn saving_of_columns(&self, spec: &QuantSpec) -> Result<f64> {
        let spans = self.spans();
        let Some(span) = spans.get(spans.len() / 2).filter(|_| self.n_elements() > SAMPLE_LEN) else {
            return Ok(0.0);
        };
        if spec.row_lens.is_empty() {
            return Ok(0.0);
        }
        let mut bytes = self.memory.buffer(span.len);
        self.time(Step::Read, || self.source.read(span.offset, &mut bytes))?;
        let run = QuantRun { spec, dtype: self.candidate.dtype, first_element: self.first_element(span) };
        let mut encoder = self.memory.trial_encoders.take(|| BlockEncoder::new(Level::Default, self.ctx.isa));
        let saved = self.time(Step::Prediction, || encoder.saving_of_columns(run, &mut bytes));
        self.memory.trial_encoders.put(encoder);
        self.memory.give_back(bytes);
        Ok(saved / (span.len as u64 / self.unit_bytes()) as f64)
    }

    /// Bits an element that `model` says of `sample`, unit by unit, where `method` has `step`.
    fn predicted_bits(
        &self,
        model: &dyn EntropyModel,
        method: Method,
        own: &[RateUnit],
        step: f64,
        sample: &[u8],
    ) -> f64 {
        let mut bits = 0.0;
        for (run_idx, run) in (0..).zip(sample.chunks(UNIT_LEN * self.candidate.dtype.unit_bytes())) {
            let first_element = self.run_start(run_idx, SAMPLE_LEN, RUN_LEN);
            let kept = own.binary_search_by_key(&first_element, |unit| unit.first_element);
            let plain = match kept.ok().and_then(|at| own.get(at)) {
                Some(kept) => model.bits(&kept.unit, step * kept.multiplier),
                None => model.bits(&self.measure_unit(run).unwrap_or_default(), step),
            };
            bits += method.coded_bits(plain) * run.len() as f64;
        }
        bits / sample.len() as f64
    }

    /// Bits that `sample`, whose values are `values`, takes coded by `spec`, but for what every block takes.
    fn estimated_bits(&self, mut spec: QuantSpec, mut values: Vec<f32>, sample: &mut [u8]) -> f64 {
        let make = || BlockEncoder::new(Level::Default, self.ctx.isa);
        let mut encoder = self.memory.trial_encoders.take(make);
        let bits = if self.n_elements() <= SAMPLE_LEN {
            // There is nothing else that the tables could be for.
            let run = QuantRun { spec: &spec, dtype: self.candidate.dtype, first_element: 0 };
            let mut payload = Vec::new();
            encoder.encode_quantized_watched(run, sample, &mut payload, &mut |_| {});
            8.0 * (payload.len() as u64 + rate::RECORD_BYTES) as f64 - rate::BLOCK_BITS
        } else if let Some(channels) = spec.channels.take() {
            // The runs do not lie together: they are brought to the common step here.
            for (run_idx, run) in (0..).zip(values.chunks_mut(UNIT_LEN)) {
                let first_element = self.run_start(run_idx, SAMPLE_LEN, RUN_LEN);
                for (element, value) in (first_element..).zip(run) {
                    *value /= channels.multiplier_of(element);
                }
            }
            let n_sampled = values.len() as f64;
            let mut bytes = vec![0; 4 * values.len()];
            let _ = convert::from_f32(self.ctx.isa, Dtype::F32, &values, &mut bytes);
            let run = QuantRun { spec: &spec, dtype: Dtype::F32, first_element: 0 };
            let share = n_sampled / self.n_elements() as f64;
            encoder.estimate_quantized(run, &mut bytes).0 + share * self.channel_list_bits(&channels)
        } else {
            let run = QuantRun { spec: &spec, dtype: self.candidate.dtype, first_element: 0 };
            encoder.estimate_quantized(run, sample).0
        };
        self.memory.trial_encoders.put(encoder);
        bits
    }

    /// Bits that the lists of channels in the tensor's blocks take.
    fn channel_list_bits(&self, channels: &ChannelSteps) -> f64 {
        let listed = |span: &BlockSpan| {
            let n_runs = (span.len as u64 / self.unit_bytes()).div_ceil(channels.inner_len as u64);
            n_runs.min(channels.multipliers.len() as u64)
        };
        16.0 * self.spans().iter().map(listed).sum::<u64>() as f64
    }
}
