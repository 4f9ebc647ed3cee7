//! Files read piece by piece into memory of the caller.
//!
//! Where every byte is read once, into a buffer that is used again, this takes half the time of copying out of a map,
//! which pays for each page that is entered into the process and taken out again.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::storage::identity::{CUT_SHORT, FileIdentity, changed, open_regular};

/// A file opened for reading at any offset, from any thread.
#[derive(Debug)]
pub struct ReadFile {
    path: PathBuf,
    file: File,
    identity: FileIdentity,
}

impl ReadFile {
    /// Opens the regular file at `path`, following symbolic links.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`]; [`crate::ErrorKind::InvalidInput`] for what is not a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, identity) = open_regular(path).map_err(|e| e.in_file(path))?;
        Ok(Self { path: path.to_owned(), file, identity })
    }

    /// The file's identity when it was opened.
    #[must_use]
    pub fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// Fills `dst` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`]; [`crate::ErrorKind::InvalidInput`] where the file ends before, as when it is cut short
    /// meanwhile.
    pub fn read_exact_at(&self, dst: &mut [u8], offset: u64) -> Result<()> {
        read_exact_at(&self.file, dst, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => changed(&self.path, CUT_SHORT),
            _ => Error::io("cannot read", e).in_file(&self.path),
        })
    }

    /// Checks that the path still names the file as it was when it was opened. Call it after the last byte has been
    /// read and before anything is made of what was read.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`], or [`crate::ErrorKind::Io`] where the file is gone.
    pub fn check_unchanged(&self) -> Result<()> {
        self.identity.check_unchanged(&self.path)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, dst: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, dst, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut dst: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !dst.is_empty() {
        match file.seek_read(dst, offset) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(read_len) => {
                dst = &mut dst[read_len..];
                offset += read_len as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn pieces_are_read_and_a_missing_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("source");
        std::fs::write(&path, b"0123456789").unwrap();
        let file = ReadFile::open(&path).unwrap();
        let mut piece = [0; 4];
        file.read_exact_at(&mut piece, 6).unwrap();
        assert_eq!(&piece, b"6789");
        file.check_unchanged().unwrap();
        File::options().write(true).open(&path).unwrap().set_len(8).unwrap();
        for error in [file.read_exact_at(&mut piece, 6).unwrap_err(), file.check_unchanged().unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("changed while it was read"), "{error}");
            assert_eq!(error.location().file.as_deref(), Some(path.as_path()));
        }
        assert_eq!(ReadFile::open(folder.path()).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(ReadFile::open(&folder.path().join("missing")).unwrap_err().kind(), ErrorKind::Io);
    }
}
