//! Which tables there are, and which segment uses which.

use std::ops::Range;

use super::super::cluster::Clusters;
use super::super::freq::log2_fast_q16;
use super::super::log_freq::{self, Fitted, TableKind};
use super::column_scales::{ColumnScales, Combination, LEAST_SAVING as LEAST_SAVING_OF_COLUMNS};
use super::columns::{BOUND_BITS, Columns};
use super::geometric::geometric_costs_q16;
use super::{MAX_HALVED_TABLES, MAX_TABLES, MIN_SEGMENT_LOG2, RUN_LEN, SHEET_LEN, id_bits, segment_len};
use crate::kernels::Isa;
use crate::kernels::index_split::distance_sums;
use crate::kernels::quantize::COLUMN_LEN;
use crate::kernels::rans12::LANES;

/// Counts of a table's symbols; in a pair of each quantizer's.
type Counts = [[u32; 256]; 2];

/// Counts in the making, by quantizer · 256 + symbol; four, so that runs of one symbol do not wait for each other.
type Tally = [[u32; 512]; 4];

/// Bits that an escape costs.
pub(super) const ESCAPE_BITS: u64 = 17;
/// Bits that a symbol's place in a table costs.
pub(super) const ENTRY_BITS: u64 = 2;
/// Bits of the rest of a table.
const TABLE_BITS: u64 = 48;

/// Log2 of the longest segment: rows of weights are about as long.
const MAX_SEGMENT_LOG2: u32 = 10;
/// What a segment of its own costs: bits of its table's id, and that a few indices tell their scale only roughly.
const SEGMENT_BITS: u64 = 5;
/// Shorter segments, which are slower to decode, have to save one bit in this many.
const LEAST_SAVING: u64 = 256;

/// How long segments are: as short as the scale of indices changes. Kernels of a convolution and the channels that they
/// read often differ in scale, rows of a matrix seldom do.
///
/// Of `n` symbols, `push_sums` adding the sums of the magnitudes of a range of shortest segments to a list.
pub(super) fn choose_segment_log2(
    isa: Isa,
    n: usize,
    mut push_sums: impl FnMut(Range<usize>, &mut Vec<u64>),
) -> u32 {
    let longest = (n / 64).checked_ilog2().unwrap_or(0).clamp(MIN_SEGMENT_LOG2 + 2, MAX_SEGMENT_LOG2);
    // 64 Ki tell enough.
    let one_in = (n >> 16).max(1);
    let in_longest = 1 << (longest - MIN_SEGMENT_LOG2);
    let mut sums = Vec::new();
    for run_idx in (0..n >> longest).step_by(one_in) {
        push_sums(run_idx * in_longest..(run_idx + 1) * in_longest, &mut sums);
    }
    let cost = |log2: u32| {
        let cost = geometric_costs_q16(isa, 1 << log2, &sums) + ((SEGMENT_BITS * sums.len() as u64) << 16);
        sums = sums.chunks(2).map(|pair| pair.iter().sum()).collect();
        cost
    };
    let costs: Vec<u64> = (MIN_SEGMENT_LOG2..=longest).map(cost).collect();
    let least = costs.iter().min().copied().unwrap_or(0);
    let enough = least + least / LEAST_SAVING;
    let place = costs.iter().rposition(|cost| *cost <= enough).unwrap_or(costs.len() - 1);
    MIN_SEGMENT_LOG2 + u32::try_from(place).unwrap_or(0)
}

/// Bits that symbols of these counts take ideally, all together, in 1/65536.
pub(super) fn entropy_q16(counts: &[u32; 256]) -> u64 {
    let total: u32 = counts.iter().sum();
    let logs = |&count: &u32| u64::from(count) * u64::from(log2_fast_q16(count));
    logs(&total).saturating_sub(counts.iter().filter(|&&count| count > 1).map(logs).sum())
}

/// Bits that symbols of these counts, out of `n` in all, are spared by even sums, in 1/65536: what parities take, of one in
/// eight where sheets are whole.
fn sums_q16(counts: &[u32; 256], n: usize) -> u64 {
    let mut of_parities = [0; 256];
    (0..2).for_each(|parity| of_parities[parity] = counts.iter().skip(parity).step_by(2).sum());
    let in_sheets = n / SHEET_LEN * SHEET_LEN;
    // Of whole blocks: below 2^52.
    let of_all = entropy_q16(&of_parities) as f64 * in_sheets as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of what it is of")]
    let spared = (of_all / (n.max(1) * COLUMN_LEN) as f64) as u64;
    spared
}

/// Tables and which segment uses which, in scratch memory that the next plan reuses.
#[derive(Debug, Default)]
pub(super) struct Planner {
    clusters: Clusters,
    /// Sums of the magnitudes of shortest segments.
    shortest_sums: Vec<u16>,
    /// The same of segments.
    sums: Vec<u64>,
    tallies: Vec<Tally>,
    scales: ColumnScales,
    /// Whether `columns` say which table an index uses, and `symbol_ids` hold it; else `table_ids` do.
    pub(super) by_columns: bool,
    /// Classes of segments and columns.
    pub(super) columns: Columns,
    other_columns: Columns,
    /// Table, or pair of tables, of each symbol.
    pub(super) symbol_ids: Vec<u8>,
    /// Table, or pair of tables, of each segment.
    pub(super) table_ids: Vec<u8>,
    /// The tables.
    pub(super) tables: Vec<Fitted>,
    /// Log2 of a segment's length; of no meaning where there is one table.
    pub(super) segment_log2: u32,
}

impl Planner {
    /// Plans tables of one kind for `symbols` and, where they come in pairs, a word of quantizer bits for each row. `row_lens`
    /// are lengths of rows whose columns may differ in scale.
    pub(super) fn plan(
        &mut self,
        isa: Isa,
        kind: TableKind,
        symbols: &[u8],
        quantizers: &[u32],
        row_lens: &[usize],
    ) {
        self.cluster(isa, symbols, quantizers);
        let n_ids = self.sums.len() as u64;
        let n_clusters = self.tallies.len();
        let told = |n_tables| u64::from(id_bits(n_tables)) * n_ids;
        let mut merged = merge(&self.tallies, one_in(symbols.len()), (kind, MAX_TABLES), told);
        let enough = merged.cost - merged.cost / LEAST_SAVING_OF_COLUMNS;
        self.by_columns = false;
        if let Some((by_columns, segment_log2)) = self.plan_columns(isa, kind, symbols, quantizers, row_lens)
            && by_columns.cost < enough
            && by_columns.groups.len() > 1
        {
            self.by_columns = true;
            self.segment_log2 = segment_log2;
            merged = by_columns;
            let starts = merged.groups.iter().map(|group| group.clusters.start.to_le_bytes()[0]);
            self.columns.set_bounds(starts.skip(1));
            for (run_idx, ids) in self.symbol_ids.chunks_mut(RUN_LEN).enumerate() {
                self.columns.fill_ids(isa, 1 << segment_log2, run_idx * RUN_LEN, ids);
            }
        } else {
            // Clusters of which nothing was counted go with the group before.
            let mut new_ids = vec![0u8; n_clusters];
            for (id, group) in (0u8..).zip(&merged.groups) {
                new_ids[group.clusters.start..].fill(id);
            }
            self.table_ids.iter_mut().for_each(|id| *id = new_ids[usize::from(*id)]);
        }
        let n_used = kind.n_written();
        if one_in(symbols.len()) > 1 {
            // What was not counted may lie out of the range of what was.
            for counts in merged.groups.iter_mut().flat_map(|group| &mut group.counts[..n_used]) {
                counts[usize::from(log_freq::ESCAPE)] += 1;
                if kind.shows_parity() {
                    counts[usize::from(log_freq::ODD_ESCAPE)] += 1;
                }
            }
        }
        self.tables.clear();
        self.tables.extend(merged.groups.iter().map(|group| Fitted::new(kind, &group.counts[..n_used])));
    }

    /// What choosing tables by columns too would give, and log2 of the length of segments for that, where columns promise
    /// something.
    fn plan_columns(
        &mut self,
        isa: Isa,
        kind: TableKind,
        symbols: &[u8],
        quantizers: &[u32],
        row_lens: &[usize],
    ) -> Option<(Merged, u32)> {
        let product = self.try_columns(isa, kind, symbols, quantizers, (row_lens, Combination::Product));
        std::mem::swap(&mut self.columns, &mut self.other_columns);
        let sum = self.try_columns(isa, kind, symbols, quantizers, (row_lens, Combination::Sum));
        let cost = |tried: &Option<(Merged, u32)>| tried.as_ref().map_or(u64::MAX, |(merged, _)| merged.cost);
        if cost(&sum) < cost(&product) {
            return sum;
        }
        std::mem::swap(&mut self.columns, &mut self.other_columns);
        product
    }

    /// As [`Self::plan_columns`], with scales that give those of elements in one way.
    fn try_columns(
        &mut self,
        isa: Isa,
        kind: TableKind,
        symbols: &[u8],
        quantizers: &[u32],
        (row_lens, combination): (&[usize], Combination),
    ) -> Option<(Merged, u32)> {
        let period = self.scales.best_period(isa, symbols, row_lens, combination)?;
        let segment_log2 =
            self.scales.fit(isa, symbols, &self.shortest_sums, period, combination, &mut self.columns);
        self.tallies.clear();
        self.tallies.resize(usize::from(self.columns.largest()) + 1, [[0; 512]; 4]);
        self.symbol_ids.resize(symbols.len(), 0);
        let runs = symbols.chunks(RUN_LEN).zip(self.symbol_ids.chunks_mut(RUN_LEN));
        let one_in = one_in(symbols.len());
        for (run_idx, (symbols, classes)) in runs.enumerate().filter(|(idx, _)| is_counted(*idx, one_in)) {
            self.columns.fill_classes(1 << segment_log2, run_idx * RUN_LEN, classes);
            let quantizers = quantizers.get(run_idx * RUN_LEN / LANES..).unwrap_or_default();
            count_by_class(symbols, classes, quantizers, &mut self.tallies);
        }
        let class_bits = self.columns.bits();
        let told = |n_tables: usize| class_bits + u64::from(BOUND_BITS) * (n_tables as u64 - 1);
        let most = if kind == TableKind::Halved { MAX_HALVED_TABLES } else { MAX_TABLES };
        Some((merge(&self.tallies, one_in, (kind, most), told), segment_log2))
    }

    /// Bits of `symbols` that are part of many more: what tables take is left out, and so is what it costs that they have
    /// to be the same for all, which is about as much.
    pub(super) fn estimate(&mut self, isa: Isa, kind: TableKind, symbols: &[u8], quantizers: &[u32]) -> f64 {
        self.cluster(isa, symbols, quantizers);
        let bits_q16 = |counts: Counts| -> u64 {
            let escapes = u64::from(counts[0][0] + counts[1][0]) * ESCAPE_BITS;
            let sums = if kind == TableKind::Halved { sums_q16(&counts[0], symbols.len()) } else { 0 };
            (counts.iter().map(entropy_q16).sum::<u64>() + (escapes << 16)).saturating_sub(sums)
        };
        let counted: u64 = self.tallies.iter().map(|tally| bits_q16(total(tally))).sum();
        let symbols = counted * one_in(symbols.len()) as u64;
        symbols as f64 / 65_536.0 + f64::from(id_bits(self.tallies.len())) * self.sums.len() as f64
    }

    /// Bits that `symbols`, all of which have slots, take by the tables that [`Self::plan`] has given them.
    pub(super) fn symbol_bits(&mut self, kind: TableKind, symbols: &[u8], quantizers: &[u32]) -> f64 {
        self.tallies.clear();
        self.tallies.resize(self.tables.len(), [[0; 512]; 4]);
        if self.by_columns {
            count_by_class(symbols, &self.symbol_ids, quantizers, &mut self.tallies);
        } else {
            let segment_len = segment_len(self.tables.len(), self.segment_log2);
            for (idx, (segment, &id)) in symbols.chunks(segment_len).zip(&self.table_ids).enumerate() {
                let quantizers = quantizers.get(idx * segment_len / LANES..).unwrap_or_default();
                count(segment, quantizers, &mut self.tallies[usize::from(id)]);
            }
        }
        let tables = self.tables.iter().zip(&self.tallies);
        let of_table = |(table, tally): (&Fitted, &Tally)| {
            let counts = total(tally);
            let sums = if kind == TableKind::Halved { sums_q16(&counts[0], symbols.len()) } else { 0 };
            table.symbols_q16(&counts).saturating_sub(sums)
        };
        let bits_q16: u64 = tables.map(of_table).sum();
        bits_q16 as f64 / 65_536.0
    }

    /// Gives segments with like symbols a table in common, and counts what each is for.
    fn cluster(&mut self, isa: Isa, symbols: &[u8], quantizers: &[u32]) {
        self.shortest_sums.resize(symbols.len().div_ceil(1 << MIN_SEGMENT_LOG2), 0);
        distance_sums::<{ 1 << MIN_SEGMENT_LOG2 }>(isa, symbols, &mut self.shortest_sums);
        let sums = &self.shortest_sums;
        let shortest = |segments: Range<usize>, all: &mut Vec<u64>| {
            all.extend(sums[segments].iter().map(|&sum| u64::from(sum)));
        };
        self.segment_log2 = choose_segment_log2(isa, symbols.len(), shortest);
        let segment_len = segment_len(2, self.segment_log2);
        self.sums.clear();
        let segments = sums.chunks(1 << (self.segment_log2 - MIN_SEGMENT_LOG2));
        self.sums.extend(segments.map(|sums| sums.iter().map(|&sum| u64::from(sum)).sum::<u64>()));
        let n_tables = (self.sums.len() / 4).clamp(1, MAX_TABLES);
        self.table_ids.clear();
        self.table_ids.resize(self.sums.len(), 0);
        self.clusters.assign(&self.sums, 1, n_tables, &mut self.table_ids);
        self.tallies.clear();
        self.tallies.resize(n_tables, [[0; 512]; 4]);
        let one_in = one_in(symbols.len());
        let segments = symbols.chunks(segment_len).zip(&self.table_ids).enumerate();
        for (idx, (segment, &id)) in segments.filter(|(idx, _)| is_counted(*idx, one_in)) {
            let quantizers = quantizers.get(idx * segment_len / LANES..).unwrap_or_default();
            count(segment, quantizers, &mut self.tallies[usize::from(id)]);
        }
    }
}

/// Clusters in groups of a table each, and the bits of it all in 1/65536.
#[derive(Debug)]
struct Merged {
    groups: Vec<Group>,
    cost: u64,
}

/// Merges neighbouring clusters as long as that saves bits, and until `most` tables of one kind will do. One in `one_in`
/// symbols has been counted; `told` are the bits that tell which of so many tables is used where.
fn merge(
    tallies: &[Tally],
    one_in: usize,
    (kind, most): (TableKind, usize),
    told: impl Fn(usize) -> u64,
) -> Merged {
    let weight = u32::try_from(one_in).unwrap_or(u32::MAX);
    let groups: Vec<Group> = tallies
        .iter()
        .map(|tally| total(tally).map(|counts| counts.map(|count| count * weight)))
        .enumerate()
        .filter(|(_, counts)| counts.iter().flatten().any(|&count| count > 0))
        .map(|(cluster, counts)| Group { clusters: cluster..cluster + 1, counts: Box::new(counts) })
        .collect();
    let cost_of = |group: &Group| cost_q16(&group.counts, kind == TableKind::Paired);
    let mut costs: Vec<u64> = groups.iter().map(cost_of).collect();
    let mut joined_costs: Vec<u64> = groups.windows(2).map(|pair| cost_of(&pair[0].join(&pair[1]))).collect();
    let total_of = |costs: &[u64]| {
        let told = if costs.len() > most { u64::MAX >> 1 } else { told(costs.len().max(1)) << 16 };
        costs.iter().sum::<u64>() + told
    };
    let (mut least, mut n_best) = (total_of(&costs), 0);
    // The places of the joins, of which as many as are best are done once more in the end: groups are large to copy.
    let (mut left, mut places) = (groups.clone(), Vec::new());
    while let Some((at, _)) = joined_costs
        .iter()
        .enumerate()
        .min_by_key(|&(at, joined)| joined.cast_signed() - (costs[at] + costs[at + 1]).cast_signed())
    {
        join_at(&mut left, at);
        places.push(at);
        costs.remove(at + 1);
        costs[at] = joined_costs.remove(at);
        if at > 0 {
            joined_costs[at - 1] = cost_of(&left[at - 1].join(&left[at]));
        }
        if at + 1 < left.len() {
            joined_costs[at] = cost_of(&left[at].join(&left[at + 1]));
        }
        let cost = total_of(&costs);
        if cost <= least {
            (least, n_best) = (cost, places.len());
        }
    }
    let mut best = groups;
    places[..n_best].iter().for_each(|&at| join_at(&mut best, at));
    Merged { groups: best, cost: least }
}

/// Joins the group at `at` with the next.
fn join_at(groups: &mut Vec<Group>, at: usize) {
    let next = groups.remove(at + 1);
    groups[at] = groups[at].join(&next);
}

/// Clusters that share a table.
#[derive(Debug, Clone)]
struct Group {
    clusters: Range<usize>,
    counts: Box<Counts>,
}

impl Group {
    fn join(&self, next: &Self) -> Self {
        let mut counts = self.counts.clone();
        counts
            .as_flattened_mut()
            .iter_mut()
            .zip(next.counts.as_flattened())
            .for_each(|(sum, count)| *sum += count);
        Self { clusters: self.clusters.start..next.clusters.end, counts }
    }
}

/// Bits that a table, or a pair, and its symbols take, in 1/65536.
fn cost_q16(counts: &Counts, paired: bool) -> u64 {
    let n_entries = counts.iter().flatten().filter(|&&count| count > 0).count() as u64;
    let symbols = entropy_q16(&counts[0]) + if paired { entropy_q16(&counts[1]) } else { 0 };
    symbols + ((TABLE_BITS + n_entries * ENTRY_BITS) << 16)
}

/// Of long blocks not all symbols are counted: this many tell the frequencies.
const COUNTED_LOG2: u32 = 18;

/// One segment, or run, in so many of a block of `n` symbols is counted.
fn one_in(n: usize) -> usize {
    (n >> COUNTED_LOG2).max(1)
}

/// Whether segment, or run, `idx` is one of those: spread without a period, since rows have one.
fn is_counted(idx: usize, one_in: usize) -> bool {
    // The multiplier of Fibonacci hashing (D. Knuth, The Art of Computer Programming 3, 6.4).
    let hash = (idx as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    one_in == 1 || hash.is_multiple_of(one_in as u64)
}

/// Counts the symbols of a segment, by quantizer where there are bits of them.
fn count(segment: &[u8], quantizers: &[u32], tally: &mut Tally) {
    if quantizers.is_empty() {
        let (fours, rest) = segment.as_chunks::<4>();
        for four in fours {
            four.iter().zip(tally.iter_mut()).for_each(|(&symbol, counts)| counts[usize::from(symbol)] += 1);
        }
        rest.iter().for_each(|&symbol| tally[0][usize::from(symbol)] += 1);
        return;
    }
    for (row, &quantizers) in segment.chunks(LANES).zip(quantizers) {
        let mut bits = u64::from(quantizers) << 8;
        for (idx, &symbol) in row.iter().enumerate() {
            tally[idx % 4][(bits & 256) as usize + usize::from(symbol)] += 1;
            bits >>= 1;
        }
    }
}

/// Counts symbols that each have a class, by quantizer where there are bits of them.
fn count_by_class(symbols: &[u8], classes: &[u8], quantizers: &[u32], tallies: &mut [Tally]) {
    if quantizers.is_empty() {
        let ((symbols, rest), (classes, rest_classes)) = (symbols.as_chunks::<4>(), classes.as_chunks::<4>());
        let mut add = |idx: usize, symbol: u8, class: u8| {
            tallies[usize::from(class)][idx][usize::from(symbol)] += 1;
        };
        for (symbols, classes) in symbols.iter().zip(classes) {
            (0..4).for_each(|idx| add(idx, symbols[idx], classes[idx]));
        }
        rest.iter().zip(rest_classes).for_each(|(&symbol, &class)| add(0, symbol, class));
        return;
    }
    for (row_idx, (symbols, classes)) in symbols.chunks(LANES).zip(classes.chunks(LANES)).enumerate() {
        let mut bits = u64::from(quantizers.get(row_idx).copied().unwrap_or(0)) << 8;
        for (idx, (&symbol, &class)) in symbols.iter().zip(classes).enumerate() {
            tallies[usize::from(class)][idx % 4][(bits & 256) as usize + usize::from(symbol)] += 1;
            bits >>= 1;
        }
    }
}

/// The counts of a tally by quantizer.
fn total(tally: &Tally) -> Counts {
    let mut counts = [[0; 256]; 2];
    for part in tally {
        counts.as_flattened_mut().iter_mut().zip(part).for_each(|(sum, count)| *sum += count);
    }
    counts
}
