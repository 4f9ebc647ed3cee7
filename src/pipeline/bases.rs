//! The archives that references of another archive name, found by content hash.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::manifest::{MANIFEST_NAME, Manifest};
use crate::container::{Archive, BlockRecord, ContentHash, OtherFile, Reference, no_other_files};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::stage::{BlockDecoder, Coding};
use crate::storage::MappedFile;

/// Directories above an archive in which its manifest is looked for: a tree's own depth is rarely more.
const MAX_LEVELS: usize = 32;

/// Where archives are, by the hash of the file that each holds.
pub(crate) type ArchivePaths = HashMap<ContentHash, PathBuf>;

/// The archives of the manifest of `dir`.
pub(crate) fn archive_paths(dir: &Path, manifest: &Manifest) -> ArchivePaths {
    manifest.files.iter().map(|file| (file.blake3.0, dir.join(&file.archive))).collect()
}

/// The archives of the nearest manifest in a directory above `archive`; none if there is no good one.
pub(crate) fn find_archive_paths(archive: &Path, limits: &Limits) -> ArchivePaths {
    let full = std::fs::canonicalize(archive).unwrap_or_else(|_| archive.to_owned());
    full.ancestors()
        .skip(1)
        .take(MAX_LEVELS)
        .find(|dir| dir.join(MANIFEST_NAME).is_file())
        .and_then(|dir| Some(archive_paths(dir, &Manifest::read(dir, limits).ok()?)))
        .unwrap_or_default()
}

/// The files that the references of `archive` name.
pub(crate) fn referenced(archive: &Archive<'_>) -> Result<HashSet<ContentHash>> {
    let mut hashes = HashSet::new();
    if !archive.header().may_have_references() {
        return Ok(hashes);
    }
    for entry in archive.blocks().filter(|entry| entry.coding == Coding::Reference) {
        if let Reference::OtherFile(other) = Reference::parse(archive.record_of(&entry)?.payload)? {
            hashes.insert(other.content_hash);
        }
    }
    Ok(hashes)
}

/// Mapped archives that hold what another refers to.
#[derive(Debug, Default)]
pub(crate) struct MappedBases {
    mapped: Vec<(ContentHash, PathBuf, MappedFile)>,
}

impl MappedBases {
    /// Maps those of `paths` that `archive` refers to; what is absent is found out when a block needs it.
    pub(crate) fn open(archive: &Archive<'_>, paths: &ArchivePaths) -> Result<Self> {
        let mut mapped = Vec::new();
        for hash in referenced(archive)? {
            if let Some(path) = paths.get(&hash)
                && let Ok(file) = MappedFile::open(path)
            {
                mapped.push((hash, path.clone(), file));
            }
        }
        Ok(Self { mapped })
    }

    /// The archives, opened.
    ///
    /// # Errors
    /// [`ErrorKind::BaseMismatch`] where one cannot be opened or holds another file.
    pub(crate) fn archives(&self, limits: &Limits) -> Result<Bases<'_>> {
        let mut archives = HashMap::new();
        for (hash, path, file) in &self.mapped {
            let archive = Archive::open(file.bytes(), limits).map_err(|e| {
                Error::new(ErrorKind::BaseMismatch, format!("archive referred to is bad: {e}")).in_file(path)
            })?;
            if archive.content_hash() != hash {
                let message = "archive referred to holds another file than its manifest says";
                return Err(Error::new(ErrorKind::BaseMismatch, message).in_file(path));
            }
            archives.insert(*hash, archive);
        }
        Ok(Bases { archives })
    }
}

/// Opened archives that hold what another refers to.
#[derive(Debug)]
pub(crate) struct Bases<'a> {
    archives: HashMap<ContentHash, Archive<'a>>,
}

impl Bases<'_> {
    /// Fills its last argument with the block of one of the archives that its first names.
    pub(crate) fn resolver(
        &self,
    ) -> impl Fn(&OtherFile, &BlockRecord<'_>, &mut BlockDecoder, &mut [u8]) -> Result<()> + Sync {
        |other, record, decoder, dst| match self.archives.get(&other.content_hash) {
            Some(archive) => archive.decode_target(other.original_offset, record, decoder, dst),
            None => no_other_files(other, record, decoder, dst),
        }
    }
}
