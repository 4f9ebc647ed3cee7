//! Decoding: a group's states stand in four vectors, the low and the high bytes of lanes A and of lanes B, so that a
//! vector of low bytes is one of slots, and taking a byte of the stream moves whole bytes.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::super::{GROUP_LEN, MAX_ENTRIES, MAX_GROUPS, MAX_STEP_BYTES, Position, Table, Tile};
use super::entries::{Entries, Finder, Steps};
use super::{Rows, rows};

/// Bytes of the stream that a step sees.
pub(super) const WINDOW: usize = MAX_STEP_BYTES;
/// Covers every offset within a step's window at which a load of 16 bytes may begin.
const WINDOW_MASK: usize = MAX_GROUPS * GROUP_LEN - 1;

/// 32 states: their low and their high bytes.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    low: __m256i,
    high: __m256i,
}

/// Lanes A and B of each group.
pub(super) type States<const G: usize> = [[Lanes; 2]; G];

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_states<const G: usize>(states: &[u16]) -> States<G> {
    let (lanes, _) = states.as_chunks::<32>();
    let in_order = |bytes| _mm256_permute4x64_epi64::<0b11_01_10_00>(bytes);
    let load = |lanes: [u16; 32]| {
        let [first, second]: [__m256i; 2] = cast(lanes);
        let low = |x| _mm256_and_si256(x, _mm256_set1_epi16(0x00ff));
        let high = |x| _mm256_srli_epi16(x, 8);
        Lanes {
            low: in_order(_mm256_packus_epi16(low(first), low(second))),
            high: in_order(_mm256_packus_epi16(high(first), high(second))),
        }
    };
    std::array::from_fn(|g| [load(lanes[2 * g]), load(lanes[2 * g + 1])])
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_states<const G: usize>(vectors: &States<G>, states: &mut [u16]) {
    for (lanes, vector) in states.as_chunks_mut::<32>().0.iter_mut().zip(vectors.as_flattened()) {
        let low = _mm256_permute4x64_epi64::<0b11_01_10_00>(vector.low);
        let high = _mm256_permute4x64_epi64::<0b11_01_10_00>(vector.high);
        *lanes = cast([_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)]);
    }
}

/// What decoding to entries takes of one table.
pub(super) struct DecodeRegisters<'a> {
    finder: Finder<'a>,
    freq: Rows,
    cum: Rows,
    escape: u8,
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn decode_registers<'a>(table: &Table, steps: &'a Steps) -> DecodeRegisters<'a> {
    DecodeRegisters {
        finder: Finder::new(steps),
        freq: rows(&table.freq),
        cum: rows(&table.cum),
        escape: table.n_entries - 1,
    }
}

impl DecodeRegisters<'_> {
    /// The entries of a group's lanes.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn entries(&self, lanes: &[Lanes; 2]) -> Entries {
        self.finder.entries([lanes[0].low, lanes[1].low])
    }

    /// Takes a group's states a step further; [`refill`] is what is left to do, for A, then for B.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn advance<const N: usize>(&self, lanes: &mut [Lanes; 2], entries: Entries) {
        let low_byte = _mm256_set1_epi16(0x00ff);
        let freq = entries.look_up::<N>(&self.freq);
        let cum = entries.look_up::<N>(&self.cum);
        for v in 0..2 {
            let Lanes { low, high } = lanes[v];
            let bias = _mm256_sub_epi8(low, cum[v]);
            let even = _mm256_add_epi16(
                _mm256_mullo_epi16(_mm256_and_si256(high, low_byte), _mm256_and_si256(freq[v], low_byte)),
                _mm256_and_si256(bias, low_byte),
            );
            // The upper half of a product of 256 times each factor.
            let odd = _mm256_add_epi16(
                _mm256_mulhi_epu16(
                    _mm256_andnot_si256(low_byte, high),
                    _mm256_andnot_si256(low_byte, freq[v]),
                ),
                _mm256_srli_epi16(bias, 8),
            );
            lanes[v] = Lanes {
                low: _mm256_blendv_epi8(_mm256_slli_epi16(odd, 8), even, low_byte),
                high: _mm256_blendv_epi8(odd, _mm256_srli_epi16(even, 8), low_byte),
            };
        }
    }

    /// A bit for each of the symbols that is an escape, in their order.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn escaped(&self, entries: Entries) -> u64 {
        entries.equal_last(self.escape)
    }
}

/// Shifts a byte into every state below 256, in lane order; returns how much of `window` is taken then.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(super) fn refill(lanes: &mut Lanes, window: &[u8; WINDOW], taken: usize) -> usize {
    let Lanes { low, high } = *lanes;
    let small = _mm256_cmpeq_epi8(high, _mm256_setzero_si256());
    let mask = _mm256_movemask_epi8(small).cast_unsigned();
    // Running counts of the lanes that need a byte: within four lanes by a product, then of the fours before.
    let [last_of_4, last_of_8] = RUNNING;
    let row = |bytes: [u8; 16]| _mm256_broadcastsi128_si256(cast(bytes));
    let counts = _mm256_mullo_epi32(small, _mm256_set1_epi32(COUNT));
    let counts = _mm256_add_epi8(counts, _mm256_shuffle_epi8(counts, row(last_of_4)));
    let before = _mm256_add_epi8(counts, _mm256_set1_epi8(-1));
    let place = _mm256_add_epi8(before, _mm256_shuffle_epi8(counts, row(last_of_8)));
    let middle = taken + (mask & 0xffff).count_ones() as usize;
    let bytes = _mm256_set_m128i(next_16(window, middle), next_16(window, taken));
    let bytes = _mm256_shuffle_epi8(bytes, place);
    *lanes = Lanes { low: _mm256_blendv_epi8(low, bytes, small), high: _mm256_blendv_epi8(high, low, small) };
    taken + mask.count_ones() as usize
}

/// A mask of bytes is 255 times as many ones; 255 times this is 0x01010101 modulo 2^32, which sums ones upwards.
const COUNT: i32 = -0x0403_0201;

/// The last lane of the four before, in every second four; the last lane of the eight before.
const RUNNING: [[u8; 16]; 2] = [
    [0x80, 0x80, 0x80, 0x80, 3, 3, 3, 3, 0x80, 0x80, 0x80, 0x80, 11, 11, 11, 11],
    [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 7, 7, 7, 7, 7, 7, 7, 7],
];

/// The 16 bytes from `at`; the mask spares the check.
#[inline]
#[target_feature(enable = "avx2")]
fn next_16(window: &[u8; WINDOW], at: usize) -> __m128i {
    let bytes: [u8; 16] = std::array::from_fn(|i| window[(at & WINDOW_MASK) + i]);
    cast(bytes)
}

/// Decodes from `position` while a whole step's bytes are certain to be there; where it stops. The caller has checked the
/// plan and the states.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(in super::super) fn decode<const G: usize>(
    tile: &mut Tile<'_, '_>,
    states: &mut [u16],
    position: Position,
) -> Position {
    if tile.plan.tables.iter().all(|table| table.n_entries() <= 32) {
        decode_with::<G, 2>(tile, states, position)
    } else {
        decode_with::<G, { MAX_ENTRIES / 16 }>(tile, states, position)
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn decode_with<const G: usize, const N: usize>(
    tile: &mut Tile<'_, '_>,
    states: &mut [u16],
    mut position: Position,
) -> Position {
    let (plan, tile_steps, stream, escapes) = (tile.plan, tile.steps, tile.stream, tile.escapes);
    let mut vectors = load_states::<G>(states);
    'segments: for (segment, id) in tile.segments_from(position) {
        let (Some(table), Some(steps)) = (plan.tables.get(usize::from(id)), tile_steps.get(usize::from(id)))
        else {
            break;
        };
        let registers = decode_registers(table, steps);
        let value = rows(&table.value);
        let (groups, _) = segment.as_chunks_mut::<GROUP_LEN>();
        for step in groups.chunks_exact_mut(G) {
            let Some(window) = stream.get(position.stream..).and_then(|rest| rest.first_chunk::<WINDOW>())
            else {
                break 'segments;
            };
            if escapes.len() < position.escape + G * GROUP_LEN {
                break 'segments;
            }
            let mut taken = 0usize;
            for (group, lanes) in step.iter_mut().zip(&mut vectors) {
                let entries = registers.entries(lanes);
                registers.advance::<N>(lanes, entries);
                taken = refill(&mut lanes[0], window, taken);
                taken = refill(&mut lanes[1], window, taken);
                let entries = entries.of_symbols();
                store_in_order(entries.look_up::<N>(&value), group);
                let mut escaped = registers.escaped(entries);
                while escaped != 0 {
                    // In bounds: the step's check covers an escape for every symbol.
                    let symbol = escapes.get(position.escape).copied().unwrap_or(0);
                    group[escaped.trailing_zeros() as usize & (GROUP_LEN - 1)] = symbol;
                    position.escape += 1;
                    escaped &= escaped - 1;
                }
            }
            position.stream += taken;
            position.symbol += G * GROUP_LEN;
        }
    }
    store_states(&vectors, states);
    position
}

/// Stores what the step before has given for each symbol.
#[inline]
#[target_feature(enable = "avx2")]
fn store_in_order([first, second]: [__m256i; 2], dst: &mut [u8; GROUP_LEN]) {
    let (halves, _) = dst.as_chunks_mut::<32>();
    halves[0] = cast(_mm256_permute2x128_si256::<0x20>(first, second));
    halves[1] = cast(_mm256_permute2x128_si256::<0x31>(first, second));
}
