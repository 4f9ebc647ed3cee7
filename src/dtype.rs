//! Element types of tensors, by the names that safetensors uses.

/// The type of a tensor's elements. [`Dtype::Bytes`] stands for everything that is not a known tensor:
/// headers, unknown dtypes, other files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the variants are the field's own names")]
pub enum Dtype {
    Bytes,
    F64,
    F32,
    F16,
    Bf16,
    F8E4m3,
    F8E5m2,
    F8E8m0,
    F4,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    C64,
}

/// Wire id, safetensors name, bytes per addressable unit, bits per element.
const TABLE: [(Dtype, u8, &str, usize, usize); 19] = [
    (Dtype::Bytes, 0, "BYTES", 1, 8),
    (Dtype::F64, 1, "F64", 8, 64),
    (Dtype::F32, 2, "F32", 4, 32),
    (Dtype::F16, 3, "F16", 2, 16),
    (Dtype::Bf16, 4, "BF16", 2, 16),
    (Dtype::F8E4m3, 5, "F8_E4M3", 1, 8),
    (Dtype::F8E5m2, 6, "F8_E5M2", 1, 8),
    (Dtype::F8E8m0, 7, "F8_E8M0", 1, 8),
    (Dtype::F4, 8, "F4", 1, 4),
    (Dtype::I64, 9, "I64", 8, 64),
    (Dtype::I32, 10, "I32", 4, 32),
    (Dtype::I16, 11, "I16", 2, 16),
    (Dtype::I8, 12, "I8", 1, 8),
    (Dtype::U64, 13, "U64", 8, 64),
    (Dtype::U32, 14, "U32", 4, 32),
    (Dtype::U16, 15, "U16", 2, 16),
    (Dtype::U8, 16, "U8", 1, 8),
    (Dtype::Bool, 17, "BOOL", 1, 8),
    (Dtype::C64, 18, "C64", 8, 64),
];

impl Dtype {
    /// Every dtype, in the order of their wire ids.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static (Self, u8, &'static str, usize, usize) {
        // The table is in the order of the enum, which a test holds.
        &TABLE[self as usize]
    }

    /// The id on the wire (FORMAT.md, "dtype ids").
    #[must_use]
    pub fn wire_id(self) -> u8 {
        self.row().1
    }

    /// The dtype of a wire id, or `None` for an unknown one.
    #[must_use]
    pub fn from_wire_id(id: u8) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    /// The name in a safetensors header; `BYTES` has no meaning there.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// The dtype of a safetensors name; unknown names are `None` and are coded as bytes.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.2 == name && row.0 != Self::Bytes).map(|row| row.0)
    }

    /// Bytes of the smallest addressable unit: the element, or 1 for packed 4-bit elements.
    #[must_use]
    pub fn unit_bytes(self) -> usize {
        self.row().3
    }

    /// Bits of one element: 4 for packed F4.
    #[must_use]
    pub fn element_bits(self) -> usize {
        self.row().4
    }

    /// Bytes of one float, half of it for a complex number; `None` for what is no float of a byte or more.
    #[must_use]
    pub fn float_bytes(self) -> Option<usize> {
        match self {
            Self::F64 => Some(8),
            Self::F32 | Self::C64 => Some(4),
            Self::F16 | Self::Bf16 => Some(2),
            Self::F8E4m3 | Self::F8E5m2 => Some(1),
            _ => None,
        }
    }

    /// Bytes that a full block of this dtype holds when the encoder cuts a tensor: 256 Ki elements, or
    /// 512 Ki of the one-byte types; 1 MiB of plain bytes. A decoder takes any size up to
    /// [`crate::limits::MAX_BLOCK_BYTES`].
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match (self, self.unit_bytes()) {
            (Self::Bytes, _) => 1 << 20,
            (_, 1) => 512 << 10,
            (_, unit_bytes) => (256 << 10) * unit_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_enum_order_and_ids_round_trip() {
        for (idx, dtype) in Dtype::all().enumerate() {
            assert_eq!(dtype as usize, idx);
            assert_eq!(Dtype::from_wire_id(dtype.wire_id()), Some(dtype));
            assert!(dtype.block_bytes() <= crate::limits::MAX_BLOCK_BYTES);
            if dtype != Dtype::Bytes {
                assert_eq!(Dtype::from_name(dtype.name()), Some(dtype));
            }
        }
        assert_eq!(Dtype::from_wire_id(200), None);
        assert_eq!(Dtype::from_name("BYTES"), None);
    }
}
