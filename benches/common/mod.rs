//! Data of the benches, by seed: weight-like, and random and constant as bounds.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "support of several benches"
)]

use std::time::Duration;

use alcm::Dtype;
use alcm::kernels::Isa;
use criterion::Criterion;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Dtypes that are coded as fields, and the name of each in a bench's id.
pub(crate) const DTYPES: [(&str, Dtype); 4] =
    [("bf16", Dtype::Bf16), ("f16", Dtype::F16), ("f32", Dtype::F32), ("f8_e4m3", Dtype::F8E4m3)];

/// Elements of a row; each has a scale of its own, as rows of trained matrices do.
pub(crate) const ROW_LEN: usize = 1024;

/// Instruction sets of this processor.
pub(crate) fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

/// Short runs: kernels vary little from call to call, and there are many of them.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}

pub(crate) fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// `n` weights, nearly normal, with a standard deviation from 0.005 to 0.08 that changes from row to row.
fn normals(seed: u64, n: usize) -> impl Iterator<Item = f32> {
    let noise = random_bytes(seed, 8 * n);
    let mut scales = ChaCha8Rng::seed_from_u64(seed ^ 1);
    let mut scale = 0.0;
    (0..n).map(move |idx| {
        if idx % ROW_LEN == 0 {
            scale = 0.005 * 2f32.powf((scales.next_u32() >> 8) as f32 / (1 << 22) as f32);
        }
        // The sum of four uniform numbers in [0, 1) has mean 2 and variance 1/3.
        let (parts, _) = noise[8 * idx..8 * idx + 8].as_chunks::<2>();
        let sum: f32 = parts.iter().map(|part| f32::from(u16::from_le_bytes(*part)) / 65536.0).sum();
        (sum - 2.0) * 3f32.sqrt() * scale
    })
}

/// Bits of `value` in a format with fewer bits, cut off, not rounded; what is too small is zero.
fn narrow(value: f32, exponent_bits: u32, mantissa_bits: u32) -> u32 {
    let bits = value.to_bits();
    let bias = (1 << (exponent_bits - 1)) - 1;
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + bias;
    let sign = bits >> 31 << (exponent_bits + mantissa_bits);
    if exponent <= 0 {
        return sign;
    }
    let mantissa = (bits & 0x007f_ffff) >> (23 - mantissa_bits);
    sign | (exponent as u32) << mantissa_bits | mantissa
}

/// The bytes of `n` weight-like elements. Eight-bit floats are scaled as quantised checkpoints are.
pub(crate) fn weights(dtype: Dtype, seed: u64, n: usize) -> Vec<u8> {
    let values = normals(seed, n);
    match dtype {
        Dtype::F32 => values.flat_map(f32::to_le_bytes).collect(),
        Dtype::Bf16 => values.flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()).collect(),
        Dtype::F16 => values.flat_map(|value| (narrow(value, 5, 10) as u16).to_le_bytes()).collect(),
        Dtype::F8E4m3 => values.map(|value| narrow(value * 64.0, 4, 3) as u8).collect(),
        _ => unreachable!("no weights of this dtype"),
    }
}

/// Weights, random bytes and one element repeated, with their names.
pub(crate) fn all_data(dtype: Dtype, n: usize) -> [(&'static str, Vec<u8>); 3] {
    let one = weights(dtype, 3, 1);
    [
        ("weights", weights(dtype, 1, n)),
        ("random", random_bytes(2, n * dtype.unit_bytes())),
        ("constant", one.repeat(n)),
    ]
}

/// A safetensors file of one tensor of rows of [`ROW_LEN`].
pub(crate) fn checkpoint(dtype: Dtype, elements: &[u8]) -> Vec<u8> {
    matrix(dtype, [elements.len() / dtype.unit_bytes() / ROW_LEN, ROW_LEN], elements)
}

/// A safetensors file of one tensor of this shape.
pub(crate) fn matrix(dtype: Dtype, shape: [usize; 2], elements: &[u8]) -> Vec<u8> {
    let header = serde_json::json!({
        "weight": {"dtype": dtype.name(), "shape": shape, "data_offsets": [0, elements.len()]},
    })
    .to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(elements);
    file
}
