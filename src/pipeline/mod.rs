//! Directory trees to archives and back, over worker threads.
//!
//! The command line wraps these functions one to one: [`compress::compress_tree`] and
//! [`compress::compress_file`], [`decompress::decompress_tree`] and [`decompress::decompress_file`],
//! [`verify::verify`], [`inspect::inspect`], [`inspect::extract`], [`stream::compress_stream`] and
//! [`stream::decompress_stream`], [`predict::predict`]. All take a [`context::Context`] with the thread pool to
//! use, and give a [`report::Report`].
//!
//! ```
//! use alcm::pipeline::compress::compress_tree;
//! use alcm::pipeline::context::Context;
//! use alcm::pipeline::decompress::{DecompressOptions, decompress_tree};
//! use alcm::pipeline::progress::NoProgress;
//! use alcm::pipeline::settings::CompressOptions;
//!
//! let dir = tempfile::tempdir()?;
//! let (model, archives, back) = (dir.path().join("model"), dir.path().join("out"), dir.path().join("back"));
//! std::fs::create_dir(&model)?;
//! std::fs::write(model.join("config.json"), b"{}")?;
//!
//! let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
//! let isa = alcm::kernels::Isa::detect();
//! let ctx = Context { pool: &pool, progress: &NoProgress, isa, limits: alcm::Limits::default() };
//! let report = compress_tree(&ctx, &[model], &archives, &CompressOptions::default())?;
//! assert!(report.failures.is_empty());
//! decompress_tree(&ctx, &archives, &back, DecompressOptions::default())?;
//! assert_eq!(std::fs::read(back.join("model/config.json"))?, b"{}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bases;
pub mod compress;
pub mod context;
mod decode;
pub mod decompress;
mod dedup;
pub mod digest;
mod durable;
mod encode;
pub mod inspect;
pub mod manifest;
pub mod note;
pub mod outputs;
pub mod paths;
pub mod predict;
pub mod progress;
pub mod report;
mod resume;
pub mod settings;
mod source;
pub mod stream;
pub mod timings;
pub mod tree;
pub mod verify;
