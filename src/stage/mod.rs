//! One block of elements to one payload and back.
//!
//! This is the boundary between the container, which sees only payload bytes and ids, and the coding of
//! values. [`BlockEncoder`] chooses a [`Coding`] and never fails; [`BlockDecoder`] takes untrusted payloads.

mod adaptive;
mod coding;
mod constant;
mod decoder;
mod delta;
mod differences;
mod fields;
mod float_bits;
mod layered;
mod nested;
mod packing;
mod palette;
mod payload;
mod planes;
mod quantized;
mod quantizing;
mod rank_one;
mod records;
mod repeats;
mod rests;
mod sample;
mod scaled;
mod sparse;
mod zstd_frame;

use crate::dtype::Dtype;
use crate::entropy::indices::IndexEncoder;
use crate::kernels::Isa;
pub use coding::Coding;
pub use decoder::BlockDecoder;
use delta::DeltaEncoder;
pub use delta::{delta_base, is_near_copy};
use fields::FieldEncoder;
#[cfg(feature = "bench-internals")]
#[doc(hidden)]
pub use fields::bench_internals;
use layered::LayerEncoder;
pub use layered::LayerStep;
use palette::PaletteEncoder;
use payload::keep_shorter;
pub use quantized::{
    BlockLoss, BlockQuantizer, ChannelSteps, Choice, Domain, FIRST_PRIVATE_ID, IndexBackend, IndexCodec,
    Part, QuantRun, QuantSpec, Quantizer,
};
pub(crate) use quantized::{BlockPart, TILE_LEN};
use rank_one::RankOneEncoder;
use records::RecordEncoder;
use scaled::ScaledEncoder;
use sparse::SparseEncoder;
use zstd_frame::ZstdEncoder;

/// Effort of the encoder; every level writes the same format, read by the same decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub enum Level {
    /// One table per block, four where segments differ much: fastest to encode.
    Fast,
    /// Up to eight tables per block, chosen per segment.
    #[default]
    Default,
    /// More tables, wider alphabets, segments clustered by their histograms, fewer stored states.
    High,
}

/// What the encoder is given: a block's bytes and what is known of them.
#[derive(Debug, Clone, Copy)]
pub struct BlockSource<'a> {
    /// Element type; `bytes.len()` is a multiple of its unit.
    pub dtype: Dtype,
    /// The elements, little-endian, unaligned.
    pub bytes: &'a [u8],
    /// Elements in one row of the tensor (its last non-unit dimension, or a convolution's channel), a hint for finding structure
    /// along columns; 0 where unknown. Of [`Dtype::Bytes`], bytes in one record.
    pub row_len: usize,
    /// Elements of the block's first row that are before the block.
    pub row_start: usize,
}

/// Elements for each value of a palette, on average, from which on it takes next to nothing itself: only scales of small
/// groups know more of such elements.
const LEAST_USES: usize = 512;
/// Values that elements of one scale have at most if a block of them is worth looking for its scales.
const OF_A_GROUP: usize = 32;

/// Encodes blocks, reusing its scratch memory; one for each worker thread.
pub struct BlockEncoder {
    level: Level,
    isa: Isa,
    fields: FieldEncoder,
    sparse: SparseEncoder,
    scaled: ScaledEncoder,
    palette: PaletteEncoder,
    records: RecordEncoder,
    delta: DeltaEncoder,
    rank_one: RankOneEncoder,
    zstd: ZstdEncoder,
    quantizer: BlockQuantizer,
    layers: LayerEncoder,
    /// A block as it was before its elements were replaced by a layer's.
    original: Vec<u8>,
    /// A block's differences.
    differences: Vec<u8>,
    /// For sections that are planned and not written.
    index_planner: IndexEncoder,
    /// The codec of indices in use, if any has been asked for.
    index_codec: Option<Box<dyn IndexCodec>>,
    /// Whether it is the caller's, to be used whatever a [`QuantSpec`] says.
    is_own_codec: bool,
}

impl std::fmt::Debug for BlockEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockEncoder")
            .field("level", &self.level)
            .field("isa", &self.isa)
            .finish_non_exhaustive()
    }
}

impl BlockEncoder {
    /// An encoder of `level` whose kernels run on `isa`; the payload is the same for every `isa`.
    #[must_use]
    pub fn new(level: Level, isa: Isa) -> Self {
        Self {
            level,
            isa,
            fields: FieldEncoder::default(),
            sparse: SparseEncoder::default(),
            scaled: ScaledEncoder::default(),
            palette: PaletteEncoder::default(),
            records: RecordEncoder::default(),
            delta: DeltaEncoder::default(),
            rank_one: RankOneEncoder::default(),
            zstd: ZstdEncoder::new(level),
            quantizer: BlockQuantizer::default(),
            layers: LayerEncoder::default(),
            original: Vec::new(),
            differences: Vec::new(),
            index_planner: IndexEncoder::default(),
            index_codec: None,
            is_own_codec: false,
        }
    }

    /// Stores the indices of quantized blocks by a codec of the caller's, whose blocks only a decoder with the same codec
    /// ([`BlockDecoder::set_index_codec`]) can read.
    pub fn set_index_codec(&mut self, codec: Box<dyn IndexCodec>) {
        self.index_codec = Some(codec);
        self.is_own_codec = true;
    }

    /// Appends the payload of `source` to `dst` and says how it is coded. The payload is never longer than
    /// the block's bytes.
    pub fn encode(&mut self, source: BlockSource<'_>, dst: &mut Vec<u8>) -> Coding {
        self.encode_over(source, dst.len(), dst, &mut |_| {})
    }

    /// Like [`Self::encode`], for long runs of blocks in memory that is not in the caches. The payload replaces what is
    /// in `dst` from `start` on: a buffer that keeps an earlier block's payload is not filled with zeros first. `visit`
    /// is called with the pieces of the block's bytes in order, for a checksum that reads them together with the encoder.
    pub fn encode_over(
        &mut self,
        source: BlockSource<'_>,
        start: usize,
        dst: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Coding {
        if source.bytes.is_empty() {
            dst.truncate(start);
            return Coding::Stored;
        }
        if let Some(element) = constant::element(source.dtype, source.bytes) {
            visit(source.bytes);
            dst.truncate(start);
            dst.extend_from_slice(element);
            return Coding::Constant;
        }
        sample::fetch(source.bytes, source.dtype.unit_bytes());
        let coding = self.encode_varying(source, start, dst, visit);
        if coding != Coding::Stored && dst.len() - start < source.bytes.len() {
            return coding;
        }
        dst.truncate(start);
        dst.extend_from_slice(source.bytes);
        Coding::Stored
    }

    /// Like [`Self::encode_over`], but tries [`Coding::Adaptive`] too, at which encoder and decoder are slow: for a block that
    /// has to be small above all.
    pub fn encode_small(
        &mut self,
        source: BlockSource<'_>,
        start: usize,
        dst: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Coding {
        self.encode_shorter(source, start, dst, visit, Coding::Adaptive, |_, dst| {
            !source.bytes.is_empty() && adaptive::encode(source.dtype, source.bytes, dst)
        })
    }

    /// Like [`Self::encode_over`], of a block that is much like `base`, an earlier one that begins at `base_offset` of the
    /// original: coded as [`Coding::Delta`] where that is shorter.
    pub fn encode_near(
        &mut self,
        source: BlockSource<'_>,
        (base_offset, base): (u64, &[u8]),
        start: usize,
        dst: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Coding {
        self.encode_shorter(source, start, dst, visit, Coding::Delta, |encoder, dst| {
            encoder.encode_delta(source, base_offset, base, dst).is_some()
        })
    }

    /// Like [`Self::encode_over`], or by `other` where `encode_other`, which says whether it can, is shorter.
    fn encode_shorter(
        &mut self,
        source: BlockSource<'_>,
        start: usize,
        dst: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8]),
        other: Coding,
        encode_other: impl FnOnce(&mut Self, &mut Vec<u8>) -> bool,
    ) -> Coding {
        let coding = self.encode_over(source, start, dst, visit);
        let end = dst.len();
        if !encode_other(self, dst) {
            dst.truncate(end);
            return coding;
        }
        if keep_shorter(dst, start, end) { other } else { coding }
    }

    fn encode_varying(
        &mut self,
        source: BlockSource<'_>,
        start: usize,
        dst: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Coding {
        if source.dtype == Dtype::Bytes {
            visit(source.bytes);
            dst.truncate(start);
            return self.encode_bytes(source, dst);
        }
        let Some(n_values) = self.palette.find(source.dtype, source.bytes) else {
            return self.encode_many_valued(source, start, dst, visit);
        };
        dst.truncate(start);
        self.encode_palette(source, dst);
        let end = dst.len();
        if n_values * LEAST_USES <= source.bytes.len() / source.dtype.unit_bytes() {
            visit(source.bytes);
            // Small groups may be of fewer values still, if scales have few bits, too.
            let may_be_groups = n_values > OF_A_GROUP && source.dtype.unit_bytes() == 2;
            let is_scaled = may_be_groups && self.encode_scaled(source, end, dst).is_some();
            let scaled = if is_scaled { Coding::Scaled } else { Coding::Stored };
            return shorter_of([Coding::Palette, scaled], start, end, dst);
        }
        let coding = self.encode_many_valued(source, end, dst, visit);
        shorter_of([Coding::Palette, coding], start, end, dst)
    }

    /// Codes bytes of no numbers, which may be records.
    fn encode_bytes(
        &mut self,
        BlockSource { bytes, row_len, .. }: BlockSource<'_>,
        dst: &mut Vec<u8>,
    ) -> Coding {
        let start = dst.len();
        let Self { isa, records, fields, zstd, .. } = self;
        if !records.encode(*isa, row_len, bytes, fields.plane_coder(), &mut zstd.planes, dst) {
            return zstd.encode(bytes, 1, dst);
        }
        // What a general compressor finds among groups of weights are only values, of which a stream has fewer.
        if !repeats::are_worth_a_look(bytes) {
            return Coding::Records;
        }
        let end = dst.len();
        let coding = zstd.encode(bytes, 1, dst);
        shorter_of([Coding::Records, coding], start, end, dst)
    }

    /// Codes elements that have more values than a palette holds, or may have.
    fn encode_many_valued(
        &mut self,
        source: BlockSource<'_>,
        start: usize,
        dst: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Coding {
        let coding = self.encode_values(source, start, dst, visit);
        let len = match coding {
            Coding::Stored => {
                dst.truncate(start);
                source.bytes.len()
            }
            _ => dst.len() - start,
        };
        let end = dst.len();
        if self.encode_differences(source, dst) {
            let differences_len = dst.len() - end;
            // 1 in 64: below that the work of adding up is not worth it.
            if differences_len + differences_len / 64 < len {
                dst.drain(start..end);
                return Coding::Differences;
            }
            dst.truncate(end);
        }
        coding
    }

    /// Codes elements by what each is, whatever those before it are.
    fn encode_values(
        &mut self,
        source: BlockSource<'_>,
        start: usize,
        dst: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Coding {
        let scaled_halves = self.encode_scaled(source, start, dst);
        let end = if scaled_halves.is_some() { dst.len() } else { start };
        let float_bytes = source.dtype.float_bytes();
        let sparse = float_bytes.filter(|&n| SparseEncoder::is_worth_it(n, source.bytes));
        let coding = match (scaled_halves, sparse) {
            // Of integers of a few bits no other coding knows as much, and of other halves only one that tells zeros apart.
            (Some(Coding::Palette), _) | (Some(_), None) => {
                visit(source.bytes);
                return Coding::Scaled;
            }
            (_, Some(element_bytes)) => {
                visit(source.bytes);
                dst.truncate(end);
                self.encode_sparse(source, element_bytes, dst)
            }
            (None, None) => self.encode_full(source, end, dst, visit),
        };
        match scaled_halves {
            Some(_) => shorter_of([Coding::Scaled, coding], start, end, dst),
            None => coding,
        }
    }

    /// Codes elements few of which are zero: as a matrix of rank one where that is shorter.
    fn encode_full(
        &mut self,
        source: BlockSource<'_>,
        start: usize,
        dst: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Coding {
        let end = match self.encode_rank_one(source, start, dst) {
            None => return self.encode_dense(source, start, dst, visit),
            Some(true) => {
                visit(source.bytes);
                return Coding::RankOne;
            }
            Some(false) => dst.len(),
        };
        let coding = self.encode_dense(source, end, dst, visit);
        shorter_of([Coding::RankOne, coding], start, end, dst)
    }

    fn encode_dense(
        &mut self,
        source: BlockSource<'_>,
        start: usize,
        dst: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Coding {
        let Self { isa, level, fields, zstd, .. } = self;
        let mut fits = fields.encode(*isa, *level, source, &mut zstd.planes, start, dst, visit);
        let end = dst.len();
        // Next to nothing saved: perhaps only the exponents are strange.
        if (end - start) * 32 > source.bytes.len() * 31 || !fits {
            let fits_bytes = fields.encode_float_bytes(*isa, *level, source, &mut zstd.planes, end, dst);
            if fits_bytes && (!fits || dst.len() - end < end - start) {
                dst.drain(start..end);
                fits = true;
            } else {
                dst.truncate(end);
            }
        }
        let fields_len = if fits { dst.len() - start } else { source.bytes.len() };
        let unit_bytes = source.dtype.unit_bytes();
        if !fits || repeats::are_common(unit_bytes, source.bytes) {
            // Repeated elements are no noise: look for them.
            let end = dst.len();
            let coding = self.zstd.encode(source.bytes, unit_bytes, dst);
            if coding == Coding::Zstd && dst.len() - end < fields_len {
                dst.drain(start..end);
                return coding;
            }
            dst.truncate(end);
        }
        if fits { Coding::Fields } else { Coding::Stored }
    }
}

/// Keeps the shorter of two payloads, the second, where it is one, from `end` of `dst` on, and says how it is coded.
fn shorter_of([first, second]: [Coding; 2], start: usize, end: usize, dst: &mut Vec<u8>) -> Coding {
    if second == Coding::Stored {
        dst.truncate(end);
        return first;
    }
    if keep_shorter(dst, start, end) { second } else { first }
}

#[cfg(test)]
mod tests;
