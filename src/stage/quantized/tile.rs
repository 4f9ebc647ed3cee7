//! The work on one tile: a run of elements short enough that all its forms stay in the nearest cache.

use super::header::{Domain, Header};
use super::{BlockLoss, Choice, Part, QuantRun};
use crate::dtype::Dtype;
use crate::kernels::channel_scale::Headroom;
use crate::kernels::quantize::{ESCAPE, MAX_STEPS};
use crate::kernels::{Isa, channel_scale, convert, log_domain, quantize};

/// Elements of a tile.
pub(crate) const TILE_LEN: usize = 4096;

/// Scratch memory of a tile.
#[derive(Debug, Default)]
pub(super) struct TileScratch {
    pub(super) multipliers: Vec<f32>,
    /// Logarithms.
    pub(super) logs: Vec<f32>,
    /// The reconstruction.
    rebuilt: Vec<u8>,
}

impl TileScratch {
    pub(super) fn make_room(&mut self) {
        self.multipliers.resize(TILE_LEN, 1.0);
        self.logs.resize(TILE_LEN, 0.0);
        self.rebuilt.resize(TILE_LEN * 8, 0);
    }
}

/// Steps by which an element's reconstruction may be farther from zero than the element, at most: one, or, as the trellis
/// chooses among the next points of four classes, four.
fn most_error(choice: &Choice) -> f32 {
    match choice {
        Choice::Rounded(_) => 1.0,
        Choice::Trellis(_) => 4.0,
    }
}

/// The largest finite number of a dtype that is quantized, as far as `f32` has it.
fn largest_finite(dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F16 => 65504.0,
        Dtype::Bf16 => f32::from_bits(0x7f7f_0000),
        _ => f32::MAX,
    }
}

/// The indices of a tile, and what they stand for in the domain that is quantized.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) indices: &'a [i32],
}

/// The encoder's side of a block's tiles.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiles<'a> {
    pub(super) isa: Isa,
    pub(super) run: QuantRun<'a>,
    pub(super) header: &'a Header,
}

impl Tiles<'_> {
    /// The elements from number `from` of the block on, `bytes`, in the domain that is quantized.
    pub(super) fn load(
        &self,
        from: usize,
        bytes: &[u8],
        values: &mut [f32],
        scratch: &mut TileScratch,
        enter: &mut dyn FnMut(Part),
    ) {
        let Self { isa, run: QuantRun { spec, dtype, .. }, header } = *self;
        // Only dtypes that convert are quantized; of any other every element would be an escape.
        if convert::to_f32(isa, dtype, bytes, values).is_none() {
            values.fill(f32::NAN);
        }
        if spec.prune_below > 0.0 {
            enter(Part::Pruning);
            values.iter_mut().filter(|x| x.abs() < spec.prune_below).for_each(|x| *x = 0.0);
            enter(Part::Quantization);
        }
        // What could be rebuilt as infinity is no number to a quantizer, and so stays what it is.
        let (largest, margin) = (largest_finite(dtype), most_error(&spec.choice) * header.step);
        if let Some(channels) = &header.channels {
            let multipliers = &mut scratch.multipliers[..values.len()];
            channels.fill(from, multipliers);
            channel_scale::divide(isa, values, multipliers, Headroom { largest, margin });
        } else if header.domain == Domain::Linear && !self.stays_finite() {
            values.iter_mut().filter(|x| x.abs() > (largest - margin).max(0.0)).for_each(|x| *x = f32::NAN);
        }
        if header.domain == Domain::Log2 {
            let logs = &mut scratch.logs[..values.len()];
            log_domain::log2(isa, values, logs);
            let mut limit = [0.0];
            log_domain::log2(Isa::Scalar, &[largest], &mut limit);
            let limit = limit[0] - margin;
            values.iter_mut().zip(logs).for_each(|(x, log)| *x = if *log > limit { f32::NAN } else { *log });
        }
    }

    /// Whether nothing that has an index can be rebuilt as infinity, however large it is.
    fn stays_finite(&self) -> bool {
        let most_steps = MAX_STEPS + most_error(&self.run.spec.choice);
        self.header.step * most_steps < largest_finite(self.run.dtype)
    }

    /// The indices of `bytes`, where each is chosen by itself, and what they stand for, in the domain that is quantized.
    pub(super) fn choose(
        &self,
        from: usize,
        bytes: &[u8],
        values: &mut [f32],
        indices: &mut [i32],
        scratch: &mut TileScratch,
        enter: &mut dyn FnMut(Part),
    ) {
        self.load(from, bytes, values, scratch, enter);
        if let Choice::Rounded(rounding) = &self.run.spec.choice {
            quantize::quantize(self.isa, values, self.header.step, rounding, indices);
            quantize::dequantize(self.isa, indices, self.header.step, values);
        }
    }

    /// All of the work on a tile at once, where nothing stands between its elements and their indices: `bytes` become what a
    /// decoder will make of `source`, or of what they are themselves. `None`, with nothing done, elsewhere. `next` is what the
    /// next tile is made of.
    pub(super) fn replace(
        &self,
        source: Option<&[u8]>,
        bytes: &mut [u8],
        indices: &mut [i32],
        loss: &mut BlockLoss,
        escapes: &mut Vec<u8>,
        next: &[u8],
    ) -> Option<()> {
        let Self { isa, run: QuantRun { spec, dtype, .. }, header } = *self;
        let Choice::Rounded(rounding) = &spec.choice else { return None };
        let is_plain = dtype == Dtype::F32
            && spec.prune_below <= 0.0
            && header.channels.is_none()
            && header.domain == Domain::Linear
            && self.stays_finite();
        if !is_plain {
            return None;
        }
        let replaced = quantize::replace_f32(isa, source, bytes, header.step, rounding, indices, next)?;
        loss.errors.add(&replaced.errors);
        loss.max_scaled = loss.max_scaled.max(replaced.errors.max_abs);
        loss.zeros += replaced.n_zeros;
        loss.escapes += replaced.n_escapes;
        if replaced.n_escapes > 0 {
            let elements = bytes.chunks_exact(dtype.unit_bytes()).zip(&*indices);
            for (element, _) in elements.filter(|(_, index)| **index == ESCAPE) {
                escapes.extend_from_slice(element);
            }
        }
        Some(())
    }

    /// What a decoder will make of the indices of `bytes`. The loss is added to `loss`; elements
    /// that have no index are appended to `escapes`.
    pub(super) fn rebuild<'s>(
        &self,
        from: usize,
        bytes: &[u8],
        chosen: Chosen<'_>,
        scratch: &'s mut TileScratch,
        loss: &mut BlockLoss,
        escapes: &mut Vec<u8>,
    ) -> &'s [u8] {
        let Chosen { values, indices } = chosen;
        let Self { isa, run: QuantRun { dtype, .. }, header } = *self;
        let unit_bytes = dtype.unit_bytes();
        let TileScratch { multipliers, logs, rebuilt } = scratch;
        header.leave_domain(isa, from, multipliers, logs, values);
        let rebuilt = &mut rebuilt[..bytes.len()];
        // As above; what is not written is an escape, and written below.
        let _ = convert::from_f32(isa, dtype, values, rebuilt);
        let mut n_zeros = values.iter().map(|x| u32::from(*x == 0.0)).sum::<u32>();
        // Rare, and looked for in vectors.
        if indices.iter().fold(false, |any, index| any | (*index == ESCAPE)) {
            for (place, _) in indices.iter().enumerate().filter(|(_, index)| **index == ESCAPE) {
                let element = place * unit_bytes..(place + 1) * unit_bytes;
                escapes.extend_from_slice(&bytes[element.clone()]);
                rebuilt[element.clone()].copy_from_slice(&bytes[element]);
                n_zeros -= u32::from(values[place] == 0.0);
                loss.escapes += 1;
            }
        }
        loss.zeros += u64::from(n_zeros);
        let errors = quantize::measure(isa, dtype, bytes, rebuilt).unwrap_or_default();
        loss.errors.add(&errors);
        let scaled = match &header.channels {
            Some(_) => quantize::max_scaled(isa, dtype, bytes, rebuilt, &multipliers[..indices.len()])
                .unwrap_or(f64::INFINITY),
            None => errors.max_abs,
        };
        loss.max_scaled = loss.max_scaled.max(scaled);
        rebuilt
    }
}
