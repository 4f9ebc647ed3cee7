//! AVX2: a group's 64 symbols in vectors of 32 bytes, or of 16 states.
//!
//! Frequencies, sums and values come by `vpshufb` from rows of 16 entries; `entries` tells how a slot's entry is found
//! where there is no 256-byte look-up. The encoder's output goes through a shuffle table for eight lanes at a time.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::{EncodeTable, Encoded, GROUP_LEN, MAX_ENTRIES, MAX_GROUPS, Plan, SLACK_BYTES};

mod decode;
mod entries;
mod joined;
pub(super) use decode::decode;
pub(super) use entries::Steps;
pub(super) use joined::decode_joined;

/// States in vectors of 16 lanes: for each group A's two, then B's two.
type States = [[__m256i; 4]; MAX_GROUPS];

/// For each mask of eight bytes: the shuffle that moves the set bytes to the end of the eight, in order.
static GATHER: [[u8; 8]; 256] = {
    let mut table = [[0x80; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut place) = (8u8, 8);
        while lane > 0 {
            lane -= 1;
            if mask >> lane & 1 == 1 {
                place -= 1;
                table[mask][place] = lane;
            }
        }
        mask += 1;
    }
    table
};

/// A byte table of up to 64 entries in rows of 16, each row in both halves of a vector.
type Rows = [__m256i; MAX_ENTRIES / 16];

#[inline]
#[target_feature(enable = "avx2")]
fn rows(bytes: &[u8; MAX_ENTRIES]) -> Rows {
    let (rows, _) = bytes.as_chunks::<16>();
    [0, 1, 2, 3].map(|row| _mm256_broadcastsi128_si256(cast(rows[row])))
}

/// `rows[entries]` for each byte; `N` rows are in use.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up<const N: usize>(rows: &Rows, entries: __m256i) -> __m256i {
    let row_0 = _mm256_shuffle_epi8(rows[0], entries);
    if N == 1 {
        return row_0;
    }
    // The blend looks at bit 7 of each byte; shifting by 3 brings bit 4 of the entry there, by 2 bit 5.
    let bit_4 = _mm256_slli_epi16(entries, 3);
    let lower = _mm256_blendv_epi8(row_0, _mm256_shuffle_epi8(rows[1], entries), bit_4);
    if N == 2 {
        return lower;
    }
    let upper = _mm256_blendv_epi8(
        _mm256_shuffle_epi8(rows[2], entries),
        _mm256_shuffle_epi8(rows[3], entries),
        bit_4,
    );
    _mm256_blendv_epi8(lower, upper, _mm256_slli_epi16(entries, 2))
}

/// Rows of 16 that the largest table needs.
fn n_rows(n_entries: usize) -> usize {
    match n_entries {
        0..=16 => 1,
        17..=32 => 2,
        _ => 4,
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_states(states: &[u16], groups: usize) -> States {
    let mut vectors = [[_mm256_setzero_si256(); 4]; MAX_GROUPS];
    let (lanes, _) = states.as_chunks::<16>();
    for (vector, lanes) in vectors.as_flattened_mut().iter_mut().zip(&lanes[..4 * groups]) {
        *vector = cast(*lanes);
    }
    vectors
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_states(vectors: &States, states: &mut [u16]) {
    let (lanes, _) = states.as_chunks_mut::<16>();
    for (vector, lanes) in vectors.as_flattened().iter().zip(lanes) {
        *lanes = cast(*vector);
    }
}

/// One table's registers for the encoder, bytes by entry. A division is a product and a second product in place
/// of the shift, since AVX2 shifts 16-bit lanes by one count only; a second factor of 0 means none.
struct EncodeRegisters {
    freq: Rows,
    factor_low: Rows,
    factor_high: Rows,
    second_factor_high: Rows,
    bias: Rows,
}

#[target_feature(enable = "avx2")]
fn encode_registers(table: &EncodeTable) -> EncodeRegisters {
    let mut bytes = [[0u8; MAX_ENTRIES]; 5];
    #[expect(clippy::needless_range_loop, reason = "the entry is an index into eight arrays")]
    for entry in 0..=usize::from(table.escape) {
        let freq = table.threshold[entry] >> 8;
        // 16 − shift is at least 9, so the second factor is a multiple of 256; shift 0 gives 0.
        let second_factor = (1u32 << (16 - table.shift[entry])).to_le_bytes();
        bytes[0][entry] = freq.to_le_bytes()[0];
        bytes[1][entry] = table.factor[entry].to_le_bytes()[0];
        bytes[2][entry] = table.factor[entry].to_le_bytes()[1];
        bytes[3][entry] = second_factor[1];
        // The bias of freq 1 has 255 added; here that is done in the arithmetic.
        bytes[4][entry] = (table.bias[entry] - if freq == 1 { 255 } else { 0 }).to_le_bytes()[0];
    }
    let [freq, factor_low, factor_high, second_factor_high, bias] = bytes.map(|bytes| rows(&bytes));
    EncodeRegisters { freq, factor_low, factor_high, second_factor_high, bias }
}

/// Encodes all of `symbols`; the caller has checked the plan and the buffers.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(super) fn encode(
    plan: &Plan<'_, EncodeTable>,
    symbols: &[u8],
    states: &mut [u16],
    stream: &mut [u8],
    escapes: &mut [u8],
) -> Encoded {
    match n_rows(plan.tables.iter().map(|table| usize::from(table.escape) + 1).max().unwrap_or(0)) {
        1 => encode_with::<1>(plan, symbols, states, stream, escapes),
        2 => encode_with::<2>(plan, symbols, states, stream, escapes),
        _ => encode_with::<4>(plan, symbols, states, stream, escapes),
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn encode_with<const N: usize>(
    plan: &Plan<'_, EncodeTable>,
    symbols: &[u8],
    states: &mut [u16],
    stream: &mut [u8],
    escapes: &mut [u8],
) -> Encoded {
    let tables: Vec<EncodeRegisters> = plan.tables.iter().map(|table| encode_registers(table)).collect();
    let mut vectors = load_states(states, plan.groups);
    let mut entries = [[0u8; GROUP_LEN]; MAX_GROUPS];
    let mut at = stream.len() - SLACK_BYTES;
    let mut escape_at = escapes.len() - SLACK_BYTES;
    for (segment, &id) in symbols.chunks(plan.segment_len).zip(plan.table_ids).rev() {
        let (table, registers) = (&plan.tables[usize::from(id)], &tables[usize::from(id)]);
        let (groups, _) = segment.as_chunks::<GROUP_LEN>();
        for step in groups.chunks_exact(plan.groups).rev() {
            // All entries first, those that are wanted first to begin with: vectors are loaded from bytes that were stored one
            // by one, which waits until these have left the store queue.
            for (entries, group) in entries.iter_mut().zip(step).rev() {
                for (entry, &symbol) in entries.iter_mut().zip(group) {
                    *entry = table.entry_of[usize::from(symbol)];
                }
            }
            for ((group, entries), vectors) in step.iter().zip(&entries).zip(&mut vectors).rev() {
                escape_at = push_escapes(table.escape, entries, group, escapes, escape_at);
                at = encode_group::<N>(registers, entries, vectors, stream, at);
            }
        }
    }
    store_states(&vectors, states);
    Encoded { stream_start: at, escapes_start: escape_at }
}

#[inline]
#[target_feature(enable = "avx2,bmi1,lzcnt")]
fn push_escapes(
    escape: u8,
    entries: &[u8; GROUP_LEN],
    group: &[u8; GROUP_LEN],
    escapes: &mut [u8],
    mut at: usize,
) -> usize {
    let wanted = _mm256_set1_epi8(escape.cast_signed());
    let (halves, _) = entries.as_chunks::<32>();
    let mask =
        |half: usize| _mm256_movemask_epi8(_mm256_cmpeq_epi8(cast(halves[half]), wanted)).cast_unsigned();
    let mut escaped = u64::from(mask(0)) | u64::from(mask(1)) << 32;
    while escaped != 0 {
        let last = 63 - escaped.leading_zeros();
        at -= 1;
        escapes[at] = group[last as usize & (GROUP_LEN - 1)];
        escaped ^= 1 << last;
    }
    at
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn encode_group<const N: usize>(
    table: &EncodeRegisters,
    entries: &[u8; GROUP_LEN],
    states: &mut [__m256i; 4],
    stream: &mut [u8],
    mut at: usize,
) -> usize {
    let low_byte = _mm256_set1_epi16(0x00ff);
    let (halves, _) = entries.as_chunks::<32>();
    let looked_up = [0, 1].map(|half| {
        let entries = cast(halves[half]);
        [
            look_up::<N>(&table.freq, entries),
            look_up::<N>(&table.factor_low, entries),
            look_up::<N>(&table.factor_high, entries),
            look_up::<N>(&table.second_factor_high, entries),
            look_up::<N>(&table.bias, entries),
        ]
    });
    // B's lanes are the odd symbols, A's the even ones; a decoder takes A's bytes first.
    for odd in [true, false] {
        for half in [1, 0] {
            let byte = |bytes: __m256i| match odd {
                true => _mm256_srli_epi16(bytes, 8),
                false => _mm256_and_si256(bytes, low_byte),
            };
            let [freq, factor_low, factor_high, second_high, bias] = looked_up[half].map(byte);
            let factor = _mm256_or_si256(factor_low, _mm256_slli_epi16(factor_high, 8));
            let second = _mm256_slli_epi16(second_high, 8);
            let state = &mut states[2 * usize::from(odd) + half];
            let (x, count) = emit(*state, _mm256_slli_epi16(freq, 8), stream, at);
            at -= count;
            *state = put(x, freq, factor, second, bias);
        }
    }
    at
}

/// Writes the low bytes of the states that have reached `threshold` before `at` and shifts those states.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn emit(x: __m256i, threshold: __m256i, stream: &mut [u8], mut at: usize) -> (__m256i, usize) {
    let full = _mm256_cmpeq_epi16(_mm256_max_epu16(x, threshold), x);
    let low = _mm256_and_si256(x, _mm256_set1_epi16(0x00ff));
    let mask = _mm_packs_epi16(_mm256_castsi256_si128(full), _mm256_extracti128_si256(full, 1));
    let bytes = _mm_packus_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    let [first, second, ..] = _mm_movemask_epi8(mask).to_le_bytes();
    let end = at;
    for (mask, bytes) in [(second, _mm_unpackhi_epi64(bytes, bytes)), (first, bytes)] {
        let shuffle = _mm_cvtsi64_si128(i64::from_le_bytes(GATHER[usize::from(mask)]));
        let gathered = _mm_cvtsi128_si64(_mm_shuffle_epi8(bytes, shuffle));
        // In bounds: the buffer holds a byte for every symbol and slack in front.
        if let Some(place) = stream.get_mut(at - 8..).and_then(|rest| rest.first_chunk_mut::<8>()) {
            *place = gathered.to_le_bytes();
        }
        at -= mask.count_ones() as usize;
    }
    (_mm256_blendv_epi8(x, _mm256_srli_epi16(x, 8), full), end - at)
}

/// One symbol into each state: x + (x div freq)·(256 − freq) + cum.
#[inline]
#[target_feature(enable = "avx2")]
fn put(x: __m256i, freq: __m256i, factor: __m256i, second: __m256i, cum: __m256i) -> __m256i {
    let product = _mm256_mulhi_epu16(x, factor);
    let no_second = _mm256_cmpeq_epi16(second, _mm256_setzero_si256());
    let quotient = _mm256_blendv_epi8(_mm256_mulhi_epu16(product, second), product, no_second);
    // One too small where freq is 1 or over 128: the rest then is at least freq.
    let rest = _mm256_sub_epi16(x, _mm256_mullo_epi16(quotient, freq));
    let short = _mm256_cmpeq_epi16(_mm256_max_epu16(rest, freq), rest);
    let quotient = _mm256_sub_epi16(quotient, short);
    let complement = _mm256_sub_epi16(_mm256_set1_epi16(256), freq);
    _mm256_add_epi16(_mm256_add_epi16(x, cum), _mm256_mullo_epi16(quotient, complement))
}
