//! Coding 7, quantized: indices of a quantizer in place of elements. FORMAT.md section 3.7.
//!
//! Encoding changes the block: the caller's bytes become the reconstruction, which is what the archive holds from then
//! on. Decoding gives exactly those bytes on every instruction set.

mod codec;
mod header;
mod loss;
mod tile;

pub use codec::{FIRST_PRIVATE_ID, IndexBackend, IndexCodec};
pub use header::{ChannelSteps, Domain, Quantizer};
pub use loss::BlockLoss;

use std::slice::ChunksExact;

use super::payload::corrupt;
use crate::dtype::Dtype;
use crate::entropy::indices::{IndexDecoder, IndexEncoder, RUN_LEN};
use crate::error::Result;
use crate::kernels::quantize::{ESCAPE, Rounding};
use crate::kernels::trellis::{ChainStates, Costs, N_CHAINS};
use crate::kernels::{Isa, convert, quantize, trellis};
use header::{Header, Opened};
pub(crate) use tile::TILE_LEN;
use tile::{Chosen, TileScratch, Tiles};

/// How the elements of a tensor become indices.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantSpec {
    /// Distance of neighbouring reconstruction values, in units of the element (of log2 of it in
    /// [`Domain::Log2`]); positive and finite.
    pub step: f32,
    /// What is quantized.
    pub domain: Domain,
    /// Steps that differ from channel to channel; only in [`Domain::Linear`].
    pub channels: Option<ChannelSteps>,
    /// Elements below this magnitude become 0 before anything else; 0 for none.
    pub prune_below: f32,
    /// Lengths of rows whose columns may differ in scale, by the tensor's shape: what this is worth is found block by
    /// block.
    pub row_lens: Vec<usize>,
    /// Which index an element gets.
    pub choice: Choice,
    /// How indices are stored.
    pub backend: IndexBackend,
}

/// How indices are chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// Each by itself, or so that columns have even sums, with thresholds that weigh error and bits.
    Rounded(Rounding),
    /// Together along 32 chains, by the Viterbi algorithm (dependent quantization).
    Trellis(Costs),
}

impl QuantSpec {
    /// Which values the indices stand for.
    #[must_use]
    pub fn quantizer(&self) -> Quantizer {
        match self.choice {
            Choice::Rounded(Rounding::EvenSums(_)) => Quantizer::Lattice,
            Choice::Rounded(_) => Quantizer::Uniform,
            Choice::Trellis(_) => Quantizer::Trellis,
        }
    }
}

/// Elements that are quantized together.
#[derive(Debug, Clone, Copy)]
pub struct QuantRun<'a> {
    /// How.
    pub spec: &'a QuantSpec,
    /// Their type.
    pub dtype: Dtype,
    /// The element of the tensor that they begin with.
    pub first_element: u64,
}

/// A part of a block whose elements are rounded ([`Choice::Rounded`]). Parts come in order, from the
/// first, and all but the last are of whole [`TILE_LEN`]s.
#[derive(Debug)]
pub(crate) struct BlockPart<'a> {
    /// Elements of the block.
    pub(crate) n_elements: usize,
    /// The one that the part begins with.
    pub(crate) first: usize,
    /// The elements of the part, if not `bytes` hold them; those behind it, if there are more, are fetched meanwhile.
    pub(crate) source: Option<&'a [u8]>,
    /// What becomes their reconstruction.
    pub(crate) bytes: &'a mut [u8],
}

/// Parts of the work on a quantized block. Stages read no clock; who wants to know how long each takes is told when it
/// begins, and does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Having elements read.
    Reading,
    /// Choosing indices, the reconstruction, and its errors.
    Quantization,
    /// Setting small elements to zero.
    Pruning,
    /// Storing the indices, and what could not be quantized.
    Backend,
}

/// Scratch memory of quantizing.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    values: Vec<f32>,
    indices: Vec<i32>,
    tile: TileScratch,
    decisions: Vec<u16>,
}

impl Scratch {
    /// Room for `n_indices`, and for `n_values` as numbers.
    fn make_room(&mut self, n_indices: usize, n_values: usize) {
        self.indices.resize(n_indices, 0);
        self.values.resize(n_values, 0.0);
        self.tile.make_room();
    }
}

/// Elements that are tried at a time: tiles of them stay in the second cache with room for what they came from.
const PIECE_LEN: usize = 16 * TILE_LEN;

/// Quantizes and measures; the first half of encoding, and all of it for a step that is only tried.
#[derive(Debug, Default)]
pub struct BlockQuantizer {
    scratch: Scratch,
    escapes: Vec<u8>,
    piece: Vec<u8>,
}

impl BlockQuantizer {
    /// Replaces `bytes`, a run of elements of `dtype` that begins `first_element` elements into its tensor, by their
    /// reconstruction, and says what that cost. The indices stay in the scratch memory.
    pub fn apply(
        &mut self,
        isa: Isa,
        spec: &QuantSpec,
        dtype: Dtype,
        first_element: u64,
        bytes: &mut [u8],
    ) -> BlockLoss {
        self.apply_watched(isa, QuantRun { spec, dtype, first_element }, bytes, &mut |_| {})
    }

    /// As [`Self::apply`]; `enter` is told of each part of the work as it begins.
    pub fn apply_watched(
        &mut self,
        isa: Isa,
        run: QuantRun<'_>,
        bytes: &mut [u8],
        enter: &mut dyn FnMut(Part),
    ) -> BlockLoss {
        enter(Part::Quantization);
        let n_elements = bytes.len() / run.dtype.unit_bytes();
        let header = Header::of_block(run.spec, run.dtype, run.first_element, n_elements);
        let tiles = Tiles { isa, run, header: &header };
        let is_path = run.spec.quantizer() == Quantizer::Trellis;
        self.begin(n_elements, if is_path { n_elements } else { TILE_LEN });
        if is_path {
            choose_path(&tiles, bytes, &mut self.scratch, enter);
        }
        let mut loss = BlockLoss::default();
        self.apply_tiles(&tiles, 0, None, bytes, &mut loss, enter);
        loss
    }

    /// Begins a block of `n_elements`, of which as many as `n_values` are numbers at a time.
    fn begin(&mut self, n_elements: usize, n_values: usize) {
        self.escapes.clear();
        // Paths run through the whole block; single elements need not leave the cache.
        self.scratch.make_room(n_elements, n_values);
    }

    /// As [`Self::apply_watched`], of a part of a block; what that loses is added to `loss`.
    pub(super) fn apply_part(
        &mut self,
        isa: Isa,
        run: QuantRun<'_>,
        BlockPart { n_elements, first, source, bytes }: BlockPart<'_>,
        loss: &mut BlockLoss,
        enter: &mut dyn FnMut(Part),
    ) {
        enter(Part::Quantization);
        let header = Header::of_block(run.spec, run.dtype, run.first_element, n_elements);
        if first == 0 {
            self.begin(n_elements, TILE_LEN);
        }
        self.apply_tiles(&Tiles { isa, run, header: &header }, first, source, bytes, loss, enter);
    }

    /// The work on `bytes`, which begin with element `from` of their block, tile by tile.
    fn apply_tiles(
        &mut self,
        tiles: &Tiles<'_>,
        from: usize,
        source: Option<&[u8]>,
        bytes: &mut [u8],
        loss: &mut BlockLoss,
        enter: &mut dyn FnMut(Part),
    ) {
        let unit_bytes = tiles.run.dtype.unit_bytes();
        let is_path = tiles.run.spec.quantizer() == Quantizer::Trellis;
        let tile_bytes = TILE_LEN * unit_bytes;
        let mut source_tiles = source.unwrap_or_default().chunks(tile_bytes).peekable();
        let Self { scratch: Scratch { values, indices, tile, .. }, escapes, .. } = self;
        let indices = &mut indices[from..from + bytes.len() / unit_bytes];
        let block_tiles = bytes.chunks_mut(tile_bytes).zip(indices.chunks_mut(TILE_LEN));
        for (from, (bytes, indices)) in (from..).step_by(TILE_LEN).zip(block_tiles) {
            let source = source_tiles.next().map(|source| &source[..bytes.len()]);
            let next = source_tiles.peek().copied().unwrap_or_default();
            if tiles.replace(source, bytes, indices, loss, escapes, next).is_some() {
                continue;
            }
            if let Some(source) = source {
                bytes.copy_from_slice(source);
            }
            let values = if is_path {
                &mut values[from..from + indices.len()]
            } else {
                let values = &mut values[..indices.len()];
                tiles.choose(from, bytes, values, indices, tile, enter);
                values
            };
            let rebuilt = tiles.rebuild(from, bytes, Chosen { values, indices }, tile, loss, escapes);
            bytes.copy_from_slice(rebuilt);
        }
    }

    /// What [`Self::apply`] would lose on a block of `n_bytes` of which `read` gives the bytes from an offset on: it need
    /// not be held whole, nor leave the cache. `None` where elements are not rounded ([`Choice::Rounded`]).
    ///
    /// # Errors
    /// Those of `read`.
    pub fn try_pieces(
        &mut self,
        isa: Isa,
        run: QuantRun<'_>,
        n_bytes: usize,
        enter: &mut dyn FnMut(Part),
        read: &mut dyn FnMut(usize, &mut [u8]) -> Result<()>,
    ) -> Option<Result<BlockLoss>> {
        if run.spec.quantizer() == Quantizer::Trellis {
            return None;
        }
        let unit_bytes = run.dtype.unit_bytes();
        let header = Header::of_block(run.spec, run.dtype, run.first_element, n_bytes / unit_bytes);
        let tiles = Tiles { isa, run, header: &header };
        let Self { scratch, escapes, piece } = self;
        scratch.make_room(TILE_LEN, TILE_LEN);
        let Scratch { values, indices, tile, .. } = scratch;
        let mut loss = BlockLoss::default();
        let piece_bytes = PIECE_LEN * unit_bytes;
        piece.resize(piece_bytes.max(piece.len()), 0);
        for piece_start in (0..n_bytes).step_by(piece_bytes) {
            let piece = &mut piece[..piece_bytes.min(n_bytes - piece_start)];
            enter(Part::Reading);
            if let Err(error) = read(piece_start, piece) {
                return Some(Err(error));
            }
            enter(Part::Quantization);
            for (tile_idx, bytes) in piece.chunks_mut(TILE_LEN * unit_bytes).enumerate() {
                let from = piece_start / unit_bytes + tile_idx * TILE_LEN;
                let n_elements = bytes.len() / unit_bytes;
                let (values, indices) = (&mut values[..n_elements], &mut indices[..n_elements]);
                escapes.clear();
                if tiles.replace(None, bytes, indices, &mut loss, escapes, &[]).is_some() {
                    continue;
                }
                tiles.choose(from, bytes, values, indices, tile, enter);
                tiles.rebuild(from, bytes, Chosen { values, indices }, tile, &mut loss, escapes);
            }
        }
        Some(Ok(loss))
    }

    /// Bits that the indices that [`Self::apply`] left take, if they are a sample of many more, and what has none.
    pub(super) fn estimate(&self, isa: Isa, spec: &QuantSpec, encoder: &mut IndexEncoder) -> f64 {
        let dependence = spec.quantizer().dependence();
        8.0 * self.escapes.len() as f64 + encoder.estimate(isa, &self.scratch.indices, dependence)
    }

    /// Bits that are planned for the indices that [`Self::apply`] left, and for what has none.
    pub(super) fn planned(&self, isa: Isa, run: QuantRun<'_>, encoder: &mut IndexEncoder) -> f64 {
        let QuantRun { spec, dtype, first_element } = run;
        let indices = &self.scratch.indices;
        let planned = encoder.planned(isa, indices, spec.quantizer().dependence(), &spec.row_lens);
        let mut head = Vec::new();
        let header = Header::of_block(spec, dtype, first_element, indices.len());
        let _ = header.write(self.escapes.len() / dtype.unit_bytes(), spec.backend as u8, &mut head);
        planned + 8.0 * (head.len() + self.escapes.len()) as f64
    }

    /// Appends the payload of the indices that [`Self::apply`] left, or `None` where they cannot be stored.
    pub(super) fn write(
        &self,
        isa: Isa,
        spec: &QuantSpec,
        dtype: Dtype,
        first_element: u64,
        codec: &mut dyn IndexCodec,
        dst: &mut Vec<u8>,
    ) -> Option<()> {
        let indices = &self.scratch.indices;
        let header = Header::of_block(spec, dtype, first_element, indices.len());
        header.write(self.escapes.len() / dtype.unit_bytes(), codec.wire_id(), dst)?;
        dst.extend_from_slice(&self.escapes);
        codec.encode(isa, indices, spec.quantizer().dependence(), &spec.row_lens, dst)
    }
}

/// Fills the scratch memory with the indices of a whole block that are chosen together, and what they stand for.
fn choose_path(tiles: &Tiles<'_>, bytes: &[u8], scratch: &mut Scratch, enter: &mut dyn FnMut(Part)) {
    let Scratch { values, indices, tile, decisions } = scratch;
    let tile_bytes = TILE_LEN * tiles.run.dtype.unit_bytes();
    for (tile_idx, (bytes, values)) in bytes.chunks(tile_bytes).zip(values.chunks_mut(TILE_LEN)).enumerate() {
        tiles.load(tile_idx * TILE_LEN, bytes, values, tile, enter);
    }
    if let Choice::Trellis(costs) = &tiles.run.spec.choice {
        decisions.resize(trellis::scratch_len(values.len()), 0);
        // All have the lengths that it asks for.
        let _ = trellis::quantize(tiles.isa, values, tiles.header.step, costs, decisions, indices);
    }
    tiles.header.dequantize(tiles.isa, indices, &mut [0; N_CHAINS], values);
}

/// Scratch memory of the decoder, and its codecs.
#[derive(Default)]
pub(super) struct QuantizedDecoder {
    scratch: Scratch,
    index_decoder: IndexDecoder,
    /// Of a whole block, for codecs that give them at once.
    indices: Vec<i32>,
    /// A codec for each other wire id met so far.
    codecs: Vec<Box<dyn IndexCodec>>,
}

impl QuantizedDecoder {
    /// Takes a codec of the caller's, in place of any with the same id.
    pub(super) fn set_codec(&mut self, codec: Box<dyn IndexCodec>) {
        self.codecs.retain(|known| known.wire_id() != codec.wire_id());
        self.codecs.push(codec);
    }

    fn codec(&mut self, id: u8) -> Option<&mut Box<dyn IndexCodec>> {
        let place = self.codecs.iter().position(|codec| codec.wire_id() == id);
        if place.is_none() {
            self.codecs.push(IndexBackend::from_wire_id(id)?.codec());
        }
        let place = place.unwrap_or(self.codecs.len() - 1);
        self.codecs.get_mut(place)
    }

    /// Fills `dst` with the reconstruction that `payload` holds; `visit` is called with its pieces, in order, while they are in
    /// the nearest cache.
    pub(super) fn decode(
        &mut self,
        isa: Isa,
        payload: &[u8],
        dst: &mut [u8],
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<()> {
        let (header, opened) = Header::read(payload, dst.len())
            .ok_or_else(|| corrupt("the quantized block's header breaks the format"))?;
        let mut scratch = std::mem::take(&mut self.scratch);
        let is_own = self.codecs.iter().any(|codec| codec.wire_id() == opened.codec_id);
        let result = if opened.codec_id == IndexBackend::Rans as u8 && !is_own {
            self.decode_runs(isa, &header, &opened, &mut scratch, dst, visit)
        } else {
            self.decode_whole(isa, &header, &opened, &mut scratch, dst, visit)
        };
        self.scratch = scratch;
        result.ok_or_else(|| corrupt("the quantized block's indices break the format"))
    }

    /// Indices as they are decoded become elements while they are in the nearest cache.
    fn decode_runs(
        &mut self,
        isa: Isa,
        header: &Header,
        opened: &Opened<'_>,
        scratch: &mut Scratch,
        dst: &mut [u8],
        visit: &mut dyn FnMut(&[u8]),
    ) -> Option<()> {
        const { assert!(TILE_LEN == RUN_LEN) }
        let unit_bytes = opened.dtype.unit_bytes();
        let dependence = header.quantizer.dependence();
        scratch.make_room(TILE_LEN, TILE_LEN);
        let mut runs = self.index_decoder.open(opened.section, dependence, dst.len() / unit_bytes)?;
        let mut elements = Elements::new(isa, header, opened);
        for (tile_idx, dst) in dst.chunks_mut(TILE_LEN * unit_bytes).enumerate() {
            let n_elements = dst.len() / unit_bytes;
            let indices = scratch.indices.get_mut(..n_elements)?;
            // The elements' memory is on its way while indices are decoded, which waits for none.
            let has_escapes = runs.next(isa, indices, dst)?;
            elements.fill(tile_idx * TILE_LEN, scratch, n_elements, has_escapes, dst)?;
            visit(dst);
        }
        runs.finish()?;
        elements.finish()
    }

    /// The same by a codec that gives all indices at once.
    fn decode_whole(
        &mut self,
        isa: Isa,
        header: &Header,
        opened: &Opened<'_>,
        scratch: &mut Scratch,
        dst: &mut [u8],
        visit: &mut dyn FnMut(&[u8]),
    ) -> Option<()> {
        let unit_bytes = opened.dtype.unit_bytes();
        let n_elements = dst.len() / unit_bytes;
        let dependence = header.quantizer.dependence();
        scratch.make_room(TILE_LEN, TILE_LEN);
        let mut indices = std::mem::take(&mut self.indices);
        indices.resize(n_elements, 0);
        let decoded = self.codec(opened.codec_id)?.decode(isa, opened.section, dependence, &mut indices);
        let mut elements = Elements::new(isa, header, opened);
        let mut fill = || {
            decoded?;
            let tiles = dst.chunks_mut(TILE_LEN * unit_bytes).zip(indices.chunks(TILE_LEN));
            for (tile_idx, (dst, indices)) in tiles.enumerate() {
                scratch.indices.get_mut(..indices.len())?.copy_from_slice(indices);
                elements.fill(tile_idx * TILE_LEN, scratch, indices.len(), true, dst)?;
                visit(dst);
            }
            Some(())
        };
        let filled = fill();
        self.indices = indices;
        filled?;
        elements.finish()
    }
}

/// Makes elements of indices, tile by tile.
struct Elements<'a> {
    isa: Isa,
    header: &'a Header,
    dtype: Dtype,
    /// States of the chains of dependent quantization.
    chains: ChainStates,
    escapes: ChunksExact<'a, u8>,
}

impl<'a> Elements<'a> {
    fn new(isa: Isa, header: &'a Header, opened: &Opened<'a>) -> Self {
        let escapes = opened.escapes.chunks_exact(opened.dtype.unit_bytes());
        Self { isa, header, dtype: opened.dtype, chains: [0; N_CHAINS], escapes }
    }

    /// Fills `dst` with the `n_elements` elements from number `from` on, whose indices lie in the scratch memory.
    fn fill(
        &mut self,
        from: usize,
        scratch: &mut Scratch,
        n_elements: usize,
        has_escapes: bool,
        dst: &mut [u8],
    ) -> Option<()> {
        let Self { isa, header, dtype, .. } = *self;
        let Scratch { values, indices, tile: TileScratch { multipliers, logs, .. }, .. } = scratch;
        let (indices, values) = (indices.get(..n_elements)?, values.get_mut(..n_elements)?);
        if header.is_plain() {
            quantize::dequantize_elements(isa, dtype, indices, header.step, dst)?;
        } else {
            header.dequantize(isa, indices, &mut self.chains, values);
            header.leave_domain(isa, from, multipliers, logs, values);
            convert::from_f32(isa, dtype, values, dst)?;
        }
        if has_escapes {
            let elements = dst.chunks_exact_mut(dtype.unit_bytes()).zip(indices);
            for (element, _) in elements.filter(|(_, index)| **index == ESCAPE) {
                element.copy_from_slice(self.escapes.next()?);
            }
        }
        Some(())
    }

    /// Checks, when all elements have been made, that no escape is left over.
    fn finish(mut self) -> Option<()> {
        self.escapes.next().is_none().then_some(())
    }
}

#[cfg(test)]
mod tests;
