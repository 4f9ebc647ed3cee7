//! Compressed files of strangers: read within limits, decoded within limits, compared.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::dataset::sha256_of_parts;
use super::submission::PayloadFile;
use crate::error::{Error, ErrorKind, Result};
use crate::lab::clock::time;
use crate::lab::codec::{Codec, Common, Subject, SubjectKind, relative_l2};
use crate::lab::stats::mean;
use crate::lab::untrusted::{BoundedVec, read_within};
use crate::pipeline::context::Context;
use crate::pipeline::stream::decompress_stream;
use crate::pipeline::tensor::decompress_tensor;

/// What a compressed file may take beyond twice its original: headers of the most verbose container.
const SLACK_BYTES: usize = 64 << 10;

/// What decoding the files of a submission shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// Mean over the files of bytes ÷ compressed bytes.
    pub ratio: f64,
    /// All compressed bytes.
    pub compressed_bytes: u64,
    /// Whether every bit came back.
    pub is_exact: bool,
    /// Largest relative L2 error of a tensor.
    pub relative_l2: f64,
    /// Processor seconds that decoding a file took here, mean over the files.
    pub decode_cpu_seconds: f64,
    /// Over names, decoders and bytes.
    pub sha256: String,
}

/// One compressed file in memory.
#[derive(Debug, Clone, Copy)]
pub struct Compressed<'a> {
    /// What decodes it.
    pub decoder: &'a str,
    /// All of it.
    pub bytes: &'a [u8],
}

/// The bytes of `file`, which is to become `subject`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a path that is not plain or text that is no base64; [`ErrorKind::LimitExceeded`];
/// [`ErrorKind::Io`].
pub fn read(dir: &Path, file: &PayloadFile, subject: &Subject) -> Result<Vec<u8>> {
    let limit_len = 2 * subject.bytes.len() + SLACK_BYTES;
    let invalid = |message: &str| Error::new(ErrorKind::InvalidInput, format!("{}: {message}", subject.name));
    match (&file.path, &file.base64) {
        (Some(path), None) => read_within(dir, path, limit_len as u64),
        (None, Some(text)) if text.len() / 4 * 3 > limit_len => {
            let message = format!("{}: more than {limit_len} bytes, which is the limit", subject.name);
            Err(Error::new(ErrorKind::LimitExceeded, message))
        }
        (None, Some(text)) => STANDARD.decode(text).map_err(|_| invalid("is no base64 with padding")),
        _ => Err(invalid("has neither or both of path and base64")),
    }
}

/// What `compressed` decodes to, of at most one byte more than `subject` has.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for an unknown decoder, and what the decoder reports.
fn decode(ctx: &Context<'_>, subject: &Subject, compressed: Compressed<'_>) -> Result<Vec<u8>> {
    let bytes = compressed.bytes;
    match compressed.decoder {
        "uncompressed" => Common::Stored.decode(subject, bytes),
        "npz" => Common::Npz.decode(subject, bytes),
        "gzip" => Common::Gzip(6).decode(subject, bytes),
        "bzip2" => Common::Bzip2(9).decode(subject, bytes),
        "zstd" => Common::Zstd(19).decode(subject, bytes),
        "xz" => Common::Xz(6).decode(subject, bytes),
        "alcm" => {
            let mut bounded = BoundedVec::new(subject.bytes.len());
            decompress_stream(ctx, bytes, &mut bounded)?;
            Ok(bounded.bytes)
        }
        // A frame holds at most one block.
        "alcm-tensor" => Ok(decompress_tensor(ctx.isa, bytes)?.bytes),
        other => {
            let message = format!("the decoder \"{}\" is not known", other.escape_debug());
            Err(Error::new(ErrorKind::InvalidInput, message))
        }
    }
}

/// Decodes each of `files`, one for each of `subjects`, and compares. Only tensors may differ, within `max_relative_l2`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] names the file that does not decode or is something else.
pub fn decode_all(
    ctx: &Context<'_>,
    subjects: &[Subject],
    files: &[Compressed<'_>],
    max_relative_l2: Option<f64>,
) -> Result<Decoded> {
    let (mut ratios, mut seconds) = (Vec::new(), Vec::new());
    let (mut is_exact, mut largest) = (true, 0.0f64);
    for (subject, file) in subjects.iter().zip(files) {
        let wrong = |what: &str| Error::new(ErrorKind::InvalidInput, format!("{}: {what}", subject.name));
        let (decoded, taken) = time(|| decode(ctx, subject, *file));
        let decoded = decoded.map_err(|e| wrong(&format!("does not decode as {}: {e}", file.decoder)))?;
        if decoded != subject.bytes {
            let is_tensor = matches!(subject.kind, SubjectKind::Tensor { .. });
            let (true, true, Some(bound)) =
                (is_tensor, decoded.len() == subject.bytes.len(), max_relative_l2)
            else {
                return Err(wrong("decodes to other bytes than the dataset's"));
            };
            let error = relative_l2(ctx, subject, &decoded)?;
            if error.is_nan() || error > bound {
                return Err(wrong(&format!("its relative L2 error is {error:.3e}, stated is {bound:.3e}")));
            }
            (is_exact, largest) = (false, largest.max(error));
        }
        ratios.push(subject.bytes.len() as f64 / file.bytes.len().max(1) as f64);
        seconds.push(taken.cpu_s);
    }
    let parts = subjects.iter().zip(files);
    let parts = parts.flat_map(|(s, f)| [s.name.as_bytes(), f.decoder.as_bytes(), f.bytes]);
    Ok(Decoded {
        ratio: mean(&ratios),
        compressed_bytes: files.iter().map(|file| file.bytes.len() as u64).sum(),
        is_exact,
        relative_l2: largest,
        decode_cpu_seconds: mean(&seconds),
        sha256: sha256_of_parts(parts),
    })
}
