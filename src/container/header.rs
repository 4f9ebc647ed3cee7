//! The file header (FORMAT.md, 1.1) and the archive's version.

use crate::bits::ByteCursor;
use crate::container::checksum::crc64;
use crate::error::{Error, ErrorKind, Result};

/// Size of the file header.
pub const HEADER_BYTES: usize = 32;
/// The bytes that begin every archive.
pub const MAGIC: [u8; 8] = *b"\x89ALCM\r\n\x1a";
/// The major version that this reader knows and writes.
pub const MAJOR: u16 = 1;
/// The minor version that this writer writes.
pub const MINOR: u16 = 0;
/// Header flag: blocks may be references (coding 5).
pub const FLAG_REFERENCES: u32 = 1;
/// Header flag: the archive holds a reconstruction that differs from the source; its index has a loss table.
pub const FLAG_LOSSY: u32 = 2;

/// What the file header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// Minor version: 0 as written here; larger where a newer program wrote the archive.
    pub minor: u16,
    /// [`FLAG_REFERENCES`] and [`FLAG_LOSSY`]; others have no meaning.
    pub flags: u32,
    /// What settings made the archive (FORMAT.md, 4); not needed to decode it.
    pub note: u64,
}

impl FileHeader {
    /// A header as this version writes it.
    #[must_use]
    pub fn new(flags: u32, note: u64) -> Self {
        Self { minor: MINOR, flags, note }
    }

    /// Whether blocks may be references.
    #[must_use]
    pub fn may_have_references(&self) -> bool {
        self.flags & FLAG_REFERENCES != 0
    }

    /// Whether the archive holds something else than its source.
    #[must_use]
    pub fn is_lossy(&self) -> bool {
        self.flags & FLAG_LOSSY != 0
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&MAJOR.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.minor.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.flags.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.note.to_le_bytes());
        let crc = crc64(&bytes[..24]);
        bytes[24..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header that begins `archive`, which may be the first bytes of it or all of it.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it is not an archive or has reserved bits set, [`ErrorKind::Truncated`] if
    /// it ends within the header, [`ErrorKind::UnsupportedVersion`], [`ErrorKind::ChecksumMismatch`].
    pub fn parse(archive: &[u8]) -> Result<Self> {
        let magic_len = archive.len().min(MAGIC.len());
        if archive.get(..magic_len) != MAGIC.get(..magic_len) {
            return Err(Error::new(ErrorKind::Corrupt, "not an ALCM archive: its first bytes are others"));
        }
        let Some(bytes) = archive.first_chunk::<HEADER_BYTES>() else {
            return Err(Error::new(
                ErrorKind::Truncated,
                format!("archive has {} bytes, its header alone {HEADER_BYTES}", archive.len()),
            ));
        };
        Self::parse_fields(bytes).unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "header layout")))
    }

    fn parse_fields(bytes: &[u8; HEADER_BYTES]) -> Option<Result<Self>> {
        let mut cursor = ByteCursor::new(bytes);
        cursor.take(MAGIC.len())?;
        let (major, minor) = (cursor.u16()?, cursor.u16()?);
        let (flags, note, stored_crc) = (cursor.u32()?, cursor.u64()?, cursor.u64()?);
        // Before the CRC: a later major version may place its fields differently.
        if major != MAJOR {
            let message = format!("archive has major version {major}, this program reads {MAJOR}");
            return Some(Err(Error::new(ErrorKind::UnsupportedVersion, message)));
        }
        if crc64(&bytes[..24]) != stored_crc {
            return Some(Err(Error::new(ErrorKind::ChecksumMismatch, "file header differs from its CRC")));
        }
        if flags & !(FLAG_REFERENCES | FLAG_LOSSY) != 0 {
            return Some(Err(unknown(minor, format!("header flags {flags:#x}"))));
        }
        Some(Ok(Self { minor, flags, note }))
    }
}

/// The error for something unknown in an archive of `minor`: it may be news of a later minor version.
pub(crate) fn unknown(minor: u16, what: String) -> Error {
    if minor > MINOR {
        Error::new(
            ErrorKind::UnsupportedVersion,
            format!("{what} is unknown to this program; the archive has version {MAJOR}.{minor}"),
        )
    } else {
        Error::new(ErrorKind::Corrupt, format!("{what} is not in version {MAJOR}.{minor} of the format"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_versions() {
        let header = FileHeader::new(FLAG_REFERENCES, 0x0102_0304_0000_0001);
        let bytes = header.to_bytes();
        assert_eq!(FileHeader::parse(&bytes).unwrap(), header);
        for len in 0..HEADER_BYTES {
            assert_eq!(FileHeader::parse(&bytes[..len]).unwrap_err().kind(), ErrorKind::Truncated);
        }
        assert_eq!(FileHeader::parse(b"PK\x03\x04").unwrap_err().kind(), ErrorKind::Corrupt);
        let newer = FileHeader { minor: 9, ..header };
        assert_eq!(FileHeader::parse(&newer.to_bytes()).unwrap(), newer);
        let strange = FileHeader { flags: 4, ..header };
        assert_eq!(FileHeader::parse(&strange.to_bytes()).unwrap_err().kind(), ErrorKind::Corrupt);
        let strange = FileHeader { flags: 4, ..newer };
        assert_eq!(FileHeader::parse(&strange.to_bytes()).unwrap_err().kind(), ErrorKind::UnsupportedVersion);
        let mut other_major = bytes;
        other_major[8] = 2;
        assert_eq!(FileHeader::parse(&other_major).unwrap_err().kind(), ErrorKind::UnsupportedVersion);
    }
}
