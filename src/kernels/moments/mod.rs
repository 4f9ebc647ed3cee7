//! One pass over floats: count, zeros, extremes, mean, and the sums that variance, skewness and kurtosis come from.
//!
//! Elements are widened to f32 (F64 is rounded to it, as the quantizer does) and summed in f64. A run is cut into
//! blocks of [`BLOCK_LEN`]; in each, the powers of x − p are summed in eight lanes, where the pivot p is the block's
//! first finite element. Since p is one of the elements, Σ(x − p)² is at most n + 1 times the sum about the mean and
//! Σ(x − p)⁴ at most 8(n + 1) times, so that the shift to the mean loses at most 15 of 53 bits, however large the
//! mean is. Blocks are merged in order by the pairwise formulas of Chan, Golub and LeVeque (1983) as extended to
//! higher moments by Pébay (SAND2008-6212, 2008). Lanes, blocks and order are fixed and nothing is fused, so every
//! instruction set gives the same bits; a caller with threads measures runs and merges them in order.

mod scalar;
mod squares;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use squares::Squares;

use super::Isa;
use super::convert::for_each_block;
use super::prefetch::Spread;
use crate::dtype::Dtype;

/// Elements summed about one pivot.
pub const BLOCK_LEN: usize = 4096;
/// Running sums of each power.
const LANES: usize = 8;
/// Elements taken at a turn: one 512-bit register of them.
const CHUNK: usize = 2 * LANES;

/// What is known of a run of elements. Mean and sums are over the finite ones.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Moments {
    /// Finite elements.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
    /// Σ(x − mean)².
    pub m2: f64,
    /// Σ(x − mean)³.
    pub m3: f64,
    /// Σ(x − mean)⁴.
    pub m4: f64,
    /// Σ|x|.
    pub abs: f64,
    /// Elements equal to zero, −0.0 included.
    pub zeros: u64,
    /// NaN and infinities; of F64 also what rounds to an infinite f32.
    pub n_not_finite: u64,
    /// Smallest finite element, never −0.0; 0 where there is none.
    pub min: f64,
    /// Largest finite element, never −0.0; 0 where there is none.
    pub max: f64,
}

impl Moments {
    /// The moments of `bytes`, little-endian elements of `dtype`; `None` unless that is F32, F16, BF16 or F64 and the
    /// elements are whole. The same bits for every `isa`.
    #[must_use]
    pub fn measure(isa: Isa, dtype: Dtype, bytes: &[u8]) -> Option<Self> {
        let mut total = Self::default();
        for_each_block::<BLOCK_LEN>(isa, dtype, bytes, |values, _| total.merge(&block_moments(isa, values)))?;
        Some(total)
    }

    /// The moments of `values`; the same bits as [`Self::measure`] gives for their bytes.
    #[must_use]
    pub fn of_values(isa: Isa, values: &[f32]) -> Self {
        let mut total = Self::default();
        values.chunks(BLOCK_LEN).for_each(|block| total.merge(&block_moments(isa, block)));
        total
    }

    /// Takes in the elements of `next`, which follow. The result depends on the order, by rounding.
    pub fn merge(&mut self, next: &Self) {
        let n_not_finite = self.n_not_finite + next.n_not_finite;
        if next.n == 0 || self.n == 0 {
            *self = if next.n == 0 { *self } else { *next };
            self.n_not_finite = n_not_finite;
            return;
        }
        let n = self.n + next.n;
        // Shares of the elements instead of their numbers keep every factor within 1.
        let (a, b) = (self.n as f64 / n as f64, next.n as f64 / n as f64);
        let delta = next.mean - self.mean;
        let between = delta * delta * (self.n as f64) * b;
        *self = Self {
            n,
            mean: self.mean + delta * b,
            m2: self.m2 + next.m2 + between,
            m3: self.m3 + next.m3 + between * delta * (a - b) + 3.0 * delta * (a * next.m2 - b * self.m2),
            m4: self.m4
                + next.m4
                + between * delta * delta * (a * a - a * b + b * b)
                + 6.0 * delta * delta * (a * a * next.m2 + b * b * self.m2)
                + 4.0 * delta * (a * next.m3 - b * self.m3),
            abs: self.abs + next.abs,
            zeros: self.zeros + next.zeros,
            n_not_finite,
            min: self.min.min(next.min),
            max: self.max.max(next.max),
        };
    }

    /// Population variance; 0 of no elements.
    #[must_use]
    pub fn variance(&self) -> f64 {
        self.m2 / self.n.max(1) as f64
    }

    /// Standard deviation.
    #[must_use]
    pub fn std(&self) -> f64 {
        self.variance().sqrt()
    }

    /// Third standardised moment; 0 where all elements are equal.
    #[must_use]
    pub fn skewness(&self) -> f64 {
        if self.m2 > 0.0 { (self.m3 / self.m2) * (self.n as f64 / self.m2).sqrt() } else { 0.0 }
    }

    /// Fourth standardised moment, 3 of a Gaussian, at least 1; 1 where all elements are equal.
    #[must_use]
    pub fn kurtosis(&self) -> f64 {
        if self.m2 > 0.0 { ((self.m4 / self.m2) * (self.n as f64 / self.m2)).max(1.0) } else { 1.0 }
    }

    /// Zeros ÷ finite elements, −0.0 included; 0 of no elements.
    #[must_use]
    pub fn sparsity(&self) -> f64 {
        self.zeros as f64 / self.n.max(1) as f64
    }

    /// Mean of |x|; 0 of no elements.
    #[must_use]
    pub fn mean_abs(&self) -> f64 {
        self.abs / self.n.max(1) as f64
    }

    /// Largest magnitude.
    #[must_use]
    pub fn abs_max(&self) -> f64 {
        self.max.max(-self.min)
    }
}

/// Power sums of a block about its pivot.
struct Block {
    pivot: f64,
    powers: [f64; 4],
    abs: f64,
    zeros: usize,
    n_not_finite: usize,
    min: f32,
    max: f32,
}

impl Block {
    /// Shifts the sums of the block, of `len` elements, from the pivot to the mean.
    fn moments(&self, len: usize) -> Moments {
        let n = (len - self.n_not_finite) as u64;
        let [s1, s2, s3, s4] = self.powers;
        let shift = s1 / n.max(1) as f64;
        Moments {
            n,
            mean: self.pivot + shift,
            m2: (s2 - shift * s1).max(0.0),
            m3: s3 - shift * (3.0 * s2 - 2.0 * shift * s1),
            m4: (s4 - shift * (4.0 * s3 - shift * (6.0 * s2 - 3.0 * shift * s1))).max(0.0),
            abs: self.abs.max(0.0),
            zeros: self.zeros as u64,
            n_not_finite: self.n_not_finite as u64,
            // Which of two zeros a minimum takes differs between processors.
            min: f64::from(self.min) + 0.0,
            max: f64::from(self.max) + 0.0,
        }
    }
}

/// The moments of one block, at most [`BLOCK_LEN`] values.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
fn block_moments(isa: Isa, values: &[f32]) -> Moments {
    let Some(pivot) = values.iter().copied().find(|x| x.is_finite()) else {
        return Moments { n_not_finite: values.len() as u64, ..Moments::default() };
    };
    let block = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::block_avx512(pivot, values) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::block_avx2(pivot, values) }
        }
        _ => scalar::block(pivot, values),
    };
    block.moments(values.len())
}

/// The squares of one block, at most [`BLOCK_LEN`] values, while `ahead` is fetched.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
fn block_squares(isa: Isa, values: &[f32], ahead: &mut Spread<'_>) -> Squares {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::squares_avx512(values, ahead) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::squares_avx2(values, ahead) }
        }
        _ => squares::block(values, ahead),
    }
}

/// The last chunk of a block: what fills it is not finite, so that it counts for nothing else.
fn padded(tail: &[f32]) -> [f32; CHUNK] {
    let mut chunk = [f32::NAN; CHUNK];
    chunk[..tail.len()].copy_from_slice(tail);
    chunk
}

/// Elements that fill the last chunk of a block of `len`.
fn padding(len: usize) -> usize {
    len.next_multiple_of(CHUNK) - len
}

#[cfg(test)]
mod tests;
