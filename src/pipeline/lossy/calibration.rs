//! The step of a rate goal, set right by what tensors take at it.
//!
//! Samples are looked at wherever a step is tried. What whole blocks take more than these hardly changes with the step, so
//! that they are counted at the first, and again near the goal where that is far from there.

use std::sync::atomic::Ordering;

use rayon::prelude::*;

use super::rate::{self, RateUnit};
use super::samples::Sampled;
use super::settings::LossySettings;
use super::share_out::{Quantized, Waiting};
use super::whole_blocks::whole_less_samples;
use crate::error::Result;
use crate::pipeline::encode::EncodeMemory;
use crate::pipeline::timings::Step;
use crate::quantize::predictor::EntropyModel;
use crate::stage::QuantSpec;

/// Times that a step is tried.
const MAX_ROUNDS: usize = 16;
/// Octaves between a step that is too short and one that is too long within which the rate is taken to leap.
const LEAST_WIDTH: f64 = 1e-4;
/// Bits an octave of the step, at most, by which a rate is taken to change.
const MAX_SLOPE: f64 = 8.0;
/// Share of the goal that the rate has to be near to, for whole blocks to be counted there.
const NEAR: f64 = 0.012;
/// Octaves of the step, at most, within which a count of whole blocks leads nearer to the goal.
const FAR: f64 = 1.0;
/// Octaves of the step within which rounding need not be tuned again.
const TUNED: f64 = 0.125;
/// Share of itself by which what whole blocks take more than their samples may change in an octave: it was 0.2 where tables go
/// by columns, 0.4 of sparse tensors.
const DRIFT: f64 = 0.4;

/// How well a goal is to be met.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accuracy {
    /// Share of the goal that the rate may be off by.
    pub(super) tolerance: f64,
    /// Octaves of the step, at most, within which what whole blocks take more than their samples is taken to be the same.
    reach: f64,
    /// Standard error of that, as a share of all bits, down to which more blocks are counted.
    noise: f64,
}

/// Nothing is taken as met that no sample was quantized for: of dependent indices of values far from zero, a step 0.7 %
/// longer has taken 2.3 % more bits.
pub(super) const CALIBRATED: Accuracy = Accuracy { tolerance: 0.004, reach: 0.25, noise: 0.003 };
/// After a whole encoding has shown what is not counted; the leaps of single blocks are then larger than what is left.
pub(super) const CORRECTED: Accuracy = Accuracy { tolerance: 0.0003, reach: 0.0, noise: 0.0 };

/// Sets the common step of tensors right.
pub(super) struct Calibrator<'f> {
    settings: &'f LossySettings,
    memory: &'f EncodeMemory,
    tensors: Vec<Waiting<'f>>,
    n_elements: f64,
    accuracy: Accuracy,
    tuned: Tuned,
    looks: Looks,
    anchor: Option<Anchor>,
}

/// How tensors are quantized about a step.
struct Tuned {
    /// The one that rounding was tuned to; before any was tried, no number.
    step: f64,
    specs: Vec<QuantSpec>,
}

/// What samples of all tensors say at a step.
struct Looks {
    /// Before any was tried, no number.
    step: f64,
    sampled: Vec<Sampled>,
}

/// By how many bits tensors take more than samples say.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    step: f64,
    bits: f64,
}

/// A common step, and what tensors take at it.
#[derive(Debug, Clone, Copy)]
struct Tried {
    step: f64,
    bits: f64,
}

impl<'f> Calibrator<'f> {
    pub(super) fn new(
        settings: &'f LossySettings,
        memory: &'f EncodeMemory,
        tensors: Vec<Waiting<'f>>,
        accuracy: Accuracy,
    ) -> Self {
        let n_elements = tensors.iter().map(|waiting| waiting.tensor.n_elements() as f64).sum();
        let tuned = Tuned { step: f64::NAN, specs: Vec::new() };
        let looks = Looks { step: f64::NAN, sampled: Vec::new() };
        Self { settings, memory, tensors, n_elements, accuracy, tuned, looks, anchor: None }
    }

    /// The same, with rounding as it is in `specs`, tuned to `step`.
    pub(super) fn tuned_to(self, step: f64, specs: Vec<QuantSpec>) -> Self {
        Self { tuned: Tuned { step, specs }, ..self }
    }

    /// The step once more, from `step` on, which `model` gave for `units`: the one at which the tensors take `bits`, if that
    /// is to be had.
    pub(super) fn find(
        &mut self,
        (model, units): (&dyn EntropyModel, &[RateUnit]),
        bits: f64,
        mut step: f64,
    ) -> Result<f64> {
        let mut tried: Vec<Tried> = Vec::new();
        // Steps known to be too short and too long.
        let (mut short, mut long) = (0.0, f64::INFINITY);
        // Octaves between them, the time before the last and the last time.
        let mut widths = [f64::INFINITY; 2];
        let mut was_aside = false;
        for _ in 0..MAX_ROUNDS {
            self.look(step)?;
            // Until the goal lies between two steps, and once at a time, an earlier count of whole blocks may lead nearer to it.
            let may_be_aside = !was_aside && (short == 0.0 || long.is_infinite()) && !self.is_anchored(step);
            let beside = self.bits_beside_anchor(step).filter(|_| may_be_aside);
            let is_aside = beside.is_some_and(|beside| (beside / bits - 1.0).abs() > NEAR);
            was_aside = is_aside;
            let found = match beside.filter(|_| is_aside) {
                Some(beside) => Tried { step, bits: beside },
                None => Tried { step, bits: self.stored_bits(step)? },
            };
            let error = (found.bits - bits) / self.n_elements;
            // One bit an octave where the rate is high, less where it is low; more where many elements leave the dead zone
            // at once.
            let slope = match tried.last() {
                Some(last) => (last.bits - found.bits) / self.n_elements / (step / last.step).log2(),
                None => self.memory.time(Step::Prediction, || rate::slope(model, self.settings, units, step)),
            };
            if !is_aside {
                tried.push(found);
                if (found.bits / bits - 1.0).abs() < self.accuracy.tolerance {
                    break;
                }
                if error > 0.0 {
                    short = step;
                } else {
                    long = step;
                }
            }
            // Further each time that nothing is on the other side: there may be no slope for many octaves.
            let reach = (tried.len() as f64).exp2();
            step *= (error / slope.clamp(0.125, MAX_SLOPE)).clamp(-reach, reach).exp2();
            // Where the slope misleads, halving the interval does not.
            let width = (long / short).log2();
            let is_misled = step <= short || step >= long || (!is_aside && width > widths[0] / 2.0);
            if width.is_finite() && is_misled {
                step = (short * long).sqrt();
            }
            if is_aside {
                continue;
            }
            widths = [widths[1], width];
            if width < LEAST_WIDTH {
                break;
            }
        }
        let off = |tried: &Tried| (tried.bits - bits).abs();
        let best = tried.into_iter().min_by(|a, b| off(a).total_cmp(&off(b)));
        Ok(best.map_or(step, |best| best.step))
    }

    /// Each tensor at the common `step`, as samples have it.
    pub(super) fn tensors(mut self, step: f64) -> Result<Vec<Quantized>> {
        self.look(step)?;
        let quantized = |sampled: Sampled| Quantized { spec: sampled.spec, bits: sampled.bits };
        Ok(self.looks.sampled.into_iter().map(quantized).collect())
    }

    /// Bits that the tensors take at `step`.
    pub(super) fn stored_bits(&mut self, step: f64) -> Result<f64> {
        self.look(step)?;
        if !self.is_anchored(step) {
            let bits = whole_less_samples(&self.tensors, &self.looks.sampled, self.accuracy.noise)?;
            self.anchor = Some(Anchor { step, bits });
        }
        Ok(self.bits_of_samples() + self.anchor.map_or(0.0, |anchor| anchor.bits))
    }

    /// What [`Self::stored_bits`] would be at `step`, that of the last look, if what whole blocks take more than their samples
    /// were the same as where they were counted last; `None` where that is far away.
    fn bits_beside_anchor(&self, step: f64) -> Option<f64> {
        let anchor = self.anchor.filter(|anchor| (step / anchor.step).log2().abs() <= FAR)?;
        Some(self.bits_of_samples() + anchor.bits)
    }

    fn bits_of_samples(&self) -> f64 {
        // In order, so that the sum does not depend on the threads.
        self.looks.sampled.iter().map(|sampled| sampled.bits).sum()
    }

    /// Whether whole blocks were counted so near to `step`, that of the last look, that it does not change.
    fn is_anchored(&self, step: f64) -> bool {
        self.anchor.is_some_and(|anchor| {
            let octaves = (step / anchor.step).log2().abs();
            let drift = DRIFT * octaves * anchor.bits.abs();
            octaves <= self.accuracy.reach && drift <= self.accuracy.tolerance / 2.0 * self.bits_of_samples()
        })
    }

    /// Looks at samples at `step`, unless that was done last.
    fn look(&mut self, step: f64) -> Result<()> {
        if self.looks.step == step {
            return Ok(());
        }
        self.memory.n_rate_steps.fetch_add(1, Ordering::Relaxed);
        self.tune(step)?;
        let look = |(waiting, tuned): (&Waiting<'_>, &QuantSpec)| {
            let spec = QuantSpec { step: waiting.own_step(self.settings, step), ..tuned.clone() };
            waiting.tensor.look_at_samples((waiting.survey, waiting.method), spec)
        };
        let sampled: Vec<Result<Sampled>> =
            self.tensors.par_iter().zip(&self.tuned.specs).map(look).collect();
        self.looks = Looks { step, sampled: sampled.into_iter().collect::<Result<_>>()? };
        Ok(())
    }

    /// Tunes rounding to `step`, unless that was done near it.
    fn tune(&mut self, step: f64) -> Result<()> {
        if (step / self.tuned.step).log2().abs() <= TUNED {
            return Ok(());
        }
        let specs: Vec<Result<QuantSpec>> =
            self.tensors.par_iter().map(|waiting| waiting.spec(self.settings, step)).collect();
        self.tuned = Tuned { step, specs: specs.into_iter().collect::<Result<_>>()? };
        Ok(())
    }
}
