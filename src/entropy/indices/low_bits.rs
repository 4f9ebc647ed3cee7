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
    // Samples are runs, so that every vector that is loaded is used; of short blocks everything counts.
    let one_in = (indices.len() >> 15).max(1);
    if indices.len() < LEAST_LEN_OF_SCALES {
        return choose(&[indices], one_in, paired);
    }
    let groups = by_scale(indices, one_in);
    // Their tables are held against the sample, not against all that it stands for: knowing the sum of a column tells more of its
    // elements than a coder will know, and would have too few bits raw. So blocks are 0.1 to 0.2 % smaller.
    choose(&groups.each_ref().map(Vec::as_slice), 1, paired)
}

/// The same for indices in groups that will have tables of their own, of each one run in `one_in`.
fn choose(groups: &[&[i32]], one_in: usize, paired: bool) -> u32 {
    let length = |index: i32| 32 - index.unsigned_abs().leading_zeros();
    let mut lengths: Vec<[u32; 33]> =
        groups.iter().map(|indices| count_sampled(indices, one_in, length)).collect();
    // Only an escape has all bits.
    let n_escapes: Vec<u32> = lengths.iter_mut().map(|lengths| std::mem::take(&mut lengths[32])).collect();
    let n = lengths.as_flattened().iter().sum::<u32>() as usize;
    // 15 of 16 normally distributed values lie within 1.86 standard deviations: with 64 steps for those, 127 are 3.7.
    let mut inside = 0;
    let length = (0..33).take_while(|&length| {
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
    let key = |index: i32| ((index >> least).clamp(-HALF_SPAN, HALF_SPAN - 1) + HALF_SPAN).unsigned_abs();
    let counts: Vec<[u32; 2 * HALF_SPAN as usize]> = groups
        .iter()
        .zip(n_escapes)
        .map(|(indices, n_escapes)| {
            let mut counts = count_sampled(indices, one_in, key);
            counts[key(ESCAPE) as usize] -= n_escapes;
            counts
        })
        .collect();
    let cost = |fold: u32| {
        let of_group = |counts: &[u32; 2 * HALF_SPAN as usize]| {
            let (symbols, table) = folded_cost(counts, fold, paired && least + fold == 0);
            symbols * one_in as u64 + table
        };
        counts.iter().map(of_group).sum::<u64>() + ((n as u64 * u64::from(fold)) << 16) * one_in as u64
    };
    let fold = (0..=2.min(MAX_LOW_BITS - least)).min_by_key(|&fold| cost(fold));
    least + fold.unwrap_or(0)
}

/// From this many indices on, scales are told apart.
const LEAST_LEN_OF_SCALES: usize = 1 << 16;
/// Groups of scale, two octaves each; the last holds all larger ones.
const N_SCALES: usize = 6;

/// Indices of one sheet in `one_in`, or more, each with those whose neighbours in its column of the sheet are of about one
/// scale together: that is how segments differ, and the places of a kernel, for which tables are chosen later.
fn by_scale(indices: &[i32], one_in: usize) -> [Vec<i32>; N_SCALES] {
    let mut groups: [Vec<i32>; N_SCALES] = std::array::from_fn(|_| Vec::new());
    for sheet in indices.as_chunks::<SHEET_LEN>().0.iter().step_by(one_in) {
        let mut sums = [0u32; ROW_LEN];
        for row in sheet.as_chunks::<ROW_LEN>().0 {
            sums.iter_mut().zip(row).for_each(|(sum, index)| {
                *sum = sum.saturating_add(if *index == ESCAPE { 0 } else { index.unsigned_abs() });
            });
        }
        for (column, sum) in sums.iter().enumerate() {
            let octave = (32 - sum.leading_zeros()) as usize;
            let group = &mut groups[(octave / 2).min(N_SCALES - 1)];
            group.extend(sheet.iter().skip(column).step_by(ROW_LEN));
        }
    }
    groups
}

/// Another number of low bits than the usual one has to save one bit in this many.
const LEAST_SAVING_OF_LOW_BITS: u64 = 64;

/// Bits that indices take with `low_bits` raw ones, if magnitudes of one length are equally frequent, in 1/65536; `lengths`
/// counts them by length.
fn cost_by_lengths_q16(lengths: &[u32; 33], low_bits: u32) -> u64 {
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

/// How many of the indices of one run in `one_in` have each `key`, which is below `N`. Four tables, so that equal keys in a
/// row do not wait for each other.
fn count_sampled<const N: usize>(indices: &[i32], one_in: usize, key: impl Fn(i32) -> u32) -> [u32; N] {
    let mut tables = [[0u32; N]; 4];
    for run in indices.chunks(256).step_by(one_in) {
        let (fours, rest) = run.as_chunks::<4>();
        for four in fours {
            tables.iter_mut().zip(four).for_each(|(table, &index)| table[key(index) as usize] += 1);
        }
        rest.iter().for_each(|&index| tables[0][key(index) as usize] += 1);
    }
    std::array::from_fn(|at| tables.iter().map(|table| table[at]).sum())
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
