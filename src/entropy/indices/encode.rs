//! Indices to a section.

use super::super::log_freq;
use super::escapes::{self, Escape};
use super::plan::{Planner, choose_low_bits};
use super::{HAS_COLUMNS, HAS_ESCAPES, HAS_FEW_LANES, IS_CONSTANT, MIN_SEGMENT_LOG2, id_bits, segment_len};
use crate::bits::BitWriter;
use crate::kernels::Isa;
use crate::kernels::index_split::{HIGH_PARTS, low_plane, symbols};
use crate::kernels::pack_bits::{self, GROUP_LEN};
use crate::kernels::rans12::{
    EncodeTable, FEW_LANES, LANES, MIXED_TABLES, Plan, TableIds, encode, encode_buffer_len, encode_table,
    encode_tail, trace_quantizers,
};

/// Most indices that are coded with 8 lanes. 24 lanes less save about 30 bytes, 1 % of 16 Ki indices of 2 bits.
const MAX_LEN_OF_FEW_LANES: usize = 16 << 10;

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
    escapes: Vec<Escape>,
    plane: Vec<u8>,
    packed: Vec<u8>,
    words: Vec<u8>,
}

impl IndexEncoder {
    /// Appends the section of `indices` to `dst`; nothing for no indices.
    ///
    /// [`super::ESCAPE`] may be among them. `dependent` says that they are of dependent quantization with a chain for each
    /// of [`LANES`] lanes, index `i` in lane `i mod LANES`: a decoder must be told the same. `row_lens` are lengths of
    /// rows whose columns may differ in scale, which a decoder need not know.
    pub fn encode(
        &mut self,
        isa: Isa,
        indices: &[i32],
        dependent: bool,
        row_lens: &[usize],
        dst: &mut Vec<u8>,
    ) {
        if indices.is_empty() {
            return;
        }
        let low_bits = self.split(isa, indices, dependent);
        let paired = dependent && low_bits == 0;
        let head = low_bits.to_le_bytes()[0];
        if let Some(symbol) = constant(&self.symbols) {
            dst.extend([head | IS_CONSTANT, symbol]);
            return self.write_low_planes(isa, indices, low_bits, dst);
        }
        self.planner.plan(isa, &self.symbols, &self.quantizers, row_lens);
        self.take_escapes(indices, low_bits, paired);
        let head = head
            | if self.escapes.is_empty() { 0 } else { HAS_ESCAPES }
            | if indices.len() <= MAX_LEN_OF_FEW_LANES { HAS_FEW_LANES } else { 0 };
        self.write_symbols(isa, head, paired, dst, |coder, dst| {
            coder.write_low_planes(isa, indices, low_bits, dst)
        });
    }

    /// Bits that `indices`, which stand for many more like them, take on average; see [`Self::encode`].
    pub fn estimate(&mut self, isa: Isa, indices: &[i32], dependent: bool) -> f64 {
        let low_bits = self.split(isa, indices, dependent);
        let low = f64::from(low_bits) * indices.len() as f64;
        low + self.planner.estimate(isa, &self.symbols, &self.quantizers)
    }

    /// Bits of the section that [`Self::encode`] would make of `indices`, but for its rounding to words: symbols are counted
    /// by the tables planned for them, not coded.
    pub fn planned(&mut self, isa: Isa, indices: &[i32], dependent: bool, row_lens: &[usize]) -> f64 {
        let low_bits = self.split(isa, indices, dependent);
        let low = f64::from(low_bits) * indices.len() as f64;
        if indices.is_empty() || constant(&self.symbols).is_some() {
            return low + HEAD_BITS;
        }
        self.planner.plan(isa, &self.symbols, &self.quantizers, row_lens);
        self.take_escapes(indices, low_bits, dependent && low_bits == 0);
        let mut written = Vec::new();
        write_tables(&self.planner, &[], &mut written);
        if !self.escapes.is_empty() {
            escapes::write(&self.escapes, &mut written);
        }
        let n_lanes = if indices.len() <= MAX_LEN_OF_FEW_LANES { FEW_LANES } else { LANES };
        let around = HEAD_BITS + STATE_BITS * n_lanes as f64 + 8.0 * written.len() as f64;
        low + around + self.planner.symbol_bits(&self.symbols, &self.quantizers)
    }

    /// Makes symbols of `indices` and, where tables come in pairs, traces the quantizers; the number of low bits.
    fn split(&mut self, isa: Isa, indices: &[i32], dependent: bool) -> u32 {
        let low_bits = choose_low_bits(indices, dependent);
        let paired = dependent && low_bits == 0;
        self.symbols.resize(indices.len(), 0);
        symbols(isa, indices, low_bits, paired, &mut self.symbols);
        self.quantizers.clear();
        if paired {
            trace_quantizers(isa, &self.symbols, &mut self.quantizers);
        }
        low_bits
    }

    /// Puts escapes in place of symbols that their table has no slots for.
    fn take_escapes(&mut self, indices: &[i32], low_bits: u32, paired: bool) {
        self.escapes.clear();
        if self.planner.by_columns {
            let symbols = self.symbols.iter_mut().zip(&self.planner.symbol_ids);
            for ((symbol, &id), &index) in symbols.zip(indices) {
                let range = self.planner.tables[usize::from(id)].range;
                if !range.contains(*symbol) {
                    self.escapes.push(Escape::new(range, index >> low_bits));
                    *symbol = if paired && index & 1 == 1 { log_freq::ODD_ESCAPE } else { log_freq::ESCAPE };
                }
            }
            return;
        }
        let segment_len = segment_len(self.planner.tables.len(), self.planner.segment_log2);
        let segments = self.symbols.chunks_mut(segment_len).zip(indices.chunks(segment_len));
        for ((symbols, indices), &id) in segments.zip(&self.planner.table_ids) {
            let range = self.planner.tables[usize::from(id)].range;
            for (symbols, indices) in symbols.chunks_mut(GROUP_LEN).zip(indices.chunks(GROUP_LEN)) {
                // Escapes are rare: whole groups are looked at first.
                let escaped = symbols.iter().fold(false, |any, &symbol| any | !range.contains(symbol));
                if !escaped {
                    continue;
                }
                for (symbol, &index) in
                    symbols.iter_mut().zip(indices).filter(|(symbol, _)| !range.contains(**symbol))
                {
                    self.escapes.push(Escape::new(range, index >> low_bits));
                    *symbol = if paired && index & 1 == 1 { log_freq::ODD_ESCAPE } else { log_freq::ESCAPE };
                }
            }
        }
    }

    /// Writes head, escapes, what `write_planes` appends, and the words.
    fn write_symbols(
        &mut self,
        isa: Isa,
        head: u8,
        paired: bool,
        dst: &mut Vec<u8>,
        write_planes: impl FnOnce(&mut Self, &mut Vec<u8>),
    ) {
        let n_tables = self.planner.tables.len();
        let n_lanes = if head & HAS_FEW_LANES != 0 { FEW_LANES } else { LANES };
        let table_ids = if self.planner.by_columns {
            TableIds::OfSymbols(&self.planner.symbol_ids)
        } else {
            let segment_len = segment_len(n_tables, self.planner.segment_log2);
            TableIds::OfSegments { ids: &self.planner.table_ids, segment_len }
        };
        let plan = Plan { n_lanes, paired, table_ids };
        self.tables.clear();
        self.tables.extend(self.planner.tables.iter().flat_map(|fitted| &fitted.freqs).map(encode_table));
        if self.planner.by_columns {
            self.tables.resize(MIXED_TABLES * if paired { 2 } else { 1 }, [0; 256]);
        }
        let tail = encode_tail(&plan, &self.tables, &self.symbols, &self.quantizers);
        debug_assert!(tail.is_some(), "every symbol has slots in its table");
        let (tail_steps, mut states) = tail.unwrap_or_default();
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
        write_planes(self, dst);
        dst.extend_from_slice(first_word.and_then(|at| self.words.get(at..)).unwrap_or_default());
    }

    fn write_low_planes(&mut self, isa: Isa, indices: &[i32], low_bits: u32, dst: &mut Vec<u8>) {
        let (n_bytes, n_bits) = (low_bits / 8, low_bits % 8);
        if n_bits > 0 {
            self.plane.resize(indices.len().next_multiple_of(GROUP_LEN), 0);
            self.plane[indices.len()..].fill(0);
            let mask = (1u8 << n_bits) - 1;
            low_plane(isa, indices, 8 * n_bytes, mask, &mut self.plane);
            self.packed.resize(pack_bits::packed_len(n_bits, self.plane.len()), 0);
            pack_bits::pack(isa, n_bits, &self.plane, &mut self.packed);
            dst.extend_from_slice(&self.packed[..(indices.len() * n_bits as usize).div_ceil(8)]);
        }
        for plane in 0..n_bytes {
            let start = dst.len();
            dst.resize(start + indices.len(), 0);
            low_plane(isa, indices, 8 * plane, u8::MAX, &mut dst[start..]);
        }
    }
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
