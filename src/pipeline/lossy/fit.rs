//! Finding the step of one tensor whose goal is an error.

use std::time::{Duration, Instant};

use super::bounds::MAX_CHANNELS;
use super::keep::WholeBlock;
use super::method::Method;
use super::plan::Candidate;
use super::prune::{Fitted, Pruner, Saving};
use super::search::{AIM, CLOSE, Search, Trial, to_step};
use super::settings::{Goal, LossySettings};
use super::tensor_source::{RUN_LEN, SAMPLE_LEN, TensorSource};
use crate::error::Result;
use crate::kernels::moments::Squares;
use crate::kernels::quantize::{Rounding, SHEET_LEN};
use crate::pipeline::timings::Step;
use crate::quantize::rdo::SAMPLE_LEN as N_TUNED;
use crate::stage::{ChannelSteps, Choice, Domain, QuantSpec, Quantizer};

/// Most elements of a sample, where a step is looked for; but tensors of one block are their own sample.
const MAX_SAMPLE_LEN: u64 = 1 << 19;
/// Of larger ones one element in this many is in it, but no fewer than [`SAMPLE_LEN`] and no more than [`MAX_SAMPLE_LEN`].
const SAMPLE_ONE_IN: u64 = 8;
/// Steps are this much below what a bound allows, for rounding in the decoder's arithmetic.
const SLACK: f32 = 1.0 - 1.0 / 1024.0;
/// Elements of each run of a sample: short, since neighbours are alike, and a whole sheet of the lattice.
const SAMPLE_RUN_LEN: u64 = SHEET_LEN as u64;
/// Standard error of a root mean square, as a share, up to which a sample is taken for the whole: half of what a step may
/// leave of its goal.
const MAX_SAMPLING_ERROR: f64 = 0.0025;
/// Steps tried on the sample.
const MAX_SAMPLE_TRIALS: usize = 4;
/// Most steps tried on the whole tensor.
const MAX_TRIALS: usize = 6;

/// Finds the step of one tensor.
pub(super) struct Fitter<'a> {
    pub(super) settings: &'a LossySettings,
    pub(super) tensor: TensorSource<'a>,
    /// When to stop looking.
    pub(super) deadline: Instant,
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
        let tensor = TensorSource { booked_on: Some(Step::Pruning), keeps: None, ..self.tensor };
        let fitter = Fitter { tensor, ..*self };
        Pruner { fitter: &fitter, first_share, max_drop_ratio }.prune(plain)
    }

    /// How the tensor is quantized so that its goal holds; `None` where it stays exact.
    fn fit_goal(&self) -> Result<Option<QuantSpec>> {
        let Some((spec, loss)) = self.fit_read()? else { return Ok(None) };
        // What is not finite is an escape, and so may other elements be.
        let may_be_special = loss.escapes > 0 && !self.tensor.candidate.treatment.despite_defaults;
        let is_special = may_be_special && self.tensor.moments()?.n_not_finite > 0;
        if is_special {
            self.tensor.forget_kept();
        }
        Ok((!is_special).then_some(spec))
    }

    /// As [`Self::fit_goal`], not looking for what is not finite; with what is lost.
    fn fit_read(&self) -> Result<Option<Trial>> {
        let memory = self.tensor.memory;
        // Such a tensor is its own sample.
        let is_fast = self.settings.quantizer != Quantizer::Trellis;
        if let (true, Goal::RelL2(_), &[span]) = (is_fast, self.tensor.candidate.goal, &*self.tensor.spans())
        {
            let whole = self.tensor.read_whole(span)?;
            let found = self.fit_sampled(&whole.bytes, Some(&whole));
            memory.give_back(whole.bytes);
            return found;
        }
        let read = || self.tensor.read_sample(self.sample_len(), SAMPLE_RUN_LEN);
        let sample = self.tensor.time(Step::Statistics, read)?;
        let found = self.fit_sampled(&sample, None);
        memory.give_back(sample);
        found
    }

    fn sample_len(&self) -> u64 {
        let n_elements = self.tensor.n_elements();
        match (self.tensor.candidate.goal, self.settings.quantizer) {
            (Goal::RelL2(_), Quantizer::Uniform | Quantizer::Lattice) => {
                (n_elements / SAMPLE_ONE_IN).clamp(SAMPLE_LEN, MAX_SAMPLE_LEN)
            }
            // The search for a path takes long; other goals need no sample but to see whether the tensor is constant.
            (Goal::RelL2(_), Quantizer::Trellis) => SAMPLE_LEN,
            _ => RUN_LEN,
        }
    }

    /// The same once `sample` has been read, all that there is or a part of it.
    fn fit_sampled(&self, sample: &[u8], whole: Option<&WholeBlock>) -> Result<Option<Trial>> {
        let Candidate { goal, dtype, .. } = self.tensor.candidate;
        if !self.tensor.is_varied(&sample[..sample.len().min(dtype.unit_bytes() << 12)])? {
            // Nothing is smaller than a constant.
            return Ok(None);
        }
        match *goal {
            Goal::MaxAbsError(bound) => self.fit_bound(bound, None),
            Goal::MaxRelError(bound) => self.fit_relative_bound(bound),
            Goal::RelL2(goal) => self.fit_rel_l2(goal, sample, whole),
            // Steps of rate goals are not found tensor by tensor.
            Goal::Bits(_) | Goal::Ratio(_) => Ok(None),
        }
    }

    pub(super) fn spec(&self, step: f32, choice: Choice) -> QuantSpec {
        QuantSpec {
            step,
            domain: self.tensor.candidate.treatment.domain,
            channels: None,
            prune_below: 0.0,
            row_lens: self.tensor.row_lens(),
            choice,
            backend: self.settings.backend,
        }
    }

    fn fit_relative_bound(&self, bound: f64) -> Result<Option<Trial>> {
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
    fn fit_bound(&self, bound: f64, channels: Option<ChannelSteps>) -> Result<Option<Trial>> {
        let choice = Choice::Rounded(Rounding::Nearest);
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
            let loss = self.tensor.try_for_good(&spec)?;
            if loss.max_scaled <= bound {
                return Ok(Some((spec, loss)));
            }
        }
        Ok(None)
    }

    /// The step of a uniform quantizer whose error would be `goal` if all errors were equally likely.
    fn first_step(&self, goal: f64, squares: &Squares) -> f64 {
        // The error is then step ÷ √12.
        match self.tensor.candidate.treatment.domain {
            Domain::Linear => goal * squares.mean().sqrt() * 12f64.sqrt(),
            Domain::Log2 => goal * 12f64.sqrt() / std::f64::consts::LN_2,
        }
    }

    /// The step for `goal`, of an unpruned tensor of which `sample` is a part, or `whole` all of it.
    fn fit_rel_l2(&self, goal: f64, sample: &[u8], whole: Option<&WholeBlock>) -> Result<Option<Trial>> {
        let tensor = &self.tensor;
        let measure = || Squares::measure(tensor.ctx.isa, tensor.candidate.dtype, sample).unwrap_or_default();
        let squares = whole.map_or_else(|| tensor.time(Step::Statistics, measure), |whole| whole.squares);
        let mut step = self.first_step(goal, &squares);
        if to_step(step).is_none() {
            // The sample has missed what there is.
            step = self.first_step(goal, &tensor.squares()?);
        }
        let max_values = match self.settings.quantizer {
            Quantizer::Uniform | Quantizer::Lattice => N_TUNED,
            Quantizer::Trellis => usize::try_from(SAMPLE_LEN).unwrap_or(N_TUNED),
        };
        let values = tensor.time(Step::Statistics, || tensor.thinned(sample, max_values));
        let methods = Method::of_run(self.settings.quantizer);
        if let (&[method], Some(whole)) = (methods, whole) {
            // The sums of a single block are what encoding it will find.
            let mut search = Search::new(self, method, &values, step).foresee();
            return tensor.try_block_for_good(whole, &mut |try_spec| search.run(goal, MAX_TRIALS, try_spec));
        }
        let is_whole = sample.len() as u64 == tensor.candidate.info.byte_len() && tensor.spans().len() == 1;
        let mut best: Option<(f64, Search<'_>, Option<Trial>)> = None;
        for method in methods {
            let plain_bits = best.as_ref().map_or(0.0, |(bits, ..)| bits / values.len().max(1) as f64);
            if !method.suits(self.settings.quantizer, plain_bits) {
                continue;
            }
            let first_step = step * method.step_beside(methods[0]);
            let mut search = Search::new(self, *method, &values, first_step).foresee();
            let found = self.search_sample(&mut search, goal, sample, is_whole)?;
            let bits =
                if methods.len() == 1 { 0.0 } else { self.bits_at(goal, *method, &values, found.as_ref()) };
            if best.as_ref().is_none_or(|(least, ..)| bits < *least) {
                best = Some((bits, search, found));
            }
        }
        let Some((_, mut search, found)) = best else { return Ok(None) };
        if is_whole {
            return Ok(found);
        }
        // Once the whole tensor has been measured, the next step is as good as certain.
        let mut is_certain = tensor.time(Step::Statistics, || self.is_typical(sample));
        if !is_certain && search.is_even() {
            // It is known what is lost at a step, but not beside what.
            search.rescale(self.first_step(goal, &tensor.squares()?) / step);
            is_certain = true;
        }
        search.run(goal, MAX_TRIALS, &mut |spec| match std::mem::replace(&mut is_certain, true) {
            true => tensor.try_for_good(spec),
            false => tensor.try_spec(spec),
        })
    }

    /// Looks for the step for `goal` on `sample`, which may be the whole tensor.
    fn search_sample(
        &self,
        search: &mut Search<'_>,
        goal: f64,
        sample: &[u8],
        is_whole: bool,
    ) -> Result<Option<Trial>> {
        let (step, max_trials) =
            if is_whole { (Step::Quantization, MAX_TRIALS) } else { (Step::Prediction, MAX_SAMPLE_TRIALS) };
        // What is only sampled may turn out on either side.
        let aim = if is_whole { goal } else { goal * (1.0 + CLOSE) / 2.0 / AIM };
        let tensor = &self.tensor;
        search.run(aim, max_trials, &mut |spec| Ok(tensor.time(step, || tensor.try_sample(spec, sample))))
    }

    /// Bits that `values` take by `method` at an error of `goal`, near which a search has `found` it.
    fn bits_at(&self, goal: f64, method: Method, values: &[f32], found: Option<&Trial>) -> f64 {
        let Some((spec, loss)) = found else { return f64::INFINITY };
        let try_method = || self.tensor.try_method(method, self.settings, values, spec.step);
        let (bits, _) = self.tensor.time(Step::Prediction, try_method);
        bits + values.len() as f64 * (loss.errors.relative_l2() / goal).log2()
    }

    /// Whether the tensor as a whole is likely to have the relative error that `sample` has, closely enough that coding it
    /// by the step of the sample is worth the attempt.
    fn is_typical(&self, sample: &[u8]) -> bool {
        if self.settings.quantizer == Quantizer::Trellis {
            // Choosing indices takes so much longer than coding them.
            return true;
        }
        let Candidate { dtype, .. } = self.tensor.candidate;
        let run_bytes = dtype.unit_bytes() << SAMPLE_RUN_LEN.ilog2();
        let energies = sample
            .chunks_exact(run_bytes)
            .filter_map(|run| Some(Squares::measure(self.tensor.ctx.isa, *dtype, run)?.mean()));
        let (mut n, mut sum, mut sum_sq) = (0.0, 0.0, 0.0);
        for energy in energies {
            (n, sum, sum_sq) = (n + 1.0, sum + energy, sum_sq + energy * energy);
        }
        // Of the mean energy, as a share; that of its root is half of it.
        let error = (n * sum_sq / (sum * sum) - 1.0).max(0.0) / n;
        error.sqrt() / 2.0 < MAX_SAMPLING_ERROR
    }

    /// The step for `goal`, from that of `spec` on, whose choice is good at steps near it; `values` are of a sample,
    /// pruned as `spec` says.
    pub(super) fn refine_rel_l2(&self, goal: f64, spec: QuantSpec, values: &[f32]) -> Result<Option<Trial>> {
        let step = f64::from(spec.step);
        let method = Method::best_of(spec.quantizer());
        let mut search = Search::new(self, method, values, step).with_choice(spec);
        search.run(goal, MAX_TRIALS, &mut |spec| self.tensor.try_spec(spec))
    }
}
