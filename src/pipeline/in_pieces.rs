//! Blocks that are read, hashed, quantized, hashed again and checksummed piece by piece: whatever comes after reading a
//! piece finds it in the second cache.

use super::encode::Scratch;
use super::timings::{Step, Timings};
use crate::container::{Piece, RunningCrc, crc64};
use crate::error::Result;
use crate::stage::{BlockEncoder, BlockLoss, BlockPart, Coding, QuantRun, TILE_LEN};

/// Bytes of a piece. Hashes are of pieces that begin at its multiples in the file, so that their subtrees are whole.
const PIECE_BYTES: usize = 128 << 10;

/// Reads the part of a block that begins with a byte of it.
pub(crate) type ReadPart<'r> = dyn FnMut(usize, &mut [u8]) -> Result<()> + 'r;

/// The hash of a block that grows.
struct GrowingHash {
    piece: Piece,
    offset: u64,
    /// Bytes of the block that are hashed.
    done: usize,
}

impl GrowingHash {
    /// That of a block at `offset`.
    fn new(offset: u64) -> Self {
        Self { piece: Piece::hash(offset, &[]), offset, done: 0 }
    }

    /// Hashes what there is of `block` up to `end`: whole pieces of the file, or all at the end of the block.
    fn advance(&mut self, block: &[u8], end: usize) {
        let place = |at: usize| self.offset.wrapping_add(at as u64);
        // A remainder below 128 Ki fits.
        let ragged = usize::try_from(place(end) % PIECE_BYTES as u64).unwrap_or(0);
        let end = if end == block.len() { end } else { end.saturating_sub(ragged) };
        if let Some(part) = block.get(self.done..end).filter(|part| !part.is_empty()) {
            let next = Piece::hash(place(self.done), part);
            self.piece.append(next);
            self.done = end;
        }
    }
}

/// Reads the block at `offset` into all of `block`, and hashes it; `visit` sees each piece.
pub(crate) fn read_and_hash(
    timings: &mut Timings,
    offset: u64,
    block: &mut [u8],
    read: &mut ReadPart<'_>,
    visit: &mut dyn FnMut(&mut Timings, &[u8]),
) -> Result<Piece> {
    let mut hash = GrowingHash::new(offset);
    for from in (0..block.len()).step_by(PIECE_BYTES) {
        let end = block.len().min(from + PIECE_BYTES);
        timings.time(Step::Read, || read(from, &mut block[from..end]))?;
        visit(timings, &block[from..end]);
        timings.time(Step::Hash, || hash.advance(block, end));
    }
    Ok(hash.piece)
}

/// What is known of a block whose indices have been chosen.
pub(crate) struct Rebuilt {
    /// Of its reconstruction.
    pub(crate) piece: Piece,
    pub(crate) decoded_crc: u64,
    pub(crate) loss: BlockLoss,
}

/// A block on the way there.
struct Rebuilding<'r> {
    encoder: &'r mut BlockEncoder,
    run: QuantRun<'r>,
    hash: GrowingHash,
    crc: RunningCrc,
    loss: BlockLoss,
    /// Bytes of the block that are quantized.
    done: usize,
}

impl<'r> Rebuilding<'r> {
    fn new(encoder: &'r mut BlockEncoder, run: QuantRun<'r>, offset: u64) -> Self {
        let (hash, crc) = (GrowingHash::new(offset), RunningCrc::new());
        Self { encoder, run, hash, crc, loss: BlockLoss::default(), done: 0 }
    }

    /// Quantizes `block`, or what `source` has in its place, up to `end`: whole tiles, or all at the end of the block.
    fn advance(&mut self, timings: &mut Timings, source: Option<&[u8]>, block: &mut [u8], end: usize) {
        let unit_bytes = self.run.dtype.unit_bytes();
        let end = if end == block.len() { end } else { end - end % (TILE_LEN * unit_bytes) };
        let range = self.done..end;
        if range.is_empty() {
            return;
        }
        let n_elements = block.len() / unit_bytes;
        let source = source.and_then(|source| source.get(range.clone()));
        let bytes = &mut block[range.clone()];
        let part = BlockPart { n_elements, first: range.start / unit_bytes, source, bytes };
        timings.time_parts(|enter| self.encoder.quantize_part(self.run, part, &mut self.loss, enter));
        timings.time(Step::Hash, || self.hash.advance(block, end));
        timings.time(Step::Checksum, || self.crc.update(&block[range]));
        self.done = end;
    }

    fn finish(self) -> Rebuilt {
        Rebuilt { piece: self.hash.piece, decoded_crc: self.crc.value(), loss: self.loss }
    }
}

/// Reads the block at `offset` and replaces it by its reconstruction, which fills `block`. With the hash of what was read.
fn quantize_as_read(
    encoder: &mut BlockEncoder,
    timings: &mut Timings,
    run: QuantRun<'_>,
    (offset, block): (u64, &mut [u8]),
    read: &mut ReadPart<'_>,
) -> Result<(Piece, Rebuilt)> {
    let mut source_hash = GrowingHash::new(offset);
    let mut rebuilding = Rebuilding::new(encoder, run, offset);
    for from in (0..block.len()).step_by(PIECE_BYTES) {
        let end = block.len().min(from + PIECE_BYTES);
        timings.time(Step::Read, || read(from, &mut block[from..end]))?;
        timings.time(Step::Hash, || source_hash.advance(block, end));
        // What is not hashed yet must stay as it is.
        rebuilding.advance(timings, None, block, source_hash.done);
    }
    Ok((source_hash.piece, rebuilding.finish()))
}

/// Reads the block at `offset`, whose bytes are `block`, replaces it by its reconstruction, and appends its payload to
/// `record`. With the hash of what was read, and how the payload is coded.
pub(crate) fn read_and_code(
    Scratch { encoder, timings }: &mut Scratch,
    run: QuantRun<'_>,
    (offset, block): (u64, &mut [u8]),
    read: &mut ReadPart<'_>,
    record: &mut Vec<u8>,
) -> Result<(Piece, Rebuilt, Coding)> {
    if BlockEncoder::takes_parts(run.spec) {
        let (source_piece, rebuilt) = quantize_as_read(encoder, timings, run, (offset, block), read)?;
        let coding = timings.time(Step::Backend, || encoder.encode_tried(run, block, record));
        return Ok((source_piece, rebuilt, coding));
    }
    let source_piece = read_and_hash(timings, offset, block, read, &mut |_, _| {})?;
    let (coding, loss) =
        timings.time_parts(|enter| encoder.encode_quantized_watched(run, block, record, enter));
    let piece = timings.time(Step::Hash, || Piece::hash(offset, block));
    let decoded_crc = timings.time(Step::Checksum, || crc64(block));
    Ok((source_piece, Rebuilt { piece, decoded_crc, loss }, coding))
}

/// Fills `block`, which stands at `offset`, with the reconstruction of `source`.
pub(crate) fn quantize_from(
    encoder: &mut BlockEncoder,
    timings: &mut Timings,
    run: QuantRun<'_>,
    source: &[u8],
    (offset, block): (u64, &mut [u8]),
) -> Rebuilt {
    let mut rebuilding = Rebuilding::new(encoder, run, offset);
    for from in (0..block.len()).step_by(PIECE_BYTES) {
        let end = block.len().min(from + PIECE_BYTES);
        rebuilding.advance(timings, Some(source), block, end);
    }
    rebuilding.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::ContentHasher;
    use crate::dtype::Dtype;
    use crate::kernels::Isa;
    use crate::kernels::quantize::Rounding;
    use crate::stage::{BlockQuantizer, Choice, Domain, IndexBackend, Level, QuantSpec};

    /// Elements of every magnitude, with some that have no index.
    fn elements(n: usize) -> Vec<u8> {
        let value = |i: usize| match i % 9973 {
            77 => f32::NAN,
            78 => f32::MAX,
            _ => (i * 2_654_435 % 1_000_003) as f32 / 1e5 - 5.0,
        };
        (0..n).flat_map(|i| value(i).to_le_bytes()).collect()
    }

    fn spec() -> QuantSpec {
        QuantSpec {
            step: 0.01,
            domain: Domain::Linear,
            channels: None,
            prune_below: 0.0,
            row_lens: Vec::new(),
            choice: Choice::Rounded(Rounding::Thresholds([0.53; 32])),
            backend: IndexBackend::Rans,
        }
    }

    fn whole_hash(before: &[u8], pieces: &[&Piece]) -> [u8; 32] {
        let mut hasher = ContentHasher::new();
        hasher.push(&Piece::hash(0, before)).unwrap();
        pieces.iter().for_each(|piece| hasher.push(piece).unwrap());
        hasher.finalize()
    }

    #[test]
    fn pieces_give_what_a_block_as_a_whole_does() {
        let spec = spec();
        let run = QuantRun { spec: &spec, dtype: Dtype::F32, first_element: 0 };
        let isa = Isa::detect();
        for (offset, n) in [(0, 40_000), (8, 1), (1024, 32_768), (1000, 100_000), (131_073, 200_001)] {
            let (before, source) = (vec![5; offset], elements(n));
            let mut expected = source.clone();
            let loss = BlockQuantizer::default().apply(isa, &spec, Dtype::F32, 0, &mut expected);
            let hash_of = |bytes: &[u8]| *blake3::hash(&[&before, bytes].concat()).as_bytes();
            let at = offset as u64;
            let make =
                || Scratch { encoder: BlockEncoder::new(Level::Default, isa), timings: Timings::default() };

            let (mut scratch, mut block, mut record) = (make(), vec![1; source.len()], Vec::new());
            let mut read = |from: usize, part: &mut [u8]| {
                part.copy_from_slice(&source[from..from + part.len()]);
                Ok(())
            };
            let (source_piece, rebuilt, _) =
                read_and_code(&mut scratch, run, (at, &mut block), &mut read, &mut record).unwrap();
            assert!(block == expected && rebuilt.loss == loss, "{offset} {n}");
            assert_eq!(whole_hash(&before, &[&source_piece]), hash_of(&source), "{offset} {n}");
            assert_eq!(whole_hash(&before, &[&rebuilt.piece]), hash_of(&expected), "{offset} {n}");
            assert_eq!(rebuilt.decoded_crc, crc64(&expected));

            let (mut again, mut payload) = (vec![1; source.len()], Vec::new());
            let Scratch { encoder, timings } = &mut make();
            let from_source = quantize_from(encoder, timings, run, &source, (at, &mut again));
            encoder.encode_tried(run, &again, &mut payload);
            assert!(again == expected && payload == record && from_source.loss == loss, "{offset} {n}");
            assert_eq!(whole_hash(&before, &[&from_source.piece]), hash_of(&expected), "{offset} {n}");
        }
    }

    #[test]
    fn an_error_of_reading_is_passed_on() {
        let mut read = |from: usize, _: &mut [u8]| match from {
            0 => Ok(()),
            _ => Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "on purpose")),
        };
        let mut block = vec![0; 2 * PIECE_BYTES];
        let result = read_and_hash(&mut Timings::default(), 0, &mut block, &mut read, &mut |_, _| {});
        assert!(result.is_err());
    }
}
