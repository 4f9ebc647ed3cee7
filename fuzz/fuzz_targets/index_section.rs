//! Any bytes as a section of quantization indices: no panic, and the same on every instruction set; and any indices coded
//! come back.
//!
//! The input is whether quantization is dependent (one byte), the number of indices to decode (two bytes), section.
#![no_main]

use alcm::entropy::indices::{IndexDecoder, IndexEncoder};
use alcm::kernels::Isa;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&[dependent, n0, n1], section)) = input.split_first_chunk() else { return };
    let dependent = dependent & 1 == 1;
    let n_indices = usize::from(u16::from_le_bytes([n0, n1]));
    let mut decoder = IndexDecoder::default();
    let (mut clean, mut dirty) = (vec![0; n_indices], vec![-1; n_indices]);
    let results = (
        decoder.decode(Isa::detect(), section, dependent, &mut clean),
        decoder.decode(Isa::Scalar, section, dependent, &mut dirty),
    );
    assert_eq!(results.0, results.1);
    assert!(results.0.is_none() || clean == dirty);
    // Five bytes an index: four, and how far they are shifted down, so that all widths occur.
    let indices: Vec<i32> = section
        .as_chunks()
        .0
        .iter()
        .map(|&[a, b, c, d, width]| i32::from_le_bytes([a, b, c, d]) >> (width % 32))
        .collect();
    let mut coded = Vec::new();
    IndexEncoder::default().encode(Isa::detect(), &indices, dependent, &[64], &mut coded);
    let mut decoded = vec![0x55; indices.len()];
    decoder.decode(Isa::detect(), &coded, dependent, &mut decoded).unwrap();
    assert!(decoded == indices);
});
