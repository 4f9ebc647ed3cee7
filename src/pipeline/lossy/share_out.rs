//! Sharing the bits of a rate goal among the tensors that wait for it: their methods, one step for all, and its correction.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use rayon::prelude::*;

use super::bounds::{Bounded, Common, Entropies};
use super::calibration::{Accuracy, CALIBRATED, CORRECTED, Calibrator};
use super::fit::Fitter;
use super::method::Method;
use super::plan::{Found, LossyPlanner, Opened};
use super::rate::{self, Budget, RateUnit};
use super::settings::{Goal, LossySettings, RateModel};
use super::survey::Survey;
use super::tensor_source::{TensorSource, own_step};
use super::twins::{Place, REFERENCE_BITS};
use super::worth::is_far_smaller;
use crate::checkpoint::TensorInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::context::Checkout;
use crate::pipeline::predict::predict_file;
use crate::pipeline::timings::Step;
use crate::quantize::predictor::EntropyModel;
use crate::stage::{ChannelSteps, QuantSpec};

/// A common step, and each tensor at it.
struct Shared {
    step: f64,
    tensors: Vec<Quantized>,
}

/// How a tensor is quantized at a step, and what it takes then.
pub(super) struct Quantized {
    pub(super) spec: QuantSpec,
    /// Bits of it all.
    pub(super) bits: f64,
}

/// A tensor that waits for a step.
pub(super) struct Waiting<'f> {
    pub(super) tensor: TensorSource<'f>,
    pub(super) survey: &'f Survey,
    pub(super) method: Method,
}

impl Waiting<'_> {
    /// Its step where the common one is `step`.
    pub(super) fn own_step(&self, settings: &LossySettings, step: f64) -> f32 {
        own_step(settings, self.method, step)
    }

    /// How it is quantized at the common `step`.
    pub(super) fn spec(&self, settings: &LossySettings, step: f64) -> Result<QuantSpec> {
        self.tensor.rate_spec(settings, (self.method, self.survey.channels.as_ref()), step)
    }
}

impl LossyPlanner<'_> {
    /// Gives tensors with rate goals their steps: one step for each goal.
    pub(super) fn share_out(&self, files: &mut [(Vec<Found>, Opened)]) -> Result<()> {
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
        let bases = places_waiting(goal, files);
        let mut units = Vec::new();
        let (mut n_elements, mut n_blocks) = (0, 0);
        let (mut n_twin_elements, mut n_references) = (0, 0);
        for (found, opened) in files.iter_mut() {
            let with_goal = found.iter_mut().zip(&opened.candidates).filter(|(_, other)| other.goal == goal);
            for (found, candidate) in with_goal {
                match found {
                    Found::Surveyed(survey) => {
                        n_elements += survey.n_elements;
                        n_blocks += survey.n_blocks;
                        survey.channels = None;
                        units.append(&mut survey.units);
                    }
                    Found::Twin(base) if bases.contains(base) => {
                        n_twin_elements += candidate.info.n_elements();
                        n_references += self.tensor(&opened.source, candidate).spans().len();
                    }
                    Found::Twin(_) | Found::Planned(_) => {}
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
            _ => {
                // The index is counted with records here, but is none of the tensors' bits as they are reported.
                let entries = rate::INDEX_ENTRY_BYTES * (n_blocks + n_references as u64);
                goal.value() * (n_elements + n_twin_elements) as f64 + 8.0 * entries as f64
            }
        };
        let bits = bits - REFERENCE_BITS * n_references as f64;
        let model = self.settings.rate_model.model();
        let budget = Budget { bits, n_blocks };
        units.iter_mut().for_each(|unit| unit.multiplier = 1.0);
        let shared = if self.settings.rate_model == RateModel::Counted {
            self.count_step((goal, &mut *files), &mut units, budget)?
        } else {
            self.predict_step((goal, &mut *files), model.as_ref(), &mut units, budget)?
        };
        let shared = shared.ok_or_else(|| {
            let reason = if bits <= rate::BLOCK_BITS * n_blocks as f64 {
                "what is around the indices of blocks takes as much"
            } else {
                "the tensors take fewer bits at every step"
            };
            let message = format!("no step leads to {} {}: {reason}", goal.kind().name(), goal.value());
            Error::new(ErrorKind::InvalidConfig, message)
        })?;
        let Shared { step, tensors } = shared;
        if self.leave_exact((goal, bits / n_elements as f64), files, &tensors, &mut units)? {
            // The goal is the mean of the others.
            return self.share_out_goal(goal, files);
        }
        let mut specs: Vec<QuantSpec> = tensors.into_iter().map(|tensor| tensor.spec).collect();
        if self.settings.correct_rate {
            let coded_bits = 8.0 * self.encoded_bytes(goal, files, &specs)? as f64;
            let mut calibrator = self.calibrator((goal, files), &units, CORRECTED).tuned_to(step, specs);
            // What was off about it stays off.
            let corrected = calibrator.stored_bits(step)? + bits - coded_bits;
            let step = calibrator.find((model.as_ref(), &units), corrected, step)?;
            specs = calibrator.tensors(step)?.into_iter().map(|tensor| tensor.spec).collect();
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

    /// The step for `goal` that `model` leads to, floors and caps included, as set right by counting.
    fn predict_step(
        &self,
        (goal, files): (Goal, &mut [(Vec<Found>, Opened)]),
        model: &dyn EntropyModel,
        units: &mut [RateUnit],
        budget: Budget,
    ) -> Result<Option<Shared>> {
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
        let mut calibrator = self.calibrator((goal, files), units, CALIBRATED);
        let step = calibrator.find((model, units), budget.bits, step)?;
        Ok(Some(Shared { step, tensors: calibrator.tensors(step)? }))
    }

    /// The same without a model: everything is counted at every step that is tried.
    fn count_step(
        &self,
        (goal, files): (Goal, &mut [(Vec<Found>, Opened)]),
        units: &mut [RateUnit],
        budget: Budget,
    ) -> Result<Option<Shared>> {
        let solve = |files: &[(Vec<Found>, Opened)], units: &[RateUnit], near| {
            let (mut failed, mut last) = (None, Shared { step: f64::NAN, tensors: Vec::new() });
            let mut count = |step| {
                let counted = self.counted((goal, files), units, step);
                let tensors = counted.unwrap_or_else(|e| {
                    failed = Some(e);
                    Vec::new()
                });
                // In order, so that the sum does not depend on the threads.
                let bits = tensors.iter().map(|tensor| tensor.bits).sum();
                last = Shared { step, tensors };
                bits
            };
            let step = rate::counted_step(&mut count, units, budget, CALIBRATED.tolerance, near);
            match (failed, step) {
                (Some(e), _) => Err(e),
                (None, Some(step)) if step != last.step => {
                    Ok(Some(Shared { step, tensors: self.counted((goal, files), units, step)? }))
                }
                (None, step) => Ok(step.map(|_| last)),
            }
        };
        let Some(shared) = solve(files, units, None)? else { return Ok(None) };
        if self.bound((goal, &mut *files), Entropies::Counted, units, budget, shared.step)? {
            return solve(files, units, Some(shared.step));
        }
        Ok(Some(shared))
    }

    /// What sets the step of the tensors that wait for `goal`, which have `units`, right.
    fn calibrator<'f>(
        &'f self,
        (goal, files): (Goal, &'f [(Vec<Found>, Opened)]),
        units: &'f [RateUnit],
        accuracy: Accuracy,
    ) -> Calibrator<'f> {
        Calibrator::new(self.settings, self.memory, self.waiting_with(goal, files, units), accuracy)
    }

    /// Gives channels steps of their own that have units beyond the floor or the cap at the common `step`, and `units` the
    /// same; whether there are any.
    fn bound(
        &self,
        (goal, files): (Goal, &mut [(Vec<Found>, Opened)]),
        entropies: Entropies<'_>,
        units: &mut [RateUnit],
        budget: Budget,
        step: f64,
    ) -> Result<bool> {
        let common = Common {
            step,
            method: Method::best_of(self.settings.quantizer),
            bits: rate::mean_bits(units, budget),
        };
        let tensors = self.waiting_with(goal, files, units);
        let look = |Waiting { tensor, survey, method }: &Waiting<'_>| {
            let bounded = tensor.bounded_units(self.settings, (survey, *method), entropies, &common)?;
            let channels = tensor.channel_steps(&bounded);
            Ok((bounded, channels))
        };
        let found: Vec<Result<(Vec<Bounded>, Option<ChannelSteps>)>> = tensors.par_iter().map(look).collect();
        let mut found = found.into_iter().collect::<Result<Vec<_>>>()?.into_iter();
        let (mut units, mut any) = (units, false);
        for survey in surveys_waiting(goal, files) {
            let (own, others) = units.split_at_mut(survey.n_units.min(units.len()));
            units = others;
            let Some((bounded, channels)) = found.next() else { break };
            for unit in own {
                let unit_idx = unit.unit_idx();
                if let Ok(place) = bounded.binary_search_by_key(&unit_idx, |bounded| bounded.unit_idx) {
                    unit.multiplier = bounded[place].multiplier;
                }
            }
            any |= channels.is_some();
            survey.channels = channels;
        }
        Ok(any)
    }

    /// Leaves tensors exact that wait for `goal`, of `mean_bits` an element, and take no more bytes so than `quantized`; whether
    /// there are any. The others wait on, each with its part of `units`.
    fn leave_exact(
        &self,
        (goal, mean_bits): (Goal, f64),
        files: &mut [(Vec<Found>, Opened)],
        quantized: &[Quantized],
        units: &mut Vec<RateUnit>,
    ) -> Result<bool> {
        let tensors: Vec<(&Survey, TensorSource<'_>)> = self.waiting(goal, files).collect();
        let look = |((survey, tensor), quantized): (&(&Survey, TensorSource<'_>), &Quantized)| {
            let info = &tensor.candidate.info;
            if is_far_smaller(tensor.candidate.dtype, info.byte_len(), survey.n_zeros, quantized.bits) {
                return Ok(None);
            }
            tensor.exact_if_smaller(&quantized.spec)
        };
        let found: Vec<Result<Option<f64>>> = tensors.par_iter().zip(quantized).map(look).collect();
        let exact_bits: Vec<Option<f64>> = found.into_iter().collect::<Result<_>>()?;
        if exact_bits.iter().all(Option::is_none) {
            return Ok(false);
        }
        // Those that take less than the mean make others take far more than they would among themselves.
        let is_small = |bits: &f64| *bits < mean_bits;
        let any_small = exact_bits.iter().flatten().any(is_small);
        let mut are_exact =
            exact_bits.iter().map(|bits| bits.is_some_and(|bits| !any_small || is_small(&bits)));
        let mut units = units.drain(..);
        for (found, opened) in files.iter_mut() {
            for (found, candidate) in found.iter_mut().zip(&opened.candidates) {
                let Found::Surveyed(survey) = found else { continue };
                if candidate.goal != goal {
                    continue;
                }
                survey.units.extend(units.by_ref().take(survey.n_units));
                if are_exact.next() == Some(true) {
                    *found = Found::Planned(Box::default());
                }
            }
        }
        Ok(true)
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
        let solve = || rate::common_step(model, self.settings, units, budget, None);
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

    /// The tensors of `files` that wait for a step for `goal`, which have `units`.
    fn waiting_with<'f>(
        &'f self,
        goal: Goal,
        files: &'f [(Vec<Found>, Opened)],
        mut units: &'f [RateUnit],
    ) -> Vec<Waiting<'f>> {
        let with_own = |(survey, tensor): (&'f Survey, TensorSource<'f>)| {
            let (own, others) = units.split_at(survey.n_units.min(units.len()));
            units = others;
            // All have one: the first unit of every tensor is asked about.
            let method = own.first().map_or(Method::best_of(self.settings.quantizer), |unit| unit.method);
            Waiting { tensor, survey, method }
        };
        self.waiting(goal, files).map(with_own).collect()
    }

    /// Each of the tensors that wait for `goal`, which have `units`, at the common `step`: everything is counted.
    fn counted(
        &self,
        (goal, files): (Goal, &[(Vec<Found>, Opened)]),
        units: &[RateUnit],
        step: f64,
    ) -> Result<Vec<Quantized>> {
        self.memory.n_rate_steps.fetch_add(1, Ordering::Relaxed);
        let tensors = self.waiting_with(goal, files, units);
        let count = |waiting: &Waiting<'_>| {
            let spec = waiting.spec(self.settings, step)?;
            Ok(Quantized { bits: waiting.tensor.counted_bits(&spec)?, spec })
        };
        let counted: Vec<Result<Quantized>> = tensors.par_iter().map(count).collect();
        counted.into_iter().collect()
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
                .filter(|(found, candidate)| {
                    matches!(found, Found::Surveyed(_) | Found::Twin(_)) && candidate.goal.is_ratio()
                })
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

/// What is known of the tensors of `files` that wait for a step for `goal`, in order.
fn surveys_waiting(goal: Goal, files: &mut [(Vec<Found>, Opened)]) -> impl Iterator<Item = &mut Survey> {
    files.iter_mut().flat_map(move |(found, opened)| {
        found.iter_mut().zip(&opened.candidates).filter_map(move |(found, candidate)| match found {
            Found::Surveyed(survey) if candidate.goal == goal => Some(survey),
            _ => None,
        })
    })
}

/// Where the tensors of `files` are that wait for a step for `goal`, twins aside.
fn places_waiting(goal: Goal, files: &[(Vec<Found>, Opened)]) -> HashSet<Place> {
    let of_file = |(found, opened): &(Vec<Found>, Opened)| {
        let tensors = found.iter().zip(&opened.candidates);
        let waiting =
            tensors.filter(|(found, other)| matches!(found, Found::Surveyed(_)) && other.goal == goal);
        waiting.map(|(_, candidate)| (opened.file_idx, candidate.info.start)).collect::<Vec<Place>>()
    };
    files.iter().flat_map(of_file).collect()
}
