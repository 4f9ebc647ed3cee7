//! The low bits of indices as the encoder stores them: the bits above whole bytes packed, then a plane for each byte.

use super::RUN_LEN;
use crate::kernels::Isa;
use crate::kernels::index_split::low_plane;
use crate::kernels::pack_bits::{self, GROUP_LEN};

/// Low bits of a block's indices, in scratch memory that the next block reuses.
#[derive(Debug, Default)]
pub(super) struct LowPlanes {
    n_bytes: u32,
    n_bits: u32,
    n_indices: usize,
    /// Of a run, not packed yet.
    plane: Vec<u8>,
    packed: Vec<u8>,
    /// One plane behind the other.
    bytes: Vec<u8>,
}

impl LowPlanes {
    /// Begins a block of `n_indices` with `low_bits` each.
    pub(super) fn begin(&mut self, low_bits: u32, n_indices: usize) {
        (self.n_bytes, self.n_bits, self.n_indices) = (low_bits / 8, low_bits % 8, n_indices);
        self.plane.resize(RUN_LEN, 0);
        let n_packed = pack_bits::packed_len(self.n_bits, n_indices.next_multiple_of(GROUP_LEN));
        self.packed.resize(n_packed, 0);
        self.bytes.resize(self.n_bytes as usize * n_indices, 0);
    }

    /// Takes the low bits of `run`, the at most [`RUN_LEN`] indices from number `start` on, which is a multiple of that.
    pub(super) fn take(&mut self, isa: Isa, start: usize, run: &[i32]) {
        let Self { n_bytes, n_bits, n_indices, .. } = *self;
        if n_bits > 0 {
            let padded_len = run.len().next_multiple_of(GROUP_LEN);
            let plane = &mut self.plane[..padded_len];
            plane[run.len()..].fill(0);
            low_plane(isa, run, 8 * n_bytes, (1 << n_bits) - 1, plane);
            let packed_start = pack_bits::packed_len(n_bits, start);
            let packed = &mut self.packed[packed_start..][..pack_bits::packed_len(n_bits, padded_len)];
            pack_bits::pack(isa, n_bits, plane, packed);
        }
        for plane in 0..n_bytes {
            let start = plane as usize * n_indices + start;
            low_plane(isa, run, 8 * plane, u8::MAX, &mut self.bytes[start..start + run.len()]);
        }
    }

    /// Appends the block's low bits.
    pub(super) fn write(&self, dst: &mut Vec<u8>) {
        dst.extend_from_slice(&self.packed[..(self.n_indices * self.n_bits as usize).div_ceil(8)]);
        dst.extend_from_slice(&self.bytes);
    }
}
