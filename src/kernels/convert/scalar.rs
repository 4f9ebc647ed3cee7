//! The definition, as plain loops that the gated wrappers widen.

use crate::dtype::Dtype;

/// Difference of the exponent biases of `f32` and F16, at the place of `f32`'s exponent.
const BIAS_DIFFERENCE: u32 = (127 - 15) << 23;
/// Bits of 0.5: its last place is 2^-24, F16's smallest subnormal number.
const HALF: u32 = 0x3f00_0000;

#[inline(always)]
pub(super) fn to_f32(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    match dtype {
        Dtype::F32 => widen(bytes, values, f32::from_le_bytes),
        Dtype::F64 => widen(bytes, values, |le| f64_to_f32(f64::from_le_bytes(le))),
        Dtype::Bf16 => {
            widen(bytes, values, |le| f32::from_bits(u32::from(u16::from_le_bytes(le)) << 16));
        }
        _ => widen(bytes, values, |le| f16_to_f32(u16::from_le_bytes(le))),
    }
}

#[inline(always)]
pub(super) fn from_f32(dtype: Dtype, values: &[f32], bytes: &mut [u8]) {
    from_values(dtype, values.iter().copied(), bytes);
}

/// Values as they come, each rounded to `dtype`.
#[inline(always)]
pub(in crate::kernels) fn from_values(dtype: Dtype, values: impl Iterator<Item = f32>, bytes: &mut [u8]) {
    match dtype {
        Dtype::F32 => narrow(values, bytes, f32::to_le_bytes),
        Dtype::F64 => narrow(values, bytes, |value| f64::from(value).to_le_bytes()),
        Dtype::Bf16 => narrow(values, bytes, |value| f32_to_bf16(value).to_le_bytes()),
        _ => narrow(values, bytes, |value| f32_to_f16(value).to_le_bytes()),
    }
}

#[inline(always)]
fn widen<const N: usize>(bytes: &[u8], values: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    for (value, le) in values.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = convert(*le);
    }
}

#[inline(always)]
fn narrow<const N: usize>(
    values: impl Iterator<Item = f32>,
    bytes: &mut [u8],
    convert: impl Fn(f32) -> [u8; N],
) {
    for (value, le) in values.zip(bytes.as_chunks_mut::<N>().0) {
        *le = convert(value);
    }
}

/// To nearest even, which is what the cast does.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
fn f64_to_f32(value: f64) -> f32 {
    value as f32
}

#[inline(always)]
pub(in crate::kernels) fn f16_to_f32(half: u16) -> f32 {
    let magnitude = u32::from(half & 0x7fff);
    let sign = u32::from(half & 0x8000) << 16;
    // An F16 subnormal number is so many units of 2^-24, and the bits of 0.5 count those, too.
    let subnormal = (f32::from_bits(HALF + magnitude) - 0.5).to_bits();
    let finite = if magnitude < 0x400 { subnormal } else { (magnitude << 13) + BIAS_DIFFERENCE };
    let bits = if magnitude < 0x7c00 { finite } else { magnitude << 13 | 0x7f80_0000 };
    f32::from_bits(bits | sign)
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the upper half of the bits has been shifted down")]
fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    // The largest finite numbers carry over into infinity, as rounding asks.
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let kept = if bits & 0x7fff_ffff > 0x7f80_0000 { bits >> 16 | 0x40 } else { rounded };
    kept as u16
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "every case fits 16 bits")]
fn f32_to_f16(value: f32) -> u16 {
    let magnitude = value.to_bits() & 0x7fff_ffff;
    let sign = value.to_bits() >> 16 & 0x8000;
    // The addition rounds at 2^-24, ties to even.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(HALF);
    let normal = magnitude.wrapping_add(0xfff + (magnitude >> 13 & 1)).wrapping_sub(BIAS_DIFFERENCE) >> 13;
    // 2^-14 is the smallest normal number.
    let finite = if magnitude < 0x3880_0000 { subnormal } else { normal };
    // 65520 lies half way between the largest number, 65504, and what would come next.
    let bounded = if magnitude < 0x477f_f000 { finite } else { 0x7c00 };
    let nan = 0x7e00 | (magnitude >> 13 & 0x3ff);
    (sign | if magnitude > 0x7f80_0000 { nan } else { bounded }) as u16
}
