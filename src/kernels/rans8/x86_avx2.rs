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
