//! Where numbers lie in a zip archive: a PyTorch file of version 1.6 or later, a TorchScript, an archive of NumPy arrays.
//!
//! Formats: <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>,
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>. Only entries that are stored as they are have
//! numbers to be found. A pickle `<folder>.pkl` tells of the storages in the entries `<folder>/<key>`.

use std::collections::BTreeMap;

use super::layout::row_len;
use super::number_runs::{MIN_RUN_BYTES, NumberRun};
use super::numbers::{ReadAt, begins_with};
use super::pickle::{Pickle, Storage, max_bytes};
use crate::bits::ByteCursor;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::limits::Limits;

const LOCAL_HEADER: [u8; 4] = *b"PK\x03\x04";
const LOCAL_HEADER_BYTES: usize = 30;
const DIRECTORY_HEADER: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const END_BYTES: usize = 22;
const END_64: [u8; 4] = *b"PK\x06\x06";
const END_64_BYTES: usize = 56;
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";
const LOCATOR_64_BYTES: usize = 20;
/// What has no room in a field of 32 bits is in the extra field of this id.
const EXTRA_64: u16 = 1;
/// The end of the directory is at most a comment, itself and its locator before the end of the file.
const MAX_TAIL_BYTES: u64 = (64 << 10) + (END_BYTES + LOCATOR_64_BYTES) as u64;
/// Bytes of an array that its header is looked for in; NumPy's take 128.
const MAX_ARRAY_HEADER_BYTES: u64 = 4 << 10;

/// The storages of pickles, by the folder that they lie in, and by their keys.
type Folders<'a> = BTreeMap<&'a [u8], BTreeMap<Vec<u8>, Storage>>;

/// The runs of numbers of a zip archive of `len` bytes, in order; `None` where it is none, or a malformed one.
///
/// # Errors
/// Those of `read`.
pub(super) fn zip_runs(len: u64, read: &ReadAt<'_>, limits: &Limits) -> Result<Option<Vec<NumberRun>>> {
    if !begins_with(len, read, &LOCAL_HEADER)? {
        return Ok(None);
    }
    let Some((directory, bytes)) = directory(len, read, limits)? else { return Ok(None) };
    let Some(mut entries) = entries(&bytes, directory.n_entries) else { return Ok(None) };
    entries.sort_by_key(|entry| entry.header_start);
    let mut places = Vec::new();
    let mut last_end = 0;
    for entry in entries {
        let Some(place) = place(&entry, directory.start, read)? else { return Ok(None) };
        // No byte of a file is in two entries of an archive that means well.
        if place.start >= last_end {
            last_end = place.end;
            places.push(place);
        }
    }
    let folders = folders(&places, read, limits)?;
    let mut runs = Vec::new();
    for place in &places {
        let run = if place.name.ends_with(b".npy") { array_run(place, read)? } else { run(place, &folders) };
        // Whole elements only.
        let n_bytes = run.end.saturating_sub(run.start);
        let rest = n_bytes % run.dtype.map_or(1, |dtype| dtype.unit_bytes() as u64);
        if n_bytes - rest >= MIN_RUN_BYTES {
            runs.push(NumberRun { end: run.end - rest, ..run });
        }
    }
    Ok(Some(runs))
}

/// Where the directory of an archive is.
#[derive(Debug, Clone, Copy)]
struct Directory {
    n_entries: u64,
    len: u64,
    start: u64,
}

/// The directory of an archive, and its bytes; `None` if there is none, or it is malformed.
fn directory(len: u64, read: &ReadAt<'_>, limits: &Limits) -> Result<Option<(Directory, Vec<u8>)>> {
    let tail_len = len.min(MAX_TAIL_BYTES);
    let Ok(n_bytes) = usize::try_from(tail_len) else { return Ok(None) };
    let mut tail = vec![0; n_bytes];
    read(len - tail_len, &mut tail)?;
    let Some((end_at, mut found)) = end_of_directory(&tail) else { return Ok(None) };
    if let Some(offset) = tail.get(..end_at).and_then(locator_64) {
        let mut end = [0; END_64_BYTES];
        if offset.checked_add(end.len() as u64).is_none_or(|end| end > len) {
            return Ok(None);
        }
        read(offset, &mut end)?;
        let Some(wide) = end_of_directory_64(&end) else { return Ok(None) };
        found = wide;
    }
    let is_within = found.start.checked_add(found.len).is_some_and(|end| end <= len);
    let is_bounded = found.len <= limits.header_bytes
        && usize::try_from(found.n_entries).is_ok_and(|n| n <= limits.tensors);
    let Some(n_bytes) = usize::try_from(found.len).ok().filter(|_| is_within && is_bounded) else {
        return Ok(None);
    };
    let mut bytes = vec![0; n_bytes];
    read(found.start, &mut bytes)?;
    Ok(Some((found, bytes)))
}

/// Where in the file's tail the last end of a directory is, and what it says.
fn end_of_directory(tail: &[u8]) -> Option<(usize, Directory)> {
    let at = tail.windows(END_BYTES).rposition(|window| window.starts_with(&END))?;
    let mut src = ByteCursor::new(tail.get(at..)?);
    // The signature, two numbers of disks, and the entries on this one.
    src.take(10)?;
    let (n_entries, len, start) = (src.u16()?.into(), src.u32()?.into(), src.u32()?.into());
    Some((at, Directory { n_entries, len, start }))
}

/// Where the wider end of the directory of a large archive is, if there is one, by what is before the other end.
fn locator_64(before: &[u8]) -> Option<u64> {
    let mut src = ByteCursor::new(before.last_chunk::<LOCATOR_64_BYTES>()?);
    if src.array()? != LOCATOR_64 {
        return None;
    }
    // The number of its disk.
    src.take(4)?;
    src.u64()
}

/// What the wider end of a directory says.
fn end_of_directory_64(end: &[u8]) -> Option<Directory> {
    let mut src = ByteCursor::new(end);
    if src.array()? != END_64 {
        return None;
    }
    // Its length, versions, numbers of disks, and the entries on this one.
    src.take(28)?;
    Some(Directory { n_entries: src.u64()?, len: src.u64()?, start: src.u64()? })
}

/// An entry of the directory.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    name: &'a [u8],
    /// Where its local header begins.
    header_start: u64,
    len: u64,
}

/// The entries of a directory that are stored as they are and of some length, pickles of any length; `None` if it is
/// malformed.
fn entries(directory: &[u8], n_entries: u64) -> Option<Vec<Entry<'_>>> {
    let mut src = ByteCursor::new(directory);
    let mut entries = Vec::new();
    for _ in 0..n_entries {
        let (entry, is_stored) = entry(&mut src)?;
        if is_stored && (entry.len >= MIN_RUN_BYTES || entry.name.ends_with(b".pkl")) {
            entries.push(entry);
        }
    }
    Some(entries)
}

/// The next entry of a directory, and whether its bytes are stored as they are.
fn entry<'a>(src: &mut ByteCursor<'a>) -> Option<(Entry<'a>, bool)> {
    if src.array()? != DIRECTORY_HEADER {
        return None;
    }
    // Versions of the writer and for the reader.
    src.take(4)?;
    let (flags, method) = (src.u16()?, src.u16()?);
    // Time, date, checksum.
    src.take(8)?;
    let (stored_len, len) = (src.u32()?, src.u32()?);
    let [name_len, extra_len, comment_len] = [src.u16()?, src.u16()?, src.u16()?].map(usize::from);
    // The disk's number, attributes.
    src.take(8)?;
    let header_start = src.u32()?;
    let (name, extra) = (src.take(name_len)?, src.take(extra_len)?);
    src.take(comment_len)?;
    let mut wide = ByteCursor::new(extra_64(extra).unwrap_or_default());
    let mut widen = |field: u32| if field == u32::MAX { wide.u64() } else { Some(u64::from(field)) };
    let (len, stored_len, header_start) = (widen(len)?, widen(stored_len)?, widen(header_start)?);
    // The lowest flag: encrypted.
    let is_stored = method == 0 && flags & 1 == 0 && stored_len == len;
    Some((Entry { name, header_start, len }, is_stored))
}

/// The extra field of large archives among those of an entry.
fn extra_64(extra: &[u8]) -> Option<&[u8]> {
    let mut src = ByteCursor::new(extra);
    loop {
        let (id, len) = (src.u16()?, src.u16()?);
        let field = src.take(usize::from(len))?;
        if id == EXTRA_64 {
            return Some(field);
        }
    }
}

/// Where the bytes of an entry lie.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    name: &'a [u8],
    start: u64,
    end: u64,
}

/// Where an entry's bytes lie: behind its local header, and before the directory; `None` if they do not.
fn place<'a>(entry: &Entry<'a>, directory_start: u64, read: &ReadAt<'_>) -> Result<Option<Place<'a>>> {
    let mut header = [0; LOCAL_HEADER_BYTES];
    let behind = |start: u64, len: u64| start.checked_add(len).filter(|&end| end <= directory_start);
    let Some(header_end) = behind(entry.header_start, header.len() as u64) else { return Ok(None) };
    read(entry.header_start, &mut header)?;
    let [b'P', b'K', 3, 4, .., name_low, name_high, extra_low, extra_high] = header else { return Ok(None) };
    let [name_len, extra_len] =
        [[name_low, name_high], [extra_low, extra_high]].map(|len| u64::from(u16::from_le_bytes(len)));
    let start = behind(header_end, name_len + extra_len);
    Ok(start.and_then(|start| Some(Place { name: entry.name, start, end: behind(start, entry.len)? })))
}

/// The storages that the pickles among `places` tell of. Pickles beyond [`max_bytes`] are not looked at.
fn folders<'a>(places: &[Place<'a>], read: &ReadAt<'_>, limits: &Limits) -> Result<Folders<'a>> {
    let (mut folders, mut room) = (Folders::new(), max_bytes(limits));
    for place in places {
        let Some(folder) = place.name.strip_suffix(b".pkl") else { continue };
        let len = place.end - place.start;
        let (Some(rest), Ok(n_bytes)) = (room.checked_sub(len), usize::try_from(len)) else { continue };
        room = rest;
        let mut bytes = vec![0; n_bytes];
        read(place.start, &mut bytes)?;
        let storages = Pickle::parse(&bytes, limits).storages;
        folders.insert(folder, storages.into_iter().map(|(key, storage)| (key.to_vec(), storage)).collect());
    }
    Ok(folders)
}

/// All of an entry, with what its folder's pickle tells of it.
fn run(place: &Place<'_>, folders: &Folders<'_>) -> NumberRun {
    let slash = place.name.iter().rposition(|&byte| byte == b'/');
    let storage = slash.and_then(|at| {
        let (folder, key) = place.name.split_at_checked(at)?;
        folders.get(folder)?.get(key.get(1..)?)
    });
    let (dtype, row_len) = storage.map_or((None, 0), |storage| (storage.dtype, storage.row_len));
    NumberRun { start: place.start, end: place.end, dtype, row_len }
}

/// The numbers of a NumPy array; all of an entry that is no array.
fn array_run(place: &Place<'_>, read: &ReadAt<'_>) -> Result<NumberRun> {
    let prefix_len = (place.end - place.start).min(MAX_ARRAY_HEADER_BYTES);
    let mut prefix = vec![0; usize::try_from(prefix_len).unwrap_or(0)];
    read(place.start, &mut prefix)?;
    let (header_len, dtype, row_len) = array_header(&prefix).unwrap_or((0, None, 0));
    Ok(NumberRun { start: place.start + header_len, end: place.end, dtype, row_len })
}

/// The length of an array's header, the type of its elements, and how many make a row; `None` if it is malformed, or not
/// all in `prefix`.
fn array_header(prefix: &[u8]) -> Option<(u64, Option<Dtype>, usize)> {
    let mut src = ByteCursor::new(prefix);
    if src.array()? != *b"\x93NUMPY" {
        return None;
    }
    let [major, _minor] = src.array()?;
    let len = match major {
        1 => u32::from(src.u16()?),
        2 | 3 => src.u32()?,
        _ => return None,
    };
    let header = std::str::from_utf8(src.take(usize::try_from(len).ok()?)?).ok()?;
    let header_len = (prefix.len() - src.rest().len()) as u64;
    // Records of several fields have a list there.
    let dtype = value_of(header, "'descr'")?.strip_prefix('\'').and_then(|rest| rest.split('\'').next());
    let Some(dtype) = dtype.and_then(array_dtype) else { return Some((header_len, None, 0)) };
    let is_fortran = value_of(header, "'fortran_order'")?.starts_with("True");
    let (shape, _) = value_of(header, "'shape'")?.strip_prefix('(')?.split_once(')')?;
    let dimensions = shape.split(',').map(str::trim).filter(|dimension| !dimension.is_empty());
    let shape: Vec<u64> = dimensions.map(|dimension| dimension.parse().ok()).collect::<Option<_>>()?;
    let row_len = if is_fortran { row_len(shape.iter()) } else { row_len(shape.iter().rev()) };
    Some((header_len, Some(dtype), row_len))
}

/// What follows a key in the literal of a dictionary.
fn value_of<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(key)?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

/// A type of elements by its name in NumPy.
fn array_dtype(name: &str) -> Option<Dtype> {
    match name {
        "<f8" => Some(Dtype::F64),
        "<f4" => Some(Dtype::F32),
        "<f2" => Some(Dtype::F16),
        "<i8" => Some(Dtype::I64),
        "<i4" => Some(Dtype::I32),
        "<i2" => Some(Dtype::I16),
        "|i1" => Some(Dtype::I8),
        "<u8" => Some(Dtype::U64),
        "<u4" => Some(Dtype::U32),
        "<u2" => Some(Dtype::U16),
        "|u1" => Some(Dtype::U8),
        "|b1" => Some(Dtype::Bool),
        "<c8" => Some(Dtype::C64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::number_runs::assert_in_order;
    use super::super::numbers::read_from;
    use super::super::pickle::tensors_pickle;
    use super::*;
    use crate::error::{Error, ErrorKind};
    use proptest::prelude::*;

    /// An archive of entries: name, method, bytes. Those of torch are aligned by an extra field, and always wide.
    fn archive(entries: &[(&str, u16, &[u8])], is_wide: bool) -> Vec<u8> {
        let (mut bytes, mut directory) = (Vec::new(), Vec::new());
        let lens = |name: &str, extra: &[u8]| [name.len(), extra.len()].map(|len| [len as u8, 0]).concat();
        for (name, method, data) in entries {
            let (header_start, len) = (bytes.len() as u64, data.len() as u64);
            let padding = vec![b'Z'; 64 - (bytes.len() + LOCAL_HEADER_BYTES + name.len()) % 64];
            let narrow = |field: u64| if is_wide { u32::MAX } else { field as u32 }.to_le_bytes();
            let common = [&[20, 0, 0, 0][..], &method.to_le_bytes(), &[0; 8], &narrow(len), &narrow(len)];
            let common = common.concat();
            bytes.extend([&LOCAL_HEADER[..], &common, &lens(name, &padding)].concat());
            bytes.extend([name.as_bytes(), &padding, data].concat());
            let mut extra = b"\x99\x00\x02\x00??".to_vec();
            if is_wide {
                extra.extend([1, 0, 24, 0]);
                extra.extend([len, len, header_start].map(u64::to_le_bytes).concat());
            }
            directory.extend([&DIRECTORY_HEADER[..], &[20, 0], &common, &lens(name, &extra)].concat());
            directory.extend([&[0; 10][..], &narrow(header_start), name.as_bytes(), &extra].concat());
        }
        let (start, len, n_entries) = (bytes.len() as u64, directory.len() as u64, entries.len() as u64);
        bytes.extend(directory);
        if is_wide {
            let end_start = bytes.len() as u64;
            bytes.extend([&END_64[..], &44u64.to_le_bytes(), &[0; 12]].concat());
            bytes.extend([n_entries, n_entries, len, start].map(u64::to_le_bytes).concat());
            bytes.extend([&LOCATOR_64[..], &[0; 4], &end_start.to_le_bytes(), &[1, 0, 0, 0]].concat());
            bytes.extend([&END[..], &[0; 4], &[0xff; 12], &[0; 2]].concat());
        } else {
            bytes.extend([&END[..], &[0; 4], &[n_entries as u8, 0, n_entries as u8, 0]].concat());
            bytes.extend([len as u32, start as u32].map(u32::to_le_bytes).concat());
            bytes.extend(b"\x09\0a comment");
        }
        bytes
    }

    fn array(version: u8, header: &str, n_bytes: usize) -> Vec<u8> {
        let len = (header.len() as u32).to_le_bytes();
        let len = if version == 1 { &len[..2] } else { &len };
        [b"\x93NUMPY", &[version, 0][..], len, header.as_bytes(), &vec![7; n_bytes]].concat()
    }

    fn torch_file(is_wide: bool) -> Vec<u8> {
        let pickle = tensors_pickle(&[
            ("FloatStorage", "0", &[50, 60], &[60, 1]),
            ("BFloat16Storage", "1", &[100, 80], &[1, 100]),
            ("FloatStorage", "2", &[3], &[1]),
        ]);
        let entries: [(&str, u16, &[u8]); 7] = [
            ("model/data.pkl", 0, &pickle),
            ("model/data/1", 0, &[1; 16_001]),
            ("model/data/2", 0, &[2; 12]),
            ("model/data/0", 0, &[3; 12_000]),
            ("model/data/9", 0, &[4; 9000]),
            ("model/code.py", 8, &[5; 9000]),
            ("0", 0, &[6; 9000]),
        ];
        archive(&entries, is_wide)
    }

    fn found(bytes: &[u8]) -> Option<Vec<NumberRun>> {
        zip_runs(bytes.len() as u64, &read_from(bytes), &Limits::default()).unwrap()
    }

    #[test]
    fn storages_of_torch_are_runs() {
        for is_wide in [false, true] {
            let bytes = torch_file(is_wide);
            let runs = found(&bytes).unwrap();
            let seen: Vec<_> = runs.iter().map(|run| (run.end - run.start, run.dtype, run.row_len)).collect();
            let expected = [
                (16_000, Some(Dtype::Bf16), 0),
                (12_000, Some(Dtype::F32), 60),
                (9000, None, 0),
                (9000, None, 0),
            ];
            assert_eq!(seen, expected);
            for (run, byte) in runs.iter().zip([1, 3, 4, 6]) {
                assert!(bytes[run.start as usize..run.end as usize].iter().all(|&b| b == byte));
                assert_eq!(run.start % 64, 0);
            }
        }
    }

    #[test]
    fn arrays_are_runs_behind_their_headers() {
        let arrays = [
            array(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (51, 1, 25), }   \n", 5100),
            array(2, "{'descr': '<f2', 'fortran_order': True, 'shape': (60, 70), }\n", 8400),
            array(3, "{'shape': (9000,),'descr':'|u1','fortran_order':False}\n", 9000),
            array(1, "{'descr': '>f8', 'fortran_order': False, 'shape': (40, 30), }\n", 9600),
            array(
                1,
                "{'descr': [('a', '<f8'), ('b', '<i4')], 'fortran_order': False, 'shape': (800,), }",
                9600,
            ),
            array(9, "{'descr': '<f4', 'fortran_order': False, 'shape': (51, 25), }   \n", 5100),
        ];
        let entries: Vec<(&str, u16, &[u8])> = arrays.iter().map(|bytes| ("a.npy", 0, &bytes[..])).collect();
        let runs = found(&archive(&entries, false)).unwrap();
        let seen: Vec<_> = runs.iter().map(|run| (run.end - run.start, run.dtype, run.row_len)).collect();
        let expected = [
            (5100, Some(Dtype::F32), 25),
            (8400, Some(Dtype::F16), 60),
            (9000, Some(Dtype::U8), 0),
            (9600, None, 0),
            (9600, None, 0),
            (arrays[5].len() as u64, None, 0),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn malformed_archives_are_none() {
        for is_wide in [false, true] {
            let bytes = torch_file(is_wide);
            for end in (0..bytes.len() - END_BYTES).step_by(11).chain(bytes.len() - 50..bytes.len() - 33) {
                assert_eq!(found(&bytes[..end]), None, "{end}");
            }
            let position = |part: &[u8]| bytes.windows(part.len()).rposition(|it| it == part).unwrap();
            let with = |at: usize, part: &[u8]| [&bytes[..at], part, &bytes[at + part.len()..]].concat();
            let (end, entry) = (position(&END), position(&DIRECTORY_HEADER));
            let counts = if is_wide { position(&END_64) + 32 } else { end + 10 };
            let mut broken =
                vec![with(0, b"X"), with(entry, b"X"), with(counts, &[8]), with(entry + 28, &[99])];
            broken.push(with(position(&LOCAL_HEADER), b"X"));
            if is_wide {
                broken.push(with(end - 12, &[0xff; 8]));
                broken.push(with(counts + 8, &[0xff; 8]));
                // The field that says where the last entry begins.
                broken.push(with(position(&END_64) - 1, &[1]));
            } else {
                broken.push(with(end + 12, &[0xff; 4]));
                broken.push(with(entry + 42, &[0xff; 2]));
            }
            for (idx, broken) in broken.iter().enumerate() {
                assert_eq!(found(broken), None, "{idx} {is_wide}");
            }
            for (header_bytes, tensors) in [(100, 100), (1 << 20, 6)] {
                let limits = Limits { header_bytes, tensors, ..Limits::default() };
                assert_eq!(zip_runs(bytes.len() as u64, &read_from(&bytes), &limits).unwrap(), None);
            }
        }
    }

    #[test]
    fn errors_of_reading_are_passed_on() {
        let fails = |_: u64, _: &mut [u8]| Err(Error::new(ErrorKind::Io, "gone"));
        assert!(zip_runs(1 << 20, &fails, &Limits::default()).is_err());
    }

    proptest! {
        #[test]
        fn changed_archives_give_runs_in_order(
            is_wide in any::<bool>(),
            is_array in any::<bool>(),
            // Where the headers of the archive and its pickle are, counted from its front or from its end.
            changes in prop::collection::vec((0usize..1400, any::<bool>(), any::<u8>()), 1..8),
        ) {
            let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (51, 1, 25), }   \n";
            let array = array(1, header, 5100);
            let entries: [(&str, u16, &[u8]); 2] = [("a.npy", 0, &array), ("b.npy", 0, &array)];
            let mut bytes = if is_array { archive(&entries, is_wide) } else { torch_file(is_wide) };
            for (at, is_from_end, byte) in changes {
                let at = if is_from_end { bytes.len() - 1 - at } else { at };
                bytes[at] = byte;
            }
            assert_in_order(&found(&bytes).unwrap_or_default(), bytes.len());
        }
    }
}
