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
/// The newest minor version that this reader knows.
pub const MINOR: u16 = 1;
/// The minor version of archives of a single layer, which is all that 1.0 has.
const MINOR_SINGLE: u16 = 0;
/// Header flag: blocks may be references (coding 5).
pub const FLAG_REFERENCES: u32 = 1;
/// Header flag: the archive holds a reconstruction that differs from the source; its index has a loss table.
pub const FLAG_LOSSY: u32 = 2;

/// Header flag: the archive is a layer of a layered file, and a [`LayerLink`] follows the header.
pub const FLAG_LAYER: u32 = 4;
/// Size of a [`LayerLink`].
pub const LAYER_LINK_BYTES: usize = 48;
/// Most layers of a file.
pub const MAX_LAYERS: usize = 8;

/// What the file header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// Minor version: 1 for a layer, else 0; larger where a newer program wrote the archive.
    pub minor: u16,
    /// [`FLAG_REFERENCES`], [`FLAG_LOSSY`] and [`FLAG_LAYER`]; others have no meaning.
    pub flags: u32,
    /// What settings made the archive (FORMAT.md, 4); not needed to decode it.
    pub note: u64,
}

impl FileHeader {
    /// A header as this version writes it.
    #[must_use]
    pub fn new(flags: u32, note: u64) -> Self {
        Self { minor: if flags & FLAG_LAYER == 0 { MINOR_SINGLE } else { MINOR }, flags, note }
    }

    /// Whether the archive is a layer of a layered file.
    #[must_use]
    pub fn is_layer(&self) -> bool {
        self.flags & FLAG_LAYER != 0
    }

    /// Where the first record begins.
    #[must_use]
    pub fn records_offset(&self) -> u64 {
        (HEADER_BYTES + if self.is_layer() { LAYER_LINK_BYTES } else { 0 }) as u64
    }

    /// Whether blocks may be references or differences to others.
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
        let known = FLAG_REFERENCES | FLAG_LOSSY | if minor > MINOR_SINGLE { FLAG_LAYER } else { 0 };
        if flags & !known != 0 {
            return Some(Err(unknown(minor, format!("header flags {flags:#x}"))));
        }
        if flags & (FLAG_REFERENCES | FLAG_LAYER) == FLAG_REFERENCES | FLAG_LAYER {
            return Some(Err(Error::new(ErrorKind::Corrupt, "a layer may not hold references")));
        }
        Some(Ok(Self { minor, flags, note }))
    }
}

/// What follows the header of a layer: what the layers before it are (FORMAT.md, 1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerLink {
    /// Bytes of the file before this archive: all earlier layers. 0 for the first.
    pub before_bytes: u64,
    /// BLAKE3 of what the layer before holds; zeros for the first.
    pub before_hash: [u8; 32],
}

impl LayerLink {
    /// The link's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; LAYER_LINK_BYTES] {
        let mut bytes = [0; LAYER_LINK_BYTES];
        bytes[..8].copy_from_slice(&self.before_bytes.to_le_bytes());
        bytes[8..40].copy_from_slice(&self.before_hash);
        let crc = crc64(&bytes[..40]);
        bytes[40..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the link of `archive`, a layer.
    ///
    /// # Errors
    /// [`ErrorKind::Truncated`], [`ErrorKind::ChecksumMismatch`]; [`ErrorKind::Corrupt`] for the hash of no layer.
    pub fn parse(archive: &[u8]) -> Result<Self> {
        let bytes = archive.get(HEADER_BYTES..).and_then(<[u8]>::first_chunk::<LAYER_LINK_BYTES>);
        let Some((bytes, (link, stored_crc))) = bytes.and_then(|bytes| Some((bytes, Self::fields(bytes)?)))
        else {
            return Err(Error::new(ErrorKind::Truncated, "archive ends within the header of a layer"));
        };
        if crc64(&bytes[..40]) != stored_crc {
            return Err(Error::new(ErrorKind::ChecksumMismatch, "header of the layer differs from its CRC"));
        }
        if link.before_bytes == 0 && link.before_hash != [0; 32] {
            return Err(Error::new(ErrorKind::Corrupt, "a first layer with the hash of one before it"));
        }
        Ok(link)
    }

    fn fields(bytes: &[u8; LAYER_LINK_BYTES]) -> Option<(Self, u64)> {
        let mut cursor = ByteCursor::new(bytes);
        let link = Self { before_bytes: cursor.u64()?, before_hash: cursor.array()? };
        Some((link, cursor.u64()?))
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
        let strange = FileHeader { flags: 5, minor: 1, ..header };
        assert_eq!(FileHeader::parse(&strange.to_bytes()).unwrap_err().kind(), ErrorKind::Corrupt);
        let layer = FileHeader::new(FLAG_LAYER | FLAG_LOSSY, 1);
        assert_eq!(FileHeader::parse(&layer.to_bytes()).unwrap(), layer);
        assert_eq!((layer.minor, layer.records_offset(), header.records_offset()), (1, 80, 32));
        let strange = FileHeader { flags: 8, ..newer };
        assert_eq!(FileHeader::parse(&strange.to_bytes()).unwrap_err().kind(), ErrorKind::UnsupportedVersion);
        let mut other_major = bytes;
        other_major[8] = 2;
        assert_eq!(FileHeader::parse(&other_major).unwrap_err().kind(), ErrorKind::UnsupportedVersion);
    }

    #[test]
    fn links_round_trip_and_every_bit_flip() {
        let link = LayerLink { before_bytes: 1 << 40, before_hash: [5; 32] };
        let mut archive = [7; HEADER_BYTES + LAYER_LINK_BYTES + 9];
        archive[HEADER_BYTES..][..LAYER_LINK_BYTES].copy_from_slice(&link.to_bytes());
        assert_eq!(LayerLink::parse(&archive).unwrap(), link);
        for end in 0..HEADER_BYTES + LAYER_LINK_BYTES {
            assert_eq!(LayerLink::parse(&archive[..end]).unwrap_err().kind(), ErrorKind::Truncated);
        }
        for bit in 8 * HEADER_BYTES..8 * (HEADER_BYTES + LAYER_LINK_BYTES) {
            let mut flipped = archive;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(LayerLink::parse(&flipped).unwrap_err().kind(), ErrorKind::ChecksumMismatch);
        }
        let first = LayerLink { before_bytes: 0, ..link };
        archive[HEADER_BYTES..][..LAYER_LINK_BYTES].copy_from_slice(&first.to_bytes());
        assert_eq!(LayerLink::parse(&archive).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
