//! Finds the classes of [`super::columns`] of a block: how far its columns, and segments beside their columns, differ in
//! scale.

use super::super::freq::log2_fast_q16;
use super::MIN_SEGMENT_LOG2;
use super::columns::Columns;
use super::plan::{choose_segment_log2, geometric_cost_q16};
use crate::kernels::Isa;
use crate::kernels::index_split::distance_sum;

/// Finest class: a quarter of an octave, within which a table fits well.
const FINEST_Q16: u32 = 1 << 14;
/// Classes that the sums of two are to span: each gets counts of its own.
const MAX_SPAN: u32 = 32;
/// Scales this many octaves below the largest are not told apart: there is nothing left but zeros.
const MAX_OCTAVES: u32 = 8;
/// What the code of a column's class takes in bits.
const COLUMN_BITS: u64 = 4;
/// Bits that a scale of its own seems to save a column that has none.
const FITTED_BITS: u64 = 1;
/// Symbols, at least, whose scale is made even when columns are looked at.
const GLANCE_RUN_LEN: usize = 64;
/// Bits behind the point of the weight that makes it so, and the largest weight.
const WEIGHT_BITS: u32 = 8;
const MAX_WEIGHT: u32 = 64 << WEIGHT_BITS;
/// A choice for each index, which is slower to decode than one for each segment, has to save one bit in this many.
pub(super) const LEAST_SAVING: u64 = 200;
/// Columns are tried if, by their scales alone, they save one bit in this many: where magnitudes vary less than a geometric
/// distribution has it, as squared gradients do, they save several times as much.
const LEAST_PROMISE: u64 = 512;
/// Symbols that are looked at to see whether columns matter.
const GLANCE_LEN: usize = 1 << 16;
/// Rows, at least, that a column's scale is taken of.
const MIN_ROWS: usize = 16;

/// Scratch memory of the search.
#[derive(Debug, Default)]
pub(super) struct ColumnScales {
    sums: Vec<u64>,
    /// Sum of the scales of the columns before each one, and of all.
    before: Vec<u64>,
    segment_sums: Vec<u64>,
}

impl ColumnScales {
    /// The length of rows, of `row_lens`, whose columns differ most in scale; `None` where that would not save enough.
    pub(super) fn best_period(&mut self, isa: Isa, symbols: &[u8], row_lens: &[usize]) -> Option<usize> {
        let mut best = None;
        for &row_len in row_lens {
            if row_len < 2 || symbols.len() / row_len < MIN_ROWS {
                continue;
            }
            // Rows from all over the block, short ones several at a time: they tell their own scale then.
            let run_len = row_len * GLANCE_RUN_LEN.div_ceil(row_len);
            let n_runs = symbols.len() / run_len;
            let one_in = (symbols.len() / GLANCE_LEN).clamp(1, (n_runs / MIN_ROWS).max(1));
            let runs = symbols.chunks_exact(run_len).step_by(one_in);
            let n_seen = (runs.len() * (run_len / row_len)) as u64;
            let total = self.sum_even_columns(isa, runs, row_len);
            let apart: u64 = self.sums.iter().map(|&sum| geometric_cost_q16(n_seen, sum)).sum();
            let together = geometric_cost_q16(n_seen * row_len as u64, total);
            let told = (COLUMN_BITS * row_len as u64) << 16;
            let saved =
                together.saturating_sub(apart + ((FITTED_BITS * row_len as u64) << 16)) * one_in as u64;
            let needed = told + together * one_in as u64 / LEAST_PROMISE;
            if saved > needed && best.is_none_or(|(most, _)| saved > most) {
                best = Some((saved, row_len));
            }
        }
        best.map(|(_, row_len)| row_len)
    }

    /// Sums the magnitudes of each column of `row_len` over `runs`, which are made of rows, as if all runs had the same
    /// scale; and all together.
    fn sum_even_columns<'s>(
        &mut self,
        isa: Isa,
        runs: impl Iterator<Item = &'s [u8]> + Clone,
        row_len: usize,
    ) -> u64 {
        let run_sums: Vec<u64> = runs.clone().map(|run| distance_sum(isa, run)).collect();
        let mean = run_sums.iter().sum::<u64>() / (run_sums.len() as u64).max(1);
        self.sums.clear();
        self.sums.resize(row_len, 0);
        for (run, sum) in runs.zip(run_sums) {
            let weight =
                u32::try_from((mean << WEIGHT_BITS) / sum.max(1)).unwrap_or(u32::MAX).min(MAX_WEIGHT);
            for row in run.chunks_exact(row_len) {
                let magnitudes = row.iter().map(|symbol| u32::from(symbol.abs_diff(128)));
                self.sums
                    .iter_mut()
                    .zip(magnitudes)
                    .for_each(|(sum, magnitude)| *sum += u64::from(magnitude * weight));
            }
        }
        self.sums.iter_mut().for_each(|sum| *sum >>= WEIGHT_BITS);
        self.sums.iter().sum()
    }

    /// Sets `columns` for rows of `period`, and returns log2 of a segment's length.
    pub(super) fn fit(&mut self, isa: Isa, symbols: &[u8], period: usize, columns: &mut Columns) -> u32 {
        sum_columns(symbols.chunks(period), period, &mut self.sums);
        let (n_rows, n_left) = ((symbols.len() / period) as u64, symbols.len() % period);
        let scale = |(column, &sum): (usize, &u64)| {
            let n = n_rows + u64::from(column < n_left);
            q16(2 * sum + 1, 2 * n)
        };
        let scales: Vec<u32> = self.sums.iter().enumerate().map(scale).collect();
        self.before.clear();
        self.before.push(0);
        for &scale in &scales {
            self.before.push(self.before.last().unwrap_or(&0) + u64::from(scale));
        }
        self.segment_sums.clear();
        self.segment_sums
            .extend(symbols.chunks(1 << MIN_SEGMENT_LOG2).map(|segment| distance_sum(isa, segment)));
        let all = self.scale_sum(0, symbols.len());
        // Sums as they would be if all columns had the same scale.
        let even = |(idx, &sum): (usize, &u64)| {
            let start = idx << MIN_SEGMENT_LOG2;
            let len = (symbols.len() - start).min(1 << MIN_SEGMENT_LOG2);
            let own = self.scale_sum(start, len);
            u64::try_from(
                u128::from(sum * len as u64) * u128::from(all)
                    / (u128::from(own.max(1)) * symbols.len() as u128),
            )
            .unwrap_or(u64::MAX)
            // What a mean magnitude can be.
            .min(127 << MIN_SEGMENT_LOG2)
        };
        let even: Vec<u64> = self.segment_sums.iter().enumerate().map(even).collect();
        let segment_log2 = choose_segment_log2(symbols.len(), |segments| even[segments].to_vec());
        let relative = |(idx, sums): (usize, &[u64])| {
            let start = idx << segment_log2;
            let len = (symbols.len() - start).min(1 << segment_log2);
            let sum: u64 = sums.iter().sum();
            // Scales are in 1/65536.
            q16((2 * sum + 1) << 16, 2 * self.scale_sum(start, len))
        };
        let pieces = self.segment_sums.chunks(1 << (segment_log2 - MIN_SEGMENT_LOG2));
        let relative: Vec<u32> = pieces.enumerate().map(relative).collect();
        let (scales, relative) = (Logs::of(&scales), Logs::of(&relative));
        let unit = ((scales.span() + relative.span()) / MAX_SPAN).max(FINEST_Q16);
        columns.set(&scales.classes(unit), &relative.classes(unit));
        segment_log2
    }

    /// Sum of the scales of the columns of `len` indices from `start` on.
    fn scale_sum(&self, start: usize, len: usize) -> u64 {
        let period = self.before.len() - 1;
        let up_to = |end: usize| self.before[period] * (end / period) as u64 + self.before[end % period];
        up_to(start + len) - up_to(start)
    }
}

/// The quotient in 1/65536; at least 1.
fn q16(dividend: u64, divisor: u64) -> u32 {
    let quotient = (u128::from(dividend) << 16) / u128::from(divisor.max(1));
    u32::try_from(quotient).unwrap_or(u32::MAX).max(1)
}

/// Logarithms of scales in 1/65536, none far below the largest.
struct Logs(Vec<u32>);

impl Logs {
    fn of(scales: &[u32]) -> Self {
        let mut logs: Vec<u32> = scales.iter().map(|&scale| log2_fast_q16(scale)).collect();
        let least = logs.iter().max().map_or(0, |max| max.saturating_sub(MAX_OCTAVES << 16));
        logs.iter_mut().for_each(|log| *log = (*log).max(least));
        Self(logs)
    }

    fn least(&self) -> u32 {
        self.0.iter().copied().min().unwrap_or(0)
    }

    fn span(&self) -> u32 {
        self.0.iter().max().map_or(0, |max| max - self.least())
    }

    /// The classes from the least one, which is 0, on, in steps of `unit`.
    fn classes(&self, unit: u32) -> Vec<u8> {
        let least = self.least();
        self.0.iter().map(|log| ((log - least + unit / 2) / unit).to_le_bytes()[0]).collect()
    }
}

/// Sums of the magnitudes that symbols stand for, by column of `rows`, none of which is longer than `row_len`.
fn sum_columns<'s>(rows: impl Iterator<Item = &'s [u8]>, row_len: usize, sums: &mut Vec<u64>) {
    /// So many magnitudes of at most 128 fit 16 bits.
    const MOST: u32 = 511;
    sums.clear();
    sums.resize(row_len, 0);
    let mut narrow = vec![0u16; row_len];
    let mut n_rows = 0;
    let mut widen = |narrow: &mut [u16]| {
        sums.iter_mut().zip(&mut *narrow).for_each(|(sum, narrow)| *sum += u64::from(*narrow));
        narrow.fill(0);
    };
    for row in rows {
        narrow.iter_mut().zip(row).for_each(|(sum, symbol)| *sum += u16::from(symbol.abs_diff(128)));
        n_rows += 1;
        if n_rows == MOST {
            widen(&mut narrow);
            n_rows = 0;
        }
    }
    widen(&mut narrow);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Symbols of a fixed generator, in column `c` of magnitudes up to `scale(c)`.
    fn symbols(n: usize, period: usize, scale: impl Fn(usize) -> u32) -> Vec<u8> {
        let mut x = 1u32;
        (0..n)
            .map(|idx| {
                x = x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                let span = 2 * scale(idx % period) + 1;
                u8::try_from(128 + (x >> 8) % span - span / 2).unwrap()
            })
            .collect()
    }

    #[test]
    fn columns_are_seen_where_they_differ_and_only_there() {
        let scale = |column: usize| if column.is_multiple_of(5) { 60 } else { 3 };
        let mut scales = ColumnScales::default();
        for n in [40_000, 1 << 20] {
            assert_eq!(
                scales.best_period(Isa::detect(), &symbols(n, 30, scale), &[64, 30, 900]),
                Some(30),
                "{n}"
            );
            assert_eq!(
                scales.best_period(Isa::detect(), &symbols(n, 30, |_| 9), &[64, 30, 900]),
                None,
                "{n}"
            );
        }
        assert_eq!(scales.best_period(Isa::detect(), &symbols(400, 30, scale), &[0, 1, 30]), None);
    }

    #[test]
    fn classes_follow_the_scales_of_columns_and_segments() {
        let mut columns = Columns::default();
        let made = symbols(1 << 17, 96, |column| if column < 48 { 2 } else { 40 });
        let mut loud = made.clone();
        loud[..1 << 16].iter_mut().for_each(|symbol| *symbol = 128 + (*symbol).abs_diff(128));
        loud[1 << 16..].iter_mut().for_each(|symbol| *symbol = 128 + symbol.abs_diff(128).div_ceil(2));
        let log2 = ColumnScales::default().fit(Isa::detect(), &loud, 96, &mut columns);
        let mut classes = [0; 192];
        columns.fill_classes(1 << log2, 0, &mut classes);
        let mut later = [0; 192];
        columns.fill_classes(1 << log2, 1 << 16, &mut later);
        assert!(classes[0] + 6 < classes[50], "{classes:?}");
        assert_eq!(classes[..96], classes[96..]);
        // The 64th column comes first there.
        assert!(classes[50] > later[50 + 96 - 64], "{later:?}");
    }
}
