//! Any bytes as elements of any dtype: every level and instruction set codes them alike, and back to the same bytes.
//!
//! The input is dtype, level (from 128 on to be small above all), length of a row (two bytes), times that the rest is repeated,
//! elements.
#![no_main]

mod common;

use std::cell::RefCell;

use alcm::stage::{BlockEncoder, BlockSource, Coding, Level};
use libfuzzer_sys::fuzz_target;

/// Longest block that is tried, in bytes: several tables and segments, and still fast. Longer ones are for the tests.
const MAX_BYTES: usize = 64 << 10;

const LEVELS: [Level; 3] = [Level::Fast, Level::Default, Level::High];

thread_local! {
    /// Encoders for each level and instruction set, used again like the decoders.
    static ENCODERS: RefCell<Vec<Vec<BlockEncoder>>> = RefCell::new(
        LEVELS.map(|level| common::isas().map(|isa| BlockEncoder::new(level, isa)).collect()).into(),
    );
}

fuzz_target!(|input: &[u8]| {
    let Some((&[dtype, level, row0, row1, repeats], elements)) = input.split_first_chunk() else { return };
    let dtype = common::dtype(dtype);
    let (is_small, level) = (level >= 128, usize::from(level) % LEVELS.len());
    let mut bytes = elements.repeat(1 + usize::from(repeats));
    bytes.truncate(bytes.len().min(MAX_BYTES) / dtype.unit_bytes() * dtype.unit_bytes());
    if bytes.is_empty() {
        return;
    }
    let source = BlockSource { dtype, bytes: &bytes, row_len: u16::from_le_bytes([row0, row1]).into(), row_start: 0 };
    let mut first: Option<(Coding, Vec<u8>)> = None;
    ENCODERS.with_borrow_mut(|encoders| {
        for encoder in &mut encoders[level] {
            let mut payload = Vec::new();
            let coding = if is_small {
                encoder.encode_small(source, 0, &mut payload, &mut |_| {})
            } else {
                encoder.encode(source, &mut payload)
            };
            assert!(payload.len() <= bytes.len());
            let first = first.get_or_insert_with(|| (coding, payload.clone()));
            assert!(*first == (coding, payload), "{encoder:?} codes otherwise");
        }
    });
    let (coding, payload) = first.unwrap();
    assert!(common::decode_everywhere(coding, dtype, &payload, bytes.len()).unwrap() == bytes);
});
