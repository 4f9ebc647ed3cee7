//! The definition of the coder, one symbol at a time.

use super::{EncodeTable, Encoded, FREQ_SUM, GROUP_LEN, Plan, Position, SLACK_BYTES, STATE_MIN, Table, Tile};

/// What one slot decodes to: `freq | bias << 8 | value << 16 | is_escape << 24`.
type Slots = [u32; FREQ_SUM];

/// The slots of a block's tables, made when first needed.
#[derive(Debug, Default)]
pub(super) struct SlotCache(Vec<Option<Box<Slots>>>);

impl SlotCache {
    fn get(&mut self, tables: &[Table], id: usize) -> Option<&Slots> {
        self.0.resize_with(tables.len(), || None);
        let table = tables.get(id)?;
        Some(self.0.get_mut(id)?.get_or_insert_with(|| Box::new(slots(table))))
    }
}

fn slots(table: &Table) -> Slots {
    let mut slots = [0; FREQ_SUM];
    for (slot, packed) in (0u8..=255).zip(&mut slots) {
        let entry = table.slot_to_entry[usize::from(slot)];
        let at = usize::from(entry);
        *packed = u32::from_le_bytes([
            table.freq[at],
            slot - table.cum[at],
            table.value[at],
            u8::from(entry + 1 == table.n_entries),
        ]);
    }
    slots
}

/// Position of the symbol of lane `lane` (A's 32, then B's 32) in its group.
fn symbol_of_lane(lane: usize) -> usize {
    (lane % 32) * 2 + lane / 32
}

/// Decodes from `position` to the end of the tile; `None` if stream or escapes run out.
pub(super) fn decode(
    tile: &mut Tile<'_, '_>,
    states: &mut [u16],
    position: &mut Position,
    cache: &mut SlotCache,
) -> Option<()> {
    let step = tile.plan.groups * GROUP_LEN;
    while position.symbol < tile.first + tile.dst.len() {
        let id = usize::from(*tile.plan.table_ids.get(position.symbol / tile.plan.segment_len)?);
        let slots = cache.get(tile.plan.tables, id)?;
        let at = position.symbol - tile.first;
        let dst = tile.dst.get_mut(at..at + step)?;
        for (states, dst) in states.chunks_exact_mut(GROUP_LEN).zip(dst.chunks_exact_mut(GROUP_LEN)) {
            let states: &mut [u16; GROUP_LEN] = states.try_into().ok()?;
            let dst: &mut [u8; GROUP_LEN] = dst.try_into().ok()?;
            let ahead = tile.stream.get(position.stream..)?;
            // 64: the most that a group takes. Near the end it gets a copy with zeros behind, and what it takes is checked.
            let taken = match ahead.first_chunk::<GROUP_LEN>() {
                Some(window) => decode_group(slots, states, window, tile.escapes, dst, &mut position.escape)?,
                None => {
                    let mut window = [0; GROUP_LEN];
                    window[..ahead.len()].copy_from_slice(ahead);
                    decode_group(slots, states, &window, tile.escapes, dst, &mut position.escape)?
                }
            };
            position.stream += taken;
            if taken > ahead.len() {
                return None;
            }
        }
        position.symbol += step;
    }
    Some(())
}

/// Decodes one group and returns how many bytes of `window` it took.
#[inline]
fn decode_group(
    slots: &Slots,
    states: &mut [u16; GROUP_LEN],
    window: &[u8; GROUP_LEN],
    escapes: &[u8],
    dst: &mut [u8; GROUP_LEN],
    escape_at: &mut usize,
) -> Option<usize> {
    let mut taken = 0usize;
    let mut is_escape = [0u8; GROUP_LEN];
    let mut any_escape = 0u32;
    for (lane, state) in states.iter_mut().enumerate() {
        let packed = slots[usize::from(*state & 0xff)];
        let [freq, bias, value, escape] = packed.to_le_bytes();
        let x = u32::from(freq) * u32::from(*state >> 8) + u32::from(bias);
        let needs_byte = u32::from(x < u32::from(STATE_MIN));
        let byte = u32::from(window[taken & (GROUP_LEN - 1)]) & needs_byte.wrapping_neg();
        // 8 or 0: no branch.
        let [low, high, ..] = (x << (needs_byte << 3) | byte).to_le_bytes();
        *state = u16::from_le_bytes([low, high]);
        taken += needs_byte as usize;
        let at = symbol_of_lane(lane);
        dst[at] = value;
        is_escape[at] = escape;
        any_escape |= packed;
    }
    if any_escape >> 24 != 0 {
        for (symbol, _) in dst.iter_mut().zip(is_escape).filter(|(_, escape)| *escape != 0) {
            *symbol = *escapes.get(*escape_at)?;
            *escape_at += 1;
        }
    }
    Some(taken)
}

/// Encodes all of `symbols`; the caller has checked the plan and the buffers.
pub(super) fn encode(
    plan: &Plan<'_, EncodeTable>,
    symbols: &[u8],
    states: &mut [u16],
    stream: &mut [u8],
    escapes: &mut [u8],
) -> Encoded {
    let mut stream_at = stream.len() - SLACK_BYTES;
    let mut escapes_at = escapes.len() - SLACK_BYTES;
    for (segment_idx, segment) in symbols.chunks(plan.segment_len).enumerate().rev() {
        let table = &plan.tables[usize::from(plan.table_ids[segment_idx])];
        for (group_idx, group) in segment.chunks_exact(GROUP_LEN).enumerate().rev() {
            for &symbol in group.iter().rev().filter(|&&symbol| !table.contains(symbol)) {
                escapes_at -= 1;
                escapes[escapes_at] = symbol;
            }
            let first_lane = (group_idx % plan.groups) * GROUP_LEN;
            for lane in (0..GROUP_LEN).rev() {
                let entry = usize::from(table.entry_of[usize::from(group[symbol_of_lane(lane)])]);
                let x = states[first_lane + lane];
                let is_full = x >= table.threshold[entry];
                // Written in any case, kept only if the state was full: no branch.
                stream[stream_at - 1] = x.to_le_bytes()[0];
                stream_at -= usize::from(is_full);
                let x = x >> (u16::from(is_full) << 3);
                let [_, _, _, quotient, ..] =
                    (u64::from(x) * u64::from(table.reciprocal[entry])).to_le_bytes();
                let cum = table.cum[entry];
                states[first_lane + lane] =
                    x + u16::from(quotient) * table.complement[entry] + u16::from(cum);
            }
        }
    }
    Encoded { stream_start: stream_at, escapes_start: escapes_at }
}
