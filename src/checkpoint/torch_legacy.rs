//! Where the storages of a PyTorch file of before version 1.6 lie.
//!
//! Format: `_legacy_save` in <https://github.com/pytorch/pytorch/blob/main/torch/serialization.py>: pickles of a magic
//! number, a version, the machine that wrote it, the object, and the storages' keys. Then there is for each key the number
//! of its storage's elements, and these.

use super::number_runs::{MIN_RUN_BYTES, NumberRun};
use super::numbers::{ReadAt, begins_with, parse_prefix};
use super::pickle::{Pickle, Storage, max_bytes};
use crate::error::Result;
use crate::limits::Limits;

/// The pickles of the magic number and of the version, 1001.
const HEAD: [u8; 21] = *b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";

/// The runs of numbers of an old PyTorch file of `len` bytes, in order; `None` where it is none, or a malformed one.
///
/// # Errors
/// Those of `read`.
pub(super) fn legacy_torch_runs(
    len: u64,
    read: &ReadAt<'_>,
    limits: &Limits,
) -> Result<Option<Vec<NumberRun>>> {
    if !begins_with(len, read, &HEAD)? {
        return Ok(None);
    }
    match parse_prefix(len, max_bytes(limits), read, |prefix| pickles(prefix, limits))? {
        Some((data_start, storages)) => runs(data_start, &storages, len, read),
        None => Ok(None),
    }
}

/// Where the pickles at the front of a file end, and the storages in the order of the file, with `None` for those that the
/// object does not refer to. `None` where pickles are malformed, or not all there.
fn pickles(prefix: &[u8], limits: &Limits) -> Option<(u64, Vec<Option<Storage>>)> {
    let mut rest = prefix.get(HEAD.len()..)?;
    let mut next = || {
        let pickle = Pickle::parse(rest, limits);
        rest = rest.get(pickle.len?..)?;
        Some(pickle)
    };
    let (_machine, object, keys) = (next()?, next()?, next()?);
    let storages: Vec<_> = keys.appended.iter().map(|key| object.storages.get(key).copied()).collect();
    let data_start = (prefix.len() - rest.len()) as u64;
    (storages.len() <= limits.tensors).then_some((data_start, storages))
}

/// The runs of `storages`, the first of which begins at `data_start`; `None` if they lie beyond the file's end.
fn runs(
    data_start: u64,
    storages: &[Option<Storage>],
    len: u64,
    read: &ReadAt<'_>,
) -> Result<Option<Vec<NumberRun>>> {
    let (mut runs, mut end) = (Vec::new(), data_start);
    for storage in storages {
        // Behind one of an unknown length nothing can be found.
        let Some((storage, element_bytes)) = storage.and_then(|it| Some((it, it.element_bytes?))) else {
            break;
        };
        let mut n_elements = [0; 8];
        let start = end.saturating_add(n_elements.len() as u64);
        if start > len {
            return Ok(None);
        }
        read(end, &mut n_elements)?;
        let n_bytes = u64::from_le_bytes(n_elements).checked_mul(element_bytes);
        let Some(storage_end) = n_bytes.and_then(|n| start.checked_add(n)).filter(|&end| end <= len) else {
            return Ok(None);
        };
        end = storage_end;
        if end - start >= MIN_RUN_BYTES {
            runs.push(NumberRun { start, end, dtype: storage.dtype, row_len: storage.row_len });
        }
    }
    Ok(Some(runs))
}

#[cfg(test)]
mod tests {
    use super::super::number_runs::assert_in_order;
    use super::super::numbers::read_from;
    use super::super::pickle::tensors_pickle;
    use super::*;
    use crate::dtype::Dtype;
    use crate::error::{Error, ErrorKind};
    use proptest::prelude::*;

    /// A file of three storages, of which the second is small, and where its data begin.
    fn file() -> (Vec<u8>, usize) {
        let object = tensors_pickle(&[
            ("HalfStorage", "30", &[100, 40], &[40, 1]),
            ("FloatStorage", "20", &[3], &[1]),
            ("FloatStorage", "10", &[50, 60], &[60, 1]),
        ]);
        let machine = b"\x80\x02}q\0X\x0d\0\0\0little_endianq\x01\x88s.";
        let keys = b"\x80\x02]q\0(X\x02\0\0\x0010q\x01X\x02\0\0\x0020q\x02X\x02\0\0\x0030q\x03e.";
        let mut bytes = [&HEAD[..], machine, &object, keys].concat();
        let data_start = bytes.len();
        for (n_elements, element_bytes) in [(3000u64, 4), (3, 4), (4000, 2)] {
            bytes.extend(n_elements.to_le_bytes());
            bytes.extend(vec![7; n_elements as usize * element_bytes]);
        }
        (bytes, data_start)
    }

    fn found(bytes: &[u8]) -> Option<Vec<NumberRun>> {
        legacy_torch_runs(bytes.len() as u64, &read_from(bytes), &Limits::default()).unwrap()
    }

    #[test]
    fn storages_are_runs() {
        let (bytes, data_start) = file();
        let first = data_start as u64 + 8;
        let expected = [
            NumberRun { start: first, end: first + 12_000, dtype: Some(Dtype::F32), row_len: 60 },
            NumberRun { start: first + 12_028, end: first + 20_028, dtype: Some(Dtype::F16), row_len: 40 },
        ];
        assert_eq!(found(&bytes).unwrap(), expected);
        assert_eq!(bytes.len() as u64, first + 20_028);
        // One that the object says nothing of ends what can be found.
        let at = bytes[..data_start].windows(2).rposition(|pair| pair == b"20").unwrap();
        let unknown = [&bytes[..at], b"99", &bytes[at + 2..]].concat();
        assert_eq!(found(&unknown).unwrap(), expected[..1]);
    }

    #[test]
    fn malformed_files_are_none() {
        let (bytes, data_start) = file();
        for end in (0..bytes.len()).step_by(7) {
            assert_eq!(found(&bytes[..end]), None, "{end}");
        }
        let with = |at: usize, part: &[u8]| [&bytes[..at], part, &bytes[at + part.len()..]].concat();
        for broken in [with(0, b"X"), with(HEAD.len() - 2, &[4]), with(data_start, &[0xff; 8])] {
            assert_eq!(found(&broken), None);
        }
        let limits = Limits { header_bytes: data_start as u64 - 1, ..Limits::default() };
        assert_eq!(legacy_torch_runs(bytes.len() as u64, &read_from(&bytes), &limits).unwrap(), None);
    }

    #[test]
    fn errors_of_reading_are_passed_on() {
        let fails = |_: u64, _: &mut [u8]| Err(Error::new(ErrorKind::Io, "gone"));
        assert!(legacy_torch_runs(1 << 20, &fails, &Limits::default()).is_err());
    }

    proptest! {
        #[test]
        fn changed_files_never_panic(changes in prop::collection::vec((0usize..900, any::<u8>()), 1..6)) {
            let (mut bytes, _) = file();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            assert_in_order(&found(&bytes).unwrap_or_default(), bytes.len());
        }
    }
}
