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
use crate::quantize::elementary::log2;
use crate::quantize::predictor::{EntropyModel, Unit};
use crate::stage::ChannelSteps;

/// Elements of a unit: as many as share a table of the index coder, which is what its rate depends on.
pub(super) const UNIT_LEN: usize = 1024;
/// Most units that are kept in memory, 0.6 KB each, but for one of each tensor.
const MAX_KEPT_UNITS: u64 = 1 << 16;
/// Most units that the rate is predicted for at every step that is tried; of more, evenly spread ones.
pub(super) const MAX_UNITS: usize = 2048;
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
const ROUGH_TOLERANCE: f64 = 0.03;
/// Units that are asked for a slope, or first.
const MAX_ROUGH_UNITS: usize = 512;

/// A unit of a tensor, the channels that it covers, and the multiplier of its step.
#[derive(Debug, Clone)]
pub(super) struct RateUnit {
    pub(super) unit: Unit,
    /// The element of the tensor that it begins with.
    pub(super) first_element: u64,
    /// Elements, the ones that are not finite included.
    pub(super) n_elements: u64,
    /// Elements that it stands for, where not all units are kept.
    pub(super) weight: f64,
    /// Bits of an element as it is.
    pub(super) element_bits: f64,
    /// Times the common step.
    pub(super) multiplier: f64,
    /// How the tensor's indices are chosen.
    pub(super) method: Method,
}

impl RateUnit {
    /// Stored bits of an element that `model` predicts where the common step is `step` and the unit has `multiplier`.
    fn bits(&self, model: &dyn EntropyModel, common: Method, step: f64, multiplier: f64) -> f64 {
        let plain = model.bits(&self.unit, step * self.method.step_beside(common) * multiplier);
        self.method.coded_bits(plain)
    }

    /// The same with the unit's own multiplier.
    pub(super) fn bits_per_element(&self, model: &dyn EntropyModel, common: Method, step: f64) -> f64 {
        self.bits(model, common, step, self.multiplier)
    }
}

/// One unit in this many is kept, of tensors of `n_elements` in all.
pub(super) fn keep_one_in(n_elements: u64) -> u64 {
    (n_elements / UNIT_LEN as u64).div_ceil(MAX_KEPT_UNITS).max(1)
}

/// One in so many of `n` units is asked where at most `most` are to be.
fn stride(n: usize, most: usize) -> usize {
    n.div_ceil(most).max(1)
}

/// Predicted bits an element of `units` at `step`, by at most `max_units` of them.
pub(super) fn predicted_rate(
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

/// Bits an element that are left for indices, and a step that is not far from what they need.
fn goal_and_start(units: &[RateUnit], budget: Budget) -> Option<(f64, f64)> {
    let n_elements: f64 = units.iter().map(|unit| unit.weight).sum();
    let energy = |unit: &RateUnit| {
        let moments = &unit.unit.moments;
        unit.weight * (moments.variance() + moments.mean * moments.mean)
    };
    let energy: f64 = units.iter().map(energy).sum();
    let goal = (budget.bits - budget.n_blocks as f64 * BLOCK_BITS) / n_elements;
    // Of Gaussian elements: entropy is 2.05 bits at a step of one standard deviation.
    let start = (energy / n_elements).sqrt() * (2.05 - goal).exp2();
    (goal > 0.0 && energy > 0.0).then_some((goal, start))
}

/// The common step, that of the method that is best of the run's quantizer, at which `units` are predicted to take the
/// bits of `budget`; `None` where no step does. Units keep their multipliers.
pub(super) fn common_step(
    model: &dyn EntropyModel,
    settings: &LossySettings,
    units: &[RateUnit],
    budget: Budget,
) -> Option<f64> {
    let (goal, start) = goal_and_start(units, budget)?;
    let common = Method::best_of(settings.quantizer);
    let few = &mut |step| predicted_rate(model, common, units, step, MAX_ROUGH_UNITS);
    let rough = find(few, (start, 1.0), goal, ROUGH_TOLERANCE)?;
    common_step_near(model, settings, units, budget, rough)
}

/// [`common_step`] where it is known roughly.
fn common_step_near(
    model: &dyn EntropyModel,
    settings: &LossySettings,
    units: &[RateUnit],
    budget: Budget,
    rough: f64,
) -> Option<f64> {
    let (goal, _) = goal_and_start(units, budget)?;
    let common = Method::best_of(settings.quantizer);
    let all = &mut |step| predicted_rate(model, common, units, step, MAX_UNITS);
    find(all, (rough, slope(model, settings, units, rough)), goal, TOLERANCE)
}

/// As [`common_step`], after units beyond a floor or a cap have got multipliers.
pub(super) fn solve(
    model: &dyn EntropyModel,
    settings: &LossySettings,
    units: &mut [RateUnit],
    budget: Budget,
) -> Option<f64> {
    let step = common_step(model, settings, units, budget)?;
    let (goal, _) = goal_and_start(units, budget)?;
    let all_are_kept = units.iter().all(|unit| unit.weight == unit.n_elements as f64);
    if all_are_kept && bound_units(model, settings, units, step, goal) {
        return common_step_near(model, settings, units, budget, step);
    }
    Some(step)
}

/// As [`solve`] without floors and caps, but `counted` says how many bits the tensors take at a step, and the step found
/// is the one where they take those of `budget` to within `tolerance`, a share: what the models are to be measured
/// against.
pub(super) fn solve_by_counting(
    counted: &mut dyn FnMut(f64) -> f64,
    units: &[RateUnit],
    budget: Budget,
    tolerance: f64,
) -> Option<f64> {
    let (_, start) = goal_and_start(units, budget)?;
    let n_elements: f64 = units.iter().map(|unit| unit.weight).sum();
    let goal = budget.bits / n_elements;
    find(&mut |step| counted(step) / n_elements, (start, 1.0), goal, tolerance * goal)
}

/// Bits by which the predicted rate of `units` falls where the step doubles; never below an eighth for each of the elements.
pub(super) fn slope(
    model: &dyn EntropyModel,
    settings: &LossySettings,
    units: &[RateUnit],
    step: f64,
) -> f64 {
    let common = Method::best_of(settings.quantizer);
    let at = |octaves: f64| predicted_rate(model, common, units, step * octaves.exp2(), MAX_ROUGH_UNITS);
    ((at(-0.125) - at(0.125)) / 0.25).max(0.125)
}

/// The step at which `rate` is within `tolerance` of `goal` bits an element, from a start on where the rate falls by some
/// bits an octave.
fn find(
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

/// Whether `unit` surely takes more bits at the common `step` than `floor` and fewer than `cap`: most units do, and no model
/// need be asked.
fn is_well_within(unit: &RateUnit, common: Method, step: f64, floor: f64, cap: f64) -> bool {
    /// Of normal and of Laplacian elements the entropy is this much above the logarithm of their mean magnitude in steps.
    const ABOVE_MAGNITUDE: f64 = 2.4;
    /// Others of as little kurtosis are hardly further from that, but for those of few values, which no step helps.
    const MARGIN: f64 = 1.5;
    /// Of nine zeros beside each normal element it is 30.
    const MOST_KURTOSIS: f64 = 12.0;
    let Unit { moments, .. } = &unit.unit;
    let steps = moments.mean_abs() / (step * unit.method.step_beside(common));
    let bits = unit.method.coded_bits(ABOVE_MAGNITUDE + log2(steps));
    moments.kurtosis() < MOST_KURTOSIS && bits > floor + MARGIN && bits < cap - MARGIN
}

/// Gives units beyond the floor or the cap a step of their own; says whether there were any.
fn bound_units(
    model: &dyn EntropyModel,
    settings: &LossySettings,
    units: &mut [RateUnit],
    step: f64,
    goal: f64,
) -> bool {
    let floor = settings.min_bits * goal;
    let common = Method::best_of(settings.quantizer);
    let bound = |unit: &mut RateUnit| {
        let cap = settings.max_bits * unit.element_bits;
        let is_constant = unit.unit.moments.min == unit.unit.moments.max;
        if is_constant || is_well_within(unit, common, step, floor, cap) {
            return false;
        }
        let bits = |multiplier: f64| unit.bits(model, common, step, multiplier);
        let now = bits(1.0);
        let aim = if now < floor { floor } else { cap };
        if (floor..=cap).contains(&now) {
            return false;
        }
        // Of most distributions the rate falls by a bit where the step doubles.
        let start = ((now - aim).exp2(), 1.0);
        let found = find(&mut |multiplier| bits(multiplier), start, aim, ROUGH_TOLERANCE);
        unit.multiplier = found.unwrap_or(1.0);
        found.is_some()
    };
    units.iter_mut().map(bound).fold(false, |any, bound| any | bound)
}

/// The multipliers of the channels of a tensor, if any is not 1. Where a channel has several units, the finest counts.
pub(super) fn channel_steps(units: &[RateUnit], inner_len: usize, n_channels: usize) -> Option<ChannelSteps> {
    if units.iter().all(|unit| unit.multiplier == 1.0) {
        return None;
    }
    let inner = inner_len.max(1) as u64;
    let mut multipliers = vec![f64::INFINITY; n_channels];
    for unit in units {
        let last = unit.first_element + unit.n_elements.max(1) - 1;
        for channel in unit.first_element / inner..=last / inner {
            let channel = usize::try_from(channel % n_channels as u64).unwrap_or(0);
            if let Some(multiplier) = multipliers.get_mut(channel) {
                *multiplier = multiplier.min(unit.multiplier);
            }
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "rounded to 8 bits right away")]
    let bits = |multiplier: &f64| ChannelSteps::multiplier_bits(multiplier.min(1e30) as f32);
    Some(ChannelSteps { inner_len, multipliers: multipliers.iter().map(bits).collect() })
}
