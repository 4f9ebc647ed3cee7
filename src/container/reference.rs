//! References (FORMAT.md, 3.5): a block whose bytes are those of an earlier block.

use crate::bits::ByteCursor;
use crate::container::block::BlockRecord;
use crate::container::footer::ContentHash;
use crate::error::{Error, ErrorKind, Result};
use crate::stage::BlockDecoder;

/// Where the bytes of a reference are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// In an earlier block of the same archive.
    SameFile {
        /// Where that block begins in the original file.
        original_offset: u64,
    },
    /// In the archive of another original file.
    OtherFile(OtherFile),
}

/// A block of another original file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherFile {
    /// BLAKE3 of that file.
    pub content_hash: ContentHash,
    /// Where the block begins in it.
    pub original_offset: u64,
}

impl Reference {
    /// The payload of this reference.
    #[must_use]
    pub fn to_payload(&self) -> Vec<u8> {
        let (place, original_offset, hash): (u8, _, &[u8]) = match self {
            Self::SameFile { original_offset } => (0, original_offset, &[]),
            Self::OtherFile(other) => (1, &other.original_offset, &other.content_hash),
        };
        let mut payload = vec![place, 0, 0, 0, 0, 0, 0, 0];
        payload.extend_from_slice(&original_offset.to_le_bytes());
        payload.extend_from_slice(hash);
        payload
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where it breaks the format.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        Self::parse_fields(payload).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("payload of {} bytes is not a reference", payload.len()))
        })
    }

    fn parse_fields(payload: &[u8]) -> Option<Self> {
        let mut cursor = ByteCursor::new(payload);
        let [place, reserved @ ..] = cursor.array::<8>()?;
        let original_offset = cursor.u64()?;
        let reference = match (place, reserved) {
            (0, [0, 0, 0, 0, 0, 0, 0]) => Self::SameFile { original_offset },
            (1, [0, 0, 0, 0, 0, 0, 0]) => {
                Self::OtherFile(OtherFile { content_hash: cursor.array()?, original_offset })
            }
            _ => return None,
        };
        cursor.rest().is_empty().then_some(reference)
    }
}

/// Finds blocks of other files: fills the last argument with the block that the first names, for the record
/// given. It opens the archive of that file and calls [`crate::container::Archive::decode_target`] on it,
/// or fails with [`ErrorKind::BaseMismatch`].
pub type Resolver<'r> =
    dyn Fn(&OtherFile, &BlockRecord<'_>, &mut BlockDecoder, &mut [u8]) -> Result<()> + Sync + 'r;

/// The [`Resolver`] for a reader that has one archive only.
///
/// # Errors
/// Always [`ErrorKind::BaseMismatch`].
pub fn no_other_files(
    other: &OtherFile,
    _record: &BlockRecord<'_>,
    _decoder: &mut BlockDecoder,
    _dst: &mut [u8],
) -> Result<()> {
    let mut hash = String::new();
    for byte in other.content_hash {
        hash.push_str(&format!("{byte:02x}"));
    }
    Err(Error::new(
        ErrorKind::BaseMismatch,
        format!("block refers to the file with BLAKE3 {hash}, whose archive is not at hand"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_round_trip_and_nothing_else_parses() {
        let references = [
            Reference::SameFile { original_offset: 1 << 40 },
            Reference::OtherFile(OtherFile { content_hash: [3; 32], original_offset: 77 }),
        ];
        for reference in references {
            let payload = reference.to_payload();
            assert_eq!(Reference::parse(&payload).unwrap(), reference);
            let longer = [&payload[..], &[0]].concat();
            assert!(Reference::parse(&longer).is_err());
            for len in 0..payload.len() {
                assert!(Reference::parse(&payload[..len]).is_err());
            }
            for reserved in 1..8 {
                let mut broken = payload.clone();
                broken[reserved] = 1;
                assert_eq!(Reference::parse(&broken).unwrap_err().kind(), ErrorKind::Corrupt);
            }
        }
        assert!(Reference::parse(&[2; 16]).is_err());
    }
}
