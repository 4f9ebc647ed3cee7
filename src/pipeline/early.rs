//! Blocks coded before their file's turn, while their tensor is planned.

use super::buffers::Buffer;
use super::context::Context;
use super::encode::{EncodeMemory, Fetch, Scratch};
use super::in_pieces::{Rebuilt, quantize_from, read_and_code};
use super::kept::KeptBlock;
use super::timings::{Step, Timings};
use crate::checkpoint::BlockSpan;
use crate::container::{BlockInfo, Piece, RECORD_HEADER_BYTES, block_header_bytes};
use crate::error::Result;
use crate::stage::{BlockEncoder, Coding, Level, QuantRun};

impl EncodeMemory {
    /// Reads the block at `span` and codes it for good, as `FileEncoder::run` would.
    pub(crate) fn code_early(
        &self,
        ctx: &Context<'_>,
        level: Level,
        span: &BlockSpan,
        run: QuantRun<'_>,
        fetch: &Fetch<'_>,
    ) -> Result<KeptBlock> {
        let mut trial = self.begin_trial(ctx, level, span);
        let EarlyTrial { scratch, snapshot, .. } = &mut trial;
        let mut record = self.empty_record(span);
        let mut read = |from: usize, part: &mut [u8]| fetch(&span.part(from, part.len()), part);
        let (source_piece, rebuilt, coding) =
            read_and_code(scratch, run, (span.offset, snapshot), &mut read, &mut record)?;
        trial.seal(span, source_piece, (coding, rebuilt), record)
    }

    /// A record that has a header of zeros, and room for a payload, and for one that is tried in vain.
    fn empty_record(&self, span: &BlockSpan) -> Vec<u8> {
        let mut record = self.records.take_with_room(RECORD_HEADER_BYTES + 2 * span.len);
        record.clear();
        record.resize(RECORD_HEADER_BYTES, 0);
        record
    }

    /// Room to try steps on the block at `span`.
    pub(crate) fn begin_trial(&self, ctx: &Context<'_>, level: Level, span: &BlockSpan) -> EarlyTrial<'_> {
        let make = || Scratch { encoder: BlockEncoder::new(level, ctx.isa), timings: Timings::default() };
        let scratch = self.scratch.take(make);
        EarlyTrial { memory: self, scratch, snapshot: self.buffer(span.len) }
    }
}

/// A block that steps are tried on before its file's turn.
pub(crate) struct EarlyTrial<'m> {
    memory: &'m EncodeMemory,
    scratch: Scratch,
    /// The block as a decoder will give it.
    snapshot: Buffer,
}

impl EarlyTrial<'_> {
    /// What `run`, which [`BlockEncoder::takes_parts`], makes of the block at `span`, whose bytes are `source`.
    pub(crate) fn try_run(&mut self, span: &BlockSpan, run: QuantRun<'_>, source: &[u8]) -> Rebuilt {
        let Self { scratch: Scratch { encoder, timings }, snapshot, .. } = self;
        quantize_from(encoder, timings, run, source, (span.offset, snapshot))
    }

    /// Codes the block by `run`, which was the last to be tried, and gave `rebuilt`.
    pub(crate) fn keep(
        mut self,
        span: &BlockSpan,
        run: QuantRun<'_>,
        source_piece: Piece,
        rebuilt: Rebuilt,
    ) -> Result<KeptBlock> {
        let Self { memory, scratch: Scratch { encoder, timings }, snapshot } = &mut self;
        let mut record = memory.empty_record(span);
        let coding = timings.time(Step::Backend, || encoder.encode_tried(run, snapshot, &mut record));
        self.seal(span, source_piece, (coding, rebuilt), record)
    }

    /// The block with its checksums, its record put aside.
    fn seal(
        mut self,
        span: &BlockSpan,
        source_piece: Piece,
        (coding, rebuilt): (Coding, Rebuilt),
        mut record: Vec<u8>,
    ) -> Result<KeptBlock> {
        let Self { memory, scratch: Scratch { timings, .. }, snapshot } = &mut self;
        let Rebuilt { piece, decoded_crc, loss } = rebuilt;
        let (head, payload) = record.split_at_mut(RECORD_HEADER_BYTES);
        let info = BlockInfo::new(span.dtype, coding, snapshot.len(), payload.len())?;
        let header = timings.time(Step::Checksum, || block_header_bytes(info, decoded_crc, payload))?;
        head.copy_from_slice(&header);
        let kept = timings.time(Step::Write, || memory.kept.store(&record));
        memory.records.put(record);
        self.end();
        Ok(KeptBlock { info, decoded_crc, source_piece, piece, record: kept, loss })
    }

    /// Gives the memory back.
    pub(crate) fn end(self) {
        self.memory.scratch.put(self.scratch);
        self.memory.give_back(self.snapshot);
    }
}
