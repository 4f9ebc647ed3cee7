//! One run of bytes to one archive: blocks in parallel, while those before them are written.
//!
//! Each task copies its block from the source into a buffer of its own and does everything on that snapshot:
//! the source may change while it is read, but the archive is consistent in itself. Records are written in
//! order, so that the bytes do not depend on the number of threads.

use std::io::Write;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use super::buffers::{Buffer, Buffers};
use super::changes::Changes;
use super::commit::{Coded, Committer, Quantized, Record, cannot_write};
use super::context::{Checkout, Context};
use super::in_order::run_in_order;
use super::in_pieces::{ReadPart, Rebuilt, read_and_code, read_and_hash};
use super::kept::{KeptBlock, KeptBlocks};
use super::links::Target;
use super::lossy::{LayerBlock, TensorPlan};
use super::report::Report;
use super::timings::{Step, Timings};
use crate::checkpoint::BlockSpan;
use crate::container::{
    BlockInfo, ContentHash, FileHeader, LossTable, Piece, RECORD_HEADER_BYTES, RunningCrc,
    block_header_bytes, crc64,
};
use crate::error::Result;
use crate::quantize::rdo::Tuner;
use crate::stage::{
    BlockEncoder, BlockLoss, BlockQuantizer, BlockSource, Coding, Level, QuantRun, QuantSpec,
};

/// A block to be coded.
#[derive(Debug)]
pub(crate) struct Job {
    /// Where it is in the original, and what it holds.
    pub(crate) span: BlockSpan,
    /// The earlier block with the same bytes, if it is stored as a reference.
    pub(crate) reference: Option<Target>,
    /// Original offset of the earlier block that it is much like, if there is one.
    pub(crate) near: Option<u64>,
    /// The bytes, where they had to be read in order; otherwise the task fetches them.
    pub(crate) bytes: Option<Buffer>,
}

/// A block that is not stored as it was read.
struct Changed {
    coding: Coding,
    /// Of what a decoder will give.
    piece: Piece,
    decoded_crc: u64,
    /// The tensor's place in the plan and what its block lost, if it can lose anything.
    loss: Option<(usize, BlockLoss)>,
}

/// Memory that tasks use again.
pub(super) struct Scratch {
    pub(super) encoder: BlockEncoder,
    pub(super) timings: Timings,
}

/// Fetches a block's bytes into a buffer of its size.
pub(crate) type Fetch<'s> = dyn Fn(&BlockSpan, &mut [u8]) -> Result<()> + Sync + 's;

/// Whether an original of `len` bytes is coded to be small above all, at some five million elements a second: behind that
/// tables take too little for it.
pub(crate) fn is_small(level: Level, len: u64) -> bool {
    let most = match level {
        Level::Fast => 0,
        Level::Default | Level::High => 512 << 10,
    };
    len <= most
}

/// What determines an archive's bytes besides the blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncodeSettings {
    /// Effort.
    pub(crate) level: Level,
    /// Encoder note (FORMAT.md, 4).
    pub(crate) note: u64,
    /// Header flags.
    pub(crate) flags: u32,
    /// Whether blocks are to be small above all ([`is_small`]).
    pub(crate) is_small: bool,
    /// Whether to record a SHA-256.
    pub(crate) sha256: bool,
    /// Number of the file, for the progress.
    pub(crate) file_idx: usize,
    /// Whether to stay on the calling thread, where files are coded in parallel.
    pub(crate) serial: bool,
}

/// An archive that was written.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// Of what the archive holds.
    pub(crate) content_hash: ContentHash,
    /// What was lost; `None` where the archive holds what was read.
    pub(crate) loss: Option<LossTable>,
    pub(crate) sha256: Option<[u8; 32]>,
    pub(crate) archive_bytes: u64,
    pub(crate) original_bytes: u64,
    /// Blocks by dtype and times.
    pub(crate) report: Report,
}

impl Encoded {
    /// BLAKE3 of the file that was read.
    pub(crate) fn source_hash(&self) -> &ContentHash {
        self.loss.as_ref().map_or(&self.content_hash, |loss| &loss.source_hash)
    }
}

/// Memory shared by all files of a run.
#[derive(Default)]
pub(crate) struct EncodeMemory {
    pub(super) scratch: Checkout<Scratch>,
    /// Of the originals' bytes. Apart from the records, which begin empty.
    buffers: Buffers,
    pub(super) records: Buffers,
    /// For steps that are only tried.
    pub(crate) quantizers: Checkout<BlockQuantizer>,
    /// For sizes that are only tried.
    pub(crate) trial_encoders: Checkout<BlockEncoder>,
    /// For the choice of indices.
    pub(crate) tuners: Checkout<Tuner>,
    /// Blocks that were coded when their tensor was planned.
    pub(crate) kept: KeptBlocks,
    /// Of what comes before blocks are coded.
    planning: Mutex<Timings>,
    /// Steps at which tensors were looked at for a rate goal.
    pub(crate) n_rate_steps: AtomicU64,
}

impl EncodeMemory {
    /// A buffer of `len` bytes with unspecified contents.
    pub(crate) fn buffer(&self, len: usize) -> Buffer {
        self.buffers.take_len(len)
    }

    /// Gives a buffer back.
    pub(crate) fn give_back(&self, buffer: Buffer) {
        self.buffers.put_len(buffer);
    }

    /// Runs `work`, a part of planning that is all on this thread, and books its time on `step`.
    pub(crate) fn time<T>(&self, step: Step, work: impl FnOnce() -> T) -> T {
        let mut timings = Timings::default();
        let result = timings.time(step, work);
        self.book(&timings);
        result
    }

    /// Books times of planning.
    pub(crate) fn book(&self, timings: &Timings) {
        self.planning.lock().unwrap_or_else(PoisonError::into_inner).add(timings);
    }

    /// The tasks' times, and those of planning.
    pub(crate) fn into_timings(self) -> Timings {
        let mut timings = self.planning.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.scratch.into_idle().iter().for_each(|scratch| timings.add(&scratch.timings));
        timings
    }
}

/// One archive being written.
pub(crate) struct FileEncoder<'a> {
    ctx: &'a Context<'a>,
    memory: &'a EncodeMemory,
    settings: EncodeSettings,
    /// Of a file whose tensors may change.
    changes: Option<Changes<'a>>,
}

impl<'a> FileEncoder<'a> {
    pub(crate) fn new(ctx: &'a Context<'a>, memory: &'a EncodeMemory, settings: EncodeSettings) -> Self {
        Self { ctx, memory, settings, changes: None }
    }

    /// The same, of a file whose tensors may change.
    pub(crate) fn with_changes(self, changes: Option<Changes<'a>>) -> Self {
        Self { changes, ..self }
    }

    /// Writes the archive of the blocks that `next_job` gives, in the original's order, to `sink`. Must be
    /// called within the pool unless serial.
    pub(crate) fn run(
        &self,
        next_job: &mut (dyn FnMut() -> Result<Option<Job>> + Send),
        fetch: &Fetch<'_>,
        sink: &mut (dyn Write + Send),
    ) -> Result<Encoded> {
        let header = FileHeader::new(self.settings.flags, self.settings.note);
        sink.write_all(&header.to_bytes()).map_err(cannot_write)?;
        if let Some(Changes::Layer(pass)) = &self.changes {
            sink.write_all(&pass.link.to_bytes()).map_err(cannot_write)?;
        }
        let mut committer = Committer::new(sink, &header, self.settings.sha256, self.changes);
        let mut next_sized = || {
            Ok(next_job()?.map(|job| {
                let len = job.span.len;
                (job, len)
            }))
        };
        let make_scratch = || Scratch {
            encoder: BlockEncoder::new(self.settings.level, self.ctx.isa),
            timings: Timings::default(),
        };
        run_in_order(
            (!self.settings.serial).then_some(self.ctx.pool),
            self.ctx.window_bytes(),
            &mut next_sized,
            (&self.memory.scratch, make_scratch),
            |job, scratch| self.encode_block(job, fetch, scratch),
            &mut |coded| committer.commit(coded, self.memory, self.ctx, self.settings.file_idx),
        )?;
        committer.write(self.memory)?;
        committer.finish()
    }

    fn encode_block(&self, job: Job, fetch: &Fetch<'_>, scratch: &mut Scratch) -> Result<Coded<'a>> {
        if let Some((place, kept, record)) = self.take_kept(&job) {
            let KeptBlock { info, decoded_crc, source_piece, piece, loss, .. } = kept;
            let quantized = Some(Quantized { source_piece, loss: Some((place, loss)) });
            let span = job.span;
            return Ok(Coded {
                span,
                info,
                decoded_crc,
                piece,
                record: Record::Kept(record),
                target: None,
                base: None,
                snapshot: None,
                quantized,
            });
        }
        let Job { span, reference: target, near, bytes } = job;
        let is_there = bytes.is_some();
        let mut snapshot = bytes.unwrap_or_else(|| self.memory.buffer(span.len));
        let mut read = |from: usize, part: &mut [u8]| {
            if is_there { Ok(()) } else { fetch(&span.part(from, part.len()), part) }
        };
        // A coding that is tried in vain may take as much again as the block.
        let mut record = self.memory.records.take_with_room(RECORD_HEADER_BYTES + 2 * snapshot.len());
        record.resize(record.len().max(RECORD_HEADER_BYTES), 0);
        let (source_piece, changed) =
            self.read_block(&span, &mut snapshot, &mut read, scratch, &mut record)?;
        let base = match near.filter(|_| changed.is_none() && target.is_none()) {
            Some(offset) => {
                let mut bytes = self.memory.buffer(span.len);
                fetch(&BlockSpan { offset, ..span }, &mut bytes)?;
                Some((offset, bytes))
            }
            None => None,
        };
        let Scratch { encoder, timings } = scratch;
        let piece = changed.as_ref().map_or_else(|| source_piece.clone(), |changed| changed.piece.clone());
        let (coding, decoded_crc) = match (&changed, &target) {
            (Some(changed), None) => (changed.coding, changed.decoded_crc),
            // A quantized block is what its base is, too: of it only what was lost is wanted.
            (_, Some(target)) => {
                record.truncate(RECORD_HEADER_BYTES);
                record.extend_from_slice(&target.reference.to_payload());
                (Coding::Reference, crc64(&snapshot))
            }
            (None, None) => timings.time(Step::Encode, || {
                let mut decoded_crc = RunningCrc::new();
                let source = BlockSource {
                    dtype: span.dtype,
                    bytes: &snapshot,
                    row_len: span.row_len,
                    row_start: span.row_start,
                };
                let visit = &mut |bytes: &[u8]| decoded_crc.update(bytes);
                let coding = match &base {
                    Some((offset, bytes)) => {
                        encoder.encode_near(source, (*offset, bytes), RECORD_HEADER_BYTES, &mut record, visit)
                    }
                    None if self.settings.is_small => {
                        encoder.encode_small(source, RECORD_HEADER_BYTES, &mut record, visit)
                    }
                    None => encoder.encode_over(source, RECORD_HEADER_BYTES, &mut record, visit),
                };
                (coding, decoded_crc.value())
            }),
        };
        let base = base.map(|(offset, bytes)| {
            let crc = crc64(&bytes);
            self.memory.give_back(bytes);
            (offset, crc)
        });
        let base = base.filter(|_| coding == Coding::Delta);
        let (head, payload) = record.split_at_mut(RECORD_HEADER_BYTES);
        let info = BlockInfo::new(span.dtype, coding, snapshot.len(), payload.len())?;
        let header = timings.time(Step::Checksum, || block_header_bytes(info, decoded_crc, payload))?;
        head.copy_from_slice(&header);
        let snapshot = if self.settings.sha256 {
            Some(snapshot)
        } else {
            self.memory.give_back(snapshot);
            None
        };
        let loss = changed.and_then(|changed| changed.loss);
        let quantized = self.changes.map(|_| Quantized { source_piece, loss });
        let record = Record::Fresh(record);
        Ok(Coded { span, info, decoded_crc, piece, record, target, base, snapshot, quantized })
    }

    /// The tensor's place in the plan, the block as it was coded when that was made, and its record.
    fn take_kept(&self, job: &Job) -> Option<(usize, KeptBlock, &'a [u8])> {
        // A SHA-256 is of bytes that are not kept.
        if self.settings.sha256 || job.reference.is_some() || job.bytes.is_some() {
            return None;
        }
        let (place, tensor, spec) = self.lossy_tensor(&job.span)?;
        let tensor_place = (self.settings.file_idx, tensor.candidate.info.start);
        let memory: &'a EncodeMemory = self.memory;
        let (kept, record) = memory.kept.take(tensor_place, &job.span, spec)?;
        Some((place, kept, record))
    }

    /// Reads the block at `span` into `snapshot`, and codes it for good if its tensor may change: `snapshot` is then what a
    /// decoder will give. With the hash of what was read.
    fn read_block(
        &self,
        span: &BlockSpan,
        snapshot: &mut [u8],
        read: &mut ReadPart<'_>,
        scratch: &mut Scratch,
        record: &mut Vec<u8>,
    ) -> Result<(Piece, Option<Changed>)> {
        if let Some((place, tensor, spec)) = self.lossy_tensor(span) {
            record.truncate(RECORD_HEADER_BYTES);
            let first_element = (span.offset - tensor.candidate.info.start) / span.dtype.unit_bytes() as u64;
            let run = QuantRun { spec, dtype: span.dtype, first_element };
            let (source_piece, rebuilt, coding) =
                read_and_code(scratch, run, (span.offset, snapshot), read, record)?;
            let Rebuilt { piece, decoded_crc, loss } = rebuilt;
            return Ok((
                source_piece,
                Some(Changed { coding, piece, decoded_crc, loss: Some((place, loss)) }),
            ));
        }
        let Scratch { encoder, timings } = scratch;
        let source_piece = read_and_hash(timings, span.offset, snapshot, read, &mut |_, _| {})?;
        let Some((coding, loss)) = self.layer_block(span, snapshot, (encoder, timings), record) else {
            return Ok((source_piece, None));
        };
        let piece = timings.time(Step::Hash, || Piece::hash(span.offset, snapshot));
        let decoded_crc = timings.time(Step::Checksum, || crc64(snapshot));
        Ok((source_piece, Some(Changed { coding, piece, decoded_crc, loss })))
    }

    /// The tensor of the block at `span`, its place in the plan, and how it is quantized, if it is.
    fn lossy_tensor(&self, span: &BlockSpan) -> Option<(usize, &'a TensorPlan, &'a QuantSpec)> {
        let Some(Changes::Lossy(plan)) = self.changes else { return None };
        let (place, tensor) = plan.at(span.offset)?;
        Some((place, tensor, tensor.spec.as_ref()?))
    }

    /// Codes a block of a layer: `snapshot` is then what a decoder will give. `None` where it is coded as any other.
    fn layer_block(
        &self,
        span: &BlockSpan,
        snapshot: &mut [u8],
        (encoder, timings): (&mut BlockEncoder, &mut Timings),
        record: &mut Vec<u8>,
    ) -> Option<(Coding, Option<(usize, BlockLoss)>)> {
        let Some(Changes::Layer(pass)) = self.changes else { return None };
        let (block, place) = pass.plan.block(pass.layer_idx, span.offset);
        if block == LayerBlock::Exact && pass.layer_idx == 0 {
            return None;
        }
        record.truncate(RECORD_HEADER_BYTES);
        let (coding, loss) = timings.time(Step::Encode, || match block {
            // Nothing is added to what is exact already.
            LayerBlock::Exact => (Coding::Refined, BlockLoss::default()),
            LayerBlock::Coarse(step) => encoder.encode_coarse(step, span.dtype, snapshot, record),
            LayerBlock::Refined(before, after) => {
                encoder.encode_refined(before, after, span.dtype, snapshot, record)
            }
        });
        Some((coding, place.map(|place| (place, loss))))
    }
}
