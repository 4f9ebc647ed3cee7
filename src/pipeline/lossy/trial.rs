//! A spec tried on a tensor: what it would lose, and what it would take.

use rayon::prelude::*;

use super::rate;
use super::tensor_source::TensorSource;
use crate::checkpoint::BlockSpan;
use crate::error::Result;
use crate::pipeline::timings::{Step, Timings};
use crate::stage::{BlockLoss, BlockQuantizer, Part, QuantRun, QuantSpec};

impl TensorSource<'_> {
    /// What `spec` costs on the whole tensor.
    pub(super) fn try_spec(&self, spec: &QuantSpec) -> Result<BlockLoss> {
        let losses: Vec<Result<BlockLoss>> =
            self.spans().into_par_iter().with_max_len(1).map(|span| self.try_block(&span, spec)).collect();
        let mut total = BlockLoss::default();
        for loss in losses {
            total.add(&loss?);
        }
        Ok(total)
    }

    fn try_block(&self, span: &BlockSpan, spec: &QuantSpec) -> Result<BlockLoss> {
        let isa = self.ctx.isa;
        let run = QuantRun { spec, dtype: self.candidate.dtype, first_element: self.first_element(span) };
        let mut quantizer = self.memory.quantizers.take(BlockQuantizer::default);
        let mut read = |at: usize, piece: &mut [u8]| self.source.read(span.offset + at as u64, piece);
        let mut timings = Timings::default();
        let tried = timings.time_parts(|enter| {
            quantizer.try_pieces(isa, run, span.len, enter, &mut read).unwrap_or_else(|| {
                // Paths run through the whole block.
                let mut bytes = self.memory.buffer(span.len);
                enter(Part::Reading);
                let loss = read(0, &mut bytes).map(|()| self.try_whole(run, &mut bytes, enter));
                self.memory.give_back(bytes);
                loss
            })
        });
        self.memory.quantizers.put(quantizer);
        self.book(&timings);
        tried
    }

    /// What `spec` costs on `sample` alone; without [`QuantSpec::channels`].
    pub(super) fn try_sample(&self, spec: &QuantSpec, sample: &[u8]) -> BlockLoss {
        let run = QuantRun { spec, dtype: self.candidate.dtype, first_element: 0 };
        let mut read = |at: usize, piece: &mut [u8]| {
            piece.copy_from_slice(sample.get(at..at + piece.len()).unwrap_or_default());
            Ok(())
        };
        let mut quantizer = self.memory.quantizers.take(BlockQuantizer::default);
        let tried = quantizer.try_pieces(self.ctx.isa, run, sample.len(), &mut |_| {}, &mut read);
        let loss = tried.and_then(Result::ok).unwrap_or_else(|| {
            let mut bytes = self.memory.buffer(sample.len());
            bytes.copy_from_slice(sample);
            let loss = self.try_whole(run, &mut bytes, &mut |_| {});
            self.memory.give_back(bytes);
            loss
        });
        self.memory.quantizers.put(quantizer);
        loss
    }

    /// What encoding all of `bytes` by `run` would lose; they then hold their reconstruction.
    fn try_whole(&self, run: QuantRun<'_>, bytes: &mut [u8], enter: &mut dyn FnMut(Part)) -> BlockLoss {
        self.with_trial_encoder(|encoder| encoder.try_quantized(run, bytes, enter))
    }

    /// Bytes that the tensor takes in an archive, coded by `spec`, and what is lost.
    pub(super) fn encode(&self, spec: &QuantSpec) -> Result<(u64, BlockLoss)> {
        let parts = self.map_blocks(Step::Backend, |first_element, bytes, timings| {
            let mut payload = Vec::new();
            let run = QuantRun { spec, dtype: self.candidate.dtype, first_element };
            let (_, loss) = self.with_trial_encoder(|encoder| {
                timings.time_parts(|enter| encoder.encode_quantized_watched(run, bytes, &mut payload, enter))
            });
            (payload.len() as u64 + rate::RECORD_BYTES, loss)
        })?;
        let mut total = BlockLoss::default();
        parts.iter().for_each(|(_, loss)| total.add(loss));
        Ok((parts.iter().map(|(bytes, _)| bytes).sum(), total))
    }
}
