//! Blocks that are near copies of earlier ones.

use alcm::Dtype;
use alcm::kernels::Isa;
use alcm::stage::{BlockEncoder, BlockSource, Coding, Level};

use super::fixtures::{CodedBlock, Packed, Random, archive_of, bell_block};

/// Elements near to those of `base`: some units in the last place more or less, a few of them something else.
pub(crate) fn near_copy(dtype: Dtype, base: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let unit_bytes = dtype.unit_bytes();
    let elements = base.chunks_exact(unit_bytes).flat_map(|element| {
        let mut word = [0; 8];
        word[..unit_bytes].copy_from_slice(element);
        let bits = u64::from_le_bytes(word);
        let spread = if dtype == Dtype::F32 { 1 << 14 } else { 5 };
        let bits = match random.below(50) {
            0 => random.word(),
            1 => bits ^ 1 << (8 * unit_bytes - 1),
            _ => bits.wrapping_add_signed((random.bell() * f64::from(spread)) as i64),
        };
        bits.to_le_bytes().into_iter().take(unit_bytes)
    });
    elements.collect()
}

/// Two blocks of which the second is a near copy of the first, and its payload as `isa` codes it.
pub(crate) struct DeltaBlocks {
    pub(crate) dtype: Dtype,
    pub(crate) base: Vec<u8>,
    pub(crate) near: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn delta_blocks(dtype: Dtype, isa: Isa) -> DeltaBlocks {
    let base = bell_block(dtype, 400, 0.05, 33);
    let near = near_copy(dtype, &base, 34);
    let source = BlockSource { dtype, bytes: &near, row_len: 0, row_start: 0 };
    let mut payload = Vec::new();
    let mut encoder = BlockEncoder::new(Level::Default, isa);
    let coding = encoder.encode_near(source, (4, &base), 0, &mut payload, &mut |_| {});
    assert_eq!(coding, Coding::Delta, "{dtype:?}");
    DeltaBlocks { dtype, base, near, payload }
}

/// An archive of some bytes and then `blocks`.
pub(crate) fn delta_archive(flags: u32, blocks: &DeltaBlocks) -> Packed {
    let DeltaBlocks { dtype, base, near, payload } = blocks;
    let block = |coding, payload, decoded| CodedBlock { dtype: *dtype, coding, payload, decoded };
    archive_of(
        flags,
        &[
            block(Coding::Stored, b"head", b"head"),
            block(Coding::Stored, base, base),
            block(Coding::Delta, payload, near),
        ],
    )
}

/// The dtypes that are coded by differences from an earlier block.
pub(crate) const DELTA_DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];
