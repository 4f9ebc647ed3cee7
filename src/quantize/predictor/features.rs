//! What the networks see: numbers of about −1 to 1, none of which changes when elements and step are scaled together.

use super::closed_form::{Cells, normal_bits};
use super::{EntropyModel, Unit};
use crate::quantize::elementary::{exp2, log2};

/// Inputs of the smaller network.
pub(super) const N_MOMENTS: usize = 6;
/// Inputs of the larger.
pub(super) const N_PROFILE: usize = 17;
/// Range of log2(σ ÷ Δ) that networks are trained in; see [`within_range`].
const STD_LOG2: (f64, f64) = (-8.0, 9.0);
/// Most bits by which the larger network corrects, where the rate is high.
const MAX_CORRECTION: f64 = 1.0;

/// One question to a network. Its answer is `offset` + `gain` · sigmoid(z), in bits.
pub(super) struct Question<const N: usize> {
    pub(super) inputs: [f32; N],
    pub(super) offset: f64,
    pub(super) gain: f64,
}

/// `x` bent into −1..1, with slope 1 at 0.
fn squash(x: f64) -> f64 {
    x / (1.0 + x.abs())
}

/// log2(σ ÷ Δ) as an input.
fn std_input(std_log2: f64) -> f64 {
    std_log2 / 5.0 - 0.3
}

fn kurtosis_input(unit: &Unit) -> f64 {
    log2(unit.moments.kurtosis()).min(32.0) / 4.0 - 0.6
}

/// Mean, variance, standard deviation (both in steps), skewness, kurtosis, sparsity.
pub(super) fn moments_question(unit: &Unit, step: f64) -> Question<N_MOMENTS> {
    let std = unit.moments.std() / step;
    let inputs = [
        squash(unit.moments.mean / step),
        // The variance of a uniform cell is 1/12: what is below tells little, and rates near 0 are resolved.
        log2(1.0 + 12.0 * std * std) / 16.0 - 0.4,
        std_input(log2(std)),
        squash(unit.moments.skewness()),
        kurtosis_input(unit),
        unit.moments.sparsity(),
    ];
    Question { inputs: narrow(inputs), offset: 0.0, gain: super::MAX_BITS }
}

/// Shares of the innermost indices and of those beyond by the octaves, how far the closed forms lie apart, how the
/// octaves lie to the standard deviation, and the moments.
pub(super) fn profile_question(unit: &Unit, step: f64) -> Question<N_PROFILE> {
    let moments = &unit.moments;
    let std = moments.std();
    let std_log2 = log2(std / step);
    let cells = Cells::new(unit, step);
    let by_octaves = cells.bits();
    let normal = normal_bits(moments.mean / step, std / step);
    let base = by_octaves.min(normal);
    let pair = |k: usize| cells.near[0][k] + cells.near[1][k];
    let positive: f64 = cells.near[0].iter().sum();
    let negative: f64 = cells.near[1].iter().sum();
    let phase = log2(std) - log2(std).floor();
    let inputs = [
        std_input(std_log2),
        base / 8.0 - 0.5,
        (normal - by_octaves).clamp(-2.0, 2.0),
        cells.zero,
        pair(0),
        pair(1),
        2.0 * (pair(2) + pair(3)),
        2.0 * (pair(4) + pair(5) + pair(6)),
        cells.far,
        positive - negative,
        // Two triangle waves tell every phase from every other.
        1.0 - (4.0 * phase - 2.0).abs(),
        1.0 - (4.0 * (phase + 0.25 - (phase + 0.25).floor()) - 2.0).abs(),
        4.0 * (moments.mean_abs() / std - 0.75),
        2.0 * squash(moments.mean / std),
        squash(moments.skewness()),
        kurtosis_input(unit),
        moments.sparsity(),
    ];
    // A rate near 0 is off by a part of itself, not by so many bits.
    let most = MAX_CORRECTION * 2.0 * base / (base + 1.0);
    Question { inputs: narrow(inputs), offset: base - most, gain: 2.0 * most }
}

fn narrow<const N: usize>(inputs: [f64; N]) -> [f32; N] {
    #[expect(clippy::cast_possible_truncation, reason = "a network's precision")]
    inputs.map(|input| input as f32)
}

/// Asks `inside` at a step within the range of training, and goes on from its ends by what holds for any elements:
/// a finer step adds a bit per octave to each element that is not zero; the share of elements that a coarser one does not round to one index
/// falls at least with the square of the step (Chebyshev).
pub(super) fn within_range(unit: &Unit, step: f64, inside: impl Fn(f64) -> f64) -> f64 {
    let std = unit.moments.std();
    if !super::is_meaningful(unit, step) || std <= 0.0 {
        return 0.0;
    }
    let std_log2 = log2(std / step);
    if std_log2 > STD_LOG2.1 {
        let varied = 1.0 - unit.moments.sparsity();
        inside(std / exp2(STD_LOG2.1)) + varied * (std_log2 - STD_LOG2.1)
    } else if std_log2 < STD_LOG2.0 {
        inside(std / exp2(STD_LOG2.0)) * exp2(2.0 * (std_log2 - STD_LOG2.0))
    } else {
        inside(step)
    }
}

/// Every model by its name in tables, from the least to the most informed.
#[must_use]
pub fn models(constant: f64, networks: &super::Networks) -> Vec<(&'static str, Box<dyn EntropyModel + '_>)> {
    use super::{Constant, Gaussian, GeneralizedGaussian, Octaves, ShapeFrom};
    vec![
        ("constant", Box::new(Constant(constant))),
        ("gaussian", Box::new(Gaussian)),
        ("gg-kurtosis", Box::new(GeneralizedGaussian(ShapeFrom::Kurtosis))),
        ("gg-mean-abs", Box::new(GeneralizedGaussian(ShapeFrom::MeanAbs))),
        ("octaves", Box::new(Octaves)),
        ("mlp-moments", Box::new(&networks.moments)),
        ("mlp-profile", Box::new(&networks.profile)),
    ]
}
