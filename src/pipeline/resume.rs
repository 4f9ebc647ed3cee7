//! What an earlier, interrupted run left: archives that are complete and can be kept.

use std::path::Path;

use rayon::prelude::*;

use super::context::Context;
use super::encode::{EncodeMemory, EncodeSettings, Encoded};
use super::links::Links;
use super::lossy::LayeredPlan;
use super::report::Report;
use super::source::Source;
use crate::container::{Archive, BlockEntry, Reference};
use crate::error::Result;
use crate::stage::{Coding, delta_base};
use crate::storage::MappedFile;

/// What an archive must be to be kept.
pub(crate) struct Expected<'a> {
    /// The settings that this run would use.
    pub(crate) settings: EncodeSettings,
    /// The references that this run would write, and the differences that it may.
    pub(crate) links: &'a Links,
    /// Digest of the lossy plan that this run would follow.
    pub(crate) lossy_digest: Option<u64>,
    /// The layers that this run would write; otherwise one archive that is no layer.
    pub(crate) layers: Option<&'a LayeredPlan>,
}

/// The archive at `path`, if it is whole, of the bytes that `source` has now, and as this run would make it.
/// Whatever is wrong with it, the answer is to write it again.
pub(crate) fn reusable(
    ctx: &Context<'_>,
    memory: &EncodeMemory,
    path: &Path,
    source: &Source,
    expected: &Expected<'_>,
) -> Option<Encoded> {
    let mapped = MappedFile::open(path).ok()?;
    let archive = Archive::open(mapped.bytes(), &ctx.limits).ok()?;
    let settings = &expected.settings;
    let made_alike = archive.note() == settings.note
        && archive.flags() == settings.flags
        && archive.sha256().is_some() == settings.sha256
        && archive.original_bytes() == source.len();
    let loss = archive.loss().ok()?;
    let source_hash = loss.as_ref().map_or(archive.content_hash(), |loss| &loss.source_hash);
    let planned_alike = loss.as_ref().map(|loss| loss.settings_digest) == expected.lossy_digest;
    if !made_alike
        || !planned_alike
        || !layered_alike(&archive, expected)
        || source.hash(ctx, memory).ok()? != *source_hash
    {
        return None;
    }
    let mut report = Report { files: 1, resumed_files: 1, ..Report::default() };
    for layer in std::iter::successors(Some(&archive), |layer| layer.before()) {
        let entries: Vec<BlockEntry> = layer.blocks().collect();
        let check = |entry: &BlockEntry| check_block(layer, entry, expected);
        let good = if settings.serial { entries.iter().all(check) } else { entries.par_iter().all(check) };
        if !good {
            return None;
        }
        for entry in &entries {
            let is_finest = std::ptr::eq(layer, &archive);
            let original_bytes = if is_finest { entry.decoded_bytes.into() } else { 0 };
            report.add_block(entry.dtype, original_bytes, entry.info().record_bytes());
        }
    }
    report.original_bytes = archive.original_bytes();
    report.stored_bytes = archive.archive_bytes();
    Some(Encoded {
        content_hash: *archive.content_hash(),
        loss,
        sha256: archive.sha256().copied(),
        archive_bytes: archive.archive_bytes(),
        original_bytes: archive.original_bytes(),
        report,
    })
}

/// Whether `archive` has the layers that this run would write: as many, of the same plan.
fn layered_alike(archive: &Archive<'_>, expected: &Expected<'_>) -> bool {
    let Some(plan) = expected.layers else { return archive.n_layers() == 1 };
    let is_planned = |layer_idx: usize| {
        let loss = archive.layer(layer_idx + 1).and_then(|layer| layer.loss().ok());
        loss.is_some_and(|loss| match loss {
            Some(loss) => plan.is_lossy(layer_idx) && loss.settings_digest == plan.digest(),
            None => !plan.is_lossy(layer_idx),
        })
    };
    archive.n_layers() == plan.n_layers() && (0..plan.n_layers()).all(is_planned)
}

/// Whether a record is whole and, if it needs another block, the one that this run would write.
fn check_block(archive: &Archive<'_>, entry: &BlockEntry, expected: &Expected<'_>) -> bool {
    let is_planned = |payload: &[u8]| -> Result<bool> {
        let planned = expected.links.targets.get(&entry.original_offset).map(|target| target.reference);
        Ok(match entry.coding {
            Coding::Reference => planned == Some(Reference::parse(payload)?),
            Coding::Delta => {
                planned.is_none()
                    && expected.links.near_copies.get(&entry.original_offset) == Some(&delta_base(payload)?)
            }
            _ => planned.is_none(),
        })
    };
    archive.record_of(entry).and_then(|record| is_planned(record.payload)).unwrap_or(false)
}
