//! Directory trees to archives and back, over worker threads.
//!
//! The command line wraps these functions one to one: [`compress::compress_tree`] and
//! [`compress::compress_file`], [`decompress::decompress_tree`] and [`decompress::decompress_file`],
//! [`verify::verify`], [`inspect::inspect`], [`inspect::extract`], [`compare::compare`], [`stream::compress_stream`] and
//! [`stream::decompress_stream`], [`predict::predict`]. For programs that hold their tensors in memory there are
//! [`archive_file::ArchiveFile`], [`elements::compress_elements`] and, for a small one, [`tensor::compress_tensor`]. All take a [`context::Context`] with the thread
//! pool to use; the crate's documentation has an example of each.

pub mod archive_file;
mod bases;
mod buffers;
mod changes;
mod commit;
pub mod compare;
pub mod compress;
pub mod context;
mod decode;
pub mod decompress;
mod dedup;
pub mod digest;
mod durable;
mod early;
pub mod elements;
mod encode;
mod gather;
mod in_order;
mod in_pieces;
pub mod inspect;
mod kept;
pub mod layer_choice;
mod links;
pub mod lossy;
pub mod manifest;
pub mod map;
mod near_copies;
pub mod note;
pub mod outputs;
pub mod paths;
pub mod predict;
pub mod progress;
pub mod report;
mod resume;
pub mod settings;
pub(crate) mod source;
pub mod stream;
pub mod tensor;
pub mod timings;
pub mod train;
pub mod tree;
pub mod verify;
