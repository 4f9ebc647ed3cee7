//! Layers as the encoder and the decoder of blocks give them.

use super::{LayerEncoder, LayerStep, loss};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::stage::payload::corrupt;
use crate::stage::{BlockDecoder, BlockEncoder, BlockLoss, BlockSource, Coding};

impl BlockEncoder {
    /// Replaces `bytes`, elements of `dtype`, by those of the layer of `step`, appends the payload of that to `dst`, and
    /// says how it is coded and what was lost. The payload is never longer than the bytes; where the dtype has no such
    /// layer, the elements stay as they are.
    pub fn encode_coarse(
        &mut self,
        step: LayerStep,
        dtype: Dtype,
        bytes: &mut [u8],
        dst: &mut Vec<u8>,
    ) -> (Coding, BlockLoss) {
        self.original.clear();
        self.original.extend_from_slice(bytes);
        let start = dst.len();
        let coarse = self.layers.encode_coarse(self.isa, step, dtype, bytes, dst);
        let loss = loss(self.isa, dtype, &self.original, bytes);
        if coarse.is_some() && dst.len() - start < bytes.len() {
            return (Coding::Coarse, loss);
        }
        dst.truncate(start);
        (self.encode(BlockSource { dtype, bytes, row_len: 0, row_start: 0 }, dst), loss)
    }

    /// As [`Self::encode_coarse`] for a later layer: of the step `after`, or of the elements themselves without it. The
    /// payload is read together with the block of the layer of the step `before`, which is not finer.
    pub fn encode_refined(
        &mut self,
        before: LayerStep,
        after: Option<LayerStep>,
        dtype: Dtype,
        bytes: &mut [u8],
        dst: &mut Vec<u8>,
    ) -> (Coding, BlockLoss) {
        self.original.clear();
        self.original.extend_from_slice(bytes);
        let start = dst.len();
        if after == Some(before) && self.layers.coarsen(self.isa, before, dtype, bytes).is_some() {
            // Nothing is added, and an empty payload says so.
            return (Coding::Refined, loss(self.isa, dtype, &self.original, bytes));
        }
        let refined = self.write_refined(before, after, dtype, bytes, dst);
        let loss = match after {
            Some(_) => loss(self.isa, dtype, &self.original, bytes),
            None => BlockLoss::default(),
        };
        if refined.is_some() && dst.len() - start < bytes.len() {
            return (Coding::Refined, loss);
        }
        dst.truncate(start);
        (self.encode(BlockSource { dtype, bytes, row_len: 0, row_start: 0 }, dst), loss)
    }

    fn write_refined(
        &mut self,
        before: LayerStep,
        after: Option<LayerStep>,
        dtype: Dtype,
        bytes: &mut [u8],
        dst: &mut Vec<u8>,
    ) -> Option<()> {
        let start = dst.len();
        let mut layers = std::mem::take(&mut self.layers);
        let written = layers.split(self.isa, before, after, dtype, bytes).and_then(|split| {
            let coder = self.fields.plane_coder();
            layers.write_rests(self.isa, &split, coder, &mut self.zstd.planes, dst)?;
            match (after, layers.dense.as_slice()) {
                (_, []) => Some(()),
                (Some(_), _) => layers.write_dense(self.isa, &split, dst),
                (None, dense) => {
                    let coding =
                        self.encode(BlockSource { dtype, bytes: dense, row_len: 0, row_start: 0 }, dst);
                    LayerEncoder::set_dense_coding(dst, start, coding.wire_id());
                    Some(())
                }
            }
        });
        self.layers = layers;
        written
    }
}

impl BlockDecoder {
    /// Makes the block of a layer out of that of the layer before, which `bytes` hold, and of `payload`, which is coded as
    /// [`Coding::Refined`].
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] where the payload breaks the format; `bytes` then hold unspecified bytes.
    pub fn refine(&mut self, payload: &[u8], bytes: &mut [u8]) -> Result<()> {
        if payload.is_empty() {
            return Ok(());
        }
        let wrong = || corrupt("the refined block breaks the format");
        let mut layers = std::mem::take(&mut self.layers);
        let opened = layers.open(self.isa, payload, bytes).ok_or_else(wrong);
        let refined = opened.and_then(|opened| {
            let mut dense = layers.take_dense(opened.dense_bytes());
            let decoded = if dense.is_empty() {
                opened.dense.is_empty().then_some(()).ok_or_else(wrong)
            } else if opened.is_exact() {
                self.decode_zero_cell(
                    opened.header.dense_coding,
                    opened.header.dtype,
                    opened.dense,
                    &mut dense,
                )
            } else {
                layers.decode_dense(self.isa, &opened, bytes, &mut dense).ok_or_else(wrong)
            };
            let Self { zstd, fields, .. } = self;
            let refined = decoded.and_then(|()| {
                let rans12 = fields.rans12();
                layers.refine(self.isa, &opened, &dense, &mut zstd.planes, rans12, bytes).ok_or_else(wrong)
            });
            layers.put_dense(dense);
            refined
        });
        self.layers = layers;
        refined
    }

    /// Decodes the elements in the cell of zero of an exact layer.
    fn decode_zero_cell(
        &mut self,
        coding_id: u8,
        dtype: Dtype,
        payload: &[u8],
        dst: &mut [u8],
    ) -> Result<()> {
        match Coding::from_wire_id(coding_id) {
            None | Some(Coding::Reference | Coding::Coarse | Coding::Refined | Coding::Delta) => {
                Err(corrupt("the coding of the elements around zero is not one that may stand there"))
            }
            Some(coding) => self.decode(coding, dtype, payload, dst),
        }
    }
}
