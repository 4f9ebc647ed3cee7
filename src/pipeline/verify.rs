//! Archives decoded in memory: every checksum and content hash checked, nothing written.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;

use super::bases::{ArchivePaths, MappedBases, archive_paths, find_archive_paths};
use super::compress::SMALL_FILE_BYTES;
use super::context::Context;
use super::decode::{
    DecodeMemory, DecodeSettings, DecodedFile, FileDecoder, Job, Records, Sink, check_hashes,
};
use super::layer_choice::LayerChoice;
use super::manifest::{FileEntry, Manifest};
use super::report::{Failure, Report};
use crate::container::{Archive, ContentHash};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::MappedFile;

/// A decoded and checked archive.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) content_hash: ContentHash,
    pub(crate) report: Report,
}

/// Decodes the layer `choice` of the archive at `path` into `sink`, checks its hashes, and with `entry` that the archive
/// is the file of a manifest. Where the sink is nothing, coarser layers are decoded and checked too.
#[expect(clippy::too_many_arguments, reason = "an archive, what is known of it, and where it goes")]
pub(crate) fn decode_archive_file(
    ctx: &Context<'_>,
    memory: &DecodeMemory,
    path: &Path,
    paths: &ArchivePaths,
    entry: Option<&FileEntry>,
    choice: LayerChoice,
    sink: Sink<'_>,
    settings: DecodeSettings,
) -> Result<Checked> {
    let mapped = MappedFile::open(path)?;
    let archive = Archive::open(mapped.bytes(), &ctx.limits)?;
    if let Some(entry) = entry {
        check_entry(&archive, entry)?;
    }
    let archive = choice.of(&archive)?;
    if matches!(sink, Sink::Nothing) {
        let quiet = Context { progress: &super::progress::NoProgress, ..ctx.clone() };
        for number in 1..archive.n_layers() {
            if let Some(layer) = archive.layer(number) {
                decode_layer(&quiet, memory, paths, layer, Sink::Nothing, settings.clone())?;
            }
        }
    }
    decode_layer(ctx, memory, paths, archive, sink, settings)
}

fn decode_layer(
    ctx: &Context<'_>,
    memory: &DecodeMemory,
    paths: &ArchivePaths,
    archive: &Archive<'_>,
    sink: Sink<'_>,
    settings: DecodeSettings,
) -> Result<Checked> {
    let bases = MappedBases::open(archive, paths)?;
    let archives = bases.archives(&ctx.limits)?;
    let resolver = archives.resolver();
    let records = Records::Archive(archive, &resolver);
    let sha256 = settings.sha256 && archive.sha256().is_some();
    let settings = DecodeSettings { range: 0..archive.original_bytes(), sha256, ..settings };
    let mut entries = archive.blocks();
    let mut next_job = || Ok(entries.next().map(|entry| Job { entry, owned: None }));
    let decoded: DecodedFile = FileDecoder::new(ctx, memory, records, settings).run(&mut next_job, sink)?;
    check_hashes(&decoded, archive.content_hash(), archive.sha256())?;
    let mut report = decoded.report;
    report.files = 1;
    report.original_bytes = archive.original_bytes();
    report.stored_bytes = archive.archive_bytes();
    Ok(Checked { content_hash: *archive.content_hash(), report })
}

fn check_entry(archive: &Archive<'_>, entry: &FileEntry) -> Result<()> {
    let agrees = archive.archive_bytes() == entry.archive_size
        && archive.original_bytes() == entry.size
        && *archive.content_hash() == entry.blake3.0
        && archive.sha256().copied() == entry.sha256.map(|digest| digest.0);
    if agrees {
        return Ok(());
    }
    Err(Error::new(ErrorKind::ChecksumMismatch, "archive is not the one that the manifest lists"))
}

/// Settings for a whole file.
pub(crate) fn whole_file(file_idx: usize, serial: bool, sha256: bool) -> DecodeSettings {
    DecodeSettings { range: 0..u64::MAX, hash: true, sha256, file_idx, serial }
}

/// Decodes the archive at `path`, which has no manifest, in memory and checks it.
pub(crate) fn verify_archive_file(
    ctx: &Context<'_>,
    memory: &DecodeMemory,
    path: &Path,
    paths: &ArchivePaths,
    serial: bool,
) -> Result<Checked> {
    // The progress of a compress run counts original bytes once, when they are coded.
    let quiet = Context { progress: &super::progress::NoProgress, ..ctx.clone() };
    let finest = LayerChoice::Finest;
    decode_archive_file(
        &quiet,
        memory,
        path,
        paths,
        None,
        finest,
        Sink::Nothing,
        whole_file(0, serial, false),
    )
}

/// An archive of a run that reads: where it is, and what a manifest says of it.
#[derive(Debug)]
pub(crate) struct ArchiveItem {
    /// Path for people.
    pub(crate) label: String,
    pub(crate) path: PathBuf,
    pub(crate) entry: Option<FileEntry>,
    /// Size of the original as far as it is known beforehand, in bytes.
    pub(crate) size: u64,
}

/// Calls `work` for each of `items`, the small ones in parallel and the others in order, and gathers reports and
/// failures.
pub(crate) fn for_each_archive(
    ctx: &Context<'_>,
    items: &[ArchiveItem],
    work: impl Fn(usize, &ArchiveItem, bool) -> Result<Report> + Sync,
) -> Report {
    ctx.progress.begin(items.iter().map(|item| item.size).fold(0, u64::saturating_add));
    let one = |item_idx: usize, serial: bool| {
        let item = &items[item_idx];
        ctx.progress.file_started(item_idx, &item.label, item.size);
        let result = work(item_idx, item, serial);
        ctx.progress.file_finished(item_idx);
        (item_idx, result)
    };
    let mut results = ctx.pool.install(|| {
        let (small, large): (Vec<usize>, Vec<usize>) =
            (0..items.len()).partition(|item_idx| items[*item_idx].size < SMALL_FILE_BYTES);
        let mut results: Vec<_> =
            small.into_par_iter().with_max_len(1).map(|item_idx| one(item_idx, true)).collect();
        results.extend(large.into_iter().map(|item_idx| one(item_idx, false)));
        results
    });
    results.sort_by_key(|(item_idx, _)| *item_idx);
    let mut report = Report::default();
    for (item_idx, result) in results {
        match result {
            Ok(part) => report.absorb(part),
            Err(error) => {
                let item = &items[item_idx];
                report.failures.push(Failure { path: item.label.clone(), error: error.in_file(&item.path) });
            }
        }
    }
    report
}

/// Checks the archives and the directories with a manifest that `paths` are.
///
/// Differences, unreadable archives and paths that cannot be read at all are in [`Report::failures`].
pub fn verify(ctx: &Context<'_>, paths: &[PathBuf]) -> Report {
    let start = Instant::now();
    let mut report = Report::default();
    let memory = DecodeMemory::default();
    for path in paths {
        let (items, bases, missing_files) = match list_archives(ctx, path) {
            Ok(listed) => listed,
            Err(error) => {
                report
                    .failures
                    .push(Failure { path: path.display().to_string(), error: error.in_file(path) });
                continue;
            }
        };
        report.missing_files += missing_files;
        report.absorb(for_each_archive(ctx, &items, |item_idx, item, serial| {
            let found;
            let bases = match &bases {
                Some(bases) => bases,
                None => {
                    found = find_archive_paths(&item.path, &ctx.limits);
                    &found
                }
            };
            if item.entry.as_ref().is_some_and(|entry| entry.same_as.is_some()) {
                // Its base is another item of this run, and the manifest has checked that they agree.
                ctx.progress.advanced(item_idx, item.size);
                return Ok(duplicate_report(item.size));
            }
            let settings = whole_file(item_idx, serial, true);
            let entry = item.entry.as_ref();
            let finest = LayerChoice::Finest;
            let (path, sink) = (&item.path, Sink::Nothing);
            Ok(decode_archive_file(ctx, &memory, path, bases, entry, finest, sink, settings)?.report)
        }));
    }
    report.timings.add(&memory.into_timings());
    report.elapsed = start.elapsed();
    report
}

/// The report of a file whose archive serves another too.
pub(crate) fn duplicate_report(size: u64) -> Report {
    Report { files: 1, duplicate_files: 1, original_bytes: size, ..Report::default() }
}

/// The archives that `path` stands for; for a directory with a manifest also where each hash is found, and how
/// many entries are in no archive.
fn list_archives(ctx: &Context<'_>, path: &Path) -> Result<(Vec<ArchiveItem>, Option<ArchivePaths>, u64)> {
    if path.is_dir() {
        let manifest = Manifest::read(path, &ctx.limits)?;
        let bases = archive_paths(path, &manifest);
        let missing_files = manifest.failed.len() as u64;
        return Ok((manifest_items(path, manifest), Some(bases), missing_files));
    }
    Ok((vec![single_item(ctx, path)?], None, 0))
}

/// The files of `manifest`, which stands in `dir`.
pub(crate) fn manifest_items(dir: &Path, manifest: Manifest) -> Vec<ArchiveItem> {
    let item = |entry: FileEntry| ArchiveItem {
        label: entry.path.clone(),
        path: dir.join(&entry.archive),
        size: entry.size,
        entry: Some(entry),
    };
    manifest.files.into_iter().map(item).collect()
}

/// An archive without a manifest.
pub(crate) fn single_item(ctx: &Context<'_>, path: &Path) -> Result<ArchiveItem> {
    let mapped = MappedFile::open(path)?;
    // What is wrong with the archive is reported at its turn.
    let size = Archive::open(mapped.bytes(), &ctx.limits).map_or(0, |archive| archive.original_bytes());
    Ok(ArchiveItem { label: path.display().to_string(), path: path.to_owned(), entry: None, size })
}
