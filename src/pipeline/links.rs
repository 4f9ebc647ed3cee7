//! What blocks have in common with others, of their file or another: those that are stored as references, and those
//! that may be stored as differences.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::dedup::{Duplicate, group_by_base};
use super::near_copies::NearCopies;
use super::source::Layout;
use crate::checkpoint::blocks;
use crate::container::{Archive, ContentHash, OtherFile, Reference};
use crate::error::Result;
use crate::limits::Limits;
use crate::storage::MappedFile;

/// The block that a reference names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// Its place.
    pub(crate) reference: Reference,
    /// CRC of its decoded bytes, where it is in another archive.
    pub(crate) crc: Option<u64>,
}

/// What blocks of a file have in common with others, by original offset.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Blocks that are stored as references.
    pub(crate) targets: HashMap<u64, Target>,
    /// Blocks that may be stored as differences.
    pub(crate) near_copies: NearCopies,
}

impl Links {
    pub(crate) fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.near_copies.is_empty()
    }
}

/// The references among the blocks of file `file_idx`, by original offset, of which `duplicates` are the tensors that are
/// equal to earlier ones. `base` says what another file holds and where its archive is, if it has one: tensors whose base has
/// failed are coded for themselves.
pub(super) fn find_targets<'p>(
    file_idx: usize,
    duplicates: &BTreeMap<u64, Duplicate>,
    layout: &Layout,
    base: &dyn Fn(usize) -> Option<(ContentHash, &'p Path)>,
    limits: &Limits,
) -> Result<HashMap<u64, Target>> {
    let spans = |duplicate: &Duplicate| {
        let found = layout.regions.binary_search_by_key(&duplicate.place.offset, |region| region.offset);
        blocks(found.map_or(&[][..], |found| &layout.regions[found..=found]))
    };
    let moved = |duplicate: &Duplicate, offset: u64| offset - duplicate.place.offset + duplicate.base.offset;
    let mut targets = HashMap::new();
    for (base_idx, duplicates) in group_by_base(duplicates.values()) {
        if base_idx == file_idx {
            for duplicate in duplicates {
                for span in spans(duplicate) {
                    let original_offset = moved(duplicate, span.offset);
                    let reference = Reference::SameFile { original_offset };
                    targets.insert(span.offset, Target { reference, crc: None });
                }
            }
            continue;
        }
        let Some((content_hash, archive)) = base(base_idx) else { continue };
        let mapped = MappedFile::open(archive)?;
        let archive = Archive::open(mapped.bytes(), limits)?;
        for duplicate in duplicates {
            for span in spans(duplicate) {
                let original_offset = moved(duplicate, span.offset);
                let other = OtherFile { content_hash, original_offset };
                let entry =
                    archive.block_at(original_offset).filter(|e| e.original_offset == original_offset);
                let Some(entry) = entry else { continue };
                let crc = Some(archive.record_of(&entry)?.decoded_crc);
                targets.insert(span.offset, Target { reference: Reference::OtherFile(other), crc });
            }
        }
    }
    Ok(targets)
}
