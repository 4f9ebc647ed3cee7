//! Files: sources that are watched for change, outputs that get their name only when complete.

mod atomic_write;
pub mod guard;
mod huge_memory;
mod identity;
mod mmap;
mod read;

pub use atomic_write::{AtomicFile, Durability, PARTIAL_SUFFIX, is_partial_name, remove_stale_partials};
pub use huge_memory::HugeMemory;
pub use identity::FileIdentity;
pub use mmap::MappedFile;
pub use read::ReadFile;
