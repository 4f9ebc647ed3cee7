//! Bits of elements that differ in how many they have: whole bytes in planes, the bits above them packed one behind the
//! other. FORMAT.md section 3.10.
//!
//! An element that has *w* bits has a byte in each of the first *w* div 8 planes, byte 0 of its bits in the first, and
//! its upper *w* mod 8 bits in the packed part.

use super::payload::scratch;
use super::planes::{self, Kind, PlaneCoder};
use crate::bits::ByteCursor;
use crate::entropy::rans12;
use crate::kernels::Isa;
use crate::kernels::dyadic::IN_ZERO;

/// Most planes: of 52 bits.
const MAX_PLANES: usize = 6;
/// Planes are coded in groups of this many bytes.
const PLANE_GRAIN: usize = 64;

/// Collects the bits of the elements of a block.
#[derive(Debug, Default)]
pub(super) struct RestWriter {
    planes: [Vec<u8>; MAX_PLANES],
    packed: Vec<u8>,
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
            self.pack(rest >> (width - width % 8), width % 8);
        }
    }

    /// Adds elements of `width` bits each.
    pub(super) fn push_run(&mut self, width: u8, rests: &[u64]) {
        for (plane_idx, plane) in self.planes.iter_mut().enumerate().take(usize::from(width / 8)) {
            plane.extend(rests.iter().map(|rest| rest.to_le_bytes()[plane_idx]));
        }
        if !width.is_multiple_of(8) {
            rests.iter().for_each(|rest| self.pack(rest >> (width - width % 8), width % 8));
        }
    }

    /// Adds the low `n_bits` of `bits`, up to 7, to the packed ones.
    fn pack(&mut self, bits: u64, n_bits: u8) {
        self.pending |= (bits & ((1 << n_bits) - 1)) << self.pending_bits;
        self.pending_bits += u32::from(n_bits);
        if self.pending_bits >= 32 {
            let [a, b, c, d, ..] = self.pending.to_le_bytes();
            self.packed.extend([a, b, c, d]);
            self.pending >>= 32;
            self.pending_bits -= 32;
        }
    }

    /// Fills up the last byte.
    pub(super) fn finish(&mut self) {
        let n_bytes = self.pending_bits.div_ceil(8) as usize;
        self.packed.extend_from_slice(&self.pending.to_le_bytes()[..n_bytes]);
        (self.pending, self.pending_bits) = (0, 0);
    }

    /// Appends entries and sections of the planes and the packed bits; after [`Self::finish`].
    pub(super) fn write(
        &mut self,
        isa: Isa,
        coder: &mut PlaneCoder,
        zstd: &mut zstd::bulk::Compressor<'static>,
        dst: &mut Vec<u8>,
    ) {
        let (mut entries, mut sections) = (Vec::new(), Vec::new());
        for plane in self.planes.iter_mut().filter(|plane| !plane.is_empty()) {
            push_plane(isa, plane, coder, zstd, &mut entries, &mut sections);
        }
        dst.extend(entries);
        dst.extend(sections);
        dst.extend_from_slice(&self.packed);
    }
}

/// Appends a plane and its entry. A raw one is as long as it is; others are filled up to whole groups.
fn push_plane(
    isa: Isa,
    plane: &mut Vec<u8>,
    coder: &mut PlaneCoder,
    zstd: &mut zstd::bulk::Compressor<'static>,
    entries: &mut Vec<u8>,
    sections: &mut Vec<u8>,
) {
    let len = plane.len();
    if coder.stays_raw(Kind::Byte, plane) {
        planes::push_raw_entry(len, entries);
        sections.extend_from_slice(plane);
        return;
    }
    let last = plane.last().copied().unwrap_or(0);
    plane.resize(len.next_multiple_of(PLANE_GRAIN), last);
    let (entry_at, section_at) = (entries.len(), sections.len());
    coder.encode(isa, Kind::Byte, plane, zstd, entries, sections);
    if sections.len() - section_at >= len {
        entries.truncate(entry_at);
        sections.truncate(section_at);
        planes::push_raw_entry(len, entries);
        sections.extend_from_slice(&plane[..len]);
    }
}

/// What the widths of a block's elements say of its parts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct RestSizes {
    /// Elements in the cell of zero.
    pub(super) n_dense: usize,
    /// Bytes of each plane; they do not grow from one to the next.
    planes: [usize; MAX_PLANES],
    packed_bits: usize,
}

impl RestSizes {
    pub(super) fn add(&mut self, widths: &[u8]) {
        let mut counts = [0usize; 256];
        widths.iter().for_each(|&width| counts[usize::from(width)] += 1);
        self.n_dense += counts[usize::from(IN_ZERO)];
        for (width, count) in counts.into_iter().enumerate().take(usize::from(IN_ZERO)) {
            self.add_run(width, count);
        }
    }

    /// Adds `count` elements that all have `width` bits.
    pub(super) fn add_run(&mut self, width: usize, count: usize) {
        self.packed_bits += width % 8 * count;
        self.planes.iter_mut().take(width / 8).for_each(|plane| *plane += count);
    }

    /// Takes what [`RestWriter::write`] wrote from `src`; `None` where it is not there.
    pub(super) fn open<'a>(&self, src: &mut ByteCursor<'a>) -> Option<Rests<'a>> {
        let used = self.planes.iter().take_while(|len| **len > 0);
        let entries = used.map(|_| planes::Entry::read(src)).collect::<Option<Vec<_>>>()?;
        let sections = entries.iter().map(|entry| src.take(entry.len())).collect::<Option<Vec<_>>>()?;
        let packed = src.take(self.packed_bits.div_ceil(8))?;
        Some(Rests { planes: self.planes, entries, sections, packed })
    }
}

/// The parts of a payload that hold the bits.
#[derive(Debug)]
pub(super) struct Rests<'a> {
    planes: [usize; MAX_PLANES],
    entries: Vec<planes::Entry>,
    sections: Vec<&'a [u8]>,
    packed: &'a [u8],
}

impl<'a> Rests<'a> {
    /// What reads the bits, from planes that are decoded into `buffer`.
    pub(super) fn reader(
        &self,
        isa: Isa,
        zstd: &mut zstd::bulk::Decompressor<'static>,
        rans12: &mut rans12::Decoder,
        buffer: &'a mut Vec<u8>,
    ) -> Option<RestReader<'a>> {
        let padded = |len: usize| len.next_multiple_of(PLANE_GRAIN);
        let mut buffer = scratch(buffer, self.planes.iter().map(|len| padded(*len)).sum());
        let mut planes: [&[u8]; MAX_PLANES] = [&[]; MAX_PLANES];
        for (((entry, section), len), plane) in
            self.entries.iter().zip(&self.sections).zip(self.planes).zip(&mut planes)
        {
            *plane = if entry.is_raw() {
                (section.len() == len).then_some(*section)?
            } else {
                let coded = buffer.split_off_mut(..padded(len))?;
                entry.decode(isa, section, zstd, rans12, coded)?;
                coded
            };
        }
        Some(RestReader { planes, at: [0; MAX_PLANES], packed: self.packed, packed_bit: 0 })
    }
}

/// Gives the bits of the elements of a block; what is missing reads as 0.
#[derive(Debug)]
pub(super) struct RestReader<'a> {
    planes: [&'a [u8]; MAX_PLANES],
    at: [usize; MAX_PLANES],
    packed: &'a [u8],
    packed_bit: usize,
}

impl RestReader<'_> {
    /// The bits of the next elements, of `width` bits each.
    pub(super) fn next_run(&mut self, width: u8, rests: &mut [u64]) {
        if width.is_multiple_of(8) {
            rests.fill(0);
        } else {
            rests.iter_mut().for_each(|rest| *rest = self.unpack(width % 8) << (width - width % 8));
        }
        for ((plane_idx, plane), at) in
            self.planes.iter().enumerate().zip(&mut self.at).take(usize::from(width / 8))
        {
            let bytes = plane.get(*at..).unwrap_or_default();
            rests.iter_mut().zip(bytes).for_each(|(rest, &byte)| *rest |= u64::from(byte) << (8 * plane_idx));
            *at += rests.len();
        }
    }

    /// The next `n_bits`, up to 7, of the packed ones.
    fn unpack(&mut self, n_bits: u8) -> u64 {
        let place = self.packed_bit / 8;
        let window = match self.packed.get(place..).and_then(|rest| rest.first_chunk::<2>()) {
            Some(pair) => u16::from_le_bytes(*pair),
            None => self.packed.get(place).copied().unwrap_or(0).into(),
        };
        let bits = window >> (self.packed_bit % 8) & ((1 << n_bits) - 1);
        self.packed_bit += usize::from(n_bits);
        bits.into()
    }

    /// The next elements' bits; 0 for those in the cell of zero. As with [`RestWriter::push`] nothing branches on widths.
    pub(super) fn next(&mut self, widths: &[u8], rests: &mut [u64]) {
        for (&width, rest) in widths.iter().zip(&mut *rests) {
            let width = if width == IN_ZERO { 0 } else { width };
            *rest = self.unpack(width % 8) << (width - width % 8);
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
