use super::*;

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

/// Sums of four uniform numbers: nearly normal, with a standard deviation of 1.
fn normals(n: usize) -> Vec<f32> {
    let mut state = 5u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..n).map(|_| (uniform() + uniform() + uniform() + uniform() - 2.0) * 3f32.sqrt()).collect()
}

fn costs() -> Costs {
    Costs([0, 1].map(|q| std::array::from_fn(|k| 0.3 * (1.0 + q as f32 + k as f32).ln())))
}

fn quantized(isa: Isa, values: &[f32], step: f32, costs: &Costs) -> Vec<i32> {
    let mut scratch = vec![0xaaaa; scratch_len(values.len())];
    let mut indices = vec![77; values.len()];
    quantize(isa, values, step, costs, &mut scratch, &mut indices).unwrap();
    indices
}

fn dequantized(isa: Isa, indices: &[i32], step: f32) -> Vec<f32> {
    let mut values = vec![7.0; indices.len()];
    let mut states = [0; N_CHAINS];
    // In runs: the states go on.
    for (indices, values) in indices.chunks(7 * N_CHAINS).zip(values.chunks_mut(7 * N_CHAINS)) {
        dequantize(isa, indices, step, &mut states, values);
    }
    values
}

#[test]
fn labels_are_magnitudes_and_quantizers() {
    let indices: Vec<i32> = (0..1000i32)
        .map(|i| [i % 7 - 3, i.wrapping_mul(0x0123_4567), ESCAPE, 125 - i % 4][i as usize / 5 % 4])
        .collect();
    let mut states = [0usize; N_CHAINS];
    let label = |(i, &k): (usize, &i32)| {
        let state = &mut states[i % N_CHAINS];
        let quantizer = *state as u8 & 1;
        *state = usize::from(NEXT_STATE[*state][(k & 1) as usize]);
        let magnitude = if k == ESCAPE { ESCAPE_LABEL } else { k.unsigned_abs().min(MAX_LABEL.into()) as u8 };
        magnitude | quantizer << 7
    };
    let expected: Vec<u8> = indices.iter().enumerate().map(label).collect();
    for isa in isas() {
        for n in [0, 1, 31, 32, 33, indices.len()] {
            let mut labels = vec![77; n];
            super::label(isa, &indices[..n], &mut labels);
            assert!(labels == expected[..n], "{isa:?} {n}");
        }
    }
}

/// The reconstruction by the words of the contract, and the cost of a chain of indices.
fn follow(values: &[f32], indices: &[i32], step: f32, costs: &Costs) -> (Vec<f32>, f64) {
    let mut states = [0usize; N_CHAINS];
    let mut total = 0.0;
    let reconstruct = |(i, &k): (usize, &i32)| {
        let state = &mut states[i % N_CHAINS];
        let q = *state & 1;
        *state = usize::from(NEXT_STATE[*state][(k & 1) as usize]);
        if k == ESCAPE {
            return 0.0;
        }
        let multiple = 2 * k - q as i32 * k.signum();
        let error = f64::from(values[i] / step) - f64::from(multiple);
        total += error * error + f64::from(costs.0[q][(k.unsigned_abs() as usize).min(N_COSTS - 1)]);
        multiple as f32 * step
    };
    let reconstruction = indices.iter().enumerate().map(reconstruct).collect();
    (reconstruction, total)
}

#[test]
fn every_isa_finds_the_same_path_and_the_same_values() {
    let mut values = normals(32 * 90);
    for (idx, odd) in
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MAX, -1e-40].into_iter().enumerate()
    {
        values[31 * idx + 700] = odd;
    }
    values[64..256].fill(f32::NAN);
    for step in [0.01, 0.3, 1e-30, 1e30, f32::from_bits(1)] {
        for costs in [Costs::FREE, costs()] {
            for n in [0, 1, 31, 32, 33, 63, 65, 1055, values.len()] {
                let indices = quantized(Isa::Scalar, &values[..n], step, &costs);
                let (mut expected, _) = follow(&values[..n], &indices, step, &costs);
                for isa in isas() {
                    assert!(quantized(isa, &values[..n], step, &costs) == indices, "{isa:?} {step} {n}");
                    let mut got = dequantized(isa, &indices, step);
                    for i in (0..n).filter(|&i| indices[i] == ESCAPE) {
                        (expected[i], got[i]) = (0.0, 0.0);
                    }
                    assert!(got == expected, "{isa:?} {step} {n}");
                }
            }
        }
    }
}

/// All index sequences of a short chain are tried; the one found costs no more, but for rounding.
#[test]
fn the_path_is_the_cheapest_of_all() {
    let chain = [0.9f32, -2.6, 0.2, 3.4, -0.7];
    let mut values = vec![0.0; N_CHAINS * chain.len()];
    for (row, value) in chain.into_iter().enumerate() {
        values[N_CHAINS * row + 9] = value;
    }
    for (step, costs) in [(0.5, costs()), (0.5, Costs::FREE), (1.3, costs())] {
        let indices = quantized(Isa::detect(), &values, step, &costs);
        let (_, found) = follow(&values, &indices, step, &costs);
        let mut least = f64::INFINITY;
        for tried in 0..9i32.pow(chain.len() as u32) {
            let mut candidate = indices.clone();
            for row in 0..chain.len() {
                candidate[N_CHAINS * row + 9] = tried / 9i32.pow(row as u32) % 9 - 4;
            }
            least = least.min(follow(&values, &candidate, step, &costs).1);
        }
        assert!(found <= least + 1e-4, "{found} {least}");
    }
}

/// At a high rate 8 states gain 1.09 dB of error over a uniform quantizer of the same rate, whose step is twice ours.
#[test]
fn eight_states_gain_a_decibel() {
    let values = normals(1 << 16);
    let step = 0.002;
    let indices = quantized(Isa::detect(), &values, step, &Costs::FREE);
    let back = dequantized(Isa::detect(), &indices, step);
    let error: f64 = values.iter().zip(&back).map(|(x, y)| f64::from(x - y).powi(2)).sum();
    let uniform = values.len() as f64 * f64::from(2.0 * step).powi(2) / 12.0;
    let gain_db = 10.0 * (uniform / error).log10();
    assert!((1.05..1.15).contains(&gain_db), "{gain_db}");
}

#[test]
fn escapes_are_marked_and_cost_their_neighbours_nothing() {
    let mut values = normals(640);
    let whole = quantized(Isa::detect(), &values, 0.1, &costs());
    values.extend([f32::NAN; 320]);
    values.extend([1e9, -1e9]);
    let indices = quantized(Isa::detect(), &values, 0.1, &costs());
    assert_eq!(indices[..640], whole);
    assert!(indices[640..].iter().all(|&k| k == ESCAPE));
}

#[test]
fn hostile_indices_are_dequantized_alike() {
    let indices: Vec<i32> =
        (0..999i32).map(|i| i.wrapping_mul(0x0765_4321)).chain([ESCAPE, i32::MAX, i32::MIN + 1]).collect();
    let expected: Vec<u32> = dequantized(Isa::Scalar, &indices, 0.3).iter().map(|x| x.to_bits()).collect();
    for isa in isas() {
        let got: Vec<u32> = dequantized(isa, &indices, 0.3).iter().map(|x| x.to_bits()).collect();
        assert_eq!(got, expected, "{isa:?}");
    }
    let mut short = [0.0; 40];
    dequantize(Isa::detect(), &indices, 0.3, &mut [0; N_CHAINS], &mut short);
    assert_eq!(short.map(f32::to_bits), expected[..40]);
}

#[test]
fn short_scratch_is_refused() {
    let mut indices = [5; 33];
    assert!(quantize(Isa::detect(), &[1.0; 33], 1.0, &Costs::FREE, &mut [0; 63], &mut indices).is_none());
    assert!(quantize(Isa::detect(), &[1.0; 34], 1.0, &Costs::FREE, &mut [0; 64], &mut indices).is_none());
    assert_eq!(indices, [5; 33]);
}
