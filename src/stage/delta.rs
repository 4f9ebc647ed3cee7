//! Coding 14, delta: what elements differ by from those of an earlier block. FORMAT.md section 3.14.
//!
//! A checkpoint may hold near copies of its tensors: moving averages of weights, a teacher beside its student, the state some
//! steps before. Elements then mostly keep sign and exponent, and differ in the low bits of their mantissas, by numbers
//! whose scale goes with the exponent: the absolute difference is about the same for large and small elements, so that it is
//! more units in the last place of the small ones. Elements are therefore told apart by the exponent of the element that
//! they are compared with, which a decoder knows. Of each such class the low bits, next to noise, are stored as they are, and
//! what is above them by the coder of quantization indices, a class behind the other.

use super::float_bits::{FloatBits, elements, word};
use super::payload::{corrupt, le32, scratch};
use super::planes::PlaneCoder;
use super::rests::{RestSizes, RestWriter, Rests};
use crate::bits::ByteCursor;
use crate::dtype::Dtype;
use crate::entropy::freq::entropy_q16;
use crate::entropy::indices::{Dependence, ESCAPE, IndexDecoder, IndexEncoder};
use crate::entropy::rans12;
use crate::error::Result;
use crate::kernels::Isa;

const HEADER_BYTES: usize = 20;
/// Classes of elements: as many as a byte has exponents.
const N_CLASSES: usize = 256;
/// Elements whose low bits are looked at at a time.
const TILE_LEN: usize = 4096;
/// Most low bits that are stored as they are.
const MAX_WIDTH: usize = 24;
/// Bits of a difference that are entropy-coded, about: below them it is next to noise.
const CODED_BITS: u64 = 4;
/// Differences above this in what is left without the low bits have little to do with the element that they are taken from.
const MAX_INDEX: u32 = 1 << 11;
/// Bits that a difference takes besides its own length, about: sign, and what telling the length costs.
const COST_AROUND_LENGTH_Q16: u64 = 3 << 15;
/// Bits an element that a near copy must promise to save.
const LEAST_GAIN_Q16: u64 = 1 << 16;

/// Whether samples say that elements of `dtype` take clearly fewer bits as differences from `base` than as they are. Both
/// hold the same elements of two tensors, one behind the other.
#[must_use]
pub fn is_near_copy(dtype: Dtype, bytes: &[u8], base: &[u8]) -> bool {
    match (FloatBits::of(dtype), dtype.unit_bytes()) {
        (Some(format), 2) => costs_less::<2>(format, bytes, base),
        (Some(format), 4) => costs_less::<4>(format, bytes, base),
        _ => false,
    }
}

fn costs_less<const N: usize>(format: FloatBits, bytes: &[u8], base: &[u8]) -> bool {
    let mut exponents = [0; 256];
    let (mut n, mut any, mut lengths) = (0u64, 0, 0);
    for (element, base) in elements::<N>(bytes).zip(elements::<N>(base)) {
        exponents[format.exponent(element)] += 1;
        any |= element;
        let length = |difference: i32| u32::BITS - difference.unsigned_abs().leading_zeros();
        lengths += u64::from(format.difference(element, base).map_or(format.element_bits, length));
        n += 1;
    }
    let rest_bits = format.mantissa_bits + 1 - any.trailing_zeros().min(format.mantissa_bits);
    let as_they_are = entropy_q16(&exponents) + (u64::from(rest_bits) << 16);
    let differences = (lengths << 16).checked_div(n).unwrap_or(u64::MAX / 2) + COST_AROUND_LENGTH_Q16;
    differences + LEAST_GAIN_Q16 <= as_they_are
}

/// What stands in the header of a payload, and the widths behind it.
#[derive(Debug, Clone)]
struct Header {
    /// Where the other block begins in the original.
    base_offset: u64,
    /// Low bits of each class.
    widths: [u8; N_CLASSES],
    n_escapes: usize,
    escapes_coding: u8,
    indices_len: usize,
}

impl Header {
    fn write(&self, dst: &mut Vec<u8>) {
        let is_wide = |width: &u8| *width > 0;
        let first = self.widths.iter().position(is_wide).unwrap_or(0);
        let end = self.widths.iter().rposition(is_wide).map_or(first, |last| last + 1);
        let widths = &self.widths[first..end];
        dst.extend(self.base_offset.to_le_bytes());
        dst.extend([first.to_le_bytes()[0], 0]);
        dst.extend(&le32(widths.len())[..2]);
        dst.extend(le32(self.n_escapes));
        dst.extend(le32(self.indices_len));
        dst.extend_from_slice(widths);
    }

    fn read(src: &mut ByteCursor<'_>) -> Option<Self> {
        let base_offset = src.u64()?;
        let [first, escapes_coding] = src.array::<2>()?;
        let n_widths = usize::from(src.u16()?);
        let n_escapes = usize::try_from(src.u32()?).ok()?;
        let indices_len = usize::try_from(src.u32()?).ok()?;
        let first = usize::from(first);
        let mut widths = [0; N_CLASSES];
        widths.get_mut(first..first + n_widths)?.copy_from_slice(src.take(n_widths)?);
        let are_valid = widths.iter().all(|width| usize::from(*width) <= MAX_WIDTH);
        are_valid.then_some(Self { base_offset, widths, n_escapes, escapes_coding, indices_len })
    }
}

/// Where in the original the block begins that `payload` is the difference to.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] where the payload is too short to say.
pub fn delta_base(payload: &[u8]) -> Result<u64> {
    ByteCursor::new(payload).u64().ok_or_else(|| corrupt("the delta block's payload is too short"))
}

/// Scratch memory of the encoder.
#[derive(Debug, Default)]
pub(super) struct DeltaEncoder {
    indices: Vec<i32>,
    rests: Vec<u64>,
    writer: RestWriter,
    index_encoder: IndexEncoder,
    /// Elements that have little to do with those they are compared with.
    escapes: Vec<u8>,
}

impl DeltaEncoder {
    /// Appends the payload of `bytes`, elements of `dtype`, as differences from the block `base`, which begins at
    /// `base_offset` of the original, and returns the elements that the caller has still to code and append; `None` where the
    /// dtype has no differences or the blocks are of different sizes.
    pub(super) fn encode(
        &mut self,
        isa: Isa,
        dtype: Dtype,
        bytes: &[u8],
        (base_offset, base): (u64, &[u8]),
        (coder, zstd): (&mut PlaneCoder, &mut zstd::bulk::Compressor<'static>),
        dst: &mut Vec<u8>,
    ) -> Option<&[u8]> {
        let format = FloatBits::of(dtype)?;
        (bytes.len() == base.len()).then_some(())?;
        let start = dst.len();
        let (counts, widths) = match dtype.unit_bytes() {
            2 => self.split::<2>(format, bytes, base),
            _ => self.split::<4>(format, bytes, base),
        };
        let n_escapes = self.escapes.len() / dtype.unit_bytes();
        let mut header = Header { base_offset, widths, n_escapes, escapes_coding: 0, indices_len: 0 };
        header.write(dst);
        self.writer.clear();
        let mut rests = self.rests.as_slice();
        for (count, width) in counts.into_iter().zip(widths) {
            let run = rests.split_off(..count)?;
            if width > 0 {
                self.writer.push_run(width, run);
            }
        }
        self.writer.finish();
        self.writer.write(isa, coder, zstd, dst);
        let indices_start = dst.len();
        self.index_encoder.encode(isa, &self.indices, Dependence::None, &[], dst);
        header.indices_len = dst.len() - indices_start;
        dst[start + 16..start + HEADER_BYTES].copy_from_slice(&le32(header.indices_len));
        Some(&self.escapes)
    }

    /// Notes in the header at `start` of `dst` how the elements that [`Self::encode`] returned are coded.
    pub(super) fn set_inner_coding(dst: &mut [u8], start: usize, coding_id: u8) {
        if let Some(byte) = dst.get_mut(start + 9) {
            *byte = coding_id;
        }
    }

    /// Takes differences and lays them class behind class; how many there are of each, and their widths.
    fn split<const N: usize>(
        &mut self,
        format: FloatBits,
        bytes: &[u8],
        base: &[u8],
    ) -> ([usize; N_CLASSES], [u8; N_CLASSES]) {
        let pairs = || elements::<N>(bytes).zip(elements::<N>(base));
        let (mut counts, mut n_alike, mut lengths) =
            ([0usize; N_CLASSES], [0u64; N_CLASSES], [0u64; N_CLASSES]);
        for (element, base) in pairs() {
            let class = format.exponent(base);
            counts[class] += 1;
            if let Some(difference) = format.difference(element, base) {
                n_alike[class] += 1;
                lengths[class] += u64::from(u32::BITS - difference.unsigned_abs().leading_zeros());
            }
        }
        let widths = std::array::from_fn(|class| {
            // The mean, rounded.
            let mean = (2 * lengths[class] + n_alike[class]).checked_div(2 * n_alike[class]).unwrap_or(0);
            mean.saturating_sub(CODED_BITS).min(MAX_WIDTH as u64).to_le_bytes()[0]
        });
        let mut places = starts(&counts);
        let n = bytes.len() / N;
        self.indices.resize(n, 0);
        self.rests.resize(n, 0);
        self.escapes.clear();
        for ((element, base), bytes) in pairs().zip(bytes.as_chunks::<N>().0) {
            let class = format.exponent(base);
            let width = widths[class];
            let place = places[class];
            places[class] += 1;
            let difference = format.difference(element, base);
            let index = difference.map(|difference| difference >> width);
            let index = index.filter(|index| index.unsigned_abs() <= MAX_INDEX);
            self.indices[place] = index.unwrap_or(ESCAPE);
            self.rests[place] = match (index, difference) {
                (Some(_), Some(difference)) => u64::from(difference.cast_unsigned() & ((1 << width) - 1)),
                _ => 0,
            };
            if index.is_none() {
                self.escapes.extend_from_slice(bytes);
            }
        }
        (counts, widths)
    }
}

/// Where each class begins if they are laid one behind the other.
fn starts(counts: &[usize; N_CLASSES]) -> [usize; N_CLASSES] {
    let mut end = 0;
    counts.map(|count| {
        end += count;
        end - count
    })
}

/// Scratch memory of the decoder.
#[derive(Debug, Default)]
pub(super) struct DeltaDecoder {
    indices: Vec<i32>,
    rests: Vec<u64>,
    planes: Vec<u8>,
    index_decoder: IndexDecoder,
    pub(super) escapes: Vec<u8>,
}

/// A payload, taken apart.
pub(super) struct Delta<'a> {
    format: FloatBits,
    header: Header,
    counts: [usize; N_CLASSES],
    rests: Rests<'a>,
    indices: &'a [u8],
    /// The payload of the elements that are no differences.
    pub(super) escapes: &'a [u8],
}

impl<'a> Delta<'a> {
    /// Takes `payload` apart, of a block like `base`, which has whole elements; `None` where it breaks the format.
    pub(super) fn open(dtype: Dtype, payload: &'a [u8], base: &[u8]) -> Option<Self> {
        let format = FloatBits::of(dtype)?;
        let mut src = ByteCursor::new(payload);
        let header = Header::read(&mut src)?;
        let mut counts = [0; N_CLASSES];
        match dtype.unit_bytes() {
            2 => elements::<2>(base).for_each(|base| counts[format.exponent(base)] += 1),
            _ => elements::<4>(base).for_each(|base| counts[format.exponent(base)] += 1),
        }
        let mut sizes = RestSizes::default();
        for (count, width) in counts.into_iter().zip(header.widths) {
            sizes.add_run(width.into(), count);
        }
        let rests = sizes.open(&mut src)?;
        let indices = src.take(header.indices_len)?;
        (header.n_escapes <= base.len() / dtype.unit_bytes()).then_some(())?;
        Some(Self { format, header, counts, rests, indices, escapes: src.rest() })
    }

    /// The coding of the escapes, and their number.
    pub(super) fn escapes_coding(&self) -> (u8, usize) {
        (self.header.escapes_coding, self.header.n_escapes)
    }
}

impl DeltaDecoder {
    /// Makes the block out of the one that it is like, which `bytes` hold, and of its escapes in [`Self::escapes`].
    pub(super) fn apply(
        &mut self,
        isa: Isa,
        opened: &Delta<'_>,
        (zstd, rans12): (&mut zstd::bulk::Decompressor<'static>, &mut rans12::Decoder),
        bytes: &mut [u8],
    ) -> Option<()> {
        let n = opened.counts.iter().sum();
        let indices = scratch(&mut self.indices, n);
        self.index_decoder.decode(isa, opened.indices, Dependence::None, indices)?;
        let rests = scratch(&mut self.rests, n);
        let mut reader = opened.rests.reader(isa, zstd, rans12, &mut self.planes)?;
        let mut left = &mut *rests;
        for (&count, width) in opened.counts.iter().zip(opened.header.widths) {
            let run = left.split_off_mut(..count)?;
            run.chunks_mut(TILE_LEN).for_each(|tile| reader.next_run(width, tile));
        }
        let escapes =
            self.escapes.get(..opened.header.n_escapes * opened.format.element_bits as usize / 8)?;
        match opened.format.element_bits {
            16 => add::<2>(opened, indices, rests, escapes, bytes),
            _ => add::<4>(opened, indices, rests, escapes, bytes),
        }
    }
}

/// Adds differences to the elements of `bytes`, or puts escapes in their places; `None` where these are not as many.
fn add<const N: usize>(
    opened: &Delta<'_>,
    indices: &[i32],
    rests: &[u64],
    escapes: &[u8],
    bytes: &mut [u8],
) -> Option<()> {
    let Delta { format, header, counts, .. } = opened;
    let mut places = starts(counts);
    let mut escapes = escapes.as_chunks::<N>().0.iter();
    for bytes in bytes.as_chunks_mut::<N>().0 {
        let base = word(*bytes);
        let class = format.exponent(base);
        let place = places[class];
        places[class] += 1;
        let index = *indices.get(place)?;
        if index == ESCAPE {
            *bytes = *escapes.next()?;
            continue;
        }
        // The low 32 bits; at most 24 are there.
        let [a, b, c, d, ..] = rests.get(place)?.to_le_bytes();
        let difference = index.cast_unsigned() << header.widths[class] | u32::from_le_bytes([a, b, c, d]);
        bytes.copy_from_slice(&format.add(base, difference).to_le_bytes()[..N]);
    }
    escapes.next().is_none().then_some(())
}
