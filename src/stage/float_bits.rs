//! Elements of float types of 16 and 32 bits, as their bits.

use crate::dtype::Dtype;
use crate::kernels::dyadic::FloatFormat;

/// Widths of the fields of such a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FloatBits {
    pub(super) element_bits: u32,
    pub(super) mantissa_bits: u32,
}

impl FloatBits {
    pub(super) fn of(dtype: Dtype) -> Option<Self> {
        let FloatFormat { element_bytes, mantissa_bits } = FloatFormat::of(dtype)?;
        let element_bits = 8 * u32::try_from(element_bytes).ok()?;
        (element_bits <= 32).then_some(Self { element_bits, mantissa_bits })
    }

    /// The exponent field.
    pub(super) fn exponent(self, element: u32) -> usize {
        let exponent_mask = (1 << (self.element_bits - 1 - self.mantissa_bits)) - 1;
        (element >> self.mantissa_bits & exponent_mask) as usize
    }

    /// What `element` is more than `base`, if they have the same sign.
    pub(super) fn difference(self, element: u32, base: u32) -> Option<i32> {
        let sign = 1 << (self.element_bits - 1);
        // Both below 2^31 without their signs.
        let magnitude = |bits: u32| (bits & (sign - 1)).cast_signed();
        ((element ^ base) & sign == 0).then(|| magnitude(element) - magnitude(base))
    }

    /// The element that is `difference` more than `base`, of the same sign; what does not fit is cut off.
    pub(super) fn add(self, base: u32, difference: u32) -> u32 {
        let sign = 1 << (self.element_bits - 1);
        base & sign | base.wrapping_add(difference) & (sign - 1)
    }
}

/// The bits of an element of 2 or 4 bytes.
#[inline]
pub(super) fn word<const N: usize>(element: [u8; N]) -> u32 {
    let mut word = [0; 4];
    word[..N].copy_from_slice(&element);
    u32::from_le_bytes(word)
}

/// The elements of `bytes`, of 2 or 4 bytes each.
pub(super) fn elements<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<N>().0.iter().map(|element| word(*element))
}
