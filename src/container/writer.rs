//! Writes an archive front to back.

use std::io::Write;

use crate::container::block::{BlockEntry, BlockInfo, block_header_bytes};
use crate::container::footer::ContentHash;
use crate::container::header::{FileHeader, LayerLink};
use crate::container::index::IndexBuilder;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::stage::Coding;

/// One block, coded and ready to be written.
#[derive(Debug, Clone, Copy)]
pub struct EncodedBlock<'a> {
    /// Type of the elements.
    pub dtype: Dtype,
    /// How the payload is coded.
    pub coding: Coding,
    /// Bytes of the original that the block holds.
    pub decoded_bytes: usize,
    /// [`crate::container::crc64`] of those bytes.
    pub decoded_crc: u64,
    /// The coded bytes.
    pub payload: &'a [u8],
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteSummary {
    /// Size of the archive.
    pub archive_bytes: u64,
    /// Size of the original file.
    pub original_bytes: u64,
    /// Number of blocks.
    pub n_blocks: u64,
}

/// Writes an exact archive to any [`Write`], holding 12 bytes for each block until the end.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    sink: W,
    header: FileHeader,
    index: IndexBuilder,
}

impl<W: Write> ArchiveWriter<W> {
    /// Writes the file header. `flags` must hold [`crate::container::FLAG_REFERENCES`] if references will be
    /// written, and with [`crate::container::FLAG_LAYER`] the archive is a first layer; `note` is the encoder note (FORMAT.md, 4).
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn new(mut sink: W, flags: u32, note: u64) -> Result<Self> {
        let header = FileHeader::new(flags, note);
        sink.write_all(&header.to_bytes()).map_err(cannot_write)?;
        if header.is_layer() {
            sink.write_all(&LayerLink::default().to_bytes()).map_err(cannot_write)?;
        }
        Ok(Self { sink, header, index: IndexBuilder::behind(header.records_offset()) })
    }

    /// Writes the next block's record.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]; [`ErrorKind::Internal`] for a block that the format cannot hold.
    pub fn write_block(&mut self, block: &EncodedBlock<'_>) -> Result<BlockEntry> {
        if block.coding.has_base() && !self.header.may_have_references() {
            return Err(Error::new(
                ErrorKind::Internal,
                "a block that needs another one in an archive whose flags deny such",
            ));
        }
        let info = BlockInfo::new(block.dtype, block.coding, block.decoded_bytes, block.payload.len())?;
        let header = block_header_bytes(info, block.decoded_crc, block.payload)?;
        self.sink.write_all(&header).map_err(cannot_write)?;
        self.sink.write_all(block.payload).map_err(cannot_write)?;
        Ok(self.index.push(info))
    }

    /// Bytes of the original in the blocks so far.
    #[must_use]
    pub fn original_bytes(&self) -> u64 {
        self.index.original_bytes()
    }

    /// Writes index and footer and flushes; gives the sink back.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn finish(
        mut self,
        content_hash: ContentHash,
        sha256: Option<[u8; 32]>,
    ) -> Result<(W, WriteSummary)> {
        let (bytes, footer) = self.index.finish(content_hash, sha256, None);
        self.sink.write_all(&bytes).map_err(cannot_write)?;
        self.sink.flush().map_err(cannot_write)?;
        let summary = WriteSummary {
            archive_bytes: footer.archive_bytes,
            original_bytes: footer.original_bytes,
            n_blocks: footer.n_blocks,
        };
        Ok((self.sink, summary))
    }
}

fn cannot_write(source: std::io::Error) -> Error {
    Error::io("cannot write the archive", source)
}
