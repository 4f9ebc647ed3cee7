//! Coding 7, quantized: indices of a quantizer in place of elements. FORMAT.md section 3.7.
//!
//! Encoding changes the block: the caller's bytes become the reconstruction, which is what the archive holds from then
//! on. Decoding gives exactly those bytes on every instruction set.

mod codec;
mod header;
mod loss;

pub use codec::{FIRST_PRIVATE_ID, IndexBackend, IndexCodec};
pub use header::{ChannelSteps, Domain, Quantizer};
pub use loss::BlockLoss;

use super::payload::corrupt;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::quantize::{ESCAPE, Rounding};
use crate::kernels::trellis::Costs;
use crate::kernels::{Isa, convert, log_domain, quantize, trellis};
use header::Header;

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
    /// Which index an element gets.
    pub choice: Choice,
    /// How indices are stored.
    pub backend: IndexBackend,
}

/// How indices are chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// Each by itself, with thresholds that weigh error and bits.
    Uniform(Rounding),
    /// Together along 32 chains, by the Viterbi algorithm (dependent quantization).
    Trellis(Costs),
}

impl QuantSpec {
    /// Which values the indices stand for.
    #[must_use]
    pub fn quantizer(&self) -> Quantizer {
        match self.choice {
            Choice::Uniform(_) => Quantizer::Uniform,
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

/// Parts of the work on a quantized block. Stages read no clock; who wants to know how long each takes is told when it
/// begins, and does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
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
    /// Of one tile.
    multipliers: Vec<f32>,
    /// Logarithms of one tile.
    logs: Vec<f32>,
    decisions: Vec<u16>,
}

impl Scratch {
    /// Room for a block of `n_elements`, of which `n_values` are held as numbers at a time.
    fn make_room(&mut self, n_elements: usize, n_values: usize) {
        self.indices.resize(n_elements, 0);
        self.values.resize(n_values, 0.0);
        self.multipliers.resize(TILE_LEN, 1.0);
        self.logs.resize(TILE_LEN, 0.0);
    }
}

/// Elements worked on at a time, so that they stay in the cache.
const TILE_LEN: usize = 4096;

/// Quantizes and measures; the first half of encoding, and all of it for a step that is only tried.
#[derive(Debug, Default)]
pub struct BlockQuantizer {
    scratch: Scratch,
    escapes: Vec<u8>,
}

/// Largest |x − x̂| ÷ multiplier of elements that differ.
fn max_scaled(dtype: Dtype, original: &[u8], rebuilt: &[u8], multipliers: &[f32]) -> f64 {
    let unit_bytes = dtype.unit_bytes();
    let value = |element: &[u8]| -> f64 {
        if let (Dtype::F64, Some(le)) = (dtype, element.first_chunk()) {
            return f64::from_le_bytes(*le);
        }
        let mut value = [f32::NAN];
        let _ = convert::to_f32(Isa::Scalar, dtype, element, &mut value);
        f64::from(value[0])
    };
    let elements = original.chunks_exact(unit_bytes).zip(rebuilt.chunks_exact(unit_bytes)).zip(multipliers);
    elements
        .filter(|((x, rebuilt), _)| x != rebuilt)
        .map(|((x, rebuilt), multiplier)| (value(x) - value(rebuilt)).abs() / f64::from(*multiplier))
        .fold(0.0, |max, scaled| if scaled > max || scaled.is_nan() { scaled } else { max })
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
        let QuantRun { spec, dtype, first_element } = run;
        enter(Part::Quantization);
        let header = Header::of_block(spec, dtype, first_element, bytes.len() / dtype.unit_bytes());
        self.choose_indices(isa, run, &header, bytes, enter);
        self.reconstruct(isa, &header, dtype, bytes)
    }

    fn choose_indices(
        &mut self,
        isa: Isa,
        run: QuantRun<'_>,
        header: &Header,
        bytes: &[u8],
        enter: &mut dyn FnMut(Part),
    ) {
        let QuantRun { spec, dtype, .. } = run;
        let n_elements = bytes.len() / dtype.unit_bytes();
        self.scratch.make_room(n_elements, n_elements);
        let Scratch { values, indices, multipliers, logs, decisions } = &mut self.scratch;
        let tile_bytes = TILE_LEN * dtype.unit_bytes();
        let tiles =
            bytes.chunks(tile_bytes).zip(values.chunks_mut(TILE_LEN)).zip(indices.chunks_mut(TILE_LEN));
        for (tile_idx, ((bytes, values), indices)) in tiles.enumerate() {
            // Only dtypes that convert are quantized; of any other every element would be an escape.
            if convert::to_f32(isa, dtype, bytes, values).is_none() {
                values.fill(f32::NAN);
            }
            if spec.prune_below > 0.0 {
                enter(Part::Pruning);
                values.iter_mut().filter(|x| x.abs() < spec.prune_below).for_each(|x| *x = 0.0);
                enter(Part::Quantization);
            }
            if let Some(channels) = &header.channels {
                let multipliers = &mut multipliers[..values.len()];
                channels.fill(tile_idx * TILE_LEN, multipliers);
                values.iter_mut().zip(multipliers).for_each(|(x, m)| *x /= *m);
            }
            if header.domain == Domain::Log2 {
                let logs = &mut logs[..values.len()];
                log_domain::log2(isa, values, logs);
                values.copy_from_slice(logs);
            }
            if let Choice::Uniform(rounding) = &spec.choice {
                quantize::quantize(isa, values, header.step, rounding, indices);
            }
        }
        if let Choice::Trellis(costs) = &spec.choice {
            decisions.resize(trellis::scratch_len(n_elements), 0);
            // All have the lengths that it asks for.
            let _ = trellis::quantize(isa, values, header.step, costs, decisions, indices);
        }
    }

    /// Writes the reconstruction over `bytes` and notes the elements that could not be quantized.
    fn reconstruct(&mut self, isa: Isa, header: &Header, dtype: Dtype, bytes: &mut [u8]) -> BlockLoss {
        let Scratch { values, indices, multipliers, logs, .. } = &mut self.scratch;
        let unit_bytes = dtype.unit_bytes();
        self.escapes.clear();
        let mut loss = BlockLoss::default();
        header.dequantize(isa, indices, values);
        let mut rebuilt = [0_u8; TILE_LEN * 8];
        let tiles = bytes
            .chunks_mut(TILE_LEN * unit_bytes)
            .zip(values.chunks_mut(TILE_LEN))
            .zip(indices.chunks(TILE_LEN));
        for (tile_idx, ((bytes, values), indices)) in tiles.enumerate() {
            header.leave_domain(isa, tile_idx * TILE_LEN, multipliers, logs, values);
            let rebuilt = &mut rebuilt[..bytes.len()];
            // As above; what is not written is an escape, and written below.
            let _ = convert::from_f32(isa, dtype, values, rebuilt);
            let mut n_zeros = values.iter().map(|x| u32::from(*x == 0.0)).sum::<u32>();
            // Rare, and looked for in vectors.
            if indices.contains(&ESCAPE) {
                for (place, _) in indices.iter().enumerate().filter(|(_, index)| **index == ESCAPE) {
                    let element = place * unit_bytes..(place + 1) * unit_bytes;
                    self.escapes.extend_from_slice(&bytes[element.clone()]);
                    rebuilt[element.clone()].copy_from_slice(&bytes[element]);
                    n_zeros -= u32::from(values[place] == 0.0);
                }
            }
            loss.zeros += u64::from(n_zeros);
            let errors = quantize::measure(isa, dtype, bytes, rebuilt).unwrap_or_default();
            loss.errors.add(&errors);
            let scaled = match &header.channels {
                Some(_) => max_scaled(dtype, bytes, rebuilt, &multipliers[..indices.len()]),
                None => errors.max_abs,
            };
            loss.max_scaled = loss.max_scaled.max(scaled);
            bytes.copy_from_slice(rebuilt);
        }
        loss.escapes = (self.escapes.len() / unit_bytes) as u64;
        loss
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
        codec.encode(isa, indices, spec.quantizer() == Quantizer::Trellis, dst)
    }
}

/// Scratch memory of the decoder, and its codecs.
#[derive(Default)]
pub(super) struct QuantizedDecoder {
    scratch: Scratch,
    /// A codec for each wire id met so far.
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

    /// Fills `dst` with the reconstruction that `payload` holds.
    pub(super) fn decode(&mut self, isa: Isa, payload: &[u8], dst: &mut [u8]) -> Result<()> {
        let (header, opened) = Header::read(payload, dst.len())
            .ok_or_else(|| corrupt("the quantized block's header breaks the format"))?;
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = self.decode_opened(isa, &header, &opened, &mut scratch, dst);
        self.scratch = scratch;
        result.ok_or_else(|| corrupt("the quantized block's indices break the format"))
    }

    fn decode_opened(
        &mut self,
        isa: Isa,
        header: &Header,
        opened: &header::Opened<'_>,
        scratch: &mut Scratch,
        dst: &mut [u8],
    ) -> Option<()> {
        let unit_bytes = opened.dtype.unit_bytes();
        let n_elements = dst.len() / unit_bytes;
        let dependent = header.quantizer == Quantizer::Trellis;
        // Chains run through the whole block; single elements need not leave the cache.
        scratch.make_room(n_elements, if dependent { n_elements } else { TILE_LEN });
        let Scratch { values, indices, multipliers, logs, .. } = scratch;
        self.codec(opened.codec_id)?.decode(isa, opened.section, dependent, indices)?;
        if dependent {
            header.dequantize(isa, indices, values);
        }
        let mut escapes = opened.escapes.chunks_exact(unit_bytes);
        let tiles = dst.chunks_mut(TILE_LEN * unit_bytes).zip(indices.chunks(TILE_LEN));
        for (tile_idx, (dst, indices)) in tiles.enumerate() {
            let from = tile_idx * TILE_LEN;
            let values = if dependent {
                &mut values[from..from + indices.len()]
            } else {
                let values = &mut values[..indices.len()];
                header.dequantize(isa, indices, values);
                values
            };
            header.leave_domain(isa, from, multipliers, logs, values);
            convert::from_f32(isa, opened.dtype, values, dst)?;
            if indices.contains(&ESCAPE) {
                let elements = dst.chunks_exact_mut(unit_bytes).zip(indices);
                for (element, _) in elements.filter(|(_, index)| **index == ESCAPE) {
                    element.copy_from_slice(escapes.next()?);
                }
            }
        }
        escapes.next().is_none().then_some(())
    }
}

#[cfg(test)]
mod tests;
