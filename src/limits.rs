//! Bounds that every reader of untrusted bytes keeps to.

/// Largest decoded size of one block, in bytes; part of the format.
pub const MAX_BLOCK_BYTES: usize = 4 << 20;

/// Bounds on what a file may claim. A claim above them is [`crate::ErrorKind::LimitExceeded`], found before
/// anything of that size is allocated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Largest safetensors header, in bytes.
    pub header_bytes: u64,
    /// Most tensors in one file.
    pub tensors: usize,
    /// Most blocks in one archive.
    pub blocks: u64,
    /// Largest manifest, in bytes.
    pub manifest_bytes: u64,
}

impl Default for Limits {
    /// 32 MiB of header, 2^18 tensors, 2^26 blocks (tens of TB), 64 MiB of manifest.
    fn default() -> Self {
        Self { header_bytes: 32 << 20, tensors: 1 << 18, blocks: 1 << 26, manifest_bytes: 64 << 20 }
    }
}
