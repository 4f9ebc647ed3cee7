//! By how much whole blocks take more than their samples say.
//!
//! Samples do not show which segments and columns of a block will share a table, nor what the tables and lists of channels
//! take: -25 to +2 % of the bits in all. But layers repeat, and blocks of tensors of the same shape are mostly alike in that.
//! So a few blocks of each kind stand for the others, as in stratified sampling (W. G. Cochran, "Sampling Techniques", 1977),
//! as many as they are found to differ by.

use rayon::prelude::*;

use super::method::Method;
use super::samples::{Sampled, SampledBlock};
use super::share_out::Waiting;
use crate::dtype::Dtype;
use crate::error::Result;

/// What blocks of a kind are taken to differ by, as a share of their bits, before any was counted.
const USUAL_SCATTER: f64 = 0.01;
/// Blocks of a kind that are counted at least, if it has as many: one does not show by how much they differ.
const FEWEST: usize = 2;
/// Kinds with a smaller share of all elements are taken together.
const SMALL_SHARE: f64 = 1.0 / 32.0;

/// Bits by which `tensors` take more than their samples say, by as many of their blocks as it takes for a standard error of
/// `max_noise`, a share of all bits.
pub(super) fn whole_less_samples(
    tensors: &[Waiting<'_>],
    sampled: &[Sampled],
    max_noise: f64,
) -> Result<f64> {
    let bits: f64 = sampled.iter().map(|sampled| sampled.bits).sum();
    let n_elements: f64 = tensors.iter().map(|waiting| waiting.tensor.n_elements() as f64).sum();
    let mean_bits = bits / n_elements;
    let find = |kind: &Kind<'_>| {
        // The variance of the sum is then that of `max_noise` at most, since shares add up to 1.
        let most_noise = max_noise * mean_bits / (kind.n_elements / n_elements).sqrt();
        Ok(kind.whole_less_sample(USUAL_SCATTER * mean_bits, most_noise)? * kind.n_elements)
    };
    let found: Vec<Result<f64>> = kinds(tensors, sampled, n_elements).par_iter().map(find).collect();
    // In order, so that the sum does not depend on the threads.
    found.into_iter().sum()
}

/// What blocks of a kind are alike in.
#[derive(PartialEq)]
struct Likeness<'a> {
    dtype: Dtype,
    shape: &'a [u64],
    method: Method,
    has_channels: bool,
}

/// Blocks that are alike.
#[derive(Default)]
struct Kind<'a> {
    /// Those that were sampled, and whose they are.
    blocks: Vec<(&'a Waiting<'a>, &'a Sampled, &'a SampledBlock)>,
    /// Elements that they stand for.
    n_elements: f64,
    /// Whether they are of several kinds that are each too small.
    is_mixed: bool,
}

/// The kinds of the sampled blocks of `tensors`, which have `n_elements`, in the order of their first.
fn kinds<'a>(tensors: &'a [Waiting<'_>], sampled: &'a [Sampled], n_elements: f64) -> Vec<Kind<'a>> {
    let mut kinds: Vec<(Likeness<'a>, Kind<'a>)> = Vec::new();
    for (waiting, sampled) in tensors.iter().zip(sampled).filter(|(_, sampled)| !sampled.blocks.is_empty()) {
        let candidate = waiting.tensor.candidate;
        let likeness = Likeness {
            dtype: candidate.dtype,
            shape: &candidate.info.shape,
            method: waiting.method,
            has_channels: sampled.spec.channels.is_some(),
        };
        let place = kinds.iter().position(|(other, _)| *other == likeness).unwrap_or_else(|| {
            kinds.push((likeness, Kind::default()));
            kinds.len() - 1
        });
        let (_, kind) = &mut kinds[place];
        kind.blocks.extend(sampled.blocks.iter().map(|block| (waiting, sampled, block)));
        kind.n_elements += waiting.tensor.n_elements() as f64;
    }
    let is_small = |kind: &Kind<'_>| kind.n_elements < SMALL_SHARE * n_elements;
    let (small, mut kinds): (Vec<_>, Vec<_>) = kinds.into_iter().map(|(_, kind)| kind).partition(is_small);
    kinds.extend(small.into_iter().reduce(|mut others, kind| {
        others.blocks.extend(kind.blocks);
        others.n_elements += kind.n_elements;
        others.is_mixed = true;
        others
    }));
    kinds
}

impl Kind<'_> {
    /// Bits an element by which its blocks take more than their samples say. As many are counted as it takes for a standard
    /// error of `most_noise`, if they differ by `usual_scatter` or more.
    fn whole_less_sample(&self, usual_scatter: f64, most_noise: f64) -> Result<f64> {
        let sizes: Vec<f64> = self.blocks.iter().map(|(_, _, block)| block.n_elements).collect();
        let (order, n_first) = if self.is_mixed { by_size(&sizes) } else { from_all_over(sizes.len()) };
        let (mut counted, mut n_wanted) = (Vec::new(), n_first);
        while counted.len() < n_wanted {
            counted.extend(self.count(&order[counted.len()..n_wanted])?);
            n_wanted = n_asked(&counted, order.len(), (usual_scatter, most_noise));
        }
        Ok(mean(&counted))
    }

    /// Counts the blocks at `places`.
    fn count(&self, places: &[usize]) -> Result<Vec<Counted>> {
        let count = |place: &usize| {
            let (waiting, sampled, block) = self.blocks[*place];
            let bits = waiting.tensor.block_bits(&block.span, &sampled.spec)? - block.bits;
            Ok(Counted { bits, n_elements: block.n_elements })
        };
        let counted: Vec<Result<Counted>> = places.par_iter().with_max_len(1).map(count).collect();
        counted.into_iter().collect()
    }
}

/// The places of `n` blocks of one kind in the order in which they are counted, and how many at least.
fn from_all_over(n: usize) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..n).collect();
    // However many of them come first: by the fractions of multiples of the golden ratio.
    order.sort_by_key(|idx| (*idx as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (order, FEWEST.min(n))
}

/// The same of blocks of different shapes and these `sizes`, which may differ by any amount: the largest come first, down to
/// where they are half of it all.
fn by_size(sizes: &[f64]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by(|a, b| sizes[*b].total_cmp(&sizes[*a]));
    let half = sizes.iter().sum::<f64>() / 2.0;
    let mut counted = 0.0;
    let is_needed = |place: &&usize| {
        let is_needed = counted < half;
        counted += sizes[**place];
        is_needed
    };
    let n_first = order.iter().take_while(is_needed).count();
    (order, n_first)
}

/// A block that was counted.
#[derive(Debug, Clone, Copy)]
struct Counted {
    /// By how many it takes more than its sample says.
    bits: f64,
    n_elements: f64,
}

/// Bits an element by which all that were `counted` take more.
fn mean(counted: &[Counted]) -> f64 {
    let bits: f64 = counted.iter().map(|counted| counted.bits).sum();
    bits / counted.iter().map(|counted| counted.n_elements).sum::<f64>()
}

/// Of how many of `n_all` blocks the mean is no noisier than `most_noise`, by what the first `counted` differ by, and what
/// blocks usually do.
fn n_asked(counted: &[Counted], n_all: usize, (usual_scatter, most_noise): (f64, f64)) -> usize {
    let mean = mean(counted);
    let differences = counted.iter().map(|counted| (counted.bits / counted.n_elements - mean).powi(2));
    // As if the usual had been found of one block more.
    let variance = (differences.sum::<f64>() + usual_scatter.powi(2)) / counted.len() as f64;
    // Where all are counted, nothing is left to chance.
    let asked = variance / (most_noise.powi(2) + variance / n_all as f64);
    (counted.len()..n_all).find(|&n| n as f64 >= asked).unwrap_or(n_all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_different_shapes_the_larger_half_comes_first() {
        assert_eq!(by_size(&[1.0, 5.0, 2.0, 2.0]), (vec![1, 2, 3, 0], 1));
        assert_eq!(by_size(&[3.0, 4.0, 3.0, 2.0]), (vec![1, 0, 2, 3], 2));
        assert_eq!(by_size(&[1.0]), (vec![0], 1));
        for n in 0..20 {
            let (mut order, n_first) = from_all_over(n);
            assert_eq!(n_first, n.min(2));
            order.sort_unstable();
            assert!(order.into_iter().eq(0..n));
        }
    }

    #[test]
    fn more_blocks_are_counted_where_they_differ_more_and_never_more_than_there_are() {
        let counted = |bits: [f64; 2]| bits.map(|bits| Counted { bits, n_elements: 1.0 });
        assert_eq!(mean(&counted([0.01, 0.03])), 0.02);
        let asked = |bits, n_all| n_asked(&counted(bits), n_all, (0.04, 0.04));
        assert_eq!(asked([0.02, 0.02], 100), 2);
        assert_eq!(asked([-0.1, 0.1], 100), 7);
        assert_eq!(asked([-1.0, 1.0], 100), 87);
        assert_eq!(asked([-1.0, 1.0], 10), 10);
        assert_eq!(asked([-1.0, 1.0], 2), 2);
    }
}
