//! How the values of two checkpoints differ, tensor by tensor: what a lossy run has cost, measured on what a reader
//! gets.
//!
//! Each side is a file, an archive of one, or a directory: a tree of files, or what compress made of one. Tensors are
//! matched by file and name. They are read in batches of a fixed number of bytes and summed up in fixed blocks of
//! elements, in f64 and in the file's order, so that memory is bounded and the result is the same for any number of
//! threads and any instruction set.

mod difference;
mod report;
mod side;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;

pub use difference::{Difference, FloatDifference};
pub use report::{Comparison, FileComparison, FileOutcome, Side, TensorComparison, TensorOutcome};

use super::context::Context;
use super::in_order::MAX_JOBS;
use super::report::Failure;
use crate::checkpoint::TensorInfo;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use difference::{PARTIAL_ELEMENTS, measure};
use side::{Listing, SideFile, align};

/// Compares the values of `b` with those of `a`; errors are relative to `a`.
///
/// A directory of another name on one side, as compress and decompress add, does not matter, nor do the names of two
/// single files. Files that are no checkpoints are compared byte by byte. Links and attributes are left out.
///
/// ```
/// use alcm::pipeline::compare::compare;
/// use alcm::pipeline::compress::compress_tree;
/// use alcm::pipeline::context::Context;
/// use alcm::pipeline::settings::CompressOptions;
///
/// # let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
/// # let ctx = Context::new(&pool);
/// # let dir = tempfile::tempdir()?;
/// let (tree, archives) = ("tests/data/digits_resnet".into(), dir.path().join("archives"));
/// compress_tree(&ctx, std::slice::from_ref(&tree), &archives, &CompressOptions::default())?;
///
/// // alcm compare tests/data/digits_resnet archives
/// let comparison = compare(&ctx, &tree, &archives)?;
/// assert!(comparison.is_complete());
/// assert!(comparison.total().is_identical());
/// assert!(comparison.total().floats.is_some_and(|floats| floats.relative_l2() == 0.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Io`] and the manifest's own errors where a side cannot be listed at all. What is wrong with single
/// files is in [`Comparison::failures`].
pub fn compare(ctx: &Context<'_>, a: &Path, b: &Path) -> Result<Comparison> {
    let start = Instant::now();
    let (mut a, mut b) = (Listing::of(ctx, a)?, Listing::of(ctx, b)?);
    align(&mut a, &mut b);
    let mut comparison = Comparison::default();
    comparison.failures.append(&mut a.failures);
    comparison.failures.append(&mut b.failures);
    let mut in_b: HashMap<String, PathBuf> = b.files.into_iter().collect();
    let mut pairs: Vec<(String, Option<PathBuf>, Option<PathBuf>)> = a
        .files
        .into_iter()
        .map(|(path, in_a)| (in_b.remove(&path), path, in_a))
        .map(|(b, path, a)| (path, Some(a), b))
        .collect();
    pairs.extend(in_b.into_iter().map(|(path, in_b)| (path, None, Some(in_b))));
    pairs.sort();
    let bytes = |(_, in_a, in_b): &(String, Option<PathBuf>, Option<PathBuf>)| {
        // The larger of the two: an archive is of less than its original. What is wrong is reported at its turn.
        let size = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
        in_a.as_deref().zip(in_b.as_deref()).map_or(0, |(a, b)| size(a).max(size(b)))
    };
    ctx.progress.begin(pairs.iter().map(bytes).sum());
    for (file_idx, pair) in pairs.into_iter().enumerate() {
        ctx.progress.file_started(file_idx, &pair.0, bytes(&pair));
        let (path, in_a, in_b) = pair;
        let outcome = match (in_a, in_b) {
            (Some(in_a), Some(in_b)) => compare_files(ctx, file_idx, &in_a, &in_b),
            (Some(_), None) => Ok(FileOutcome::Only(Side::A)),
            (None, _) => Ok(FileOutcome::Only(Side::B)),
        };
        ctx.progress.file_finished(file_idx);
        match outcome {
            Ok(outcome) => comparison.files.push(FileComparison { path, outcome }),
            Err(error) => comparison.failures.push(Failure { path, error }),
        }
    }
    comparison.elapsed = start.elapsed();
    Ok(comparison)
}

fn compare_files(ctx: &Context<'_>, file_idx: usize, a: &Path, b: &Path) -> Result<FileOutcome> {
    let opened_a = SideFile::open(ctx, a).map_err(|e| e.in_file(a))?;
    let opened_b = SideFile::open(ctx, b).map_err(|e| e.in_file(b))?;
    let files = FilePair { ctx, file_idx, a: &opened_a, b: &opened_b };
    let outcome = match (opened_a.tensors(), opened_b.tensors()) {
        (Some(in_a), Some(in_b)) => FileOutcome::Tensors(files.compare_tensors(in_a, in_b)?),
        _ => FileOutcome::Bytes { identical: files.same_bytes()? },
    };
    opened_a.check_unchanged()?;
    opened_b.check_unchanged()?;
    Ok(outcome)
}

/// Two files that are compared.
struct FilePair<'f> {
    ctx: &'f Context<'f>,
    file_idx: usize,
    a: &'f SideFile,
    b: &'f SideFile,
}

/// Neighbouring bytes of one tensor on both sides, a whole number of elements, at most [`PARTIAL_ELEMENTS`].
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Index of the tensor in the comparison.
    tensor_idx: usize,
    dtype: Option<Dtype>,
    a_offset: u64,
    b_offset: u64,
    len: usize,
}

/// The pieces of a tensor of `byte_len` bytes.
fn pieces(tensor_idx: usize, a: &TensorInfo, b: &TensorInfo) -> impl Iterator<Item = Piece> {
    let piece_bytes = PARTIAL_ELEMENTS * a.dtype.unwrap_or(Dtype::Bytes).unit_bytes();
    let (dtype, a_offset, b_offset, byte_len) = (a.dtype, a.start, b.start, a.byte_len());
    (0..byte_len).step_by(piece_bytes).map(move |at| Piece {
        tensor_idx,
        dtype,
        a_offset: a_offset + at,
        b_offset: b_offset + at,
        len: usize::try_from(byte_len - at).map_or(piece_bytes, |left| left.min(piece_bytes)),
    })
}

impl FilePair<'_> {
    fn compare_tensors(&self, in_a: &[TensorInfo], in_b: &[TensorInfo]) -> Result<Vec<TensorComparison>> {
        let mut by_name: HashMap<&str, &TensorInfo> = in_b.iter().map(|t| (t.name.as_str(), t)).collect();
        let pairs: Vec<(&TensorInfo, Option<&TensorInfo>)> =
            in_a.iter().map(|tensor| (tensor, by_name.remove(tensor.name.as_str()))).collect();
        let mut compared: Vec<TensorComparison> =
            pairs.iter().map(|(a, b)| TensorComparison::new(a, *b)).collect();
        let both = pairs.iter().enumerate().filter_map(|(tensor_idx, (a, b))| Some((tensor_idx, *a, (*b)?)));
        let measured: Vec<_> = both.filter(|(tensor_idx, ..)| compared[*tensor_idx].is_measured()).collect();
        let pieces = measured.into_iter().flat_map(|(tensor_idx, a, b)| pieces(tensor_idx, a, b));
        let in_tensor = |error: Error, tensor_idx: usize| error.in_tensor(&in_a[tensor_idx].name);
        self.measure_all(pieces, |piece, difference| compared[piece.tensor_idx].add(&difference))
            .map_err(|(error, tensor_idx)| in_tensor(error, tensor_idx))?;
        let only_b = in_b.iter().filter(|tensor| by_name.contains_key(tensor.name.as_str()));
        compared.extend(only_b.map(TensorComparison::only_in_b));
        Ok(compared)
    }

    /// Whether both files have the same bytes.
    fn same_bytes(&self) -> Result<bool> {
        let len = self.a.len();
        if len != self.b.len() {
            return Ok(false);
        }
        let whole = TensorInfo {
            name: String::new(),
            dtype: None,
            dtype_name: String::new(),
            shape: Vec::new(),
            start: 0,
            end: len,
        };
        let mut identical = true;
        self.measure_all(pieces(0, &whole, &whole), |_, difference| identical &= difference.is_identical())
            .map_err(|(error, _)| error)?;
        Ok(identical)
    }

    /// Measures `pieces` and hands each difference to `take`, in order. An error comes with the index of the tensor at
    /// which it was met.
    fn measure_all(
        &self,
        pieces: impl Iterator<Item = Piece>,
        mut take: impl FnMut(&Piece, Difference),
    ) -> std::result::Result<(), (Error, usize)> {
        let (mut a_buffer, mut b_buffer) = (Vec::new(), Vec::new());
        let mut pieces = pieces.peekable();
        while let Some(first) = pieces.next() {
            let mut batch = vec![first];
            let mut batch_bytes = first.len;
            // Only what is contiguous on both sides: it is read at once, and every block of an archive decoded once.
            while let Some(next) = pieces.next_if(|next| {
                next.a_offset.checked_sub(batch_bytes as u64) == Some(first.a_offset)
                    && next.b_offset.checked_sub(batch_bytes as u64) == Some(first.b_offset)
                    && batch_bytes < self.ctx.window_bytes() / 2
                    && batch.len() < MAX_JOBS
            }) {
                batch_bytes += next.len;
                batch.push(next);
            }
            let at = |error: Error| (error, first.tensor_idx);
            let a = self.a.read(self.ctx, first.a_offset, batch_bytes, &mut a_buffer).map_err(at)?;
            let b = self.b.read(self.ctx, first.b_offset, batch_bytes, &mut b_buffer).map_err(at)?;
            let measured: Vec<Option<Difference>> = self.ctx.pool.install(|| {
                let measure_piece = |piece: &Piece| {
                    let start = usize::try_from(piece.a_offset - first.a_offset).ok()?;
                    let range = start..start.checked_add(piece.len)?;
                    Some(measure(piece.dtype, a.get(range.clone())?, b.get(range)?))
                };
                batch.par_iter().map(measure_piece).collect()
            });
            for (piece, difference) in batch.iter().zip(measured) {
                let outside = || at(Error::new(ErrorKind::Internal, "a piece outside of its batch"));
                take(piece, difference.ok_or_else(outside)?);
            }
            self.ctx.progress.advanced(self.file_idx, batch_bytes as u64);
        }
        Ok(())
    }
}
