//! The ordered half of writing an archive: what goes to the file and into the hashes.

use std::io::Write;
use std::ops::Deref;

use sha2::{Digest as _, Sha256};

use super::buffers::Buffer;
use super::changes::Changes;
use super::context::Context;
use super::encode::{EncodeMemory, Encoded};
use super::gather::Gather;
use super::links::Target;
use super::report::{RateOutcome, Report, Tally};
use super::timings::Step;
use crate::checkpoint::BlockSpan;
use crate::container::{
    BlockInfo, ContentHasher, FLAG_REFERENCES, FileHeader, IndexBuilder, LossTable, Piece, Reference,
};
use crate::error::{Error, ErrorKind, Result};
use crate::stage::BlockLoss;

/// Record header and payload of a block.
pub(super) enum Record<'m> {
    /// Coded in its turn.
    Fresh(Vec<u8>),
    /// Coded when the tensor was planned.
    Kept(&'m [u8]),
}

impl Deref for Record<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Fresh(record) => record,
            Self::Kept(record) => record,
        }
    }
}

/// A block's record and what is known of it.
pub(super) struct Coded<'m> {
    pub(super) span: BlockSpan,
    pub(super) info: BlockInfo,
    pub(super) decoded_crc: u64,
    pub(super) piece: Piece,
    pub(super) record: Record<'m>,
    pub(super) target: Option<Target>,
    /// Original offset and CRC of the block whose difference this one is, if it is one.
    pub(super) base: Option<(u64, u64)>,
    /// The bytes that the archive holds, kept where a SHA-256 is computed in order.
    pub(super) snapshot: Option<Buffer>,
    /// Of a lossy file.
    pub(super) quantized: Option<Quantized>,
}

/// What is known of a block of a lossy file.
pub(super) struct Quantized {
    /// Of the bytes that were read.
    pub(super) source_piece: Piece,
    /// The tensor's place in the plan and what its block lost, if it was quantized.
    pub(super) loss: Option<(usize, BlockLoss)>,
}

/// The ordered half of the work: what goes to the file and into the hashes.
pub(super) struct Committer<'w> {
    sink: &'w mut (dyn Write + Send),
    /// Records that are not written yet.
    records: Gather<Record<'w>>,
    index: IndexBuilder,
    hasher: ContentHasher,
    sha256: Option<Sha256>,
    /// CRC by original offset of blocks that references and differences of this file may name.
    crcs: Vec<(u64, u64)>,
    has_references: bool,
    losses: Option<Losses<'w>>,
    /// Passes over the file, of which this is one.
    n_passes: u64,
    report: Report,
}

/// What the blocks of a lossy file add up to.
struct Losses<'w> {
    changes: Changes<'w>,
    source_hasher: ContentHasher,
    tensors: Vec<BlockLoss>,
}

impl<'w> Losses<'w> {
    fn new(changes: Changes<'w>) -> Self {
        let tensors = vec![BlockLoss::default(); changes.n_tensors()];
        Self { changes, source_hasher: ContentHasher::new(), tensors }
    }

    fn add(&mut self, quantized: &Quantized) -> Result<()> {
        self.source_hasher.push(&quantized.source_piece)?;
        if let Some((place, loss)) = &quantized.loss
            && let Some(total) = self.tensors.get_mut(*place)
        {
            total.add(loss);
        }
        Ok(())
    }

    fn finish(self) -> Result<LossTable> {
        Ok(LossTable {
            source_hash: self.source_hasher.finalize(),
            settings_digest: self.changes.digest(),
            tensors: self.changes.rows(&self.tensors)?,
        })
    }
}

impl<'w> Committer<'w> {
    /// Of a file that begins with `header`.
    pub(super) fn new(
        sink: &'w mut (dyn Write + Send),
        header: &FileHeader,
        has_sha256: bool,
        changes: Option<Changes<'w>>,
    ) -> Self {
        Self {
            sink,
            records: Gather::default(),
            index: IndexBuilder::behind(header.records_offset()),
            hasher: ContentHasher::new(),
            sha256: has_sha256.then(Sha256::new),
            crcs: Vec::new(),
            has_references: header.flags & FLAG_REFERENCES != 0,
            losses: changes.filter(Changes::is_lossy).map(Losses::new),
            n_passes: changes.map_or(1, |changes| changes.n_passes()),
            report: Report::default(),
        }
    }

    pub(super) fn commit(
        &mut self,
        coded: Coded<'w>,
        memory: &EncodeMemory,
        ctx: &Context<'_>,
        file_idx: usize,
    ) -> Result<()> {
        self.check_target(&coded)?;
        if self.has_references && coded.target.is_none() {
            self.crcs.push((coded.span.offset, coded.decoded_crc));
        }
        let Self { hasher, sha256, report, .. } = self;
        report.timings.time(Step::Hash, || {
            if let (Some(sha256), Some(snapshot)) = (sha256, &coded.snapshot) {
                sha256.update(&**snapshot);
            }
            hasher.push(&coded.piece)
        })?;
        if let (Some(losses), Some(quantized)) = (&mut self.losses, &coded.quantized) {
            losses.add(quantized)?;
        }
        self.index.push(coded.info);
        let decoded_bytes = u64::from(coded.info.decoded_bytes);
        self.report.add_block(coded.info.dtype, decoded_bytes, coded.info.record_bytes());
        if let Some(goal) =
            self.losses.as_ref().and_then(|losses| losses.changes.rate_goal_at(coded.span.offset))
        {
            let mut tally = Tally::default();
            tally.add_block(coded.info.dtype, decoded_bytes, coded.info.record_bytes());
            self.report.add_rate(&RateOutcome { goal, tally });
        }
        if coded.target.is_some() {
            self.report.reference_bytes += decoded_bytes;
        }
        if self.records.push(coded.record) {
            self.write(memory)?;
        }
        coded.snapshot.into_iter().for_each(|snapshot| memory.give_back(snapshot));
        ctx.progress.advanced(file_idx, decoded_bytes / self.n_passes);
        Ok(())
    }

    /// Writes the records that are ready.
    pub(super) fn write(&mut self, memory: &EncodeMemory) -> Result<()> {
        let Self { sink, records, report, .. } = self;
        let written = report.timings.time(Step::Write, || records.write(*sink)).map_err(cannot_write)?;
        for record in written {
            if let Record::Fresh(record) = record {
                memory.records.put(record);
            }
        }
        Ok(())
    }

    /// Holds the CRC of a reference, or of what a difference was taken from, against that of the block it names, as it was
    /// when that was written.
    fn check_target(&self, coded: &Coded) -> Result<()> {
        let here = |original_offset: u64| {
            let found = self.crcs.binary_search_by_key(&original_offset, |(offset, _)| *offset).ok();
            found.and_then(|found| self.crcs.get(found)).map(|(_, crc)| *crc)
        };
        let (expected, found) = match (&coded.target, coded.base) {
            (Some(target), _) => match target.reference {
                Reference::SameFile { original_offset } => (here(original_offset), coded.decoded_crc),
                Reference::OtherFile(_) => (target.crc, coded.decoded_crc),
            },
            (None, Some((offset, crc))) => (here(offset), crc),
            (None, None) => return Ok(()),
        };
        if expected == Some(found) {
            return Ok(());
        }
        let what = if coded.target.is_some() {
            "is no duplicate now"
        } else {
            "is like another that is not the same now"
        };
        let message =
            format!("source changed while it was read: a tensor at offset {} {what}", coded.span.offset);
        Err(Error::new(ErrorKind::InvalidInput, message))
    }

    pub(super) fn finish(self) -> Result<Encoded> {
        let content_hash = self.hasher.finalize();
        let sha256 = self.sha256.map(|sha256| sha256.finalize().into());
        let loss = self.losses.map(Losses::finish).transpose()?;
        let (tail, footer) = self.index.finish(content_hash, sha256, loss.as_ref());
        self.sink.write_all(&tail).and_then(|()| self.sink.flush()).map_err(cannot_write)?;
        let mut report = self.report;
        report.files = 1;
        report.original_bytes = footer.original_bytes;
        report.stored_bytes = footer.archive_bytes;
        Ok(Encoded {
            content_hash,
            loss,
            sha256,
            archive_bytes: footer.archive_bytes,
            original_bytes: footer.original_bytes,
            report,
        })
    }
}

pub(super) fn cannot_write(source: std::io::Error) -> Error {
    Error::io("cannot write the archive", source)
}
