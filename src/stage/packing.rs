//! Values of a record whose low and high bits are kept apart, as in some of ggml's quantized types: put together, they have
//! one distribution, of which neither half alone tells as much. FORMAT.md section 3.13.
//!
//! Layouts: <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>, `block_q5_0` to `block_q6_K`.

use std::ops::Range;

/// Values that are put together in one go.
const RUN_LEN: usize = 32;

/// Where the high bits of a run of values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum High {
    /// In one byte for each, from `shift` on.
    Bytes { at: usize, shift: u32 },
    /// One bit for each, one behind the other.
    Bits { at: usize },
}

/// Where the bits of [`RUN_LEN`] values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// The bytes and the shift of the low bits of the first and of the second half of the run.
    low: [(usize, u32); 2],
    high: High,
}

/// How the values of a record are packed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packing {
    /// The id on the wire.
    pub(super) id: u8,
    pub(super) record_bytes: usize,
    /// Bytes that are no values.
    kept: (usize, usize),
    n_runs: usize,
    low_bits: u32,
    high_bits: u32,
    run: fn(usize) -> Run,
}

const PACKINGS: [Packing; 5] = [
    // Q5_0
    Packing { id: 1, record_bytes: 22, kept: (0, 2), n_runs: 1, low_bits: 4, high_bits: 1, run: |_| q5(2) },
    // Q5_1
    Packing { id: 2, record_bytes: 24, kept: (0, 4), n_runs: 1, low_bits: 4, high_bits: 1, run: |_| q5(4) },
    // Q3_K
    Packing {
        id: 3,
        record_bytes: 110,
        kept: (96, 110),
        n_runs: 8,
        low_bits: 2,
        high_bits: 1,
        run: |idx| Run {
            low: halves(32 + 32 * (idx / 4), 2 * (idx % 4)),
            high: High::Bytes { at: 0, shift: shift(idx) },
        },
    },
    // Q5_K
    Packing {
        id: 4,
        record_bytes: 176,
        kept: (0, 16),
        n_runs: 8,
        low_bits: 4,
        high_bits: 1,
        run: |idx| Run {
            low: halves(48 + 32 * (idx / 2), 4 * (idx % 2)),
            high: High::Bytes { at: 16, shift: shift(idx) },
        },
    },
    // Q6_K
    Packing {
        id: 5,
        record_bytes: 210,
        kept: (192, 210),
        n_runs: 8,
        low_bits: 4,
        high_bits: 2,
        run: |idx| Run {
            low: halves(64 * (idx / 4) + 32 * (idx % 2), 4 * (idx % 4 / 2)),
            high: High::Bytes { at: 128 + 32 * (idx / 4), shift: shift(2 * (idx % 4)) },
        },
    },
];

/// A shift below 8.
const fn shift(bits: usize) -> u32 {
    [0, 1, 2, 3, 4, 5, 6, 7][bits % 8]
}

/// The low bits of a run in bytes one behind the other.
const fn halves(at: usize, bits: usize) -> [(usize, u32); 2] {
    [(at, shift(bits)), (at + RUN_LEN / 2, shift(bits))]
}

/// The run of a record whose high bits begin at `at` and whose low bits stand behind them.
const fn q5(at: usize) -> Run {
    Run { low: [(at + 4, 0), (at + 4, 4)], high: High::Bits { at } }
}

impl Packing {
    /// The packing that records of this length may have.
    pub(super) fn of(record_bytes: usize) -> Option<Self> {
        PACKINGS.into_iter().find(|packing| packing.record_bytes == record_bytes)
    }

    /// The packing of a wire id.
    pub(super) fn from_wire_id(id: u8) -> Option<Self> {
        PACKINGS.into_iter().find(|packing| packing.id == id)
    }

    /// Bytes of a record whose values have a byte each: behind those that are none.
    pub(super) fn unpacked_bytes(self) -> usize {
        self.kept.1 - self.kept.0 + RUN_LEN * self.n_runs
    }

    fn kept(self) -> Range<usize> {
        self.kept.0..self.kept.1
    }

    /// Fills `unpacked` with the records of `packed`, as many as there are whole ones in both.
    pub(super) fn unpack(self, packed: &[u8], unpacked: &mut [u8]) {
        let Self { low_bits, high_bits, .. } = self;
        let (low_mask, high_mask) = (mask(low_bits), mask(high_bits));
        let runs: Vec<Run> = (0..self.n_runs).map(self.run).collect();
        let records = packed.chunks_exact(self.record_bytes);
        for (record, unpacked) in records.zip(unpacked.chunks_exact_mut(self.unpacked_bytes())) {
            let (kept, values) = unpacked.split_at_mut(self.kept().len());
            kept.copy_from_slice(&record[self.kept()]);
            for (run, values) in runs.iter().zip(values.as_chunks_mut::<RUN_LEN>().0) {
                let high = match run.high {
                    High::Bytes { at, shift } => {
                        half_of::<RUN_LEN>(record, at).map(|byte| byte >> shift & high_mask)
                    }
                    High::Bits { at } => {
                        let bits = u32::from_le_bytes(half_of(record, at));
                        std::array::from_fn(|idx| (bits >> idx & 1).to_le_bytes()[0])
                    }
                };
                let halves = values.as_chunks_mut::<{ RUN_LEN / 2 }>().0;
                for ((half, high), (at, shift)) in
                    halves.iter_mut().zip(high.as_chunks::<{ RUN_LEN / 2 }>().0).zip(run.low)
                {
                    let low = half_of::<{ RUN_LEN / 2 }>(record, at);
                    *half = std::array::from_fn(|idx| low[idx] >> shift & low_mask | high[idx] << low_bits);
                }
            }
        }
    }

    /// The inverse of [`Self::unpack`]; bits of values above those that they have are left out.
    pub(super) fn pack(self, unpacked: &[u8], packed: &mut [u8]) {
        let Self { low_bits, high_bits, .. } = self;
        let (low_mask, high_mask) = (mask(low_bits), mask(high_bits));
        let runs: Vec<Run> = (0..self.n_runs).map(self.run).collect();
        let records = packed.chunks_exact_mut(self.record_bytes);
        for (record, unpacked) in records.zip(unpacked.chunks_exact(self.unpacked_bytes())) {
            let (kept, values) = unpacked.split_at(self.kept().len());
            record.fill(0);
            record[self.kept()].copy_from_slice(kept);
            for (run, values) in runs.iter().zip(values.as_chunks::<RUN_LEN>().0) {
                let high = values.map(|value| value >> low_bits & high_mask);
                match run.high {
                    High::Bytes { at, shift } => put::<RUN_LEN>(record, at, &high.map(|bits| bits << shift)),
                    High::Bits { at } => {
                        let bits = high.iter().rev().fold(0u32, |bits, &bit| bits << 1 | u32::from(bit));
                        put(record, at, &bits.to_le_bytes());
                    }
                }
                for (half, (at, shift)) in values.as_chunks::<{ RUN_LEN / 2 }>().0.iter().zip(run.low) {
                    put(record, at, &half.map(|value| (value & low_mask) << shift));
                }
            }
        }
    }
}

const fn mask(n_bits: u32) -> u8 {
    (1 << n_bits) - 1
}

/// `N` bytes of a record.
fn half_of<const N: usize>(record: &[u8], at: usize) -> [u8; N] {
    record[at..].first_chunk().copied().unwrap_or([0; N])
}

/// Sets bits of a record.
fn put<const N: usize>(record: &mut [u8], at: usize, bits: &[u8; N]) {
    if let Some(bytes) = record[at..].first_chunk_mut::<N>() {
        bytes.iter_mut().zip(bits).for_each(|(byte, bits)| *byte |= bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    #[test]
    fn every_bit_of_a_record_has_its_place() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for packing in PACKINGS {
            let found = [Packing::from_wire_id(packing.id), Packing::of(packing.record_bytes)];
            assert!(found.iter().flatten().map(|found| found.id).eq([packing.id; 2]));
            let mut packed = vec![0; 3 * packing.record_bytes];
            rng.fill_bytes(&mut packed);
            let mut unpacked = vec![0xcc; 3 * packing.unpacked_bytes()];
            packing.unpack(&packed, &mut unpacked);
            let mut back = vec![0xcc; packed.len()];
            packing.pack(&unpacked, &mut back);
            assert!(back == packed, "{packing:?}");
            // All bits of a record are in it once: as many as there are in the unpacked one.
            let value_bits = RUN_LEN * packing.n_runs * (packing.low_bits + packing.high_bits) as usize;
            assert_eq!(8 * packing.record_bytes, 8 * packing.kept().len() + value_bits, "{packing:?}");
        }
    }

    /// The weights of ggml's `dequantize_row_q6_K` and the others, for some of the values.
    #[test]
    fn values_are_those_of_ggml() {
        let record: Vec<u8> = (0..210).map(|at| (at * 37 + 11) as u8).collect();
        let unpacked = |record_bytes: usize| {
            let packing = Packing::of(record_bytes).unwrap();
            let mut unpacked = vec![0; packing.unpacked_bytes()];
            packing.unpack(&record[..record_bytes], &mut unpacked);
            unpacked.split_off(packing.kept().len())
        };
        let at = |at: usize| record[at];
        let values = unpacked(210);
        for (half, l) in [(0, 0), (0, 31), (1, 5)] {
            let (ql, qh, y) = (64 * half, 128 + 32 * half, 128 * half);
            assert_eq!(values[y + l], at(ql + l) & 15 | (at(qh + l) & 3) << 4);
            assert_eq!(values[y + l + 32], at(ql + l + 32) & 15 | (at(qh + l) >> 2 & 3) << 4);
            assert_eq!(values[y + l + 64], at(ql + l) >> 4 | (at(qh + l) >> 4 & 3) << 4);
            assert_eq!(values[y + l + 96], at(ql + l + 32) >> 4 | (at(qh + l) >> 6 & 3) << 4);
        }
        let values = unpacked(176);
        for (pair, l) in [(0, 0), (3, 31), (2, 7)] {
            let (qs, y) = (48 + 32 * pair, 64 * pair);
            assert_eq!(values[y + l], at(qs + l) & 15 | (at(16 + l) >> (2 * pair) & 1) << 4);
            assert_eq!(values[y + l + 32], at(qs + l) >> 4 | (at(16 + l) >> (2 * pair + 1) & 1) << 4);
        }
        let values = unpacked(110);
        for (half, j, l) in [(0, 0, 0), (1, 3, 31), (1, 1, 17)] {
            let low = at(32 + 32 * half + l) >> (2 * j) & 3;
            assert_eq!(values[128 * half + 32 * j + l], low | (at(l) >> (4 * half + j) & 1) << 2);
        }
        for (record_bytes, qh) in [(22, 2), (24, 4)] {
            let values = unpacked(record_bytes);
            let high = u32::from_le_bytes([at(qh), at(qh + 1), at(qh + 2), at(qh + 3)]);
            for j in [0, 7, 15] {
                assert_eq!(values[j], at(qh + 4 + j) & 15 | ((high >> j & 1) as u8) << 4);
                assert_eq!(values[j + 16], at(qh + 4 + j) >> 4 | ((high >> (j + 16) & 1) as u8) << 4);
            }
        }
    }
}
