//! Any bytes as a section of 12-bit rANS: no panic; and any bytes coded come back.
//!
//! The input is the number of bytes to decode (two bytes), section.
#![no_main]

use alcm::entropy::rans12::{Decoder, Encoder};
use alcm::kernels::Isa;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&[n0, n1], section)) = input.split_first_chunk() else { return };
    let (isa, mut decoder) = (Isa::detect(), Decoder::default());
    let n_bytes = usize::from(u16::from_le_bytes([n0, n1]));
    let (mut clean, mut dirty) = (vec![0; n_bytes], vec![0xff; n_bytes]);
    let results = (decoder.decode(isa, section, &mut clean), decoder.decode(Isa::Scalar, section, &mut dirty));
    assert_eq!(results.0, results.1);
    assert!(results.0.is_none() || clean == dirty);
    if !section.is_empty() {
        let mut coded = Vec::new();
        Encoder::default().encode(isa, section, &mut coded);
        let mut decoded = vec![0x55; section.len()];
        decoder.decode(isa, &coded, &mut decoded).unwrap();
        assert!(decoded == section);
    }
});
