//! The definition, as plain loops over the chains that the gated wrappers widen.
//!
//! A magnitude of `u` steps has candidates in four classes by their distance from zero modulo 4: class 0 is Q0 with
//! even `k`, 1 is Q1 with odd `k`, 2 is Q0 with odd `k`, 3 is Q1 with even `k`, zero included. In each the point below
//! `u` and the one above compete; the better one of each class goes into the trellis.

use super::{
    ChainStates, Costs, ESCAPE, ESCAPE_LABEL, MAX_LABEL, MAX_STEPS, N_CHAINS, N_COSTS, N_STATES, NEXT_STATE,
};
use crate::kernels::quantize::floor;

/// One number for each chain.
type Chains<T> = [T; N_CHAINS];

/// More than any path costs, and little enough to be added to itself.
pub(super) const FORBIDDEN: f32 = 1e30;
/// Rows after which the least cost is taken off, so that sums keep their precision.
pub(super) const NORMALISE_ROWS: usize = 32;
/// The state before each state by way of an even index, and of an odd one: a nibble each.
pub(super) const PREVIOUS: [u32; 2] = [previous(0), previous(1)];
/// The state after each state by way of an even index, a nibble each; an odd index flips bit 1 of it.
const NEXT: u32 = next();

const fn previous(parity: usize) -> u32 {
    let mut nibbles = 0;
    let mut state = 0u32;
    while NEXT_STATE.len() > state as usize {
        nibbles |= state << (4 * NEXT_STATE[state as usize][parity]);
        state += 1;
    }
    nibbles
}

const fn next() -> u32 {
    let mut nibbles = 0;
    let mut state = 0;
    while state < N_STATES {
        assert!(NEXT_STATE[state][1] == NEXT_STATE[state][0] ^ 2);
        nibbles |= (NEXT_STATE[state][0] as u32) << (4 * state);
        state += 1;
    }
    nibbles
}

#[inline(always)]
pub(super) fn quantize(values: &[f32], step: f32, costs: &Costs, decisions: &mut [u16], indices: &mut [i32]) {
    let mut totals = [[FORBIDDEN; N_CHAINS]; N_STATES];
    totals[0] = [0.0; N_CHAINS];
    let decision_rows = decisions.as_chunks_mut::<N_CHAINS>().0;
    for (row_idx, (row, decisions)) in values.chunks(N_CHAINS).zip(&mut *decision_rows).enumerate() {
        totals = extend(&padded(row), step, costs, &totals, decisions);
        if row_idx % NORMALISE_ROWS == NORMALISE_ROWS - 1 {
            normalise(&mut totals);
        }
    }
    let mut states = best_states(&totals);
    let rows = values.chunks(N_CHAINS).zip(indices.chunks_mut(N_CHAINS)).zip(decision_rows);
    for ((row, dst), decisions) in rows.rev() {
        let row_indices = trace_back(&padded(row), step, decisions, &mut states);
        dst.copy_from_slice(&row_indices[..dst.len()]);
    }
}

/// A row filled up with NaN: an escape continues a path without cost.
#[inline(always)]
pub(super) fn padded(row: &[f32]) -> Chains<f32> {
    row.try_into().unwrap_or_else(|_| {
        let mut padded = [f32::NAN; N_CHAINS];
        padded[..row.len()].copy_from_slice(row);
        padded
    })
}

/// The class of an index by the state before it and its parity.
#[inline(always)]
pub(super) const fn class_between(previous: u32, parity: u32) -> u32 {
    if previous & 1 == 0 { 2 * parity } else { 3 - 2 * parity }
}

/// Magnitude in steps and whether it can be quantized.
#[inline(always)]
fn magnitude(value: f32, step: f32) -> (f32, bool) {
    let steps = (value / step).abs();
    // False for NaN.
    let is_in_range = steps <= MAX_STEPS;
    (if is_in_range { steps } else { 0.0 }, is_in_range)
}

/// Index of the point below a magnitude in a class; the point above has 2 more. In classes 1 and 2 there may be none
/// below: then the first two of the class compete.
#[inline(always)]
fn lower_index(floor: i32, class: i32) -> i32 {
    let quad = (floor - class) >> 2;
    2 * quad.max(if class == 3 { -1 } else { 0 }) + ((class + 1) >> 1)
}

/// What index `k` in quantizer `q` costs at a magnitude.
#[inline(always)]
fn cost(steps: f32, k: i32, q: i32, table: &[f32; N_COSTS]) -> f32 {
    let error = steps - (2 * k - if k > 0 { q } else { 0 }) as f32;
    error * error + table[(k as usize).min(N_COSTS - 1)]
}

/// Takes every chain's eight paths one element further. Bit `n` of a decision: state `n` was reached by an odd index;
/// bit `8 + c`: class `c` takes its upper candidate.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "12 bits of a decision")]
fn extend(
    row: &Chains<f32>,
    step: f32,
    costs: &Costs,
    totals: &[Chains<f32>; N_STATES],
    decisions: &mut Chains<u16>,
) -> [Chains<f32>; N_STATES] {
    let mut extended = [[0.0; N_CHAINS]; N_STATES];
    for chain in 0..N_CHAINS {
        let (steps, is_in_range) = magnitude(row[chain], step);
        let floor = floor(steps).1;
        let mut decision = 0u32;
        let mut class_costs = [0.0; 4];
        for class in 0..4 {
            let (k, q) = (lower_index(floor, class), class & 1);
            let table = &costs.0[q as usize];
            let (below, above) = (cost(steps, k, q, table), cost(steps, k + 2, q, table));
            decision |= u32::from(above < below) << (8 + class);
            let is_odd = class == 1 || class == 2;
            let best = if above < below { above } else { below };
            class_costs[class as usize] = match (is_in_range, is_odd) {
                (true, _) => best,
                (false, true) => FORBIDDEN,
                (false, false) => 0.0,
            };
        }
        for (state, row) in extended.iter_mut().enumerate() {
            let from = |parity: u32| {
                let previous = PREVIOUS[parity as usize] >> (4 * state) & 7;
                totals[previous as usize][chain] + class_costs[class_between(previous, parity) as usize]
            };
            let (even, odd) = (from(0), from(1));
            decision |= u32::from(odd < even) << state;
            row[chain] = if odd < even { odd } else { even };
        }
        decisions[chain] = decision as u16;
    }
    extended
}

#[inline(always)]
fn normalise(totals: &mut [Chains<f32>; N_STATES]) {
    for chain in 0..N_CHAINS {
        let least = totals
            .iter()
            .fold(f32::INFINITY, |least, row| if row[chain] < least { row[chain] } else { least });
        for row in &mut *totals {
            row[chain] -= least;
        }
    }
}

/// The state in which each chain's cheapest path ends, the lowest of several.
#[inline(always)]
fn best_states(totals: &[Chains<f32>; N_STATES]) -> Chains<u32> {
    let (mut states, mut least) = ([0; N_CHAINS], totals[0]);
    for (state, row) in (0u32..).zip(totals) {
        for chain in 0..N_CHAINS {
            let is_less = row[chain] < least[chain];
            states[chain] = if is_less { state } else { states[chain] };
            least[chain] = if is_less { row[chain] } else { least[chain] };
        }
    }
    states
}

/// The indices of a row by the states after it, which become those before it.
#[inline(always)]
fn trace_back(
    row: &Chains<f32>,
    step: f32,
    decisions: &Chains<u16>,
    states: &mut Chains<u32>,
) -> Chains<i32> {
    let mut indices = [0; N_CHAINS];
    for chain in 0..N_CHAINS {
        let (steps, is_in_range) = magnitude(row[chain], step);
        let (decision, state) = (u32::from(decisions[chain]), states[chain]);
        let parity = decision >> state & 1;
        let before = if parity == 0 { PREVIOUS[0] } else { PREVIOUS[1] };
        let previous = before >> (4 * state) & 7;
        let class = class_between(previous, parity);
        let above = decision >> (8 + class) & 1;
        let k = lower_index(floor(steps).1, class.cast_signed()) + 2 * above.cast_signed();
        let signed = if row[chain].is_sign_negative() { -k } else { k };
        indices[chain] = if is_in_range { signed } else { ESCAPE };
        states[chain] = previous;
    }
    indices
}

#[inline(always)]
pub(super) fn dequantize(indices: &[i32], step: f32, states: &mut ChainStates, values: &mut [f32]) {
    for (row, dst) in indices.chunks(N_CHAINS).zip(values.chunks_mut(N_CHAINS)) {
        if let (Ok(row), Ok(dst)) = (row.try_into(), (&mut *dst).try_into()) {
            dequantize_row(row, step, states, dst);
        } else {
            // The last row, or both slices' end.
            let (mut padded, mut row_values) = ([0; N_CHAINS], [0.0; N_CHAINS]);
            padded[..row.len()].copy_from_slice(row);
            dequantize_row(&padded, step, states, &mut row_values);
            let len = row.len().min(dst.len());
            dst[..len].copy_from_slice(&row_values[..len]);
        }
    }
}

#[inline(always)]
fn dequantize_row(row: &Chains<i32>, step: f32, states: &mut ChainStates, dst: &mut Chains<f32>) {
    for chain in 0..N_CHAINS {
        let (k, state) = (row[chain], states[chain]);
        let shift = if state & 1 == 0 { 0 } else { k.signum() };
        dst[chain] = k.wrapping_mul(2).wrapping_sub(shift) as f32 * step;
        states[chain] = after(state, k);
    }
}

/// The state after `state` by way of index `k`.
#[inline(always)]
fn after(state: u32, k: i32) -> u32 {
    (NEXT >> (4 * state) & 7) ^ (k.cast_unsigned() & 1) << 1
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most 255")]
pub(super) fn label(indices: &[i32], labels: &mut [u8]) {
    let mut states: ChainStates = [0; N_CHAINS];
    let mut label_row = |row: &[i32; N_CHAINS], labels: &mut [u8; N_CHAINS]| {
        for chain in 0..N_CHAINS {
            let (k, state) = (row[chain], states[chain]);
            let magnitude = k.unsigned_abs().min(u32::from(MAX_LABEL)) + u32::from(k == ESCAPE);
            labels[chain] = (magnitude | (state & 1) << 7) as u8;
            states[chain] = after(state, k);
        }
    };
    let (rows, rest) = indices.as_chunks::<N_CHAINS>();
    let (label_rows, label_rest) = labels.as_chunks_mut::<N_CHAINS>();
    rows.iter().zip(label_rows).for_each(|(row, labels)| label_row(row, labels));
    let (mut padded, mut padded_labels) = ([0; N_CHAINS], [0; N_CHAINS]);
    padded[..rest.len()].copy_from_slice(rest);
    label_row(&padded, &mut padded_labels);
    let len = rest.len().min(label_rest.len());
    label_rest[..len].copy_from_slice(&padded_labels[..len]);
}

const _: () = assert!(ESCAPE_LABEL == MAX_LABEL + 1 && ESCAPE.unsigned_abs() > MAX_LABEL as u32);
