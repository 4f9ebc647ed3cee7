//! The plan of a lossy run: for every tensor that may change, the step that was found for it.
//!
//! A step for an error goal is tried on the whole tensor, the error measured on reconstructed elements, and refined
//! until the goal holds; a tensor for which it cannot hold stays exact.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::fit::Fitter;
use super::method::Method;
use super::prune::{Fitted, Saving};
use super::rate::{self, Budget, RateUnit};
use super::series::PruneSeries;
use super::settings::{Goal, LossySettings, LossyTreatment, RateModel};
use super::tensor_source::{Survey, TensorSource};
use crate::checkpoint::{SafetensorsHeader, TensorInfo};
use crate::container::{GoalKind, TensorLoss};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::context::{Checkout, Context};
use crate::pipeline::encode::EncodeMemory;
use crate::pipeline::predict::predict_file;
use crate::pipeline::settings::CodingSettings;
use crate::pipeline::source::Source;
use crate::pipeline::timings::Step;
use crate::pipeline::tree::SourceFile;
use crate::quantize::predictor::EntropyModel;
use crate::stage::{BlockLoss, Choice, QuantSpec};

/// Times that samples are asked how far a model is off.
const MAX_CALIBRATIONS: usize = 6;
/// Share of the goal that the rate of the samples may then be off by.
const CALIBRATED: f64 = 0.002;
/// The same, after a whole encoding has shown what the samples do not.
const CORRECTED: f64 = 0.0003;

/// A tensor that may change.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Position in the checkpoint, by the order of bytes.
    pub(crate) tensor_idx: u32,
    /// The tensor.
    pub(crate) info: TensorInfo,
    /// Its element type.
    pub(crate) dtype: Dtype,
    /// What it must keep to.
    pub(crate) goal: Goal,
    /// How it is treated.
    pub(crate) treatment: LossyTreatment,
}

/// What was decided for a candidate.
#[derive(Debug, Clone)]
pub(crate) struct TensorPlan {
    /// The tensor.
    pub(crate) candidate: Candidate,
    /// How it is quantized; `None` where it stays exact.
    pub(crate) spec: Option<QuantSpec>,
    /// What pruning saves; nothing where it was not to be.
    pub(crate) saving: Saving,
}

impl TensorPlan {
    /// The row of the loss table, with what encoding has measured.
    pub(crate) fn loss(&self, measured: &BlockLoss) -> TensorLoss {
        TensorLoss {
            tensor_idx: self.candidate.tensor_idx,
            is_exact: self.spec.is_none(),
            is_dependent: self.spec.as_ref().is_some_and(|spec| matches!(spec.choice, Choice::Trellis(_))),
            is_log: self.spec.as_ref().is_some_and(|spec| spec.domain == crate::stage::Domain::Log2),
            goal: self.candidate.goal.kind(),
            goal_value: to_f32(self.candidate.goal.value()),
            step: self.spec.as_ref().map_or(0.0, |spec| spec.step),
            ..measured_row(measured)
        }
    }

    /// Whether what encoding has measured keeps to the goal; rate goals have no bound on the error.
    pub(crate) fn holds(&self, measured: &BlockLoss) -> bool {
        match self.candidate.goal {
            Goal::MaxAbsError(bound) => measured.errors.max_abs <= bound,
            Goal::MaxRelError(bound) => measured.max_scaled <= bound,
            Goal::RelL2(bound) => measured.errors.relative_l2() <= bound,
            Goal::Bits(_) | Goal::Ratio(_) => true,
        }
    }
}

/// A row of the loss table that says what was measured, and nothing else.
pub(super) fn measured_row(measured: &BlockLoss) -> TensorLoss {
    let errors = &measured.errors;
    let n_elements = errors.n_elements.max(1) as f64;
    TensorLoss {
        tensor_idx: 0,
        is_exact: false,
        is_dependent: false,
        is_log: false,
        goal: GoalKind::Bits,
        goal_value: 0.0,
        step: 0.0,
        max_abs_error: to_f32(errors.max_abs),
        error_rms: to_f32((errors.error_sq / n_elements).sqrt()),
        signal_rms: to_f32((errors.value_sq / n_elements).sqrt()),
        newly_zero: errors.n_zeroed,
        zeros: measured.zeros,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a report of an error, not the error")]
pub(super) fn to_f32(value: f64) -> f32 {
    value.min(f64::from(f32::MAX)) as f32
}

/// The plan of one file.
#[derive(Debug, Clone, Default)]
pub(crate) struct FilePlan {
    /// Tensors with a lossy goal, in the order of their bytes.
    pub(crate) tensors: Vec<TensorPlan>,
}

impl FilePlan {
    /// The position and plan of the tensor that holds the file's byte `offset`.
    pub(crate) fn at(&self, offset: u64) -> Option<(usize, &TensorPlan)> {
        let place = self.tensors.partition_point(|tensor| tensor.candidate.info.start <= offset);
        let place = place.checked_sub(1)?;
        self.tensors
            .get(place)
            .filter(|tensor| offset < tensor.candidate.info.end)
            .map(|tensor| (place, tensor))
    }

    /// Whether `tensor` is stored apart from its neighbours.
    pub(crate) fn quantizes(&self, tensor: &TensorInfo) -> bool {
        self.at(tensor.start).is_some_and(|(_, plan)| plan.spec.is_some())
    }

    /// A digest of every decision, so that a resumed run can tell whether an archive was made by the same.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for tensor in &self.tensors {
            let decided = (tensor.candidate.tensor_idx, tensor.candidate.goal, &tensor.spec);
            hasher.update(format!("{decided:?}").as_bytes());
        }
        hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

/// The plans of a run by file number; an error where a file cannot be planned.
pub(crate) type Plans = HashMap<usize, Result<FilePlan>>;

/// The series of pruned checkpoints with the run of `plans` in it; `None` of a run that had nothing to prune.
pub(crate) fn series_after(settings: &LossySettings, plans: &Plans) -> Option<PruneSeries> {
    let mut file_idxs: Vec<usize> = plans.keys().copied().collect();
    // In order, so that the sum does not depend on the map's.
    file_idxs.sort_unstable();
    let mut total = Saving::default();
    for plan in file_idxs.iter().filter_map(|file_idx| plans.get(file_idx)?.as_ref().ok()) {
        plan.tensors.iter().for_each(|tensor| total.add(&tensor.saving));
    }
    Some(settings.series().scored(total.score()?))
}

/// Plans the files of a lossy run.
pub(crate) struct LossyPlanner<'a> {
    pub(crate) ctx: &'a Context<'a>,
    pub(crate) memory: &'a EncodeMemory,
    pub(crate) files: &'a [SourceFile],
    pub(crate) coding: &'a CodingSettings,
    pub(crate) settings: &'a LossySettings,
}

/// A file with tensors that may change.
struct Opened {
    file_idx: usize,
    source: Source,
    candidates: Vec<Candidate>,
}

/// What is known of a candidate before steps are shared out.
enum Found {
    /// The plan, from the tensor's own goal.
    Planned(Box<Fitted>),
    /// What a rate goal needs.
    Surveyed(Survey),
}

impl LossyPlanner<'_> {
    /// Plans every checkpoint of the run. A file whose header cannot be read has no plan; its own turn will bring the
    /// error.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a rate goal that cannot be reached.
    pub(crate) fn plan(&self) -> Result<Plans> {
        let mut plans = Plans::new();
        let mut opened = Vec::new();
        for file_idx in 0..self.files.len() {
            match self.open(file_idx) {
                Ok(file) => opened.extend(file),
                Err(error) => {
                    plans.insert(file_idx, Err(error));
                }
            }
        }
        let candidates = opened.iter().flat_map(|file| &file.candidates);
        let n_elements = candidates.map(|candidate| candidate.info.n_elements()).sum();
        let keep_one_in = rate::keep_one_in(n_elements);
        let mut found = Vec::new();
        for file in opened {
            match self.survey(&file, keep_one_in) {
                Ok(tensors) => found.push((tensors, file)),
                Err(error) => {
                    plans.insert(file.file_idx, Err(error));
                }
            }
        }
        self.share_out(&mut found)?;
        for (tensors, opened) in found {
            let planned = opened.candidates.into_iter().zip(tensors).map(|(candidate, found)| {
                let Fitted { spec, saving } = match found {
                    Found::Planned(fitted) => *fitted,
                    Found::Surveyed(_) => Fitted::default(),
                };
                TensorPlan { candidate, spec, saving }
            });
            plans.insert(opened.file_idx, Ok(FilePlan { tensors: planned.collect() }));
        }
        Ok(plans)
    }

    /// Opens a file with tensors that may change; `None` of a file without any.
    fn open(&self, file_idx: usize) -> Result<Option<Opened>> {
        let file = &self.files[file_idx];
        let source = Source::open(&file.source, file.size)?;
        let Some(header) = source.checkpoint_header(&file.path, &self.ctx.limits) else { return Ok(None) };
        let candidates = self.candidates_of(&header);
        Ok((!candidates.is_empty()).then_some(Opened { file_idx, source, candidates }))
    }

    fn candidates_of(&self, header: &SafetensorsHeader) -> Vec<Candidate> {
        let candidate = |(tensor_idx, info): (u32, &TensorInfo)| {
            let (goal, treatment) = self.settings.treatment(info)?;
            Some(Candidate { tensor_idx, info: info.clone(), dtype: info.dtype?, goal, treatment })
        };
        (0..).zip(header.tensors()).filter_map(candidate).collect()
    }

    fn tensor<'t>(&'t self, source: &'t Source, candidate: &'t Candidate) -> TensorSource<'t> {
        TensorSource { ctx: self.ctx, memory: self.memory, source, candidate, booked_on: None }
    }

    /// Plans the tensors that have a goal of their own, and measures the others.
    fn survey(&self, file: &Opened, keep_one_in: u64) -> Result<Vec<Found>> {
        let survey = |candidate: &Candidate| -> Result<Found> {
            let tensor = self.tensor(&file.source, candidate);
            if candidate.goal.is_rate() {
                let exact = || Found::Planned(Box::default());
                return Ok(tensor
                    .survey(Method::best_of(self.settings.quantizer), keep_one_in)?
                    .map_or_else(exact, Found::Surveyed));
            }
            Ok(Found::Planned(Box::new(Fitter::new(self.settings, tensor).fit()?)))
        };
        let found: Vec<Result<Found>> = file.candidates.par_iter().map(survey).collect();
        found.into_iter().collect()
    }

    /// Gives tensors with rate goals their steps: one step for each goal.
    fn share_out(&self, files: &mut [(Vec<Found>, Opened)]) -> Result<()> {
        let mut goals: Vec<Goal> = Vec::new();
        for (_, opened) in files.iter() {
            let rates =
                opened.candidates.iter().map(|candidate| candidate.goal).filter(|goal| goal.is_rate());
            rates.for_each(|goal| {
                if !goals.contains(&goal) {
                    goals.push(goal)
                }
            });
        }
        for goal in goals {
            self.share_out_goal(goal, files)?;
        }
        Ok(())
    }

    fn share_out_goal(&self, goal: Goal, files: &mut [(Vec<Found>, Opened)]) -> Result<()> {
        let mut units = Vec::new();
        let (mut n_elements, mut n_blocks) = (0, 0);
        for (found, opened) in files.iter_mut() {
            for (found, candidate) in found.iter_mut().zip(&opened.candidates) {
                if let (Found::Surveyed(survey), true) = (found, candidate.goal == goal) {
                    n_elements += survey.n_elements;
                    n_blocks += survey.n_blocks;
                    units.append(&mut survey.units);
                }
            }
        }
        if n_elements == 0 {
            return Ok(());
        }
        let bits = match goal {
            Goal::Ratio(ratio) => {
                self.memory.time(Step::Prediction, || self.ratio_bits(ratio, n_elements, files))?
            }
            _ => goal.value() * n_elements as f64,
        };
        let model = self.settings.rate_model.model();
        let budget = Budget { bits, n_blocks };
        let step = if self.settings.rate_model == RateModel::Counted {
            let mut failed = None;
            let mut count = |step| {
                self.counted_bits(goal, files, step).unwrap_or_else(|e| {
                    failed = Some(e);
                    0.0
                })
            };
            let step = rate::solve_by_counting(&mut count, self.settings, &units, budget);
            failed.map_or(Ok(step), Err)?
        } else {
            self.choose_methods((goal, files), model.as_ref(), &mut units, budget)?;
            let solve = || rate::solve(model.as_ref(), self.settings, &mut units, budget);
            let step = self.memory.time(Step::Prediction, solve);
            step.map(|step| self.calibrate((goal, files), model.as_ref(), &units, budget, step, CALIBRATED))
                .transpose()?
        };
        let step = step.ok_or_else(|| {
            let message = format!("no step leads to {} {}", goal.kind().name(), goal.value());
            Error::new(ErrorKind::InvalidConfig, message)
        })?;
        let mut specs = self.rate_specs(goal, files, &units, step)?;
        if self.settings.correct_rate {
            let coded_bits = 8.0 * self.encoded_bytes(goal, files, &specs)? as f64;
            // What was off about it stays off.
            let corrected = Budget { bits: 2.0 * bits - coded_bits, ..budget };
            let step = self.calibrate((goal, files), model.as_ref(), &units, corrected, step, CORRECTED)?;
            specs = self.rate_specs(goal, files, &units, step)?;
        }
        let mut specs = specs.into_iter();
        for (found, opened) in files.iter_mut() {
            for (found, candidate) in found.iter_mut().zip(&opened.candidates) {
                if matches!(found, Found::Surveyed(_)) && candidate.goal == goal {
                    let tensor = self.tensor(&opened.source, candidate);
                    let fitter = Fitter::new(self.settings, tensor);
                    let fitted = specs.next().map(|spec| fitter.prune(spec)).transpose()?;
                    *found = Found::Planned(Box::new(fitted.unwrap_or_default()));
                }
            }
        }
        Ok(())
    }

    /// Gives `units`, those of the tensors that wait for `goal`, the method that suits each tensor, where there is a choice.
    fn choose_methods(
        &self,
        (goal, files): (Goal, &[(Vec<Found>, Opened)]),
        model: &dyn EntropyModel,
        units: &mut [RateUnit],
        budget: Budget,
    ) -> Result<()> {
        if Method::of_run(self.settings.quantizer).len() == 1 {
            return Ok(());
        }
        let solve = || rate::common_step(model, self.settings, units, budget);
        let Some(step) = self.memory.time(Step::Prediction, solve) else { return Ok(()) };
        let n_elements: f64 = units.iter().map(|unit| unit.weight).sum();
        let floor = self.settings.min_bits * budget.bits / n_elements;
        let tensors: Vec<(&Survey, TensorSource<'_>)> = self.waiting(goal, files).collect();
        let choose = |(survey, tensor): &(&Survey, TensorSource<'_>)| {
            Ok((survey.n_units, tensor.best_method(self.settings, step, floor)?))
        };
        let methods: Vec<Result<(usize, Method)>> = tensors.par_iter().map(choose).collect();
        let mut units = units.iter_mut();
        for found in methods {
            let (n_units, method) = found?;
            units.by_ref().take(n_units).for_each(|unit| unit.method = method);
        }
        Ok(())
    }

    /// The step for `goal` once more, from `step` on, which the model gave, after samples of the tensors have shown by how
    /// much it is wrong about them. Their rate is then within `tolerance` of the goal, as a share, if that is to be had.
    fn calibrate(
        &self,
        (goal, files): (Goal, &[(Vec<Found>, Opened)]),
        model: &dyn EntropyModel,
        units: &[RateUnit],
        budget: Budget,
        mut step: f64,
        tolerance: f64,
    ) -> Result<f64> {
        let Some(rates) = rate::Rates::new(model, Method::best_of(self.settings.quantizer), units, budget)
        else {
            return Ok(step);
        };
        let mut tried: Vec<(f64, f64)> = Vec::new();
        for _ in 0..MAX_CALIBRATIONS {
            let error = rates.excess(step) + self.excess_bits((goal, files), model, units, step)?;
            // One bit an octave where the rate is high, less where it is low.
            let slope = match tried.last() {
                Some((last, last_error)) => (last_error - error) / (step / last).log2(),
                None => self.memory.time(Step::Prediction, || rates.slope(step)),
            };
            tried.push((step, error));
            if error.abs() < tolerance * rates.goal {
                break;
            }
            step *= (error / slope.clamp(0.125, 2.0)).clamp(-2.0, 2.0).exp2();
        }
        let best = tried.into_iter().min_by(|a, b| a.1.abs().total_cmp(&b.1.abs()));
        Ok(best.map_or(step, |(step, _)| step))
    }

    /// Bits an element by which the tensors that wait for `goal`, which have `units`, take more than `model` says.
    fn excess_bits(
        &self,
        (goal, files): (Goal, &[(Vec<Found>, Opened)]),
        model: &dyn EntropyModel,
        units: &[RateUnit],
        step: f64,
    ) -> Result<f64> {
        let excess = |(tensor, own): &(TensorSource<'_>, &[RateUnit])| -> Result<(f64, f64)> {
            let n_elements = tensor.n_elements() as f64;
            Ok((tensor.excess_bits(model, self.settings, own, step)? * n_elements, n_elements))
        };
        let tensors = self.waiting_with(goal, files, units);
        let found: Vec<Result<(f64, f64)>> = tensors.par_iter().map(excess).collect();
        let (mut bits, mut n_elements) = (0.0, 0.0);
        // In order, so that the sum does not depend on the threads.
        for part in found {
            let part = part?;
            (bits, n_elements) = (bits + part.0, n_elements + part.1);
        }
        Ok(if n_elements > 0.0 { bits / n_elements } else { 0.0 })
    }

    /// The tensors of `files` that wait for a step for `goal`, in order.
    fn waiting<'f>(
        &'f self,
        goal: Goal,
        files: &'f [(Vec<Found>, Opened)],
    ) -> impl Iterator<Item = (&'f Survey, TensorSource<'f>)> {
        files.iter().flat_map(move |(found, opened)| {
            found.iter().zip(&opened.candidates).filter_map(move |(found, candidate)| match found {
                Found::Surveyed(survey) if candidate.goal == goal => {
                    Some((survey, self.tensor(&opened.source, candidate)))
                }
                _ => None,
            })
        })
    }

    /// The tensors of `files` that wait for a step for `goal`, each with its part of `units`.
    fn waiting_with<'f>(
        &'f self,
        goal: Goal,
        files: &'f [(Vec<Found>, Opened)],
        mut units: &'f [RateUnit],
    ) -> Vec<(TensorSource<'f>, &'f [RateUnit])> {
        let with_own = |(survey, tensor): (&Survey, TensorSource<'f>)| {
            let (own, others) = units.split_at(survey.n_units.min(units.len()));
            units = others;
            (tensor, own)
        };
        self.waiting(goal, files).map(with_own).collect()
    }

    /// How each tensor that waits for `goal` is quantized at the common `step`.
    fn rate_specs(
        &self,
        goal: Goal,
        files: &[(Vec<Found>, Opened)],
        units: &[RateUnit],
        step: f64,
    ) -> Result<Vec<QuantSpec>> {
        let tensors = self.waiting_with(goal, files, units);
        let specs: Vec<Result<QuantSpec>> =
            tensors.into_par_iter().map(|(tensor, own)| tensor.rate_spec(self.settings, own, step)).collect();
        specs.into_iter().collect()
    }

    /// Entropy of the indices of the tensors that wait for `goal` at the common `step`, in bits, unit by unit.
    fn counted_bits(&self, goal: Goal, files: &[(Vec<Found>, Opened)], step: f64) -> Result<f64> {
        self.waiting(goal, files).map(|(_, tensor)| tensor.counted_bits(step)).sum()
    }

    /// Bytes that the tensors that wait for `goal` take, coded by `specs`.
    fn encoded_bytes(&self, goal: Goal, files: &[(Vec<Found>, Opened)], specs: &[QuantSpec]) -> Result<u64> {
        let tensors = self.waiting(goal, files).zip(specs);
        tensors.map(|((_, tensor), spec)| Ok(tensor.encode(spec)?.0)).sum()
    }

    /// Bits for `n_elements` that leave the whole run at `ratio`.
    fn ratio_bits(&self, ratio: f64, n_elements: u64, files: &[(Vec<Found>, Opened)]) -> Result<f64> {
        let original: u64 = self.files.iter().map(|file| file.size).sum();
        let mut exact_bytes = 0.0;
        let encoders = Checkout::default();
        for (file_idx, file) in self.files.iter().enumerate() {
            let opened = files.iter().find(|(_, opened)| opened.file_idx == file_idx);
            let starts: HashSet<u64> = opened
                .iter()
                .flat_map(|(found, opened)| found.iter().zip(&opened.candidates))
                .filter(|(found, candidate)| matches!(found, Found::Surveyed(_)) && candidate.goal.is_ratio())
                .map(|(_, candidate)| candidate.info.start)
                .collect();
            let leave_out = |tensor: &TensorInfo| starts.contains(&tensor.start);
            let part = predict_file(self.ctx, self.memory, &encoders, file, self.coding, &leave_out);
            // A file that cannot be read brings its error in its turn.
            exact_bytes += part.map_or(0.0, |part| part.stored_bytes as f64);
        }
        let bits = 8.0 * (original as f64 / ratio - exact_bytes);
        let mean = bits / n_elements as f64;
        if mean >= self.settings.min_precision {
            return Ok(bits);
        }
        let message = format!(
            "a ratio of {ratio} leaves {:.2} bits an element for what may change, below the minimum precision of {}",
            mean.max(0.0),
            self.settings.min_precision
        );
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }
}
