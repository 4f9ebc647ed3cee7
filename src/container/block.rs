//! The block record (FORMAT.md, 1.2): its 32-byte header, and what index and record say alike of a block.

use crate::bits::ByteCursor;
use crate::container::checksum::crc64_joined;
use crate::container::header::unknown;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::MAX_BLOCK_BYTES;
use crate::stage::Coding;

/// Size of a record's header.
pub const RECORD_HEADER_BYTES: usize = 32;
/// The bytes that begin a block record.
pub(crate) const BLOCK_TAG: [u8; 4] = *b"BLCK";
/// Largest payload of a reference.
pub(crate) const MAX_REFERENCE_BYTES: usize = 64;
/// Size of an index entry.
pub(crate) const ENTRY_BYTES: usize = 12;

/// Sizes and ids of one block: what its record and its index entry both hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockInfo {
    /// Bytes of the original that the block holds: 1 to [`MAX_BLOCK_BYTES`], a multiple of the unit.
    pub decoded_bytes: u32,
    /// Bytes of the payload.
    pub payload_bytes: u32,
    /// Type of the elements.
    pub dtype: Dtype,
    /// How the payload is coded.
    pub coding: Coding,
}

impl BlockInfo {
    /// Describes a block that is to be written.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] where the sizes break the format.
    pub fn new(dtype: Dtype, coding: Coding, decoded_bytes: usize, payload_bytes: usize) -> Result<Self> {
        let fields = u32::try_from(decoded_bytes).ok().zip(u32::try_from(payload_bytes).ok());
        let info =
            fields.map(|(decoded_bytes, payload_bytes)| Self { decoded_bytes, payload_bytes, dtype, coding });
        info.filter(|info| info.broken_rule().is_none()).ok_or_else(|| {
            let message = format!(
                "a {} block of {decoded_bytes} bytes with a {} payload of {payload_bytes} cannot be written",
                dtype.name(),
                coding.name()
            );
            Error::new(ErrorKind::Internal, message)
        })
    }

    /// The index entry's bytes.
    #[must_use]
    pub fn to_entry_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..4].copy_from_slice(&self.decoded_bytes.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[8] = self.dtype.wire_id();
        bytes[9] = self.coding.wire_id();
        bytes
    }

    /// Reads an index entry of an archive of minor version `minor`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], or [`ErrorKind::UnsupportedVersion`] for an id of a later minor version.
    pub fn from_entry_bytes(bytes: &[u8; ENTRY_BYTES], minor: u16) -> Result<Self> {
        let [d0, d1, d2, d3, p0, p1, p2, p3, dtype, coding, r0, r1] = *bytes;
        Self::from_fields(
            [dtype, coding],
            u16::from_le_bytes([r0, r1]),
            u32::from_le_bytes([d0, d1, d2, d3]),
            u32::from_le_bytes([p0, p1, p2, p3]),
            minor,
        )
    }

    fn from_fields(
        [dtype_id, coding_id]: [u8; 2],
        reserved: u16,
        decoded_bytes: u32,
        payload_bytes: u32,
        minor: u16,
    ) -> Result<Self> {
        let dtype =
            Dtype::from_wire_id(dtype_id).ok_or_else(|| unknown(minor, format!("dtype id {dtype_id}")))?;
        let coding = Coding::from_wire_id(coding_id)
            .filter(|coding| minor > 0 || !coding.is_of_layers())
            .ok_or_else(|| unknown(minor, format!("coding id {coding_id}")))?;
        if reserved != 0 {
            return Err(unknown(minor, format!("reserved value {reserved:#x} of a block")));
        }
        let info = Self { decoded_bytes, payload_bytes, dtype, coding };
        match info.broken_rule() {
            None => Ok(info),
            Some(message) => Err(Error::new(ErrorKind::Corrupt, message)),
        }
    }

    fn broken_rule(&self) -> Option<String> {
        let (decoded_bytes, payload_bytes) = (self.decoded_bytes as usize, self.payload_bytes as usize);
        let allowed = match self.coding {
            Coding::Reference => MAX_REFERENCE_BYTES,
            _ => decoded_bytes,
        };
        if !(1..=MAX_BLOCK_BYTES).contains(&decoded_bytes) {
            Some(format!("block of {decoded_bytes} bytes, allowed are 1 to {MAX_BLOCK_BYTES}"))
        } else if !decoded_bytes.is_multiple_of(self.dtype.unit_bytes()) {
            Some(format!("block of {decoded_bytes} bytes is not a whole number of {}", self.dtype.name()))
        } else if payload_bytes > allowed {
            Some(format!("payload of {payload_bytes} bytes for a block of {decoded_bytes}"))
        } else {
            None
        }
    }

    /// Bytes of the whole record.
    #[must_use]
    pub fn record_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    /// The entry of this block at its place in the archive and in the original.
    #[must_use]
    pub fn at(self, block_idx: u64, original_offset: u64, record_offset: u64) -> BlockEntry {
        let Self { decoded_bytes, payload_bytes, dtype, coding } = self;
        BlockEntry { block_idx, original_offset, record_offset, decoded_bytes, payload_bytes, dtype, coding }
    }
}

/// One block as the index describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockEntry {
    /// Position among the archive's blocks, from 0.
    pub block_idx: u64,
    /// Where the block's bytes begin in the original file.
    pub original_offset: u64,
    /// Where the block's record begins in the archive.
    pub record_offset: u64,
    /// Bytes of the original that the block holds.
    pub decoded_bytes: u32,
    /// Bytes of the payload.
    pub payload_bytes: u32,
    /// Type of the elements.
    pub dtype: Dtype,
    /// How the payload is coded.
    pub coding: Coding,
}

impl BlockEntry {
    /// The sizes and ids without the place.
    #[must_use]
    pub fn info(&self) -> BlockInfo {
        let Self { decoded_bytes, payload_bytes, dtype, coding, .. } = *self;
        BlockInfo { decoded_bytes, payload_bytes, dtype, coding }
    }

    /// Where the block's bytes end in the original file. Cannot overflow for entries that a reader gives.
    #[must_use]
    pub fn original_end(&self) -> u64 {
        self.original_offset.saturating_add(u64::from(self.decoded_bytes))
    }
}

/// One block's record with its payload, whose CRC has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRecord<'a> {
    /// The block's entry.
    pub entry: BlockEntry,
    /// CRC of the decoded bytes.
    pub decoded_crc: u64,
    /// The coded bytes.
    pub payload: &'a [u8],
}

/// The 32 bytes that stand before `payload`.
///
/// # Errors
/// [`ErrorKind::Internal`] where `info` is not of `payload`.
pub fn block_header_bytes(
    info: BlockInfo,
    decoded_crc: u64,
    payload: &[u8],
) -> Result<[u8; RECORD_HEADER_BYTES]> {
    if info.payload_bytes as usize != payload.len() {
        let message = format!("payload of {} bytes, described as {}", payload.len(), info.payload_bytes);
        return Err(Error::new(ErrorKind::Internal, message));
    }
    let mut bytes = [0; RECORD_HEADER_BYTES];
    bytes[..4].copy_from_slice(&BLOCK_TAG);
    bytes[4] = info.dtype.wire_id();
    bytes[5] = info.coding.wire_id();
    bytes[8..12].copy_from_slice(&info.decoded_bytes.to_le_bytes());
    bytes[12..16].copy_from_slice(&info.payload_bytes.to_le_bytes());
    bytes[16..24].copy_from_slice(&decoded_crc.to_le_bytes());
    let stored_crc = crc64_joined(&bytes[..24], payload);
    bytes[24..].copy_from_slice(&stored_crc.to_le_bytes());
    Ok(bytes)
}

/// A record's header as read, before its payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordHeader {
    pub(crate) info: BlockInfo,
    pub(crate) decoded_crc: u64,
    stored_crc: u64,
    checked: [u8; 24],
}

impl RecordHeader {
    /// Reads a record's header. Its fields are in range, but not to be trusted until
    /// [`Self::check_payload`] has seen the payload.
    pub(crate) fn parse(bytes: &[u8; RECORD_HEADER_BYTES], minor: u16) -> Result<Self> {
        Self::parse_fields(bytes, minor)
            .unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "record layout")))
    }

    fn parse_fields(bytes: &[u8; RECORD_HEADER_BYTES], minor: u16) -> Option<Result<Self>> {
        let mut cursor = ByteCursor::new(bytes);
        let tag: [u8; 4] = cursor.array()?;
        if tag != BLOCK_TAG {
            let message = format!("no block record here: its tag is \"{}\"", tag.escape_ascii());
            return Some(Err(Error::new(ErrorKind::Corrupt, message)));
        }
        let ids = cursor.array()?;
        let reserved = cursor.u16()?;
        let (decoded_bytes, payload_bytes) = (cursor.u32()?, cursor.u32()?);
        let (decoded_crc, stored_crc) = (cursor.u64()?, cursor.u64()?);
        let checked = *bytes.first_chunk()?;
        let info = BlockInfo::from_fields(ids, reserved, decoded_bytes, payload_bytes, minor);
        Some(info.map(|info| Self { info, decoded_crc, stored_crc, checked }))
    }

    /// Checks header and payload against the CRC over both.
    pub(crate) fn check_payload(&self, payload: &[u8]) -> Result<()> {
        let found = crc64_joined(&self.checked, payload);
        if found == self.stored_crc {
            Ok(())
        } else {
            let message = format!(
                "stored bytes of the block have CRC {found:016x}, recorded is {:016x}",
                self.stored_crc
            );
            Err(Error::new(ErrorKind::ChecksumMismatch, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_break_the_format_are_refused() {
        let refused = |dtype, coding, decoded, payload| {
            BlockInfo::new(dtype, coding, decoded, payload).unwrap_err().kind() == ErrorKind::Internal
        };
        assert!(refused(Dtype::Bytes, Coding::Stored, 0, 0));
        assert!(refused(Dtype::Bf16, Coding::Stored, 3, 3));
        assert!(refused(Dtype::Bytes, Coding::Stored, MAX_BLOCK_BYTES + 1, 1));
        assert!(refused(Dtype::Bytes, Coding::Stored, 10, 11));
        assert!(refused(Dtype::Bytes, Coding::Reference, 10, 65));
        let info = BlockInfo::new(Dtype::F32, Coding::Reference, 8, 48).unwrap();
        assert_eq!(BlockInfo::from_entry_bytes(&info.to_entry_bytes(), 0).unwrap(), info);
    }

    #[test]
    fn unknown_ids_depend_on_the_minor_version() {
        let mut bytes = BlockInfo::new(Dtype::F32, Coding::Stored, 8, 8).unwrap().to_entry_bytes();
        bytes[9] = 250;
        assert_eq!(BlockInfo::from_entry_bytes(&bytes, 0).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(BlockInfo::from_entry_bytes(&bytes, 1).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(BlockInfo::from_entry_bytes(&bytes, 2).unwrap_err().kind(), ErrorKind::UnsupportedVersion);
    }
}
