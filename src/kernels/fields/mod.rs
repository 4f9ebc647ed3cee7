//! Elements into fields and back: a symbol byte to be entropy-coded, and the bits that are not.
//!
//! An element of `w` bits is cut from the top. A float's sign moves below its exponent, so that the symbol
//! (exponent and, mostly, the top mantissa bit) stands at the top and constant low bits stay at the bottom:
//!
//! ```text
//! float   sign | exponent | mantissa     →   symbol (s bits) | sign | rest of the mantissa
//! plain   any bits                       →   symbol (s bits) | rest
//! ```
//!
//! What is below the symbol is the *residual*: its `low_zero_bits` are zero in all elements and left out, as is
//! a sign that all share. The rest goes into byte planes, lowest byte first, and what is left at the top (1 to 7
//! bits) into a packed plane.
//!
//! A symbol wider than a byte is stored in a *window*: 0 stands for symbol 0 (true zeros), 1 for an outlier whose
//! symbol is kept elsewhere (or, where a block has no outliers, for `symbol_base + 1`), 2 to 255 for `symbol_base + 2` to `symbol_base + 255`.

mod scalar;
mod word;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::prefetch::prefetch;
use super::{Isa, pack_bits};
pub use word::Word;

/// Elements that kernels take at a turn; planes are padded to whole groups of this many.
pub const GROUP_LEN: usize = pack_bits::GROUP_LEN;
/// Windowed symbol of an outlier.
pub const OUTLIER: u8 = 1;
/// Elements of a tile: its unpacked top bits stay in the first-level cache.
const TILE_LEN: usize = 1024;
/// Bytes of the pieces that [`split_with`] shows, whole tiles of any element: enough for a checksum to run at full speed,
/// little enough for the first-level cache together with the piece that is being fetched.
const VISIT_BYTES: usize = 8 * TILE_LEN;

/// How elements are cut; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Width of an element in bits: 8, 16, 32 or 64.
    pub element_bits: u32,
    /// Width of the symbol in bits, 0 to 16; over 8 it is windowed.
    pub symbol_bits: u32,
    /// The top bit is a sign, to be moved below the symbol.
    pub has_sign: bool,
    /// The sign that all elements share and that is left out of the residual.
    pub shared_sign: Option<bool>,
    /// Low bits that are zero in all elements and left out.
    pub low_zero_bits: u32,
    /// Offset of the window; 0 unless `symbol_bits` is over 8.
    pub symbol_base: u16,
}

impl Layout {
    /// Whether widths add up, which the kernels rely on.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let taken = self.symbol_bits + u32::from(self.has_sign) + self.low_zero_bits;
        matches!(self.element_bits, 8 | 16 | 32 | 64)
            && self.symbol_bits <= 16
            && taken <= self.element_bits
            && self.low_zero_bits < self.element_bits
            && (self.has_sign || self.shared_sign.is_none())
            && (self.symbol_bits > 0 || !self.has_sign)
            && (self.is_windowed() || self.symbol_base == 0)
    }

    /// Whether symbols are stored in a window.
    #[must_use]
    pub fn is_windowed(&self) -> bool {
        self.symbol_bits > 8
    }

    /// Bits below symbol and sign, low zero bits included.
    fn rest_bits(&self) -> u32 {
        self.element_bits - self.symbol_bits - u32::from(self.has_sign)
    }

    /// Bits of an element's residual that are kept.
    #[must_use]
    pub fn residual_bits(&self) -> u32 {
        let sign_bits = u32::from(self.has_sign && self.shared_sign.is_none());
        self.rest_bits() + sign_bits - self.low_zero_bits
    }

    /// Number of byte planes, 0 to 8.
    #[must_use]
    pub fn n_byte_planes(&self) -> usize {
        (self.residual_bits() / 8) as usize
    }

    /// Bits of an element in the packed plane, 0 to 7.
    #[must_use]
    pub fn packed_bits(&self) -> u32 {
        self.residual_bits() % 8
    }

    /// The symbol of an element, not windowed.
    #[inline(always)]
    pub fn symbol<W: Word>(&self, element: W) -> u16 {
        if self.symbol_bits == 0 {
            return 0;
        }
        let mask = if self.symbol_bits == 16 { u16::MAX } else { (1 << self.symbol_bits) - 1 };
        element.shr(self.rest_bits()).low_u16() & mask
    }

    /// The top 16 bits of an element (for elements of 8 bits all of it, above zeros) by its symbol byte alone.
    #[must_use]
    pub fn placed(&self, symbol: u8) -> u16 {
        let wide = if symbol == 0 { 0 } else { u64::from(symbol) + u64::from(self.symbol_base) };
        // To the top of 64 bits; what leaves them is lost, as it is in `join`.
        let [.., low, high] = (wide << self.rest_bits() << (64 - self.element_bits)).to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// `element` with its symbol replaced.
    #[must_use]
    pub fn with_symbol<W: Word>(&self, element: W, symbol: u16) -> W {
        let shift = self.rest_bits();
        let cleared = element.xor(W::from_u16(self.symbol(element)).shl(shift));
        cleared.or(W::from_u16(symbol).shl(shift))
    }
}

/// The planes of a block, each `n_padded` elements long: [`Layout::n_byte_planes`] byte planes one behind the
/// other, then the packed plane.
#[must_use]
pub fn planes_len(layout: &Layout, n_padded: usize) -> usize {
    n_padded * layout.n_byte_planes() + pack_bits::packed_len(layout.packed_bits(), n_padded)
}

/// Splits the elements of `src` into `symbols` and `planes`; both are padded to whole groups by repeating the last
/// element. `symbols.len()` is the padded number of elements; `planes` is laid out as [`planes_len`] says.
///
/// Nothing is written if a length does not fit.
pub fn split(isa: Isa, layout: &Layout, src: &[u8], symbols: &mut [u8], planes: &mut [u8]) {
    split_with(isa, layout, src, symbols, planes, &mut |_| {});
}

/// Like [`split`]; and calls `visit` with the pieces of `src` in order, which together are all of it, each shortly before
/// it is split. What `visit` does with them (a checksum) finds them in the cache or leaves them there.
pub fn split_with(
    isa: Isa,
    layout: &Layout,
    src: &[u8],
    symbols: &mut [u8],
    planes: &mut [u8],
    visit: &mut dyn FnMut(&[u8]),
) {
    let n_padded = symbols.len();
    let fits = layout.is_valid()
        && n_padded.is_multiple_of(GROUP_LEN)
        && planes.len() == planes_len(layout, n_padded)
        && (src.len() * 8).div_ceil(layout.element_bits as usize).next_multiple_of(GROUP_LEN) == n_padded;
    if !fits {
        visit(src);
        return;
    }
    match layout.element_bits {
        8 => split_words::<u8>(isa, layout, src, symbols, planes, visit),
        16 => split_words::<u16>(isa, layout, src, symbols, planes, visit),
        32 => split_words::<u32>(isa, layout, src, symbols, planes, visit),
        _ => split_words::<u64>(isa, layout, src, symbols, planes, visit),
    }
}

fn split_words<W: Word>(
    isa: Isa,
    layout: &Layout,
    src: &[u8],
    symbols: &mut [u8],
    planes: &mut [u8],
    visit: &mut dyn FnMut(&[u8]),
) {
    let n_padded = symbols.len();
    let (byte_planes, packed) = planes.split_at_mut(n_padded * layout.n_byte_planes());
    let mut padded_tail = [0u8; GROUP_LEN * 8];
    let mut first = 0;
    let mut top = [0u8; TILE_LEN];
    let part = |from: usize, len: usize| &src[from.min(src.len())..(from + len).min(src.len())];
    for symbols in symbols.chunks_mut(TILE_LEN) {
        let from = first * W::BYTES;
        if from.is_multiple_of(VISIT_BYTES) {
            visit(part(from, VISIT_BYTES));
        }
        let n_bits = layout.packed_bits();
        let range =
            pack_bits::packed_len(n_bits, first)..pack_bits::packed_len(n_bits, first + symbols.len());
        let whole = src.get(first * W::BYTES..(first + symbols.len()) * W::BYTES);
        if let Some(tile) = whole {
            // To the plane's end: what is behind the tile is written over.
            let packed = &mut packed[range.start..];
            if GROUP_LEN * split_fused(isa, layout, tile, symbols, byte_planes, first, packed)
                == symbols.len()
            {
                first += symbols.len();
                continue;
            }
            prefetch(part(from + VISIT_BYTES, TILE_LEN * W::BYTES));
            split_tile::<W>(isa, layout, tile, symbols, byte_planes, n_padded, first, &mut top);
        } else {
            // The last, ragged tile: its whole groups, then one padded group.
            let rest = &src[first * W::BYTES..];
            let (groups, tail) = rest.split_at(rest.len() / (GROUP_LEN * W::BYTES) * GROUP_LEN * W::BYTES);
            let n_whole = groups.len() / W::BYTES;
            let (whole_symbols, tail_symbols) = symbols.split_at_mut(n_whole);
            split_tile::<W>(isa, layout, groups, whole_symbols, byte_planes, n_padded, first, &mut top);
            let padded = &mut padded_tail[..GROUP_LEN * W::BYTES];
            let last = &tail[tail.len() - W::BYTES..];
            padded[..tail.len()].copy_from_slice(tail);
            padded[tail.len()..].chunks_exact_mut(W::BYTES).for_each(|element| element.copy_from_slice(last));
            let at = first + n_whole;
            split_tile::<W>(
                isa,
                layout,
                padded,
                tail_symbols,
                byte_planes,
                n_padded,
                at,
                &mut top[n_whole..],
            );
        }
        pack_bits::pack(isa, n_bits, &top[..symbols.len()], &mut packed[range]);
        first += symbols.len();
    }
}

/// Splits as many groups of `src`, which begins with element `first`, as a loop made for the layout can; returns their
/// number. Such a loop fetches by itself what lies [`VISIT_BYTES`] ahead, a group at a time: a tile at a time it would wait
/// for memory instead of working.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "such loops are for x86-64"))]
fn split_fused(
    isa: Isa,
    layout: &Layout,
    src: &[u8],
    symbols: &mut [u8],
    byte_planes: &mut [u8],
    first: usize,
    packed: &mut [u8],
) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() && x86::has_fused_split(layout) => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::split_16_avx512(layout, src, symbols, packed) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() && x86::has_fused_split_avx2(layout) => {
            // There are none or two.
            let (low, middle) = byte_planes.split_at_mut(byte_planes.len() / 2);
            let lower = [low, middle].map(|plane| plane.get_mut(first..).unwrap_or_default());
            // SAFETY: as above.
            unsafe { x86::split_avx2(layout, src, symbols, lower, packed) }
        }
        _ => 0,
    }
}

#[expect(clippy::too_many_arguments, reason = "a tile is a place in several planes")]
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
fn split_tile<W: Word>(
    isa: Isa,
    layout: &Layout,
    src: &[u8],
    symbols: &mut [u8],
    byte_planes: &mut [u8],
    n_padded: usize,
    first: usize,
    top: &mut [u8],
) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::split_tile_avx512::<W>(layout, src, symbols, byte_planes, n_padded, first, top) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::split_tile_avx2::<W>(layout, src, symbols, byte_planes, n_padded, first, top) }
        }
        _ => scalar::split_tile::<W>(layout, src, symbols, byte_planes, n_padded, first, top),
    }
}

/// The inverse of [`split`]: fills `dst` from `symbols`, the byte planes (each at least the padded number of
/// elements) and the packed plane, which may be longer than the elements need. Outliers come out with a wrong symbol, to be replaced by the caller.
///
/// `None`, and `dst` unspecified, if a length does not fit.
pub fn join(
    isa: Isa,
    layout: &Layout,
    symbols: &[u8],
    byte_planes: &[&[u8]],
    packed: &[u8],
    dst: &mut [u8],
) -> Option<()> {
    let n_padded = symbols.len();
    let fits = layout.is_valid()
        && n_padded.is_multiple_of(GROUP_LEN)
        && byte_planes.len() == layout.n_byte_planes()
        && byte_planes.iter().all(|plane| plane.len() == n_padded)
        && packed.len() >= pack_bits::packed_len(layout.packed_bits(), n_padded)
        && dst.len().is_multiple_of(layout.element_bits as usize / 8)
        && (dst.len() * 8 / layout.element_bits as usize).next_multiple_of(GROUP_LEN) == n_padded;
    if !fits {
        return None;
    }
    match layout.element_bits {
        8 => join_words::<u8>(isa, layout, symbols, byte_planes, packed, dst),
        16 => join_words::<u16>(isa, layout, symbols, byte_planes, packed, dst),
        32 => join_words::<u32>(isa, layout, symbols, byte_planes, packed, dst),
        _ => join_words::<u64>(isa, layout, symbols, byte_planes, packed, dst),
    }
    Some(())
}

fn join_words<W: Word>(
    isa: Isa,
    layout: &Layout,
    symbols: &[u8],
    byte_planes: &[&[u8]],
    packed: &[u8],
    dst: &mut [u8],
) {
    let n_bits = layout.packed_bits();
    let mut first = GROUP_LEN * join_fused(isa, layout, symbols, byte_planes, packed, dst);
    let mut top = [0u8; TILE_LEN];
    for dst in dst[first * W::BYTES..].chunks_mut(TILE_LEN * W::BYTES) {
        let n = dst.len() / W::BYTES;
        let n_padded = n.next_multiple_of(GROUP_LEN);
        let range = pack_bits::packed_len(n_bits, first)..pack_bits::packed_len(n_bits, first + n_padded);
        pack_bits::unpack(isa, n_bits, &packed[range], &mut top[..n_padded]);
        let n_whole = n / GROUP_LEN * GROUP_LEN;
        let (whole, tail) = dst.split_at_mut(n_whole * W::BYTES);
        join_tile::<W>(isa, layout, &symbols[first..], byte_planes, first, &top, whole);
        if !tail.is_empty() {
            let mut padded = [0u8; GROUP_LEN * 8];
            let padded = &mut padded[..GROUP_LEN * W::BYTES];
            let at = first + n_whole;
            join_tile::<W>(isa, layout, &symbols[at..], byte_planes, at, &top[n_whole..], padded);
            tail.copy_from_slice(&padded[..tail.len()]);
        }
        first += n_padded;
    }
}

/// Joins as many whole groups as a loop made for the layout can; returns their number.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "such loops are for x86-64"))]
fn join_fused(
    isa: Isa,
    layout: &Layout,
    symbols: &[u8],
    byte_planes: &[&[u8]],
    packed: &[u8],
    dst: &mut [u8],
) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() && x86::has_fused_join(layout) => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::join_avx512(layout, symbols, byte_planes, packed, dst) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() && x86::has_fused_join_avx2(layout) => {
            // SAFETY: as above.
            unsafe { x86::join_avx2(layout, symbols, packed, dst) }
        }
        _ => 0,
    }
}

#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
fn join_tile<W: Word>(
    isa: Isa,
    layout: &Layout,
    symbols: &[u8],
    byte_planes: &[&[u8]],
    first: usize,
    top: &[u8],
    dst: &mut [u8],
) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::join_tile_avx512::<W>(layout, symbols, byte_planes, first, top, dst) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::join_tile_avx2::<W>(layout, symbols, byte_planes, first, top, dst) }
        }
        _ => scalar::join_tile::<W>(layout, symbols, byte_planes, first, top, dst),
    }
}

#[cfg(test)]
mod tests;
