//! The plan of a lossy run: for every tensor that may change, the step that was found for it.
//!
//! A step for an error goal is tried on the whole tensor, the error measured on reconstructed elements, and refined
//! until the goal holds; a tensor for which it cannot hold stays exact.

use std::collections::HashMap;

use rayon::prelude::*;

use super::fit::Fitter;
use super::keep::Keeps;
use super::method::Method;
use super::prune::{Fitted, Saving};
use super::series::PruneSeries;
use super::settings::{Goal, LossySettings, LossyTreatment};
use super::survey::{Density, Survey};
use super::tensor_source::TensorSource;
use super::twins::{Place, Twins};
use crate::checkpoint::{SafetensorsHeader, TensorInfo};
use crate::container::{GoalKind, TensorLoss};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::pipeline::context::Context;
use crate::pipeline::dedup::DedupPlan;
use crate::pipeline::encode::EncodeMemory;
use crate::pipeline::settings::CodingSettings;
use crate::pipeline::source::Source;
use crate::pipeline::tree::SourceFile;
use crate::stage::{BlockLoss, QuantSpec, Quantizer};
use crate::storage::FileIdentity;

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
        let quantizer = self.spec.as_ref().map(QuantSpec::quantizer);
        TensorLoss {
            tensor_idx: self.candidate.tensor_idx,
            is_exact: self.spec.is_none(),
            is_dependent: quantizer == Some(Quantizer::Trellis),
            has_even_sums: quantizer == Some(Quantizer::Lattice),
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
        has_even_sums: false,
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
#[derive(Debug, Clone)]
pub(crate) struct FilePlan {
    /// The file that was looked at.
    pub(crate) planned_from: FileIdentity,
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
    /// Tensors that are equal.
    pub(crate) dedup: &'a DedupPlan,
}

/// A file with tensors that may change.
pub(super) struct Opened {
    pub(super) file_idx: usize,
    pub(super) source: Source,
    pub(super) candidates: Vec<Candidate>,
}

/// What is known of a candidate before steps are shared out.
pub(super) enum Found {
    /// The plan, from the tensor's own goal.
    Planned(Box<Fitted>),
    /// What a rate goal needs.
    Surveyed(Survey),
    /// Nothing: what another gets is this one's, too.
    Twin(Place),
}

impl LossyPlanner<'_> {
    /// Plans every checkpoint of the run. A file whose header cannot be read has no plan; its own turn will bring the
    /// error.
    ///
    /// # Errors
    /// `ErrorKind::InvalidConfig` for a rate goal that cannot be reached.
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
        let density = Density::of(n_elements);
        let tensors =
            opened.iter().flat_map(|file| file.candidates.iter().map(|tensor| (file.file_idx, tensor)));
        let twins = Twins::of(self.dedup, tensors);
        let mut found = Vec::new();
        for file in opened {
            match self.survey(&file, &twins, density) {
                Ok(tensors) => found.push((tensors, file)),
                Err(error) => {
                    plans.insert(file.file_idx, Err(error));
                }
            }
        }
        self.share_out(&mut found)?;
        for (tensors, opened) in found {
            plans.insert(opened.file_idx, self.settle(opened, tensors));
        }
        twins.copy_specs(&mut plans);
        Ok(plans)
    }

    /// The plan of a file of which steps were found; tensors that are no smaller by them stay exact.
    fn settle(&self, opened: Opened, found: Vec<Found>) -> Result<FilePlan> {
        let Opened { file_idx, source, candidates } = opened;
        let settle = |(candidate, found): (Candidate, Found)| {
            let Found::Planned(fitted) = found else {
                return Ok(TensorPlan { candidate, spec: None, saving: Saving::default() });
            };
            let Fitted { spec, saving } = *fitted;
            let keeps = Some(Keeps { file_idx, level: self.coding.level });
            let tensor = TensorSource { keeps, ..self.tensor(&source, &candidate) };
            let stays_exact = match &spec {
                None => true,
                // Looked at when the rate was shared out.
                Some(_) if candidate.goal.is_rate() => false,
                Some(spec) => tensor.exact_if_smaller(spec)?.is_some(),
            };
            if stays_exact {
                tensor.forget_kept();
                return Ok(TensorPlan { candidate, spec: None, saving: Saving::default() });
            }
            Ok(TensorPlan { candidate, spec, saving })
        };
        let tensors: Vec<Result<TensorPlan>> =
            candidates.into_par_iter().zip(found).with_max_len(1).map(settle).collect();
        Ok(FilePlan { planned_from: source.identity(), tensors: tensors.into_iter().collect::<Result<_>>()? })
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

    pub(super) fn tensor<'t>(&'t self, source: &'t Source, candidate: &'t Candidate) -> TensorSource<'t> {
        TensorSource { ctx: self.ctx, memory: self.memory, source, candidate, keeps: None, booked_on: None }
    }

    /// Plans the tensors that have a goal of their own, and measures the others.
    fn survey(&self, file: &Opened, twins: &Twins, density: Density) -> Result<Vec<Found>> {
        let survey = |candidate: &Candidate| -> Result<Found> {
            if let Some(base) = twins.base_of(file.file_idx, candidate) {
                return Ok(Found::Twin(base));
            }
            let tensor = self.tensor(&file.source, candidate);
            if candidate.goal.is_rate() {
                let exact = || Found::Planned(Box::default());
                return Ok(tensor
                    .survey(Method::best_of(self.settings.quantizer), density)?
                    .map_or_else(exact, Found::Surveyed));
            }
            // Pruning looks for another step; a SHA-256 is of bytes that are not kept.
            let may_keep = !self.settings.prunes(&candidate.treatment) && !self.coding.sha256;
            let keeps = may_keep.then_some(Keeps { file_idx: file.file_idx, level: self.coding.level });
            let tensor = TensorSource { keeps, ..tensor };
            Ok(Found::Planned(Box::new(Fitter::new(self.settings, tensor).fit()?)))
        };
        let found: Vec<Result<Found>> = file.candidates.par_iter().map(survey).collect();
        found.into_iter().collect()
    }
}
