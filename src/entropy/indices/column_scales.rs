//! Finds the classes of [`super::columns`] of a block: how far its columns, and segments beside their columns, differ in
//! scale. Where indices are logarithms, as of Adam's second moments, scales are not multiplied but added.

use super::super::freq::log2_fast_q16;
use super::MIN_SEGMENT_LOG2;
use super::columns::Columns;
use super::geometric::{geometric_cost_q16, geometric_costs_q16};
use super::plan::choose_segment_log2;
use crate::kernels::Isa;
use crate::kernels::index_split::{add_column_distances, distance_sum};

/// How the scales of a column and a segment give that of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Combination {
    /// As their product: magnitudes of either sign.
    Product,
    /// As their sum: indices all on one side of zero, whose magnitude is a logarithm.
    Sum,
}

/// Finest class: a quarter of an octave, within which a table fits well; of sums, half an index.
const FINEST_Q16: u32 = 1 << 14;
const FINEST_OF_SUMS_Q16: u32 = 1 << 15;
/// Added to what sums have beyond their columns, so that it is not negative: more than a magnitude.
const SUM_BIAS_Q16: u64 = 256 << 16;
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
const MAX_WEIGHT: u16 = 64 << WEIGHT_BITS;
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
    by_column: ColumnSums,
    /// Sum of the scales of the columns before each one, and of all.
    before: Vec<u64>,
}

impl ColumnScales {
    /// The length of rows, of `row_lens`, whose columns differ most in scale; `None` where that would not save enough.
    pub(super) fn best_period(
        &mut self,
        isa: Isa,
        symbols: &[u8],
        row_lens: &[usize],
        combination: Combination,
    ) -> Option<usize> {
        if combination == Combination::Sum && !is_one_sided(isa, symbols) {
            return None;
        }
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
            let (together, seen) = match combination {
                Combination::Product => {
                    let total = self.sum_even_columns(isa, runs, row_len);
                    let apart = geometric_costs_q16(isa, n_seen, &self.by_column.sums);
                    let together = geometric_cost_q16(n_seen * row_len as u64, total);
                    (together, together.saturating_sub(apart))
                }
                Combination::Sum => self.variance_saving_q16(isa, runs, row_len, n_seen),
            };
            let told = (COLUMN_BITS * row_len as u64) << 16;
            let saved = seen.saturating_sub((FITTED_BITS * row_len as u64) << 16) * one_in as u64;
            let needed = told + together * one_in as u64 / LEAST_PROMISE;
            let gained = saved.saturating_sub(told);
            // A multiple of a period is one as well, and seems better or worse by chance.
            if saved > needed && best.is_none_or(|(most, _)| gained > most + most / 16) {
                best = Some((gained, row_len));
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
        let weight =
            |sum: u64| u16::try_from((mean << WEIGHT_BITS) / sum.max(1)).unwrap_or(u16::MAX).min(MAX_WEIGHT);
        self.by_column.sum(isa, runs.zip(run_sums.into_iter().map(weight)), row_len);
        let sums = &mut self.by_column.sums;
        sums.iter_mut().for_each(|sum| *sum >>= WEIGHT_BITS);
        sums.iter().sum()
    }

    /// Bits of normally distributed magnitudes in `runs`, which are made of `n_rows` rows of `row_len`, and what the means of
    /// columns save of them; in 1/65536.
    fn variance_saving_q16<'s>(
        &mut self,
        isa: Isa,
        runs: impl Iterator<Item = &'s [u8]> + Clone,
        row_len: usize,
        n_rows: u64,
    ) -> (u64, u64) {
        let n = (n_rows * row_len as u64).max(1);
        self.by_column.sum(isa, runs.clone().map(|run| (run, 1)), row_len);
        let square = |x: u64| u128::from(x) * u128::from(x);
        let magnitude = |symbol: &u8| u32::from(symbol.abs_diff(128));
        // Squares of magnitudes, and those of the runs' means as often as there are magnitudes.
        let (mut all, mut of_runs) = (0, 0);
        for run in runs {
            for part in run.chunks(1 << 16) {
                // At most 2^30.
                let squares: u32 = part.iter().map(|symbol| magnitude(symbol) * magnitude(symbol)).sum();
                all += u128::from(squares);
            }
            of_runs += square(run.iter().map(|symbol| u64::from(magnitude(symbol))).sum())
                / run.len().max(1) as u128;
        }
        let of_columns =
            self.by_column.sums.iter().map(|&sum| square(sum)).sum::<u128>() / u128::from(n_rows.max(1));
        let between = of_columns.saturating_sub(square(self.by_column.sums.iter().sum()) / u128::from(n));
        let within = all.saturating_sub(of_runs);
        // Of a normal distribution the entropy is half the logarithm of its variance, and 2.05 bits.
        let cost = |squares: u128| {
            // Variance in 1/256.
            let variance = u32::try_from((squares << 8) / u128::from(n)).unwrap_or(u32::MAX).max(1);
            // 4 bits less: half the logarithm of 256.
            (u64::from(log2_fast_q16(variance)) / 2 + 134_000).saturating_sub(4 << 16) * n
        };
        let before = cost(within);
        (before, before.saturating_sub(cost(within.saturating_sub(between))))
    }

    /// Sets `columns` for rows of `period`, and returns log2 of a segment's length. `segment_sums` are those of the magnitudes
    /// of shortest segments.
    pub(super) fn fit(
        &mut self,
        isa: Isa,
        symbols: &[u8],
        segment_sums: &[u16],
        period: usize,
        combination: Combination,
        columns: &mut Columns,
    ) -> u32 {
        self.by_column.sum(isa, std::iter::once((symbols, 1)), period);
        let (n_rows, n_left) = ((symbols.len() / period) as u64, symbols.len() % period);
        let scale = |(column, &sum): (usize, &u64)| {
            let n = n_rows + u64::from(column < n_left);
            q16(2 * sum + 1, 2 * n)
        };
        let scales: Vec<u32> = self.by_column.sums.iter().enumerate().map(scale).collect();
        self.before.clear();
        self.before.push(0);
        for &scale in &scales {
            self.before.push(self.before.last().unwrap_or(&0) + u64::from(scale));
        }
        let all = self.scale_sum(0, symbols.len());
        // Sums as they would be if all columns had the same scale.
        let mean = all as f64 / symbols.len() as f64;
        let even = |idx: usize| {
            let start = idx << MIN_SEGMENT_LOG2;
            let len = (symbols.len() - start).min(1 << MIN_SEGMENT_LOG2);
            let own = self.scale_sum(start, len).max(1) as f64;
            let even = f64::from(segment_sums[idx]) * len as f64 * mean / own;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
            // What a mean magnitude can be.
            (even as u64).min(127 << MIN_SEGMENT_LOG2)
        };
        let segment_log2 =
            choose_segment_log2(isa, symbols.len(), |segments, sums| sums.extend(segments.map(even)));
        let relative = |(idx, sums): (usize, &[u16])| {
            let start = idx << segment_log2;
            let len = (symbols.len() - start).min(1 << segment_log2);
            let sum: u64 = sums.iter().map(|&sum| u64::from(sum)).sum();
            let scales = self.scale_sum(start, len);
            match combination {
                // Scales are in 1/65536.
                Combination::Product => q16((2 * sum + 1) << 16, 2 * scales),
                Combination::Sum => {
                    let beyond = (SUM_BIAS_Q16 * len as u64 + (sum << 16)).saturating_sub(scales);
                    u32::try_from(beyond / len.max(1) as u64).unwrap_or(u32::MAX)
                }
            }
        };
        let pieces = segment_sums.chunks(1 << (segment_log2 - MIN_SEGMENT_LOG2));
        let relative: Vec<u32> = pieces.enumerate().map(relative).collect();
        let (scales, relative, finest) = match combination {
            Combination::Product => (Terms::logs_of(&scales), Terms::logs_of(&relative), FINEST_Q16),
            Combination::Sum => (Terms(scales), Terms(relative), FINEST_OF_SUMS_Q16),
        };
        let unit = ((scales.span() + relative.span()) / MAX_SPAN).max(finest);
        columns.set(&scales.classes(unit), &relative.classes(unit));
        segment_log2
    }

    /// Sum of the scales of the columns of `len` indices from `start` on.
    fn scale_sum(&self, start: usize, len: usize) -> u64 {
        let period = self.before.len() - 1;
        let column = start % period;
        let end = column + len;
        // Segments are short, and seldom reach into another row.
        let (rows, end) = if end < period { (0, end) } else { (end / period, end % period) };
        self.before[period] * rows as u64 + self.before[end] - self.before[column]
    }
}

/// The quotient in 1/65536; at least 1.
fn q16(dividend: u64, divisor: u64) -> u32 {
    let divisor = divisor.max(1);
    let quotient = match dividend.checked_mul(1 << 16) {
        Some(dividend) => u32::try_from(dividend / divisor),
        None => u32::try_from((u128::from(dividend) << 16) / u128::from(divisor)),
    };
    quotient.unwrap_or(u32::MAX).max(1)
}

/// Whether nearly all symbols stand for indices on one side of zero.
fn is_one_sided(isa: Isa, symbols: &[u8]) -> bool {
    let one_in = (symbols.len() / GLANCE_LEN).max(1);
    let (mut sum, mut distance) = (0i64, 0u64);
    for run in symbols.chunks(GLANCE_RUN_LEN).step_by(one_in) {
        sum += run.iter().map(|&symbol| i64::from(symbol) - 128).sum::<i64>();
        distance += distance_sum(isa, run);
    }
    sum.unsigned_abs() * 20 > distance * 19
}

/// What is added up to a class, in 1/65536.
struct Terms(Vec<u32>);

impl Terms {
    /// Logarithms of scales, none far below the largest.
    fn logs_of(scales: &[u32]) -> Self {
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

/// Sums of the magnitudes that symbols stand for, by column.
#[derive(Debug, Default)]
struct ColumnSums {
    sums: Vec<u64>,
    wide: Vec<u64>,
    narrow: Vec<u16>,
}

impl ColumnSums {
    /// Columns, at least, that are summed side by side: short rows several at a time.
    const LEAST_WIDTH: usize = 64;

    /// Sums over runs, each with a weight of at most [`MAX_WEIGHT`]. A run begins with a row of `row_len`, its last row may be cut short.
    fn sum<'s>(&mut self, isa: Isa, runs: impl Iterator<Item = (&'s [u8], u16)>, row_len: usize) {
        let Self { sums, wide, narrow } = self;
        let width = row_len * Self::LEAST_WIDTH.div_ceil(row_len);
        wide.clear();
        wide.resize(width, 0);
        narrow.resize(width, 0);
        runs.for_each(|(run, weight)| add_column_distances(isa, run, weight, narrow, wide));
        sums.clear();
        sums.resize(row_len, 0);
        for row in wide.chunks(row_len) {
            sums.iter_mut().zip(row).for_each(|(sum, wide)| *sum += wide);
        }
    }
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

    fn segment_sums(symbols: &[u8]) -> Vec<u16> {
        let sum = |segment: &[u8]| u16::try_from(distance_sum(Isa::Scalar, segment)).unwrap();
        symbols.chunks(1 << MIN_SEGMENT_LOG2).map(sum).collect()
    }

    #[test]
    fn columns_are_seen_where_they_differ_and_only_there() {
        let scale = |column: usize| if column.is_multiple_of(5) { 60 } else { 3 };
        let mut scales = ColumnScales::default();
        for n in [40_000, 1 << 20] {
            assert_eq!(
                scales.best_period(
                    Isa::detect(),
                    &symbols(n, 30, scale),
                    &[64, 30, 900],
                    Combination::Product
                ),
                Some(30),
                "{n}"
            );
            assert_eq!(
                scales.best_period(
                    Isa::detect(),
                    &symbols(n, 30, |_| 9),
                    &[64, 30, 900],
                    Combination::Product
                ),
                None,
                "{n}"
            );
        }
        assert_eq!(
            scales.best_period(Isa::detect(), &symbols(400, 30, scale), &[0, 1, 30], Combination::Product),
            None
        );
    }

    #[test]
    fn logarithms_are_added() {
        let noise = symbols(1 << 16, 80, |_| 3);
        let made = |is_negative: bool| -> Vec<u8> {
            let value = |(idx, symbol): (usize, &u8)| {
                let magnitude = 20 + idx % 80 / 4 + idx / 80 % 23 + usize::from(*symbol) - 125;
                let magnitude = u8::try_from(magnitude).unwrap();
                if is_negative { 128 - magnitude } else { 128 + magnitude }
            };
            noise.iter().enumerate().map(value).collect()
        };
        let mut scales = ColumnScales::default();
        assert_eq!(scales.best_period(Isa::detect(), &noise, &[80], Combination::Sum), None);
        for is_negative in [false, true] {
            let symbols = made(is_negative);
            let period = scales.best_period(Isa::detect(), &symbols, &[16, 80], Combination::Sum);
            assert_eq!(period, Some(80));
            let mut columns = Columns::default();
            let log2 = scales.fit(
                Isa::detect(),
                &symbols,
                &segment_sums(&symbols),
                80,
                Combination::Sum,
                &mut columns,
            );
            let mut classes = [0; 64];
            columns.fill_classes(1 << log2, 0, &mut classes);
            assert!(classes.windows(2).all(|pair| pair[0] <= pair[1] + 1), "{classes:?}");
            assert!(classes[0] + 8 < classes[63], "{classes:?}");
        }
    }

    #[test]
    fn classes_follow_the_scales_of_columns_and_segments() {
        let mut columns = Columns::default();
        let made = symbols(1 << 17, 96, |column| if column < 48 { 2 } else { 40 });
        let mut loud = made.clone();
        loud[..1 << 16].iter_mut().for_each(|symbol| *symbol = 128 + (*symbol).abs_diff(128));
        loud[1 << 16..].iter_mut().for_each(|symbol| *symbol = 128 + symbol.abs_diff(128).div_ceil(2));
        let sums = segment_sums(&loud);
        let log2 =
            ColumnScales::default().fit(Isa::detect(), &loud, &sums, 96, Combination::Product, &mut columns);
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
