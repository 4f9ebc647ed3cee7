//! Bulk compression of machine-learning checkpoints, bit for bit.
//!
//! A checkpoint file is cut into *blocks* of elements, each block is split into float fields, the
//! exponents are entropy-coded by an interleaved rANS, and the result goes into a checked container with
//! random access. The layers, each of which uses only those below it:
//!
//! | module | what it holds |
//! |---|---|
//! | [`cli`] | arguments, settings file, progress bars, exit codes (feature `cli`) |
//! | [`pipeline`] | directory trees to archives and back, over worker threads |
//! | [`container`], [`checkpoint`], [`storage`] | the archive format, the safetensors header, files |
//! | [`stage`] | one block of elements to one payload and back |
//! | [`entropy`] | rANS models, tables, planning |
//! | [`kernels`] | the loops: scalar, portable SIMD, AVX2, AVX-512 |
//! | [`dtype`], [`limits`], [`error`] | element types, bounds for hostile input, errors |
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod bits;
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
pub mod container;
pub mod dtype;
pub mod entropy;
pub mod error;
pub mod kernels;
pub mod limits;
pub mod pipeline;
pub mod stage;
pub mod storage;

pub use dtype::Dtype;
pub use error::{Error, ErrorKind, Location, Result};
pub use limits::Limits;
