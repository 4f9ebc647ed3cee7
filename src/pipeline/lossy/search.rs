//! The search for the step at which a relative error is just below its goal.

use std::time::Instant;

use super::fit::Fitter;
use super::method::Method;
use crate::error::Result;
use crate::pipeline::timings::Step;
use crate::quantize::rdo::Tuner;
use crate::stage::{BlockLoss, QuantSpec, Quantizer};

/// A step whose error is this close to the goal is not refined further.
pub(super) const CLOSE: f64 = 0.995;
/// What is aimed at where the error at a step is known of the whole tensor: just below the goal.
pub(super) const AIM: f64 = 0.999;
/// What is aimed at where it is only foreseen: the middle of what is close enough.
pub(super) const FORESEEN_AIM: f64 = (1.0 + CLOSE) / 2.0;
/// How far, as a share, mean squared errors may be from those that are all equally likely and be called that.
const EVEN_ERRORS: f64 = 0.02;
/// Thresholds and costs are chosen anew where the step has changed by more than this.
const SAME_CHOICE: f64 = 0.05;

/// A way to quantize a tensor, and what it loses.
pub(super) type Trial = (QuantSpec, BlockLoss);

/// The state of a search.
pub(super) struct Search<'a> {
    fitter: &'a Fitter<'a>,
    method: Method,
    /// Of a sample.
    values: &'a [f32],
    tuner: Tuner,
    /// To be tried next.
    step: f64,
    /// With thresholds or costs for steps near its own.
    spec: Option<QuantSpec>,
}

impl<'a> Search<'a> {
    pub(super) fn new(fitter: &'a Fitter<'a>, method: Method, values: &'a [f32], step: f64) -> Self {
        Self { fitter, method, values, tuner: Tuner::default(), step, spec: None }
    }

    /// The same, where `spec` has been chosen for steps near the first.
    pub(super) fn with_choice(self, spec: QuantSpec) -> Self {
        Self { spec: Some(spec), ..self }
    }

    /// Takes as the first step the one whose error is likely to be close below the goal, if it is not that of the step so far
    /// only because indices are not those of the nearest points.
    pub(super) fn foresee(mut self) -> Self {
        if let (true, Some(step)) = (self.method.quantizer != Quantizer::Trellis, to_step(self.step)) {
            self.chosen(step);
            let share = (12.0 * self.tuner.expected_error_sq()).sqrt();
            if share > 0.0 {
                self.step *= (FORESEEN_AIM / share).clamp(0.25, 4.0);
            }
        }
        self
    }

    /// Whether steps are so short that nearly all errors between none and half a step are equally likely, whatever the tensor.
    pub(super) fn is_even(&self) -> bool {
        let share = self.tuner.expected_error_sq() / self.tuner.even_error_sq();
        self.method.quantizer != Quantizer::Trellis && (share - 1.0).abs() < EVEN_ERRORS
    }

    /// Multiplies the step that is to be tried next.
    pub(super) fn rescale(&mut self, factor: f64) {
        self.step *= factor;
    }

    /// Tries steps until one is close below `goal`; gives the longest that held. The next step is then the one that is
    /// likely to meet it.
    pub(super) fn run(
        &mut self,
        goal: f64,
        max_trials: usize,
        try_spec: &mut dyn FnMut(&QuantSpec) -> Result<BlockLoss>,
    ) -> Result<Option<Trial>> {
        let mut best: Option<Trial> = None;
        // The last trials that held and missed, with their errors.
        let (mut held, mut missed): (Option<Tried>, Option<Tried>) = (None, None);
        let mut n_missed = 0;
        for _ in 0..max_trials {
            let Some(step) = to_step(self.step).filter(|_| Instant::now() <= self.fitter.deadline) else {
                break;
            };
            let spec = QuantSpec { step, ..self.chosen(step) };
            let loss = try_spec(&spec)?;
            let found = loss.errors.relative_l2();
            // Errors are nearly proportional to steps, but for coarse ones, with which they hardly change: the more of those
            // have missed, the longer is the next stride.
            let is_missed = found.is_nan() || found > goal;
            n_missed += i32::from(is_missed);
            let stride = (AIM * goal / found).powi(if is_missed { n_missed } else { 1 });
            *(if is_missed { &mut missed } else { &mut held }) =
                Some(Tried { step: self.step, error: found });
            self.step = match held.zip(missed) {
                Some((held, missed)) if held.step < missed.step => between(held, missed, AIM * goal),
                _ => self.step * if found > 0.0 { stride.clamp(0.25, 4.0) } else { 4.0 },
            };
            if is_missed {
                continue;
            }
            if best.as_ref().is_none_or(|(best, _)| best.step < step) {
                best = Some((spec, loss));
            }
            if found >= CLOSE * goal {
                break;
            }
        }
        Ok(best)
    }

    /// How elements are quantized at about `step`.
    fn chosen(&mut self, step: f32) -> QuantSpec {
        let is_near = |spec: &QuantSpec| f64::from(step / spec.step - 1.0).abs() < SAME_CHOICE;
        if let Some(spec) = self.spec.as_ref().filter(|spec| is_near(spec)) {
            return spec.clone();
        }
        let Self { fitter, method, values, tuner, .. } = self;
        let isa = fitter.tensor.ctx.isa;
        let choose = || method.choice(isa, tuner, values, step);
        let choice = fitter.tensor.time(Step::Prediction, choose);
        let spec = match &self.spec {
            Some(spec) => QuantSpec { step, choice, ..spec.clone() },
            None => fitter.spec(step, choice),
        };
        self.spec.insert(spec).clone()
    }
}

/// A step and its relative error.
#[derive(Debug, Clone, Copy)]
struct Tried {
    step: f64,
    error: f64,
}

/// The step between two at which the error is likely to be `goal`: near values that share a few
/// reconstruction points errors are anything but proportional to steps.
fn between(short: Tried, long: Tried, goal: f64) -> f64 {
    let share = (goal / short.error).ln() / (long.error / short.error).ln();
    let share = if share.is_finite() { share.clamp(0.1, 0.9) } else { 0.5 };
    short.step * (share * (long.step / short.step).ln()).exp()
}

/// A step as it is stored, if it can be one.
pub(super) fn to_step(step: f64) -> Option<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "rounded, and then measured")]
    let step = step as f32;
    step.is_normal().then_some(step)
}
