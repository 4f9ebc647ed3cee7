use super::*;

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

fn logs_of(isa: Isa, values: &[f32]) -> Vec<f32> {
    let mut logs = vec![7.0; values.len()];
    log2(isa, values, &mut logs);
    logs
}

fn powers_of(isa: Isa, logs: &[f32]) -> Vec<f32> {
    let mut values = vec![7.0; logs.len()];
    exp2(isa, logs, &mut values);
    values
}

/// Distance of `got` from `exact` in units in the last place of `got`.
fn ulps(got: f32, exact: f64) -> f64 {
    let unit = f64::from(got.abs().next_up()) - f64::from(got.abs());
    (f64::from(got) - exact).abs() / unit
}

/// Ascending positive numbers of all sizes, subnormal ones included.
fn positives() -> Vec<f32> {
    (1..0x7f80_0000u32).step_by(9973).map(f32::from_bits).collect()
}

#[test]
fn both_functions_are_accurate_and_monotone() {
    let values = positives();
    let logs = logs_of(Isa::detect(), &values);
    assert!(logs.is_sorted());
    for (&value, &log) in values.iter().zip(&logs) {
        assert!(ulps(log, f64::from(value).log2()) < 0.51, "{value:e}");
    }
    let logs: Vec<f32> = (-151_000..128_500).map(|i| i as f32 * 0.001).collect();
    let values = powers_of(Isa::detect(), &logs);
    assert!(values.is_sorted());
    for (&log, &value) in logs.iter().zip(&values) {
        assert!(ulps(value, f64::from(log).exp2()) < 0.51 || value == f32::INFINITY && log >= 128.0, "{log}");
    }
    // Every number around 1 and 0, where neighbours are closest together.
    let near_one: Vec<f32> = (0x3f7f_f000u32..0x3f80_1000).map(f32::from_bits).collect();
    assert!(logs_of(Isa::detect(), &near_one).is_sorted());
    let near_zero: Vec<f32> = (0x3300_0000u32..0x3300_4000).map(f32::from_bits).collect();
    assert!(powers_of(Isa::detect(), &near_zero).is_sorted());
}

#[test]
fn powers_of_two_are_exact_both_ways() {
    for isa in isas() {
        let logs: Vec<f32> = (-149i16..128).map(f32::from).collect();
        let values = powers_of(isa, &logs);
        for (log, value) in logs.iter().zip(&values) {
            assert_eq!(f64::from(*value), 2f64.powi(*log as i32));
        }
        assert_eq!(logs_of(isa, &values), logs);
    }
}

#[test]
fn every_isa_gives_the_same_bits() {
    let bits: Vec<u32> = (0..50_001u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
    let any: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
    let small: Vec<f32> = bits.iter().map(|&bits| (bits as i32) as f32 * 2f32.powi(-24)).collect();
    let to_bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
    for src in [&any, &small] {
        for len in [0, 1, 7, 9, 17, src.len()] {
            let src = &src[..len];
            let (logs, powers) = (to_bits(logs_of(Isa::Scalar, src)), to_bits(powers_of(Isa::Scalar, src)));
            for isa in isas() {
                assert_eq!(to_bits(logs_of(isa, src)), logs, "{isa:?}");
                assert_eq!(to_bits(powers_of(isa, src)), powers, "{isa:?}");
            }
        }
    }
}

#[test]
fn what_has_no_logarithm_is_not_finite() {
    let infinite = [f32::NEG_INFINITY, f32::INFINITY];
    for isa in isas() {
        assert_eq!(logs_of(isa, &[0.0, -0.0, f32::INFINITY]), [infinite[0], infinite[0], infinite[1]]);
        assert!(logs_of(isa, &[f32::NAN, -1.0, -1e-45, f32::NEG_INFINITY]).iter().all(|log| log.is_nan()));
        assert_eq!(
            powers_of(isa, &[-150.1, 128.0, infinite[0], infinite[1]]),
            [0.0, infinite[1], 0.0, infinite[1]]
        );
        assert!(powers_of(isa, &[f32::NAN])[0].is_nan());
    }
}
