//! The definition of the loops.

use super::{ESCAPE, FloatFormat, Grid, IN_ZERO, MAX_CELLS, Offsets, Refinement};

impl Grid {
    /// Low bits of a magnitude outside the cell of zero that its cell leaves open; never more than the significand has.
    #[inline(always)]
    fn open_bits(&self, magnitude: u64) -> u64 {
        let m = u64::from(self.format.mantissa_bits);
        let open_bits = (u64::from(self.step) + 1).saturating_sub((magnitude >> m).max(1)).min(m);
        if magnitude < self.limit { open_bits } else { 0 }
    }

    /// The cell of a magnitude below the limit, counted from that of zero.
    #[inline(always)]
    fn cell(&self, magnitude: u64) -> u64 {
        let m = self.format.mantissa_bits;
        let open_bits = self.open_bits(magnitude);
        let exponent = magnitude >> m;
        let significand = magnitude - (exponent << m) + (u64::from(exponent > 0) << m);
        let alone = (1u64 << m).wrapping_add(magnitude).wrapping_sub(self.dense);
        let cell = if open_bits == 0 { alone } else { significand >> open_bits };
        if magnitude < self.least { 0 } else { cell }
    }

    /// The first magnitude of a cell other than that of zero, and its open bits; a magnitude at the limit or above for a
    /// cell that does not exist.
    #[inline(always)]
    fn bounds(&self, cell: u64) -> (u64, u64) {
        let (m, step) = (u64::from(self.format.mantissa_bits), u64::from(self.step));
        // Its logarithm, exact below 2^53.
        let octave = ((cell.max(1) as f64).to_bits() >> 52) - 1023;
        let alone = self.dense.wrapping_add(cell).wrapping_sub(1 << m);
        let subnormal = cell << (step & 63);
        let open_bits = m.saturating_sub(octave);
        // The significand's top bit adds the one that is taken from the exponent.
        let normal = ((step + octave).saturating_sub(m) << m).wrapping_add(cell << open_bits);
        if octave >= m {
            (alone, 0)
        } else if step + octave < m {
            (subnormal, step)
        } else {
            (normal, open_bits)
        }
    }

    /// The magnitude that stands for the cell that begins at `magnitude`.
    #[inline(always)]
    fn center(&self, magnitude: u64, open_bits: u64) -> u64 {
        let [next_to_zero, others] = self.centers;
        let center = u64::from(if magnitude < self.second { next_to_zero } else { others });
        magnitude.wrapping_add(center << open_bits >> 8)
    }
}

#[inline(always)]
fn read<const N: usize>(element: &[u8; N]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(element);
    u64::from_le_bytes(bytes)
}

#[inline(always)]
fn write<const N: usize>(bits: u64, element: &mut [u8; N]) {
    element.copy_from_slice(&bits.to_le_bytes()[..N]);
}

/// Calls `$function` with the elements of `$bytes` as arrays.
macro_rules! by_width {
    ($format:expr, $function:ident, $bytes:expr $(, $argument:expr)*) => {
        match $format.element_bytes {
            2 => $function($bytes.as_chunks::<2>().0 $(, $argument)*),
            4 => $function($bytes.as_chunks::<4>().0 $(, $argument)*),
            _ => $function($bytes.as_chunks::<8>().0 $(, $argument)*),
        }
    };
}
macro_rules! by_width_mut {
    ($format:expr, $function:ident, $bytes:expr $(, $argument:expr)*) => {
        match $format.element_bytes {
            2 => $function($bytes.as_chunks_mut::<2>().0 $(, $argument)*),
            4 => $function($bytes.as_chunks_mut::<4>().0 $(, $argument)*),
            _ => $function($bytes.as_chunks_mut::<8>().0 $(, $argument)*),
        }
    };
}

#[inline(always)]
pub(super) fn indices(grid: &Grid, bytes: &[u8], indices: &mut [i32]) {
    by_width!(grid.format, indices_of, bytes, grid, indices);
}

#[inline(always)]
fn indices_of<const N: usize>(elements: &[[u8; N]], grid: &Grid, indices: &mut [i32]) {
    let sign = grid.format.sign();
    for (element, index) in elements.iter().zip(indices) {
        let bits = read(element);
        let magnitude = bits & (sign - 1);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "cells below the limit are few; others are not used"
        )]
        let cell = (grid.cell(magnitude) as u32).cast_signed();
        let signed = if bits & sign == 0 { cell } else { cell.wrapping_neg() };
        *index = if magnitude < grid.limit { signed } else { ESCAPE };
    }
}

/// Says whether all cells exist.
#[inline(always)]
pub(super) fn values(grid: &Grid, indices: &[i32], bytes: &mut [u8]) -> bool {
    by_width_mut!(grid.format, values_of, bytes, grid, indices)
}

#[inline(always)]
fn values_of<const N: usize>(elements: &mut [[u8; N]], grid: &Grid, indices: &[i32]) -> bool {
    let sign_bit = grid.format.sign_bit();
    let mut all_exist = true;
    for (element, &index) in elements.iter_mut().zip(indices) {
        let cell = index.unsigned_abs();
        let (magnitude, open_bits) = grid.bounds(cell.into());
        let exists = cell < MAX_CELLS && magnitude < grid.limit;
        all_exist &= exists | (index == 0) | (index == ESCAPE);
        let bits = grid.center(magnitude, open_bits) | u64::from(index < 0) << sign_bit;
        let bits = if index == 0 { 0 } else { bits };
        let bits = if index == ESCAPE { read(element) } else { bits };
        write(bits, element);
    }
    all_exist
}

#[inline(always)]
pub(super) fn offsets(grid: &Grid, bytes: &[u8]) -> Offsets {
    by_width!(grid.format, offsets_of, bytes, grid)
}

#[inline(always)]
fn offsets_of<const N: usize>(elements: &[[u8; N]], grid: &Grid) -> Offsets {
    let sign = grid.format.sign();
    let mut offsets = Offsets::default();
    for element in elements {
        let magnitude = read(element) & (sign - 1);
        let open_bits = grid.open_bits(magnitude);
        let counts = (magnitude >= grid.least) & (magnitude < grid.limit) & (open_bits > 0);
        let below = magnitude & ((1 << open_bits) - 1);
        let offset = (below << 8) >> open_bits;
        let (is_next, is_other) = (counts & (magnitude < grid.second), counts & (magnitude >= grid.second));
        offsets.sums[0] += if is_next { offset } else { 0 };
        offsets.sums[1] += if is_other { offset } else { 0 };
        offsets.counts[0] += u64::from(is_next);
        offsets.counts[1] += u64::from(is_other);
    }
    offsets
}

#[inline(always)]
pub(super) fn count_kept(format: FloatFormat, bytes: &[u8]) -> (u64, u64) {
    by_width!(format, count_kept_of, bytes, format)
}

#[inline(always)]
fn count_kept_of<const N: usize>(elements: &[[u8; N]], format: FloatFormat) -> (u64, u64) {
    let sign = format.sign();
    elements.iter().fold((0, 0), |(zeros, specials), element| {
        let magnitude = read(element) & (sign - 1);
        (zeros + u64::from(magnitude == 0), specials + u64::from(magnitude >= format.infinity()))
    })
}

pub(super) fn count_exponents(format: FloatFormat, bytes: &[u8], counts: &mut [u32]) {
    by_width!(format, count_exponents_of, bytes, format, counts);
}

fn count_exponents_of<const N: usize>(elements: &[[u8; N]], format: FloatFormat, counts: &mut [u32]) {
    let sign = format.sign();
    for element in elements {
        let exponent = (read(element) & (sign - 1)) >> format.mantissa_bits;
        if let Some(count) = usize::try_from(exponent).ok().and_then(|exponent| counts.get_mut(exponent)) {
            *count += 1;
        }
    }
}

#[inline(always)]
pub(super) fn any_bits(grid: &Grid, bytes: &[u8]) -> u64 {
    by_width!(grid.format, any_bits_of, bytes, grid)
}

#[inline(always)]
fn any_bits_of<const N: usize>(elements: &[[u8; N]], grid: &Grid) -> u64 {
    let sign = grid.format.sign();
    elements.iter().fold(0, |any, element| {
        let magnitude = read(element) & (sign - 1);
        any | if (magnitude >= grid.least) & (magnitude < grid.limit) { magnitude } else { 0 }
    })
}

#[inline(always)]
pub(super) fn widths(refinement: &Refinement, bytes: &[u8], widths: &mut [u8]) {
    by_width!(refinement.before.format, widths_of, bytes, refinement, widths);
}

#[inline(always)]
fn widths_of<const N: usize>(elements: &[[u8; N]], refinement: &Refinement, widths: &mut [u8]) {
    let (before, after) = (refinement.before, refinement.finer());
    let (sign, zero_bits) = (before.format.sign(), u64::from(refinement.zero_bits));
    for (element, width) in elements.iter().zip(widths) {
        let magnitude = read(element) & (sign - 1);
        let kept = after.open_bits(magnitude).max(zero_bits);
        let added = before.open_bits(magnitude).saturating_sub(kept);
        *width = if magnitude < before.least { IN_ZERO } else { added.to_le_bytes()[0] };
    }
}

#[inline(always)]
pub(super) fn rests(refinement: &Refinement, bytes: &[u8], rests: &mut [u64]) {
    by_width!(refinement.before.format, rests_of, bytes, refinement, rests);
}

#[inline(always)]
fn rests_of<const N: usize>(elements: &[[u8; N]], refinement: &Refinement, rests: &mut [u64]) {
    let (before, after) = (refinement.before, refinement.finer());
    let (sign, zero_bits) = (before.format.sign(), u64::from(refinement.zero_bits));
    for (element, rest) in elements.iter().zip(rests) {
        let magnitude = read(element) & (sign - 1);
        let low = magnitude & ((1 << before.open_bits(magnitude)) - 1);
        *rest = low >> after.open_bits(magnitude).max(zero_bits);
    }
}

#[inline(always)]
pub(super) fn place(refinement: &Refinement, rests: &[u64], bytes: &mut [u8]) {
    by_width_mut!(refinement.before.format, place_in, bytes, refinement, rests);
}

#[inline(always)]
fn place_in<const N: usize>(elements: &mut [[u8; N]], refinement: &Refinement, rests: &[u64]) {
    let (before, after) = (refinement.before, refinement.finer());
    let (sign, zero_bits) = (before.format.sign(), u64::from(refinement.zero_bits));
    for (element, &rest) in elements.iter_mut().zip(rests) {
        let bits = read(element);
        let magnitude = bits & (sign - 1);
        let (open_before, open_after) = (before.open_bits(magnitude), after.open_bits(magnitude));
        let start = magnitude >> open_before << open_before | rest << open_after.max(zero_bits);
        let placed = after.center(start, open_after);
        let stays = (magnitude < before.least) | (open_before == 0);
        write(if stays { bits } else { bits & sign | placed & (sign - 1) }, element);
    }
}
