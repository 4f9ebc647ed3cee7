//! One archive kept open: its tensors listed, and any of them decoded into memory of the caller.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::bases::MappedBases;
use super::context::Context;
use super::inspect::{open_bases, read_header};
use super::layer_choice::LayerChoice;
use crate::checkpoint::{SafetensorsHeader, TensorInfo};
use crate::container::{Archive, read_range};
use crate::error::{Error, ErrorKind, Result};
use crate::stage::BlockDecoder;
use crate::storage::MappedFile;

/// An archive that is mapped, with the archives that its references name and its checkpoint's header.
///
/// Only the blocks that hold what is asked for are read. A reference is followed by the manifest in the nearest
/// directory above.
#[derive(Debug)]
pub struct ArchiveFile {
    path: PathBuf,
    mapped: MappedFile,
    bases: MappedBases,
    header: Option<SafetensorsHeader>,
    original_bytes: u64,
    layer: LayerChoice,
}

impl ArchiveFile {
    /// Opens the archive at `path` and decodes the checkpoint's header.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], and what is wrong with the archive; with the file named.
    pub fn open(ctx: &Context<'_>, path: &Path) -> Result<Self> {
        Self::open_layer(ctx, path, LayerChoice::Finest)
    }

    /// As [`Self::open`], of one layer of a layered archive.
    ///
    /// # Errors
    /// As [`Self::open`]; [`ErrorKind::InvalidConfig`] for a layer that is not there.
    pub fn open_layer(ctx: &Context<'_>, path: &Path, layer: LayerChoice) -> Result<Self> {
        Self::open_unnamed(ctx, path, layer).map_err(|e| e.in_file(path))
    }

    fn open_unnamed(ctx: &Context<'_>, path: &Path, layer: LayerChoice) -> Result<Self> {
        let mapped = MappedFile::open(path)?;
        let archive = Archive::open(mapped.bytes(), &ctx.limits)?;
        let archive = layer.of(&archive)?;
        let bases = open_bases(ctx, archive, path)?;
        let header = read_header(ctx, archive, path)?;
        let original_bytes = archive.original_bytes();
        Ok(Self { path: path.to_owned(), mapped, bases, header, original_bytes, layer })
    }

    /// Size of the original file, in bytes.
    #[must_use]
    pub fn original_bytes(&self) -> u64 {
        self.original_bytes
    }

    /// Whether the original is a checkpoint, be it one without tensors.
    #[must_use]
    pub fn is_checkpoint(&self) -> bool {
        self.header.is_some()
    }

    /// The tensors in the order of their bytes; none for a file that is no checkpoint.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        self.header.as_ref().map_or(&[], SafetensorsHeader::tensors)
    }

    /// The tensor of that name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors().iter().find(|tensor| tensor.name == name)
    }

    /// Fills `dst`, of [`TensorInfo::byte_len`] bytes, with the elements of `tensor`, little-endian in C order; its
    /// blocks are decoded in parallel on the context's threads. Each block's checksums are checked; the hash of the
    /// whole file is not, since the rest of the file is not read.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where `dst` has another size; what is wrong with the archive, with the tensor
    /// named. `dst` then holds unspecified bytes.
    pub fn read_tensor(&self, ctx: &Context<'_>, tensor: &TensorInfo, dst: &mut [u8]) -> Result<()> {
        let read = if dst.len() as u64 == tensor.byte_len() {
            self.read_range(ctx, tensor.start, dst)
        } else {
            let message =
                format!("buffer of {} bytes for a tensor of {} bytes", dst.len(), tensor.byte_len());
            Err(Error::new(ErrorKind::InvalidInput, message))
        };
        read.map_err(|e| e.in_tensor(&tensor.name).in_file(&self.path))
    }

    /// Fills `dst` with the original file's bytes from `original_offset` on.
    pub(crate) fn read_range(&self, ctx: &Context<'_>, original_offset: u64, dst: &mut [u8]) -> Result<()> {
        let archive = Archive::open(self.mapped.bytes(), &ctx.limits)?;
        let archive = self.layer.of(&archive)?;
        let bases = self.bases.archives(&ctx.limits)?;
        let resolver = bases.resolver();
        let mut pieces = Vec::new();
        let (mut at, mut rest) = (original_offset, dst);
        for entry in archive.blocks_from(original_offset) {
            let left = usize::try_from(entry.original_end().saturating_sub(at)).unwrap_or(usize::MAX);
            let (piece, later) = rest.split_at_mut(left.min(rest.len()));
            let piece_len = piece.len() as u64;
            pieces.push((at, piece));
            at += piece_len;
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        if !rest.is_empty() {
            return Err(Error::new(ErrorKind::Corrupt, "archive ends before the range that was asked for"));
        }
        let decode = |decoder: &mut BlockDecoder, (at, piece): (u64, &mut [u8])| {
            read_range(archive, at, piece, decoder, &resolver)
        };
        let results: Vec<Result<()>> = ctx
            .pool
            .install(|| pieces.into_par_iter().map_init(|| BlockDecoder::new(ctx.isa), decode).collect());
        // The first error in the file's order, whichever thread met one first.
        results.into_iter().collect()
    }
}
