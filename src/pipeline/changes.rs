//! What a run does to the tensors of a file besides coding them: quantize them, or take them apart into layers.

use super::encode::{EncodeSettings, Encoded};
use super::lossy::settings::Goal;
use super::lossy::{FilePlan, LayeredPlan};
use super::report::LossSummary;
use super::source::Source;
use crate::container::{FLAG_LAYER, FLAG_LOSSY, LayerLink, LossTable, TensorLoss};
use crate::error::{Error, ErrorKind, Result};
use crate::stage::BlockLoss;

/// The plan of a file that may change.
#[derive(Clone, Copy)]
pub(super) enum FileChanges<'a> {
    Lossy(&'a FilePlan),
    Layers(&'a LayeredPlan),
}

impl FileChanges<'_> {
    /// Checks that `source` is still the file that the plan was made of.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`].
    pub(super) fn check_source(self, source: &Source) -> Result<()> {
        let planned_from = match self {
            Self::Lossy(plan) => plan.planned_from,
            Self::Layers(plan) => plan.planned_from,
        };
        if planned_from != source.identity() {
            let message = "source changed between its planning and its coding; run it again";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(())
    }

    /// What was done to the file's `n_tensors` tensors, by the loss table of its archive.
    pub(super) fn summary(self, loss: &LossTable, n_tensors: u64) -> LossSummary {
        let n_elements: Vec<u64> = match self {
            Self::Lossy(plan) => plan.tensors.iter().map(|t| t.candidate.info.n_elements()).collect(),
            Self::Layers(plan) => plan.n_elements().collect(),
        };
        let exact_by_rule = n_tensors.saturating_sub(n_elements.len() as u64);
        let mut summary = LossSummary { exact_by_rule, ..LossSummary::default() };
        for (row, n_elements) in loss.tensors.iter().zip(n_elements) {
            if row.is_exact {
                summary.exact_for_goal += 1;
                continue;
            }
            summary.lossy_tensors += 1;
            summary.error_sq += f64::from(row.error_rms).powi(2) * n_elements as f64;
            summary.value_sq += f64::from(row.signal_rms).powi(2) * n_elements as f64;
        }
        summary
    }
}

/// The same settings with more header flags.
pub(super) fn with_flags(settings: EncodeSettings, flags: u32) -> EncodeSettings {
    EncodeSettings { flags: settings.flags | flags, ..settings }
}

/// Writes the layers of a file one behind the other, by `encode`.
pub(super) fn encode_layers(
    plan: &LayeredPlan,
    settings: EncodeSettings,
    encode: &mut dyn FnMut(Option<Changes<'_>>, EncodeSettings) -> Result<Encoded>,
) -> Result<Encoded> {
    let mut written: Option<Encoded> = None;
    for layer_idx in 0..plan.n_layers() {
        let link = written
            .as_ref()
            .map(|before| LayerLink { before_bytes: before.archive_bytes, before_hash: before.content_hash });
        let pass = LayerPass { plan, layer_idx, link: link.unwrap_or_default() };
        let flags = FLAG_LAYER | if plan.is_lossy(layer_idx) { FLAG_LOSSY } else { 0 };
        let mut encoded = encode(Some(Changes::Layer(pass)), with_flags(settings, flags))?;
        if let Some(before) = written {
            encoded.archive_bytes += before.archive_bytes;
            encoded.report.add_layer_before(before.report);
        }
        written = Some(encoded);
    }
    written.ok_or_else(|| Error::new(ErrorKind::Internal, "a layered file without layers"))
}

/// What an archive does to its tensors besides coding them.
#[derive(Clone, Copy)]
pub(crate) enum Changes<'a> {
    /// Of a lossy file.
    Lossy(&'a FilePlan),
    /// Of a layer.
    Layer(LayerPass<'a>),
}

/// A layer to be written.
#[derive(Clone, Copy)]
pub(crate) struct LayerPass<'a> {
    pub(crate) plan: &'a LayeredPlan,
    pub(crate) layer_idx: usize,
    /// What stands before it in the file.
    pub(crate) link: LayerLink,
}

impl Changes<'_> {
    /// Whether the archive will hold something else than its source.
    pub(crate) fn is_lossy(&self) -> bool {
        match self {
            Self::Lossy(_) => true,
            Self::Layer(pass) => pass.plan.is_lossy(pass.layer_idx),
        }
    }

    pub(super) fn n_tensors(&self) -> usize {
        match self {
            Self::Lossy(plan) => plan.tensors.len(),
            Self::Layer(pass) => pass.plan.n_tensors(),
        }
    }

    pub(super) fn digest(&self) -> u64 {
        match self {
            Self::Lossy(plan) => plan.digest(),
            Self::Layer(pass) => pass.plan.digest(),
        }
    }

    /// The rate goal of the quantized tensor that holds the file's byte `offset`.
    pub(super) fn rate_goal_at(&self, offset: u64) -> Option<Goal> {
        let Self::Lossy(plan) = self else { return None };
        let (_, tensor) = plan.at(offset)?;
        tensor.spec.is_some().then_some(tensor.candidate.goal).filter(|goal| goal.is_rate())
    }

    /// Passes over the file of which this is one.
    pub(super) fn n_passes(&self) -> u64 {
        match self {
            Self::Lossy(_) => 1,
            Self::Layer(pass) => pass.plan.n_layers() as u64,
        }
    }

    /// The rows of the loss table, once every goal has been held against what was measured.
    pub(super) fn rows(&self, measured: &[BlockLoss]) -> Result<Vec<TensorLoss>> {
        let plan = match self {
            Self::Lossy(plan) => plan,
            Self::Layer(pass) => return Ok(pass.plan.rows(pass.layer_idx, measured)),
        };
        let mut rows = Vec::with_capacity(measured.len());
        for (tensor, measured) in plan.tensors.iter().zip(measured) {
            if !tensor.holds(measured) {
                let message = format!(
                    "a tensor came out with another error than when its step was tried: {:.6e} at most, {:.6e} relative",
                    measured.errors.max_abs,
                    measured.errors.relative_l2()
                );
                let name: String = tensor.candidate.info.name.chars().take(160).collect();
                return Err(Error::new(ErrorKind::Internal, message).in_tensor(name));
            }
            rows.push(tensor.loss(measured));
        }
        Ok(rows)
    }
}
