//! Tensors that are much like an earlier one of their file, such as moving averages of weights.
//!
//! Two tensors of one type and size are compared by what is in three places of each, those that [`super::dedup`] looks at
//! too. To compare each with each would take too long in a file of many layers; so they are first brought together by
//! keys: which of two neighbouring elements is the larger, for some pairs of elements. Near copies agree on most such
//! questions, so that of several keys one is likely to be the same, and other tensors agree by chance once in 2^24.
//! (Keys of random bits of what is to be compared: P. Indyk and R. Motwani, "Approximate nearest neighbors", 1998.)

use std::collections::HashMap;

use super::dedup::{MIN_TENSOR_BYTES, PROBE_BYTES, probe_starts};
use super::source::Source;
use crate::checkpoint::{Region, blocks};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::stage::is_near_copy;

/// Pairs of elements that a key asks about.
const PAIRS_OF_KEY: usize = 24;
/// Keys of each place that is looked at.
const KEYS_OF_PLACE: usize = 2;
/// Keys of a tensor.
const N_KEYS: usize = 3 * KEYS_OF_PLACE;

/// By the original offset of a block, that of the earlier block which it is much like.
pub(crate) type NearCopies = HashMap<u64, u64>;

/// What near copies have in common: type, size, which of their keys it is and the key.
type Key = (Dtype, u64, usize, u32);

/// The near copies among `regions` of a file, but for regions that `is_stored_once` says are stored as references. What is
/// a near copy is none of which others are copies. A source that cannot be read has none: its turn will bring the error.
pub(crate) fn find(
    source: &Source,
    regions: &[Region],
    is_stored_once: &dyn Fn(&Region) -> bool,
) -> NearCopies {
    let mut sizes: HashMap<(Dtype, u64), usize> = HashMap::new();
    let may_be_alike = |region: &&Region| {
        matches!(region.dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16) && region.len >= MIN_TENSOR_BYTES
    };
    for region in regions.iter().filter(may_be_alike) {
        *sizes.entry((region.dtype, region.len)).or_default() += 1;
    }
    let has_others = |region: &&Region| {
        may_be_alike(region)
            && sizes.get(&(region.dtype, region.len)).is_some_and(|count| *count > 1)
            && !is_stored_once(region)
    };
    let mut firsts: HashMap<Key, &Region> = HashMap::new();
    let mut found = NearCopies::new();
    // On this thread alone: dedup has fetched the places that are looked at, and files may be many.
    for region in regions.iter().filter(has_others) {
        let Ok(probe) = probe(source, region) else { continue };
        let keys = keys(region.dtype, &probe).into_iter().enumerate();
        let keys = keys.map(|(idx, key)| (region.dtype, region.len, idx, key));
        let mut candidates: Vec<&Region> = keys.clone().filter_map(|key| firsts.get(&key).copied()).collect();
        candidates.sort_unstable_by_key(|base| base.offset);
        candidates.dedup_by_key(|base| base.offset);
        match candidates.into_iter().find(|base| is_near(source, region, base)) {
            Some(base) => {
                let moved = blocks(std::slice::from_ref(region))
                    .map(|span| (span.offset, span.offset - region.offset + base.offset));
                found.extend(moved);
            }
            None => keys.for_each(|key| {
                firsts.entry(key).or_insert(region);
            }),
        }
    }
    found
}

/// What is in three places of a region.
fn probe(source: &Source, region: &Region) -> Result<Vec<u8>> {
    let mut probe = vec![0; 3 * PROBE_BYTES];
    for (start, part) in probe_starts(region.len).into_iter().zip(probe.chunks_exact_mut(PROBE_BYTES)) {
        // The one in the middle may begin within an element.
        source.read(region.offset + start - start % region.dtype.unit_bytes() as u64, part)?;
    }
    Ok(probe)
}

fn is_near(source: &Source, region: &Region, base: &Region) -> bool {
    let probes = probe(source, region).and_then(|own| Ok((own, probe(source, base)?)));
    probes.is_ok_and(|(own, base)| is_near_copy(region.dtype, &own, &base))
}

/// The keys of a tensor by its probe.
fn keys(dtype: Dtype, probe: &[u8]) -> [u32; N_KEYS] {
    let unit_bytes = dtype.unit_bytes();
    let place_bytes = PROBE_BYTES / KEYS_OF_PLACE;
    std::array::from_fn(|key_idx| {
        let elements = probe[key_idx * place_bytes..][..place_bytes].chunks_exact(2 * unit_bytes);
        elements.take(PAIRS_OF_KEY).fold(0, |key, pair| {
            let (first, second) = pair.split_at(unit_bytes);
            key << 1 | u32::from(rank(first) < rank(second))
        })
    })
}

/// A number that grows with the value of a float, of its little-endian bytes.
fn rank(element: &[u8]) -> i64 {
    let bits = element.iter().rev().fold(0, |bits, &byte| bits << 8 | i64::from(byte));
    let sign = 1 << (8 * element.len() - 1);
    if bits & sign == 0 { bits } else { -(bits & (sign - 1)) }
}
