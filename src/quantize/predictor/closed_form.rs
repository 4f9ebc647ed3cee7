//! Models without anything learned: the baselines, and what the larger network corrects.

use std::sync::OnceLock;

use super::unit::N_OCTAVES;
use super::{EntropyModel, Unit, is_meaningful};
use crate::quantize::elementary::{LOG2_E, exp2, log2, normal_cdf};

/// log2 of √(2πe): the differential entropy of the standard normal distribution, in bits.
const NORMAL_BITS: f64 = 2.047_095_585_180_641;

/// The same bits for every unit and step.
#[derive(Debug, Clone, Copy)]
pub struct Constant(pub f64);

impl EntropyModel for Constant {
    fn bits(&self, unit: &Unit, step: f64) -> f64 {
        if is_meaningful(unit, step) { self.0 } else { 0.0 }
    }
}

/// The entropy of a quantized normal distribution with the unit's mean and variance.
#[derive(Debug, Clone, Copy)]
pub struct Gaussian;

impl EntropyModel for Gaussian {
    fn bits(&self, unit: &Unit, step: f64) -> f64 {
        if !is_meaningful(unit, step) {
            return 0.0;
        }
        normal_bits(unit.moments.mean / step, unit.moments.std() / step)
    }
}

/// Entropy of a normal distribution rounded to whole numbers.
pub(super) fn normal_bits(mean: f64, std: f64) -> f64 {
    // The masses of cells are those of the sum with a uniform number, whose variance is 1/12: normal, from here on,
    // to within 1e-4 bits.
    if std >= 1.0 {
        return NORMAL_BITS + 0.5 * log2(std * std + 1.0 / 12.0);
    }
    // Below this all lies in one cell, or in two where the mean is on their border.
    let std = std.max(1e-9);
    // By symmetry the mean's distance from the nearest index is what counts.
    let mean = (mean - (mean + 0.5).floor()).abs();
    let cell_end = |k: i32| normal_cdf((f64::from(k) + 0.5 - mean) / std);
    let (mut bits, mut before) = (0.0, 0.0);
    // Eight deviations to either side of the mean, beyond which less than 1e-15 lies.
    #[expect(clippy::cast_possible_truncation, reason = "at most 9")]
    let reach = (8.0 * std + 0.5).ceil() as i32;
    for k in -reach..=reach {
        let end = cell_end(k);
        bits += surprise(end - before);
        before = end;
    }
    bits
}

/// −p log2 p.
#[inline]
pub(super) fn surprise(p: f64) -> f64 {
    if p > 1e-15 { -p * log2(p) } else { 0.0 }
}

/// Where a generalized Gaussian's shape comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShapeFrom {
    /// The kurtosis, Γ(5/β) Γ(1/β) ÷ Γ(3/β)²: what moments alone give.
    Kurtosis,
    /// E|x| ÷ σ = Γ(2/β) ÷ √(Γ(1/β) Γ(3/β)): steadier, because no power above the second enters.
    MeanAbs,
}

/// The entropy of a quantized generalized Gaussian, of density ∝ exp(−|x ÷ α|^β), with the unit's variance. It is
/// centred on an index, as the elements of trained tensors mostly are.
#[derive(Debug, Clone, Copy)]
pub struct GeneralizedGaussian(pub ShapeFrom);

impl EntropyModel for GeneralizedGaussian {
    fn bits(&self, unit: &Unit, step: f64) -> f64 {
        if !is_meaningful(unit, step) {
            return 0.0;
        }
        let table = ShapeTable::get();
        let std = unit.moments.std();
        let row = match self.0 {
            ShapeFrom::Kurtosis => table.row(|shape| log2(shape.kurtosis), log2(unit.moments.kurtosis())),
            ShapeFrom::MeanAbs if std > 0.0 => {
                table.row(|shape| -shape.mean_abs, -unit.moments.mean_abs() / std)
            }
            ShapeFrom::MeanAbs => 0.0,
        };
        table.bits(row, log2(std / step))
    }
}

/// Entropies of quantized generalized Gaussians of unit variance, by shape and by step.
struct ShapeTable {
    /// Widest shape, thus smallest kurtosis, first.
    shapes: Vec<Shape>,
}

struct Shape {
    kurtosis: f64,
    mean_abs: f64,
    /// Bits at log2(σ ÷ Δ) = −[`ShapeTable::COARSEST_LOG2`] and every [`ShapeTable::PER_OCTAVE`]th of an octave on.
    bits: Vec<f64>,
}

impl ShapeTable {
    /// log2 β goes from here down,
    const WIDEST_LOG2: f64 = 3.0;
    /// by this,
    const SHAPE_STEP_LOG2: f64 = 0.125;
    /// so many times, to β = 0.21.
    const N_SHAPES: u32 = 43;
    const COARSEST_LOG2: f64 = -6.0;
    const PER_OCTAVE: f64 = 4.0;
    /// Steps in the table: to log2(σ ÷ Δ) = 8, where halving the step adds one bit.
    const N_STEPS: u32 = 57;

    fn get() -> &'static Self {
        static TABLE: OnceLock<ShapeTable> = OnceLock::new();
        TABLE.get_or_init(|| Self {
            shapes: (0..Self::N_SHAPES)
                .map(|idx| Shape::new(exp2(Self::WIDEST_LOG2 - Self::SHAPE_STEP_LOG2 * f64::from(idx))))
                .collect(),
        })
    }

    /// The row, with a fraction, at which the rising `key` reaches `value`.
    fn row(&self, key: impl Fn(&Shape) -> f64, value: f64) -> f64 {
        let above = self.shapes.partition_point(|shape| key(shape) < value);
        let (Some(lower), Some(upper)) = (above.checked_sub(1), self.shapes.get(above)) else {
            return if above == 0 { 0.0 } else { (above - 1) as f64 };
        };
        let low = key(&self.shapes[lower]);
        lower as f64 + (value - low) / (key(upper) - low)
    }

    fn bits(&self, row: f64, std_log2: f64) -> f64 {
        let at = (std_log2 - Self::COARSEST_LOG2) * Self::PER_OCTAVE;
        let last = f64::from(Self::N_STEPS - 1);
        let along = |shape: &Shape| interpolate(at.clamp(0.0, last), |idx| shape.bits[idx], shape.bits.len());
        let bits = interpolate(row, |idx| along(&self.shapes[idx]), self.shapes.len());
        // Below the table rates are next to 0; beyond it each octave adds a bit.
        bits + (at - last).max(0.0) / Self::PER_OCTAVE
    }
}

/// The value between two neighbours of `len`.
fn interpolate(at: f64, value: impl Fn(usize) -> f64, len: usize) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the table")]
    let lower = (at.max(0.0) as usize).min(len.saturating_sub(2));
    let share = at - lower as f64;
    value(lower) * (1.0 - share) + value(lower + 1) * share
}

impl Shape {
    /// Integrates exp(−t^β) over t from 0 by the midpoint rule on a grid that is even in log t.
    fn new(beta: f64) -> Self {
        const PER_OCTAVE: f64 = 64.0;
        // From 2^−40, below which nothing matters, to where t^β is 60.
        let (from_log2, to_log2) = (-40.0, log2(60.0) / beta);
        let (mut powers, mut grid, mut t_log2) = ([0.0; 4], Vec::new(), from_log2);
        let mut mass = exp2(from_log2);
        while t_log2 < to_log2 {
            let middle = exp2(t_log2 + 0.5 / PER_OCTAVE);
            let width = exp2(t_log2 + 1.0 / PER_OCTAVE) - exp2(t_log2);
            let density = exp2(-LOG2_E * exp2(beta * (t_log2 + 0.5 / PER_OCTAVE)));
            mass += density * width;
            for (power, sum) in [middle, middle * middle, middle.powi(4)].iter().zip(&mut powers) {
                *sum += density * width * power;
            }
            t_log2 += 1.0 / PER_OCTAVE;
            grid.push(mass);
        }
        let [first, second, fourth, _] = powers.map(|sum| sum / mass);
        let std = second.sqrt();
        // Share of magnitudes below σ · `x`.
        let below = |x: f64| {
            let at = (log2(x * std) - from_log2) * PER_OCTAVE - 1.0;
            if at >= (grid.len() - 1) as f64 {
                1.0
            } else {
                interpolate(at, |idx| grid[idx], grid.len()) / mass
            }
        };
        let bits_at = |step: f64| {
            let zero = below(0.5 * step);
            let (mut bits, mut before, mut k) = (surprise(zero), zero, 1.0);
            while before < 1.0 - 1e-9 {
                let next = below((k + 0.5) * step);
                bits += 2.0 * surprise(0.5 * (next - before));
                (before, k) = (next, k + 1.0);
                // Heavy tails go on for long and hold little: wider and wider runs of cells.
                let run = (k / 64.0).floor();
                if run > 1.0 {
                    let next = below((k + run - 0.5) * step);
                    let share = 0.5 * (next - before);
                    bits += 2.0 * (surprise(share) + share * log2(run));
                    (before, k) = (next, k + run);
                }
            }
            bits
        };
        let step = |idx: u32| exp2(-(ShapeTable::COARSEST_LOG2 + f64::from(idx) / ShapeTable::PER_OCTAVE));
        Self {
            kurtosis: fourth / (second * second),
            mean_abs: first / std,
            bits: (0..ShapeTable::N_STEPS).map(|idx| bits_at(step(idx))).collect(),
        }
    }
}

/// The entropy of a density that is linear within each octave and has the unit's counts, or that of [`Gaussian`]
/// where it is less: no density has a higher entropy than the normal one of its variance, and where all elements lie
/// in one octave, variance says more than the counts.
#[derive(Debug, Clone, Copy)]
pub struct Octaves;

impl EntropyModel for Octaves {
    fn bits(&self, unit: &Unit, step: f64) -> f64 {
        if !is_meaningful(unit, step) {
            return 0.0;
        }
        let normal = normal_bits(unit.moments.mean / step, unit.moments.std() / step);
        Cells::new(unit, step).bits().min(normal)
    }
}

/// Cells on each side of zero whose masses are told apart; beyond them the density hardly changes within one.
pub(super) const N_CELLS: usize = 7;

/// Masses of the innermost cells, and the entropy of those beyond.
pub(super) struct Cells {
    /// Share of index 0.
    pub(super) zero: f64,
    /// Shares of indices 1 to 7, and of −1 to −7.
    pub(super) near: [[f64; N_CELLS]; 2],
    /// Share of the indices beyond.
    pub(super) far: f64,
    /// Σ −p log2 p of those.
    pub(super) far_bits: f64,
}

impl Cells {
    pub(super) fn new(unit: &Unit, step: f64) -> Self {
        let n = unit.moments.n as f64;
        let mut cells =
            Self { zero: unit.moments.sparsity(), near: [[0.0; N_CELLS]; 2], far: 0.0, far_bits: 0.0 };
        let top = exp2(f64::from(unit.octaves.top_log2())) / step;
        for (sign, counts) in unit.octaves.counts().iter().enumerate() {
            let mut start = top;
            for (idx, count) in counts.iter().enumerate() {
                if *count > 0 {
                    let larger = if idx > 0 { counts[idx - 1] } else { 0 };
                    let smaller = if idx + 1 < N_OCTAVES { counts[idx + 1] } else { 0 };
                    let slope = slope(smaller as f64, *count as f64, larger as f64);
                    cells.add_octave(sign, start, *count as f64 / n, slope);
                }
                start *= 0.5;
            }
        }
        cells
    }

    /// Adds an octave of `mass` that begins at `start` cells from zero. Its density at start · (1 + t) is
    /// (mass ÷ start) (1 + slope (2t − 1)), so that mass · t (1 + slope (t − 1)) lies below.
    fn add_octave(&mut self, sign: usize, start: f64, mass: f64, slope: f64) {
        const FAR: f64 = N_CELLS as f64 + 0.5;
        let below = |x: f64| {
            let t = x / start - 1.0;
            if t <= 0.0 { 0.0 } else { mass * if t < 1.0 { t * (1.0 + slope * (t - 1.0)) } else { 1.0 } }
        };
        let mut before = 0.0;
        if start < FAR {
            before = below(0.5);
            self.zero += before;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below FAR")]
            let first = (start - 0.5).max(0.0) as usize;
            for k in first..N_CELLS {
                if before >= mass {
                    return;
                }
                let next = below(k as f64 + 1.5);
                self.near[sign][k] += next - before;
                before = next;
            }
        }
        let share = mass - before;
        if share > 0.0 {
            let width = 2.0 * start - start.max(FAR);
            self.far += share;
            // Against an even density a linear one has less entropy by slope² ÷ 6 + slope⁴ ÷ 60 + … nats.
            let slope2 = slope * slope;
            let uneven = LOG2_E * slope2 * (1.0 / 6.0 + slope2 * (1.0 / 60.0 + slope2 / 210.0));
            self.far_bits += share * (log2(width / share) - uneven);
        }
    }

    pub(super) fn bits(&self) -> f64 {
        let near: f64 = self.near.iter().flatten().map(|share| surprise(*share)).sum();
        (surprise(self.zero) + near + self.far_bits).max(0.0)
    }
}

/// Slope of the density across an octave of `count` elements, from its neighbours': the parabola through the three
/// mean densities, at their octaves' middles, half an octave's change at most.
fn slope(smaller: f64, count: f64, larger: f64) -> f64 {
    // Relative to this octave's density and width the neighbours have densities 2 · smaller and larger ÷ 2 and
    // middles at −3/4 and 3/2.
    let (left, right) = ((count - 2.0 * smaller) / 0.75, (0.5 * larger - count) / 1.5);
    let per_width = (left * 1.5 + right * 0.75) / 2.25;
    (0.5 * per_width / count).clamp(-1.0, 1.0)
}
