//! Divisions by frequencies as products, worked out for every entry.

use super::{EncodeTable, MAX_ENTRIES, Table};

impl EncodeTable {
    /// The encoder's view of `table`.
    #[must_use]
    pub fn new(table: &Table) -> Self {
        let escape = table.n_entries - 1;
        let mut entry_of = [escape; 256];
        for (entry, &value) in (0..escape).zip(&table.value) {
            entry_of[usize::from(value)] = entry;
        }
        let mut factor = [[0; MAX_ENTRIES]; 2];
        for (entry, freq) in table.freq.iter().enumerate() {
            [factor[0][entry], factor[1][entry]] = factor_of(*freq).to_le_bytes();
        }
        let reciprocal = table.freq.map(|freq| (1u32 << 24).div_ceil(u32::from(freq.max(1))));
        Self { entry_of, freq: table.freq, reciprocal, factor, cum: table.cum, escape }
    }

    /// Whether `symbol` has an entry of its own.
    #[must_use]
    pub fn contains(&self, symbol: u8) -> bool {
        self.entry_of[usize::from(symbol)] != self.escape
    }
}

/// What a state, below 256 · `freq`, is multiplied by for the upper half of the product to be its quotient or 1 less.
pub(super) fn factor_of(freq: u8) -> u16 {
    u16::MAX / u16::from(freq.max(1))
}
