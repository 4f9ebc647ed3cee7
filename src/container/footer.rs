//! The footer (FORMAT.md, 1.4): where the index is, and the hashes of the original file.

use crate::bits::ByteCursor;
use crate::container::checksum::crc64;
use crate::container::header::unknown;
use crate::error::{Error, ErrorKind, Result};

/// Size of the footer.
pub const FOOTER_BYTES: usize = 128;
/// The bytes that begin the footer.
pub(crate) const FOOTER_MAGIC: [u8; 8] = *b"ALCMFOOT";
const FLAG_SHA256: u32 = 1;

/// A BLAKE3 hash of 32 bytes over a whole original file.
pub type ContentHash = [u8; 32];

/// What the footer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Size of the archive, footer included.
    pub archive_bytes: u64,
    /// Where the index begins.
    pub index_offset: u64,
    /// Size of the index, its CRC included.
    pub index_bytes: u64,
    /// Number of blocks.
    pub n_blocks: u64,
    /// Size of the original file.
    pub original_bytes: u64,
    /// BLAKE3 of the original file.
    pub content_hash: ContentHash,
    /// SHA-256 of the original file, where it was asked for.
    pub sha256: Option<[u8; 32]>,
}

impl Footer {
    /// The footer's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..8].copy_from_slice(&FOOTER_MAGIC);
        let numbers =
            [self.archive_bytes, self.index_offset, self.index_bytes, self.n_blocks, self.original_bytes];
        for (field, number) in bytes[8..48].chunks_exact_mut(8).zip(numbers) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        bytes[48..80].copy_from_slice(&self.content_hash);
        if let Some(sha256) = &self.sha256 {
            bytes[80..112].copy_from_slice(sha256);
            bytes[112..116].copy_from_slice(&FLAG_SHA256.to_le_bytes());
        }
        let crc = crc64(&bytes[..120]);
        bytes[120..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the footer of an archive of minor version `minor`.
    ///
    /// # Errors
    /// [`ErrorKind::Truncated`] where the magic is absent, as in every archive that was cut short;
    /// [`ErrorKind::ChecksumMismatch`]; [`ErrorKind::Corrupt`] for reserved bits.
    pub fn parse(bytes: &[u8; FOOTER_BYTES], minor: u16) -> Result<Self> {
        Self::parse_fields(bytes, minor)
            .unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "footer layout")))
    }

    fn parse_fields(bytes: &[u8; FOOTER_BYTES], minor: u16) -> Option<Result<Self>> {
        let mut cursor = ByteCursor::new(bytes);
        if cursor.array()? != FOOTER_MAGIC {
            let message = "no footer at the end of the archive: it was cut short, or its end was overwritten";
            return Some(Err(Error::new(ErrorKind::Truncated, message)));
        }
        let (archive_bytes, index_offset, index_bytes) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
        let (n_blocks, original_bytes) = (cursor.u64()?, cursor.u64()?);
        let (content_hash, sha256) = (cursor.array()?, cursor.array::<32>()?);
        let (flags, reserved, stored_crc) = (cursor.u32()?, cursor.u32()?, cursor.u64()?);
        if crc64(&bytes[..120]) != stored_crc {
            return Some(Err(Error::new(ErrorKind::ChecksumMismatch, "footer differs from its CRC")));
        }
        if flags & !FLAG_SHA256 != 0 || reserved != 0 {
            return Some(Err(unknown(minor, format!("footer flags {flags:#x}, {reserved:#x}"))));
        }
        let has_sha256 = flags & FLAG_SHA256 != 0;
        if !has_sha256 && sha256 != [0; 32] {
            return Some(Err(Error::new(ErrorKind::Corrupt, "footer has a SHA-256 that its flags deny")));
        }
        let sha256 = has_sha256.then_some(sha256);
        Some(Ok(Self {
            archive_bytes,
            index_offset,
            index_bytes,
            n_blocks,
            original_bytes,
            content_hash,
            sha256,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_every_bit_flip() {
        let footer = Footer {
            archive_bytes: 1000,
            index_offset: 700,
            index_bytes: 172,
            n_blocks: 12,
            original_bytes: 99_999,
            content_hash: [7; 32],
            sha256: Some([9; 32]),
        };
        let bytes = footer.to_bytes();
        assert_eq!(Footer::parse(&bytes, 0).unwrap(), footer);
        let without = Footer { sha256: None, ..footer };
        assert_eq!(Footer::parse(&without.to_bytes(), 0).unwrap(), without);
        for bit in 0..FOOTER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::parse(&flipped, 0).is_err(), "bit {bit}");
        }
    }
}
