//! Codings that leave a block of their own to another coding: zeros marked apart, scales taken out, a palette.

use super::palette::{Palette, PaletteEncoder};
use super::payload::{corrupt, keep_shorter, scratch};
use super::scaled::{Scaled, ScaledEncoder};
use super::sparse::SparseEncoder;
use super::{BlockDecoder, BlockEncoder, BlockSource, Coding};
use crate::dtype::Dtype;
use crate::error::Result;

impl BlockEncoder {
    /// Appends the payload of elements of which the palette has been found.
    pub(super) fn encode_palette(&mut self, source: BlockSource<'_>, dst: &mut Vec<u8>) {
        let palette = std::mem::take(&mut self.palette);
        let start = dst.len();
        let n_elements = source.bytes.len() / source.dtype.unit_bytes();
        let bytes = palette.write(source.dtype, n_elements, dst);
        // As bytes of any distribution, or as symbols whose tables follow the scales of rows.
        let as_bytes = BlockSource { dtype: Dtype::U8, bytes, row_len: source.row_len };
        let as_symbols = BlockSource { dtype: Dtype::F8E8m0, ..as_bytes };
        let first = dst.len();
        let coding = self.encode_inner(as_bytes, first, dst);
        let second = dst.len();
        let other = self.encode_inner(as_symbols, second, dst);
        let coding = if keep_shorter(dst, first, second) { other } else { coding };
        PaletteEncoder::set_inner_coding(dst, start, coding.wire_id());
        self.palette = palette;
    }

    /// Replaces what `dst` holds from `start` on by the payload of scaled halves; `false`, and `dst` as it was,
    /// where the elements are none.
    pub(super) fn encode_scaled(&mut self, source: BlockSource<'_>, start: usize, dst: &mut Vec<u8>) -> bool {
        let mut scaled = std::mem::take(&mut self.scaled);
        let halves = scaled.encode(source.bytes, start, dst);
        if let Some(halves) = halves {
            let inner_start = dst.len();
            let inner = BlockSource { dtype: Dtype::F16, bytes: halves, row_len: source.row_len };
            // Integers of a few bits have a few values.
            let is_palette = self.palette.find(inner.dtype, inner.bytes).is_some();
            let coding = if is_palette {
                self.encode_palette(inner, dst);
                Coding::Palette
            } else {
                self.encode_inner(inner, inner_start, dst)
            };
            ScaledEncoder::set_inner_coding(dst, start, coding.wire_id());
        }
        let found = halves.is_some();
        self.scaled = scaled;
        found
    }

    /// Codes what another coding leaves, as one of those that may stand within it.
    fn encode_inner(&mut self, inner: BlockSource<'_>, start: usize, dst: &mut Vec<u8>) -> Coding {
        let coding = match inner.bytes {
            [] => Coding::Stored,
            _ => self.encode_dense(inner, start, dst, &mut |_| {}),
        };
        if coding != Coding::Stored && dst.len() - start < inner.bytes.len() {
            return coding;
        }
        dst.truncate(start);
        dst.extend_from_slice(inner.bytes);
        Coding::Stored
    }

    /// Appends the payload of elements of `element_bytes` many of which are zero.
    pub(super) fn encode_sparse(
        &mut self,
        source: BlockSource<'_>,
        element_bytes: usize,
        dst: &mut Vec<u8>,
    ) -> Coding {
        let start = dst.len();
        let dense = self.sparse.encode(self.isa, element_bytes, source.bytes, dst).to_vec();
        // What is left of complex numbers is single floats, their number perhaps odd.
        let dtype = if source.dtype == Dtype::C64 { Dtype::F32 } else { source.dtype };
        let inner = BlockSource { dtype, bytes: &dense, row_len: 0 };
        let coding = self.encode_inner(inner, dst.len(), dst);
        SparseEncoder::set_inner_coding(dst, start, coding.wire_id());
        Coding::Sparse
    }
}

/// The coding of what another coding leaves.
fn inner_coding(id: u8) -> Result<Coding> {
    match Coding::from_wire_id(id) {
        Some(inner @ (Coding::Stored | Coding::Zstd | Coding::Fields)) => Ok(inner),
        _ => Err(corrupt("the block's inner coding is not one that may stand there")),
    }
}

impl BlockDecoder {
    pub(super) fn decode_scaled(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<()> {
        let opened = Scaled::open(payload, dst.len())?;
        let inner = match Coding::from_wire_id(opened.coding_id) {
            Some(Coding::Palette) => Coding::Palette,
            _ => inner_coding(opened.coding_id)?,
        };
        let mut dense = std::mem::take(&mut self.dense);
        let halves = scratch(&mut dense, dst.len() / 2);
        let decoded = match inner {
            Coding::Palette => self.decode_palette(Dtype::F16, opened.payload, halves),
            _ => self.decode_dense(inner, Dtype::F16, opened.payload, halves),
        };
        let result = decoded.and_then(|()| opened.multiply(self.isa, halves, &mut self.singles, dst));
        self.dense = dense;
        result
    }

    pub(super) fn decode_palette(&mut self, dtype: Dtype, payload: &[u8], dst: &mut [u8]) -> Result<()> {
        let opened = Palette::open(dtype, payload, dst.len())?;
        let inner = inner_coding(opened.coding_id)?;
        let mut indices = std::mem::take(&mut self.indices);
        let places = scratch(&mut indices, opened.n_elements(dst.len()));
        let result = self
            .decode_dense(inner, Dtype::U8, opened.payload, places)
            .and_then(|()| opened.look_up(places, dst));
        self.indices = indices;
        result
    }

    pub(super) fn decode_sparse(&mut self, dtype: Dtype, payload: &[u8], dst: &mut [u8]) -> Result<()> {
        let opened = self.sparse.open(self.isa, payload, dst.len())?;
        let inner = match Coding::from_wire_id(opened.coding_id) {
            Some(Coding::Quantized) => Coding::Quantized,
            _ => inner_coding(opened.coding_id)?,
        };
        let mut dense = std::mem::take(&mut self.dense);
        let buffer = scratch(&mut dense, opened.dense_bytes);
        let result = self.decode_dense(inner, dtype, opened.payload, buffer);
        if result.is_ok() {
            self.sparse.scatter(&opened, buffer, dst);
        }
        self.dense = dense;
        result
    }
}
