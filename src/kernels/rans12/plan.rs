//! Which lane and which table each symbol of a block uses.

use super::{FEW_LANES, LANES, MANY_LANES, SlotTable};
use crate::kernels::quantize::{ROW_LEN, SHEET_LEN};

/// Which lane and which table each symbol uses.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// [`LANES`], [`FEW_LANES`] or [`MANY_LANES`].
    pub n_lanes: usize,
    /// Tables come in pairs: of pair `p` table 2·p + q, where q is the quantizer in use in the lane's chain.
    pub paired: bool,
    /// Table, or pair of tables, of each symbol.
    pub table_ids: TableIds<'a>,
}

/// Which table, or pair of tables, a symbol uses.
#[derive(Debug, Clone, Copy)]
pub enum TableIds<'a> {
    /// Symbols of a segment use one.
    OfSegments {
        /// That of each segment.
        ids: &'a [u8],
        /// Symbols of a segment, a multiple of [`LANES`]; the last segment may be shorter.
        segment_len: usize,
    },
    /// Each symbol has its own. Tables are then given filled up to [`MIXED_TABLES`], or as many pairs.
    OfSymbols(&'a [u8]),
}

/// Tables, or pairs of them, that symbols may choose from one by one.
pub const MIXED_TABLES: usize = 16;

/// Tables that vector loops choose from at each symbol, if it is not one or a pair.
#[cfg(target_arch = "x86_64")]
pub(super) const MIXED: usize = MIXED_TABLES;
/// As [`MIXED`], of pairs.
#[cfg(target_arch = "x86_64")]
pub(super) const MIXED_PAIRS: usize = 2 * MIXED_TABLES;

/// Whether `n` tables that belong together are pairs.
#[cfg(target_arch = "x86_64")]
pub(super) const fn is_paired(n: usize) -> bool {
    matches!(n, 2 | MIXED_PAIRS)
}

impl Plan<'_> {
    /// Whether the plan fits `n_symbols` symbols and `n_tables` tables.
    pub(super) fn fits(&self, n_symbols: usize, n_tables: usize) -> bool {
        let n_choices = if self.paired { n_tables / 2 } else { n_tables };
        let exist = |ids: &[u8]| usize::from(ids.iter().fold(0, |max, &id| id.max(max))) < n_choices;
        let has_tables = match self.table_ids {
            TableIds::OfSegments { ids, segment_len } => {
                segment_len > 0
                    && segment_len.is_multiple_of(self.n_lanes.max(LANES))
                    && ids.len() >= n_symbols.div_ceil(segment_len)
                    && exist(ids)
            }
            TableIds::OfSymbols(ids) => ids.len() >= n_symbols && n_choices >= MIXED_TABLES && exist(ids),
        };
        has_tables
            && (matches!(self.n_lanes, LANES | FEW_LANES) || self.n_lanes == MANY_LANES && !self.paired)
    }

    /// Id of the table of symbol `idx`.
    #[inline(always)]
    pub(super) fn table_id(&self, idx: usize) -> Option<u8> {
        match self.table_ids {
            TableIds::OfSegments { ids, segment_len } => ids.get(idx / segment_len).copied(),
            TableIds::OfSymbols(ids) => ids.get(idx).copied(),
        }
    }

    /// Length of a segment, and the ids that go with it: for vector loops all symbols with ids of their own are one segment,
    /// whose table is the first of all.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn segments(&self) -> (&[u8], usize) {
        match self.table_ids {
            TableIds::OfSegments { ids, segment_len } => (ids, segment_len),
            TableIds::OfSymbols(_) => (&[0], 1 << 31),
        }
    }

    /// The ids of the row of `R` symbols from `first` on.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn row_ids<const R: usize>(&self, first: usize) -> Option<&[u8; R]> {
        match self.table_ids {
            TableIds::OfSegments { .. } => None,
            TableIds::OfSymbols(ids) => ids.get(first..)?.first_chunk(),
        }
    }

    /// The symbols of `dst` from `first` on by segments, each with its table's id; the first may be what is left of one.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn segments_from<'d>(
        &self,
        first: usize,
        dst: &'d mut [u8],
    ) -> impl Iterator<Item = (&'d mut [u8], u8)> {
        let (ids, segment_len) = self.segments();
        let segment_idx = first / segment_len;
        let left_len = (segment_idx + 1) * segment_len - first;
        let rest = dst.get_mut(first..).unwrap_or_default();
        let (left, whole) = rest.split_at_mut(left_len.min(rest.len()));
        let segments = std::iter::once(left).chain(whole.chunks_mut(segment_len));
        segments.zip(ids.get(segment_idx..).unwrap_or_default().iter().copied())
    }

    /// Whether symbols have ids of their own, tables come in pairs, and lanes are many.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn kind(&self) -> (bool, bool, bool) {
        (matches!(self.table_ids, TableIds::OfSymbols(_)), self.paired, self.n_lanes == MANY_LANES)
    }
}

/// The tables of sheets of quantization indices whose columns have even sums ([`SHEET_LEN`]): eight rows of a symbol for each of
/// 64 lanes, of which the last is coded by the even or the odd half of a table.
#[derive(Debug, Clone, Copy)]
pub struct SheetTables<'a> {
    /// Table of each row.
    pub row_ids: &'a [u8],
    /// The tables, and from `first_half` on, which is even, an even half and an odd half of each.
    pub tables: &'a [SlotTable],
    /// Where halves begin.
    pub first_half: usize,
}

impl<'a> SheetTables<'a> {
    /// The halves, if every row of `n_sheets` has a table, and that halves.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn halves(&self, n_sheets: usize) -> Option<&'a [[SlotTable; 2]]> {
        let halves = self.tables.get(self.first_half..)?.as_chunks::<2>().0;
        let ids = self.row_ids.get(..n_sheets * (SHEET_LEN / ROW_LEN))?;
        let n_tables = halves.len().min(self.first_half);
        ids.iter().all(|id| usize::from(*id) < n_tables).then_some(halves)
    }
}

const _: () = assert!(ROW_LEN == MANY_LANES);
