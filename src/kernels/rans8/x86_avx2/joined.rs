//! Decoding and joining in one loop, as for AVX-512. Vectors of bytes hold symbols 0 to 15 and 32 to 47 of a group, or 16
//! to 31 and 48 to 63, so that interleaving, which AVX2 does by halves of a vector, leaves runs of 16 bytes that are
//! stored one by one.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::super::joined::{BYTE, PACKED, PLANE, PLANE_AND_PACKED, Residual, Shape};
use super::super::{GROUP_LEN, MAX_GROUPS, Position, Tile};
use super::decode::{WINDOW, decode_registers, load_states, refill, store_states};
use super::rows;
use crate::kernels::pack_bits::packed_len;

/// Rows of 16 entries that the loops are made for.
const N_ROWS: usize = 2;
/// Bytes of a packed plane that a step may touch at most: less than 256 to its last load, and the 16 that this takes.
const PACKED_WINDOW: usize = 256 + 16;
/// Escapes that one step may take.
const QUEUE: usize = MAX_GROUPS * GROUP_LEN;

/// Decodes from the block's first symbol on while a whole step's bytes are certain to be there; where it stops. The caller
/// has checked the plan, the states, and that the layout has `shape`.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(in super::super) fn decode_joined<const G: usize>(
    tile: &mut Tile<'_, '_>,
    shape: Shape,
    residual: &Residual<'_>,
    states: &mut [u16],
) -> Position {
    if tile.plan.tables.iter().any(|table| table.n_entries() > 16 * N_ROWS) {
        return Position::default();
    }
    const NONE: [&[u8]; 2] = [&[]; 2];
    match (shape, residual.byte_planes) {
        (Shape::Byte, []) => decode_as::<G, 1, BYTE>(tile, residual, NONE, &[], states),
        (Shape::Packed { n_lower: 0 }, []) => decode_as::<G, 2, PACKED>(tile, residual, NONE, &[], states),
        (Shape::Packed { n_lower: 2 }, &[low, middle]) => {
            decode_as::<G, 4, PACKED>(tile, residual, [low, middle], &[], states)
        }
        (Shape::Plane { n_lower: 0 }, &[top]) => decode_as::<G, 2, PLANE>(tile, residual, NONE, top, states),
        (Shape::Plane { n_lower: 2 }, &[low, middle, top]) => {
            decode_as::<G, 4, PLANE>(tile, residual, [low, middle], top, states)
        }
        (Shape::PlaneAndPacked, &[low]) => {
            decode_as::<G, 2, PLANE_AND_PACKED>(tile, residual, NONE, low, states)
        }
        _ => Position::default(),
    }
}

/// Elements of `BYTES` bytes: `lower` are the planes of their low two bytes where they have four, `plane` that of their
/// second or, with `SHAPE` [`PLANE_AND_PACKED`], their first byte from the top but one.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn decode_as<const G: usize, const BYTES: usize, const SHAPE: u8>(
    tile: &mut Tile<'_, '_>,
    residual: &Residual<'_>,
    lower: [&[u8]; 2],
    plane: &[u8],
    states: &mut [u16],
) -> Position {
    let (plan, steps, stream) = (tile.plan, tile.steps, tile.stream);
    let joiner = Joiner::<BYTES, SHAPE>::new(residual);
    let mut vectors = load_states::<G>(states);
    let mut position = Position::default();
    let mut waiting = Waiting::default();
    let steps_of_segment = plan.segment_len / (G * GROUP_LEN);
    'segments: for &id in plan.table_ids {
        let Some(steps) = steps.get(usize::from(id)) else { break };
        let table = &plan.tables[usize::from(id)];
        let registers = decode_registers(table, steps);
        let placed = [rows(&table.placed[0]), rows(&table.placed[1])];
        for _ in 0..steps_of_segment {
            let first = position.symbol;
            let window = stream.get(position.stream..).and_then(|rest| rest.first_chunk::<WINDOW>());
            let Some(window) = window else { break 'segments };
            let planes = Planes::of_step::<G, BYTES, SHAPE>(&joiner, residual.packed, plane, lower, first);
            let Some(planes) = planes else { break 'segments };
            let n_escapes = position.escape + waiting.n + QUEUE;
            if residual.escapes.iter().any(|escapes| escapes.len() < n_escapes) {
                break 'segments;
            }
            let Some(step) = tile.dst.get_mut(first * BYTES..(first + G * GROUP_LEN) * BYTES) else {
                break 'segments;
            };
            let mut taken = 0usize;
            for g in 0..G {
                let lanes = &mut vectors[g];
                let entries = registers.entries(lanes);
                registers.advance::<N_ROWS>(lanes, entries);
                taken = refill(&mut lanes[0], window, taken);
                taken = refill(&mut lanes[1], window, taken);
                let entries = entries.of_symbols();
                let dst = &mut step[g * GROUP_LEN * BYTES..(g + 1) * GROUP_LEN * BYTES];
                let [high, low] = [0, 1].map(|byte| entries.look_up::<N_ROWS>(&placed[byte]));
                for half in 0..2 {
                    joiner.join(high[half], low[half], &planes, g, half, dst.as_chunks_mut().0);
                }
                waiting.push(first + g * GROUP_LEN, registers.escaped(entries));
            }
            position.stream += taken;
            position.symbol += G * GROUP_LEN;
            if waiting.n > QUEUE {
                waiting.place::<BYTES>(residual.escapes, &mut position.escape, tile.dst);
            }
        }
    }
    waiting.place::<BYTES>(residual.escapes, &mut position.escape, tile.dst);
    store_states(&vectors, states);
    position
}

/// Escapes that wait to be placed: one in three groups has one, and a branch for it that is guessed wrong takes a fifth
/// of a group's time.
struct Waiting {
    symbols: [usize; 2 * QUEUE],
    n: usize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { symbols: [0; 2 * QUEUE], n: 0 }
    }
}

impl Waiting {
    /// Puts those down that are set in `escaped`, for a group from symbol `first` on.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
    fn push(&mut self, first: usize, escaped: u64) {
        let end = self.n + escaped.count_ones() as usize;
        let mut left = escaped;
        // The mask spares the check; what is behind the end is written over.
        let mut put = |at: usize| {
            self.symbols[at & (2 * QUEUE - 1)] = first + left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
        };
        put(self.n);
        put(self.n + 1);
        // Seldom: one group in a hundred.
        (self.n + 2..end).for_each(put);
        self.n = end;
    }

    /// Puts what waits into elements, where the tables have put zeros; `at` is the first one's number.
    fn place<const BYTES: usize>(&mut self, escapes: [&[u8]; 2], at: &mut usize, dst: &mut [u8]) {
        for &symbol in &self.symbols[..self.n.min(2 * QUEUE)] {
            let end = (symbol + 1) * BYTES;
            // In bounds: before a step there is an escape for each of its symbols.
            for (byte, escapes) in escapes.iter().enumerate().take(BYTES) {
                if let (Some(place), Some(placed)) = (dst.get_mut(end - 1 - byte), escapes.get(*at)) {
                    *place |= placed;
                }
            }
            *at += 1;
        }
        self.n = 0;
    }
}

/// What the planes hold for the elements of a step.
struct Planes<'a> {
    packed: &'a [u8; PACKED_WINDOW],
    /// The plane of the second or first byte from the top.
    upper: &'a [[u8; GROUP_LEN]],
    lower: [&'a [[u8; GROUP_LEN]]; 2],
}

impl<'a> Planes<'a> {
    /// For `G` groups from element `first` on; `None` if the planes end before.
    #[inline]
    fn of_step<const G: usize, const BYTES: usize, const SHAPE: u8>(
        joiner: &Joiner<BYTES, SHAPE>,
        packed: &'a [u8],
        upper: &'a [u8],
        lower: [&'a [u8]; 2],
        first: usize,
    ) -> Option<Self> {
        const NONE: &[u8; PACKED_WINDOW] = &[0; PACKED_WINDOW];
        let groups = |plane: &'a [u8]| Some(plane.get(first..first + G * GROUP_LEN)?.as_chunks().0);
        let from = first / GROUP_LEN * joiner.group_bytes;
        Some(Self {
            packed: if SHAPE == PLANE { NONE } else { packed.get(from..)?.first_chunk()? },
            upper: if matches!(SHAPE, PLANE | PLANE_AND_PACKED) { groups(upper)? } else { &[] },
            lower: if BYTES == 4 { [groups(lower[0])?, groups(lower[1])?] } else { [&[]; 2] },
        })
    }
}

/// What joining needs besides tables.
struct Joiner<const BYTES: usize, const SHAPE: u8> {
    group_bytes: usize,
    /// For 16 values from the front of 16 bytes, eight a row: the two bytes that hold each, and the factor that brings
    /// it to the top of 16 bits.
    pairs: [__m256i; 2],
    factors: [__m256i; 2],
    /// The count that brings it down again, its sign spread over what is above.
    down: __m128i,
    /// The sign, at the top of 16 bits, or of 8 where values become bytes, and the rest of the mantissa.
    kept: __m256i,
}

impl<const BYTES: usize, const SHAPE: u8> Joiner<BYTES, SHAPE> {
    #[target_feature(enable = "avx2")]
    fn new(residual: &Residual<'_>) -> Self {
        let layout = &residual.layout;
        let n_bits = layout.packed_bits();
        let (mut pairs, mut factors) = ([[[0u8; 2]; 8]; 2], [[0u16; 8]; 2]);
        for value in 0..16u8 {
            let [byte, ..] = (u32::from(value) * n_bits / 8).to_le_bytes();
            let left = u32::from(value) * n_bits % 8;
            let (row, place) = (usize::from(value / 8), usize::from(value % 8));
            pairs[row][place] = [byte, byte + 1];
            factors[row][place] = 1u16.unbounded_shl(16 - n_bits - left);
        }
        let sign = if SHAPE == PACKED { i16::MIN } else { 0x80 };
        let rest_bits = n_bits - u32::from(layout.has_sign && n_bits > 0);
        let rest = (1i16 << rest_bits) - 1;
        Self {
            group_bytes: packed_len(n_bits, GROUP_LEN),
            pairs: pairs.map(|row| _mm256_broadcastsi128_si256(cast(row))),
            factors: factors.map(|row| _mm256_broadcastsi128_si256(cast(row))),
            down: _mm_cvtsi32_si128(16 - n_bits.cast_signed()),
            kept: _mm256_set1_epi16(if layout.has_sign { sign | rest } else { rest }),
        }
    }

    /// Joins the `half` of group `g` of a step whose symbols' bytes are `high` and `low`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn join(
        &self,
        mut high: __m256i,
        mut low: __m256i,
        planes: &Planes<'_>,
        g: usize,
        half: usize,
        dst: &mut [[u8; 16]],
    ) {
        let sign = _mm256_set1_epi8(i8::MIN);
        match SHAPE {
            PACKED => {}
            PLANE => {
                let upper = halves(&planes.upper[g], half);
                high = _mm256_or_si256(high, _mm256_and_si256(upper, sign));
                low = _mm256_or_si256(low, _mm256_andnot_si256(sign, upper));
            }
            _ => {
                let [first, second] = self.values(planes.packed, g, half);
                high = _mm256_or_si256(high, _mm256_packus_epi16(first, second));
                if SHAPE == PLANE_AND_PACKED {
                    low = halves(&planes.upper[g], half);
                }
            }
        }
        if BYTES == 1 {
            put_runs(high, half, dst);
            return;
        }
        let mut words = [_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)];
        if SHAPE == PACKED {
            let values = self.values(planes.packed, g, half);
            words = [0, 1].map(|which| _mm256_or_si256(words[which], values[which]));
        }
        if BYTES == 2 {
            put_runs(words[0], 2 * half, dst);
            put_runs(words[1], 2 * half + 1, dst);
            return;
        }
        let [low, middle] = planes.lower.map(|plane| halves(&plane[g], half));
        let lower = [_mm256_unpacklo_epi8(low, middle), _mm256_unpackhi_epi8(low, middle)];
        for which in 0..2 {
            let run = 4 * half + 2 * which;
            put_runs(_mm256_unpacklo_epi16(lower[which], words[which]), run, dst);
            put_runs(_mm256_unpackhi_epi16(lower[which], words[which]), run + 1, dst);
        }
    }

    /// The packed values of half a group in words, each with its sign and its rest where they are kept.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn values(&self, packed: &[u8; PACKED_WINDOW], g: usize, half: usize) -> [__m256i; 2] {
        let quarter = self.group_bytes / 4;
        let load = |quarters: usize| -> __m128i {
            // At most 15 · 14; the mask spares a check.
            let at = (quarters * quarter) & 255;
            let bytes: [u8; 16] = std::array::from_fn(|i| packed[at + i]);
            cast(bytes)
        };
        let bytes = _mm256_set_m128i(load(4 * g + half + 2), load(4 * g + half));
        [0, 1].map(|row| {
            let top = _mm256_mullo_epi16(_mm256_shuffle_epi8(bytes, self.pairs[row]), self.factors[row]);
            _mm256_and_si256(_mm256_sra_epi16(top, self.down), self.kept)
        })
    }
}

/// Bytes 0 to 15 and 32 to 47 of a group, or 16 to 31 and 48 to 63.
#[inline]
#[target_feature(enable = "avx2")]
fn halves(group: &[u8; GROUP_LEN], half: usize) -> __m256i {
    let (runs, _) = group.as_chunks::<16>();
    _mm256_set_m128i(cast(runs[half + 2]), cast(runs[half]))
}

/// Stores the halves of `bytes`, which half the elements of a group lie between, as the `at`-th runs of their halves.
#[inline]
#[target_feature(enable = "avx2")]
fn put_runs(bytes: __m256i, at: usize, dst: &mut [[u8; 16]]) {
    let (front, back) = dst.split_at_mut(dst.len() / 2);
    if let (Some(front), Some(back)) = (front.get_mut(at), back.get_mut(at)) {
        *front = cast(_mm256_castsi256_si128(bytes));
        *back = cast(_mm256_extracti128_si256(bytes, 1));
    }
}
