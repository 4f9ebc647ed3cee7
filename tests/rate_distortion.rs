//! Rate and distortion of the quantizers on normal values, by ideal order-0 code lengths: what an entropy coder that
//! loses nothing would reach, but for the lattice. `cargo test --test rate_distortion -- --nocapture` prints the table.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::collections::BTreeMap;

use alcm::entropy::indices::{Dependence, IndexEncoder};
use alcm::kernels::Isa;
use alcm::kernels::{quantize, trellis};
use alcm::quantize::rdo::{LATTICE_LAMBDA, TRELLIS_LAMBDA, Tuner, UNIFORM_LAMBDA};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const N: usize = 1 << 20;

/// By the transform of Box and Muller.
fn normals() -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(42);
    let mut uniform = move || ((random.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let pair = |_| {
        let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
        [(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]
    };
    (0..N / 2).flat_map(pair).collect()
}

/// Bits per element by the shares of the indices, those of each class on their own.
fn entropy(indices: &[i32], class: impl FnMut((usize, &i32)) -> usize) -> f64 {
    let mut counts = [BTreeMap::new(), BTreeMap::new()];
    for (class, index) in indices.iter().enumerate().map(class).zip(indices) {
        *counts[class].entry(index).or_insert(0u32) += 1;
    }
    let bits = |counts: &BTreeMap<&i32, u32>| {
        let total: f64 = counts.values().map(|&count| f64::from(count)).sum();
        counts.values().map(|&count| f64::from(count) * (total / f64::from(count)).log2()).sum::<f64>()
    };
    counts.iter().map(bits).sum::<f64>() / indices.len() as f64
}

fn relative_l2(values: &[f32], reconstruction: &[f32]) -> f64 {
    let (original, decoded) = (bytemuck::cast_slice(values), bytemuck::cast_slice(reconstruction));
    quantize::measure(Isa::detect(), alcm::Dtype::F32, original, decoded).unwrap().relative_l2()
}

/// Bits per element and percent of relative error of uniform quantization.
fn uniform(values: &[f32], step: f32) -> (f64, f64) {
    let isa = Isa::detect();
    let rounding = Tuner::default().thresholds(isa, values, step, UNIFORM_LAMBDA);
    let (mut indices, mut reconstruction) = (vec![0; N], vec![0.0; N]);
    quantize::quantize(isa, values, step, &rounding, &mut indices);
    quantize::dequantize(isa, &indices, step, &mut reconstruction);
    (entropy(&indices, |_| 0), 100.0 * relative_l2(values, &reconstruction))
}

/// The same of the lattice, by the section that indices really make.
fn lattice(values: &[f32], step: f32) -> (f64, f64) {
    let isa = Isa::detect();
    let rounding = Tuner::default().lattice(isa, values, step, LATTICE_LAMBDA);
    assert!(matches!(rounding, quantize::Rounding::EvenSums(_)));
    let (mut indices, mut reconstruction) = (vec![0; N], vec![0.0; N]);
    quantize::quantize(isa, values, step, &rounding, &mut indices);
    quantize::dequantize(isa, &indices, step, &mut reconstruction);
    let mut section = Vec::new();
    IndexEncoder::default().encode(isa, &indices, Dependence::EvenSums, &[], &mut section);
    (8.0 * section.len() as f64 / N as f64, 100.0 * relative_l2(values, &reconstruction))
}

/// The same of dependent quantization, given which of its two quantizers is in use.
fn dependent(values: &[f32], step: f32) -> (f64, f64) {
    let isa = Isa::detect();
    let costs = Tuner::default().costs(isa, values, step, TRELLIS_LAMBDA);
    let (mut indices, mut reconstruction) = (vec![0; N], vec![0.0; N]);
    let mut scratch = vec![0; trellis::scratch_len(N)];
    trellis::quantize(isa, values, step, &costs, &mut scratch, &mut indices).unwrap();
    trellis::dequantize(isa, &indices, step, &mut [0; trellis::N_CHAINS], &mut reconstruction);
    let mut states = [0u8; trellis::N_CHAINS];
    let quantizer = |(i, k): (usize, &i32)| {
        let state = &mut states[i % trellis::N_CHAINS];
        let in_use = usize::from(*state & 1);
        *state = trellis::NEXT_STATE[usize::from(*state)][(k & 1) as usize];
        in_use
    };
    (entropy(&indices, quantizer), 100.0 * relative_l2(values, &reconstruction))
}

/// The steps give about 2, 3, 4, 6 and 8 bits; the errors are taken to those rates by 6.02 dB per bit.
#[test]
fn all_quantizers_reach_their_bounds_on_normal_values() {
    let values = normals();
    println!("bits | Shannon % | uniform: step, bits, % | lattice: step, bits, % | dependent: step, bits, %");
    for (
        bits,
        [uniform_step, lattice_step, dependent_step],
        [uniform_bound, lattice_bound, dependent_bound],
    ) in [
        (2.0, [0.9945, 0.915, 0.5442], [29.88, 28.55, 27.00]),
        (3.0, [0.5112, 0.470, 0.2682], [14.93, 14.27, 13.36]),
        (4.0, [0.2576, 0.2367, 0.1324], [7.46, 7.14, 6.64]),
        (6.0, [0.06456, 0.0593, 0.03251], [1.866, 1.786, 1.652]),
        (8.0, [0.01614, 0.01484, 0.008083], [0.4667, 0.4465, 0.4130]),
    ] {
        let at_rate = |(rate, error): (f64, f64)| error * 2f64.powf(rate - bits);
        let (u, l, d) = (
            uniform(&values, uniform_step),
            lattice(&values, lattice_step),
            dependent(&values, dependent_step),
        );
        println!(
            "{bits} | {:.4} | {uniform_step} {:.4} {:.4} | {lattice_step} {:.4} {:.4} | {dependent_step} {:.4} {:.4}",
            100.0 * 2f64.powf(-bits),
            u.0,
            u.1,
            l.0,
            l.1,
            d.0,
            d.1
        );
        assert!((u.0 - bits).abs() < 0.01 && (l.0 - bits).abs() < 0.02 && (d.0 - bits).abs() < 0.03);
        assert!(at_rate(u) <= uniform_bound, "uniform, {bits} bits: {u:?}");
        assert!(at_rate(l) <= lattice_bound, "lattice, {bits} bits: {l:?}");
        assert!(at_rate(d) <= dependent_bound, "dependent, {bits} bits: {d:?}");
    }
}
