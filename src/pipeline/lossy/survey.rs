//! What a rate goal needs to know of a tensor before any step is chosen, from one pass over it: of each unit its scale,
//! of some of them all that a model asks for.

use super::method::Method;
use super::rate::RateUnit;
use super::tensor_source::TensorSource;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::moments::Moments;
use crate::kernels::{Isa, convert, log_domain};
use crate::quantize::elementary::log2;
use crate::quantize::predictor::Unit;
use crate::stage::{ChannelSteps, Domain};

/// Elements of a unit: as many as share a table of the index coder, which is what its rate depends on.
pub(super) const UNIT_LEN: usize = 1024;
/// Units that a model is asked about at every step that is tried, of all tensors with a rate goal and but for one of each:
/// twice as many do not bring rates closer.
const MAX_ASKED: u64 = 2048;
/// Most units whose scales are kept in memory, 8 bytes each: of 2^32 elements. Of more there are no floors and caps.
const MAX_SCALES: u64 = 1 << 22;

/// What is known of a tensor.
pub(super) struct Survey {
    /// Some of its units, in order; moved away when steps are shared out.
    pub(super) units: Vec<RateUnit>,
    /// How many they are.
    pub(super) n_units: usize,
    /// The scales of all its units, in order; none of logarithms, and where there would be too many.
    pub(super) scales: Vec<Scale>,
    /// The multipliers of its channels, once they are known to need any.
    pub(super) channels: Option<ChannelSteps>,
    pub(super) n_elements: u64,
    /// Of these, how many are zero.
    pub(super) n_zeros: u64,
    pub(super) n_blocks: u64,
}

/// How much of tensors is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Density {
    /// One unit in so many is asked about.
    asked_one_in: u64,
    has_scales: bool,
}

impl Density {
    /// What suits tensors of `n_elements` in all.
    pub(super) fn of(n_elements: u64) -> Self {
        let n_units = n_elements / UNIT_LEN as u64;
        Self { asked_one_in: n_units.div_ceil(MAX_ASKED).max(1), has_scales: n_units <= MAX_SCALES }
    }

    /// Whether a unit is asked about: the first is, and then one anywhere in each share, by the fractions of multiples of the
    /// golden ratio. Rows of a tensor often have a period, which units at even distances may have in common with them.
    fn asks(self, unit_idx: u64) -> bool {
        let fraction = (unit_idx / self.asked_one_in).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        unit_idx % self.asked_one_in == (fraction * self.asked_one_in) >> 32
    }
}

/// The mean magnitude of a unit's elements, and whether its rate follows from that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// It does, roughly.
    Tells(f32),
    /// It need not: a few large elements may hide what the others are.
    Hides(f32),
    /// All elements are equal, and no step gives them more bits or fewer.
    Constant,
}

impl Scale {
    fn of(moments: &Moments) -> Self {
        /// Of nine zeros beside each normal element it is 30.
        const MOST_KURTOSIS: f64 = 12.0;
        if moments.min == moments.max {
            Self::Constant
        } else {
            #[expect(clippy::cast_possible_truncation, reason = "the mean of numbers that are f32")]
            let mean_abs = moments.mean_abs() as f32;
            if moments.kurtosis() < MOST_KURTOSIS { Self::Tells(mean_abs) } else { Self::Hides(mean_abs) }
        }
    }

    /// Bits an element by `method` at `step`: where the scale tells, to within a bit and a half at most.
    pub(super) fn rough_bits(self, method: Method, step: f64) -> f64 {
        /// Of normal and of Laplacian elements the entropy is this much above the logarithm of their mean magnitude in steps.
        const ABOVE_MAGNITUDE: f64 = 2.4;
        match self {
            Self::Tells(mean_abs) | Self::Hides(mean_abs) => {
                method.coded_bits(ABOVE_MAGNITUDE + log2(f64::from(mean_abs) / step))
            }
            Self::Constant => 0.0,
        }
    }
}

/// What is kept of a part of a tensor.
#[derive(Default)]
struct Part {
    units: Vec<RateUnit>,
    scales: Vec<Scale>,
    total: Moments,
}

impl TensorSource<'_> {
    /// Surveys the tensor, all units being of `method`; `None` where it is to stay exact whatever the goal.
    pub(super) fn survey(&self, method: Method, density: Density) -> Result<Option<Survey>> {
        let dtype = self.candidate.dtype;
        let unit_bytes = dtype.unit_bytes();
        let is_log = self.candidate.treatment.domain == Domain::Log2;
        let take = |part: &mut Part, first_element: u64, bytes: &[u8]| {
            for (run_idx, run) in (0..).zip(bytes.chunks(UNIT_LEN * unit_bytes)) {
                let first_element = first_element + run_idx * UNIT_LEN as u64;
                let is_asked = density.asks(first_element / UNIT_LEN as u64);
                let unit =
                    if is_asked { self.measure_unit(run).unwrap_or_default() } else { Unit::default() };
                let moments = if is_asked && !is_log {
                    unit.moments
                } else {
                    Moments::measure(self.ctx.isa, dtype, run).unwrap_or_default()
                };
                part.total.merge(&moments);
                if density.has_scales && !is_log {
                    part.scales.push(Scale::of(&moments));
                }
                if is_asked {
                    let weight = (run.len() / unit_bytes) as f64;
                    part.units.push(RateUnit { unit, first_element, weight, multiplier: 1.0, method });
                }
            }
        };
        let parts = self.map_parts(take)?;
        let n_blocks = parts.len() as u64;
        let (mut units, mut scales, mut total) = (Vec::new(), Vec::new(), Moments::default());
        for part in parts {
            total.merge(&part.total);
            units.extend(part.units);
            scales.extend(part.scales);
        }
        let is_special = total.n_not_finite > 0 && !is_log && !self.candidate.treatment.despite_defaults;
        if is_special || is_constant(&total, is_log) {
            return Ok(None);
        }
        let n_elements = self.n_elements();
        let kept: f64 = units.iter().map(|unit| unit.weight).sum();
        units.iter_mut().for_each(|unit| unit.weight *= n_elements as f64 / kept);
        Ok(Some(Survey {
            n_units: units.len(),
            units,
            scales,
            channels: None,
            n_elements,
            n_zeros: total.zeros,
            n_blocks,
        }))
    }

    pub(super) fn measure_unit(&self, run: &[u8]) -> Option<Unit> {
        let (isa, dtype) = (self.ctx.isa, self.candidate.dtype);
        match self.candidate.treatment.domain {
            Domain::Log2 => log_unit(isa, dtype, run),
            Domain::Linear => Unit::measure(isa, dtype, run),
        }
    }
}

/// Whether all finite elements are equal, or, of logarithms, all that are not zero; also where there are none.
fn is_constant(total: &Moments, is_log: bool) -> bool {
    /// What rounding may leave of the difference of two sums.
    const ROUNDING: f64 = 1e-12;
    let largest_everywhere = total.abs_max() * (total.n - total.zeros) as f64;
    let are_equal = is_log && total.min >= 0.0 && total.abs >= largest_everywhere * (1.0 - ROUNDING);
    total.n == 0 || total.min == total.max || are_equal
}

/// The unit of the logarithms of a run's positive elements.
fn log_unit(isa: Isa, dtype: Dtype, bytes: &[u8]) -> Option<Unit> {
    let mut values = vec![0.0; bytes.len() / dtype.unit_bytes()];
    convert::to_f32(isa, dtype, bytes, &mut values)?;
    values.retain(|x| *x > 0.0);
    let mut logs = vec![0.0; values.len()];
    log_domain::log2(isa, &values, &mut logs);
    Unit::measure(isa, Dtype::F32, bytemuck::cast_slice(&logs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Quantizer;

    fn moments(values: &[f32]) -> Moments {
        Moments::of_values(Isa::Scalar, values)
    }

    #[test]
    fn the_first_unit_is_asked_about_and_one_of_every_share() {
        for n_elements in [0, 1 << 20, 5 << 20, 23_000_000, 1 << 40] {
            let density = Density::of(n_elements);
            assert!(density.asks(0));
            let share = density.asked_one_in;
            assert!(share == 1 || n_elements / UNIT_LEN as u64 / share <= MAX_ASKED);
            for first in (0..20).map(|share_idx| share_idx * share) {
                assert_eq!((first..first + share).filter(|&unit| density.asks(unit)).count(), 1);
            }
        }
        assert!(Density::of(1 << 32).has_scales && !Density::of((1 << 32) + 1024).has_scales);
    }

    #[test]
    fn a_scale_says_whether_it_tells() {
        let even: Vec<f32> = (0..1024).map(|i| (i as f32 - 511.5) / 512.0).collect();
        let mut spiky = vec![0.001; 1024];
        spiky[7] = 100.0;
        assert!(matches!(Scale::of(&moments(&even)), Scale::Tells(mean) if (mean - 0.5).abs() < 1e-3));
        assert!(matches!(Scale::of(&moments(&spiky)), Scale::Hides(_)));
        assert_eq!(Scale::of(&moments(&[3.0; 9])), Scale::Constant);
        assert_eq!(Scale::of(&moments(&[f32::NAN; 9])), Scale::Constant);
        // Of evenly spread values the entropy is the logarithm of how many steps there are.
        let method = Method::best_of(Quantizer::Uniform);
        let bits = Scale::of(&moments(&even)).rough_bits(method, 2.0 / 256.0);
        assert!((bits - 8.0).abs() < 0.5, "{bits}");
        assert_eq!(Scale::Tells(1e-9).rough_bits(method, 1.0), 0.0);
    }

    #[test]
    fn constants_are_told_from_a_single_pass() {
        for (values, is_linear, is_logarithmic) in [
            (&[2.0, 2.0, f32::NAN][..], true, true),
            (&[0.0, 0.1, 0.0, 0.1, 0.1], false, true),
            (&[0.0, 0.1, 0.2], false, false),
            (&[-0.1, 0.1], false, false),
            (&[0.0, -0.0], true, true),
            (&[f32::INFINITY], true, true),
        ] {
            let total = moments(values);
            assert_eq!((is_constant(&total, false), is_constant(&total, true)), (is_linear, is_logarithmic));
        }
    }
}
