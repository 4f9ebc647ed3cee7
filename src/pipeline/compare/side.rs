//! One side of a comparison: which files it has, and their bytes, whether they are compressed or not.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::checkpoint::{SafetensorsHeader, TensorInfo};
use crate::container::{MAGIC, read_up_to};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::archive_file::ArchiveFile;
use crate::pipeline::context::Context;
use crate::pipeline::decompress::restored_name;
use crate::pipeline::manifest::{MANIFEST_NAME, Manifest};
use crate::pipeline::report::Failure;
use crate::pipeline::tree::SourceTree;
use crate::storage::MappedFile;

/// The files of one side.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Path within the tree, of the original where it is an archive, and where to find it; sorted by path.
    pub(super) files: Vec<(String, PathBuf)>,
    /// Entries that cannot be compared.
    pub(super) failures: Vec<Failure>,
}

impl Listing {
    /// Lists `path`: a file, an archive, a directory with a manifest, or any other directory, in which archives stand
    /// for their originals.
    pub(super) fn of(ctx: &Context<'_>, path: &Path) -> Result<Self> {
        let mut listing = Self::default();
        std::fs::metadata(path).map_err(|e| Error::io("cannot open", e).in_file(path))?;
        if !path.is_dir() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            listing.files.push((original_name(name, path), path.to_owned()));
        } else if path.join(MANIFEST_NAME).is_file() {
            let manifest = Manifest::read(path, &ctx.limits)?;
            listing.files = manifest.files.into_iter().map(|f| (f.path, path.join(f.archive))).collect();
        } else {
            let tree = SourceTree::walk(&[path.to_owned()])?;
            // Below the directory's own name.
            let below = |path: &str| path.split_once('/').map(|(_, below)| below.to_owned());
            let files = tree.files.into_iter().filter_map(|file| Some((below(&file.path)?, file.source)));
            listing.files = files.map(|(name, source)| (original_name(name, &source), source)).collect();
            listing.failures = tree.failures;
        }
        listing.files.sort();
        Ok(listing)
    }

    /// The directory that all files lie in, where there is one.
    fn top_dir(&self) -> Option<&str> {
        let mut tops = self.files.iter().map(|(path, _)| path.split_once('/').map(|(top, _)| top));
        let first = tops.next()??;
        tops.all(|top| top == Some(first)).then_some(first)
    }

    fn strip_top_dir(&mut self) {
        for (path, _) in &mut self.files {
            if let Some((_, below)) = path.split_once('/') {
                *path = below.to_owned();
            }
        }
    }

    fn n_common(&self, strip: bool, other: &Self, strip_other: bool) -> usize {
        let name = |path: &'_ str, strip: bool| -> String {
            path.split_once('/').filter(|_| strip).map_or(path, |(_, below)| below).to_owned()
        };
        let names: std::collections::HashSet<String> =
            self.files.iter().map(|(path, _)| name(path, strip)).collect();
        other.files.iter().filter(|(path, _)| names.contains(&name(path, strip_other))).count()
    }
}

/// Makes the paths of two sides comparable: a tree may lie in a directory of its own name, which is left out where more
/// files agree without it; and if both sides are one file, its name does not matter.
pub(super) fn align(a: &mut Listing, b: &mut Listing) {
    if let ([(a_path, _)], [(b_path, _)]) = (a.files.as_slice(), b.files.as_mut_slice()) {
        b_path.clone_from(a_path);
        return;
    }
    let ways = [(false, false), (true, false), (false, true), (true, true)];
    let possible = ways.into_iter().filter(|(strip_a, strip_b)| {
        (!strip_a || a.top_dir().is_some()) && (!strip_b || b.top_dir().is_some())
    });
    // The first of the best: `max_by_key` would take the last.
    let best = possible.rev().max_by_key(|(strip_a, strip_b)| a.n_common(*strip_a, b, *strip_b));
    if let Some((strip_a, strip_b)) = best {
        if strip_a {
            a.strip_top_dir();
        }
        if strip_b {
            b.strip_top_dir();
        }
    }
}

/// `name` without the archives' suffix, where the file at `path` is an archive.
fn original_name(name: String, path: &Path) -> String {
    match restored_name(Path::new(&name)) {
        Ok(restored) if is_archive(path) => match name.rsplit_once('/') {
            Some((parent, _)) => format!("{parent}/{restored}"),
            None => restored,
        },
        _ => name,
    }
}

/// Whether the file begins as archives do; what cannot be read is found out when it is opened.
fn is_archive(path: &Path) -> bool {
    let mut first = [0; MAGIC.len()];
    // Opening a named pipe would wait for its writer.
    let file = path.is_file().then(|| File::open(path).ok()).flatten();
    let read = file.and_then(|mut file| read_up_to(&mut file, &mut first).ok());
    read == Some(MAGIC.len()) && first == MAGIC
}

/// An opened file of one side.
#[derive(Debug)]
pub(super) enum SideFile {
    /// A file as it is, and the header if it is a checkpoint.
    Plain(MappedFile, Option<SafetensorsHeader>),
    /// An archive, which stands for its original.
    Archive(ArchiveFile),
}

impl SideFile {
    /// Opens the file or archive at `path`.
    pub(super) fn open(ctx: &Context<'_>, path: &Path) -> Result<Self> {
        if is_archive(path) {
            return ArchiveFile::open(ctx, path).map(Self::Archive);
        }
        let mapped = MappedFile::open(path)?;
        let header = SafetensorsHeader::parse(mapped.bytes(), Some(mapped.bytes().len() as u64), &ctx.limits);
        Ok(Self::Plain(mapped, header.ok()))
    }

    /// Size of the original, in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Plain(mapped, _) => mapped.bytes().len() as u64,
            Self::Archive(archive) => archive.original_bytes(),
        }
    }

    /// The tensors in the order of their bytes; `None` where the original is no checkpoint.
    pub(super) fn tensors(&self) -> Option<&[TensorInfo]> {
        match self {
            Self::Plain(_, header) => header.as_ref().map(SafetensorsHeader::tensors),
            Self::Archive(archive) => archive.is_checkpoint().then(|| archive.tensors()),
        }
    }

    /// The original's `len` bytes from `offset` on; `buffer` holds them where they must be decoded.
    pub(super) fn read<'b>(
        &'b self,
        ctx: &Context<'_>,
        offset: u64,
        len: usize,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8]> {
        match self {
            Self::Plain(mapped, _) => {
                let start = usize::try_from(offset).ok();
                let end = start.and_then(|start| start.checked_add(len));
                let bytes = start.zip(end).and_then(|(start, end)| mapped.bytes().get(start..end));
                bytes.ok_or_else(|| {
                    Error::new(ErrorKind::Internal, format!("{len} bytes at {offset} asked for"))
                })
            }
            Self::Archive(archive) => {
                buffer.resize(len, 0);
                archive.read_range(ctx, offset, buffer)?;
                Ok(buffer)
            }
        }
    }

    /// Checks that a file read as it is has not changed meanwhile. An archive's checksums tell by themselves.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        match self {
            Self::Plain(mapped, _) => mapped.check_unchanged(),
            Self::Archive(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(paths: &[&str]) -> Listing {
        let files = paths.iter().map(|path| ((*path).to_owned(), PathBuf::from(path))).collect();
        Listing { files, failures: Vec::new() }
    }

    fn aligned(a: &[&str], b: &[&str]) -> (Vec<String>, Vec<String>) {
        let (mut a, mut b) = (listing(a), listing(b));
        align(&mut a, &mut b);
        let paths = |listing: Listing| listing.files.into_iter().map(|(path, _)| path).collect();
        (paths(a), paths(b))
    }

    #[test]
    fn a_tree_may_lie_in_a_directory_of_its_own_name() {
        let both = |paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            (paths.clone(), paths)
        };
        assert_eq!(aligned(&["x", "d/y"], &["m/x", "m/d/y"]), both(&["x", "d/y"]));
        assert_eq!(aligned(&["m/x", "m/d/y"], &["x", "d/y"]), both(&["x", "d/y"]));
        assert_eq!(aligned(&["m/x", "m/y"], &["n/x", "n/y"]), both(&["x", "y"]));
        // Nothing is left out where the paths agree, or where it would not help.
        assert_eq!(aligned(&["m/x", "m/y"], &["m/x", "m/y"]), both(&["m/x", "m/y"]));
        assert_eq!(aligned(&["m/x", "n/y"], &["m/x", "n/y"]), both(&["m/x", "n/y"]));
        assert_eq!(aligned(&["a", "b"], &["m/c", "m/d"]).1, ["m/c", "m/d"]);
    }

    #[test]
    fn names_of_single_files_do_not_matter() {
        assert_eq!(aligned(&["x"], &["deep/other"]).1, ["x"]);
        assert_eq!(aligned(&["x"], &["m/x", "m/y"]).1, ["x", "y"]);
    }
}
