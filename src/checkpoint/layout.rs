//! How a file is cut into blocks: by its header alone, so that the same file is always cut alike.
//!
//! Large tensors begin a block of their own, which keeps statistics apart, lets one tensor be decoded
//! without its neighbours, and makes equal tensors into equal blocks. Small neighbours of one dtype share a
//! block, because every block costs 44 bytes and its tables.

use crate::checkpoint::header::{SafetensorsHeader, TensorInfo};
use crate::dtype::Dtype;
use crate::limits::MAX_BLOCK_BYTES;

/// A tensor of this many bytes is large.
const LARGE_BYTES: u64 = 64 << 10;
/// Or of this many units.
const LARGE_UNITS: u64 = 16 << 10;
/// Balanced blocks are multiples of this many units, so that kernels see few tails.
const GRAIN_UNITS: u64 = 1024;

/// A run of the file's bytes that is cut into blocks alike: one large tensor, several small ones, or bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes, at least 1, a multiple of the dtype's unit.
    pub len: u64,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Elements in a row of the tensor: its last dimension above 1, or of a convolution those of a channel; 0 if there is no
    /// other dimension. Of bytes, the length of the records that they are.
    pub row_len: usize,
    /// Bytes of a full block.
    pub block_bytes: usize,
}

/// One block to be coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSpan {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes: 1 to [`Region::block_bytes`], a multiple of the dtype's unit.
    pub len: usize,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Elements in a row, as in [`Region::row_len`].
    pub row_len: usize,
    /// Elements of the block's first row that are before the block.
    pub row_start: usize,
}

impl BlockSpan {
    /// The `len` bytes from byte `from` of the block on.
    #[must_use]
    pub fn part(&self, from: usize, len: usize) -> Self {
        Self { offset: self.offset.wrapping_add(from as u64), len, ..*self }
    }
}

impl Region {
    /// Blocks that the region is cut into.
    #[must_use]
    pub fn n_blocks(&self) -> u64 {
        self.len.div_ceil(self.block_bytes as u64)
    }

    /// Block `block_idx` of the region, or `None` past the last. Full blocks and a remainder; but where the
    /// remainder would be below a quarter of a block, all blocks are of about the same size.
    #[must_use]
    pub fn block(&self, block_idx: u64) -> Option<BlockSpan> {
        let n_blocks = self.n_blocks();
        if block_idx >= n_blocks {
            return None;
        }
        let block_bytes = self.block_bytes as u64;
        let remainder = self.len % block_bytes;
        let start_of = |idx: u64| {
            if remainder == 0 || remainder >= block_bytes / 4 {
                idx.saturating_mul(block_bytes)
            } else {
                // `extra` of the blocks get one grain more than the others; the file's end cuts the last.
                let grain_bytes = match (self.dtype, self.row_len) {
                    (Dtype::Bytes, record_bytes @ 1..) => record_bytes as u64,
                    _ => GRAIN_UNITS * self.dtype.unit_bytes() as u64,
                };
                let n_grains = self.len.div_ceil(grain_bytes);
                let (grains, extra) = (n_grains / n_blocks, n_grains % n_blocks);
                (idx * grains + idx.min(extra)).saturating_mul(grain_bytes)
            }
        };
        let start = start_of(block_idx).min(self.len);
        let end = start_of(block_idx + 1).min(self.len);
        let len = usize::try_from(end - start).ok()?;
        let first = start / self.dtype.unit_bytes() as u64;
        let row_start = first.checked_rem(self.row_len as u64).and_then(|rest| usize::try_from(rest).ok());
        Some(BlockSpan {
            offset: self.offset + start,
            len,
            dtype: self.dtype,
            row_len: self.row_len,
            row_start: row_start.unwrap_or(0),
        })
    }
}

/// The regions of a safetensors file, which fill it from its first byte to its last.
#[must_use]
pub fn layout(header: &SafetensorsHeader) -> Vec<Region> {
    layout_around(header, &|_| false)
}

/// As [`layout`], but tensors that `stands_alone` names are regions of their own, of blocks that are as large as the
/// format allows.
#[must_use]
pub fn layout_around(header: &SafetensorsHeader, stands_alone: &dyn Fn(&TensorInfo) -> bool) -> Vec<Region> {
    let mut regions = plain_layout(header.prefix_bytes());
    // Whether the last region is of small tensors and may take more.
    let mut last_is_open = false;
    for tensor in header.tensors().iter().filter(|tensor| tensor.byte_len() > 0) {
        let dtype = tensor.dtype.unwrap_or(Dtype::Bytes);
        let is_alone = stands_alone(tensor);
        let region = Region {
            offset: tensor.start,
            len: tensor.byte_len(),
            dtype,
            // Of a type that is not known nobody knows how long elements are.
            row_len: tensor.dtype.map_or(0, |_| row_len(tensor.shape.iter().rev())),
            block_bytes: if is_alone { large_block_bytes(dtype) } else { dtype.block_bytes() },
        };
        let is_small = !is_alone
            && region.len < LARGE_BYTES
            && region.len / (region.dtype.unit_bytes() as u64) < LARGE_UNITS;
        match regions.last_mut() {
            Some(last)
                if last_is_open
                    && is_small
                    && last.dtype == region.dtype
                    && last.len + region.len <= region.dtype.block_bytes() as u64 =>
            {
                last.len += region.len;
                last.row_len = 0;
            }
            _ => regions.push(region),
        }
        last_is_open = is_small;
    }
    regions
}

/// The regions of a file that is coded as plain bytes; none of an empty one.
#[must_use]
pub fn plain_layout(file_len: u64) -> Vec<Region> {
    match file_len {
        0 => Vec::new(),
        len => {
            let dtype = Dtype::Bytes;
            vec![Region { offset: 0, len, dtype, row_len: 0, block_bytes: dtype.block_bytes() }]
        }
    }
}

/// Appends the region of the bytes from `start` to `end`, if there are any; bytes of no numbers join those before them.
pub(super) fn push_region(start: u64, end: u64, dtype: Dtype, row_len: usize, regions: &mut Vec<Region>) {
    match regions.last_mut() {
        _ if start == end => {}
        Some(last) if last.dtype == dtype && dtype == Dtype::Bytes => last.len += end - start,
        _ => {
            let block_bytes = dtype.block_bytes();
            regions.push(Region { offset: start, len: end - start, dtype, row_len, block_bytes });
        }
    }
}

/// The blocks of `regions` in order.
pub fn blocks(regions: &[Region]) -> impl Iterator<Item = BlockSpan> {
    regions.iter().flat_map(|region| (0..region.n_blocks()).filter_map(|block_idx| region.block(block_idx)))
}

/// Bytes of a full block of a tensor that stands alone: 1 Mi elements, or what the format allows.
#[must_use]
pub fn large_block_bytes(dtype: Dtype) -> usize {
    ((1 << 20) * dtype.unit_bytes()).min(MAX_BLOCK_BYTES)
}

/// The first dimension above 1, the innermost first, or, if that is of a convolution's kernel, the product of all but the
/// last; 0 if there is no other.
pub(super) fn row_len<'a>(dimensions: impl Iterator<Item = &'a u64>) -> usize {
    /// A last dimension below this is one of a convolution's kernel.
    const LEAST_ROW: u64 = 8;
    let mut dimensions = dimensions.copied().filter(|dimension| *dimension > 1);
    let (Some(mut row_len), Some(mut outer)) = (dimensions.next(), dimensions.next()) else { return 0 };
    if row_len < LEAST_ROW {
        // All of a channel: the product of all dimensions but the outermost.
        for dimension in dimensions {
            row_len = row_len.saturating_mul(outer);
            outer = dimension;
        }
    }
    usize::try_from(row_len).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn header(tensors: &[(&str, &str, u64)]) -> SafetensorsHeader {
        let mut json = String::from("{");
        let mut start = 0;
        for (idx, (dtype, shape, len)) in tensors.iter().enumerate() {
            let comma = if idx > 0 { "," } else { "" };
            let end = start + len;
            json += &format!(
                r#"{comma}"t{idx}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#
            );
            start = end;
        }
        json.push('}');
        let mut prefix = (json.len() as u64).to_le_bytes().to_vec();
        prefix.extend_from_slice(json.as_bytes());
        SafetensorsHeader::parse(&prefix, None, &Limits::default()).unwrap()
    }

    #[test]
    fn small_neighbours_share_and_large_tensors_stand_alone() {
        let header = header(&[
            ("F32", "[384]", 1536),
            ("F32", "[2,192]", 1536),
            ("BF16", "[2,300,1]", 1200),
            ("BF16", "[0]", 0),
            ("BF16", "[256,384]", 196_608),
            ("BF16", "[4]", 8),
            ("BF16", "[64,128,1,3,3]", 147_456),
            ("X7", "[9]", 5),
            ("BF16", "[4]", 8),
        ]);
        let regions = layout(&header);
        let seen: Vec<_> = regions.iter().map(|r| (r.dtype, r.len, r.row_len)).collect();
        assert_eq!(
            seen,
            [
                (Dtype::Bytes, header.prefix_bytes(), 0),
                (Dtype::F32, 3072, 0),
                (Dtype::Bf16, 1200, 300),
                (Dtype::Bf16, 196_608, 384),
                (Dtype::Bf16, 8, 0),
                (Dtype::Bf16, 147_456, 1152),
                (Dtype::Bytes, 5, 0),
                (Dtype::Bf16, 8, 0),
            ]
        );
        assert_eq!(regions.last().unwrap().offset + 8, header.file_len());
    }

    #[test]
    fn shared_blocks_end_at_a_full_block() {
        let tensors = vec![("U8", "[16000]", 16_000_u64); 100];
        let regions = layout(&header(&tensors));
        assert!(regions[1..].iter().all(|region| region.n_blocks() == 1));
        assert_eq!(regions[1].len, 32 * 16_000);
        assert_eq!(regions.iter().skip(1).map(|region| region.len).sum::<u64>(), 1_600_000);
    }

    #[test]
    fn blocks_fill_every_region_within_their_bounds() {
        for dtype in Dtype::all() {
            let (unit, full) = (dtype.unit_bytes() as u64, dtype.block_bytes() as u64);
            let lens =
                [unit, full - unit, full, full + unit, full + full / 4, 5 * full - unit, 7 * full + unit]
                    .into_iter()
                    .chain([1000, 8191].map(|n| n * full + 17 * unit));
            for len in lens {
                let block_bytes = dtype.block_bytes();
                let region = Region { offset: 99, len, dtype, row_len: 3, block_bytes };
                let (mut end, mut smallest) = (99, full);
                for span in blocks(&[region]) {
                    assert_eq!(span.offset, end);
                    assert!(span.len > 0 && span.len as u64 <= full, "{dtype:?} {len}");
                    assert!((span.len as u64).is_multiple_of(unit));
                    smallest = smallest.min(span.len as u64);
                    end += span.len as u64;
                }
                assert_eq!(end, 99 + len);
                assert!(len < full || smallest >= full / 4, "{dtype:?} {len}: block of {smallest}");
                assert_eq!(region.block(region.n_blocks()), None);
            }
        }
    }

    #[test]
    fn plain_files() {
        assert!(plain_layout(0).is_empty());
        let spans: Vec<_> = blocks(&plain_layout((1 << 20) + (1 << 19))).map(|span| span.len).collect();
        assert_eq!(spans, [1 << 20, 1 << 19]);
    }
}
