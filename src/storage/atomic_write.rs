//! Outputs that get their name only when they are complete.
//!
//! Bytes go to a hidden sibling of the destination, which is renamed at the end; a process that dies leaves
//! at most such a sibling, never half a file under the final name. A live sibling is locked by its
//! writer, so that what a dead one left can be told from it and removed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind as IoErrorKind, IoSlice, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, ErrorKind, Result};

/// What the hidden sibling's name begins with.
const PARTIAL_PREFIX: &str = ".alcm-";
/// What the hidden sibling's name ends with.
pub const PARTIAL_SUFFIX: &str = ".alcm-partial";
/// Random letters and digits between the two.
const PARTIAL_RANDOM_LEN: usize = 6;
/// Times that a sibling is created anew after another process has taken it for a dead writer's.
const MAX_TRIES: usize = 16;
/// Permission bits of any new file, less the umask.
const USUAL_MODE: u32 = 0o666;

/// What a finished file outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A loss of power: contents and name are on the disk when [`AtomicFile::commit`] returns.
    PowerLoss,
    /// The end of the process: the system writes to the disk when it likes.
    ProcessEnd,
}

/// A file being written. Dropped before [`Self::commit`], it is removed.
#[derive(Debug)]
pub struct AtomicFile {
    partial: NamedTempFile,
    destination: PathBuf,
    overwrites: bool,
}

impl AtomicFile {
    /// Begins a file that will be called `destination`; its folder must exist. With `overwrites`, what has
    /// that name is replaced at the end, else it is refused, now or at the end.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`], with the destination named.
    pub fn create(destination: &Path, overwrites: bool) -> Result<Self> {
        Self::create_with_mode(destination, overwrites, USUAL_MODE)
    }

    /// As [`Self::create`]; from its first byte on the file has the read and write bits of `mode` alone, less the
    /// umask. Systems without such bits ignore it.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_with_mode(destination: &Path, overwrites: bool, mode: u32) -> Result<Self> {
        Self::create_unnamed(destination, overwrites, mode).map_err(|e| e.in_file(destination))
    }

    fn create_unnamed(destination: &Path, overwrites: bool, mode: u32) -> Result<Self> {
        if !overwrites && std::fs::symlink_metadata(destination).is_ok() {
            return Err(exists());
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(PARTIAL_PREFIX).suffix(PARTIAL_SUFFIX).rand_bytes(PARTIAL_RANDOM_LEN);
        // Not by tempfile itself, whose permissions are for secrets and whose errors name the sibling.
        let open = |path: &Path| new_file_options(mode).open(path);
        for _ in 0..MAX_TRIES {
            let partial = builder.make_in(folder_of(destination), open).map_err(cannot_create)?;
            if is_ours(partial.as_file()) {
                return Ok(Self { partial, destination: destination.to_owned(), overwrites });
            }
        }
        Err(Error::new(ErrorKind::Io, "cannot create a file here, another process removes it each time"))
    }

    /// The name that the file will have.
    #[must_use]
    pub fn destination(&self) -> &Path {
        &self.destination
    }

    /// The open file, for instance to set its permissions or times.
    #[must_use]
    pub fn file(&self) -> &File {
        self.partial.as_file()
    }

    /// The file's present name, for instance to map it for a verification.
    #[must_use]
    pub fn partial_path(&self) -> &Path {
        self.partial.path()
    }

    /// Sets the file's size; new bytes are zeros.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`].
    pub fn set_len(&self, len: u64) -> Result<()> {
        self.file().set_len(len).map_err(|e| self.cannot_write(e))
    }

    /// Asks the file system for the space of `range`, so that writing need not look for it block by block. The
    /// file is then at least that long. False where the system cannot; nothing is lost then.
    pub fn reserve(&self, range: Range<u64>) -> bool {
        reserve(self.file(), range)
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`]; the file is then removed, and what had the name is as it was.
    pub fn commit(self, durability: Durability) -> Result<()> {
        if durability == Durability::PowerLoss {
            self.file().sync_all().map_err(|e| self.cannot_write(e))?;
        }
        let Self { partial, destination, overwrites } = self;
        let renamed =
            if overwrites { partial.persist(&destination) } else { partial.persist_noclobber(&destination) };
        let file = renamed.map_err(|e| {
            let error = match e.error.kind() {
                IoErrorKind::AlreadyExists => exists(),
                _ => Error::io("cannot give the finished file its name", e.error),
            };
            error.in_file(&destination)
        })?;
        // The lock was for the partial name; a reader of the final one must not meet it.
        let _ = file.unlock();
        if durability == Durability::PowerLoss {
            sync_folder(folder_of(&destination))
                .map_err(|e| Error::io("cannot sync the folder", e).in_file(&destination))?;
        }
        Ok(())
    }

    /// The error of a write to this file that the system refused.
    #[must_use]
    pub fn cannot_write(&self, source: std::io::Error) -> Error {
        let action = match source.kind() {
            IoErrorKind::StorageFull => "cannot write, the disk is full; the unfinished file is removed",
            IoErrorKind::QuotaExceeded => {
                "cannot write, the quota is used up; the unfinished file is removed"
            }
            IoErrorKind::FileTooLarge => "cannot write, the file system takes no file of this size",
            _ => "cannot write",
        };
        Error::io(action, source).in_file(&self.destination)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.partial.as_file_mut().write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> std::io::Result<usize> {
        self.partial.as_file_mut().write_vectored(parts)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.partial.as_file_mut().flush()
    }
}

fn exists() -> Error {
    Error::new(ErrorKind::InvalidInput, "output exists; pass --force to replace it")
}

/// How a file that is not there is opened, with the read and write bits of `mode`.
fn new_file_options(mode: u32) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode & USUAL_MODE);
    #[cfg(not(unix))]
    let _ = mode;
    options
}

/// Locks a new sibling. False where another process that removes what dead writers left has come before, between the
/// sibling's creation and this.
fn is_ours(partial: &File) -> bool {
    match partial.try_lock() {
        Ok(()) => !is_unlinked(partial),
        Err(TryLockError::WouldBlock) => false,
        // On a file system without locks the sibling stays unlocked, and is then never taken for stale.
        Err(TryLockError::Error(_)) => true,
    }
}

#[cfg(unix)]
fn is_unlinked(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| std::os::unix::fs::MetadataExt::nlink(&metadata) == 0)
}

/// Other systems do not remove open files.
#[cfg(not(unix))]
fn is_unlinked(_file: &File) -> bool {
    false
}

fn cannot_create(source: std::io::Error) -> Error {
    let action = match source.kind() {
        IoErrorKind::PermissionDenied | IoErrorKind::ReadOnlyFilesystem => {
            "cannot create a file here, the folder cannot be written to"
        }
        IoErrorKind::NotFound => "cannot create a file here, the folder does not exist",
        IoErrorKind::StorageFull => "cannot create a file here, the disk is full",
        _ => "cannot create a file here",
    };
    Error::io(action, source)
}

fn folder_of(destination: &Path) -> &Path {
    match destination.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(target_os = "linux")]
fn reserve(file: &File, range: Range<u64>) -> bool {
    let len = range.end.saturating_sub(range.start);
    // Unlike the C library's function of this name, the system call never writes zeros itself.
    len > 0 && rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), range.start, len).is_ok()
}

/// Other systems have other ways, or none.
#[cfg(not(target_os = "linux"))]
fn reserve(_file: &File, _range: Range<u64>) -> bool {
    false
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Other systems cannot open folders for this.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Whether `name` is one that unfinished files have.
#[must_use]
pub fn is_partial_name(name: &str) -> bool {
    let random = name.strip_prefix(PARTIAL_PREFIX).and_then(|name| name.strip_suffix(PARTIAL_SUFFIX));
    random.is_some_and(|random| {
        random.len() == PARTIAL_RANDOM_LEN && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Removes the unfinished files that dead writers have left in `folder`, not in folders below it, and says
/// how many. Those of live writers are locked and stay.
///
/// # Errors
/// [`crate::ErrorKind::Io`], with the file or folder named.
pub fn remove_stale_partials(folder: &Path) -> Result<usize> {
    let cannot_list = |e| Error::io("cannot list the folder", e).in_file(folder);
    let mut n_removed = 0;
    for entry in std::fs::read_dir(folder).map_err(cannot_list)? {
        let entry = entry.map_err(cannot_list)?;
        let is_partial = entry.file_name().to_str().is_some_and(is_partial_name);
        // Of the entry itself: a symbolic link is nothing that this program has left.
        if is_partial && entry.file_type().is_ok_and(|file_type| file_type.is_file()) {
            n_removed += usize::from(remove_if_stale(&entry.path())?);
        }
    }
    Ok(n_removed)
}

fn remove_if_stale(path: &Path) -> Result<bool> {
    let removed = File::open(path).and_then(|file| match file.try_lock() {
        Ok(()) => std::fs::remove_file(path).map(|()| true),
        Err(TryLockError::WouldBlock) => Ok(false),
        // No locks here, so nothing tells a dead writer's file from a live one's.
        Err(TryLockError::Error(_)) => Ok(false),
    });
    match removed {
        // Its writer has just finished, or another cleaner was faster.
        Err(e) if e.kind() == IoErrorKind::NotFound => Ok(false),
        other => other.map_err(|e| Error::io("cannot remove the unfinished file", e).in_file(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_name_appears_at_the_end_and_not_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let destination = folder.path().join("out");
        for durability in [Durability::PowerLoss, Durability::ProcessEnd] {
            let mut file = AtomicFile::create(&destination, true).unwrap();
            file.write_all(b"abc").unwrap();
            assert!(names(folder.path()).iter().any(|name| name.ends_with(PARTIAL_SUFFIX)));
            file.commit(durability).unwrap();
            assert_eq!(names(folder.path()), ["out"]);
            assert_eq!(std::fs::read(&destination).unwrap(), b"abc");
        }
        drop(AtomicFile::create(&folder.path().join("other"), false).unwrap());
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let usual = folder.path().join("usual");
        std::fs::write(&usual, b"").unwrap();
        let ours = folder.path().join("ours");
        AtomicFile::create(&ours, false).unwrap().commit(Durability::ProcessEnd).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&usual));
        let secret = AtomicFile::create_with_mode(&folder.path().join("secret"), false, 0o700).unwrap();
        assert_eq!(mode(secret.partial_path()) & 0o777, 0o600);
    }

    #[test]
    fn existing_files_stay_unless_forced() {
        let folder = tempfile::tempdir().unwrap();
        let destination = folder.path().join("out");
        let late = AtomicFile::create(&destination, false).unwrap();
        std::fs::write(&destination, b"old").unwrap();
        let early = AtomicFile::create(&destination, false).unwrap_err();
        let late = late.commit(Durability::ProcessEnd).unwrap_err();
        for error in [early, late] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().ends_with("pass --force to replace it"), "{error}");
        }
        assert_eq!(std::fs::read(&destination).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["out"]);
        AtomicFile::create(&destination, true).unwrap().commit(Durability::ProcessEnd).unwrap();
        assert_eq!(std::fs::read(&destination).unwrap(), b"");
    }

    #[test]
    fn missing_folders_and_full_disks_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = AtomicFile::create(&folder.path().join("no/out"), false).unwrap_err();
        assert!(error.to_string().contains("folder does not exist"), "{error}");
        assert!(!error.to_string().contains(PARTIAL_SUFFIX), "{error}");
        let file = AtomicFile::create(&folder.path().join("out"), false).unwrap();
        let error = file.cannot_write(IoErrorKind::StorageFull.into());
        assert!(error.to_string().contains("disk is full"), "{error}");
        let error = cannot_create(IoErrorKind::ReadOnlyFilesystem.into());
        assert!(error.to_string().contains("cannot be written to"), "{error}");
    }

    #[test]
    fn only_what_dead_writers_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let live = AtomicFile::create(&folder.path().join("out"), false).unwrap();
        let stale = folder.path().join(".alcm-a1b2c3.alcm-partial");
        std::fs::write(&stale, b"half").unwrap();
        for not_ours in ["my.alcm-partial", ".alcm-my-notes.alcm-partial"] {
            std::fs::write(folder.path().join(not_ours), b"not ours").unwrap();
        }
        assert_eq!(remove_stale_partials(folder.path()).unwrap(), 1);
        assert!(!stale.exists());
        assert!(live.partial_path().exists());
        live.commit(Durability::ProcessEnd).unwrap();
        assert_eq!(names(folder.path()), [".alcm-my-notes.alcm-partial", "my.alcm-partial", "out"]);
        assert_eq!(remove_stale_partials(folder.path()).unwrap(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn a_sibling_that_a_cleaner_was_faster_to_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".alcm-a1b2c3.alcm-partial");
        let partial = File::create(&path).unwrap();
        let cleaner = File::open(&path).unwrap();
        cleaner.try_lock().unwrap();
        assert!(!is_ours(&partial), "the cleaner is about to remove it");
        std::fs::remove_file(&path).unwrap();
        drop(cleaner);
        assert!(!is_ours(&partial), "the cleaner has removed it");
    }
}
