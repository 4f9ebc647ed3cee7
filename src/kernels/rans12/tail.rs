//! The last rows of a block, in which states only grow and no word is written or read.

use super::scalar::{entry, next_chain, put, step, table};
use super::{EncodeTable, LANES, Lanes, Plan, STATE_MIN, SlotTable};

/// Most rows of a tail.
const MAX_ROWS: usize = 255;

/// Encodes the tail of a block, as many of the last rows as the states have room for, and returns the rows and the states
/// in front of them.
///
/// Arguments as in [`super::encode`]. A lane begins with 2^k, with the smallest k from 0 to 16 that brings it to
/// [`STATE_MIN`] or above, and no state reaches 2^32. `None` as there, or if there are no symbols.
#[must_use]
pub fn encode_tail(
    plan: &Plan<'_>,
    tables: &[EncodeTable],
    symbols: &[u8],
    quantizers: &[u32],
) -> Option<(usize, [u32; LANES])> {
    let entry_at = |idx: usize| {
        let id = *plan.table_ids.get(idx / plan.segment_len)?;
        let quantizers = quantizers.get(idx / LANES).copied().unwrap_or(0);
        entry(plan, tables, id, quantizers, idx % LANES, *symbols.get(idx)?)
    };
    let n_rows = symbols.len().div_ceil(LANES);
    // The state of a lane that begins with `state` and takes its symbols from row `first` on.
    let grow = |lane: usize, first: usize, mut state: u64| {
        for idx in (first..n_rows).rev().map(|row| row * LANES + lane).filter(|&idx| idx < symbols.len()) {
            state = put(state, entry_at(idx)?)?;
        }
        Some(state)
    };
    let mut rows = 0;
    let mut states = [1u64; LANES];
    'rows: while rows < n_rows.min(MAX_ROWS) {
        let first = (n_rows - rows - 1) * LANES;
        let mut next = states;
        for (idx, state) in (first..symbols.len().min(first + LANES)).zip(&mut next) {
            *state = put(*state, entry_at(idx)?)?;
            if *state > u64::from(u32::MAX) {
                break 'rows;
            }
        }
        states = next;
        rows += 1;
    }
    // One row always fits: 12 bits on top of 16.
    for rows in (1..=rows).rev() {
        let first = n_rows - rows;
        let mut grown = [STATE_MIN; LANES];
        let mut fits = true;
        for (lane, state) in grown.iter_mut().enumerate() {
            let raised = (0..=16).map_while(|k| grow(lane, first, 1 << k));
            let large = raised.into_iter().find(|&x| x >= u64::from(STATE_MIN))?;
            *state = u32::try_from(large).unwrap_or(0);
            fits &= *state != 0;
        }
        if fits {
            return Some((rows, grown));
        }
    }
    None
}

/// Decodes the tail: the symbols of a block from `first` on, a multiple of [`LANES`]. `None` unless every lane ends with a
/// power of two that an encoder may begin with, or the plan does not fit.
pub fn decode_tail(
    plan: &Plan<'_>,
    tables: &[SlotTable],
    lanes: &mut Lanes,
    first: usize,
    dst: &mut [u8],
) -> Option<()> {
    if !plan.fits(first.checked_add(dst.len())?, tables.len()) {
        return None;
    }
    for (idx, row) in dst.chunks_mut(LANES).enumerate() {
        let id = *plan.table_ids.get((first + idx * LANES) / plan.segment_len)?;
        for ((symbol, state), chain) in row.iter_mut().zip(&mut lanes.states).zip(&mut lanes.chains) {
            *symbol = step(table(plan, tables, id, *chain)?, state);
            if plan.paired {
                *chain = next_chain(*chain, *symbol);
            }
        }
    }
    lanes.states.iter().all(|state| state.is_power_of_two() && *state <= STATE_MIN).then_some(())
}
