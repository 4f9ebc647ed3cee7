//! The section of symbols coded by [`crate::kernels::rans8`]: header, tables, segment ids, escapes, states, stream.
//! FORMAT.md section 3.3.2 is its layout.

use super::escapes;
use super::freq::{read_table, write_table};
use super::plan::{Effort, MAX_TABLES, Planner, id_bits};
use crate::bits::{BitReader, BitWriter};
use crate::kernels::fields::Layout;
use crate::kernels::rans8::{
    self, EncodeTable, GROUP_LEN, Joined, MAX_GROUPS, Plan, Residual, SLACK_BYTES, Table,
};
use crate::kernels::transpose::transpose;
use crate::kernels::{Isa, fields};

const HEADER_BYTES: usize = 20;

/// Groups a step: more are faster to decode, and their states take 128 bytes each.
fn groups(n_symbols: usize, saves_bytes: bool) -> usize {
    match n_symbols {
        0..24_576 => 1,
        24_576..131_072 => 2,
        _ => {
            if saves_bytes {
                2
            } else {
                4
            }
        }
    }
}

/// Symbols after padding for `groups` groups a step.
fn padded_len(n_symbols: usize, groups: usize) -> usize {
    n_symbols.next_multiple_of(groups * GROUP_LEN)
}

/// Length that a symbol buffer needs for either number of groups.
#[must_use]
pub fn buffer_len(n_symbols: usize) -> usize {
    padded_len(n_symbols, MAX_GROUPS)
}

/// Scratch memory of the encoder.
#[derive(Debug, Default)]
pub struct Encoder {
    planner: Planner,
    turned: Vec<u8>,
    stream: Vec<u8>,
    escapes: Vec<u8>,
    ids: Vec<u8>,
}

impl Encoder {
    /// Appends the section for the first `n_symbols` of `symbols`, a buffer of [`buffer_len`] of which what is behind
    /// may be overwritten. With `row_len` over 0 the symbols are coded column by column.
    pub fn encode(
        &mut self,
        isa: Isa,
        effort: Effort,
        row_len: usize,
        n_symbols: usize,
        symbols: &mut [u8],
        dst: &mut Vec<u8>,
    ) {
        let groups = groups(n_symbols, effort.saves_bytes);
        let n_padded = padded_len(n_symbols, groups);
        if let Some(&last) = n_symbols.checked_sub(1).and_then(|last| symbols.get(last)) {
            symbols[n_symbols..n_padded].fill(last);
        }
        let symbols = if row_len > 0 {
            self.turned.resize(n_padded, 0);
            let whole = n_symbols - n_symbols % row_len;
            transpose(&symbols[..whole], whole / row_len, row_len, &mut self.turned[..whole]);
            self.turned[whole..].copy_from_slice(&symbols[whole..n_padded]);
            &self.turned[..]
        } else {
            &symbols[..n_padded]
        };
        self.planner.plan(isa, symbols, effort);
        let tables: Vec<Table> =
            self.planner.tables.iter().filter_map(|frequencies| Table::new(&frequencies.pairs)).collect();
        let encode_tables: Vec<EncodeTable> = tables.iter().map(EncodeTable::new).collect();
        let segment_len = self.planner.segment_len.min(n_padded);
        let plan = Plan { groups, tables: &encode_tables, table_ids: &self.planner.table_ids, segment_len };
        let buffer_len = rans8::encode_buffer_len(n_padded);
        if self.stream.len() < buffer_len {
            self.stream.resize(buffer_len, 0);
            self.escapes.resize(buffer_len, 0);
        }
        let mut states = [0; MAX_GROUPS * GROUP_LEN];
        let states = &mut states[..groups * GROUP_LEN];
        let encoded = rans8::encode(isa, &plan, symbols, states, &mut self.stream, &mut self.escapes);
        debug_assert!(encoded.is_some(), "the plan fits by construction");
        if let Some(encoded) = encoded {
            self.write(groups, row_len, states, encoded, dst);
        }
    }

    fn write(
        &mut self,
        groups: usize,
        row_len: usize,
        states: &[u16],
        encoded: rans8::Encoded,
        dst: &mut Vec<u8>,
    ) {
        let stream = &self.stream[encoded.stream_start..self.stream.len() - SLACK_BYTES];
        let escapes = &self.escapes[encoded.escapes_start..self.escapes.len() - SLACK_BYTES];
        let n_tables = self.planner.tables.len();
        self.ids.clear();
        let escapes_parameter = escapes::write(escapes, &mut self.ids);
        let le32 = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        let segment_log2 = if n_tables == 1 { 0 } else { self.planner.segment_len.trailing_zeros() };
        dst.extend([groups, n_tables, segment_log2 as usize].map(|value| value.to_le_bytes()[0]));
        dst.push(escapes_parameter);
        dst.extend(le32(row_len));
        dst.extend(le32(escapes.len()));
        dst.extend(le32(self.ids.len()));
        dst.extend(le32(stream.len()));
        self.planner.tables.iter().for_each(|frequencies| write_table(&frequencies.pairs, dst));
        let mut bits = BitWriter::new(dst);
        let n_bits = id_bits(n_tables);
        self.planner.table_ids.iter().for_each(|&id| bits.put(id.into(), n_bits));
        bits.finish();
        dst.extend_from_slice(&self.ids);
        states.iter().for_each(|state| dst.extend(state.to_le_bytes()));
        dst.extend_from_slice(stream);
    }
}

/// What a section's header says.
struct Header {
    groups: usize,
    n_tables: usize,
    segment_len: usize,
    row_len: usize,
    n_escapes: usize,
    /// Rice parameter of the escapes' ranks.
    escapes_parameter: u8,
    escapes_len: usize,
    stream_len: usize,
    n_padded: usize,
}

impl Header {
    fn read(src: &mut &[u8], n_symbols: usize) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = src.split_off(..HEADER_BYTES)?.first_chunk()?;
        let [groups, n_tables, segment_log2, escapes_parameter] = *header.first_chunk()?;
        let le32 = |at: usize| {
            header.get(at..)?.first_chunk().and_then(|bytes| usize::try_from(u32::from_le_bytes(*bytes)).ok())
        };
        let groups = usize::from(groups);
        let n_tables = usize::from(n_tables);
        let is_valid = (1..=MAX_GROUPS).contains(&groups) && (1..=MAX_TABLES).contains(&n_tables);
        let n_padded = if is_valid { padded_len(n_symbols, groups) } else { return None };
        let segment_len = match (n_tables, segment_log2) {
            (1, 0) => n_padded,
            (2.., 6..=20) => 1 << segment_log2,
            _ => return None,
        };
        let row_len = le32(4)?;
        let n_escapes = le32(8)?;
        (row_len <= n_symbols && n_escapes <= n_padded).then_some(Self {
            groups,
            n_tables,
            segment_len,
            row_len,
            n_escapes,
            escapes_parameter,
            escapes_len: le32(12)?,
            stream_len: le32(16)?,
            n_padded,
        })
    }
}

/// Scratch memory of the decoder.
#[derive(Debug, Default)]
pub struct Decoder {
    turned: Vec<u8>,
    escapes: Vec<u8>,
    placed_escapes: [Vec<u8>; 2],
    table_ids: Vec<u8>,
    tables: Vec<Table>,
}

/// A section being decoded.
#[derive(Debug)]
pub struct Opened<'a> {
    symbols: rans8::Decoder<'a>,
    turned: &'a mut Vec<u8>,
    placed_escapes: &'a [Vec<u8>; 2],
    /// Symbols in a row where they are coded by columns, else 0.
    row_len: usize,
    n_padded: usize,
}

impl Decoder {
    /// Reads all of `section` but the stream. `None` if it breaks the format.
    ///
    /// With `layout` the symbols may be decoded with [`Opened::next_joined`].
    pub fn open<'a>(
        &'a mut self,
        isa: Isa,
        section: &'a [u8],
        n_symbols: usize,
        layout: Option<&Layout>,
    ) -> Option<Opened<'a>> {
        let mut src = section;
        let header = Header::read(&mut src, n_symbols)?;
        self.tables.clear();
        for _ in 0..header.n_tables {
            self.tables.push(read_table(&mut src)?);
        }
        self.read_ids(&mut src, &header)?;
        let escapes = src.split_off(..header.escapes_len)?;
        self.escapes.clear();
        self.escapes.resize(header.n_escapes + 3 * SLACK_BYTES, 0);
        escapes::read(escapes, header.escapes_parameter, &mut self.escapes[..header.n_escapes])?;
        if let Some(layout) = layout {
            self.place(layout);
        }
        let mut states = [0; MAX_GROUPS * GROUP_LEN];
        let states = &mut states[..header.groups * GROUP_LEN];
        let state_bytes = src.split_off(..states.len() * 2)?;
        for (state, bytes) in states.iter_mut().zip(state_bytes.as_chunks().0) {
            *state = u16::from_le_bytes(*bytes);
        }
        if src.len() != header.stream_len {
            return None;
        }
        let plan = Plan {
            groups: header.groups,
            tables: &self.tables,
            table_ids: &self.table_ids,
            segment_len: header.segment_len,
        };
        let (escapes, n_escapes) = (&self.escapes, header.n_escapes);
        let symbols = rans8::Decoder::new(isa, plan, states, src, escapes, n_escapes, header.n_padded)?;
        Some(Opened {
            symbols,
            turned: &mut self.turned,
            placed_escapes: &self.placed_escapes,
            row_len: header.row_len,
            n_padded: header.n_padded,
        })
    }

    /// Works out what tables and escapes put into elements, by way of all symbols: a block has more entries and escapes.
    fn place(&mut self, layout: &Layout) {
        let mut placed = [0; 256];
        for (symbol, placed) in (0u8..=255).zip(&mut placed) {
            *placed = layout.placed(symbol);
        }
        for table in &mut self.tables {
            table.place_values(|value| placed[usize::from(value)]);
        }
        let [high, low] = &mut self.placed_escapes;
        high.resize(self.escapes.len(), 0);
        low.resize(self.escapes.len(), 0);
        for ((&value, high), low) in self.escapes.iter().zip(high).zip(low) {
            [*high, *low] = placed[usize::from(value)].to_be_bytes();
        }
    }

    /// Decodes `n_symbols` from all of `section` into the front of `symbols`, a buffer of [`buffer_len`] of which the rest
    /// is overwritten with padding. `None` if the section breaks the format.
    pub fn decode(&mut self, isa: Isa, section: &[u8], n_symbols: usize, symbols: &mut [u8]) -> Option<()> {
        self.open(isa, section, n_symbols, None)?.decode_all(n_symbols, symbols)
    }
    fn read_ids(&mut self, src: &mut &[u8], header: &Header) -> Option<()> {
        let n_bits = id_bits(header.n_tables);
        let n_segments = header.n_padded.div_ceil(header.segment_len.max(1));
        let mut bits = BitReader::new(src.split_off(..(n_segments * n_bits as usize).div_ceil(8))?);
        self.table_ids.clear();
        for _ in 0..n_segments {
            self.table_ids.push(u8::try_from(bits.get(n_bits)?).ok()?);
        }
        // Ids beyond the tables are refused with the plan.
        bits.is_exhausted().then_some(())
    }
}

impl Opened<'_> {
    /// Whether symbols come in order, so that [`Self::next`] may be used.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        self.row_len == 0
    }

    /// Decodes symbols and joins them into elements, from the first on, as far as there is a fast way to do that. The
    /// rest is left to [`Self::next`].
    ///
    /// `planes` are as [`fields::join`] takes them. The section has been opened with the same `layout`.
    pub fn next_joined(
        &mut self,
        layout: Layout,
        byte_planes: &[&[u8]],
        packed: &[u8],
        dst: &mut [u8],
    ) -> Joined {
        let escapes = [&self.placed_escapes[0][..], &self.placed_escapes[1][..]];
        self.symbols.next_joined(&Residual { layout, byte_planes, packed, escapes }, dst)
    }

    /// Decodes the next symbols; their number is a multiple of [`TILE_STEP`], but for the last time, when it is all that
    /// [`Self::n_left`] says.
    pub fn next(&mut self, symbols: &mut [u8]) -> Option<()> {
        self.symbols.next(symbols)
    }

    /// Symbols that are left, padding included, when `done` have been decoded.
    #[must_use]
    pub fn n_left(&self, done: usize) -> usize {
        self.n_padded.saturating_sub(done)
    }

    /// `None` unless the section has been used up to its last byte.
    pub fn finish(&self) -> Option<()> {
        self.symbols.finish()
    }

    /// Decodes everything into the front of `symbols`.
    pub fn decode_all(mut self, n_symbols: usize, symbols: &mut [u8]) -> Option<()> {
        let symbols = symbols.get_mut(..self.n_padded)?;
        if self.is_in_order() {
            self.symbols.next(symbols)?;
            return self.symbols.finish();
        }
        self.turned.resize(self.n_padded, 0);
        self.symbols.next(self.turned)?;
        self.symbols.finish()?;
        let whole = n_symbols / self.row_len * self.row_len;
        transpose(&self.turned[..whole], self.row_len, whole / self.row_len, &mut symbols[..whole]);
        symbols[whole..].copy_from_slice(&self.turned[whole..]);
        Some(())
    }
}

/// See [`Opened::next`]: the most symbols of a step.
pub const TILE_STEP: usize = MAX_GROUPS * GROUP_LEN;

const _: () = assert!(fields::GROUP_LEN == GROUP_LEN, "symbol buffers are padded alike");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(values: &[u8], effort: Effort, row_len: usize) -> Result<(), TestCaseError> {
        let mut symbols = values.to_vec();
        symbols.resize(buffer_len(values.len()), 0);
        let mut section = Vec::new();
        Encoder::default().encode(Isa::detect(), effort, row_len, values.len(), &mut symbols, &mut section);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            let mut decoded = vec![0xaa; symbols.len()];
            let mut decoder = Decoder::default();
            prop_assert_eq!(decoder.decode(isa, &section, values.len(), &mut decoded), Some(()));
            prop_assert!(decoded[..values.len()] == *values);
            let shorter = &section[..section.len() - 1];
            prop_assert_eq!(decoder.decode(isa, shorter, values.len(), &mut decoded), None);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_symbols_round_trip(
            seed in any::<u64>(),
            n in 1usize..70_000,
            spread in 1u32..200,
            row_len in 0usize..300,
            n_tables in 1usize..=16,
            n_rounds in 0usize..2,
        ) {
            let mut x = seed | 1;
            let values: Vec<u8> = (0..n)
                .map(|i| {
                    x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let scale = (i / 512 % 7) as u32;
                    ((x >> 40) as u32 % spread.max(1)).ilog2_or_zero_plus(scale)
                })
                .collect();
            let effort = Effort { n_tables, segment_len: 256, max_symbols: 31, n_rounds, count_one_in: 1, saves_bytes: n % 2 == 0 };
            round_trip(&values, effort, row_len.min(n))?;
        }
    }

    trait Ilog2OrZero {
        fn ilog2_or_zero_plus(self, more: u32) -> u8;
    }

    impl Ilog2OrZero for u32 {
        fn ilog2_or_zero_plus(self, more: u32) -> u8 {
            (self.checked_ilog2().unwrap_or(0) + more + 100).to_le_bytes()[0]
        }
    }
}
