//! The definition, as plain loops that the gated wrappers widen.

use std::f64::consts::{LN_2, LOG2_E};

/// Bits of √½: mantissas are taken from [√½, √2).
const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
/// Bits of 1.
const ONE: u64 = 1023 << 52;
/// Bits of 2^52: a whole number below it, in the low bits, is added to 2^52.
const TWO_52: u64 = 0x4330_0000_0000_0000;
/// 1.5 · 2^52: a number added to it is rounded to a whole one, also a negative one.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
/// Terms of the series of the logarithm: the first one left out is below 2 · 0.172^17 / 17 = 1e-14.
const LOG_TERMS: usize = 8;
/// Terms of the series of the power: the first one left out is below 0.347^12 / 12! = 7e-15.
const EXP_TERMS: usize = 12;
const LOG_COEFFICIENTS: [f64; LOG_TERMS] = log_coefficients();
const EXP_COEFFICIENTS: [f64; EXP_TERMS] = exp_coefficients();

/// 2 ÷ (ln 2 · (2i + 1)).
const fn log_coefficients() -> [f64; LOG_TERMS] {
    let mut coefficients = [0.0; LOG_TERMS];
    let mut i = 0;
    while i < LOG_TERMS {
        coefficients[i] = 2.0 * LOG2_E / (2 * i + 1) as f64;
        i += 1;
    }
    coefficients
}

/// (ln 2)^i ÷ i!.
const fn exp_coefficients() -> [f64; EXP_TERMS] {
    let mut coefficients = [1.0; EXP_TERMS];
    let mut i = 1;
    while i < EXP_TERMS {
        coefficients[i] = coefficients[i - 1] * LN_2 / i as f64;
        i += 1;
    }
    coefficients
}

#[inline(always)]
pub(super) fn log2(values: &[f32], logs: &mut [f32]) {
    for (value, log) in values.iter().zip(logs) {
        let of_positive = round(log2_of(f64::from(*value)));
        let of_others = if *value == 0.0 { f32::NEG_INFINITY } else { f32::NAN };
        let finite = if *value > 0.0 { of_positive } else { of_others };
        *log = if *value == f32::INFINITY { f32::INFINITY } else { finite };
    }
}

#[inline(always)]
pub(super) fn exp2(logs: &[f32], values: &mut [f32]) {
    for (log, value) in logs.iter().zip(values) {
        let log = f64::from(*log);
        // What lies beyond is rounded to zero or infinity all the same.
        let below = if log < 130.0 { log } else { 130.0 };
        let power = round(exp2_of(if below > -160.0 { below } else { -160.0 }));
        *value = if log.is_nan() { f32::NAN } else { power };
    }
}

/// log₂ of a positive, finite, normal number: ln m = 2 artanh t with t = (m − 1) ÷ (m + 1), |t| < 0.172.
#[inline(always)]
fn log2_of(x: f64) -> f64 {
    let shifted = x.to_bits().wrapping_add(ONE - SQRT_HALF);
    let exponent = f64::from_bits(TWO_52 | shifted >> 52) - (f64::from_bits(TWO_52) + 1023.0);
    let mantissa = f64::from_bits((shifted & ((1 << 52) - 1)) + SQRT_HALF);
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let mut series = LOG_COEFFICIENTS[LOG_TERMS - 1];
    for i in (0..LOG_TERMS - 1).rev() {
        series = series * square + LOG_COEFFICIENTS[i];
    }
    exponent + t * series
}

/// 2^x for |x| < 1000: 2 to the nearest whole number, times a Taylor series in the rest, at most ½ in size.
#[inline(always)]
fn exp2_of(x: f64) -> f64 {
    let shifted = x + ROUNDER;
    let rest = x - (shifted - ROUNDER);
    let mut series = EXP_COEFFICIENTS[EXP_TERMS - 1];
    for i in (0..EXP_TERMS - 1).rev() {
        series = series * rest + EXP_COEFFICIENTS[i];
    }
    let whole = shifted.to_bits().wrapping_sub(ROUNDER.to_bits());
    series * f64::from_bits(whole.wrapping_shl(52).wrapping_add(ONE))
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
fn round(x: f64) -> f32 {
    x as f32
}
