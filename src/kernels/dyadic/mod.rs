//! Floats in cells whose bounds are dyadic: what a coarse layer keeps of them, and what a finer one adds.
//!
//! A [`Grid`] has a step of 2^*t* times the smallest subnormal number of the type. An element of magnitude below one
//! step lies in the cell of zero, which is two steps wide; any other in a cell of one step, or of one number where
//! numbers lie further apart. Within a binade all cells are equally long, so that everything is told by an element's
//! bits: a cell is what is left of the magnitude without its low *d* bits, *d* depending on the exponent alone. A
//! step of half the size halves every cell: the finer layer is a refinement of the coarser.
//!
//! All results are of integer arithmetic, so that there is nothing that an instruction set could do differently; the
//! loops are plain, without branches, and widened by the features that they are compiled with.

mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::dtype::Dtype;
use crate::kernels::Isa;

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
    /// Magnitudes below lie in that cell or the one next to it.
    second: u64,
    /// Magnitudes from here on are alone in their cells.
    dense: u64,
    /// Magnitudes from here on are kept exactly.
    limit: u64,
    /// Where in the cells next to that of zero, and in all others, their elements are put, in 1/256 of the cell.
    centers: [u8; 2],
}

impl Grid {
    /// The cells of a step of 2^`step` smallest numbers; `None` beyond the largest.
    #[must_use]
    pub fn new(format: FloatFormat, step: u32, centers: [u8; 2]) -> Option<Self> {
        let has_all_cells = format.mantissa_bits < MAX_CELLS_LOG2 - 1;
        let limit = if has_all_cells { u32::MAX } else { step.saturating_add(MAX_CELLS_LOG2) };
        (step <= format.max_step()).then(|| Self {
            format,
            step,
            least: format.power(step),
            second: format.power(step + 1),
            dense: format.power(step + format.mantissa_bits),
            limit: format.power(limit),
            centers,
        })
    }

    /// The step's logarithm.
    #[must_use]
    pub fn step(&self) -> u32 {
        self.step
    }
}

/// Calls a loop by the instruction set.
macro_rules! on_isa {
    ($isa:expr, $function:ident($($argument:expr),*)) => {
        match $isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if $isa.available() => {
                // SAFETY: `available` has just tested every feature that the function enables.
                unsafe { x86::avx512::$function($($argument),*) }
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if $isa.available() => {
                // SAFETY: as above.
                unsafe { x86::avx2::$function($($argument),*) }
            }
            _ => scalar::$function($($argument),*),
        }
    };
}

/// Writes the index of each element: its cell with its sign, or [`ESCAPE`]. As many as the shorter slice holds.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn indices(isa: Isa, grid: &Grid, bytes: &[u8], indices: &mut [i32]) {
    on_isa!(isa, indices(grid, bytes, indices));
}

/// Writes the element that stands for each index, and leaves those of [`ESCAPE`] as they are. As many as the shorter
/// slice holds; `None` for an index without a cell.
#[must_use]
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn values(isa: Isa, grid: &Grid, indices: &[i32], bytes: &mut [u8]) -> Option<()> {
    let all_exist = on_isa!(isa, values(grid, indices, bytes));
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
    #[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
    pub fn measure(&mut self, isa: Isa, grid: &Grid, bytes: &[u8]) {
        let found = on_isa!(isa, offsets(grid, bytes));
        for place in 0..2 {
            self.sums[place] += found.sums[place];
            self.counts[place] += found.counts[place];
        }
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

/// How many elements are zero, of either sign, and how many are not finite.
#[must_use]
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn count_kept(isa: Isa, format: FloatFormat, bytes: &[u8]) -> (u64, u64) {
    on_isa!(isa, count_kept(format, bytes))
}

/// How many elements have each exponent field; all that are not finite are in the last. `counts` has a place for each
/// exponent of the format, 2^(bits of it).
pub fn count_exponents(format: FloatFormat, bytes: &[u8], counts: &mut [u32]) {
    scalar::count_exponents(format, bytes, counts);
}

/// The lowest bits that are 0 in all elements outside the cell of zero of `grid`, those that are kept exactly left out;
/// at most the bits of the significand.
#[must_use]
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn zero_bits(isa: Isa, grid: &Grid, bytes: &[u8]) -> u32 {
    let any = on_isa!(isa, any_bits(grid, bytes));
    any.trailing_zeros().min(grid.format.mantissa_bits)
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
    /// The finer grid; for the elements themselves one on which all are alone.
    fn finer(&self) -> Grid {
        self.after.unwrap_or(Grid { limit: 0, ..self.before })
    }

    /// Writes how many bits are to be added to each element, or [`IN_ZERO`]. `bytes` may hold elements as they were
    /// before or as they are at last: it is the same for both. As many as the shorter slice holds.
    #[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
    pub fn widths(&self, isa: Isa, bytes: &[u8], widths: &mut [u8]) {
        on_isa!(isa, widths(self, bytes, widths));
    }

    /// Writes the bits that are to be added to each element of `bytes`, the original; how many they are is what
    /// [`Self::widths`] says. Those of elements in the cell of zero mean nothing.
    #[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
    pub fn rests(&self, isa: Isa, bytes: &[u8], rests: &mut [u64]) {
        on_isa!(isa, rests(self, bytes, rests));
    }

    /// Adds its bits to each element outside the cell of zero.
    #[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
    pub fn place(&self, isa: Isa, rests: &[u64], bytes: &mut [u8]) {
        on_isa!(isa, place(self, rests, bytes));
    }
}
