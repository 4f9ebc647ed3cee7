//! A section to indices.

use super::super::log_freq::{self, Range, TableKind};
use super::columns::Columns;
use super::escapes;
use super::low_planes::{LowBits, Unpacker};
use super::{
    Dependence, ESCAPE, HAS_COLUMNS, HAS_ESCAPES, HAS_FEW_LANES, IS_CONSTANT, LAST_ROW, MAX_HALVED_TABLES,
    MAX_TABLES, MIN_SEGMENT_LOG2, ROW_LEN, SHEET_LEN, id_bits, n_lanes, segment_len, sums_len,
};
use crate::bits::BitReader;
use crate::kernels::Isa;
use crate::kernels::index_split::{
    HIGH_PARTS, MAX_LOW_BITS, MAX_RANGES, Ranges, SYMBOL_BIAS, join_low_plane, join_symbols, push_outside,
};
use crate::kernels::rans12::{
    Lanes, MANY_LANES, MIXED_TABLES, Plan, SLOTS, STATE_MIN, SheetTables, SlotTable, States, TableIds,
    decode, decode_sheets, decode_tail, fill_slots, is_end,
};

/// Indices that are decoded at a time: all their forms stay in the nearest cache. A multiple of [`MANY_LANES`] and of whole
/// sheets, and a power of two, so that a segment is part of a run or made of whole runs.
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
    unpacker: Unpacker,
}

/// Where the halves of tables stand: behind as many as symbols may choose from.
const FIRST_HALF: usize = MIXED_TABLES;

/// The symbols that are no escapes.
const SYMBOLS: Ranges =
    Ranges { first: [log_freq::ESCAPE + 1; MAX_RANGES], last: [log_freq::ODD_ESCAPE - 1; MAX_RANGES] };

/// What the head of a section says of its symbols, besides tables and table ids.
#[derive(Debug)]
struct Head {
    n_lanes: usize,
    kind: TableKind,
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
    low: LowBits<'a>,
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
    /// unspecified values. `dependence` as for [`super::IndexEncoder::encode`].
    pub fn decode(
        &mut self,
        isa: Isa,
        section: &[u8],
        dependence: Dependence,
        indices: &mut [i32],
    ) -> Option<()> {
        let mut runs = self.open(section, dependence, indices.len())?;
        for run in indices.chunks_mut(RUN_LEN) {
            runs.next(isa, run, &[])?;
        }
        runs.finish()
    }

    /// Begins to decode all of `section`, which holds `n_indices`; otherwise as [`Self::decode`].
    pub fn open<'a>(
        &'a mut self,
        section: &'a [u8],
        dependence: Dependence,
        n_indices: usize,
    ) -> Option<IndexRuns<'a>> {
        if n_indices == 0 {
            let symbols = Symbols::Constant(0);
            let runs = IndexRuns { decoder: self, n_indices, at: 0, low: LowBits::default(), symbols };
            return section.is_empty().then_some(runs);
        }
        let mut rest = section;
        let head = *rest.split_off_first()?;
        let low_bits = u32::from(head & 31);
        if low_bits > MAX_LOW_BITS {
            return None;
        }
        let has_sums = dependence.has_sums(low_bits);
        if head & IS_CONSTANT != 0 {
            let high = i32::from(*rest.split_off_first()?) - SYMBOL_BIAS;
            if head & (HAS_ESCAPES | HAS_FEW_LANES) != 0 || !HIGH_PARTS.contains(&high) {
                return None;
            }
            let low = LowBits::take(&mut rest, low_bits, has_sums, n_indices)?;
            let symbols = Symbols::Constant(high << low_bits);
            let runs = IndexRuns { decoder: self, n_indices, at: 0, low, symbols };
            return rest.is_empty().then_some(runs);
        }
        let kind = dependence.table_kind(low_bits);
        let n_lanes = n_lanes(head, n_indices, kind);
        let head_of_symbols = self.read_head(&mut rest, n_lanes, kind, n_indices)?;
        let mut escaped: &[u8] = &[];
        if head & HAS_ESCAPES != 0 {
            let len = u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?);
            escaped = rest.split_off(..usize::try_from(len).ok()?)?;
        }
        let low = LowBits::take(&mut rest, low_bits, has_sums, n_indices)?;
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
        Some(IndexRuns { decoder: self, n_indices, at: 0, low, symbols })
    }

    /// Reads what stands in front of the escapes.
    fn read_head(&mut self, rest: &mut &[u8], n_lanes: usize, kind: TableKind, n: usize) -> Option<Head> {
        let [segments, tail_steps] = *rest.split_off(..2)?.first_chunk()?;
        let n_tables = usize::from(segments & 15) + 1;
        let by_columns = segments & HAS_COLUMNS != 0;
        let segment_len = segment_len(n_tables, u32::from(segments >> 4 & 7) + MIN_SEGMENT_LOG2);
        let is_single = n_tables == 1;
        let most = if by_columns && kind == TableKind::Halved { MAX_HALVED_TABLES } else { MAX_TABLES };
        if n_tables > most || is_single && segments != 0 {
            return None;
        }
        let mut bits = BitReader::new(rest);
        self.ranges.clear();
        let n_slot_tables = match kind {
            // Behind the last halves there are as many as one may choose from.
            TableKind::Halved => FIRST_HALF + 2 * (n_tables - 1) + MIXED_TABLES,
            _ if by_columns => MIXED_TABLES * kind.n_written(),
            _ => n_tables * kind.n_written(),
        };
        self.tables.resize(n_slot_tables.max(self.tables.len()), [0; SLOTS]);
        for table_idx in 0..n_tables {
            let (range, freqs) = log_freq::read(&mut bits, kind)?;
            self.ranges.push(range);
            let own = self.tables.get_mut(table_idx * kind.n_written()..)?;
            for (freqs, slots) in freqs.iter().zip(own) {
                fill_slots(freqs, slots)?;
            }
            if kind == TableKind::Halved {
                let halves = self.tables.get_mut(FIRST_HALF + 2 * table_idx..)?;
                for (freqs, slots) in log_freq::halves(freqs.first()?).iter().zip(halves) {
                    fill_slots(freqs, slots)?;
                }
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
        Some(Head { n_lanes, kind, by_columns, segment_len, tail_steps: usize::from(tail_steps), states })
    }
}

impl IndexRuns<'_> {
    /// Decodes the next [`RUN_LEN`] indices, or those that are left, into all of `indices`. Says whether any of them is
    /// [`ESCAPE`]. Meanwhile `fetch` is fetched from memory.
    pub fn next(&mut self, isa: Isa, indices: &mut [i32], fetch: &[u8]) -> Option<bool> {
        if indices.len() != RUN_LEN.min(self.n_indices - self.at) {
            return None;
        }
        let Self { decoder, low, .. } = self;
        let low = *low;
        let plane = decoder.unpacker.unpack(isa, &low, self.at, indices.len())?;
        let shift = low.lowest() + 8 * low.n_planes();
        let mut has_escapes = false;
        let has_others = match &mut self.symbols {
            Symbols::Constant(high) => {
                indices.fill(*high);
                if plane {
                    join_low_plane(isa, &decoder.unpacker.plane, shift, indices);
                }
                false
            }
            Symbols::Coded(coded) => {
                coded.next(isa, decoder, self.at, indices.len(), fetch)?;
                let plane: &[u8] = if plane { &decoder.unpacker.plane } else { &[] };
                join_symbols(isa, &decoder.symbols, low.n_bits, plane, shift, indices)
            }
        };
        for byte in 0..low.n_planes() {
            let from = self.n_indices * byte as usize + self.at;
            let plane = low.planes.get(from..from + indices.len())?;
            join_low_plane(isa, plane, low.lowest() + 8 * byte, indices);
        }
        if let Some(sums) = low.sums {
            decoder.unpacker.unpack_sums(isa, sums.get(sums_len(self.at)..)?, indices.len())?;
            join_low_plane(isa, &decoder.unpacker.plane, 0, indices);
        }
        if has_others && let Symbols::Coded(coded) = &mut self.symbols {
            has_escapes = coded.put_escapes(isa, self.decoder, self.at, low.n_bits, indices)?;
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
        decoder.symbols.resize(len, 0);
        if self.head.by_columns {
            decoder.symbol_ids.resize(len, 0);
            decoder.columns.fill_ids(isa, self.head.segment_len, at, &mut decoder.symbol_ids);
        }
        if self.head.kind != TableKind::Halved {
            return self.decode(isa, decoder, at, 0..len, fetch);
        }
        let n_done = self.decode_sheets(isa, decoder, at, fetch)?;
        let mut fetches = fetch.chunks(fetch.len().div_ceil(RUN_LEN / SHEET_LEN).max(1)).skip(n_done);
        for start in (0..len).step_by(SHEET_LEN).skip(n_done) {
            let fetch = fetches.next().unwrap_or_default();
            if start + SHEET_LEN > len {
                self.decode(isa, decoder, at, start..len, fetch)?;
                continue;
            }
            self.decode(isa, decoder, at, start..start + LAST_ROW, fetch)?;
            self.decode_last_row(isa, decoder, at, start)?;
        }
        Some(())
    }

    /// Decodes as many of the whole sheets of the run from `at` on as can be decoded together; how many.
    fn decode_sheets(
        &mut self,
        isa: Isa,
        decoder: &mut IndexDecoder,
        at: usize,
        fetch: &[u8],
    ) -> Option<usize> {
        let Head { n_lanes, by_columns, segment_len, .. } = self.head;
        if n_lanes != MANY_LANES || by_columns {
            return Some(0);
        }
        let IndexDecoder { tables, table_ids, symbols, .. } = decoder;
        let len = self.tail_at.saturating_sub(at).min(symbols.len());
        let mut row_ids = [0; RUN_LEN / ROW_LEN];
        for (row_idx, id) in row_ids.iter_mut().enumerate().take(len / ROW_LEN) {
            *id = *table_ids.get((at + row_idx * ROW_LEN) / segment_len)?;
        }
        let sheet_tables = SheetTables { row_ids: &row_ids, tables, first_half: FIRST_HALF };
        let dst = symbols.get_mut(..len)?;
        let (n_done, taken) = decode_sheets(isa, sheet_tables, self.words, &mut self.lanes, dst, fetch);
        self.words = self.words.get(taken..)?;
        Some(n_done)
    }

    /// Decodes the symbols of `range` of the run from `at` on; ranges are whole rows, but for the last of a block.
    fn decode(
        &mut self,
        isa: Isa,
        decoder: &mut IndexDecoder,
        at: usize,
        range: std::ops::Range<usize>,
        fetch: &[u8],
    ) -> Option<()> {
        let IndexDecoder { tables, ranges, table_ids, symbol_ids, symbols, .. } = decoder;
        let Head { kind, by_columns, segment_len, .. } = self.head;
        let n_choices = if by_columns { MIXED_TABLES } else { ranges.len() };
        let ids = if by_columns {
            TableIds::OfSymbols(symbol_ids.get(range.clone())?)
        } else {
            // Of the range alone: it lies within one segment, or begins with one.
            let first = (at + range.start) / segment_len;
            let ids = table_ids.get(first..)?.get(..range.len().div_ceil(segment_len))?;
            TableIds::OfSegments { ids, segment_len }
        };
        let tables = tables.get(..n_choices * kind.n_written())?;
        let first = at + range.start;
        self.decode_by(isa, (tables, ids), first, symbols.get_mut(range)?, fetch)
    }

    /// Decodes the last row of the sheet that begins at `start` of the run, each symbol by the half of its table that makes its
    /// column even.
    fn decode_last_row(
        &mut self,
        isa: Isa,
        decoder: &mut IndexDecoder,
        at: usize,
        start: usize,
    ) -> Option<()> {
        let IndexDecoder { tables, table_ids, symbol_ids, symbols, .. } = decoder;
        let (rows, _) = symbols.get_mut(start..)?.split_first_chunk_mut::<SHEET_LEN>()?;
        let (above, last) = rows.split_at_mut(LAST_ROW);
        let mut ids = [0u8; ROW_LEN];
        for row in above.as_chunks::<ROW_LEN>().0 {
            ids.iter_mut().zip(row).for_each(|(id, symbol)| *id ^= symbol & 1);
        }
        let mut first_half = FIRST_HALF;
        if self.head.by_columns {
            let classes = symbol_ids.get(start + LAST_ROW..)?;
            ids.iter_mut().zip(classes).for_each(|(id, class)| *id += 2 * class);
        } else {
            let id = table_ids.get((at + start + LAST_ROW) / self.head.segment_len)?;
            first_half += 2 * usize::from(*id);
        }
        let halves = tables.get(first_half..first_half + MIXED_TABLES)?;
        self.decode_by(isa, (halves, TableIds::OfSymbols(&ids)), at + start + LAST_ROW, last, &[])
    }

    /// Decodes the symbols `dst`, the first of which is number `first` of the block.
    fn decode_by(
        &mut self,
        isa: Isa,
        (tables, table_ids): (&[SlotTable], TableIds<'_>),
        first: usize,
        dst: &mut [u8],
        fetch: &[u8],
    ) -> Option<()> {
        let plan =
            Plan { n_lanes: self.head.n_lanes, paired: self.head.kind == TableKind::Paired, table_ids };
        let tail_at = self.tail_at.saturating_sub(first).min(dst.len());
        let (main, tail) = dst.split_at_mut_checked(tail_at)?;
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
            if !is_whole || self.head.kind.shows_parity() && is_odd != (symbol == log_freq::ODD_ESCAPE) {
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
