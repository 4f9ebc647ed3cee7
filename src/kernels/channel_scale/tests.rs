use super::*;

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

/// Numbers of all sizes, and every special one.
fn values(n: u32) -> Vec<f32> {
    let specials = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MAX, -1e-45];
    (0..n)
        .map(|i| {
            specials.get(i as usize % 37).copied().unwrap_or(f32::from_bits(i.wrapping_mul(0x9e37_79b9)))
        })
        .collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn every_isa_divides_and_multiplies_alike() {
    let headroom = Headroom { largest: 65504.0, margin: 0.5 };
    let values = values(1003);
    let scales: Vec<f32> = (0..1003).map(|i| [1.0, 0.3, 1e-30, 7e4, 2e5][i / 7 % 5]).collect();
    for n in [0, 1, 15, 16, 17, 1003] {
        let mut expected = values[..n].to_vec();
        scalar::divide(&mut expected, &scales, headroom);
        let mut products = expected.clone();
        scalar::multiply(&mut products, &scales);
        for isa in isas() {
            let mut got = values[..n].to_vec();
            divide(isa, &mut got, &scales, headroom);
            assert_eq!(bits(&got), bits(&expected), "{isa:?} {n}");
            multiply(isa, &mut got, &scales);
            assert_eq!(bits(&got), bits(&products), "{isa:?} {n}");
        }
    }
}

#[test]
fn what_could_become_infinite_is_no_number() {
    let headroom = Headroom { largest: 100.0, margin: 2.0 };
    for isa in isas() {
        let mut values = [95.0, -97.0, 98.5, 1e30, f32::NAN, 0.0, 1.0, -0.0];
        divide(isa, &mut values, &[1.0, 1.0, 1.0, 1e-20, 1.0, 100.0, 100.0, 100.0], headroom);
        let kept = values.map(|x| if x.is_nan() { None } else { Some(x) });
        // A scale at which the margin is beyond the largest leaves room for zero alone.
        assert_eq!(kept, [Some(95.0), Some(-97.0), None, None, None, Some(0.0), None, Some(0.0)]);
    }
}

#[test]
fn the_largest_finite_magnitude_is_found_wherever_it_is() {
    for isa in isas() {
        assert_eq!(largest_finite(isa, &[]), 0.0);
        assert_eq!(largest_finite(isa, &[f32::NAN, f32::INFINITY]), 0.0);
        for n in [1, 15, 16, 33, 100] {
            for place in [0, n / 2, n - 1] {
                let mut values = vec![f32::NEG_INFINITY; n];
                values[place] = -3.5;
                values[(place + 1) % n] = if n > 1 { 3.25 } else { -3.5 };
                assert_eq!(largest_finite(isa, &values), 3.5, "{isa:?} {n} {place}");
            }
        }
    }
}
