//! A file that is being compressed: opened, cut into regions, hashed.

use std::path::Path;

use rayon::prelude::*;

use super::context::Context;
use super::encode::EncodeMemory;
use super::settings::AsBytes;
use crate::checkpoint::{
    Region, SafetensorsHeader, TensorInfo, layout_around, other_file_regions, plain_layout,
};
use crate::container::{ContentHash, ContentHasher, Piece};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::storage::{FileIdentity, ReadFile};

/// What the name of a checkpoint ends in.
const CHECKPOINT_SUFFIX: &str = ".safetensors";
/// Bytes hashed by one task.
const HASH_PIECE_BYTES: usize = 1 << 20;

/// Whether a file's `name` says that it is a checkpoint.
pub(crate) fn is_checkpoint_name(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(CHECKPOINT_SUFFIX)
}

/// An open source file.
#[derive(Debug)]
pub(crate) struct Source {
    file: ReadFile,
}

/// How a file is cut.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The regions, which fill the file.
    pub(crate) regions: Vec<Region>,
    /// Whether the regions are of a checkpoint.
    pub(crate) is_checkpoint: bool,
    /// Tensors of a checkpoint.
    pub(crate) n_tensors: u64,
    /// Whether a file is not cut by its header, on request.
    pub(crate) as_bytes: bool,
}

impl Source {
    /// Opens the file at `path`, which had `size` bytes when it was listed.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]; [`ErrorKind::InvalidInput`] where it has changed since.
    pub(crate) fn open(path: &Path, size: u64) -> Result<Self> {
        let source = Self { file: ReadFile::open(path)? };
        if source.len() != size {
            let message =
                format!("source changed: it has {} bytes, had {size} when it was listed", source.len());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(source)
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.file.identity().len
    }

    /// The file's state when it was opened.
    pub(crate) fn identity(&self) -> FileIdentity {
        self.file.identity()
    }

    /// Copies the bytes at `offset` to `dst`.
    pub(crate) fn read(&self, offset: u64, dst: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(dst, offset)
    }

    /// Checks that the file is still the one that was opened.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.file.check_unchanged()
    }

    /// The header of the file, if its `name` says that it is a checkpoint and it is a good one.
    pub(crate) fn checkpoint_header(&self, name: &str, limits: &Limits) -> Option<SafetensorsHeader> {
        is_checkpoint_name(name).then(|| self.header(limits).ok()).flatten()
    }

    /// Cuts the file, which is a checkpoint if its `name` says so; files of other formats as
    /// [`other_file_regions`] does, and a malformed one that may be coded as bytes. Tensors that `stands_alone` names share no block with others.
    ///
    /// # Errors
    /// Those of [`SafetensorsHeader::parse`] for a malformed checkpoint, unless it may be coded as bytes; those of reading.
    pub(crate) fn layout(
        &self,
        name: &str,
        as_bytes: AsBytes,
        stands_alone: &dyn Fn(&TensorInfo) -> bool,
        limits: &Limits,
    ) -> Result<Layout> {
        let plain = |as_bytes| Layout {
            regions: plain_layout(self.len()),
            is_checkpoint: false,
            n_tensors: 0,
            as_bytes,
        };
        if as_bytes == AsBytes::All {
            return Ok(plain(true));
        }
        let by_samples = |as_bytes| -> Result<Layout> {
            let read = |offset, dst: &mut [u8]| self.read(offset, dst);
            let regions = other_file_regions(self.len(), &read, limits)?;
            Ok(Layout { regions, ..plain(as_bytes) })
        };
        if !is_checkpoint_name(name) {
            return by_samples(false);
        }
        match self.header(limits) {
            Ok(header) => {
                let regions = layout_around(&header, stands_alone);
                let n_tensors = header.tensors().len() as u64;
                Ok(Layout { regions, is_checkpoint: true, n_tensors, as_bytes: false })
            }
            Err(error) if error.kind() == ErrorKind::Io => Err(error),
            Err(_) if as_bytes == AsBytes::Malformed => by_samples(true),
            Err(error) => Err(with_remedy(&error)),
        }
    }

    pub(crate) fn header(&self, limits: &Limits) -> Result<SafetensorsHeader> {
        let mut first = [0; 8];
        let first = match usize::try_from(self.len()) {
            Ok(len) if len < first.len() => &mut first[..len],
            _ => &mut first[..],
        };
        self.read(0, first)?;
        let prefix_len = SafetensorsHeader::prefix_len(first, Some(self.len()), limits)?;
        let too_long =
            || Error::new(ErrorKind::LimitExceeded, "safetensors header exceeds the address space");
        let mut prefix = vec![0; usize::try_from(prefix_len).map_err(|_| too_long())?];
        self.read(0, &mut prefix)?;
        SafetensorsHeader::parse(&prefix, Some(self.len()), limits)
    }

    /// BLAKE3 of the whole file; parallel if called within the pool.
    pub(crate) fn hash(&self, ctx: &Context<'_>, memory: &EncodeMemory) -> Result<ContentHash> {
        self.hash_range(0, self.len(), ctx, memory)
    }

    /// BLAKE3 of the `len` bytes at `offset`.
    pub(crate) fn hash_range(
        &self,
        offset: u64,
        len: u64,
        ctx: &Context<'_>,
        memory: &EncodeMemory,
    ) -> Result<ContentHash> {
        let mut hasher = ContentHasher::new();
        let mut pieces = (0..len).step_by(HASH_PIECE_BYTES);
        loop {
            let batch: Vec<u64> = pieces.by_ref().take(ctx.window_bytes() / HASH_PIECE_BYTES).collect();
            if batch.is_empty() {
                return Ok(hasher.finalize());
            }
            let hash_piece = |start: u64| {
                let piece_len = (len - start).min(HASH_PIECE_BYTES as u64);
                let mut buffer = memory.buffer(usize::try_from(piece_len).unwrap_or(HASH_PIECE_BYTES));
                let piece = self.read(offset + start, &mut buffer).map(|()| Piece::hash(start, &buffer));
                memory.give_back(buffer);
                piece
            };
            let hashed: Vec<Result<Piece>> = batch.into_par_iter().map(hash_piece).collect();
            for piece in hashed {
                hasher.push(&piece?)?;
            }
        }
    }
}

/// The error of a malformed checkpoint, with what can be done about it.
fn with_remedy(error: &Error) -> Error {
    let message = format!("malformed checkpoint: {error}; pass --as-bytes to keep it all the same");
    Error::new(error.kind(), message)
}
