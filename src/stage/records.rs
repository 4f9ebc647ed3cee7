//! Coding 13, records: bytes of records of one length, a stream for each kind of field. FORMAT.md section 3.13.
//!
//! Quantized formats such as those of GGUF keep scales and integers of each group of weights together. Bytes at one place of
//! a record are alike; places whose bytes are distributed alike share a stream, and with it a table.

use super::packing::Packing;
use super::payload::{corrupt, scratch};
use super::planes::{ENTRY_BYTES, Entry, Kind, PlaneCoder};
use crate::bits::ByteCursor;
use crate::entropy::freq::entropy_q16;
use crate::entropy::rans12;
use crate::error::Result;
use crate::kernels::histogram::Histogram;
use crate::kernels::{Isa, pack_bits};

/// Longest record, in bytes.
const MAX_RECORD_BYTES: usize = 512;
/// Most streams.
const MAX_STREAMS: usize = 32;
/// Records that a block must have.
const MIN_RECORDS: usize = 16;
/// Records that are counted at most.
const N_COUNTED: usize = 2048;
/// What a coded stream has besides its codes: entry, states and which bytes occur, in bits.
const STREAM_BITS: i64 = 8 * 165;
/// The frequency of a byte that occurs, about, in bits.
const FREQ_BITS: i64 = 8;
/// By how much a sample's entropy is too small for each value that occurs, times the size of the sample: half of log2(e)
/// (G. A. Miller, "Note on the bias of information estimates", 1955).
const BIAS_Q16: u64 = 47_274;

/// Scratch memory of the encoder.
#[derive(Debug, Default)]
pub(super) struct RecordEncoder {
    columns: Vec<Histogram>,
    /// One in so many records is counted in them.
    one_in: usize,
    unpacked: Vec<u8>,
    stream: Vec<u8>,
    entries: Vec<u8>,
}

impl RecordEncoder {
    /// Appends the payload of `bytes` as records of `record_bytes` to `dst`; `false`, and nothing appended, where they are
    /// too few or too long.
    pub(super) fn encode(
        &mut self,
        isa: Isa,
        record_bytes: usize,
        bytes: &[u8],
        planes: &mut PlaneCoder,
        zstd: &mut zstd::bulk::Compressor<'static>,
        dst: &mut Vec<u8>,
    ) -> bool {
        if !(2..=MAX_RECORD_BYTES).contains(&record_bytes) || bytes.len() < MIN_RECORDS * record_bytes {
            return false;
        }
        let n_records = bytes.len() / record_bytes;
        let mut unpacked = std::mem::take(&mut self.unpacked);
        let as_they_are = self.count(record_bytes, bytes);
        let packing = Packing::of(record_bytes).filter(|packing| {
            let len = n_records * packing.unpacked_bytes();
            packing.unpack(bytes, scratch(&mut unpacked, len));
            let is_shorter = self.count(packing.unpacked_bytes(), &unpacked[..len]) < as_they_are;
            if !is_shorter {
                self.count(record_bytes, bytes);
            }
            is_shorter
        });
        let streams = self.share_out();
        let (block, tail) = match packing {
            None => (bytes, &[][..]),
            Some(packing) => {
                (&unpacked[..n_records * packing.unpacked_bytes()], &bytes[n_records * record_bytes..])
            }
        };
        let shape = Shape::new(&streams.of_bytes, block.len());
        dst.extend(u16::try_from(record_bytes).unwrap_or(0).to_le_bytes());
        dst.extend([streams.n.to_le_bytes()[0], packing.map_or(0, |packing| packing.id)]);
        dst.extend_from_slice(&streams.of_bytes);
        let entries_at = dst.len();
        dst.resize(entries_at + streams.n * ENTRY_BYTES, 0);
        self.entries.clear();
        for (stream, padded_len) in shape.padded_lens().enumerate().take(streams.n) {
            let part = scratch(&mut self.stream, padded_len);
            shape.gather(stream, block, part);
            planes.encode(isa, Kind::Field, part, zstd, &mut self.entries, dst);
        }
        dst[entries_at..entries_at + self.entries.len()].copy_from_slice(&self.entries);
        dst.extend_from_slice(tail);
        self.unpacked = unpacked;
        true
    }

    /// Counts the bytes at each place of a record; the bits that a record takes if they have nothing to do with each other, about.
    fn count(&mut self, record_bytes: usize, bytes: &[u8]) -> u64 {
        self.columns.clear();
        self.columns.resize(record_bytes, [0; 256]);
        let n_records = bytes.len() / record_bytes;
        self.one_in = n_records.div_ceil(N_COUNTED).max(1);
        for record in bytes.chunks_exact(record_bytes).step_by(self.one_in) {
            self.columns.iter_mut().zip(record).for_each(|(counts, &byte)| counts[usize::from(byte)] += 1);
        }
        let n_counted = (n_records.div_ceil(self.one_in) as u64).max(1);
        let bits_q16 =
            |counts: &Histogram| entropy_q16(counts) + n_values(counts) as u64 * BIAS_Q16 / n_counted;
        self.columns.iter().map(bits_q16).sum()
    }

    /// Which of the bytes that have been counted share a stream.
    fn share_out(&self) -> Streams {
        let one_in = self.one_in;
        let cost = |counts: &Histogram| {
            let n: u32 = counts.iter().sum();
            let n_values = n_values(counts);
            let bias_q16 = (one_in - 1) as u64 * n_values as u64 * BIAS_Q16;
            let bits_q16 = entropy_q16(counts) * u64::from(n) * one_in as u64 + bias_q16;
            (bits_q16 >> 16).cast_signed() + STREAM_BITS + FREQ_BITS * n_values as i64
        };
        let mut streams: Vec<(Histogram, i64)> = Vec::new();
        let mut streams_of = Vec::with_capacity(self.columns.len());
        for counts in &self.columns {
            let alone = cost(counts);
            let joined = |(total, total_cost): &(Histogram, i64)| {
                let sum: Histogram = std::array::from_fn(|byte| total[byte] + counts[byte]);
                let sum_cost = cost(&sum);
                (sum_cost - total_cost - alone, sum, sum_cost)
            };
            // Neighbours are alike, mostly: where nearly all of a stream of its own is saved, others need not be asked.
            let last = streams.len().checked_sub(1).and_then(|last| Some((last, joined(streams.get(last)?))));
            let best = match last {
                Some((_, (more, ..))) if more < -STREAM_BITS * 3 / 4 => last,
                _ => streams.iter().map(joined).enumerate().min_by_key(|(_, (more, ..))| *more),
            };
            let stream = match best {
                Some((stream, (more, sum, sum_cost))) if more < 0 || streams.len() == MAX_STREAMS => {
                    streams[stream] = (sum, sum_cost);
                    stream
                }
                _ => {
                    streams.push((*counts, alone));
                    streams.len() - 1
                }
            };
            streams_of.push(stream.to_le_bytes()[0]);
        }
        Streams { of_bytes: streams_of, n: streams.len() }
    }
}

/// How many values occur.
fn n_values(counts: &Histogram) -> usize {
    counts.iter().filter(|count| **count > 0).count()
}

/// The streams of a block.
struct Streams {
    /// The stream of each byte of a record.
    of_bytes: Vec<u8>,
    n: usize,
}

/// Neighbouring bytes of a record that belong to one stream.
#[derive(Debug, Clone, Copy)]
struct Field {
    from: usize,
    len: usize,
    stream: usize,
    /// Where it stands among what the stream has of a record.
    at: usize,
}

/// Which bytes of a block go where: each stream has those of its places in the order of the block.
struct Shape {
    record_bytes: usize,
    n_bytes: usize,
    fields: Vec<Field>,
    /// What each stream has of a record, and of the last one, which may be cut off.
    strides: [(usize, usize); MAX_STREAMS],
}

impl Shape {
    /// The shape of `n_bytes` by the stream of each byte of a record, a number below [`MAX_STREAMS`].
    fn new(streams_of: &[u8], n_bytes: usize) -> Self {
        let record_bytes = streams_of.len();
        let n_left = n_bytes % record_bytes;
        let mut strides = [(0, 0); MAX_STREAMS];
        let mut from = 0;
        let field = |run: &[u8]| {
            let (start, len) = (from, run.len());
            from += len;
            let stream = usize::from(run.first().copied().unwrap_or(0));
            let (stride, last) = &mut strides[stream];
            let at = *stride;
            *stride += len;
            *last += n_left.saturating_sub(start).min(len);
            Field { from: start, len, stream, at }
        };
        let fields = streams_of.chunk_by(|a, b| a == b).map(field).collect();
        Self { record_bytes, n_bytes, fields, strides }
    }

    /// Bytes of each stream as it is coded: with some behind, so that they are whole groups.
    fn padded_lens(&self) -> impl Iterator<Item = usize> {
        let n_whole = self.n_bytes / self.record_bytes;
        let len = move |&(stride, last): &(usize, usize)| n_whole * stride + last;
        self.strides.iter().map(len).map(|len| len.next_multiple_of(pack_bits::GROUP_LEN))
    }

    /// The fields of a stream, its stride, and where in block and stream the last, cut record begins.
    fn fields_of(&self, stream: usize) -> (impl Iterator<Item = &Field>, usize, [usize; 2]) {
        let n_whole = self.n_bytes / self.record_bytes;
        let stride = self.strides[stream].0;
        let fields = self.fields.iter().filter(move |field| field.stream == stream);
        (fields, stride, [n_whole * self.record_bytes, n_whole * stride])
    }

    /// Fills `dst`, a stream of its padded length, from the block.
    fn gather(&self, stream: usize, bytes: &[u8], dst: &mut [u8]) {
        let (fields, stride, [block_tail, tail]) = self.fields_of(stream);
        for field in fields {
            let whole = bytes[..block_tail].get(field.from..).unwrap_or_default();
            copy_field(field.len, whole, self.record_bytes, &mut dst[field.at.min(tail)..tail], stride);
            let last = bytes[block_tail..].get(field.from..).unwrap_or_default();
            let len = last.len().min(field.len);
            if len > 0 {
                dst[tail + field.at..][..len].copy_from_slice(&last[..len]);
            }
        }
        let len = tail + self.strides[stream].1;
        if let Some(&last) = dst[..len].last() {
            dst[len..].fill(last);
        }
    }

    /// Fills the stream's places in the block from `src`, a stream of its padded length.
    fn scatter(&self, stream: usize, src: &[u8], dst: &mut [u8]) {
        let (fields, stride, [block_tail, tail]) = self.fields_of(stream);
        for field in fields {
            let (whole, last) = dst.split_at_mut(block_tail);
            let whole = whole.get_mut(field.from..).unwrap_or_default();
            copy_field(field.len, &src[field.at.min(tail)..tail], stride, whole, self.record_bytes);
            let last = last.get_mut(field.from..).unwrap_or_default();
            let len = last.len().min(field.len);
            if len > 0 {
                last[..len].copy_from_slice(&src[tail + field.at..][..len]);
            }
        }
    }
}

/// Copies the first `len` bytes of every `src_stride` to those of every `dst_stride`.
fn copy_field(len: usize, src: &[u8], src_stride: usize, dst: &mut [u8], dst_stride: usize) {
    let each = src.chunks(src_stride).zip(dst.chunks_mut(dst_stride));
    match len {
        1 => each.for_each(copy::<1>),
        2 => each.for_each(copy::<2>),
        4 => each.for_each(copy::<4>),
        8 => each.for_each(copy::<8>),
        16 => each.for_each(copy::<16>),
        32 => each.for_each(copy::<32>),
        _ => each.for_each(|(src, dst)| {
            let len = len.min(src.len()).min(dst.len());
            dst[..len].copy_from_slice(&src[..len]);
        }),
    }
}

/// Copies `N` bytes: of a length that the compiler knows a single move.
fn copy<const N: usize>((src, dst): (&[u8], &mut [u8])) {
    if let (Some(src), Some(dst)) = (src.first_chunk::<N>(), dst.first_chunk_mut::<N>()) {
        *dst = *src;
    }
}

/// Decodes `payload` into all of `dst`.
pub(super) fn decode(
    isa: Isa,
    payload: &[u8],
    zstd: &mut zstd::bulk::Decompressor<'static>,
    rans12: &mut rans12::Decoder,
    buffers: [&mut Vec<u8>; 2],
    dst: &mut [u8],
) -> Result<()> {
    try_decode(isa, payload, zstd, rans12, buffers, dst)
        .ok_or_else(|| corrupt("the records break the format"))
}

fn try_decode(
    isa: Isa,
    payload: &[u8],
    zstd: &mut zstd::bulk::Decompressor<'static>,
    rans12: &mut rans12::Decoder,
    [buffer, unpacked]: [&mut Vec<u8>; 2],
    dst: &mut [u8],
) -> Option<()> {
    let mut src = ByteCursor::new(payload);
    let record_bytes = usize::from(src.u16()?);
    let [n_streams, packing_id] = src.array::<2>()?;
    let n_streams = usize::from(n_streams);
    let packing = match packing_id {
        0 => None,
        id => Some(Packing::from_wire_id(id).filter(|packing| packing.record_bytes == record_bytes)?),
    };
    let streams_of = src.take(packing.map_or(record_bytes, Packing::unpacked_bytes))?;
    let is_valid = (2..=MAX_RECORD_BYTES).contains(&record_bytes)
        && (1..=MAX_STREAMS).contains(&n_streams)
        && streams_of.iter().all(|&stream| usize::from(stream) < n_streams);
    if !is_valid {
        return None;
    }
    let mut entries = src;
    src.take(n_streams * ENTRY_BYTES)?;
    let mut decode_streams = |block: &mut [u8]| {
        let shape = Shape::new(streams_of, block.len());
        for (stream, padded_len) in shape.padded_lens().enumerate().take(n_streams) {
            let entry = Entry::read(&mut entries)?;
            let part = scratch(buffer, padded_len);
            entry.decode(isa, src.take(entry.len())?, zstd, rans12, part)?;
            shape.scatter(stream, part, block);
        }
        Some(())
    };
    let Some(packing) = packing else {
        decode_streams(dst)?;
        return src.rest().is_empty().then_some(());
    };
    let n_records = dst.len() / record_bytes;
    let unpacked = scratch(unpacked, n_records * packing.unpacked_bytes());
    decode_streams(unpacked)?;
    let (records, tail) = dst.split_at_mut(n_records * record_bytes);
    packing.pack(unpacked, records);
    (src.rest().len() == tail.len()).then(|| tail.copy_from_slice(src.rest()))
}
