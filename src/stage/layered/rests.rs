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
    ///
    /// Which elements have how many bytes is next to random, so that nothing branches on it: every byte is written, and
    /// the next over it if it was none of the plane's.
    pub(super) fn push(&mut self, widths: &[u8], rests: &[u64]) {
        for (plane_idx, plane) in self.planes.iter_mut().enumerate() {
            let least = 8 * (plane_idx + 1);
            let in_plane = |width: u8| width != IN_ZERO && usize::from(width) >= least;
            if !widths.iter().any(|&width| in_plane(width)) {
                break;
            }
            let start = plane.len();
            plane.resize(start + widths.len(), 0);
            let mut at = start;
            for (&width, rest) in widths.iter().zip(rests) {
                plane[at] = rest.to_le_bytes()[plane_idx];
                at += usize::from(in_plane(width));
            }
            plane.truncate(at);
        }
        for (&width, &rest) in widths.iter().zip(rests) {
            let width = if width == IN_ZERO { 0 } else { width };
            let n_bits = u32::from(width % 8);
            self.pending |= (rest >> (width - width % 8) & ((1 << n_bits) - 1)) << self.pending_bits;
            self.pending_bits += n_bits;
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

    /// The next elements' bits; 0 for those in the cell of zero. As with [`RestWriter::push`] nothing branches on widths.
    pub(super) fn next(&mut self, widths: &[u8], rests: &mut [u64]) {
        for (&width, rest) in widths.iter().zip(&mut *rests) {
            let width = if width == IN_ZERO { 0 } else { width };
            let n_bits = usize::from(width % 8);
            let place = self.packed_bit / 8;
            let window = match self.packed.get(place..).and_then(|rest| rest.first_chunk::<2>()) {
                Some(pair) => u16::from_le_bytes(*pair),
                None => self.packed.get(place).copied().unwrap_or(0).into(),
            };
            let bits = window >> (self.packed_bit % 8) & ((1 << n_bits) - 1);
            *rest = u64::from(bits) << (width - width % 8);
            self.packed_bit += n_bits;
        }
        let used =
            self.planes.iter().zip(&mut self.at).enumerate().filter(|(_, (plane, _))| !plane.is_empty());
        for (plane_idx, (plane, at)) in used {
            let (least, shift) = (8 * (plane_idx + 1), 8 * plane_idx);
            for (&width, rest) in widths.iter().zip(&mut *rests) {
                let is_in = width != IN_ZERO && usize::from(width) >= least;
                let byte = u64::from(plane.get(*at).copied().unwrap_or(0));
                *rest |= if is_in { byte << shift } else { 0 };
                *at += usize::from(is_in);
            }
        }
    }
}

/// Appends the elements in the cell of zero to `dense`.
pub(super) fn gather<const N: usize>(widths: &[u8], elements: &[[u8; N]], dense: &mut Vec<u8>) {
    let start = dense.len();
    dense.resize(start + N * elements.len(), 0);
    let (places, _) = dense[start..].as_chunks_mut::<N>();
    let mut n_dense = 0;
    for (element, &width) in elements.iter().zip(widths) {
        places[n_dense] = *element;
        n_dense += usize::from(width == IN_ZERO);
    }
    dense.truncate(start + N * n_dense);
}

/// Puts the elements of `dense` from number `at` on into the cell of zero, and counts them in `at`; what is missing there
/// leaves the elements as they are.
pub(super) fn scatter<const N: usize>(
    widths: &[u8],
    dense: &[[u8; N]],
    at: &mut usize,
    elements: &mut [[u8; N]],
) {
    for (element, &width) in elements.iter_mut().zip(widths) {
        let is_dense = width == IN_ZERO;
        let other = dense.get(*at).copied().unwrap_or(*element);
        *element = if is_dense { other } else { *element };
        *at += usize::from(is_dense);
    }
}
