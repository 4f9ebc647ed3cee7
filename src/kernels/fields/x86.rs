//! The same loops compiled for AVX2 and AVX-512: they widen by themselves, so they need no intrinsics. The layouts that
//! weights mostly have get loops of their own, which split and pack, or unpack and join, in one go.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::{GROUP_LEN, Layout, OUTLIER, VISIT_BYTES, Word, scalar};
use crate::kernels::pack_bits::{AVX2_WINDOW, Packer, PackerAvx2, lanes, packed_len, spread_avx512};
use crate::kernels::prefetch::prefetch_ahead;

macro_rules! tiers {
    ($($features:literal, $split:ident, $join:ident;)*) => {$(
        #[target_feature(enable = $features)]
        pub(super) fn $split<W: Word>(
            layout: &Layout,
            src: &[u8],
            symbols: &mut [u8],
            byte_planes: &mut [u8],
            n_padded: usize,
            first: usize,
            top: &mut [u8],
        ) {
            scalar::split_tile::<W>(layout, src, symbols, byte_planes, n_padded, first, top);
        }

        #[target_feature(enable = $features)]
        pub(super) fn $join<W: Word>(
            layout: &Layout,
            symbols: &[u8],
            byte_planes: &[&[u8]],
            first: usize,
            top: &[u8],
            dst: &mut [u8],
        ) {
            scalar::join_tile::<W>(layout, symbols, byte_planes, first, top, dst);
        }
    )*};
}

tiers! {
    "avx2,bmi1,bmi2,popcnt,lzcnt", split_tile_avx2, join_tile_avx2;
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt,bmi1,bmi2,lzcnt", split_tile_avx512, join_tile_avx512;
}

/// Whether [`split_16_avx512`] knows the layout: two bytes, all of the residual in the packed plane, no bits left out.
pub(super) fn has_fused_split(layout: &Layout) -> bool {
    has_fused_join(layout) && layout.element_bits == 16 && layout.n_byte_planes() == 0
}

/// Splits the whole groups of `src`, of a layout that [`has_fused_split`], and packs their residuals in one go; returns
/// how many groups it did, which are all but the last, near the end of `packed`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt,bmi1,bmi2,lzcnt")]
pub(super) fn split_16_avx512(layout: &Layout, src: &[u8], symbols: &mut [u8], packed: &mut [u8]) -> usize {
    if layout.is_windowed() {
        split_16::<true>(layout, src, symbols, packed)
    } else {
        split_16::<false>(layout, src, symbols, packed)
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt,bmi1,bmi2,lzcnt")]
fn split_16<const WINDOWED: bool>(
    layout: &Layout,
    src: &[u8],
    symbols: &mut [u8],
    packed: &mut [u8],
) -> usize {
    /// How far ahead the packed plane's memory is asked for, in bytes.
    const AHEAD: usize = 2048;
    /// The low bytes of two vectors of words.
    static LOW_BYTES: [u8; 64] = {
        let mut indices = [0; 64];
        let mut i = 0;
        while i < 64u8 {
            indices[i as usize] = 2 * i;
            i += 1;
        }
        indices
    };
    let packer = Packer::new(layout.packed_bits());
    let low_bytes = cast(LOW_BYTES);
    let rest_bits = layout.rest_bits();
    let rest_mask = _mm512_set1_epi16((1i16 << rest_bits) - 1);
    let symbol_shift = _mm_cvtsi32_si128(rest_bits.cast_signed());
    let symbol_mask = _mm512_set1_epi16(i16::MAX >> (15 - layout.symbol_bits));
    let sign_shift = _mm_cvtsi32_si128(layout.symbol_bits.cast_signed());
    let top_bit = _mm512_set1_epi16(i16::MIN);
    let base = _mm512_set1_epi16(layout.symbol_base.cast_signed());
    let outlier = _mm512_set1_epi16(OUTLIER.into());
    let symbol_of = |x: __m512i| {
        let wide = _mm512_and_si512(_mm512_srl_epi16(x, symbol_shift), symbol_mask);
        if !WINDOWED {
            return wide;
        }
        let offset = _mm512_sub_epi16(wide, base);
        let place = _mm512_sub_epi16(offset, _mm512_set1_epi16(2));
        let inside = _mm512_cmplt_epu16_mask(place, _mm512_set1_epi16(254));
        _mm512_maskz_mov_epi16(
            _mm512_test_epi16_mask(wide, wide),
            _mm512_mask_mov_epi16(outlier, inside, offset),
        )
    };
    let residual_of = |x: __m512i| {
        let sign = _mm512_srl_epi16(_mm512_and_si512(x, top_bit), sign_shift);
        // 0xEA: a & b | c.
        _mm512_ternarylogic_epi64::<0xEA>(x, rest_mask, sign)
    };
    let group_bytes = packed_len(layout.packed_bits(), GROUP_LEN);
    let (src, _) = src.as_chunks::<{ 2 * GROUP_LEN }>();
    let mut n_done = 0;
    for (idx, (src, symbols)) in src.iter().zip(symbols.as_chunks_mut::<GROUP_LEN>().0).enumerate() {
        let Some(window) = packed.get_mut(idx * group_bytes..).and_then(|rest| rest.first_chunk_mut::<64>())
        else {
            break;
        };
        prefetch_ahead(window, AHEAD, 1);
        prefetch_ahead(src, VISIT_BYTES, 2);
        let [first, second]: [__m512i; 2] = cast(*src);
        let to_bytes = |words: [__m512i; 2]| _mm512_permutex2var_epi8(words[0], low_bytes, words[1]);
        *symbols = cast(to_bytes([symbol_of(first), symbol_of(second)]));
        *window = cast(packer.pack(to_bytes([residual_of(first), residual_of(second)])));
        n_done = idx + 1;
    }
    n_done
}

/// Whether [`split_avx2`] knows the layout: two or four bytes, all of the upper two's residual in the packed plane, no
/// bits left out.
pub(super) fn has_fused_split_avx2(layout: &Layout) -> bool {
    has_fused_join(layout) && matches!((layout.element_bits, layout.n_byte_planes()), (16, 0) | (32, 2))
}

/// Splits the whole groups of `src`, of a layout that [`has_fused_split_avx2`], and packs their residuals in one go; returns
/// how many groups it did, which are all but the last, near the end of `packed`. `lower` are the byte planes from the
/// first element of `src` on.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(super) fn split_avx2(
    layout: &Layout,
    src: &[u8],
    symbols: &mut [u8],
    lower: [&mut [u8]; 2],
    packed: &mut [u8],
) -> usize {
    match (layout.element_bits, layout.is_windowed()) {
        (16, false) => split_upper::<2, false>(layout, src, symbols, lower, packed),
        (16, true) => split_upper::<2, true>(layout, src, symbols, lower, packed),
        (_, false) => split_upper::<4, false>(layout, src, symbols, lower, packed),
        (_, true) => split_upper::<4, true>(layout, src, symbols, lower, packed),
    }
}

/// Elements of `BYTES` bytes, the upper two of which hold the symbol.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn split_upper<const BYTES: usize, const WINDOWED: bool>(
    layout: &Layout,
    src: &[u8],
    symbols: &mut [u8],
    lower: [&mut [u8]; 2],
    packed: &mut [u8],
) -> usize {
    let splitter = UpperSplitter::new::<BYTES>(layout);
    let packer = PackerAvx2::new(layout.packed_bits());
    let group_bytes = packed_len(layout.packed_bits(), GROUP_LEN);
    let [low, middle] = lower.map(|plane| plane.as_chunks_mut::<GROUP_LEN>().0);
    let mut n_done = 0;
    let groups = src.chunks_exact(BYTES * GROUP_LEN).zip(symbols.as_chunks_mut::<GROUP_LEN>().0);
    for (idx, (src, symbols)) in groups.enumerate() {
        let window =
            packed.get_mut(idx * group_bytes..).and_then(|rest| rest.first_chunk_mut::<AVX2_WINDOW>());
        let Some(window) = window else { break };
        prefetch_ahead(src, VISIT_BYTES, BYTES);
        let (vectors, _) = src.as_chunks::<32>();
        let halves = if BYTES == 2 {
            [[cast(vectors[0]), cast(vectors[1])], [cast(vectors[2]), cast(vectors[3])]]
        } else {
            let (Some(low), Some(middle)) = (low.get_mut(idx), middle.get_mut(idx)) else { break };
            let halves = [0, 1].map(|half| [0, 1, 2, 3].map(|i| cast(vectors[4 * half + i])));
            let [first, second] = halves.map(|half| lower_planes(half));
            *low = cast([first[0], second[0]]);
            *middle = cast([first[1], second[1]]);
            halves.map(|[a, b, c, d]| [upper_words(a, b), upper_words(c, d)])
        };
        *symbols = cast(halves.map(|half| to_bytes(half.map(|x| splitter.symbol::<WINDOWED>(x)))));
        packer.pack(halves.map(|half| to_bytes(half.map(|x| splitter.residual(x)))), window);
        n_done = idx + 1;
    }
    n_done
}

/// The low bytes of words, which are below 256, in order.
#[inline]
#[target_feature(enable = "avx2")]
fn to_bytes([first, second]: [__m256i; 2]) -> __m256i {
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(first, second))
}

/// The upper halves of 16 elements of 32 bits, in order.
#[inline]
#[target_feature(enable = "avx2")]
fn upper_words(a: __m256i, b: __m256i) -> __m256i {
    let words = _mm256_packus_epi32(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16));
    _mm256_permute4x64_epi64::<0b11_01_10_00>(words)
}

/// The lowest and the second lowest bytes of 32 elements of 32 bits, in order.
#[inline]
#[target_feature(enable = "avx2")]
fn lower_planes([a, b, c, d]: [__m256i; 4]) -> [__m256i; 2] {
    let words = |x, y| {
        let zero = _mm256_setzero_si256();
        let low = |x| _mm256_blend_epi16::<0b1010_1010>(x, zero);
        _mm256_packus_epi32(low(x), low(y))
    };
    let (first, second) = (words(a, b), words(c, d));
    // Both packs leave fours of elements of their first operand's halves before those of the second's.
    let in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let bytes = |x, y| _mm256_permutevar8x32_epi32(_mm256_packus_epi16(x, y), in_order);
    let low = |x| _mm256_and_si256(x, _mm256_set1_epi16(0x00ff));
    [bytes(low(first), low(second)), bytes(_mm256_srli_epi16(first, 8), _mm256_srli_epi16(second, 8))]
}

/// Symbol and residual of the upper 16 bits of elements.
struct UpperSplitter {
    symbol_shift: __m128i,
    symbol_mask: __m256i,
    base: __m256i,
    sign_shift: __m128i,
    rest_mask: __m256i,
}

impl UpperSplitter {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new<const BYTES: usize>(layout: &Layout) -> Self {
        let rest_bits = layout.rest_bits() - if BYTES == 4 { 16 } else { 0 };
        Self {
            symbol_shift: _mm_cvtsi32_si128(rest_bits.cast_signed()),
            symbol_mask: _mm256_set1_epi16(i16::MAX >> (15 - layout.symbol_bits)),
            base: _mm256_set1_epi16(layout.symbol_base.cast_signed()),
            sign_shift: _mm_cvtsi32_si128(layout.symbol_bits.cast_signed()),
            rest_mask: _mm256_set1_epi16((1i16 << rest_bits) - 1),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn symbol<const WINDOWED: bool>(&self, x: __m256i) -> __m256i {
        let wide = _mm256_and_si256(_mm256_srl_epi16(x, self.symbol_shift), self.symbol_mask);
        if !WINDOWED {
            return wide;
        }
        let offset = _mm256_sub_epi16(wide, self.base);
        let place = _mm256_sub_epi16(offset, _mm256_set1_epi16(2));
        let is_inside = _mm256_cmpeq_epi16(_mm256_min_epu16(place, _mm256_set1_epi16(253)), place);
        let is_zero = _mm256_cmpeq_epi16(wide, _mm256_setzero_si256());
        let symbol = _mm256_blendv_epi8(_mm256_set1_epi16(OUTLIER.into()), offset, is_inside);
        _mm256_andnot_si256(is_zero, symbol)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn residual(&self, x: __m256i) -> __m256i {
        let sign = _mm256_and_si256(x, _mm256_set1_epi16(i16::MIN));
        _mm256_or_si256(_mm256_and_si256(x, self.rest_mask), _mm256_srl_epi16(sign, self.sign_shift))
    }
}

/// Whether [`join_avx2`] knows the layout: two bytes, all of the residual in the packed plane, no bits left out.
pub(super) fn has_fused_join_avx2(layout: &Layout) -> bool {
    has_fused_join(layout) && layout.element_bits == 16 && layout.n_byte_planes() == 0
}

/// Joins whole groups of a layout that [`has_fused_join_avx2`]; returns how many groups it did, which are all but the
/// last, near the end of `packed`.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
pub(super) fn join_avx2(layout: &Layout, symbols: &[u8], packed: &[u8], dst: &mut [u8]) -> usize {
    const EIGHT: usize = 8;
    let n_bits = layout.packed_bits();
    let (lanes, n_bytes) = (lanes(n_bits), n_bits as usize);
    let base = _mm256_set1_epi16(layout.symbol_base.cast_signed());
    let rest_bits = layout.rest_bits();
    let rest_mask = _mm256_set1_epi16((1i16 << rest_bits) - 1);
    let symbol_shift = _mm_cvtsi32_si128(rest_bits.cast_signed());
    let sign_shift = _mm_cvtsi32_si128(layout.symbol_bits.cast_signed());
    let top_bit = _mm256_set1_epi16(i16::MIN);
    let (dst, _) = dst.as_chunks_mut::<{ 2 * GROUP_LEN }>();
    let groups = dst.iter_mut().zip(symbols.as_chunks::<GROUP_LEN>().0);
    let mut n_done = 0;
    for (idx, (dst, symbols)) in groups.enumerate() {
        let from = idx * EIGHT * n_bytes;
        let Some(window) = packed.get(from..).and_then(|rest| rest.first_chunk::<{ 64 + EIGHT }>()) else {
            break;
        };
        let (dst_quarters, _) = dst.as_chunks_mut::<32>();
        for (quarter, dst) in dst_quarters.iter_mut().enumerate() {
            let eight = |which: usize| {
                // At most 7 · 7 = 49; the mask spares a check.
                let at = ((2 * quarter + which) * n_bytes) & 63;
                let word: [u8; 8] = std::array::from_fn(|i| window[at + i]);
                _pdep_u64(u64::from_le_bytes(word), lanes).cast_signed()
            };
            let residual = _mm256_cvtepu8_epi16(_mm_set_epi64x(eight(1), eight(0)));
            let symbol = _mm256_cvtepu8_epi16(cast(symbols.as_chunks::<16>().0[quarter]));
            let is_zero = _mm256_cmpeq_epi16(symbol, _mm256_setzero_si256());
            let symbol = _mm256_andnot_si256(is_zero, _mm256_add_epi16(symbol, base));
            let sign = _mm256_and_si256(_mm256_sll_epi16(residual, sign_shift), top_bit);
            let high = _mm256_or_si256(_mm256_sll_epi16(symbol, symbol_shift), sign);
            *dst = cast(_mm256_or_si256(high, _mm256_and_si256(residual, rest_mask)));
        }
        n_done = idx + 1;
    }
    n_done
}

/// Whether [`join_avx512`] knows the layout: two or four bytes, a packed plane, and no bits left out.
pub(super) fn has_fused_join(layout: &Layout) -> bool {
    let keeps_all = layout.has_sign && layout.shared_sign.is_none() && layout.low_zero_bits == 0;
    keeps_all
        && layout.packed_bits() > 0
        && matches!((layout.element_bits, layout.n_byte_planes()), (16, 0 | 1) | (32, 2))
}

/// Joins whole groups of a layout that [`has_fused_join`]; returns how many groups it did, which are all but the last,
/// near the end of `packed`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt,bmi1,bmi2,lzcnt")]
pub(super) fn join_avx512(
    layout: &Layout,
    symbols: &[u8],
    byte_planes: &[&[u8]],
    packed: &[u8],
    dst: &mut [u8],
) -> usize {
    match (layout.element_bits, byte_planes) {
        (16, []) => join_16::<0>(layout, symbols, &[], packed, dst),
        (16, [low]) => join_16::<1>(layout, symbols, low, packed, dst),
        (32, [low, middle]) => join_32(layout, symbols, [low, middle], packed, dst),
        _ => 0,
    }
}

/// The 64 values of `n_bits` from the front of `packed`, a byte each, as a closure over the constants.
macro_rules! unpacker {
    ($n_bits:expr) => {{
        let (spread, shifts) = spread_avx512($n_bits);
        let (spread, shifts): (__m512i, __m512i) = (cast(*spread), cast(*shifts));
        let mask = _mm512_set1_epi8(((1u8 << $n_bits) - 1).cast_signed());
        move |packed: &[u8; 64]| {
            let words = _mm512_permutexvar_epi8(spread, cast(*packed));
            _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts, words), mask)
        }
    }};
}

/// 16-bit elements: residual of `PLANES` byte planes and the packed one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
fn join_16<const PLANES: usize>(
    layout: &Layout,
    symbols: &[u8],
    low: &[u8],
    packed: &[u8],
    dst: &mut [u8],
) -> usize {
    let unpack = unpacker!(layout.packed_bits());
    let group_bytes = packed_len(layout.packed_bits(), GROUP_LEN);
    let base = _mm512_set1_epi16(layout.symbol_base.cast_signed());
    let rest_bits = layout.rest_bits();
    let rest_mask = _mm512_set1_epi16((1i16 << rest_bits) - 1);
    let symbol_shift = _mm_cvtsi32_si128(rest_bits.cast_signed());
    // The sign stands right above the rest of the mantissa and goes to the top.
    let sign_shift = _mm_cvtsi32_si128(layout.symbol_bits.cast_signed());
    let top_bit = _mm512_set1_epi16(i16::MIN);
    let (dst, _) = dst.as_chunks_mut::<{ 2 * GROUP_LEN }>();
    let groups = dst.iter_mut().zip(symbols.as_chunks::<GROUP_LEN>().0);
    let mut n_done = 0;
    for (idx, (dst, symbols)) in groups.enumerate() {
        let Some(window) = packed.get(idx * group_bytes..).and_then(|rest| rest.first_chunk::<64>()) else {
            break;
        };
        let top = unpack(window);
        let (symbol_halves, _) = symbols.as_chunks::<32>();
        let (dst_halves, _) = dst.as_chunks_mut::<64>();
        let top_halves = [_mm512_castsi512_si256(top), _mm512_extracti64x4_epi64::<1>(top)];
        for half in 0..2 {
            let symbol = _mm512_cvtepu8_epi16(cast(symbol_halves[half]));
            let symbol = _mm512_maskz_add_epi16(_mm512_test_epi16_mask(symbol, symbol), symbol, base);
            let mut residual = _mm512_cvtepu8_epi16(top_halves[half]);
            if PLANES == 1 {
                let at = idx * GROUP_LEN + 32 * half;
                let Some(low) = low.get(at..).and_then(|rest| rest.first_chunk::<32>()) else {
                    return n_done;
                };
                residual =
                    _mm512_or_si512(_mm512_slli_epi16::<8>(residual), _mm512_cvtepu8_epi16(cast(*low)));
            }
            let sign = _mm512_and_si512(_mm512_sll_epi16(residual, sign_shift), top_bit);
            let high = _mm512_or_si512(_mm512_sll_epi16(symbol, symbol_shift), sign);
            // high | residual & rest_mask
            dst_halves[half] = cast(_mm512_ternarylogic_epi32::<0xF8>(high, residual, rest_mask));
        }
        n_done = idx + 1;
    }
    n_done
}

/// 32-bit elements: residual of two byte planes and the packed one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")]
fn join_32(layout: &Layout, symbols: &[u8], planes: [&[u8]; 2], packed: &[u8], dst: &mut [u8]) -> usize {
    let unpack = unpacker!(layout.packed_bits());
    let group_bytes = packed_len(layout.packed_bits(), GROUP_LEN);
    let base = _mm512_set1_epi32(layout.symbol_base.into());
    let rest_bits = layout.rest_bits();
    let rest_mask = _mm512_set1_epi32((1i32 << rest_bits) - 1);
    let symbol_shift = _mm_cvtsi32_si128(rest_bits.cast_signed());
    let sign_shift = _mm_cvtsi32_si128(layout.symbol_bits.cast_signed());
    let top_bit = _mm512_set1_epi32(i32::MIN);
    let (dst, _) = dst.as_chunks_mut::<{ 4 * GROUP_LEN }>();
    let groups = dst.iter_mut().zip(symbols.as_chunks::<GROUP_LEN>().0);
    let mut n_done = 0;
    for (idx, (dst, symbols)) in groups.enumerate() {
        let Some(window) = packed.get(idx * group_bytes..).and_then(|rest| rest.first_chunk::<64>()) else {
            break;
        };
        let low = planes[0].get(idx * GROUP_LEN..).and_then(|rest| rest.first_chunk::<GROUP_LEN>());
        let middle = planes[1].get(idx * GROUP_LEN..).and_then(|rest| rest.first_chunk::<GROUP_LEN>());
        let (Some(low), Some(middle)) = (low, middle) else { break };
        let top: [u8; GROUP_LEN] = cast(unpack(window));
        let (dst_quarters, _) = dst.as_chunks_mut::<64>();
        for (quarter, dst) in dst_quarters.iter_mut().enumerate() {
            let widen =
                |bytes: &[u8; GROUP_LEN]| _mm512_cvtepu8_epi32(cast(bytes.as_chunks::<16>().0[quarter]));
            let symbol = widen(symbols);
            let symbol = _mm512_maskz_add_epi32(_mm512_test_epi32_mask(symbol, symbol), symbol, base);
            let upper =
                _mm512_or_si512(_mm512_slli_epi32::<16>(widen(&top)), _mm512_slli_epi32::<8>(widen(middle)));
            let residual = _mm512_or_si512(upper, widen(low));
            let sign = _mm512_and_si512(_mm512_sll_epi32(residual, sign_shift), top_bit);
            let high = _mm512_or_si512(_mm512_sll_epi32(symbol, symbol_shift), sign);
            *dst = cast(_mm512_ternarylogic_epi32::<0xF8>(high, residual, rest_mask));
        }
        n_done = idx + 1;
    }
    n_done
}
