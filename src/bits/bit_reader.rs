//! Bits out of bytes, least significant bit first.

/// Reads bits in the order [`super::BitWriter`] wrote them. Reading past the end gives `None`.
#[derive(Debug, Clone)]
pub struct BitReader<'a> {
    src: &'a [u8],
    next_byte: usize,
    pending: u64,
    pending_bits: u32,
}

impl<'a> BitReader<'a> {
    /// A reader of `src` from its first bit.
    #[must_use]
    pub fn new(src: &'a [u8]) -> Self {
        Self { src, next_byte: 0, pending: 0, pending_bits: 0 }
    }

    /// Tops `pending` up to 57 bits or more, or to the end of the data.
    fn refill(&mut self) {
        if let Some(word) = self.src.get(self.next_byte..).and_then(|rest| rest.first_chunk::<8>()) {
            // 56: whole bytes that fit above up to seven pending bits.
            self.pending |= u64::from_le_bytes(*word) << self.pending_bits;
            let taken = (63 - self.pending_bits) / 8;
            self.next_byte += taken as usize;
            self.pending_bits += taken * 8;
            return;
        }
        while self.pending_bits < 56 {
            let Some(&byte) = self.src.get(self.next_byte) else { return };
            self.pending |= u64::from(byte) << self.pending_bits;
            self.pending_bits += 8;
            self.next_byte += 1;
        }
    }

    /// The next `n_bits` (at most 32), or `None` at the end.
    #[inline]
    pub fn get(&mut self, n_bits: u32) -> Option<u32> {
        debug_assert!(n_bits <= 32);
        if self.pending_bits < n_bits {
            self.refill();
            if self.pending_bits < n_bits {
                return None;
            }
        }
        let value = u32::try_from(self.pending & ((1u64 << n_bits) - 1)).ok();
        self.pending >>= n_bits;
        self.pending_bits -= n_bits;
        value
    }

    /// The number of zeros before the next one, or `None` at the end.
    #[inline]
    pub fn get_unary(&mut self) -> Option<u32> {
        let mut zeros = 0u32;
        loop {
            let valid = self.pending & (u64::MAX >> (63 - self.pending_bits.min(63)) >> 1);
            if valid != 0 {
                let here = valid.trailing_zeros();
                self.pending >>= here + 1;
                self.pending_bits -= here + 1;
                return zeros.checked_add(here);
            }
            zeros = zeros.checked_add(self.pending_bits)?;
            self.pending = 0;
            self.pending_bits = 0;
            self.refill();
            if self.pending_bits == 0 {
                return None;
            }
        }
    }

    /// [`Self::get_unary`] and then [`Self::get`], in one go where both are pending.
    #[inline]
    pub fn get_unary_and(&mut self, n_bits: u32) -> Option<(u32, u32)> {
        if self.pending_bits < 32 {
            self.refill();
        }
        let zeros = self.pending.trailing_zeros();
        // Bits above the pending ones may be set, but then this is too long.
        let len = zeros + 1 + n_bits;
        if len > self.pending_bits {
            return Some((self.get_unary()?, self.get(n_bits)?));
        }
        let value = u32::try_from((self.pending >> (zeros + 1)) & ((1u64 << n_bits) - 1)).ok()?;
        self.pending >>= len;
        self.pending_bits -= len;
        Some((zeros, value))
    }

    /// The bytes behind the one that the next bit stands in; `None` unless what is left of that one is zeros.
    #[must_use]
    pub fn rest(&self) -> Option<&'a [u8]> {
        let whole_bytes = self.pending_bits as usize / 8;
        let padding = self.pending & ((1 << (self.pending_bits % 8)) - 1);
        if padding == 0 { self.src.get(self.next_byte - whole_bytes..) } else { None }
    }

    /// Whether all that is left is zero bits of the last byte.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        let valid = self.pending & (u64::MAX >> (63 - self.pending_bits.min(63)) >> 1);
        self.next_byte >= self.src.len() && self.pending_bits < 8 && valid == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::BitWriter;
    use super::*;

    #[test]
    fn bytes_behind_the_bits_are_found_wherever_the_reader_stands() {
        let bytes: Vec<u8> = (0..40).map(|byte| byte << 3).collect();
        for n_read in 0..=bytes.len() {
            let mut reader = BitReader::new(&bytes);
            (0..n_read).for_each(|_| assert!(reader.get(8).is_some()));
            assert_eq!(reader.rest(), Some(&bytes[n_read..]));
            if n_read < bytes.len() {
                reader.get(3);
                let expected = (bytes[n_read] >> 3 == 0).then_some(&bytes[n_read + 1..]);
                assert_eq!(reader.rest(), expected);
            }
        }
    }

    #[test]
    fn bits_and_unary_round_trip() {
        let mut bytes = Vec::new();
        let mut writer = BitWriter::new(&mut bytes);
        for value in 0..200u32 {
            writer.put(value, value % 33);
            writer.put_unary(value);
        }
        writer.finish();
        let mut reader = BitReader::new(&bytes);
        for value in 0..200u32 {
            let n_bits = value % 33;
            let mask = u32::try_from((1u64 << n_bits) - 1).unwrap();
            assert_eq!(reader.get(n_bits), Some(value & mask), "{value}");
            assert_eq!(reader.get_unary(), Some(value), "{value}");
        }
        assert!(reader.is_exhausted());
        // The same bits, taken two by two: each number in unary with the one behind it.
        let mut pairs = BitReader::new(&bytes);
        for value in 0..199u32 {
            let n_bits = (value + 1) % 33;
            let mask = u32::try_from((1u64 << n_bits) - 1).unwrap();
            assert_eq!(pairs.get_unary_and(n_bits), Some((value, (value + 1) & mask)), "{value}");
        }
        assert_eq!(pairs.get_unary_and(0), Some((199, 0)));
        assert_eq!(pairs.get_unary_and(0), None);
        assert_eq!(reader.rest(), Some(&[][..]));
        assert_eq!(reader.get(9), None);
        assert_eq!(reader.get_unary(), None);
    }
}
