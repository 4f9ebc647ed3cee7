//! Rate–distortion optimised rounding: what an index costs in bits, weighed against the error that it saves.
//!
//! An encoder that minimises `D + λ·R` (G. J. Sullivan and T. Wiegand, "Rate-distortion optimization for video
//! compression", 1998) takes the index `k + 1` rather than `k` only where the fraction `f` of a step above `k` pays for
//! the difference in bits: `(1 − f)² + λ·b(k + 1) < f² + λ·b(k)`, that is `f > ½ + λ·(b(k + 1) − b(k))/2`. Both the
//! thresholds of [`kernels::quantize`](crate::kernels::quantize) and the costs of
//! [`kernels::trellis`](crate::kernels::trellis) come from a histogram of magnitudes, and the histogram depends on them:
//! a sample is quantized a few times over, each time by what the last time told. All of it is deterministic.
//!
//! On the lattice of [`Rounding::EvenSums`] the element of an odd column that moves is the one for which the same sum grows
//! least: by twice its distance from the threshold. Where few elements are not zero, moving one costs more than the eighth of
//! a bit that even sums spare; a sample tells.

use crate::kernels::histogram::Counters;
use crate::kernels::quantize::{self, COLUMN_LEN, ESCAPE, N_THRESHOLDS, ROW_LEN, Rounding, SHEET_LEN};
use crate::kernels::trellis::{self, Costs, N_CHAINS, N_COSTS};
use crate::kernels::{Isa, log_domain};
use crate::quantize::elementary::log2;

/// The best exchange of squared error for bits with uniform quantization, in `step²` per bit: `2 ln 2 ÷ 12`, the slope
/// of `step²/12` as the rate grows. Measured on normal values, it is best at 2, 3 and 4 bits, and does not matter above.
pub const UNIFORM_LAMBDA: f32 = 0.115;
/// The same on the lattice of [`Rounding::EvenSums`], where the error at a step is `13/144` of its square: the element that
/// moves of every other column is an eighteenth of a step from its threshold.
pub const LATTICE_LAMBDA: f32 = 0.125;
/// The same with dependent quantization, whose step is about half as long: best of 0.2 to 0.45 at 2 to 8 bits.
pub const TRELLIS_LAMBDA: f32 = 0.42;

/// Elements that a histogram is made of, about: more are not of use.
pub const SAMPLE_LEN: usize = 32 << 10;
/// Elements of each of the runs that a sample consists of.
const RUN_LEN: usize = 16 * N_CHAINS;
/// Times that the sample is quantized. A fourth time changes the rate by less than a thousandth.
const N_PASSES: usize = 3;
/// Magnitudes that are counted one by one: every window of [`Histogram::bits`] lies within.
const N_BINS: usize = 40;

/// Chooses thresholds and costs; keeps its memory from one call to the next.
#[derive(Debug, Clone, Default)]
pub struct Tuner {
    sample: Vec<f32>,
    indices: Vec<i32>,
    decisions: Vec<u16>,
    labels: Vec<u8>,
    error_sq: f64,
    /// What it would be if all errors were equally likely.
    even_error_sq: f64,
}

impl Tuner {
    /// The mean squared error in `step²` that is to be expected with the last [`Self::thresholds`], to some thousandths where
    /// steps are short beside the deviation of the values.
    #[must_use]
    pub fn expected_error_sq(&self) -> f64 {
        self.error_sq
    }

    /// The same if all errors were equally likely, whatever the values.
    #[must_use]
    pub fn even_error_sq(&self) -> f64 {
        self.even_error_sq
    }

    /// Thresholds for quantization of `values` at `step`, with [`LATTICE_LAMBDA`] or another `lambda`: on the lattice where a
    /// sample shows that it is better there.
    pub fn lattice(&mut self, isa: Isa, values: &[f32], step: f32, lambda: f32) -> Rounding {
        let plain = self.thresholds(isa, values, step, lambda);
        let Rounding::Thresholds(table) = plain else { return plain };
        let lattice = Rounding::EvenSums(table);
        let n_sheets = self.sample.len() / SHEET_LEN;
        let one_in = n_sheets.div_ceil(N_COMPARED).max(1);
        let (mut moves, mut before, mut after) = (0.0, Classes::default(), Classes::default());
        let mut n_compared = 0;
        for values in self.sample.as_chunks::<SHEET_LEN>().0.iter().step_by(one_in) {
            let (mut single, mut even) = ([0; SHEET_LEN], [0; SHEET_LEN]);
            quantize::quantize(isa, values, step, &plain, &mut single);
            quantize::quantize(isa, values, step, &lattice, &mut even);
            let error_sq =
                |x: f32, index: i32| (f64::from((x / step).abs()) - f64::from(index.unsigned_abs())).powi(2);
            let moved = values.iter().zip(single.iter().zip(&even)).filter(|(_, (from, to))| from != to);
            moves += moved.map(|(&x, (&from, &to))| error_sq(x, to) - error_sq(x, from)).sum::<f64>();
            let classes = Classes::of_sheet(values, step);
            before.count(&classes, &single);
            after.count(&classes, &even);
            n_compared += SHEET_LEN;
        }
        let bits = after.total_bits() - after.spared_bits() - before.total_bits();
        if n_compared == 0 || moves + f64::from(lambda) * bits >= 0.0 {
            return plain;
        }
        self.error_sq += moves / n_compared as f64;
        self.even_error_sq = 13.0 / 144.0;
        lattice
    }

    /// Thresholds for uniform quantization of `values` at `step`, with [`UNIFORM_LAMBDA`] or another `lambda`.
    pub fn thresholds(&mut self, isa: Isa, values: &[f32], step: f32, lambda: f32) -> Rounding {
        let mut rounding = Rounding::Nearest;
        self.even_error_sq = 1.0 / 12.0;
        self.take_sample(values);
        for _ in 0..N_PASSES {
            quantize::quantize(isa, &self.sample, step, &rounding, &mut self.indices);
            let histogram = Histogram::of(&self.indices);
            self.error_sq = histogram.error_sq(&rounding);
            let bits = histogram.bits();
            rounding = Rounding::Thresholds(std::array::from_fn(|k| {
                (0.5 + lambda * (bits[k + 1] - bits[k]) / 2.0).clamp(0.0, 1.0)
            }));
        }
        rounding
    }

    /// Costs for dependent quantization of `values` at `step`, with [`TRELLIS_LAMBDA`] or another `lambda`.
    pub fn costs(&mut self, isa: Isa, values: &[f32], step: f32, lambda: f32) -> Costs {
        let mut costs = Costs::FREE;
        self.take_sample(values);
        self.decisions.resize(trellis::scratch_len(self.sample.len()), 0);
        for _ in 0..N_PASSES {
            // The lengths are those that it asks for.
            let _ =
                trellis::quantize(isa, &self.sample, step, &costs, &mut self.decisions, &mut self.indices);
            self.labels.resize(self.indices.len(), 0);
            trellis::label(isa, &self.indices, &mut self.labels);
            let bits = count_by_quantizer(&self.labels).map(|histogram| histogram.bits());
            costs = Costs(bits.map(|bits| std::array::from_fn(|k: usize| lambda * bits[k])));
        }
        costs
    }

    /// Takes evenly spaced runs of `values`, or all of them.
    fn take_sample(&mut self, values: &[f32]) {
        let n_runs = values.len() / RUN_LEN;
        let stride = n_runs.div_ceil(SAMPLE_LEN / RUN_LEN).max(1) * RUN_LEN;
        self.sample.clear();
        for run in values.chunks(stride) {
            self.sample.extend_from_slice(&run[..run.len().min(RUN_LEN)]);
        }
        self.indices.resize(self.sample.len(), 0);
    }
}

/// Histograms by the quantizer that each of the labelled indices belongs to.
fn count_by_quantizer(labels: &[u8]) -> [Histogram; 2] {
    let mut counters = Counters::default();
    counters.count(labels);
    let counts = counters.total();
    [0, 128].map(|quantizer| {
        let of_quantizer = &counts[quantizer..quantizer + usize::from(trellis::ESCAPE_LABEL)];
        Histogram {
            counts: std::array::from_fn(|magnitude| of_quantizer[magnitude]),
            total: of_quantizer.iter().sum(),
        }
    })
}

/// Sheets that are quantized on the lattice and off it to see what is better.
const N_COMPARED: usize = 32;
/// Classes of scale, half an octave each.
const N_CLASSES: usize = 16;
const LARGEST_CLASS: u8 = 15;
const _: () = assert!(N_CLASSES == LARGEST_CLASS as usize + 1);

/// Histograms by the scale of the other elements of a column, as a coder knows it roughly from segment and column: where
/// most elements are small, moving one of them costs more than their share among all says.
#[derive(Default)]
struct Classes([Bins; N_CLASSES]);

impl Classes {
    /// The class of each element of a sheet.
    fn of_sheet(values: &[f32; SHEET_LEN], step: f32) -> [u8; SHEET_LEN] {
        let mut scales = [0.0; ROW_LEN];
        let rows = values.as_chunks::<ROW_LEN>().0;
        for row in rows {
            scales.iter_mut().zip(row).for_each(|(scale, x)| *scale += x.abs());
        }
        let mut classes = [0; SHEET_LEN];
        for (classes, row) in classes.as_chunks_mut::<ROW_LEN>().0.iter_mut().zip(rows) {
            for ((class, x), scale) in classes.iter_mut().zip(row).zip(&scales) {
                *class = Self::class((scale - x.abs()) / step);
            }
        }
        classes
    }

    /// Counts the indices of a sheet of these classes.
    fn count(&mut self, classes: &[u8; SHEET_LEN], indices: &[i32; SHEET_LEN]) {
        for (class, &index) in classes.iter().zip(indices) {
            self.0[usize::from(*class) % N_CLASSES].add(index);
        }
    }

    /// The class of elements where those of the column but one are of this magnitude together, in steps.
    fn class(scale: f32) -> u8 {
        /// Of an eighth of a step: two bits for each octave below it.
        const LEAST: u32 = 2 * (127 - 3);
        // Exponent and first bit of the mantissa: half octaves, though not of one ratio.
        let halves = scale.max(0.0).to_bits() >> 22;
        halves.saturating_sub(LEAST).min(LARGEST_CLASS.into()).to_le_bytes()[0]
    }

    fn histograms(&self) -> impl Iterator<Item = Histogram> {
        self.0.iter().map(Bins::histogram)
    }

    fn total_bits(&self) -> f64 {
        self.histograms().map(|histogram| histogram.total_bits()).sum()
    }

    /// Bits that even sums spare.
    fn spared_bits(&self) -> f64 {
        let of_class = |histogram: Histogram| histogram.parity_bits() * f64::from(histogram.total);
        self.histograms().map(of_class).sum::<f64>() / COLUMN_LEN as f64
    }
}

/// Counts in the making. Behind the magnitudes that are counted one by one: all larger ones, and escapes.
#[derive(Debug, Clone, Copy)]
struct Bins([u32; N_BINS + 2]);

impl Default for Bins {
    fn default() -> Self {
        Self([0; N_BINS + 2])
    }
}

impl Bins {
    fn add(&mut self, index: i32) {
        const MORE: u32 = 40;
        const { assert!(MORE as usize == N_BINS) };
        self.0[index.unsigned_abs().min(MORE) as usize + usize::from(index == ESCAPE)] += 1;
    }

    fn histogram(&self) -> Histogram {
        let [counts @ .., more, _] = self.0;
        Histogram { counts, total: counts.iter().sum::<u32>() + more }
    }
}

/// Counts by magnitude.
#[derive(Debug, Clone, PartialEq)]
struct Histogram {
    counts: [u32; N_BINS],
    total: u32,
}

impl Histogram {
    /// That of `indices`. Four tables, so that runs of one magnitude do not wait for each other.
    fn of(indices: &[i32]) -> Self {
        let mut tables = [Bins::default(); 4];
        let (fours, rest) = indices.as_chunks::<4>();
        for four in fours {
            tables.iter_mut().zip(four).for_each(|(table, &index)| table.add(index));
        }
        rest.iter().for_each(|&index| tables[0].add(index));
        Bins(std::array::from_fn(|bin| tables.iter().map(|table| table.0[bin]).sum())).histogram()
    }

    /// Mean of the squared errors in `step²` where values that share an index are spread evenly over what `rounding` gives
    /// it: much less subject to chance than the errors themselves.
    fn error_sq(&self, rounding: &Rounding) -> f64 {
        let above = |k: usize| match rounding {
            Rounding::Nearest => 0.5,
            Rounding::Thresholds(table) | Rounding::EvenSums(table) => {
                f64::from(table[k.min(N_THRESHOLDS - 1)])
            }
        };
        // Of a cell that reaches as far below its point and above it.
        let mean = |below: f64, above: f64| (below.powi(3) + above.powi(3)) / (3.0 * (below + above));
        let cell = |k: usize| mean(if k == 0 { above(0) } else { 1.0 - above(k - 1) }, above(k));
        let counted = (0..).zip(&self.counts).map(|(k, count)| f64::from(*count) * cell(k)).sum::<f64>();
        let n_counted: u32 = self.counts.iter().sum();
        (counted + f64::from(self.total - n_counted) * cell(N_BINS)) / f64::from(self.total.max(1))
    }

    /// Bits of the parity of an index.
    fn parity_bits(&self) -> f64 {
        let n_even: u32 = self.counts.iter().step_by(2).sum();
        let n_odd: u32 = self.counts.iter().skip(1).step_by(2).sum();
        // Of large magnitudes one half.
        let rest = f64::from(self.total - n_even - n_odd) / 2.0;
        let share = |count: u32| (f64::from(count) + rest) / f64::from(self.total.max(1));
        [n_even, n_odd]
            .map(share)
            .into_iter()
            .filter(|share| *share > 0.0)
            .map(|share| -share * log2(share))
            .sum()
    }

    /// Bits of all indices by their frequencies, signs included; magnitudes that are not counted one by one take none.
    fn total_bits(&self) -> f64 {
        let total = f64::from(self.total);
        let bits =
            |&count: &u32| if count > 0 { f64::from(count) * log2(total / f64::from(count)) } else { 0.0 };
        let n_counted: u32 = self.counts.iter().sum();
        let signs = f64::from(n_counted - self.counts[0]);
        self.counts.iter().map(bits).sum::<f64>() + bits(&(self.total - n_counted)) + signs
    }

    /// Bits of an index of each magnitude, its sign included. Magnitudes are averaged over a window that is a
    /// quarter as wide as they are large, since counts far out are few, and are given half a count more than was seen.
    fn bits(&self) -> [f32; N_COSTS + 1] {
        let total = self.total as f32 + 1.0;
        let shares = std::array::from_fn::<f32, { N_COSTS + 1 }, _>(|k| {
            let reach = k / 8;
            let window = &self.counts[k - reach..=k + reach];
            let count = window.iter().sum::<u32>() as f32 + 0.5;
            let n_signs = if k == 0 { 1.0 } else { 2.0 };
            count / (total * n_signs * window.len() as f32)
        });
        let mut logs = [0.0; N_COSTS + 1];
        // Too short for a wider one.
        log_domain::log2(Isa::Scalar, &shares, &mut logs);
        logs.map(|log| -log)
    }
}

const _: () = assert!(N_COSTS == N_THRESHOLDS && N_COSTS + N_COSTS / 8 < N_BINS);

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of four uniform numbers: nearly normal, with a standard deviation of 1.
    fn normals(n: usize) -> Vec<f32> {
        let mut state = 5u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        (0..n).map(|_| (uniform() + uniform() + uniform() + uniform() - 2.0) * 3f32.sqrt()).collect()
    }

    #[test]
    fn thresholds_open_a_dead_zone_and_costs_grow_outwards() {
        let values = normals(200_000);
        let mut tuner = Tuner::default();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            let rounding = tuner.thresholds(isa, &values, 1.0, UNIFORM_LAMBDA);
            assert_eq!(rounding, Tuner::default().thresholds(Isa::Scalar, &values, 1.0, UNIFORM_LAMBDA));
            let Rounding::Thresholds(table) = rounding else { panic!("a table") };
            assert!(
                table[0] > 0.52 && table[1] > table[0] && table.iter().all(|t| (0.5..=1.0).contains(t)),
                "{table:?}"
            );
            let costs = tuner.costs(isa, &values, 0.5, TRELLIS_LAMBDA);
            assert_eq!(costs, Tuner::default().costs(Isa::Scalar, &values, 0.5, TRELLIS_LAMBDA));
            // In Q1 the point of zero has the narrower cell.
            let [even, odd] = &costs.0;
            assert!(even[..4].is_sorted() && odd[1..4].is_sorted() && odd[0] < odd[3], "{costs:?}");
        }
    }

    #[test]
    fn errors_are_foreseen_where_steps_are_short() {
        let values = normals(1 << 18);
        let mut tuner = Tuner::default();
        for (step, tolerance) in [(0.02, 0.01), (0.1, 0.01), (0.25, 0.02)] {
            let rounding = tuner.thresholds(Isa::detect(), &values, step, UNIFORM_LAMBDA);
            let (mut indices, mut back) = (vec![0; values.len()], vec![0.0; values.len()]);
            quantize::quantize(Isa::detect(), &values, step, &rounding, &mut indices);
            quantize::dequantize(Isa::detect(), &indices, step, &mut back);
            let error_sq = values.iter().zip(&back).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
            let found = error_sq / values.len() as f64 / f64::from(step).powi(2);
            let expected = tuner.expected_error_sq();
            assert!((expected / found - 1.0).abs() < tolerance, "{step}: {expected} {found}");
        }
    }

    #[test]
    fn the_lattice_is_for_where_it_is_better() {
        let values = normals(100_000);
        let mut sparse = values.clone();
        sparse.iter_mut().enumerate().filter(|(idx, _)| idx % 10 > 0).for_each(|(_, x)| *x = 0.0);
        let mut tuner = Tuner::default();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            for (values, step, is_lattice) in
                [(&values, 0.1, true), (&values, 1.0, true), (&values, 3.0, false), (&sparse, 0.5, false)]
            {
                let rounding = tuner.lattice(isa, values, step, LATTICE_LAMBDA);
                assert_eq!(matches!(rounding, Rounding::EvenSums(_)), is_lattice, "{step}");
                let mut other = Tuner::default();
                assert_eq!(other.lattice(Isa::Scalar, values, step, LATTICE_LAMBDA), rounding);
                assert_eq!(other.expected_error_sq(), tuner.expected_error_sq());
            }
        }
        // A twelfth more than of single elements.
        tuner.lattice(Isa::detect(), &values, 0.02, LATTICE_LAMBDA);
        assert!((tuner.expected_error_sq() / (13.0 / 144.0) - 1.0).abs() < 0.01);
        assert_eq!(tuner.even_error_sq(), 13.0 / 144.0);
        for values in [&[][..], &[f32::NAN; 600], &[0.0; 600], &[f32::MAX; 600]] {
            let rounding = tuner.lattice(Isa::detect(), values, 0.1, LATTICE_LAMBDA);
            assert!(matches!(rounding, Rounding::Thresholds(_)));
        }
    }

    #[test]
    fn counting_at_once_is_counting_one_by_one() {
        for n in [0, 1, 3, 4, 1003] {
            let indices: Vec<i32> = (0..n)
                .map(|i: i32| if i % 97 == 5 { ESCAPE } else { i.wrapping_mul(77) % 61 - 30 })
                .collect();
            let mut one_by_one = Histogram { counts: [0; N_BINS], total: 0 };
            for index in indices.iter().filter(|index| **index != ESCAPE) {
                if let Some(count) = one_by_one.counts.get_mut(index.unsigned_abs() as usize) {
                    *count += 1;
                }
                one_by_one.total += 1;
            }
            let at_once = Histogram::of(&indices);
            assert_eq!((at_once.counts, at_once.total), (one_by_one.counts, one_by_one.total));
        }
    }

    #[test]
    fn nothing_to_learn_from_is_no_harm() {
        let mut tuner = Tuner::default();
        for values in [&[][..], &[f32::NAN; 50], &[0.0; 3], &[f32::MAX; 70]] {
            let Rounding::Thresholds(table) = tuner.thresholds(Isa::detect(), values, 0.1, UNIFORM_LAMBDA)
            else {
                panic!("a table")
            };
            assert!(table.iter().all(|threshold| (0.0..=1.0).contains(threshold)));
            let costs = tuner.costs(Isa::detect(), values, 0.1, TRELLIS_LAMBDA);
            assert!(costs.0.iter().flatten().all(|cost| (0.0..100.0).contains(cost)));
        }
    }

    #[test]
    fn the_sample_covers_all_parts_and_stays_small() {
        let mut tuner = Tuner::default();
        for n in [0, 1, RUN_LEN, SAMPLE_LEN, SAMPLE_LEN + 1, 10 * SAMPLE_LEN + 77, 1 << 20] {
            let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
            tuner.take_sample(&values);
            assert!(
                tuner.sample.len() <= SAMPLE_LEN + RUN_LEN && tuner.sample.len() >= n.min(SAMPLE_LEN / 2)
            );
            assert!(n == 0 || tuner.sample[tuner.sample.len() - 1] + 1.0 >= n as f32 * 0.9);
        }
    }
}
