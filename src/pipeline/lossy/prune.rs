//! Dynamic pruning: small elements of a tensor set to zero where that saves bits at the same error.
//!
//! Rate–distortion optimised rounding has a dead zone already, the best one for elements that are all alike and stored
//! at what the whole tensor's histogram says. Pruning widens it, and the step shrinks until the error is what it was.
//! Thresholds are percentiles of the magnitudes of a sample, which is coded for each of them; what gains there is held
//! against the unpruned tensor on all of its elements, errors and bytes both, so that a tensor is never stored larger
//! for having been pruned.

use super::fit::Fitter;
use super::method::Method;
use super::settings::Goal;
use super::tensor_source::TensorSource;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::convert;
use crate::kernels::quantize::Rounding;
use crate::pipeline::timings::Step;
use crate::quantize::rdo::Tuner;
use crate::stage::{BlockEncoder, BlockLoss, Choice, Level, QuantSpec};

/// Most thresholds that are tried of those that have an effect.
const MAX_THRESHOLDS: usize = 6;
/// Bits an element by which the sizes of a sample vary for no good reason.
const TOLERANCE: f64 = 1e-3;
/// Times that a step is set so that the sample's error is what it was; two leave it within a thousandth.
const N_STEPS: usize = 3;
/// Times that a step is set so that the tensor takes no more bytes than it did.
const N_RATE_STEPS: usize = 3;
/// Elements up to this share of a bound are within it, whatever the arithmetic.
const WITHIN: f64 = 1.0 - 1.0 / 1024.0;

/// How a tensor is quantized, and what pruning has saved.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Fitted {
    /// `None` where the tensor stays exact.
    pub(super) spec: Option<QuantSpec>,
    pub(super) saving: Saving,
}

/// Bits of the tensors that could be pruned, without pruning and with it at the same error; both 0 where none could.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Saving {
    pub(crate) without_bits: f64,
    pub(crate) with_bits: f64,
}

impl Saving {
    /// Adds another tensor's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.without_bits += other.without_bits;
        self.with_bits += other.with_bits;
    }

    /// Bits without pruning ÷ bits with it: above 1 where pruning has helped. `None` without a tensor to prune.
    pub(crate) fn score(&self) -> Option<f64> {
        (self.with_bits > 0.0).then(|| self.without_bits / self.with_bits)
    }
}

/// What a tensor, or a sample of it, took when coded.
#[derive(Debug, Clone, Copy, Default)]
struct Coded {
    bytes: u64,
    loss: BlockLoss,
}

impl Coded {
    /// Bits that it would take at the error of `other`: half a bit an element less for each doubling of the squared
    /// error that it is allowed.
    fn bits_at_error_of(&self, other: &Self) -> f64 {
        let own = &self.loss.errors;
        let share = own.error_sq / other.loss.errors.error_sq;
        // Without any error on one side there is nothing to exchange.
        let change = if share.is_normal() { share.log2() } else { 0.0 };
        8.0 * self.bytes as f64 + 0.5 * change * own.n_elements as f64
    }

    /// Share of the elements that are zero now and were not.
    fn newly_zero(&self) -> f64 {
        self.loss.errors.n_zeroed as f64 / self.loss.errors.n_elements.max(1) as f64
    }
}

/// A threshold that gains on the sample.
#[derive(Debug, Clone, Copy)]
struct Threshold {
    below: f32,
    /// The step at which the sample's error is what it is without pruning.
    step: f32,
    /// Bits of the sample at the same error.
    bits: f64,
}

/// Prunes one tensor.
pub(super) struct Pruner<'a> {
    pub(super) fitter: &'a Fitter<'a>,
    /// Share of the nonzero elements that the first threshold takes.
    pub(super) first_share: f64,
    /// Largest share of the elements that may newly become zero.
    pub(super) max_drop_ratio: f64,
}

impl Pruner<'_> {
    fn tensor(&self) -> &TensorSource<'_> {
        &self.fitter.tensor
    }

    /// What `plain`, which keeps to the tensor's goal, becomes.
    pub(super) fn prune(&self, plain: QuantSpec) -> Result<Fitted> {
        match self.tensor().candidate.goal {
            Goal::RelL2(goal) => self.prune_rel_l2(plain, goal),
            Goal::MaxAbsError(bound) | Goal::MaxRelError(bound) => self.prune_bound(plain, bound),
            Goal::Bits(_) | Goal::Ratio(_) => self.prune_rate(plain),
        }
    }

    fn prune_rel_l2(&self, plain: QuantSpec, goal: f64) -> Result<Fitted> {
        let mut sample = Sample::new(&self.fitter.tensor)?;
        let (thresholds, sampled) = self.tensor().time(Step::Pruning, || self.search(&mut sample, &plain));
        if thresholds.is_empty() {
            return Ok(self.unpruned(plain, &sampled));
        }
        let before = self.code(&plain)?;
        for threshold in thresholds {
            let spec = sample.spec(&plain, threshold.below, threshold.step);
            let Some((spec, _)) = self.fitter.refine_rel_l2(goal, spec, &sample.pruned)? else { continue };
            let after = self.code(&spec)?;
            let bits = after.bits_at_error_of(&before);
            let is_smaller = after.bytes < before.bytes && bits < 8.0 * before.bytes as f64;
            if is_smaller && after.newly_zero() <= self.max_drop_ratio {
                return Ok(pruned(spec, &before, bits));
            }
        }
        Ok(self.unpruned(plain, &before))
    }

    /// Elements within the bound may become zero at any step. Where each goes to the nearest point and the step is twice
    /// the bound they do so anyway; pruning is for tensors whose step had to be smaller.
    fn prune_bound(&self, plain: QuantSpec, bound: f64) -> Result<Fitted> {
        let least = plain.channels.as_ref().map_or(1.0, |channels| {
            (0..channels.multipliers.len()).map(|idx| channels.multiplier(idx)).fold(f32::INFINITY, f32::min)
        });
        let mut sample = Sample::new(self.tensor())?;
        let most = WITHIN * bound * f64::from(least);
        let dead_zone = 0.5 * plain.step * least;
        let mut thresholds = sample.percentiles(self.first_share, self.max_drop_ratio, dead_zone);
        thresholds.retain(|below| f64::from(*below) <= most);
        if thresholds.is_empty() {
            let sampled = self.tensor().time(Step::Pruning, || sample.code(&plain));
            return Ok(self.unpruned(plain, &sampled));
        }
        let before = self.code(&plain)?;
        // At the same step the widest saves most.
        for below in thresholds.into_iter().rev() {
            let spec = QuantSpec { prune_below: below, ..plain.clone() };
            let after = self.code(&spec)?;
            let holds = after.loss.max_scaled <= bound && after.newly_zero() <= self.max_drop_ratio;
            if holds && after.bytes < before.bytes {
                return Ok(pruned(spec, &before, 8.0 * after.bytes as f64));
            }
        }
        Ok(self.unpruned(plain, &before))
    }

    /// Less error in no more bytes. Channels with steps of their own have been given a floor or a cap that a common
    /// step knows nothing of: such tensors are left alone.
    fn prune_rate(&self, plain: QuantSpec) -> Result<Fitted> {
        let mut sample = Sample::new(self.tensor())?;
        if plain.channels.is_some() {
            let sampled = self.tensor().time(Step::Pruning, || sample.code(&plain));
            return Ok(self.unpruned(plain, &sampled));
        }
        let (thresholds, sampled) = self.tensor().time(Step::Pruning, || self.search(&mut sample, &plain));
        if thresholds.is_empty() {
            return Ok(self.unpruned(plain, &sampled));
        }
        let before = self.code(&plain)?;
        let n_elements = before.loss.errors.n_elements.max(1) as f64;
        for threshold in thresholds {
            let sampled_bits = 8.0 * sampled.bytes as f64;
            // A step of half the length takes a bit more.
            let room = (sampled_bits - threshold.bits) / sampled.loss.errors.n_elements.max(1) as f64;
            let mut step = threshold.step * to_f32((-room).exp2());
            for _ in 0..N_RATE_STEPS {
                if !step.is_normal() {
                    break;
                }
                let spec = sample.spec(&plain, threshold.below, step);
                let after = self.code(&spec)?;
                let (errors, plain_errors) = (&after.loss.errors, &before.loss.errors);
                if errors.error_sq >= plain_errors.error_sq || after.newly_zero() > self.max_drop_ratio {
                    break;
                }
                if after.bytes <= before.bytes {
                    let bits = after.bits_at_error_of(&before);
                    return Ok(pruned(spec, &before, bits));
                }
                let excess = 8.0 * (after.bytes - before.bytes) as f64 / n_elements;
                step *= to_f32((1.05 * excess + 1e-4).exp2());
            }
        }
        Ok(self.unpruned(plain, &before))
    }

    /// The tensor as it was; `coded` is what it, or a sample of it, took.
    fn unpruned(&self, plain: QuantSpec, coded: &Coded) -> Fitted {
        let share = self.tensor().n_elements() as f64 / coded.loss.errors.n_elements.max(1) as f64;
        let bits = 8.0 * coded.bytes as f64 * share;
        Fitted { spec: Some(plain), saving: Saving { without_bits: bits, with_bits: bits } }
    }

    /// Thresholds that gain on the sample, the best first and then only lower ones, and what the sample takes without.
    fn search(&self, sample: &mut Sample<'_>, plain: &QuantSpec) -> (Vec<Threshold>, Coded) {
        let before = sample.code(plain);
        if before.loss.errors.error_sq <= 0.0 {
            return (Vec::new(), before);
        }
        let mut found: Vec<Threshold> = Vec::new();
        let mut last_bits = f64::INFINITY;
        // What becomes zero anyway is nearly what is smallest.
        let n_zeroed = usize::try_from(before.loss.errors.n_zeroed / 2).unwrap_or(0);
        let dead_zone = sample.magnitudes.get(n_zeroed).copied().unwrap_or(0.0);
        let tolerance = TOLERANCE * before.loss.errors.n_elements as f64;
        for below in sample.percentiles(self.first_share, self.max_drop_ratio, dead_zone) {
            let Some((step, after)) = sample.at_error_of(plain, below, &before) else { break };
            let bits = after.bits_at_error_of(&before);
            if after.newly_zero() > self.max_drop_ratio || bits > last_bits + tolerance {
                // Higher ones zero more, and past the best it only gets worse.
                break;
            }
            last_bits = bits;
            if bits < 8.0 * before.bytes as f64 {
                found.push(Threshold { below, step, bits });
            }
        }
        let best = (0..found.len()).min_by(|a, b| found[*a].bits.total_cmp(&found[*b].bits));
        found.truncate(best.map_or(0, |best| best + 1));
        found.reverse();
        (found, before)
    }

    /// What the whole tensor takes.
    fn code(&self, spec: &QuantSpec) -> Result<Coded> {
        let (bytes, loss) = self.tensor().encode(spec)?;
        Ok(Coded { bytes, loss })
    }
}

fn pruned(spec: QuantSpec, before: &Coded, bits: f64) -> Fitted {
    let saving = Saving { without_bits: 8.0 * before.bytes as f64, with_bits: bits };
    Fitted { spec: Some(spec), saving }
}

#[expect(clippy::cast_possible_truncation, reason = "rounded; what comes of it is measured")]
fn to_f32(value: f64) -> f32 {
    value as f32
}

/// Elements from all over a tensor, and what it takes to code them.
struct Sample<'a> {
    tensor: &'a TensorSource<'a>,
    values: Vec<f32>,
    pruned: Vec<f32>,
    /// The values as elements of the tensor's dtype.
    elements: Vec<u8>,
    scratch: Vec<u8>,
    payload: Vec<u8>,
    encoder: BlockEncoder,
    tuner: Tuner,
    /// What is not zero, ascending by magnitude.
    magnitudes: Vec<f32>,
}

impl<'a> Sample<'a> {
    fn new(tensor: &'a TensorSource<'a>) -> Result<Self> {
        let values = tensor.sample()?;
        let dtype: Dtype = tensor.candidate.dtype;
        let mut elements = vec![0; values.len() * dtype.unit_bytes()];
        // The dtype is one that converts: others are no candidates.
        let _ = convert::from_f32(tensor.ctx.isa, dtype, &values, &mut elements);
        let mut magnitudes: Vec<f32> =
            values.iter().map(|x| x.abs()).filter(|x| *x > 0.0 && x.is_finite()).collect();
        magnitudes.sort_unstable_by(f32::total_cmp);
        Ok(Self {
            tensor,
            pruned: values.clone(),
            values,
            elements,
            scratch: Vec::new(),
            payload: Vec::new(),
            encoder: BlockEncoder::new(Level::Default, tensor.ctx.isa),
            tuner: Tuner::default(),
            magnitudes,
        })
    }

    /// Thresholds at the percentiles `first_share`, √2 times that, and so on, that lie above `above` and take no more
    /// than `max_drop_ratio` of the elements; the lowest few.
    fn percentiles(&self, first_share: f64, max_drop_ratio: f64, above: f32) -> Vec<f32> {
        let n_nonzero = self.magnitudes.len() as f64;
        let most = (max_drop_ratio * self.values.len() as f64).min(n_nonzero);
        let next = |count: &f64| Some(std::f64::consts::SQRT_2 * count);
        let counts = std::iter::successors(Some(first_share * n_nonzero), next);
        let counts = counts.take_while(|count| *count >= 1.0 && *count <= most);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the length")]
        let thresholds = counts.filter_map(|count| self.magnitudes.get(count as usize).copied());
        let mut thresholds: Vec<f32> =
            thresholds.filter(|below| *below > above && below.is_normal()).take(MAX_THRESHOLDS).collect();
        thresholds.dedup();
        thresholds
    }

    /// As `plain` at `step`, with elements below `below` pruned.
    fn spec(&mut self, plain: &QuantSpec, below: f32, step: f32) -> QuantSpec {
        self.pruned.clear();
        self.pruned.extend(self.values.iter().map(|x| if x.abs() < below { 0.0 } else { *x }));
        let choice = match &plain.choice {
            Choice::Rounded(Rounding::Nearest) => plain.choice.clone(),
            Choice::Rounded(_) | Choice::Trellis(_) => Method::best_of(plain.quantizer()).choice(
                self.tensor.ctx.isa,
                &mut self.tuner,
                &self.pruned,
                step,
            ),
        };
        QuantSpec { step, prune_below: below, choice, ..plain.clone() }
    }

    fn code(&mut self, spec: &QuantSpec) -> Coded {
        self.scratch.clone_from(&self.elements);
        self.payload.clear();
        let dtype = self.tensor.candidate.dtype;
        let (_, loss) = self.encoder.encode_quantized(spec, dtype, 0, &mut self.scratch, &mut self.payload);
        Coded { bytes: self.payload.len() as u64, loss }
    }

    /// The step at which the sample without what is below `below` has the error that it has in `before`, and what it
    /// then takes; `None` where it has more at any step.
    fn at_error_of(&mut self, plain: &QuantSpec, below: f32, before: &Coded) -> Option<(f32, Coded)> {
        let mut step = plain.step;
        let mut found = None;
        for _ in 0..N_STEPS {
            let spec = self.spec(plain, below, step);
            let after = self.code(&spec);
            let share = before.loss.errors.error_sq / after.loss.errors.error_sq;
            found = Some((step, after, share));
            step *= to_f32(share.sqrt().clamp(0.25, 4.0));
            if !step.is_normal() {
                return None;
            }
        }
        // Off by more than this, what pruning alone loses is the reason.
        found.filter(|(_, _, share)| *share > 0.98 && *share < 1.02).map(|(step, after, _)| (step, after))
    }
}

#[cfg(test)]
mod tests;
