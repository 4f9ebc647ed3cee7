//! Symbols decoded and joined with their residuals in one loop, without a detour through memory.
//!
//! A symbol's place is the top of its element, so it comes from a table like the symbol itself: two bytes of an entry,
//! the *placed* value, are what it puts into the top 16 bits of an element (into the high one of them alone for
//! elements of 8 bits). The residual is or-ed to it.

use super::{Decoder, GROUP_LEN, SLACK_BYTES, Tile, join_vectors};
use crate::kernels::crc64::Folded;
use crate::kernels::fields::Layout;
#[cfg(target_arch = "x86_64")]
use crate::kernels::prefetch::prefetch_ahead;

/// The residuals of a block, and its escapes as they are placed in elements.
#[derive(Debug, Clone, Copy)]
pub struct Residual<'a> {
    /// How elements are cut.
    pub layout: Layout,
    /// Byte planes, lowest first.
    pub byte_planes: &'a [&'a [u8]],
    /// The packed plane.
    pub packed: &'a [u8],
    /// High and low bytes of the placed escapes, each as long as the decoder's escapes.
    pub escapes: [&'a [u8]; 2],
}

/// What [`Decoder::next_joined`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Joined {
    /// Elements that are there.
    pub n_elements: usize,
    /// As many of their bytes as the loop has folded: all or none.
    pub folded: Folded,
}

/// Where a residual stands in an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Elements of one byte: all of it packed.
    Byte,
    /// Above `n_lower` byte planes the packed plane, in the low one of the top two bytes but for the sign.
    Packed { n_lower: usize },
    /// Above `n_lower` byte planes one more of 7 bits and the sign.
    Plane { n_lower: usize },
    /// 16-bit elements: the low byte is a plane, what else the high byte holds is packed.
    PlaneAndPacked,
}

/// The shapes as constants that loops are made for: generic parameters cannot be of another type yet.
#[cfg(target_arch = "x86_64")]
mod shapes {
    pub(in super::super) const BYTE: u8 = 0;
    pub(in super::super) const PACKED: u8 = 1;
    pub(in super::super) const PLANE: u8 = 2;
    pub(in super::super) const PLANE_AND_PACKED: u8 = 3;
}
#[cfg(target_arch = "x86_64")]
pub(super) use shapes::*;

/// How far ahead AVX-512's loops ask for memory, in bytes: where elements go, and where planes and stream come from. Half and
/// double these distances are no faster; without any, blocks out of the caches take a tenth more time. The loops for AVX2
/// are slow enough to hide most of that time, and gain nothing.
#[cfg(target_arch = "x86_64")]
const AHEAD: (usize, usize, usize) = (4096, 2048, 1024);

/// Asks for what a later step of `G` groups will write and read, by where this one writes and reads. Planes that there
/// are not are empty.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn prefetch_step<const G: usize>(dst: &[[u8; GROUP_LEN]], planes: [&[u8]; 4], stream: &[u8]) {
    prefetch_ahead(dst, AHEAD.0, dst.len());
    for plane in planes.into_iter().filter(|plane| !plane.is_empty()) {
        prefetch_ahead(plane, AHEAD.1, G);
    }
    prefetch_ahead(stream, AHEAD.2, G.div_ceil(2));
}

impl Residual<'_> {
    /// The shape that loops are made for, if the layout has one.
    pub(super) fn shape(&self) -> Option<Shape> {
        let layout = &self.layout;
        let keeps_sign = layout.has_sign && layout.shared_sign.is_none();
        if layout.low_zero_bits > 0 || keeps_sign != layout.has_sign || layout.symbol_bits == 0 {
            return None;
        }
        match (layout.element_bits, layout.n_byte_planes(), layout.packed_bits()) {
            (8, 0, 1..) => Some(Shape::Byte),
            (16, 0, 1..) if keeps_sign => Some(Shape::Packed { n_lower: 0 }),
            (32, 2, 1..) if keeps_sign => Some(Shape::Packed { n_lower: 2 }),
            (16, 1, 0) if keeps_sign => Some(Shape::Plane { n_lower: 0 }),
            (32, 3, 0) if keeps_sign => Some(Shape::Plane { n_lower: 2 }),
            (16, 1, 1..) if keeps_sign => Some(Shape::PlaneAndPacked),
            _ => None,
        }
    }
}

impl Decoder<'_> {
    /// Decodes symbols from the block's first on and joins them with `residual` into the elements of `dst`, as far as there
    /// is a fast way to do that. The rest is left to [`Self::next`].
    ///
    /// The tables' values have been placed ([`super::Table::place_values`]).
    pub fn next_joined(&mut self, residual: &Residual<'_>, dst: &mut [u8]) -> Joined {
        let n_bytes = residual.layout.element_bits as usize / 8;
        let fits = self.position.symbol == 0
            && residual.escapes.iter().all(|escapes| escapes.len() >= self.n_escapes + SLACK_BYTES)
            && dst.len() / n_bytes <= self.n_symbols;
        let Some(shape) = residual.shape().filter(|_| fits) else { return Joined::default() };
        let states = &mut self.states[..self.plan.groups * GROUP_LEN];
        let mut tile = Tile {
            plan: &self.plan,
            #[cfg(target_arch = "x86_64")]
            steps: &self.steps,
            stream: self.stream,
            escapes: self.escapes,
            first: 0,
            dst,
        };
        let folded;
        (self.position, folded) = join_vectors(self.isa, &mut tile, shape, residual, states);
        Joined { n_elements: self.position.symbol, folded }
    }
}
