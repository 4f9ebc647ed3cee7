//! The low bits of indices as they are stored: the bits above whole bytes packed, then a plane for each byte; and in
//! front of them, where columns have even sums, the lowest bits but for the last row of each sheet.

use super::{ROW_LEN, RUN_LEN, SHEET_LEN, SUMS_BYTES, sums_len};
use crate::kernels::Isa;
use crate::kernels::index_split::low_plane;
use crate::kernels::pack_bits::{self, GROUP_LEN};

/// Low bits of a block's indices in the making, in scratch memory that the next block reuses.
#[derive(Debug, Default)]
pub(super) struct LowPlanes {
    n_bytes: u32,
    n_bits: u32,
    n_indices: usize,
    /// Whether the lowest bit of each index is apart.
    has_sums: bool,
    sums: Vec<u8>,
    /// Of a run, not packed yet.
    plane: Vec<u8>,
    packed: Vec<u8>,
    /// One plane behind the other.
    bytes: Vec<u8>,
}

impl LowPlanes {
    /// Begins a block of `n_indices` with `low_bits` each, the lowest of them apart if it `has_sums`.
    pub(super) fn begin(&mut self, low_bits: u32, has_sums: bool, n_indices: usize) {
        let own_bits = low_bits - u32::from(has_sums);
        (self.n_bytes, self.n_bits, self.n_indices) = (own_bits / 8, own_bits % 8, n_indices);
        self.has_sums = has_sums;
        self.sums.clear();
        self.plane.resize(RUN_LEN, 0);
        let n_packed = pack_bits::packed_len(self.n_bits, n_indices.next_multiple_of(GROUP_LEN));
        self.packed.resize(n_packed, 0);
        self.bytes.resize(self.n_bytes as usize * n_indices, 0);
    }

    /// Takes the low bits of `run`, the at most [`RUN_LEN`] indices from number `start` on, which is a multiple of that.
    pub(super) fn take(&mut self, isa: Isa, start: usize, run: &[i32]) {
        let Self { n_bytes, n_bits, n_indices, has_sums, .. } = *self;
        let padded_len = run.len().next_multiple_of(GROUP_LEN);
        let plane = &mut self.plane[..padded_len];
        plane[run.len()..].fill(0);
        if has_sums {
            low_plane(isa, run, 0, 1, plane);
            let mut bits = [0; RUN_LEN / 8];
            pack_bits::pack(isa, 1, plane, &mut bits[..padded_len / 8]);
            let (sheets, rest) = run.as_chunks::<SHEET_LEN>();
            let of_sheets = bits.chunks(SHEET_LEN / 8).take(sheets.len());
            of_sheets.for_each(|bits| self.sums.extend_from_slice(&bits[..SUMS_BYTES]));
            let rest_bytes = rest.len().div_ceil(8);
            self.sums.extend_from_slice(&bits[run.len() / SHEET_LEN * SHEET_LEN / 8..][..rest_bytes]);
        }
        let lowest = u32::from(has_sums);
        if n_bits > 0 {
            low_plane(isa, run, lowest + 8 * n_bytes, (1 << n_bits) - 1, plane);
            let packed_start = pack_bits::packed_len(n_bits, start);
            let packed = &mut self.packed[packed_start..][..pack_bits::packed_len(n_bits, padded_len)];
            pack_bits::pack(isa, n_bits, plane, packed);
        }
        for plane in 0..n_bytes {
            let start = plane as usize * n_indices + start;
            low_plane(isa, run, lowest + 8 * plane, u8::MAX, &mut self.bytes[start..start + run.len()]);
        }
    }

    /// Bits of the block's low bits.
    pub(super) fn n_bits(&self) -> f64 {
        let sums = if self.has_sums { sums_len(self.n_indices) } else { 0 };
        f64::from(8 * self.n_bytes + self.n_bits) * self.n_indices as f64 + 8.0 * sums as f64
    }

    /// Appends the block's low bits.
    pub(super) fn write(&self, dst: &mut Vec<u8>) {
        debug_assert!(!self.has_sums || self.sums.len() == sums_len(self.n_indices));
        dst.extend_from_slice(&self.sums);
        dst.extend_from_slice(&self.packed[..(self.n_indices * self.n_bits as usize).div_ceil(8)]);
        dst.extend_from_slice(&self.bytes);
    }
}

/// The low bits of a section, as a decoder finds them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LowBits<'a> {
    /// How many an index has.
    pub(super) n_bits: u32,
    /// The lowest of each index but those that follow from others, if columns have even sums.
    pub(super) sums: Option<&'a [u8]>,
    /// The upper part of the others, packed.
    pub(super) packed: &'a [u8],
    /// Planes of whole bytes of them, the lowest first.
    pub(super) planes: &'a [u8],
}

impl<'a> LowBits<'a> {
    /// Takes those of `n_indices` from the front of `rest`.
    pub(super) fn take(rest: &mut &'a [u8], n_bits: u32, has_sums: bool, n_indices: usize) -> Option<Self> {
        let sums = if has_sums { Some(rest.split_off(..sums_len(n_indices))?) } else { None };
        let low = Self { n_bits, sums, ..Self::default() };
        let packed = rest.split_off(..packed_len(n_indices, low.n_packed())?)?;
        let planes = rest.split_off(..n_indices.checked_mul(low.n_planes() as usize)?)?;
        Some(Self { packed, planes, ..low })
    }

    /// Bits below those that are packed and in planes.
    pub(super) fn lowest(&self) -> u32 {
        u32::from(self.sums.is_some())
    }

    pub(super) fn n_packed(&self) -> u32 {
        (self.n_bits - self.lowest()) % 8
    }

    pub(super) fn n_planes(&self) -> u32 {
        (self.n_bits - self.lowest()) / 8
    }
}

/// Low bits of a run as bytes, in scratch memory that the next run reuses.
#[derive(Debug, Default)]
pub(super) struct Unpacker {
    /// A byte for each index.
    pub(super) plane: Vec<u8>,
    packed: Vec<u8>,
}

impl Unpacker {
    /// Unpacks the upper low bits of the `len` indices from `at` on to the plane; says whether there are any.
    pub(super) fn unpack(&mut self, isa: Isa, low: &LowBits<'_>, at: usize, len: usize) -> Option<bool> {
        let n_bits = low.n_packed();
        if n_bits == 0 {
            return Some(false);
        }
        let n_padded = len.next_multiple_of(GROUP_LEN);
        let own = low.packed.get(packed_len(at, n_bits)?..packed_len(at + len, n_bits)?)?;
        self.plane.resize(n_padded, 0);
        if n_padded == len {
            pack_bits::unpack(isa, n_bits, own, &mut self.plane);
        } else {
            self.packed.clear();
            self.packed.extend_from_slice(own);
            self.packed.resize(pack_bits::packed_len(n_bits, n_padded), 0);
            pack_bits::unpack(isa, n_bits, &self.packed, &mut self.plane);
            self.plane.truncate(len);
        }
        Some(true)
    }

    /// Unpacks the lowest bits of the next `len` indices, which `sums` begin with, to the plane. Those of a sheet's last row
    /// are what makes columns even.
    pub(super) fn unpack_sums(&mut self, isa: Isa, sums: &[u8], len: usize) -> Option<()> {
        let (sheets, rest) = sums.get(..sums_len(len))?.split_at(len / SHEET_LEN * SUMS_BYTES);
        self.packed.clear();
        for rows in sheets.chunks_exact(SUMS_BYTES) {
            self.packed.extend_from_slice(rows);
            let rows = rows.as_chunks::<{ ROW_LEN / 8 }>().0;
            let last = rows.iter().fold(0, |sum, row| sum ^ u64::from_le_bytes(*row));
            self.packed.extend(last.to_le_bytes());
        }
        self.packed.extend_from_slice(rest);
        let n_padded = len.next_multiple_of(GROUP_LEN);
        self.packed.resize(n_padded / 8, 0);
        self.plane.resize(n_padded, 0);
        pack_bits::unpack(isa, 1, &self.packed, &mut self.plane);
        self.plane.truncate(len);
        Some(())
    }
}

/// Bytes of the packed plane of `n_bits` bits of each of `n` indices.
fn packed_len(n: usize, n_bits: u32) -> Option<usize> {
    Some(n.checked_mul(n_bits as usize)?.div_ceil(8))
}
