//! An output whose space is reserved ahead, and that is synced to the disk while it is still being written.
//!
//! Where the file system has to find the place of each block of 4 KiB by itself, writing takes half as long again as
//! where it was asked beforehand for many of them.
//!
//! Syncing a large file only at its end costs about as long again as writing it, all of it waiting. A thread of
//! its own that syncs after every 32 MiB waits at the same time as others work.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{AtomicFile, Durability};

/// Bytes after which the disk is woken.
const SYNC_BYTES: u64 = 32 << 20;
/// Files of fewer bytes are written without a reservation.
const MIN_RESERVED_BYTES: u64 = 1 << 20;
/// Most bytes that are reserved at a time: no more than is soon written, whatever an archive claims.
const MAX_RESERVED_BYTES: u64 = 32 << 20;
/// Fewest. In between it is a quarter of what has been written: space that is given back costs time too.
const MIN_RESERVE_BYTES: u64 = 2 << 20;

/// An [`AtomicFile`] that is synced on the way.
#[derive(Debug)]
pub(crate) struct DurableFile {
    file: AtomicFile,
    durability: Durability,
    written_bytes: u64,
    /// Up to where space is reserved; the file is that long until it is trimmed.
    reserved_end: u64,
    /// Started with the first [`SYNC_BYTES`].
    syncer: Option<Syncer>,
}

#[derive(Debug)]
struct Syncer {
    wake: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl DurableFile {
    /// As [`AtomicFile::create_with_mode`].
    pub(crate) fn create(
        destination: &Path,
        overwrites: bool,
        mode: u32,
        durability: Durability,
    ) -> Result<Self> {
        let file = AtomicFile::create_with_mode(destination, overwrites, mode)?;
        Ok(Self { file, durability, written_bytes: 0, reserved_end: 0, syncer: None })
    }

    /// The file itself.
    pub(crate) fn atomic(&self) -> &AtomicFile {
        &self.file
    }

    /// Cuts off what was reserved and not written; to be called after the last byte.
    pub(crate) fn trim(&mut self) -> Result<()> {
        if self.reserved_end > self.written_bytes {
            self.file.set_len(self.written_bytes)?;
        }
        self.reserved_end = 0;
        Ok(())
    }

    /// Asks for the space of the next `len` bytes, and of some more. Where that fails, the writing will tell.
    fn reserve(&mut self, len: usize) {
        let end = self.written_bytes.saturating_add(len as u64);
        if end < MIN_RESERVED_BYTES || end <= self.reserved_end {
            return;
        }
        let ahead = (end / 4).clamp(MIN_RESERVE_BYTES, MAX_RESERVED_BYTES);
        if let Some(new_end) = end.checked_add(ahead)
            && self.file.reserve(self.reserved_end..new_end)
        {
            self.reserved_end = new_end;
        }
    }

    /// Gives the file its name, once all of it is as durable as asked for.
    pub(crate) fn commit(mut self) -> Result<()> {
        self.trim()?;
        let destination = self.file.destination().to_owned();
        if let Some(Syncer { wake, thread }) = self.syncer {
            drop(wake);
            // The kernel reports a failed write to one sync alone, so this one's error must not be lost.
            let synced =
                thread.join().map_err(|_| Error::new(ErrorKind::Internal, "the syncing thread failed"))?;
            synced.map_err(|e| Error::io("cannot sync to the disk", e).in_file(destination))?;
        }
        self.file.commit(self.durability)
    }

    fn wrote(&mut self, len: usize) {
        let before = self.written_bytes;
        self.written_bytes += len as u64;
        let is_due = before / SYNC_BYTES != self.written_bytes / SYNC_BYTES;
        if self.durability == Durability::PowerLoss && is_due {
            if self.syncer.is_none() {
                self.syncer = self.file.file().try_clone().and_then(Syncer::start).ok();
            }
            if let Some(syncer) = &self.syncer {
                // Full means that it is awake; gone, that it has an error, which the commit will meet.
                let _ = syncer.wake.try_send(());
            }
        }
    }
}

impl Syncer {
    fn start(file: File) -> io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let thread =
            std::thread::Builder::new().name("alcm-sync".into()).spawn(move || sync(&file, &woken))?;
        Ok(Self { wake, thread })
    }
}

fn sync(file: &File, woken: &Receiver<()>) -> io::Result<()> {
    woken.iter().try_for_each(|()| file.sync_data())
}

impl Write for DurableFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reserve(bytes.len());
        let written = self.file.write(bytes)?;
        self.wrote(written);
        Ok(written)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.reserve(parts.iter().map(|part| part.len()).sum());
        let written = self.file.write_vectored(parts)?;
        self.wrote(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_files_are_synced_on_the_way_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for durability in [Durability::PowerLoss, Durability::ProcessEnd] {
            let mut file = DurableFile::create(&path, true, 0o600, durability).unwrap();
            let block = vec![7; 5 << 20];
            (0..8).for_each(|_| file.write_all(&block).unwrap());
            assert_eq!(file.atomic().file().metadata().unwrap().len() > 40 << 20, cfg!(target_os = "linux"));
            file.trim().unwrap();
            assert_eq!(file.atomic().file().metadata().unwrap().len(), 40 << 20);
            assert_eq!(file.syncer.is_some(), durability == Durability::PowerLoss);
            file.commit().unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 40 << 20);
        }
    }
}
