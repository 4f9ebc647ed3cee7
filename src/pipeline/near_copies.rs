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

/// What tensors must have in common to be cut into blocks alike: type, size and that of a block.
type Shape = (Dtype, u64, usize);

/// What near copies have in common: shape, which of their keys it is and the key.
type Key = (Shape, usize, u32);

/// The near copies among `regions` of a file, but for regions that `is_stored_once` says are stored as references. What is
/// a near copy is none of which others are copies. A source that cannot be read has none: its turn will bring the error.
pub(crate) fn find(
    source: &Source,
    regions: &[Region],
    is_stored_once: &dyn Fn(&Region) -> bool,
) -> NearCopies {
    let shape = |region: &Region| (region.dtype, region.len, region.block_bytes);
    let mut counts: HashMap<Shape, usize> = HashMap::new();
    let may_be_alike = |region: &&Region| {
        matches!(region.dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16) && region.len >= MIN_TENSOR_BYTES
    };
    for region in regions.iter().filter(may_be_alike) {
        *counts.entry(shape(region)).or_default() += 1;
    }
    let has_others = |region: &&Region| {
        may_be_alike(region)
            && counts.get(&shape(region)).is_some_and(|count| *count > 1)
            && !is_stored_once(region)
    };
    let mut firsts: HashMap<Key, &Region> = HashMap::new();
    let mut found = NearCopies::new();
    // On this thread alone: dedup has fetched the places that are looked at, and files may be many.
    for region in regions.iter().filter(has_others) {
        let Ok(probe) = probe(source, region) else { continue };
        let keys = keys(region.dtype, &probe).into_iter().enumerate();
        let keys = keys.map(|(idx, key)| (shape(region), idx, key));
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

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    /// 20,000 singles with a few exponents, and the same with other low bits.
    fn pair(rng: &mut ChaCha8Rng) -> [Vec<u8>; 2] {
        let bits: Vec<u32> = (0..20_000).map(|_| rng.next_u32() & 0x83ff_ffff | 0x3800_0000).collect();
        let near = bits.iter().map(|bits| bits ^ (rng.next_u32() & 0x3ff)).collect::<Vec<_>>();
        [bits, near].map(|bits| bits.into_iter().flat_map(u32::to_le_bytes).collect())
    }

    #[test]
    fn only_tensors_that_are_cut_alike_are_brought_together() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let [[first, near], [other, _]] = [pair(&mut rng), pair(&mut rng)];
        let again: Vec<u8> = near.iter().map(|byte| byte ^ u8::from(*byte == 3)).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, [&first[..], &other, &near, &again].concat()).unwrap();
        let source = Source::open(&path, 320_000).unwrap();
        let region = |number: u64, block_bytes: usize| Region {
            offset: 80_000 * number,
            len: 80_000,
            dtype: Dtype::F32,
            row_len: 0,
            block_bytes,
        };
        let regions = |sizes: [usize; 4]| [0, 1, 2, 3].map(|idx| region(idx, sizes[idx as usize]));
        let found = |sizes: [usize; 4], stored_once: u64| {
            let found = find(&source, &regions(sizes), &|region| region.offset == stored_once);
            let mut found: Vec<_> = found.into_iter().collect();
            found.sort_unstable();
            found
        };
        let one = 1 << 20;
        assert_eq!(found([one; 4], 1), [(160_000, 0), (240_000, 0)]);
        // Blocks of half the size: each has its counterpart.
        let halves = [(160_000, 0), (200_000, 40_000), (240_000, 0), (280_000, 40_000)];
        assert_eq!(found([40_000; 4], 1), halves);
        // The first is stored as a reference, or cut otherwise: the third is the base of the fourth.
        assert_eq!(found([one; 4], 0), [(240_000, 160_000)]);
        assert_eq!(found([40_000, one, one, one], 1), [(240_000, 160_000)]);
        assert_eq!(found([one, one, 40_000, 10_000], 1), []);
    }
}
