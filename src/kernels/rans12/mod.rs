//! Interleaved rANS with 12-bit probabilities, 32-bit states and renormalisation by 16-bit words.
//!
//! The method is range ANS (J. Duda, "Asymmetric numeral systems", 2013, arXiv:1311.2540), with the states
//! interleaved as F. Giesen describes ("Interleaved entropy coders", 2014, arXiv:1402.3392). A state `x` lies in
//! [2^16, 2^32), frequencies sum to 4096. There are 32 lanes, and symbol `i` belongs to lane `i mod 32`. Decoding one:
//!
//! ```text
//! slot = x mod 4096;  v = symbol that owns slot;  x = freq(v)·(x div 4096) + slot − cum(v)
//! if x < 65536 { x = 65536·x + next word }
//! ```
//!
//! The lanes take their words in lane order. Tables may come in pairs, of which each lane's chain of dependent
//! quantization ([`super::trellis`]) chooses one for each symbol, by the parities of the symbols before it.
//!
//! The last rows of a block may form a *tail*, in which no word is read: an encoder starts it with states of a few bits
//! instead of 16 and lets them grow, which saves 2 bytes a lane.

mod scalar;
mod tail;

use super::Isa;
pub use tail::{decode_tail, encode_tail};

/// Interleaved states.
pub const LANES: usize = 32;
/// Slots that the symbols of a table share.
pub const SLOTS: usize = 1 << SCALE_BITS;
/// Lower end of a state's range.
pub const STATE_MIN: u32 = 1 << 16;
/// Log2 of [`SLOTS`].
const SCALE_BITS: u32 = 12;

/// Frequency of each symbol byte; together 4096.
pub type Freqs = [u16; 256];

/// What each slot decodes to: the symbol, its offset in the symbol's range << 8, the symbol's frequency << 20.
pub type SlotTable = [u32; SLOTS];

/// Frequency of each symbol, and the sum of the frequencies before it << 16.
pub type EncodeTable = [u32; 256];

/// Fills `slots` from `freqs`. `None` unless they sum to 4096 and none is 4096, which the slots' field cannot hold (and
/// where there is nothing to decode).
pub fn fill_slots(freqs: &Freqs, slots: &mut SlotTable) -> Option<()> {
    let mut rest = &mut slots[..];
    for (symbol, &freq) in (0u32..).zip(freqs).filter(|&(_, &freq)| freq > 0) {
        let packed = symbol | u32::from(freq) << 20;
        let own = rest.split_off_mut(..usize::from(freq))?;
        if own.len() == SLOTS {
            return None;
        }
        (0u32..).zip(own).for_each(|(offset, slot)| *slot = packed | offset << 8);
    }
    rest.is_empty().then_some(())
}

/// The encoder's view of `freqs`, which sum to at most 4096.
#[must_use]
pub fn encode_table(freqs: &Freqs) -> EncodeTable {
    let mut cum = 0;
    freqs.map(|freq| {
        let packed = u32::from(freq) | cum << 16;
        cum += u32::from(freq);
        packed
    })
}

/// Which table each symbol uses.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Tables come in pairs: of pair `p` table 2·p + q, where q is the quantizer in use in the lane's chain.
    pub paired: bool,
    /// Table, or pair of tables, of each segment.
    pub table_ids: &'a [u8],
    /// Symbols of a segment, a multiple of [`LANES`]; the last segment may be shorter.
    pub segment_len: usize,
}

impl Plan<'_> {
    /// Whether the plan fits `n_symbols` symbols and `n_tables` tables.
    fn fits(&self, n_symbols: usize, n_tables: usize) -> bool {
        let n_choices = if self.paired { n_tables / 2 } else { n_tables };
        self.segment_len > 0
            && self.segment_len.is_multiple_of(LANES)
            && self.table_ids.len() >= n_symbols.div_ceil(self.segment_len)
            && self.table_ids.iter().all(|&id| usize::from(id) < n_choices)
    }
}

/// The lanes between two runs of symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes {
    /// rANS states.
    pub states: [u32; LANES],
    /// States of the chains of dependent quantization; they do not change unless tables come in pairs.
    pub chains: [u8; LANES],
}

impl Lanes {
    /// Lanes with these rANS states and every chain at its beginning.
    #[must_use]
    pub fn new(states: [u32; LANES]) -> Self {
        Self { states, chains: [0; LANES] }
    }
}

/// Decodes the first `dst.len()` symbols of a block and returns how many of `words` (little-endian) that took.
///
/// `None` if they run out or the plan does not fit; `dst` then holds unspecified bytes. Only the last run of a block may
/// end within a row of [`LANES`] symbols.
pub fn decode(
    isa: Isa,
    plan: &Plan<'_>,
    tables: &[SlotTable],
    words: &[[u8; 2]],
    lanes: &mut Lanes,
    dst: &mut [u8],
) -> Option<usize> {
    if !plan.fits(dst.len(), tables.len()) {
        return None;
    }
    let _ = isa;
    scalar::decode(plan, tables, words, lanes, dst)
}

/// Bytes that [`encode`] needs as its buffer for `n_symbols`.
#[must_use]
pub fn encode_buffer_len(n_symbols: usize) -> usize {
    2 * n_symbols + SLACK_BYTES
}

/// Room in front of the words, for stores of whole vectors.
const SLACK_BYTES: usize = 64;

/// Encodes `symbols` backwards into the end of `buffer`, from `states` on and leaving the states there that a decoder
/// starts from; returns where the words begin.
///
/// Where tables come in pairs `quantizers` holds a bit for each symbol, a word of [`LANES`] bits for each row; otherwise it
/// is empty. `None` if the plan does not fit, a symbol has no frequency, or the buffer is shorter than
/// [`encode_buffer_len`].
pub fn encode(
    isa: Isa,
    plan: &Plan<'_>,
    tables: &[EncodeTable],
    symbols: &[u8],
    quantizers: &[u32],
    states: &mut [u32; LANES],
    buffer: &mut [u8],
) -> Option<usize> {
    let has_quantizers = !plan.paired || quantizers.len() >= symbols.len().div_ceil(LANES);
    if !plan.fits(symbols.len(), tables.len())
        || !has_quantizers
        || buffer.len() < encode_buffer_len(symbols.len())
    {
        return None;
    }
    let _ = isa;
    scalar::encode(plan, tables, symbols, quantizers, states, buffer)
}

/// For each row of [`LANES`] symbols the bits of the quantizers that a decoder finds in use, from the symbols' parities.
pub fn trace_quantizers(isa: Isa, symbols: &[u8], quantizers: &mut Vec<u32>) {
    let _ = isa;
    quantizers.clear();
    scalar::trace_quantizers(symbols, quantizers);
}
