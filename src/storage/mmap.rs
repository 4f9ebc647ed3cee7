//! Read-only maps of files.
//!
//! A mapped file can change under its reader: another process may write to it or cut it short. Bytes that
//! change are found by comparing the file's identity before and after; a file cut short raises SIGBUS at
//! the pages that are gone, which [`crate::storage::guard`] turns into zeros and a mark on the map.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result};
use crate::storage::guard::Watch;
use crate::storage::identity::{CUT_SHORT, FileIdentity, changed, open_regular};

/// A file mapped for reading.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    identity: FileIdentity,
    // Dropped in this order: the watch must end before the addresses are free for another map.
    watch: Option<Watch>,
    /// None for an empty file, which cannot be mapped.
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps the regular file at `path`, following symbolic links.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`]; [`crate::ErrorKind::InvalidInput`] for what is not a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        let opened = Self::open_unnamed(path);
        opened.map_err(|e| e.in_file(path))
    }

    fn open_unnamed(path: &Path) -> Result<Self> {
        let (file, identity) = open_regular(path)?;
        let map = match identity.len {
            0 => None,
            _ => Some(map_file(&file).map_err(|e| Error::io("cannot map the file into memory", e))?),
        };
        let watch = map.as_deref().and_then(Watch::start);
        Ok(Self { path: path.to_owned(), identity, watch, map })
    }

    /// The file's bytes. While another process changes the file these may be anything, but reading them is
    /// safe where the guard is installed; [`Self::check_unchanged`] tells afterwards.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's identity when it was opened.
    #[must_use]
    pub fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// Checks that the path still names the file as it was when it was mapped. Call it after the last
    /// byte has been read and before anything is made of what was read.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`], or [`crate::ErrorKind::Io`] where the file is gone.
    pub fn check_unchanged(&self) -> Result<()> {
        if self.watch.as_ref().is_some_and(Watch::is_shrunk) {
            return Err(changed(&self.path, CUT_SHORT));
        }
        self.identity.check_unchanged(&self.path)
    }
}

#[expect(unsafe_code, reason = "mapping a file that others can write to; see the SAFETY note")]
fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is read-only and private to this process's view, and memmap2 asks that the file not
    // be changed meanwhile. Nobody can ensure that; what ensures that a change does no harm is that the
    // bytes are only ever read as `u8`, which any value is valid for, that no code trusts two reads of one
    // byte to be equal (lengths are taken from checked copies), and that `check_unchanged` is asked before
    // results are used. Pages cut off are replaced by `storage::guard` where it is installed.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn maps_files_and_empty_files_and_refuses_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full");
        std::fs::write(&path, b"0123456789").unwrap();
        let mapped = MappedFile::open(&path).unwrap();
        assert_eq!(mapped.bytes(), b"0123456789");
        mapped.check_unchanged().unwrap();
        let empty = folder.path().join("empty");
        std::fs::write(&empty, b"").unwrap();
        let mapped = MappedFile::open(&empty).unwrap();
        assert_eq!(mapped.bytes(), b"");
        mapped.check_unchanged().unwrap();
        assert_eq!(MappedFile::open(folder.path()).unwrap_err().kind(), ErrorKind::InvalidInput);
        let missing = MappedFile::open(&folder.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Io);
        assert!(missing.location().file.is_some());
    }

    #[test]
    fn every_kind_of_change_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("source");
        let noticed = |change: &dyn Fn()| {
            std::fs::write(&path, b"0123456789").unwrap();
            let mapped = MappedFile::open(&path).unwrap();
            mapped.check_unchanged().unwrap();
            // Coarse clocks of file systems: the change must not fall into the same tick.
            std::thread::sleep(std::time::Duration::from_millis(20));
            change();
            mapped.check_unchanged().unwrap_err()
        };
        let rewritten = noticed(&|| std::fs::write(&path, b"9876543210").unwrap());
        assert_eq!(rewritten.kind(), ErrorKind::InvalidInput);
        let grown = noticed(&|| std::fs::write(&path, b"0123456789a").unwrap());
        assert!(grown.to_string().contains("had 10 bytes and has 11"), "{grown}");
        let replaced = noticed(&|| {
            std::fs::write(path.with_extension("new"), b"0123456789").unwrap();
            std::fs::rename(path.with_extension("new"), &path).unwrap();
        });
        assert_eq!(replaced.kind(), ErrorKind::InvalidInput);
        let removed = noticed(&|| std::fs::remove_file(&path).unwrap());
        assert_eq!(removed.kind(), ErrorKind::Io);
    }

    #[cfg(any(target_os = "linux", target_os = "macos"))]
    #[test]
    fn a_file_cut_short_while_it_is_read_is_an_error_and_no_crash() {
        crate::storage::guard::install().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("source");
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        let mapped = MappedFile::open(&path).unwrap();
        let untouched = MappedFile::open(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let sum: u64 = mapped.bytes().iter().map(|byte| u64::from(*byte)).sum();
        assert_eq!(sum, 7 * 4096);
        // Even where the file has its size back.
        File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
        let error = mapped.check_unchanged().unwrap_err();
        assert!(error.to_string().contains("cut short"), "{error}");
        let error = untouched.check_unchanged().unwrap_err();
        assert!(error.to_string().contains("time of change"), "{error}");
    }
}
