//! The unsigned integers that elements are read as.

/// An element's bits; all operations are on bits, so they are the same on every machine.
pub trait Word: Copy + Default + PartialEq + std::fmt::Debug {
    /// Size in bytes.
    const BYTES: usize;
    /// From `BYTES` little-endian bytes; zero if there are fewer.
    fn read(bytes: &[u8]) -> Self;
    /// Into `BYTES` little-endian bytes; nothing if there are fewer.
    fn write(self, bytes: &mut [u8]);
    /// Shifts left, bits over the top lost; 0 for a shift by the width or more.
    fn shl(self, n_bits: u32) -> Self;
    /// Shifts right; 0 for a shift by the width or more.
    fn shr(self, n_bits: u32) -> Self;
    /// Shifts left by `n_bits` modulo the width.
    fn wrapping_shl(self, n_bits: u32) -> Self;
    /// Shifts right by `n_bits` modulo the width.
    fn wrapping_shr(self, n_bits: u32) -> Self;
    /// Bitwise or.
    fn or(self, other: Self) -> Self;
    /// Bitwise and.
    fn and(self, other: Self) -> Self;
    /// Bitwise exclusive or.
    fn xor(self, other: Self) -> Self;
    /// Sum, wrapping around.
    fn add(self, other: Self) -> Self;
    /// Difference, wrapping around.
    fn sub(self, other: Self) -> Self;
    /// Bits up to the top one that is set; 0 of zero.
    fn bit_len(self) -> u32;
    /// Bits below the lowest one that is set; the width of zero.
    fn trailing_zeros(self) -> u32;
    /// The low byte.
    fn low_u8(self) -> u8;
    /// The low 16 bits.
    fn low_u16(self) -> u16;
    /// The value.
    fn from_u8(value: u8) -> Self;
    /// The low bits of `value`.
    fn from_u16(value: u16) -> Self;
    /// The low bits of `value`.
    fn from_u64(value: u64) -> Self;
}

macro_rules! word {
    ($($int:ty),*) => {$(
        #[expect(clippy::cast_possible_truncation, clippy::cast_lossless, reason = "low bits are what is asked for")]
        #[allow(trivial_numeric_casts, reason = "one of the types is the target itself")]
        impl Word for $int {
            const BYTES: usize = size_of::<Self>();
            #[inline(always)]
            fn read(bytes: &[u8]) -> Self {
                bytes.first_chunk().map_or(0, |bytes| Self::from_le_bytes(*bytes))
            }
            #[inline(always)]
            fn write(self, bytes: &mut [u8]) {
                if let Some(place) = bytes.first_chunk_mut() {
                    *place = self.to_le_bytes();
                }
            }
            #[inline(always)]
            fn shl(self, n_bits: u32) -> Self {
                if n_bits >= Self::BITS { 0 } else { self << n_bits }
            }
            #[inline(always)]
            fn shr(self, n_bits: u32) -> Self {
                if n_bits >= Self::BITS { 0 } else { self >> n_bits }
            }
            #[inline(always)]
            fn wrapping_shl(self, n_bits: u32) -> Self {
                <$int>::wrapping_shl(self, n_bits)
            }
            #[inline(always)]
            fn wrapping_shr(self, n_bits: u32) -> Self {
                <$int>::wrapping_shr(self, n_bits)
            }
            #[inline(always)]
            fn or(self, other: Self) -> Self {
                self | other
            }
            #[inline(always)]
            fn and(self, other: Self) -> Self {
                self & other
            }
            #[inline(always)]
            fn xor(self, other: Self) -> Self {
                self ^ other
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn bit_len(self) -> u32 {
                Self::BITS - self.leading_zeros()
            }
            #[inline(always)]
            fn trailing_zeros(self) -> u32 {
                <$int>::trailing_zeros(self)
            }
            #[inline(always)]
            fn low_u8(self) -> u8 {
                self as u8
            }
            #[inline(always)]
            fn low_u16(self) -> u16 {
                self as u16
            }
            #[inline(always)]
            fn from_u8(value: u8) -> Self {
                value as Self
            }
            #[inline(always)]
            fn from_u16(value: u16) -> Self {
                value as Self
            }
            #[inline(always)]
            fn from_u64(value: u64) -> Self {
                value as Self
            }
        }
    )*};
}
word!(u8, u16, u32, u64);
