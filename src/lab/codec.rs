//! Codecs under one roof: those that everybody has, and this project's own, each with its decoder.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::clock::{Taken, median_of, time};
use super::npz;
use super::stats::mean;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::quantize::measure as errors_of;
use crate::pipeline::compare::compare;
use crate::pipeline::compress::compress_file;
use crate::pipeline::context::Context;
use crate::pipeline::lossy::settings::LossySettings;
use crate::pipeline::report::Report;
use crate::pipeline::settings::{AsBytes, CodingSettings, CompressOptions};
use crate::pipeline::stream::{compress_stream, decompress_stream};
use crate::pipeline::tensor::{Tensor, TensorMode, compress_tensor, decompress_tensor};
use crate::stage::Level;

/// What is compressed.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// Its name in tables.
    pub name: String,
    /// All of it.
    pub bytes: Vec<u8>,
    /// What it is.
    pub kind: SubjectKind,
}

/// What the bytes of a [`Subject`] are.
#[derive(Debug, Clone, PartialEq)]
pub enum SubjectKind {
    /// The elements of one tensor.
    Tensor {
        /// Their type.
        dtype: Dtype,
        /// Lengths of the tensor's dimensions.
        shape: Vec<u64>,
    },
    /// A file: a checkpoint, or any other.
    File(PathBuf),
}

impl Subject {
    /// The whole of a file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn from_file(path: PathBuf) -> Result<Self> {
        let bytes = fs::read(&path).map_err(|e| Error::io("cannot read", e).in_file(&path))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { name, bytes, kind: SubjectKind::File(path) })
    }

    /// A file's bytes without a file, for codecs that look at nothing else.
    #[must_use]
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), bytes, kind: SubjectKind::File(PathBuf::from(name)) }
    }
}

/// An encoder and its decoder.
pub trait Codec {
    /// Its name and level, as tables show it.
    fn name(&self) -> &str;

    /// All bytes that [`Self::decode`] needs.
    ///
    /// # Errors
    /// What is wrong with the subject.
    fn encode(&self, subject: &Subject) -> Result<Vec<u8>>;

    /// The subject's bytes again, or for a lossy codec as many others.
    ///
    /// # Errors
    /// What is wrong with `encoded`.
    fn decode(&self, subject: &Subject, encoded: &[u8]) -> Result<Vec<u8>>;

    /// Whether decoded bytes may differ from the subject's.
    fn is_lossy(&self) -> bool {
        false
    }
}

/// One codec on one subject, decoded and compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// What it was encoded to.
    pub encoded: Vec<u8>,
    /// Bytes of the subject ÷ bytes encoded.
    pub ratio: f64,
    /// Medians of the runs.
    pub encode: Taken,
    /// Medians of the runs.
    pub decode: Taken,
    /// The processor seconds of encoding of each run.
    pub encode_runs: Vec<Taken>,
    /// ‖x − x̂‖₂ ÷ ‖x‖₂ of what was decoded.
    pub relative_l2: f64,
    /// Whether every bit came back.
    pub is_exact: bool,
}

impl Measured {
    /// Encoded megabytes of the subject in a second on the wall.
    #[must_use]
    pub fn encode_mb_s(&self) -> f64 {
        self.ratio * self.encoded.len() as f64 / 1e6 / self.encode.wall_s
    }

    /// Decoded megabytes of the subject in a second on the wall.
    #[must_use]
    pub fn decode_mb_s(&self) -> f64 {
        self.ratio * self.encoded.len() as f64 / 1e6 / self.decode.wall_s
    }
}

/// The mean of `field` over `measured`.
pub fn mean_of(measured: &[Measured], field: impl Fn(&Measured) -> f64) -> f64 {
    mean(&measured.iter().map(field).collect::<Vec<_>>())
}

/// Encodes and decodes `subject` `runs` times, at least once, and compares what came back.
///
/// # Errors
/// What the codec reports; [`ErrorKind::Internal`] where a codec without loss gives other bytes, or where two runs give
/// different ones.
pub fn measure(ctx: &Context<'_>, codec: &dyn Codec, subject: &Subject, runs: usize) -> Result<Measured> {
    let wrong =
        |what: &str| Error::new(ErrorKind::Internal, format!("{} on {}: {what}", codec.name(), subject.name));
    let (mut encode_runs, mut decode_runs) = (Vec::new(), Vec::new());
    let mut made: Option<(Vec<u8>, Vec<u8>)> = None;
    for _ in 0..runs.max(1) {
        let (encoded, taken) = time(|| codec.encode(subject));
        encode_runs.push(taken);
        let encoded = encoded?;
        let (decoded, taken) = time(|| codec.decode(subject, &encoded));
        decode_runs.push(taken);
        let run = (encoded, decoded?);
        if made.as_ref().is_some_and(|made| *made != run) {
            return Err(wrong("two runs gave different bytes"));
        }
        made = Some(run);
    }
    let (encoded, decoded) = made.unwrap_or_default();
    let is_exact = decoded == subject.bytes;
    if !is_exact && !codec.is_lossy() {
        return Err(wrong("the decoded bytes are not those that were encoded"));
    }
    let relative_l2 = if is_exact { 0.0 } else { relative_l2(ctx, subject, &decoded)? };
    Ok(Measured {
        ratio: subject.bytes.len() as f64 / encoded.len() as f64,
        encode: median_of(&encode_runs),
        decode: median_of(&decode_runs),
        encode_runs,
        relative_l2,
        is_exact,
        encoded,
    })
}

/// ‖x − x̂‖₂ ÷ ‖x‖₂ of `decoded`, which is as long as `subject`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] where no errors are defined.
pub fn relative_l2(ctx: &Context<'_>, subject: &Subject, decoded: &[u8]) -> Result<f64> {
    match &subject.kind {
        SubjectKind::Tensor { dtype, .. } => {
            let errors = errors_of(ctx.isa, *dtype, &subject.bytes, decoded);
            errors.map(|errors| errors.relative_l2()).ok_or_else(|| {
                Error::new(ErrorKind::InvalidInput, format!("no errors are defined for {}", dtype.name()))
            })
        }
        SubjectKind::File(path) => {
            let dir = scratch(None)?;
            // Under its own name, which says what it holds.
            let copy = dir.path().join(path.file_name().unwrap_or_default());
            fs::write(&copy, decoded).map_err(|e| Error::io("cannot write", e).in_file(&copy))?;
            let total = compare(ctx, path, &copy)?.total();
            let floats = total.floats.ok_or_else(|| {
                Error::new(ErrorKind::InvalidInput, "decoded bytes differ where no errors are defined")
            })?;
            Ok(floats.relative_l2())
        }
    }
}

/// A report without failures.
///
/// # Errors
/// The first of its failures.
pub fn done(mut report: Report) -> Result<Report> {
    if report.failures.is_empty() { Ok(report) } else { Err(report.failures.swap_remove(0).error) }
}

/// A temporary folder within `parent`, or where the system has them; removed when it is dropped.
///
/// # Errors
/// [`ErrorKind::Io`].
pub fn scratch(parent: Option<&Path>) -> Result<tempfile::TempDir> {
    parent
        .map_or_else(tempfile::tempdir, tempfile::tempdir_in)
        .map_err(|e| Error::io("cannot make a temporary folder", e))
}

/// What the xz decoder may take; a file of preset 9 needs 65 MiB, a header can claim 4 GiB.
const XZ_MEMORY_BYTES: u64 = 256 << 20;

/// A codec of everybody's, by its usual name and level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Common {
    /// The bytes themselves.
    Stored,
    /// NumPy's `savez_compressed`.
    Npz,
    /// gzip at a level.
    Gzip(u32),
    /// bzip2 at a level.
    Bzip2(u32),
    /// Zstandard at a level.
    Zstd(i32),
    /// xz at a preset.
    Xz(u32),
}

impl Common {
    /// Those that the comparisons show.
    pub const ALL: [Self; 7] =
        [Self::Stored, Self::Npz, Self::Gzip(6), Self::Bzip2(9), Self::Zstd(3), Self::Zstd(19), Self::Xz(6)];
}

impl Codec for Common {
    fn name(&self) -> &str {
        match self {
            Self::Stored => "uncompressed",
            Self::Npz => "npz",
            Self::Gzip(6) => "gzip -6",
            Self::Gzip(_) => "gzip",
            Self::Bzip2(9) => "bzip2 -9",
            Self::Bzip2(_) => "bzip2",
            Self::Zstd(3) => "zstd -3",
            Self::Zstd(19) => "zstd -19",
            Self::Zstd(_) => "zstd",
            Self::Xz(6) => "xz -6",
            Self::Xz(_) => "xz",
        }
    }

    fn encode(&self, subject: &Subject) -> Result<Vec<u8>> {
        let bytes = subject.bytes.as_slice();
        let encoded = match self {
            Self::Stored => Ok(bytes.to_vec()),
            Self::Npz => return encode_npz(subject),
            Self::Gzip(level) => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(*level));
                encoder.write_all(bytes).and_then(|()| encoder.finish())
            }
            Self::Bzip2(level) => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(*level));
                encoder.write_all(bytes).and_then(|()| encoder.finish())
            }
            Self::Zstd(level) => zstd::bulk::compress(bytes, *level),
            Self::Xz(preset) => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), *preset);
                encoder.write_all(bytes).and_then(|()| encoder.finish())
            }
        };
        encoded.map_err(|e| Error::new(ErrorKind::Internal, format!("{}: {e}", self.name())))
    }

    fn decode(&self, subject: &Subject, encoded: &[u8]) -> Result<Vec<u8>> {
        // One byte more than expected shows a decoder that gives too many; none is let run on.
        let limit = subject.bytes.len() + 1;
        let read = |source: &mut dyn Read| {
            let mut bytes = Vec::with_capacity(limit);
            source.take(limit as u64).read_to_end(&mut bytes).map(|_| bytes)
        };
        let decoded = match self {
            Self::Stored => Ok(encoded.to_vec()),
            Self::Npz => return npz::read_up_to(encoded, limit as u64),
            Self::Gzip(_) => read(&mut GzDecoder::new(encoded)),
            Self::Bzip2(_) => read(&mut bzip2::read::BzDecoder::new(encoded)),
            Self::Zstd(_) => zstd::bulk::decompress(encoded, limit),
            Self::Xz(_) => liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES, 0)
                .map_err(std::io::Error::from)
                .and_then(|stream| read(&mut liblzma::read::XzDecoder::new_stream(encoded, stream))),
        };
        decoded.map_err(|e| Error::new(ErrorKind::Corrupt, format!("{}: {e}", self.name())))
    }
}

/// A tensor under its dtype; any other file as an array of bytes, which deflate codes as well as its parts.
fn encode_npz(subject: &Subject) -> Result<Vec<u8>> {
    match &subject.kind {
        SubjectKind::Tensor { dtype: Dtype::F32, shape } => {
            npz::write("tensor", "<f4", shape, &subject.bytes)
        }
        SubjectKind::Tensor { .. } | SubjectKind::File(_) => {
            npz::write("file", "|u1", &[subject.bytes.len() as u64], &subject.bytes)
        }
    }
}

/// This project's frames of single tensors.
#[derive(Debug, Clone)]
pub struct AlcmTensor<'a> {
    /// Threads and instruction set.
    pub ctx: &'a Context<'a>,
    /// Its name in tables.
    pub name: String,
    /// What may become of a tensor.
    pub mode: TensorMode,
}

impl Codec for AlcmTensor<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn encode(&self, subject: &Subject) -> Result<Vec<u8>> {
        let SubjectKind::Tensor { dtype, shape } = &subject.kind else {
            return Err(Error::new(ErrorKind::InvalidInput, format!("{} is no tensor", subject.name)));
        };
        let tensor = Tensor { dtype: *dtype, shape, bytes: &subject.bytes };
        Ok(compress_tensor(self.ctx.isa, tensor, self.mode)?.frame)
    }

    fn decode(&self, _: &Subject, encoded: &[u8]) -> Result<Vec<u8>> {
        Ok(decompress_tensor(self.ctx.isa, encoded)?.bytes)
    }

    fn is_lossy(&self) -> bool {
        self.mode != TensorMode::Exact
    }
}

/// This project's archives of whole files.
#[derive(Debug)]
pub struct AlcmArchive<'a> {
    /// Threads and instruction set.
    pub ctx: &'a Context<'a>,
    /// Its name in tables.
    pub name: String,
    /// Effort of the encoder.
    pub level: Level,
    /// What may change; `None` for nothing.
    pub lossy: Option<LossySettings>,
}

impl AlcmArchive<'_> {
    fn coding(&self) -> CodingSettings {
        CodingSettings { level: self.level, as_bytes: AsBytes::Malformed, ..CodingSettings::default() }
    }

    /// Through a temporary folder: a lossy run reads its tensors several times.
    fn encode_lossy(&self, lossy: &LossySettings, subject: &Subject) -> Result<Vec<u8>> {
        let SubjectKind::File(path) = &subject.kind else {
            return Err(Error::new(ErrorKind::InvalidInput, format!("{} is no file", subject.name)));
        };
        let dir = scratch(None)?;
        let archive = dir.path().join("archive.alcm");
        let options = CompressOptions {
            coding: self.coding(),
            lossy: Some(lossy.clone()),
            ..CompressOptions::default()
        };
        done(compress_file(self.ctx, path, &archive, &options)?)?;
        fs::read(&archive).map_err(|e| Error::io("cannot read", e).in_file(&archive))
    }
}

impl Codec for AlcmArchive<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn encode(&self, subject: &Subject) -> Result<Vec<u8>> {
        if let Some(lossy) = &self.lossy {
            return self.encode_lossy(lossy, subject);
        }
        let mut archive = Vec::new();
        compress_stream(self.ctx, subject.bytes.as_slice(), &mut archive, &self.coding())?;
        Ok(archive)
    }

    fn decode(&self, subject: &Subject, encoded: &[u8]) -> Result<Vec<u8>> {
        let mut decoded = Vec::with_capacity(subject.bytes.len());
        decompress_stream(self.ctx, encoded, &mut decoded)?;
        Ok(decoded)
    }

    fn is_lossy(&self) -> bool {
        self.lossy.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::tests::context;
    use crate::pipeline::tensor::TensorGoal;
    use crate::stage::Quantizer;

    fn tensor() -> Subject {
        let values = crate::lab::synthetic::gradients(1);
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let kind = SubjectKind::Tensor { dtype: Dtype::F32, shape: vec![100, 100] };
        Subject { name: "epoch 1".into(), bytes, kind }
    }

    #[test]
    fn every_codec_gives_back_what_it_took() {
        context(|ctx| {
            let text = Subject::from_bytes("text", b"to and fro, to and fro, ".repeat(50));
            let level = |level| AlcmArchive { ctx, name: "alcm".into(), level, lossy: None };
            let levels = [Level::Fast, Level::Default, Level::High].map(level);
            let exact = AlcmTensor { ctx, name: "alcm".into(), mode: TensorMode::Exact };
            let common = Common::ALL.iter().map(|codec| codec as &dyn Codec);
            for codec in common.chain(levels.iter().map(|codec| codec as &dyn Codec)) {
                let measured = measure(ctx, codec, &text, 2).unwrap();
                assert!(measured.is_exact && measured.relative_l2 == 0.0, "{}", codec.name());
                if codec.name() != "uncompressed" {
                    assert!(measured.ratio > 2.0, "{}: {}", codec.name(), measured.ratio);
                }
                assert!(measure(ctx, codec, &tensor(), 1).unwrap().is_exact, "{}", codec.name());
            }
            assert!(measure(ctx, &exact, &tensor(), 1).unwrap().is_exact);
        });
    }

    #[test]
    fn a_lossy_codec_is_measured_by_what_it_decodes_to() {
        context(|ctx| {
            let mode = TensorMode::Lossy(TensorGoal::RelL2(0.05), Quantizer::Uniform);
            let codec = AlcmTensor { ctx, name: "alcm".into(), mode };
            let measured = measure(ctx, &codec, &tensor(), 1).unwrap();
            assert!(!measured.is_exact && measured.relative_l2 > 0.03 && measured.relative_l2 <= 0.05);
        });
    }

    /// A codec that loses a bit without saying so.
    struct Broken;

    impl Codec for Broken {
        fn name(&self) -> &str {
            "broken"
        }

        fn encode(&self, subject: &Subject) -> Result<Vec<u8>> {
            Ok(subject.bytes.clone())
        }

        fn decode(&self, _: &Subject, encoded: &[u8]) -> Result<Vec<u8>> {
            let mut bytes = encoded.to_vec();
            bytes[0] ^= 1;
            Ok(bytes)
        }
    }

    #[test]
    fn a_codec_that_gives_back_something_else_is_found() {
        context(|ctx| {
            let error = measure(ctx, &Broken, &tensor(), 1).unwrap_err();
            assert!(error.to_string().contains("not those that were encoded"), "{error}");
        });
    }
}
