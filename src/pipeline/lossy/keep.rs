//! Steps that are tried on a whole tensor so that the blocks need not be coded once more when they are written.

use std::collections::HashMap;

use rayon::prelude::*;

use super::tensor_source::TensorSource;
use crate::checkpoint::BlockSpan;
use crate::container::Piece;
use crate::error::Result;
use crate::kernels::moments::Squares;
use crate::pipeline::buffers::Buffer;
use crate::pipeline::in_pieces::read_and_hash;
use crate::pipeline::kept::{KeptBlock, KeptTensor, TensorPlace};
use crate::pipeline::timings::{Step, Timings};
use crate::stage::{BlockLoss, Domain, Level, QuantRun, QuantSpec};

/// How blocks are coded that are kept until their file's turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keeps {
    pub(super) file_idx: usize,
    pub(super) level: Level,
}

/// A tensor that is one block.
pub(super) struct WholeBlock {
    pub(super) span: BlockSpan,
    pub(super) bytes: Buffer,
    /// Their hash.
    pub(super) source_piece: Piece,
    pub(super) squares: Squares,
}

/// What a search for a step has found, and what that loses.
type Found = Result<Option<(QuantSpec, BlockLoss)>>;
/// What a search tries a step with.
type TrySpec<'t> = dyn FnMut(&QuantSpec) -> Result<BlockLoss> + 't;

impl TensorSource<'_> {
    fn place(&self, keeps: Keeps) -> TensorPlace {
        (keeps.file_idx, self.candidate.info.start)
    }

    /// As [`Self::try_spec`], for a spec that is likely to do: the blocks are coded and kept, if there is room.
    pub(super) fn try_for_good(&self, spec: &QuantSpec) -> Result<BlockLoss> {
        let Some(keeps) = self.keeps.filter(|_| spec.channels.is_none()) else { return self.try_spec(spec) };
        let kept = &self.memory.kept;
        kept.forget(self.place(keeps));
        // What is quantized takes less than half almost always. Where it does not, it is coded again in its turn.
        let likely_bytes = usize::try_from(self.candidate.info.byte_len() / 2).unwrap_or(usize::MAX);
        if !kept.has_room(likely_bytes) {
            return self.try_spec(spec);
        }
        let code = |span: &BlockSpan| {
            let first_element = self.first_element(span);
            let run = QuantRun { spec, dtype: self.candidate.dtype, first_element };
            let fetch = |span: &BlockSpan, dst: &mut [u8]| self.source.read(span.offset, dst);
            self.memory.code_early(self.ctx, keeps.level, span, run, &fetch)
        };
        let spans = self.spans();
        let coded: Vec<Result<KeptBlock>> = spans.par_iter().with_max_len(1).map(code).collect();
        let (mut total, mut blocks, mut failure) = (BlockLoss::default(), HashMap::new(), None);
        for (span, block) in spans.iter().zip(coded) {
            match block {
                Ok(block) => {
                    total.add(&block.loss);
                    blocks.insert(span.offset, block);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        self.keep(keeps, spec, blocks);
        let Some(error) = failure else { return Ok(total) };
        // The others' room is not lost to the files that follow.
        kept.forget(self.place(keeps));
        Err(error)
    }

    fn keep(&self, keeps: Keeps, spec: &QuantSpec, blocks: HashMap<u64, KeptBlock>) {
        let tensor = KeptTensor { identity: self.source.identity(), spec: spec.clone(), blocks };
        self.memory.kept.put(self.place(keeps), tensor);
    }

    /// Forgets what has been kept of the tensor.
    pub(super) fn forget_kept(&self) {
        if let Some(keeps) = self.keeps {
            self.memory.kept.forget(self.place(keeps));
        }
    }

    /// The tensor, which is the block at `span`.
    pub(super) fn read_whole(&self, span: BlockSpan) -> Result<WholeBlock> {
        let mut timings = Timings::default();
        let mut bytes = self.memory.buffer(span.len);
        let mut squares = Squares::default();
        let mut read = |from: usize, part: &mut [u8]| self.source.read(span.offset + from as u64, part);
        let mut measure = |timings: &mut Timings, part: &[u8]| {
            let measure = || Squares::measure(self.ctx.isa, self.candidate.dtype, part);
            squares.merge(&timings.time(Step::Statistics, measure).unwrap_or_default());
        };
        let source_piece = read_and_hash(&mut timings, span.offset, &mut bytes, &mut read, &mut measure)?;
        self.book(&timings);
        Ok(WholeBlock { span, bytes, source_piece, squares })
    }

    /// Has `search` try specs on the tensor, which is one block as in `whole`; what it finds is coded and kept, if there is
    /// room.
    pub(super) fn try_block_for_good(
        &self,
        whole: &WholeBlock,
        search: &mut dyn FnMut(&mut TrySpec<'_>) -> Found,
    ) -> Found {
        let WholeBlock { span, bytes, source_piece, .. } = whole;
        let dtype = self.candidate.dtype;
        let is_linear = self.candidate.treatment.domain == Domain::Linear;
        let Some(keeps) = self.keeps.filter(|_| is_linear) else {
            return search(&mut |spec| Ok(self.time(Step::Quantization, || self.try_sample(spec, bytes))));
        };
        let mut trial = self.memory.begin_trial(self.ctx, keeps.level, span);
        let mut last = None;
        let found = search(&mut |spec| {
            let rebuilt = trial.try_run(span, QuantRun { spec, dtype, first_element: 0 }, bytes);
            let loss = rebuilt.loss;
            last = Some((spec.clone(), rebuilt));
            Ok(loss)
        });
        let has_room = self.memory.kept.has_room(bytes.len() / 2);
        match (&found, last) {
            (Ok(Some((spec, _))), Some((last, rebuilt))) if last == *spec && has_room => {
                let run = QuantRun { spec, dtype, first_element: 0 };
                let block = trial.keep(span, run, source_piece.clone(), rebuilt);
                self.keep(keeps, spec, HashMap::from([(span.offset, block?)]));
            }
            _ => trial.end(),
        }
        found
    }
}
