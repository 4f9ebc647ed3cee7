//! The common step of a rate goal: as a model predicts it, set right by counting, or by counting alone.

use rayon::prelude::*;

use super::bounds::Entropies;
use super::calibration::Known;
use super::plan::{Found, LossyPlanner, Opened};
use super::rate::{self, Budget, RateUnit};
use super::settings::Goal;
use super::share_out::Waiting;
use crate::error::Result;
use crate::pipeline::timings::Step;
use crate::quantize::predictor::EntropyModel;

/// Times that tensors are counted.
const MAX_CALIBRATIONS: usize = 12;
/// Octaves between a step that is too short and one that is too long within which the rate is taken to leap.
const LEAST_WIDTH: f64 = 1e-4;
/// Bits an octave of the step, at most, by which a rate is taken to change.
const MAX_SLOPE: f64 = 8.0;
/// Share of the goal that the counted rate may then be off by. Nothing is taken as met that was not counted: of dependent
/// indices of values far from zero, a step 0.7 % longer has taken 2.3 % more bits.
const CALIBRATED: f64 = 0.004;
/// Whole blocks are counted where samples alone are this close to the goal, as a share of it.
const NEAR: f64 = 0.03;
/// Tensors alike of which some are counted whole for all, at least.
const LEAST_ALIKE: usize = 6;
/// How many of them are.
const N_COUNTED: usize = 3;
/// By how much what these fall short of samples may differ, as a share of their bits.
const MOST_SPREAD: f64 = 0.008;
/// Octaves within which whole blocks differ from their samples by about the same.
const REACH: f64 = 0.25;
/// Times that samples alone are looked at, at most.
const MAX_UNANCHORED: usize = 4;
/// The same as [`CALIBRATED`], after a whole encoding has shown what is not counted.
pub(super) const CORRECTED: f64 = 0.0003;

/// What calibration looks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aim {
    /// Bits that the tensors are to take.
    pub(super) bits: f64,
    /// By how much they may miss that, as a share.
    pub(super) tolerance: f64,
    /// Octaves of the step within which whole blocks are taken to differ from their samples by the same.
    pub(super) reach: f64,
}

/// A common step, and what tensors take at it, as far as it can be counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calibrated {
    pub(super) step: f64,
    pub(super) bits: f64,
}

/// Tensors of one shape and type that are quantized by one method, as the layers of a network are.
struct LikeTensors {
    /// Those that are counted whole, evenly spread.
    counted: Vec<usize>,
    others: Vec<usize>,
}

/// The tensors of which there are enough alike.
fn like_tensors(tensors: &[Waiting<'_>]) -> Vec<LikeTensors> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (idx, waiting) in tensors.iter().enumerate() {
        match groups.iter_mut().find(|group| tensors[group[0]].is_like(waiting)) {
            Some(group) => group.push(idx),
            None => groups.push(vec![idx]),
        }
    }
    groups.retain(|group| group.len() >= LEAST_ALIKE);
    let split = |group: Vec<usize>| {
        let is_counted =
            |place: &usize| (0..N_COUNTED).any(|nth| (2 * nth + 1) * group.len() / (2 * N_COUNTED) == *place);
        let (counted, others): (Vec<usize>, Vec<usize>) = (0..group.len()).partition(is_counted);
        let of = |places: Vec<usize>| places.into_iter().map(|place| group[place]).collect();
        LikeTensors { counted: of(counted), others: of(others) }
    };
    groups.into_iter().map(split).collect()
}

impl LossyPlanner<'_> {
    /// The step for `goal` that `model` leads to, floors and caps included, as set right by counting.
    pub(super) fn predict_step(
        &self,
        (goal, files): (Goal, &mut [(Vec<Found>, Opened)]),
        model: &dyn EntropyModel,
        units: &mut [RateUnit],
        budget: Budget,
        known: &mut Vec<Known>,
    ) -> Result<Option<Calibrated>> {
        self.choose_methods((goal, files), model, units, budget)?;
        let solve = |units: &[RateUnit], near| {
            self.memory
                .time(Step::Prediction, || rate::common_step(model, self.settings, units, budget, near))
        };
        let Some(mut step) = solve(units, None) else { return Ok(None) };
        if self.bound((goal, &mut *files), Entropies::Predicted(model), units, budget, step)? {
            match solve(units, Some(step)) {
                Some(bounded) => step = bounded,
                None => return Ok(None),
            }
        }
        let aim = Aim { bits: budget.bits, tolerance: CALIBRATED, reach: REACH };
        self.calibrate((goal, files), model, units, aim, step, known).map(Some)
    }

    /// The same without a model: everything is counted at every step that is tried.
    pub(super) fn count_step(
        &self,
        (goal, files): (Goal, &mut [(Vec<Found>, Opened)]),
        units: &mut [RateUnit],
        budget: Budget,
    ) -> Result<Option<Calibrated>> {
        let solve = |files: &[(Vec<Found>, Opened)], units: &[RateUnit], near| {
            let mut failed = None;
            let mut count = |step| {
                self.counted_bits((goal, files), units, step).unwrap_or_else(|e| {
                    failed = Some(e);
                    0.0
                })
            };
            let step = rate::counted_step(&mut count, units, budget, CALIBRATED, near);
            failed.map_or(Ok(step), Err)
        };
        let Some(mut step) = solve(files, units, None)? else { return Ok(None) };
        if self.bound((goal, &mut *files), Entropies::Counted, units, budget, step)? {
            match solve(files, units, Some(step))? {
                Some(bounded) => step = bounded,
                None => return Ok(None),
            }
        }
        Ok(Some(Calibrated { step, bits: budget.bits }))
    }

    /// The step for `goal` once more, from `step` on, which the model gave, after counting has shown by how much it is wrong:
    /// the one that is aimed at, if that is to be had. What is `known` of the tensors stays so.
    pub(super) fn calibrate(
        &self,
        (goal, files): (Goal, &[(Vec<Found>, Opened)]),
        model: &dyn EntropyModel,
        units: &[RateUnit],
        Aim { bits, tolerance, reach }: Aim,
        mut step: f64,
        known: &mut Vec<Known>,
    ) -> Result<Calibrated> {
        let n_elements: f64 = units.iter().map(|unit| unit.weight).sum();
        let mut tried: Vec<Calibrated> = Vec::new();
        // Steps known to be too short and too long.
        let (mut short, mut long) = (0.0, f64::INFINITY);
        // Octaves between them, the time before the last and the last time.
        let mut widths = [f64::INFINITY; 2];
        let mut is_counted = !known.is_empty();
        for round in 0..MAX_CALIBRATIONS {
            let mut found = self.stored_bits((goal, files), units, step, (known, None))?;
            let is_near = (found / bits - 1.0).abs() < NEAR || round >= MAX_UNANCHORED;
            let rests_on_whole = known.iter().all(|known| known.is_anchored(step, reach));
            if (is_near || is_counted) && !rests_on_whole {
                found = self.stored_bits((goal, files), units, step, (known, Some(reach)))?;
                if !is_counted {
                    // What samples alone said before is not to be held against that.
                    tried.clear();
                    (short, long, widths) = (0.0, f64::INFINITY, [f64::INFINITY; 2]);
                }
            }
            is_counted |= is_near || rests_on_whole;
            let found = Calibrated { step, bits: found };
            let error = (found.bits - bits) / n_elements;
            // One bit an octave where the rate is high, less where it is low; more where many elements leave the dead zone
            // at once.
            let slope = match tried.last() {
                Some(last) => (last.bits - found.bits) / n_elements / (step / last.step).log2(),
                None => self.memory.time(Step::Prediction, || rate::slope(model, self.settings, units, step)),
            };
            tried.push(found);
            if is_counted && (found.bits / bits - 1.0).abs() < tolerance {
                break;
            }
            if error > 0.0 {
                short = step;
            } else {
                long = step;
            }
            // Further each time that nothing is on the other side: there may be no slope for many octaves.
            let reach = (tried.len() as f64).exp2();
            step *= (error / slope.clamp(0.125, MAX_SLOPE)).clamp(-reach, reach).exp2();
            // Where the slope misleads, halving the interval does not.
            let width = (long / short).log2();
            if width.is_finite() && (step <= short || step >= long || width > widths[0] / 2.0) {
                step = (short * long).sqrt();
            }
            widths = [widths[1], width];
            if width < LEAST_WIDTH {
                break;
            }
        }
        let off = |found: &Calibrated| (found.bits - bits).abs();
        let best = tried.into_iter().min_by(|a, b| off(a).total_cmp(&off(b)));
        Ok(best.unwrap_or(Calibrated { step, bits }))
    }

    /// Bits that the tensors that wait for `goal`, which have `units`, take at the common `step`, by what is `known` of each and
    /// samples, and with whole blocks counted where none were within `reach` octaves, if there is one.
    pub(super) fn stored_bits(
        &self,
        (goal, files): (Goal, &[(Vec<Found>, Opened)]),
        units: &[RateUnit],
        step: f64,
        (known, reach): (&mut Vec<Known>, Option<f64>),
    ) -> Result<f64> {
        let tensors = self.waiting_with(goal, files, units);
        known.resize_with(tensors.len(), Known::default);
        let look = |known: &mut Vec<Known>, reaches: &[Option<f64>]| -> Result<f64> {
            let bits = |((Waiting { tensor, survey, method }, known), reach): (
                (&Waiting<'_>, &mut Known),
                &Option<f64>,
            )| {
                tensor.stored_bits(self.settings, (survey, *method), step, known, *reach)
            };
            let found: Vec<Result<f64>> = tensors.par_iter().zip(known).zip(reaches).map(bits).collect();
            // In order, so that the sum does not depend on the threads.
            found.into_iter().sum()
        };
        let Some(reach) = reach else { return look(known, &vec![None; tensors.len()]) };
        // Of like tensors a few are counted whole, and all if these differ.
        let groups = like_tensors(&tensors);
        let mut reaches = vec![Some(reach); tensors.len()];
        groups.iter().flat_map(|group| &group.others).for_each(|&idx| reaches[idx] = None);
        look(known, &reaches)?;
        for group in &groups {
            let shares: Vec<f64> = group.counted.iter().filter_map(|&idx| known[idx].short_share()).collect();
            if shares.is_empty() {
                // Short tensors, of which nothing is left to samples.
                continue;
            }
            let (least, most) =
                shares.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), share| {
                    (share.min(least), share.max(most))
                });
            for &idx in &group.others {
                if most - least <= MOST_SPREAD {
                    known[idx].assume(shares.iter().sum::<f64>() / shares.len() as f64);
                } else {
                    reaches[idx] = Some(reach);
                }
            }
        }
        look(known, &reaches)
    }

    /// [`Self::stored_bits`] without a model: everything is counted.
    fn counted_bits(
        &self,
        (goal, files): (Goal, &[(Vec<Found>, Opened)]),
        units: &[RateUnit],
        step: f64,
    ) -> Result<f64> {
        let tensors = self.waiting_with(goal, files, units);
        let bits = |waiting: &Waiting<'_>| waiting.tensor.counted_bits(&waiting.spec(self.settings, step)?);
        let found: Vec<Result<f64>> = tensors.par_iter().map(bits).collect();
        found.into_iter().sum()
    }
}
