//! Counts to frequencies: which symbols a table holds and how 256 slots are shared out.

use super::escapes;
use crate::kernels::histogram::Histogram;
use crate::kernels::rans8::{FREQ_SUM, Table};

/// Values that a table's range spans at most.
const RANGE_LEN: usize = 62;
/// A symbol rarer than 1 in this many is escaped: an escape costs about 10 bits, its own slot costs the
/// others 1.44/256 bits a symbol and 8 bits each time, which is level at about 1 in 450.
const RAREST: u64 = 512;
/// Bits that the rank of an escaped symbol is taken to cost where few are escaped.
const RANK_BITS: u64 = 3;

/// log2 in 1/65536 of a bit, rounded down: the same on every machine, which a library's `log2` is not.
#[must_use]
pub const fn log2_q16(value: u32) -> u32 {
    let Some(whole) = value.checked_ilog2() else { return 0 };
    // The mantissa in [1, 2) with 31 fractional bits; each squaring yields one bit of the logarithm.
    let mut mantissa = (value as u64) << (31 - whole);
    let mut log = whole;
    let mut bit = 0;
    while bit < 16 {
        mantissa = (mantissa * mantissa) >> 31;
        log <<= 1;
        if mantissa >= 1 << 32 {
            mantissa >>= 1;
            log |= 1;
        }
        bit += 1;
    }
    log
}

/// [`log2_q16`] of 0 to 256.
static LOG2: [u32; FREQ_SUM + 1] = {
    let mut table = [0; FREQ_SUM + 1];
    let mut value = 0;
    while value <= FREQ_SUM {
        #[expect(clippy::cast_possible_truncation, reason = "at most 256")]
        {
            table[value] = log2_q16(value as u32);
        }
        value += 1;
    }
    table
};

/// log2(1 + i/256) in 1/65536 for i up to 256.
static LOG2_MANTISSA: [u32; 257] = {
    let mut table = [1 << 16; 257];
    let mut i = 0;
    while i < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 512")]
        {
            table[i] = log2_q16(i as u32 + 256) - (8 << 16);
        }
        i += 1;
    }
    table
};

/// About [`log2_q16`], by a look-up: at most 2/65536 off, and as much the same on every machine.
#[must_use]
#[inline]
pub fn log2_fast_q16(value: u32) -> u32 {
    let Some(whole) = value.checked_ilog2() else { return 0 };
    let mantissa = value << (31 - whole);
    // Bits 23 to 30 are the index, 8 to 22 what is left between two entries.
    let idx = (mantissa >> 23 & 255) as usize;
    let [low, high] = [LOG2_MANTISSA[idx], LOG2_MANTISSA[idx + 1]];
    (whole << 16) + low + (((high - low) * (mantissa >> 8 & 0x7fff)) >> 15)
}

/// Order-0 entropy of counts, in 1/65536 of a bit a symbol; 0 for none.
#[must_use]
pub fn entropy_q16(counts: &Histogram) -> u64 {
    let total: u32 = counts.iter().sum();
    let log2_total = log2_q16(total);
    // Of a sample most counts are small, and their logarithms in the table.
    let log2 = |count: u32| {
        let known = usize::try_from(count).ok().and_then(|count| LOG2.get(count));
        known.copied().unwrap_or_else(|| log2_q16(count))
    };
    let bits = |&count: &u32| u64::from(count) * u64::from(log2_total - log2(count).min(log2_total));
    counts.iter().filter(|&&count| count > 0).map(bits).sum::<u64>().checked_div(total.into()).unwrap_or(0)
}

/// A table's symbols with their frequencies, ascending; what is left of 256 is the escape's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frequencies {
    /// `(value, frequency)`; at least one.
    pub pairs: Vec<(u8, u8)>,
    /// What the counts cost with them, escapes included, in 1/65536 of a bit.
    pub cost_q16: u64,
}

/// Shares 256 slots among the symbols of `counts`, of which at most `max_symbols` (up to 63) get their own.
///
/// Shares are rounded, to at least 1, then moved one by one where that costs least.
#[must_use]
pub fn normalise(counts: &Histogram, max_symbols: usize) -> Frequencies {
    let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let kept = kept_symbols(counts, total, max_symbols);
    let mut weights: Vec<u64> = kept.iter().map(|&value| u64::from(counts[usize::from(value)])).collect();
    let escaped = total - weights.iter().sum::<u64>();
    weights.push(escaped);
    let share = |weight: u64| (weight * FREQ_SUM as u64 + total / 2).checked_div(total).unwrap_or(0);
    // 255: one slot at least is another's.
    let mut freqs: Vec<usize> =
        weights.iter().map(|&weight| usize::try_from(share(weight).clamp(1, 255)).unwrap_or(1)).collect();
    settle_sum(&weights, &mut freqs);
    let cost = |(&weight, &freq): (&u64, &usize)| weight * u64::from(LOG2[FREQ_SUM] - LOG2[freq]);
    let cost_q16 =
        weights.iter().zip(&freqs).map(cost).sum::<u64>() + (rank_bits(counts, &kept, escaped, total) << 16);
    let pairs =
        kept.into_iter().zip(freqs).map(|(value, freq)| (value, u8::try_from(freq).unwrap_or(255))).collect();
    Frequencies { pairs, cost_q16 }
}

/// Moves `freqs` one by one to the sum that they must have, each time where that costs `weights` least; of equals the first.
fn settle_sum(weights: &[u64], freqs: &mut [usize]) {
    let sum: usize = freqs.iter().sum();
    let is_short = sum < FREQ_SUM;
    // What one slot more gains, or one less costs; nothing may have 256 or none.
    let change = |weight: u64, freq: usize| -> i64 {
        let (next, is_bound) = if is_short { (freq + 1, freq >= 255) } else { (freq - 1, freq <= 1) };
        let change = weight * u64::from(LOG2[next].abs_diff(LOG2[freq]));
        match (is_bound, is_short) {
            (true, _) => i64::MIN,
            (false, true) => change.cast_signed(),
            (false, false) => -change.cast_signed(),
        }
    };
    let mut changes: Vec<i64> =
        weights.iter().zip(&*freqs).map(|(&weight, &freq)| change(weight, freq)).collect();
    for _ in 0..sum.abs_diff(FREQ_SUM) {
        let best = (0..changes.len()).reduce(|best, i| if changes[i] > changes[best] { i } else { best });
        let Some(best) = best.filter(|&best| changes[best] > i64::MIN) else { break };
        if is_short {
            freqs[best] += 1;
        } else {
            freqs[best] -= 1;
        }
        changes[best] = change(weights[best], freqs[best]);
    }
}

/// Bits that the ranks of `escaped` of `total` symbols take, those that are not `kept`.
fn rank_bits(counts: &Histogram, kept: &[u8], escaped: u64, total: u64) -> u64 {
    // Below one in 128 it hardly matters what they cost.
    if escaped * 128 < total {
        return escaped * RANK_BITS;
    }
    let mut left = *counts;
    kept.iter().for_each(|&value| left[usize::from(value)] = 0);
    left.sort_unstable_by_key(|&count| std::cmp::Reverse(count));
    escapes::cheapest(left.into_iter()).0
}

/// The symbols worth a slot, ascending: the commonest ones that lie in one range, besides 0 and 1, which windowed
/// symbols use for zeros and outliers.
fn kept_symbols(counts: &Histogram, total: u64, max_symbols: usize) -> Vec<u8> {
    let common = |value: usize| u64::from(counts[value]) * RAREST >= total.max(1);
    let first = range_start(counts);
    let low = 0..if first >= 2 { 2 } else { 0 };
    let in_range = low.chain(first..first + RANGE_LEN).filter(|&value| common(value));
    let mut kept: Vec<u8> = in_range.filter_map(|value| u8::try_from(value).ok()).collect();
    if kept.len() > max_symbols {
        kept.sort_by_key(|&value| (std::cmp::Reverse(counts[usize::from(value)]), value));
        kept.truncate(max_symbols);
        kept.sort_unstable();
    }
    if kept.is_empty() {
        // Nothing reaches the bar (or there is nothing): the commonest stands for all.
        let commonest =
            (0u8..=255).max_by_key(|&value| (counts[usize::from(value)], std::cmp::Reverse(value)));
        kept.push(commonest.unwrap_or(0));
    }
    kept
}

/// First value of the range that covers most; of equal ones the last.
fn range_start(counts: &Histogram) -> usize {
    let last_start = counts.len() - RANGE_LEN;
    let used = |count: &u32| *count > 0;
    let (first, last) = (counts.iter().position(used), counts.iter().rposition(used));
    if let (Some(first), Some(last)) = (first, last)
        && last - first < RANGE_LEN
    {
        return first.min(last_start);
    }
    let mut covered: u64 = counts[..RANGE_LEN].iter().map(|&count| u64::from(count)).sum();
    let (mut start, mut most) = (0, covered);
    for next in 1..=last_start {
        covered = covered + u64::from(counts[next + RANGE_LEN - 1]) - u64::from(counts[next - 1]);
        if covered >= most {
            (start, most) = (next, covered);
        }
    }
    start
}

/// The longest a written table gets, in bytes.
pub const MAX_TABLE_BYTES: usize = 2 + 2 + RANGE_LEN + 1;

/// Flags in a written table's length byte.
const HAS_ZERO: u8 = 1 << 6;
const HAS_ONE: u8 = 1 << 7;

/// Appends `pairs` as FORMAT.md section 3.3.2 says: first value of the range, its length and flags, frequencies.
pub fn write_table(pairs: &[(u8, u8)], dst: &mut Vec<u8>) {
    let span = |from: usize| match (pairs.get(from), pairs.last()) {
        (Some(&(first, _)), Some(&(last, _))) => usize::from(last - first) + 1,
        _ => 0,
    };
    let low =
        if span(0) <= RANGE_LEN { 0 } else { pairs.iter().take_while(|&&(value, _)| value < 2).count() };
    let (outside, range) = pairs.split_at(low);
    let first = range.first().map_or(2, |&(value, _)| value);
    let mut n_and_flags = u8::try_from(span(low)).unwrap_or(0);
    for &(value, _) in outside {
        n_and_flags |= if value == 0 { HAS_ZERO } else { HAS_ONE };
    }
    dst.extend([first, n_and_flags]);
    dst.extend(outside.iter().map(|&(_, freq)| freq));
    let mut next = first;
    for &(value, freq) in range {
        dst.extend(std::iter::repeat_n(0, usize::from(value - next)));
        dst.push(freq);
        next = value.saturating_add(1);
    }
}

/// Reads what [`write_table`] wrote from the front of `src`; `None` if it is no table.
pub fn read_table(src: &mut &[u8]) -> Option<Table> {
    let [first, n_and_flags] = *src.split_off(..2)?.first_chunk()?;
    let mut pairs = Vec::with_capacity(RANGE_LEN + 2);
    for (value, flag) in [(0, HAS_ZERO), (1, HAS_ONE)] {
        if n_and_flags & flag != 0 {
            pairs.push((value, *src.split_off_first()?));
        }
    }
    if !pairs.is_empty() && first < 2 || pairs.iter().any(|&(_, freq)| freq == 0) {
        return None;
    }
    let freqs = src.split_off(..usize::from(n_and_flags & 63))?;
    for (offset, &freq) in (0u8..).zip(freqs) {
        if freq != 0 {
            pairs.push((first.checked_add(offset)?, freq));
        }
    }
    Table::new(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn log2_is_right_to_its_last_place() {
        for value in [1u32, 2, 3, 5, 7, 100, 255, 256, 65_535, 1 << 20, u32::MAX] {
            let exact = f64::from(value).log2() * 65536.0;
            assert!((exact - f64::from(log2_q16(value))).abs() < 1.01, "{value}");
            assert!(log2_fast_q16(value).abs_diff(log2_q16(value)) <= 2, "{value}");
        }
    }

    proptest! {
        #[test]
        fn frequencies_make_a_table_that_reads_back(
            counts in prop::collection::vec((any::<u8>(), 0u32..100_000), 0..120),
            max_symbols in 1usize..=63,
        ) {
            let mut histogram = [0; 256];
            counts.iter().for_each(|&(value, count)| histogram[usize::from(value)] = count);
            let frequencies = normalise(&histogram, max_symbols);
            prop_assert!(frequencies.pairs.len() <= max_symbols);
            prop_assert!(frequencies.pairs.iter().map(|pair| u32::from(pair.1)).sum::<u32>() < 256);
            let table = Table::new(&frequencies.pairs);
            prop_assert!(table.is_some());
            let mut bytes = Vec::new();
            write_table(&frequencies.pairs, &mut bytes);
            prop_assert!(bytes.len() <= MAX_TABLE_BYTES);
            let mut rest = &bytes[..];
            prop_assert_eq!(format!("{:?}", read_table(&mut rest)), format!("{table:?}"));
            prop_assert!(rest.is_empty());
        }
    }
}
