//! Any bytes as a section of quantization indices: no panic, and the same on every instruction set; and any indices coded
//! come back.
//!
//! The input is a byte, bit 0 whether quantization is dependent, bit 1 whether the section is long; the number of indices to
//! decode (two bytes), four times as many of a long one; section.
#![no_main]

use alcm::entropy::indices::{IndexDecoder, IndexEncoder};
use alcm::kernels::Isa;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    /// Indices from which on sections have more lanes.
    const LONG: usize = 1 << 17;
    let Some((&[flags, n0, n1], section)) = input.split_first_chunk() else { return };
    let (dependent, is_long) = (flags & 1 == 1, flags & 2 == 2);
    let n_indices = usize::from(u16::from_le_bytes([n0, n1])) * if is_long { 4 } else { 1 };
    let mut decoder = IndexDecoder::default();
    let (mut clean, mut dirty) = (vec![0; n_indices], vec![-1; n_indices]);
    let results = (
        decoder.decode(Isa::detect(), section, dependent, &mut clean),
        decoder.decode(Isa::Scalar, section, dependent, &mut dirty),
    );
    assert_eq!(results.0, results.1);
    assert!(results.0.is_none() || clean == dirty);
    // Five bytes an index: four, and how far they are shifted down, so that all widths occur.
    let mut indices: Vec<i32> = section
        .as_chunks()
        .0
        .iter()
        .map(|&[a, b, c, d, width]| i32::from_le_bytes([a, b, c, d]) >> (width % 32))
        .collect();
    if is_long && !indices.is_empty() {
        indices = indices.repeat(LONG.div_ceil(indices.len()));
    }
    let mut coded = Vec::new();
    IndexEncoder::default().encode(Isa::detect(), &indices, dependent, &[64], &mut coded);
    let mut decoded = vec![0x55; indices.len()];
    decoder.decode(Isa::detect(), &coded, dependent, &mut decoded).unwrap();
    assert!(decoded == indices);
});
