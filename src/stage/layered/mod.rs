//! Codings 9 and 10, coarse and refined: the layers of a block. FORMAT.md sections 3.9 and 3.10.
//!
//! The elements of a coarse layer are the centers of dyadic cells ([`crate::kernels::dyadic`]). The first layer is the
//! indices of the cells; every later one is coded given the one before it, of which it is a refinement: no bit is said
//! twice. Elements outside the cell of zero get some more of their low bits, which are next to noise; those within it
//! are coded as a small block of their own.

mod block;
mod coarse;
mod refined;

use std::ops::Range;

use crate::dtype::Dtype;
use crate::entropy::indices::{IndexDecoder, IndexEncoder};
use crate::kernels::dyadic::{self, FloatFormat, Grid, Refinement};
use crate::kernels::{Isa, quantize};
use crate::stage::BlockLoss;
use crate::stage::rests::RestWriter;

/// Elements that are looked at at a time.
const TILE_LEN: usize = 4096;

/// How coarse a layer of a block is: its first elements lie on a grid of one step, the others on one of twice that.
/// Between the two any rate can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerStep {
    /// Log2 of the finer of the two steps, in smallest subnormal numbers.
    pub log2: u16,
    /// Elements that have the finer step.
    pub finer_len: usize,
}

impl LayerStep {
    /// The largest step, with which all elements are zero.
    #[must_use]
    pub fn largest(dtype: Dtype) -> Option<u16> {
        FloatFormat::of(dtype).and_then(|format| u16::try_from(format.max_step()).ok())
    }

    /// Log2 of the smallest number of a dtype, which steps are counted from.
    #[must_use]
    pub fn log2_of_least(dtype: Dtype) -> i32 {
        FloatFormat::of(dtype).map_or(0, FloatFormat::log2_of_least)
    }

    /// The finer step as a number, rounded.
    #[must_use]
    pub fn value(&self, dtype: Dtype) -> f64 {
        FloatFormat::of(dtype).map_or(0.0, |format| format.step_value(self.log2.into()))
    }

    /// The step of each run of `n_elements` elements; the runs may be empty.
    fn runs(&self, n_elements: usize) -> [(u32, Range<usize>); 2] {
        let split = self.finer_len.min(n_elements);
        let log2 = u32::from(self.log2);
        [(log2, 0..split), (log2 + 1, split..n_elements)]
    }

    /// The grid of each run that is not empty; `None` where a step does not exist.
    fn grids(
        &self,
        format: FloatFormat,
        centers: [u8; 2],
        n_elements: usize,
    ) -> Option<Vec<(Grid, Range<usize>)>> {
        let runs = self.runs(n_elements).into_iter().filter(|(_, run)| !run.is_empty());
        runs.map(|(step, run)| Some((Grid::new(format, step, centers)?, run))).collect()
    }
}

/// What is refined, run by run; `None` where a step does not exist, or the layer after is coarser than that before.
fn refinements(
    before: &[(Grid, Range<usize>)],
    after: Option<&[(Grid, Range<usize>)]>,
    zero_bits: u32,
) -> Option<Vec<(Refinement, Range<usize>)>> {
    let mut found = Vec::new();
    for (before, run) in before {
        let Some(after) = after else {
            found.push((Refinement { before: *before, after: None, zero_bits }, run.clone()));
            continue;
        };
        for (after, after_run) in after {
            let both = run.start.max(after_run.start)..run.end.min(after_run.end);
            if !both.is_empty() {
                (after.step() <= before.step()).then_some(())?;
                found.push((Refinement { before: *before, after: Some(*after), zero_bits }, both));
            }
        }
    }
    Some(found)
}

/// Float types that have layers; the place is the id in the payload.
const DTYPES: [Dtype; 4] = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F64];

fn dtype_id(dtype: Dtype) -> Option<u8> {
    DTYPES.iter().position(|known| *known == dtype).and_then(|place| u8::try_from(place).ok())
}

/// The bytes of elements `run`.
fn run_of(bytes: &[u8], run: &Range<usize>, unit_bytes: usize) -> Range<usize> {
    let end = (run.end * unit_bytes).min(bytes.len());
    (run.start * unit_bytes).min(end)..end
}

/// Scratch memory of the encoder.
#[derive(Default)]
pub(super) struct LayerEncoder {
    indices: Vec<i32>,
    index_encoder: IndexEncoder,
    widths: Vec<u8>,
    rests: Vec<u64>,
    writer: RestWriter,
    /// Elements in the cell of zero.
    pub(super) dense: Vec<u8>,
}

/// What was lost of `original`, whose layer `bytes` are.
pub(super) fn loss(isa: Isa, dtype: Dtype, original: &[u8], bytes: &[u8]) -> BlockLoss {
    let errors = quantize::measure(isa, dtype, original, bytes).unwrap_or_default();
    let kept = |format| dyadic::count_kept(isa, format, bytes);
    let (zeros, escapes) = FloatFormat::of(dtype).map(kept).unwrap_or_default();
    BlockLoss { errors, max_scaled: errors.max_abs, zeros, escapes }
}

/// Scratch memory of the decoder.
#[derive(Default)]
pub(super) struct LayerDecoder {
    indices: Vec<i32>,
    index_decoder: IndexDecoder,
    widths: Vec<u8>,
    rests: Vec<u64>,
    planes: Vec<u8>,
    dense: Vec<u8>,
}

#[cfg(test)]
mod tests;
