//! Archives and manifests to the files and trees that they were made from.

use std::collections::HashSet;
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::bases::{ArchivePaths, archive_paths, find_archive_paths};
use super::context::Context;
use super::decode::{DecodeMemory, Sink};
use super::durable::DurableFile;
use super::layer_choice::LayerChoice;
use super::manifest::{DirEntry, LinkEntry, MANIFEST_NAME, Manifest};
use super::outputs::{ARCHIVE_SUFFIX, refuse_same_file, remove_leftovers, remove_leftovers_beside, resolve};
use super::paths::{OutputDir, check_free};
use super::report::{Failure, Report};
use super::timings::Step;
use super::tree::{Mtime, mode_of, system_time};
use super::verify::{
    ArchiveItem, decode_archive_file, for_each_archive, manifest_items, single_item, whole_file,
};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Durability;

/// What a run of decompress does with its outputs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DecompressOptions {
    /// Replace files that exist.
    pub force: bool,
    /// Sync each file to the disk before it gets its name.
    pub sync: bool,
    /// Which layer of layered archives is restored.
    pub layer: LayerChoice,
}

/// Restores the tree of the manifest in `source` below the directory `output`.
///
/// Files that fail are in [`Report::failures`]; the others are complete.
///
/// # Errors
/// The manifest's own, and where nothing can be done at all: [`ErrorKind::InvalidInput`] for outputs that
/// exist, [`ErrorKind::Io`].
pub fn decompress_tree(
    ctx: &Context<'_>,
    source: &Path,
    output: &Path,
    options: DecompressOptions,
) -> Result<Report> {
    let start = Instant::now();
    let mut manifest = Manifest::read(source, &ctx.limits)?;
    refuse_archives_as_outputs(source, &manifest, output)?;
    for file in &manifest.files {
        check_free(&output.join(&file.path), options.force)?;
    }
    for link in &manifest.links {
        check_link_place(&output.join(&link.path), options.force)?;
    }
    let out = OutputDir::create(output)?;
    let bases = archive_paths(source, &manifest);
    let (dirs, links) = (std::mem::take(&mut manifest.dirs), std::mem::take(&mut manifest.links));
    let missing_files = manifest.failed.len() as u64;
    let items = manifest_items(source, manifest);
    let mut failures = create_dirs(&out, &dirs);
    remove_leftovers(&out, items.iter().map(|item| item.label.as_str()));
    let restorer = Restorer { ctx, memory: DecodeMemory::default(), options, bases };
    let mut report = for_each_archive(ctx, &items, |item_idx, item, serial| {
        let place = item.entry.as_ref().map_or(&item.label, |entry| &entry.path);
        let path = out.place_file(place, options.force)?;
        restorer.restore(item_idx, item, &path, serial)
    });
    failures.extend(create_links(&out, &links, options.force));
    // Last, because creating an entry changes its directory's time, and a read-only one takes none.
    failures.extend(finish_dirs(&out, &dirs));
    report.failures.extend(failures);
    report.missing_files = missing_files;
    report.timings.add(&restorer.memory.into_timings());
    report.elapsed = start.elapsed();
    Ok(report)
}

/// Restores the file of the archive `source` to the file `output`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] where `output` exists; [`ErrorKind::Io`] where `source` cannot be read. What is
/// wrong within the archive is in [`Report::failures`].
pub fn decompress_file(
    ctx: &Context<'_>,
    source: &Path,
    output: &Path,
    options: DecompressOptions,
) -> Result<Report> {
    let start = Instant::now();
    refuse_same_file(source, output)?;
    check_free(output, options.force)?;
    remove_leftovers_beside(output);
    let items = [single_item(ctx, source)?];
    let bases = find_archive_paths(source, &ctx.limits);
    let restorer = Restorer { ctx, memory: DecodeMemory::default(), options, bases };
    let mut report = for_each_archive(ctx, &items, |item_idx, item, serial| {
        restorer.restore(item_idx, item, output, serial)
    });
    report.timings.add(&restorer.memory.into_timings());
    report.elapsed = start.elapsed();
    Ok(report)
}

/// Refuses to restore the files of `manifest`, which stands in `source`, over the archives that they come from.
fn refuse_archives_as_outputs(source: &Path, manifest: &Manifest, output: &Path) -> Result<()> {
    let (Some(from), Some(to)) = (resolve(source), resolve(output)) else { return Ok(()) };
    let archives = manifest.files.iter().map(|file| file.archive.as_str());
    let read: HashSet<PathBuf> = archives.chain([MANIFEST_NAME]).map(|name| from.join(name)).collect();
    let files = manifest.files.iter().map(|file| &file.path);
    let written = files.chain(manifest.links.iter().map(|link| &link.path)).map(|path| to.join(path));
    match written.into_iter().find(|path| read.contains(path)) {
        None => Ok(()),
        Some(path) => {
            let message =
                "output would replace one of the archives that it comes from; name another directory";
            Err(Error::new(ErrorKind::InvalidConfig, message).in_file(path))
        }
    }
}

/// The name of the file that the archive at `path` holds: without `.alcm`.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] where the name does not end so, and an output name must be given.
pub fn restored_name(path: &Path) -> Result<String> {
    let name =
        path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(ARCHIVE_SUFFIX));
    name.filter(|name| !name.is_empty()).map(ToOwned::to_owned).ok_or_else(|| {
        let message = format!("archive's name does not end in {ARCHIVE_SUFFIX}; give the output a file name");
        Error::new(ErrorKind::InvalidConfig, message).in_file(path)
    })
}

/// What all restored files share.
struct Restorer<'a> {
    ctx: &'a Context<'a>,
    memory: DecodeMemory,
    options: DecompressOptions,
    bases: ArchivePaths,
}

impl Restorer<'_> {
    fn restore(&self, item_idx: usize, item: &ArchiveItem, output: &Path, serial: bool) -> Result<Report> {
        let durability = if self.options.sync { Durability::PowerLoss } else { Durability::ProcessEnd };
        let entry = item.entry.as_ref();
        // Never readable by more people than the archive or, where it is known, the original.
        let mode = match entry {
            Some(entry) => entry.mode,
            None => fs::metadata(&item.path).map(|metadata| mode_of(&metadata)).map_err(cannot_look)?,
        };
        let mut file = DurableFile::create(output, self.options.force, mode, durability)?;
        let settings = whole_file(item_idx, serial, false);
        let (ctx, memory) = (self.ctx, &self.memory);
        let decoded = decode_archive_file(
            ctx,
            memory,
            &item.path,
            &self.bases,
            entry,
            self.options.layer,
            Sink::File(&mut file),
            settings,
        )?;
        let mut report = decoded.report;
        if let Some(entry) = entry {
            set_attributes(file.atomic().file(), entry.mode, entry.mtime).map_err(|e| e.in_file(output))?;
            report.duplicate_files = u64::from(entry.same_as.is_some());
        }
        report.timings.time(Step::Sync, || file.commit())?;
        Ok(report)
    }
}

fn cannot_look(source: std::io::Error) -> Error {
    Error::io("cannot look at", source)
}

/// Sets permission bits and modification time of an open file or directory.
fn set_attributes(file: &File, mode: u32, mtime: Mtime) -> Result<()> {
    if let Some(time) = system_time(mtime) {
        file.set_times(FileTimes::new().set_modified(time))
            .map_err(|e| Error::io("cannot set the time", e))?;
    }
    #[cfg(unix)]
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    #[cfg(not(unix))]
    let permissions = {
        let metadata = file.metadata().map_err(cannot_look)?;
        let mut permissions = metadata.permissions();
        permissions.set_readonly(mode & 0o200 == 0);
        permissions
    };
    file.set_permissions(permissions).map_err(|e| Error::io("cannot set permissions", e))
}

/// Refuses a link's place where something stands, unless it may be replaced and is a file or link.
fn check_link_place(path: &Path, force: bool) -> Result<()> {
    match fs::symlink_metadata(path) {
        // The link itself is replaced, nothing is written through it.
        Ok(metadata) if metadata.is_symlink() && force => Ok(()),
        _ => check_free(path, force),
    }
}

fn failures<'e, E>(
    entries: impl Iterator<Item = &'e E>,
    path: impl Fn(&E) -> &str,
    work: impl Fn(&E) -> Result<()>,
) -> Vec<Failure>
where
    E: 'e,
{
    entries
        .filter_map(|entry| work(entry).err().map(|error| Failure { path: path(entry).to_owned(), error }))
        .collect()
}

fn create_dirs(out: &OutputDir, dirs: &[DirEntry]) -> Vec<Failure> {
    failures(dirs.iter(), |dir| &dir.path, |dir| out.create_dir(&dir.path).map(|_| ()))
}

/// Gives directories their permission bits and times, the deepest first.
fn finish_dirs(out: &OutputDir, dirs: &[DirEntry]) -> Vec<Failure> {
    let finish = |dir: &DirEntry| {
        let path = out.create_dir(&dir.path)?;
        let opened = File::open(&path).map_err(|e| Error::io("cannot open directory", e).in_file(&path))?;
        set_attributes(&opened, dir.mode, dir.mtime).map_err(|e| e.in_file(&path))
    };
    // A path sorts before what is below it.
    failures(dirs.iter().rev(), |dir| &dir.path, finish)
}

fn create_links(out: &OutputDir, links: &[LinkEntry], force: bool) -> Vec<Failure> {
    let create = |link: &LinkEntry| {
        let path = out.place(&link.path)?;
        check_link_place(&path, force)?;
        if fs::symlink_metadata(&path).is_ok() {
            fs::remove_file(&path).map_err(|e| Error::io("cannot replace", e).in_file(&path))?;
        }
        symlink(&link.target, &path).map_err(|e| Error::io("cannot create symbolic link", e).in_file(&path))
    };
    failures(links.iter(), |link| &link.path, create)
}

#[cfg(unix)]
fn symlink(target: &str, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn symlink(_target: &str, _path: &Path) -> std::io::Result<()> {
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "symbolic links are restored on Unix only"))
}
