//! Golomb-Rice codes (R. Rice, 1979) with a way out: what would take a long unary part is written raw.

use super::{BitReader, BitWriter};

/// Unary parts end here: this one says that a raw value follows.
const LIMIT: u32 = 16;

/// Largest parameter: any shorter value still fits 32 bits.
pub const MAX_PARAMETER: u32 = 24;

/// What a code holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rice {
    /// A value of the code itself.
    Coded(u32),
    /// A raw value of the writer's choice.
    Raw(u32),
}

/// Appends `value` with parameter `k` (0 to [`MAX_PARAMETER`]): `value >> k` in unary and its low `k` bits; if the former
/// is 16 or more, 16 in unary and the `n_bits` bits of `raw`.
pub fn put_rice(bits: &mut BitWriter<'_>, value: u64, k: u32, raw: u32, n_bits: u32) {
    match u32::try_from(value) {
        Ok(value) if value >> k < LIMIT => {
            bits.put_unary(value >> k);
            bits.put(value, k);
        }
        _ => {
            bits.put_unary(LIMIT);
            bits.put(raw, n_bits);
        }
    }
}

/// Bits that [`put_rice`] takes.
#[must_use]
pub fn rice_bits(value: u64, k: u32, n_bits: u32) -> u32 {
    match u32::try_from(value >> k) {
        Ok(quotient) if quotient < LIMIT => quotient + 1 + k,
        _ => LIMIT + 1 + n_bits,
    }
}

/// Reads what [`put_rice`] wrote; `None` at the end or where it is no such code.
pub fn get_rice(bits: &mut BitReader<'_>, k: u32, n_bits: u32) -> Option<Rice> {
    let quotient = bits.get_unary()?;
    match quotient {
        0..LIMIT => Some(Rice::Coded(quotient << k | bits.get(k)?)),
        LIMIT => Some(Rice::Raw(bits.get(n_bits)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip_short_and_raw() {
        let values = [0u64, 1, 2, 15, 16, 255, 1 << 20, u64::from(u32::MAX), 1 << 33];
        for k in [0, 1, 7, MAX_PARAMETER] {
            let mut bytes = Vec::new();
            let mut writer = BitWriter::new(&mut bytes);
            values.iter().for_each(|&value| put_rice(&mut writer, value, k, 77, 32));
            writer.finish();
            let n_bits: u32 = values.iter().map(|&value| rice_bits(value, k, 32)).sum();
            assert_eq!(bytes.len(), n_bits.div_ceil(8) as usize);
            let mut reader = BitReader::new(&bytes);
            for value in values {
                let expected =
                    if value >> k < 16 { Rice::Coded(u32::try_from(value).unwrap()) } else { Rice::Raw(77) };
                assert_eq!(get_rice(&mut reader, k, 32), Some(expected), "{value} {k}");
            }
        }
        assert_eq!(get_rice(&mut BitReader::new(&[0, 0, 0, 255]), 0, 5), None);
    }
}
