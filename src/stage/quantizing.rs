//! The encoder of blocks whose elements may change.

use super::quantized::{BlockLoss, BlockPart, Domain, IndexBackend, Part, QuantRun, QuantSpec, Quantizer};
use super::sparse::{self, SparseEncoder};
use super::{BlockEncoder, BlockSource, Coding, TILE_LEN, constant};
use crate::dtype::Dtype;

/// Elements of a piece: with what they come from and their indices they stay in a second cache of 512 KiB.
const PIECE_LEN: usize = 8 * TILE_LEN;

impl BlockEncoder {
    /// Replaces `bytes`, elements of `dtype` from number `first_element` of their tensor on, by what quantizing them by
    /// `spec` gives, appends the payload of that to `dst`, and says how it is coded and what was lost. The payload is
    /// never longer than the bytes.
    ///
    /// `bytes` then hold what a decoder will give; a checksum of the block is to be taken of them.
    pub fn encode_quantized(
        &mut self,
        spec: &QuantSpec,
        dtype: Dtype,
        first_element: u64,
        bytes: &mut [u8],
        dst: &mut Vec<u8>,
    ) -> (Coding, BlockLoss) {
        self.encode_quantized_watched(QuantRun { spec, dtype, first_element }, bytes, dst, &mut |_| {})
    }

    /// As [`Self::encode_quantized`]; `enter` is told of each part of the work as it begins.
    pub fn encode_quantized_watched(
        &mut self,
        run: QuantRun<'_>,
        bytes: &mut [u8],
        dst: &mut Vec<u8>,
        enter: &mut dyn FnMut(Part),
    ) -> (Coding, BlockLoss) {
        let QuantRun { spec, dtype, .. } = run;
        if spec.domain == Domain::Log2 && SparseEncoder::is_worth_it(dtype.unit_bytes(), bytes) {
            return self.encode_quantized_sparse(run, bytes, dst, enter);
        }
        let loss = self.quantizer.apply_watched(self.isa, run, bytes, enter);
        enter(Part::Backend);
        (self.encode_tried(run, bytes, dst), loss)
    }

    /// As [`Self::encode_quantized`], of elements in `source`, whose reconstruction fills `bytes`, as many; for runs of blocks
    /// in memory that is not in the caches. `visit` is called with the pieces of the reconstruction in order, for a checksum
    /// that reads them while they are in the second cache.
    ///
    /// # Panics
    /// Unless `bytes` are as long as `source`.
    pub fn encode_quantized_from(
        &mut self,
        run: QuantRun<'_>,
        source: &[u8],
        bytes: &mut [u8],
        dst: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8]),
    ) -> (Coding, BlockLoss) {
        if !Self::takes_parts(run.spec) {
            bytes.copy_from_slice(source);
            let coded = self.encode_quantized_watched(run, bytes, dst, &mut |_| {});
            visit(bytes);
            return coded;
        }
        assert_eq!(source.len(), bytes.len(), "room for the reconstruction");
        let unit_bytes = run.dtype.unit_bytes();
        let n_elements = source.len() / unit_bytes;
        let mut loss = BlockLoss::default();
        for (piece_idx, bytes) in bytes.chunks_mut(PIECE_LEN * unit_bytes).enumerate() {
            let first = piece_idx * PIECE_LEN;
            let source = &source[first * unit_bytes..];
            let part = BlockPart { n_elements, first, source: Some(source), bytes: &mut *bytes };
            self.quantize_part(run, part, &mut loss, &mut |_| {});
            visit(bytes);
        }
        (self.encode_tried(run, bytes, dst), loss)
    }

    /// Whether blocks may be quantized by [`Self::quantize_part`].
    pub(crate) fn takes_parts(spec: &QuantSpec) -> bool {
        spec.quantizer() != Quantizer::Trellis && spec.domain == Domain::Linear
    }

    /// The first half of [`Self::encode_quantized_watched`], part by part, of a spec that [`Self::takes_parts`] allows: fills
    /// the part with what quantizing it gives, and adds what is lost to `loss`.
    pub(crate) fn quantize_part(
        &mut self,
        run: QuantRun<'_>,
        part: BlockPart<'_>,
        loss: &mut BlockLoss,
        enter: &mut dyn FnMut(Part),
    ) {
        self.quantizer.apply_part(self.isa, run, part, loss, enter);
    }

    /// The second half: appends the payload of `bytes`, which [`Self::quantize_part`] has filled by the same `run` just
    /// before.
    pub(crate) fn encode_tried(&mut self, run: QuantRun<'_>, bytes: &[u8], dst: &mut Vec<u8>) -> Coding {
        let QuantRun { spec, dtype, first_element } = run;
        let start = dst.len();
        if constant::element(dtype, bytes).is_none()
            && self.write_indices(spec, dtype, first_element, dst).is_some()
            && dst.len() - start < bytes.len()
        {
            return Coding::Quantized;
        }
        dst.truncate(start);
        self.encode(BlockSource { dtype, bytes, row_len: 0, row_start: 0 }, dst)
    }

    /// Bits that the payload of elements takes of which `bytes` are a sample, less what a payload takes however many they
    /// are, and what is lost of the sample. `bytes` then hold their reconstruction.
    pub fn estimate_quantized(&mut self, run: QuantRun<'_>, bytes: &mut [u8]) -> (f64, BlockLoss) {
        let QuantRun { spec, dtype, .. } = run;
        let run = QuantRun { first_element: 0, ..run };
        if spec.backend != IndexBackend::Rans || self.is_own_codec {
            let mut payload = Vec::new();
            let (_, loss) = self.encode_quantized_watched(run, bytes, &mut payload, &mut |_| {});
            return (8.0 * payload.len() as f64, loss);
        }
        if spec.domain == Domain::Log2 && SparseEncoder::is_worth_it(dtype.unit_bytes(), bytes) {
            let mut classes = Vec::new();
            let mut dense = self.sparse.encode(self.isa, dtype.unit_bytes(), bytes, &mut classes).to_vec();
            let loss = self.quantizer.apply_watched(self.isa, run, &mut dense, &mut |_| {});
            let bits =
                8.0 * classes.len() as f64 + self.quantizer.estimate(self.isa, spec, &mut self.index_planner);
            return (bits, loss);
        }
        let loss = self.quantizer.apply_watched(self.isa, run, bytes, &mut |_| {});
        (self.quantizer.estimate(self.isa, spec, &mut self.index_planner), loss)
    }

    /// Bits of the payload that [`Self::encode_quantized`] makes of `bytes`, to some thousandths: symbols are counted and
    /// tables planned, but nothing is coded where that can be done without. `bytes` then hold their reconstruction.
    pub fn planned_quantized(&mut self, run: QuantRun<'_>, bytes: &mut [u8]) -> f64 {
        let QuantRun { spec, dtype, .. } = run;
        let is_sparse = spec.domain == Domain::Log2 && SparseEncoder::is_worth_it(dtype.unit_bytes(), bytes);
        if spec.backend != IndexBackend::Rans || self.is_own_codec || is_sparse {
            let mut payload = Vec::new();
            self.encode_quantized_watched(run, bytes, &mut payload, &mut |_| {});
            return 8.0 * payload.len() as f64;
        }
        self.quantizer.apply_watched(self.isa, run, bytes, &mut |_| {});
        let planned = self.quantizer.planned(self.isa, run, &mut self.index_planner);
        // What would be longer than its elements is kept as these.
        planned.min(8.0 * bytes.len() as f64)
    }

    fn write_indices(
        &mut self,
        spec: &QuantSpec,
        dtype: Dtype,
        first_element: u64,
        dst: &mut Vec<u8>,
    ) -> Option<()> {
        let wanted = spec.backend;
        let in_use =
            self.index_codec.take().filter(|codec| self.is_own_codec || codec.wire_id() == wanted as u8);
        let mut codec = in_use.unwrap_or_else(|| wanted.codec());
        let written = self.quantizer.write(self.isa, spec, dtype, first_element, codec.as_mut(), dst);
        self.index_codec = Some(codec);
        written
    }

    /// What [`Self::encode_quantized`] would lose, with nothing coded. `bytes` then hold their reconstruction.
    pub(crate) fn try_quantized(
        &mut self,
        run: QuantRun<'_>,
        bytes: &mut [u8],
        enter: &mut dyn FnMut(Part),
    ) -> BlockLoss {
        let unit_bytes = run.dtype.unit_bytes();
        if run.spec.domain == Domain::Log2 && SparseEncoder::is_worth_it(unit_bytes, bytes) {
            let mut dense = self.sparse.encode(self.isa, unit_bytes, bytes, &mut Vec::new()).to_vec();
            return self.quantize_dense(run, &mut dense, bytes, enter);
        }
        self.quantizer.apply_watched(self.isa, run, bytes, enter)
    }

    /// Quantizes `dense`, the elements of `bytes` that are not zero, and puts their reconstruction into both.
    fn quantize_dense(
        &mut self,
        run: QuantRun<'_>,
        dense: &mut [u8],
        bytes: &mut [u8],
        enter: &mut dyn FnMut(Part),
    ) -> BlockLoss {
        let run = QuantRun { first_element: 0, ..run };
        let mut loss = BlockLoss::default();
        if !dense.is_empty() {
            loss = self.quantizer.apply_watched(self.isa, run, dense, enter);
        }
        let n_zeros = sparse::replace_dense(run.dtype.unit_bytes(), dense, bytes);
        loss.zeros += n_zeros;
        loss.errors.n_elements += n_zeros;
        loss
    }

    /// Logarithms are of what is not zero: zeros are marked apart.
    fn encode_quantized_sparse(
        &mut self,
        run: QuantRun<'_>,
        bytes: &mut [u8],
        dst: &mut Vec<u8>,
        enter: &mut dyn FnMut(Part),
    ) -> (Coding, BlockLoss) {
        let QuantRun { spec, dtype, .. } = run;
        enter(Part::Backend);
        let start = dst.len();
        let mut dense = self.sparse.encode(self.isa, dtype.unit_bytes(), bytes, dst).to_vec();
        let inner_start = dst.len();
        let loss = self.quantize_dense(run, &mut dense, bytes, enter);
        enter(Part::Backend);
        let mut coding = Coding::Stored;
        if !dense.is_empty() {
            if self.write_indices(spec, dtype, 0, dst).is_some() && dst.len() - inner_start < dense.len() {
                coding = Coding::Quantized;
            } else {
                dst.truncate(inner_start);
                dst.extend_from_slice(&dense);
            }
        }
        SparseEncoder::set_inner_coding(dst, start, coding.wire_id());
        if dst.len() - start < bytes.len() {
            return (Coding::Sparse, loss);
        }
        dst.truncate(start);
        (self.encode(BlockSource { dtype, bytes, row_len: 0, row_start: 0 }, dst), loss)
    }
}
