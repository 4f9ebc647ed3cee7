//! AVX-512: a group's 64 symbols a turn, every table in registers.
//!
//! Slot to entry is a 256-byte look-up in four registers (two `vpermi2b` and a blend), frequency, cumulative
//! sum and value are one `vpermb` each, the refill is `vpexpandw` of the next 32 bytes. Two groups a step hide
//! much of the latency of the chain from state to state, four nearly all of it.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::{
    EncodeTable, Encoded, GROUP_LEN, MAX_GROUPS, MAX_STEP_BYTES, Plan, Position, SLACK_BYTES, Table, Tile,
};

mod joined;
pub(super) use joined::decode_joined;

const WINDOW: usize = MAX_STEP_BYTES;
/// Escapes that one step may touch at most, and the 64 that the last load takes.
const QUEUE: usize = MAX_GROUPS * GROUP_LEN + 64;
/// Covers every offset within a step: all but one of its vectors of 32 lanes lie before the last.
const WINDOW_MASK: usize = MAX_GROUPS * GROUP_LEN - 1;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
fn load(bytes: &[u8; 64]) -> __m512i {
    cast(*bytes)
}

/// The 64 bytes of `table` from `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
fn quarter(table: &[u8; 256], at: usize) -> __m512i {
    let (quarters, _) = table.as_chunks::<64>();
    cast(quarters[at])
}

/// What decoding to entries takes of one table, in registers.
struct DecodeRegisters {
    slot_to_entry: [__m512i; 4],
    freq: __m512i,
    cum: __m512i,
    escape: __m512i,
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
fn decode_registers(table: &Table) -> DecodeRegisters {
    DecodeRegisters {
        slot_to_entry: [0, 1, 2, 3].map(|i| quarter(&table.slot_to_entry, i)),
        freq: load(&table.freq),
        cum: load(&table.cum),
        escape: _mm512_set1_epi8((table.n_entries - 1).cast_signed()),
    }
}

/// States in vectors of 32 lanes: A's and B's of each group.
type States<const G: usize> = [[__m512i; 2]; G];

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
fn load_states<const G: usize>(states: &[u16]) -> States<G> {
    let (lanes, _) = states.as_chunks::<32>();
    std::array::from_fn(|g| [cast(lanes[2 * g]), cast(lanes[2 * g + 1])])
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
fn store_states<const G: usize>(vectors: &States<G>, states: &mut [u16]) {
    for (lanes, vector) in states.as_chunks_mut::<32>().0.iter_mut().zip(vectors.as_flattened()) {
        *lanes = cast(*vector);
    }
}

/// Takes a group's states a step further; returns the entries of its symbols and how much of `window` is taken then.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
fn next_entries(
    table: &DecodeRegisters,
    [a, b]: &mut [__m512i; 2],
    window: &[u8; WINDOW],
    taken: usize,
) -> (__m512i, usize) {
    let low_byte = _mm512_set1_epi16(0x00ff);
    let [quarter_0, quarter_1, quarter_2, quarter_3] = table.slot_to_entry;
    let slot = _mm512_ternarylogic_epi32(low_byte, *a, _mm512_slli_epi16(*b, 8), 0xCA);
    let low = _mm512_permutex2var_epi8(quarter_0, slot, quarter_1);
    let high = _mm512_permutex2var_epi8(quarter_2, slot, quarter_3);
    let entry = _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(slot), high);
    let freq = _mm512_permutexvar_epi8(entry, table.freq);
    let bias = _mm512_sub_epi8(slot, _mm512_permutexvar_epi8(entry, table.cum));
    let next_a = _mm512_add_epi16(
        _mm512_mullo_epi16(_mm512_srli_epi16(*a, 8), _mm512_and_si512(freq, low_byte)),
        _mm512_and_si512(bias, low_byte),
    );
    let next_b = _mm512_add_epi16(
        _mm512_mullo_epi16(_mm512_srli_epi16(*b, 8), _mm512_srli_epi16(freq, 8)),
        _mm512_srli_epi16(bias, 8),
    );
    let taken_a;
    let taken_b;
    (*a, taken_a) = refill(next_a, window, taken);
    (*b, taken_b) = refill(next_b, window, taken_a);
    (entry, taken_b)
}

/// `values` with the next of `queue` in the places of `escaped`; `taken` of it have been used.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
fn place_escapes(values: __m512i, escaped: __mmask64, queue: &[u8; QUEUE], taken: usize) -> __m512i {
    let next: [u8; 64] = std::array::from_fn(|i| queue[(taken & WINDOW_MASK) + i]);
    _mm512_mask_expand_epi8(values, escaped, cast(next))
}

/// Decodes from `position` while a whole step's bytes are certain to be there; where it stops. The caller has checked the plan, the states and the slack behind the escapes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt,bmi1,bmi2,lzcnt")]
pub(super) fn decode<const G: usize>(
    tile: &mut Tile<'_, '_>,
    states: &mut [u16],
    mut position: Position,
) -> Position {
    let (plan, stream, escapes) = (tile.plan, tile.stream, tile.escapes);
    let mut vectors = load_states::<G>(states);
    let (mut at, mut escape_at) = (position.stream, position.escape);
    'segments: for (segment, id) in tile.segments_from(position) {
        let table = &plan.tables[usize::from(id)];
        let registers = decode_registers(table);
        let value = load(&table.value);
        let (groups, _) = segment.as_chunks_mut::<GROUP_LEN>();
        for step in groups.chunks_exact_mut(G) {
            let Some(window) = stream.get(at..).and_then(|rest| rest.first_chunk::<WINDOW>()) else {
                break 'segments;
            };
            let Some(queue) = escapes.get(escape_at..).and_then(|rest| rest.first_chunk::<QUEUE>()) else {
                break 'segments;
            };
            let (mut taken, mut escapes_taken) = (0usize, 0usize);
            for g in 0..G {
                let entry;
                (entry, taken) = next_entries(&registers, &mut vectors[g], window, taken);
                // No branch: one in four groups has an escape, and a wrong guess costs more than the work.
                let escaped = _mm512_cmpeq_epi8_mask(entry, registers.escape);
                let symbols = _mm512_permutexvar_epi8(entry, value);
                step[g] = cast(place_escapes(symbols, escaped, queue, escapes_taken));
                escapes_taken += escaped.count_ones() as usize;
            }
            at += taken;
            escape_at += escapes_taken;
            position = Position { stream: at, escape: escape_at, symbol: position.symbol + G * GROUP_LEN };
        }
    }
    store_states(&vectors, states);
    position
}

/// Shifts a byte into every state below 256, in lane order.
///
/// The mask is for the compiler: with it the load needs no check, and no default that would send it through the
/// stack at twice the time for all.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
fn refill(x: __m512i, window: &[u8; WINDOW], taken: usize) -> (__m512i, usize) {
    let small = _mm512_testn_epi16_mask(x, _mm512_set1_epi16(-256));
    let next: [u8; 32] = std::array::from_fn(|i| window[(taken & WINDOW_MASK) + i]);
    let bytes = _mm512_cvtepu8_epi16(cast(next));
    let shifted = _mm512_mask_slli_epi16(x, small, x, 8);
    (_mm512_or_si512(shifted, _mm512_maskz_expand_epi16(small, bytes)), taken + small.count_ones() as usize)
}

/// Bytes of the output that a step of the encoder sees: one for each lane, and what a group's store brings along.
const ENCODE_WINDOW: usize = MAX_GROUPS * GROUP_LEN + 64;

/// One table in registers.
struct Registers {
    entry_of: [__m512i; 4],
    freq: __m512i,
    factor: [__m512i; 2],
    cum: __m512i,
    escape: __m512i,
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
fn registers(table: &EncodeTable) -> Registers {
    Registers {
        entry_of: [0, 1, 2, 3].map(|i| quarter(&table.entry_of, i)),
        freq: load(&table.freq),
        factor: [load(&table.factor[0]), load(&table.factor[1])],
        cum: load(&table.cum),
        escape: _mm512_set1_epi8(table.escape.cast_signed()),
    }
}

/// Encodes all of `symbols`; the caller has checked the plan and the buffers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt,bmi1,bmi2,lzcnt")]
pub(super) fn encode<const G: usize>(
    plan: &Plan<'_, EncodeTable>,
    symbols: &[u8],
    states: &mut [u16],
    stream: &mut [u8],
    escapes: &mut [u8],
) -> Encoded {
    let mut a = [_mm512_set1_epi16(256); G];
    let mut b = a;
    let mut at = stream.len() - SLACK_BYTES;
    let mut escape_at = escapes.len() - SLACK_BYTES;
    for (segment, &id) in symbols.chunks(plan.segment_len).zip(plan.table_ids).rev() {
        let table = registers(&plan.tables[usize::from(id)]);
        let (groups, _) = segment.as_chunks::<GROUP_LEN>();
        for step in groups.chunks_exact(G).rev() {
            // In bounds: a byte for every symbol not yet coded lies in front, and the slack.
            let window = stream.get_mut(..at).and_then(|front| front.last_chunk_mut::<ENCODE_WINDOW>());
            let Some(window) = window else { break };
            let mut place = Place { taken: 0, escape_at };
            // Written out, so that the states stay in registers: the compiler keeps a loop of this length.
            if G > 3 {
                encode_group((&mut a[3], &mut b[3]), &step[3], &table, window, escapes, &mut place);
            }
            if G > 2 {
                encode_group((&mut a[2], &mut b[2]), &step[2], &table, window, escapes, &mut place);
            }
            if G > 1 {
                encode_group((&mut a[1], &mut b[1]), &step[1], &table, window, escapes, &mut place);
            }
            encode_group((&mut a[0], &mut b[0]), &step[0], &table, window, escapes, &mut place);
            escape_at = place.escape_at;
            at -= place.taken;
        }
    }
    for g in 0..G {
        let (lanes, _) = states[g * GROUP_LEN..].as_chunks_mut::<32>();
        lanes[0] = cast(a[g]);
        lanes[1] = cast(b[g]);
    }
    Encoded { stream_start: at, escapes_start: escape_at }
}

/// Where the encoder writes next: bytes taken of the step's window, and the front of the escapes so far.
struct Place {
    taken: usize,
    escape_at: usize,
}

/// Puts one group into the states of its lanes A and B, which the even and the odd bytes of all that is looked up for its
/// symbols belong to.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt,bmi1,bmi2,lzcnt")]
fn encode_group(
    (a, b): (&mut __m512i, &mut __m512i),
    symbols: &[u8; GROUP_LEN],
    table: &Registers,
    window: &mut [u8; ENCODE_WINDOW],
    escapes: &mut [u8],
    place: &mut Place,
) {
    /// Even bytes first, then odd ones.
    static BY_LANE: [u8; 64] = {
        let mut places = [0; 64];
        let mut lane = 0u8;
        while lane < 32 {
            places[lane as usize] = 2 * lane;
            places[32 + lane as usize] = 2 * lane + 1;
            lane += 1;
        }
        places
    };
    /// Of three vectors: bits of the second where the first has them set, else of the third.
    const SELECT: i32 = 0xca;
    let symbols = load(symbols);
    let low = _mm512_permutex2var_epi8(table.entry_of[0], symbols, table.entry_of[1]);
    let high = _mm512_permutex2var_epi8(table.entry_of[2], symbols, table.entry_of[3]);
    let entries = _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(symbols), high);
    // No branch: one in four groups has an escape, and a wrong guess costs more than the work.
    let escaped = _mm512_cmpeq_epi8_mask(entries, table.escape);
    let n_escaped = escaped.count_ones() as usize;
    if let Some(front) = escapes.get_mut(..place.escape_at).and_then(|front| front.last_chunk_mut::<64>()) {
        let packed = _mm512_maskz_compress_epi8(escaped, symbols);
        *front = cast(_mm512_permutexvar_epi8(cast(alignment(n_escaped)), packed));
    }
    place.escape_at -= n_escaped;
    let low_byte = _mm512_set1_epi16(0x00ff);
    let freq = _mm512_permutexvar_epi8(entries, table.freq);
    let cum = _mm512_permutexvar_epi8(entries, table.cum);
    let [factor_low, factor_high] = table.factor.map(|bytes| _mm512_permutexvar_epi8(entries, bytes));
    let full_a = _mm512_cmpge_epu16_mask(*a, _mm512_slli_epi16(freq, 8));
    let full_b = _mm512_cmpge_epu16_mask(*b, _mm512_andnot_si512(low_byte, freq));
    let full = u64::from(full_b) << 32 | u64::from(full_a);
    let bytes = _mm512_ternarylogic_epi32(low_byte, *a, _mm512_slli_epi16(*b, 8), SELECT);
    let packed = _mm512_maskz_compress_epi8(full, _mm512_permutexvar_epi8(cast(BY_LANE), bytes));
    let count = full.count_ones() as usize;
    // In bounds: four groups take 256 bytes at most, and 64 more are in front.
    let end = ENCODE_WINDOW - (place.taken & WINDOW_MASK);
    let aligned = _mm512_permutexvar_epi8(cast(alignment(count)), packed);
    window[end - 64..end].copy_from_slice(&cast::<_, [u8; 64]>(aligned));
    place.taken += count;
    let x = _mm512_mask_srli_epi16(*a, full_a, *a, 8);
    let factor = _mm512_ternarylogic_epi32(low_byte, factor_low, _mm512_slli_epi16(factor_high, 8), SELECT);
    *a = put(x, _mm512_and_si512(freq, low_byte), factor, _mm512_and_si512(cum, low_byte));
    let x = _mm512_mask_srli_epi16(*b, full_b, *b, 8);
    let factor = _mm512_ternarylogic_epi32(low_byte, _mm512_srli_epi16(factor_low, 8), factor_high, SELECT);
    *b = put(x, _mm512_srli_epi16(freq, 8), factor, _mm512_srli_epi16(cum, 8));
}

/// The permutation that moves the first `count` bytes, at most 64, to the end: what is in front of them is overwritten by
/// what comes before.
#[inline]
fn alignment(count: usize) -> [u8; 64] {
    /// Indices modulo 64.
    static INDICES: [u8; 192] = {
        let mut indices = [0; 192];
        let mut i = 0;
        while i < 192 {
            #[expect(clippy::cast_possible_truncation, reason = "below 64")]
            {
                indices[i] = (i % 64) as u8;
            }
            i += 1;
        }
        indices
    };
    std::array::from_fn(|i| INDICES[(count & 127) + i])
}

/// Puts one symbol into each of 32 states: x becomes (x div freq)·256 + x mod freq + cum, which is
/// x + (x div freq)·(256 − freq) + cum. The quotient by `factor` may be 1 too small; the rest then is at least freq.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
fn put(x: __m512i, freq: __m512i, factor: __m512i, cum: __m512i) -> __m512i {
    let quotient = _mm512_mulhi_epu16(x, factor);
    let complement = _mm512_sub_epi16(_mm512_set1_epi16(256), freq);
    let next = _mm512_add_epi16(_mm512_add_epi16(x, cum), _mm512_mullo_epi16(quotient, complement));
    let rest = _mm512_sub_epi16(x, _mm512_mullo_epi16(quotient, freq));
    _mm512_mask_add_epi16(next, _mm512_cmpge_epu16_mask(rest, freq), next, complement)
}
