//! AVX-512: a row's lanes in two vectors, or four, so that the chains from state to state of all overlap.
//!
//! Slots come by gathers, which is what takes the time. The next words are spread over the lanes that need one by
//! `vpexpandd`, and collected from them by `vpcompressd`. The encoder divides in double precision, whose quotients of such
//! numbers are never rounded up to the next integer.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::{
    EncodeTable, FREQ_SUM, LANES, Lanes, MANY_LANES, MIXED, Plan, Position, SHEET_WINDOW, STATE_MIN,
    SheetTables, SlotTable, States, WINDOW, gather_512, is_paired,
};
use crate::kernels::prefetch::Spread;
use crate::kernels::quantize::SHEET_LEN;
use crate::kernels::trellis::NEXT_STATE;

/// For chain state and parity, at index 2·s + parity: the next state doubled, and its quantizer as the offset of the pair's
/// second table.
const NEXT: [i32; 16] = {
    let mut next = [0; 16];
    let mut at = 0;
    while at < 16 {
        let state = NEXT_STATE[at / 2][at % 2] as i32;
        next[at] = state << 1 | (state & 1) << 12;
        at += 1;
    }
    next
};

/// The low bits of where a vector's words begin within a row's.
const TAKEN_MASK: usize = 2 * MANY_LANES - 1;

/// Decodes whole rows from `position` on while a window of words is left; where it stops. `N` tables belong together: a
/// symbol's chain chooses of a pair, its id of [`MIXED`] tables, both of `MIXED_PAIRS`. A row is of `R` symbols in `V` vectors.
/// The caller has checked the plan.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt,bmi1,bmi2,lzcnt")]
pub(super) fn decode<const N: usize, const V: usize, const R: usize>(
    plan: &Plan<'_>,
    tables: &[SlotTable],
    words: &[[u8; 2]],
    lanes: &mut Lanes,
    mut position: Position,
    dst: &mut [u8],
    fetch: &mut Spread<'_>,
) -> Position {
    let mask = _mm512_set1_epi32(FREQ_SUM.cast_signed() - 1);
    let next = cast(NEXT);
    let (one, second) = (_mm512_set1_epi32(1), _mm512_set1_epi32(FREQ_SUM.cast_signed()));
    const { assert!(R == 16 * V && R <= MANY_LANES && (!is_paired(N) || R == LANES)) }
    let all: [__m512i; 4] = cast(lanes.states);
    let mut x: [__m512i; V] = std::array::from_fn(|i| all[i]);
    let chain = |half: usize| -> __m512i {
        cast::<[i32; 16], _>(std::array::from_fn(|i| {
            let state = i32::from(lanes.chains[16 * half + i]);
            state << 1 | (state & 1) << 12
        }))
    };
    let mut chains = if is_paired(N) { [chain(0), chain(1)] } else { [_mm512_setzero_si512(); 2] };
    let bytes = words.as_flattened();
    let mut at = 2 * position.word;
    'segments: for (segment, id) in plan.segments_from(position.symbol, dst) {
        let Some(tables) = tables.as_chunks::<N>().0.get(usize::from(id)) else { break };
        for row in segment.as_chunks_mut::<R>().0 {
            let Some(window) = bytes.get(at..).and_then(|rest| rest.first_chunk::<WINDOW>()) else {
                break 'segments;
            };
            fetch.turn();
            let mut taken = 0;
            let (parts, _) = row.as_chunks_mut::<16>();
            let mut slots = [_mm512_setzero_si512(); V];
            let ids = if N >= MIXED { plan.row_ids::<R>(position.symbol) } else { None };
            for part in 0..V {
                let mut idx = _mm512_and_si512(x[part], mask);
                if let Some(ids) = ids {
                    let ids = _mm512_cvtepu8_epi32(cast(ids.as_chunks::<16>().0[part]));
                    let shifted = if is_paired(N) {
                        _mm512_slli_epi32::<13>(ids)
                    } else {
                        _mm512_slli_epi32::<12>(ids)
                    };
                    idx = _mm512_or_si512(idx, shifted);
                }
                if is_paired(N) {
                    // 0xEA: a & b | c.
                    idx = _mm512_ternarylogic_epi32::<0xEA>(chains[part], second, idx);
                }
                slots[part] = gather_512(tables, idx);
            }
            for part in 0..V {
                let slot = slots[part];
                let offset = _mm512_and_si512(_mm512_srli_epi32::<8>(slot), mask);
                let product =
                    _mm512_mullo_epi32(_mm512_srli_epi32::<20>(slot), _mm512_srli_epi32::<12>(x[part]));
                (x[part], taken) = refill(_mm512_add_epi32(product, offset), window, taken);
                if is_paired(N) {
                    // 0xEA: a & b | c.
                    let idx = _mm512_ternarylogic_epi32::<0xEA>(slot, one, chains[part]);
                    chains[part] = _mm512_permutexvar_epi32(idx, next);
                }
                parts[part] = cast(_mm512_cvtepi32_epi8(slot));
            }
            at += taken;
            position.symbol += R;
        }
    }
    lanes
        .states
        .as_chunks_mut()
        .0
        .iter_mut()
        .zip(x)
        .for_each(|(states, x)| *states = cast::<_, [u32; 16]>(x));
    for (half, chains) in chains.into_iter().enumerate().filter(|_| is_paired(N)) {
        let states: [i32; 16] = cast(chains);
        for (place, state) in lanes.chains[16 * half..].iter_mut().zip(states) {
            *place = (state >> 1).to_le_bytes()[0] & 7;
        }
    }
    Position { word: at / 2, ..position }
}

/// Decodes sheets while the words of a whole one are left; how many, and the words that they took. The caller has checked that
/// every row has a table and halves.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt,bmi1,bmi2,lzcnt")]
pub(super) fn decode_sheets(
    tables: SheetTables<'_>,
    halves: &[[SlotTable; 2]],
    words: &[[u8; 2]],
    lanes: &mut Lanes,
    sheets: &mut [[u8; SHEET_LEN]],
    fetch: &mut Spread<'_>,
) -> (usize, usize) {
    const VECTORS: usize = MANY_LANES / 16;
    let mask = _mm512_set1_epi32(FREQ_SUM.cast_signed() - 1);
    let second = _mm512_set1_epi32(FREQ_SUM.cast_signed());
    let mut x: [__m512i; VECTORS] = cast(lanes.states);
    let bytes = words.as_flattened();
    let (mut at, mut n_done) = (0, 0);
    let singles = tables.tables.as_chunks::<1>().0;
    let ids = tables.row_ids.as_chunks::<{ SHEET_LEN / MANY_LANES }>().0;
    'sheets: for (sheet, ids) in sheets.iter_mut().zip(ids) {
        if bytes.len() - at < SHEET_WINDOW {
            break;
        }
        let mut sums = [_mm512_setzero_si512(); VECTORS];
        let rows = sheet.as_chunks_mut::<MANY_LANES>().0;
        for (row_idx, (row, &id)) in rows.iter_mut().zip(ids).enumerate() {
            // There always are; the compiler need not know.
            let Some(window) = bytes.get(at..).and_then(|rest| rest.first_chunk::<WINDOW>()) else {
                break 'sheets;
            };
            let (Some(table), Some(halves)) = (singles.get(usize::from(id)), halves.get(usize::from(id)))
            else {
                break 'sheets;
            };
            fetch.turn();
            let is_last = row_idx == SHEET_LEN / MANY_LANES - 1;
            let mut slots = [_mm512_setzero_si512(); VECTORS];
            for part in 0..VECTORS {
                let idx = _mm512_and_si512(x[part], mask);
                slots[part] = if is_last {
                    let half = _mm512_and_si512(_mm512_slli_epi32::<12>(sums[part]), second);
                    gather_512(halves, _mm512_or_si512(idx, half))
                } else {
                    gather_512(table, idx)
                };
            }
            let mut taken = 0;
            let (parts, _) = row.as_chunks_mut::<16>();
            for part in 0..VECTORS {
                let slot = slots[part];
                sums[part] = _mm512_xor_si512(sums[part], slot);
                let offset = _mm512_and_si512(_mm512_srli_epi32::<8>(slot), mask);
                let product =
                    _mm512_mullo_epi32(_mm512_srli_epi32::<20>(slot), _mm512_srli_epi32::<12>(x[part]));
                (x[part], taken) = refill(_mm512_add_epi32(product, offset), window, taken);
                parts[part] = cast(_mm512_cvtepi32_epi8(slot));
            }
            at += taken;
        }
        n_done += 1;
    }
    lanes.states = cast(x);
    (n_done, at / 2)
}

/// Shifts a word into every state below 2^16, in lane order. The mask is for the compiler: with it the load needs no check.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
fn refill(x: __m512i, window: &[u8; WINDOW], taken: usize) -> (__m512i, usize) {
    let small = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(STATE_MIN.cast_signed()));
    let next: [u8; 32] = std::array::from_fn(|i| window[(taken & TAKEN_MASK) + i]);
    let words = _mm512_maskz_expand_epi32(small, _mm512_cvtepu16_epi32(cast(next)));
    let shifted = _mm512_mask_slli_epi32::<16>(x, small, x);
    (_mm512_or_si512(shifted, words), taken + 2 * small.count_ones() as usize)
}

/// Encodes whole rows; `None` if a symbol has no frequency. Numbers as for [`decode`]. The caller has checked plan and buffer.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt,bmi1,bmi2,lzcnt")]
pub(super) fn encode<const N: usize, const V: usize, const R: usize>(
    plan: &Plan<'_>,
    tables: &[EncodeTable],
    symbols: &[u8],
    quantizers: &[u32],
    states: &mut States,
    buffer: &mut [u8],
    mut at: usize,
) -> Option<usize> {
    const { assert!(R == 16 * V && R <= MANY_LANES && (!is_paired(N) || R == LANES)) }
    let all: [__m512i; 4] = cast(*states);
    let mut x: [__m512i; V] = std::array::from_fn(|i| all[i]);
    let (segment_ids, segment_len) = plan.segments();
    let rows_of_segment = segment_len / R;
    let mut missing = 0;
    for (segment_idx, rows) in symbols.as_chunks::<R>().0.chunks(rows_of_segment).enumerate().rev() {
        let tables = tables.as_chunks::<N>().0.get(usize::from(*segment_ids.get(segment_idx)?))?;
        for (row_idx, row) in rows.iter().enumerate().rev() {
            let row_idx = segment_idx * rows_of_segment + row_idx;
            let quantizers = if is_paired(N) { *quantizers.get(row_idx)? } else { 0 };
            let ids = if N >= MIXED { plan.row_ids::<R>(row_idx * R) } else { None };
            let (parts, _) = row.as_chunks::<16>();
            for part in (0..V).rev() {
                let mut idx = _mm512_cvtepu8_epi32(cast(parts[part]));
                if let Some(ids) = ids {
                    let ids = _mm512_cvtepu8_epi32(cast(ids.as_chunks::<16>().0[part]));
                    let shifted =
                        if is_paired(N) { _mm512_slli_epi32::<9>(ids) } else { _mm512_slli_epi32::<8>(ids) };
                    idx = _mm512_or_si512(idx, shifted);
                }
                if is_paired(N) {
                    let [a, b, c, d] = quantizers.to_le_bytes();
                    let odd = u16::from_le_bytes(if part == 0 { [a, b] } else { [c, d] });
                    idx = _mm512_mask_or_epi32(idx, odd, idx, _mm512_set1_epi32(256));
                }
                let entry = gather_512(tables, idx);
                let freq = _mm512_and_si512(entry, _mm512_set1_epi32(0xffff));
                missing |= _mm512_testn_epi32_mask(freq, freq);
                let full = _mm512_cmpge_epu32_mask(x[part], _mm512_slli_epi32::<20>(freq));
                at = push(x[part], full, buffer, at)?;
                x[part] = put(_mm512_mask_srli_epi32::<16>(x[part], full, x[part]), entry, freq);
            }
        }
    }
    states.as_chunks_mut().0.iter_mut().zip(x).for_each(|(states, x)| *states = cast::<_, [u32; 16]>(x));
    (missing == 0).then_some(at)
}

/// Writes the low words of the lanes of `full` in front of `at`, and anything in front of those.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
fn push(x: __m512i, full: __mmask16, buffer: &mut [u8], at: usize) -> Option<usize> {
    /// Indices that move the first `count` words of a vector to its end stand from 16 − `count` places further on.
    const ALIGN: [u16; 48] = {
        let mut align = [0; 48];
        let mut i = 0u8;
        while i < 16 {
            align[16 + i as usize] = i as u16;
            i += 1;
        }
        align
    };
    let count = full.count_ones() as usize;
    let words = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(full, x));
    let align: [u16; 16] = std::array::from_fn(|i| ALIGN[(count & 31) + i]);
    let place = buffer.get_mut(..at)?.last_chunk_mut::<32>()?;
    *place = cast(_mm256_permutexvar_epi16(cast(align), words));
    Some(at - 2 * count)
}

/// Puts symbols into states: x becomes (x div f)·4096 + x mod f + cum.
///
/// The quotient, below 2^20, comes from a reciprocal of f in single precision that is a little too small, and is the right
/// one or one less, whatever approximation the processor begins with; the remainder tells which. So the result is exact, in
/// half the time that dividing in double precision takes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
fn put(x: __m512i, entry: __m512i, freq: __m512i) -> __m512i {
    // 1 − 2^-21: more than the reciprocal, x as a single, and their product may be too large by, together 2^-22.
    const BELOW: f32 = 1.0 - f32::EPSILON * 4.0;
    let cum = _mm512_srli_epi32::<16>(entry);
    let divisor = _mm512_cvtepi32_ps(freq);
    // Within 2^-14, and after a step of Newton's method within the rounding.
    let rough = _mm512_rcp14_ps(divisor);
    let error = _mm512_fnmadd_ps(divisor, rough, _mm512_set1_ps(1.0));
    let reciprocal = _mm512_mul_ps(_mm512_fmadd_ps(rough, error, rough), _mm512_set1_ps(BELOW));
    let quotient = _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_cvtepu32_ps(x), reciprocal));
    let remainder = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, freq));
    let state = _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32::<12>(quotient), cum), remainder);
    // One more in the quotient adds 4096 and takes f off the remainder.
    let is_short = _mm512_cmpge_epi32_mask(remainder, freq);
    let complement = _mm512_sub_epi32(_mm512_set1_epi32(FREQ_SUM.cast_signed()), freq);
    _mm512_mask_add_epi32(state, is_short, state, complement)
}
