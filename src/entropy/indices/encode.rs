//! Indices to a section.

use super::super::log_freq::{self, Range, TableKind};
use super::escapes::{self, Escape};
use super::low_bits::choose_low_bits;
use super::low_planes::LowPlanes;
use super::plan::Planner;
use super::{
    Dependence, HAS_COLUMNS, HAS_ESCAPES, HAS_FEW_LANES, IS_CONSTANT, LAST_ROW, MAX_HALVED_TABLES,
    MIN_SEGMENT_LOG2, ROW_LEN, RUN_LEN, SHEET_LEN, id_bits, n_lanes, segment_len,
};
use crate::bits::BitWriter;
use crate::kernels::Isa;
use crate::kernels::index_split::{HIGH_PARTS, Ranges, any_outside, push_outside, symbols};
use crate::kernels::rans12::{
    EncodeTable, MANY_LANES, MIXED_TABLES, Plan, TableIds, encode, encode_buffer_len, encode_table,
    encode_tail, trace_quantizers,
};

/// Most indices that are coded with 8 lanes. 24 lanes less save about 30 bytes, 1 % of 16 Ki indices of 2 bits.
const MAX_LEN_OF_FEW_LANES: usize = 16 << 10;

/// Symbols that are looked at together, where tables are chosen one by one or some of a run have no slots.
const GROUP_LEN: usize = 64;
/// Bits of a section before its tables.
const HEAD_BITS: f64 = 24.0;
/// Bits of a lane's state, about, of which symbols are not told.
const STATE_BITS: f64 = 20.0;

/// Encodes the indices of blocks, reusing its scratch memory.
#[derive(Debug, Default)]
pub struct IndexEncoder {
    symbols: Vec<u8>,
    quantizers: Vec<u32>,
    planner: Planner,
    tables: Vec<EncodeTable>,
    /// Table of each row, where last rows of sheets use others.
    row_ids: Vec<u8>,
    escapes: Vec<Escape>,
    /// Places of symbols that their table has no slots for.
    outside: Vec<usize>,
    low_planes: LowPlanes,
    words: Vec<u8>,
}

impl IndexEncoder {
    /// Appends the section of `indices` to `dst`; nothing for no indices.
    ///
    /// [`super::ESCAPE`] may be among them. A decoder must be told the same `dependence`, which indices must have. `row_lens`
    /// are lengths of rows whose columns may differ in scale, which a decoder need not know.
    pub fn encode(
        &mut self,
        isa: Isa,
        indices: &[i32],
        dependence: Dependence,
        row_lens: &[usize],
        dst: &mut Vec<u8>,
    ) {
        if indices.is_empty() {
            return;
        }
        let low_bits = self.split(isa, indices, dependence);
        let kind = dependence.table_kind(low_bits);
        let head = low_bits.to_le_bytes()[0];
        if let Some(symbol) = constant(&self.symbols) {
            dst.extend([head | IS_CONSTANT, symbol]);
            return self.low_planes.write(dst);
        }
        self.planner.plan(isa, kind, &self.symbols, &self.quantizers, row_lens);
        self.take_escapes(isa, indices, low_bits, kind);
        let head =
            head | if self.escapes.is_empty() { 0 } else { HAS_ESCAPES } | flag_of_lanes(indices.len());
        self.write_symbols(isa, head, kind, dst);
    }

    /// Bits that `indices`, which stand for many more like them, take on average; see [`Self::encode`].
    pub fn estimate(&mut self, isa: Isa, indices: &[i32], dependence: Dependence) -> f64 {
        let low_bits = self.split(isa, indices, dependence);
        let kind = dependence.table_kind(low_bits);
        self.low_planes.n_bits() + self.planner.estimate(isa, kind, &self.symbols, &self.quantizers)
    }

    /// Bits of the section that [`Self::encode`] would make of `indices`, but for its rounding to words: symbols are counted
    /// by the tables planned for them, not coded.
    pub fn planned(&mut self, isa: Isa, indices: &[i32], dependence: Dependence, row_lens: &[usize]) -> f64 {
        let low_bits = self.split(isa, indices, dependence);
        let (low, kind) = (self.low_planes.n_bits(), dependence.table_kind(low_bits));
        if indices.is_empty() || constant(&self.symbols).is_some() {
            return low + HEAD_BITS;
        }
        self.planner.plan(isa, kind, &self.symbols, &self.quantizers, row_lens);
        self.take_escapes(isa, indices, low_bits, kind);
        let mut written = Vec::new();
        write_tables(&self.planner, &[], &mut written);
        if !self.escapes.is_empty() {
            escapes::write(&self.escapes, &mut written);
        }
        let n_lanes = n_lanes(flag_of_lanes(indices.len()), indices.len(), kind);
        let around = HEAD_BITS + STATE_BITS * n_lanes as f64 + 8.0 * written.len() as f64;
        low + around + self.planner.symbol_bits(kind, &self.symbols, &self.quantizers)
    }

    /// Makes symbols and planes of low bits of `indices` and, where tables come in pairs, traces the quantizers; the number of
    /// low bits.
    fn split(&mut self, isa: Isa, indices: &[i32], dependence: Dependence) -> u32 {
        let low_bits = choose_low_bits(indices, dependence == Dependence::Chains);
        let kind = dependence.table_kind(low_bits);
        self.symbols.resize(indices.len(), 0);
        self.low_planes.begin(low_bits, dependence.has_sums(low_bits), indices.len());
        // Run by run: indices that have left the nearest cache are fetched once for all that is made of them.
        for (run_idx, run) in indices.chunks(RUN_LEN).enumerate() {
            let start = run_idx * RUN_LEN;
            symbols(isa, run, low_bits, kind.shows_parity(), &mut self.symbols[start..start + run.len()]);
            self.low_planes.take(isa, start, run);
        }
        self.quantizers.clear();
        if kind == TableKind::Paired {
            trace_quantizers(isa, &self.symbols, &mut self.quantizers);
        }
        low_bits
    }

    /// Puts escapes in place of symbols that their table has no slots for.
    fn take_escapes(&mut self, isa: Isa, indices: &[i32], low_bits: u32, kind: TableKind) {
        self.escapes.clear();
        let Self { symbols, escapes, outside, planner, .. } = self;
        let Planner { tables, symbol_ids, table_ids, by_columns, segment_log2, .. } = planner;
        let mut take = |range: Range, symbol: &mut u8, index: i32| {
            if !range.contains(*symbol) {
                escapes.push(Escape::new(range, index >> low_bits));
                let is_odd = kind.shows_parity() && index & 1 == 1;
                *symbol = if is_odd { log_freq::ODD_ESCAPE } else { log_freq::ESCAPE };
            }
        };
        // Escapes are rare: whole runs are looked at first.
        if *by_columns {
            let bound = |bound: fn(&Range) -> u8| {
                std::array::from_fn(|id| tables.get(id).map_or(0, |table| bound(&table.range)))
            };
            let ranges = Ranges { first: bound(|range| range.first), last: bound(|range| range.last) };
            outside.clear();
            push_outside(isa, symbols, symbol_ids, &ranges, outside);
            for &mut place in outside {
                let range = tables[usize::from(symbol_ids[place])].range;
                take(range, &mut symbols[place], indices[place]);
            }
            return;
        }
        let segment_len = segment_len(tables.len(), *segment_log2);
        let segments = symbols.chunks_mut(segment_len).zip(indices.chunks(segment_len));
        for ((symbols, indices), &id) in segments.zip(&*table_ids) {
            let range = tables[usize::from(id)].range;
            for (symbols, indices) in symbols.chunks_mut(RUN_LEN).zip(indices.chunks(RUN_LEN)) {
                if !any_outside(isa, symbols, range.first, range.last) {
                    continue;
                }
                for (symbols, indices) in symbols.chunks_mut(GROUP_LEN).zip(indices.chunks(GROUP_LEN)) {
                    if any_outside(isa, symbols, range.first, range.last) {
                        symbols
                            .iter_mut()
                            .zip(indices)
                            .for_each(|(symbol, &index)| take(range, symbol, index));
                    }
                }
            }
        }
    }

    /// Writes head, escapes, low planes, and the words.
    fn write_symbols(&mut self, isa: Isa, head: u8, kind: TableKind, dst: &mut Vec<u8>) {
        let n_tables = self.planner.tables.len();
        let n_lanes = n_lanes(head, self.symbols.len(), kind);
        self.tables.clear();
        self.tables.extend(self.planner.tables.iter().flat_map(|fitted| &fitted.freqs).map(encode_table));
        if self.planner.by_columns {
            let n_choices = if kind == TableKind::Halved { MAX_HALVED_TABLES } else { MIXED_TABLES };
            self.tables.resize(n_choices * kind.n_written(), [0; 256]);
        }
        if kind == TableKind::Halved {
            self.use_halves();
        }
        let table_ids = if self.planner.by_columns {
            TableIds::OfSymbols(&self.planner.symbol_ids)
        } else if kind == TableKind::Halved {
            TableIds::OfSegments { ids: &self.row_ids, segment_len: ROW_LEN }
        } else {
            let segment_len = segment_len(n_tables, self.planner.segment_log2);
            TableIds::OfSegments { ids: &self.planner.table_ids, segment_len }
        };
        let plan = Plan { n_lanes, paired: kind == TableKind::Paired, table_ids };
        let tail = encode_tail(&plan, &self.tables, &self.symbols, &self.quantizers);
        debug_assert!(tail.is_some(), "every symbol has slots in its table");
        let (tail_steps, mut states) = tail.unwrap_or((0, [0; MANY_LANES]));
        let main_len = (self.symbols.len().div_ceil(n_lanes) - tail_steps) * n_lanes;
        let main = &self.symbols[..main_len.min(self.symbols.len())];
        self.words.resize(encode_buffer_len(main.len()).max(self.words.len()), 0);
        let first_word =
            encode(isa, &plan, &self.tables, main, &self.quantizers, &mut states, &mut self.words);
        debug_assert!(first_word.is_some(), "every symbol has slots in its table");

        let segment_log2 = if n_tables == 1 { 0 } else { self.planner.segment_log2 - MIN_SEGMENT_LOG2 };
        let segments = (n_tables - 1).to_le_bytes()[0]
            | segment_log2.to_le_bytes()[0] << 4
            | if self.planner.by_columns { HAS_COLUMNS } else { 0 };
        dst.extend([head, segments, tail_steps.to_le_bytes()[0]]);
        let states = &states[..self.symbols.len().min(n_lanes)];
        write_tables(&self.planner, states, dst);
        if head & HAS_ESCAPES != 0 {
            let start = dst.len();
            dst.extend([0; 4]);
            escapes::write(&self.escapes, dst);
            let len = u32::try_from(dst.len() - start - 4).unwrap_or(u32::MAX);
            dst[start..start + 4].copy_from_slice(&len.to_le_bytes());
        }
        self.low_planes.write(dst);
        dst.extend_from_slice(first_word.and_then(|at| self.words.get(at..)).unwrap_or_default());
    }
}

impl IndexEncoder {
    /// Adds tables of halves behind the others, each of both halves of one, and has the last rows of sheets use them: their
    /// symbols themselves say which half it is.
    fn use_halves(&mut self) {
        let Self { symbols, planner, tables, row_ids, .. } = self;
        let first_half = u8::try_from(tables.len()).unwrap_or(u8::MAX);
        tables.extend(planner.tables.iter().flat_map(|fitted| &fitted.freqs).map(|freqs| {
            let [even, odd] = log_freq::halves(freqs).map(|half| encode_table(&half));
            std::array::from_fn(|symbol| if symbol % 2 == 0 { even[symbol] } else { odd[symbol] })
        }));
        let n_sheets = symbols.len() / SHEET_LEN;
        if planner.by_columns {
            tables.resize(MIXED_TABLES, [0; 256]);
            for ids in planner.symbol_ids.chunks_mut(SHEET_LEN).take(n_sheets) {
                ids[LAST_ROW..].iter_mut().for_each(|id| *id += first_half);
            }
            return;
        }
        let segment_len = segment_len(planner.tables.len(), planner.segment_log2);
        row_ids.clear();
        row_ids.extend((0..symbols.len()).step_by(ROW_LEN).map(|first| {
            let is_last = first % SHEET_LEN == LAST_ROW && first / SHEET_LEN < n_sheets;
            planner.table_ids[first / segment_len] + if is_last { first_half } else { 0 }
        }));
    }
}

/// What the head of a section of `n` indices says of its lanes.
fn flag_of_lanes(n: usize) -> u8 {
    if n <= MAX_LEN_OF_FEW_LANES { HAS_FEW_LANES } else { 0 }
}

/// The symbol of all, if it is one and none that stands for others.
fn constant(symbols: &[u8]) -> Option<u8> {
    let (&first, rest) = symbols.split_first()?;
    let is_value = HIGH_PARTS.contains(&(i32::from(first) - 128));
    (is_value && rest.iter().all(|&symbol| symbol == first)).then_some(first)
}

/// Writes tables, table ids and states as one run of bits.
fn write_tables(planner: &Planner, states: &[u32], dst: &mut Vec<u8>) {
    let Planner { tables, table_ids, .. } = planner;
    let mut bits = BitWriter::new(dst);
    tables.iter().for_each(|table| table.write(&mut bits));
    if planner.by_columns {
        planner.columns.write(&mut bits);
    } else if tables.len() > 1 {
        let n_bits = id_bits(tables.len());
        table_ids.iter().for_each(|&id| bits.put(id.into(), n_bits));
    }
    for &state in states {
        // 16 to 31: the top bit need not be written.
        let log2 = state.max(1).ilog2();
        bits.put(log2 - 16, 4);
        bits.put(state, log2);
    }
    bits.finish();
}
