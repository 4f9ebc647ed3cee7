//! Any bytes as a section of symbols: no panic, and every instruction set gives the same.
//!
//! The input is the number of symbols (two bytes), then the section.
#![no_main]

mod common;

use alcm::entropy::rans8::{Decoder, buffer_len};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&[n0, n1], section)) = input.split_first_chunk() else { return };
    let n_symbols = usize::from(u16::from_le_bytes([n0, n1]));
    let mut first: Option<Option<Vec<u8>>> = None;
    for isa in common::isas() {
        for dirt in [0, 0xff] {
            let mut symbols = vec![dirt; buffer_len(n_symbols)];
            let result = Decoder::default().decode(isa, section, n_symbols, &mut symbols);
            symbols.truncate(n_symbols);
            let result = result.map(|()| symbols);
            let first = first.get_or_insert_with(|| result.clone());
            assert!(*first == result, "{isa:?} with dirt {dirt:#x} decodes otherwise");
        }
    }
});
