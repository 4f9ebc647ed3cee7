//! How the elements of a block are cut into fields.

use crate::dtype::Dtype;
use crate::entropy::freq::{entropy_q16, normalise};
use crate::kernels::fields::{Layout, OUTLIER, Word};
use crate::kernels::survey::or_and;
use crate::stage::{Level, sample};

/// Exponent bits of a float type.
fn exponent_bits(dtype: Dtype) -> Option<u32> {
    match dtype {
        Dtype::F64 => Some(11),
        Dtype::F32 | Dtype::Bf16 | Dtype::C64 => Some(8),
        Dtype::F16 | Dtype::F8E5m2 => Some(5),
        Dtype::F8E4m3 => Some(4),
        _ => None,
    }
}

/// The layout for a block, `None` where fields are no way to code it.
pub(super) fn choose(dtype: Dtype, bytes: &[u8], level: Level) -> Option<Layout> {
    // A complex number is two floats of half its size.
    let element_bytes = if dtype == Dtype::C64 { 4 } else { dtype.unit_bytes() };
    let element_bits = u32::try_from(8 * element_bytes).ok()?;
    let plain = |symbol_bits| Layout {
        element_bits,
        symbol_bits,
        has_sign: false,
        shared_sign: None,
        low_zero_bits: 0,
        symbol_base: 0,
    };
    match exponent_bits(dtype) {
        Some(exponent_bits) => Some(float_layout(plain(exponent_bits), bytes, level)),
        None => match dtype {
            Dtype::Bytes => None,
            Dtype::F8E8m0 | Dtype::Bool => Some(plain(8)),
            // Eight neighbouring values of a quantised weight are about equally common.
            Dtype::I8 => Some(plain(5)),
            _ => Some(integer_layout(plain(0), bytes)),
        },
    }
}

/// The layout for integers: a plane for each of their bytes or, where these are alike, as of small numbers packed into
/// large ones, one for all.
fn integer_layout(plain: Layout, bytes: &[u8]) -> Layout {
    /// What a coded plane has besides its codes: entry, states, which bytes occur.
    const PLANE_BYTES: u64 = 5 + 128 + 32;
    let element_bytes = plain.element_bits as usize / 8;
    if element_bytes == 1 {
        return plain;
    }
    let mut planes = vec![[0u32; 256]; element_bytes];
    for element in bytes.chunks_exact(element_bytes) {
        planes.iter_mut().zip(element).for_each(|(counts, &byte)| counts[usize::from(byte)] += 1);
    }
    // Bits of what is counted, with its table, in 1/65536.
    let cost_q16 = |counts: &[u32; 256]| {
        let (n, n_values) = counts
            .iter()
            .fold((0, 0), |(n, n_values), &count| (n + u64::from(count), n_values + u64::from(count > 0)));
        // A plane of one byte is that byte.
        let table = if n_values > 1 { (PLANE_BYTES + n_values) << (3 + 16) } else { 0 };
        n * entropy_q16(counts) + table
    };
    let together = std::array::from_fn(|byte| planes.iter().map(|counts| counts[byte]).sum());
    if cost_q16(&together) < planes.iter().map(cost_q16).sum() {
        return Layout { element_bits: 8, ..plain };
    }
    plain
}

/// The layout of floats as mere bytes, for exponents that lie too far apart for symbols; `None` for other dtypes.
pub(super) fn as_bytes(dtype: Dtype) -> Option<Layout> {
    let element_bits = u32::try_from(8 * dtype.float_bytes()?).ok()?;
    let plain = Layout {
        element_bits,
        symbol_bits: 0,
        has_sign: false,
        shared_sign: None,
        low_zero_bits: 0,
        symbol_base: 0,
    };
    Some(plain)
}

/// The layout for floats: the symbol is the exponent, and the top mantissa bit where that pays.
fn float_layout(plain: Layout, bytes: &[u8], level: Level) -> Layout {
    let element_bits = plain.element_bits;
    let sign = 1u64 << (element_bits - 1);
    // A few elements mostly show that nothing is constant; only if they do not, all are looked at.
    let element_bytes = element_bits as usize / 8;
    let few = or_and(&bytes[..bytes.len().min(64 * element_bytes)], element_bytes);
    let all_vary = few.0 & 1 == 1 && few.0 & sign != 0 && few.1 & sign == 0;
    let (any, all) = if all_vary { few } else { or_and(bytes, element_bytes) };
    let shared_sign = match (any & sign != 0, all & sign != 0) {
        (true, false) => None,
        (_, is_negative) => Some(is_negative),
    };
    let with_symbol = |symbol_bits: u32| {
        let rest_bits = element_bits - 1 - symbol_bits;
        Layout {
            symbol_bits,
            has_sign: true,
            shared_sign,
            low_zero_bits: any.trailing_zeros().min(rest_bits),
            ..plain
        }
    };
    let mut joint = with_symbol(plain.symbol_bits + 1);
    let counts = count_sample(&joint, bytes);
    if joint.is_windowed() {
        joint.symbol_base = window(&counts);
    }
    if plain.symbol_bits > 8 {
        // An 11-bit exponent needs the window either way.
        return joint;
    }
    let exponent = with_symbol(plain.symbol_bits);
    // The top mantissa bit costs a whole bit where it is not part of the symbol.
    let max_symbols = if level == Level::High { 63 } else { 31 };
    // Symbols that the window leaves out cost 16 bits: of numbers too small to be normal every other one is left out.
    let in_window = windowed(&joint, &counts);
    let outlier_cost = u64::from(in_window[usize::from(OUTLIER)]) << (4 + 16);
    let outlier_cost = if joint.is_windowed() { outlier_cost } else { 0 };
    let joint_cost = normalise(&in_window, max_symbols).cost_q16 + outlier_cost;
    let halved: Vec<u32> = counts.chunks(2).map(|pair| pair.iter().sum()).collect();
    let n_sampled: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let exponent_cost = normalise(&windowed(&exponent, &halved), max_symbols).cost_q16 + (n_sampled << 16);
    let has_many_outliers =
        joint.is_windowed() && u64::from(in_window[usize::from(OUTLIER)]) * 40 > n_sampled;
    if joint.low_zero_bits + joint.symbol_bits + 1 > element_bits
        || has_many_outliers
        || exponent_cost <= joint_cost
    {
        exponent
    } else {
        joint
    }
}

/// Counts of the symbols of a sample.
fn count_sample(layout: &Layout, bytes: &[u8]) -> Vec<u32> {
    match layout.element_bits {
        8 => count_words::<u8>(layout, bytes),
        16 => count_words::<u16>(layout, bytes),
        32 => count_words::<u32>(layout, bytes),
        _ => count_words::<u64>(layout, bytes),
    }
}

fn count_words<W: Word>(layout: &Layout, bytes: &[u8]) -> Vec<u32> {
    // Four counts of each symbol by turns, so that a symbol seldom waits for its own last addition.
    let mut counts = vec![[0; 4]; 1 << layout.symbol_bits];
    for run in sample::runs(bytes, W::BYTES) {
        for (idx, element) in run.chunks_exact(W::BYTES).enumerate() {
            counts[usize::from(layout.symbol(W::read(element)))][idx % 4] += 1;
        }
    }
    counts.into_iter().map(|by_turns| by_turns.iter().sum()).collect()
}

/// The window's offset that covers the most of `counts`; of several, the middle one.
fn window(counts: &[u32]) -> u16 {
    /// Symbols in the window, which begins 2 behind its offset.
    const LEN: usize = 254;
    let mut covered = 0u32;
    let mut best = (0, 0, 0);
    for base in 0..=counts.len().saturating_sub(LEN + 2) {
        covered = match base.checked_sub(1) {
            None => counts.iter().skip(2).take(LEN).sum(),
            Some(left) => covered - counts[left + 2] + counts[base + 1 + LEN],
        };
        if covered > best.0 || base == 0 {
            best = (covered, base, base);
        } else if covered == best.0 {
            best.2 = base;
        }
    }
    u16::try_from(usize::midpoint(best.1, best.2)).unwrap_or(0)
}

/// `counts` as they fall on windowed symbols.
fn windowed(layout: &Layout, counts: &[u32]) -> [u32; 256] {
    let mut histogram = [0; 256];
    for (symbol, &count) in counts.iter().enumerate() {
        let at = match symbol.checked_sub(layout.symbol_base.into()) {
            _ if !layout.is_windowed() => symbol,
            _ if symbol == 0 => 0,
            Some(offset @ 2..256) => offset,
            _ => 1,
        };
        histogram[at] += count;
    }
    histogram
}
