//! The definition of splitting and joining, as plain loops over groups of 64 that compilers turn into vector code
//! for whatever instruction set the calling function enables.

use super::{GROUP_LEN, Layout, OUTLIER, Word};

/// What the loops need of a layout, worked out once. Shifts are below the element's width wherever their result
/// counts, so they may wrap.
struct Fields<W> {
    rest_bits: u32,
    symbol_bits: u32,
    symbol_mask: W,
    symbol_base: u16,
    rest_mask: W,
    /// The sign's bit in an element, and where it goes in a residual; both 0 if no sign is kept.
    sign_in_element: W,
    sign_in_residual: W,
    shared_sign: W,
    low_zero_bits: u32,
    top_shift: u32,
}

impl<W: Word> Fields<W> {
    #[inline(always)]
    fn new(layout: &Layout) -> Self {
        let rest_bits = layout.rest_bits();
        let bit = |at: u32, is_set: bool| if is_set { W::from_u64(1).shl(at) } else { W::default() };
        let keeps_sign = layout.has_sign && layout.shared_sign.is_none();
        Self {
            rest_bits,
            symbol_bits: layout.symbol_bits,
            symbol_mask: W::from_u64((1 << layout.symbol_bits) - 1),
            symbol_base: layout.symbol_base,
            rest_mask: W::from_u64(u64::MAX.checked_shr(64 - rest_bits).unwrap_or(0)),
            sign_in_element: bit(layout.element_bits - 1, keeps_sign),
            sign_in_residual: bit(rest_bits, keeps_sign),
            shared_sign: bit(layout.element_bits - 1, layout.shared_sign == Some(true)),
            low_zero_bits: layout.low_zero_bits,
            top_shift: layout.residual_bits() - layout.packed_bits(),
        }
    }
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
    let is_windowed = layout.is_windowed();
    let n_planes = layout.n_byte_planes();
    let (symbol_groups, _) = symbols.as_chunks_mut::<GROUP_LEN>();
    let (top_groups, _) = top.as_chunks_mut::<GROUP_LEN>();
    let groups = src.chunks_exact(GROUP_LEN * W::BYTES);
    for (group_idx, ((src, symbols), top)) in groups.zip(symbol_groups).zip(top_groups).enumerate() {
        let mut elements = [W::default(); GROUP_LEN];
        for i in 0..GROUP_LEN {
            elements[i] = W::read(&src[i * W::BYTES..]);
        }
        if is_windowed {
            for i in 0..GROUP_LEN {
                let wide = elements[i].wrapping_shr(fields.rest_bits).and(fields.symbol_mask).low_u16();
                let offset = wide.wrapping_sub(fields.symbol_base);
                let inside = if offset.wrapping_sub(2) < 254 { offset } else { u16::from(OUTLIER) };
                symbols[i] = (if wide == 0 { 0 } else { inside }).to_le_bytes()[0];
            }
        } else {
            for i in 0..GROUP_LEN {
                symbols[i] = elements[i].wrapping_shr(fields.rest_bits).and(fields.symbol_mask).low_u8();
            }
        }
        let mut residual = [W::default(); GROUP_LEN];
        for i in 0..GROUP_LEN {
            let sign = elements[i].and(fields.sign_in_element).wrapping_shr(fields.symbol_bits);
            residual[i] = elements[i].and(fields.rest_mask).or(sign).wrapping_shr(fields.low_zero_bits);
        }
        let at = first + group_idx * GROUP_LEN;
        for (plane_idx, plane) in byte_planes.chunks_exact_mut(n_padded).enumerate().take(n_planes) {
            let shift = 8 * u32::from(plane_idx.to_le_bytes()[0]);
            if let Some(plane) = plane[at..].first_chunk_mut::<GROUP_LEN>() {
                for i in 0..GROUP_LEN {
                    plane[i] = residual[i].wrapping_shr(shift).low_u8();
                }
            }
        }
        for i in 0..GROUP_LEN {
            top[i] = residual[i].wrapping_shr(fields.top_shift).low_u8();
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
    let base = W::from_u16(fields.symbol_base);
    let (symbol_groups, _) = symbols.as_chunks::<GROUP_LEN>();
    let (top_groups, _) = top.as_chunks::<GROUP_LEN>();
    let groups = dst.chunks_exact_mut(GROUP_LEN * W::BYTES);
    for (group_idx, ((dst, symbols), top)) in groups.zip(symbol_groups).zip(top_groups).enumerate() {
        let at = first + group_idx * GROUP_LEN;
        let mut residual = [W::default(); GROUP_LEN];
        for i in 0..GROUP_LEN {
            residual[i] = W::from_u8(top[i]).wrapping_shl(fields.top_shift);
        }
        for (plane_idx, plane) in byte_planes.iter().enumerate() {
            let shift = 8 * u32::from(plane_idx.to_le_bytes()[0]);
            if let Some(plane) = plane[at..].first_chunk::<GROUP_LEN>() {
                for i in 0..GROUP_LEN {
                    residual[i] = residual[i].or(W::from_u8(plane[i]).wrapping_shl(shift));
                }
            }
        }
        let mut elements = [W::default(); GROUP_LEN];
        for i in 0..GROUP_LEN {
            let residual = residual[i].wrapping_shl(fields.low_zero_bits);
            let sign = residual.and(fields.sign_in_residual).wrapping_shl(fields.symbol_bits);
            // Without a window the base is 0, and symbol 0 is 0 either way.
            let symbol = if symbols[i] == 0 { W::default() } else { W::from_u8(symbols[i]).add(base) };
            let rest = residual.and(fields.rest_mask).or(fields.shared_sign);
            elements[i] = symbol.wrapping_shl(fields.rest_bits).or(sign).or(rest);
        }
        for i in 0..GROUP_LEN {
            elements[i].write(&mut dst[i * W::BYTES..]);
        }
    }
}
