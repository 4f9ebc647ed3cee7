//! The definition of the coder, one symbol at a time.

use super::{EncodeTable, LANES, Lanes, Plan, Position, SCALE_BITS, SLOTS, STATE_MIN, SlotTable, States};
use crate::kernels::trellis::NEXT_STATE;

/// Decodes one symbol without taking a word.
#[inline(always)]
pub(super) fn step(slots: &SlotTable, state: &mut u32) -> u8 {
    let slot = slots[*state as usize & (SLOTS - 1)];
    *state = (slot >> 20) * (*state >> SCALE_BITS) + (slot >> 8 & 0xfff);
    slot.to_le_bytes()[0]
}

/// The table of an id and a chain's state.
#[inline(always)]
pub(super) fn table<'t, T>(plan: &Plan<'_>, tables: &'t [T], id: u8, chain: u8) -> Option<&'t T> {
    let id = usize::from(id);
    tables.get(if plan.paired { 2 * id + usize::from(chain & 1) } else { id })
}

/// The chain's state after `symbol`.
#[inline(always)]
pub(super) fn next_chain(chain: u8, symbol: u8) -> u8 {
    NEXT_STATE[usize::from(chain & 7)][usize::from(symbol & 1)]
}

/// Decodes from `position` to the end of `dst`; how many words are used up then. `None` if they run out.
pub(super) fn decode(
    plan: &Plan<'_>,
    tables: &[SlotTable],
    words: &[[u8; 2]],
    lanes: &mut Lanes,
    position: Position,
    dst: &mut [u8],
) -> Option<usize> {
    let mut rest = words.get(position.word..)?.iter();
    let rows = dst.get_mut(position.symbol..)?.chunks_mut(LANES);
    for (first, row) in (position.symbol..).step_by(LANES).zip(rows) {
        for (idx, (symbol, chain)) in row.iter_mut().zip(&mut lanes.chains).enumerate() {
            let state = &mut lanes.states[(first + idx) & (plan.n_lanes - 1)];
            *symbol = step(table(plan, tables, plan.table_id(first + idx)?, *chain)?, state);
            if *state < STATE_MIN {
                *state = *state << 16 | u32::from(u16::from_le_bytes(*rest.next()?));
            }
            if plan.paired {
                *chain = next_chain(*chain, *symbol);
            }
        }
    }
    Some(words.len() - rest.len())
}

/// Puts a symbol into a state; `None` if it has no frequency. A state of 64 bits shows where 32 would not do.
#[inline(always)]
pub(super) fn put(state: u64, packed: u32) -> Option<u64> {
    let (freq, cum) = (u64::from(packed & 0xffff), u64::from(packed >> 16));
    let quotient = state.checked_div(freq)?;
    Some((quotient << SCALE_BITS) + (state - quotient * freq) + cum)
}

/// The encoder's entry for symbol `idx` of a row.
#[inline(always)]
pub(super) fn entry(
    plan: &Plan<'_>,
    tables: &[EncodeTable],
    id: u8,
    quantizers: u32,
    idx: usize,
    symbol: u8,
) -> Option<u32> {
    let chain = u8::from(quantizers >> idx & 1 == 1);
    Some(table(plan, tables, id, chain)?[usize::from(symbol)])
}

/// Encodes `symbols`, the rows of the block from `first_row` on, to words in front of `at`.
#[expect(clippy::too_many_arguments, reason = "as the function it defines, and where to go on")]
pub(super) fn encode(
    plan: &Plan<'_>,
    tables: &[EncodeTable],
    symbols: &[u8],
    first_row: usize,
    quantizers: &[u32],
    states: &mut States,
    buffer: &mut [u8],
    mut at: usize,
) -> Option<usize> {
    for (row_idx, row) in symbols.chunks(LANES).enumerate().rev() {
        let row_idx = first_row + row_idx;
        let quantizers = quantizers.get(row_idx).copied().unwrap_or(0);
        for (idx, &symbol) in row.iter().enumerate().rev() {
            let place = row_idx * LANES + idx;
            let packed = entry(plan, tables, plan.table_id(place)?, quantizers, idx, symbol)?;
            let state = &mut states[place & (plan.n_lanes - 1)];
            // 20: a state of 32 bits takes a symbol while it is below freq · 2^(32 − 12).
            if u64::from(*state) >= u64::from(packed & 0xffff) << 20 {
                let [low, high, ..] = state.to_le_bytes();
                at -= 2;
                buffer[at..at + 2].copy_from_slice(&[low, high]);
                *state >>= 16;
            }
            *state = u32::try_from(put(u64::from(*state), packed)?).ok()?;
        }
    }
    Some(at)
}

pub(super) fn trace_quantizers(symbols: &[u8], quantizers: &mut Vec<u32>) {
    let mut chains = [0u8; LANES];
    for row in symbols.chunks(LANES) {
        let bits = chains.iter().rev().fold(0, |bits, &chain| bits << 1 | u32::from(chain & 1));
        quantizers.push(bits);
        for (chain, &symbol) in chains.iter_mut().zip(row) {
            *chain = next_chain(*chain, symbol);
        }
    }
}
