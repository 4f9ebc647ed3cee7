//! Logarithm, exponential and error function by fixed additions, multiplications and divisions of f64, so that every
//! platform gives the same bits; those of the standard library may differ from one C library to the next.

/// 1 ÷ ln 2.
pub const LOG2_E: f64 = std::f64::consts::LOG2_E;

/// Binary logarithm, relative error below 1e-12; 0 and less give −1022, infinity and NaN 1024.
#[must_use]
#[inline]
pub fn log2(x: f64) -> f64 {
    /// Bits of √½, where the mantissa's range begins.
    const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    if x < f64::MIN_POSITIVE {
        return -1022.0;
    }
    if !x.is_finite() {
        return 1024.0;
    }
    let shifted = x.to_bits().wrapping_sub(SQRT_HALF);
    let exponent = (shifted as i64) >> 52;
    let mantissa = f64::from_bits(x.to_bits().wrapping_sub((exponent as u64) << 52));
    // ln m = 2 artanh t with t = (m − 1) ÷ (m + 1), |t| < 0.172: the series ends at t¹⁵, the rest is below 1e-14.
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let t2 = t * t;
    let mut series = 1.0 / 15.0;
    for n in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = series * t2 + 1.0 / n;
    }
    exponent as f64 + 2.0 * LOG2_E * t * series
}

/// 2 to the power of `x`, relative error below 1e-12; 0 below −1022, infinity above 1023.
#[must_use]
#[inline]
pub fn exp2(x: f64) -> f64 {
    if x.is_nan() || x > 1023.0 {
        return f64::INFINITY;
    }
    if x < -1022.0 {
        return 0.0;
    }
    let whole = (x + 0.5).floor();
    // exp of at most ½ ln 2 = 0.347 in size: the Taylor series to its 12th power, the rest is below 1e-15.
    let y = (x - whole) * std::f64::consts::LN_2;
    let mut series = 1.0;
    for n in (1..=12u32).rev() {
        series = 1.0 + y * series / f64::from(n);
    }
    #[expect(clippy::cast_possible_truncation, reason = "from −1022 to 1023 as checked above")]
    let biased = (1023 + whole as i64).cast_unsigned();
    series * f64::from_bits(biased << 52)
}

/// e to the power of `x`, as [`exp2`].
#[must_use]
#[inline]
pub fn exp(x: f64) -> f64 {
    exp2(x * LOG2_E)
}

/// The logistic function, 1 ÷ (1 + e⁻ˣ).
#[must_use]
#[inline]
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + exp(-x))
}

/// Cumulative distribution of the standard normal distribution, absolute error below 1e-7.
///
/// Abramowitz and Stegun, 26.2.17: the tail is the density times a polynomial in 1 ÷ (1 + 0.2316419 x).
#[must_use]
pub fn normal_cdf(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 5] =
        [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let magnitude = x.abs();
    let t = 1.0 / (1.0 + 0.231_641_9 * magnitude);
    let polynomial = COEFFICIENTS.iter().rev().fold(0.0, |sum, coefficient| (sum + coefficient) * t);
    let density = exp(-0.5 * magnitude * magnitude) / (2.0 * std::f64::consts::PI).sqrt();
    let tail = density * polynomial;
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

    use super::*;

    #[test]
    fn functions_agree_with_the_standard_library() {
        for i in -4000..4000 {
            let x = f64::from(i) * 0.1317;
            let power = exp2(x);
            assert!((power / x.exp2() - 1.0).abs() < 1e-12, "{x}");
            assert!((log2(power) - x).abs() < 1e-12 * x.abs().max(1.0), "{x}");
            assert!((sigmoid(x) - 1.0 / (1.0 + (-x).exp())).abs() < 1e-12, "{x}");
        }
        for x in [1.0, 2.0, 0.5, SQRT_2, SQRT_2 + 1e-9, SQRT_2 - 1e-9, FRAC_1_SQRT_2, 3e-300, 7e300] {
            assert!((log2(x) - x.log2()).abs() < 1e-12 * x.log2().abs().max(1.0), "{x}");
        }
        assert_eq!((log2(0.0), log2(-1.0), log2(f64::INFINITY)), (-1022.0, -1022.0, 1024.0));
        assert_eq!((exp2(-2000.0), exp2(2000.0), exp2(f64::NEG_INFINITY)), (0.0, f64::INFINITY, 0.0));
    }

    #[test]
    fn normal_distribution_at_known_points() {
        for (x, p) in [(0.0, 0.5), (1.0, 0.841_344_746), (-1.96, 0.024_997_895), (3.0, 0.998_650_102)] {
            assert!((normal_cdf(x) - p).abs() < 1e-7, "{x}");
        }
        assert!(normal_cdf(-40.0) == 0.0 && normal_cdf(40.0) == 1.0);
    }
}
