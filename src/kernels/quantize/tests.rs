use super::*;

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

/// Values of every kind: any bits, small multiples of a step, whole and half steps, subnormal numbers.
fn values(n: usize) -> Vec<f32> {
    let mut state = 3u64;
    (0..n)
        .map(|idx| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bits = (state >> 32) as u32;
            match idx % 5 {
                0 => f32::from_bits(bits),
                1 => (bits as i32 >> 20) as f32 * 0.05,
                2 => (bits as i32 >> 26) as f32 * 0.05,
                3 => f32::from_bits(bits & 0x80ff_ffff),
                _ => (bits as i32) as f32 * 2f32.powi(-31),
            }
        })
        .chain([0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE])
        .collect()
}

fn thresholds() -> Rounding {
    Rounding::Thresholds(std::array::from_fn(|k| 0.5 + 0.2 / (k + 1) as f32))
}

/// One value by the words of the contract, in arithmetic of f64 after the division.
fn index(value: f32, step: f32, rounding: &Rounding) -> i32 {
    let steps = f64::from((value / step).abs());
    if steps.is_nan() || steps > f64::from(MAX_STEPS) {
        return ESCAPE;
    }
    let floor = steps.floor();
    let threshold = match rounding {
        Rounding::Nearest => 0.5,
        Rounding::Thresholds(table) | Rounding::EvenSums(table) => table[(floor as usize).min(31)],
    };
    let k = floor as i32 + i32::from(steps - floor > f64::from(threshold));
    if value < 0.0 { -k } else { k }
}

#[test]
fn indices_are_those_of_the_contract_on_every_isa() {
    let values = values(3001);
    for step in [1.0, 0.1, 0.05, 1e-30, 1e30, f32::from_bits(1), f32::MAX] {
        for rounding in [Rounding::Nearest, thresholds()] {
            let expected: Vec<i32> = values.iter().map(|&value| index(value, step, &rounding)).collect();
            let mut bits = vec![0; values.len()];
            dequantize(Isa::Scalar, &expected, step, bytemuck::cast_slice_mut(&mut bits));
            for isa in isas() {
                for n in [0, 1, 7, 8, 15, 17, 31, 33, values.len()] {
                    let mut indices = vec![77; n];
                    quantize(isa, &values[..n], step, &rounding, &mut indices);
                    assert_eq!(indices, expected[..n], "{isa:?} {step} {n}");
                    let mut back = vec![0u32; n];
                    dequantize(isa, &indices, step, bytemuck::cast_slice_mut(&mut back));
                    assert_eq!(back, bits[..n], "{isa:?} {step} {n}");
                }
            }
        }
    }
    let mut indices = [0; 4];
    quantize(Isa::Scalar, &[4_194_304.0, 4_194_304.5, -2.5, -0.0], 1.0, &Rounding::Nearest, &mut indices);
    assert_eq!(indices, [4_194_304, ESCAPE, -2, 0]);
}

/// Of each odd column the element that is nearest to its threshold, and no zero, takes its other neighbour: here by looking at
/// all ways to move one element of a column by one.
#[test]
fn columns_have_even_sums_and_the_least_cost_on_every_isa() {
    let values = values(3 * SHEET_LEN + 77);
    let Rounding::Thresholds(table) = thresholds() else { panic!("a table") };
    for step in [1.0, 0.1, 0.05, 1e-30, 1e30] {
        let mut plain = vec![0; values.len()];
        quantize(Isa::Scalar, &values, step, &thresholds(), &mut plain);
        let mut expected = plain.clone();
        let sheets =
            expected.as_chunks_mut::<SHEET_LEN>().0.iter_mut().zip(values.as_chunks::<SHEET_LEN>().0);
        for (indices, values) in sheets {
            for column in 0..ROW_LEN {
                let places = || (column..SHEET_LEN).step_by(ROW_LEN);
                let sum: i64 = places().map(|place| i64::from(indices[place])).sum();
                if sum % 2 == 0 {
                    continue;
                }
                let distance = |place: usize| {
                    let steps = (values[place] / step).abs();
                    let floor = steps.floor();
                    (steps - floor - table[(floor as usize).min(31)]).abs()
                };
                let may_move = |place: &usize| indices[*place] != ESCAPE && values[*place] != 0.0;
                let moved =
                    places().filter(may_move).min_by(|a, b| distance(*a).total_cmp(&distance(*b))).unwrap();
                let floor = (values[moved] / step).abs().floor() as i32;
                let other = if indices[moved].abs() == floor { floor + 1 } else { floor };
                indices[moved] = if values[moved] < 0.0 { -other } else { other };
            }
        }
        for isa in isas() {
            for n in [0, 1, 511, 512, 513, values.len()] {
                let mut indices = vec![77; n];
                quantize(isa, &values[..n], step, &Rounding::EvenSums(table), &mut indices);
                let whole = n / SHEET_LEN * SHEET_LEN;
                assert_eq!(indices[..whole], expected[..whole], "{isa:?} {step} {n}");
                assert_eq!(indices[whole..], plain[whole..n], "{isa:?} {step} {n}");
            }
        }
    }
}

#[test]
fn replacing_is_quantizing_rebuilding_and_measuring() {
    let values = values(9001);
    let elements: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    for step in [1.0, 0.1, 1e-30, 1e30, f32::from_bits(1), f32::MAX] {
        // The last has elements of less than half a step become a whole one.
        let low = Rounding::Thresholds([0.3; N_THRESHOLDS]);
        let even = Rounding::EvenSums([0.52; N_THRESHOLDS]);
        for rounding in
            [Rounding::Nearest, thresholds(), Rounding::Thresholds([0.5; N_THRESHOLDS]), low, even]
        {
            for n in [0, 1, 16, 33, 4096, 4100, 8192, values.len()] {
                let mut expected = vec![0; n];
                quantize(Isa::Scalar, &values[..n], step, &rounding, &mut expected);
                let mut rebuilt = vec![0.0; n];
                dequantize(Isa::Scalar, &expected, step, &mut rebuilt);
                let escapes = expected.iter().map(|index| *index == ESCAPE);
                let zeros = rebuilt.iter().zip(escapes.clone()).filter(|(x, escape)| **x == 0.0 && !escape);
                let n_zeros = zeros.count() as u64;
                let sources = rebuilt.iter_mut().zip(escapes).zip(&values);
                sources.filter(|((_, escape), _)| *escape).for_each(|((x, _), value)| *x = *value);
                let rebuilt: Vec<u8> = rebuilt.iter().flat_map(|value| value.to_le_bytes()).collect();
                let errors = measure(Isa::Scalar, Dtype::F32, &elements[..4 * n], &rebuilt).unwrap();
                for isa in isas() {
                    let source = &elements[..4 * n];
                    for (source, mut bytes) in [(None, source.to_vec()), (Some(source), vec![7; 4 * n])] {
                        let mut indices = vec![77; n];
                        let indices = &mut indices[..];
                        let replaced =
                            replace_f32(isa, source, &mut bytes, step, &rounding, indices, &elements);
                        assert!(bytes == rebuilt && indices == expected, "{isa:?} {step} {n}");
                        let n_escapes = indices.iter().filter(|index| **index == ESCAPE).count() as u64;
                        let expected = Replaced { errors, n_zeros, n_escapes };
                        assert_eq!(replaced, Some(expected), "{isa:?} {step} {n}");
                    }
                }
            }
        }
    }
    let replace = |source: Option<&[u8]>, bytes: &mut [u8]| {
        replace_f32(Isa::Scalar, source, bytes, 1.0, &Rounding::Nearest, &mut [0; 1], &[])
    };
    assert!(replace(None, &mut [0; 7]).is_none() && replace(None, &mut [0; 8]).is_none());
    assert!(replace(Some(&[0; 8]), &mut [0; 4]).is_none() && replace(Some(&[0; 4]), &mut [0; 4]).is_some());
}

#[test]
fn any_index_is_dequantized_alike() {
    let indices: Vec<i32> =
        (0..700i32).map(|i| i.wrapping_mul(0x0123_4567)).chain([ESCAPE, i32::MAX, -1]).collect();
    let expected: Vec<f32> = indices.iter().map(|&k| k as f32 * 0.3).collect();
    for isa in isas() {
        let mut values = vec![0.0; indices.len()];
        dequantize(isa, &indices, 0.3, &mut values);
        assert_eq!(values, expected, "{isa:?}");
    }
}

#[test]
fn error_sums_are_right_and_equal_on_every_isa() {
    for dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let n = 10_001;
        let x: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 8.0).collect();
        let y: Vec<f32> = x.iter().map(|x| (x * 2.0).trunc() / 2.0).collect();
        let bytes = |values: &[f32]| {
            let mut bytes = vec![0; values.len() * dtype.unit_bytes()];
            super::super::convert::from_f32(Isa::Scalar, dtype, values, &mut bytes).unwrap();
            bytes
        };
        let (x_bytes, y_bytes) = (bytes(&x), bytes(&y));
        for n in [0, 1, 15, 16, 17, 4096, 4097, n] {
            let len = n * dtype.unit_bytes();
            let sums = measure(Isa::Scalar, dtype, &x_bytes[..len], &y_bytes[..len]).unwrap();
            let pairs = || x[..n].iter().zip(&y[..n]);
            // Every square is a multiple of 1/64 and the sums are small: all of them are exact.
            let expected = ErrorSums {
                n_elements: n as u64,
                n_changed: pairs().filter(|(x, y)| x != y).count() as u64,
                n_zeroed: pairs().filter(|&(&x, &y)| x != 0.0 && y == 0.0).count() as u64,
                max_abs: pairs().map(|(x, y)| f64::from((x - y).abs())).fold(0.0, f64::max),
                error_sq: pairs().map(|(x, y)| f64::from((x - y) * (x - y))).sum(),
                value_sq: x[..n].iter().map(|x| f64::from(x * x)).sum(),
            };
            assert_eq!(sums, expected, "{dtype:?} {n}");
        }
        let odd = values(20_000);
        let shaken: Vec<f32> = odd.iter().map(|x| x * 0.99).collect();
        let (odd, shaken) = (bytes(&odd), bytes(&shaken));
        let sums = measure(Isa::Scalar, dtype, &odd, &shaken).unwrap();
        for isa in isas() {
            let got = measure(isa, dtype, &odd, &shaken).unwrap();
            assert_eq!(format!("{got:?}"), format!("{sums:?}"), "{isa:?} {dtype:?}");
        }
        assert!(measure(Isa::Scalar, dtype, &odd, &shaken[1..]).is_none());
    }
}

#[test]
fn scaled_errors_are_those_of_the_sums_by_the_scale_of_each() {
    for dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let n = 1003;
        let x: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 8.0).collect();
        let y: Vec<f32> = x.iter().map(|x| (x * 2.0).trunc() / 2.0).collect();
        let scales: Vec<f32> = (0..n).map(|i| [0.25, 1.0, 8.0][i as usize / 7 % 3]).collect();
        let bytes = |values: &[f32]| {
            let mut bytes = vec![0; values.len() * dtype.unit_bytes()];
            super::super::convert::from_f32(Isa::Scalar, dtype, values, &mut bytes).unwrap();
            bytes
        };
        let (x_bytes, y_bytes) = (bytes(&x), bytes(&y));
        for n in [0, 1, 15, 16, 17, x.len()] {
            let len = n * dtype.unit_bytes();
            let expected = (0..n).map(|i| f64::from((x[i] - y[i]).abs() / scales[i])).fold(0.0, f64::max);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
                let got = max_scaled(isa, dtype, &x_bytes[..len], &y_bytes[..len], &scales[..n]);
                assert_eq!(got, Some(expected), "{isa:?} {dtype:?} {n}");
            }
        }
        assert_eq!(max_scaled(Isa::Scalar, dtype, &x_bytes, &y_bytes, &scales[1..]), None);
    }
    let of_one =
        |x: f32, y: f32| max_scaled(Isa::detect(), Dtype::F32, &x.to_le_bytes(), &y.to_le_bytes(), &[2.0]);
    assert_eq!(of_one(f32::NAN, f32::NAN), Some(0.0));
    assert_eq!(of_one(f32::NAN, 1.0), Some(f64::INFINITY));
    assert_eq!(max_scaled(Isa::Scalar, Dtype::I32, &[0; 4], &[0; 4], &[1.0]), None);
}

#[test]
fn what_is_not_finite_has_no_error_or_an_infinite_one() {
    let measure = |x: &[f32], y: &[f32]| {
        measure(Isa::detect(), Dtype::F32, bytemuck::cast_slice(x), bytemuck::cast_slice(y)).unwrap()
    };
    let same = [f32::NAN, f32::INFINITY, -0.0, 3.0];
    let sums = measure(&same, &same);
    assert_eq!((sums.n_changed, sums.max_abs, sums.error_sq, sums.value_sq), (0, 0.0, 0.0, 9.0));
    assert_eq!(sums.relative_l2(), 0.0);
    let sums = measure(&[-0.0], &[0.0]);
    assert_eq!((sums.n_changed, sums.n_zeroed), (0, 0));
    for (x, y) in [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::INFINITY, f32::NEG_INFINITY), (1.0, f32::INFINITY)]
    {
        let sums = measure(&[x], &[y]);
        assert_eq!((sums.n_changed, sums.max_abs, sums.error_sq), (1, f64::INFINITY, f64::INFINITY));
    }
    assert_eq!(measure(&[0.0], &[1.0]).relative_l2(), f64::INFINITY);
}

#[test]
fn thresholds_within_a_bound_keep_to_it() {
    let rounding = Rounding::Thresholds(std::array::from_fn(|k| k as f32 / 31.0)).within(0.625);
    let values: Vec<f32> = (-4000..4000i16).map(|i| f32::from(i) / 64.0).collect();
    let (mut indices, mut back) = (vec![0; values.len()], vec![0.0; values.len()]);
    quantize(Isa::detect(), &values, 1.0, &rounding, &mut indices);
    dequantize(Isa::detect(), &indices, 1.0, &mut back);
    let max_abs = values.iter().zip(&back).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert_eq!(max_abs, 0.625);
    assert_eq!(Rounding::Nearest.within(0.5), Rounding::Nearest);
}
