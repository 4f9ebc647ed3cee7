//! Bits into bytes, least significant bit first.

/// Appends bits to a byte vector; the first bit written is the lowest of the first byte.
#[derive(Debug)]
pub struct BitWriter<'a> {
    dst: &'a mut Vec<u8>,
    pending: u64,
    pending_bits: u32,
}

impl<'a> BitWriter<'a> {
    /// A writer that appends to `dst`.
    pub fn new(dst: &'a mut Vec<u8>) -> Self {
        Self { dst, pending: 0, pending_bits: 0 }
    }

    /// Appends the low `n_bits` (at most 32) of `value`.
    #[inline]
    pub fn put(&mut self, value: u32, n_bits: u32) {
        debug_assert!(n_bits <= 32);
        let mask = (1u64 << n_bits) - 1;
        self.pending |= (u64::from(value) & mask) << self.pending_bits;
        self.pending_bits += n_bits;
        if self.pending_bits >= 32 {
            let [a, b, c, d, ..] = self.pending.to_le_bytes();
            self.dst.extend_from_slice(&[a, b, c, d]);
            self.pending >>= 32;
            self.pending_bits -= 32;
        }
    }

    /// Appends `value` zeros and a one: the unary code.
    pub fn put_unary(&mut self, value: u32) {
        let left = value % 31;
        self.put_zeros(value - left);
        self.put(1 << left, left + 1);
    }

    /// Appends zeros.
    #[inline]
    pub fn put_zeros(&mut self, mut n_bits: u32) {
        while n_bits > 0 {
            let part = n_bits.min(32);
            self.put(0, part);
            n_bits -= part;
        }
    }

    /// Pads the last byte with zeros and writes it.
    pub fn finish(self) {
        let n_bytes = self.pending_bits.div_ceil(8) as usize;
        self.dst.extend_from_slice(&self.pending.to_le_bytes()[..n_bytes]);
    }
}
