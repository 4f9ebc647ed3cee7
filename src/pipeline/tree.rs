//! What is in the directories and files given to compress, in an order that depends on names alone.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::paths::{check_link_target, check_relative};
use super::report::Failure;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::is_partial_name;

/// A modification time: whole seconds since 1970, and nanoseconds (0 to 999,999,999) to add to them.
pub type Mtime = (i64, u32);

/// A file to compress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Path within the tree, `/`-separated; its first component is the name of the argument.
    pub path: String,
    /// Where it is.
    pub source: PathBuf,
    /// Size in bytes when the tree was walked.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Modification time.
    pub mtime: Mtime,
}

/// A directory to restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDir {
    /// Path within the tree.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Modification time.
    pub mtime: Mtime,
}

/// A symbolic link to restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLink {
    /// Path within the tree.
    pub path: String,
    /// What it points to, relative.
    pub target: String,
}

/// All that was found; each list is sorted by the bytes of its paths.
#[derive(Debug, Default)]
pub struct SourceTree {
    /// Regular files.
    pub files: Vec<SourceFile>,
    /// Directories, also those that are not empty.
    pub dirs: Vec<SourceDir>,
    /// Symbolic links.
    pub links: Vec<SourceLink>,
    /// Entries that cannot be kept.
    pub failures: Vec<Failure>,
    /// Files that this program has not finished, or was killed before it did: they are left out.
    pub n_unfinished: u64,
}

/// Permission bits, without set-uid, set-gid and sticky, which a restored tree should not bring along.
#[must_use]
pub fn mode_of(metadata: &Metadata) -> u32 {
    #[cfg(unix)]
    {
        std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777
    }
    #[cfg(not(unix))]
    {
        if metadata.permissions().readonly() { 0o444 } else { 0o644 }
    }
}

/// Modification time; 1970 where the file system has none.
#[must_use]
pub fn mtime_of(metadata: &Metadata) -> Mtime {
    metadata.modified().map_or((0, 0), mtime_from)
}

/// The pair of a time, rounded down to whole nanoseconds.
fn mtime_from(time: SystemTime) -> Mtime {
    let seconds = |secs: u64| i64::try_from(secs).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (seconds(after.as_secs()), after.subsec_nanos()),
        Err(before) => match (before.duration().as_secs(), before.duration().subsec_nanos()) {
            (secs, 0) => (-seconds(secs), 0),
            (secs, nanos) => (-1 - seconds(secs), 1_000_000_000 - nanos),
        },
    }
}

/// The time of a pair, or `None` where the system cannot express it.
#[must_use]
pub fn system_time(mtime: Mtime) -> Option<SystemTime> {
    use std::time::Duration;
    let whole = Duration::from_secs(mtime.0.unsigned_abs());
    let base = if mtime.0 < 0 { UNIX_EPOCH.checked_sub(whole)? } else { UNIX_EPOCH.checked_add(whole)? };
    base.checked_add(Duration::from_nanos(mtime.1.into()))
}

impl SourceTree {
    /// Walks `paths`, each a file or a directory, which itself may be named through a symbolic link. A
    /// directory's contents come below the directory's own name. Entries that cannot be kept are in
    /// [`Self::failures`].
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where a path of `paths` cannot be read; [`ErrorKind::InvalidConfig`] where two of
    /// them have the same name.
    pub fn walk(paths: &[PathBuf]) -> Result<Self> {
        let mut tree = Self::default();
        let mut names: Vec<String> = Vec::new();
        for path in paths {
            let name = root_name(path)?;
            if names.contains(&name) {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!("two of the paths are named \"{}\"; compress them into different outputs", name),
                ));
            }
            let metadata = fs::metadata(path).map_err(|e| Error::io("cannot read", e).in_file(path))?;
            tree.add(name.clone(), path.clone(), &metadata);
            names.push(name);
        }
        tree.sort();
        Ok(tree)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }

    /// Removes the files; nothing where an entry of the run is among `failures`, and no file that has changed since it
    /// was listed.
    pub(crate) fn remove_files(&self, failures: &mut Vec<Failure>) {
        if !failures.is_empty() {
            return;
        }
        for file in &self.files {
            let unchanged = fs::symlink_metadata(&file.source)
                .is_ok_and(|now| now.is_file() && now.len() == file.size && mtime_of(&now) == file.mtime);
            let removed = if unchanged {
                fs::remove_file(&file.source).map_err(|e| Error::io("cannot remove source", e))
            } else {
                Err(Error::new(ErrorKind::InvalidInput, "source changed after it was read; not removed"))
            };
            if let Err(error) = removed {
                failures.push(Failure { path: file.path.clone(), error: error.in_file(&file.source) });
            }
        }
    }

    fn sort(&mut self) {
        self.files.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        self.dirs.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        self.links.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        self.failures.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    }

    fn fail(&mut self, path: String, error: Error) {
        self.failures.push(Failure { path, error });
    }

    /// Adds an entry, and what is below it: by a list of directories to do, not by recursion, so that a deep
    /// tree cannot exhaust the stack.
    fn add(&mut self, path: String, source: PathBuf, metadata: &Metadata) {
        let mut pending = Vec::new();
        self.add_entry(path, source, metadata, &mut pending);
        while let Some((dir_path, dir_source)) = pending.pop() {
            if let Err(error) = self.add_children(&dir_path, &dir_source, &mut pending) {
                self.fail(dir_path, error.in_file(dir_source));
            }
        }
    }

    fn add_children(&mut self, dir: &str, source: &Path, pending: &mut Vec<(String, PathBuf)>) -> Result<()> {
        for entry in fs::read_dir(source).map_err(|e| Error::io("cannot list directory", e))? {
            let entry = entry.map_err(|e| Error::io("cannot list directory", e))?;
            let child = entry.path();
            let name = entry.file_name();
            if name.to_str().is_some_and(is_partial_name)
                && entry.file_type().is_ok_and(|kind| kind.is_file())
            {
                self.n_unfinished += 1;
                continue;
            }
            let checked = match name.to_str() {
                Some(name) => {
                    let path = format!("{dir}/{name}");
                    check_relative(&path, ErrorKind::InvalidInput).map(|()| path)
                }
                None => Err(Error::new(ErrorKind::InvalidInput, "name is not UTF-8; rename it to keep it")),
            };
            match checked {
                Err(error) => self.fail(format!("{dir}/{}", name.to_string_lossy()), error.in_file(child)),
                Ok(path) => match fs::symlink_metadata(&child) {
                    Err(e) => self.fail(path, Error::io("cannot look at", e).in_file(child)),
                    Ok(metadata) => self.add_entry(path, child, &metadata, pending),
                },
            }
        }
        Ok(())
    }

    fn add_entry(
        &mut self,
        path: String,
        source: PathBuf,
        metadata: &Metadata,
        pending: &mut Vec<(String, PathBuf)>,
    ) {
        let (mode, mtime) = (mode_of(metadata), mtime_of(metadata));
        if metadata.is_dir() {
            self.dirs.push(SourceDir { path: path.clone(), mode, mtime });
            pending.push((path, source));
        } else if metadata.is_file() {
            self.files.push(SourceFile { path, source, size: metadata.len(), mode, mtime });
        } else if metadata.is_symlink() {
            match read_link(&path, &source) {
                Ok(target) => self.links.push(SourceLink { path, target }),
                Err(error) => self.fail(path, error.in_file(source)),
            }
        } else {
            let error = Error::new(
                ErrorKind::InvalidInput,
                "neither a file, a directory nor a symbolic link; sockets, pipes and devices are not kept",
            );
            self.fail(path, error.in_file(source));
        }
    }
}

/// The checked target of the link at `source`.
fn read_link(path: &str, source: &Path) -> Result<String> {
    let target = fs::read_link(source).map_err(|e| Error::io("cannot read symbolic link", e))?;
    let target = target
        .to_str()
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "symbolic link's target is not UTF-8"))?;
    check_link_target(path, target, ErrorKind::InvalidInput)?;
    Ok(target.to_owned())
}

/// The name under which an argument's contents come: its last component, resolved for `.` and `..`.
fn root_name(path: &Path) -> Result<String> {
    let name = match path.file_name() {
        Some(name) => name.to_owned(),
        None => {
            let full = fs::canonicalize(path).map_err(|e| Error::io("cannot resolve", e).in_file(path))?;
            let name = full.file_name().map(ToOwned::to_owned);
            name.ok_or_else(|| Error::new(ErrorKind::InvalidConfig, "path has no name").in_file(path))?
        }
    };
    let name = name.to_str().ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, "name is not UTF-8; rename it to keep it").in_file(path)
    })?;
    check_relative(name, ErrorKind::InvalidInput).map_err(|e| e.in_file(path))?;
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn walk_is_sorted_by_path_bytes_and_keeps_empty_things() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("r");
        for sub in ["b", "a", "a/empty"] {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        for file in ["b/z", "a/y", "a.x", "B"] {
            fs::write(root.join(file), b"1").unwrap();
        }
        fs::write(root.join("a/.alcm-a1b2c3.alcm-partial"), b"half").unwrap();
        let tree = SourceTree::walk(std::slice::from_ref(&root)).unwrap();
        assert_eq!(tree.n_unfinished, 1);
        let files: Vec<_> = tree.files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(files, ["r/B", "r/a.x", "r/a/y", "r/b/z"]);
        let dirs: Vec<_> = tree.dirs.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(dirs, ["r", "r/a", "r/a/empty", "r/b"]);
        assert_eq!(tree.total_bytes(), 4);
        assert!(tree.failures.is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_kept_is_a_failure_of_its_own() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("r");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("ok"), b"1").unwrap();
        fs::write(root.join("new\nline"), b"1").unwrap();
        fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff")), b"1").unwrap();
        std::os::unix::fs::symlink("ok", root.join("inside")).unwrap();
        std::os::unix::fs::symlink("../../etc", root.join("outside")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let tree = SourceTree::walk(&[root]).unwrap();
        assert_eq!(tree.files.len(), 1);
        assert_eq!(tree.links.len(), 1);
        assert_eq!(tree.failures.len(), 4);
        assert!(tree.failures.iter().all(|f| f.error.kind() == ErrorKind::InvalidInput));
        assert!(tree.failures.iter().all(|f| !f.error.to_string().contains('\n')));
    }

    #[test]
    fn equal_names_contradict() {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["a/x", "b/x"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let error = SourceTree::walk(&[dir.path().join("a/x"), dir.path().join("b/x")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn times_before_1970_round_trip() {
        for time in [
            UNIX_EPOCH,
            UNIX_EPOCH + Duration::new(5, 7),
            UNIX_EPOCH - Duration::new(5, 7),
            UNIX_EPOCH - Duration::new(5, 0),
        ] {
            let pair = mtime_from(time);
            assert!(pair.1 < 1_000_000_000);
            assert_eq!(system_time(pair), Some(time));
        }
        assert_eq!(mtime_from(UNIX_EPOCH - Duration::new(0, 1)), (-1, 999_999_999));
    }
}
