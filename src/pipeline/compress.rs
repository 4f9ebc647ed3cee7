//! Files and directory trees to archives and a manifest.
//!
//! Files are coded one after the other, the blocks of each in parallel; files below 1 MiB are coded in
//! parallel with each other. What fails is reported and does not stop the rest.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rayon::prelude::*;

use super::changes::{Changes, FileChanges, encode_layers, with_flags};
use super::context::Context;
use super::decode::DecodeMemory;
use super::dedup::{DedupPlan, Planner};
use super::digest::Digest;
use super::durable::DurableFile;
use super::encode::{EncodeMemory, EncodeSettings, Encoded, FileEncoder, Job, is_small};
use super::links::{Links, Target, find_targets};
use super::lossy::{LayeredPlans, LayersPlanner, LossyPlanner, Plans, series_after, stay_equal};
use super::manifest::{DirEntry, FailedEntry, FileEntry, LinkEntry, MANIFEST_NAME, Manifest};
use super::near_copies::{self, NearCopies};
use super::note::encoder_note;
use super::outputs::{
    archive_names, refuse_overlap, refuse_tree_overlap, remove_leftovers, remove_leftovers_beside,
};
use super::paths::{OutputDir, check_free};
use super::report::{Failure, LossSummary, Report};
use super::resume::{self, Expected};
use super::settings::{AsBytes, CompressOptions};
use super::source::{Layout, Source};
use super::timings::Step;
use super::tree::{SourceFile, SourceTree};
use super::verify::verify_archive_file;
use crate::checkpoint::{BlockSpan, TensorInfo, blocks};
use crate::container::{FLAG_LAYER, FLAG_LOSSY, FLAG_REFERENCES, LossTable, Reference};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::AtomicFile;

/// Files below this size are coded in parallel with each other, in bytes.
pub(crate) const SMALL_FILE_BYTES: u64 = 1 << 20;

/// A file that is done.
#[derive(Debug)]
struct Done {
    encoded: Encoded,
    same_as: Option<usize>,
}

/// One run of compress.
struct Run<'a> {
    ctx: &'a Context<'a>,
    options: CompressOptions,
    files: &'a [SourceFile],
    /// Where each archive goes; for a file of the tree known only once its directory is made.
    archives: Vec<OnceLock<PathBuf>>,
    done: Vec<OnceLock<Done>>,
    plan: DedupPlan,
    /// Of checkpoints that may change; their error, where planning failed.
    lossy: Plans,
    /// Of checkpoints that become layers.
    layered: LayeredPlans,
    encode_memory: EncodeMemory,
    decode_memory: DecodeMemory,
}

/// Compresses the files and trees `paths` into the directory `output`, with a manifest.
///
/// Files that fail are in [`Report::failures`] and in the manifest; the others are complete.
///
/// # Errors
/// Where nothing can be done at all: [`ErrorKind::InvalidConfig`] for paths that contradict each other or the
/// output, [`ErrorKind::InvalidInput`] for outputs that exist, [`ErrorKind::Io`].
pub fn compress_tree(
    ctx: &Context<'_>,
    paths: &[PathBuf],
    output: &Path,
    options: &CompressOptions,
) -> Result<Report> {
    let start = Instant::now();
    let mut tree = SourceTree::walk(paths)?;
    refuse_tree_overlap(paths, &tree, output)?;
    let names = archive_names(&tree)?;
    let replace = options.replaces();
    for name in names.iter().map(String::as_str).chain([MANIFEST_NAME]) {
        check_free(&output.join(name), replace)?;
    }
    let out = OutputDir::create(output)?;
    remove_leftovers(&out, names.iter().map(String::as_str));
    let walked = std::mem::take(&mut tree.failures);
    let mut run = Run::new(ctx, options.clone(), &tree.files);
    ctx.progress.begin(tree.total_bytes());
    let mut failures = ctx.pool.install(|| {
        run.plan_dedup();
        run.plan_lossy()?;
        Ok::<_, Error>(run.encode_all(|idx| out.place_file(&names[idx], replace)))
    })?;
    failures.extend(walked);
    failures.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    let manifest = run.manifest(&tree, &names, &failures);
    write_manifest(&out, &manifest.to_text()?, options)?;
    if options.remove_source {
        tree.remove_files(&mut failures);
    }
    let mut report = run.into_report();
    report.failures = failures;
    report.unfinished_files = tree.n_unfinished;
    report.elapsed = start.elapsed();
    Ok(report)
}

/// Compresses the file `path` into the archive `output`, without a manifest.
///
/// # Errors
/// As [`compress_tree`], and the file's own.
pub fn compress_file(
    ctx: &Context<'_>,
    path: &Path,
    output: &Path,
    options: &CompressOptions,
) -> Result<Report> {
    let start = Instant::now();
    refuse_overlap(&[path.to_owned()], output)?;
    check_free(output, options.replaces())?;
    remove_leftovers_beside(output);
    let mut tree = SourceTree::walk(&[path.to_owned()])?;
    let mut run = Run::new(ctx, options.clone(), &tree.files);
    ctx.progress.begin(tree.total_bytes());
    let mut failures = ctx.pool.install(|| {
        run.plan_dedup();
        run.plan_lossy()?;
        Ok::<_, Error>(run.encode_all(|_| Ok(output.to_owned())))
    })?;
    failures.append(&mut tree.failures);
    if options.remove_source {
        tree.remove_files(&mut failures);
    }
    let mut report = run.into_report();
    report.failures = failures;
    report.elapsed = start.elapsed();
    Ok(report)
}

impl<'a> Run<'a> {
    fn new(ctx: &'a Context<'a>, options: CompressOptions, files: &'a [SourceFile]) -> Self {
        Self {
            ctx,
            options: CompressOptions { verify: options.verify || options.remove_source, ..options },
            files,
            archives: files.iter().map(|_| OnceLock::new()).collect(),
            done: files.iter().map(|_| OnceLock::new()).collect(),
            plan: DedupPlan::default(),
            lossy: Plans::new(),
            layered: LayeredPlans::new(),
            encode_memory: EncodeMemory::default(),
            decode_memory: DecodeMemory::default(),
        }
    }

    fn open(&self, file_idx: usize) -> Result<Source> {
        let file = &self.files[file_idx];
        Source::open(&file.source, file.size)
    }

    fn layout(&self, source: &Source, file_idx: usize, plan: Option<FileChanges<'_>>) -> Result<Layout> {
        let as_bytes = self.options.coding.as_bytes;
        let stands_alone = |tensor: &TensorInfo| match plan {
            None => false,
            Some(FileChanges::Lossy(plan)) => plan.quantizes(tensor),
            Some(FileChanges::Layers(plan)) => plan.splits(tensor),
        };
        source.layout(&self.files[file_idx].path, as_bytes, &stands_alone, &self.ctx.limits)
    }

    fn plan_lossy(&mut self) -> Result<()> {
        if let Some(settings) = &self.options.lossy {
            let Self { ctx, files, encode_memory: memory, .. } = self;
            let coding = &self.options.coding;
            if !settings.layers.is_empty() {
                if coding.as_bytes != AsBytes::All {
                    self.layered = LayersPlanner { ctx, memory, files, settings }.plan()?;
                }
                return Ok(());
            }
            self.lossy = LossyPlanner { ctx, memory, files, coding, settings, dedup: &self.plan }.plan()?;
            self.encode_memory.kept.seal();
            let plans = &self.lossy;
            self.plan.retain(|duplicate| stay_equal(plans, duplicate.place, duplicate.base));
        }
        Ok(())
    }

    /// The plan of a file that may change.
    fn changes(&self, file_idx: usize) -> Result<Option<FileChanges<'_>>> {
        let lossy = self.lossy.get(&file_idx).map(|plan| plan.as_ref().map(FileChanges::Lossy));
        let layered = self.layered.get(&file_idx).map(|plan| plan.as_ref().map(FileChanges::Layers));
        lossy
            .or(layered)
            .transpose()
            .map_err(|error| Error::new(error.kind(), format!("cannot plan the file: {error}")))
    }

    fn plan_dedup(&mut self) {
        let Self { ctx, files, encode_memory: memory, .. } = self;
        if self.options.coding.dedup {
            let as_bytes = self.options.coding.as_bytes;
            // Blocks of layers refer to none.
            let whole_files_only = self.options.lossy.as_ref().is_some_and(|lossy| !lossy.layers.is_empty());
            self.plan = Planner { ctx, memory, files, as_bytes, whole_files_only }.plan();
        }
    }

    /// Codes all files and gives those that failed.
    fn encode_all(&self, place: impl Fn(usize) -> Result<PathBuf> + Sync) -> Vec<Failure> {
        let is_small =
            |idx: &usize| self.files[*idx].size < SMALL_FILE_BYTES && !self.plan.linked.contains(idx);
        let (small, large): (Vec<usize>, Vec<usize>) = (0..self.files.len()).partition(is_small);
        let encode = |file_idx: usize, serial: bool| {
            let file = &self.files[file_idx];
            self.ctx.progress.file_started(file_idx, &file.path, file.size);
            let result = place(file_idx).and_then(|path| self.encode_one(file_idx, path, serial));
            self.ctx.progress.file_finished(file_idx);
            match result {
                Ok(done) => {
                    // Each file has one turn, so its place is empty.
                    let _ = self.done[file_idx].set(done);
                    None
                }
                Err(error) => Some(Failure { path: file.path.clone(), error: error.in_file(&file.source) }),
            }
        };
        let mut failures: Vec<Failure> =
            small.into_par_iter().with_max_len(1).filter_map(|file_idx| encode(file_idx, true)).collect();
        failures.extend(large.into_iter().filter_map(|file_idx| encode(file_idx, false)));
        failures
    }

    fn encode_one(&self, file_idx: usize, path: PathBuf, serial: bool) -> Result<Done> {
        if let Some(done) = self.same_file(file_idx) {
            return Ok(done);
        }
        let source = self.open(file_idx)?;
        self.encode_memory.kept.retain(file_idx, source.identity());
        let changes = self.changes(file_idx)?;
        changes.map_or(Ok(()), |changes| changes.check_source(&source))?;
        let layout = self.layout(&source, file_idx, changes)?;
        let links = self.links(file_idx, &source, &layout, changes.is_some())?;
        let settings = EncodeSettings {
            level: self.options.coding.level,
            note: encoder_note(self.options.coding.level, layout.as_bytes),
            flags: if links.is_empty() { 0 } else { FLAG_REFERENCES },
            is_small: is_small(self.options.coding.level, source.len()),
            sha256: self.options.coding.sha256,
            file_idx,
            serial,
        };
        if self.options.resume {
            let (settings, lossy_digest) = match changes {
                None => (settings, None),
                Some(FileChanges::Lossy(plan)) => (with_flags(settings, FLAG_LOSSY), Some(plan.digest())),
                Some(FileChanges::Layers(plan)) => {
                    let is_lossy = plan.is_lossy(plan.n_layers() - 1);
                    let flags = FLAG_LAYER | if is_lossy { FLAG_LOSSY } else { 0 };
                    (with_flags(settings, flags), is_lossy.then(|| plan.digest()))
                }
            };
            let layers = match changes {
                Some(FileChanges::Layers(plan)) => Some(plan),
                _ => None,
            };
            let expected = Expected { settings, links: &links, lossy_digest, layers };
            if let Some(mut encoded) =
                resume::reusable(self.ctx, &self.encode_memory, &path, &source, &expected)
            {
                encoded.report.loss = self.loss_summary(changes, &layout, encoded.loss.as_ref());
                self.ctx.progress.advanced(file_idx, source.len());
                let _ = self.archives[file_idx].set(path);
                return Ok(Done { encoded, same_as: None });
            }
        }
        let mode = self.files[file_idx].mode;
        let mut output =
            DurableFile::create(&path, self.options.replaces(), mode, self.options.durability())?;
        let mut encoded = self.write_archive(&mut output, &source, &layout, &links, settings, changes)?;
        encoded.report.timings.time(Step::Sync, || output.commit())?;
        encoded.report.files = 1;
        encoded.report.loss = self.loss_summary(changes, &layout, encoded.loss.as_ref());
        let _ = self.archives[file_idx].set(path);
        Ok(Done { encoded, same_as: None })
    }

    /// What a lossy run has done to the tensors of a file.
    fn loss_summary(
        &self,
        changes: Option<FileChanges<'_>>,
        layout: &Layout,
        loss: Option<&LossTable>,
    ) -> Option<LossSummary> {
        let goal = self.options.lossy.as_ref()?.final_goal()?;
        let tensors = match (changes, loss) {
            (Some(changes), Some(loss)) => changes.summary(loss, layout.n_tensors),
            _ => LossSummary { exact_by_rule: layout.n_tensors, ..LossSummary::default() },
        };
        Some(LossSummary { goal: Some(goal), ..tensors })
    }

    fn write_archive(
        &self,
        output: &mut DurableFile,
        source: &Source,
        layout: &Layout,
        links: &Links,
        settings: EncodeSettings,
        changes: Option<FileChanges<'_>>,
    ) -> Result<Encoded> {
        let path = output.atomic().destination().to_owned();
        let mut encode = |changes: Option<Changes<'_>>, settings: EncodeSettings| {
            let mut spans = blocks(&layout.regions);
            let mut next_job = || {
                let job = |span: BlockSpan| {
                    let reference = links.targets.get(&span.offset).copied();
                    let near = links.near_copies.get(&span.offset).copied();
                    Job { span, reference, near, bytes: None }
                };
                Ok(spans.next().map(job))
            };
            let encoder = FileEncoder::new(self.ctx, &self.encode_memory, settings).with_changes(changes);
            let fetch = |span: &BlockSpan, dst: &mut [u8]| source.read(span.offset, dst);
            // Errors of reading have named the source already.
            let at_output = |e: Error| if e.kind() == ErrorKind::Io { e.in_file(&path) } else { e };
            encoder.run(&mut next_job, &fetch, output).map_err(at_output)
        };
        let encoded = match changes {
            None => encode(None, settings)?,
            Some(FileChanges::Lossy(plan)) => {
                encode(Some(Changes::Lossy(plan)), with_flags(settings, FLAG_LOSSY))?
            }
            Some(FileChanges::Layers(plan)) => encode_layers(plan, settings, &mut encode)?,
        };
        output.trim()?;
        source.check_unchanged()?;
        if self.options.verify {
            let recorded = self.recorded_archives(&links.targets);
            let verified = verify_archive_file(
                self.ctx,
                &self.decode_memory,
                output.atomic().partial_path(),
                &recorded,
                settings.serial,
            )?;
            if verified.content_hash != encoded.content_hash {
                return Err(Error::new(ErrorKind::Internal, "archive decodes to other bytes than were read"));
            }
        }
        Ok(encoded)
    }

    /// The files whose archives `targets` name, by hash.
    fn recorded_archives(&self, targets: &HashMap<u64, Target>) -> HashMap<[u8; 32], PathBuf> {
        let wanted: HashSet<[u8; 32]> = targets
            .values()
            .filter_map(|target| match target.reference {
                Reference::OtherFile(other) => Some(other.content_hash),
                Reference::SameFile { .. } => None,
            })
            .collect();
        self.done
            .iter()
            .zip(&self.archives)
            .filter_map(|(done, archive)| Some((done.get()?.encoded.content_hash, archive.get()?.clone())))
            .filter(|(hash, _)| wanted.contains(hash))
            .collect()
    }

    /// The whole file as the same as an earlier one, if that still holds what both held.
    fn same_file(&self, file_idx: usize) -> Option<Done> {
        let (base_idx, hash) = self.plan.files.get(&file_idx)?;
        let base = &self.done.get(*base_idx)?.get()?.encoded;
        self.open(file_idx).ok()?.check_unchanged().ok()?;
        let file = &self.files[file_idx];
        (base.source_hash() == hash && base.original_bytes == file.size).then(|| {
            let report =
                Report { files: 1, duplicate_files: 1, original_bytes: file.size, ..Report::default() };
            self.ctx.progress.advanced(file_idx, file.size);
            Done {
                encoded: Encoded {
                    content_hash: base.content_hash,
                    loss: base.loss.clone(),
                    sha256: base.sha256,
                    archive_bytes: base.archive_bytes,
                    original_bytes: base.original_bytes,
                    report,
                },
                same_as: Some(*base_idx),
            }
        })
    }

    /// What the blocks of a file have in common with others. Tensors that may change are no differences of others.
    fn links(&self, file_idx: usize, source: &Source, layout: &Layout, may_change: bool) -> Result<Links> {
        let base = |base_idx: usize| {
            let content_hash = self.done.get(base_idx)?.get()?.encoded.content_hash;
            Some((content_hash, self.archives.get(base_idx)?.get()?.as_path()))
        };
        let duplicates = self.plan.tensors.get(&file_idx);
        let targets = duplicates.map_or(Ok(HashMap::new()), |duplicates| {
            find_targets(file_idx, duplicates, layout, &base, &self.ctx.limits)
        })?;
        let near_copies = if may_change || !self.options.coding.dedup {
            NearCopies::default()
        } else {
            near_copies::find(source, &layout.regions, &|region| targets.contains_key(&region.offset))
        };
        Ok(Links { targets, near_copies })
    }

    fn manifest(&self, tree: &SourceTree, names: &[String], failures: &[Failure]) -> Manifest {
        let files = tree.files.iter().enumerate().filter_map(|(file_idx, file)| {
            let done = self.done[file_idx].get()?;
            Some(FileEntry {
                path: file.path.clone(),
                size: file.size,
                mode: file.mode,
                mtime: file.mtime,
                blake3: Digest(done.encoded.content_hash),
                source_blake3: done.encoded.loss.as_ref().map(|loss| Digest(loss.source_hash)),
                sha256: done.encoded.sha256.map(Digest),
                archive: names[done.same_as.unwrap_or(file_idx)].clone(),
                archive_size: done.encoded.archive_bytes,
                same_as: done.same_as.map(|base_idx| tree.files[base_idx].path.clone()),
            })
        });
        let failed = failures.iter().map(|failure| FailedEntry {
            path: failure.path.clone(),
            kind: failure.error.kind().as_str().to_owned(),
            message: failure.error.to_string(),
        });
        let dirs =
            tree.dirs.iter().map(|dir| DirEntry { path: dir.path.clone(), mode: dir.mode, mtime: dir.mtime });
        let links =
            tree.links.iter().map(|link| LinkEntry { path: link.path.clone(), target: link.target.clone() });
        Manifest {
            tool: concat!("alcm ", env!("CARGO_PKG_VERSION")).to_owned(),
            files: files.collect(),
            dirs: dirs.collect(),
            links: links.collect(),
            failed: failed.collect(),
            pruning: self.options.lossy.as_ref().and_then(|settings| series_after(settings, &self.lossy)),
        }
    }

    fn into_report(self) -> Report {
        let mut report = Report::default();
        for done in self.done.into_iter().filter_map(OnceLock::into_inner) {
            report.absorb(done.encoded.report);
        }
        report.rate_steps = self.encode_memory.n_rate_steps.load(Ordering::Relaxed);
        report.timings.add(&self.encode_memory.into_timings());
        report.timings.add(&self.decode_memory.into_timings());
        report
    }
}

fn write_manifest(out: &OutputDir, text: &str, options: &CompressOptions) -> Result<()> {
    let path = out.place_file(MANIFEST_NAME, options.replaces())?;
    let mut file = AtomicFile::create(&path, options.replaces())?;
    std::io::Write::write_all(&mut file, text.as_bytes())
        .map_err(|e| Error::io("cannot write the manifest", e).in_file(&path))?;
    file.commit(options.durability())
}
