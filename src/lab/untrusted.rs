//! Files whose names and sizes somebody else chose: plain names within one folder, regular files, bounded reads.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// Longest name of a file, the limit of common file systems.
const MAX_NAME_BYTES: usize = 255;

/// Whether `name` is the name of a file within a folder on every system: no separator, drive, parent or control
/// character.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !name.starts_with('.')
        && !name.chars().any(|c| matches!(c, '/' | '\\' | ':') || c.is_control())
}

/// The bytes of the regular file `name` in `dir`, at most `limit_bytes`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a name that is not plain, a link or anything else that is no file;
/// [`ErrorKind::LimitExceeded`]; [`ErrorKind::Io`], also where it is missing.
pub fn read_within(dir: &Path, name: &str, limit_bytes: u64) -> Result<Vec<u8>> {
    if !is_plain_name(name) {
        let message = format!("\"{}\" is no plain file name", name.escape_debug());
        return Err(Error::new(ErrorKind::InvalidInput, message).in_file(dir));
    }
    read_file(&dir.join(name), limit_bytes)
}

/// The bytes of the regular file at `path`, at most `limit_bytes`.
///
/// # Errors
/// As [`read_within`].
pub fn read_file(path: &Path, limit_bytes: u64) -> Result<Vec<u8>> {
    let kind = fs::symlink_metadata(path).map_err(|e| Error::io("cannot read", e).in_file(path))?.file_type();
    if !kind.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "not a regular file").in_file(path));
    }
    let file = File::open(path).map_err(|e| Error::io("cannot open", e).in_file(path))?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too long, whatever its length was said to be.
    let mut bounded = file.take(limit_bytes.saturating_add(1));
    bounded.read_to_end(&mut bytes).map_err(|e| Error::io("cannot read", e).in_file(path))?;
    if bytes.len() as u64 > limit_bytes {
        let message = format!("more than {limit_bytes} bytes, which is the limit here");
        return Err(Error::new(ErrorKind::LimitExceeded, message).in_file(path));
    }
    Ok(bytes)
}

/// Takes bytes up to a limit and fails beyond: a decoder that writes to it cannot fill the memory.
#[derive(Debug)]
pub struct BoundedVec {
    /// What was written.
    pub bytes: Vec<u8>,
    limit_len: usize,
}

impl BoundedVec {
    /// An empty one for at most `limit_len` bytes.
    #[must_use]
    pub fn new(limit_len: usize) -> Self {
        Self { bytes: Vec::new(), limit_len }
    }
}

impl Write for BoundedVec {
    fn write(&mut self, src: &[u8]) -> std::io::Result<usize> {
        if src.len() > self.limit_len.saturating_sub(self.bytes.len()) {
            return Err(std::io::Error::other(format!("decodes to more than {} bytes", self.limit_len)));
        }
        self.bytes.extend_from_slice(src);
        Ok(src.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for name in ["a.txt", "a b", "é", "a..b"] {
            assert!(is_plain_name(name), "{name}");
        }
        for name in ["", ".", "..", "../a", "/etc/passwd", "a/b", "a\\b", "c:x", "a\0", "a\n", ".hidden"] {
            assert!(!is_plain_name(name), "{name:?}");
        }
        assert!(!is_plain_name(&"x".repeat(256)));
    }

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"12345").unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let kind = |name: &str, limit| read_within(dir.path(), name, limit).map_err(|e| e.kind());
        assert_eq!(kind("f", 5).unwrap(), b"12345");
        assert_eq!(kind("f", 4), Err(ErrorKind::LimitExceeded));
        assert_eq!(kind("absent", 4), Err(ErrorKind::Io));
        assert_eq!(kind("d", 4), Err(ErrorKind::InvalidInput));
        assert_eq!(kind("../f", 9), Err(ErrorKind::InvalidInput));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(dir.path().join("f"), dir.path().join("link")).unwrap();
            assert_eq!(kind("link", 9), Err(ErrorKind::InvalidInput));
        }
        let mut bounded = BoundedVec::new(4);
        assert!(bounded.write_all(b"1234").is_ok() && bounded.write_all(b"5").is_err());
        assert_eq!(bounded.bytes, b"1234");
    }
}
