//! A section to indices.

use super::super::log_freq::{self, Range};
use super::columns::Columns;
use super::escapes;
use super::{
    ESCAPE, HAS_COLUMNS, HAS_ESCAPES, HAS_FEW_LANES, IS_CONSTANT, MAX_TABLES, MIN_SEGMENT_LOG2, id_bits,
    n_lanes, segment_len,
};
use crate::bits::BitReader;
use crate::kernels::Isa;
use crate::kernels::index_split::{
    HIGH_PARTS, MAX_LOW_BITS, MAX_RANGES, Ranges, SYMBOL_BIAS, join_low_plane, join_symbols, push_outside,
};
use crate::kernels::pack_bits::{self, GROUP_LEN};
use crate::kernels::rans12::{
    Lanes, MANY_LANES, MIXED_TABLES, Plan, SLOTS, STATE_MIN, SlotTable, States, TableIds, decode,
    decode_tail, fill_slots, is_end,
};

/// Indices that are decoded at a time: all their forms stay in the nearest cache. A multiple of [`MANY_LANES`] and
/// [`GROUP_LEN`], and a power of two, so that a segment is part of a run or made of whole runs.
pub const RUN_LEN: usize = 4096;

/// Decodes the indices of blocks, reusing its scratch memory.
#[derive(Debug, Default)]
pub struct IndexDecoder {
    tables: Vec<SlotTable>,
    ranges: Vec<Range>,
    table_ids: Vec<u8>,
    columns: Columns,
    /// Ids of a run's symbols, where columns have a say in them.
    symbol_ids: Vec<u8>,
    symbols: Vec<u8>,
    /// Places of escapes in the run.
    escape_places: Vec<usize>,
    packed: Vec<u8>,
    plane: Vec<u8>,
}

/// The symbols that are no escapes.
const SYMBOLS: Ranges =
    Ranges { first: [log_freq::ESCAPE + 1; MAX_RANGES], last: [log_freq::ODD_ESCAPE - 1; MAX_RANGES] };

/// What the head of a section says of its symbols, besides tables and table ids.
#[derive(Debug)]
struct Head {
    n_lanes: usize,
    paired: bool,
    by_columns: bool,
    segment_len: usize,
    tail_steps: usize,
    states: States,
}

/// A section whose indices are decoded run by run, in order.
#[derive(Debug)]
pub struct IndexRuns<'a> {
    decoder: &'a mut IndexDecoder,
    n_indices: usize,
    /// Index that the next run begins with.
    at: usize,
    low_bits: u32,
    /// The upper part of the low bits, packed.
    packed: &'a [u8],
    /// Planes of whole bytes of them, the lowest first.
    planes: &'a [u8],
    symbols: Symbols<'a>,
}

/// Where the symbols of a section come from.
#[derive(Debug)]
enum Symbols<'a> {
    /// All indices are this but for their low bits.
    Constant(i32),
    Coded(Box<Coded<'a>>),
}

#[derive(Debug)]
struct Coded<'a> {
    head: Head,
    lanes: Lanes,
    /// The symbol that the tail begins with.
    tail_at: usize,
    /// Those that are left.
    words: &'a [[u8; 2]],
    escapes: escapes::Reader<'a>,
}

impl IndexDecoder {
    /// Decodes all of `section` into all of `indices`; `None` if it is no section of that many indices, which then hold
    /// unspecified values. `dependent` as for [`super::IndexEncoder::encode`].
    pub fn decode(&mut self, isa: Isa, section: &[u8], dependent: bool, indices: &mut [i32]) -> Option<()> {
        let mut runs = self.open(section, dependent, indices.len())?;
        for run in indices.chunks_mut(RUN_LEN) {
            runs.next(isa, run, &[])?;
        }
        runs.finish()
    }

    /// Begins to decode all of `section`, which holds `n_indices`; otherwise as [`Self::decode`].
    pub fn open<'a>(
        &'a mut self,
        section: &'a [u8],
        dependent: bool,
        n_indices: usize,
    ) -> Option<IndexRuns<'a>> {
        if n_indices == 0 {
            let symbols = Symbols::Constant(0);
            let runs =
                IndexRuns { decoder: self, n_indices, at: 0, low_bits: 0, packed: &[], planes: &[], symbols };
            return section.is_empty().then_some(runs);
        }
        let mut rest = section;
        let head = *rest.split_off_first()?;
        let low_bits = u32::from(head & 31);
        if low_bits > MAX_LOW_BITS {
            return None;
        }
        let (packed_len, planes_len) =
            (packed_len(n_indices, low_bits % 8)?, n_indices.checked_mul(low_bits as usize / 8)?);
        if head & IS_CONSTANT != 0 {
            let high = i32::from(*rest.split_off_first()?) - SYMBOL_BIAS;
            if head & (HAS_ESCAPES | HAS_FEW_LANES) != 0 || !HIGH_PARTS.contains(&high) {
                return None;
            }
            let packed = rest.split_off(..packed_len)?;
            let planes = rest.split_off(..planes_len)?;
            let symbols = Symbols::Constant(high << low_bits);
            let runs = IndexRuns { decoder: self, n_indices, at: 0, low_bits, packed, planes, symbols };
            return rest.is_empty().then_some(runs);
        }
        let paired = dependent && low_bits == 0;
        let n_lanes = n_lanes(head, n_indices, paired);
        let head_of_symbols = self.read_head(&mut rest, n_lanes, paired, n_indices)?;
        let mut escaped: &[u8] = &[];
        if head & HAS_ESCAPES != 0 {
            let len = u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?);
            escaped = rest.split_off(..usize::try_from(len).ok()?)?;
        }
        let packed = rest.split_off(..packed_len)?;
        let planes = rest.split_off(..planes_len)?;
        let (words, []) = rest.as_chunks::<2>() else { return None };
        let tail_at = n_indices.div_ceil(n_lanes).checked_sub(head_of_symbols.tail_steps)? * n_lanes;
        // Without a tail the last step has to be whole.
        if tail_at > n_indices {
            return None;
        }
        let symbols = Symbols::Coded(Box::new(Coded {
            lanes: Lanes::new(head_of_symbols.states),
            head: head_of_symbols,
            tail_at,
            words,
            escapes: escapes::Reader::new(escaped)?,
        }));
        Some(IndexRuns { decoder: self, n_indices, at: 0, low_bits, packed, planes, symbols })
    }

    /// Reads what stands in front of the escapes.
    fn read_head(&mut self, rest: &mut &[u8], n_lanes: usize, paired: bool, n: usize) -> Option<Head> {
        let [segments, tail_steps] = *rest.split_off(..2)?.first_chunk()?;
        let n_tables = usize::from(segments & 15) + 1;
        let by_columns = segments & HAS_COLUMNS != 0;
        let segment_len = segment_len(n_tables, u32::from(segments >> 4 & 7) + MIN_SEGMENT_LOG2);
        let is_single = n_tables == 1;
        if n_tables > MAX_TABLES || is_single && segments != 0 {
            return None;
        }
        let mut bits = BitReader::new(rest);
        self.ranges.clear();
        let n_choices = if by_columns { MIXED_TABLES } else { n_tables };
        let n_slots_tables = if paired { 2 * n_choices } else { n_choices };
        self.tables.resize(n_slots_tables.max(self.tables.len()), [0; SLOTS]);
        let mut slot_tables = self.tables.iter_mut();
        for _ in 0..n_tables {
            let (range, freqs) = log_freq::read(&mut bits, paired)?;
            self.ranges.push(range);
            for freqs in &freqs {
                fill_slots(freqs, slot_tables.next()?)?;
            }
        }
        self.table_ids.clear();
        if is_single {
            self.table_ids.push(0);
        } else if by_columns {
            self.columns.read(&mut bits, n_tables, n.div_ceil(segment_len), n)?;
        } else {
            let n_bits = id_bits(n_tables);
            for _ in 0..n.div_ceil(segment_len) {
                let id = u8::try_from(bits.get(n_bits)?).ok()?;
                if usize::from(id) >= n_tables {
                    return None;
                }
                self.table_ids.push(id);
            }
        }
        let mut states = [STATE_MIN; MANY_LANES];
        for state in states.iter_mut().take(n.min(n_lanes)) {
            let log2 = bits.get(4)? + 16;
            *state = 1 << log2 | bits.get(log2)?;
        }
        *rest = bits.rest()?;
        Some(Head { n_lanes, paired, by_columns, segment_len, tail_steps: usize::from(tail_steps), states })
    }
}

impl IndexRuns<'_> {
    /// Decodes the next [`RUN_LEN`] indices, or those that are left, into all of `indices`. Says whether any of them is
    /// [`ESCAPE`]. Meanwhile `fetch` is fetched from memory.
    pub fn next(&mut self, isa: Isa, indices: &mut [i32], fetch: &[u8]) -> Option<bool> {
        if indices.len() != RUN_LEN.min(self.n_indices - self.at) {
            return None;
        }
        let Self { decoder, low_bits, .. } = self;
        let low_bits = *low_bits;
        let plane = decoder.unpack(isa, low_bits % 8, self.packed, self.at, indices.len())?;
        let shift = low_bits / 8 * 8;
        let mut has_escapes = false;
        let has_others = match &mut self.symbols {
            Symbols::Constant(high) => {
                indices.fill(*high);
                if plane {
                    join_low_plane(isa, &decoder.plane, shift, indices);
                }
                false
            }
            Symbols::Coded(coded) => {
                coded.next(isa, decoder, self.at, indices.len(), fetch)?;
                let plane: &[u8] = if plane { &decoder.plane } else { &[] };
                join_symbols(isa, &decoder.symbols, low_bits, plane, shift, indices)
            }
        };
        for byte in 0..low_bits / 8 {
            let from = self.n_indices * byte as usize + self.at;
            join_low_plane(isa, self.planes.get(from..from + indices.len())?, 8 * byte, indices);
        }
        if has_others && let Symbols::Coded(coded) = &mut self.symbols {
            has_escapes = coded.put_escapes(isa, self.decoder, self.at, low_bits, indices)?;
        }
        self.at += indices.len();
        Some(has_escapes)
    }

    /// Checks, when all runs have been decoded, that the section ends with the last.
    pub fn finish(self) -> Option<()> {
        let is_end = match &self.symbols {
            Symbols::Constant(_) => true,
            Symbols::Coded(coded) => {
                coded.words.is_empty()
                    && coded.escapes.is_exhausted()
                    && is_end(coded.head.n_lanes, &coded.lanes)
            }
        };
        (is_end && self.at == self.n_indices).then_some(())
    }
}

impl IndexDecoder {
    /// Unpacks the upper low bits of the `len` indices from `at` on to the plane; says whether there are any.
    fn unpack(&mut self, isa: Isa, n_bits: u32, packed: &[u8], at: usize, len: usize) -> Option<bool> {
        if n_bits == 0 {
            return Some(false);
        }
        let n_padded = len.next_multiple_of(GROUP_LEN);
        let own = packed.get(packed_len(at, n_bits)?..packed_len(at + len, n_bits)?)?;
        self.plane.resize(n_padded, 0);
        if n_padded == len {
            pack_bits::unpack(isa, n_bits, own, &mut self.plane);
        } else {
            self.packed.clear();
            self.packed.extend_from_slice(own);
            self.packed.resize(pack_bits::packed_len(n_bits, n_padded), 0);
            pack_bits::unpack(isa, n_bits, &self.packed, &mut self.plane);
            self.plane.truncate(len);
        }
        Some(true)
    }
}

impl Coded<'_> {
    /// Decodes the `len` symbols from `at` on, which begin a run.
    fn next(
        &mut self,
        isa: Isa,
        decoder: &mut IndexDecoder,
        at: usize,
        len: usize,
        fetch: &[u8],
    ) -> Option<()> {
        let IndexDecoder { tables, ranges, table_ids, columns, symbol_ids, symbols, .. } = decoder;
        let Head { n_lanes, paired, by_columns, segment_len, .. } = self.head;
        let n_choices = if by_columns { MIXED_TABLES } else { ranges.len() };
        let table_ids = if by_columns {
            symbol_ids.resize(len, 0);
            columns.fill_ids(isa, segment_len, at, symbol_ids);
            TableIds::OfSymbols(symbol_ids)
        } else {
            // Of the run alone: it lies within one segment, or begins with one.
            let ids = table_ids.get(at / segment_len..)?.get(..len.div_ceil(segment_len))?;
            TableIds::OfSegments { ids, segment_len }
        };
        let plan = Plan { n_lanes, paired, table_ids };
        let tables = tables.get(..if paired { 2 * n_choices } else { n_choices })?;
        symbols.resize(len, 0);
        let tail_at = self.tail_at.saturating_sub(at).min(len);
        let (main, tail) = symbols.split_at_mut_checked(tail_at)?;
        let taken = decode(isa, &plan, tables, self.words, &mut self.lanes, main, fetch)?;
        self.words = self.words.get(taken..)?;
        decode_tail(&plan, tables, &mut self.lanes, tail_at, tail)
    }

    /// Replaces the indices from `at` on whose symbols are escapes; says whether any is [`ESCAPE`].
    fn put_escapes(
        &mut self,
        isa: Isa,
        decoder: &mut IndexDecoder,
        at: usize,
        low_bits: u32,
        indices: &mut [i32],
    ) -> Option<bool> {
        let mut any = false;
        let IndexDecoder { symbols, escape_places, symbol_ids, table_ids, ranges, .. } = decoder;
        escape_places.clear();
        // One range for whatever id.
        push_outside(isa, symbols, symbols, &SYMBOLS, escape_places);
        for &mut place in escape_places {
            let table_id = if self.head.by_columns {
                symbol_ids.get(place)
            } else {
                table_ids.get((at + place) / self.head.segment_len)
            };
            let range = *ranges.get(usize::from(*table_id?))?;
            let high = self.escapes.next(range)?;
            let shifted = high << low_bits;
            // The escape of all bits zero but the top one stays as it is; else nothing may be shifted out.
            let is_whole = shifted >> low_bits == high || high == ESCAPE;
            let is_odd = high & 1 == 1;
            let symbol = *symbols.get(place)?;
            if !is_whole || self.head.paired && is_odd != (symbol == log_freq::ODD_ESCAPE) {
                return None;
            }
            let index = indices.get_mut(place)?;
            let low = *index & ((1 << low_bits) - 1);
            *index = if high == ESCAPE { ESCAPE } else { shifted } | low;
            any |= *index == ESCAPE;
        }
        Some(any)
    }
}

/// Bytes of the packed plane of `n_bits` bits of each of `n` indices.
fn packed_len(n: usize, n_bits: u32) -> Option<usize> {
    Some(n.checked_mul(n_bits as usize)?.div_ceil(8))
}
