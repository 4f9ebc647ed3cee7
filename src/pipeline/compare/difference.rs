//! How far elements lie apart: sums over fixed blocks of elements, added in a fixed order, in f64.
//!
//! Squares of F64 elements can leave the range of f64. As in Blue's method for the Euclidean norm ("A portable
//! Fortran program to find the Euclidean norm of a vector", 1978), a block of very large or very small elements is
//! scaled by a power of two before it is squared.

use crate::dtype::Dtype;

/// Elements of one partial sum. Fixed, so that sums do not depend on how the elements were read or by how many
/// threads.
pub(super) const PARTIAL_ELEMENTS: usize = 1 << 16;
/// Accumulators that one partial sum is spread over, so that additions need not wait for each other.
const LANES: usize = 8;
/// Log2 of the factor of a scaled block.
const SCALE_LOG2: i32 = 600;
/// Blocks with a largest magnitude outside of 2^-400 to 2^400 are scaled: up to 2^400, squares of 2^60 elements
/// add up within f64.
const UNSCALED_LOG2: i32 = 400;

/// How the elements of a tensor, or of several, differ from those of another.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Difference {
    /// Elements compared; bytes where the dtype is unknown.
    pub n_elements: u64,
    /// Elements whose bits differ. A NaN is equal to a NaN of the same bits, 0.0 differs from -0.0.
    pub n_changed: u64,
    /// What is known of floats besides; `None` where there are none.
    pub floats: Option<FloatDifference>,
}

/// How floats differ. Elements that are changed and not finite on either side are counted in
/// [`Self::n_non_finite`] and are in none of the errors.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FloatDifference {
    /// Elements compared.
    pub n_elements: u64,
    /// Elements that are zero, of either sign, and were not.
    pub n_newly_zero: u64,
    /// Changed elements that are NaN or infinite on one side or both.
    pub n_non_finite: u64,
    /// Largest magnitude of a difference, in units of the elements; infinite where it exceeds f64.
    pub max_abs: f64,
    sums: Sums,
}

/// Sums over elements a, b, each times 2^(-600 · `scale`).
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sums {
    /// -1, 0 or 1.
    scale: i32,
    error_squared: f64,
    a_squared: f64,
    b_squared: f64,
    product: f64,
}

impl Default for Sums {
    fn default() -> Self {
        // The lowest scale, so that nothing is lost where there is nothing yet.
        Self { scale: -1, error_squared: 0.0, a_squared: 0.0, b_squared: 0.0, product: 0.0 }
    }
}

impl Sums {
    fn raised_to(self, scale: i32) -> Self {
        // Of squares, so twice the factor of the elements. The sums may come to nothing, as they do beside the others.
        let raised = |sum: f64| {
            (self.scale..scale)
                .fold(sum, |sum, _| sum * power_of_two(-SCALE_LOG2) * power_of_two(-SCALE_LOG2))
        };
        Self {
            scale,
            error_squared: raised(self.error_squared),
            a_squared: raised(self.a_squared),
            b_squared: raised(self.b_squared),
            product: raised(self.product),
        }
    }

    fn add(&mut self, other: &Self) {
        let scale = self.scale.max(other.scale);
        let (sum, other) = (self.raised_to(scale), other.raised_to(scale));
        *self = Self {
            scale,
            error_squared: sum.error_squared + other.error_squared,
            a_squared: sum.a_squared + other.a_squared,
            b_squared: sum.b_squared + other.b_squared,
            product: sum.product + other.product,
        };
    }
}

impl Difference {
    /// Whether all elements have the same bits.
    #[must_use]
    pub fn is_identical(&self) -> bool {
        self.n_changed == 0
    }

    /// Changed elements ÷ elements; 0 without elements.
    #[must_use]
    pub fn changed_share(&self) -> f64 {
        share(self.n_changed, self.n_elements)
    }

    /// Adds the elements that `other` counts. The order of additions matters in the last bits of the sums.
    pub fn add(&mut self, other: &Self) {
        self.n_elements += other.n_elements;
        self.n_changed += other.n_changed;
        if let Some(other) = &other.floats {
            let floats = self.floats.get_or_insert_default();
            floats.n_elements += other.n_elements;
            floats.n_newly_zero += other.n_newly_zero;
            floats.n_non_finite += other.n_non_finite;
            floats.max_abs = floats.max_abs.max(other.max_abs);
            floats.sums.add(&other.sums);
        }
    }
}

impl FloatDifference {
    /// Newly zero elements ÷ elements; 0 without elements.
    #[must_use]
    pub fn newly_zero_share(&self) -> f64 {
        share(self.n_newly_zero, self.n_elements)
    }

    /// ‖a − b‖₂ ÷ ‖a‖₂; 0 where there is no error, infinite where only ‖a‖₂ is 0.
    #[must_use]
    pub fn relative_l2(&self) -> f64 {
        if self.sums.error_squared > 0.0 {
            (self.sums.error_squared / self.sums.a_squared).sqrt()
        } else {
            0.0
        }
    }

    /// Signal to noise, 20 · log10(‖a‖₂ ÷ ‖a − b‖₂), in dB; infinite where there is no error.
    #[must_use]
    pub fn snr_db(&self) -> f64 {
        if self.sums.error_squared > 0.0 {
            10.0 * (self.sums.a_squared / self.sums.error_squared).log10()
        } else {
            f64::INFINITY
        }
    }

    /// Cosine of the angle between a and b, -1 to 1; `None` where one of them is 0.
    #[must_use]
    pub fn cosine(&self) -> Option<f64> {
        let norms = self.sums.a_squared.sqrt() * self.sums.b_squared.sqrt();
        (norms > 0.0).then(|| (self.sums.product / norms).clamp(-1.0, 1.0))
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// 2^`exponent` for -1022 to 1023.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(u64::from((exponent + 1023).unsigned_abs()) << 52)
}

/// The difference of `a` and `b`, equally long runs of whole elements of `dtype`, at most [`PARTIAL_ELEMENTS`] of them;
/// `None` for bytes.
pub(super) fn measure(dtype: Option<Dtype>, a: &[u8], b: &[u8]) -> Difference {
    match dtype.unwrap_or(Dtype::Bytes) {
        Dtype::F64 => floats(a, b, scale_of(a, b), f64::from_le_bytes),
        Dtype::F32 => floats(a, b, 0, |bytes| f64::from(f32::from_le_bytes(bytes))),
        Dtype::F16 => floats(a, b, 0, |bytes| f16_value(u16::from_le_bytes(bytes))),
        Dtype::Bf16 => {
            floats(a, b, 0, |bytes| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)))
        }
        Dtype::F8E4m3 => floats(a, b, 0, |[byte]| f8_e4m3_value(byte)),
        // The upper half of an F16.
        Dtype::F8E5m2 => floats(a, b, 0, |[byte]| f16_value(u16::from(byte) << 8)),
        Dtype::F8E8m0 => floats(a, b, 0, |[byte]| f8_e8m0_value(byte)),
        Dtype::F4 => changed_nibbles(a, b),
        dtype => match dtype.unit_bytes() {
            8 => changed_units::<8>(a, b),
            4 => changed_units::<4>(a, b),
            2 => changed_units::<2>(a, b),
            _ => changed_units::<1>(a, b),
        },
    }
}

fn f16_value(bits: u16) -> f64 {
    let magnitude = bits & 0x7fff;
    // With F16's fields in their places in an F32 only the bias is wrong, by 112; subnormals come out right too.
    let value = match magnitude {
        0x7c00 => f64::INFINITY,
        0x7c01.. => f64::NAN,
        _ => f64::from(f32::from_bits(u32::from(magnitude) << 13)) * power_of_two(112),
    };
    if bits >> 15 == 0 { value } else { -value }
}

/// The variant without infinities, as safetensors and PyTorch (`float8_e4m3fn`) have it.
fn f8_e4m3_value(bits: u8) -> f64 {
    let magnitude = bits & 0x7f;
    let value = match magnitude {
        0x7f => f64::NAN,
        _ => f64::from(f32::from_bits(u32::from(magnitude) << 20)) * power_of_two(120),
    };
    if bits >> 7 == 0 { value } else { -value }
}

/// A power of two, never zero.
fn f8_e8m0_value(bits: u8) -> f64 {
    if bits == 0xff { f64::NAN } else { power_of_two(i32::from(bits) - 127) }
}

/// [`Sums::scale`] for F64 elements.
fn scale_of(a: &[u8], b: &[u8]) -> i32 {
    let units = a.as_chunks().0.iter().chain(b.as_chunks().0);
    let finite = units.map(|bytes| f64::from_le_bytes(*bytes).abs()).filter(|value| value.is_finite());
    let largest = finite.fold(0.0, f64::max);
    i32::from(largest > power_of_two(UNSCALED_LOG2)) - i32::from(largest < power_of_two(-UNSCALED_LOG2))
}

/// Compares floats of `N` bytes, which `value` decodes.
fn floats<const N: usize>(a: &[u8], b: &[u8], scale: i32, value: impl Fn([u8; N]) -> f64) -> Difference {
    let (a, b) = (a.as_chunks::<N>().0, b.as_chunks::<N>().0);
    let (factor, back) = (power_of_two(-SCALE_LOG2 * scale), power_of_two(SCALE_LOG2 * scale));
    let mut lanes = Lanes::default();
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for (lane, (a_bytes, b_bytes)) in a.iter().zip(b).enumerate() {
            lanes.add(lane, a_bytes != b_bytes, value(*a_bytes), value(*b_bytes), factor);
        }
    }
    let total = |sums: [f64; LANES]| sums.iter().sum::<f64>();
    Difference {
        n_elements: a.len() as u64,
        n_changed: lanes.n_changed.iter().sum(),
        floats: Some(FloatDifference {
            n_elements: a.len() as u64,
            n_newly_zero: lanes.n_newly_zero.iter().sum(),
            n_non_finite: lanes.n_non_finite.iter().sum(),
            max_abs: lanes.max_abs.iter().fold(0.0, |max: f64, lane| max.max(*lane)) * back,
            sums: Sums {
                scale,
                error_squared: total(lanes.error_squared),
                a_squared: total(lanes.a_squared),
                b_squared: total(lanes.b_squared),
                product: total(lanes.product),
            },
        }),
    }
}

/// The accumulators of one block.
#[derive(Default)]
struct Lanes {
    n_changed: [u64; LANES],
    n_newly_zero: [u64; LANES],
    n_non_finite: [u64; LANES],
    max_abs: [f64; LANES],
    error_squared: [f64; LANES],
    a_squared: [f64; LANES],
    b_squared: [f64; LANES],
    product: [f64; LANES],
}

impl Lanes {
    #[inline(always)]
    fn add(&mut self, lane: usize, changed: bool, a: f64, b: f64, factor: f64) {
        let finite = a.is_finite() && b.is_finite();
        self.n_changed[lane] += u64::from(changed);
        self.n_non_finite[lane] += u64::from(changed && !finite);
        self.n_newly_zero[lane] += u64::from(b == 0.0 && a != 0.0);
        let (a, b) = if finite { (a * factor, b * factor) } else { (0.0, 0.0) };
        let error = a - b;
        self.max_abs[lane] = if error.abs() > self.max_abs[lane] { error.abs() } else { self.max_abs[lane] };
        self.error_squared[lane] += error * error;
        self.a_squared[lane] += a * a;
        self.b_squared[lane] += b * b;
        self.product[lane] += a * b;
    }
}

fn changed_units<const N: usize>(a: &[u8], b: &[u8]) -> Difference {
    let (a, b) = (a.as_chunks::<N>().0, b.as_chunks::<N>().0);
    let n_changed = a.iter().zip(b).filter(|(a, b)| a != b).count();
    Difference { n_elements: a.len() as u64, n_changed: n_changed as u64, floats: None }
}

/// Elements of four bits, two a byte.
fn changed_nibbles(a: &[u8], b: &[u8]) -> Difference {
    let changed = |(a, b): (&u8, &u8)| u64::from((a ^ b) & 0x0f != 0) + u64::from((a ^ b) & 0xf0 != 0);
    Difference { n_elements: 2 * a.len() as u64, n_changed: a.iter().zip(b).map(changed).sum(), floats: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of<const N: usize>(units: &[[u8; N]]) -> Vec<u8> {
        units.concat()
    }

    fn f32_difference(a: &[f32], b: &[f32]) -> Difference {
        let bytes = |values: &[f32]| bytes_of(&values.iter().map(|v| v.to_le_bytes()).collect::<Vec<_>>());
        measure(Some(Dtype::F32), &bytes(a), &bytes(b))
    }

    fn f64_difference(a: &[f64], b: &[f64]) -> FloatDifference {
        let bytes = |values: &[f64]| bytes_of(&values.iter().map(|v| v.to_le_bytes()).collect::<Vec<_>>());
        measure(Some(Dtype::F64), &bytes(a), &bytes(b)).floats.unwrap()
    }

    #[test]
    fn values_worked_by_hand() {
        // a = (3, 0, 4, 0), ‖a‖ = 5; a − b = (0, 0.5, 4, 0); a·b = 9; ‖b‖² = 9.25.
        let difference = f32_difference(&[3.0, 0.0, 4.0, 0.0], &[3.0, -0.5, 0.0, -0.0]);
        assert_eq!((difference.n_elements, difference.n_changed), (4, 3));
        assert_eq!(difference.changed_share(), 0.75);
        let floats = difference.floats.unwrap();
        assert_eq!((floats.n_newly_zero, floats.n_non_finite, floats.max_abs), (1, 0, 4.0));
        assert_eq!(floats.newly_zero_share(), 0.25);
        assert_eq!(floats.relative_l2(), (16.25f64 / 25.0).sqrt());
        assert!((floats.snr_db() - 1.870_866_433_571_443).abs() < 1e-12, "10 log10(25 / 16.25)");
        assert!((floats.cosine().unwrap() - 9.0 / (5.0 * 9.25f64.sqrt())).abs() < 1e-12);
    }

    #[test]
    fn a_step_of_a_tenth_is_20_db() {
        let floats = f64_difference(&[1.0, -1.0], &[1.1, -0.9]);
        assert!((floats.relative_l2() - 0.1).abs() < 1e-12);
        assert!((floats.snr_db() - 20.0).abs() < 1e-9);
    }

    #[test]
    fn zeros_have_no_direction_and_an_infinite_error() {
        let zeros = f32_difference(&[0.0; 3], &[0.0; 3]).floats.unwrap();
        assert_eq!((zeros.relative_l2(), zeros.cosine()), (0.0, None));
        assert_eq!(zeros.snr_db(), f64::INFINITY);
        let risen = f32_difference(&[0.0; 3], &[0.0, 1.0, 0.0]).floats.unwrap();
        assert_eq!((risen.relative_l2(), risen.cosine()), (f64::INFINITY, None));
        let empty = f32_difference(&[], &[]);
        assert!(empty.is_identical() && empty.changed_share() == 0.0);
        assert_eq!(empty.floats.unwrap().newly_zero_share(), 0.0);
    }

    #[test]
    fn equal_nans_are_no_change_and_other_non_finite_ones_are_counted_apart() {
        let nan = f32::from_bits(0x7fc0_0001);
        let other_nan = f32::from_bits(0x7fc0_0002);
        let same = f32_difference(&[nan, f32::INFINITY, 2.0], &[nan, f32::INFINITY, 2.0]);
        assert!(same.is_identical());
        assert_eq!(same.floats.unwrap().relative_l2(), 0.0);
        let a = [nan, f32::INFINITY, f32::INFINITY, 1.0, f32::NAN, 3.0, 4.0];
        let b = [other_nan, f32::NEG_INFINITY, 1.0, f32::NAN, 0.0, 3.0, 4.5];
        let floats = f32_difference(&a, &b).floats.unwrap();
        assert_eq!((floats.n_non_finite, floats.n_newly_zero), (5, 1));
        assert_eq!((floats.max_abs, floats.relative_l2()), (0.5, 0.1));
    }

    #[test]
    fn huge_and_tiny_f64_do_not_leave_the_range() {
        for magnitude in [1e300, 1e-300, 1e150, 1e-150, 1.0] {
            let floats = f64_difference(&[magnitude, 2.0 * magnitude], &[magnitude, magnitude]);
            assert!((floats.relative_l2() - 0.2f64.sqrt()).abs() < 1e-12, "{magnitude}");
            assert!((floats.max_abs / magnitude - 1.0).abs() < 1e-12, "{magnitude}");
            assert!((floats.cosine().unwrap() - 3.0 / 10f64.sqrt()).abs() < 1e-12, "{magnitude}");
        }
        assert_eq!(f64_difference(&[f64::MAX], &[-f64::MAX]).max_abs, f64::INFINITY);
        assert_eq!(f64_difference(&[f64::MAX], &[-f64::MAX]).relative_l2(), 2.0);
    }

    #[test]
    fn blocks_of_different_scale_add_up() {
        // Neighbours on either side of the threshold weigh alike; far ones do not matter.
        let power = |exponent| power_of_two(exponent);
        let one =
            |a: f64, b: f64| Difference { floats: Some(f64_difference(&[a], &[b])), ..Difference::default() };
        for (low, high) in [(399, 401), (-401, -399)] {
            let mut sum = one(power(low), power(low));
            sum.add(&one(power(high), 0.0));
            assert!((sum.floats.unwrap().relative_l2() - (16.0f64 / 17.0).sqrt()).abs() < 1e-12);
        }
        let mut sum = Difference::default();
        for (a, b) in [(1e-300, 0.0), (1e300, 1e300), (1.0, 0.0)] {
            sum.add(&one(a, b));
        }
        assert_eq!(sum.floats.unwrap().max_abs, 1.0);
        assert!(sum.floats.unwrap().relative_l2() < 1e-200);
    }

    #[test]
    fn every_small_float_has_its_value() {
        for (bits, value) in [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2f64.powi(-24)), (0x7bff, 65504.0)] {
            assert_eq!(f16_value(bits), value);
        }
        assert!(f16_value(0x7c00).is_infinite() && f16_value(0xfc01).is_nan());
        for (bits, value) in
            [(0x38, 1.0), (0xb8, -1.0), (0x01, 2f64.powi(-9)), (0x7e, 448.0), (0x08, 2f64.powi(-6))]
        {
            assert_eq!(f8_e4m3_value(bits), value);
        }
        assert!(f8_e4m3_value(0x7f).is_nan() && f8_e4m3_value(0xff).is_nan());
        for (bits, value) in [(127, 1.0), (0, 2f64.powi(-127)), (254, 2f64.powi(127))] {
            assert_eq!(f8_e8m0_value(bits), value);
        }
        assert!(f8_e8m0_value(255).is_nan());
        // One step of the last bit above 1, over 1.
        for (dtype, one, step) in [
            (Dtype::Bf16, vec![0x80, 0x3f], 2f64.powi(-7)),
            (Dtype::F16, vec![0x00, 0x3c], 2f64.powi(-10)),
            (Dtype::F8E4m3, vec![0x38], 0.125),
            (Dtype::F8E5m2, vec![0x3c], 0.25),
            (Dtype::F8E8m0, vec![127], 1.0),
        ] {
            let mut next = one.clone();
            next[0] += 1;
            assert_eq!(
                measure(Some(dtype), &one, &next).floats.unwrap().relative_l2(),
                step,
                "{}",
                dtype.name()
            );
        }
    }

    #[test]
    fn other_dtypes_are_only_counted() {
        let (a, b) = ([1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 0x99]);
        let counts = |dtype| {
            let difference = measure(dtype, &a, &b);
            assert!(difference.floats.is_none());
            (difference.n_elements, difference.n_changed)
        };
        assert_eq!(counts(Some(Dtype::I64)), (1, 1));
        assert_eq!(counts(Some(Dtype::U16)), (4, 1));
        assert_eq!(counts(Some(Dtype::F4)), (16, 2));
        assert_eq!(counts(None), (8, 1));
    }
}
