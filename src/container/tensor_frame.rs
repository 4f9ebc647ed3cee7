//! The frame of a single small tensor (FORMAT.md, section 6): what an archive says in 230 bytes, in about 20.

use crate::bits::ByteCursor;
use crate::container::checksum::crc64;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::MAX_BLOCK_BYTES;
use crate::stage::Coding;

/// The bytes that a frame begins with: `\x89ALT`.
pub const TENSOR_MAGIC: [u8; 4] = [0x89, 0x41, 0x4c, 0x54];
/// The version that is written and read.
const VERSION: u8 = 1;
/// Bit of the coding: the elements are not the source's.
const RECONSTRUCTION: u8 = 1 << 7;
/// Most dimensions.
const MAX_DIMENSIONS: usize = 32;

/// A tensor as one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorFrame<'a> {
    /// Type of the elements.
    pub dtype: Dtype,
    /// How the payload is coded; not a reference.
    pub coding: Coding,
    /// Whether the elements are the source's bit for bit.
    pub is_exact: bool,
    /// Lengths of the dimensions, the slowest first; none for a single element.
    pub shape: Vec<u64>,
    /// The payload.
    pub payload: &'a [u8],
}

/// Bytes that a tensor of this shape holds.
///
/// # Errors
/// [`ErrorKind::LimitExceeded`] above [`MAX_BLOCK_BYTES`] or 32 dimensions; [`ErrorKind::Corrupt`] where 4-bit elements
/// fill no whole number of bytes.
pub fn tensor_bytes(dtype: Dtype, shape: &[u64]) -> Result<usize> {
    // A dimension of no elements makes a tensor of none, whatever the others are.
    let n_elements = if shape.contains(&0) {
        Some(0)
    } else {
        shape.iter().try_fold(1_u64, |n, length| n.checked_mul(*length))
    };
    let n_bits = n_elements.and_then(|n| n.checked_mul(dtype.element_bits() as u64));
    let fitting = n_bits.filter(|n| *n <= 8 * MAX_BLOCK_BYTES as u64 && shape.len() <= MAX_DIMENSIONS);
    let Some(n_bits) = fitting else {
        let message = format!("a tensor of shape {shape:?}, allowed are {MAX_BLOCK_BYTES} bytes");
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    };
    if n_bits % 8 != 0 {
        return Err(Error::new(ErrorKind::Corrupt, "4-bit elements fill no whole number of bytes"));
    }
    Ok(usize::try_from(n_bits / 8).unwrap_or(usize::MAX))
}

/// Appends a number in groups of seven bits, the lowest first, bit 7 set where more follow.
fn put_varint(mut value: u64, dst: &mut Vec<u8>) {
    while value >= 0x80 {
        dst.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    dst.push(value.to_le_bytes()[0]);
}

/// Reads what [`put_varint`] wrote; each number has one form only.
fn take_varint(src: &mut ByteCursor<'_>) -> Result<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let byte = src.u8().ok_or_else(truncated)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return if byte == 0 && shift > 0 { Err(overlong()) } else { Ok(value) };
        }
    }
    Err(overlong())
}

fn overlong() -> Error {
    Error::new(ErrorKind::Corrupt, "a length of the tensor is written with too many bytes")
}

fn truncated() -> Error {
    Error::new(ErrorKind::Truncated, "the tensor ends before it is complete")
}

impl<'a> TensorFrame<'a> {
    /// The frame's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.payload.len() + 32);
        bytes.extend(TENSOR_MAGIC);
        let flag = if self.is_exact { 0 } else { RECONSTRUCTION };
        bytes.extend([VERSION, self.dtype.wire_id(), self.coding.wire_id() | flag]);
        put_varint(self.shape.len() as u64, &mut bytes);
        self.shape.iter().for_each(|length| put_varint(*length, &mut bytes));
        put_varint(self.payload.len() as u64, &mut bytes);
        bytes.extend_from_slice(self.payload);
        let crc = crc64(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes
    }

    /// Reads the frame that is all of `bytes`, and checks its CRC.
    ///
    /// # Errors
    /// What is wrong with it; [`ErrorKind::LimitExceeded`] for a tensor that no frame may hold.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut src = ByteCursor::new(bytes);
        let magic = bytes.get(..TENSOR_MAGIC.len()).unwrap_or(bytes);
        if !TENSOR_MAGIC.starts_with(magic) {
            return Err(Error::new(ErrorKind::Corrupt, "not a tensor's frame"));
        }
        let [_, _, _, _, version, dtype_id, coding_id] = src.array::<7>().ok_or_else(truncated)?;
        if version != VERSION {
            let message = format!("a tensor of version {version}, this program reads {VERSION}");
            return Err(Error::new(ErrorKind::UnsupportedVersion, message));
        }
        let n_dimensions = take_varint(&mut src)?;
        if n_dimensions > MAX_DIMENSIONS as u64 {
            let message = format!("a tensor of {n_dimensions} dimensions, allowed are {MAX_DIMENSIONS}");
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        let shape = (0..n_dimensions).map(|_| take_varint(&mut src)).collect::<Result<Vec<u64>>>()?;
        let payload_len = usize::try_from(take_varint(&mut src)?).map_err(|_| truncated())?;
        let payload = src.take(payload_len).ok_or_else(truncated)?;
        let covered = bytes.len() - src.rest().len();
        let stored = src.u64().ok_or_else(truncated)?;
        if crc64(bytes.get(..covered).unwrap_or_default()) != stored {
            return Err(Error::new(ErrorKind::ChecksumMismatch, "the tensor's CRC is another"));
        }
        let frame =
            |dtype, coding| Self { dtype, coding, is_exact: coding_id & RECONSTRUCTION == 0, shape, payload };
        let dtype = Dtype::from_wire_id(dtype_id);
        let coding = Coding::from_wire_id(coding_id & !RECONSTRUCTION)
            .filter(|id| *id != Coding::Reference && !id.is_of_layers());
        let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, what);
        let frame = dtype.zip(coding).map(|(dtype, coding)| frame(dtype, coding));
        let frame = frame.ok_or_else(|| corrupt("the tensor has an unknown dtype or coding"))?;
        if payload_len > tensor_bytes(frame.dtype, &frame.shape)? {
            return Err(corrupt("the tensor's payload is longer than its elements"));
        }
        if !src.rest().is_empty() {
            return Err(corrupt("there are bytes behind the tensor"));
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of FORMAT.md.
    const EXAMPLE: [u8; 21] = [
        0x89, 0x41, 0x4c, 0x54, 0x01, 0x04, 0x00, 0x02, 0x01, 0x01, 0x02, 0x80, 0x3f, 0x6e, 0x54, 0xc6, 0xd1,
        0x89, 0x52, 0xb6, 0xd3,
    ];

    fn example() -> Vec<u8> {
        TensorFrame {
            dtype: Dtype::Bf16,
            coding: Coding::Stored,
            is_exact: true,
            shape: vec![1, 1],
            payload: &[0x80, 0x3f],
        }
        .to_bytes()
    }

    #[test]
    fn bytes_are_those_of_the_format() {
        let bytes = example();
        assert_eq!(bytes, EXAMPLE);
        let text = include_str!("FORMAT.md");
        let hex = |range: std::ops::Range<usize>| {
            bytes[range].iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(" ")
        };
        for part in [0..4, 4..5, 5..6, 6..7, 7..10, 10..11, 11..13, 13..21] {
            assert!(text.contains(&hex(part.clone())), "FORMAT.md lacks {}", hex(part));
        }
    }

    #[test]
    fn every_flip_and_every_cut_is_refused() {
        let bytes = example();
        assert_eq!(TensorFrame::parse(&bytes).unwrap().to_bytes(), bytes);
        for len in 0..bytes.len() {
            assert_eq!(TensorFrame::parse(&bytes[..len]).unwrap_err().kind(), ErrorKind::Truncated, "{len}");
        }
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(TensorFrame::parse(&damaged).is_err(), "bit {bit}");
        }
        assert!(TensorFrame::parse(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn claims_are_held_against_the_limits() {
        let frame = |dtype, coding, shape: &[u64], payload: &[u8]| {
            let bytes =
                TensorFrame { dtype, coding, is_exact: false, shape: shape.to_vec(), payload }.to_bytes();
            TensorFrame::parse(&bytes).map(|frame| frame.shape.len()).map_err(|error| error.kind())
        };
        let f32s = |shape: &[u64], payload: &[u8]| frame(Dtype::F32, Coding::Constant, shape, payload);
        assert_eq!(f32s(&[1 << 20], &[0; 4]), Ok(1));
        assert_eq!(f32s(&[u64::MAX >> 1, 0], &[]), Ok(2));
        assert_eq!(f32s(&[], &[0; 4]), Ok(0));
        assert_eq!(f32s(&[(1 << 20) + 1], &[0; 4]), Err(ErrorKind::LimitExceeded));
        assert_eq!(f32s(&[1 << 40, 1 << 40], &[0; 4]), Err(ErrorKind::LimitExceeded));
        assert_eq!(f32s(&[1; 33], &[0; 4]), Err(ErrorKind::LimitExceeded));
        assert_eq!(f32s(&[1], &[0; 5]), Err(ErrorKind::Corrupt));
        assert_eq!(frame(Dtype::F4, Coding::Stored, &[3], &[0; 1]), Err(ErrorKind::Corrupt));
        assert_eq!(frame(Dtype::F32, Coding::Reference, &[16], &[0; 16]), Err(ErrorKind::Corrupt));
    }
}
