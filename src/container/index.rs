//! The index (FORMAT.md, 1.3): built while blocks are written, read in place from a mapped archive.
//!
//! Both hold 12 bytes for each block. The reader leaves the entries in the mapped file and keeps the
//! offsets of every 64th block, so that an archive of millions of blocks costs a few megabytes.

use crate::bits::ByteCursor;
use crate::container::block::{BlockEntry, BlockInfo, ENTRY_BYTES};
use crate::container::checksum::crc64;
use crate::container::footer::{ContentHash, FOOTER_BYTES, Footer};
use crate::container::header::{FileHeader, HEADER_BYTES};
use crate::container::loss::LossTable;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;

/// The bytes that begin the index.
pub(crate) const INDEX_TAG: [u8; 4] = *b"INDX";
/// Bytes of the index before its entries.
pub(crate) const INDEX_HEAD_BYTES: usize = 16;
/// Bytes of the CRC after the entries.
pub(crate) const INDEX_CRC_BYTES: usize = 8;
/// Largest loss table, in bytes: a row for each of the most tensors that a checkpoint may have.
const MAX_LOSS_BYTES: u32 = 16 << 20;
/// The reader keeps one pair of offsets for this many blocks: 16 bytes for each 768 of the index.
const BLOCKS_PER_SAMPLE: u64 = 64;

/// What the first 16 bytes of an index say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexHead {
    /// Size of the loss table after the entries; 0 in an exact archive.
    pub(crate) loss_bytes: u32,
    /// Number of blocks.
    pub(crate) n_blocks: u64,
}

impl IndexHead {
    fn to_bytes(self) -> [u8; INDEX_HEAD_BYTES] {
        let mut head = [0; INDEX_HEAD_BYTES];
        head[..4].copy_from_slice(&INDEX_TAG);
        head[4..8].copy_from_slice(&self.loss_bytes.to_le_bytes());
        head[8..].copy_from_slice(&self.n_blocks.to_le_bytes());
        head
    }

    /// Reads the head of the index of an archive that is lossy or not by its header.
    pub(crate) fn parse(head: &[u8; INDEX_HEAD_BYTES], is_lossy: bool) -> Result<Self> {
        let mut cursor = ByteCursor::new(head);
        let corrupt = |message: &str| Err(Error::new(ErrorKind::Corrupt, message));
        match cursor.array::<4>().zip(cursor.u32()).zip(cursor.u64()) {
            Some(((INDEX_TAG, loss_bytes), _)) if (loss_bytes != 0) != is_lossy => {
                corrupt("header and index differ in whether the archive is lossy")
            }
            Some(((INDEX_TAG, loss_bytes), _)) if loss_bytes > MAX_LOSS_BYTES => {
                corrupt("the loss table is larger than any can be")
            }
            Some(((INDEX_TAG, loss_bytes), n_blocks)) => Ok(Self { loss_bytes, n_blocks }),
            _ => corrupt("no index where it is said to be"),
        }
    }

    /// Size of the whole index, or `None` beyond 64 bits.
    pub(crate) fn index_bytes(self) -> Option<u64> {
        let around = (INDEX_HEAD_BYTES + INDEX_CRC_BYTES) as u64 + u64::from(self.loss_bytes);
        self.n_blocks.checked_mul(ENTRY_BYTES as u64)?.checked_add(around)
    }
}

/// Collects the entries of blocks in their order, and says where each record belongs.
#[derive(Debug, Clone)]
pub struct IndexBuilder {
    entries: Vec<u8>,
    /// Where the next record belongs.
    records_end: u64,
    original_bytes: u64,
}

impl Default for IndexBuilder {
    fn default() -> Self {
        Self::behind(HEADER_BYTES as u64)
    }
}

impl IndexBuilder {
    /// An index of no blocks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An index of no blocks, whose first record will begin at `records_offset`.
    #[must_use]
    pub fn behind(records_offset: u64) -> Self {
        Self { entries: Vec::new(), records_end: records_offset, original_bytes: 0 }
    }

    /// Adds the next block; its record belongs at the returned entry's `record_offset`.
    pub fn push(&mut self, info: BlockInfo) -> BlockEntry {
        let entry = info.at(self.n_blocks(), self.original_bytes, self.records_end);
        self.entries.extend_from_slice(&info.to_entry_bytes());
        self.records_end += info.record_bytes();
        self.original_bytes += u64::from(info.decoded_bytes);
        entry
    }

    /// Blocks added.
    #[must_use]
    pub fn n_blocks(&self) -> u64 {
        (self.entries.len() / ENTRY_BYTES) as u64
    }

    /// Bytes of the original in all blocks added.
    #[must_use]
    pub fn original_bytes(&self) -> u64 {
        self.original_bytes
    }

    /// Where the index belongs: after the last record.
    #[must_use]
    pub fn index_offset(&self) -> u64 {
        self.records_end
    }

    /// The bytes of index and footer, and the footer itself. `loss` is the table of a lossy archive.
    #[must_use]
    pub fn finish(
        self,
        content_hash: ContentHash,
        sha256: Option<[u8; 32]>,
        loss: Option<&LossTable>,
    ) -> (Vec<u8>, Footer) {
        let (n_blocks, index_offset) = (self.n_blocks(), self.index_offset());
        let loss = loss.map(LossTable::to_bytes).unwrap_or_default();
        // A table too large for its field would be refused by every reader; there are far fewer tensors.
        let loss_bytes = u32::try_from(loss.len()).unwrap_or(u32::MAX);
        let mut bytes = self.entries;
        let entries_bytes = bytes.len();
        bytes.resize(entries_bytes + INDEX_HEAD_BYTES, 0);
        bytes.copy_within(..entries_bytes, INDEX_HEAD_BYTES);
        bytes[..INDEX_HEAD_BYTES].copy_from_slice(&IndexHead { loss_bytes, n_blocks }.to_bytes());
        bytes.extend_from_slice(&loss);
        let crc = crc64(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let index_bytes = bytes.len() as u64;
        let footer = Footer {
            archive_bytes: index_offset + index_bytes + FOOTER_BYTES as u64,
            index_offset,
            index_bytes,
            n_blocks,
            original_bytes: self.original_bytes,
            content_hash,
            sha256,
        };
        bytes.extend_from_slice(&footer.to_bytes());
        (bytes, footer)
    }
}

/// Offsets of the first of each [`BLOCKS_PER_SAMPLE`] blocks.
#[derive(Debug, Clone, Copy)]
struct Sample {
    original_offset: u64,
    record_offset: u64,
}

/// The index of a mapped archive, checked as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Index<'a> {
    entries: &'a [[u8; ENTRY_BYTES]],
    samples: Vec<Sample>,
    loss: &'a [u8],
    minor: u16,
}

impl<'a> Index<'a> {
    /// Reads and checks the index that `footer` points to: CRC, every entry, and that the records fill the
    /// archive from its header to the index without a gap.
    pub(crate) fn open(
        archive: &'a [u8],
        footer: &Footer,
        header: &FileHeader,
        limits: &Limits,
    ) -> Result<Self> {
        let corrupt = |message: String| Error::new(ErrorKind::Corrupt, message);
        if footer.n_blocks > limits.blocks {
            let message = format!("archive has {} blocks, the limit is {}", footer.n_blocks, limits.blocks);
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        let index_end = footer.index_offset.checked_add(footer.index_bytes);
        if index_end.and_then(|end| end.checked_add(FOOTER_BYTES as u64)) != Some(archive.len() as u64) {
            return Err(corrupt("footer's sizes and offsets contradict each other".into()));
        }
        let index = usize::try_from(footer.index_offset)
            .ok()
            .and_then(|from| archive.get(from..archive.len() - FOOTER_BYTES))
            .and_then(|index| index.split_last_chunk::<INDEX_CRC_BYTES>());
        let Some((checked, stored_crc)) = index else {
            return Err(corrupt("footer places the index outside the archive".into()));
        };
        if crc64(checked) != u64::from_le_bytes(*stored_crc) {
            return Err(Error::new(ErrorKind::ChecksumMismatch, "index differs from its CRC"));
        }
        let Some((head, entries)) = checked.split_first_chunk() else {
            return Err(corrupt("index is too short".into()));
        };
        let head = IndexHead::parse(head, header.is_lossy())?;
        if head.n_blocks != footer.n_blocks || head.index_bytes() != Some(footer.index_bytes) {
            return Err(corrupt("index and footer differ in the number of blocks".into()));
        }
        let entries_len = entries.len().saturating_sub(head.loss_bytes as usize);
        let (entries, loss) = entries.split_at(entries_len);
        let (entries, _) = entries.as_chunks();
        let mut index = Self { entries, samples: Vec::new(), loss, minor: header.minor };
        let end = index.sample(header.records_offset())?;
        if end.record_offset != footer.index_offset {
            let message =
                format!("records end at {}, the index begins at {}", end.record_offset, footer.index_offset);
            return Err(corrupt(message));
        }
        if end.original_offset != footer.original_bytes {
            let message = format!(
                "blocks hold {} bytes, the footer says {}",
                end.original_offset, footer.original_bytes
            );
            return Err(corrupt(message));
        }
        Ok(index)
    }

    /// Fills the samples, checks every entry, and gives the offsets after the last block.
    fn sample(&mut self, records_offset: u64) -> Result<Sample> {
        let mut at = Sample { original_offset: 0, record_offset: records_offset };
        for (block_idx, bytes) in (0_u64..).zip(self.entries) {
            if block_idx.is_multiple_of(BLOCKS_PER_SAMPLE) {
                self.samples.push(at);
            }
            let info = BlockInfo::from_entry_bytes(bytes, self.minor).map_err(|e| e.in_block(block_idx))?;
            at = at.after(&info).ok_or_else(|| Error::new(ErrorKind::Corrupt, "sizes of blocks overflow"))?;
        }
        Ok(at)
    }

    pub(crate) fn n_blocks(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The loss table's bytes; empty in an exact archive.
    pub(crate) fn loss(&self) -> &'a [u8] {
        self.loss
    }

    /// Entries from block `block_idx` on.
    pub(crate) fn entries_from(&self, block_idx: u64) -> impl Iterator<Item = Result<BlockEntry>> + use<'a> {
        let sample_idx = block_idx / BLOCKS_PER_SAMPLE;
        let first = sample_idx * BLOCKS_PER_SAMPLE;
        let sample = usize::try_from(sample_idx).ok().and_then(|idx| self.samples.get(idx)).copied();
        let entries = usize::try_from(first).ok().and_then(|first| self.entries.get(first..));
        let minor = self.minor;
        let mut at = sample.unwrap_or(Sample { original_offset: 0, record_offset: 0 });
        let entries = if sample.is_some() { entries.unwrap_or_default() } else { &[] };
        let all = (first..).zip(entries).map(move |(idx, bytes)| {
            let info = BlockInfo::from_entry_bytes(bytes, minor).map_err(|e| e.in_block(idx))?;
            let entry = info.at(idx, at.original_offset, at.record_offset);
            at = at.after(&info).ok_or_else(|| Error::new(ErrorKind::Corrupt, "sizes of blocks overflow"))?;
            Ok(entry)
        });
        // At most 63 entries before the one asked for.
        all.skip(usize::try_from(block_idx - first).unwrap_or(0))
    }

    /// The entries from the block on that holds the original's byte `original_offset`.
    pub(crate) fn entries_at(
        &self,
        original_offset: u64,
    ) -> impl Iterator<Item = Result<BlockEntry>> + use<'a> {
        let after = self.samples.partition_point(|sample| sample.original_offset <= original_offset);
        let first = (after.saturating_sub(1) as u64) * BLOCKS_PER_SAMPLE;
        self.entries_from(first).skip_while(move |entry| {
            entry.as_ref().is_ok_and(|entry| entry.original_end() <= original_offset)
        })
    }
}

impl Sample {
    fn after(self, info: &BlockInfo) -> Option<Self> {
        Some(Self {
            original_offset: self.original_offset.checked_add(u64::from(info.decoded_bytes))?,
            record_offset: self.record_offset.checked_add(info.record_bytes())?,
        })
    }
}
