//! Which tables a block gets and which segment uses which.
//!
//! Rows and regions of a weight tensor differ mostly in scale, so one number tells their distributions apart: the
//! mean symbol (the mean exponent). Segments are clustered by it ([`super::cluster`]). Measured on four real
//! checkpoints, k-means on whole histograms from there gains another 0.002 to 0.004 bits a symbol; the level `high`
//! does that.

use super::cluster::Clusters;
use super::freq::{Frequencies, normalise};
use crate::kernels::Isa;
use crate::kernels::histogram::{Counters, Histogram, run_sums};

/// Most tables of a block.
pub const MAX_TABLES: usize = 16;

/// Sums for each table that are certainly enough to cluster by.
const SUMS_A_TABLE: usize = 32;

/// How much to spend on a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Tables to try for, 1 to [`MAX_TABLES`].
    pub n_tables: usize,
    /// Symbols of a segment, a power of two.
    pub segment_len: usize,
    /// Symbols that a table may hold.
    pub max_symbols: usize,
    /// Rounds of k-means on the histograms.
    pub n_rounds: usize,
    /// Of each segment's symbols, one in this many is counted.
    pub count_one_in: usize,
    /// Prefer fewer stored states to faster decoding.
    pub saves_bytes: bool,
}

/// A plan, in scratch memory that the next one reuses.
#[derive(Debug, Default)]
pub struct Planner {
    sums: Vec<u32>,
    clusters: Clusters,
    counters: Vec<Counters>,
    segment_histograms: Vec<Histogram>,
    /// Table of each segment.
    pub table_ids: Vec<u8>,
    /// The tables.
    pub tables: Vec<Frequencies>,
    /// Symbols of a segment; the whole block if there is one table.
    pub segment_len: usize,
}

/// Bits of a table id.
#[must_use]
pub fn id_bits(n_tables: usize) -> u32 {
    n_tables.max(1).next_power_of_two().ilog2()
}

impl Planner {
    /// Plans for `symbols`, whose length is a multiple of 64.
    pub fn plan(&mut self, isa: Isa, symbols: &[u8], effort: Effort) {
        let n_segments = symbols.len().div_ceil(effort.segment_len);
        let n_tables = effort.n_tables.min(n_segments / 8).clamp(1, MAX_TABLES);
        self.segment_len = effort.segment_len;
        self.table_ids.clear();
        self.table_ids.resize(n_segments, 0);
        if n_tables > 1 {
            self.sums.resize(n_segments, 0);
            run_sums(isa, symbols, effort.segment_len, &mut self.sums);
            // Of many sums a part shows where the means are.
            let one_in = (n_segments / (SUMS_A_TABLE * n_tables)).max(1);
            self.clusters.assign(&self.sums, one_in, n_tables, &mut self.table_ids);
        }
        self.count(symbols, n_tables, effort.count_one_in);
        let mut histograms: Vec<Histogram> = self.counters[..n_tables].iter().map(Counters::total).collect();
        if effort.n_rounds > 0 && n_tables > 1 {
            self.refine(symbols, &mut histograms, effort);
        }
        self.settle(&histograms, effort);
    }

    /// Counts the symbols of each table's segments, one in `one_in` of each segment: another part of every next one, so
    /// that columns of a matrix are met alike.
    fn count(&mut self, symbols: &[u8], n_tables: usize, one_in: usize) {
        self.counters.clear();
        self.counters.resize(n_tables, Counters::default());
        let part_len = self.segment_len.div_ceil(one_in);
        let mut turns = (0..one_in).cycle();
        for (segment, &id) in symbols.chunks(self.segment_len).zip(&self.table_ids) {
            let from = part_len * turns.next().unwrap_or(0);
            let part = segment.get(from..segment.len().min(from + part_len)).filter(|part| !part.is_empty());
            self.counters[usize::from(id)].count(part.unwrap_or(segment));
        }
    }

    /// Moves each segment to the table that codes it in the fewest bits, and counts anew.
    fn refine(&mut self, symbols: &[u8], histograms: &mut [Histogram], effort: Effort) {
        self.segment_histograms.clear();
        self.segment_histograms.extend(symbols.chunks(self.segment_len).map(|segment| {
            let mut histogram = [0; 256];
            segment.iter().for_each(|&symbol| histogram[usize::from(symbol)] += 1);
            histogram
        }));
        let used: Vec<usize> = (0..256).filter(|&value| histograms.iter().any(|h| h[value] > 0)).collect();
        for _ in 0..effort.n_rounds {
            let costs: Vec<[u32; 256]> =
                histograms.iter().map(|h| symbol_costs(h, effort.max_symbols)).collect();
            histograms.iter_mut().for_each(|histogram| histogram.fill(0));
            for (segment, id) in self.segment_histograms.iter().zip(&mut self.table_ids) {
                let cost = |costs: &[u32; 256]| -> u64 {
                    used.iter().map(|&value| u64::from(costs[value]) * u64::from(segment[value])).sum()
                };
                let best = (0u8..).zip(&costs).min_by_key(|(_, costs)| cost(costs));
                *id = best.map_or(0, |(id, _)| id);
                let total = &mut histograms[usize::from(*id)];
                total.iter_mut().zip(segment).for_each(|(total, count)| *total += count);
            }
        }
    }

    /// Drops empty tables, and goes down to one table where more do not pay for themselves.
    fn settle(&mut self, histograms: &[Histogram], effort: Effort) {
        let max_symbols = effort.max_symbols;
        let is_used = |histogram: &Histogram| histogram.iter().any(|&count| count > 0);
        let mut new_ids = [0u8; MAX_TABLES];
        self.tables.clear();
        for (histogram, new_id) in histograms.iter().zip(&mut new_ids) {
            if is_used(histogram) {
                *new_id = u8::try_from(self.tables.len()).unwrap_or(0);
                self.tables.push(normalise(histogram, max_symbols));
            }
        }
        let mut total = [0; 256];
        for histogram in histograms {
            total.iter_mut().zip(histogram).for_each(|(total, count)| *total += count);
        }
        let single = normalise(&total, max_symbols);
        let id_cost = self.table_ids.len() as u64 * u64::from(id_bits(self.tables.len()));
        let scale = effort.count_one_in as u64;
        if cost_bits(std::slice::from_ref(&single), scale) <= cost_bits(&self.tables, scale) + id_cost {
            self.tables.clear();
            self.tables.push(single);
            self.table_ids.truncate(1);
            self.table_ids.fill(0);
            self.segment_len = usize::MAX;
        } else {
            self.table_ids.iter_mut().for_each(|id| *id = new_ids[usize::from(*id)]);
        }
    }
}

/// Bits that tables and the symbols coded with them take, where one symbol in `one_in` was counted.
fn cost_bits(tables: &[Frequencies], one_in: u64) -> u64 {
    tables.iter().map(|table| (table.cost_q16 >> 16) * one_in + 8 * (table.pairs.len() as u64 + 2)).sum()
}

/// Cost of each value with the table that `histogram` gives, in 1/65536 of a bit.
fn symbol_costs(histogram: &Histogram, max_symbols: usize) -> [u32; 256] {
    let frequencies = normalise(histogram, max_symbols);
    let cost = |freq: u32| (8 << 16) - super::freq::log2_q16(freq);
    let escape = 256 - frequencies.pairs.iter().map(|&(_, freq)| u32::from(freq)).sum::<u32>();
    let mut costs = [cost(escape.max(1)) + (3 << 16); 256];
    for &(value, freq) in &frequencies.pairs {
        costs[usize::from(value)] = cost(u32::from(freq));
    }
    costs
}

#[cfg(test)]
mod tests {
    use super::*;

    const EFFORT: Effort = Effort {
        n_tables: 8,
        segment_len: 256,
        max_symbols: 31,
        n_rounds: 0,
        count_one_in: 1,
        saves_bytes: false,
    };

    /// Segments of two kinds by turns: around 100 and around 140.
    fn two_kinds(n: usize) -> Vec<u8> {
        (0..n as u32)
            .map(|i| {
                let spread = (i.wrapping_mul(2_654_435_761) >> 28).trailing_zeros().min(4);
                (100 + 40 * (i / 256 % 2) - spread).to_le_bytes()[0]
            })
            .collect()
    }

    #[test]
    fn segments_of_different_scale_get_different_tables() {
        let mut planner = Planner::default();
        for n_rounds in [0, 2] {
            planner.plan(Isa::detect(), &two_kinds(64 << 10), Effort { n_rounds, ..EFFORT });
            assert!(planner.tables.len() >= 2);
            let (even, odd) = (planner.table_ids[0], planner.table_ids[1]);
            assert_ne!(even, odd);
        }
    }

    #[test]
    fn alike_segments_share_one_table() {
        let mut planner = Planner::default();
        planner.plan(Isa::detect(), &[77; 64 << 10], EFFORT);
        assert_eq!((planner.tables.len(), planner.table_ids.len()), (1, 1));
        planner.plan(Isa::detect(), &two_kinds(64), EFFORT);
        assert_eq!(planner.tables.len(), 1);
    }
}
