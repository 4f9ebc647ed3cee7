//! One block of elements to one payload and back.
//!
//! This is the boundary between the container, which sees only payload bytes and ids, and the coding of
//! values. [`BlockEncoder`] chooses a [`Coding`] and never fails; [`BlockDecoder`] takes untrusted payloads.

use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::Isa;

/// How a block's payload is coded; the id is on the wire and never reused (FORMAT.md, "codings").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Coding {
    /// The bytes themselves.
    Stored,
    /// The bytes of an earlier block; resolved by [`crate::container`], never by a [`BlockDecoder`].
    Reference,
}

impl Coding {
    /// The id on the wire.
    #[must_use]
    pub fn wire_id(self) -> u8 {
        match self {
            Self::Stored => 0,
            Self::Reference => 5,
        }
    }

    /// The coding of a wire id, or `None` for one this version does not know.
    #[must_use]
    pub fn from_wire_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::Stored),
            5 => Some(Self::Reference),
            _ => None,
        }
    }

    /// Name for people, as `inspect` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Reference => "reference",
        }
    }
}

/// Effort of the encoder; every level writes the same format, read by the same decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub enum Level {
    /// One table per block: fastest to encode.
    Fast,
    /// Up to eight tables per block, chosen per segment.
    #[default]
    Default,
    /// Joint symbols, wider alphabets, higher precision where they pay.
    High,
}

/// What the encoder is given: a block's bytes and what is known of them.
#[derive(Debug, Clone, Copy)]
pub struct BlockSource<'a> {
    /// Element type; `bytes.len()` is a multiple of its unit.
    pub dtype: Dtype,
    /// The elements, little-endian, unaligned.
    pub bytes: &'a [u8],
    /// Elements in one row of the tensor (its last non-unit dimension), a hint for finding structure
    /// along columns; 0 where unknown. The block need not start at a row's start.
    pub row_len: usize,
}

/// Encodes blocks, reusing its scratch memory; one for each worker thread.
#[derive(Debug)]
pub struct BlockEncoder {
    level: Level,
    isa: Isa,
}

impl BlockEncoder {
    /// An encoder of `level` whose kernels run on `isa`; the payload is the same for every `isa`.
    #[must_use]
    pub fn new(level: Level, isa: Isa) -> Self {
        Self { level, isa }
    }

    /// Appends the payload of `source` to `dst` and says how it is coded. The payload is never longer than
    /// the block's bytes.
    pub fn encode(&mut self, source: BlockSource<'_>, dst: &mut Vec<u8>) -> Coding {
        let _ = (self.level, self.isa);
        dst.extend_from_slice(source.bytes);
        Coding::Stored
    }
}

/// Decodes blocks, reusing its scratch memory; one for each worker thread.
#[derive(Debug)]
pub struct BlockDecoder {
    isa: Isa,
}

impl BlockDecoder {
    /// A decoder whose kernels run on `isa`; the result is the same for every `isa`.
    #[must_use]
    pub fn new(isa: Isa) -> Self {
        Self { isa }
    }

    /// Fills `dst` with the elements of `payload`. `dst.len()` is the block's decoded size and at most
    /// [`crate::limits::MAX_BLOCK_BYTES`].
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where the payload breaks the format; `dst` then holds unspecified bytes.
    pub fn decode(&mut self, coding: Coding, dtype: Dtype, payload: &[u8], dst: &mut [u8]) -> Result<()> {
        let _ = (self.isa, dtype);
        match coding {
            Coding::Stored => {
                if payload.len() != dst.len() {
                    return Err(Error::new(
                        ErrorKind::Corrupt,
                        format!("stored block has {} bytes, its header says {}", payload.len(), dst.len()),
                    ));
                }
                dst.copy_from_slice(payload);
                Ok(())
            }
            Coding::Reference => {
                Err(Error::new(ErrorKind::Corrupt, "a reference stands where a coded block is needed"))
            }
        }
    }
}
