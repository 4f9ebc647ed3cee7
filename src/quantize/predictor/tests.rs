use super::target::counted_bits;
use super::train::{DataSet, Evaluation, Progress, Sample, TrainSettings, train};
use super::*;
use crate::dtype::Dtype;
use crate::kernels::Isa;
use crate::quantize::elementary::exp2;
use std::ops::ControlFlow;

/// Uniform numbers in 0..1.
fn uniform(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(2) + 1;
    let mut next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    (0..n).map(|_| next()).collect()
}

fn normal(seed: u64, n: usize) -> Vec<f32> {
    let (radii, angles) = (uniform(seed, n), uniform(seed + 1000, n));
    let pairs = radii.iter().zip(&angles);
    pairs.map(|(r, a)| ((-2.0 * r.ln()).sqrt() * (a * std::f64::consts::TAU).cos()) as f32).collect()
}

fn laplace(seed: u64, n: usize) -> Vec<f32> {
    let signed =
        uniform(seed, n).into_iter().map(|u| if u < 0.5 { (2.0 * u).ln() } else { -(2.0 - 2.0 * u).ln() });
    signed.map(|x| x as f32).collect()
}

fn unit(values: &[f32]) -> Unit {
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    Unit::measure(Isa::detect(), Dtype::F32, &bytes).unwrap()
}

#[test]
fn closed_forms_predict_their_own_distributions() {
    let (normal, laplace) = (normal(1, 200_000), laplace(2, 200_000));
    let shape = GeneralizedGaussian(ShapeFrom::MeanAbs);
    for std_log2 in [-2.0, -1.0, 0.0, 1.3, 2.0, 4.0, 6.0] {
        for (values, models) in [
            (&normal, [&Gaussian as &dyn EntropyModel, &shape]),
            (&laplace, [&shape, &GeneralizedGaussian(ShapeFrom::Kurtosis)]),
        ] {
            let unit = unit(values);
            let step = unit.moments.std() / exp2(std_log2);
            let counted = counted_bits(values, step).unwrap().bits;
            for model in models {
                let bits = model.bits(&unit, step);
                assert!((bits - counted).abs() < 0.03, "{std_log2}: {bits} {counted}");
            }
            let bits = Octaves.bits(&unit, step);
            assert!((bits - counted).abs() < 0.08, "octaves {std_log2}: {bits} {counted}");
        }
    }
    // A mean on the border of two cells costs a bit where the step is coarse.
    let shifted: Vec<f32> = normal.iter().map(|x| 0.01 * x + 0.5).collect();
    assert!((Gaussian.bits(&unit(&shifted), 1.0) - 1.0).abs() < 1e-3);
}

#[test]
fn predictions_do_not_change_with_scale_and_are_tame_at_the_ends() {
    let networks = Networks::shipped();
    let values: Vec<f32> = laplace(3, 5000).iter().map(|x| if *x > 2.0 { 0.0 } else { *x }).collect();
    let scaled: Vec<f32> = values.iter().map(|x| x * 2f32.powi(-20)).collect();
    let (whole, small) = (unit(&values), unit(&scaled));
    for (name, model) in models(3.0, networks) {
        for step_log2 in [-20.0, -3.3, 0.0, 1.7, 30.0] {
            let (a, b) = (model.bits(&whole, exp2(step_log2)), model.bits(&small, exp2(step_log2 - 20.0)));
            assert!((a - b).abs() < 1e-9, "{name} {step_log2}: {a} {b}");
            assert!((0.0..=40.0).contains(&a), "{name} {step_log2}: {a}");
        }
        for (unit, step) in [(Unit::default(), 1.0), (whole, 0.0), (whole, f64::NAN), (whole, f64::INFINITY)]
        {
            assert_eq!(model.bits(&unit, step), 0.0, "{name}");
        }
        let constant = unit(&[7.5; 3000]);
        assert!(name == "constant" || model.bits(&constant, 1e-3) < 1e-6, "{name}");
        if name != "constant" {
            // Halving a fine step costs a bit for each element that is not zero, of which the closed forms of whole
            // distributions do not know.
            let octave = model.bits(&whole, 1e-9) - model.bits(&whole, 2e-9);
            let knows_zeros = name == "octaves" || name.starts_with("mlp");
            let expected = if knows_zeros { 1.0 - whole.moments.sparsity() } else { 1.0 };
            assert!((octave - expected).abs() < 1e-6, "{name}: {octave}");
        }
    }
}

#[test]
fn shipped_networks_predict_what_they_were_not_trained_on() {
    let networks = Networks::shipped();
    assert_eq!(networks.moments.n_parameters(), 513);
    for values in [normal(5, 50_000), laplace(6, 50_000)] {
        let unit = unit(&values);
        for std_log2 in [0.0, 1.0, 2.5, 4.0] {
            let step = unit.moments.std() / exp2(std_log2);
            let counted = counted_bits(&values, step).unwrap().bits;
            let bits = networks.profile.bits(&unit, step);
            assert!((bits - counted).abs() < 0.06, "{std_log2}: {bits} {counted}");
        }
    }
}

#[test]
fn files_of_networks_round_trip_and_broken_ones_are_refused() {
    assert_eq!(Networks::shipped().to_bytes(), SHIPPED_BYTES);
    let kind = |bytes: &[u8]| Networks::from_bytes(bytes).unwrap_err().kind();
    use crate::ErrorKind::{ChecksumMismatch, Corrupt, UnsupportedVersion};
    let reseal = |bytes: &mut Vec<u8>| {
        let end = bytes.len() - 32;
        let hash = *blake3::hash(&bytes[..end]).as_bytes();
        bytes[end..].copy_from_slice(&hash);
    };
    for len in [0, 7, 8, 39, 100, SHIPPED_BYTES.len() - 1] {
        assert!(matches!(kind(&SHIPPED_BYTES[..len]), Corrupt | ChecksumMismatch));
    }
    let mut flipped = SHIPPED_BYTES.to_vec();
    flipped[200] ^= 1;
    assert_eq!(kind(&flipped), ChecksumMismatch);
    for (at, byte, expected) in
        [(8, 2, UnsupportedVersion), (10, 3, Corrupt), (12, 7, Corrupt), (19, 0x7f, Corrupt)]
    {
        let mut changed = SHIPPED_BYTES.to_vec();
        changed[at] = byte;
        if at == 19 {
            changed[18] = 0x80; // the first weight is infinite
        }
        reseal(&mut changed);
        assert_eq!(kind(&changed), expected, "{at}");
    }
    let mut longer = SHIPPED_BYTES[..SHIPPED_BYTES.len() - 32].to_vec();
    longer.extend([0; 36]);
    reseal(&mut longer);
    assert_eq!(kind(&longer), Corrupt);
}

/// Normal and Laplace units at several steps.
fn data_set(seed: u64) -> DataSet {
    let mut data = DataSet::default();
    for part in 0..6 {
        let values = if part % 2 == 0 { normal(seed + part, 4096) } else { laplace(seed + part, 4096) };
        data.units.push(unit(&values));
        for std_log2 in [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0] {
            let step = data.units.last().unwrap().moments.std() / exp2(std_log2);
            let bits = counted_bits(&values, step).unwrap().bits;
            data.samples.push(Sample { unit_idx: data.units.len() - 1, step, bits });
        }
    }
    data
}

#[test]
fn training_learns_and_repeats_itself() {
    let (training, held_out) = (data_set(10), data_set(50));
    let settings = TrainSettings { epochs: 200, learning_rate: 0.01, ..TrainSettings::default() };
    let run = |settings: &TrainSettings| {
        let mut losses = Vec::new();
        let networks = train(&training, &held_out, settings, &mut |progress| {
            if let Progress::Epoch { network: "mlp-moments", loss, .. } = progress {
                losses.push(loss);
            }
            ControlFlow::Continue(())
        });
        (networks.unwrap(), losses)
    };
    let (networks, losses) = run(&settings);
    assert_eq!(losses.len(), 200);
    assert!(losses[199] < 0.02 * losses[0], "{losses:?}");
    let constant = Evaluation::of(&Constant(train::mean_bits(&held_out)), &held_out);
    assert!(constant.r2.abs() < 1e-12 && constant.bias_bits.abs() < 1e-12);
    let learned = Evaluation::of(&networks.moments, &held_out);
    assert!(learned.mse < 0.1 * constant.mse && learned.r2 > 0.9, "{learned:?}");
    let short = TrainSettings { epochs: 3, ..TrainSettings::default() };
    let bytes = run(&short).0.to_bytes();
    assert_eq!(run(&short).0.to_bytes(), bytes);
    // Every setting has an effect.
    for other in [
        TrainSettings { hidden_size: 63, ..short },
        TrainSettings { learning_rate: 0.002, ..short },
        TrainSettings { epochs: 4, ..short },
        TrainSettings { decay: 0.9, ..short },
        TrainSettings { seed: 43, ..short },
    ] {
        assert_ne!(run(&other).0.to_bytes(), bytes, "{other:?}");
    }
}

#[test]
fn training_stops_when_told_and_refuses_what_it_cannot_use() {
    let data = data_set(1);
    let mut go_on = |_: Progress| ControlFlow::Continue(());
    let settings = TrainSettings::default();
    let stopped = train(&data, &data, &settings, &mut |progress| match progress {
        Progress::Samples { seen: 32, .. } => ControlFlow::Break(()),
        progress => panic!("went on: {progress:?}"),
    });
    assert_eq!(stopped.unwrap_err().kind(), crate::ErrorKind::LimitExceeded);
    let nothing = train(&DataSet::default(), &data, &settings, &mut go_on);
    assert_eq!(nothing.unwrap_err().kind(), crate::ErrorKind::InvalidInput);
    for wrong in [
        TrainSettings { hidden_size: 0, ..settings },
        TrainSettings { learning_rate: f64::NAN, ..settings },
        TrainSettings { epochs: 0, ..settings },
        TrainSettings { decay: 1.5, ..settings },
    ] {
        let refused = train(&data, &data, &wrong, &mut go_on);
        assert_eq!(refused.unwrap_err().kind(), crate::ErrorKind::InvalidConfig);
    }
}
