//! The definition of splitting and joining, as plain loops over groups of 64 that compilers turn into vector code
//! for whatever instruction set the calling function enables.

use super::{GROUP_LEN, Layout, OUTLIER, Word};

/// What the loops need of a layout, worked out once.
struct Fields<W> {
    rest_bits: u32,
    rest_mask: W,
    symbol_mask: W,
    symbol_top: u32,
    keeps_sign: bool,
    shared_sign: W,
    low_zero_bits: u32,
}

impl<W: Word> Fields<W> {
    #[inline(always)]
    fn new(layout: &Layout) -> Self {
        let rest_bits = layout.rest_bits();
        let top_bit = W::from_u64(1).shl(layout.element_bits - 1);
        Self {
            rest_bits,
            rest_mask: W::from_u64(u64::MAX.checked_shr(64 - rest_bits).unwrap_or(0)),
            symbol_mask: W::from_u64((1 << layout.symbol_bits) - 1),
            symbol_top: layout.element_bits - 1,
            keeps_sign: layout.has_sign && layout.shared_sign.is_none(),
            shared_sign: if layout.shared_sign == Some(true) { top_bit } else { W::default() },
            low_zero_bits: layout.low_zero_bits,
        }
    }
}

#[inline(always)]
fn read_group<W: Word>(src: &[u8]) -> [W; GROUP_LEN] {
    let mut elements = [W::default(); GROUP_LEN];
    for (element, bytes) in elements.iter_mut().zip(src.chunks_exact(W::BYTES)) {
        *element = W::read(bytes);
    }
    elements
}

/// Splits whole groups. `first` is the tile's place in the planes, which are `n_padded` apart; `top` takes the bits
/// for the packed plane, a byte each.
#[inline(always)]
pub(super) fn split_tile<W: Word>(
    layout: &Layout,
    src: &[u8],
    symbols: &mut [u8],
    byte_planes: &mut [u8],
    n_padded: usize,
    first: usize,
    top: &mut [u8],
) {
    let fields = Fields::<W>::new(layout);
    let n_planes = layout.n_byte_planes();
    let (symbol_groups, _) = symbols.as_chunks_mut::<GROUP_LEN>();
    let (top_groups, _) = top.as_chunks_mut::<GROUP_LEN>();
    let groups = src.chunks_exact(GROUP_LEN * W::BYTES);
    for (group_idx, ((src, symbols), top)) in groups.zip(symbol_groups).zip(top_groups).enumerate() {
        let elements = read_group::<W>(src);
        split_symbols(layout, &fields, &elements, symbols);
        let mut residual = [W::default(); GROUP_LEN];
        for (residual, &element) in residual.iter_mut().zip(&elements) {
            let rest = element.and(fields.rest_mask);
            let sign = if fields.keeps_sign {
                element.shr(fields.symbol_top).shl(fields.rest_bits)
            } else {
                W::default()
            };
            *residual = rest.or(sign).shr(fields.low_zero_bits);
        }
        let at = first + group_idx * GROUP_LEN;
        for (plane_idx, plane) in byte_planes.chunks_exact_mut(n_padded).enumerate().take(n_planes) {
            let shift = 8 * u32::from(plane_idx.to_le_bytes()[0]);
            if let Some(plane) = plane[at..].first_chunk_mut::<GROUP_LEN>() {
                for (byte, &residual) in plane.iter_mut().zip(&residual) {
                    *byte = residual.shr(shift).low_u8();
                }
            }
        }
        let shift = layout.residual_bits() - layout.packed_bits();
        for (top, &residual) in top.iter_mut().zip(&residual) {
            *top = residual.shr(shift).low_u8();
        }
    }
}

#[inline(always)]
fn split_symbols<W: Word>(
    layout: &Layout,
    fields: &Fields<W>,
    elements: &[W; GROUP_LEN],
    symbols: &mut [u8; GROUP_LEN],
) {
    if layout.is_windowed() {
        let base = layout.symbol_base;
        for (symbol, &element) in symbols.iter_mut().zip(elements) {
            let wide = element.shr(fields.rest_bits).and(fields.symbol_mask).low_u16();
            let offset = wide.wrapping_sub(base);
            let inside = if offset.wrapping_sub(2) < 254 { offset.to_le_bytes()[0] } else { OUTLIER };
            *symbol = if wide == 0 { 0 } else { inside };
        }
    } else {
        for (symbol, &element) in symbols.iter_mut().zip(elements) {
            *symbol = element.shr(fields.rest_bits).and(fields.symbol_mask).low_u8();
        }
    }
}

/// Joins whole groups; `symbols` and `top` start with the tile's first element, the planes with the block's.
#[inline(always)]
pub(super) fn join_tile<W: Word>(
    layout: &Layout,
    symbols: &[u8],
    byte_planes: &[&[u8]],
    first: usize,
    top: &[u8],
    dst: &mut [u8],
) {
    let fields = Fields::<W>::new(layout);
    let (symbol_groups, _) = symbols.as_chunks::<GROUP_LEN>();
    let (top_groups, _) = top.as_chunks::<GROUP_LEN>();
    let groups = dst.chunks_exact_mut(GROUP_LEN * W::BYTES);
    let top_shift = layout.residual_bits() - layout.packed_bits();
    for (group_idx, ((dst, symbols), top)) in groups.zip(symbol_groups).zip(top_groups).enumerate() {
        let at = first + group_idx * GROUP_LEN;
        let mut residual = [W::default(); GROUP_LEN];
        for (residual, &top) in residual.iter_mut().zip(top) {
            *residual = W::from_u16(u16::from(top)).shl(top_shift);
        }
        for (plane_idx, plane) in byte_planes.iter().enumerate() {
            let shift = 8 * u32::from(plane_idx.to_le_bytes()[0]);
            if let Some(plane) = plane[at..].first_chunk::<GROUP_LEN>() {
                for (residual, &byte) in residual.iter_mut().zip(plane) {
                    *residual = residual.or(W::from_u16(u16::from(byte)).shl(shift));
                }
            }
        }
        for ((dst, residual), &symbol) in dst.chunks_exact_mut(W::BYTES).zip(residual).zip(symbols) {
            let residual = residual.shl(fields.low_zero_bits);
            let sign = if fields.keeps_sign {
                residual.shr(fields.rest_bits).shl(fields.symbol_top)
            } else {
                fields.shared_sign
            };
            let wide = W::from_u16(u16::from(symbol));
            let wide = if layout.is_windowed() && symbol != 0 {
                wide.add(W::from_u16(layout.symbol_base))
            } else {
                wide
            };
            let element = residual.and(fields.rest_mask).or(wide.shl(fields.rest_bits)).or(sign);
            element.write(dst);
        }
    }
}
