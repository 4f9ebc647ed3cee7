//! Bulk compression of machine-learning checkpoints: bit for bit, or on request within an error that is named.
//!
//! A checkpoint file is cut into *blocks* of elements, each block is split into float fields, the
//! exponents are entropy-coded by an interleaved rANS, and the result goes into a checked container with
//! random access:
//!
//! ```text
//!  file tree          one file               one block, on any thread                   one archive
//! ┌───────────┐   ┌────────────────┐   ┌──────────────────────────────────────┐   ┌───────────────────┐
//! │ shards    │   │ header ────────┼──▶│ bytes ────────────────────────▶ zstd │   │ file header       │
//! │ config    │──▶│ tensor → block─┼──▶│          ┌ symbols ─▶ plan ─▶ rANS ──┼──▶│ records, each     │
//! │ tokenizer │   │        → block │   │ split ──▶│                           │   │   with two CRC-64 │
//! │ links, …  │   │ tensor → block │   │          └ residual ─▶ planes ───────┼──▶│ index with CRC-64 │
//! └─────┬─────┘   └───────┬────────┘   └──────────────────────────────────────┘   │ footer with hash  │
//!       │                 └──────────────── BLAKE3, piece by piece ──────────────▶└───────────────────┘
//!       └─ names, modes, times, links ────────────────────────────────────▶ alcm-manifest.json
//! ```
//!
//! Decompression goes the other way, and gives a result only after every checksum and hash has been compared.
//!
//! # The layers
//!
//! Each uses only those below it:
//!
//! | module | what it holds |
//! |---|---|
//! | `cli` | arguments, settings file, progress bars, exit codes (feature `cli`) |
//! | `lab` | what measures and reproduces stated numbers (feature `lab`) |
//! | [`pipeline`] | directory trees to archives and back, over worker threads |
//! | [`container`], [`checkpoint`], [`storage`] | the archive format, the safetensors header, files |
//! | [`stage`] | one block of elements to one payload and back |
//! | [`entropy`], [`quantize`] | rANS models, tables, planning; costs of indices, models of the rate |
//! | [`kernels`] | the loops: scalar, portable SIMD, AVX2, AVX-512 |
//! | [`bits`], [`dtype`] | bit streams and cursors, element types |
//! | [`limits`], [`error`] | bounds for hostile input, errors |
//!
//! # Files and trees
//!
//! What the command line does, as functions: [`compress_tree`](pipeline::compress::compress_tree),
//! [`verify`](pipeline::verify::verify), [`decompress_tree`](pipeline::decompress::decompress_tree). Every one takes
//! a [`Context`](pipeline::context::Context) with the threads to use (the global pool of rayon is never touched)
//! and gives a [`Report`](pipeline::report::Report). One file that fails does not stop the others: look at the
//! report's failures.
//!
//! ```
//! use alcm::pipeline::compress::compress_tree;
//! use alcm::pipeline::context::Context;
//! use alcm::pipeline::decompress::{DecompressOptions, decompress_tree};
//! use alcm::pipeline::settings::CompressOptions;
//! use alcm::pipeline::verify::verify;
//!
//! let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
//! let ctx = Context::new(&pool);
//! let dir = tempfile::tempdir()?;
//! let (archives, back) = (dir.path().join("archives"), dir.path().join("back"));
//!
//! // alcm compress tests/data/digits_resnet -o archives
//! let sources = ["tests/data/digits_resnet".into()];
//! let report = compress_tree(&ctx, &sources, &archives, &CompressOptions::default())?;
//! assert!(report.failures.is_empty());
//! assert!(report.total().saved_percent() > 10.0);
//!
//! // alcm verify archives
//! assert!(verify(&ctx, &[archives.clone()]).failures.is_empty());
//!
//! // alcm decompress archives -o back
//! let report = decompress_tree(&ctx, &archives, &back, DecompressOptions::default())?;
//! assert!(report.failures.is_empty());
//! for name in ["config.json", "params_bf16.safetensors", "train_state.safetensors"] {
//!     let restored = std::fs::read(back.join("digits_resnet").join(name))?;
//!     assert_eq!(restored, std::fs::read(format!("tests/data/digits_resnet/{name}"))?);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # One archive, one tensor
//!
//! [`ArchiveFile`](pipeline::archive_file::ArchiveFile) lists the tensors of an archive and decodes any of them
//! into memory of the caller, reading only the blocks that hold it.
//! [`inspect`](pipeline::inspect::inspect) tells what each tensor takes and how it is coded.
//!
//! ```
//! use alcm::pipeline::archive_file::ArchiveFile;
//! use alcm::pipeline::compress::compress_file;
//! use alcm::pipeline::context::Context;
//! use alcm::pipeline::inspect::inspect;
//! use alcm::pipeline::settings::CompressOptions;
//!
//! # let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
//! # let ctx = Context::new(&pool);
//! # let dir = tempfile::tempdir()?;
//! let path = dir.path().join("params.alcm");
//! let source = "tests/data/digits_resnet/params_bf16.safetensors".as_ref();
//! compress_file(&ctx, source, &path, &CompressOptions::default())?;
//!
//! let archive = ArchiveFile::open(&ctx, &path)?;
//! let tensor = archive.tensors().iter().max_by_key(|tensor| tensor.byte_len()).ok_or("no tensor")?;
//! assert_eq!(tensor.dtype_name, "BF16");
//! let mut elements = vec![0; tensor.byte_len() as usize];
//! archive.read_tensor(&ctx, tensor, &mut elements)?;
//!
//! let original = std::fs::read(source)?;
//! assert_eq!(elements, original[tensor.start as usize..tensor.end as usize]);
//!
//! let described = inspect(&ctx, &path)?;
//! assert!(described.tensors.iter().any(|t| t.name == tensor.name && t.tally.ratio() > 1.2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Elements in memory
//!
//! [`compress_elements`](pipeline::elements::compress_elements) makes an archive of a slice, with all its checks:
//!
//! ```
//! use alcm::pipeline::context::Context;
//! use alcm::pipeline::elements::{Elements, compress_elements, decompress_elements};
//! use alcm::{Dtype, stage::Level};
//!
//! # let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
//! # let ctx = Context::new(&pool);
//! let values: Vec<f32> = (0..1 << 16).map(|i| (i as f32).sin() * 0.02).collect();
//! let elements = Elements { dtype: Dtype::F32, values: &values, row_len: 256 };
//! let archive = compress_elements(&ctx, elements, Level::Default)?;
//! assert!(archive.len() < 4 * values.len());
//!
//! let mut back = vec![0f32; values.len()];
//! decompress_elements(&ctx, &archive, &mut back)?;
//! assert_eq!(back, values);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`compress_tensor`](pipeline::tensor::compress_tensor) makes a frame of a tensor of a few kilobytes, exactly or within
//! a goal, with 20 bytes around it. [`BlockEncoder`](stage::BlockEncoder) with [`BlockDecoder`](stage::BlockDecoder) codes a single block, for a
//! program that has a container and checksums of its own:
//!
//! ```
//! use alcm::Dtype;
//! use alcm::kernels::Isa;
//! use alcm::stage::{BlockDecoder, BlockEncoder, BlockSource, Level};
//!
//! let bf16: Vec<u16> = (0..4096u16).map(|i| 0x3c00 | (i % 499)).collect();
//! let bytes: &[u8] = bytemuck::cast_slice(&bf16);
//! let mut payload = Vec::new();
//! let source = BlockSource { dtype: Dtype::Bf16, bytes, row_len: 0, row_start: 0 };
//! let coding = BlockEncoder::new(Level::Default, Isa::detect()).encode(source, &mut payload);
//!
//! let mut decoded = vec![0; bytes.len()];
//! BlockDecoder::new(Isa::detect()).decode(coding, Dtype::Bf16, &payload, &mut decoded)?;
//! assert_eq!(decoded, bytes);
//! # Ok::<(), alcm::Error>(())
//! ```
//!
//! # Lossy
//!
//! With [`LossySettings`](pipeline::lossy::settings::LossySettings) in the options, tensors may change within a
//! [`Goal`](pipeline::lossy::settings::Goal). The archive then holds a reconstruction, with the error of each tensor as
//! measured on decoded values.
//!
//! ```
//! use alcm::pipeline::compress::compress_file;
//! use alcm::pipeline::context::Context;
//! use alcm::pipeline::inspect::inspect;
//! use alcm::pipeline::lossy::settings::{Goal, LossySettings};
//! use alcm::pipeline::settings::CompressOptions;
//!
//! # let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
//! # let ctx = Context::new(&pool);
//! # let dir = tempfile::tempdir()?;
//! let path = dir.path().join("params.alcm");
//! let source = "tests/data/digits_resnet/params_bf16.safetensors".as_ref();
//! let lossy = Some(LossySettings::new(Goal::RelL2(0.05)));
//! compress_file(&ctx, source, &path, &CompressOptions { lossy, ..CompressOptions::default() })?;
//!
//! let described = inspect(&ctx, &path)?;
//! let losses: Vec<_> = described.tensors.iter().filter_map(|tensor| tensor.loss).collect();
//! assert!(losses.len() > 10 && losses.iter().all(|loss| loss.rel_l2() <= 0.05));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Layers
//!
//! A layered archive holds a coarse reconstruction first and refinements behind it: whoever stops reading where a layer
//! ends has the archive of that layer, and the last may be the original.
//!
//! ```
//! use alcm::pipeline::archive_file::ArchiveFile;
//! use alcm::pipeline::compress::compress_file;
//! use alcm::pipeline::context::Context;
//! use alcm::pipeline::inspect::inspect;
//! use alcm::pipeline::layer_choice::LayerChoice;
//! use alcm::pipeline::lossy::settings::{LayerGoal, LossySettings};
//! use alcm::pipeline::settings::CompressOptions;
//!
//! # let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
//! # let ctx = Context::new(&pool);
//! # let dir = tempfile::tempdir()?;
//! let path = dir.path().join("params.alcm");
//! let source = "tests/data/digits_resnet/params_bf16.safetensors".as_ref();
//! let lossy = Some(LossySettings::layered(&[LayerGoal::Bits(4.0), LayerGoal::Exact])?);
//! compress_file(&ctx, source, &path, &CompressOptions { lossy, ..CompressOptions::default() })?;
//!
//! let layers = inspect(&ctx, &path)?.layers;
//! assert!((layers[0].bits_per_element - 4.0).abs() < 0.1 && layers[0].rel_l2 < 0.12);
//!
//! // The first part of the file is an archive, and holds what the first layer of the whole does.
//! let archive = std::fs::read(&path)?;
//! let coarse_path = dir.path().join("coarse.alcm");
//! std::fs::write(&coarse_path, &archive[..layers[0].archive_bytes as usize])?;
//! let (coarse, same) =
//!     (ArchiveFile::open(&ctx, &coarse_path)?, ArchiveFile::open_layer(&ctx, &path, LayerChoice::Number(1))?);
//! let tensor = coarse.tensors().iter().max_by_key(|tensor| tensor.byte_len()).ok_or("no tensor")?;
//! let mut elements = [vec![0; tensor.byte_len() as usize], vec![0; tensor.byte_len() as usize]];
//! coarse.read_tensor(&ctx, tensor, &mut elements[0])?;
//! same.read_tensor(&ctx, tensor, &mut elements[1])?;
//! assert_eq!(elements[0], elements[1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Streams
//!
//! [`compress_stream`](pipeline::stream::compress_stream) and
//! [`decompress_stream`](pipeline::stream::decompress_stream) go through pipes of any length in bounded memory:
//!
//! ```
//! use alcm::pipeline::context::Context;
//! use alcm::pipeline::settings::CodingSettings;
//! use alcm::pipeline::stream::{compress_stream, decompress_stream};
//!
//! # let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
//! # let ctx = Context::new(&pool);
//! let (mut archive, mut back) = (Vec::new(), Vec::new());
//! compress_stream(&ctx, &b"any bytes"[..], &mut archive, &CodingSettings::default())?;
//! decompress_stream(&ctx, &archive[..], &mut back)?;
//! assert_eq!(back, b"any bytes");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `cli` | yes | the binary and the module `cli`: clap, indicatif, YAML |
//! | `bench-internals` | no | private parts for the benches; no promise of stability |
#![cfg_attr(docsrs, feature(doc_cfg))]
// The build without tests holds production code to it.
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "test data"))]

pub mod bits;
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
pub mod container;
pub mod dtype;
pub mod entropy;
pub mod error;
pub mod kernels;
#[cfg(feature = "lab")]
pub mod lab;
pub mod limits;
pub mod pipeline;
pub mod quantize;
pub mod stage;
pub mod storage;

pub use dtype::Dtype;
pub use error::{Error, ErrorKind, Location, Result};
pub use limits::Limits;
