//! Checkpoint files: the safetensors header, how a file is cut into blocks, where tensors lie in files of GGUF, ONNX,
//! PyTorch and NumPy, and numbers in files of other formats.
//!
//! The header is parsed for its tensors only; its bytes are kept verbatim as blocks of their own, because
//! key order and padding cannot be had back from parsing.

mod gguf;
mod header;
mod layout;
mod number_runs;
mod numbers;
mod onnx;
mod other_files;
mod pickle;
mod torch_legacy;
mod torch_names;
mod zip;

pub use gguf::{gguf_layout, gguf_regions};
pub use header::{MAX_RANK, SafetensorsHeader, TensorInfo};
pub use layout::{BlockSpan, Region, blocks, large_block_bytes, layout, layout_around, plain_layout};
pub use numbers::{NumberFinder, ReadAt, read_from};
pub use other_files::other_file_regions;
