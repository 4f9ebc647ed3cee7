//! Finding runs: numbers of a few bits times one scale, each product rounded to the elements' dtype.
//!
//! Each product says within which bounds its scale lies, once it is known which multiple of it the element is. Of the
//! largest among the first elements every multiple is tried; a wrong one contradicts the next few elements, the right one
//! none until the run ends. For it all elements' multiples follow, since the scale is known better than they are apart.

use crate::dtype::Dtype;

/// Elements at a run's start of which the largest is held against the others.
const N_FIRST: usize = 8;
/// A run of so many normal numbers is no chance, and no longer one is looked for: of weights that are no
/// multiples of anything the longest of thousands has ten.
const BELIEVED_LEN: usize = 12;

/// What a scale is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Multiples {
    /// Floats of so many significant bits, whatever their exponent.
    Floats(u32),
    /// Integers up to this one.
    Integers(u32),
}

/// What is looked for in singles: halves, whose products leave room for them in 24 bits.
const OF_SINGLES: &[Multiples] = &[Multiples::Floats(11)];
/// In half-precision floats: 4-bit integers, FP8 and FP4, 8-bit integers.
const OF_HALVES: &[Multiples] = &[Multiples::Integers(15), Multiples::Floats(4), Multiples::Integers(127)];

impl Multiples {
    /// Those that an element may be, the simplest first, up to a power of two if they are floats.
    fn candidates(self) -> Vec<u32> {
        match self {
            Self::Floats(bits) => {
                let mut all: Vec<u32> = (1 << (bits - 1)..1 << bits).collect();
                all.sort_by_key(|candidate| candidate >> candidate.trailing_zeros());
                all
            }
            Self::Integers(most) => (1..=most).collect(),
        }
    }

    /// The nearest one to a positive ratio, if there is one.
    fn nearest(self, ratio: f64) -> Option<f64> {
        match self {
            Self::Floats(bits) => {
                let open_bits = 53 - bits;
                let rounded = (ratio.to_bits() + (1 << (open_bits - 1))) >> open_bits << open_bits;
                Some(f64::from_bits(rounded)).filter(|multiple| multiple.is_normal())
            }
            Self::Integers(most) => {
                // From 2^52 on there is nothing below the point.
                const WITHOUT_FRACTION: f64 = 4_503_599_627_370_496.0;
                let rounded = (ratio + WITHOUT_FRACTION) - WITHOUT_FRACTION;
                Some(rounded).filter(|multiple| (1.0..=f64::from(most)).contains(multiple))
            }
        }
    }
}

/// How elements are rounded.
#[derive(Debug, Clone, Copy)]
struct Rounding {
    mantissa_bits: i32,
    /// Exponent of the smallest normal number.
    least_exponent: i32,
}

impl Rounding {
    fn of(dtype: Dtype) -> Option<Self> {
        let (mantissa_bits, least_exponent) = match dtype {
            Dtype::F32 => (23, -126),
            Dtype::F16 => (10, -14),
            Dtype::Bf16 => (7, -126),
            _ => return None,
        };
        Some(Self { mantissa_bits, least_exponent })
    }

    /// The smallest normal number.
    fn least_normal(self) -> f64 {
        power_of_two(self.least_exponent)
    }

    /// Between which numbers all are rounded to `magnitude`, which is positive and finite.
    fn bounds(self, magnitude: f64) -> (f64, f64) {
        let bits = magnitude.to_bits();
        let exponent = i32::try_from(bits >> 52).unwrap_or(0) - 1023;
        let half_gap = power_of_two(exponent.max(self.least_exponent) - self.mantissa_bits - 1);
        // The numbers below a power of two are twice as close.
        let is_power = bits << 12 == 0 && exponent > self.least_exponent;
        (magnitude - if is_power { half_gap / 2.0 } else { half_gap }, magnitude + half_gap)
    }
}

/// 2^exponent, for exponents of normal numbers.
pub(super) fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(u64::from((exponent + 1023).unsigned_abs()) << 52)
}

/// A run that has been found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// The scale is not below this,
    pub(super) low: f64,
    /// and not above that; infinity if all elements are zero.
    pub(super) high: f64,
    /// Elements that are normal numbers: zeros say nothing, and subnormal numbers are multiples of the smallest anyhow.
    pub(super) n_telling: usize,
    /// Whether multiples by powers of two are as good.
    pub(super) is_float: bool,
}

/// Finds the runs of elements of one dtype.
#[derive(Debug)]
pub(super) struct RunSearch {
    rounding: Rounding,
    kinds: Vec<(Multiples, Vec<u32>)>,
    /// Which of `kinds` is looked for.
    kind_idx: usize,
    /// Of the run found last: what the scale is multiplied by for each element.
    multiples: Vec<f64>,
    trial: Vec<f64>,
    kept: Vec<f64>,
}

impl RunSearch {
    /// `None` for a dtype whose elements are not looked at.
    pub(super) fn new(dtype: Dtype) -> Option<Self> {
        let rounding = Rounding::of(dtype)?;
        let kinds = if dtype == Dtype::F32 { OF_SINGLES } else { OF_HALVES };
        let kinds = kinds.iter().map(|kind| (*kind, kind.candidates())).collect();
        Some(Self {
            rounding,
            kinds,
            kind_idx: 0,
            multiples: Vec::new(),
            trial: Vec::new(),
            kept: Vec::new(),
        })
    }

    /// Settles what the scales of a block are multiplied by, all of one kind; `false` where they are nothing of the kind.
    pub(super) fn choose_kind(&mut self, values: &[f32]) -> bool {
        const SAMPLE_LEN: usize = 256;
        /// Runs are longer the more multiples there are, by some elements of the next.
        const WORTH_MORE: f64 = 1.25;
        if self.kinds.len() == 1 {
            return true;
        }
        let sample_len = SAMPLE_LEN.min(values.len());
        let samples = [values.len() / 4, values.len() / 2].map(|at| at.min(values.len() - sample_len));
        let (mut chosen, mut longest) = (None, 0.0);
        for kind_idx in 0..self.kinds.len() {
            self.kind_idx = kind_idx;
            let (mut n_runs, mut n_telling) = (0, 0);
            for at in samples {
                let mut sample = &values[at..at + sample_len];
                while !sample.is_empty() && !is_too_many(n_runs, n_telling) {
                    n_telling += self.find(sample).map_or(0, |found| found.n_telling);
                    n_runs += 1;
                    sample = &sample[self.multiples.len().max(1)..];
                }
            }
            let mean_len = n_telling as f64 / n_runs.max(1) as f64;
            if !is_too_many(n_runs, n_telling) && mean_len > WORTH_MORE * longest {
                (chosen, longest) = (Some(kind_idx), mean_len);
            }
        }
        self.kind_idx = chosen.unwrap_or(0);
        chosen.is_some()
    }

    /// What the scale is multiplied by for each element of the run found last.
    pub(super) fn multiples(&self) -> &[f64] {
        &self.multiples
    }

    /// Finds the longest run that `values` begin with; `None` where the first of them is in none.
    pub(super) fn find(&mut self, values: &[f32]) -> Option<Found> {
        let n_zeros = values.iter().take_while(|value| **value == 0.0).count();
        let firsts = values[n_zeros..].iter().take(N_FIRST).map(|value| f64::from(value.abs()));
        let largest = firsts.clone().fold(0.0, f64::max);
        let first = firsts.clone().next().unwrap_or(0.0);
        let found = self.find_for(largest, values);
        if first == largest || self.multiples.len() >= n_zeros + firsts.len() {
            return found;
        }
        // The largest may be of the next run.
        std::mem::swap(&mut self.multiples, &mut self.kept);
        let other = self.find_for(first, values);
        if self.multiples.len() > self.kept.len() {
            return other;
        }
        std::mem::swap(&mut self.multiples, &mut self.kept);
        found
    }

    /// Tries all multiples of a scale that `reference`, an element's magnitude, may be.
    fn find_for(&mut self, reference: f64, values: &[f32]) -> Option<Found> {
        let Self { rounding, kinds, kind_idx, multiples, trial, .. } = self;
        let (kind, candidates) = kinds.get(*kind_idx)?;
        multiples.clear();
        let mut best = None;
        let first_values = FirstValues::new(*rounding, reference, values);
        for &candidate in candidates {
            // What ends before the best does is not worth its divisions.
            if first_values.contradict(*kind, candidate, multiples.len() + 1) {
                continue;
            }
            let guess = if reference > 0.0 { reference / f64::from(candidate) } else { 1.0 };
            trial.clear();
            let found = walk(*rounding, *kind, guess, values, trial);
            if trial.len() <= multiples.len() {
                continue;
            }
            std::mem::swap(multiples, trial);
            best = Some(found);
            if found.n_telling >= BELIEVED_LEN || multiples.len() == values.len() {
                break;
            }
        }
        best
    }
}

/// The first of some values, as ratios to one of which multiples are tried.
#[derive(Debug)]
struct FirstValues {
    ratios: [f64; Self::MOST],
    n: usize,
    /// How far a product may be from its multiple, relatively, and a little more.
    tolerance: f64,
}

impl FirstValues {
    /// Wrong multiples mostly contradict one of so many.
    const MOST: usize = 4;

    fn new(rounding: Rounding, reference: f64, values: &[f32]) -> Self {
        let mut ratios = [0.0; Self::MOST];
        let firsts = values.iter().take(Self::MOST).map(|value| f64::from(value.abs()));
        let n = firsts.zip(&mut ratios).map(|(value, ratio)| *ratio = value / reference).count();
        // Half a unit each of the reference and the value, of normal numbers; then some for the rounding of the ratios.
        let tolerance = power_of_two(-rounding.mantissa_bits) * 1.25;
        let is_normal = |value: f32| f64::from(value.abs()) >= rounding.least_normal() && value.is_finite();
        let are_told = reference >= rounding.least_normal() && reference.is_finite();
        let n_normal = values[..n].iter().take_while(|value| is_normal(**value) || **value == 0.0).count();
        Self { ratios, n: if are_told { n_normal } else { 0 }, tolerance }
    }

    /// Whether one of the first `len` values is surely no multiple of a scale of which the reference is the `candidate`th.
    fn contradict(&self, kind: Multiples, candidate: u32, len: usize) -> bool {
        self.ratios[..self.n.min(len)].iter().any(|ratio| {
            let ratio = ratio * f64::from(candidate);
            let multiple = match kind {
                // One that is too large by the tolerance may still be the largest.
                Multiples::Integers(most) => kind.nearest(ratio.clamp(1.0, most.into())),
                Multiples::Floats(_) => kind.nearest(ratio),
            };
            ratio > 0.0
                && multiple.is_none_or(|multiple| (ratio - multiple).abs() > multiple * self.tolerance)
        })
    }
}

/// Whether so many runs of so many normal numbers are more than can be worth their scales, or not chance.
pub(super) fn is_too_many(n_runs: usize, n_telling: usize) -> bool {
    const MEAN_RUN_LEN: usize = 8;
    n_runs > 4 + n_telling / MEAN_RUN_LEN
}

/// Appends the multiples of a scale near `guess` that `values` are as far as they go; the bounds that they set to it.
fn walk(
    rounding: Rounding,
    kind: Multiples,
    mut guess: f64,
    values: &[f32],
    multiples: &mut Vec<f64>,
) -> Found {
    let (mut low, mut high, mut n_telling) = (0.0f64, f64::INFINITY, 0);
    for &value in values {
        let magnitude = f64::from(value.abs());
        if magnitude == 0.0 {
            multiples.push(f64::from(value));
            continue;
        }
        if !value.is_finite() {
            break;
        }
        let Some(multiple) = kind.nearest(magnitude / guess) else { break };
        let (from, to) = rounding.bounds(magnitude);
        let (from, to) = (low.max(from / multiple), high.min(to / multiple));
        if from > to {
            break;
        }
        if from > low || to < high {
            guess = f64::midpoint(from, to);
        }
        (low, high) = (from, to);
        n_telling += usize::from(magnitude >= rounding.least_normal());
        multiples.push(multiple.copysign(value.into()));
    }
    Found { low, high, n_telling, is_float: matches!(kind, Multiples::Floats(_)) }
}

/// The number from `low` to `high`, both positive and normal, with the fewest significant bits.
pub(super) fn shortest(low: f64, high: f64) -> f64 {
    // Rounded up to fewer and fewer bits of the mantissa.
    let up = |n_bits: u32| {
        let open = (1u64 << (52 - n_bits)) - 1;
        f64::from_bits((low.to_bits() + open) & !open)
    };
    (0..=52).map(up).find(|number| *number <= high).unwrap_or(low)
}
