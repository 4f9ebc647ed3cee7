//! Which quantizer a tensor gets, and what a bit is worth to it, in a run that leaves that open.
//!
//! Dependent quantization is best where indices have some bits, on smooth distributions with much weight on them. Where
//! most indices are zero its paths pay for every way around a zero: there a longer step with less weight on bits is
//! better, and where hardly anything is left, or tables weigh much, plain rounding is. No rule by rate decides it well;
//! a sample, quantized in each way at the same exchange of error for bits, does.

use super::search::to_step;
use super::settings::LossySettings;
use super::tensor_source::{SAMPLE_LEN, TensorSource};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::{Isa, convert};
use crate::pipeline::timings::Step;
use crate::quantize::rdo::{LATTICE_LAMBDA, TRELLIS_LAMBDA, Tuner, UNIFORM_LAMBDA};
use crate::stage::{BlockLoss, Choice, Domain, IndexBackend, QuantRun, QuantSpec, Quantizer};

/// How indices are chosen: the quantizer, and the squared error, in `step²`, that saving a bit may cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Method {
    pub(super) quantizer: Quantizer,
    lambda: f32,
    /// Bits of plainly rounded indices as predicted, and stored bits.
    coded_bits: &'static [(f64, f64)],
}

/// Rounding, on the lattice or off it as a sample says, is the fastest to decode and comes first: it is taken where nothing
/// is better.
static METHODS: [Method; 4] = [
    Method::best_of(Quantizer::Lattice),
    Method { quantizer: Quantizer::Trellis, lambda: 0.15, coded_bits: &COARSE_TRELLIS_BITS },
    Method { quantizer: Quantizer::Trellis, lambda: 0.26, coded_bits: &MIDDLE_TRELLIS_BITS },
    Method::best_of(Quantizer::Trellis),
];

/// Each element by itself.
static UNIFORM: [Method; 1] = [Method::best_of(Quantizer::Uniform)];

/// Stored bits an element from which on zeros are too few for the methods between plain rounding and the best on smooth
/// distributions.
const MANY_BITS: f64 = 5.0;

/// Share of error and bits by which another method has to be better than rounding.
const LEAST_GAIN: f64 = 5e-3;
/// The same at [`MANY_BITS`] and more, where paths are better on all but values of a grid, and what a sample, in which columns
/// of different scale are not told apart, says of bits is less sure than that.
const LEAST_GAIN_OF_MANY: f64 = -0.02;

/// Dead zones and trellises lower the rate at a step; by how much depends on the rate, and hardly on the distribution.
/// The tables are the means of what normal and Laplacian values took (`scripts/rate_calibration.py`), over what the
/// shipped network predicts for them, so that its bias at fine steps is in them too.
static UNIFORM_BITS: [(f64, f64); 13] = [
    (0.0, 0.0),
    (0.5, 0.05),
    (1.0, 0.5),
    (1.5, 1.23),
    (2.0, 1.855),
    (2.5, 2.432),
    (3.0, 2.97),
    (4.0, 3.993),
    (5.0, 5.001),
    (6.0, 6.009),
    (8.0, 8.032),
    (10.0, 10.078),
    (16.0, 16.1),
];
/// The same on the lattice.
static LATTICE_BITS: [(f64, f64); 13] = [
    (0.0, 0.0),
    (0.5, 0.05),
    (1.0, 0.5),
    (1.5, 1.14),
    (2.0, 1.73),
    (2.5, 2.306),
    (3.0, 2.844),
    (4.0, 3.868),
    (5.0, 4.876),
    (6.0, 5.884),
    (8.0, 7.907),
    (10.0, 9.953),
    (16.0, 15.975),
];
/// The same with dependent quantization, whose points at the same step are twice as far apart.
static TRELLIS_BITS: [(f64, f64); 13] = [
    (0.0, 0.0),
    (1.0, 0.003),
    (1.5, 0.15),
    (2.0, 0.988),
    (2.5, 1.574),
    (3.0, 2.106),
    (3.5, 2.59),
    (4.0, 3.079),
    (5.0, 4.049),
    (6.0, 5.034),
    (8.0, 7.041),
    (10.0, 9.081),
    (16.0, 15.1),
];
/// The same where a bit is worth 0.26.
static MIDDLE_TRELLIS_BITS: [(f64, f64); 14] = [
    (0.0, 0.0),
    (0.5, 0.003),
    (1.0, 0.066),
    (1.5, 0.628),
    (2.0, 1.234),
    (2.5, 1.726),
    (3.0, 2.197),
    (3.5, 2.664),
    (4.0, 3.126),
    (5.0, 4.073),
    (6.0, 5.042),
    (8.0, 7.044),
    (10.0, 9.088),
    (16.0, 15.1),
];
/// The same where a bit is worth 0.15.
static COARSE_TRELLIS_BITS: [(f64, f64); 14] = [
    (0.0, 0.0),
    (0.5, 0.013),
    (1.0, 0.295),
    (1.5, 0.906),
    (2.0, 1.364),
    (2.5, 1.811),
    (3.0, 2.248),
    (3.5, 2.693),
    (4.0, 3.146),
    (5.0, 4.081),
    (6.0, 5.045),
    (8.0, 7.044),
    (10.0, 9.088),
    (16.0, 15.1),
];

impl Method {
    /// The method that suits `quantizer` best on smooth distributions at some bits an element.
    pub(super) const fn best_of(quantizer: Quantizer) -> Self {
        match quantizer {
            Quantizer::Uniform => Self { quantizer, lambda: UNIFORM_LAMBDA, coded_bits: &UNIFORM_BITS },
            Quantizer::Lattice => Self { quantizer, lambda: LATTICE_LAMBDA, coded_bits: &LATTICE_BITS },
            Quantizer::Trellis => Self { quantizer, lambda: TRELLIS_LAMBDA, coded_bits: &TRELLIS_BITS },
        }
    }

    /// Stored bits of an index, where plain rounding at the same step is predicted to have an entropy of `plain` bits.
    pub(super) fn coded_bits(self, plain: f64) -> f64 {
        let table = self.coded_bits;
        let after = table.partition_point(|(x, _)| *x < plain).clamp(1, table.len() - 1);
        let ((x0, y0), (x1, y1)) = (table[after - 1], table[after]);
        (y0 + (plain - x0) * (y1 - y0) / (x1 - x0)).max(0.0)
    }

    /// What a run that asks for `quantizer` chooses from.
    pub(super) fn of_run(quantizer: Quantizer) -> &'static [Self] {
        match quantizer {
            Quantizer::Uniform => &UNIFORM,
            Quantizer::Lattice => &METHODS[..1],
            Quantizer::Trellis => &METHODS,
        }
    }

    /// Whether it may be better than the others of a run with `quantizer` where plain rounding takes `plain` bits an element.
    pub(super) fn suits(self, quantizer: Quantizer, plain: f64) -> bool {
        plain < MANY_BITS || self == Self::best_of(quantizer) || self.quantizer != Quantizer::Trellis
    }

    /// Length of its step, if that of `other` is 1 and a bit is worth the same error to both.
    pub(super) fn step_beside(self, other: Self) -> f64 {
        f64::from(other.lambda / self.lambda).sqrt()
    }

    /// How indices are chosen at `step`, by what a sample of the tensor shows.
    pub(super) fn choice(self, isa: Isa, tuner: &mut Tuner, sample: &[f32], step: f32) -> Choice {
        match self.quantizer {
            Quantizer::Uniform => Choice::Rounded(tuner.thresholds(isa, sample, step, self.lambda)),
            Quantizer::Lattice => Choice::Rounded(tuner.lattice(isa, sample, step, self.lambda)),
            Quantizer::Trellis => Choice::Trellis(tuner.costs(isa, sample, step, self.lambda)),
        }
    }
}

impl TensorSource<'_> {
    /// The method of a run with `settings` that suits the tensor best where the run's own has `step`. Below `floor` bits
    /// an element that is plain rounding: the step will be another, and the rates of paths are then hard to foretell.
    pub(super) fn best_method(&self, settings: &LossySettings, step: f64, floor: f64) -> Result<Method> {
        let own = Method::best_of(settings.quantizer);
        let values = self.sample()?;
        let bit_is_worth = step * step * f64::from(own.lambda);
        let try_method = |method: Method| {
            let step = to_step(step * method.step_beside(own))?;
            let (bits, loss) = self.try_method(method, settings, &values, step);
            Some((bits, bits + loss.errors.error_sq / bit_is_worth))
        };
        let choose = || {
            let [plain, others @ ..] = Method::of_run(settings.quantizer) else { return Some(own) };
            let (bits, cost) = try_method(*plain)?;
            if bits < floor * values.len() as f64 {
                return Some(*plain);
            }
            let plain_bits = bits / values.len() as f64;
            let least_gain = if plain_bits < MANY_BITS { LEAST_GAIN } else { LEAST_GAIN_OF_MANY };
            let mut best = (*plain, cost * (1.0 - least_gain));
            for method in others.iter().filter(|method| method.suits(settings.quantizer, plain_bits)) {
                let (_, cost) = try_method(*method)?;
                if cost < best.1 {
                    best = (*method, cost);
                }
            }
            Some(best.0)
        };
        Ok(self.time(Step::Prediction, choose).unwrap_or(own))
    }

    /// Bits that `values`, all of the tensor or a sample of it, take by `method`, and what is lost of them.
    pub(super) fn try_method(
        &self,
        method: Method,
        settings: &LossySettings,
        values: &[f32],
        step: f32,
    ) -> (f64, BlockLoss) {
        let isa = self.ctx.isa;
        let plain = self.plain_spec(settings, method, values, step);
        // The values are in the domain that is quantized already; what is chosen is the same for every backend.
        let spec = QuantSpec { domain: Domain::Linear, backend: IndexBackend::Rans, ..plain };
        let mut bytes = vec![0; 4 * values.len()];
        let _ = convert::from_f32(isa, Dtype::F32, values, &mut bytes);
        let run = QuantRun { spec: &spec, dtype: Dtype::F32, first_element: 0 };
        self.with_trial_encoder(|encoder| {
            if self.n_elements() > SAMPLE_LEN {
                return encoder.estimate_quantized(run, &mut bytes);
            }
            // Tables weigh as much as they will.
            let mut payload = Vec::new();
            let (_, loss) = encoder.encode_quantized_watched(run, &mut bytes, &mut payload, &mut |_| {});
            (8.0 * payload.len() as f64, loss)
        })
    }
}
