//! Rate control: one step for all tensors with the same rate goal, from predicted entropies.
//!
//! With squared error as the measure, bits are best spent where every element has the same slope of error over bits.
//! For uniform quantizers that is where all have the same step (H. Gish, J. N. Pierce, "Asymptotically efficient
//! quantizing", 1968): a channel of small elements then gets few bits, or none. So there is one step to find for all
//! tensors together, the one at which the predicted bits are those asked for; floors and caps change it for single
//! channels.

use rayon::prelude::*;

use super::method::Method;
use super::settings::LossySettings;
use super::survey::UNIT_LEN;
use crate::quantize::predictor::{EntropyModel, Unit};

/// Header and index entry of a record, in bytes.
pub(super) const RECORD_BYTES: u64 = 32 + INDEX_ENTRY_BYTES;
/// The latter alone.
pub(super) const INDEX_ENTRY_BYTES: u64 = 12;
/// What a block takes besides its indices, in bits: record, header, states, and tables of about 80 bytes.
pub(super) const BLOCK_BITS: f64 = 8.0 * (RECORD_BYTES as f64 + 12.0 + 128.0 + 80.0);
/// Rounds of looking for the step.
const MAX_ROUNDS: usize = 40;
/// The predicted rate is then this close to the goal, in bits an element; samples make it closer.
const TOLERANCE: f64 = 4e-3;
/// The same where few units are asked first, and of floors and caps.
pub(super) const ROUGH_TOLERANCE: f64 = 0.03;
/// Units that are asked first.
const MAX_ROUGH_UNITS: usize = 512;
/// Units that are asked for a slope.
const MAX_SLOPE_UNITS: usize = 128;

/// A unit of a tensor that a model is asked about, and the multiplier of its step.
#[derive(Debug, Clone)]
pub(super) struct RateUnit {
    pub(super) unit: Unit,
    /// The element of the tensor that it begins with.
    pub(super) first_element: u64,
    /// Elements that it stands for, of those between it and the next.
    pub(super) weight: f64,
    /// Times the common step.
    pub(super) multiplier: f64,
    /// How the tensor's indices are chosen.
    pub(super) method: Method,
}

impl RateUnit {
    /// Its place among the units of its tensor.
    pub(super) fn unit_idx(&self) -> usize {
        usize::try_from(self.first_element).unwrap_or(usize::MAX) / UNIT_LEN
    }

    /// Stored bits of an element that `model` predicts where the common step is `step`.
    fn bits_per_element(&self, model: &dyn EntropyModel, common: Method, step: f64) -> f64 {
        let plain = model.bits(&self.unit, step * self.method.step_beside(common) * self.multiplier);
        self.method.coded_bits(plain)
    }
}

/// One in so many of `n` units is asked where at most `most` are to be.
fn stride(n: usize, most: usize) -> usize {
    n.div_ceil(most).max(1)
}

/// Predicted bits an element of `units` at `step`, by at most `max_units` of them.
fn predicted_rate(
    model: &dyn EntropyModel,
    common: Method,
    units: &[RateUnit],
    step: f64,
    max_units: usize,
) -> f64 {
    let bits: Vec<(f64, f64)> = units
        .par_iter()
        .step_by(stride(units.len(), max_units))
        .with_min_len(16)
        .map(|unit| (unit.bits_per_element(model, common, step) * unit.weight, unit.weight))
        .collect();
    // In order, so that the sum does not depend on the threads.
    let (bits, n_elements) = bits.iter().fold((0.0, 0.0), |(bits, n), unit| (bits + unit.0, n + unit.1));
    if n_elements > 0.0 { bits / n_elements } else { 0.0 }
}

/// What to share among units.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Bits for all elements, everything included.
    pub(super) bits: f64,
    /// Blocks that the elements make.
    pub(super) n_blocks: u64,
}

/// [`mean_bits`], and a step that is not far from what they need.
fn goal_and_start(units: &[RateUnit], budget: Budget) -> Option<(f64, f64)> {
    let n_elements: f64 = units.iter().map(|unit| unit.weight).sum();
    let goal = mean_bits(units, budget);
    let energy = |unit: &RateUnit| {
        let moments = &unit.unit.moments;
        unit.weight * (moments.variance() + moments.mean * moments.mean)
    };
    let energy: f64 = units.iter().map(energy).sum();
    // Of Gaussian elements: entropy is 2.05 bits at a step of one standard deviation.
    let start = (energy / n_elements).sqrt() * (2.05 - goal).exp2();
    (goal > 0.0 && energy > 0.0).then_some((goal, start))
}

/// Bits an element that are left for indices in `budget`, of all that `units` stand for.
pub(super) fn mean_bits(units: &[RateUnit], budget: Budget) -> f64 {
    let n_elements: f64 = units.iter().map(|unit| unit.weight).sum();
    (budget.bits - budget.n_blocks as f64 * BLOCK_BITS) / n_elements
}

/// The common step, that of the method that is best of the run's quantizer, at which `units` with their multipliers are
/// predicted to take the bits of `budget`; `None` where no step does. `near` is a step that is known not to be far from it.
pub(super) fn common_step(
    model: &dyn EntropyModel,
    settings: &LossySettings,
    units: &[RateUnit],
    budget: Budget,
    near: Option<f64>,
) -> Option<f64> {
    let (goal, start) = goal_and_start(units, budget)?;
    let common = Method::best_of(settings.quantizer);
    let few = &mut |step| predicted_rate(model, common, units, step, MAX_ROUGH_UNITS);
    let rough = near.or_else(|| find(few, (start, 1.0), goal, ROUGH_TOLERANCE))?;
    let all = &mut |step| predicted_rate(model, common, units, step, units.len());
    find(all, (rough, slope(model, settings, units, rough)), goal, TOLERANCE)
}

/// As [`common_step`], but `counted` says how many bits the tensors take at a step, and the step found is the one where they
/// take those of `budget` to within `tolerance`, a share: what the models are to be measured against.
pub(super) fn counted_step(
    counted: &mut dyn FnMut(f64) -> f64,
    units: &[RateUnit],
    budget: Budget,
    tolerance: f64,
    near: Option<f64>,
) -> Option<f64> {
    let (_, start) = goal_and_start(units, budget)?;
    let n_elements: f64 = units.iter().map(|unit| unit.weight).sum();
    let goal = budget.bits / n_elements;
    let rate = &mut |step| counted(step) / n_elements;
    find(rate, (near.unwrap_or(start), 1.0), goal, tolerance * goal)
}

/// Bits by which the predicted rate of `units` falls where the step doubles; never below an eighth for each of the elements.
pub(super) fn slope(
    model: &dyn EntropyModel,
    settings: &LossySettings,
    units: &[RateUnit],
    step: f64,
) -> f64 {
    let common = Method::best_of(settings.quantizer);
    let at = |octaves: f64| predicted_rate(model, common, units, step * octaves.exp2(), MAX_SLOPE_UNITS);
    ((at(-0.125) - at(0.125)) / 0.25).max(0.125)
}

/// The step at which `rate` is within `tolerance` of `goal` bits an element, from a start on where the rate falls by some
/// bits an octave.
pub(super) fn find(
    rate: &mut dyn FnMut(f64) -> f64,
    (start, first_slope): (f64, f64),
    goal: f64,
    tolerance: f64,
) -> Option<f64> {
    // log2 of steps with too many and too few bits.
    let (mut finer, mut coarser): (Option<f64>, Option<f64>) = (None, None);
    let mut at = start.log2();
    let mut last: Option<(f64, f64)> = None;
    for _ in 0..MAX_ROUNDS {
        let excess = rate(at.exp2()) - goal;
        if excess.abs() < tolerance {
            return Some(at.exp2());
        }
        if excess > 0.0 {
            finer = Some(at);
        } else {
            coarser = Some(at);
        }
        // One bit an octave where the rate is high, less where it is low, as the last two show.
        let slope =
            last.map_or(first_slope, |(last_at, last_excess)| (last_excess - excess) / (at - last_at));
        let slope = if slope.is_finite() { slope.clamp(0.1, 2.0) } else { 1.0 };
        let newton = at + (excess / slope).clamp(-6.0, 6.0);
        last = Some((at, excess));
        at = match (finer, coarser) {
            (Some(finer), Some(coarser)) if newton <= finer || newton >= coarser => (finer + coarser) / 2.0,
            _ => newton,
        };
        if !at.is_finite() || at.abs() > 140.0 {
            return None;
        }
    }
    Some(at.exp2())
}
