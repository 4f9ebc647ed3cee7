//! Coding 6, scaled: halves times a scale for each run of elements. FORMAT.md section 3.6.
//!
//! Weights that were quantized and given back a floating-point form are integers or floats of a few bits times one number
//! for each row or group, rounded; so are half-precision weights into which a batch norm has been folded. What they were
//! multiplied by is found again exactly ([`search`]), and checked by the decoder's own multiplication.

mod search;

use super::payload::{corrupt, le32, scratch};
use crate::bits::ByteCursor;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::{Isa, convert};
use search::{Found, RunSearch, is_too_many, power_of_two, shortest};

/// A run's length and scale.
pub(super) const RUN_BYTES: usize = 8;
pub(super) const HEADER_BYTES: usize = 12;
/// Elements that a block must have.
const MIN_ELEMENTS: usize = 64;
/// Exponent field of halves that are no finite numbers.
const HALF_EXPONENT: u16 = 0x7c00;
/// 2047 · 2^5 is the largest half.
const HALF_TOP: i32 = 15;

/// Scratch memory of the encoder.
#[derive(Debug, Default)]
pub(super) struct ScaledEncoder {
    search: Option<(Dtype, RunSearch)>,
    values: Vec<f32>,
    lengths: Vec<u8>,
    scales: Vec<u8>,
    halves: Vec<u8>,
    products: Vec<f32>,
    rounded: Vec<u8>,
}

/// What elements have been taken apart into.
pub(super) struct TakenApart<'a> {
    /// Lengths of the runs and behind them their scales, little-endian words.
    pub(super) runs: &'a [u8],
    /// Elements of dtype F16.
    pub(super) halves: &'a [u8],
}

impl ScaledEncoder {
    /// Takes elements apart; `None` where they are no scaled halves.
    pub(super) fn take_apart(&mut self, isa: Isa, dtype: Dtype, bytes: &[u8]) -> Option<TakenApart<'_>> {
        let may_be = match dtype {
            Dtype::F32 => mantissas_repeat(bytes.as_chunks().0),
            Dtype::F16 => magnitudes_repeat(bytes.as_chunks().0, 0x0400),
            Dtype::Bf16 => magnitudes_repeat(bytes.as_chunks().0, 0x0080),
            _ => false,
        };
        let n_elements = bytes.len() / dtype.unit_bytes();
        if !may_be || n_elements * dtype.unit_bytes() != bytes.len() {
            return None;
        }
        let mut search = match self.search.take() {
            Some((known, search)) if known == dtype => search,
            _ => RunSearch::new(dtype)?,
        };
        let mut values = std::mem::take(&mut self.values);
        convert::to_f32(isa, dtype, bytes, scratch(&mut values, n_elements))?;
        let found = self.find_runs(isa, dtype, bytes, &values[..n_elements], &mut search);
        self.values = values;
        self.search = Some((dtype, search));
        found?;
        self.lengths.extend_from_slice(&self.scales);
        Some(TakenApart { runs: &self.lengths, halves: &self.halves })
    }

    fn find_runs(
        &mut self,
        isa: Isa,
        dtype: Dtype,
        bytes: &[u8],
        values: &[f32],
        search: &mut RunSearch,
    ) -> Option<()> {
        if !search.choose_kind(values) {
            return None;
        }
        self.lengths.clear();
        self.scales.clear();
        self.halves.clear();
        let (mut n_done, mut n_telling) = (0, 0);
        while n_done < values.len() {
            let elements = &bytes[n_done * dtype.unit_bytes()..];
            let found = search.find(&values[n_done..])?;
            n_telling += found.n_telling;
            n_done += self.push_run(isa, dtype, elements, found, search.multiples())?;
            if is_too_many(self.lengths.len() / 4, n_telling) {
                return None;
            }
        }
        Some(())
    }

    /// Appends the run of `multiples` that `elements` begin with; its length.
    fn push_run(
        &mut self,
        isa: Isa,
        dtype: Dtype,
        elements: &[u8],
        found: Found,
        multiples: &[f64],
    ) -> Option<usize> {
        let largest = multiples.iter().fold(0.0f64, |largest, multiple| largest.max(multiple.abs()));
        // Floats are told up to a power of two: the largest has the largest exponent of a half.
        let shift = if found.is_float && largest > 0.0 { HALF_TOP - exponent(largest) } else { 0 };
        let factor = power_of_two(shift);
        let halves_at = self.halves.len();
        self.halves.resize(halves_at + 2 * multiples.len(), 0);
        let products = scratch(&mut self.products, multiples.len());
        let shifted = multiples.iter().map(|multiple| single(multiple * factor));
        products.iter_mut().zip(shifted).for_each(|(product, value)| *product = value);
        let halves = &mut self.halves[halves_at..];
        convert::from_f32(isa, Dtype::F16, products, halves)?;
        convert::to_f32(isa, Dtype::F16, halves, products)?;
        let is_exact = multiples.iter().zip(&*products).all(|(m, half)| m * factor == f64::from(*half));
        if !is_exact {
            return None;
        }
        // The run's last elements may be of the next one, and leave no scale in whose bounds all lie.
        let unit_bytes = dtype.unit_bytes();
        let rounded = scratch(&mut self.rounded, multiples.len() * unit_bytes);
        let (mut len, mut scale) = (0, 0.0);
        for trial in scales(found.low / factor, found.high / factor) {
            products.iter_mut().zip(multiples).for_each(|(p, m)| *p = single(m * factor) * trial);
            convert::from_f32(isa, dtype, products, rounded)?;
            let same = rounded.iter().zip(elements).position(|(a, b)| a != b);
            let n_same = same.map_or(multiples.len(), |at| at / unit_bytes);
            if n_same > len && is_scale(trial) {
                (len, scale) = (n_same, trial);
            }
            if len == multiples.len() {
                break;
            }
        }
        self.halves.truncate(halves_at + 2 * len);
        self.lengths.extend(le32(len));
        self.scales.extend(scale.to_le_bytes());
        Some(len).filter(|&len| len > 0)
    }
}

/// Scales from `low` to `high` to be tried: a number of few bits costs least; at the bounds, whose products lie between two
/// numbers, and where they are as close as singles are, it is a matter of rounding which one it is.
fn scales(low: f64, high: f64) -> [f32; 7] {
    if high.is_infinite() {
        return [1.0; 7];
    }
    let (middle, quarter) = (f64::midpoint(low, high), (high - low) / 4.0);
    let near = |step| f32::from_bits(single(middle).to_bits().wrapping_add_signed(step));
    let inner = shortest(middle - quarter, middle + quarter);
    [single(shortest(low, high)), single(inner), near(0), near(1), near(-1), near(2), near(-2)]
}

/// The exponent of a positive normal number.
fn exponent(value: f64) -> i32 {
    i32::try_from(value.to_bits() >> 52).unwrap_or(0) - 1023
}

/// The nearest single.
#[expect(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
fn single(value: f64) -> f32 {
    value as f32
}

/// Whether magnitudes of neighbours repeat as those of integers do, `least_normal` being that of the smallest normal number.
fn magnitudes_repeat(elements: &[[u8; 2]], least_normal: u16) -> bool {
    const SAMPLE_LEN: usize = 128;
    /// Of 128 integers of 8 bits some 70 differ, of two rows of 64 with a scale each 84; of 128 weights in bfloat16 107.
    const MOST_DIFFERENT: usize = 92;
    let mut seen = [0u64; 1 << 15 >> 6];
    let magnitudes = elements[elements.len() / 2..].iter().map(|bytes| u16::from_le_bytes(*bytes) & 0x7fff);
    let (mut n_sampled, mut n_different) = (0, 0);
    for magnitude in magnitudes.filter(|&magnitude| magnitude >= least_normal).take(SAMPLE_LEN) {
        let (word, bit) = (&mut seen[usize::from(magnitude >> 6)], 1 << (magnitude & 63));
        n_different += usize::from(*word & bit == 0);
        *word |= bit;
        n_sampled += 1;
    }
    elements.len() >= MIN_ELEMENTS && n_different * SAMPLE_LEN <= MOST_DIFFERENT * n_sampled
}

/// Whether mantissas of neighbours repeat as a thousand different ones do, while their low bits are not all zero, which
/// other codings make more of.
fn mantissas_repeat(elements: &[[u8; 4]]) -> bool {
    const SAMPLE_LEN: usize = 512;
    const LOW_BITS: u32 = 0xfff;
    let mut seen = [0u32; 2048];
    let (mut n_repeats, mut any) = (0, 0);
    let from = elements.len() / 2 / SAMPLE_LEN * SAMPLE_LEN;
    let sample = elements[from..].iter().take(SAMPLE_LEN);
    let n_sampled = sample.len();
    for element in sample {
        // One more, since 0 stands for nothing seen.
        let mantissa = (u32::from_le_bytes(*element) & 0x7f_ffff) + 1;
        any |= (mantissa - 1) & LOW_BITS;
        // Fibonacci hashing to 11 bits.
        let slot = (mantissa.wrapping_mul(0x9e37_79b9) >> 21) as usize;
        n_repeats += usize::from(seen[slot] == mantissa && mantissa > 1);
        seen[slot] = mantissa;
    }
    any != 0 && n_sampled >= 64 && n_repeats * 128 > n_sampled
}

/// Whether elements may be products.
fn is_scalable(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16)
}

/// Whether a number may stand as a scale: positive and normal, so that products depend on no NaN.
fn is_scale(scale: f32) -> bool {
    scale.is_normal() && scale > 0.0
}

/// A scaled payload whose header has been checked.
pub(super) struct Scaled<'a> {
    /// Coding ids of the halves and of the runs.
    pub(super) halves_coding: u8,
    pub(super) runs_coding: u8,
    pub(super) n_runs: usize,
    /// Their payloads.
    pub(super) halves: &'a [u8],
    pub(super) runs: &'a [u8],
}

/// Puts a header before the runs' payload, which begins [`HEADER_BYTES`] behind `start` and ends at `runs_end`.
pub(super) fn set_header(dst: &mut [u8], start: usize, n_runs: usize, runs_end: usize, codings: [u8; 2]) {
    let [halves, runs] = codings;
    let [a, b, c, d] = le32(n_runs);
    let [e, f, g, h] = le32(runs_end - start - HEADER_BYTES);
    if let Some(header) = dst.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
        *header = [a, b, c, d, halves, runs, 0, 0, e, f, g, h];
    }
}

impl<'a> Scaled<'a> {
    /// Reads the header of a block of `n_elements` of `dtype`.
    pub(super) fn open(dtype: Dtype, payload: &'a [u8], n_elements: usize) -> Result<Self> {
        let opened = if is_scalable(dtype) { Self::read(payload, n_elements) } else { None };
        opened.ok_or_else(|| corrupt("the scaled block's header breaks the format"))
    }

    fn read(payload: &'a [u8], n_elements: usize) -> Option<Self> {
        let mut src = ByteCursor::new(payload);
        let n_runs = usize::try_from(src.u32()?).ok().filter(|&n_runs| n_runs <= n_elements)?;
        let [halves_coding, runs_coding, 0, 0] = src.array::<4>()? else { return None };
        let runs_len = usize::try_from(src.u32()?).ok()?;
        let runs = src.take(runs_len)?;
        Some(Self { halves_coding, runs_coding, n_runs, halves: src.rest(), runs })
    }
}

/// Multiplies `halves` by the scales of `runs`, lengths and scales of a block of `dtype`, into `dst`.
pub(super) fn multiply(
    isa: Isa,
    dtype: Dtype,
    runs: &[u8],
    halves: &[u8],
    values: &mut Vec<f32>,
    dst: &mut [u8],
) -> Result<()> {
    let (elements, _) = halves.as_chunks::<2>();
    if elements.iter().any(|half| u16::from_le_bytes(*half) & HALF_EXPONENT == HALF_EXPONENT) {
        return Err(corrupt("a scaled half is no finite number"));
    }
    let values = scratch(values, elements.len());
    // Lengths fit: both are of the block.
    let _ = convert::to_f32(isa, Dtype::F16, halves, values);
    let (words, _) = runs.as_chunks::<4>();
    let (lengths, scales) = words.split_at(words.len() / 2);
    let mut left = &mut *values;
    for (length, scale) in lengths.iter().zip(scales) {
        let (length, scale) = (u32::from_le_bytes(*length) as usize, f32::from_le_bytes(*scale));
        let run = if length > 0 && is_scale(scale) { left.split_off_mut(..length) } else { None };
        let run = run.ok_or_else(|| corrupt("the scaled block's runs break the format"))?;
        run.iter_mut().for_each(|value| *value *= scale);
    }
    if !left.is_empty() {
        return Err(corrupt("the scaled block's runs do not fill it"));
    }
    convert::from_f32(isa, dtype, values, dst).ok_or_else(|| corrupt("a scaled block of such elements"))
}
