use super::*;

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

/// F16 by its definition, in arithmetic of f64.
fn f16_value(half: u16) -> f64 {
    let sign = if half & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(half >> 10 & 31), f64::from(half & 0x3ff));
    match exponent {
        0 => sign * mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        _ => sign * (1.0 + mantissa / 1024.0) * 2f64.powi(exponent - 15),
    }
}

fn convert(isa: Isa, dtype: Dtype, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0xaa; values.len() * dtype.unit_bytes()];
    from_f32(isa, dtype, values, &mut bytes).unwrap();
    bytes
}

fn widened(isa: Isa, dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![7.0; bytes.len() / dtype.unit_bytes()];
    to_f32(isa, dtype, bytes, &mut values).unwrap();
    values
}

#[test]
fn every_half_is_widened_exactly_and_comes_back() {
    let halves: Vec<u16> = (0..=u16::MAX).collect();
    let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    for isa in isas() {
        let values = widened(isa, Dtype::F16, &bytes);
        for (&half, &value) in halves.iter().zip(&values) {
            let expected = f16_value(half);
            assert!(f64::from(value) == expected || expected.is_nan() && value.is_nan(), "{half:#x}");
            assert_eq!(value.is_sign_negative(), half >= 0x8000, "{half:#x}");
        }
        let values_bf16 = widened(isa, Dtype::Bf16, &bytes);
        for (dtype, values, quiet) in [(Dtype::F16, &values, 0x200u16), (Dtype::Bf16, &values_bf16, 0x40)] {
            let back = convert(isa, dtype, values);
            for ((half, value), le) in halves.iter().zip(values).zip(back.as_chunks::<2>().0) {
                let kept = if value.is_nan() { half | quiet } else { *half };
                assert_eq!(u16::from_le_bytes(*le), kept, "{isa:?} {dtype:?}");
            }
        }
    }
}

/// Half way between neighbours goes to the even one; the next f32 on either side goes to its own neighbour.
#[test]
fn narrowing_rounds_to_nearest_even() {
    for isa in isas() {
        for (dtype, last) in [(Dtype::F16, 0x7bffu16), (Dtype::Bf16, 0x7f7f)] {
            let bytes: Vec<u8> = (0..=last).flat_map(u16::to_le_bytes).collect();
            let values = widened(isa, dtype, &bytes);
            for (low, pair) in (0u16..).zip(values.windows(2)) {
                let middle = ((f64::from(pair[0]) + f64::from(pair[1])) / 2.0) as f32;
                let around = [middle.next_down(), middle, middle.next_up(), -middle];
                let even = low + (low & 1);
                let expected = [low, even, low + 1, even | 0x8000];
                let got = convert(isa, dtype, &around);
                let got: Vec<u16> = got.as_chunks::<2>().0.iter().map(|le| u16::from_le_bytes(*le)).collect();
                // BF16's smallest subnormal numbers have exact halves in f32, too.
                assert_eq!(got, expected, "{isa:?} {dtype:?} {low:#x}");
            }
        }
        assert_eq!(convert(isa, Dtype::F16, &[65519.9, 65520.0, f32::MAX]), [0xff, 0x7b, 0, 0x7c, 0, 0x7c]);
        assert_eq!(convert(isa, Dtype::Bf16, &[f32::MAX, f32::NEG_INFINITY]), [0x80, 0x7f, 0x80, 0xff]);
    }
}

#[test]
fn all_isas_agree_on_any_bits_and_any_tail() {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    let bits: Vec<u32> = (0..1531).map(|_| next()).collect();
    let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    let values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
    for dtype in Dtype::all().filter(|&dtype| is_convertible(dtype)) {
        for n in [0, 1, 15, 16, 17, 33, 64, 700] {
            let src = &bytes[..n * dtype.unit_bytes()];
            let to: Vec<u32> = widened(Isa::Scalar, dtype, src).iter().map(|value| value.to_bits()).collect();
            let from = convert(Isa::Scalar, dtype, &values[..n]);
            for isa in isas() {
                let got: Vec<u32> = widened(isa, dtype, src).iter().map(|value| value.to_bits()).collect();
                assert_eq!(got, to, "{isa:?} {dtype:?} {n}");
                assert_eq!(convert(isa, dtype, &values[..n]), from, "{isa:?} {dtype:?} {n}");
            }
        }
    }
    assert_eq!(widened(Isa::Scalar, Dtype::F64, &1e-300f64.to_le_bytes()), [0.0]);
    assert_eq!(widened(Isa::Scalar, Dtype::F64, &0.1f64.to_le_bytes()), [0.1]);
}

#[test]
fn wrong_lengths_and_dtypes_are_refused() {
    let mut values = [1.0; 2];
    assert!(to_f32(Isa::Scalar, Dtype::F16, &[0; 3], &mut values).is_none());
    assert!(to_f32(Isa::Scalar, Dtype::I32, &[0; 8], &mut values).is_none());
    assert!(from_f32(Isa::Scalar, Dtype::F64, &values, &mut [0; 15]).is_none());
    assert_eq!(values, [1.0; 2]);
}
