//! Escaped symbols: ranked by how common they are, ranks in Golomb-Rice codes (R. Rice, 1979).
//!
//! Below a table's range the weights of a trained tensor halve with each step of the exponent, so the unary code of
//! the rank (one bit for the commonest, two for the next), which is the Rice code of parameter 0, is close to ideal.
//! Exponents that are spread evenly, as those of weights that decay to nothing, want a larger parameter.

use crate::bits::{BitReader, BitWriter};
use crate::kernels::histogram::Counters;

/// Largest Rice parameter: ranks are below 256.
pub const MAX_PARAMETER: u8 = 7;

/// Appends the section: number of different values less 1, the values by falling count, the bits. Nothing for no
/// escapes. Returns the Rice parameter.
pub fn write(escapes: &[u8], dst: &mut Vec<u8>) -> u8 {
    if escapes.is_empty() {
        return 0;
    }
    let mut counters = Counters::default();
    counters.count(escapes);
    let counts = counters.total();
    let mut values: Vec<u8> = (0u8..=255).filter(|&value| counts[usize::from(value)] > 0).collect();
    values.sort_by_key(|&value| (std::cmp::Reverse(counts[usize::from(value)]), value));
    dst.push(u8::try_from(values.len() - 1).unwrap_or(u8::MAX));
    dst.extend_from_slice(&values);
    let sorted_counts = values.iter().map(|&value| counts[usize::from(value)]);
    let (_, parameter) = cheapest(sorted_counts);
    let mut codes = [Code::default(); 256];
    for (rank, &value) in (0u32..).zip(&values) {
        codes[usize::from(value)] = Code::new(rank, parameter.into());
    }
    let mut bits = BitWriter::new(dst);
    for &escape in escapes {
        let code = codes[usize::from(escape)];
        bits.put_zeros(code.zeros);
        bits.put(code.bits, code.n_bits);
    }
    bits.finish();
    parameter
}

/// The code of a rank: mostly one piece, behind zeros where it is too long for that.
#[derive(Debug, Clone, Copy, Default)]
struct Code {
    zeros: u32,
    bits: u32,
    n_bits: u32,
}

impl Code {
    /// The Rice code of `rank`, below 256.
    fn new(rank: u32, parameter: u32) -> Self {
        let quotient = rank >> parameter;
        let left = quotient.min(15);
        let low = rank & ((1 << parameter) - 1);
        Self { zeros: quotient - left, bits: 1 << left | low << (left + 1), n_bits: left + 1 + parameter }
    }
}

/// Bits that ranks take which are met as often as `sorted_counts`, by rank, says, and the Rice parameter for it.
pub fn cheapest(sorted_counts: impl Iterator<Item = u32> + Clone) -> (u64, u8) {
    let bits = |parameter: u8| -> u64 {
        let codes = (0u64..).map(|rank| (rank >> parameter) + 1 + u64::from(parameter));
        sorted_counts.clone().zip(codes).map(|(count, bits)| u64::from(count) * bits).sum()
    };
    (0..=MAX_PARAMETER).map(|parameter| (bits(parameter), parameter)).min().unwrap_or_default()
}

/// Reads `dst.len()` escapes from all of `section`; `None` if it is not what [`write()`] makes.
pub fn read(section: &[u8], parameter: u8, dst: &mut [u8]) -> Option<()> {
    if dst.is_empty() {
        return (section.is_empty() && parameter == 0).then_some(());
    }
    if parameter > MAX_PARAMETER {
        return None;
    }
    let (&n_values_less_1, rest) = section.split_first()?;
    let (values, bits) = rest.split_at_checked(usize::from(n_values_less_1) + 1)?;
    if parameter == 0 {
        return read_unary(values, bits, dst);
    }
    let mut reader = BitReader::new(bits);
    for escape in dst {
        let (high, low) = reader.get_unary_and(parameter.into())?;
        // In 64 bits, where no bit of a rank that is too large is shifted out.
        let rank = u64::from(high) << parameter | u64::from(low);
        *escape = *values.get(usize::try_from(rank).ok()?)?;
    }
    reader.is_exhausted().then_some(())
}

/// Reads ranks in unary code, a word of bits at a time: what is set in it is found without waiting for the code before.
fn read_unary(values: &[u8], bits: &[u8], dst: &mut [u8]) -> Option<()> {
    let (words, rest) = bits.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().map(|word| (u64::from_le_bytes(*word), 64));
    let last = (u64::from_le_bytes(last), 8 * rest.len());
    let mut dst = dst.iter_mut();
    let mut zeros = 0;
    for (mut word, n_bits) in words.chain(std::iter::once(last)) {
        let mut next = 0;
        while word != 0 {
            let one = word.trailing_zeros() as usize;
            *dst.next()? = *values.get(zeros + one - next)?;
            (zeros, next) = (0, one + 1);
            word &= word - 1;
        }
        zeros += n_bits - next;
    }
    // The last escape's one stands in the last byte.
    (dst.len() == 0 && zeros < 8).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_round_trip_and_truncation_is_seen() {
        for n in [0usize, 1, 2, 300, 5000] {
            let escapes: Vec<u8> = (0..n).map(|i| (200 - (i * i * 7 % 256).ilog2_or_zero()) as u8).collect();
            let mut section = Vec::new();
            let parameter = write(&escapes, &mut section);
            let mut back = vec![0; n];
            assert_eq!(read(&section, parameter, &mut back), Some(()));
            assert_eq!(back, escapes);
            if n > 0 {
                assert_eq!(read(&section[..section.len() - 1], parameter, &mut back), None);
                section.push(0);
                assert_eq!(read(&section, parameter, &mut back), None);
            }
        }
        let all: Vec<u8> = (0..=255).collect();
        let mut section = Vec::new();
        let parameter = write(&all, &mut section);
        // Evenly spread: about 8 bits each.
        assert!(parameter >= 5 && section.len() <= 1 + 256 + 288, "{parameter} {}", section.len());
        let mut back = vec![0; 256];
        assert_eq!(read(&section, parameter, &mut back), Some(()));
        assert_eq!(back, all);
        assert_eq!(read(&section, MAX_PARAMETER + 1, &mut back), None);
        // One value, and a quotient of 2^25: shifted by 7 it is a multiple of 2^32, but no rank.
        let mut section = vec![0, 9];
        section.resize(2 + (1 << 22), 0);
        section.push(1);
        assert_eq!(read(&section, 7, &mut [0]), None);
        assert_eq!(read(&[0, 9, 1], 7, &mut [0]), Some(()));
    }

    trait Ilog2OrZero {
        fn ilog2_or_zero(self) -> u32;
    }

    impl Ilog2OrZero for usize {
        fn ilog2_or_zero(self) -> u32 {
            self.checked_ilog2().unwrap_or(0)
        }
    }
}
