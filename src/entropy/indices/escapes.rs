//! Indices out of their table's range: how far out, as Rice codes.

use super::super::log_freq::Range;
use crate::bits::{BitReader, BitWriter, MAX_RICE_PARAMETER, Rice, get_rice, put_rice, rice_bits};
use crate::kernels::index_split::SYMBOL_BIAS;

/// Bits of a raw value.
const RAW_BITS: u32 = 32;

/// Index without its low bits, and how far out of the range it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Escape {
    high: i32,
    distance: u64,
}

/// Distance from the range, doubled, and one more on the left of it.
fn distance(range: Range, high: i32) -> u64 {
    let high = i64::from(high);
    let [first, last] = [range.first, range.last].map(|symbol| i64::from(symbol) - i64::from(SYMBOL_BIAS));
    let code = if high > last { 2 * (high - last - 1) } else { 2 * (first - 1 - high) + 1 };
    code.unsigned_abs()
}

/// The inverse of [`distance`].
fn high_part(range: Range, distance: u32) -> Option<i32> {
    let outside = i64::from(distance >> 1) + 1;
    let [first, last] = [range.first, range.last].map(|symbol| i64::from(symbol) - i64::from(SYMBOL_BIAS));
    i32::try_from(if distance & 1 == 0 { last + outside } else { first - outside }).ok()
}

impl Escape {
    pub(super) fn new(range: Range, high: i32) -> Self {
        Self { high, distance: distance(range, high) }
    }
}

/// Appends the section: the Rice parameter (1 byte) and the codes.
pub(super) fn write(escapes: &[Escape], dst: &mut Vec<u8>) {
    let cost =
        |k: u32| escapes.iter().map(|escape| u64::from(rice_bits(escape.distance, k, RAW_BITS))).sum::<u64>();
    // From the length of the longest distance on, all quotients are zero, and codes only grow with the parameter.
    let longest = escapes.iter().map(|escape| escape.distance).max().unwrap_or(0);
    let most = (u64::BITS - longest.leading_zeros()).min(MAX_RICE_PARAMETER);
    let parameter = (0..=most).min_by_key(|&k| cost(k)).unwrap_or(0);
    dst.push(parameter.to_le_bytes()[0]);
    let mut bits = BitWriter::new(dst);
    for escape in escapes {
        put_rice(&mut bits, escape.distance, parameter, escape.high.cast_unsigned(), RAW_BITS);
    }
    bits.finish();
}

/// Reads the escapes of a section one by one.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bits: BitReader<'a>,
    parameter: u32,
}

impl<'a> Reader<'a> {
    /// A reader of all of `section`; an empty one holds no escapes.
    pub(super) fn new(section: &'a [u8]) -> Option<Self> {
        let parameter = u32::from(*section.first().unwrap_or(&0));
        let bits = BitReader::new(section.get(1..).unwrap_or_default());
        (parameter <= MAX_RICE_PARAMETER).then_some(Self { bits, parameter })
    }

    /// The next index without its low bits, which lies out of `range`.
    pub(super) fn next(&mut self, range: Range) -> Option<i32> {
        match get_rice(&mut self.bits, self.parameter, RAW_BITS)? {
            Rice::Coded(distance) => high_part(range, distance),
            Rice::Raw(high) => Some(high.cast_signed()),
        }
    }

    /// Whether there are no more.
    pub(super) fn is_exhausted(&self) -> bool {
        self.bits.is_exhausted()
    }
}
