//! Encoding: a group's 64 states in four vectors of 16 lanes, A's and B's, which the even and the odd bytes of whatever
//! is looked up for the symbols belong to.
//!
//! What a symbol needs is looked up by its place in a window of values, where all of the block's tables fit one; the
//! table's values are neighbours mostly. Otherwise it is looked up by entry, and entries come one by one.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::super::{EncodeTable, Encoded, GROUP_LEN, MAX_ENTRIES, MAX_GROUPS, Plan, SLACK_BYTES};
use super::{Rows, by_row, look_up, rows};

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

/// The first value that a table has an entry for, and the places from there to the last one, with one more that stands for
/// all values that it has none for.
fn window(table: &EncodeTable) -> (u8, usize) {
    let has_entry = |value: &u8| table.contains(*value);
    let first = (0..=u8::MAX).find(has_entry).unwrap_or(0);
    let last = (first..=u8::MAX).rfind(has_entry).unwrap_or(first);
    (first, usize::from(last - first) + 2)
}

/// The last place of `n_rows` rows, which stands for all values outside.
const fn last_place(n_rows: usize) -> u8 {
    match n_rows {
        1 => 15,
        2 => 31,
        _ => 63,
    }
}

/// What the loop takes of one table, each row of 16 places in both halves of a vector.
struct Registers {
    base: u8,
    freq: Rows,
    /// Low and high bytes, as in [`EncodeTable`].
    factor: [Rows; 2],
    cum: Rows,
    cum_of_escape: u8,
}

impl Registers {
    /// `entry_of` gives the entry of each place.
    #[target_feature(enable = "avx2")]
    fn new(table: &EncodeTable, base: u8, entry_of: impl Fn(u8) -> u8) -> Self {
        let entries: [usize; MAX_ENTRIES] =
            std::array::from_fn(|place| usize::from(entry_of(place.to_le_bytes()[0]).min(table.escape)));
        let by_place = |by_entry: &[u8; MAX_ENTRIES]| rows(&entries.map(|entry| by_entry[entry]));
        Self {
            base,
            freq: by_place(&table.freq),
            factor: [by_place(&table.factor[0]), by_place(&table.factor[1])],
            cum: by_place(&table.cum),
            cum_of_escape: table.cum[usize::from(table.escape)],
        }
    }
}

/// Encodes all of `symbols`; the caller has checked the plan and the buffers.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(in super::super) fn encode(
    plan: &Plan<'_, EncodeTable>,
    symbols: &[u8],
    states: &mut [u16],
    stream: &mut [u8],
    escapes: &mut [u8],
) -> Encoded {
    match plan.tables.iter().map(|table| window(table).1).max().unwrap_or(0) {
        0..=16 => encode_with::<1, true>(plan, symbols, states, stream, escapes),
        17..=32 => encode_with::<2, true>(plan, symbols, states, stream, escapes),
        33..=64 => encode_with::<4, true>(plan, symbols, states, stream, escapes),
        _ => encode_with::<4, false>(plan, symbols, states, stream, escapes),
    }
}

/// `N` rows of places, which are those of a window if `WINDOWED`, else entries.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn encode_with<const N: usize, const WINDOWED: bool>(
    plan: &Plan<'_, EncodeTable>,
    symbols: &[u8],
    states: &mut [u16],
    stream: &mut [u8],
    escapes: &mut [u8],
) -> Encoded {
    let registers = |table: &EncodeTable| match window(table) {
        (base, _) if WINDOWED => Registers::new(table, base, |place| match base.checked_add(place) {
            Some(value) if place < last_place(N) => table.entry_of[usize::from(value)],
            _ => table.escape,
        }),
        _ => Registers::new(table, 0, |place| place),
    };
    let tables: Vec<Registers> = plan.tables.iter().map(registers).collect();
    let mut vectors = load_states(states, plan.groups);
    let mut at = stream.len() - SLACK_BYTES;
    let mut escape_at = escapes.len() - SLACK_BYTES;
    for (segment, &id) in symbols.chunks(plan.segment_len).zip(plan.table_ids).rev() {
        let (table, registers) = (&plan.tables[usize::from(id)], &tables[usize::from(id)]);
        let (groups, _) = segment.as_chunks::<GROUP_LEN>();
        for step in groups.chunks_exact(plan.groups).rev() {
            for (group, vectors) in step.iter().zip(&mut vectors).rev() {
                let places = places::<N, WINDOWED>(table, registers.base, group);
                // In bounds: the buffer holds a byte for every symbol, and more than this in front and behind.
                let window = stream.get_mut(at - WINDOW_FRONT..).and_then(|rest| rest.first_chunk_mut());
                let Some(window) = window else { break };
                let (taken, escaped) = encode_group::<N>(registers, places, vectors, window);
                at -= taken;
                escape_at = push_escapes(escaped, group, escapes, escape_at);
            }
        }
    }
    store_states(&vectors, states);
    Encoded { stream_start: at, escapes_start: escape_at }
}

#[inline]
#[target_feature(enable = "avx2")]
fn places<const N: usize, const WINDOWED: bool>(
    table: &EncodeTable,
    base: u8,
    group: &[u8; GROUP_LEN],
) -> [__m256i; 2] {
    if !WINDOWED {
        return cast(group.map(|symbol| table.entry_of[usize::from(symbol)]));
    }
    cast::<_, [__m256i; 2]>(*group).map(|symbols| {
        let place = _mm256_sub_epi8(symbols, _mm256_set1_epi8(base.cast_signed()));
        _mm256_min_epu8(place, _mm256_set1_epi8(last_place(N).cast_signed()))
    })
}

/// Bytes before a group's first that it may touch: one for each symbol, and what a store of eight brings along.
const WINDOW_FRONT: usize = GROUP_LEN + 8;
/// Bytes of the output that a group sees: as many that masked offsets stay within it.
const WINDOW: usize = 2 * GROUP_LEN + 8;

/// Puts the symbols that are set in `escaped` before `at`.
#[inline]
#[target_feature(enable = "lzcnt")]
fn push_escapes(mut escaped: u64, group: &[u8; GROUP_LEN], escapes: &mut [u8], mut at: usize) -> usize {
    while escaped != 0 {
        let last = 63 - escaped.leading_zeros();
        at -= 1;
        escapes[at] = group[last as usize & (GROUP_LEN - 1)];
        escaped ^= 1 << last;
    }
    at
}

/// Encodes the symbols at `places` of a group; `window` has [`WINDOW_FRONT`] bytes in front of the byte before which to
/// write. Returns how many were written, and a bit for each symbol that is an escape.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
fn encode_group<const N: usize>(
    table: &Registers,
    places: [__m256i; 2],
    states: &mut [__m256i; 4],
    window: &mut [u8; WINDOW],
) -> (usize, u64) {
    let low_byte = _mm256_set1_epi16(0x00ff);
    let places = places.map(|places| by_row::<N>(places));
    let look_up = |rows: &Rows| [0, 1].map(|half| look_up::<N>(rows, &places[half]));
    let freq = look_up(&table.freq);
    let [factor_low, factor_high] = [0, 1].map(|byte| look_up(&table.factor[byte]));
    let cum = look_up(&table.cum);
    let of_escape = _mm256_set1_epi8(table.cum_of_escape.cast_signed());
    let [first, second] =
        cum.map(|cum| _mm256_movemask_epi8(_mm256_cmpeq_epi8(cum, of_escape)).cast_unsigned());
    let mut at = WINDOW_FRONT;
    // B's lanes are the odd symbols, A's the even ones; a decoder takes A's bytes first.
    for odd in [true, false] {
        let byte = |bytes: __m256i| match odd {
            true => _mm256_srli_epi16(bytes, 8),
            false => _mm256_and_si256(bytes, low_byte),
        };
        let mut full = [_mm256_setzero_si256(); 2];
        let mut bytes = full;
        for half in 0..2 {
            let state = &mut states[2 * usize::from(odd) + half];
            let x = *state;
            let (threshold, factor) = match odd {
                true => (
                    _mm256_andnot_si256(low_byte, freq[half]),
                    _mm256_blendv_epi8(factor_high[half], _mm256_srli_epi16(factor_low[half], 8), low_byte),
                ),
                false => (
                    _mm256_slli_epi16(freq[half], 8),
                    _mm256_blendv_epi8(_mm256_slli_epi16(factor_high[half], 8), factor_low[half], low_byte),
                ),
            };
            full[half] = _mm256_cmpeq_epi16(_mm256_max_epu16(x, threshold), x);
            bytes[half] = _mm256_and_si256(x, low_byte);
            let x = _mm256_blendv_epi8(x, _mm256_srli_epi16(x, 8), full[half]);
            *state = put(x, byte(freq[half]), factor, byte(cum[half]));
        }
        at = emit(full, bytes, window, at);
    }
    (WINDOW_FRONT - at, u64::from(first) | u64::from(second) << 32)
}

/// Writes those of 32 lanes' `bytes`, each in 16 bits, that are `full` before `at`, in lane order; returns where they begin.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn emit(full: [__m256i; 2], bytes: [__m256i; 2], window: &mut [u8; WINDOW], mut at: usize) -> usize {
    let bytes = _mm256_packus_epi16(bytes[0], bytes[1]);
    let mask = _mm256_movemask_epi8(_mm256_packs_epi16(full[0], full[1])).cast_unsigned();
    // Packed are lanes 0 to 7, 16 to 23, 8 to 15, 24 to 31.
    let (low, high) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    let eights = [
        (mask >> 24, _mm_unpackhi_epi64(high, high)),
        (mask >> 8 & 0xff, _mm_unpackhi_epi64(low, low)),
        (mask >> 16 & 0xff, high),
        (mask & 0xff, low),
    ];
    for (mask, bytes) in eights {
        let shuffle: [u8; 16] = cast([u64::from_le_bytes(GATHER[mask as usize]), 0]);
        let gathered: [u8; 16] = cast(_mm_shuffle_epi8(bytes, cast(shuffle)));
        // The mask spares the check: 8 to 72.
        let start = (at - 8) & (2 * GROUP_LEN - 1);
        window[start..start + 8].copy_from_slice(&gathered[..8]);
        at -= mask.count_ones() as usize;
    }
    at
}

/// One symbol into each state: x + (x div freq)·(256 − freq) + cum. The quotient by `factor` may be 1 too small; the rest
/// then is at least freq.
#[inline]
#[target_feature(enable = "avx2")]
fn put(x: __m256i, freq: __m256i, factor: __m256i, cum: __m256i) -> __m256i {
    let quotient = _mm256_mulhi_epu16(x, factor);
    let rest = _mm256_sub_epi16(x, _mm256_mullo_epi16(quotient, freq));
    let short = _mm256_cmpeq_epi16(_mm256_max_epu16(rest, freq), rest);
    let quotient = _mm256_sub_epi16(quotient, short);
    let complement = _mm256_sub_epi16(_mm256_set1_epi16(256), freq);
    _mm256_add_epi16(_mm256_add_epi16(x, cum), _mm256_mullo_epi16(quotient, complement))
}
