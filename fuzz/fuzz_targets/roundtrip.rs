//! Any bytes as elements of any dtype: every level and instruction set codes them alike, and back to the same bytes.
//!
//! The input is dtype, level, length of a row (two bytes), times that the rest is repeated, elements.
#![no_main]

mod common;

use alcm::kernels::Isa;
use alcm::stage::{BlockEncoder, BlockSource, Coding, Level};
use libfuzzer_sys::fuzz_target;

/// Longest block that is tried, in bytes: several tables and segments, and still fast.
const MAX_BYTES: usize = 256 << 10;

fuzz_target!(|input: &[u8]| {
    let Some((&[dtype, level, row0, row1, repeats], elements)) = input.split_first_chunk() else { return };
    let dtype = common::dtype(dtype);
    let level = [Level::Fast, Level::Default, Level::High][usize::from(level) % 3];
    let mut bytes = elements.repeat(1 + usize::from(repeats));
    bytes.truncate(bytes.len().min(MAX_BYTES) / dtype.unit_bytes() * dtype.unit_bytes());
    if bytes.is_empty() {
        return;
    }
    let source = BlockSource { dtype, bytes: &bytes, row_len: u16::from_le_bytes([row0, row1]).into() };
    let mut first: Option<(Coding, Vec<u8>)> = None;
    for isa in common::isas() {
        let mut payload = Vec::new();
        let coding = BlockEncoder::new(level, isa).encode(source, &mut payload);
        assert!(payload.len() <= bytes.len());
        let first = first.get_or_insert_with(|| (coding, payload.clone()));
        assert!(*first == (coding, payload), "{isa:?} codes otherwise than {:?}", Isa::Scalar);
    }
    let (coding, payload) = first.unwrap();
    assert!(common::decode_everywhere(coding, dtype, &payload, bytes.len()).unwrap() == bytes);
});
