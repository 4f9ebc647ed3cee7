//! AVX2: a group's 64 symbols in vectors of 32 bytes, or of 16 states.
//!
//! Frequencies, sums and values come by `vpshufb` from rows of 16 entries; `entries` tells how a slot's entry is found
//! where there is no 256-byte look-up. The encoder's output goes through a shuffle table for eight lanes at a time.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::MAX_ENTRIES;

mod decode;
mod encode;
mod entries;
mod joined;
pub(super) use decode::decode;
pub(super) use encode::encode;
pub(super) use entries::Steps;
pub(super) use joined::decode_joined;

/// A byte table of up to 64 entries in rows of 16, each row in both halves of a vector.
type Rows = [__m256i; MAX_ENTRIES / 16];

#[inline]
#[target_feature(enable = "avx2")]
fn rows(bytes: &[u8; MAX_ENTRIES]) -> Rows {
    let (rows, _) = bytes.as_chunks::<16>();
    [0, 1, 2, 3].map(|row| _mm256_broadcastsi128_si256(cast(rows[row])))
}

/// Added to places: 0 to 15 leave bit 7 clear, those above set it, and a shuffle gives 0 where it is set.
const BIAS: u8 = 0x70;

/// Places as `vpshufb` wants them for each row: 0 to 15 for what is in the row, bit 7 set for all else.
#[inline]
#[target_feature(enable = "avx2")]
fn by_row<const N: usize>(places: __m256i) -> [__m256i; 4] {
    if N == 1 {
        return [places; 4];
    }
    if N == 2 {
        let first = _mm256_add_epi8(places, _mm256_set1_epi8(BIAS.cast_signed()));
        return [first, _mm256_xor_si256(first, _mm256_set1_epi8(i8::MIN)), first, first];
    }
    [0, 16, 32, 48].map(|start| {
        let place = _mm256_sub_epi8(places, _mm256_set1_epi8(start));
        _mm256_adds_epu8(place, _mm256_set1_epi8(BIAS.cast_signed()))
    })
}

/// `rows[places]` for each byte; `N` rows are in use.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up<const N: usize>(rows: &Rows, places: &[__m256i; 4]) -> __m256i {
    let mut found = _mm256_shuffle_epi8(rows[0], places[0]);
    for row in 1..N {
        found = _mm256_or_si256(found, _mm256_shuffle_epi8(rows[row], places[row]));
    }
    found
}
