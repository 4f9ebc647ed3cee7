//! A section to indices.

use super::super::log_freq::{self, Range};
use super::escapes;
use super::{
    ESCAPE, HAS_ESCAPES, HAS_FEW_LANES, IS_CONSTANT, MAX_TABLES, MIN_SEGMENT_LOG2, id_bits, segment_len,
};
use crate::bits::BitReader;
use crate::kernels::Isa;
use crate::kernels::index_split::{HIGH_PARTS, MAX_LOW_BITS, SYMBOL_BIAS, join_low_plane, join_symbols};
use crate::kernels::pack_bits::{self, GROUP_LEN};
use crate::kernels::rans12::{
    FEW_LANES, LANES, Lanes, Plan, SLOTS, STATE_MIN, SlotTable, decode, decode_tail, fill_slots,
};

/// Decodes the indices of blocks, reusing its scratch memory.
#[derive(Debug, Default)]
pub struct IndexDecoder {
    tables: Vec<SlotTable>,
    ranges: Vec<Range>,
    table_ids: Vec<u8>,
    symbols: Vec<u8>,
    packed: Vec<u8>,
    plane: Vec<u8>,
}

/// What the head of a section says of its symbols, besides tables and table ids.
#[derive(Debug)]
struct Head {
    n_lanes: usize,
    paired: bool,
    segment_len: usize,
    tail_steps: usize,
    states: [u32; LANES],
}

impl IndexDecoder {
    /// Decodes all of `section` into all of `indices`; `None` if it is no section of that many indices, which then hold
    /// unspecified values. `dependent` as for [`super::IndexEncoder::encode`].
    pub fn decode(&mut self, isa: Isa, section: &[u8], dependent: bool, indices: &mut [i32]) -> Option<()> {
        if indices.is_empty() {
            return section.is_empty().then_some(());
        }
        let mut rest = section;
        let head = *rest.split_off_first()?;
        let low_bits = u32::from(head & 31);
        if low_bits > MAX_LOW_BITS {
            return None;
        }
        if head & IS_CONSTANT != 0 {
            let high = i32::from(*rest.split_off_first()?) - SYMBOL_BIAS;
            if head & (HAS_ESCAPES | HAS_FEW_LANES) != 0 || !HIGH_PARTS.contains(&high) {
                return None;
            }
            indices.fill(high << low_bits);
            self.read_low_planes(isa, &mut rest, low_bits, indices)?;
            return rest.is_empty().then_some(());
        }
        let n_lanes = if head & HAS_FEW_LANES != 0 { FEW_LANES } else { LANES };
        let head_of_symbols =
            self.read_head(&mut rest, n_lanes, dependent && low_bits == 0, indices.len())?;
        let mut escaped: &[u8] = &[];
        if head & HAS_ESCAPES != 0 {
            let len = u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?);
            escaped = rest.split_off(..usize::try_from(len).ok()?)?;
        }
        let (planes, words) = rest.split_at_checked(low_planes_len(indices.len(), low_bits)?)?;
        self.decode_symbols(isa, &head_of_symbols, words, indices.len())?;
        join_symbols(isa, &self.symbols, low_bits, indices);
        self.put_escapes(escaped, &head_of_symbols, low_bits, indices)?;
        let mut planes = planes;
        self.read_low_planes(isa, &mut planes, low_bits, indices)
    }

    /// Reads what stands in front of the escapes.
    fn read_head(&mut self, rest: &mut &[u8], n_lanes: usize, paired: bool, n: usize) -> Option<Head> {
        let [segments, tail_steps] = *rest.split_off(..2)?.first_chunk()?;
        let n_tables = usize::from(segments & 15) + 1;
        let segment_len = segment_len(n_tables, u32::from(segments >> 4) + MIN_SEGMENT_LOG2);
        let is_single = n_tables == 1;
        if n_tables > MAX_TABLES || is_single && segments != 0 {
            return None;
        }
        let mut bits = BitReader::new(rest);
        self.ranges.clear();
        let n_slots_tables = if paired { 2 * n_tables } else { n_tables };
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
        let mut states = [STATE_MIN; LANES];
        for state in states.iter_mut().take(n.min(n_lanes)) {
            let log2 = bits.get(4)? + 16;
            *state = 1 << log2 | bits.get(log2)?;
        }
        *rest = bits.rest()?;
        Some(Head { n_lanes, paired, segment_len, tail_steps: usize::from(tail_steps), states })
    }

    fn decode_symbols(&mut self, isa: Isa, head: &Head, words: &[u8], n: usize) -> Option<()> {
        let plan = Plan {
            n_lanes: head.n_lanes,
            paired: head.paired,
            table_ids: &self.table_ids,
            segment_len: head.segment_len,
        };
        let n_tables = if head.paired { 2 * self.ranges.len() } else { self.ranges.len() };
        let tables = self.tables.get(..n_tables)?;
        self.symbols.resize(n, 0);
        let tail_at = n.div_ceil(head.n_lanes).checked_sub(head.tail_steps)? * head.n_lanes;
        // Without a tail the last step has to be whole.
        let (main, tail) = self.symbols.split_at_mut_checked(tail_at)?;
        let mut lanes = Lanes::new(head.states);
        let (words, odd) = words.as_chunks::<2>();
        let taken = decode(isa, &plan, tables, words, &mut lanes, main)?;
        decode_tail(&plan, tables, &mut lanes, tail_at, tail)?;
        (taken == words.len() && odd.is_empty()).then_some(())
    }

    /// Replaces the indices whose symbols are escapes.
    fn put_escapes(&self, escaped: &[u8], head: &Head, low_bits: u32, indices: &mut [i32]) -> Option<()> {
        let mut reader = escapes::Reader::new(escaped)?;
        let is_escape = |symbol: u8| symbol == log_freq::ESCAPE || symbol == log_freq::ODD_ESCAPE;
        for (group_idx, group) in self.symbols.chunks(GROUP_LEN).enumerate() {
            // Escapes are rare: whole groups are looked at first.
            if !group.iter().fold(false, |any, &symbol| any | is_escape(symbol)) {
                continue;
            }
            let first = group_idx * GROUP_LEN;
            let range = *self.ranges.get(usize::from(*self.table_ids.get(first / head.segment_len)?))?;
            for (&symbol, index) in
                group.iter().zip(indices.get_mut(first..)?).filter(|(symbol, _)| is_escape(**symbol))
            {
                let high = reader.next(range)?;
                *index = high << low_bits;
                // The escape of all bits zero but the top one stays as it is; else nothing may be shifted out.
                let is_whole = *index >> low_bits == high || high == ESCAPE;
                let is_odd = high & 1 == 1;
                if !is_whole || head.paired && is_odd != (symbol == log_freq::ODD_ESCAPE) {
                    return None;
                }
                if high == ESCAPE {
                    *index = ESCAPE;
                }
            }
        }
        reader.is_exhausted().then_some(())
    }

    fn read_low_planes(
        &mut self,
        isa: Isa,
        src: &mut &[u8],
        low_bits: u32,
        indices: &mut [i32],
    ) -> Option<()> {
        let (n_bytes, n_bits) = (low_bits / 8, low_bits % 8);
        if n_bits > 0 {
            let packed = src.split_off(..packed_len(indices.len(), n_bits)?)?;
            let n_padded = indices.len().next_multiple_of(GROUP_LEN);
            self.packed.clear();
            self.packed.extend_from_slice(packed);
            self.packed.resize(pack_bits::packed_len(n_bits, n_padded), 0);
            self.plane.resize(n_padded.max(self.plane.len()), 0);
            pack_bits::unpack(isa, n_bits, &self.packed, &mut self.plane[..n_padded]);
            join_low_plane(isa, &self.plane, 8 * n_bytes, indices);
        }
        for plane in 0..n_bytes {
            join_low_plane(isa, src.split_off(..indices.len())?, 8 * plane, indices);
        }
        Some(())
    }
}

/// Bytes of the packed plane of `n_bits` bits of each of `n` indices.
fn packed_len(n: usize, n_bits: u32) -> Option<usize> {
    Some(n.checked_mul(n_bits as usize)?.div_ceil(8))
}

fn low_planes_len(n: usize, low_bits: u32) -> Option<usize> {
    packed_len(n, low_bits % 8)?.checked_add(n.checked_mul(low_bits as usize / 8)?)
}
