//! Coding 15, rank one: a matrix whose elements are near to a row's factor times a column's. FORMAT.md section 3.15.
//!
//! The second moments of Adam and its kin are means of squared gradients, which are products of what comes in and what goes
//! out: a factor for each column and one for each row tell most of their exponents (N. Shazeer and M. Stern, "Adafactor",
//! 2018, keeps nothing else of them). Factors are powers of two in quarters of an octave. An element's bits without its
//! sign, taken as a number, are nearly its logarithm, so that dividing is a subtraction of such numbers, exact and without
//! rounding.

use std::ops::Range;

use super::float_bits::{FloatBits, elements, word};
use super::payload::{corrupt, le32, scratch};
use super::{repeats, sample};
use crate::bits::ByteCursor;
use crate::dtype::Dtype;
use crate::entropy::freq::entropy_q16;
use crate::error::Result;

pub(super) const HEADER_BYTES: usize = 16;
/// Least rows and columns of a matrix.
const LEAST_LEN: usize = 8;
/// Steps of a factor in an octave, as a logarithm.
const STEPS_LOG2: u32 = 2;
/// Bits an element that are worth the work.
const LEAST_GAIN_Q16: u64 = 1 << 13;

/// A block's elements as a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Matrix {
    row_len: usize,
    /// Elements of the first row that are before the block.
    row_start: usize,
    n_rows: usize,
}

impl Matrix {
    fn new(row_len: usize, row_start: usize, n_elements: usize) -> Option<Self> {
        (row_start < row_len).then_some(())?;
        Some(Self { row_len, row_start, n_rows: n_elements.checked_add(row_start)?.div_ceil(row_len) })
    }

    /// The first column of each row, and where its elements are among `n_bytes`.
    fn rows(self, element_bytes: usize, n_bytes: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        (0..self.n_rows).map(move |row| {
            let first = if row == 0 { self.row_start } else { 0 };
            let start = element_bytes * (row * self.row_len + first - self.row_start);
            let end = element_bytes * ((row + 1) * self.row_len - self.row_start);
            (first, start..end.min(n_bytes))
        })
    }
}

/// Scratch memory of the encoder.
#[derive(Debug, Default)]
pub(super) struct RankOneEncoder {
    /// Of columns, then of rows.
    factors: Vec<u16>,
    /// Sums of columns, then their factors.
    columns: Vec<i32>,
    factor_bytes: Vec<u8>,
    rest: Vec<u8>,
}

/// A matrix that has been divided by its factors.
pub(super) struct Divided<'a> {
    /// The factors as elements of [`Dtype::U16`].
    pub(super) factors: &'a [u8],
    /// What is left, elements of the block's type.
    pub(super) rest: &'a [u8],
    /// Whether the block is surely shorter so than it is as it was.
    pub(super) is_sure: bool,
    matrix: Matrix,
}

impl RankOneEncoder {
    /// Divides `bytes`, elements of `dtype` in rows of `row_len`, of the first of which `row_start` are before the block.
    /// `None` where they are no matrix, differ in sign, as samples say, or would not take fewer bits.
    pub(super) fn divide(
        &mut self,
        dtype: Dtype,
        bytes: &[u8],
        row_len: usize,
        row_start: usize,
    ) -> Option<Divided<'_>> {
        let format = FloatBits::of(dtype)?;
        let n_elements = bytes.len() / dtype.unit_bytes();
        let matrix = Matrix::new(row_len, row_start, n_elements)?;
        (row_len >= LEAST_LEN && matrix.n_rows > LEAST_LEN).then_some(())?;
        match dtype.unit_bytes() {
            2 => self.divide_by::<2>(format, matrix, bytes),
            _ => self.divide_by::<4>(format, matrix, bytes),
        }
    }

    fn divide_by<const N: usize>(
        &mut self,
        format: FloatBits,
        matrix: Matrix,
        bytes: &[u8],
    ) -> Option<Divided<'_>> {
        if !have_one_sign::<N>(format, bytes) {
            return None;
        }
        let shift = format.mantissa_bits - STEPS_LOG2;
        let magnitude_mask = (1 << (format.element_bits - 1)) - 1;
        // Below 2^10; of all rows of a block the sum is below 2^31.
        let log = |element: u32| ((element & magnitude_mask) >> shift).cast_signed();
        let rows = || matrix.rows(N, bytes.len()).map(|(first, range)| (first, &bytes[range]));
        let columns = scratch(&mut self.columns, matrix.row_len);
        columns.fill(0);
        for (first, row) in rows() {
            columns[first..]
                .iter_mut()
                .zip(elements::<N>(row))
                .for_each(|(sum, element)| *sum += log(element));
        }
        let n_behind = matrix.n_rows * matrix.row_len - matrix.row_start - bytes.len() / N;
        self.factors.clear();
        for (column, sum) in columns.iter_mut().enumerate() {
            let is_behind = n_behind >= matrix.row_len - column;
            let n_missing = usize::from(column < matrix.row_start) + usize::from(is_behind);
            let factor = rounded_mean(i64::from(*sum), matrix.n_rows - n_missing);
            self.factors.push(factor);
            *sum = i32::from(factor);
        }
        // What is left lies around the middle of all exponents.
        let middle = 1 << (format.element_bits - 2 - shift);
        for (first, row) in rows() {
            let differences = elements::<N>(row).zip(&columns[first..]);
            let sum: i32 = differences.map(|(element, column)| log(element) - column - middle).sum();
            self.factors.push(rounded_mean(i64::from(sum), row.len() / N));
        }
        self.rest.clear();
        self.rest.extend_from_slice(bytes);
        change::<N, false>(format, matrix, &self.factors, &mut self.rest);
        let before_q16 = exponent_bits_q16::<N>(format, bytes);
        let gain_q16 = before_q16.saturating_sub(exponent_bits_q16::<N>(format, &self.rest));
        if gain_q16 < LEAST_GAIN_Q16 {
            return None;
        }
        self.factor_bytes.clear();
        self.factor_bytes.extend(self.factors.iter().flat_map(|factor| factor.to_le_bytes()));
        // More than twice what the factors take as they are, and nothing that a general compressor would find.
        let gain = (gain_q16 * (bytes.len() / N) as u64) >> 16;
        let is_sure = gain > 16 * self.factor_bytes.len() as u64 && !repeats::are_common(N, bytes);
        Some(Divided { factors: &self.factor_bytes, rest: &self.rest, is_sure, matrix })
    }
}

impl Divided<'_> {
    /// Writes the header at `start` of `dst`, behind which the payload of the factors ends at `factors_end`.
    pub(super) fn set_header(&self, dst: &mut [u8], start: usize, factors_end: usize, codings: [u8; 2]) {
        let factors_len = le32(factors_end - start - HEADER_BYTES);
        if let Some(header) = dst.get_mut(start..start + HEADER_BYTES) {
            header[..4].copy_from_slice(&le32(self.matrix.row_len));
            header[4..8].copy_from_slice(&le32(self.matrix.row_start));
            header[8..12].copy_from_slice(&[codings[0], codings[1], 0, 0]);
            header[12..].copy_from_slice(&factors_len);
        }
    }
}

/// The mean of `n` numbers of this sum, rounded, as a factor: its low 16 bits.
fn rounded_mean(sum: i64, n: usize) -> u16 {
    let n = n.max(1) as i64;
    let [low, high, ..] = (2 * sum + n).div_euclid(2 * n).to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Whether a sample has elements of one sign.
fn have_one_sign<const N: usize>(format: FloatBits, bytes: &[u8]) -> bool {
    let (any, all) = sample::runs(bytes, N)
        .flat_map(elements::<N>)
        .fold((0, u32::MAX), |(any, all), element| (any | element, all & element));
    (any ^ all) >> (format.element_bits - 1) & 1 == 0
}

/// Order-0 entropy of the exponents of a sample.
fn exponent_bits_q16<const N: usize>(format: FloatBits, bytes: &[u8]) -> u64 {
    let mut counts = [0; 256];
    let sampled = sample::runs(bytes, N).flat_map(elements::<N>);
    sampled.for_each(|element| counts[format.exponent(element)] += 1);
    entropy_q16(&counts)
}

/// Adds to the magnitude of each element the logarithms of its factors, or, if not `ADD`, subtracts them.
fn change<const N: usize, const ADD: bool>(
    format: FloatBits,
    matrix: Matrix,
    factors: &[u16],
    bytes: &mut [u8],
) {
    let shift = format.mantissa_bits - STEPS_LOG2;
    let magnitude_mask = (1 << (format.element_bits - 1)) - 1;
    let (columns, rows) = factors.split_at(matrix.row_len.min(factors.len()));
    for ((first, range), row) in matrix.rows(N, bytes.len()).zip(rows) {
        let elements = bytes[range].as_chunks_mut::<N>().0.iter_mut();
        for (element, column) in elements.zip(&columns[first..]) {
            let factor = u32::from(row.wrapping_add(*column)) << shift;
            let bits = word(*element);
            let changed = if ADD { bits.wrapping_add(factor) } else { bits.wrapping_sub(factor) };
            let changed = bits & !magnitude_mask | changed & magnitude_mask;
            element.copy_from_slice(&changed.to_le_bytes()[..N]);
        }
    }
}

/// A payload, taken apart.
pub(super) struct RankOne<'a> {
    format: FloatBits,
    matrix: Matrix,
    /// The codings of the factors and of the rest, and their payloads.
    pub(super) factors: (u8, &'a [u8]),
    pub(super) rest: (u8, &'a [u8]),
}

impl<'a> RankOne<'a> {
    /// Takes apart the payload of a block of `n_bytes`.
    pub(super) fn open(dtype: Dtype, payload: &'a [u8], n_bytes: usize) -> Result<Self> {
        Self::try_open(dtype, payload, n_bytes)
            .ok_or_else(|| corrupt("the matrix of rank one breaks the format"))
    }

    fn try_open(dtype: Dtype, payload: &'a [u8], n_bytes: usize) -> Option<Self> {
        let format = FloatBits::of(dtype)?;
        let n_elements = n_bytes / dtype.unit_bytes();
        let mut src = ByteCursor::new(payload);
        let [row_len, row_start] = [src.u32()?, src.u32()?];
        let [factors_coding, rest_coding, 0, 0] = src.array::<4>()? else { return None };
        let factors_len = usize::try_from(src.u32()?).ok()?;
        let row_len = usize::try_from(row_len).ok().filter(|&row_len| row_len <= n_elements)?;
        let matrix = Matrix::new(row_len, usize::try_from(row_start).ok()?, n_elements)?;
        let factors = src.take(factors_len)?;
        Some(Self { format, matrix, factors: (factors_coding, factors), rest: (rest_coding, src.rest()) })
    }

    /// Bytes of all factors: no more than those of as many elements, and twice that for rows of one.
    pub(super) fn factor_bytes(&self) -> usize {
        size_of::<u16>() * (self.matrix.row_len + self.matrix.n_rows)
    }

    /// Multiplies the elements of `bytes`, the rest, by the factors.
    pub(super) fn multiply(&self, factor_bytes: &[u8], bytes: &mut [u8]) {
        let factors: Vec<u16> =
            factor_bytes.as_chunks().0.iter().map(|&factor| u16::from_le_bytes(factor)).collect();
        match self.format.element_bits {
            16 => change::<2, true>(self.format, self.matrix, &factors, bytes),
            _ => change::<4, true>(self.format, self.matrix, &factors, bytes),
        }
    }
}
