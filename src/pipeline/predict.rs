//! `--dry-run`: what compress would save, from a sample of each file's blocks; nothing is written.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Instant;

use rayon::prelude::*;

use super::context::{Checkout, Context};
use super::encode::EncodeMemory;
use super::report::{Failure, Report, Tally};
use super::settings::CodingSettings;
use super::source::Source;
use super::tree::{SourceFile, SourceTree};
use crate::checkpoint::{BlockSpan, TensorInfo, blocks};
use crate::container::RECORD_HEADER_BYTES;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::stage::{BlockEncoder, BlockSource};

/// One block in this many is encoded.
const SAMPLING: u64 = 16;
/// But at least this many of each region's file, or all.
const MIN_SAMPLED: u64 = 8;
/// Header, footer and the index around its entries, in bytes (FORMAT.md, 1).
const FRAME_BYTES: u64 = 32 + 24 + 128;
/// One index entry, in bytes.
const ENTRY_BYTES: u64 = 12;

/// Predicts what compressing `paths` would give. The sample depends on the files alone, so that two runs agree.
/// Duplicates are not looked for.
///
/// # Errors
/// As [`super::compress::compress_tree`], but for the outputs.
pub fn predict(ctx: &Context<'_>, paths: &[PathBuf], coding: &CodingSettings) -> Result<Report> {
    let start = Instant::now();
    let tree = SourceTree::walk(paths)?;
    ctx.progress.begin(tree.total_bytes());
    let mut report = Report::default();
    let (memory, encoders) = (EncodeMemory::default(), Checkout::default());
    for (file_idx, file) in tree.files.iter().enumerate() {
        match ctx.pool.install(|| predict_file(ctx, &memory, &encoders, file, coding, &|_| false)) {
            Ok(part) => report.absorb(part),
            Err(error) => {
                report.failures.push(Failure { path: file.path.clone(), error: error.in_file(&file.source) })
            }
        }
        ctx.progress.advanced(file_idx, file.size);
    }
    report.failures.extend(tree.failures);
    report.elapsed = start.elapsed();
    Ok(report)
}

/// What coding one file exactly would give, less the tensors that `leave_out` names.
pub(crate) fn predict_file(
    ctx: &Context<'_>,
    memory: &EncodeMemory,
    encoders: &Checkout<BlockEncoder>,
    file: &SourceFile,
    coding: &CodingSettings,
    leave_out: &dyn Fn(&TensorInfo) -> bool,
) -> Result<Report> {
    let source = Source::open(&file.source, file.size)?;
    let mut regions = source.layout(&file.path, coding.as_bytes, leave_out, &ctx.limits)?.regions;
    if let Some(header) = source.checkpoint_header(&file.path, &ctx.limits) {
        let left_out = header.tensors().iter().filter(|tensor| leave_out(tensor));
        let starts: HashSet<u64> = left_out.map(|tensor| tensor.start).collect();
        regions.retain(|region| !starts.contains(&region.offset));
    }
    let n_blocks: u64 = regions.iter().map(|region| region.n_blocks()).sum();
    let stride = (n_blocks / MIN_SAMPLED).clamp(1, SAMPLING);
    let encode = |span: BlockSpan| -> Result<(Dtype, u64, u64)> {
        let mut encoder = encoders.take(|| BlockEncoder::new(coding.level, ctx.isa));
        let (mut bytes, mut payload) = (memory.buffer(span.len), Vec::new());
        let read = source.read(span.offset, &mut bytes);
        let block = BlockSource { dtype: span.dtype, bytes: &bytes, row_len: span.row_len };
        encoder.encode(block, &mut payload);
        let sizes = (span.dtype, bytes.len() as u64, (payload.len() + RECORD_HEADER_BYTES) as u64);
        encoders.put(encoder);
        memory.give_back(bytes);
        read.map(|()| sizes)
    };
    let mut sampled: BTreeMap<Dtype, Tally> = BTreeMap::new();
    let mut spans = blocks(&regions)
        .enumerate()
        .filter(|(idx, _)| (*idx as u64).is_multiple_of(stride))
        .map(|(_, span)| span);
    loop {
        let batch: Vec<BlockSpan> = spans.by_ref().take(8 * ctx.pool.current_num_threads()).collect();
        if batch.is_empty() {
            break;
        }
        let sizes: Vec<Result<_>> = batch.into_par_iter().map(encode).collect();
        for size in sizes {
            let (dtype, original_bytes, stored_bytes) = size?;
            sampled.entry(dtype).or_default().add_block(dtype, original_bytes, stored_bytes);
        }
    }
    source.check_unchanged()?;
    let mut report = Report { files: 1, original_bytes: file.size, ..Report::default() };
    let mut originals: BTreeMap<Dtype, u64> = BTreeMap::new();
    for region in &regions {
        *originals.entry(region.dtype).or_default() += region.len;
    }
    for (dtype, original_bytes) in originals {
        // A dtype of which no block was in the sample is taken to be stored as it is.
        let stored_share = sampled.get(&dtype).map_or(1.0, |tally| 1.0 / tally.ratio());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
        let stored_bytes = (original_bytes as f64 * stored_share).round() as u64;
        report.add_block(dtype, original_bytes, stored_bytes);
        report.stored_bytes += stored_bytes;
    }
    report.stored_bytes += FRAME_BYTES + n_blocks * ENTRY_BYTES;
    Ok(report)
}
