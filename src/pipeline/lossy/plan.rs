//! The plan of a lossy run: for every tensor that may change, the step that was found for it.
//!
//! A step for an error goal is tried on the whole tensor, the error measured on reconstructed elements, and refined
//! until the goal holds; a tensor for which it cannot hold stays exact.

use std::collections::HashMap;

use rayon::prelude::*;

use super::fit::{Fitter, TensorSource};
use super::settings::{Goal, LossySettings, LossyTreatment};
use crate::checkpoint::{SafetensorsHeader, TensorInfo};
use crate::container::TensorLoss;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::pipeline::context::Context;
use crate::pipeline::encode::EncodeMemory;
use crate::pipeline::source::Source;
use crate::pipeline::tree::SourceFile;
use crate::stage::{BlockLoss, Choice, QuantSpec};

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
}

impl TensorPlan {
    /// The row of the loss table, with what encoding has measured.
    pub(crate) fn loss(&self, measured: &BlockLoss) -> TensorLoss {
        let errors = &measured.errors;
        let n_elements = errors.n_elements.max(1) as f64;
        TensorLoss {
            tensor_idx: self.candidate.tensor_idx,
            is_exact: self.spec.is_none(),
            is_dependent: self.spec.as_ref().is_some_and(|spec| matches!(spec.choice, Choice::Trellis(_))),
            is_log: self.spec.as_ref().is_some_and(|spec| spec.domain == crate::stage::Domain::Log2),
            goal: self.candidate.goal.kind(),
            goal_value: to_f32(self.candidate.goal.value()),
            step: self.spec.as_ref().map_or(0.0, |spec| spec.step),
            max_abs_error: to_f32(errors.max_abs),
            error_rms: to_f32((errors.error_sq / n_elements).sqrt()),
            signal_rms: to_f32((errors.value_sq / n_elements).sqrt()),
            newly_zero: errors.n_zeroed,
            zeros: measured.zeros,
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

#[expect(clippy::cast_possible_truncation, reason = "a report of an error, not the error")]
fn to_f32(value: f64) -> f32 {
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
        self.tensors.get(place).filter(|tensor| offset < tensor.candidate.info.end).map(|tensor| (place, tensor))
    }

    /// Whether anything may change.
    pub(crate) fn is_lossy(&self) -> bool {
        !self.tensors.is_empty()
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

/// The files of a lossy run.
pub(crate) struct LossyPlanner<'a> {
    pub(crate) ctx: &'a Context<'a>,
    pub(crate) memory: &'a EncodeMemory,
    pub(crate) files: &'a [SourceFile],
    pub(crate) settings: &'a LossySettings,
}

impl LossyPlanner<'_> {
    /// Plans every checkpoint of the run; a file whose header cannot be read has no plan, and its own turn will bring
    /// the error.
    pub(crate) fn plan(&self) -> HashMap<usize, Result<FilePlan>> {
        let files: Vec<(usize, Result<(Source, Vec<Candidate>)>)> = (0..self.files.len())
            .filter_map(|file_idx| Some((file_idx, self.candidates(file_idx).transpose()?)))
            .collect();
        files
            .into_iter()
            .map(|(file_idx, found)| {
                (file_idx, found.and_then(|(source, candidates)| self.plan_file(&source, candidates)))
            })
            .collect()
    }

    /// The tensors of a file that may change; `None` of a file without any.
    fn candidates(&self, file_idx: usize) -> Result<Option<(Source, Vec<Candidate>)>> {
        let file = &self.files[file_idx];
        let source = Source::open(&file.source, file.size)?;
        let Some(header) = source.checkpoint_header(&file.path, &self.ctx.limits) else { return Ok(None) };
        let candidates = self.candidates_of(&header);
        Ok((!candidates.is_empty()).then_some((source, candidates)))
    }

    fn candidates_of(&self, header: &SafetensorsHeader) -> Vec<Candidate> {
        let candidate = |(tensor_idx, info): (u32, &TensorInfo)| {
            let (goal, treatment) = self.settings.treatment(info)?;
            Some(Candidate { tensor_idx, info: info.clone(), dtype: info.dtype?, goal, treatment })
        };
        (0..).zip(header.tensors()).filter_map(candidate).collect()
    }

    fn plan_file(&self, source: &Source, candidates: Vec<Candidate>) -> Result<FilePlan> {
        let plan_tensor = |candidate: Candidate| -> Result<TensorPlan> {
            let tensor = TensorSource { ctx: self.ctx, memory: self.memory, source, candidate: &candidate };
            let spec = Fitter { settings: self.settings, tensor }.fit()?;
            Ok(TensorPlan { candidate, spec })
        };
        let tensors: Vec<Result<TensorPlan>> = candidates.into_par_iter().map(plan_tensor).collect();
        Ok(FilePlan { tensors: tensors.into_iter().collect::<Result<_>>()? })
    }
}
