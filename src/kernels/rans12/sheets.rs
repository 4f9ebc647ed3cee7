//! Sheets of quantization indices whose columns have even sums: eight rows of a symbol for each of 64 lanes, of which the
//! last is coded by the even or the odd half of a table.

use super::{Lanes, MANY_LANES, SlotTable};
#[cfg(target_arch = "x86_64")]
use super::{x86_avx2, x86_avx512};
use crate::kernels::Isa;
use crate::kernels::prefetch::Spread;
use crate::kernels::quantize::{ROW_LEN, SHEET_LEN};

/// Which table each row uses, and the tables.
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
    fn halves(&self, n_sheets: usize) -> Option<&'a [[SlotTable; 2]]> {
        let halves = self.tables.get(self.first_half..)?.as_chunks::<2>().0;
        let ids = self.row_ids.get(..n_sheets * (SHEET_LEN / ROW_LEN))?;
        let n_tables = halves.len().min(self.first_half);
        ids.iter().all(|id| usize::from(*id) < n_tables).then_some(halves)
    }
}

const _: () = assert!(ROW_LEN == MANY_LANES);

/// Decodes sheets of symbols of [`MANY_LANES`] lanes from the front of `dst`, as many as vector loops can, and returns how many
/// these are, and how many of `words` they took. Others are left to [`super::decode`], row by row. Meanwhile `fetch` is fetched
/// from memory.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "vector loops are for x86-64"))]
pub fn decode_sheets(
    isa: Isa,
    tables: SheetTables<'_>,
    words: &[[u8; 2]],
    lanes: &mut Lanes,
    dst: &mut [u8],
    fetch: &[u8],
) -> (usize, usize) {
    let sheets = dst.as_chunks_mut().0;
    let mut fetch = Spread::over(fetch, (sheets.len() * SHEET_LEN / ROW_LEN).max(1));
    #[cfg(target_arch = "x86_64")]
    if let Some(halves) = tables.halves(sheets.len()) {
        return match isa {
            Isa::Avx512 if isa.available() => {
                // SAFETY: `available` has just tested every feature that the function enables.
                unsafe { x86_avx512::decode_sheets(tables, halves, words, lanes, sheets, &mut fetch) }
            }
            Isa::Avx2 if isa.available() => {
                // SAFETY: as above.
                unsafe { x86_avx2::decode_sheets(tables, halves, words, lanes, sheets, &mut fetch) }
            }
            _ => (0, 0),
        };
    }
    (0, 0)
}
