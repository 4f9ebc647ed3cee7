//! How a run tells its caller how far it has come.

/// Receives the progress of a run, from any worker thread; called once per block, never within one.
pub trait Progress: Sync {
    /// The run has begun and will go through `total_bytes` of original bytes, 0 where that is unknown.
    fn begin(&self, total_bytes: u64);
    /// File `file_idx` of the run, `bytes` long, has begun.
    fn file_started(&self, file_idx: usize, path: &str, bytes: u64);
    /// A block of `bytes` original bytes of file `file_idx` is done.
    fn advanced(&self, file_idx: usize, bytes: u64);
    /// File `file_idx` is done or has failed.
    fn file_finished(&self, file_idx: usize);
}

/// Progress that nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _total_bytes: u64) {}
    fn file_started(&self, _file_idx: usize, _path: &str, _bytes: u64) {}
    fn advanced(&self, _file_idx: usize, _bytes: u64) {}
    fn file_finished(&self, _file_idx: usize) {}
}
