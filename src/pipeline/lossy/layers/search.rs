//! Looking for the steps of each layer.

use rayon::prelude::*;

use super::{LayerGoal, LossySettings, Octaves};
use crate::checkpoint::BlockSpan;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::lossy::rate::RECORD_BYTES;
use crate::pipeline::lossy::tensor_source::TensorSource;
use crate::pipeline::timings::Step;
use crate::stage::LayerStep;

/// A block, what is known of it, and the steps that were found.
pub(super) struct Unit<'a> {
    tensor: TensorSource<'a>,
    span: BlockSpan,
    octaves: Option<Octaves>,
    steps: Vec<LayerStep>,
    /// Bytes that the layers so far take.
    bytes: f64,
}

/// What a step costs, as measured by coding.
#[derive(Debug, Clone, Copy)]
struct Trial {
    step: LayerStep,
    /// Bytes of the layer's record.
    bytes: u64,
    /// Sum of squares of the error that is left.
    error_sq: f64,
}

/// The bounds of a unit's step in a layer.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    least: u32,
    most: u32,
}

impl<'a> Unit<'a> {
    pub(super) fn new(tensor: TensorSource<'a>, span: BlockSpan) -> Self {
        Self { tensor, span, octaves: None, steps: Vec::new(), bytes: 0.0 }
    }

    pub(super) fn into_steps(self) -> Vec<LayerStep> {
        self.steps
    }

    fn n_elements(&self) -> usize {
        self.span.len / self.span.dtype.unit_bytes()
    }

    fn read(&self) -> Result<crate::pipeline::buffers::Buffer> {
        let mut bytes = self.tensor.memory.buffer(self.span.len);
        self.tensor.time(Step::Read, || self.tensor.source.read(self.span.offset, &mut bytes))?;
        Ok(bytes)
    }

    fn count(&mut self) -> Result<()> {
        let bytes = self.read()?;
        self.octaves = self.tensor.time(Step::Statistics, || Octaves::count(self.span.dtype, &bytes));
        self.tensor.memory.give_back(bytes);
        Ok(())
    }

    /// The steps at the cap and at the floor of a layer of `goal` bits an element; those of the dtype without
    /// `settings`.
    fn bounds(&self, settings: Option<&LossySettings>, goal: f64) -> Bounds {
        let Some(octaves) = &self.octaves else { return Bounds { least: 0, most: 0 } };
        let Some(settings) = settings else {
            return Bounds { least: 0, most: LayerStep::largest(self.span.dtype).unwrap_or(0).into() };
        };
        let n_elements = octaves.n_elements() as f64;
        let element_bits = self.span.dtype.element_bits() as f64;
        let most = octaves.step_of_bits(settings.min_bits * goal * n_elements);
        let least = octaves.step_of_bits(settings.max_bits * element_bits * n_elements);
        Bounds { least: least.min(most), most }
    }

    /// The step of this unit where the common one is 2^`log2`.
    fn step(&self, bounds: Bounds, log2: i64) -> LayerStep {
        let own = log2 - i64::from(LayerStep::log2_of_least(self.span.dtype));
        let own = own.clamp(bounds.least.into(), bounds.most.into());
        let log2 = u16::try_from(own).unwrap_or(0);
        let whole = LayerStep { log2, finer_len: self.n_elements() };
        match self.steps.last() {
            Some(before) if log2 > before.log2 => *before,
            // A refinement gives no element so many bits that its cell would have no index.
            Some(before) => LayerStep { log2: log2.max(before.log2.saturating_sub(MAX_OCTAVES)), ..whole },
            None => whole,
        }
    }

    /// Codes the next layer by `step`.
    fn try_step(&self, step: LayerStep) -> Result<Trial> {
        let mut bytes = self.read()?;
        let mut payload = Vec::new();
        let dtype = self.span.dtype;
        let (_, loss) = self.tensor.with_trial_encoder(|encoder| {
            self.tensor.time(Step::Quantization, || match self.steps.last() {
                None => encoder.encode_coarse(step, dtype, &mut bytes, &mut payload),
                Some(before) => encoder.encode_refined(*before, Some(step), dtype, &mut bytes, &mut payload),
            })
        });
        self.tensor.memory.give_back(bytes);
        Ok(Trial { step, bytes: payload.len() as u64 + RECORD_BYTES, error_sq: loss.errors.error_sq })
    }

    fn expected_bits(&self, step: LayerStep) -> f64 {
        self.octaves.as_ref().map_or(0.0, |octaves| octaves.bits(step.log2.into()))
            + 8.0 * RECORD_BYTES as f64
    }
}

/// Most octaves that a layer refines the one before by.
const MAX_OCTAVES: u16 = 20;
/// The common step lies between two to these powers.
const STEPS_LOG2: std::ops::RangeInclusive<i64> = -1080..=1030;

/// Finds the steps of all layers that are not exact.
pub(super) fn find_steps(settings: &LossySettings, units: &mut [Unit<'_>]) -> Result<()> {
    let counted: Vec<Result<()>> = units.par_iter_mut().with_max_len(1).map(Unit::count).collect();
    counted.into_iter().collect::<Result<()>>()?;
    for goal in &settings.layers {
        if let LayerGoal::Bits(bits) = goal
            && !units.is_empty()
        {
            // Where floors ask for more than there is, there are none.
            let found = Layer::new(Some(settings), units, *bits).find(units)?
                || Layer::new(None, units, *bits).find(units)?;
            found.then_some(()).ok_or_else(|| unreachable(*bits))?;
        }
    }
    Ok(())
}

/// The search for the steps of one layer.
struct Layer {
    bounds: Vec<Bounds>,
    /// Bytes that all layers up to this one may take.
    budget: f64,
}

impl Layer {
    fn new(settings: Option<&LossySettings>, units: &[Unit<'_>], goal: f64) -> Self {
        let bounds = units.par_iter().map(|unit| unit.bounds(settings, goal)).collect();
        let n_elements: usize = units.iter().map(Unit::n_elements).sum();
        Self { bounds, budget: goal * n_elements as f64 / 8.0 }
    }

    fn steps<'u>(&'u self, units: &'u [Unit<'_>], log2: i64) -> impl Iterator<Item = LayerStep> + 'u {
        units.iter().zip(&self.bounds).map(move |(unit, bounds)| unit.step(*bounds, log2))
    }

    /// The smallest common step whose expected rate is within the budget.
    fn start(&self, units: &[Unit<'_>]) -> i64 {
        let expected = |log2| -> f64 {
            self.steps(units, log2).zip(units).map(|(step, unit)| unit.expected_bits(step)).sum::<f64>() / 8.0
        };
        let (mut low, mut high) = (*STEPS_LOG2.start(), *STEPS_LOG2.end());
        while low + 1 < high {
            let middle = low.midpoint(high);
            if expected(middle) > self.budget { low = middle } else { high = middle }
        }
        high
    }

    /// Measures every unit at a common step, but those whose step is the same as in `known`.
    fn measure(&self, units: &[Unit<'_>], log2: i64, known: &[Trial]) -> Result<Vec<Trial>> {
        let steps: Vec<LayerStep> = self.steps(units, log2).collect();
        let measure = |(place, (unit, step)): (usize, (&Unit<'_>, &LayerStep))| match known.get(place) {
            Some(trial) if trial.step == *step => Ok(*trial),
            _ => unit.try_step(*step),
        };
        let found: Vec<Result<Trial>> =
            units.par_iter().zip(&steps).enumerate().with_max_len(1).map(measure).collect();
        found.into_iter().collect()
    }

    /// Finds the step of each unit and books its bytes; `false`, and nothing booked, where even the coarsest steps take
    /// too much.
    fn find(&self, units: &mut [Unit<'_>]) -> Result<bool> {
        let before: f64 = units.iter().map(|unit| unit.bytes).sum();
        let total = |trials: &[Trial]| before + trials.iter().map(|trial| trial.bytes as f64).sum::<f64>();
        let mut log2 = self.start(units);
        let mut trials = self.measure(units, log2, &[])?;
        let (fine, coarse) = if total(&trials) > self.budget {
            loop {
                log2 += 1;
                let coarser = self.measure(units, log2, &trials)?;
                if total(&coarser) <= self.budget {
                    break (trials, coarser);
                }
                if log2 > *STEPS_LOG2.end() {
                    return Ok(false);
                }
                trials = coarser;
            }
        } else {
            loop {
                log2 -= 1;
                let finer = self.measure(units, log2, &trials)?;
                // In the end everything is as fine as it may be.
                if total(&finer) > self.budget || log2 < *STEPS_LOG2.start() {
                    break (finer, trials);
                }
                trials = finer;
            }
        };
        for (unit, (step, bytes)) in
            units.iter_mut().zip(self.mix(&fine, &coarse, self.budget - total(&coarse)))
        {
            unit.steps.push(step);
            unit.bytes += bytes;
        }
        Ok(true)
    }

    /// Gives the finer step to units, best first, until `left` bytes are spent; the last of them gets it in part.
    fn mix(&self, fine: &[Trial], coarse: &[Trial], mut left: f64) -> Vec<(LayerStep, f64)> {
        let mut chosen: Vec<(LayerStep, f64)> =
            coarse.iter().map(|trial| (trial.step, trial.bytes as f64)).collect();
        let gain = |place: usize| {
            let (fine, coarse) = (&fine[place], &coarse[place]);
            (coarse.error_sq - fine.error_sq) / (fine.bytes as f64 - coarse.bytes as f64).max(1.0)
        };
        let mut order: Vec<usize> =
            (0..fine.len()).filter(|place| fine[*place].step != coarse[*place].step).collect();
        order.sort_by(|a, b| gain(*b).total_cmp(&gain(*a)).then(a.cmp(b)));
        for place in order {
            let (fine, coarse) = (&fine[place], &coarse[place]);
            let cost = fine.bytes as f64 - coarse.bytes as f64;
            if cost <= left {
                chosen[place] = (fine.step, fine.bytes as f64);
                left -= cost;
                continue;
            }
            let share = left / cost;
            // The elements that are not finer yet, were all of them of the coarser trial's step.
            let already = if coarse.step.log2 == fine.step.log2 { coarse.step.finer_len } else { 0 };
            let open = fine.step.finer_len - already;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a block's length"
            )]
            let more = (share * open as f64) as usize;
            let finer_len = already + more.min(open) / SPLIT_GRAIN * SPLIT_GRAIN;
            chosen[place] = (LayerStep { finer_len, ..fine.step }, coarse.bytes as f64 + share * cost);
            break;
        }
        chosen
    }
}

fn unreachable(bits: f64) -> Error {
    let message = format!("no step leads to a layer of {bits} bits an element; ask for more");
    Error::new(ErrorKind::InvalidConfig, message)
}

/// A block is split at a multiple of so many elements.
const SPLIT_GRAIN: usize = 64;
