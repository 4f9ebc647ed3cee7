//! The baseline of the original report: a tensor as NumPy's `savez_compressed` stores it, in a ZIP archive of `.npy`
//! members that are deflated at level 6 (the `.npy` format, version 1.0, NEP 1).

use std::io::{Cursor, Read, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::error::{Error, ErrorKind, Result};

/// Magic and version of a `.npy` member.
const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
/// NumPy pads headers to a multiple of this.
const ALIGNMENT: usize = 64;
/// `savez_compressed` passes zlib's default level.
const DEFLATE_LEVEL: i64 = 6;
/// Most bytes of magic, length and header.
const MAX_HEADER_BYTES: u64 = 10 + u16::MAX as u64;
/// Largest member that is read back.
const MAX_MEMBER_BYTES: u64 = 64 << 30;

/// The archive of one member, `name.npy`, of `bytes` under `descr` (`<f4`) and `shape`, in C order.
///
/// # Errors
/// [`ErrorKind::Internal`] where the archive cannot be written to memory.
pub fn write(name: &str, descr: &str, shape: &[u64], bytes: &[u8]) -> Result<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    // NumPy asks for the fields of large members for every member, and keeps the date of no file.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(DEFLATE_LEVEL))
        .large_file(true);
    let failed =
        |e: &dyn std::fmt::Display| Error::new(ErrorKind::Internal, format!("cannot write a zip: {e}"));
    zip.start_file(format!("{name}.npy"), options).map_err(|e| failed(&e))?;
    zip.write_all(&npy_header(descr, shape)).and_then(|()| zip.write_all(bytes)).map_err(|e| failed(&e))?;
    Ok(zip.finish().map_err(|e| failed(&e))?.into_inner())
}

/// The elements of the first member.
///
/// # Errors
/// [`ErrorKind::Corrupt`] for what is no archive of a `.npy` member.
pub fn read(archive: &[u8]) -> Result<Vec<u8>> {
    read_up_to(archive, MAX_MEMBER_BYTES)
}

/// The elements of the first member, of them at most `limit_bytes`, whatever it would inflate to.
///
/// # Errors
/// As [`read`].
pub fn read_up_to(archive: &[u8], limit_bytes: u64) -> Result<Vec<u8>> {
    let corrupt = |e: &dyn std::fmt::Display| Error::new(ErrorKind::Corrupt, format!("no npz archive: {e}"));
    let mut zip = ZipArchive::new(Cursor::new(archive)).map_err(|e| corrupt(&e))?;
    let member = zip.by_index(0).map_err(|e| corrupt(&e))?;
    let mut npy = Vec::new();
    member
        .take(limit_bytes.saturating_add(MAX_HEADER_BYTES))
        .read_to_end(&mut npy)
        .map_err(|e| corrupt(&e))?;
    let after_magic = npy.strip_prefix(MAGIC).ok_or_else(|| corrupt(&"another magic"))?;
    let elements = after_magic
        .split_first_chunk()
        .and_then(|(len, rest)| rest.get(usize::from(u16::from_le_bytes(*len))..));
    let elements = elements.ok_or_else(|| corrupt(&"its header is cut"))?;
    let len = usize::try_from(limit_bytes).unwrap_or(usize::MAX).min(elements.len());
    Ok(elements[..len].to_vec())
}

fn npy_header(descr: &str, shape: &[u64]) -> Vec<u8> {
    let lengths: Vec<String> = shape.iter().map(ToString::to_string).collect();
    // A tuple of one has a comma behind it.
    let comma = if shape.len() == 1 { "," } else { "" };
    let mut text =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}", lengths.join(", "));
    let unpadded = MAGIC.len() + 2 + text.len() + 1;
    text += &" ".repeat(unpadded.next_multiple_of(ALIGNMENT) - unpadded);
    text.push('\n');
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [MAGIC, &len.to_le_bytes(), text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::synthetic;

    #[test]
    fn headers_are_numpys() {
        let header = npy_header("<f4", &[100, 100]);
        assert_eq!(header.len(), 128);
        assert!(
            header[10..].starts_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (100, 100), }   ")
        );
        assert_eq!(header.last(), Some(&b'\n'));
        assert!(String::from_utf8_lossy(&npy_header("|u1", &[7])).contains("(7,)"));
    }

    /// Sizes that NumPy 2.4.6 with zlib 1.2.13 made of the ten tensors; another deflate may differ a little.
    #[test]
    fn sizes_are_close_to_numpys() {
        const NUMPY: [usize; 10] = [30000, 29796, 30112, 30074, 29840, 30040, 29826, 29954, 30032, 30003];
        for (epoch, numpy) in (1..).zip(NUMPY) {
            let bytes: Vec<u8> = synthetic::gradients(epoch).iter().flat_map(|x| x.to_le_bytes()).collect();
            let archive = write("tensor", "<f4", &synthetic::SHAPE, &bytes).unwrap();
            assert_eq!(read(&archive).unwrap(), bytes);
            let difference = archive.len() as f64 / numpy as f64 - 1.0;
            assert!(difference.abs() < 0.005, "epoch {epoch}: {} bytes, {numpy} of NumPy's", archive.len());
        }
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let archive = write("x", "|u1", &[3], &[1, 2, 3]).unwrap();
        assert_eq!(read(&archive).unwrap(), [1, 2, 3]);
        for len in 0..archive.len() {
            assert!(read(&archive[..len]).is_err(), "cut at {len}");
        }
    }
}
