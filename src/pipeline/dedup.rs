//! Tensors and files that are stored once: found by a fingerprint, confirmed by a hash of all their bytes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;

use rayon::prelude::*;

use super::context::Context;
use super::encode::EncodeMemory;
use super::settings::AsBytes;
use super::source::{Source, is_checkpoint_name};
use super::tree::SourceFile;
use crate::checkpoint::Region;
use crate::container::ContentHash;
use crate::dtype::Dtype;
use crate::error::Result;

/// Smallest tensor worth a reference, in bytes.
pub(super) const MIN_TENSOR_BYTES: u64 = 64 << 10;
/// Smallest file worth a `same_as`, in bytes: below, an archive is hardly larger than its manifest entry.
const MIN_FILE_BYTES: u64 = 4 << 10;
/// Bytes looked at in three places of each candidate.
pub(super) const PROBE_BYTES: usize = 4 << 10;

/// BLAKE3 over the first, middle and last 4 KiB of something; equal things have equal fingerprints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Fingerprint([u8; 32]);

/// Where the places begin that are looked at in something of `len` bytes, which may be shorter than one of them.
pub(super) fn probe_starts(len: u64) -> [u64; 3] {
    let end = len.saturating_sub(PROBE_BYTES as u64);
    [0, end / 2, end]
}

/// Fingerprint of the `len` bytes at `offset` that `read` fetches.
fn fingerprint(offset: u64, len: u64, read: &dyn Fn(u64, &mut [u8]) -> Result<()>) -> Result<Fingerprint> {
    let mut probe = [0; PROBE_BYTES];
    let probe_bytes = len.min(PROBE_BYTES as u64);
    let mut hasher = blake3::Hasher::new();
    for start in probe_starts(len) {
        // At most `PROBE_BYTES`, so the fallback is never taken.
        let probe = &mut probe[..usize::try_from(probe_bytes).unwrap_or(PROBE_BYTES)];
        read(offset + start, probe)?;
        hasher.update(probe);
    }
    Ok(Fingerprint(*hasher.finalize().as_bytes()))
}

/// A tensor that may be the duplicate of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TensorPlace {
    /// Number of the file in the run.
    pub(crate) file_idx: usize,
    /// Where the tensor begins in its file.
    pub(crate) offset: u64,
    /// Its size, in bytes.
    pub(crate) len: u64,
}

/// Type, size in bytes and fingerprint of a tensor.
type TensorKey = (Dtype, u64, Fingerprint);

/// A tensor that is the same as an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Duplicate {
    /// The tensor.
    pub(crate) place: TensorPlace,
    /// The first tensor like it; no duplicate itself.
    pub(crate) base: TensorPlace,
}

/// Two equal things, of which the base is first, and the hash of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair<T> {
    item: T,
    base: T,
    hash: ContentHash,
}

/// Pairs each of `items`, in their order, with the first item before it that has the same key and then the same
/// hash. Hashes are computed for items alone that share their key.
///
/// An item whose hash cannot be computed has no pair: its own turn will bring the error.
fn pair_duplicates<T: Copy, K: Eq + Hash>(
    items: &[(T, K)],
    hash: impl Fn(T) -> Result<ContentHash>,
) -> Vec<Pair<T>> {
    let mut groups: HashMap<&K, usize> = HashMap::new();
    for (_, key) in items {
        *groups.entry(key).or_default() += 1;
    }
    let mut first_by_hash: HashMap<(&K, ContentHash), T> = HashMap::new();
    let mut pairs = Vec::new();
    for (item, key) in items {
        if groups.get(key).is_none_or(|count| *count < 2) {
            continue;
        }
        let Ok(hash) = hash(*item) else { continue };
        match first_by_hash.get(&(key, hash)) {
            Some(first) => pairs.push(Pair { item: *item, base: *first, hash }),
            None => {
                first_by_hash.insert((key, hash), *item);
            }
        }
    }
    pairs
}

/// Which tensors and files of a run are stored once, by file number.
#[derive(Debug, Default)]
pub(crate) struct DedupPlan {
    /// Tensors to be stored as references, by offset.
    pub(crate) tensors: HashMap<usize, BTreeMap<u64, Duplicate>>,
    /// Whole files: the earlier file, and the hash that both had.
    pub(crate) files: HashMap<usize, (usize, ContentHash)>,
    /// Files that wait for others or that others wait for.
    pub(crate) linked: HashSet<usize>,
}

impl DedupPlan {
    /// Leaves only those equal tensors of which `stays` says that they stay so.
    pub(crate) fn retain(&mut self, stays: impl Fn(&Duplicate) -> bool) {
        self.tensors.values_mut().for_each(|duplicates| duplicates.retain(|_, duplicate| stays(duplicate)));
    }
}

/// Duplicates by the number of the file that holds their base.
pub(crate) fn group_by_base<'d>(
    duplicates: impl Iterator<Item = &'d Duplicate>,
) -> BTreeMap<usize, Vec<&'d Duplicate>> {
    let mut groups: BTreeMap<usize, Vec<&Duplicate>> = BTreeMap::new();
    for duplicate in duplicates {
        groups.entry(duplicate.base.file_idx).or_default().push(duplicate);
    }
    groups
}

/// The files of a run as dedup looks at them.
pub(crate) struct Planner<'a> {
    pub(crate) ctx: &'a Context<'a>,
    pub(crate) memory: &'a EncodeMemory,
    pub(crate) files: &'a [SourceFile],
    pub(crate) as_bytes: AsBytes,
    /// Whether tensors are not looked at.
    pub(crate) whole_files_only: bool,
}

impl Planner<'_> {
    fn open(&self, file_idx: usize) -> Result<Source> {
        let file = &self.files[file_idx];
        Source::open(&file.source, file.size)
    }

    /// Finds what is stored once. What cannot be read has no duplicates; its own turn will bring the error.
    pub(crate) fn plan(&self) -> DedupPlan {
        let mut plan = DedupPlan::default();
        let keys: Vec<(usize, _)> = (0..self.files.len())
            .into_par_iter()
            .filter(|file_idx| self.files[*file_idx].size >= MIN_FILE_BYTES)
            .filter_map(|file_idx| {
                let source = self.open(file_idx).ok()?;
                let print = fingerprint(0, source.len(), &|offset, dst| source.read(offset, dst)).ok()?;
                Some((file_idx, (source.len(), print)))
            })
            .collect();
        for pair in pair_duplicates(&keys, |file_idx| self.open(file_idx)?.hash(self.ctx, self.memory)) {
            plan.files.insert(pair.item, (pair.base, pair.hash));
            plan.linked.extend([pair.item, pair.base]);
        }
        if !self.whole_files_only {
            self.plan_tensors(&mut plan);
        }
        plan
    }

    fn plan_tensors(&self, plan: &mut DedupPlan) {
        // One file after the other, for a hostile header may need a hundred megabytes.
        let keys: Vec<_> = (0..self.files.len())
            .filter(|file_idx| !plan.files.contains_key(file_idx))
            .flat_map(|file_idx| self.tensor_keys(file_idx).unwrap_or_default())
            .collect();
        let hash = |place: TensorPlace| {
            self.open(place.file_idx)?.hash_range(place.offset, place.len, self.ctx, self.memory)
        };
        for Pair { item: place, base, .. } in pair_duplicates(&keys, hash) {
            plan.tensors.entry(place.file_idx).or_default().insert(place.offset, Duplicate { place, base });
            if place.file_idx != base.file_idx {
                plan.linked.extend([place.file_idx, base.file_idx]);
            }
        }
    }

    /// The tensors of a checkpoint that are worth a reference, with what equal ones have in common.
    fn tensor_keys(&self, file_idx: usize) -> Result<Vec<(TensorPlace, TensorKey)>> {
        let file = &self.files[file_idx];
        if file.size < MIN_TENSOR_BYTES || self.as_bytes == AsBytes::All || !is_checkpoint_name(&file.path) {
            return Ok(Vec::new());
        }
        let source = self.open(file_idx)?;
        let layout = source.layout(&file.path, self.as_bytes, &|_| false, &self.ctx.limits)?;
        // A tensor of this size is a region of its own, so that equal tensors are cut into equal blocks.
        let is_candidate = |region: &&Region| layout.is_checkpoint && region.len >= MIN_TENSOR_BYTES;
        let key = |region: &Region| {
            let place = TensorPlace { file_idx, offset: region.offset, len: region.len };
            let print = fingerprint(place.offset, place.len, &|offset, dst| source.read(offset, dst)).ok()?;
            Some((place, (region.dtype, place.len, print)))
        };
        Ok(layout.regions.par_iter().filter(is_candidate).filter_map(key).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
    use std::cell::RefCell;

    #[test]
    fn the_first_is_the_base_and_single_keys_are_not_hashed() {
        let items = [(0, "a"), (1, "b"), (2, "a"), (3, "a"), (4, "a"), (5, "c"), (6, "c")];
        let hashed = RefCell::new(Vec::new());
        let pairs = pair_duplicates(&items, |item: usize| {
            hashed.borrow_mut().push(item);
            match item {
                3 => Ok([3; 32]),
                5 => Err(Error::new(ErrorKind::Io, "gone")),
                _ => Ok([0; 32]),
            }
        });
        let pairs: Vec<_> = pairs.iter().map(|pair| (pair.item, pair.base)).collect();
        assert_eq!(pairs, [(2, 0), (4, 0)]);
        assert!(!hashed.borrow().contains(&1));
    }

    #[test]
    fn fingerprint_sees_start_middle_and_end() {
        let mut bytes = vec![0_u8; 100_000];
        let print = |bytes: &[u8]| {
            let read = |offset: u64, dst: &mut [u8]| {
                dst.copy_from_slice(&bytes[usize::try_from(offset).unwrap()..][..dst.len()]);
                Ok(())
            };
            fingerprint(10, bytes.len() as u64 - 10, &read).unwrap()
        };
        let blank = print(&bytes);
        for place in [10, 50_000, 99_999] {
            bytes[place] = 1;
            assert_ne!(print(&bytes), blank, "{place}");
            bytes[place] = 0;
        }
        bytes[9] = 1;
        assert_eq!(print(&bytes), blank);
        assert_ne!(print(&bytes[..20]), blank);
    }
}
