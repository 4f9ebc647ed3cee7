//! The last symbols of a block, in which states only grow and no word is written or read.

use super::scalar::{entry, next_chain, put, step, table};
use super::{EncodeTable, LANES, Lanes, MANY_LANES, Plan, STATE_MIN, SlotTable, States};

/// Most steps of a tail.
const MAX_STEPS: usize = 255;

/// Encodes the tail of a block, as many of the last steps (a symbol for each lane) as the states have room for, and returns
/// the steps and the states in front of them.
///
/// Arguments as in [`super::encode`]. A lane begins with 2^k, with the smallest k from 0 to 16 that brings it to
/// [`STATE_MIN`] or above, and no state reaches 2^32. `None` as there, or if there are no symbols.
#[must_use]
pub fn encode_tail(
    plan: &Plan<'_>,
    tables: &[EncodeTable],
    symbols: &[u8],
    quantizers: &[u32],
) -> Option<(usize, States)> {
    let entry_at = |idx: usize| {
        let id = plan.table_id(idx)?;
        let quantizers = quantizers.get(idx / LANES).copied().unwrap_or(0);
        entry(plan, tables, id, quantizers, idx % LANES, *symbols.get(idx)?)
    };
    let n_lanes = plan.n_lanes;
    let n_steps = symbols.len().div_ceil(n_lanes);
    // The state of a lane that begins with `state` and takes its symbols from step `first` on.
    let grow = |lane: usize, first: usize, mut state: u64| {
        let own = (first..n_steps).map(|step| step * n_lanes + lane);
        for idx in own.rev().filter(|&idx| idx < symbols.len()) {
            state = put(state, entry_at(idx)?)?;
            // It grows on from here, and in many steps would leave 64 bits: 0 would seem too small for 2^16.
            if state > u64::from(u32::MAX) {
                break;
            }
        }
        Some(state)
    };
    let mut steps = 0;
    let mut states = [1u64; MANY_LANES];
    'steps: while steps < n_steps.min(MAX_STEPS) {
        let first = (n_steps - steps - 1) * n_lanes;
        let mut next = states;
        for (idx, state) in (first..symbols.len().min(first + n_lanes)).zip(&mut next) {
            *state = put(*state, entry_at(idx)?)?;
            if *state > u64::from(u32::MAX) {
                break 'steps;
            }
        }
        states = next;
        steps += 1;
    }
    // One step always fits: 12 bits on top of 16.
    for steps in (1..=steps).rev() {
        let first = n_steps - steps;
        let mut grown = [STATE_MIN; MANY_LANES];
        let mut fits = true;
        for (lane, state) in grown.iter_mut().take(n_lanes).enumerate() {
            // A larger state grows to a larger one.
            let (mut least, mut most) = (0, 16);
            while least < most {
                let k = (least + most) / 2;
                let is_enough = grow(lane, first, 1 << k)? >= u64::from(STATE_MIN);
                (least, most) = if is_enough { (least, k) } else { (k + 1, most) };
            }
            let large = grow(lane, first, 1 << least).filter(|&x| x >= u64::from(STATE_MIN))?;
            *state = u32::try_from(large).unwrap_or(0);
            fits &= *state != 0;
        }
        if fits {
            return Some((steps, grown));
        }
    }
    None
}

/// Decodes symbols of the tail, from `first` on, where a step begins. `None` if the plan does not fit.
pub fn decode_tail(
    plan: &Plan<'_>,
    tables: &[SlotTable],
    lanes: &mut Lanes,
    first: usize,
    dst: &mut [u8],
) -> Option<()> {
    if dst.is_empty() {
        return Some(());
    }
    if !plan.fits(first.checked_add(dst.len())?, tables.len()) {
        return None;
    }
    for (idx, symbol) in (first..).zip(dst) {
        let id = plan.table_id(idx)?;
        let chain = &mut lanes.chains[idx % LANES];
        *symbol = step(table(plan, tables, id, *chain)?, &mut lanes.states[idx & (plan.n_lanes - 1)]);
        if plan.paired {
            *chain = next_chain(*chain, *symbol);
        }
    }
    Some(())
}

/// Whether lanes stand at the end of a block: each with a power of two that an encoder may begin with.
#[must_use]
pub fn is_end(n_lanes: usize, lanes: &Lanes) -> bool {
    let states = lanes.states.get(..n_lanes);
    states.is_some_and(|states| states.iter().all(|state| state.is_power_of_two() && *state <= STATE_MIN))
}
