//! Floats in cells whose bounds are dyadic: what a coarse layer keeps of them, and what a finer one adds.
//!
//! A [`Grid`] has a step of 2^*t* times the smallest subnormal number of the type. An element of magnitude below one
//! step lies in the cell of zero, which is two steps wide; any other in a cell of one step, or of one number where
//! numbers lie further apart. Within a binade all cells are equally long, so that everything is told by an element's
//! bits: a cell is what is left of the magnitude without its low *d* bits, *d* depending on the exponent alone. A
//! step of half the size halves every cell: the finer layer is a refinement of the coarser.
//!
//! Only integers are computed with, so that there is nothing that an instruction set could do differently; the loops
//! are plain and get what the compiler makes of them.

use crate::dtype::Dtype;

/// The index of an element that is kept exactly: not finite, or of a cell further out than 2^24.
pub const ESCAPE: i32 = i32::MIN;
/// Cells on either side of zero that have an index.
const MAX_CELLS: u32 = 1 << MAX_CELLS_LOG2;
const MAX_CELLS_LOG2: u32 = 24;
/// In a list of widths: the element lies in the cell of zero.
pub const IN_ZERO: u8 = u8::MAX;

/// A binary floating-point type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatFormat {
    /// Bytes of an element: 2, 4 or 8.
    pub element_bytes: usize,
    /// Stored bits of the significand.
    pub mantissa_bits: u32,
}

impl FloatFormat {
    /// The format of a dtype with at least 16 bits; `None` of any other.
    #[must_use]
    pub fn of(dtype: Dtype) -> Option<Self> {
        let (element_bytes, mantissa_bits) = match dtype {
            Dtype::F64 => (8, 52),
            Dtype::F32 => (4, 23),
            Dtype::F16 => (2, 10),
            Dtype::Bf16 => (2, 7),
            _ => return None,
        };
        Some(Self { element_bytes, mantissa_bits })
    }

    fn sign_bit(self) -> u32 {
        u32::try_from(self.element_bytes).unwrap_or(0) * 8 - 1
    }

    fn sign(self) -> u64 {
        1 << self.sign_bit()
    }

    /// Bits of the magnitude of infinity: the first that is no number.
    fn infinity(self) -> u64 {
        self.sign() - (1 << self.mantissa_bits)
    }

    /// The largest step: every finite element lies in the cell of zero.
    #[must_use]
    pub fn max_step(self) -> u32 {
        let n_exponents = self.infinity() >> self.mantissa_bits;
        u32::try_from(n_exponents).unwrap_or(u32::MAX) + self.mantissa_bits - 1
    }

    /// Bits of the magnitude 2^`log2` smallest subnormal numbers, infinity for whatever lies beyond.
    fn power(self, log2: u32) -> u64 {
        let (log2, m) = (log2.min(self.max_step()), self.mantissa_bits);
        if log2 < m { 1 << log2 } else { u64::from(log2 - m + 1) << m }
    }

    /// Log2 of the smallest subnormal number.
    #[must_use]
    pub fn log2_of_least(self) -> i32 {
        let exponent_bits = self.sign_bit() - self.mantissa_bits;
        let least = 2 - (1i64 << (exponent_bits - 1)) - i64::from(self.mantissa_bits);
        i32::try_from(least).unwrap_or(i32::MIN)
    }

    /// The step as a number, rounded; for people.
    #[must_use]
    pub fn step_value(self, step: u32) -> f64 {
        2f64.powi(self.log2_of_least().saturating_add_unsigned(step))
    }
}

/// The cells of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    format: FloatFormat,
    step: u32,
    /// Magnitudes below lie in the cell of zero.
    least: u64,
    /// Magnitudes from here on are kept exactly.
    limit: u64,
    /// Where in the cells next to that of zero, and in all others, their elements are put, in 1/256 of the cell.
    centers: [u8; 2],
}

impl Grid {
    /// The cells of a step of 2^`step` smallest numbers; `None` beyond the largest.
    #[must_use]
    pub fn new(format: FloatFormat, step: u32, centers: [u8; 2]) -> Option<Self> {
        let limit = if format.mantissa_bits < MAX_CELLS_LOG2 - 1 {
            u32::MAX
        } else {
            step.saturating_add(MAX_CELLS_LOG2)
        };
        (step <= format.max_step()).then(|| Self {
            format,
            step,
            least: format.power(step),
            limit: format.power(limit),
            centers,
        })
    }

    /// The step's logarithm.
    #[must_use]
    pub fn step(&self) -> u32 {
        self.step
    }

    /// Low bits of a magnitude outside the cell of zero that its cell leaves open; never more than the significand has.
    #[inline(always)]
    fn open_bits(&self, magnitude: u64) -> u32 {
        let exponent = (magnitude >> self.format.mantissa_bits).max(1);
        let exponent = u32::try_from(exponent).unwrap_or(u32::MAX);
        let open_bits = (self.step + 1).saturating_sub(exponent).min(self.format.mantissa_bits);
        if magnitude < self.limit { open_bits } else { 0 }
    }

    /// The cell of a magnitude below the limit, counted from that of zero.
    #[inline(always)]
    fn cell(&self, magnitude: u64) -> u64 {
        let m = self.format.mantissa_bits;
        if magnitude < self.least {
            return 0;
        }
        match self.open_bits(magnitude) {
            0 => (1 << m) + magnitude - self.format.power(self.step + m),
            open_bits => {
                let exponent = magnitude >> m;
                let implicit = u64::from(exponent > 0) << m;
                (magnitude - (exponent << m) + implicit) >> open_bits
            }
        }
    }

    /// The first magnitude of the cell `cell`, and its open bits; `None` for one that does not exist.
    #[inline(always)]
    fn bounds(&self, cell: u32) -> Option<(u64, u32)> {
        let m = self.format.mantissa_bits;
        let octave = cell.checked_ilog2()?;
        let cell = u64::from(cell);
        let (magnitude, open_bits) = if octave >= m {
            (self.format.power(self.step + m) + (cell - (1 << m)), 0)
        } else if self.step + octave < m {
            (cell << self.step, self.step)
        } else {
            let open_bits = m - octave;
            // The significand's top bit adds the one that is taken from the exponent.
            ((u64::from(self.step + octave - m) << m) + (cell << open_bits), open_bits)
        };
        (magnitude < self.limit).then_some((magnitude, open_bits))
    }

    /// The magnitude that stands for the cell that begins at `magnitude`.
    #[inline(always)]
    fn center(&self, magnitude: u64, open_bits: u32) -> u64 {
        let [next_to_zero, others] = self.centers;
        let is_next = magnitude < self.format.power(self.step + 1);
        let center = if is_next { next_to_zero } else { others };
        magnitude.wrapping_add(u64::from(center) << open_bits >> 8)
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

/// Writes the index of each element: its cell with its sign, or [`ESCAPE`]. As many as the shorter slice holds.
pub fn indices(grid: &Grid, bytes: &[u8], indices: &mut [i32]) {
    by_width!(grid.format, indices_of, bytes, grid, indices);
}

fn indices_of<const N: usize>(elements: &[[u8; N]], grid: &Grid, indices: &mut [i32]) {
    let sign = grid.format.sign();
    for (element, index) in elements.iter().zip(indices) {
        let bits = read(element);
        let magnitude = bits & (sign - 1);
        *index = if magnitude < grid.limit {
            let cell = i32::try_from(grid.cell(magnitude)).unwrap_or(0);
            if bits & sign == 0 { cell } else { -cell }
        } else {
            ESCAPE
        };
    }
}

/// Writes the element that stands for each index, and leaves those of [`ESCAPE`] as they are. As many as the shorter
/// slice holds; `None` for an index without a cell.
#[must_use]
pub fn values(grid: &Grid, indices: &[i32], bytes: &mut [u8]) -> Option<()> {
    by_width_mut!(grid.format, values_of, bytes, grid, indices)
}

fn values_of<const N: usize>(elements: &mut [[u8; N]], grid: &Grid, indices: &[i32]) -> Option<()> {
    let sign_bit = grid.format.sign_bit();
    let mut all_exist = true;
    for (element, &index) in elements.iter_mut().zip(indices) {
        match index {
            0 => *element = [0; N],
            ESCAPE => {}
            _ => {
                let found = grid.bounds(index.unsigned_abs()).filter(|_| index.unsigned_abs() < MAX_CELLS);
                all_exist &= found.is_some();
                let (magnitude, open_bits) = found.unwrap_or_default();
                let bits = grid.center(magnitude, open_bits) | u64::from(index < 0) << sign_bit;
                write(bits, element);
            }
        }
    }
    all_exist.then_some(())
}

/// Where in its cell an element is, summed over elements: in the cells next to that of zero, and in all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offsets {
    /// Sums of 256 times the part of the cell that lies below.
    sums: [u64; 2],
    counts: [u64; 2],
}

impl Offsets {
    /// Adds those of the elements of `bytes` in cells of more than one number.
    pub fn measure(&mut self, grid: &Grid, bytes: &[u8]) {
        by_width!(grid.format, add_offsets, bytes, grid, self);
    }

    /// The means, in 1/256 of a cell; the middle where there are no elements.
    #[must_use]
    pub fn centers(&self) -> [u8; 2] {
        let mean = |place: usize| {
            // Half of 1/256 is what the part below it has on average; rounded.
            let sum = self.sums[place] + self.counts[place] / 2;
            let mean = (sum + self.counts[place] / 2).checked_div(self.counts[place]).unwrap_or(128);
            u8::try_from(mean).unwrap_or(u8::MAX)
        };
        [mean(0), mean(1)]
    }
}

fn add_offsets<const N: usize>(elements: &[[u8; N]], grid: &Grid, offsets: &mut Offsets) {
    let sign = grid.format.sign();
    let second = grid.format.power(grid.step + 1);
    for element in elements {
        let magnitude = read(element) & (sign - 1);
        let open_bits = grid.open_bits(magnitude);
        if magnitude < grid.least || magnitude >= grid.limit || open_bits == 0 {
            continue;
        }
        let below = magnitude & ((1 << open_bits) - 1);
        let place = usize::from(magnitude >= second);
        offsets.sums[place] += (below << 8) >> open_bits;
        offsets.counts[place] += 1;
    }
}

/// How many elements are zero, of either sign, and how many are not finite.
#[must_use]
pub fn count_kept(format: FloatFormat, bytes: &[u8]) -> (u64, u64) {
    by_width!(format, count_kept_of, bytes, format)
}

fn count_kept_of<const N: usize>(elements: &[[u8; N]], format: FloatFormat) -> (u64, u64) {
    let sign = format.sign();
    elements.iter().fold((0, 0), |(zeros, specials), element| {
        let magnitude = read(element) & (sign - 1);
        (zeros + u64::from(magnitude == 0), specials + u64::from(magnitude >= format.infinity()))
    })
}

/// How many elements have each exponent field; all that are not finite are in the last. `counts` has a place for each
/// exponent of the format, 2^(bits of it).
pub fn count_exponents(format: FloatFormat, bytes: &[u8], counts: &mut [u32]) {
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

/// The step from one grid to a finer one, or to the elements themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refinement {
    /// The coarser grid.
    pub before: Grid,
    /// The finer grid, of a step that is not larger; `None` for the elements themselves.
    pub after: Option<Grid>,
    /// Lowest bits of elements that are 0 in all that lie outside the cell of zero, at most 63.
    pub zero_bits: u32,
}

impl Refinement {
    /// Open bits of the element before, and the lowest bit that is not open after.
    #[inline(always)]
    fn bits(&self, magnitude: u64) -> (u32, u32) {
        let after = self.after.map_or(0, |grid| grid.open_bits(magnitude));
        (self.before.open_bits(magnitude), after)
    }

    #[inline(always)]
    fn width(&self, magnitude: u64) -> u8 {
        let (before, after) = self.bits(magnitude);
        let width = before.saturating_sub(after.max(self.zero_bits));
        if magnitude < self.before.least { IN_ZERO } else { width.to_le_bytes()[0] }
    }

    /// Writes how many bits are to be added to each element, or [`IN_ZERO`]. `bytes` may hold elements as they were
    /// before or as they are at last: it is the same for both. As many as the shorter slice holds.
    pub fn widths(&self, bytes: &[u8], widths: &mut [u8]) {
        by_width!(self.before.format, widths_of, bytes, self, widths);
    }

    /// Writes the bits that are to be added to each element of `bytes`, the original, and how many they are.
    pub fn rests(&self, bytes: &[u8], widths: &mut [u8], rests: &mut [u64]) {
        by_width!(self.before.format, rests_of, bytes, self, widths, rests);
    }

    /// Adds its bits to each element outside the cell of zero.
    pub fn place(&self, rests: &[u64], bytes: &mut [u8]) {
        by_width_mut!(self.before.format, place_in, bytes, self, rests);
    }
}

fn widths_of<const N: usize>(elements: &[[u8; N]], refinement: &Refinement, widths: &mut [u8]) {
    let sign = refinement.before.format.sign();
    for (element, width) in elements.iter().zip(widths) {
        *width = refinement.width(read(element) & (sign - 1));
    }
}

fn rests_of<const N: usize>(
    elements: &[[u8; N]],
    refinement: &Refinement,
    widths: &mut [u8],
    rests: &mut [u64],
) {
    let sign = refinement.before.format.sign();
    for ((element, width), rest) in elements.iter().zip(widths).zip(rests) {
        let magnitude = read(element) & (sign - 1);
        *width = refinement.width(magnitude);
        let (before, after) = refinement.bits(magnitude);
        let low = magnitude & ((1 << before) - 1);
        *rest = low >> after.max(refinement.zero_bits);
    }
}

fn place_in<const N: usize>(elements: &mut [[u8; N]], refinement: &Refinement, rests: &[u64]) {
    let sign = refinement.before.format.sign();
    for (element, &rest) in elements.iter_mut().zip(rests) {
        let bits = read(element);
        let magnitude = bits & (sign - 1);
        let (before, after) = refinement.bits(magnitude);
        if magnitude < refinement.before.least || before == 0 {
            continue;
        }
        let start = magnitude >> before << before | rest << after.max(refinement.zero_bits);
        let placed = match &refinement.after {
            Some(grid) if after > 0 => grid.center(start, after),
            _ => start,
        };
        write(bits & sign | placed & (sign - 1), element);
    }
}

/// The lowest bits that are 0 in all elements outside the cell of zero of `grid`, those that are kept exactly left out;
/// at most the bits of the significand.
#[must_use]
pub fn zero_bits(grid: &Grid, bytes: &[u8]) -> u32 {
    let any = by_width!(grid.format, any_bits, bytes, grid);
    any.trailing_zeros().min(grid.format.mantissa_bits)
}

fn any_bits<const N: usize>(elements: &[[u8; N]], grid: &Grid) -> u64 {
    let sign = grid.format.sign();
    elements.iter().fold(0, |any, element| {
        let magnitude = read(element) & (sign - 1);
        if (grid.least..grid.limit).contains(&magnitude) { any | magnitude } else { any }
    })
}

#[cfg(test)]
mod tests;
