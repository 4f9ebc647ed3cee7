//! How far a reconstruction lies from its original.

use crate::dtype::Dtype;

/// Lanes that are summed apart; element `i` of a chunk belongs to lane `i mod 16`.
const LANES: usize = 16;
/// Elements whose squares are summed before the sum is added to the total; with [`LANES`], the fixed order.
pub(super) const CHUNK_LEN: usize = 4096;

/// Sums over elements `x` and their reconstructions `x̂`. An element with the same bits on both sides has no error,
/// whatever it is; one that is not finite on just one side, or differently, has an infinite one.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ErrorSums {
    /// Elements compared.
    pub n_elements: u64,
    /// Elements with `x̂ ≠ x`; zeros of either sign are equal.
    pub n_changed: u64,
    /// Elements with `x̂ = 0` and `x ≠ 0`.
    pub n_zeroed: u64,
    /// Largest `|x − x̂|`.
    pub max_abs: f64,
    /// Sum of `(x − x̂)²`.
    pub error_sq: f64,
    /// Sum of `x²` over the finite `x`.
    pub value_sq: f64,
}

impl ErrorSums {
    /// Adds the sums of the elements that follow; the total depends on the order, which must be fixed.
    pub fn add(&mut self, next: &Self) {
        self.n_elements += next.n_elements;
        self.n_changed += next.n_changed;
        self.n_zeroed += next.n_zeroed;
        self.max_abs = self.max_abs.max(next.max_abs);
        self.error_sq += next.error_sq;
        self.value_sq += next.value_sq;
    }

    /// `‖x − x̂‖₂ ÷ ‖x‖₂`; 0 where nothing changed, infinite where only zeros did.
    #[must_use]
    pub fn relative_l2(&self) -> f64 {
        if self.error_sq == 0.0 { 0.0 } else { (self.error_sq / self.value_sq).sqrt() }
    }
}

#[inline(always)]
pub(super) fn measure(dtype: Dtype, original: &[u8], decoded: &[u8]) -> ErrorSums {
    match dtype {
        Dtype::F64 => sum(original, decoded, f64::from_le_bytes),
        Dtype::F32 => sum(original, decoded, of_f32),
        Dtype::Bf16 => sum(original, decoded, of_bf16),
        _ => sum(original, decoded, of_f16),
    }
}

#[inline(always)]
pub(super) fn max_scaled(dtype: Dtype, original: &[u8], decoded: &[u8], scales: &[f32]) -> f64 {
    match dtype {
        Dtype::F64 => largest_quotient(original, decoded, scales, f64::from_le_bytes),
        Dtype::F32 => largest_quotient(original, decoded, scales, of_f32),
        Dtype::Bf16 => largest_quotient(original, decoded, scales, of_bf16),
        _ => largest_quotient(original, decoded, scales, of_f16),
    }
}

#[inline(always)]
fn of_f32(le: [u8; 4]) -> f64 {
    f64::from(f32::from_le_bytes(le))
}

#[inline(always)]
fn of_bf16(le: [u8; 2]) -> f64 {
    f64::from(f32::from_bits(u32::from(u16::from_le_bytes(le)) << 16))
}

#[inline(always)]
fn of_f16(le: [u8; 2]) -> f64 {
    f64::from(super::super::convert::f16_to_f32(u16::from_le_bytes(le)))
}

/// `|x − x̂|`; none between equal bits, infinite where only one is finite or both are not in different ways.
#[inline(always)]
fn error(x: f64, reconstruction: f64) -> f64 {
    let difference = (x - reconstruction).abs();
    let difference = if difference.is_nan() { f64::INFINITY } else { difference };
    if x.to_bits() == reconstruction.to_bits() { 0.0 } else { difference }
}

#[inline(always)]
fn largest_quotient<const N: usize>(
    original: &[u8],
    decoded: &[u8],
    scales: &[f32],
    value: impl Fn([u8; N]) -> f64,
) -> f64 {
    let (original, decoded) = (original.as_chunks::<N>().0, decoded.as_chunks::<N>().0);
    let (mut largest, mut quotients) = (0.0, [0.0; LANES]);
    // Dividing keeps the order, and is left to the end of each run of one scale.
    let (mut errors, mut scale_of_errors) = ([0.0; LANES], 1.0);
    let mut divide = |errors: &mut [f64; LANES], scale: f32| {
        let largest_error = errors.iter().fold(0.0, |max, &error| f64::max(max, error));
        largest = f64::max(largest, largest_error / f64::from(scale));
        *errors = [0.0; LANES];
    };
    let (rows, rest) = original.as_chunks::<LANES>();
    let (decoded_rows, decoded_rest) = decoded.as_chunks::<LANES>();
    let (scale_rows, scales_rest) = scales.as_chunks::<LANES>();
    for ((row, decoded_row), scales) in rows.iter().zip(decoded_rows).zip(scale_rows) {
        if !are_all(scales, scale_of_errors) {
            divide(&mut errors, scale_of_errors);
            scale_of_errors = scales[0];
        }
        if are_all(scales, scale_of_errors) {
            for lane in 0..LANES {
                let error = error(value(row[lane]), value(decoded_row[lane]));
                errors[lane] = if error > errors[lane] { error } else { errors[lane] };
            }
        } else {
            for lane in 0..LANES {
                let quotient = error(value(row[lane]), value(decoded_row[lane])) / f64::from(scales[lane]);
                quotients[lane] = if quotient > quotients[lane] { quotient } else { quotients[lane] };
            }
        }
    }
    divide(&mut errors, scale_of_errors);
    let rest = rest.iter().zip(decoded_rest).zip(scales_rest);
    let rest = rest.map(|((x, decoded), scale)| error(value(*x), value(*decoded)) / f64::from(*scale));
    rest.chain(quotients).fold(largest, f64::max)
}

#[inline(always)]
fn are_all(scales: &[f32; LANES], scale: f32) -> bool {
    scales.iter().fold(true, |are_all, other| are_all & (*other == scale))
}

#[inline(always)]
fn sum<const N: usize>(original: &[u8], decoded: &[u8], value: impl Fn([u8; N]) -> f64) -> ErrorSums {
    let (original, decoded) = (original.as_chunks::<N>().0, decoded.as_chunks::<N>().0);
    let mut total = ErrorSums { n_elements: original.len() as u64, ..ErrorSums::default() };
    for (original, decoded) in original.chunks(CHUNK_LEN).zip(decoded.chunks(CHUNK_LEN)) {
        let mut lanes = Lanes::default();
        let (rows, rest) = original.as_chunks::<LANES>();
        let (decoded_rows, decoded_rest) = decoded.as_chunks::<LANES>();
        for (row, decoded_row) in rows.iter().zip(decoded_rows) {
            lanes.add(row, decoded_row, &value);
        }
        if !rest.is_empty() {
            // What is padded is zero on both sides.
            let (mut row, mut decoded_row) = ([[0; N]; LANES], [[0; N]; LANES]);
            row[..rest.len()].copy_from_slice(rest);
            decoded_row[..rest.len()].copy_from_slice(decoded_rest);
            lanes.add(&row, &decoded_row, &value);
        }
        total.add(&lanes.total());
    }
    total
}

#[derive(Default)]
struct Lanes {
    max_abs: [f64; LANES],
    error_sq: [f64; LANES],
    value_sq: [f64; LANES],
    n_changed: [u64; LANES],
    n_zeroed: [u64; LANES],
}

impl Lanes {
    #[inline(always)]
    fn add<const N: usize>(
        &mut self,
        original: &[[u8; N]; LANES],
        decoded: &[[u8; N]; LANES],
        value: &impl Fn([u8; N]) -> f64,
    ) {
        for lane in 0..LANES {
            let (x, reconstruction) = (value(original[lane]), value(decoded[lane]));
            let error = error(x, reconstruction);
            let finite = if x.abs() < f64::INFINITY { x } else { 0.0 };
            self.max_abs[lane] = if error > self.max_abs[lane] { error } else { self.max_abs[lane] };
            self.error_sq[lane] += error * error;
            self.value_sq[lane] += finite * finite;
            self.n_changed[lane] += u64::from(error != 0.0);
            self.n_zeroed[lane] += u64::from((reconstruction == 0.0) & (x != 0.0));
        }
    }

    /// The lanes added in their order.
    fn total(&self) -> ErrorSums {
        ErrorSums {
            n_elements: 0,
            n_changed: self.n_changed.iter().sum(),
            n_zeroed: self.n_zeroed.iter().sum(),
            max_abs: self.max_abs.iter().fold(0.0, |max, &lane| lane.max(max)),
            error_sq: self.error_sq.iter().fold(0.0, |sum, lane| sum + lane),
            value_sq: self.value_sq.iter().fold(0.0, |sum, lane| sum + lane),
        }
    }
}
