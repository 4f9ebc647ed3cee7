//! AVX2: a row's lanes in four vectors, or eight. Where AVX-512 expands and compresses, a permutation is looked up for each mask
//! of eight lanes.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::{
    EncodeTable, FREQ_SUM, LANES, Lanes, MANY_LANES, MIXED, Plan, Position, SHEET_WINDOW, SheetTables,
    SlotTable, States, WINDOW, gather_256, is_paired,
};
use crate::kernels::prefetch::Spread;
use crate::kernels::quantize::SHEET_LEN;
use crate::kernels::trellis::NEXT_STATE;

/// For chain state and parity, at index 2·s + parity: the next state.
const NEXT: [u8; 16] = {
    let mut next = [0; 16];
    let mut at = 0;
    while at < 16 {
        next[at] = NEXT_STATE[at / 2][at % 2];
        at += 1;
    }
    next
};

/// For each mask of eight lanes: which of the next words each set lane takes, in order.
static SPREAD: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut next) = (0, 0);
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                table[mask][lane] = next;
                next += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

/// For each mask of eight lanes: the bytes of the set lanes' words at the end, in order.
static COLLECT: [[u8; 16]; 256] = {
    let mut table = [[0; 16]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut place) = (8u8, 16);
        while lane > 0 {
            lane -= 1;
            if mask >> lane & 1 == 1 {
                place -= 2;
                table[mask][place] = 2 * lane;
                table[mask][place + 1] = 2 * lane + 1;
            }
        }
        mask += 1;
    }
    table
};

/// The state that follows `chains` after symbols of these parities: one byte in each lane of 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn next_chains(chains: __m256i, parities: __m256i) -> __m256i {
    let next = _mm256_broadcastsi128_si256(cast(NEXT));
    let idx = _mm256_or_si256(_mm256_add_epi32(chains, chains), parities);
    // Where the top bit of an index is set the byte becomes zero.
    let others = _mm256_set1_epi32(0x8080_8000_u32.cast_signed());
    _mm256_shuffle_epi8(next, _mm256_or_si256(idx, others))
}

/// The low bits of where a vector's words begin within a row's.
const TAKEN_MASK: usize = 2 * MANY_LANES - 1;

/// As [`super::x86_avx512::decode`].
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(super) fn decode<const N: usize, const V: usize, const R: usize>(
    plan: &Plan<'_>,
    tables: &[SlotTable],
    words: &[[u8; 2]],
    lanes: &mut Lanes,
    mut position: Position,
    dst: &mut [u8],
    fetch: &mut Spread<'_>,
) -> Position {
    let mask = _mm256_set1_epi32(FREQ_SUM.cast_signed() - 1);
    let one = _mm256_set1_epi32(1);
    const { assert!(R == 8 * V && R <= MANY_LANES && (!is_paired(N) || R == LANES)) }
    let all: [__m256i; 8] = cast(lanes.states);
    let mut x: [__m256i; V] = std::array::from_fn(|i| all[i]);
    let none = [_mm256_setzero_si256(); 4];
    let mut chains: [__m256i; 4] = if is_paired(N) { cast(lanes.chains.map(u32::from)) } else { none };
    let bytes = words.as_flattened();
    let mut at = 2 * position.word;
    'segments: for (segment, id) in plan.segments_from(position.symbol, dst) {
        let Some(tables) = tables.as_chunks::<N>().0.get(usize::from(id)) else { break };
        for row in segment.as_chunks_mut::<R>().0 {
            let Some(window) = bytes.get(at..).and_then(|rest| rest.first_chunk::<WINDOW>()) else {
                break 'segments;
            };
            fetch.turn();
            let mut slots = [_mm256_setzero_si256(); V];
            let ids = if N >= MIXED { plan.row_ids::<R>(position.symbol) } else { None };
            for part in 0..V {
                let mut idx = _mm256_and_si256(x[part], mask);
                if let Some(ids) = ids {
                    let (parts, _) = ids.as_chunks::<8>();
                    let ids = _mm256_cvtepu8_epi32(cast([parts[part], [0; 8]]));
                    let shifted = if is_paired(N) {
                        _mm256_slli_epi32::<13>(ids)
                    } else {
                        _mm256_slli_epi32::<12>(ids)
                    };
                    idx = _mm256_or_si256(idx, shifted);
                }
                if is_paired(N) {
                    let second = _mm256_slli_epi32::<12>(_mm256_and_si256(chains[part], one));
                    idx = _mm256_or_si256(idx, second);
                }
                slots[part] = gather_256(tables, idx);
            }
            let mut taken = 0;
            for part in 0..V {
                let slot = slots[part];
                let offset = _mm256_and_si256(_mm256_srli_epi32::<8>(slot), mask);
                let product =
                    _mm256_mullo_epi32(_mm256_srli_epi32::<20>(slot), _mm256_srli_epi32::<12>(x[part]));
                (x[part], taken) = refill(_mm256_add_epi32(product, offset), window, taken);
                if is_paired(N) {
                    chains[part] = next_chains(chains[part], _mm256_and_si256(slot, one));
                }
            }
            store_symbols(&slots, row);
            at += taken;
            position.symbol += R;
        }
    }
    lanes.states.as_chunks_mut().0.iter_mut().zip(x).for_each(|(states, x)| *states = cast::<_, [u32; 8]>(x));
    if is_paired(N) {
        let states: [u32; LANES] = cast(chains);
        lanes.chains = states.map(|state| state.to_le_bytes()[0]);
    }
    Position { word: at / 2, ..position }
}

/// Stores the symbols of slots, which are their low bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn store_symbols<const V: usize, const R: usize>(slots: &[__m256i; V], row: &mut [u8; R]) {
    let low_byte = _mm256_set1_epi32(0xff);
    let symbols = slots.map(|slot| _mm256_and_si256(slot, low_byte));
    for (part, symbols) in row.as_chunks_mut::<32>().0.iter_mut().zip(symbols.as_chunks::<4>().0) {
        let packed = _mm256_packus_epi16(
            _mm256_packus_epi32(symbols[0], symbols[1]),
            _mm256_packus_epi32(symbols[2], symbols[3]),
        );
        // The packs work within halves: put the words of four symbols in order.
        *part = cast(_mm256_permutevar8x32_epi32(packed, cast([0u32, 4, 1, 5, 2, 6, 3, 7])));
    }
}

/// As [`super::x86_avx512::decode_sheets`].
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(super) fn decode_sheets(
    tables: SheetTables<'_>,
    halves: &[[SlotTable; 2]],
    words: &[[u8; 2]],
    lanes: &mut Lanes,
    sheets: &mut [[u8; SHEET_LEN]],
    fetch: &mut Spread<'_>,
) -> (usize, usize) {
    const VECTORS: usize = MANY_LANES / 8;
    let mask = _mm256_set1_epi32(FREQ_SUM.cast_signed() - 1);
    let second = _mm256_set1_epi32(FREQ_SUM.cast_signed());
    let mut x: [__m256i; VECTORS] = cast(lanes.states);
    let bytes = words.as_flattened();
    let (mut at, mut n_done) = (0, 0);
    let singles = tables.tables.as_chunks::<1>().0;
    let ids = tables.row_ids.as_chunks::<{ SHEET_LEN / MANY_LANES }>().0;
    'sheets: for (sheet, ids) in sheets.iter_mut().zip(ids) {
        if bytes.len() - at < SHEET_WINDOW {
            break;
        }
        let mut sums = [_mm256_setzero_si256(); VECTORS];
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
            let mut slots = [_mm256_setzero_si256(); VECTORS];
            for part in 0..VECTORS {
                let idx = _mm256_and_si256(x[part], mask);
                slots[part] = if is_last {
                    let half = _mm256_and_si256(_mm256_slli_epi32::<12>(sums[part]), second);
                    gather_256(halves, _mm256_or_si256(idx, half))
                } else {
                    gather_256(table, idx)
                };
            }
            let mut taken = 0;
            for part in 0..VECTORS {
                let slot = slots[part];
                sums[part] = _mm256_xor_si256(sums[part], slot);
                let offset = _mm256_and_si256(_mm256_srli_epi32::<8>(slot), mask);
                let product =
                    _mm256_mullo_epi32(_mm256_srli_epi32::<20>(slot), _mm256_srli_epi32::<12>(x[part]));
                (x[part], taken) = refill(_mm256_add_epi32(product, offset), window, taken);
            }
            store_symbols(&slots, row);
            at += taken;
        }
        n_done += 1;
    }
    lanes.states = cast(x);
    (n_done, at / 2)
}

/// Shifts a word into every state below 2^16, in lane order. The mask is for the compiler: with it the load needs no check.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn refill(x: __m256i, window: &[u8; WINDOW], taken: usize) -> (__m256i, usize) {
    let small = _mm256_cmpeq_epi32(_mm256_srli_epi32::<16>(x), _mm256_setzero_si256());
    let mask = _mm256_movemask_ps(_mm256_castsi256_ps(small)).to_le_bytes()[0];
    let next: [u8; 16] = std::array::from_fn(|i| window[(taken & TAKEN_MASK) + i]);
    let spread: [u8; 16] = cast([SPREAD[usize::from(mask)], [0; 8]]);
    let words =
        _mm256_permutevar8x32_epi32(_mm256_cvtepu16_epi32(cast(next)), _mm256_cvtepu8_epi32(cast(spread)));
    let shifted = _mm256_or_si256(_mm256_slli_epi32::<16>(x), words);
    (_mm256_blendv_epi8(x, shifted, small), taken + 2 * mask.count_ones() as usize)
}

/// What encoding a symbol takes: its reciprocal (an f64), the least state that must shift a word out first, and the sum of
/// the frequencies before it. In one piece, so that a lane takes one load, and eight lanes ten instructions to bring it
/// all in order.
type Entry = [u32; 4];

/// Most tables: [`MIXED`] pairs.
const MAX_TABLES: usize = 2 * MIXED;

/// The entries of `tables`.
fn fill_entries(tables: &[EncodeTable], entries: &mut [[Entry; 256]]) {
    for (&packed, entry) in tables.as_flattened().iter().zip(entries.as_flattened_mut()) {
        let freq = packed & 0xffff;
        // Rounded up: the product with a state that the frequency divides is not below the quotient. Nor does any other reach
        // the next whole number: at most 2^20, it is off by 2^-30, and 1/4096 is missing.
        let reciprocal = (1.0 / f64::from(freq)).next_up().to_bits();
        let [low, high]: [u32; 2] = cast(reciprocal);
        // 20: a state of 32 bits takes a symbol while it is below freq · 2^(32 − 12).
        *entry = if freq == 0 { [0; 4] } else { [low, high, freq << 20, packed >> 16] };
    }
}

/// As [`super::x86_avx512::encode`]. States are divided by multiplying with the reciprocals of frequencies: dividing took
/// 1.6 of 3.6 cycles a symbol on a Zen 3.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(super) fn encode<const N: usize, const V: usize, const R: usize>(
    plan: &Plan<'_>,
    tables: &[EncodeTable],
    symbols: &[u8],
    quantizers: &[u32],
    states: &mut States,
    buffer: &mut [u8],
    mut at: usize,
) -> Option<usize> {
    let mut entries = [[[0; 4]; 256]; MAX_TABLES];
    let entries = entries.get_mut(..tables.len())?;
    fill_entries(tables, entries);
    const { assert!(R == 8 * V && R <= MANY_LANES && (!is_paired(N) || R == LANES)) }
    let all: [__m256i; 8] = cast(*states);
    let mut x: [__m256i; V] = std::array::from_fn(|i| all[i]);
    let (segment_ids, segment_len) = plan.segments();
    let rows_of_segment = segment_len / R;
    let zero = _mm256_setzero_si256();
    let mut missing = zero;
    for (segment_idx, rows) in symbols.as_chunks::<R>().0.chunks(rows_of_segment).enumerate().rev() {
        let tables = entries.as_chunks::<N>().0.get(usize::from(*segment_ids.get(segment_idx)?))?;
        let entries = tables.as_flattened();
        for (row_idx, row) in rows.iter().enumerate().rev() {
            let row_idx = segment_idx * rows_of_segment + row_idx;
            let quantizers = if is_paired(N) { *quantizers.get(row_idx)? } else { 0 };
            let ids = if N >= MIXED { plan.row_ids::<R>(row_idx * R)? } else { &[0; R] };
            let id_shift = if is_paired(N) { 9 } else { 8 };
            let (parts, _) = row.as_chunks::<8>();
            let words = buffer.get_mut(..at)?.last_chunk_mut::<ROW_BYTES>()?;
            let mut taken = 0;
            for part in (0..V).rev() {
                let symbols = &parts[part];
                let entry = |lane: usize| -> __m128i {
                    let at = 8 * part + lane;
                    let second = if is_paired(N) { (quantizers >> at & 1) << 8 } else { 0 };
                    let id = if N >= MIXED { usize::from(ids[at]) << id_shift } else { 0 };
                    // The mask is for the compiler: ids are below N, as has been checked.
                    cast(entries[(usize::from(symbols[lane]) + second as usize + id) & (256 * N - 1)])
                };
                // One by one into registers: an array of eight would be written and read again.
                let pairs = [
                    _mm256_set_m128i(entry(4), entry(0)),
                    _mm256_set_m128i(entry(5), entry(1)),
                    _mm256_set_m128i(entry(6), entry(2)),
                    _mm256_set_m128i(entry(7), entry(3)),
                ];
                let (reciprocals, threshold, cum) = transposed(pairs);
                missing = _mm256_or_si256(missing, _mm256_cmpeq_epi32(threshold, zero));
                let full = _mm256_cmpeq_epi32(_mm256_max_epu32(x[part], threshold), x[part]);
                taken = push(x[part], full, words, taken);
                let rest = _mm256_blendv_epi8(x[part], _mm256_srli_epi32::<16>(x[part]), full);
                x[part] = put(rest, reciprocals, threshold, cum);
            }
            at -= taken;
        }
    }
    states.as_chunks_mut().0.iter_mut().zip(x).for_each(|(states, x)| *states = cast::<_, [u32; 8]>(x));
    (_mm256_movemask_epi8(missing) == 0).then_some(at)
}

/// Bytes in front of the words so far that encoding a row may write: a word for each lane, and what the last store takes
/// besides.
const ROW_BYTES: usize = 2 * MANY_LANES + 16;

/// The parts of eight entries, those of lanes `i` and `i` + 4 in `pairs[i]`: reciprocals of lanes 0, 1, 4, 5 and of 2, 3, 6,
/// 7; thresholds; sums of frequencies.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(pairs: [__m256i; 4]) -> ([__m256d; 2], __m256i, __m256i) {
    let pairs = [0, 1, 2, 3].map(|i: usize| _mm256_castsi256_pd(pairs[i]));
    let reciprocals = [_mm256_unpacklo_pd(pairs[0], pairs[1]), _mm256_unpacklo_pd(pairs[2], pairs[3])];
    let low = _mm256_castpd_ps(_mm256_unpackhi_pd(pairs[0], pairs[1]));
    let high = _mm256_castpd_ps(_mm256_unpackhi_pd(pairs[2], pairs[3]));
    let threshold = _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(low, high));
    let cum = _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(low, high));
    (reciprocals, threshold, cum)
}

/// Writes the low words of the lanes of `full` in front of the last `taken` bytes, and anything in front of those.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn push(x: __m256i, full: __m256i, words: &mut [u8; ROW_BYTES], taken: usize) -> usize {
    let mask = _mm256_movemask_ps(_mm256_castsi256_ps(full)).to_le_bytes()[0];
    let low = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
    let packed = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
    let collected: [u8; 16] = cast(_mm_shuffle_epi8(packed, cast(COLLECT[usize::from(mask)])));
    // The mask is for the compiler: all but the last vector's words have been written at most.
    let start = ROW_BYTES - 16 - (taken & TAKEN_MASK);
    words[start..start + 16].copy_from_slice(&collected);
    taken + 2 * mask.count_ones() as usize
}

/// Puts symbols into states: x becomes (x div f)·4096 + x mod f + cum, which is x + (x div f)·(4096 − f) + cum.
#[inline]
#[target_feature(enable = "avx2")]
fn put(x: __m256i, reciprocals: [__m256d; 2], threshold: __m256i, cum: __m256i) -> __m256i {
    // As the low bits of 2^52 whole numbers are those of an f64.
    let two_52 = _mm256_set1_epi32(0x4330_0000);
    let quotient = |wide: __m256i, reciprocal: __m256d| {
        let x = _mm256_sub_pd(_mm256_castsi256_pd(wide), _mm256_set1_pd(TWO_52));
        // 12 binary places are left: what they cannot hold is rounded off, and is never the last thing up to a whole number.
        _mm256_castpd_ps(_mm256_add_pd(_mm256_mul_pd(x, reciprocal), _mm256_set1_pd(TWO_40)))
    };
    let low = quotient(_mm256_unpacklo_epi32(x, two_52), reciprocals[0]);
    let high = quotient(_mm256_unpackhi_epi32(x, two_52), reciprocals[1]);
    let fixed = _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(low, high));
    let quotients = _mm256_srli_epi32::<12>(fixed);
    let complement =
        _mm256_sub_epi32(_mm256_set1_epi32(FREQ_SUM.cast_signed()), _mm256_srli_epi32::<20>(threshold));
    let raised = _mm256_mullo_epi32(quotients, complement);
    _mm256_add_epi32(_mm256_add_epi32(x, cum), raised)
}

/// From here on an f64 is a whole number.
const TWO_52: f64 = 4_503_599_627_370_496.0;
/// From here on it has 12 binary places.
const TWO_40: f64 = 1_099_511_627_776.0;

/// As [`super::scalar::trace_quantizers`]; the chains of a row in one vector.
#[target_feature(enable = "avx2")]
pub(super) fn trace_quantizers(symbols: &[u8], quantizers: &mut Vec<u32>) {
    let next = _mm256_broadcastsi128_si256(cast(NEXT));
    let mut chains = _mm256_setzero_si256();
    let (rows, rest) = symbols.as_chunks::<LANES>();
    let mut last = [0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    let last = if rest.is_empty() { None } else { Some(&last) };
    for row in rows.iter().chain(last) {
        // Bit 0 of a byte to its bit 7; what comes from the byte below stays out of that.
        let bits = _mm256_movemask_epi8(_mm256_slli_epi16::<7>(chains));
        quantizers.push(bits.cast_unsigned());
        let parities = _mm256_and_si256(cast(*row), _mm256_set1_epi8(1));
        chains = _mm256_shuffle_epi8(next, _mm256_or_si256(_mm256_add_epi8(chains, chains), parities));
    }
}
