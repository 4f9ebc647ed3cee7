//! Reads an archive front to back, as from a pipe, in bounded memory.

use std::io::{ErrorKind as IoErrorKind, Read};

use crate::container::block::{BlockRecord, ENTRY_BYTES, RECORD_HEADER_BYTES, RecordHeader};
use crate::container::checksum::RunningCrc;
use crate::container::footer::{ContentHash, FOOTER_BYTES, Footer};
use crate::container::header::{FileHeader, HEADER_BYTES, LAYER_LINK_BYTES, LayerLink};
use crate::container::index::{INDEX_CRC_BYTES, INDEX_HEAD_BYTES, INDEX_TAG, IndexHead};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::stage::Coding;

/// Entries of the index that are read at a time.
const ENTRIES_PER_READ: usize = 512;

/// What the end of an archive says, once all of it has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEnd {
    /// Size of the archive.
    pub archive_bytes: u64,
    /// Size of the original file.
    pub original_bytes: u64,
    /// Number of blocks.
    pub n_blocks: u64,
    /// BLAKE3 of the original file, as recorded: the caller must compare it with what it decoded.
    pub content_hash: ContentHash,
    /// SHA-256 of the original file, where it was recorded.
    pub sha256: Option<[u8; 32]>,
}

/// Reads records one after the other; of a layered file its first layer, if that is all. Blocks are good once [`Self::next_block`] gives them; the archive is
/// known to be whole only after [`Self::finish`].
#[derive(Debug)]
pub struct StreamReader<R> {
    source: R,
    header: FileHeader,
    max_blocks: u64,
    n_blocks: u64,
    original_bytes: u64,
    read_bytes: u64,
    /// Over the entries that the index must hold, so that they need not be kept.
    entries_hash: blake3::Hasher,
    /// The head of the index, once it is met.
    index_head: Option<[u8; INDEX_HEAD_BYTES]>,
}

impl<R: Read> StreamReader<R> {
    /// Reads the file header.
    ///
    /// # Errors
    /// Those of [`FileHeader::parse`], or [`ErrorKind::Io`].
    pub fn new(mut source: R, limits: &Limits) -> Result<Self> {
        let mut header = [0; HEADER_BYTES];
        let header_len = read_up_to(&mut source, &mut header).map_err(cannot_read)?;
        let header = FileHeader::parse(header.get(..header_len).unwrap_or_default())?;
        if header.is_layer() {
            let mut start = [0; HEADER_BYTES + LAYER_LINK_BYTES];
            read_all(&mut source, &mut start[HEADER_BYTES..])?;
            if LayerLink::parse(&start)?.before_bytes > 0 {
                return Err(Error::new(ErrorKind::Corrupt, "a later layer without those before it"));
            }
        }
        Ok(Self {
            source,
            header,
            max_blocks: limits.blocks,
            n_blocks: 0,
            original_bytes: 0,
            read_bytes: header.records_offset(),
            entries_hash: blake3::Hasher::new(),
            index_head: None,
        })
    }

    /// The file header.
    #[must_use]
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// Reads the next record into `payload`, which it resizes to at most
    /// [`crate::limits::MAX_BLOCK_BYTES`], and checks its CRC; `None` where the index begins.
    ///
    /// # Errors
    /// [`ErrorKind::Truncated`], [`ErrorKind::Corrupt`], [`ErrorKind::ChecksumMismatch`],
    /// [`ErrorKind::LimitExceeded`], [`ErrorKind::Io`], with the block named.
    pub fn next_block<'p>(&mut self, payload: &'p mut Vec<u8>) -> Result<Option<BlockRecord<'p>>> {
        if self.index_head.is_some() {
            return Ok(None);
        }
        let block_idx = self.n_blocks;
        self.read_block(payload).map_err(|e| e.in_block(block_idx))
    }

    fn read_block<'p>(&mut self, payload: &'p mut Vec<u8>) -> Result<Option<BlockRecord<'p>>> {
        // Half a record's header is as long as the head of an index.
        let head: [u8; INDEX_HEAD_BYTES] = self.read_array()?;
        if head.starts_with(&INDEX_TAG) {
            self.index_head = Some(head);
            return Ok(None);
        }
        let mut start = [0; RECORD_HEADER_BYTES];
        start[..INDEX_HEAD_BYTES].copy_from_slice(&head);
        start[INDEX_HEAD_BYTES..].copy_from_slice(&self.read_array::<INDEX_HEAD_BYTES>()?);
        let header = RecordHeader::parse(&start, self.header.minor)?;
        if self.n_blocks >= self.max_blocks {
            let message = format!("archive has more than {} blocks, the limit", self.max_blocks);
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        payload.resize(header.info.payload_bytes as usize, 0);
        read_all(&mut self.source, payload)?;
        header.check_payload(payload)?;
        if header.info.coding.has_base() && !self.header.may_have_references() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "a block that needs another one in an archive whose flags deny such",
            ));
        }
        if header.info.coding == Coding::Refined {
            return Err(Error::new(ErrorKind::Corrupt, "a refined block without a layer before"));
        }
        let entry = header.info.at(self.n_blocks, self.original_bytes, self.read_bytes - start.len() as u64);
        self.entries_hash.update(&header.info.to_entry_bytes());
        // No sum can overflow: each counts bytes that have been read, or at most 2^22 for each of them.
        self.n_blocks += 1;
        self.original_bytes += u64::from(header.info.decoded_bytes);
        self.read_bytes += u64::from(header.info.payload_bytes);
        Ok(Some(BlockRecord { entry, decoded_crc: header.decoded_crc, payload }))
    }

    fn read_array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        read_all(&mut self.source, &mut bytes)?;
        self.read_bytes += N as u64;
        Ok(bytes)
    }

    /// Reads index and footer after the last block, holds them against the records seen, and checks that
    /// nothing follows.
    ///
    /// # Errors
    /// [`ErrorKind::Truncated`], [`ErrorKind::Corrupt`], [`ErrorKind::ChecksumMismatch`],
    /// [`ErrorKind::Io`]; [`ErrorKind::Internal`] while blocks are left to read.
    pub fn finish(mut self) -> Result<StreamEnd> {
        let Some(head) = self.index_head else {
            return Err(Error::new(ErrorKind::Internal, "blocks are left to read before the end"));
        };
        let index_offset = self.read_bytes - INDEX_HEAD_BYTES as u64;
        let head = self.read_index(&head)?;
        let footer = Footer::parse(&self.read_array::<FOOTER_BYTES>()?, self.header.minor)?;
        if read_up_to(&mut self.source, &mut [0]).map_err(cannot_read)? != 0 {
            let message = if self.header.is_layer() {
                "finer layers follow, which cannot be read front to back"
            } else {
                "bytes follow after the archive's end"
            };
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let expected = Footer {
            archive_bytes: self.read_bytes,
            index_offset,
            index_bytes: head.index_bytes().unwrap_or(0),
            n_blocks: self.n_blocks,
            original_bytes: self.original_bytes,
            ..footer
        };
        if footer != expected {
            return Err(Error::new(ErrorKind::Corrupt, "footer differs from the blocks before it"));
        }
        Ok(StreamEnd {
            archive_bytes: footer.archive_bytes,
            original_bytes: footer.original_bytes,
            n_blocks: footer.n_blocks,
            content_hash: footer.content_hash,
            sha256: footer.sha256,
        })
    }

    /// Reads the index after its first bytes.
    fn read_index(&mut self, head_bytes: &[u8; INDEX_HEAD_BYTES]) -> Result<IndexHead> {
        let head = IndexHead::parse(head_bytes, self.header.is_lossy())?;
        if head.n_blocks != self.n_blocks {
            let message = format!("index has not the {} blocks that came before it", self.n_blocks);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let mut crc = RunningCrc::new();
        crc.update(head_bytes);
        let mut entries_hash = blake3::Hasher::new();
        let mut entries_left = self.n_blocks;
        let mut entries = [[0; ENTRY_BYTES]; ENTRIES_PER_READ];
        while entries_left > 0 {
            let taken = usize::try_from(entries_left).unwrap_or(usize::MAX).min(ENTRIES_PER_READ);
            let bytes = entries[..taken].as_flattened_mut();
            read_all(&mut self.source, bytes)?;
            self.read_bytes += bytes.len() as u64;
            crc.update(bytes);
            entries_hash.update(bytes);
            entries_left -= taken as u64;
        }
        let mut loss_left = head.loss_bytes as usize;
        while loss_left > 0 {
            let mut bytes = [0; 4096];
            let bytes = &mut bytes[..loss_left.min(4096)];
            read_all(&mut self.source, bytes)?;
            self.read_bytes += bytes.len() as u64;
            crc.update(bytes);
            loss_left -= bytes.len();
        }
        let stored_crc = self.read_array::<INDEX_CRC_BYTES>()?;
        if crc.value() != u64::from_le_bytes(stored_crc) {
            return Err(Error::new(ErrorKind::ChecksumMismatch, "index differs from its CRC"));
        }
        if entries_hash.finalize() != self.entries_hash.finalize() {
            return Err(Error::new(ErrorKind::Corrupt, "index differs from the records before it"));
        }
        Ok(head)
    }
}

fn cannot_read(source: std::io::Error) -> Error {
    Error::io("cannot read the archive", source)
}

/// Fills `dst` or fails as truncated.
fn read_all(source: &mut impl Read, dst: &mut [u8]) -> Result<()> {
    source.read_exact(dst).map_err(|e| match e.kind() {
        IoErrorKind::UnexpectedEof => {
            Error::new(ErrorKind::Truncated, "archive ends before it is complete: it was cut short")
        }
        _ => cannot_read(e),
    })
}

/// Fills `dst` as far as there are bytes, and says how far.
pub(crate) fn read_up_to(source: &mut impl Read, dst: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = dst.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(read_len) => filled += read_len,
            Err(e) if e.kind() == IoErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
