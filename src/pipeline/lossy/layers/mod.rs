//! The plan of a layered run: for every block of a tensor that may be coarse, its step in each layer.
//!
//! Steps are powers of two, common to all blocks of a layer, as equal slopes of error over bits ask for; where the
//! rate lies between that of one step and of the next, the finer goes to the blocks in which a bit takes most of the
//! error away, and one block is split. Rates are measured by coding, not predicted.

mod octaves;
mod search;

use std::collections::HashMap;

use rayon::prelude::*;

use super::plan::Candidate;
use super::settings::{LayerGoal, LossySettings, LossyTreatment};
use super::tensor_source::TensorSource;
use crate::checkpoint::{SafetensorsHeader, TensorInfo};
use crate::container::{GoalKind, TensorLoss};
use crate::error::Result;
use crate::pipeline::context::Context;
use crate::pipeline::encode::EncodeMemory;
use crate::pipeline::source::Source;
use crate::pipeline::tree::SourceFile;
use crate::stage::{BlockLoss, Domain, LayerStep};
use crate::storage::FileIdentity;
use octaves::Octaves;
use search::Unit;

/// A block of a tensor that may be coarse.
#[derive(Debug, Clone)]
struct PlannedBlock {
    /// Where it begins in the file.
    offset: u64,
    /// Its step in each layer that is not exact.
    steps: Vec<LayerStep>,
}

/// A tensor that may be coarse.
#[derive(Debug, Clone)]
pub(crate) struct LayeredTensor {
    candidate: Candidate,
    /// In order.
    blocks: Vec<PlannedBlock>,
}

/// The plan of one file.
#[derive(Debug, Clone)]
pub(crate) struct LayeredPlan {
    /// The file that was looked at.
    pub(crate) planned_from: FileIdentity,
    layers: Vec<LayerGoal>,
    /// In the order of their bytes.
    tensors: Vec<LayeredTensor>,
}

/// What a layer makes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerBlock {
    /// Nothing: it is exact from the first layer on.
    Exact,
    /// The first layer, of this step.
    Coarse(LayerStep),
    /// A later layer: the steps before and after; exact without the latter.
    Refined(LayerStep, Option<LayerStep>),
}

impl LayeredPlan {
    /// Number of layers.
    pub(crate) fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// Number of tensors that may be coarse.
    pub(crate) fn n_tensors(&self) -> usize {
        self.tensors.len()
    }

    /// Elements of each tensor that may be coarse.
    pub(crate) fn n_elements(&self) -> impl Iterator<Item = u64> {
        self.tensors.iter().map(|tensor| tensor.candidate.info.n_elements())
    }

    /// Whether layer `layer_idx` differs from the source.
    pub(crate) fn is_lossy(&self, layer_idx: usize) -> bool {
        self.layers.get(layer_idx).is_some_and(|goal| *goal != LayerGoal::Exact)
    }

    /// Whether `tensor` is stored apart from its neighbours.
    pub(crate) fn splits(&self, tensor: &TensorInfo) -> bool {
        self.tensor_at(tensor.start).is_some()
    }

    fn tensor_at(&self, offset: u64) -> Option<(usize, &LayeredTensor)> {
        let place =
            self.tensors.partition_point(|tensor| tensor.candidate.info.start <= offset).checked_sub(1)?;
        self.tensors
            .get(place)
            .filter(|tensor| offset < tensor.candidate.info.end)
            .map(|tensor| (place, tensor))
    }

    /// What layer `layer_idx` makes of the block that begins at `offset`, and the place of its tensor.
    pub(crate) fn block(&self, layer_idx: usize, offset: u64) -> (LayerBlock, Option<usize>) {
        let found = self.tensor_at(offset).and_then(|(place, tensor)| {
            let at = tensor.blocks.binary_search_by_key(&offset, |block| block.offset).ok()?;
            let step = |layer_idx: usize| tensor.blocks[at].steps.get(layer_idx).copied();
            let block = match layer_idx.checked_sub(1) {
                None => step(0).map(LayerBlock::Coarse),
                Some(before) => step(before).map(|before| LayerBlock::Refined(before, step(layer_idx))),
            };
            Some((block?, place))
        });
        found.map_or((LayerBlock::Exact, None), |(block, place)| (block, Some(place)))
    }

    /// The rows of the loss table of layer `layer_idx`, with what encoding has measured of each tensor.
    pub(crate) fn rows(&self, layer_idx: usize, measured: &[BlockLoss]) -> Vec<TensorLoss> {
        let goal_value = match self.layers.get(layer_idx) {
            Some(LayerGoal::Bits(bits)) => *bits,
            _ => 0.0,
        };
        let row = |(tensor, measured): (&LayeredTensor, &BlockLoss)| {
            let steps = tensor.blocks.iter().filter_map(|block| block.steps.get(layer_idx));
            let step = steps.map(|step| step.value(tensor.candidate.dtype)).fold(f64::INFINITY, f64::min);
            TensorLoss {
                tensor_idx: tensor.candidate.tensor_idx,
                is_exact: false,
                is_dependent: false,
                has_even_sums: false,
                is_log: false,
                goal: GoalKind::Bits,
                goal_value: super::plan::to_f32(goal_value),
                step: super::plan::to_f32(step),
                ..super::plan::measured_row(measured)
            }
        };
        self.tensors.iter().zip(measured).map(row).collect()
    }

    /// A digest of every decision.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for tensor in &self.tensors {
            hasher.update(format!("{}{:?}", tensor.candidate.tensor_idx, tensor.blocks).as_bytes());
        }
        hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

/// The plans of a run by file number, of files with tensors that may be coarse; an error where one cannot be planned.
pub(crate) type LayeredPlans = HashMap<usize, Result<LayeredPlan>>;

/// Plans the files of a layered run.
pub(crate) struct LayersPlanner<'a> {
    pub(crate) ctx: &'a Context<'a>,
    pub(crate) memory: &'a EncodeMemory,
    pub(crate) files: &'a [SourceFile],
    pub(crate) settings: &'a LossySettings,
}

/// A file with tensors that may be coarse.
struct Opened {
    file_idx: usize,
    source: Source,
    candidates: Vec<Candidate>,
}

impl LayersPlanner<'_> {
    /// Plans every checkpoint of the run.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] for a number of bits that cannot be reached.
    pub(crate) fn plan(&self) -> Result<LayeredPlans> {
        let mut plans = LayeredPlans::new();
        let mut opened = Vec::new();
        for file_idx in 0..self.files.len() {
            match self.open(file_idx).and_then(|file| file.map(|file| self.keep_coarse(file)).transpose()) {
                Ok(file) => opened.extend(file.filter(|file| !file.candidates.is_empty())),
                Err(error) => {
                    plans.insert(file_idx, Err(error));
                }
            }
        }
        let mut units = Vec::new();
        for file in &opened {
            for candidate in &file.candidates {
                let tensor = self.tensor(&file.source, candidate);
                units.extend(tensor.spans().into_iter().map(|span| Unit::new(tensor, span)));
            }
        }
        search::find_steps(self.settings, &mut units)?;
        let mut units = units.into_iter().map(Unit::into_steps);
        for file in &opened {
            let tensors = file.candidates.iter().map(|candidate| {
                let spans = self.tensor(&file.source, candidate).spans();
                let blocks = spans.iter().zip(units.by_ref());
                let blocks =
                    blocks.map(|(span, steps)| PlannedBlock { offset: span.offset, steps }).collect();
                LayeredTensor { candidate: candidate.clone(), blocks }
            });
            let (planned_from, layers) = (file.source.identity(), self.settings.layers.clone());
            let plan = LayeredPlan { planned_from, layers, tensors: tensors.collect() };
            plans.insert(file.file_idx, Ok(plan));
        }
        Ok(plans)
    }

    fn tensor<'t>(&'t self, source: &'t Source, candidate: &'t Candidate) -> TensorSource<'t> {
        TensorSource { ctx: self.ctx, memory: self.memory, source, candidate, keeps: None, booked_on: None }
    }

    fn open(&self, file_idx: usize) -> Result<Option<Opened>> {
        let file = &self.files[file_idx];
        let source = Source::open(&file.source, file.size)?;
        let Some(header) = source.checkpoint_header(&file.path, &self.ctx.limits) else { return Ok(None) };
        let candidates = self.candidates_of(&header);
        Ok(Some(Opened { file_idx, source, candidates }))
    }

    fn candidates_of(&self, header: &SafetensorsHeader) -> Vec<Candidate> {
        let candidate = |(tensor_idx, info): (u32, &TensorInfo)| {
            let (goal, treatment) = self.settings.treatment(info)?;
            // Cells are of values, not of logarithms.
            let is_linear = treatment.domain == Domain::Linear;
            let treatment = LossyTreatment { goal: None, ..treatment };
            is_linear.then_some(Candidate {
                tensor_idx,
                info: info.clone(),
                dtype: info.dtype?,
                goal,
                treatment,
            })
        };
        (0..).zip(header.tensors()).filter_map(candidate).collect()
    }

    /// Leaves out what is to stay exact whatever the layers.
    fn keep_coarse(&self, file: Opened) -> Result<Opened> {
        let may_be_coarse = |candidate: &Candidate| -> Result<bool> {
            let moments = self.tensor(&file.source, candidate).moments()?;
            let is_special = moments.n_not_finite > 0 && !candidate.treatment.despite_defaults;
            Ok(moments.n > 0 && !is_special && moments.min < moments.max)
        };
        let found: Vec<Result<bool>> = file.candidates.par_iter().map(may_be_coarse).collect();
        let mut kept = Vec::new();
        for (candidate, found) in file.candidates.iter().zip(found) {
            if found? {
                kept.push(candidate.clone());
            }
        }
        Ok(Opened { candidates: kept, ..file })
    }
}
