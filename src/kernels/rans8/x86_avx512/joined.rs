//! Decoding and joining in one loop. Entries give two bytes in place of one, the residual's bits are or-ed to them, and
//! the bytes of 64 elements change from planes into elements by two-source permutations.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::super::joined::{BYTE, PACKED, PLANE, PLANE_AND_PACKED, Residual, Shape, prefetch_step};
use super::super::{GROUP_LEN, Plan, Position, Table};
use super::{QUEUE, WINDOW, decode_registers, load, load_states, next_entries, place_escapes, store_states};
use crate::kernels::crc64::Folded;
use crate::kernels::crc64::x86::Fold;
use crate::kernels::pack_bits::{packed_len, spread_avx512};

/// Bytes of a packed plane that a step may touch at most: seven for eight elements, less than 256 to the last group, and
/// the 64 that its load takes.
const PACKED_WINDOW: usize = 256 + 64;

/// For two vectors of 64 bytes: indices that interleave their first and their second halves.
static INTERLEAVE_BYTES: [[u8; 64]; 2] = {
    let mut table = [[0; 64]; 2];
    let mut i = 0;
    while i < 64 {
        #[expect(clippy::cast_possible_truncation, reason = "below 128")]
        {
            table[0][i] = (i / 2 + i % 2 * 64) as u8;
            table[1][i] = (i / 2 + i % 2 * 64 + 32) as u8;
        }
        i += 1;
    }
    table
};

/// The same for two vectors of 32 words.
static INTERLEAVE_WORDS: [[u16; 32]; 2] = {
    let mut table = [[0; 32]; 2];
    let mut i = 0;
    while i < 32 {
        #[expect(clippy::cast_possible_truncation, reason = "below 64")]
        {
            table[0][i] = (i / 2 + i % 2 * 32) as u16;
            table[1][i] = (i / 2 + i % 2 * 32 + 16) as u16;
        }
        i += 1;
    }
    table
};

/// Decodes from the block's first symbol on while a whole step's bytes are certain to be there; where it stops, and what it has
/// written folded. The caller has checked the plan, the states, and that the layout has `shape`.
#[target_feature(
    enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt,bmi1,bmi2,lzcnt,vpclmulqdq"
)]
pub(in super::super) fn decode_joined<const G: usize>(
    plan: &Plan<'_, Table>,
    stream: &[u8],
    shape: Shape,
    residual: &Residual<'_>,
    states: &mut [u16],
    dst: &mut [u8],
) -> (Position, Folded) {
    let planes = residual.byte_planes;
    match (shape, planes) {
        (Shape::Byte, []) => decode_as::<G, 1, BYTE>(plan, stream, residual, [&[]; 2], &[], states, dst),
        (Shape::Packed { n_lower: 0 }, []) => {
            decode_as::<G, 2, PACKED>(plan, stream, residual, [&[]; 2], &[], states, dst)
        }
        (Shape::Packed { n_lower: 2 }, [low, middle]) => {
            decode_as::<G, 4, PACKED>(plan, stream, residual, [low, middle], &[], states, dst)
        }
        (Shape::Plane { n_lower: 0 }, [top]) => {
            decode_as::<G, 2, PLANE>(plan, stream, residual, [&[]; 2], top, states, dst)
        }
        (Shape::Plane { n_lower: 2 }, [low, middle, top]) => {
            decode_as::<G, 4, PLANE>(plan, stream, residual, [low, middle], top, states, dst)
        }
        (Shape::PlaneAndPacked, [low]) => {
            decode_as::<G, 2, PLANE_AND_PACKED>(plan, stream, residual, [&[]; 2], low, states, dst)
        }
        _ => Default::default(),
    }
}

/// Elements of `BYTES` bytes: `lower` are the planes of their low two bytes where they have four, `plane` that of their
/// second or, with `SHAPE` [`PLANE_AND_PACKED`], their first byte from the top but one.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt,bmi1,bmi2,lzcnt,vpclmulqdq"
)]
fn decode_as<const G: usize, const BYTES: usize, const SHAPE: u8>(
    plan: &Plan<'_, Table>,
    stream: &[u8],
    residual: &Residual<'_>,
    lower: [&[u8]; 2],
    plane: &[u8],
    states: &mut [u16],
    dst: &mut [u8],
) -> (Position, Folded) {
    let layout = &residual.layout;
    let constants = Constants::new::<BYTES, SHAPE>(residual);
    let group_bytes = packed_len(layout.packed_bits(), GROUP_LEN);
    let (lower, (plane, _)) = (lower.map(|plane| plane.as_chunks::<GROUP_LEN>().0), plane.as_chunks());
    let mut vectors = load_states::<G>(states);
    let mut position = Position::default();
    let mut fold = Fold::new();
    let segments = dst.chunks_mut(plan.segment_len * BYTES).zip(plan.table_ids);
    'segments: for (segment, &id) in segments {
        let table = &plan.tables[usize::from(id)];
        let registers = decode_registers(table);
        let [high_of, low_of] = [load(&table.placed[0]), load(&table.placed[1])];
        let (vectors_of_dst, _) = segment.as_chunks_mut::<GROUP_LEN>();
        for step in vectors_of_dst.chunks_exact_mut(G * BYTES) {
            let Position { stream: at, escape: escape_at, symbol } = position;
            let group = symbol / GROUP_LEN;
            let Some(window) = stream.get(at..).and_then(|rest| rest.first_chunk::<WINDOW>()) else {
                break 'segments;
            };
            let [Some(high_queue), Some(low_queue)] = residual
                .escapes
                .map(|escapes| escapes.get(escape_at..).and_then(|rest| rest.first_chunk::<QUEUE>()))
            else {
                break 'segments;
            };
            let (mut taken, mut escapes_taken) = (0usize, 0usize);
            let packed = if SHAPE == PLANE {
                &[0; PACKED_WINDOW]
            } else {
                let from = group * group_bytes;
                let Some(packed) = residual.packed.get(from..).and_then(|rest| rest.first_chunk()) else {
                    break 'segments;
                };
                packed
            };
            let planes: &[[u8; GROUP_LEN]] = if matches!(SHAPE, PLANE | PLANE_AND_PACKED) {
                let Some(groups) = plane.get(group..group + G) else { break 'segments };
                groups
            } else {
                &[]
            };
            let lower: [&[[u8; GROUP_LEN]]; 2] = if BYTES == 4 {
                let [Some(low), Some(middle)] = lower.map(|plane| plane.get(group..group + G)) else {
                    break 'segments;
                };
                [low, middle]
            } else {
                [&[]; 2]
            };
            let whole: &[u8] = if SHAPE == PLANE { &[] } else { packed };
            let [low, middle] = lower.map(<[_]>::as_flattened);
            prefetch_step::<G>(step, [whole, planes.as_flattened(), low, middle], window);
            for g in 0..G {
                let entry;
                (entry, taken) = next_entries(&registers, &mut vectors[g], window, taken);
                let escaped = _mm512_cmpeq_epi8_mask(entry, registers.escape);
                let high = _mm512_permutexvar_epi8(entry, high_of);
                let high = place_escapes(high, escaped, high_queue, escapes_taken);
                let mut low = _mm512_setzero_si512();
                if BYTES > 1 && SHAPE != PLANE_AND_PACKED {
                    low = _mm512_permutexvar_epi8(entry, low_of);
                    low = place_escapes(low, escaped, low_queue, escapes_taken);
                }
                escapes_taken += escaped.count_ones() as usize;
                let plane = if SHAPE == PLANE || SHAPE == PLANE_AND_PACKED {
                    load(&planes[g])
                } else {
                    _mm512_setzero_si512()
                };
                let at = (g * group_bytes) & 255;
                let eights: [u8; 64] = std::array::from_fn(|i| packed[at + i]);
                let (high, low) = constants.or_residual::<SHAPE>(high, low, plane, &eights);
                let out = &mut step[g * BYTES..(g + 1) * BYTES];
                let mut put = |place: usize, vector| {
                    fold.push(vector);
                    out[place] = cast(vector);
                };
                match BYTES {
                    1 => put(0, high),
                    2 => {
                        let [first, second] = constants.interleave_bytes(low, high);
                        put(0, first);
                        put(1, second);
                    }
                    _ => {
                        let uppers = constants.interleave_bytes(low, high);
                        let lowers = constants.interleave_bytes(load(&lower[0][g]), load(&lower[1][g]));
                        for half in 0..2 {
                            let [first, second] = constants.interleave_words(lowers[half], uppers[half]);
                            put(2 * half, first);
                            put(2 * half + 1, second);
                        }
                    }
                }
            }
            position = Position {
                stream: at + taken,
                escape: escape_at + escapes_taken,
                symbol: symbol + G * GROUP_LEN,
            };
        }
    }
    store_states(&vectors, states);
    (position, fold.finish(position.symbol * BYTES))
}

/// What the loops need in registers besides tables.
struct Constants {
    /// The byte permutation and bit positions that unpack values to the low bits of bytes.
    spread: __m512i,
    to_bottom: __m512i,
    /// The positions that bring a value's top bit, the sign, to the top of its byte.
    to_top: __m512i,
    /// The sign's bit where there is one.
    sign: __m512i,
    /// The bits of the rest of the mantissa in the byte that they share with the symbol.
    rest: __m512i,
    bytes: [__m512i; 2],
    words: [__m512i; 2],
}

impl Constants {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
    fn new<const BYTES: usize, const SHAPE: u8>(residual: &Residual<'_>) -> Self {
        let layout = &residual.layout;
        let n_bits = layout.packed_bits();
        let (spread, to_bottom) = spread_avx512(n_bits);
        let to_bottom: __m512i = cast(*to_bottom);
        // Positions are taken modulo 64.
        let up = _mm512_set1_epi8(8 - n_bits.to_le_bytes()[0].cast_signed());
        let sign_bits = u32::from(layout.has_sign);
        let shared_bits = if SHAPE == PLANE { 7 } else { n_bits - sign_bits };
        Self {
            spread: cast(*spread),
            to_bottom,
            to_top: _mm512_sub_epi8(to_bottom, up),
            sign: _mm512_set1_epi8(if layout.has_sign { i8::MIN } else { 0 }),
            rest: _mm512_set1_epi8(((1u8 << shared_bits) - 1).cast_signed()),
            bytes: INTERLEAVE_BYTES.map(cast),
            words: INTERLEAVE_WORDS.map(cast),
        }
    }

    /// Puts sign and rest of the residual to the bytes of the symbol.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
    fn or_residual<const SHAPE: u8>(
        &self,
        high: __m512i,
        low: __m512i,
        plane: __m512i,
        packed: &[u8; 64],
    ) -> (__m512i, __m512i) {
        // 0xF8: a | b & c.
        let or_masked = |a, b, mask| _mm512_ternarylogic_epi32::<0xF8>(a, b, mask);
        if SHAPE == PLANE {
            return (or_masked(high, plane, self.sign), or_masked(low, plane, self.rest));
        }
        let words = _mm512_permutexvar_epi8(self.spread, cast(*packed));
        let signs = _mm512_multishift_epi64_epi8(self.to_top, words);
        let rests = _mm512_multishift_epi64_epi8(self.to_bottom, words);
        let high = or_masked(high, signs, self.sign);
        match SHAPE {
            BYTE => (or_masked(high, rests, self.rest), low),
            PACKED => (high, or_masked(low, rests, self.rest)),
            _ => (or_masked(high, rests, self.rest), plane),
        }
    }

    /// Two vectors of bytes as pairs.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
    fn interleave_bytes(&self, low: __m512i, high: __m512i) -> [__m512i; 2] {
        self.bytes.map(|indices| _mm512_permutex2var_epi8(low, indices, high))
    }

    /// Two vectors of 16-bit words as pairs.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
    fn interleave_words(&self, low: __m512i, high: __m512i) -> [__m512i; 2] {
        self.words.map(|indices| _mm512_permutex2var_epi16(low, indices, high))
    }
}
