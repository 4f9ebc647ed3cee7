//! Interleaved rANS with 8-bit probabilities, 16-bit states and byte renormalisation.
//!
//! The method is range ANS (J. Duda, "Asymmetric numeral systems", 2013, arXiv:1311.2540), with the states
//! interleaved as F. Giesen describes ("Interleaved entropy coders", 2014, arXiv:1402.3392). The parameters are
//! chosen for vectors: a state `x` lies in [256, 65536), frequencies sum to M = 256, so the slot `x mod M` is
//! one byte and every table fits registers. Symbols come in groups of 64; the symbol `2l` of a group belongs
//! to lane `l` of its vector A, the symbol `2l + 1` to lane `l` of its vector B. With G groups a step there are
//! 64·G states. Decoding one symbol:
//!
//! ```text
//! slot = x mod 256;  e = entry that owns slot;  x = freq[e]·(x div 256) + slot − cum[e]
//! if x < 256 { x = 256·x + next byte }
//! ```
//!
//! Within a group the lanes of A take their bytes before the lanes of B, in lane order. The last entry of a
//! table is the escape: its symbols' values come from a queue of bytes, in symbol order. An encoder starts with
//! every state at 256 and runs backwards, so a decoder ends with every state at 256: a check that costs nothing.

mod encode_table;
mod joined;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86_avx2;
#[cfg(target_arch = "x86_64")]
mod x86_avx512;

use super::Isa;
use super::crc64::Folded;
pub use joined::{Joined, Residual};

/// Symbols of one group: two vectors of 32 lanes.
pub const GROUP_LEN: usize = 64;
/// Most groups in a step.
pub const MAX_GROUPS: usize = 4;
/// Most entries of a table, the escape included.
pub const MAX_ENTRIES: usize = 64;
/// Sum of a table's frequencies.
pub const FREQ_SUM: usize = 256;
/// Lower end of a state's range.
pub const STATE_MIN: u16 = 256;
/// Bytes that must lie behind the data in the escape queue given to [`Decoder::new`], and that [`encode`] needs at
/// both ends of its output buffers.
pub const SLACK_BYTES: usize = 320;

/// One frequency table. Entries 0 to `n_entries − 2` are symbols, the last is the escape.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub struct Table {
    /// Entry that owns each slot.
    slot_to_entry: [u8; FREQ_SUM],
    /// Frequency of each entry, 0 to 255.
    freq: [u8; MAX_ENTRIES],
    /// Sum of the frequencies before each entry.
    cum: [u8; MAX_ENTRIES],
    /// Symbol value of each entry; of no meaning for the escape.
    value: [u8; MAX_ENTRIES],
    /// What each entry puts into the top 16 bits of an element, its high bytes and its low bytes; see
    /// [`Self::place_values`].
    placed: [[u8; MAX_ENTRIES]; 2],
    n_entries: u8,
}

impl Table {
    /// A table of `(value, frequency)` pairs and an escape that takes what is left of 256. `None` unless all
    /// frequencies are positive, there are 1 to 63 pairs, and the escape's frequency is positive.
    #[must_use]
    pub fn new(symbols: &[(u8, u8)]) -> Option<Self> {
        let n_entries = symbols.len() + 1;
        if symbols.is_empty() || n_entries > MAX_ENTRIES {
            return None;
        }
        let mut table = Self {
            slot_to_entry: [0; FREQ_SUM],
            freq: [0; MAX_ENTRIES],
            cum: [0; MAX_ENTRIES],
            value: [0; MAX_ENTRIES],
            placed: [[0; MAX_ENTRIES]; 2],
            n_entries: u8::try_from(n_entries).ok()?,
        };
        let mut cum = 0u8;
        for (entry, &(value, freq)) in (0u8..).zip(symbols) {
            let next = cum.checked_add(freq)?;
            if freq == 0 {
                return None;
            }
            table.freq[usize::from(entry)] = freq;
            table.cum[usize::from(entry)] = cum;
            table.value[usize::from(entry)] = value;
            table.slot_to_entry[usize::from(cum)..usize::from(next)].fill(entry);
            cum = next;
        }
        let escape = table.n_entries - 1;
        table.freq[usize::from(escape)] = cum.wrapping_neg();
        table.cum[usize::from(escape)] = cum;
        table.slot_to_entry[usize::from(cum)..].fill(escape);
        (cum > 0).then_some(table)
    }

    /// Readies the table for [`Decoder::next_joined`]: `place` gives the top 16 bits of an element by its symbol alone.
    pub fn place_values(&mut self, place: impl Fn(u8) -> u16) {
        for (entry, &value) in self.value.iter().enumerate() {
            [self.placed[1][entry], self.placed[0][entry]] = place(value).to_le_bytes();
        }
    }

    /// Number of entries, the escape included.
    #[must_use]
    pub fn n_entries(&self) -> usize {
        usize::from(self.n_entries)
    }
}

/// A [`Table`] as the encoders want it: symbol to entry, and the division by the frequency as a product.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub struct EncodeTable {
    /// Entry of each symbol value; the escape's entry for values that the table lacks.
    entry_of: [u8; 256],
    /// Frequency of each entry: a state that reaches 256 times as much gives off a byte first.
    freq: [u8; MAX_ENTRIES],
    /// 2^24 ÷ freq, rounded up: x div freq = x · reciprocal >> 24, exactly.
    reciprocal: [u32; MAX_ENTRIES],
    /// Low and high bytes of (2^16 − 1) ÷ freq, rounded down: x · factor >> 16 is x div freq, or 1 less.
    factor: [[u8; MAX_ENTRIES]; 2],
    cum: [u8; MAX_ENTRIES],
    escape: u8,
}

/// What both directions need to know of the data: tables, and which segment uses which.
#[derive(Debug)]
pub struct Plan<'a, T> {
    /// Groups in a step: 1, 2 or 4.
    pub groups: usize,
    /// Tables of the block.
    pub tables: &'a [T],
    /// Index into `tables` for each segment.
    pub table_ids: &'a [u8],
    /// Symbols of a segment, a multiple of `groups · 64`; the last segment may be shorter.
    pub segment_len: usize,
}

// By hand, since a derive would ask it of the tables too.
impl<T> Clone for Plan<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Plan<'_, T> {}

impl<T> Plan<'_, T> {
    /// Whether the plan fits `n_symbols` symbols, which loops rely on to stay inside their slices.
    fn fits(&self, n_symbols: usize) -> bool {
        let step = self.groups * GROUP_LEN;
        matches!(self.groups, 1 | 2 | MAX_GROUPS)
            && self.segment_len > 0
            && self.segment_len.is_multiple_of(step)
            && n_symbols.is_multiple_of(step)
            && self.table_ids.len() == n_symbols.div_ceil(self.segment_len)
            && self.table_ids.iter().all(|&id| usize::from(id) < self.tables.len())
    }
}

/// Where a decoder stands: next stream byte, next escape, next symbol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Position {
    stream: usize,
    escape: usize,
    symbol: usize,
}

/// A decoder of one block, a run of symbols at a time.
#[derive(Debug)]
pub struct Decoder<'a> {
    isa: Isa,
    plan: Plan<'a, Table>,
    states: [u16; MAX_GROUPS * GROUP_LEN],
    stream: &'a [u8],
    escapes: &'a [u8],
    n_escapes: usize,
    n_symbols: usize,
    position: Position,
    slots: scalar::SlotCache,
    /// Of each table, for AVX2.
    #[cfg(target_arch = "x86_64")]
    steps: Vec<x86_avx2::Steps>,
}

impl<'a> Decoder<'a> {
    /// A decoder of `n_symbols`, a multiple of `groups · 64`.
    ///
    /// `states` holds the initial state of every lane, for each group A's 32 then B's 32. `stream` is the coded bytes.
    /// `escapes` holds `n_escapes` values and at least [`SLACK_BYTES`] more. `None` if a state is out of range or the plan
    /// does not fit.
    #[must_use]
    pub fn new(
        isa: Isa,
        plan: Plan<'a, Table>,
        states: &[u16],
        stream: &'a [u8],
        escapes: &'a [u8],
        n_escapes: usize,
        n_symbols: usize,
    ) -> Option<Self> {
        let mut own_states = [STATE_MIN; MAX_GROUPS * GROUP_LEN];
        let is_valid = plan.fits(n_symbols)
            && states.len() == plan.groups * GROUP_LEN
            && states.iter().all(|&state| state >= STATE_MIN)
            && escapes.len() >= n_escapes.checked_add(SLACK_BYTES)?;
        own_states.get_mut(..states.len())?.copy_from_slice(states);
        let isa = if isa.available() { isa } else { Isa::Scalar };
        let position = Position::default();
        is_valid.then_some(Self {
            isa,
            plan,
            states: own_states,
            stream,
            escapes,
            n_escapes,
            n_symbols,
            position,
            slots: scalar::SlotCache::default(),
            #[cfg(target_arch = "x86_64")]
            steps: if isa == Isa::Avx2 {
                plan.tables.iter().map(x86_avx2::Steps::new).collect()
            } else {
                vec![]
            },
        })
    }

    /// Decodes the next `dst.len()` symbols, a multiple of `groups · 64`.
    ///
    /// `None` if the data runs out or no such number of symbols is left; `dst` then holds unspecified bytes.
    pub fn next(&mut self, dst: &mut [u8]) -> Option<()> {
        let first = self.position.symbol;
        let step = self.plan.groups * GROUP_LEN;
        if !dst.len().is_multiple_of(step) || dst.len() > self.n_symbols - first {
            return None;
        }
        let states = &mut self.states[..step];
        let mut tile = Tile {
            plan: &self.plan,
            #[cfg(target_arch = "x86_64")]
            steps: &self.steps,
            stream: self.stream,
            escapes: self.escapes,
            first,
            dst,
        };
        let mut position = decode_vectors(self.isa, &mut tile, states, self.position);
        if position.symbol < first + tile.dst.len() {
            position = decode_end(self.isa, &mut tile, states, position)?;
        }
        scalar::decode(&mut tile, states, &mut position, &mut self.slots)?;
        self.position = position;
        Some(())
    }

    /// `None` unless all symbols, bytes and escapes have been used up and every state is back where an encoder starts.
    #[must_use]
    pub fn finish(&self) -> Option<()> {
        let done = self.position.symbol == self.n_symbols
            && self.position.stream == self.stream.len()
            && self.position.escape == self.n_escapes
            && self.states.iter().all(|&state| state == STATE_MIN);
        done.then_some(())
    }
}

/// What the loops decode from and into: `dst` begins with symbol `first` of the block.
struct Tile<'a, 'd> {
    plan: &'a Plan<'a, Table>,
    #[cfg(target_arch = "x86_64")]
    steps: &'a [x86_avx2::Steps],
    stream: &'a [u8],
    escapes: &'a [u8],
    first: usize,
    dst: &'d mut [u8],
}

#[cfg(target_arch = "x86_64")]
impl<'a> Tile<'a, '_> {
    /// The symbols from `position` on by segments, each with its table's id; the first may be what is left of one.
    fn segments_from(&mut self, position: Position) -> impl Iterator<Item = (&mut [u8], u8)> + use<'a, '_> {
        let segment_len = self.plan.segment_len;
        let segment_idx = position.symbol / segment_len;
        let left_len = (segment_idx + 1) * segment_len - position.symbol;
        let rest = &mut self.dst[position.symbol - self.first..];
        let (left, whole) = rest.split_at_mut(left_len.min(rest.len()));
        let segments = std::iter::once(left).chain(whole.chunks_mut(segment_len));
        segments.zip(self.plan.table_ids.get(segment_idx..).unwrap_or_default().iter().copied())
    }
}

/// Stream bytes that one step of a vector loop may touch at most: one for each lane, and 32 that a load takes whatever it
/// needs.
const MAX_STEP_BYTES: usize = MAX_GROUPS * GROUP_LEN + 32;

/// The last of a stream, where vector loops stop since they might read past it: they go on in a copy with room behind. A
/// stream that makes them use that room fails the test of its length in [`Decoder::finish`].
#[cold]
fn decode_end(isa: Isa, tile: &mut Tile<'_, '_>, states: &mut [u16], position: Position) -> Option<Position> {
    let rest = tile.stream.get(position.stream..)?;
    let mut padded = [0; 2 * MAX_STEP_BYTES];
    let Some(place) = padded.get_mut(..rest.len()) else { return Some(position) };
    place.copy_from_slice(rest);
    let padded = &padded[..(rest.len() + MAX_STEP_BYTES).min(2 * MAX_STEP_BYTES)];
    let mut end = Tile {
        plan: tile.plan,
        #[cfg(target_arch = "x86_64")]
        steps: tile.steps,
        stream: padded,
        escapes: tile.escapes,
        first: tile.first,
        dst: &mut *tile.dst,
    };
    let from = Position { stream: 0, ..position };
    let at = decode_vectors(isa, &mut end, states, from);
    Some(Position { stream: position.stream + at.stream, ..at })
}

/// What vector loops can do of a tile, from `position` on; returns where they stop.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "vector loops are for x86-64"))]
fn decode_vectors(isa: Isa, tile: &mut Tile<'_, '_>, states: &mut [u16], position: Position) -> Position {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the functions enable.
            unsafe {
                match tile.plan.groups {
                    1 => x86_avx512::decode::<1>(tile, states, position),
                    2 => x86_avx512::decode::<2>(tile, states, position),
                    _ => x86_avx512::decode::<MAX_GROUPS>(tile, states, position),
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the functions enable.
            unsafe {
                match tile.plan.groups {
                    1 => x86_avx2::decode::<1>(tile, states, position),
                    2 => x86_avx2::decode::<2>(tile, states, position),
                    _ => x86_avx2::decode::<MAX_GROUPS>(tile, states, position),
                }
            }
        }
        _ => position,
    }
}

/// What vector loops can decode and join of a block, from its first symbol on; returns where they stop, and what they have
/// folded of the elements.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "such loops are for x86-64"))]
fn join_vectors(
    isa: Isa,
    tile: &mut Tile<'_, '_>,
    shape: joined::Shape,
    residual: &Residual<'_>,
    states: &mut [u16],
) -> (Position, Folded) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            use x86_avx512::decode_joined;
            let (plan, stream, dst) = (tile.plan, tile.stream, &mut *tile.dst);
            // SAFETY: `available` has just tested every feature that the functions enable.
            unsafe {
                match plan.groups {
                    1 => decode_joined::<1>(plan, stream, shape, residual, states, dst),
                    2 => decode_joined::<2>(plan, stream, shape, residual, states, dst),
                    _ => decode_joined::<MAX_GROUPS>(plan, stream, shape, residual, states, dst),
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            use x86_avx2::decode_joined;
            // SAFETY: as above.
            let position = unsafe {
                match tile.plan.groups {
                    1 => decode_joined::<1>(tile, shape, residual, states),
                    2 => decode_joined::<2>(tile, shape, residual, states),
                    _ => decode_joined::<MAX_GROUPS>(tile, shape, residual, states),
                }
            };
            (position, Folded::new())
        }
        _ => Default::default(),
    }
}

/// Where [`encode`] has put its results: from these offsets to the buffers' ends less [`SLACK_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    /// First byte of the coded stream.
    pub stream_start: usize,
    /// First byte of the escape values.
    pub escapes_start: usize,
}

/// Bytes that [`encode`] needs in each of its output buffers for `n_symbols`.
#[must_use]
pub fn encode_buffer_len(n_symbols: usize) -> usize {
    n_symbols + 2 * SLACK_BYTES
}

/// Encodes `symbols`, a multiple of `groups · 64`, backwards into the ends of `stream` and `escapes`.
///
/// Fills `states` with the final states, which a decoder starts from. `None` only if an argument breaks the
/// contract: a plan that does not fit, or buffers shorter than [`encode_buffer_len`].
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn encode(
    isa: Isa,
    plan: &Plan<'_, EncodeTable>,
    symbols: &[u8],
    states: &mut [u16],
    stream: &mut [u8],
    escapes: &mut [u8],
) -> Option<Encoded> {
    let buffer_len = encode_buffer_len(symbols.len());
    if !plan.fits(symbols.len())
        || states.len() != plan.groups * GROUP_LEN
        || stream.len() < buffer_len
        || escapes.len() < buffer_len
    {
        return None;
    }
    states.fill(STATE_MIN);
    Some(match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the functions enable.
            unsafe {
                match plan.groups {
                    1 => x86_avx512::encode::<1>(plan, symbols, states, stream, escapes),
                    2 => x86_avx512::encode::<2>(plan, symbols, states, stream, escapes),
                    _ => x86_avx512::encode::<MAX_GROUPS>(plan, symbols, states, stream, escapes),
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86_avx2::encode(plan, symbols, states, stream, escapes) }
        }
        _ => scalar::encode(plan, symbols, states, stream, escapes),
    })
}

#[cfg(test)]
mod tests;
