//! Interleaved rANS with 12-bit probabilities, 32-bit states and renormalisation by 16-bit words.
//!
//! The method is range ANS (J. Duda, "Asymmetric numeral systems", 2013, arXiv:1311.2540), with the states
//! interleaved as F. Giesen describes ("Interleaved entropy coders", 2014, arXiv:1402.3392). A state `x` lies in
//! [2^16, 2^32), frequencies sum to 4096. There are 32 lanes, and symbol `i` belongs to lane `i mod 32`; or 8, or 64, in the
//! same way. Decoding one:
//!
//! ```text
//! slot = x mod 4096;  v = symbol that owns slot;  x = freq(v)·(x div 4096) + slot − cum(v)
//! if x < 65536 { x = 65536·x + next word }
//! ```
//!
//! The lanes take their words in lane order. Tables may come in pairs, of which each lane's chain of dependent
//! quantization ([`super::trellis`]) chooses one for each symbol, by the parities of the symbols before it.
//!
//! The last symbols of a block may form a *tail*, in which no word is read: an encoder starts it with states of a few bits
//! instead of 16 and lets them grow, which saves 2 bytes a lane.

mod plan;
mod scalar;
mod tail;
#[cfg(target_arch = "x86_64")]
mod x86_avx2;
#[cfg(target_arch = "x86_64")]
mod x86_avx512;

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::Isa;
use super::prefetch::Spread;
use super::quantize::SHEET_LEN;
#[cfg(target_arch = "x86_64")]
use plan::{MIXED, MIXED_PAIRS, is_paired};
pub use plan::{MIXED_TABLES, Plan, SheetTables, TableIds};
pub use tail::{decode_tail, encode_tail, is_end};

/// Lanes, symbols of a row, and chains of dependent quantization.
pub const LANES: usize = 32;
/// Lanes of long blocks, where a lane's room does not matter: from one of its states to the next takes so long that more
/// lanes at a time take hardly more. Not where tables come in pairs.
pub const MANY_LANES: usize = 64;
/// Lanes of short blocks, where the states of 32 would take too much room; coded by scalar code.
pub const FEW_LANES: usize = 8;
/// Slots that the symbols of a table share.
pub const SLOTS: usize = 1 << SCALE_BITS;
/// Sum of a table's frequencies, as wide as states.
pub const FREQ_SUM: u32 = 1 << SCALE_BITS;
/// Lower end of a state's range.
pub const STATE_MIN: u32 = 1 << 16;
/// Log2 of [`SLOTS`].
const SCALE_BITS: u32 = 12;

/// rANS states of the lanes; those behind the last lane are of no meaning.
pub type States = [u32; MANY_LANES];

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

/// The lanes between two runs of symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes {
    /// rANS states.
    pub states: States,
    /// States of the chains of dependent quantization; they do not change unless tables come in pairs.
    pub chains: [u8; LANES],
}

impl Lanes {
    /// Lanes with these rANS states and every chain at its beginning.
    #[must_use]
    pub fn new(states: States) -> Self {
        Self { states, chains: [0; LANES] }
    }
}

/// Decodes the first `dst.len()` symbols of a block and returns how many of `words` (little-endian) that took.
///
/// `None` if they run out or the plan does not fit; `dst` then holds unspecified bytes. Only the last run of a block may
/// end within a row of a symbol for each lane. Meanwhile `fetch` is fetched from memory.
pub fn decode(
    isa: Isa,
    plan: &Plan<'_>,
    tables: &[SlotTable],
    words: &[[u8; 2]],
    lanes: &mut Lanes,
    dst: &mut [u8],
    fetch: &[u8],
) -> Option<usize> {
    if !plan.fits(dst.len(), tables.len()) {
        return None;
    }
    let mut fetch = Spread::over(fetch, dst.len() / plan.n_lanes.max(LANES));
    let position = decode_vectors(isa, plan, tables, words, lanes, Position::default(), dst, &mut fetch);
    if position.symbol == dst.len() {
        return Some(position.word);
    }
    let position = decode_end(isa, plan, tables, words, lanes, position, dst)?;
    scalar::decode(plan, tables, words, lanes, position, dst)
}

/// Where a decoder stands: next symbol, next word.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    symbol: usize,
    word: usize,
}

/// Bytes of words that a sheet takes at most, and that a window looks at behind.
#[cfg(target_arch = "x86_64")]
const SHEET_WINDOW: usize = 2 * SHEET_LEN + WINDOW;

/// Bytes of words that vector loops look at in a row: a word for each lane, and what the last load takes besides.
#[cfg(target_arch = "x86_64")]
const WINDOW: usize = 2 * MANY_LANES + 32;

/// The last words, where vector loops stop since they might read past the end: they go on in a copy with room behind.
/// `None` if that room is used.
#[cfg(target_arch = "x86_64")]
fn decode_end(
    isa: Isa,
    plan: &Plan<'_>,
    tables: &[SlotTable],
    words: &[[u8; 2]],
    lanes: &mut Lanes,
    position: Position,
    dst: &mut [u8],
) -> Option<Position> {
    let rest = words.get(position.word..)?;
    let mut padded = [[0; 2]; WINDOW];
    let Some(place) = padded.get_mut(..rest.len()) else { return Some(position) };
    place.copy_from_slice(rest);
    // One word more than there are: taking it shows.
    let padded = &padded[..(rest.len() + 1 + WINDOW / 2).min(WINDOW)];
    let at = decode_vectors(
        isa,
        plan,
        tables,
        padded,
        lanes,
        Position { word: 0, ..position },
        dst,
        &mut Spread::none(),
    );
    (at.word <= rest.len()).then_some(Position { word: position.word + at.word, ..at })
}

#[cfg(not(target_arch = "x86_64"))]
fn decode_end(
    _: Isa,
    _: &Plan<'_>,
    _: &[SlotTable],
    _: &[[u8; 2]],
    _: &mut Lanes,
    position: Position,
    _: &mut [u8],
) -> Option<Position> {
    Some(position)
}

/// What vector loops can do from `position` on; returns where they stop.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "vector loops are for x86-64"))]
#[expect(
    clippy::too_many_arguments,
    reason = "symbols, all that they are decoded by, and what is fetched meanwhile"
)]
fn decode_vectors(
    isa: Isa,
    plan: &Plan<'_>,
    tables: &[SlotTable],
    words: &[[u8; 2]],
    lanes: &mut Lanes,
    position: Position,
    dst: &mut [u8],
    fetch: &mut Spread<'_>,
) -> Position {
    match isa {
        _ if plan.n_lanes == FEW_LANES => position,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the functions enable.
            unsafe {
                match plan.kind() {
                    (false, false, false) => {
                        x86_avx512::decode::<1, 2, LANES>(plan, tables, words, lanes, position, dst, fetch)
                    }
                    (false, false, true) => x86_avx512::decode::<1, 4, MANY_LANES>(
                        plan, tables, words, lanes, position, dst, fetch,
                    ),
                    (false, true, _) => {
                        x86_avx512::decode::<2, 2, LANES>(plan, tables, words, lanes, position, dst, fetch)
                    }
                    (true, false, false) => x86_avx512::decode::<MIXED, 2, LANES>(
                        plan, tables, words, lanes, position, dst, fetch,
                    ),
                    (true, false, true) => x86_avx512::decode::<MIXED, 4, MANY_LANES>(
                        plan, tables, words, lanes, position, dst, fetch,
                    ),
                    (true, true, _) => x86_avx512::decode::<MIXED_PAIRS, 2, LANES>(
                        plan, tables, words, lanes, position, dst, fetch,
                    ),
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe {
                match plan.kind() {
                    (false, false, false) => {
                        x86_avx2::decode::<1, 4, LANES>(plan, tables, words, lanes, position, dst, fetch)
                    }
                    (false, false, true) => {
                        x86_avx2::decode::<1, 8, MANY_LANES>(plan, tables, words, lanes, position, dst, fetch)
                    }
                    (false, true, _) => {
                        x86_avx2::decode::<2, 4, LANES>(plan, tables, words, lanes, position, dst, fetch)
                    }
                    (true, false, false) => {
                        x86_avx2::decode::<MIXED, 4, LANES>(plan, tables, words, lanes, position, dst, fetch)
                    }
                    (true, false, true) => x86_avx2::decode::<MIXED, 8, MANY_LANES>(
                        plan, tables, words, lanes, position, dst, fetch,
                    ),
                    (true, true, _) => x86_avx2::decode::<MIXED_PAIRS, 4, LANES>(
                        plan, tables, words, lanes, position, dst, fetch,
                    ),
                }
            }
        }
        _ => position,
    }
}

/// Decodes sheets of symbols of [`MANY_LANES`] lanes from the front of `dst`, as many as vector loops can, and returns how many
/// these are, and how many of `words` they took. Others are left to [`decode`], row by row. Meanwhile `fetch` is fetched
/// from memory.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "vector loops are for x86-64"))]
pub fn decode_sheets(
    isa: Isa,
    tables: SheetTables<'_>,
    words: &[[u8; 2]],
    lanes: &mut Lanes,
    dst: &mut [u8],
    fetch: &[u8],
) -> (usize, usize) {
    let sheets = dst.as_chunks_mut().0;
    let mut fetch = Spread::over(fetch, (sheets.len() * SHEET_LEN / MANY_LANES).max(1));
    #[cfg(target_arch = "x86_64")]
    if let Some(halves) = tables.halves(sheets.len()) {
        return match isa {
            Isa::Avx512 if isa.available() => {
                // SAFETY: `available` has just tested every feature that the function enables.
                unsafe { x86_avx512::decode_sheets(tables, halves, words, lanes, sheets, &mut fetch) }
            }
            Isa::Avx2 if isa.available() => {
                // SAFETY: as above.
                unsafe { x86_avx2::decode_sheets(tables, halves, words, lanes, sheets, &mut fetch) }
            }
            _ => (0, 0),
        };
    }
    (0, 0)
}

/// Entries of tables that belong together, by index over all of them.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "a gather takes a pointer")]
fn gather_512<const N: usize, const LEN: usize>(tables: &[[u32; LEN]; N], idx: __m512i) -> __m512i {
    const { assert!((N * LEN).is_power_of_two() && N * LEN <= 1 << 17) }
    #[expect(clippy::cast_possible_truncation, reason = "at most 2^17")]
    let mask = (N * LEN - 1) as i32;
    // SAFETY: the mask keeps every index within the N · LEN entries, and N · LEN is a power of two.
    unsafe {
        _mm512_i32gather_epi32::<4>(_mm512_and_si512(idx, _mm512_set1_epi32(mask)), tables.as_ptr().cast())
    }
}

/// As [`gather_512`].
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
#[allow(unsafe_code, reason = "a gather takes a pointer")]
fn gather_256<const N: usize, const LEN: usize>(tables: &[[u32; LEN]; N], idx: __m256i) -> __m256i {
    const { assert!((N * LEN).is_power_of_two() && N * LEN <= 1 << 17) }
    #[expect(clippy::cast_possible_truncation, reason = "at most 2^17")]
    let mask = (N * LEN - 1) as i32;
    // SAFETY: as above.
    unsafe {
        _mm256_i32gather_epi32::<4>(tables.as_ptr().cast(), _mm256_and_si256(idx, _mm256_set1_epi32(mask)))
    }
}

/// Bytes that [`encode`] needs as its buffer for `n_symbols`.
#[must_use]
pub fn encode_buffer_len(n_symbols: usize) -> usize {
    2 * n_symbols + SLACK_BYTES
}

/// Room in front of the words, for stores of whole vectors, and for a row that is taken for longer than it is.
const SLACK_BYTES: usize = 128;

/// Encodes `symbols` backwards into the end of `buffer`, from `states` on and leaving the states there that a decoder
/// starts from; returns where the words begin.
///
/// Where tables come in pairs `quantizers` holds a bit for each symbol, a word of [`LANES`] bits for each row; otherwise it
/// is empty. `None` if the plan does not fit, a symbol has no frequency, or the buffer is shorter than
/// [`encode_buffer_len`].
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn encode(
    isa: Isa,
    plan: &Plan<'_>,
    tables: &[EncodeTable],
    symbols: &[u8],
    quantizers: &[u32],
    states: &mut States,
    buffer: &mut [u8],
) -> Option<usize> {
    let has_quantizers = !plan.paired || quantizers.len() >= symbols.len().div_ceil(LANES);
    if !plan.fits(symbols.len(), tables.len())
        || !has_quantizers
        || buffer.len() < encode_buffer_len(symbols.len())
    {
        return None;
    }
    // What is left of the last row first: it is coded backwards.
    let (rows, rest) = symbols.split_at(symbols.len() - symbols.len() % plan.n_lanes.max(LANES));
    let at =
        scalar::encode(plan, tables, rest, rows.len() / LANES, quantizers, states, buffer, buffer.len())?;
    match isa {
        _ if plan.n_lanes == FEW_LANES => {
            scalar::encode(plan, tables, rows, 0, quantizers, states, buffer, at)
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the functions enable.
            unsafe {
                match plan.kind() {
                    (false, false, false) => {
                        x86_avx512::encode::<1, 2, LANES>(plan, tables, rows, quantizers, states, buffer, at)
                    }
                    (false, false, true) => x86_avx512::encode::<1, 4, MANY_LANES>(
                        plan, tables, rows, quantizers, states, buffer, at,
                    ),
                    (false, true, _) => {
                        x86_avx512::encode::<2, 2, LANES>(plan, tables, rows, quantizers, states, buffer, at)
                    }
                    (true, false, false) => x86_avx512::encode::<MIXED, 2, LANES>(
                        plan, tables, rows, quantizers, states, buffer, at,
                    ),
                    (true, false, true) => x86_avx512::encode::<MIXED, 4, MANY_LANES>(
                        plan, tables, rows, quantizers, states, buffer, at,
                    ),
                    (true, true, _) => x86_avx512::encode::<MIXED_PAIRS, 2, LANES>(
                        plan, tables, rows, quantizers, states, buffer, at,
                    ),
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe {
                match plan.kind() {
                    (false, false, false) => {
                        x86_avx2::encode::<1, 4, LANES>(plan, tables, rows, quantizers, states, buffer, at)
                    }
                    (false, false, true) => x86_avx2::encode::<1, 8, MANY_LANES>(
                        plan, tables, rows, quantizers, states, buffer, at,
                    ),
                    (false, true, _) => {
                        x86_avx2::encode::<2, 4, LANES>(plan, tables, rows, quantizers, states, buffer, at)
                    }
                    (true, false, false) => x86_avx2::encode::<MIXED, 4, LANES>(
                        plan, tables, rows, quantizers, states, buffer, at,
                    ),
                    (true, false, true) => x86_avx2::encode::<MIXED, 8, MANY_LANES>(
                        plan, tables, rows, quantizers, states, buffer, at,
                    ),
                    (true, true, _) => x86_avx2::encode::<MIXED_PAIRS, 4, LANES>(
                        plan, tables, rows, quantizers, states, buffer, at,
                    ),
                }
            }
        }
        _ => scalar::encode(plan, tables, rows, 0, quantizers, states, buffer, at),
    }
}

/// For each row of [`LANES`] symbols the bits of the quantizers that a decoder finds in use, from the symbols' parities.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn trace_quantizers(isa: Isa, symbols: &[u8], quantizers: &mut Vec<u32>) {
    quantizers.clear();
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86_avx2::trace_quantizers(symbols, quantizers) }
        }
        _ => scalar::trace_quantizers(symbols, quantizers),
    }
}

#[cfg(test)]
mod tests;
