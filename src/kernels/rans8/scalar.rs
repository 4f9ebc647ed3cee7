//! The definition of the coder, one symbol at a time.

use super::{EncodeTable, Encoded, FREQ_SUM, GROUP_LEN, Plan, Position, SLACK_BYTES, STATE_MIN, Table};

/// What one slot decodes to: `freq | bias << 8 | value << 16 | is_escape << 24`.
type Slots = [u32; FREQ_SUM];

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

/// Decodes from `position` to the end of `dst`; `None` if stream or escapes run out.
pub(super) fn decode(
    plan: &Plan<'_, Table>,
    states: &mut [u16],
    stream: &[u8],
    escapes: &[u8],
    dst: &mut [u8],
    position: &mut Position,
) -> Option<()> {
    let step = plan.groups * GROUP_LEN;
    let mut table_id = usize::MAX;
    let mut slots = [0; FREQ_SUM];
    while position.symbol < dst.len() {
        let id = usize::from(*plan.table_ids.get(position.symbol / plan.segment_len)?);
        if id != table_id {
            table_id = id;
            slots = self::slots(plan.tables.get(id)?);
        }
        let dst = dst.get_mut(position.symbol..position.symbol + step)?;
        for (states, dst) in states.chunks_exact_mut(GROUP_LEN).zip(dst.chunks_exact_mut(GROUP_LEN)) {
            decode_group(&slots, states, stream, escapes, dst, position)?;
        }
        position.symbol += step;
    }
    Some(())
}

#[inline]
fn decode_group(
    slots: &Slots,
    states: &mut [u16],
    stream: &[u8],
    escapes: &[u8],
    dst: &mut [u8],
    position: &mut Position,
) -> Option<()> {
    let states: &mut [u16; GROUP_LEN] = states.try_into().ok()?;
    let dst: &mut [u8; GROUP_LEN] = dst.try_into().ok()?;
    let mut escaped = 0u64;
    // 64: the most that a group takes. Near the end the bytes are looked up one by one.
    let ahead = stream.get(position.stream..)?;
    let window = ahead.first_chunk::<GROUP_LEN>();
    let mut taken = 0usize;
    for lane in 0..GROUP_LEN {
        let [slot, high] = states[lane].to_le_bytes();
        let [freq, bias, value, is_escape] = slots[usize::from(slot)].to_le_bytes();
        let x = u16::from(freq) * u16::from(high) + u16::from(bias);
        let needs_byte = x < STATE_MIN;
        let byte = match window {
            Some(window) => window[taken & (GROUP_LEN - 1)],
            None if needs_byte => *ahead.get(taken)?,
            None => 0,
        };
        states[lane] = if needs_byte { x << 8 | u16::from(byte) } else { x };
        taken += usize::from(needs_byte);
        let at = symbol_of_lane(lane);
        dst[at] = value;
        escaped |= u64::from(is_escape) << at;
    }
    position.stream += taken;
    while escaped != 0 {
        dst[escaped.trailing_zeros() as usize] = *escapes.get(position.escape)?;
        position.escape += 1;
        escaped &= escaped - 1;
    }
    Some(())
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
                let freq = table.threshold[entry] >> 8;
                let mut x = states[first_lane + lane];
                if x >= table.threshold[entry] {
                    stream_at -= 1;
                    stream[stream_at] = x.to_le_bytes()[0];
                    x >>= 8;
                }
                let cum = table.bias[entry] - if freq == 1 { 255 } else { 0 };
                states[first_lane + lane] = (x / freq << 8) + x % freq + cum;
            }
        }
    }
    Encoded { stream_start: stream_at, escapes_start: escapes_at }
}
