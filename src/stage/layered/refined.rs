//! Later layers: what is added to the one before. FORMAT.md section 3.10.

use std::ops::Range;

use super::{DTYPES, LayerDecoder, LayerEncoder, LayerStep, TILE_LEN, dtype_id, refinements, run_of};
use crate::bits::ByteCursor;
use crate::dtype::Dtype;
use crate::entropy::indices::Dependence;
use crate::entropy::rans12;
use crate::kernels::Isa;
use crate::kernels::dyadic::{self, ESCAPE, FloatFormat, Grid, IN_ZERO, Refinement};
use crate::stage::payload::{le32, scratch};
use crate::stage::planes::PlaneCoder;
use crate::stage::rests::{RestSizes, Rests};

/// Flag: the layer is the elements themselves.
const IS_EXACT: u8 = 1;

/// The header of a refined payload.
#[derive(Debug, Clone, Copy)]
pub(in crate::stage) struct Header {
    pub(in crate::stage) dtype: Dtype,
    before: LayerStep,
    /// `None` for the elements themselves.
    after: Option<LayerStep>,
    centers: [u8; 2],
    zero_bits: u8,
    /// Coding of the elements in the cell of zero, where the layer is exact.
    pub(in crate::stage) dense_coding: u8,
}

impl Header {
    fn write(&self, dst: &mut Vec<u8>) -> Option<()> {
        let after = self.after.unwrap_or(LayerStep { log2: 0, finer_len: 0 });
        dst.extend([dtype_id(self.dtype)?, if self.after.is_none() { IS_EXACT } else { 0 }]);
        dst.extend(self.before.log2.to_le_bytes());
        dst.extend(le32(self.before.finer_len));
        dst.extend(after.log2.to_le_bytes());
        dst.extend(self.centers);
        dst.extend(le32(after.finer_len));
        dst.extend([self.zero_bits, self.dense_coding, 0, 0]);
        Some(())
    }

    fn read(src: &mut ByteCursor<'_>) -> Option<Self> {
        let [dtype_id, flags] = src.array::<2>()?;
        let dtype = *DTYPES.get(usize::from(dtype_id))?;
        let log2 = src.u16()?;
        let before = LayerStep { log2, finer_len: usize::try_from(src.u32()?).ok()? };
        let log2 = src.u16()?;
        let centers = src.array::<2>()?;
        let after = LayerStep { log2, finer_len: usize::try_from(src.u32()?).ok()? };
        let [zero_bits, dense_coding, 0, 0] = src.array::<4>()? else { return None };
        let is_exact = match flags {
            0 => false,
            IS_EXACT => true,
            _ => return None,
        };
        let unused = if is_exact {
            (after.log2, after.finer_len, centers) == (0, 0, [0; 2])
        } else {
            dense_coding == 0
        };
        let is_valid = unused && u32::from(zero_bits) <= FloatFormat::of(dtype)?.mantissa_bits;
        let after = (!is_exact).then_some(after);
        is_valid.then_some(Self { dtype, before, after, centers, zero_bits, dense_coding })
    }

    /// What is refined, run by run, in a block of `n_elements`.
    fn refinements(&self, n_elements: usize) -> Option<Vec<(Refinement, Range<usize>)>> {
        let format = FloatFormat::of(self.dtype)?;
        let within = |step: &LayerStep| step.finer_len <= n_elements;
        (within(&self.before) && self.after.as_ref().is_none_or(within)).then_some(())?;
        let before = self.before.grids(format, [0; 2], n_elements)?;
        let after = match &self.after {
            Some(after) => Some(after.grids(format, self.centers, n_elements)?),
            None => None,
        };
        refinements(&before, after.as_deref(), self.zero_bits.into())
    }
}

/// What a layer adds, before the elements in the cell of zero are coded.
pub(in crate::stage) struct Split {
    header: Header,
    /// Elements in the cell of zero by the grid that they lie on after.
    dense_runs: Vec<(Option<Grid>, usize)>,
}

impl LayerEncoder {
    /// Takes the elements of `bytes`, the original, apart: what those outside the cell of zero get, and in
    /// [`Self::dense`] those within it. With `after`, `bytes` are then those of its layer. `None` where the
    /// dtype has no layers, a step does not exist or the layer after is the coarser one.
    pub(in crate::stage) fn split(
        &mut self,
        isa: Isa,
        before: LayerStep,
        after: Option<LayerStep>,
        dtype: Dtype,
        bytes: &mut [u8],
    ) -> Option<Split> {
        let format = FloatFormat::of(dtype)?;
        let unit_bytes = format.element_bytes;
        let n_elements = bytes.len() / unit_bytes;
        let whole = |step: LayerStep| LayerStep { finer_len: step.finer_len.min(n_elements), ..step };
        let (before, after) = (whole(before), after.map(whole));
        let grids = before.grids(format, [0; 2], n_elements)?;
        let zero_bits = grids
            .iter()
            .map(|(grid, run)| dyadic::zero_bits(isa, grid, &bytes[run_of(bytes, run, unit_bytes)]));
        let zero_bits = zero_bits.min().unwrap_or(0).to_le_bytes()[0];
        let header = Header { dtype, before, after, centers: [0; 2], zero_bits, dense_coding: 0 };
        let (widths, rests) = (scratch(&mut self.widths, TILE_LEN), scratch(&mut self.rests, TILE_LEN));
        self.writer.clear();
        self.dense.clear();
        let mut dense_runs = Vec::new();
        for (refinement, run) in header.refinements(n_elements)? {
            let dense_start = self.dense.len();
            for tile in bytes[run_of(bytes, &run, unit_bytes)].chunks(TILE_LEN * unit_bytes) {
                let n_tile = tile.len() / unit_bytes;
                refinement.widths(isa, tile, widths);
                refinement.rests(isa, tile, rests);
                self.writer.push(&widths[..n_tile], &rests[..n_tile]);
                match unit_bytes {
                    2 => gather(widths, tile.as_chunks::<2>().0, &mut self.dense),
                    4 => gather(widths, tile.as_chunks::<4>().0, &mut self.dense),
                    _ => gather(widths, tile.as_chunks::<8>().0, &mut self.dense),
                }
            }
            dense_runs.push((refinement.after, (self.dense.len() - dense_start) / unit_bytes));
        }
        self.writer.finish();
        let centers = match after {
            Some(step) => self.coarsen(isa, step, dtype, bytes)?,
            None => [0; 2],
        };
        Some(Split { header: Header { centers, ..header }, dense_runs })
    }

    /// Appends the payload of `split`, which this encoder gave last, but for the elements in the cell of zero.
    pub(in crate::stage) fn write_rests(
        &mut self,
        isa: Isa,
        split: &Split,
        coder: &mut PlaneCoder,
        zstd: &mut zstd::bulk::Compressor<'static>,
        dst: &mut Vec<u8>,
    ) -> Option<()> {
        split.header.write(dst)?;
        self.writer.write(isa, coder, zstd, dst);
        Some(())
    }

    /// Appends the elements in the cell of zero as indices of their cells after; `None` where one has no index.
    pub(in crate::stage) fn write_dense(&mut self, isa: Isa, split: &Split, dst: &mut Vec<u8>) -> Option<()> {
        let unit_bytes = split.header.dtype.unit_bytes();
        let n_dense = self.dense.len() / unit_bytes;
        let indices = scratch(&mut self.indices, n_dense);
        let mut at = 0;
        for (grid, run_len) in &split.dense_runs {
            let run = at..at + run_len;
            dyadic::indices(
                isa,
                grid.as_ref()?,
                &self.dense[run_of(&self.dense, &run, unit_bytes)],
                &mut indices[run],
            );
            at += run_len;
        }
        (!indices.contains(&ESCAPE)).then_some(())?;
        self.index_encoder.encode(isa, indices, Dependence::None, &[], dst);
        Some(())
    }

    /// Notes the coding of the elements in the cell of zero in the payload that begins at `start`.
    pub(in crate::stage) fn set_dense_coding(dst: &mut [u8], start: usize, coding_id: u8) {
        if let Some(place) = dst.get_mut(start + 17) {
            *place = coding_id;
        }
    }
}

/// Appends the elements in the cell of zero to `dense`.
fn gather<const N: usize>(widths: &[u8], elements: &[[u8; N]], dense: &mut Vec<u8>) {
    let start = dense.len();
    dense.resize(start + N * elements.len(), 0);
    let (places, _) = dense[start..].as_chunks_mut::<N>();
    let mut n_dense = 0;
    for (element, &width) in elements.iter().zip(widths) {
        places[n_dense] = *element;
        n_dense += usize::from(width == IN_ZERO);
    }
    dense.truncate(start + N * n_dense);
}

/// Puts the elements of `dense` from number `at` on into the cell of zero, and counts them in `at`; what is missing there
/// leaves the elements as they are.
fn scatter<const N: usize>(widths: &[u8], dense: &[[u8; N]], at: &mut usize, elements: &mut [[u8; N]]) {
    for (element, &width) in elements.iter_mut().zip(widths) {
        let is_dense = width == IN_ZERO;
        let other = dense.get(*at).copied().unwrap_or(*element);
        *element = if is_dense { other } else { *element };
        *at += usize::from(is_dense);
    }
}

/// An opened payload.
pub(in crate::stage) struct Opened<'a> {
    pub(in crate::stage) header: Header,
    refinements: Vec<(Refinement, Range<usize>)>,
    n_dense: usize,
    rests: Rests<'a>,
    /// The elements in the cell of zero.
    pub(in crate::stage) dense: &'a [u8],
}

impl Opened<'_> {
    /// Bytes of the elements in the cell of zero.
    pub(in crate::stage) fn dense_bytes(&self) -> usize {
        self.n_dense * self.header.dtype.unit_bytes()
    }

    /// Whether they are elements, and not indices.
    pub(in crate::stage) fn is_exact(&self) -> bool {
        self.header.after.is_none()
    }
}

impl LayerDecoder {
    /// Takes the payload of a layer apart; `bytes` hold the layer before.
    pub(in crate::stage) fn open<'a>(
        &mut self,
        isa: Isa,
        payload: &'a [u8],
        bytes: &[u8],
    ) -> Option<Opened<'a>> {
        let mut src = ByteCursor::new(payload);
        let header = Header::read(&mut src)?;
        let unit_bytes = header.dtype.unit_bytes();
        bytes.len().is_multiple_of(unit_bytes).then_some(())?;
        let refinements = header.refinements(bytes.len() / unit_bytes)?;
        let widths = scratch(&mut self.widths, TILE_LEN);
        let mut sizes = RestSizes::default();
        for (refinement, run) in &refinements {
            for tile in bytes[run_of(bytes, run, unit_bytes)].chunks(TILE_LEN * unit_bytes) {
                refinement.widths(isa, tile, widths);
                sizes.add(&widths[..tile.len() / unit_bytes]);
            }
        }
        let rests = sizes.open(&mut src)?;
        Some(Opened { header, refinements, n_dense: sizes.n_dense, rests, dense: src.rest() })
    }

    /// The elements in the cell of zero of a layer that is not exact, into all of `dense`.
    pub(in crate::stage) fn decode_dense(
        &mut self,
        isa: Isa,
        opened: &Opened<'_>,
        bytes: &[u8],
        dense: &mut [u8],
    ) -> Option<()> {
        let unit_bytes = opened.header.dtype.unit_bytes();
        let indices = scratch(&mut self.indices, opened.n_dense);
        self.index_decoder.decode(isa, opened.dense, Dependence::None, indices)?;
        (!indices.contains(&ESCAPE)).then_some(())?;
        let widths = scratch(&mut self.widths, TILE_LEN);
        let mut at = 0;
        for (refinement, run) in &opened.refinements {
            let start = at;
            for tile in bytes[run_of(bytes, run, unit_bytes)].chunks(TILE_LEN * unit_bytes) {
                refinement.widths(isa, tile, widths);
                at += widths[..tile.len() / unit_bytes].iter().filter(|width| **width == IN_ZERO).count();
            }
            let range = run_of(dense, &(start..at), unit_bytes);
            dyadic::values(isa, refinement.after.as_ref()?, indices.get(start..at)?, &mut dense[range])?;
        }
        Some(())
    }

    /// Makes the layer out of the one before, in `bytes`, and of its elements in the cell of zero.
    pub(in crate::stage) fn refine(
        &mut self,
        isa: Isa,
        opened: &Opened<'_>,
        dense: &[u8],
        zstd: &mut zstd::bulk::Decompressor<'static>,
        rans12: &mut rans12::Decoder,
        bytes: &mut [u8],
    ) -> Option<()> {
        let unit_bytes = opened.header.dtype.unit_bytes();
        let mut reader = opened.rests.reader(isa, zstd, rans12, &mut self.planes)?;
        let mut at = 0;
        let (widths, rests) = (scratch(&mut self.widths, TILE_LEN), scratch(&mut self.rests, TILE_LEN));
        for (refinement, run) in &opened.refinements {
            let range = run_of(bytes, run, unit_bytes);
            for tile in bytes[range].chunks_mut(TILE_LEN * unit_bytes) {
                let n_tile = tile.len() / unit_bytes;
                refinement.widths(isa, tile, widths);
                reader.next(&widths[..n_tile], rests);
                refinement.place(isa, &rests[..n_tile], tile);
                match unit_bytes {
                    2 => scatter(widths, dense.as_chunks::<2>().0, &mut at, tile.as_chunks_mut::<2>().0),
                    4 => scatter(widths, dense.as_chunks::<4>().0, &mut at, tile.as_chunks_mut::<4>().0),
                    _ => scatter(widths, dense.as_chunks::<8>().0, &mut at, tile.as_chunks_mut::<8>().0),
                }
            }
        }
        (at * unit_bytes == dense.len()).then_some(())
    }

    /// A buffer of `len` bytes for elements, to be given back by [`Self::put_dense`].
    pub(in crate::stage) fn take_dense(&mut self, len: usize) -> Vec<u8> {
        let mut dense = std::mem::take(&mut self.dense);
        dense.resize(len, 0);
        dense
    }

    pub(in crate::stage) fn put_dense(&mut self, dense: Vec<u8>) {
        self.dense = dense;
    }
}
