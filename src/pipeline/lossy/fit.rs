//! Finding the step of one tensor whose goal is an error.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::plan::Candidate;
use super::prune::{Fitted, Pruner, Saving};
use super::rate::{self, RateUnit, UNIT_LEN};
use super::settings::{Goal, LossySettings};
use crate::checkpoint::{BlockSpan, Region, blocks, large_block_bytes};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::moments::Moments;
use crate::kernels::quantize::Rounding;
use crate::kernels::{Isa, convert, log_domain};
use crate::pipeline::context::Context;
use crate::pipeline::encode::EncodeMemory;
use crate::pipeline::source::Source;
use crate::pipeline::timings::{Step, Timings};
use crate::quantize::predictor::{Unit, target};
use crate::quantize::rdo::{TRELLIS_LAMBDA, Tuner, UNIFORM_LAMBDA};
use crate::stage::{
    BlockEncoder, BlockLoss, BlockQuantizer, ChannelSteps, Choice, Domain, Level, Part, QuantRun, QuantSpec,
    Quantizer,
};

/// Elements of a sample, and of each of its runs.
const SAMPLE_LEN: u64 = 1 << 16;
const RUN_LEN: u64 = 1 << 10;
/// Of large tensors one element in this many is in the sample that a first step is looked for on.
const SAMPLE_ONE_IN: u64 = 16;
/// But never more than this many.
const MAX_SAMPLE_LEN: u64 = 1 << 19;
/// Steps are this much below what a bound allows, for rounding in the decoder's arithmetic.
const SLACK: f32 = 1.0 - 1.0 / 1024.0;
/// A step whose error is this close to the goal is not refined further.
const CLOSE: f64 = 0.995;
/// What is aimed at where the error at a step is known of the whole tensor: just below the goal.
const AIM: f64 = 0.999;
/// Steps tried on the sample.
const MAX_SAMPLE_TRIALS: usize = 4;
/// Thresholds and costs are chosen anew where the step has changed by more than this.
const SAME_CHOICE: f64 = 0.05;
/// Most channels with steps of their own; their list would otherwise outgrow what the memory of a run is meant to be.
const MAX_CHANNELS: usize = 1 << 22;
/// Most steps tried on the whole tensor.
const MAX_TRIALS: usize = 6;

/// What a rate goal needs to know of a tensor.
pub(super) struct Survey {
    /// Its units, in order; moved away when steps are shared out.
    pub(super) units: Vec<RateUnit>,
    /// How many they are.
    pub(super) n_units: usize,
    pub(super) n_elements: u64,
    pub(super) n_blocks: u64,
}

/// A tensor within its file.
#[derive(Clone, Copy)]
pub(super) struct TensorSource<'a> {
    pub(super) ctx: &'a Context<'a>,
    pub(super) memory: &'a EncodeMemory,
    pub(super) source: &'a Source,
    pub(super) candidate: &'a Candidate,
    /// The step that all work on the tensor is booked on, where that is not to be told apart.
    pub(super) booked_on: Option<Step>,
}

impl TensorSource<'_> {
    fn unit_bytes(&self) -> u64 {
        self.candidate.dtype.unit_bytes() as u64
    }

    pub(super) fn n_elements(&self) -> u64 {
        self.candidate.info.byte_len() / self.unit_bytes()
    }

    /// The blocks as they will be encoded.
    fn spans(&self) -> Vec<BlockSpan> {
        let info = &self.candidate.info;
        let dtype = self.candidate.dtype;
        let block_bytes = large_block_bytes(dtype);
        let region = Region { offset: info.start, len: info.byte_len(), dtype, row_len: 0, block_bytes };
        blocks(&[region]).collect()
    }

    fn first_element(&self, span: &BlockSpan) -> u64 {
        (span.offset - self.candidate.info.start) / self.unit_bytes()
    }

    /// Does something with each block, in parallel, and gives the results in order. The time is booked on `step`, but for
    /// what `work` books itself.
    pub(super) fn map_blocks<T: Send>(
        &self,
        step: Step,
        work: impl Fn(u64, &mut [u8], &mut Timings) -> T + Sync,
    ) -> Result<Vec<T>> {
        let visit = |span: BlockSpan| {
            let (mut timings, mut parts) = (Timings::default(), Timings::default());
            let mut bytes = self.memory.buffer(span.len);
            let read = timings.time(Step::Read, || self.source.read(span.offset, &mut bytes));
            let start = Instant::now();
            let result = read.map(|()| work(self.first_element(&span), &mut bytes, &mut parts));
            timings.book(step, start.elapsed().saturating_sub(parts.total()));
            timings.add(&parts);
            self.book(&timings);
            self.memory.give_back(bytes);
            result
        };
        let results: Vec<Result<T>> = self.spans().into_par_iter().with_max_len(1).map(visit).collect();
        results.into_iter().collect()
    }

    /// What `spec` costs on the whole tensor.
    fn try_spec(&self, spec: &QuantSpec) -> Result<BlockLoss> {
        let losses: Vec<Result<BlockLoss>> =
            self.spans().into_par_iter().with_max_len(1).map(|span| self.try_block(&span, spec)).collect();
        let mut total = BlockLoss::default();
        for loss in losses {
            total.add(&loss?);
        }
        Ok(total)
    }

    fn try_block(&self, span: &BlockSpan, spec: &QuantSpec) -> Result<BlockLoss> {
        let isa = self.ctx.isa;
        let run = QuantRun { spec, dtype: self.candidate.dtype, first_element: self.first_element(span) };
        let mut quantizer = self.memory.quantizers.take(BlockQuantizer::default);
        let mut read = |at: usize, piece: &mut [u8]| self.source.read(span.offset + at as u64, piece);
        let mut timings = Timings::default();
        let tried = timings.time_parts(|enter| {
            quantizer.try_pieces(isa, run, span.len, enter, &mut read).unwrap_or_else(|| {
                // Paths run through the whole block.
                let mut bytes = self.memory.buffer(span.len);
                enter(Part::Reading);
                let loss = read(0, &mut bytes);
                let loss = loss.map(|()| quantizer.apply_watched(isa, run, &mut bytes, enter));
                self.memory.give_back(bytes);
                loss
            })
        });
        self.memory.quantizers.put(quantizer);
        self.book(&timings);
        tried
    }

    /// Books what planning has taken, where it is not to be told apart.
    fn book(&self, timings: &Timings) {
        self.memory.book(&self.booked_on.map_or(*timings, |step| timings.all_on(step)));
    }

    /// Bytes that the tensor takes in an archive, coded by `spec`, and what is lost.
    pub(super) fn encode(&self, spec: &QuantSpec) -> Result<(u64, BlockLoss)> {
        let parts = self.map_blocks(Step::Backend, |first_element, bytes, timings| {
            // The level has no say in how indices are coded.
            let make = || BlockEncoder::new(Level::Default, self.ctx.isa);
            let mut encoder = self.memory.trial_encoders.take(make);
            let mut payload = Vec::new();
            let run = QuantRun { spec, dtype: self.candidate.dtype, first_element };
            let (_, loss) =
                timings.time_parts(|enter| encoder.encode_quantized_watched(run, bytes, &mut payload, enter));
            self.memory.trial_encoders.put(encoder);
            (payload.len() as u64 + rate::RECORD_BYTES, loss)
        })?;
        let mut total = BlockLoss::default();
        parts.iter().for_each(|(_, loss)| total.add(loss));
        Ok((parts.iter().map(|(bytes, _)| bytes).sum(), total))
    }

    /// Moments of the whole tensor.
    fn moments(&self) -> Result<Moments> {
        let dtype = self.candidate.dtype;
        let parts =
            self.map_blocks(Step::Statistics, |_, bytes, _| Moments::measure(self.ctx.isa, dtype, bytes))?;
        let mut total = Moments::default();
        parts.iter().flatten().for_each(|part| total.merge(part));
        Ok(total)
    }

    /// Entropy of the indices at `step`, unit by unit, in bits.
    pub(super) fn counted_bits(&self, step: f64) -> Result<f64> {
        let dtype = self.candidate.dtype;
        let parts = self.map_blocks(Step::Prediction, |_, bytes, _| {
            let mut values = vec![0.0; bytes.len() / dtype.unit_bytes()];
            let _ = convert::to_f32(self.ctx.isa, dtype, bytes, &mut values);
            let unit_bits =
                |unit: &[f32]| target::counted_bits(unit, step).map_or(0.0, |counted| counted.bits);
            values.chunks(UNIT_LEN).map(|unit| unit_bits(unit) * unit.len() as f64).sum::<f64>()
        })?;
        Ok(parts.iter().sum())
    }

    /// The units of the tensor, one in `keep_one_in` of them, or `None` where it is to stay exact whatever the goal.
    pub(super) fn survey(&self, keep_one_in: u64) -> Result<Option<Survey>> {
        let dtype = self.candidate.dtype;
        let isa = self.ctx.isa;
        let element_bits = dtype.element_bits() as f64;
        let is_log = self.candidate.treatment.domain == Domain::Log2;
        let parts = self.map_blocks(Step::Statistics, |first_element, bytes, _| {
            let mut first_element = first_element;
            let (mut units, mut others) = (Vec::new(), Moments::default());
            for run in bytes.chunks(UNIT_LEN * dtype.unit_bytes()) {
                let n_elements = (run.len() / dtype.unit_bytes()) as u64;
                if (first_element / UNIT_LEN as u64).is_multiple_of(keep_one_in) {
                    let unit =
                        if is_log { log_unit(isa, dtype, run) } else { Unit::measure(isa, dtype, run) };
                    let unit = unit.unwrap_or_default();
                    let weight = n_elements as f64;
                    units.push(RateUnit {
                        unit,
                        first_element,
                        n_elements,
                        weight,
                        element_bits,
                        multiplier: 1.0,
                    });
                } else {
                    others.merge(&Moments::measure(isa, dtype, run).unwrap_or_default());
                }
                first_element += n_elements;
            }
            (units, others)
        })?;
        let n_blocks = parts.len() as u64;
        let (mut units, mut total): (Vec<RateUnit>, _) = (Vec::new(), Moments::default());
        for (part, others) in parts {
            part.iter().for_each(|unit| total.merge(&unit.unit.moments));
            total.merge(&others);
            units.extend(part);
        }
        let is_special = total.n_not_finite > 0 && !is_log && !self.candidate.treatment.despite_defaults;
        if total.n == 0 || is_special || total.min == total.max {
            return Ok(None);
        }
        let n_elements = self.n_elements();
        let kept: f64 = units.iter().map(|unit| unit.weight).sum();
        units.iter_mut().for_each(|unit| unit.weight *= n_elements as f64 / kept);
        Ok(Some(Survey { n_units: units.len(), units, n_elements, n_blocks }))
    }

    /// How the tensor is quantized at the common `step`, `units` having the multipliers of its channels.
    pub(super) fn rate_spec(
        &self,
        settings: &LossySettings,
        units: &[RateUnit],
        step: f64,
    ) -> Result<QuantSpec> {
        let sample = self.sample()?;
        #[expect(clippy::cast_possible_truncation, reason = "rounded; any step near it will do")]
        let step = (step as f32).clamp(f32::MIN_POSITIVE, f32::MAX);
        let (inner_len, n_channels) = self.channel_shape();
        let has_channels = self.candidate.treatment.domain == Domain::Linear && n_channels <= MAX_CHANNELS;
        let isa = self.ctx.isa;
        let choose = || choice(isa, settings.quantizer, &mut Tuner::default(), &sample, step);
        Ok(QuantSpec {
            step,
            domain: self.candidate.treatment.domain,
            channels: if has_channels { rate::channel_steps(units, inner_len, n_channels) } else { None },
            prune_below: 0.0,
            choice: self.time(Step::Prediction, choose),
            backend: settings.backend,
        })
    }

    /// Runs `work`, which is all on this thread, and books its time on `step`.
    pub(super) fn time<T>(&self, step: Step, work: impl FnOnce() -> T) -> T {
        self.memory.time(self.booked_on.unwrap_or(step), work)
    }

    /// Values of [`SAMPLE_LEN`] elements from all over the tensor, in the domain that is quantized.
    pub(super) fn sample(&self) -> Result<Vec<f32>> {
        self.time(Step::Statistics, || Ok(self.values(&self.read_sample(SAMPLE_LEN)?)))
    }

    /// Runs of elements from all over the tensor, `sample_len` in all, or the whole tensor if it has no more.
    fn read_sample(&self, sample_len: u64) -> Result<Vec<u8>> {
        let n_elements = self.n_elements();
        if n_elements <= sample_len {
            let mut bytes = vec![0; usize::try_from(self.candidate.info.byte_len()).unwrap_or(0)];
            self.source.read(self.candidate.info.start, &mut bytes)?;
            return Ok(bytes);
        }
        let n_runs = sample_len / RUN_LEN;
        let run_bytes = usize::try_from(RUN_LEN * self.unit_bytes()).unwrap_or(1);
        let mut bytes = vec![0; usize::try_from(n_runs).unwrap_or(0) * run_bytes];
        for (run_idx, run) in (0..).zip(bytes.chunks_mut(run_bytes)) {
            let first = n_elements / n_runs * run_idx;
            self.source.read(self.candidate.info.start + first * self.unit_bytes(), run)?;
        }
        Ok(bytes)
    }

    /// `bytes` in the domain that is quantized; what has no logarithm is left out.
    fn values(&self, bytes: &[u8]) -> Vec<f32> {
        let mut values = vec![0.0; bytes.len() / self.candidate.dtype.unit_bytes()];
        // The dtype is one that converts: others are no candidates.
        let _ = convert::to_f32(self.ctx.isa, self.candidate.dtype, bytes, &mut values);
        if self.candidate.treatment.domain == Domain::Log2 {
            values.retain(|x| *x != 0.0);
            let mut logs = vec![0.0; values.len()];
            log_domain::log2(self.ctx.isa, &values, &mut logs);
            values = logs;
        }
        values
    }

    /// Whether there are two different finite elements, so that something is left to quantize.
    fn is_varied(&self, sample: &[u8]) -> Result<bool> {
        let mut values = vec![0.0; sample.len() / self.candidate.dtype.unit_bytes()];
        let _ = convert::to_f32(self.ctx.isa, self.candidate.dtype, sample, &mut values);
        let mut finite = values.iter().filter(|x| x.is_finite());
        let first = finite.next();
        if finite.any(|x| Some(x) != first) {
            return Ok(true);
        }
        let moments = self.moments()?;
        Ok(moments.n > 0 && moments.min != moments.max)
    }

    /// Length of a run of elements of one channel, and the number of channels.
    fn channel_shape(&self) -> (usize, usize) {
        let shape = &self.candidate.info.shape;
        let axis = self.candidate.treatment.channel_axis.unwrap_or(0).min(shape.len().saturating_sub(1));
        let size = |dimension: &u64| usize::try_from(*dimension).unwrap_or(1);
        let inner_len = shape.iter().skip(axis + 1).map(size).product::<usize>().max(1);
        (inner_len, shape.get(axis).map_or(1, size).max(1))
    }

    /// The largest finite |x| of each channel. Memory is for each channel once, and for those of a block.
    fn channel_peaks(&self) -> Result<Vec<f32>> {
        let (inner_len, n_channels) = self.channel_shape();
        let dtype = self.candidate.dtype;
        // A maximum is the same in whichever order blocks come.
        let peaks = Mutex::new(vec![0.0f32; n_channels]);
        self.map_blocks(Step::Statistics, |first_element, bytes, _| {
            let mut values = vec![0.0; bytes.len() / dtype.unit_bytes()];
            let _ = convert::to_f32(self.ctx.isa, dtype, bytes, &mut values);
            if dtype == Dtype::F64 {
                keep_from_vanishing(bytes, &mut values);
            }
            let inner = inner_len as u64;
            let first = usize::try_from(first_element / inner % n_channels as u64).unwrap_or(0);
            let skipped = usize::try_from(first_element % inner).unwrap_or(0);
            let (head, rest) = values.split_at((inner_len - skipped).min(values.len()));
            let runs = [head].into_iter().chain(rest.chunks(inner_len));
            let found: Vec<f32> = runs
                .map(|run| run.iter().map(|x| x.abs()).filter(|x| x.is_finite()).fold(0.0, f32::max))
                .collect();
            let mut peaks = peaks.lock().unwrap_or_else(PoisonError::into_inner);
            for (run_idx, found) in found.into_iter().enumerate() {
                let peak = &mut peaks[(first + run_idx) % n_channels];
                *peak = peak.max(found);
            }
        })?;
        Ok(peaks.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Gives F64 elements that are zero as f32, but are not zero, the smallest magnitude there is.
fn keep_from_vanishing(bytes: &[u8], values: &mut [f32]) {
    for (element, value) in bytes.as_chunks().0.iter().zip(values) {
        if *value == 0.0 && f64::from_le_bytes(*element) != 0.0 {
            *value = f32::from_bits(1);
        }
    }
}

/// The unit of the logarithms of a run's positive elements.
fn log_unit(isa: Isa, dtype: Dtype, bytes: &[u8]) -> Option<Unit> {
    let mut values = vec![0.0; bytes.len() / dtype.unit_bytes()];
    convert::to_f32(isa, dtype, bytes, &mut values)?;
    values.retain(|x| *x > 0.0);
    let mut logs = vec![0.0; values.len()];
    log_domain::log2(isa, &values, &mut logs);
    Unit::measure(isa, Dtype::F32, bytemuck::cast_slice(&logs))
}

/// How indices are chosen at `step`, by what a sample of the tensor shows.
pub(super) fn choice(isa: Isa, quantizer: Quantizer, tuner: &mut Tuner, sample: &[f32], step: f32) -> Choice {
    match quantizer {
        Quantizer::Uniform => Choice::Uniform(tuner.thresholds(isa, sample, step, UNIFORM_LAMBDA)),
        Quantizer::Trellis => Choice::Trellis(tuner.costs(isa, sample, step, TRELLIS_LAMBDA)),
    }
}

/// Finds the step of one tensor.
pub(super) struct Fitter<'a> {
    settings: &'a LossySettings,
    pub(super) tensor: TensorSource<'a>,
    /// When to stop looking.
    deadline: Instant,
}

impl<'a> Fitter<'a> {
    pub(super) fn new(settings: &'a LossySettings, tensor: TensorSource<'a>) -> Self {
        let timeout = settings.timeout_seconds.clamp(0.0, 1e9);
        Self { settings, tensor, deadline: Instant::now() + Duration::from_secs_f64(timeout) }
    }

    /// How the tensor is quantized so that its goal holds, pruned where it may be and gains by it.
    pub(super) fn fit(&self) -> Result<Fitted> {
        match self.fit_goal()? {
            Some(plain) => self.prune(plain),
            None => Ok(Fitted::default()),
        }
    }

    /// What becomes of `plain`, which suits the tensor, if the tensor may be pruned.
    pub(super) fn prune(&self, plain: QuantSpec) -> Result<Fitted> {
        if !self.settings.prunes(&self.tensor.candidate.treatment) {
            return Ok(Fitted { spec: Some(plain), saving: Saving::default() });
        }
        let first_share = self.settings.series().threshold();
        let max_drop_ratio = self.settings.pruning.max_drop_ratio;
        let tensor = TensorSource { booked_on: Some(Step::Pruning), ..self.tensor };
        let fitter = Fitter { tensor, ..*self };
        Pruner { fitter: &fitter, first_share, max_drop_ratio }.prune(plain)
    }

    /// How the tensor is quantized so that its goal holds; `None` where it stays exact.
    fn fit_goal(&self) -> Result<Option<QuantSpec>> {
        let Candidate { treatment, goal, dtype, .. } = self.tensor.candidate;
        let n_sampled = (self.tensor.n_elements() / SAMPLE_ONE_IN).clamp(SAMPLE_LEN, MAX_SAMPLE_LEN);
        // The search for a path takes long, and for most of that, when there is more of a sample.
        let n_sampled = if self.settings.quantizer == Quantizer::Trellis { SAMPLE_LEN } else { n_sampled };
        let read = || self.tensor.read_sample(n_sampled);
        let sample = self.tensor.time(Step::Statistics, read)?;
        if !self.tensor.is_varied(&sample[..sample.len().min(dtype.unit_bytes() << 12)])? {
            // Nothing is smaller than a constant.
            return Ok(None);
        }
        let found = match *goal {
            Goal::MaxAbsError(bound) => self.fit_bound(bound, None)?,
            Goal::MaxRelError(bound) => self.fit_relative_bound(bound)?,
            Goal::RelL2(goal) => self.fit_rel_l2(goal, &sample)?,
            // Steps of rate goals are not found tensor by tensor.
            Goal::Bits(_) | Goal::Ratio(_) => None,
        };
        let Some((spec, loss)) = found else { return Ok(None) };
        // What is not finite is an escape, and so may other elements be.
        let may_be_special = loss.escapes > 0 && !treatment.despite_defaults;
        let is_special = may_be_special && self.tensor.moments()?.n_not_finite > 0;
        Ok((!is_special).then_some(spec))
    }

    fn spec(&self, step: f32, choice: Choice) -> QuantSpec {
        QuantSpec {
            step,
            domain: self.tensor.candidate.treatment.domain,
            channels: None,
            prune_below: 0.0,
            choice,
            backend: self.settings.backend,
        }
    }

    fn fit_relative_bound(&self, bound: f64) -> Result<Option<(QuantSpec, BlockLoss)>> {
        let (inner_len, n_channels) = self.tensor.channel_shape();
        if n_channels > MAX_CHANNELS {
            return Ok(None);
        }
        let peaks = self.tensor.channel_peaks()?;
        if peaks.iter().any(|peak| *peak > 0.0 && *peak < f32::MIN_POSITIVE) {
            // The format's multipliers do not reach so low; errors would be held against too large a peak.
            return Ok(None);
        }
        // A channel of zeros has no scale; any will do.
        let bits = |peak: &f32| ChannelSteps::multiplier_bits(if *peak > 0.0 { *peak } else { 1.0 });
        let multipliers = peaks.iter().map(bits).collect();
        self.fit_bound(bound, Some(ChannelSteps { inner_len, multipliers }))
    }

    /// Steps of twice the bound, each element to the nearest point. Where rounding to the dtype breaks the bound, half
    /// the step leaves room for it.
    fn fit_bound(
        &self,
        bound: f64,
        channels: Option<ChannelSteps>,
    ) -> Result<Option<(QuantSpec, BlockLoss)>> {
        let choice = Choice::Uniform(Rounding::Nearest);
        for share in [2.0, 1.0, 0.5] {
            #[expect(clippy::cast_possible_truncation, reason = "rounded, and then measured")]
            let step = (share * bound) as f32 * SLACK;
            if !step.is_normal() || Instant::now() > self.deadline {
                break;
            }
            let spec = QuantSpec { channels: channels.clone(), ..self.spec(step, choice.clone()) };
            let spec = QuantSpec {
                domain: if spec.channels.is_some() { Domain::Linear } else { spec.domain },
                ..spec
            };
            let loss = self.tensor.try_spec(&spec)?;
            if loss.max_scaled <= bound {
                return Ok(Some((spec, loss)));
            }
        }
        Ok(None)
    }

    /// The step of a uniform quantizer whose error would be `goal` if all errors were equally likely.
    fn first_step(&self, goal: f64, moments: &Moments) -> f64 {
        let mean_square = moments.variance() + moments.mean * moments.mean;
        // The error is then step ÷ √12.
        match self.tensor.candidate.treatment.domain {
            Domain::Linear => goal * mean_square.sqrt() * 12f64.sqrt(),
            Domain::Log2 => goal * 12f64.sqrt() / std::f64::consts::LN_2,
        }
    }

    /// The step for `goal`, of an unpruned tensor of which `sample` is a part.
    fn fit_rel_l2(&self, goal: f64, sample: &[u8]) -> Result<Option<(QuantSpec, BlockLoss)>> {
        let tensor = &self.tensor;
        let measure = || Moments::measure(tensor.ctx.isa, tensor.candidate.dtype, sample);
        let mut step = self.first_step(goal, &tensor.time(Step::Statistics, measure).unwrap_or_default());
        if to_step(step).is_none() {
            // The sample has missed what there is.
            step = self.first_step(goal, &tensor.moments()?);
        }
        let values = tensor.time(Step::Statistics, || tensor.values(sample));
        let is_whole = sample.len() as u64 == tensor.candidate.info.byte_len();
        // What is only sampled may turn out on either side.
        let aim = goal * if is_whole { AIM } else { (1.0 + CLOSE) / 2.0 };
        let search = || self.fit_sample(aim, step, &values, sample);
        let Some(first) = tensor.time(Step::Prediction, search) else { return Ok(None) };
        self.refine_rel_l2(goal, first, &values)
    }

    /// The step at which the relative error of `sample`, of which `values` are the values, is about `aim`.
    fn fit_sample(&self, aim: f64, mut step: f64, values: &[f32], sample: &[u8]) -> Option<QuantSpec> {
        let (isa, dtype) = (self.tensor.ctx.isa, self.tensor.candidate.dtype);
        let mut quantizer = self.tensor.memory.quantizers.take(BlockQuantizer::default);
        let (mut tuner, mut rebuilt) = (Tuner::default(), Vec::new());
        let mut spec: Option<QuantSpec> = None;
        for _ in 0..MAX_SAMPLE_TRIALS {
            let Some(rounded) = to_step(step) else { break };
            let changed =
                spec.as_ref().map_or(f64::INFINITY, |spec| (step / f64::from(spec.step) - 1.0).abs());
            let tried = match &spec {
                Some(spec) if changed < SAME_CHOICE => QuantSpec { step: rounded, ..spec.clone() },
                _ => {
                    let choice = choice(isa, self.settings.quantizer, &mut tuner, values, rounded);
                    self.spec(rounded, choice)
                }
            };
            rebuilt.clear();
            rebuilt.extend_from_slice(sample);
            let found = quantizer.apply(isa, &tried, dtype, 0, &mut rebuilt).errors.relative_l2();
            let factor = if found > 0.0 { (aim / found).clamp(0.25, 4.0) } else { 4.0 };
            step *= factor;
            spec = to_step(step).map(|step| QuantSpec { step, ..tried });
            if changed < SAME_CHOICE && (factor - 1.0).abs() < SAME_CHOICE / 5.0 {
                break;
            }
        }
        self.tensor.memory.quantizers.put(quantizer);
        spec
    }

    /// The step for `goal`, from that of `spec` on, whose choice is good at steps near it; `values` are of a sample,
    /// pruned as `spec` says.
    pub(super) fn refine_rel_l2(
        &self,
        goal: f64,
        mut spec: QuantSpec,
        values: &[f32],
    ) -> Result<Option<(QuantSpec, BlockLoss)>> {
        let mut tuner = Tuner::default();
        let mut chosen_at = f64::from(spec.step);
        let mut step = chosen_at;
        let mut best = None;
        for _ in 0..MAX_TRIALS {
            let Some(rounded) = to_step(step) else { break };
            if Instant::now() > self.deadline {
                break;
            }
            spec.step = rounded;
            if (step / chosen_at - 1.0).abs() > SAME_CHOICE {
                let isa = self.tensor.ctx.isa;
                let choose = || choice(isa, self.settings.quantizer, &mut tuner, values, rounded);
                spec.choice = self.tensor.time(Step::Prediction, choose);
                chosen_at = step;
            }
            let loss = self.tensor.try_spec(&spec)?;
            let found = loss.errors.relative_l2();
            if found <= goal {
                if best.as_ref().is_none_or(|(best, _): &(QuantSpec, _)| best.step < spec.step) {
                    best = Some((spec.clone(), loss));
                }
                if found >= CLOSE * goal {
                    break;
                }
            }
            // Errors are nearly proportional to steps.
            step *= if found > 0.0 { (AIM * goal / found).clamp(0.25, 4.0) } else { 4.0 };
        }
        Ok(best)
    }
}

/// A step as it is stored, if it can be one.
fn to_step(step: f64) -> Option<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "rounded, and then measured")]
    let step = step as f32;
    step.is_normal().then_some(step)
}
