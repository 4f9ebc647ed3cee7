//! The archive: one original file as checked, independent blocks, with random access by an index at the end.
//!
//! [`ArchiveWriter`] writes front to back; a pipeline that knows its offsets may instead place records
//! itself with [`block_header_bytes`] and [`IndexBuilder`]. [`Archive`] reads a mapped archive at random,
//! [`StreamReader`] reads a pipe. Uses `stage` for ids and for decoding only; values of tensors are nothing
//! to it.
//!
#![doc = include_str!("FORMAT.md")]

mod block;
mod checksum;
mod content_hash;
mod footer;
mod header;
mod index;
mod loss;
mod reader;
mod reference;
mod stream;
mod tensor_frame;
#[cfg(test)]
mod tests;
mod writer;

pub use block::{BlockEntry, BlockInfo, BlockRecord, RECORD_HEADER_BYTES, block_header_bytes};
pub use checksum::{RunningCrc, crc64, crc64_from, crc64_joined};
pub use content_hash::{ContentHasher, Piece};
pub use footer::{ContentHash, FOOTER_BYTES, Footer};
pub use header::{
    FLAG_LAYER, FLAG_LOSSY, FLAG_REFERENCES, FileHeader, HEADER_BYTES, LAYER_LINK_BYTES, LayerLink, MAGIC,
    MAJOR, MAX_LAYERS, MINOR,
};
pub use index::IndexBuilder;
pub use loss::{GoalKind, LossTable, TensorLoss};
pub use reader::{Archive, decode_block, read_range};
pub use reference::{OtherFile, Reference, Resolver, no_other_files};
pub(crate) use stream::read_up_to;
pub use stream::{StreamEnd, StreamReader};
pub use tensor_frame::{TENSOR_MAGIC, TensorFrame, tensor_bytes};
pub use writer::{ArchiveWriter, EncodedBlock, WriteSummary};
