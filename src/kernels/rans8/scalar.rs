//! The definition of the coder, a group at a time in portable loops: look-ups by symbol, arithmetic that compilers turn into
//! vector code, and a walk over the few lanes that take a byte.

use super::{EncodeTable, Encoded, FREQ_SUM, GROUP_LEN, Plan, Position, SLACK_BYTES, STATE_MIN, Table, Tile};

/// What one table's slots decode to.
#[derive(Debug)]
struct Slots {
    /// `freq | bias << 8 | value << 16`.
    packed: [u32; FREQ_SUM],
    /// The escape is the last entry, so its slots are those from this one on.
    first_escape: u16,
}

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
    let mut packed = [0; FREQ_SUM];
    for (slot, packed) in (0u8..=255).zip(&mut packed) {
        let at = usize::from(table.slot_to_entry[usize::from(slot)]);
        *packed = u32::from_le_bytes([table.freq[at], slot - table.cum[at], table.value[at], 0]);
    }
    Slots { packed, first_escape: u16::from(table.cum[table.n_entries() - 1]) }
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
    let mut freq_bias = [0u16; GROUP_LEN];
    let (pairs, _) = dst.as_chunks_mut::<2>();
    for (lane, pair) in pairs.iter_mut().enumerate() {
        for (lane, symbol) in [lane, lane + GROUP_LEN / 2].into_iter().zip(pair) {
            let [freq, bias, value, _] = slots.packed[usize::from(states[lane] & 0xff)].to_le_bytes();
            freq_bias[lane] = u16::from_le_bytes([freq, bias]);
            *symbol = value;
        }
    }
    let is_escape = states.map(|state| u8::from(state & 0xff >= slots.first_escape));
    if is_escape.iter().fold(0, |any, &is_escape| any | is_escape) > 0 {
        place_escapes(bits_of(&is_escape), pairs, escapes, escape_at)?;
    }
    let mut is_small = [0u8; GROUP_LEN];
    for ((state, freq_bias), is_small) in states.iter_mut().zip(freq_bias).zip(&mut is_small) {
        *state = (freq_bias & 0xff).wrapping_mul(*state >> 8).wrapping_add(freq_bias >> 8);
        *is_small = u8::from(*state < STATE_MIN);
    }
    let (mut small, mut taken) = (bits_of(&is_small), 0);
    while small != 0 {
        let lane = small.trailing_zeros() as usize & (GROUP_LEN - 1);
        states[lane] = states[lane] << 8 | u16::from(window[taken & (GROUP_LEN - 1)]);
        taken += 1;
        small &= small - 1;
    }
    Some(taken)
}

/// Puts the next escapes into the symbols of the lanes set in `escaped`; `pairs` are the symbols of a lane of A and of B.
fn place_escapes(escaped: u64, pairs: &mut [[u8; 2]], escapes: &[u8], at: &mut usize) -> Option<()> {
    let (of_a, of_b) = (escaped & 0xffff_ffff, escaped >> 32);
    let mut lanes = of_a | of_b;
    while lanes != 0 {
        let lane = lanes.trailing_zeros();
        for (symbol, mask) in pairs.get_mut(lane as usize)?.iter_mut().zip([of_a, of_b]) {
            if mask >> lane & 1 == 1 {
                *symbol = *escapes.get(*at)?;
                *at += 1;
            }
        }
        lanes &= lanes - 1;
    }
    Some(())
}

/// A bit for each byte, which is 0 or 1.
#[inline]
fn bits_of(bytes: &[u8; GROUP_LEN]) -> u64 {
    let eights = bytes.as_chunks::<8>().0.iter();
    // The factor brings byte j's bit to bit 56 + j, and no two of its products meet.
    eights.rev().fold(0, |bits, eight| {
        bits << 8 | u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56
    })
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
                let freq = u16::from(table.freq[entry]);
                let is_full = x >= freq << 8;
                // Written in any case, kept only if the state was full: no branch.
                stream[stream_at - 1] = x.to_le_bytes()[0];
                stream_at -= usize::from(is_full);
                let x = x >> (u16::from(is_full) << 3);
                let [_, _, _, quotient, ..] =
                    (u64::from(x) * u64::from(table.reciprocal[entry])).to_le_bytes();
                let cum = table.cum[entry];
                states[first_lane + lane] = x + u16::from(quotient) * (256 - freq) + u16::from(cum);
            }
        }
    }
    Encoded { stream_start: stream_at, escapes_start: escapes_at }
}
