//! Any bytes as a difference from any block: no panic, and every instruction set gives the same. And any block as one: it
//! comes back.
//!
//! The input is a choice of dtype and of what the rest is (one byte), bytes of the block (two), that block, and the payload
//! or, if bit 7 of the choice is set, the block that is to be coded.
#![no_main]

mod common;

use alcm::Dtype;
use alcm::kernels::Isa;
use alcm::stage::{BlockEncoder, BlockSource, Coding, Level};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&[choice, low, high], rest)) = input.split_first_chunk() else { return };
    let dtype = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F32][usize::from(choice & 3)];
    let Some((base, rest)) = rest.split_at_checked(usize::from(u16::from_le_bytes([low, high]))) else {
        return;
    };
    let base = &base[..base.len() / dtype.unit_bytes() * dtype.unit_bytes()];
    if choice & 0x80 == 0 {
        common::change_everywhere(base, |decoder, block| decoder.add_delta(dtype, rest, block));
        return;
    }
    let Some(bytes) = rest.get(..base.len()).filter(|bytes| !bytes.is_empty()) else { return };
    let source = BlockSource { dtype, bytes, row_len: 0, row_start: 0 };
    let mut payload = Vec::new();
    let mut encoder = BlockEncoder::new(Level::Default, Isa::detect());
    let block = match encoder.encode_near(source, (0, base), 0, &mut payload, &mut |_| {}) {
        Coding::Delta => {
            common::change_everywhere(base, |decoder, block| decoder.add_delta(dtype, &payload, block))
        }
        coding => common::decode_everywhere(coding, dtype, &payload, bytes.len()),
    };
    assert!(block.is_some_and(|block| block == bytes));
});
