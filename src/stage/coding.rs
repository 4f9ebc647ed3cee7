//! Names and ids of the codings of a block.

/// How a block's payload is coded; the id is on the wire and never reused (FORMAT.md, "codings").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Coding {
    /// The bytes themselves.
    Stored,
    /// One element, repeated.
    Constant,
    /// A zstd frame of the bytes, plain or as byte planes.
    Zstd,
    /// Symbols entropy-coded, the residual in planes.
    Fields,
    /// Zeros marked apart, the other elements coded densely.
    Sparse,
    /// The bytes of an earlier block; resolved by [`crate::container`], never by a [`BlockDecoder`](super::BlockDecoder).
    Reference,
    /// Halves times a scale for each run of elements.
    Scaled,
    /// Indices of a quantizer; only in lossy archives.
    Quantized,
    /// Floats of a short block by adaptive decisions, without tables.
    Adaptive,
    /// Indices of dyadic cells: the first layer of a layered archive.
    Coarse,
    /// What a later layer adds to the block of the layer before; decoded by [`super::BlockDecoder::refine`].
    Refined,
    /// Which of a few values each element is.
    Palette,
    /// What elements differ by from others a fixed distance before.
    Differences,
    /// Bytes of records of one length, a stream for each kind of field.
    Records,
    /// What elements differ by from those of an earlier block; decoded by [`super::BlockDecoder::add_delta`].
    Delta,
    /// A matrix divided by a factor for each row and each column.
    RankOne,
}

impl Coding {
    /// Every coding with its id and its name, in the order of the ids.
    const TABLE: [(Self, u8, &'static str); 16] = [
        (Self::Stored, 0, "stored"),
        (Self::Constant, 1, "constant"),
        (Self::Zstd, 2, "zstd"),
        (Self::Fields, 3, "fields"),
        (Self::Sparse, 4, "sparse"),
        (Self::Reference, 5, "reference"),
        (Self::Scaled, 6, "scaled"),
        (Self::Quantized, 7, "quantized"),
        (Self::Adaptive, 8, "adaptive"),
        (Self::Coarse, 9, "coarse"),
        (Self::Refined, 10, "refined"),
        (Self::Palette, 11, "palette"),
        (Self::Differences, 12, "differences"),
        (Self::Records, 13, "records"),
        (Self::Delta, 14, "delta"),
        (Self::RankOne, 15, "rank-one"),
    ];

    /// Every coding.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::TABLE.iter().map(|row| row.0)
    }

    /// The id on the wire.
    #[must_use]
    pub fn wire_id(self) -> u8 {
        Self::TABLE[self as usize].1
    }

    /// The coding of a wire id, or `None` for one this version does not know.
    #[must_use]
    pub fn from_wire_id(id: u8) -> Option<Self> {
        Self::TABLE.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    /// Whether the coding is one of layered files alone.
    #[must_use]
    pub fn is_of_layers(self) -> bool {
        matches!(self, Self::Coarse | Self::Refined)
    }

    /// Whether a block needs another one of its original to be decoded.
    #[must_use]
    pub fn has_base(self) -> bool {
        matches!(self, Self::Reference | Self::Delta)
    }

    /// Name for people, as `inspect` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::TABLE[self as usize].2
    }
}
