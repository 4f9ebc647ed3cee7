//! Buffers that are written together: a file system takes fewer, larger pages for one long write than for several
//! short ones, and less time.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::ops::Deref;

/// Bytes after which what was gathered is to be written.
const FULL_BYTES: usize = 2 << 20;
/// Buffers after which it is to be written; systems take so many at a time.
const FULL_PARTS: usize = 64;

/// Buffers to be written in the order in which they were gathered.
#[derive(Debug)]
pub(crate) struct Gather<B> {
    parts: Vec<B>,
    bytes: usize,
}

impl<B> Default for Gather<B> {
    fn default() -> Self {
        Self { parts: Vec::new(), bytes: 0 }
    }
}

impl<B: Deref<Target = [u8]>> Gather<B> {
    /// Adds a buffer, and says whether all are to be written now.
    pub(crate) fn push(&mut self, part: B) -> bool {
        self.bytes += part.len();
        self.parts.push(part);
        self.bytes >= FULL_BYTES || self.parts.len() >= FULL_PARTS
    }

    /// Writes all buffers and gives them back.
    pub(crate) fn write(
        &mut self,
        sink: &mut (dyn Write + Send),
    ) -> io::Result<impl Iterator<Item = B> + use<B>> {
        let mut slices: Vec<IoSlice<'_>> = self.parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut slices = slices.as_mut_slice();
        // Skips empty ones, of which a write may well give 0.
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match sink.write_vectored(slices) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut slices, written),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.bytes = 0;
        Ok(std::mem::take(&mut self.parts).into_iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time, and is interrupted every other time.
    struct Reluctant {
        taken: Vec<u8>,
        calls: usize,
    }

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.calls.is_multiple_of(2) {
                return Err(ErrorKind::Interrupted.into());
            }
            self.taken.extend(bytes.iter().take(3));
            Ok(bytes.len().min(3))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_is_written_in_order_and_comes_back() {
        let mut gather = Gather::default();
        let parts = [&b"abcde"[..], b"", b"f", b"ghijklm", b""].map(<[u8]>::to_vec);
        let mut sink = Reluctant { taken: Vec::new(), calls: 0 };
        for _ in 0..2 {
            assert!(parts.iter().all(|part| !gather.push(part.clone())));
            assert_eq!(gather.write(&mut sink).unwrap().collect::<Vec<_>>(), parts);
        }
        assert_eq!(sink.taken, b"abcdefghijklmabcdefghijklm");
        assert_eq!(gather.write(&mut sink).unwrap().count(), 0);
        let full = &mut [0; 2][..];
        (0..3).for_each(|_| assert!(!gather.push(vec![1])));
        assert_eq!(gather.write(&mut &mut *full).err().unwrap().kind(), ErrorKind::WriteZero);
    }

    #[test]
    fn it_is_full_of_bytes_or_of_parts() {
        let mut gather = Gather::default();
        assert!(!gather.push(vec![0; FULL_BYTES - 1]));
        assert!(gather.push(vec![0; 1]));
        let mut gather = Gather::default();
        assert_eq!((0..FULL_PARTS).position(|_| gather.push(Vec::new())), Some(FULL_PARTS - 1));
    }
}
