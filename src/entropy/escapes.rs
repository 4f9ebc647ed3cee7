//! Escaped symbols: ranked by how common they are, ranks in unary.
//!
//! Below a table's range the weights of a trained tensor halve with each step of the exponent, so the unary code of
//! the rank (one bit for the commonest, two for the next) is close to ideal.

use crate::bits::{BitReader, BitWriter};
use crate::kernels::histogram::Counters;

/// Appends the section: number of different values less 1, the values by falling count, the bits. Nothing for no
/// escapes.
pub fn write(escapes: &[u8], dst: &mut Vec<u8>) {
    if escapes.is_empty() {
        return;
    }
    let mut counters = Counters::default();
    counters.count(escapes);
    let counts = counters.total();
    let mut values: Vec<u8> = (0u8..=255).filter(|&value| counts[usize::from(value)] > 0).collect();
    values.sort_by_key(|&value| (std::cmp::Reverse(counts[usize::from(value)]), value));
    dst.push(u8::try_from(values.len() - 1).unwrap_or(u8::MAX));
    dst.extend_from_slice(&values);
    let mut ranks = [0u32; 256];
    for (rank, &value) in (0u32..).zip(&values) {
        ranks[usize::from(value)] = rank;
    }
    let mut bits = BitWriter::new(dst);
    escapes.iter().for_each(|&escape| bits.put_unary(ranks[usize::from(escape)]));
    bits.finish();
}

/// Reads `dst.len()` escapes from all of `section`; `None` if it is not what [`write()`] makes.
pub fn read(section: &[u8], dst: &mut [u8]) -> Option<()> {
    if dst.is_empty() {
        return section.is_empty().then_some(());
    }
    let (&n_values_less_1, rest) = section.split_first()?;
    let (values, bits) = rest.split_at_checked(usize::from(n_values_less_1) + 1)?;
    let mut reader = BitReader::new(bits);
    for escape in dst {
        *escape = *values.get(reader.get_unary()? as usize)?;
    }
    reader.is_exhausted().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_round_trip_and_truncation_is_seen() {
        for n in [0usize, 1, 2, 300, 5000] {
            let escapes: Vec<u8> = (0..n).map(|i| (200 - (i * i * 7 % 256).ilog2_or_zero()) as u8).collect();
            let mut section = Vec::new();
            write(&escapes, &mut section);
            let mut back = vec![0; n];
            assert_eq!(read(&section, &mut back), Some(()));
            assert_eq!(back, escapes);
            if n > 0 {
                assert_eq!(read(&section[..section.len() - 1], &mut back), None);
                section.push(0);
                assert_eq!(read(&section, &mut back), None);
            }
        }
        let all: Vec<u8> = (0..=255).collect();
        let mut section = Vec::new();
        write(&all, &mut section);
        let mut back = vec![0; 256];
        assert_eq!(read(&section, &mut back), Some(()));
        assert_eq!(back, all);
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
