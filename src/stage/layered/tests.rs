use super::*;
use crate::stage::{BlockDecoder, BlockEncoder, BlockSource, Coding, Level};

const FLOATS: [Dtype; 4] = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F64];

struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ self.0 >> 29
    }

    fn bell(&mut self) -> f64 {
        let mut uniform = || (self.word() >> 11) as f64 / (1u64 << 53) as f64;
        (-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()
    }
}

fn element(dtype: Dtype, value: f64) -> Vec<u8> {
    match dtype {
        Dtype::F64 => value.to_le_bytes().to_vec(),
        Dtype::F32 => (value as f32).to_le_bytes().to_vec(),
        Dtype::Bf16 => (value as f32).to_le_bytes()[2..].to_vec(),
        _ => {
            let mut bytes = vec![0; 2];
            crate::kernels::convert::from_f32(Isa::Scalar, dtype, &[value as f32], &mut bytes).unwrap();
            bytes
        }
    }
}

/// Bell-shaped numbers, some of them special.
fn block(dtype: Dtype, n_elements: usize, special: bool, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let specials = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1e-300, 1e300, 1e-42, -1e-6];
    let value = |_| {
        let place = random.word() >> 40;
        let bell = random.bell();
        if special && place.is_multiple_of(50) { specials[(place / 50 % 9) as usize] } else { bell * 0.04 }
    };
    (0..n_elements).map(value).flat_map(|value| element(dtype, value)).collect()
}

fn step(dtype: Dtype, value: f64, finer_len: usize) -> LayerStep {
    let log2 = (0..=LayerStep::largest(dtype).unwrap()).rev();
    let log2 = log2.into_iter().find(|log2| LayerStep { log2: *log2, finer_len }.value(dtype) <= value);
    LayerStep { log2: log2.unwrap(), finer_len }
}

/// Coding, payload and elements of a layer.
type Layer = (Coding, Vec<u8>, Vec<u8>);

/// Codes the layers of `steps` and the exact one on every instruction set; gives their payloads and elements.
fn layers(dtype: Dtype, original: &[u8], steps: &[LayerStep]) -> Vec<Layer> {
    let mut first: Option<Vec<Layer>> = None;
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        let mut encoder = BlockEncoder::new(Level::Default, isa);
        let mut decoder = BlockDecoder::new(isa);
        let mut found: Vec<Layer> = Vec::new();
        for layer_idx in 0..=steps.len() {
            let (mut bytes, mut payload) = (original.to_vec(), Vec::new());
            let after = steps.get(layer_idx).copied();
            let (coding, loss) = match (layer_idx.checked_sub(1), after) {
                (None, Some(step)) => encoder.encode_coarse(step, dtype, &mut bytes, &mut payload),
                (None, None) => break,
                (Some(before), after) => {
                    encoder.encode_refined(steps[before], after, dtype, &mut bytes, &mut payload)
                }
            };
            assert!(after.is_some() || bytes == original);
            assert_eq!(loss.errors.n_changed == 0, bytes == original || loss.errors.max_abs == 0.0);
            let mut decoded = match found.last() {
                Some((_, _, before)) if coding == Coding::Refined => before.clone(),
                _ => vec![0xcc; original.len()],
            };
            if coding == Coding::Refined {
                decoder.refine(&payload, &mut decoded).unwrap();
            } else {
                decoder.decode(coding, dtype, &payload, &mut decoded).unwrap();
            }
            assert!(decoded == bytes, "{dtype:?} {isa:?} layer {layer_idx}");
            found.push((coding, payload, bytes));
        }
        match &first {
            None => first = Some(found),
            Some(first) => assert!(*first == found, "{isa:?}"),
        }
    }
    first.unwrap()
}

#[test]
fn layers_come_back_and_the_last_is_the_original() {
    for dtype in FLOATS {
        for n_elements in [1, 2, 33, 700, 5000, 20_011] {
            for special in [false, true] {
                let original = block(dtype, n_elements, special, 3);
                for finer_len in [0, n_elements / 3, n_elements] {
                    let steps =
                        [(0.2, n_elements), (0.02, finer_len), (0.003, n_elements - finer_len), (1e-4, 0)];
                    let steps = steps.map(|(value, finer_len)| step(dtype, value, finer_len));
                    let _ = layers(dtype, &original, &steps);
                    let _ = layers(dtype, &original, &steps[1..2]);
                    let _ = layers(dtype, &original, &[steps[1], steps[1]]);
                }
            }
        }
    }
}

#[test]
fn all_layers_together_are_hardly_larger_than_the_exact_block() {
    for dtype in FLOATS {
        for n_elements in [10_000, 500_000] {
            let original = block(dtype, n_elements, false, 5);
            let mut exact = Vec::new();
            let source = BlockSource { dtype, bytes: &original, row_len: 0, row_start: 0 };
            BlockEncoder::new(Level::Default, Isa::detect()).encode(source, &mut exact);
            for steps in [&[0.01, 0.0007][..], &[0.01], &[0.0007], &[0.03, 0.01, 0.004, 0.001]] {
                let steps: Vec<_> = steps.iter().map(|value| step(dtype, *value, n_elements)).collect();
                let found = layers(dtype, &original, &steps);
                assert!(found[1..].iter().all(|(coding, ..)| *coding == Coding::Refined));
                let total: usize = found.iter().map(|(_, payload, _)| payload.len()).sum();
                let over = total as f64 / exact.len() as f64 - 1.0;
                let most = if n_elements < 100_000 { 0.025 } else { 0.01 };
                assert!(over < most, "{dtype:?} {n_elements} {steps:?}: {over:.4}");
            }
        }
    }
}

#[test]
fn low_zero_bits_cost_nothing() {
    let narrow = block(Dtype::Bf16, 100_000, false, 6);
    let wide: Vec<u8> = narrow.chunks(2).flat_map(|half| [0, 0, half[0], half[1]]).collect();
    let total = |dtype, bytes: &[u8]| -> usize {
        let steps = [0.01, 0.0007].map(|value| step(dtype, value, 100_000));
        layers(dtype, bytes, &steps).iter().map(|(_, payload, _)| payload.len()).sum()
    };
    let (narrow, wide) = (total(Dtype::Bf16, &narrow), total(Dtype::F32, &wide));
    assert!(wide < narrow + 400, "{wide} {narrow}");
}

#[test]
fn broken_payloads_are_refused_or_decode_to_something() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let original = block(dtype, 300, true, 8);
        let steps = [step(dtype, 0.02, 200), step(dtype, 0.002, 100)];
        let found = layers(dtype, &original, &steps);
        let mut decoder = BlockDecoder::new(Isa::detect());
        let mut before = vec![0x5a; original.len()];
        for (coding, payload, bytes) in found {
            let mut decode = |payload: &[u8]| {
                let mut dst = before.clone();
                match coding {
                    Coding::Refined => decoder.refine(payload, &mut dst).map(|()| dst),
                    _ => decoder.decode(coding, dtype, payload, &mut dst).map(|()| dst),
                }
            };
            assert!(decode(&payload).unwrap() == bytes);
            for end in 0..payload.len() {
                assert!(decode(&payload[..end]).is_err() || (end == 0 && coding == Coding::Refined), "{end}");
            }
            for place in 0..payload.len() {
                for value in [0, 1, 0xff, payload[place] ^ 1, payload[place] ^ 0x80, payload[place] ^ 8] {
                    let mut broken = payload.clone();
                    broken[place] = value;
                    // The checksum of the decoded bytes tells; here nothing may panic.
                    let _ = decode(&broken);
                }
            }
            before = bytes;
        }
        // A layer over bytes that are not the ones before it.
        let (mut payload, mut bytes) = (Vec::new(), original.clone());
        let mut encoder = BlockEncoder::new(Level::Default, Isa::detect());
        encoder.encode_refined(steps[0], None, dtype, &mut bytes, &mut payload);
        let mut random = Random(1);
        for _ in 0..200 {
            let mut any: Vec<u8> = (0..original.len()).map(|_| random.word() as u8).collect();
            let _ = decoder.refine(&payload, &mut any);
        }
    }
}
