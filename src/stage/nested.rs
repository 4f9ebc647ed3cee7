//! Codings that leave a block of their own to another coding: zeros marked apart, scales taken out, a palette, differences.

use super::delta::{Delta, DeltaEncoder};
use super::differences::{self, Differences};
use super::palette::{Palette, PaletteEncoder};
use super::payload::{corrupt, keep_shorter, scratch};
use super::rank_one::{self, RankOne};
use super::scaled::{self, Scaled, TakenApart};
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
        let as_bytes = BlockSource { dtype: Dtype::U8, bytes, row_len: source.row_len, row_start: 0 };
        let as_symbols = BlockSource { dtype: Dtype::F8E8m0, ..as_bytes };
        let first = dst.len();
        let coding = self.encode_inner(as_bytes, first, dst);
        let second = dst.len();
        let other = self.encode_inner(as_symbols, second, dst);
        let coding = if keep_shorter(dst, first, second) { other } else { coding };
        PaletteEncoder::set_inner_coding(dst, start, coding.wire_id());
        self.palette = palette;
    }

    /// Replaces what `dst` holds from `start` on by the payload of scaled halves and gives the coding of these; `None`, and
    /// `dst` as it was, where the elements are none.
    pub(super) fn encode_scaled(
        &mut self,
        source: BlockSource<'_>,
        start: usize,
        dst: &mut Vec<u8>,
    ) -> Option<Coding> {
        let mut scaled = std::mem::take(&mut self.scaled);
        let found = scaled.take_apart(self.isa, source.dtype, source.bytes);
        let coding = found.map(|parts| self.encode_taken_apart(parts, source.row_len, start, dst));
        self.scaled = scaled;
        coding
    }

    fn encode_taken_apart(
        &mut self,
        TakenApart { runs, halves }: TakenApart<'_>,
        row_len: usize,
        start: usize,
        dst: &mut Vec<u8>,
    ) -> Coding {
        dst.truncate(start);
        dst.extend([0; scaled::HEADER_BYTES]);
        let runs_coding = self.zstd.encode(runs, size_of::<u32>(), dst);
        if runs_coding == Coding::Stored {
            dst.extend_from_slice(runs);
        }
        let halves_start = dst.len();
        let inner = BlockSource { dtype: Dtype::F16, bytes: halves, row_len, row_start: 0 };
        // Integers of a few bits have a few values.
        let halves_coding = if self.palette.find(inner.dtype, inner.bytes).is_some() {
            self.encode_palette(inner, dst);
            Coding::Palette
        } else {
            self.encode_inner(inner, halves_start, dst)
        };
        let codings = [halves_coding, runs_coding].map(Coding::wire_id);
        scaled::set_header(dst, start, runs.len() / scaled::RUN_BYTES, halves_start, codings);
        halves_coding
    }

    /// Appends the payload of the elements' differences; `false`, and `dst` as it was, where nothing speaks for them.
    pub(super) fn encode_differences(&mut self, source: BlockSource<'_>, dst: &mut Vec<u8>) -> bool {
        let Some(dtype) = differences::dtype_of_words(source.dtype) else { return false };
        let Some(scheme) = differences::find(source.dtype, source.bytes, source.row_len) else {
            return false;
        };
        let mut bytes = std::mem::take(&mut self.differences);
        bytes.clear();
        bytes.extend_from_slice(source.bytes);
        differences::take(source.dtype, scheme, &mut bytes);
        let start = dst.len();
        dst.extend([0; differences::HEADER_BYTES]);
        let inner = BlockSource { dtype, bytes: &bytes, ..source };
        let coding = self.encode_inner(inner, dst.len(), dst);
        differences::set_header(dst, start, scheme, coding.wire_id());
        self.differences = bytes;
        true
    }

    /// Replaces what `dst` holds from `start` on by the payload of a matrix divided by factors of its rows and columns, and says
    /// whether it is surely shorter than others; `None`, and `dst` as it was, where nothing speaks for it.
    pub(super) fn encode_rank_one(
        &mut self,
        source: BlockSource<'_>,
        start: usize,
        dst: &mut Vec<u8>,
    ) -> Option<bool> {
        let mut encoder = std::mem::take(&mut self.rank_one);
        let BlockSource { dtype, bytes, row_len, row_start } = source;
        let divided = encoder.divide(dtype, bytes, row_len, row_start);
        let is_sure = divided.as_ref().map(|divided| divided.is_sure);
        if let Some(divided) = divided {
            dst.truncate(start);
            dst.extend([0; rank_one::HEADER_BYTES]);
            let factors = BlockSource { dtype: Dtype::U16, bytes: divided.factors, row_len: 0, row_start: 0 };
            let factors_coding = self.encode_inner(factors, dst.len(), dst);
            let factors_end = dst.len();
            let rest = BlockSource { bytes: divided.rest, ..source };
            let rest_coding = self.encode_inner(rest, factors_end, dst);
            let codings = [factors_coding, rest_coding].map(Coding::wire_id);
            divided.set_header(dst, start, factors_end, codings);
        }
        self.rank_one = encoder;
        is_sure
    }

    /// Appends the payload of elements as differences from those of `base`; `None` where there are no such.
    pub(super) fn encode_delta(
        &mut self,
        source: BlockSource<'_>,
        base_offset: u64,
        base: &[u8],
        dst: &mut Vec<u8>,
    ) -> Option<()> {
        let mut delta = std::mem::take(&mut self.delta);
        let start = dst.len();
        let Self { isa, fields, zstd, .. } = self;
        let coders = (fields.plane_coder(), &mut zstd.planes);
        let escapes = delta.encode(*isa, source.dtype, source.bytes, (base_offset, base), coders, dst);
        let coded = escapes.map(|escapes| {
            let inner = BlockSource { dtype: source.dtype, bytes: escapes, row_len: 0, row_start: 0 };
            let coding = self.encode_inner(inner, dst.len(), dst);
            DeltaEncoder::set_inner_coding(dst, start, coding.wire_id());
        });
        self.delta = delta;
        coded
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
        let inner = BlockSource { dtype, bytes: &dense, row_len: 0, row_start: 0 };
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
    pub(super) fn decode_scaled(&mut self, dtype: Dtype, payload: &[u8], dst: &mut [u8]) -> Result<()> {
        let n_elements = dst.len() / dtype.unit_bytes();
        let opened = Scaled::open(dtype, payload, n_elements)?;
        let (mut runs, mut dense) = (std::mem::take(&mut self.runs), std::mem::take(&mut self.dense));
        let result = self.decode_opened_scaled(
            dtype,
            &opened,
            scratch(&mut runs, scaled::RUN_BYTES * opened.n_runs),
            scratch(&mut dense, size_of::<u16>() * n_elements),
            dst,
        );
        (self.runs, self.dense) = (runs, dense);
        result
    }

    fn decode_opened_scaled(
        &mut self,
        dtype: Dtype,
        opened: &Scaled<'_>,
        runs: &mut [u8],
        halves: &mut [u8],
        dst: &mut [u8],
    ) -> Result<()> {
        match Coding::from_wire_id(opened.runs_coding) {
            Some(coding @ (Coding::Stored | Coding::Zstd)) => {
                self.decode_dense(coding, Dtype::U32, opened.runs, runs)?;
            }
            _ => {
                return Err(corrupt("the coding of the scaled block's runs is not one that may stand there"));
            }
        }
        match Coding::from_wire_id(opened.halves_coding) {
            Some(Coding::Palette) => self.decode_palette(Dtype::F16, opened.halves, halves)?,
            _ => self.decode_dense(inner_coding(opened.halves_coding)?, Dtype::F16, opened.halves, halves)?,
        }
        scaled::multiply(self.isa, dtype, runs, halves, &mut self.singles, dst)
    }

    pub(super) fn decode_differences(&mut self, dtype: Dtype, payload: &[u8], dst: &mut [u8]) -> Result<()> {
        let opened = Differences::open(dtype, payload, dst.len())?;
        self.decode_dense(inner_coding(opened.coding_id)?, opened.dtype, opened.payload, dst)?;
        opened.add_up(dst);
        Ok(())
    }

    /// Makes a block out of the earlier one that it is like, which `bytes` hold, and of `payload`, which is coded as
    /// [`Coding::Delta`].
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] where the payload breaks the format; `bytes` then hold unspecified bytes.
    pub fn add_delta(&mut self, dtype: Dtype, payload: &[u8], bytes: &mut [u8]) -> Result<()> {
        let wrong = || corrupt("the delta block breaks the format");
        let opened = Delta::open(dtype, payload, bytes).ok_or_else(wrong)?;
        let mut delta = std::mem::take(&mut self.delta);
        let (coding_id, n_escapes) = opened.escapes_coding();
        let escapes = scratch(&mut delta.escapes, n_escapes * dtype.unit_bytes());
        let decoded = inner_coding(coding_id)
            .and_then(|inner| self.decode_dense(inner, dtype, opened.escapes, escapes));
        let Self { isa, zstd, fields, .. } = self;
        let added = decoded.and_then(|()| {
            let coders = (&mut zstd.planes, fields.rans12());
            delta.apply(*isa, &opened, coders, bytes).ok_or_else(wrong)
        });
        self.delta = delta;
        added
    }

    pub(super) fn decode_rank_one(&mut self, dtype: Dtype, payload: &[u8], dst: &mut [u8]) -> Result<()> {
        let opened = RankOne::open(dtype, payload, dst.len())?;
        let mut dense = std::mem::take(&mut self.dense);
        let factors = scratch(&mut dense, opened.factor_bytes());
        let result = inner_coding(opened.factors.0)
            .and_then(|inner| self.decode_dense(inner, Dtype::U16, opened.factors.1, factors))
            .and_then(|()| self.decode_dense(inner_coding(opened.rest.0)?, dtype, opened.rest.1, dst));
        if result.is_ok() {
            opened.multiply(factors, dst);
        }
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
