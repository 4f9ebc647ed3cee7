//! `--dry-run`: what compress would save, from a sample of each file's blocks; nothing is written.
//!
//! The blocks of each dtype are laid end to end, and those at evenly spaced bytes are encoded: a block is drawn by its
//! size, so that the mean of the drawn blocks' shares is the share of all bytes (systematic sampling with probability
//! proportional to size; Hansen and Hurwitz, 1943). Files of up to 32 MiB are encoded whole.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Instant;

use rayon::prelude::*;

use super::context::{Checkout, Context};
use super::dedup::{Duplicate, Planner};
use super::encode::{EncodeMemory, is_small};
use super::near_copies::{self, NearCopies};
use super::report::{Failure, Report};
use super::settings::CodingSettings;
use super::source::Source;
use super::tree::{SourceFile, SourceTree};
use super::verify::duplicate_report;
use crate::checkpoint::{BlockSpan, Region, TensorInfo, blocks};
use crate::container::{OtherFile, RECORD_HEADER_BYTES, Reference};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::stage::{BlockEncoder, BlockSource};

/// One byte in this many is encoded, with the block around it.
const SAMPLING: u64 = 16;
/// But at least this many bytes of each dtype of a file, or all.
const MIN_SAMPLED_BYTES: u64 = 32 << 20;
/// Header, footer and the index around its entries, in bytes (FORMAT.md, 1).
const FRAME_BYTES: u64 = 32 + 24 + 128;
/// One index entry, in bytes.
const ENTRY_BYTES: u64 = 12;

/// Predicts what compressing `paths` would give. The sample depends on the files alone, so that two runs agree.
/// Identical tensors and files count once, if `coding` says that they are stored once.
///
/// # Errors
/// As [`super::compress::compress_tree`], but for the outputs.
pub fn predict(ctx: &Context<'_>, paths: &[PathBuf], coding: &CodingSettings) -> Result<Report> {
    let start = Instant::now();
    let tree = SourceTree::walk(paths)?;
    ctx.progress.begin(tree.total_bytes());
    let mut report = Report::default();
    let (memory, encoders) = (EncodeMemory::default(), Checkout::default());
    let sampler = Sampler { ctx, memory: &memory, encoders: &encoders, coding };
    let planner = Planner {
        ctx,
        memory: &memory,
        files: &tree.files,
        as_bytes: coding.as_bytes,
        whole_files_only: false,
    };
    let plan = ctx.pool.install(|| coding.dedup.then(|| planner.plan())).unwrap_or_default();
    let none = BTreeMap::new();
    for (file_idx, file) in tree.files.iter().enumerate() {
        let duplicates = plan.tensors.get(&file_idx).unwrap_or(&none);
        let predicted = if plan.files.contains_key(&file_idx) {
            Ok(duplicate_report(file.size))
        } else {
            ctx.pool.install(|| sampler.predict_around(file_idx, file, duplicates))
        };
        match predicted {
            Ok(part) => report.absorb(part),
            Err(error) => {
                report.failures.push(Failure { path: file.path.clone(), error: error.in_file(&file.source) })
            }
        }
        ctx.progress.advanced(file_idx, file.size);
    }
    report.failures.extend(tree.failures);
    report.unfinished_files = tree.n_unfinished;
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
    Sampler { ctx, memory, encoders, coding }.predict_regions(&source, &regions, &NearCopies::default())
}

/// What all samples of a run share.
struct Sampler<'a> {
    ctx: &'a Context<'a>,
    memory: &'a EncodeMemory,
    encoders: &'a Checkout<BlockEncoder>,
    coding: &'a CodingSettings,
}

impl Sampler<'_> {
    /// What coding one file would give where `duplicates`, by offset, become references.
    fn predict_around(
        &self,
        file_idx: usize,
        file: &SourceFile,
        duplicates: &BTreeMap<u64, Duplicate>,
    ) -> Result<Report> {
        let source = Source::open(&file.source, file.size)?;
        let layout = source.layout(&file.path, self.coding.as_bytes, &|_| false, &self.ctx.limits)?;
        let is_duplicate = |region: &Region| duplicates.contains_key(&region.offset);
        let (references, regions): (Vec<Region>, Vec<Region>) =
            layout.regions.into_iter().partition(is_duplicate);
        let near_copies = if self.coding.dedup {
            near_copies::find(&source, &regions, &|_| false)
        } else {
            NearCopies::default()
        };
        let mut report = self.predict_regions(&source, &regions, &near_copies)?;
        for region in references {
            let is_here = duplicates.get(&region.offset).is_some_and(|found| found.base.file_idx == file_idx);
            let record_bytes = reference_bytes(is_here) + RECORD_HEADER_BYTES as u64;
            report.add_block(region.dtype, region.len, region.n_blocks() * record_bytes);
            report.stored_bytes += region.n_blocks() * (record_bytes + ENTRY_BYTES);
            report.reference_bytes += region.len;
        }
        Ok(report)
    }

    /// What coding `regions` of a file would give, some blocks of which are near copies.
    fn predict_regions(
        &self,
        source: &Source,
        regions: &[Region],
        near_copies: &NearCopies,
    ) -> Result<Report> {
        let mut report = Report { files: 1, original_bytes: source.len(), ..Report::default() };
        let mut by_dtype: BTreeMap<Dtype, Vec<Region>> = BTreeMap::new();
        for region in regions {
            by_dtype.entry(region.dtype).or_default().push(*region);
        }
        report.stored_bytes = FRAME_BYTES;
        for (dtype, regions) in by_dtype {
            let n_blocks: u64 = regions.iter().map(Region::n_blocks).sum();
            let original_bytes: u64 = regions.iter().map(|region| region.len).sum();
            // No block is stored in more bytes than it has.
            let payload_bytes = self.payload_bytes(source, &regions, near_copies)?.min(original_bytes);
            let record_bytes = payload_bytes + n_blocks * RECORD_HEADER_BYTES as u64;
            report.add_block(dtype, original_bytes, record_bytes);
            report.stored_bytes += record_bytes + n_blocks * ENTRY_BYTES;
        }
        source.check_unchanged()?;
        Ok(report)
    }

    /// The bytes of all payloads of `regions` by a sample of their blocks.
    fn payload_bytes(&self, source: &Source, regions: &[Region], near_copies: &NearCopies) -> Result<u64> {
        let total: u64 = regions.iter().map(|region| region.len).sum();
        let sampled = (total / SAMPLING).max(MIN_SAMPLED_BYTES);
        // Bytes of the block around a byte, on average.
        let mean_block = blocks(regions).map(|span| (span.len as f64).powi(2)).sum::<f64>() / total as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "about that many")]
        let n_points = (sampled as f64 / mean_block).ceil() as u64;
        let stride = if sampled >= total { 1 } else { (total / n_points.max(1)).max(1) };
        // Points in the middle of each stride.
        let n_points_before = |byte: u64| byte.saturating_sub(stride / 2).div_ceil(stride);
        let mut end = 0;
        let mut drawn = blocks(regions).filter_map(|span| {
            let start = end;
            end += span.len as u64;
            let n_hits = n_points_before(end) - n_points_before(start);
            (n_hits > 0).then_some((span, n_hits))
        });
        let (mut n_hits, mut share_sum) = (0, 0.0);
        loop {
            let batch: Vec<(BlockSpan, u64)> =
                drawn.by_ref().take(8 * self.ctx.pool.current_num_threads()).collect();
            if batch.is_empty() {
                break;
            }
            let sizes: Vec<Result<(u64, f64)>> = batch
                .into_par_iter()
                .map(|(span, hits)| Ok((hits, self.share(source, span, near_copies.get(&span.offset))?)))
                .collect();
            for size in sizes {
                let (hits, share) = size?;
                n_hits += hits;
                share_sum += hits as f64 * share;
            }
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
        let payload_bytes = (total as f64 * share_sum / n_hits.max(1) as f64).round() as u64;
        Ok(payload_bytes)
    }

    /// The payload of a block ÷ its bytes, where it may be a near copy of that at an offset.
    fn share(&self, source: &Source, span: BlockSpan, near: Option<&u64>) -> Result<f64> {
        let mut encoder = self.encoders.take(|| BlockEncoder::new(self.coding.level, self.ctx.isa));
        let (mut bytes, mut payload) = (self.memory.buffer(span.len), Vec::new());
        let mut read = source.read(span.offset, &mut bytes);
        let block = BlockSource {
            dtype: span.dtype,
            bytes: &bytes,
            row_len: span.row_len,
            row_start: span.row_start,
        };
        match near {
            Some(&offset) => {
                let mut base = self.memory.buffer(span.len);
                read = read.and_then(|()| source.read(offset, &mut base));
                encoder.encode_near(block, (offset, &base), 0, &mut payload, &mut |_| {});
                self.memory.give_back(base);
            }
            None if is_small(self.coding.level, source.len()) => {
                encoder.encode_small(block, 0, &mut payload, &mut |_| {});
            }
            None => {
                encoder.encode(block, &mut payload);
            }
        }
        let share = payload.len() as f64 / span.len.max(1) as f64;
        self.encoders.put(encoder);
        self.memory.give_back(bytes);
        read.map(|()| share)
    }
}

/// Payload of a reference to the same file, or to another.
fn reference_bytes(is_same_file: bool) -> u64 {
    let reference = if is_same_file {
        Reference::SameFile { original_offset: 0 }
    } else {
        Reference::OtherFile(OtherFile { content_hash: [0; 32], original_offset: 0 })
    };
    reference.to_payload().len() as u64
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::pipeline::compress::compress_tree;
    use crate::pipeline::settings::CompressOptions;

    /// `n_elements` F32 of a few exponents if `is_weights`, else noise.
    fn tensor(seed: u64, n_elements: usize, is_weights: bool) -> Vec<u8> {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        let mut bytes = Vec::with_capacity(4 * n_elements);
        for _ in 0..n_elements {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let noise = u32::try_from(state >> 32).unwrap();
            let weight = noise & 0x807f_ffff | (118 + (noise >> 23 & 0xff).count_ones()) << 23;
            bytes.extend(if is_weights { weight } else { noise }.to_le_bytes());
        }
        bytes
    }

    fn write(path: &Path, tensors: &[(&str, Vec<u8>)]) {
        let mut json = String::from("{");
        let mut start = 0;
        for (idx, (dtype, bytes)) in tensors.iter().enumerate() {
            let comma = if idx > 0 { "," } else { "" };
            let (end, width) = (start + bytes.len(), if *dtype == "U8" { 1 } else { 4 });
            let shape = bytes.len() / width;
            json += &format!(
                r#"{comma}"t{idx}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{start},{end}]}}"#
            );
            start = end;
        }
        json.push('}');
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(json.as_bytes());
        tensors.iter().for_each(|(_, bytes)| file.extend_from_slice(bytes));
        fs::write(path, file).unwrap();
    }

    /// Few large tensors between many small ones of another kind; a dtype of one block; duplicates.
    #[test]
    fn predictions_are_near_what_compressing_gives() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let ctx = Context::new(&pool);
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("m");
        fs::create_dir(&source).unwrap();
        let mut tensors: Vec<(&str, Vec<u8>)> = Vec::new();
        for seed in 0..150 {
            tensors.push(("F32", tensor(seed, 17_000, false)));
            if seed % 50 == 0 {
                tensors.push(("F32", tensor(seed, 4 << 20, true)));
            }
        }
        tensors.push(("U8", vec![7; 3000]));
        tensors.push(("F32", tensor(0, 4 << 20, true)));
        write(&source.join("a.safetensors"), &tensors);
        write(&source.join("b.safetensors"), &tensors[..20]);
        fs::copy(source.join("b.safetensors"), source.join("c.safetensors")).unwrap();
        let options = CompressOptions::default();
        let predicted = predict(&ctx, std::slice::from_ref(&source), &options.coding).unwrap();
        let out = dir.path().join("out");
        let made = compress_tree(&ctx, std::slice::from_ref(&source), &out, &options).unwrap();
        assert_eq!(predicted.original_bytes, made.original_bytes);
        assert_eq!(predicted.duplicate_files, made.duplicate_files);
        assert_eq!(predicted.reference_bytes, made.reference_bytes);
        for (dtype, made) in &made.dtypes {
            let predicted = predicted.dtypes[dtype];
            assert_eq!((predicted.original_bytes, predicted.elements), (made.original_bytes, made.elements));
        }
        let ratio = predicted.stored_bytes as f64 / made.stored_bytes as f64;
        assert!((0.97..1.03).contains(&ratio), "{ratio}");
        // A file of a few MiB is no sample.
        let small = dir.path().join("s.safetensors");
        write(&small, &[tensors[0].clone(), ("U8", vec![7; 3000])]);
        let predicted = predict(&ctx, std::slice::from_ref(&small), &options.coding).unwrap();
        let made = compress_tree(&ctx, &[small], &dir.path().join("out2"), &options).unwrap();
        assert_eq!(predicted.stored_bytes, made.stored_bytes);
    }
}
