//! CRC-64/NVME by folding: bytes shrunk to 64 that have the same CRC, by loops that hold what they write in registers,
//! so that it need not be read once more.
//!
//! The method is that of V. Gopal and others, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction"
//! (Intel, 2009). Bytes are a polynomial over GF(2), the lowest bit of the first byte its highest power, and only what it
//! leaves modulo the CRC's polynomial P counts. To move 64 bytes past the next 64 is to multiply them by x^512: each of
//! their words by what the power at its place leaves modulo P.
//!
//! Where nothing is folded, all bytes are left to [`RunningCrc`], which also takes what is folded.

mod running;
#[cfg(target_arch = "x86_64")]
pub(super) mod x86;

#[cfg(target_arch = "x86_64")]
use super::Isa;
pub use running::RunningCrc;

/// P without its x^64; the highest bit is x^0.
const POLYNOMIAL: u64 = 0x9A6C_9329_AC4B_C9B5;

/// Bytes of a turn.
const TURN_BYTES: usize = 64;

/// Fewest bytes that are folded by a call of [`fold`].
#[cfg(target_arch = "x86_64")]
const MIN_FOLDED_BYTES: usize = 512;

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

/// The whole turns of `bytes` folded, so that they take a CRC from a state of 0 to where `bytes` take it from `state`.
///
/// `None` where folding here is not faster than the checksum's own way: for few bytes, on processors without VPCLMULQDQ, and
/// on those with AVX-512, whose checksum folds 64 bytes at once. With AVX2 alone it folds 16, and takes twice the time.
#[must_use]
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "the loop is for x86-64"))]
pub fn fold(state: u64, bytes: &[u8]) -> Option<Folded> {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= MIN_FOLDED_BYTES && Isa::detect() == Isa::Avx2 && is_x86_feature_detected!("vpclmulqdq")
    {
        let (turns, _) = bytes.as_chunks::<TURN_BYTES>();
        let (first, rest) = turns.split_first()?;
        let mut first = *first;
        for (byte, state) in first.iter_mut().zip(state.to_le_bytes()) {
            *byte ^= state;
        }
        // SAFETY: both features have just been detected, AVX2 as a part of its set.
        let lanes = unsafe { x86::fold_avx2(first, rest) };
        return Some(Folded { lanes, n_bytes: turns.len() * TURN_BYTES });
    }
    None
}

impl Default for Folded {
    fn default() -> Self {
        Self::new()
    }
}
