//! Coding 6, scaled: halves times a scale for each run of elements. FORMAT.md section 3.6.
//!
//! Where a batch norm has been folded into half-precision weights, each row of a single-precision tensor is halves times
//! one number, rounded. The halves are found again exactly: the mantissas of a row are then multiples of one number, its
//! scale, up to rounding. For each of the 1024 mantissas that the first element's half can have there is one candidate,
//! and a dozen further elements leave one of them (each takes a wrong one with a chance of 2^-11). How far the run goes,
//! and which scale within the bounds that its elements set, is then checked by the decoder's own multiplication.

use super::payload::{corrupt, le32, scratch};
use crate::bits::ByteCursor;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::{Isa, convert};

const RUN_BYTES: usize = 8;
/// Elements of a run at least, on average: below that scales cost much of what halves save.
const MEAN_RUN_LEN: usize = 16;
/// Elements that a candidate is held against.
const N_WITNESSES: usize = 12;
/// Exponent field of halves that are no finite numbers.
const HALF_EXPONENT: u16 = 0x7c00;

/// Scratch memory of the encoder.
#[derive(Debug, Default)]
pub(super) struct ScaledEncoder {
    runs: Vec<u8>,
    halves: Vec<u8>,
    parts: Vec<Part>,
    values: Vec<f32>,
}

/// An element as multiple of a scale: `mantissa · 2^exponent`, the mantissa in 1024 to 2047 or 0.
#[derive(Debug, Clone, Copy)]
struct Part {
    mantissa: u16,
    exponent: i32,
    is_negative: bool,
}

impl ScaledEncoder {
    /// Replaces what is in `dst` from `start` on by header and runs and returns the halves, for the caller to code and
    /// append; `None`, and `dst` as it was, where singles are no scaled halves.
    pub(super) fn encode(&mut self, bytes: &[u8], start: usize, dst: &mut Vec<u8>) -> Option<&[u8]> {
        let (elements, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() || !mantissas_repeat(elements) {
            return None;
        }
        self.runs.clear();
        self.halves.clear();
        let mut left = elements;
        while !left.is_empty() {
            let run_len = self.push_run(left)?;
            left = left.get(run_len..)?;
            let n_done = elements.len() - left.len();
            if self.runs.len() / RUN_BYTES > 4 + n_done / MEAN_RUN_LEN {
                return None;
            }
        }
        dst.truncate(start);
        dst.extend(le32(self.runs.len() / RUN_BYTES));
        dst.extend([0; 4]);
        dst.extend_from_slice(&self.runs);
        Some(&self.halves)
    }

    /// Notes in the header at `start` of `dst` how the halves are coded.
    pub(super) fn set_inner_coding(dst: &mut [u8], start: usize, coding_id: u8) {
        if let Some(byte) = dst.get_mut(start + 4) {
            *byte = coding_id;
        }
    }

    /// Finds the run that `elements` begin with and appends it; its length.
    fn push_run(&mut self, elements: &[[u8; 4]]) -> Option<usize> {
        let guess = scale(elements)?;
        self.parts.clear();
        let (mut low, mut high) = (0.0f64, f64::INFINITY);
        for element in elements {
            let value = f32::from_le_bytes(*element);
            let Some((part, from, to)) = divide(value, guess) else { break };
            if low.max(from) > high.min(to) {
                break;
            }
            (low, high) = (low.max(from), high.min(to));
            self.parts.push(part);
        }
        let exponents = self.parts.iter().filter(|part| part.mantissa > 0).map(|part| part.exponent);
        // 2047 · 2^5 is the largest half.
        let top = exponents.max().map_or(0, |largest| largest - 5);
        let middle = if high.is_finite() { f64::midpoint(low, high) } else { guess };
        let scale = single(middle * power_of_two(top)?)?;
        let halves_at = self.halves.len();
        for part in &self.parts {
            self.halves.extend(half(*part, top)?.to_le_bytes());
        }
        let values = scratch(&mut self.values, self.parts.len());
        convert::to_f32(Isa::Scalar, Dtype::F16, &self.halves[halves_at..], values)?;
        // The last place of the scale is a matter of rounding: its neighbours are tried, too.
        let bits = [0, 1, -1, 2, -2].map(|step| scale.to_bits().wrapping_add_signed(step));
        let fits = |bits: &u32| {
            let scale = f32::from_bits(*bits);
            let mut pairs = values.iter().zip(elements);
            is_scale(scale) && pairs.all(|(value, element)| (value * scale).to_le_bytes() == *element)
        };
        let bits = bits.into_iter().find(fits)?;
        self.runs.extend(le32(self.parts.len()));
        self.runs.extend(bits.to_le_bytes());
        Some(self.parts.len()).filter(|&len| len > 0)
    }
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

/// The scale of the run that `elements` begin with, up to rounding and a power of two; some other number where few of
/// them are left.
fn scale(elements: &[[u8; 4]]) -> Option<f64> {
    let values = elements.iter().map(|element| f64::from(f32::from_le_bytes(*element)).abs());
    let mut witnesses = values.filter(|value| value.is_normal()).take(1 + N_WITNESSES);
    let Some(first) = witnesses.next() else { return Some(1.0) };
    let mut ratios = [1.0; N_WITNESSES];
    for (ratio, value) in ratios.iter_mut().zip(witnesses) {
        *ratio = value / first;
    }
    let fits = |candidate: f64, ratio: f64| {
        let (mantissa, _) = normalised(candidate * ratio);
        // Both elements were rounded to 24 bits.
        (mantissa - nearest_integer(mantissa)).abs() < mantissa / f64::from(1 << 22)
    };
    let fitting =
        (1024..2048u32).filter(|&candidate| ratios.iter().all(|&ratio| fits(candidate.into(), ratio)));
    // Of integers of a few bits several multiples fit, and are halves, but only they themselves are surely rounded alike.
    let simplest = fitting.min_by_key(|candidate| candidate >> candidate.trailing_zeros());
    simplest.map(|candidate| first / f64::from(candidate))
}

/// `value` as a mantissa in [1024, 2048) and a power of two; for positive normal numbers.
fn normalised(value: f64) -> (f64, i32) {
    const MANTISSA: u64 = (1 << 52) - 1;
    let bits = value.to_bits();
    let exponent = i32::try_from(bits >> 52 & 0x7ff).unwrap_or(0) - 1033;
    (f64::from_bits(bits & MANTISSA | 1033 << 52), exponent)
}

/// The nearest integer, for numbers below 2^51: from 2^52 on there is nothing below the point.
fn nearest_integer(value: f64) -> f64 {
    const WITHOUT_FRACTION: f64 = 4_503_599_627_370_496.0;
    (value + WITHOUT_FRACTION) - WITHOUT_FRACTION
}

/// What `value` is a multiple of `guess` by, and the bounds that it sets to the scale; `None` if it is no number that a
/// scaled half can be.
fn divide(value: f32, guess: f64) -> Option<(Part, f64, f64)> {
    let is_negative = value.is_sign_negative();
    let magnitude = f64::from(value.abs());
    if magnitude == 0.0 {
        return Some((Part { mantissa: 0, exponent: 0, is_negative }, 0.0, f64::INFINITY));
    }
    if !value.is_normal() {
        return None;
    }
    let (mantissa, exponent) = normalised(magnitude / guess);
    let rounded = nearest_integer(mantissa);
    let multiple = rounded * power_of_two(exponent)?;
    // Half a unit in the last place of a single.
    let slack = f64::from(f32::from_bits(value.to_bits() & 0x7f80_0000)) / f64::from(1 << 24);
    // Of the 52 bits below the point of [1, 2) the upper ten; 2048 is 1024 · 2.
    let mantissa = 1024 + u16::try_from(rounded.to_bits() >> 42 & 0x3ff).ok()?;
    let part = Part { mantissa, exponent: exponent + i32::from(rounded >= 2048.0), is_negative };
    Some((part, (magnitude - slack) / multiple, (magnitude + slack) / multiple))
}

/// 2^exponent, where that is a normal number.
fn power_of_two(exponent: i32) -> Option<f64> {
    let biased = u64::try_from(exponent + 1023).ok().filter(|biased| (1..2047).contains(biased))?;
    Some(f64::from_bits(biased << 52))
}

/// The nearest single, if it may be a scale.
#[expect(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
fn single(value: f64) -> Option<f32> {
    Some(value as f32).filter(|&scale| is_scale(scale))
}

/// The half of `part · 2^-top`; `None` if there is none.
fn half(part: Part, top: i32) -> Option<u16> {
    let sign = u16::from(part.is_negative) << 15;
    if part.mantissa == 0 {
        return Some(sign);
    }
    // 1024 · 2^-24 is the smallest normal half.
    let field = part.exponent - top + 25;
    let magnitude = match u16::try_from(field) {
        Ok(field @ 1..=30) => field << 10 | (part.mantissa - 1024),
        _ => {
            let shift = u32::try_from(1 - field).ok().filter(|shift| *shift <= 10)?;
            (part.mantissa.trailing_zeros() >= shift).then_some(part.mantissa >> shift)?
        }
    };
    Some(sign | magnitude)
}

/// Whether a number may stand as a scale: positive and normal, so that products depend on no rounding mode or NaN.
fn is_scale(scale: f32) -> bool {
    scale.is_normal() && scale > 0.0
}

/// A scaled payload whose runs have been checked.
pub(super) struct Scaled<'a> {
    /// Coding id of the halves.
    pub(super) coding_id: u8,
    /// Their payload.
    pub(super) payload: &'a [u8],
    runs: &'a [[u8; RUN_BYTES]],
}

fn run(bytes: [u8; RUN_BYTES]) -> (usize, f32) {
    let [a, b, c, d, scale @ ..] = bytes;
    (u32::from_le_bytes([a, b, c, d]) as usize, f32::from_le_bytes(scale))
}

impl<'a> Scaled<'a> {
    /// Reads the runs of a block of `block_bytes`.
    pub(super) fn open(payload: &'a [u8], block_bytes: usize) -> Result<Self> {
        Self::read(payload, block_bytes).ok_or_else(|| corrupt("the scaled block's runs break the format"))
    }

    fn read(payload: &'a [u8], block_bytes: usize) -> Option<Self> {
        let mut src = ByteCursor::new(payload);
        let n_runs = usize::try_from(src.u32()?).ok()?;
        let [coding_id, 0, 0, 0] = src.array::<4>()? else { return None };
        let (runs, _) = src.take(n_runs.checked_mul(RUN_BYTES)?)?.as_chunks::<RUN_BYTES>();
        let mut n_left = block_bytes / 4;
        for (len, scale) in runs.iter().map(|bytes| run(*bytes)) {
            n_left = n_left.checked_sub(len).filter(|_| len > 0 && is_scale(scale))?;
        }
        let is_whole = n_left == 0 && block_bytes.is_multiple_of(4);
        is_whole.then_some(Self { coding_id, payload: src.rest(), runs })
    }

    /// Multiplies `halves` by the scales of their runs into `dst`, twice as long.
    pub(super) fn multiply(
        &self,
        isa: Isa,
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
        let (mut dst, _) = dst.as_chunks_mut::<4>();
        let mut values = &*values;
        for (len, scale) in self.runs.iter().map(|bytes| run(*bytes)) {
            let run = values.split_off(..len).unwrap_or_default();
            let places = dst.split_off_mut(..len).unwrap_or_default();
            places.iter_mut().zip(run).for_each(|(place, value)| *place = (value * scale).to_le_bytes());
        }
        Ok(())
    }
}
