//! Checkpoint files: the safetensors header, and how a file is cut into blocks.
//!
//! The header is parsed for its tensors only; its bytes are kept verbatim as blocks of their own, because
//! key order and padding cannot be had back from parsing.

mod header;
mod layout;

pub use header::{MAX_RANK, SafetensorsHeader, TensorInfo};
pub use layout::{BlockSpan, Region, blocks, large_block_bytes, layout, layout_around, plain_layout};
