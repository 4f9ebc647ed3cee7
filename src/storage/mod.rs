//! Files: mapped sources that are watched for change, outputs that get their name only when complete.

mod atomic_write;
pub mod guard;
mod mmap;

pub use atomic_write::{AtomicFile, Durability, PARTIAL_SUFFIX, remove_stale_partials};
pub use mmap::{FileIdentity, MappedFile};
