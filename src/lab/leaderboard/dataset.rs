//! What is compressed for the leaderboard: the bundles, and the synthetic gradients.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::lab::bundles::{self, load};
use crate::lab::codec::Subject;
use crate::lab::experiment::subject;
use crate::lab::synthetic::N_EPOCHS;

/// The ten tensors of the original report; here alone codecs may be lossy, since errors mean something.
pub const SYNTHETIC: &str = "synthetic_gradients";

/// Names of the datasets, in the order of tables.
pub fn names() -> impl Iterator<Item = &'static str> {
    bundles::NAMES.into_iter().chain(std::iter::once(SYNTHETIC))
}

/// The files of the dataset `name`; bundles are those of `bundles_dir`, their SHA-256 checked.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a dataset that is not known; as [`load`].
pub fn files(bundles_dir: &Path, name: &str) -> Result<Vec<Subject>> {
    if name == SYNTHETIC {
        let named = |epoch| Subject { name: format!("epoch_{epoch:02}"), ..subject(epoch) };
        return Ok((1..=N_EPOCHS).map(named).collect());
    }
    if !bundles::NAMES.contains(&name) {
        let message = format!("the dataset \"{}\" is not known", name.escape_debug());
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    Ok(load(bundles_dir, name)?.subjects)
}

/// Hex digits of a SHA-256 over parts, each with its length before it, so that none runs into the next.
#[must_use]
pub fn sha256_of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of a dataset's names and bytes.
#[must_use]
pub fn sha256_of(files: &[Subject]) -> String {
    sha256_of_parts(files.iter().flat_map(|file| [file.name.as_bytes(), file.bytes.as_slice()]))
}
