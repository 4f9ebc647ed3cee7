//! Any bytes as a tensor's frame: no panic, every instruction set gives the same, and a frame that decodes can be written
//! again. And any bytes as a tensor's elements: exactly they come back, lossily within the bound.
//!
//! The input is dtype and goal (a byte each), then the frame without magic and CRC, which are put around it.
#![no_main]

mod common;

use alcm::Dtype;
use alcm::container::{TENSOR_MAGIC, crc64};
use alcm::kernels::quantize::measure;
use alcm::pipeline::tensor::{Tensor, TensorGoal, TensorMode, compress_tensor, decompress_tensor};
use alcm::stage::Quantizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&[dtype, goal], bytes)) = input.split_first_chunk() else { return };
    let mut frame = [&TENSOR_MAGIC[..], bytes].concat();
    frame.extend(crc64(&frame).to_le_bytes());
    let results: Vec<_> = common::isas()
        .map(|isa| (isa, decompress_tensor(isa, &frame).map_err(|error| error.kind())))
        .collect();
    for pair in results.windows(2) {
        assert!(pair[0].1 == pair[1].1, "{:?} and {:?} differ", pair[0].0, pair[1].0);
    }
    if let Some((isa, Ok(tensor))) = results.into_iter().next() {
        let again = Tensor { dtype: tensor.dtype, shape: &tensor.shape, bytes: &tensor.bytes };
        let again = compress_tensor(isa, again, TensorMode::Exact).unwrap();
        assert_eq!(decompress_tensor(isa, &again.frame).unwrap().bytes, tensor.bytes);
    }
    lossy(common::dtype(dtype), goal, bytes);
});

/// Compresses `bytes` as elements by a goal, and holds what comes back against it.
fn lossy(dtype: Dtype, goal: u8, bytes: &[u8]) {
    let n_units = bytes.len() / dtype.unit_bytes();
    let bytes = &bytes[..n_units * dtype.unit_bytes()];
    let shape = [bytes.len() as u64 * 8 / dtype.element_bits() as u64];
    let tensor = Tensor { dtype, shape: &shape, bytes };
    let quantizer = [Quantizer::Uniform, Quantizer::Trellis, Quantizer::Lattice, Quantizer::Trellis][usize::from(goal & 3)];
    // 2^-8 to 2^7, and half of these goals relative.
    let bound = f64::from(i32::from(goal >> 4) - 8).exp2();
    let is_absolute = goal & 2 == 0;
    let goal = if is_absolute { TensorGoal::MaxAbsError(bound) } else { TensorGoal::RelL2(bound / 256.0) };
    for isa in common::isas() {
        let compressed = compress_tensor(isa, tensor, TensorMode::Lossy(goal, quantizer)).unwrap();
        let decoded = decompress_tensor(isa, &compressed.frame).unwrap();
        assert_eq!(decoded.is_exact, compressed.is_exact);
        assert!(!compressed.is_exact || decoded.bytes == bytes);
        if !compressed.is_exact {
            let errors = measure(isa, dtype, bytes, &decoded.bytes).unwrap();
            let relative = (errors.error_sq / errors.value_sq).sqrt();
            let error = if is_absolute { errors.max_abs } else { 256.0 * relative };
            assert!(error <= bound, "{error} over {bound}");
        }
    }
}
