//! CRC-64/NVME by folding: bytes shrunk to 64 that have the same CRC, by loops that hold what they write in registers,
//! so that it need not be read once more.
//!
//! The method is that of V. Gopal and others, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction"
//! (Intel, 2009). Bytes are a polynomial over GF(2), the lowest bit of the first byte its highest power, and only what it
//! leaves modulo the CRC's polynomial P counts. To move 64 bytes past the next 64 is to multiply them by x^512: each of
//! their words by what the power at its place leaves modulo P.
//!
//! Where a loop folds nothing, all bytes are left to the checksum of `container`, which also takes what is folded.

#[cfg(target_arch = "x86_64")]
pub(super) mod x86;

/// P without its x^64; the highest bit is x^0.
const POLYNOMIAL: u64 = 0x9A6C_9329_AC4B_C9B5;

/// Bytes of a turn.
const TURN_BYTES: usize = 64;

/// Of the first and of the second word of each 128 bits, x^512 at their places. A product comes out one power too high,
/// hence 1 less.
#[cfg(target_arch = "x86_64")]
const FACTORS: [u64; 2] = [power(512 + 64 - 1), power(512 - 1)];

/// What x^`exponent` leaves modulo P.
#[cfg(target_arch = "x86_64")]
const fn power(exponent: u32) -> u64 {
    let mut value = 1 << 63;
    let mut i = 0;
    while i < exponent {
        value = value >> 1 ^ if value & 1 == 1 { POLYNOMIAL } else { 0 };
        i += 1;
    }
    value
}

/// The word that stands for `value` · x^-64 modulo P.
const fn word_before(mut value: u64) -> u64 {
    let mut i = 0;
    while i < 64 {
        // P ends in 1, so adding it makes any value a multiple of x.
        let is_odd = value >> 63 == 1;
        value = if is_odd { (value ^ POLYNOMIAL) << 1 | 1 } else { value << 1 };
        i += 1;
    }
    value
}

/// The first bytes of some run, folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Folded {
    lanes: [u8; TURN_BYTES],
    n_bytes: usize,
}

impl Folded {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        let mut lanes = [0; TURN_BYTES];
        let (_, last) = lanes.split_at_mut(TURN_BYTES - 8);
        // What turns a state of 0 into the one that a CRC starts from.
        last.copy_from_slice(&word_before(u64::MAX).to_le_bytes());
        Self { lanes, n_bytes: 0 }
    }

    /// How many bytes have been folded.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Bytes that take a CRC from a state of 0 to the one that the folded bytes lead to from its usual start.
    #[must_use]
    pub fn lanes(&self) -> &[u8; TURN_BYTES] {
        &self.lanes
    }
}

impl Default for Folded {
    fn default() -> Self {
        Self::new()
    }
}
