//! Quantization indices of a block: an entropy-coded symbol each, and raw low bits where steps are fine.
//!
//! The symbol is the index without its low bits, as far as it fits a byte; rarer values are escapes and written apart.
//! Symbols are coded by [`crate::kernels::rans12`] with up to 16 tables, one for each segment, or in dependent
//! quantization by as many pairs, of which the chain's state chooses. Where columns of eight indices have even sums, the last
//! of each is coded by the even or the odd half of its table, as the others say; of raw low bits its lowest is left out.
//! Tables are written as [`super::log_freq`] says.
//! FORMAT.md section 3.3.5 is the layout.
//!
//! Tables are chosen by segment, or, where that saves more, by the product of a segment's and a column's scale, both of
//! which are told. Neighbours' magnitudes, which a decoder knows anyway, would tell less: measured at 2 to 4 bits, nothing on
//! weights of digits_resnet, at most 0.7 % on MiniLM and 5 to 8 % on CREPE, where columns save 8 to 17 %.

mod column_scales;
mod columns;
mod decode;
mod encode;
mod escapes;
mod geometric;
mod low_bits;
mod low_planes;
mod plan;

pub use decode::{IndexDecoder, IndexRuns, RUN_LEN};
pub use encode::IndexEncoder;

use super::freq::log2_q16;
use super::log_freq::TableKind;
use crate::kernels::quantize::{ROW_LEN, SHEET_LEN};
use crate::kernels::rans12::{FEW_LANES, LANES, MANY_LANES};

/// The index of an element that is not quantized: whoever uses the indices knows its value from elsewhere.
pub use crate::kernels::quantize::ESCAPE;

/// What indices tell of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dependence {
    /// Nothing.
    #[default]
    None,
    /// In every whole sheet of 512 the eight of a column have an even sum ([`crate::kernels::quantize::SHEET_LEN`]).
    EvenSums,
    /// They are of dependent quantization, with a chain for each of 32 lanes, index `i` in lane `i mod 32`.
    Chains,
}

impl Dependence {
    /// What tables are like for indices of which `low_bits` stay raw.
    fn table_kind(self, low_bits: u32) -> TableKind {
        match self {
            Self::EvenSums if low_bits == 0 => TableKind::Halved,
            Self::Chains if low_bits == 0 => TableKind::Paired,
            _ => TableKind::Single,
        }
    }

    /// Whether the lowest of `low_bits` follows from others in one of eight indices.
    fn has_sums(self, low_bits: u32) -> bool {
        self == Self::EvenSums && low_bits > 0
    }
}

/// Where the last row of a sheet begins.
const LAST_ROW: usize = SHEET_LEN - ROW_LEN;
/// Bytes of the lowest bits of a sheet's rows but the last.
const SUMS_BYTES: usize = LAST_ROW / 8;

/// Bytes of the lowest bits of `n` indices with even sums.
fn sums_len(n: usize) -> usize {
    n / SHEET_LEN * SUMS_BYTES + (n % SHEET_LEN).div_ceil(8)
}

/// Most tables, or pairs of tables.
const MAX_TABLES: usize = 16;
/// Most tables with halves where columns too have a say: so that of the halves, too, there are no more than 16.
const MAX_HALVED_TABLES: usize = 8;
/// Log2 of the shortest segment.
const MIN_SEGMENT_LOG2: u32 = 6;

/// Header flag: some indices are escaped, and their section follows the head.
const HAS_ESCAPES: u8 = 1 << 5;
/// Header flag: all symbols are one and the same.
const IS_CONSTANT: u8 = 1 << 6;

/// Header flag: 8 lanes instead of 32 or 64.
const HAS_FEW_LANES: u8 = 1 << 7;
/// Least indices that are coded with 64 lanes, whose states take some 45 bytes more than those of 32.
const LEAST_LEN_OF_MANY_LANES: usize = 1 << 17;

/// Lanes of a section of `n` indices with this head and tables of this kind.
fn n_lanes(head: u8, n: usize, kind: TableKind) -> usize {
    match head & HAS_FEW_LANES {
        0 if n >= LEAST_LEN_OF_MANY_LANES && kind != TableKind::Paired => MANY_LANES,
        0 => LANES,
        _ => FEW_LANES,
    }
}

/// Flag beside the segments' length: columns too have a say in which table an index uses.
const HAS_COLUMNS: u8 = 1 << 7;

/// Bits of a table id.
fn id_bits(n_tables: usize) -> u32 {
    n_tables.next_power_of_two().ilog2()
}

/// Symbols of a segment; a single table has one segment without end.
fn segment_len(n_tables: usize, log2: u32) -> usize {
    if n_tables == 1 { 1 << 31 } else { 1 << log2 }
}

/// Bits that an entropy coder with tables of these counts spends on each value, in bits; what does not occur costs as much
/// as half an occurrence would.
#[must_use]
pub fn bits_per_symbol(counts: &[u32]) -> Vec<f32> {
    let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    // Twice the counts, so that a half is 1; of more than 32 bits the top ones.
    let log2 = |doubled: u64| {
        let shift = doubled.max(1).ilog2().saturating_sub(31);
        log2_q16(u32::try_from(doubled >> shift).unwrap_or(u32::MAX)) + (shift << 16)
    };
    let log2_total = log2(2 * total);
    let cost = |&count: &u32| {
        let bits_q16 = log2_total.saturating_sub(log2((2 * u64::from(count)).max(1)));
        // Exact: below 2^22.
        bits_q16 as f32 / 65_536.0
    };
    counts.iter().map(cost).collect()
}

#[cfg(test)]
mod tests;
