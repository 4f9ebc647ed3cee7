//! x86-64: 32 or 64 values at a time close up by products or shifts, `pext` does the last ones; on the way out `pdep` for
//! eight at a time, and `vpmultishiftqb` for 64.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::scalar::put_word;
use super::{GROUP_LEN, scalar};

/// Bits to keep of each byte.
pub(crate) fn lanes(n_bits: u32) -> u64 {
    0x0101_0101_0101_0101 * ((1 << n_bits) - 1)
}

#[target_feature(enable = "bmi2")]
pub(super) fn pack_bmi2(n_bits: u32, src: &[u8], dst: &mut [u8]) {
    let (mask, n_bytes) = (lanes(n_bits), n_bits as usize);
    for (idx, values) in src.as_chunks::<8>().0.iter().enumerate() {
        put_word(_pext_u64(u64::from_le_bytes(*values), mask), n_bytes, idx, dst);
    }
}

/// The constants with which AVX-512 packs values of one width: in every 64-bit lane pairs of bytes, then of 16 and of 32
/// bits, close up; a permutation drops the bytes left empty.
pub(crate) struct Packer {
    /// Of each step: the lower values' bits, the upper ones' where they go, and how far.
    steps: [(__m512i, __m512i, __m128i); 3],
    /// The bytes of lane q that are kept, one lane behind the other.
    gather: __m512i,
}

impl Packer {
    /// For values of `n_bits`, 1 to 7.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
    pub(crate) fn new(n_bits: u32) -> Self {
        let n_bytes = n_bits as usize;
        let mut gather = [0u8; 64];
        let kept = (0..8).flat_map(|lane| (0..n_bytes).map(move |byte| 8 * lane + byte));
        gather.iter_mut().zip(kept).for_each(|(place, byte)| *place = byte.to_le_bytes()[0]);
        let ones = |n_bits: u32| (1u64 << n_bits) - 1;
        let low_1 = _mm512_set1_epi16(i16::from_le_bytes([ones(n_bits).to_le_bytes()[0], 0]));
        let low_2 = _mm512_set1_epi32(i32::try_from(ones(2 * n_bits)).unwrap_or(0));
        let low_4 = _mm512_set1_epi64(ones(4 * n_bits).cast_signed());
        let count = |n_bits: u32| _mm_cvtsi32_si128(n_bits.cast_signed());
        Self {
            steps: [
                (low_1, _mm512_sll_epi16(low_1, count(n_bits)), count(8 - n_bits)),
                (low_2, _mm512_sll_epi32(low_2, count(2 * n_bits)), count(16 - 2 * n_bits)),
                (low_4, _mm512_sll_epi64(low_4, count(4 * n_bits)), count(32 - 4 * n_bits)),
            ],
            gather: cast(gather),
        }
    }

    /// Packs the low bits of 64 bytes to the front; what is behind is of no meaning.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
    pub(crate) fn pack(&self, x: __m512i) -> __m512i {
        let [(low_1, high_1, shift_1), (low_2, high_2, shift_2), (low_4, high_4, shift_4)] = self.steps;
        // 0xEA: a & b | c.
        let kept = _mm512_and_si512(_mm512_srl_epi16(x, shift_1), high_1);
        let x = _mm512_ternarylogic_epi64::<0xEA>(x, low_1, kept);
        let kept = _mm512_and_si512(_mm512_srl_epi32(x, shift_2), high_2);
        let x = _mm512_ternarylogic_epi64::<0xEA>(x, low_2, kept);
        let kept = _mm512_and_si512(_mm512_srl_epi64(x, shift_4), high_4);
        let x = _mm512_ternarylogic_epi64::<0xEA>(x, low_4, kept);
        _mm512_permutexvar_epi8(self.gather, x)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,bmi2")]
pub(super) fn pack_avx512(n_bits: u32, src: &[u8], dst: &mut [u8]) {
    let packer = Packer::new(n_bits);
    let mut at = 0;
    for (idx, group) in src.as_chunks::<GROUP_LEN>().0.iter().enumerate() {
        let Some(window) = dst.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<64>()) else {
            pack_bmi2(n_bits, &src[idx * GROUP_LEN..], &mut dst[at..]);
            return;
        };
        *window = cast(packer.pack(cast(*group)));
        at += 8 * n_bits as usize;
    }
}

/// The constants with which AVX2 packs values of one width: products close up pairs of bytes, then of words.
pub(crate) struct PackerAvx2 {
    low_bits: __m256i,
    /// 1 and 2^n for bytes, 1 and 2^2n for words.
    factors: [__m256i; 2],
    /// How far the upper half of 64 bits moves down, and its bits then.
    shift: __m128i,
    upper: __m256i,
    /// The bytes of both words of 64 bits that are kept, one behind the other.
    gather: __m256i,
    n_bytes: usize,
}

/// Bytes of the packed plane that a group may touch: 6·7 to the last store of 16, and room to mask offsets.
pub(crate) const AVX2_WINDOW: usize = 64 + 16;

impl PackerAvx2 {
    /// For values of `n_bits`, 1 to 7.
    #[target_feature(enable = "avx2")]
    pub(crate) fn new(n_bits: u32) -> Self {
        let mut gather = [0x80u8; 16];
        let kept = (0..2u8).flat_map(|word| (0..8u8).take(n_bits as usize).map(move |byte| 8 * word + byte));
        gather.iter_mut().zip(kept).for_each(|(place, byte)| *place = byte);
        let byte_factors: [[u8; 2]; 16] = [[1, 1 << n_bits]; 16];
        let word_factors: [[i16; 2]; 8] = [[1, 1 << (2 * n_bits)]; 8];
        Self {
            low_bits: _mm256_set1_epi8(i8::MAX >> (7 - n_bits)),
            factors: [cast(byte_factors), cast(word_factors)],
            shift: _mm_cvtsi32_si128(32 - 4 * n_bits.cast_signed()),
            upper: _mm256_set1_epi64x(((1 << (4 * n_bits)) - 1) << (4 * n_bits)),
            gather: _mm256_broadcastsi128_si256(cast(gather)),
            n_bytes: n_bits as usize,
        }
    }

    /// Packs the low bits of 64 bytes to the front of `window`; what is behind is of no meaning.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn pack(&self, values: [__m256i; 2], window: &mut [u8; AVX2_WINDOW]) {
        for (which, values) in values.into_iter().enumerate() {
            // The second operand of a product of bytes is signed: values are, by their width, below 128.
            let pairs = _mm256_maddubs_epi16(self.factors[0], _mm256_and_si256(values, self.low_bits));
            let fours = _mm256_madd_epi16(pairs, self.factors[1]);
            let upper = _mm256_and_si256(_mm256_srl_epi64(fours, self.shift), self.upper);
            let eights = _mm256_blend_epi32::<0b1010_1010>(fours, _mm256_setzero_si256());
            let packed = _mm256_shuffle_epi8(_mm256_or_si256(eights, upper), self.gather);
            let halves = [_mm256_castsi256_si128(packed), _mm256_extracti128_si256(packed, 1)];
            for (half, bytes) in halves.into_iter().enumerate() {
                // At most 42; the mask spares a check.
                let at = ((2 * which + half) * 2 * self.n_bytes) & 63;
                window[at..at + 16].copy_from_slice(&cast::<_, [u8; 16]>(bytes));
            }
        }
    }
}

#[target_feature(enable = "avx2,bmi2")]
pub(super) fn pack_avx2(n_bits: u32, src: &[u8], dst: &mut [u8]) {
    let packer = PackerAvx2::new(n_bits);
    let mut at = 0;
    for (idx, group) in src.as_chunks::<GROUP_LEN>().0.iter().enumerate() {
        let Some(window) = dst.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) else {
            pack_bmi2(n_bits, &src[idx * GROUP_LEN..], &mut dst[at..]);
            return;
        };
        packer.pack(cast(*group), window);
        at += 8 * n_bits as usize;
    }
}

#[target_feature(enable = "bmi2")]
pub(super) fn unpack_bmi2(n_bits: u32, src: &[u8], dst: &mut [u8]) {
    let (mask, n_bytes) = (lanes(n_bits), n_bits as usize);
    let (values, _) = dst.as_chunks_mut::<8>();
    for (idx, values) in values.iter_mut().enumerate() {
        let Some(rest) = src.get(idx * n_bytes..) else { return };
        // Eight bytes at once where they are there; the bits beyond the first `n_bytes` do not count.
        let word = rest.first_chunk().map_or_else(|| short_word(rest), |word| u64::from_le_bytes(*word));
        *values = _pdep_u64(word, mask).to_le_bytes();
    }
}

/// Fewer than eight bytes as a word.
fn short_word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// For each width `n`: the bytes that bring bytes n·q to n·q + 7 into 64-bit lane q, and the bit n·j at which value j
/// of a lane begins.
static SPREAD: [([u8; 64], [u8; 64]); 8] = {
    let mut tables = [([0; 64], [0; 64]); 8];
    let mut n = 0;
    while n < 8 {
        let mut at = 0;
        while at < 64 {
            #[expect(clippy::cast_possible_truncation, reason = "both are below 64")]
            {
                tables[n].0[at] = (n * (at / 8) + at % 8) as u8;
                tables[n].1[at] = (n * (at % 8)) as u8;
            }
            at += 1;
        }
        n += 1;
    }
    tables
};

/// The constants with which AVX-512 unpacks values of `n_bits`: a byte permutation and `vpmultishiftqb` bit positions.
pub(crate) fn spread_avx512(n_bits: u32) -> &'static ([u8; 64], [u8; 64]) {
    &SPREAD[n_bits as usize & 7]
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
pub(super) fn unpack_avx512(n_bits: u32, src: &[u8], dst: &mut [u8]) {
    let n_bytes = n_bits as usize;
    let (spread, shifts) = spread_avx512(n_bits);
    let (spread, shifts): (__m512i, __m512i) = (cast(*spread), cast(*shifts));
    let mask = _mm512_set1_epi8(((1u8 << n_bits) - 1).cast_signed());
    let (groups, _) = dst.as_chunks_mut::<GROUP_LEN>();
    for (idx, group) in groups.iter_mut().enumerate() {
        let Some(rest) = src.get(idx * 8 * n_bytes..) else { return };
        let Some(window) = rest.first_chunk::<64>() else {
            scalar::unpack(n_bits, rest, group);
            continue;
        };
        let words = _mm512_permutexvar_epi8(spread, cast(*window));
        *group = cast(_mm512_and_si512(_mm512_multishift_epi64_epi8(shifts, words), mask));
    }
}
