//! How a GGUF file is cut: one region for each tensor, whose quantized groups are records of bytes.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian. Only where tensors
//! begin and what their elements are is read; a wrong claim costs room, never a bit.

use super::layout::{Region, plain_layout, row_len};
use super::numbers::{ReadAt, begins_with, parse_prefix};
use crate::bits::ByteCursor;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::limits::Limits;

const MAGIC: [u8; 4] = *b"GGUF";
/// Most dimensions of a tensor.
const MAX_RANK: u32 = 8;
/// What tensors are aligned to unless the file says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &[u8] = b"general.alignment";

/// Where a tensor begins and what is in it.
#[derive(Debug, Clone, Copy)]
struct Tensor {
    /// From the beginning of the first tensor.
    offset: u64,
    kind: Elements,
    n_elements: u64,
    /// The innermost dimension, if there is another above 1.
    row_len: usize,
}

impl Tensor {
    /// Its bytes, where they are known.
    fn size(&self) -> Option<u64> {
        match self.kind {
            Elements::Of(dtype) => self.n_elements.checked_mul(dtype.unit_bytes() as u64),
            Elements::Groups(group_len, record_bytes) => {
                self.n_elements.div_ceil(group_len).checked_mul(record_bytes as u64)
            }
            Elements::Unknown => None,
        }
    }
}

/// What a type of ggml stands for.
#[derive(Debug, Clone, Copy)]
enum Elements {
    Of(Dtype),
    /// So many elements make a record of so many bytes.
    Groups(u64, usize),
    Unknown,
}

/// Elements of a type by its id in ggml.h.
fn elements(type_id: u32) -> Elements {
    use Elements::{Groups, Of, Unknown};
    match type_id {
        0 => Of(Dtype::F32),
        1 => Of(Dtype::F16),
        24 => Of(Dtype::I8),
        25 => Of(Dtype::I16),
        26 => Of(Dtype::I32),
        27 => Of(Dtype::I64),
        28 => Of(Dtype::F64),
        30 => Of(Dtype::Bf16),
        // Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
        2 => Groups(32, 18),
        3 => Groups(32, 20),
        6 => Groups(32, 22),
        7 => Groups(32, 24),
        8 => Groups(32, 34),
        // Q2_K to Q6_K, Q8_K
        10 => Groups(256, 84),
        11 => Groups(256, 110),
        12 => Groups(256, 144),
        13 => Groups(256, 176),
        14 => Groups(256, 210),
        15 => Groups(256, 292),
        // IQ2_XXS, IQ2_XS, IQ3_XXS, IQ1_S, IQ4_NL, IQ3_S, IQ2_S, IQ4_XS, IQ1_M
        16 => Groups(256, 66),
        17 => Groups(256, 74),
        18 => Groups(256, 98),
        19 => Groups(256, 50),
        20 => Groups(32, 18),
        21 => Groups(256, 110),
        22 => Groups(256, 82),
        23 => Groups(256, 136),
        29 => Groups(256, 56),
        // TQ1_0, TQ2_0, MXFP4, NVFP4
        34 => Groups(256, 54),
        35 => Groups(256, 66),
        39 => Groups(32, 17),
        40 => Groups(64, 36),
        _ => Unknown,
    }
}

/// The regions of a GGUF file that begins with `prefix`; `None` where it is none or a malformed one, or its header is not
/// whole there. They fill the file if its length `len` is known; else they end with the last tensor.
#[must_use]
pub fn gguf_layout(prefix: &[u8], len: Option<u64>, limits: &Limits) -> Option<Vec<Region>> {
    Header::parse(prefix, limits)?.regions(len)
}

/// The regions of a GGUF file of `len` bytes, which fill it; `None` where it is none, or a malformed one.
///
/// # Errors
/// Those of `read`.
pub fn gguf_regions(len: u64, read: &ReadAt<'_>, limits: &Limits) -> Result<Option<Vec<Region>>> {
    if !begins_with(len, read, &MAGIC)? {
        return Ok(None);
    }
    parse_prefix(len, limits.header_bytes, read, |prefix| gguf_layout(prefix, Some(len), limits))
}

struct Header {
    /// Where the first tensor begins.
    data_start: u64,
    tensors: Vec<Tensor>,
}

impl Header {
    /// Parses the header from the front of a file; `None` if it is malformed, or not all there.
    fn parse(prefix: &[u8], limits: &Limits) -> Option<Self> {
        let mut src = ByteCursor::new(prefix);
        let (magic, version) = (src.array::<4>()?, src.u32()?);
        let (n_tensors, n_pairs) = (src.u64()?, src.u64()?);
        let n_tensors = usize::try_from(n_tensors).ok().filter(|&n| n <= limits.tensors)?;
        if magic != MAGIC || !matches!(version, 2 | 3) {
            return None;
        }
        let mut alignment = DEFAULT_ALIGNMENT;
        for _ in 0..n_pairs {
            let key = string(&mut src)?;
            match src.u32()? {
                4 if key == ALIGNMENT_KEY => alignment = u64::from(src.u32()?),
                value_type => skip_value(&mut src, value_type)?,
            }
        }
        // Grows with what is there, whatever the number claims.
        let mut tensors = Vec::new();
        for _ in 0..n_tensors {
            tensors.push(tensor(&mut src)?);
        }
        let header_bytes = (prefix.len() - src.rest().len()) as u64;
        let data_start = header_bytes.checked_next_multiple_of(alignment).filter(|_| alignment > 0)?;
        tensors.sort_by_key(|tensor| tensor.offset);
        Some(Self { data_start, tensors })
    }

    /// The regions of a file, of `len` bytes if that is known; `None` where tensors lie beyond its end.
    fn regions(&self, len: Option<u64>) -> Option<Vec<Region>> {
        let start_of = |tensor: &Tensor| self.data_start.checked_add(tensor.offset);
        let end = match (len, self.tensors.last()) {
            (Some(len), _) => len,
            (None, Some(last)) => start_of(last)?.checked_add(last.size()?)?,
            (None, None) => self.data_start,
        };
        let start_of = |tensor: &Tensor| start_of(tensor).filter(|&start| start <= end);
        let first = self.tensors.first().map_or(Some(end), start_of)?;
        let mut regions = plain_layout(first);
        for (idx, tensor) in self.tensors.iter().enumerate() {
            let (start, end) = (start_of(tensor)?, self.tensors.get(idx + 1).map_or(Some(end), start_of)?);
            push_tensor(tensor, start, end, &mut regions);
        }
        Some(regions)
    }
}

/// Appends the regions of the bytes from `start` to `end`, at the front of which is `tensor`.
fn push_tensor(tensor: &Tensor, start: u64, end: u64, regions: &mut Vec<Region>) {
    /// What is behind a tensor is mostly padding, and no region of its own if it is less than this.
    const LEAST: u64 = 256;
    let room = end - start;
    let (dtype, row_len) = match tensor.kind {
        Elements::Of(dtype) => (dtype, tensor.row_len),
        Elements::Groups(_, record_bytes) => (Dtype::Bytes, record_bytes),
        Elements::Unknown => (Dtype::Bytes, 0),
    };
    let unit = dtype.unit_bytes() as u64;
    let whole = room - room % unit;
    let size = tensor.size().filter(|&size| room - size.min(room) >= LEAST).unwrap_or(whole).min(whole);
    let mut push = |offset, len, dtype: Dtype, row_len| {
        let block_bytes = match (dtype, row_len) {
            // Whole records.
            (Dtype::Bytes, 1..) => dtype.block_bytes() / row_len * row_len,
            _ => dtype.block_bytes(),
        };
        if len > 0 {
            regions.push(Region { offset, len, dtype, row_len, block_bytes });
        }
    };
    push(start, size, dtype, row_len);
    push(start + size, room - size, Dtype::Bytes, 0);
}

fn string<'a>(src: &mut ByteCursor<'a>) -> Option<&'a [u8]> {
    let len = usize::try_from(src.u64()?).ok()?;
    src.take(len)
}

/// Bytes of a value of a type of fixed size.
fn value_bytes(value_type: u32) -> Option<usize> {
    match value_type {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn skip_value(src: &mut ByteCursor<'_>, value_type: u32) -> Option<()> {
    match value_type {
        8 => string(src).map(|_| ()),
        9 => {
            let (element_type, n) = (src.u32()?, src.u64()?);
            if element_type == 8 {
                return (0..n).try_for_each(|_| string(src).map(|_| ()));
            }
            let len = usize::try_from(n).ok()?.checked_mul(value_bytes(element_type)?)?;
            src.take(len).map(|_| ())
        }
        _ => src.take(value_bytes(value_type)?).map(|_| ()),
    }
}

fn tensor(src: &mut ByteCursor<'_>) -> Option<Tensor> {
    string(src)?;
    let rank = src.u32().filter(|&rank| rank <= MAX_RANK)?;
    // The innermost first.
    let shape: Vec<u64> = (0..rank).map(|_| src.u64()).collect::<Option<_>>()?;
    let (type_id, offset) = (src.u32()?, src.u64()?);
    let n_elements = shape.iter().try_fold(1u64, |n, &dimension| n.checked_mul(dimension))?;
    Some(Tensor { offset, kind: elements(type_id), n_elements, row_len: row_len(shape.iter()) })
}

#[cfg(test)]
mod tests {
    use super::super::numbers::read_from;
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
    }

    /// A file with some metadata and these tensors: shape, type, bytes.
    fn file(alignment: Option<u32>, tensors: &[(&[u64], u32, usize)]) -> Vec<u8> {
        let mut pairs = vec![
            [text("general.name"), 8u32.to_le_bytes().to_vec(), text("a model")].concat(),
            [
                text("tokens"),
                [9u32, 8].map(u32::to_le_bytes).concat(),
                2u64.to_le_bytes().to_vec(),
                text("a"),
                text("bc"),
            ]
            .concat(),
            [
                text("scores"),
                [9u32, 6].map(u32::to_le_bytes).concat(),
                3u64.to_le_bytes().to_vec(),
                vec![0; 12],
            ]
            .concat(),
            [text("flag"), 7u32.to_le_bytes().to_vec(), vec![1]].concat(),
        ];
        pairs
            .extend(alignment.map(|bytes| {
                [text("general.alignment"), [4, bytes].map(u32::to_le_bytes).concat()].concat()
            }));
        let counts = [tensors.len(), pairs.len()].map(|n| (n as u64).to_le_bytes()).concat();
        let mut header = [&b"GGUF\x03\0\0\0"[..], &counts, &pairs.concat()].concat();
        let alignment = alignment.unwrap_or(32) as usize;
        let mut data = Vec::new();
        for (idx, (shape, type_id, n_bytes)) in tensors.iter().enumerate() {
            data.resize(data.len().next_multiple_of(alignment), 0);
            header.extend(text(&format!("tensor.{idx}")));
            header.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|dimension| header.extend(dimension.to_le_bytes()));
            header.extend(type_id.to_le_bytes());
            header.extend((data.len() as u64).to_le_bytes());
            data.extend(vec![7; *n_bytes]);
        }
        header.resize(header.len().next_multiple_of(alignment), 0);
        [header, data].concat()
    }

    fn regions(bytes: &[u8]) -> Option<Vec<Region>> {
        let regions = gguf_regions(bytes.len() as u64, &read_from(bytes), &Limits::default()).unwrap();
        if let Some(regions) = &regions {
            let mut end = 0;
            for region in regions {
                assert_eq!(region.offset, end);
                assert!(region.len > 0 && region.len.is_multiple_of(region.dtype.unit_bytes() as u64));
                end += region.len;
            }
            assert_eq!(end, bytes.len() as u64);
        }
        regions
    }

    #[test]
    fn tensors_are_regions_with_the_padding_behind_them() {
        let tensors: [(&[u64], u32, usize); 5] = [
            (&[64, 10], 3, 400),
            (&[100], 0, 400),
            (&[256, 2], 14, 420),
            (&[30, 7, 1], 1, 420),
            // Of no type that is known, with as much behind it as there is.
            (&[9], 99, 1000),
        ];
        for alignment in [None, Some(64)] {
            let bytes = file(alignment, &tensors);
            let found: Vec<_> = regions(&bytes)
                .unwrap()
                .iter()
                .skip(1)
                .map(|region| (region.dtype, region.row_len))
                .collect();
            let expected = [
                (Dtype::Bytes, 20),
                (Dtype::F32, 0),
                (Dtype::Bytes, 210),
                (Dtype::F16, 30),
                (Dtype::Bytes, 0),
            ];
            assert_eq!(found, expected);
        }
        assert_eq!(regions(&file(None, &[])).map(|regions| regions.len()), Some(1));
        // In a pipe, where the length is not known, they are the same up to a last tensor of a known type.
        let bytes = file(None, &tensors[..4]);
        let in_pipe = gguf_layout(&bytes[..bytes.len() - 1700], None, &Limits::default());
        assert_eq!(in_pipe, regions(&bytes));
        assert_eq!(gguf_layout(&file(None, &tensors), None, &Limits::default()), None);
    }

    #[test]
    fn what_is_left_behind_a_tensor_is_bytes() {
        let mut bytes = file(None, &[(&[32, 3], 8, 102)]);
        bytes.extend([1; 1000]);
        let found: Vec<_> =
            regions(&bytes).unwrap().iter().map(|region| (region.len, region.row_len)).collect();
        assert_eq!(found[1..], [(102, 34), (1000, 0)]);
        // A tensor that claims more than there is gets what there is, in whole elements.
        let found = regions(&file(None, &[(&[1 << 40, 1 << 20], 0, 39)])).unwrap();
        assert_eq!(found[1..].iter().map(|region| region.len).collect::<Vec<_>>(), [36, 3]);
    }

    #[test]
    fn malformed_files_are_none() {
        let bytes = file(None, &[(&[64, 10], 3, 400), (&[100], 0, 400)]);
        assert!(regions(&bytes).is_some());
        let header_bytes = bytes.len() - 832;
        for end in 0..header_bytes - 31 {
            assert!(regions(&bytes[..end]).is_none(), "{end}");
        }
        let with = |at: usize, part: &[u8]| [&bytes[..at], part, &bytes[at + part.len()..]].concat();
        for broken in [with(0, b"X"), with(4, &[1]), with(7, &[3]), with(8, &[0xff; 8]), with(16, &[0xff; 8])]
        {
            assert!(regions(&broken).is_none());
        }
        // The alignment: none, and one that leaves nothing.
        for alignment in [0u32, u32::MAX] {
            let mut bytes = file(Some(32), &[(&[100], 0, 400)]);
            let at = bytes.windows(17).position(|window| window == b"general.alignment").unwrap() + 17 + 4;
            bytes[at..at + 4].copy_from_slice(&alignment.to_le_bytes());
            assert!(regions(&bytes).is_none(), "{alignment}");
        }
    }

    proptest! {
        #[test]
        fn changed_headers_never_panic_and_regions_fill_the_file(
            changes in prop::collection::vec((0usize..400, any::<u8>()), 1..6),
        ) {
            let mut bytes = file(Some(32), &[(&[64, 10], 3, 400), (&[100], 0, 400), (&[256, 2], 14, 420)]);
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            regions(&bytes);
        }
    }
}
