//! Any bytes as what a layer adds, over any block before it: no panic, and every instruction set gives the same.
//!
//! The input is units of the block before less 1 (one byte), that block as singles, payload.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&n_units, rest)) = input.split_first() else { return };
    let Some((before, payload)) = rest.split_at_checked(4 * (usize::from(n_units) + 1)) else { return };
    common::change_everywhere(before, |decoder, block| decoder.refine(payload, block));
});
