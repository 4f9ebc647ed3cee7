//! Coding 3, fields: the symbol of each element entropy-coded, the residual in planes. FORMAT.md section 3.3.

use super::payload::{corrupt, le32, scratch};
use super::planes::{self, Kind, PlaneCoder};
use super::{BlockSource, Level};
use crate::bits::ByteCursor;
use crate::entropy::{rans8, rans12};
use crate::error::Result;
use crate::kernels::crc64::Folded;
use crate::kernels::fields::{self, Layout, OUTLIER};
use crate::kernels::histogram::count_of;
use crate::kernels::rans8::Joined;
use crate::kernels::{Isa, pack_bits};

#[cfg(feature = "bench-internals")]
pub mod bench_internals;
mod effort;
mod layout;

const HEADER_BYTES: usize = 16;

/// How the symbols are stored; on the wire.
const SYMBOLS_NONE: u8 = 0;
const SYMBOLS_CONSTANT: u8 = 1;
const SYMBOLS_RANS8: u8 = 2;

/// Flags of the header.
const HAS_SIGN: u8 = 1;
const SIGN_SHARED: u8 = 2;
const SHARED_SIGN_NEGATIVE: u8 = 4;

/// Scratch memory of the encoder.
#[derive(Debug, Default)]
pub(super) struct FieldEncoder {
    symbols: Vec<u8>,
    planes: Vec<u8>,
    entries: Vec<u8>,
    rans8: rans8::Encoder,
    plane_coder: PlaneCoder,
}

impl FieldEncoder {
    /// The coder of planes.
    pub(super) fn plane_coder(&mut self) -> &mut PlaneCoder {
        &mut self.plane_coder
    }

    /// Replaces what is in `dst` from `start` on by the payload of a block of floats or integers; by nothing, and
    /// `false`, where fields are no way to code it.
    #[expect(clippy::too_many_arguments, reason = "a block, its place and the coder's context")]
    pub(super) fn encode(
        &mut self,
        isa: Isa,
        level: Level,
        source: BlockSource<'_>,
        zstd: &mut zstd::bulk::Compressor<'static>,
        start: usize,
        dst: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8]),
    ) -> bool {
        let Some(layout) = layout::choose(source.dtype, source.bytes, level) else {
            visit(source.bytes);
            dst.truncate(start);
            return false;
        };
        self.encode_as(isa, level, layout, source, zstd, start, dst, visit)
    }

    /// Like [`Self::encode`] for floats whose exponents lie too far apart for symbols: as mere bytes.
    pub(super) fn encode_float_bytes(
        &mut self,
        isa: Isa,
        level: Level,
        source: BlockSource<'_>,
        zstd: &mut zstd::bulk::Compressor<'static>,
        start: usize,
        dst: &mut Vec<u8>,
    ) -> bool {
        layout::as_bytes(source.dtype)
            .is_some_and(|layout| self.encode_as(isa, level, layout, source, zstd, start, dst, &mut |_| {}))
    }

    #[expect(clippy::too_many_arguments, reason = "a block, its place and the coder's context")]
    fn encode_as(
        &mut self,
        isa: Isa,
        level: Level,
        layout: Layout,
        source: BlockSource<'_>,
        zstd: &mut zstd::bulk::Compressor<'static>,
        start: usize,
        dst: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8]),
    ) -> bool {
        let n_elements = source.bytes.len() * 8 / layout.element_bits as usize;
        let n_padded = n_elements.next_multiple_of(fields::GROUP_LEN);
        let planes_at = start + HEADER_BYTES + n_entries(&layout) * planes::ENTRY_BYTES;
        // What an earlier block has left is overwritten: filling with zeros first is slow in memory out of the caches.
        dst.resize(planes_at + fields::planes_len(&layout, n_padded), 0);
        let symbols = scratch(&mut self.symbols, rans8::buffer_len(n_elements));
        let planes = &mut dst[planes_at..];
        fields::split_with(isa, &layout, source.bytes, &mut symbols[..n_padded], planes, visit);
        let symbols = &symbols[..n_elements];
        let n_outliers = if layout.is_windowed() { count_of(isa, OUTLIER, symbols) } else { 0 };
        if n_outliers * 32 > n_elements {
            dst.truncate(start);
            return false;
        }
        let is_integer = layout.symbol_bits == 0 && source.dtype.float_bytes().is_none();
        let byte_kind = if is_integer { Kind::Integer } else { Kind::Byte };
        self.encode_planes(isa, &layout, byte_kind, n_padded, planes_at, zstd, dst);
        write_outliers(&layout, source.bytes, &self.symbols[..n_elements], n_outliers, dst);
        let symbols_at = dst.len();
        let mode = self.encode_symbols(isa, level, &layout, source.row_len, n_elements, dst);
        let header = header_bytes(&layout, mode, dst.len() - symbols_at, n_outliers);
        dst[start..start + HEADER_BYTES].copy_from_slice(&header);
        dst[start + HEADER_BYTES..planes_at].copy_from_slice(&self.entries);
        true
    }

    /// Codes the planes that lie raw at `planes_at` to the end of `dst`, and fills `entries`.
    #[expect(clippy::too_many_arguments, reason = "planes, their place and the coder's context")]
    fn encode_planes(
        &mut self,
        isa: Isa,
        layout: &Layout,
        byte_kind: Kind,
        n_padded: usize,
        planes_at: usize,
        zstd: &mut zstd::bulk::Compressor<'static>,
        dst: &mut Vec<u8>,
    ) {
        let n_bytes = n_padded * layout.n_byte_planes();
        let split = |planes: &[u8]| -> Vec<(Kind, std::ops::Range<usize>)> {
            let bytes = (0..n_bytes).step_by(n_padded).map(|at| (byte_kind, at..at + n_padded));
            let packed = (layout.packed_bits() > 0).then_some((Kind::Packed, n_bytes..planes.len()));
            bytes.chain(packed).collect()
        };
        self.entries.clear();
        let ranges = split(&dst[planes_at..]);
        let coder = &mut self.plane_coder;
        let stay_raw =
            ranges.iter().all(|(kind, range)| coder.stays_raw(*kind, &dst[planes_at..][range.clone()]));
        if stay_raw {
            ranges.iter().for_each(|(_, range)| planes::push_raw_entry(range.len(), &mut self.entries));
            return;
        }
        self.planes.clear();
        self.planes.extend_from_slice(&dst[planes_at..]);
        dst.truncate(planes_at);
        for (kind, range) in ranges {
            self.plane_coder.encode(isa, kind, &self.planes[range], zstd, &mut self.entries, dst);
        }
    }

    /// Appends the symbols' section and returns its mode.
    fn encode_symbols(
        &mut self,
        isa: Isa,
        level: Level,
        layout: &Layout,
        row_len: usize,
        n_elements: usize,
        dst: &mut Vec<u8>,
    ) -> u8 {
        let symbols = &mut self.symbols[..rans8::buffer_len(n_elements)];
        match symbols.first() {
            _ if layout.symbol_bits == 0 => SYMBOLS_NONE,
            Some(&first) if symbols[..n_elements].iter().all(|&symbol| symbol == first) => {
                dst.push(first);
                SYMBOLS_CONSTANT
            }
            _ => {
                let (effort, row_len) = effort::choose(isa, level, row_len, &symbols[..n_elements]);
                self.rans8.encode(isa, effort, row_len, n_elements, symbols, dst);
                SYMBOLS_RANS8
            }
        }
    }
}

/// Planes of a payload.
fn n_entries(layout: &Layout) -> usize {
    layout.n_byte_planes() + usize::from(layout.packed_bits() > 0)
}

fn header_bytes(layout: &Layout, mode: u8, symbols_len: usize, n_outliers: usize) -> [u8; HEADER_BYTES] {
    let mut flags = 0;
    if layout.has_sign {
        flags |= HAS_SIGN;
    }
    if let Some(is_negative) = layout.shared_sign {
        flags |= SIGN_SHARED | if is_negative { SHARED_SIGN_NEGATIVE } else { 0 };
    }
    let mut bytes = [0; HEADER_BYTES];
    let widths = [layout.element_bits, layout.symbol_bits, flags.into(), layout.low_zero_bits];
    bytes[..4].copy_from_slice(&widths.map(|value| value.to_le_bytes()[0]));
    bytes[4..6].copy_from_slice(&layout.symbol_base.to_le_bytes());
    bytes[6] = mode;
    bytes[8..12].copy_from_slice(&le32(symbols_len));
    bytes[12..].copy_from_slice(&le32(n_outliers));
    bytes
}

/// Appends the whole symbol of each element that the window leaves out.
fn write_outliers(layout: &Layout, bytes: &[u8], symbols: &[u8], n_outliers: usize, dst: &mut Vec<u8>) {
    let elements = bytes.chunks_exact(layout.element_bits as usize / 8).zip(symbols);
    for (element, _) in elements.filter(|(_, symbol)| **symbol == OUTLIER).take(n_outliers) {
        dst.extend(layout.symbol(read_element(element)).to_le_bytes());
    }
}

/// An element's bits, whatever its width.
fn read_element(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |element, &byte| element << 8 | u64::from(byte))
}

/// What a payload's header says.
struct Header {
    layout: Layout,
    symbols: u8,
    symbols_len: usize,
    n_outliers: usize,
}

impl Header {
    fn read(src: &mut ByteCursor<'_>) -> Option<Self> {
        let [element_bits, symbol_bits, flags, low_zero_bits] = src.array::<4>()?;
        let symbol_base = src.u16()?;
        let symbols = src.u8()?;
        let reserved = src.u8()?;
        let shares = flags & SIGN_SHARED != 0;
        let layout = Layout {
            element_bits: element_bits.into(),
            symbol_bits: symbol_bits.into(),
            has_sign: flags & HAS_SIGN != 0,
            shared_sign: shares.then_some(flags & SHARED_SIGN_NEGATIVE != 0),
            low_zero_bits: low_zero_bits.into(),
            symbol_base,
        };
        let is_valid = layout.is_valid()
            && flags & !(HAS_SIGN | SIGN_SHARED | SHARED_SIGN_NEGATIVE) == 0
            && (shares || flags & SHARED_SIGN_NEGATIVE == 0)
            && reserved == 0
            && (symbol_bits == 0) == (symbols == SYMBOLS_NONE);
        let symbols_len = usize::try_from(src.u32()?).ok()?;
        let n_outliers = usize::try_from(src.u32()?).ok()?;
        is_valid.then_some(Self { layout, symbols, symbols_len, n_outliers })
    }
}

/// Scratch memory of the decoder.
#[derive(Debug, Default)]
pub(super) struct FieldDecoder {
    symbols: Vec<u8>,
    planes: Vec<u8>,
    rans8: rans8::Decoder,
    rans12: rans12::Decoder,
}

impl FieldDecoder {
    /// The decoder of planes that are entropy-coded.
    pub(super) fn rans12(&mut self) -> &mut rans12::Decoder {
        &mut self.rans12
    }

    /// Decodes `payload` into all of `dst`; returns what has been folded of it.
    pub(super) fn decode(
        &mut self,
        isa: Isa,
        payload: &[u8],
        zstd: &mut zstd::bulk::Decompressor<'static>,
        dst: &mut [u8],
    ) -> Result<Folded> {
        let mut src = ByteCursor::new(payload);
        let header = Header::read(&mut src).ok_or_else(|| corrupt("the fields' header breaks the format"))?;
        let layout = header.layout;
        let element_bytes = layout.element_bits as usize / 8;
        if !dst.len().is_multiple_of(element_bytes) {
            return Err(corrupt("the block is no whole number of elements"));
        }
        let n_elements = dst.len() / element_bytes;
        let entries = (0..n_entries(&layout))
            .map(|_| planes::Entry::read(&mut src))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| corrupt("a plane's entry breaks the format"))?;
        let sections = entries
            .iter()
            .map(|entry| src.take(entry.len()))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| corrupt("a plane's section is cut off"))?;
        let outliers = header
            .n_outliers
            .checked_mul(2)
            .and_then(|len| src.take(len))
            .ok_or_else(|| corrupt("the outliers' section is cut off"))?;
        let symbols =
            src.take(header.symbols_len).ok_or_else(|| corrupt("the symbols' section is cut off"))?;
        if !src.rest().is_empty() {
            return Err(corrupt("bytes are left over behind the symbols"));
        }
        let n_padded = n_elements.next_multiple_of(fields::GROUP_LEN);
        let Self { symbols: symbol_buffer, planes: plane_buffer, rans8, rans12 } = self;
        let planes = decode_planes(isa, &layout, &entries, &sections, n_padded, zstd, rans12, plane_buffer)
            .ok_or_else(|| corrupt("a plane's section breaks the format"))?;
        let joiner = Joiner { isa, layout, planes, n_padded };
        let symbol_buffer = scratch(symbol_buffer, rans8::buffer_len(n_elements));
        let folded = decode_symbols(&header, symbols, rans8, &joiner, n_elements, symbol_buffer, dst)
            .ok_or_else(|| corrupt("the symbols' section breaks the format"))?;
        // Without outliers nothing is changed, and with some nothing has been folded.
        self.place_outliers(&layout, outliers, dst)
            .ok_or_else(|| corrupt("outliers do not match their symbols"))?;
        Ok(folded)
    }

    /// Replaces the symbols of outliers by their own.
    fn place_outliers(&self, layout: &Layout, outliers: &[u8], dst: &mut [u8]) -> Option<()> {
        let element_bytes = layout.element_bits as usize / 8;
        let symbols = &self.symbols[..dst.len() / element_bytes];
        let (outliers, _) = outliers.as_chunks::<2>();
        let mut outliers = outliers.iter();
        if layout.is_windowed() && !outliers.as_slice().is_empty() {
            let elements = dst.chunks_exact_mut(element_bytes).zip(symbols);
            for (element, _) in elements.filter(|(_, symbol)| **symbol == OUTLIER) {
                let symbol = u16::from_le_bytes(*outliers.next()?);
                let bits = layout.with_symbol(read_element(element), symbol);
                element.copy_from_slice(&bits.to_le_bytes()[..element_bytes]);
            }
        }
        outliers.next().is_none().then_some(())
    }
}

/// A block's planes, ready to be joined with symbols.
struct Joiner<'a> {
    isa: Isa,
    layout: Layout,
    /// Byte planes, then the packed plane.
    planes: [&'a [u8]; 8],
    n_padded: usize,
}

impl Joiner<'_> {
    /// Decodes and joins in one go what can be.
    fn decode_joined(&self, opened: &mut rans8::Opened<'_>, dst: &mut [u8]) -> Joined {
        let n_bytes = self.layout.n_byte_planes();
        let packed = if self.layout.packed_bits() > 0 { self.planes[n_bytes] } else { &[] };
        opened.next_joined(self.layout, &self.planes[..n_bytes], packed, dst)
    }

    /// Joins the elements of `dst`, which begin with element `first` of the block, a multiple of the group.
    fn join(&self, symbols: &[u8], first: usize, dst: &mut [u8]) -> Option<()> {
        let n_bytes = self.layout.n_byte_planes();
        let (n_bits, n_padded) = (self.layout.packed_bits(), symbols.len());
        let mut planes: [&[u8]; 8] = [&[]; 8];
        for (tile, plane) in planes.iter_mut().zip(&self.planes[..n_bytes]) {
            *tile = plane.get(first..first + n_padded)?;
        }
        let packed = if n_bits > 0 { self.planes[n_bytes] } else { &[] };
        // To the plane's end: fast loops read a little further than they need.
        let packed = packed.get(pack_bits::packed_len(n_bits, first)..)?;
        fields::join(self.isa, &self.layout, symbols, &planes[..n_bytes], packed, dst)
    }
}

#[expect(clippy::too_many_arguments, reason = "the payload's parts and where they go")]
fn decode_planes<'a>(
    isa: Isa,
    layout: &Layout,
    entries: &[planes::Entry],
    sections: &[&'a [u8]],
    n_padded: usize,
    zstd: &mut zstd::bulk::Decompressor<'static>,
    rans12: &mut rans12::Decoder,
    buffer: &'a mut Vec<u8>,
) -> Option<[&'a [u8]; 8]> {
    let packed_len = pack_bits::packed_len(layout.packed_bits(), n_padded);
    let mut coded = scratch(buffer, fields::planes_len(layout, n_padded));
    let mut planes: [&[u8]; 8] = [&[]; 8];
    for (idx, (entry, &section)) in entries.iter().zip(sections).enumerate() {
        let len = if idx < layout.n_byte_planes() { n_padded } else { packed_len };
        planes[idx] = if entry.is_raw() && section.len() == len {
            section
        } else {
            let plane = coded.split_off_mut(..len)?;
            entry.decode(isa, section, zstd, rans12, plane)?;
            plane
        };
    }
    Some(planes)
}

/// Elements decoded and joined at a turn: few enough that stores of one turn drain while the next one's symbols are
/// decoded, which hides the time that memory takes.
const TILE_LEN: usize = 1024;
const _: () = assert!(TILE_LEN.is_multiple_of(rans8::TILE_STEP), "tiles are whole steps");

/// Decodes the symbols and joins them with the planes into `dst`; `symbols` is left with all symbols that
/// are not joined at once. Returns what has been folded of `dst`.
fn decode_symbols(
    header: &Header,
    section: &[u8],
    rans8: &mut rans8::Decoder,
    joiner: &Joiner<'_>,
    n_elements: usize,
    symbols: &mut [u8],
    dst: &mut [u8],
) -> Option<Folded> {
    match header.symbols {
        SYMBOLS_RANS8 => {
            // Outliers are found by their symbols, so these must go to memory.
            let layout = (header.n_outliers == 0).then_some(&joiner.layout);
            let mut opened = rans8.open(joiner.isa, section, n_elements, layout)?;
            if opened.is_in_order() {
                let joined = layout.map(|_| joiner.decode_joined(&mut opened, dst)).unwrap_or_default();
                decode_tiles(&mut opened, joiner, joined.n_elements, symbols, dst)?;
                return Some(joined.folded);
            }
            opened.decode_all(n_elements, symbols)?;
        }
        SYMBOLS_CONSTANT => match section {
            [symbol] => symbols.fill(*symbol),
            _ => return None,
        },
        SYMBOLS_NONE if section.is_empty() => symbols.fill(0),
        _ => return None,
    }
    joiner.join(symbols.get(..joiner.n_padded)?, 0, dst)?;
    Some(Folded::new())
}

/// Decodes and joins all from element `n_done` on.
fn decode_tiles(
    opened: &mut rans8::Opened<'_>,
    joiner: &Joiner<'_>,
    n_done: usize,
    symbols: &mut [u8],
    dst: &mut [u8],
) -> Option<()> {
    let element_bytes = joiner.layout.element_bits as usize / 8;
    let dst = dst.get_mut(n_done * element_bytes..)?;
    for (idx, dst) in dst.chunks_mut(TILE_LEN * element_bytes).enumerate() {
        let first = n_done + idx * TILE_LEN;
        let tile = symbols.get_mut(first..first + opened.n_left(first).min(TILE_LEN))?;
        opened.next(tile)?;
        let n_padded = (joiner.n_padded - first).min(TILE_LEN);
        joiner.join(tile.get(..n_padded)?, first, dst)?;
    }
    opened.finish()
}
