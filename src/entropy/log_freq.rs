//! Frequency tables of smooth distributions, written as steps of their logarithm.
//!
//! Quantized weights and gradients are distributed in one hump. From its centre outwards the logarithm of the frequency
//! falls by steps that change little from one symbol to the next and are much alike on both sides, so that predicted
//! from the last step, or from its mirror image, what is left to write is small: about two bits a symbol. How fine the
//! logarithm is, and how the residuals are coded, is chosen for each table, since few symbols do not pay for a fine one;
//! and a residual smaller than the noise of a count is rounded away where that saves more bits than it costs.
//! FORMAT.md section 3.3.5 is the layout.

use super::freq::log2_fast_q16;
use crate::bits::{BitReader, BitWriter, Rice, get_rice, put_rice, rice_bits};
use crate::kernels::rans12::{Freqs, SLOTS};

/// The symbol that stands for values out of a table's range; for even ones alone where symbols show parities.
pub const ESCAPE: u8 = 0;
/// Where they do, the symbol that stands for odd values out of range.
pub const ODD_ESCAPE: u8 = 255;

/// Finest steps: 2^-5 of an octave.
const MAX_PRECISION: u32 = 5;
/// Largest level in magnitude: 128 octaves of the finest steps.
const MAX_LEVEL: i32 = 1 << 12;
/// Bits of a residual that is written raw, as zigzag.
const RAW_BITS: u32 = 16;
/// Bits that an escaped value is taken to cost besides its symbol.
const ESCAPE_BITS: u64 = 5;

/// 2^(30 − i/32), rounded down.
const EXP2_Q30: [u32; 32] = [
    1_073_741_824,
    1_050_733_750,
    1_028_218_693,
    1_006_186_086,
    984_625_593,
    963_527_097,
    942_880_699,
    922_676_709,
    902_905_650,
    883_558_244,
    864_625_413,
    846_098_273,
    827_968_132,
    810_226_482,
    792_864_999,
    775_875_537,
    759_250_124,
    742_980_960,
    727_060_410,
    711_481_005,
    696_235_434,
    681_316_544,
    666_717_336,
    652_430_958,
    638_450_708,
    624_770_026,
    611_382_492,
    598_281_826,
    585_461_880,
    572_916_640,
    560_640_217,
    548_626_854,
];

/// What the tables of a section are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// One table, in which an escape does not show the parity of its value.
    Single,
    /// One table, whose even and odd symbols by themselves make two further ones, [`halves`].
    Halved,
    /// Two tables of one range.
    Paired,
}

impl TableKind {
    /// Tables that are written.
    #[must_use]
    pub fn n_written(self) -> usize {
        if self == Self::Paired { 2 } else { 1 }
    }

    /// Whether even and odd values have an escape each.
    #[must_use]
    pub fn shows_parity(self) -> bool {
        self != Self::Single
    }

    fn n_escapes(self) -> usize {
        if self.shows_parity() { 2 } else { 1 }
    }

    /// Least length of a range: of two symbols none has all slots, which a decoder has no room for.
    fn least_len(self) -> usize {
        if self == Self::Halved { 4 } else { 1 }
    }
}

/// The symbols that have a frequency of their own: `first` to `last`, both within 1 to 254, around `center`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First symbol.
    pub first: u8,
    /// The symbol that the others are predicted from.
    pub center: u8,
    /// Last symbol.
    pub last: u8,
}

impl Range {
    /// Whether `symbol` has a frequency of its own.
    #[must_use]
    #[inline]
    pub fn contains(self, symbol: u8) -> bool {
        (self.first..=self.last).contains(&symbol)
    }

    fn len(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// Takes a symbol more in.
    fn widen(&mut self) {
        if self.last < ODD_ESCAPE - 1 {
            self.last += 1;
        } else {
            self.first -= 1;
        }
    }

    fn symbols(self) -> std::ops::RangeInclusive<usize> {
        usize::from(self.first)..=usize::from(self.last)
    }

    /// The symbols but for the centre in the order in which they are written: to the right, then to the left.
    fn outwards(self) -> impl Iterator<Item = usize> {
        let center = usize::from(self.center);
        (center + 1..=usize::from(self.last)).chain((usize::from(self.first)..center).rev())
    }
}

type Levels = [i32; 256];

/// What a symbol's level is expected to be: its inner neighbour's and a step. The step is that of `reference`, the pair's
/// first table, if there is one; else on the left the mirrored step if there is one; else the step before.
fn predict(range: Range, levels: &Levels, reference: Option<&Levels>, symbol: usize) -> i32 {
    let center = usize::from(range.center);
    let (inner, before) =
        if symbol > center { (symbol - 1, symbol.wrapping_sub(2)) } else { (symbol + 1, symbol + 2) };
    let distance = symbol.abs_diff(center);
    let mirror = center + distance;
    let step = match reference {
        Some(reference) => reference[symbol] - reference[inner],
        None if symbol < center && mirror <= usize::from(range.last) => levels[mirror] - levels[mirror - 1],
        None if distance >= 2 => levels[inner] - levels[before],
        None => 0,
    };
    levels[inner] + step
}

fn zigzag(value: i32) -> u32 {
    (value << 1 ^ value >> 31).cast_unsigned()
}

fn unzigzag(value: u32) -> i32 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// The frequencies that levels, in steps of 2^-`precision` octaves, stand for: the slots that escapes leave, shared in
/// proportion to 2^level, each at least 1.
fn frequencies(range: Range, levels: &Levels, precision: u32, escapes: [u16; 2]) -> Freqs {
    let n_slots = SLOTS as u64 - u64::from(escapes[0]) - u64::from(escapes[1]);
    let max = range.symbols().map(|symbol| levels[symbol]).max().unwrap_or(0);
    let weight = |level: i32| {
        let depth = (max - level).cast_unsigned();
        let fraction = depth & ((1 << precision) - 1);
        let mantissa = EXP2_Q30[(fraction << (MAX_PRECISION - precision)) as usize];
        u64::from(mantissa.checked_shr(depth >> precision).unwrap_or(0))
    };
    let mut weights = [0; 256];
    range.symbols().for_each(|symbol| weights[symbol] = weight(levels[symbol]));
    let mut freqs = share_out(range.symbols(), &weights, n_slots);
    freqs[usize::from(ESCAPE)] = escapes[0];
    freqs[usize::from(ODD_ESCAPE)] = escapes[1];
    freqs
}

/// `n_slots` shared among `symbols` in proportion to their weights, at least 1 for each.
fn share_out(symbols: impl Iterator<Item = usize> + Clone, weights: &[u64; 256], n_slots: u64) -> Freqs {
    let mut freqs = [0u16; 256];
    let total: u64 = symbols.clone().map(|symbol| weights[symbol]).sum();
    let mut sum = 0;
    for symbol in symbols {
        // Of levels the largest weight is 2^30: the total is never 0.
        let share = ((weights[symbol] * n_slots + total / 2) / total.max(1)).max(1);
        freqs[symbol] = u16::try_from(share).unwrap_or(u16::MAX);
        sum += share;
    }
    // What rounding left over or took too much goes to or comes from the first of the largest: it matters least there.
    while sum != n_slots {
        let Some(largest) = freqs.iter_mut().rev().max() else { break };
        if sum < n_slots {
            *largest += u16::try_from(n_slots - sum).unwrap_or(0);
            sum = n_slots;
        } else {
            let excess = (sum - n_slots).min(u64::from(*largest / 2));
            *largest -= u16::try_from(excess).unwrap_or(0);
            sum -= excess;
        }
    }
    freqs
}

/// The frequencies of the even symbols of a table where all are even, and of its odd symbols where all are odd.
#[must_use]
pub fn halves(freqs: &Freqs) -> [Freqs; 2] {
    let weights = freqs.map(u64::from);
    [0, 1].map(|parity| {
        let symbols = (parity..256).step_by(2).filter(|&symbol| weights[symbol] > 0);
        share_out(symbols, &weights, SLOTS as u64)
    })
}

/// Tables fitted to counts: one, or a pair of which each has its own frequencies in one range.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// The symbols that are not escaped.
    pub range: Range,
    /// Frequencies of each table.
    pub freqs: Vec<Freqs>,
    kind: TableKind,
    precision: u32,
    parameter: u32,
    levels: Vec<Levels>,
    escapes: Vec<[u16; 2]>,
}

impl Fitted {
    /// The table of these counts, or of two those of a pair; as good as a short search finds.
    #[must_use]
    pub fn new(kind: TableKind, counts: &[[u32; 256]]) -> Self {
        let mut range = choose_range(counts);
        while range.len() < kind.least_len() {
            range.widen();
        }
        let escape_freqs = |range| {
            let freqs = counts.iter().map(|counts| escape_freqs(range, counts, kind.shows_parity()));
            freqs.collect::<Vec<_>>()
        };
        let mut escapes = escape_freqs(range);
        if range.len() == 1 && escapes.contains(&[0; 2]) {
            // A frequency of 4096 would not fit the decoder's slots.
            range.widen();
            escapes = escape_freqs(range);
        }
        let total: u64 = counts.iter().flatten().map(|&count| u64::from(count)).sum();
        // Steps of d octaves cost total · d² / 35 bits, halving them one bit a symbol: level where d² is 46 · len / total.
        let ratio = total / (46 * range.len() as u64);
        let precision = (ratio.checked_ilog2().unwrap_or(0) / 2).min(MAX_PRECISION);
        let mut best: Option<(u64, Self)> = None;
        for precision in precision..=(precision + 1).min(MAX_PRECISION) {
            let mut before = u64::MAX;
            // Finer steps have larger residuals.
            let first = best.as_ref().map_or(0, |(_, coarser)| coarser.parameter);
            for parameter in first..3 {
                let fitted = Self::with((kind, range), counts, &escapes, precision, parameter);
                let cost = fitted.cost_q16(counts);
                // Past the best parameter it only gets worse.
                if cost > before {
                    break;
                }
                before = cost;
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, fitted));
                }
            }
        }
        best.map_or_else(|| Self::with((kind, range), counts, &escapes, 0, 0), |(_, fitted)| fitted)
    }

    fn with(
        (kind, range): (TableKind, Range),
        counts: &[[u32; 256]],
        escapes: &[[u16; 2]],
        precision: u32,
        parameter: u32,
    ) -> Self {
        let mut levels: Vec<Levels> = Vec::with_capacity(counts.len());
        for counts in counts {
            levels.push(fit_levels(range, counts, levels.first(), precision, parameter));
        }
        let freqs = levels
            .iter()
            .zip(escapes)
            .map(|(levels, &escapes)| frequencies(range, levels, precision, escapes));
        let freqs = freqs.collect();
        Self { range, freqs, kind, precision, parameter, levels, escapes: escapes.to_vec() }
    }

    /// What symbols of `counts` cost with these tables, and the tables themselves, in 1/65536 of a bit; without what is
    /// the same for all tables of one range.
    fn cost_q16(&self, counts: &[[u32; 256]]) -> u64 {
        let mut cost = 0;
        for ((idx, counts), freqs) in counts.iter().enumerate().zip(&self.freqs) {
            for symbol in self.range.symbols() {
                cost +=
                    u64::from(counts[symbol]) * u64::from((12 << 16) - log2_fast_q16(freqs[symbol].into()));
            }
            cost += self
                .residuals(idx)
                .map(|residual| rice_bits(zigzag(residual).into(), self.parameter, RAW_BITS))
                .map(|n_bits| u64::from(n_bits) << 16)
                .sum::<u64>();
        }
        cost
    }

    /// What symbols of `counts`, escapes among them, take with these tables, in 1/65536 of a bit.
    #[must_use]
    pub fn symbols_q16(&self, counts: &[[u32; 256]]) -> u64 {
        let pairs = counts.iter().zip(&self.freqs).flat_map(|(counts, freqs)| counts.iter().zip(freqs));
        let cost = |(&count, &freq): (&u32, &u16)| {
            u64::from(count) * u64::from((12 << 16) - log2_fast_q16(freq.into()))
        };
        pairs.map(cost).sum()
    }

    /// Levels of table `idx` less what they are expected to be, in the order in which they are written.
    fn residuals(&self, idx: usize) -> impl Iterator<Item = i32> {
        let reference = if idx > 0 { self.levels.first() } else { None };
        let levels = &self.levels[idx];
        self.range
            .outwards()
            .map(move |symbol| levels[symbol] - predict(self.range, levels, reference, symbol))
    }

    /// Writes the table or the pair.
    pub fn write(&self, bits: &mut BitWriter<'_>) {
        bits.put(self.range.first.into(), 8);
        bits.put(self.range.center.into(), 8);
        bits.put(self.range.last.into(), 8);
        bits.put(self.precision, 3);
        bits.put(self.parameter, 2);
        for (idx, escapes) in self.escapes.iter().enumerate() {
            for &freq in &escapes[..self.kind.n_escapes()] {
                let n_bits = freq.checked_ilog2().map_or(0, |log2| log2 + 1);
                bits.put(n_bits, 4);
                bits.put(freq.into(), n_bits.saturating_sub(1));
            }
            for residual in self.residuals(idx) {
                let code = zigzag(residual);
                put_rice(bits, code.into(), self.parameter, code, RAW_BITS);
            }
        }
    }
}

/// Reads a table, or a pair, as [`Fitted::write`] wrote it; `None` if it is none.
pub fn read(bits: &mut BitReader<'_>, kind: TableKind) -> Option<(Range, Vec<Freqs>)> {
    let mut byte = || u8::try_from(bits.get(8)?).ok();
    let range = Range { first: byte()?, center: byte()?, last: byte()? };
    let (precision, parameter) = (bits.get(3)?, bits.get(2)?);
    let is_range = range.first > ESCAPE && range.contains(range.center) && range.last < ODD_ESCAPE;
    if !is_range || range.len() < kind.least_len() || precision > MAX_PRECISION {
        return None;
    }
    let n_tables = kind.n_written();
    let mut first_levels: Option<Levels> = None;
    let mut freqs = Vec::with_capacity(n_tables);
    for _ in 0..n_tables {
        let mut escapes = [0u16; 2];
        for freq in &mut escapes[..kind.n_escapes()] {
            let n_bits = bits.get(4)?;
            let below_top = n_bits.saturating_sub(1);
            *freq =
                u16::try_from(if n_bits == 0 { 0 } else { 1 << below_top | bits.get(below_top)? }).ok()?;
        }
        let escaped = usize::from(escapes[0]) + usize::from(escapes[1]);
        // A single symbol without escapes would have a frequency of 4096.
        if range.len() + escaped > SLOTS || range.len() + escaped < 2 {
            return None;
        }
        let mut levels = [0i32; 256];
        for symbol in range.outwards() {
            let residual = match get_rice(bits, parameter, RAW_BITS)? {
                Rice::Coded(code) | Rice::Raw(code) => unzigzag(code),
            };
            let level = predict(range, &levels, first_levels.as_ref(), symbol) + residual;
            if level.abs() > MAX_LEVEL {
                return None;
            }
            levels[symbol] = level;
        }
        freqs.push(frequencies(range, &levels, precision, escapes));
        first_levels.get_or_insert(levels);
    }
    Some((range, freqs))
}

/// The range around the commonest symbol in which it pays to give every symbol slots of its own.
fn choose_range(counts: &[[u32; 256]]) -> Range {
    let count = |symbol: u8| counts.iter().map(|counts| u64::from(counts[usize::from(symbol)])).sum::<u64>();
    let total: u64 = (0..=255).map(count).sum();
    let symbols = ESCAPE + 1..=ODD_ESCAPE - 1;
    // Of equal ones the nearest to the middle, where zero is.
    let center =
        symbols.clone().max_by_key(|&s| (count(s), std::cmp::Reverse(s.abs_diff(128)))).unwrap_or(128);
    let log2_total = u64::from(log2_fast_q16(u32::try_from(total).unwrap_or(u32::MAX)));
    // Gain in bits/65536, negative where the symbol's slot and its place in the table cost more than escapes do.
    let gain = |symbol: u8| {
        let count = count(symbol);
        let own = (log2_total
            - u64::from(log2_fast_q16(u32::try_from(count).unwrap_or(u32::MAX))).min(log2_total))
        .min(12 << 16);
        let benefit = count * (((12 + ESCAPE_BITS) << 16) - own);
        // A slot is forced on what has less than one: 1.44 bits for each symbol of 4096 that are then short of it.
        let forced = (total.saturating_sub(count * SLOTS as u64) * 94_548) >> 12;
        benefit.cast_signed() - forced.cast_signed() - (counts.len() as i64) * (1 << 16)
    };
    // The end of the run from the centre on with the largest gain.
    let reach = |run: &mut dyn Iterator<Item = u8>| {
        let (mut sum, mut best, mut end) = (0, 0, center);
        for symbol in run {
            sum += gain(symbol);
            if sum > best {
                (best, end) = (sum, symbol);
            }
        }
        end
    };
    let last = reach(&mut (center + 1..=*symbols.end()));
    let first = reach(&mut (*symbols.start()..center).rev());
    Range { first, center, last }
}

/// Slots of the escapes: even ones (all, unless parities show) and odd ones.
fn escape_freqs(range: Range, counts: &[u32; 256], shows_parity: bool) -> [u16; 2] {
    let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let mut escaped = [0u64; 2];
    for (symbol, &count) in (0u8..=255).zip(counts).filter(|&(symbol, _)| !range.contains(symbol)) {
        escaped[usize::from(shows_parity && symbol % 2 == 1)] += u64::from(count);
    }
    let n_free = (SLOTS - range.len()) as u64 / if shows_parity { 2 } else { 1 };
    escaped.map(|count| {
        let share = (count * SLOTS as u64 + total / 2).checked_div(total).unwrap_or(0);
        u16::try_from(share.clamp(u64::from(count > 0), n_free)).unwrap_or(0)
    })
}

/// Levels for `counts`, each between what the count says and what is expected, where bits and loss together are least.
fn fit_levels(
    range: Range,
    counts: &[u32; 256],
    reference: Option<&Levels>,
    precision: u32,
    parameter: u32,
) -> Levels {
    let mut levels = [0; 256];
    // An absent symbol counts as half a one.
    let log2 = |symbol: usize| match counts[symbol] {
        0 => -(1i64 << 16),
        count => i64::from(log2_fast_q16(count)),
    };
    let log2_center = log2(usize::from(range.center));
    for symbol in range.outwards() {
        let exact = (((log2(symbol) - log2_center) << precision) + (1 << 15)) >> 16;
        let target = i32::try_from(exact).unwrap_or(0).clamp(-MAX_LEVEL, MAX_LEVEL);
        let predicted = predict(range, &levels, reference, symbol);
        let expected = predicted.clamp(-MAX_LEVEL, MAX_LEVEL);
        let halves = u64::from(counts[symbol].max(1)) * 2 - u64::from(counts[symbol] == 0);
        // A frequency wrong by d octaves costs ln 2 / 2 · d² bits a symbol: 22713/65536 · d².
        let loss = |level: i32| {
            let error = u64::from(level.abs_diff(target));
            (halves * error * error * 22_713) >> (2 * precision + 1)
        };
        let residual_bits =
            |level: i32| u64::from(rice_bits(zigzag(level - predicted).into(), parameter, RAW_BITS)) << 16;
        let (mut best, mut least) = (expected, loss(expected) + residual_bits(expected));
        let step = (expected - target).signum();
        let near = (0..12).map(|n| target + n * step).take_while(|&level| (expected - level) * step > 0);
        for level in near {
            if loss(level) >= least {
                // It only grows from here, and the residual takes bits besides.
                break;
            }
            let cost = loss(level) + residual_bits(level);
            // Of equal ones the nearest to what is expected.
            let is_nearer = level.abs_diff(expected) < best.abs_diff(expected);
            if cost < least || (cost == least && is_nearer) {
                (best, least) = (level, cost);
            }
        }
        levels[symbol] = best;
    }
    levels
}

#[cfg(test)]
mod tests;
