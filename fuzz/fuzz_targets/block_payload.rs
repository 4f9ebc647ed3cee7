//! Any bytes as a block's payload, of every coding: no panic, and every instruction set gives the same.
//!
//! The input is dtype, coding, units of the decoded block (three bytes), payload.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;

/// Longest block that is tried, in bytes: several segments and tiles; larger ones only take longer.
const MAX_BYTES: usize = 128 << 10;

fuzz_target!(|input: &[u8]| {
    let Some((&[dtype, coding, n0, n1, n2], payload)) = input.split_first_chunk() else { return };
    let (dtype, coding) = (common::dtype(dtype), common::coding(coding));
    let n_units = u32::from_le_bytes([n0, n1, n2, 0]) as usize;
    let n_bytes = (n_units * dtype.unit_bytes()).min(MAX_BYTES);
    let _ = common::decode_everywhere(coding, dtype, payload, n_bytes);
});
