//! How many low bits of indices stay raw.

use super::super::freq::log2_fast_q16;
use super::ESCAPE;
use super::plan::{ENTRY_BITS, ESCAPE_BITS, entropy_q16};
use crate::bits::{MAX_RICE_PARAMETER, rice_bits};
use crate::kernels::index_split::MAX_LOW_BITS;
use crate::kernels::quantize::{ROW_LEN, SHEET_LEN};
use crate::kernels::rans12::SLOTS;

/// Values that the histogram over low bits spans on each side of zero.
const HALF_SPAN: i32 = 512;

/// How many low bits to leave raw.
///
/// The smallest number that leaves few indices out of the symbols' range, or fewer or more where escapes are cheaper than low
/// bits of all, or dearer; and one or two more where the shorter table outweighs what the coder then does not see: within a
/// wide hump neighbours are equally frequent anyway.
pub(super) fn choose_low_bits(indices: &[i32], paired: bool) -> u32 {
    let sample = Sample::of(indices);
    let near_zero = sample.count();
    let lengths: Vec<[u32; 32]> = near_zero.iter().map(NearZero::lengths).collect();
    let n = lengths.as_flattened().iter().sum::<u32>() as usize;
    // 15 of 16 normally distributed values lie within 1.86 standard deviations: with 64 steps for those, 127 are 3.7.
    let mut inside = 0;
    let length = (0..32).take_while(|&length| {
        inside += lengths.iter().map(|lengths| lengths[length] as usize).sum::<usize>();
        inside * 16 < n * 15
    });
    let usual = u32::try_from(length.count()).unwrap_or(0).saturating_sub(6).min(MAX_LOW_BITS);
    let cost =
        |low_bits: u32| lengths.iter().map(|lengths| cost_by_lengths_q16(lengths, low_bits)).sum::<u64>();
    let cheapest = (0..=MAX_LOW_BITS).min_by_key(|&low_bits| cost(low_bits)).unwrap_or(usual);
    // Few are escaped in a usual block, and lengths are a rough measure.
    let is_usual = cost(usual) <= cost(cheapest) + cost(cheapest) / LEAST_SAVING_OF_LOW_BITS;
    let least = if is_usual { usual } else { cheapest };
    let counts = if least == 0 {
        near_zero.iter().map(NearZero::clamped).collect()
    } else {
        sample.count_shifted(least)
    };
    let weight = sample.weight as u64;
    let cost = |fold: u32| {
        let of_group = |counts: &[u32; N_KEYS]| {
            let (symbols, table) = folded_cost(counts, fold, paired && least + fold == 0);
            symbols * weight + table
        };
        counts.iter().map(of_group).sum::<u64>() + ((n as u64 * u64::from(fold)) << 16) * weight
    };
    let fold = (0..=2.min(MAX_LOW_BITS - least)).min_by_key(|&fold| cost(fold));
    least + fold.unwrap_or(0)
}

/// From this many indices on, scales are told apart.
const LEAST_LEN_OF_SCALES: usize = 1 << 16;
/// Groups of scale, two octaves each; the last holds all larger ones.
const N_SCALES: usize = 6;
/// Indices that are counted one by one.
const N_KEYS: usize = 2 * HALF_SPAN as usize;
/// Of short blocks: indices of a run of the sample, so that every vector that is loaded is used.
const RUN_LEN: usize = 256;

/// Indices of which low bits are chosen: runs from all over, or whole sheets, of which each index is in a group with those
/// whose neighbours in its column of the sheet are of about one scale together. That is how segments differ, and the places
/// of a kernel, for which tables are chosen later.
struct Sample<'a> {
    indices: &'a [i32],
    /// One run or sheet in so many is in it.
    one_in: usize,
    has_scales: bool,
    /// For how many each index stands where tables are held against symbols.
    weight: usize,
}

impl<'a> Sample<'a> {
    fn of(indices: &'a [i32]) -> Self {
        // Of short blocks everything counts.
        let one_in = (indices.len() >> 15).max(1);
        let has_scales = indices.len() >= LEAST_LEN_OF_SCALES;
        // Tables of groups are held against the sample, not against all that it stands for: knowing the sum of a column tells more
        // of its elements than a coder will know, and would have too few bits raw. So blocks are 0.1 to 0.2 % smaller.
        Self { indices, one_in, has_scales, weight: if has_scales { 1 } else { one_in } }
    }

    fn n_groups(&self) -> usize {
        if self.has_scales { N_SCALES } else { 1 }
    }

    /// Tells of each index with its group, and whether it is an odd one, for counters to take turns.
    fn visit(&self, mut add: impl FnMut(usize, usize, i32)) {
        if !self.has_scales {
            for run in self.indices.chunks(RUN_LEN).step_by(self.one_in) {
                run.iter().enumerate().for_each(|(place, &index)| add(0, place % 2, index));
            }
            return;
        }
        for sheet in self.indices.as_chunks::<SHEET_LEN>().0.iter().step_by(self.one_in) {
            let groups = groups_of_columns(sheet);
            for row in sheet.as_chunks::<ROW_LEN>().0 {
                let row = row.iter().zip(&groups).enumerate();
                row.for_each(|(column, (&index, &group))| add(group, column % 2, index));
            }
        }
    }

    /// Counts of each group.
    fn count(&self) -> Vec<NearZero> {
        let mut counters = vec![[NearZero::default(); 2]; self.n_groups()];
        self.visit(|group, parity, index| counters[group][parity].add(index));
        counters.into_iter().map(|[even, odd]| even.plus(&odd)).collect()
    }

    /// Counts by group of the indices without `low_bits`, as [`NearZero::clamped`] has them.
    fn count_shifted(&self, low_bits: u32) -> Vec<[u32; N_KEYS]> {
        let mut counters = vec![[[0; N_KEYS]; 2]; self.n_groups()];
        self.visit(|group, parity, index| {
            let key = (index >> low_bits).clamp(-HALF_SPAN, HALF_SPAN - 1) + HALF_SPAN;
            counters[group][parity][key.unsigned_abs() as usize % N_KEYS] += u32::from(index != ESCAPE);
        });
        let plus = |[even, odd]: [[u32; N_KEYS]; 2]| std::array::from_fn(|key| even[key] + odd[key]);
        counters.into_iter().map(plus).collect()
    }
}

/// The group of each column of a sheet.
fn groups_of_columns(sheet: &[i32; SHEET_LEN]) -> [usize; ROW_LEN] {
    let mut sums = [0u32; ROW_LEN];
    for row in sheet.as_chunks::<ROW_LEN>().0 {
        sums.iter_mut().zip(row).for_each(|(sum, index)| {
            *sum = sum.saturating_add(if *index == ESCAPE { 0 } else { index.unsigned_abs() });
        });
    }
    sums.map(|sum| ((32 - sum.leading_zeros()) as usize / 2).min(N_SCALES - 1))
}

/// Counts of indices, those near zero one by one.
#[derive(Clone, Copy)]
struct NearZero {
    counts: [u32; N_KEYS],
    /// Of others by the length of their magnitude, positive ones and then negative ones.
    others: [[u32; 32]; 2],
}

impl Default for NearZero {
    fn default() -> Self {
        Self { counts: [0; N_KEYS], others: [[0; 32]; 2] }
    }
}

impl NearZero {
    fn add(&mut self, index: i32) {
        let key = index.wrapping_add(HALF_SPAN).cast_unsigned() as usize;
        if let Some(count) = self.counts.get_mut(key) {
            *count += 1;
        } else if index != ESCAPE {
            self.others[usize::from(index < 0)][length(index) % 32] += 1;
        }
    }

    fn plus(mut self, other: &Self) -> Self {
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, count)| *sum += count);
        let others = self.others.as_flattened_mut().iter_mut().zip(other.others.as_flattened());
        others.for_each(|(sum, count)| *sum += count);
        self
    }

    /// Counts by the length of the magnitude.
    fn lengths(&self) -> [u32; 32] {
        let mut lengths = [0; 32];
        (-HALF_SPAN..).zip(&self.counts).for_each(|(index, count)| lengths[length(index)] += count);
        self.others.iter().for_each(|counts| {
            lengths.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        });
        lengths
    }

    /// Counts by index, what lies further out with the outermost.
    fn clamped(&self) -> [u32; N_KEYS] {
        let mut counts = self.counts;
        let [above, below] = self.others.map(|counts| counts.iter().sum::<u32>());
        counts[N_KEYS - 1] += above;
        counts[0] += below;
        counts
    }
}

/// Bits of the magnitude of an index.
fn length(index: i32) -> usize {
    (32 - index.unsigned_abs().leading_zeros()) as usize
}

/// Another number of low bits than the usual one has to save one bit in this many.
const LEAST_SAVING_OF_LOW_BITS: u64 = 64;

/// Bits that indices take with `low_bits` raw ones, if magnitudes of one length are equally frequent, in 1/65536; `lengths`
/// counts them by length.
fn cost_by_lengths_q16(lengths: &[u32; 32], low_bits: u32) -> u64 {
    let first = low_bits as usize + 1;
    // Magnitudes below 1 and below 128, without their low bits, have symbols.
    let (merged, told) = lengths.split_at(first);
    let (told, escaped) = told.split_at(7);
    let sum = |counts: &[u32]| counts.iter().sum::<u32>();
    let times_log2 = |count: u32| u64::from(count) * u64::from(log2_fast_q16(count));
    let apart: u64 = told.iter().map(|&count| times_log2(count)).sum::<u64>();
    let classes =
        times_log2(sum(lengths)).saturating_sub(apart + times_log2(sum(merged)) + times_log2(sum(escaped)));
    let signs = sum(&merged[1..]) + sum(told);
    let places: u64 = (0..).zip(told).map(|(n_bits, &count)| n_bits * u64::from(count)).sum();
    // Twice how far out the middle of a length is.
    let distance = |length: u64| (3 << (length - 1)) - 254;
    let distances = || (8..).map(distance).zip(escaped.iter().map(|&count| u64::from(count)));
    let mean =
        distances().map(|(distance, count)| distance * count).sum::<u64>() / u64::from(sum(escaped).max(1));
    let parameter = mean.checked_ilog2().unwrap_or(0).min(MAX_RICE_PARAMETER);
    let codes: u64 =
        distances().map(|(distance, count)| count * u64::from(rice_bits(distance, parameter, 32))).sum();
    let raw = u64::from(sum(lengths)) * u64::from(low_bits);
    classes + ((u64::from(signs) + places + codes + raw) << 16)
}

/// What symbols cost of which each stands for 2^`fold` neighbours of `counts`, and their table, in 1/65536 of a bit.
fn folded_cost(counts: &[u32], fold: u32, paired: bool) -> (u64, u64) {
    let mut folded = [0u32; 256];
    let mut escaped = 0u64;
    for (high, &count) in (-HALF_SPAN..).zip(counts) {
        match usize::try_from((high >> fold) + 128) {
            Ok(symbol @ 1..=254) => folded[symbol] += count,
            _ => escaped += u64::from(count),
        }
    }
    let n_entries = folded.iter().filter(|&&count| count > 0).count() as u64 * if paired { 2 } else { 1 };
    let symbols = entropy_q16(&folded) + slots_cost_q16(&folded) + ((escaped * ESCAPE_BITS) << 16);
    (symbols, (n_entries * ENTRY_BITS) << 16)
}

/// What is lost because symbols get whole slots, in 1/65536 of a bit.
fn slots_cost_q16(counts: &[u32; 256]) -> u64 {
    let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    // Of a symbol, in 1/256 of what one slot of 4096 is worth. Rounding costs 1/24 of the share's inverse; a symbol with
    // less than one slot costs the others what it is short of, or is escaped.
    let loss = |&count: &u32| {
        let share = (u64::from(count) * SLOTS as u64 * 256).checked_div(total).unwrap_or(0);
        if share >= 256 { 256 * 256 / 24 / share } else { (256 - share).min(5 * share / 2) }
    };
    // 1.44 bits times total / 4096: 94548 / 65536 of a bit.
    counts.iter().filter(|&&count| count > 0).map(loss).sum::<u64>() * total * 94_548 / (256 * SLOTS as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_length_and_index_are_those_of_single_indices() {
        let indices: Vec<i32> = (0..70_000i32)
            .map(|i| i.wrapping_mul(i).wrapping_mul(747_796_405) >> (5 + i % 27))
            .map(|index| if index % 97 == 3 { ESCAPE } else { index })
            .collect();
        for n in [0, 1, 700, 40_000, indices.len()] {
            let sample = Sample::of(&indices[..n]);
            let counted = sample.count();
            let mut lengths = vec![[0u32; 32]; sample.n_groups()];
            let mut keys = [0, 3].map(|low_bits| (low_bits, vec![[0u32; N_KEYS]; sample.n_groups()]));
            sample.visit(|group, _, index| {
                if index == ESCAPE {
                    return;
                }
                lengths[group][length(index)] += 1;
                for (low_bits, keys) in &mut keys {
                    let key = (index >> *low_bits).clamp(-HALF_SPAN, HALF_SPAN - 1) + HALF_SPAN;
                    keys[group][usize::try_from(key).unwrap()] += 1;
                }
            });
            assert!(counted.iter().map(NearZero::lengths).eq(lengths), "{n}");
            let [(_, exact), (low_bits, shifted)] = keys;
            assert!(counted.iter().map(NearZero::clamped).eq(exact), "{n}");
            assert!(sample.count_shifted(low_bits) == shifted, "{n}");
        }
    }
}
