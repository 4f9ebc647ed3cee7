//! Any bytes as a section of quantization indices: no panic, and the same on every instruction set; and any indices coded
//! come back.
//!
//! The input is a byte, bit 0 whether quantization is dependent, bit 1 whether the section is long, bit 2 whether sums are
//! even if it is not; the number of indices to
//! decode (two bytes), four times as many of a long one; section.
#![no_main]

use alcm::entropy::indices::{Dependence, ESCAPE, IndexDecoder, IndexEncoder};
use alcm::kernels::Isa;
use alcm::kernels::quantize::{ROW_LEN, SHEET_LEN};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    /// Indices from which on sections have more lanes.
    const LONG: usize = 1 << 17;
    let Some((&[flags, n0, n1], section)) = input.split_first_chunk() else { return };
    let is_long = flags & 2 == 2;
    let dependence = match flags & 5 {
        0 => Dependence::None,
        4 => Dependence::EvenSums,
        _ => Dependence::Chains,
    };
    let n_indices = usize::from(u16::from_le_bytes([n0, n1])) * if is_long { 4 } else { 1 };
    let mut decoder = IndexDecoder::default();
    let (mut clean, mut dirty) = (vec![0; n_indices], vec![-1; n_indices]);
    let results = (
        decoder.decode(Isa::detect(), section, dependence, &mut clean),
        decoder.decode(Isa::Scalar, section, dependence, &mut dirty),
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
    if dependence == Dependence::EvenSums {
        for sheet in indices.as_chunks_mut::<SHEET_LEN>().0 {
            for column in 0..ROW_LEN {
                let is_odd = sheet.iter().skip(column).step_by(ROW_LEN).fold(0, |sum, index| sum ^ index) & 1 == 1;
                let mut places = (column..SHEET_LEN).step_by(ROW_LEN);
                if is_odd && let Some(place) = places.find(|place| sheet[*place] != ESCAPE) {
                    sheet[place] ^= 1;
                }
            }
        }
    }
    let mut coded = Vec::new();
    IndexEncoder::default().encode(Isa::detect(), &indices, dependence, &[64], &mut coded);
    let mut decoded = vec![0x55; indices.len()];
    decoder.decode(Isa::detect(), &coded, dependence, &mut decoded).unwrap();
    assert!(decoded == indices);
});
