//! Divisions by frequencies as products, worked out for every entry.

use super::{EncodeTable, MAX_ENTRIES, Table};

impl EncodeTable {
    /// The encoder's view of `table`.
    #[must_use]
    pub fn new(table: &Table) -> Self {
        let escape = table.n_entries - 1;
        let mut encode = Self {
            entry_of: [escape; 256],
            threshold: [0; MAX_ENTRIES],
            reciprocal: [0; MAX_ENTRIES],
            factor: [0; MAX_ENTRIES],
            shift: [0; MAX_ENTRIES],
            complement: [0; MAX_ENTRIES],
            bias: [0; MAX_ENTRIES],
            cum: table.cum,
            escape,
            has_large_freq: false,
        };
        for entry in 0..table.n_entries() {
            let freq = u16::from(table.freq[entry]);
            if entry < usize::from(escape) {
                encode.entry_of[usize::from(table.value[entry])] = u8::try_from(entry).unwrap_or(escape);
            }
            encode.threshold[entry] = freq << 8;
            encode.reciprocal[entry] = (1u32 << 24).div_ceil(u32::from(freq.max(1)));
            encode.complement[entry] = 256 - freq;
            encode.bias[entry] = u16::from(table.cum[entry]);
            encode.has_large_freq |= freq > 128;
            let log2 = freq.max(1).ilog2();
            if freq == 1 {
                encode.factor[entry] = u16::MAX;
                encode.bias[entry] += 255;
            } else if freq.is_power_of_two() {
                encode.factor[entry] = 1 << 15;
                encode.shift[entry] = u16::try_from(log2 - 1).unwrap_or(0);
            } else {
                // Rounded up the quotient is exact for freq up to 128; rounded down it is at most 1 too small.
                let (numerator, freq) = (1u32 << (16 + log2), u32::from(freq));
                let factor = if freq > 128 { numerator / freq } else { numerator.div_ceil(freq) };
                encode.factor[entry] = u16::try_from(factor).unwrap_or(u16::MAX);
                encode.shift[entry] = u16::try_from(log2).unwrap_or(0);
            }
        }
        encode
    }

    /// Whether `symbol` has an entry of its own.
    #[must_use]
    pub fn contains(&self, symbol: u8) -> bool {
        self.entry_of[usize::from(symbol)] != self.escape
    }
}
