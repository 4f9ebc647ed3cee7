//! Bits that a layer adds to elements: whole bytes in planes, the bits above them packed one behind the other.
//!
//! An element that gets *w* bits has a byte in each of the first *w* div 8 planes, byte 0 of its bits in the first, and
//! its upper *w* mod 8 bits in the packed part.

use crate::kernels::dyadic::IN_ZERO;

/// Most planes: of 52 bits.
pub(super) const MAX_PLANES: usize = 6;

/// Collects the bits of the elements of a block.
#[derive(Debug, Default)]
pub(super) struct RestWriter {
    pub(super) planes: [Vec<u8>; MAX_PLANES],
    pub(super) packed: Vec<u8>,
    pending: u64,
    pending_bits: u32,
}

impl RestWriter {
    pub(super) fn clear(&mut self) {
        self.planes.iter_mut().for_each(Vec::clear);
        self.packed.clear();
        (self.pending, self.pending_bits) = (0, 0);
    }

    /// Adds elements; those in the cell of zero are passed over.
    pub(super) fn push(&mut self, widths: &[u8], rests: &[u64]) {
        for (&width, &rest) in widths.iter().zip(rests) {
            if width == IN_ZERO {
                continue;
            }
            let bytes = rest.to_le_bytes();
            let n_planes = usize::from(width / 8);
            for (plane, byte) in self.planes.iter_mut().zip(bytes).take(n_planes) {
                plane.push(byte);
            }
            self.pending |= (rest >> (8 * (width / 8))) << self.pending_bits;
            self.pending_bits += u32::from(width % 8);
            if self.pending_bits >= 32 {
                let [a, b, c, d, ..] = self.pending.to_le_bytes();
                self.packed.extend([a, b, c, d]);
                self.pending >>= 32;
                self.pending_bits -= 32;
            }
        }
    }

    /// Fills up the last byte.
    pub(super) fn finish(&mut self) {
        let n_bytes = self.pending_bits.div_ceil(8) as usize;
        self.packed.extend_from_slice(&self.pending.to_le_bytes()[..n_bytes]);
        (self.pending, self.pending_bits) = (0, 0);
    }
}

/// What the widths of a block's elements say of its parts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct RestSizes {
    /// Elements in the cell of zero.
    pub(super) n_dense: usize,
    /// Bytes of each plane; they do not grow from one to the next.
    pub(super) planes: [usize; MAX_PLANES],
    packed_bits: usize,
}

impl RestSizes {
    pub(super) fn add(&mut self, widths: &[u8]) {
        let mut counts = [0usize; 256];
        widths.iter().for_each(|&width| counts[usize::from(width)] += 1);
        self.n_dense += counts[usize::from(IN_ZERO)];
        for (width, count) in counts.into_iter().enumerate().take(usize::from(IN_ZERO)) {
            self.packed_bits += width % 8 * count;
            self.planes.iter_mut().take(width / 8).for_each(|plane| *plane += count);
        }
    }

    pub(super) fn packed_len(&self) -> usize {
        self.packed_bits.div_ceil(8)
    }
}

/// Gives the bits of the elements of a block.
#[derive(Debug)]
pub(super) struct RestReader<'a> {
    planes: [&'a [u8]; MAX_PLANES],
    at: [usize; MAX_PLANES],
    packed: &'a [u8],
    packed_bit: usize,
}

impl<'a> RestReader<'a> {
    /// Reads from parts of the sizes that [`RestSizes`] gives; what is missing reads as 0.
    pub(super) fn new(planes: [&'a [u8]; MAX_PLANES], packed: &'a [u8]) -> Self {
        Self { planes, at: [0; MAX_PLANES], packed, packed_bit: 0 }
    }

    /// The next elements' bits; 0 for those in the cell of zero.
    pub(super) fn next(&mut self, widths: &[u8], rests: &mut [u64]) {
        for (&width, rest) in widths.iter().zip(rests) {
            *rest = 0;
            if width == IN_ZERO {
                continue;
            }
            let mut shift = 0;
            for (plane, at) in self.planes.iter().zip(&mut self.at).take(usize::from(width / 8)) {
                *rest |= u64::from(plane.get(*at).copied().unwrap_or(0)) << shift;
                *at += 1;
                shift += 8;
            }
            let byte = |place: usize| u32::from(self.packed.get(place).copied().unwrap_or(0));
            let place = self.packed_bit / 8;
            let window = (byte(place) | byte(place + 1) << 8) >> (self.packed_bit % 8);
            let n_bits = width % 8;
            *rest |= u64::from(window & ((1 << n_bits) - 1)) << shift;
            self.packed_bit += usize::from(n_bits);
        }
    }
}
