//! Regular files opened for reading, and whether they are still what they were when they were opened.

use std::fs::{File, Metadata};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// What [`changed`] says of a file whose end is gone.
pub(super) const CUT_SHORT: &str =
    "bytes that were there at first could not be read, as when a file is cut short";

/// What the operating system says of a file's state; equal before and after means: not written meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    /// Size in bytes.
    pub len: u64,
    /// Time of last modification, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// Time of the last change of contents or attributes, likewise; the same as `modified_ns` where the
    /// system has none.
    pub changed_ns: i128,
    /// Device and inode, or zeros where the system has none.
    pub inode: (u64, u64),
}

impl FileIdentity {
    /// The identity in `metadata`.
    #[cfg(unix)]
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            len: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            inode: (metadata.dev(), metadata.ino()),
        }
    }

    /// The identity in `metadata`.
    #[cfg(not(unix))]
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let since_1970 = metadata.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        let modified_ns = since_1970.and_then(|t| i128::try_from(t.as_nanos()).ok()).unwrap_or(0);
        Self { len: metadata.len(), modified_ns, changed_ns: modified_ns, inode: (0, 0) }
    }

    /// The identity of the file that `path` names now, following symbolic links.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn of_path(path: &Path) -> Result<Self> {
        let metadata =
            std::fs::metadata(path).map_err(|e| Error::io("cannot look at the file", e).in_file(path))?;
        Ok(Self::of(&metadata))
    }

    /// Checks that `path` still names the file as it was when this identity was taken.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], or [`ErrorKind::Io`] where the file is gone.
    pub fn check_unchanged(&self, path: &Path) -> Result<()> {
        let now = Self::of_path(path)?;
        if now.inode != self.inode {
            return Err(changed(path, "another file has its name now"));
        }
        if now.len != self.len {
            return Err(changed(path, &format!("it had {} bytes and has {} now", self.len, now.len)));
        }
        if now != *self {
            return Err(changed(path, "its time of change is another"));
        }
        Ok(())
    }
}

/// The error of a source that is not what it was.
pub(super) fn changed(path: &Path, what: &str) -> Error {
    let message = format!("source changed while it was read: {what}");
    Error::new(ErrorKind::InvalidInput, message).in_file(path)
}

/// Opens the regular file at `path`, following symbolic links.
pub(super) fn open_regular(path: &Path) -> Result<(File, FileIdentity)> {
    let not_regular = || Error::new(ErrorKind::InvalidInput, "not a regular file");
    // Before opening, which would wait for a writer on a named pipe.
    let before = std::fs::metadata(path).map_err(|e| Error::io("cannot open", e))?;
    if !before.is_file() {
        return Err(not_regular());
    }
    let file = File::open(path).map_err(|e| Error::io("cannot open", e))?;
    let metadata = file.metadata().map_err(|e| Error::io("cannot look at the file", e))?;
    if !metadata.is_file() {
        return Err(not_regular());
    }
    Ok((file, FileIdentity::of(&metadata)))
}
