//! The encoder with 16 chains in a vector: costs of indices come from registers, and the way back is walked with one bit
//! of a word for each chain. The same operations in the same order as in `scalar`, which names the classes.

use std::arch::x86_64::*;
use std::array;

use bytemuck::cast;

use super::scalar::{FORBIDDEN, NORMALISE_ROWS, PREVIOUS, class_between, padded};
use super::{Costs, ESCAPE, MAX_STEPS, N_CHAINS, N_COSTS, N_STATES};

/// Candidates of an element, by their distance from zero modulo 4.
const N_CLASSES: usize = 4;
/// Words of a row's decisions that are in use: each is a mask of 16 chains. That of state `n` says which chains reach it
/// by an odd index, that of class `c`, behind the states', which take its upper candidate; the words of the first and of
/// the last 16 chains alternate.
const N_DECISIONS: usize = N_STATES + N_CLASSES;

/// Magnitudes of indices from here on share the last cost.
const LAST_COST: i32 = 31;
const _: () = assert!(LAST_COST as usize == N_COSTS - 1);

/// One number for each of 16 chains.
type Totals = [__m512; N_STATES];

/// Costs of 32 indices.
type Table = [__m512; 2];

/// What indices cost in each quantizer: those from 0 on, and those from 2 on.
struct CostTables {
    below: [Table; 2],
    above: [Table; 2],
}

impl CostTables {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn new(costs: &Costs) -> Self {
        let above =
            costs.0.map(|table| array::from_fn::<f32, N_COSTS, _>(|k| table[(k + 2).min(N_COSTS - 1)]));
        Self { below: costs.0.map(cast), above: above.map(cast) }
    }
}

/// The candidates of 16 elements.
struct Candidates {
    /// The lesser cost of each class.
    costs: [__m512; N_CLASSES],
    /// Where the upper candidate has it.
    is_above: [__mmask16; N_CLASSES],
    /// The whole steps of each magnitude, their complement where the element is negative; or [`ESCAPE`].
    floors: __m512i,
}

impl Candidates {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn of(x: __m512, step: __m512, tables: &CostTables) -> Self {
        let steps = _mm512_abs_ps(_mm512_div_ps(x, step));
        let is_in_range = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(steps, _mm512_set1_ps(MAX_STEPS));
        let steps = _mm512_maskz_mov_ps(is_in_range, steps);
        let floor = _mm512_cvttps_epi32(steps);
        let mut is_above = [0; N_CLASSES];
        let mut costs = [_mm512_setzero_ps(); N_CLASSES];
        for class in [0, 1, 2, 3] {
            let q = (class & 1) as usize;
            let quad = fourfold(floor, _mm512_set1_epi32(class));
            // In class 3 the point zero is below the first quad.
            let quad = if class == 3 { quad } else { _mm512_max_epi32(quad, _mm512_setzero_si512()) };
            let k = _mm512_add_epi32(_mm512_srai_epi32::<1>(quad), _mm512_set1_epi32((class + 1) >> 1));
            let entry = _mm512_min_epi32(k, _mm512_set1_epi32(LAST_COST));
            let point = _mm512_cvtepi32_ps(_mm512_add_epi32(quad, _mm512_set1_epi32(class)));
            let upper = _mm512_add_ps(point, _mm512_set1_ps(4.0));
            let lower = if class == 3 { _mm512_max_ps(point, _mm512_setzero_ps()) } else { point };
            let below = cost(_mm512_sub_ps(steps, lower), &tables.below[q], entry);
            let above = cost(_mm512_sub_ps(steps, upper), &tables.above[q], entry);
            is_above[class as usize] = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(above, below);
            let is_odd = class == 1 || class == 2;
            let escaped = _mm512_set1_ps(if is_odd { FORBIDDEN } else { 0.0 });
            costs[class as usize] = _mm512_mask_min_ps(escaped, is_in_range, above, below);
        }
        let sign = _mm512_srai_epi32::<31>(_mm512_castps_si512(x));
        let signed = _mm512_xor_si512(floor, sign);
        let floors = _mm512_mask_mov_epi32(_mm512_set1_epi32(ESCAPE), is_in_range, signed);
        Self { costs, is_above, floors }
    }
}

/// Four times the whole quads of steps up to `floor` from the first point of a class on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn fourfold(floor: __m512i, class: __m512i) -> __m512i {
    _mm512_and_si512(_mm512_sub_epi32(floor, class), _mm512_set1_epi32(!3))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn cost(error: __m512, table: &Table, entry: __m512i) -> __m512 {
    _mm512_add_ps(_mm512_mul_ps(error, error), _mm512_permutex2var_ps(table[0], entry, table[1]))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn quantize(values: &[f32], step: f32, costs: &Costs, decisions: &mut [u16], indices: &mut [i32]) {
    let tables = CostTables::new(costs);
    let step = _mm512_set1_ps(step);
    let mut totals = [[_mm512_set1_ps(FORBIDDEN); N_STATES]; 2];
    totals.iter_mut().for_each(|totals| totals[0] = _mm512_setzero_ps());
    let decision_rows = decisions.as_chunks_mut::<N_CHAINS>().0;
    let rows = values.chunks(N_CHAINS).zip(indices.chunks_mut(N_CHAINS)).zip(&mut *decision_rows);
    for (row_idx, ((row, dst), decisions)) in rows.enumerate() {
        let halves: [__m512; 2] = cast(padded(row));
        let mut floors = [_mm512_setzero_si512(); 2];
        for half in 0..2 {
            let candidates = Candidates::of(halves[half], step, &tables);
            floors[half] = candidates.floors;
            totals[half] = extend(&candidates, &totals[half], half, decisions);
            if row_idx % NORMALISE_ROWS == NORMALISE_ROWS - 1 {
                normalise(&mut totals[half]);
            }
        }
        // Until the way back, floors are where indices will be.
        put(dst, cast(floors));
    }
    let mut states = best_states(&totals);
    for (dst, decisions) in indices.chunks_mut(N_CHAINS).zip(decision_rows).rev() {
        let mut floors = [0; N_CHAINS];
        floors[..dst.len()].copy_from_slice(dst);
        put(dst, trace_back(cast(floors), decisions, &mut states));
    }
}

fn put(dst: &mut [i32], row: [i32; N_CHAINS]) {
    dst.copy_from_slice(&row[..dst.len()]);
}

/// Takes the eight paths of 16 chains one element further.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn extend(candidates: &Candidates, totals: &Totals, half: usize, decisions: &mut [u16; N_CHAINS]) -> Totals {
    let mut extended = *totals;
    for state in 0..N_STATES {
        let from = |parity: u32| {
            let previous = PREVIOUS[parity as usize] >> (4 * state) & 7;
            let class = class_between(previous, parity);
            _mm512_add_ps(totals[previous as usize], candidates.costs[class as usize])
        };
        let (even, odd) = (from(0), from(1));
        decisions[2 * state + half] = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(odd, even);
        extended[state] = _mm512_min_ps(odd, even);
    }
    for (class, is_above) in candidates.is_above.iter().enumerate() {
        decisions[2 * (N_STATES + class) + half] = *is_above;
    }
    extended
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn normalise(totals: &mut Totals) {
    let mut least = _mm512_set1_ps(f32::INFINITY);
    for row in &*totals {
        least = _mm512_min_ps(*row, least);
    }
    for row in totals {
        *row = _mm512_sub_ps(*row, least);
    }
}

/// States of 32 chains: bit by bit, a word with a bit for each chain.
type StateBits = [u32; 3];

/// The state in which each chain's cheapest path ends, the lowest of several.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn best_states(totals: &[Totals; 2]) -> StateBits {
    let mut bits = [0; 3];
    for (half, totals) in totals.iter().enumerate() {
        let mut least = totals[0];
        let mut states = _mm512_setzero_si512();
        for (state, row) in (0..).zip(totals) {
            let is_less = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(*row, least);
            states = _mm512_mask_mov_epi32(states, is_less, _mm512_set1_epi32(state));
            least = _mm512_mask_mov_ps(least, is_less, *row);
        }
        for (n, word) in bits.iter_mut().enumerate() {
            let is_set = _mm512_test_epi32_mask(states, _mm512_set1_epi32(1 << n));
            *word |= u32::from(is_set) << (16 * half);
        }
    }
    bits
}

/// Bit by bit, that of `set` where `which` has one, of `unset` elsewhere.
const fn select(which: u32, set: u32, unset: u32) -> u32 {
    unset ^ ((set ^ unset) & which)
}

/// `PREVIOUS[0]`, bit by bit: what comes before each state by way of an even index.
const fn before_even([t0, t1, t2]: StateBits) -> StateBits {
    [t2, select(t2, t1, t0), select(t2, !(t0 ^ t1), t1)]
}

const _: () = {
    let mut state = 0;
    while state < 8 {
        let [b0, b1, b2] = before_even([state & 1, state >> 1 & 1, state >> 2]);
        let before = (b0 & 1) | (b1 & 1) << 1 | (b2 & 1) << 2;
        assert!(before == PREVIOUS[0] >> (4 * state) & 7);
        // An odd index is an even one to the state whose bit 1 is flipped.
        assert!(before == PREVIOUS[1] >> (4 * (state ^ 2)) & 7);
        let [even, odd] = [class_between(state, 0), class_between(state, 1)];
        assert!(even == (state & 1) * 3 && odd == 2 - (state & 1));
        state += 1;
    }
};

/// The indices of a row by the states after it, which become those before it.
#[expect(clippy::cast_possible_truncation, reason = "a word's halves")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn trace_back(floors: [__m512i; 2], decisions: &[u16; N_CHAINS], states: &mut StateBits) -> [i32; N_CHAINS] {
    let words: [u32; N_DECISIONS] =
        array::from_fn(|n| u32::from(decisions[2 * n]) | u32::from(decisions[2 * n + 1]) << 16);
    let [s0, s1, s2] = *states;
    let pair = |n: usize| select(s0, words[n + 1], words[n]);
    let parity = select(s2, select(s1, pair(6), pair(4)), select(s1, pair(2), pair(0)));
    *states = before_even([s0, s1 ^ parity, s2]);
    // The bits of the class.
    let c0 = states[0];
    let c1 = c0 ^ parity;
    let of_pair = |n: usize| select(c0, words[N_STATES + n + 1], words[N_STATES + n]);
    let above = select(c1, of_pair(2), of_pair(0));
    let ones = _mm512_set1_epi32(1);
    let mut indices = [_mm512_setzero_si512(); 2];
    for half in 0..2 {
        let mask = |word: u32| if half == 0 { word as __mmask16 } else { (word >> 16) as __mmask16 };
        let (m0, m1) = (mask(c0), mask(c1));
        let sign = _mm512_srai_epi32::<31>(floors[half]);
        let floor = _mm512_xor_si512(floors[half], sign);
        let class = _mm512_maskz_mov_epi32(m0, ones);
        let class = _mm512_mask_add_epi32(class, m1, class, _mm512_set1_epi32(2));
        let first = _mm512_maskz_mov_epi32(m0 & m1, _mm512_set1_epi32(-4));
        let k = _mm512_srai_epi32::<1>(_mm512_max_epi32(fourfold(floor, class), first));
        let k = _mm512_mask_add_epi32(k, m0, k, ones);
        let k = _mm512_mask_add_epi32(k, m1, k, ones);
        let k = _mm512_mask_add_epi32(k, mask(above), k, _mm512_set1_epi32(2));
        let signed = _mm512_sub_epi32(_mm512_xor_si512(k, sign), sign);
        let escape = _mm512_set1_epi32(ESCAPE);
        let is_escape = _mm512_cmpeq_epi32_mask(floors[half], escape);
        indices[half] = _mm512_mask_mov_epi32(signed, is_escape, escape);
    }
    cast(indices)
}
