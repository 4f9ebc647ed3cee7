use super::*;

/// Numbers in −1..1 by a multiplicative generator.
fn noise(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(2) + 1;
    let mut next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Two passes over f64, the textbook's way.
fn reference(values: &[f32]) -> Moments {
    let finite: Vec<f64> = values.iter().filter(|x| x.is_finite()).map(|x| f64::from(*x)).collect();
    let n = finite.len() as f64;
    let mean = finite.iter().sum::<f64>() / n;
    let mean = mean + finite.iter().map(|x| x - mean).sum::<f64>() / n;
    let power = |k| finite.iter().map(|x| (x - mean).powi(k)).sum::<f64>();
    Moments {
        n: finite.len() as u64,
        mean,
        m2: power(2),
        m3: power(3),
        m4: power(4),
        abs: finite.iter().map(|x| x.abs()).sum(),
        zeros: finite.iter().filter(|x| **x == 0.0).count() as u64,
        n_not_finite: (values.len() - finite.len()) as u64,
        min: finite.iter().copied().fold(f64::INFINITY, f64::min),
        max: finite.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

fn assert_close(values: &[f32], tolerance: f64) {
    let (got, want) = (measure_f32(values), reference(values));
    let counts = |m: &Moments| (m.n, m.zeros, m.n_not_finite);
    assert_eq!(counts(&got), counts(&want));
    assert_eq!((got.min, got.max), (want.min, want.max));
    let close = |a: f64, b: f64, scale: f64| (a - b).abs() <= tolerance * scale.max(f64::MIN_POSITIVE);
    assert!(close(got.mean, want.mean, want.m2.sqrt()), "{got:?} {want:?}");
    assert!(close(got.abs, want.abs, want.abs), "{got:?} {want:?}");
    assert!(close(got.m2, want.m2, want.m2), "{got:?} {want:?}");
    assert!(close(got.m3, want.m3, want.m4.powf(0.75) + want.m2.powf(1.5)), "{got:?} {want:?}");
    assert!(close(got.m4, want.m4, want.m4), "{got:?} {want:?}");
}

fn measure_f32(values: &[f32]) -> Moments {
    Moments::measure(Isa::Scalar, Dtype::F32, &f32_bytes(values)).unwrap()
}

#[test]
fn agrees_with_two_passes_for_any_mean_scale_and_tail() {
    let uniform = noise(1, 20_011);
    for (scale, mean) in [(1.0, 0.0), (1e-3, 1e4), (1e-20, 3e-20), (1e36, 0.0), (1.0, 1e7), (1e-42, 0.0)] {
        let values: Vec<f32> = uniform.iter().map(|x| (x * scale + mean) as f32).collect();
        for len in [1, 2, 15, 16, 17, 4096, 4097, 20_011] {
            assert_close(&values[..len], 1e-9);
        }
    }
    let mut heavy: Vec<f32> = uniform.iter().map(|x| x.powi(31) as f32).collect();
    heavy[0] = -1e5;
    heavy[4096..9000].fill(0.0);
    heavy[70] = f32::NAN;
    heavy[71] = f32::NEG_INFINITY;
    assert_close(&heavy, 1e-9);
}

#[test]
fn the_kinds_of_moment_are_those_of_known_distributions() {
    let uniform: Vec<f32> = noise(2, 200_000).iter().map(|x| *x as f32).collect();
    let moments = measure_f32(&uniform);
    assert!((moments.variance() - 1.0 / 3.0).abs() < 2e-3 && moments.skewness().abs() < 1e-2);
    assert!((moments.kurtosis() - 1.8).abs() < 1e-2 && (moments.mean_abs() - 0.5).abs() < 1e-2);
    // Two values, one in four: variance p(1 − p), skewness (1 − 2p)/σ, kurtosis 1/(p(1 − p)) − 3.
    let quarters: Vec<f32> = (0..10_000).map(|i| if i % 4 == 0 { 1.0 } else { -0.0 }).collect();
    let moments = measure_f32(&quarters);
    let variance = 3.0 / 16.0f64;
    assert!((moments.variance() - variance).abs() < 1e-12 && moments.sparsity() == 0.75);
    assert!((moments.skewness() - 0.5 / variance.sqrt()).abs() < 1e-10);
    assert!((moments.kurtosis() - (1.0 / variance - 3.0)).abs() < 1e-10);
    assert_eq!((moments.min.to_bits(), moments.abs_max()), (0, 1.0));
}

#[test]
fn degenerate_runs() {
    assert_eq!(measure_f32(&[]), Moments::default());
    let constant = measure_f32(&[0.1; 5000]);
    assert_eq!((constant.mean, constant.m2, constant.m4), (f64::from(0.1f32), 0.0, 0.0));
    assert_eq!((constant.skewness(), constant.kurtosis()), (0.0, 1.0));
    let mut nothing = measure_f32(&[f32::NAN; 5000]);
    assert_eq!(nothing, Moments { n_not_finite: 5000, ..Moments::default() });
    nothing.merge(&constant);
    assert_eq!(nothing, Moments { n_not_finite: 5000, ..constant });
    assert_eq!(Moments::measure(Isa::Scalar, Dtype::F32, &[0; 7]), None);
    assert_eq!(Moments::measure(Isa::Scalar, Dtype::I32, &[0; 8]), None);
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let mut bytes: Vec<u8> =
        noise(3, 9001).iter().flat_map(|x| x.to_bits().swap_bytes().to_le_bytes()).collect();
    bytes.extend(f32_bytes(&noise(4, 9001).iter().map(|x| *x as f32).collect::<Vec<_>>()));
    bytes.extend([0; 4000]);
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F64] {
        let unit = dtype.unit_bytes();
        for n in [0, 1, 8, 15, 16, 17, 33, 4095, 4096, 4112, bytes.len() / unit] {
            // One byte in, so that nothing is aligned.
            let run = &bytes[1..1 + (n * unit).min(bytes.len() / unit * unit - unit)];
            let scalar = Moments::measure(Isa::Scalar, dtype, run).unwrap();
            for isa in Isa::ALL {
                let got = Moments::measure(isa, dtype, run).unwrap();
                let bits = |m: &Moments| [m.mean, m.m2, m.m3, m.m4, m.abs, m.min, m.max].map(f64::to_bits);
                assert_eq!(bits(&got), bits(&scalar), "{isa:?} {dtype:?} {n}");
                assert_eq!(got, scalar);
            }
        }
    }
}

#[test]
fn runs_merge_in_order_to_the_whole() {
    let values: Vec<f32> = noise(5, 50_000).iter().map(|x| (x * x * x + 7.0) as f32).collect();
    let whole = measure_f32(&values);
    assert_eq!(Moments::of_values(Isa::detect(), &values), whole);
    // At whole blocks the bits are the same; anywhere else they are close.
    let mut merged = Moments::default();
    values.chunks(BLOCK_LEN).for_each(|run| merged.merge(&measure_f32(run)));
    assert_eq!(merged, whole);
    let mut merged = Moments::default();
    values.chunks(777).for_each(|run| merged.merge(&measure_f32(run)));
    for (a, b) in [(merged.mean, whole.mean), (merged.m2, whole.m2), (merged.m4, whole.m4)] {
        assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
    }
    assert!((merged.m3 - whole.m3).abs() < 1e-9 * whole.m4);
}

#[test]
fn squares_are_those_of_the_finite_elements_on_every_isa() {
    let mut values: Vec<f32> = noise(9, 9001).iter().map(|x| (x * 64.0).trunc() as f32).collect();
    for (place, odd) in [(3, f32::NAN), (4096, f32::INFINITY), (8999, f32::NEG_INFINITY)] {
        values[place] = odd;
    }
    for n in [0, 1, 15, 16, 17, 4095, 4096, 4097, values.len()] {
        let finite = values[..n].iter().filter(|x| x.is_finite());
        // Whole numbers: every sum is exact.
        let expected =
            Squares { n: finite.clone().count() as u64, sum: finite.map(|x| f64::from(x * x)).sum() };
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            let bytes = f32_bytes(&values[..n]);
            assert_eq!(Squares::measure(isa, Dtype::F32, &bytes), Some(expected), "{isa:?} {n}");
        }
    }
    let uneven = f32_bytes(&noise(5, 5000).iter().map(|x| *x as f32).collect::<Vec<_>>());
    let scalar = Squares::measure(Isa::Scalar, Dtype::F32, &uneven);
    // Elements that do not lie as floats do are the same.
    let mut moved = vec![0u8; uneven.len() + 4];
    let start = moved.as_ptr().align_offset(4) + 1;
    moved[start..start + uneven.len()].copy_from_slice(&uneven);
    assert_eq!(Squares::measure(Isa::detect(), Dtype::F32, &moved[start..start + uneven.len()]), scalar);
    assert_eq!(Squares::measure(Isa::detect(), Dtype::F32, &uneven), scalar);
    assert_eq!(Squares::default().mean(), 0.0);
    assert!(Squares::measure(Isa::Scalar, Dtype::F32, &[0; 7]).is_none());
}
