//! Tensors of a lossy run that are equal before it: what is planned for the first is planned for all, so that they are
//! equal after it, too, and stored once.

use std::collections::HashMap;

use super::plan::{Candidate, FilePlan, Plans};
use super::settings::{Goal, LossyTreatment};
use crate::pipeline::dedup::{DedupPlan, TensorPlace};
use crate::stage::QuantSpec;

/// Bits that a block takes that refers to another: record, index entry, reference.
pub(super) const REFERENCE_BITS: f64 = 8.0 * (super::rate::RECORD_BYTES as f64 + 16.0);

/// A tensor by file number and offset.
pub(super) type Place = (usize, u64);

/// Tensors that go by the plan of an equal one.
#[derive(Debug, Default)]
pub(super) struct Twins {
    bases: HashMap<Place, Place>,
}

impl Twins {
    /// Those among `candidates`, of the files with these numbers, that have to keep to the same as their base.
    pub(super) fn of<'c>(
        dedup: &DedupPlan,
        candidates: impl Iterator<Item = (usize, &'c Candidate)> + Clone,
    ) -> Self {
        let place = |(file_idx, candidate): (usize, &Candidate)| (file_idx, candidate.info.start);
        let asked: HashMap<Place, (Goal, LossyTreatment)> =
            candidates.clone().map(|tensor| (place(tensor), (tensor.1.goal, tensor.1.treatment))).collect();
        let twin = |tensor: (usize, &Candidate)| {
            let (file_idx, offset) = place(tensor);
            let TensorPlace { file_idx: base_idx, offset: base, .. } =
                dedup.tensors.get(&file_idx)?.get(&offset)?.base;
            let is_asked_alike = asked.get(&(base_idx, base)) == Some(&(tensor.1.goal, tensor.1.treatment));
            is_asked_alike.then_some(((file_idx, offset), (base_idx, base)))
        };
        Self { bases: candidates.filter_map(twin).collect() }
    }

    /// The tensor by whose plan `candidate` goes.
    pub(super) fn base_of(&self, file_idx: usize, candidate: &Candidate) -> Option<Place> {
        self.bases.get(&(file_idx, candidate.info.start)).copied()
    }

    /// Gives every twin in `plans` what its base has.
    pub(super) fn copy_specs(&self, plans: &mut Plans) {
        let specs: HashMap<Place, QuantSpec> =
            self.bases.values().filter_map(|place| Some((*place, spec_at(plans, *place)?.clone()))).collect();
        for (file_idx, plan) in plans {
            let Ok(FilePlan { tensors, .. }) = plan else { continue };
            for tensor in tensors {
                if let Some(base) = self.base_of(*file_idx, &tensor.candidate) {
                    tensor.spec = specs.get(&base).cloned();
                }
            }
        }
    }
}

fn spec_at(plans: &Plans, (file_idx, offset): Place) -> Option<&QuantSpec> {
    plans.get(&file_idx)?.as_ref().ok()?.at(offset)?.1.spec.as_ref()
}

/// Whether two tensors that are equal before a run with `plans` are equal after it.
pub(crate) fn stay_equal(plans: &Plans, a: TensorPlace, b: TensorPlace) -> bool {
    spec_at(plans, (a.file_idx, a.offset)) == spec_at(plans, (b.file_idx, b.offset))
}
