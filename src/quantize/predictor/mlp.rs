//! Networks of two layers: inputs, hidden units with ReLU, one sigmoid.
//!
//! Sums run in a fixed order in f32 without fused operations, so that every platform predicts the same bits.

use ndarray::{Array1, Array2};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::features::{N_MOMENTS, N_PROFILE, Question, moments_question, profile_question, within_range};
use super::{EntropyModel, Unit};
use crate::quantize::elementary::sigmoid;

/// Hidden units that are summed side by side.
const LANES: usize = 16;
/// Most hidden units.
pub(super) const MAX_HIDDEN: usize = 1024;

/// Weights and biases.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mlp {
    /// `[n_inputs, n_hidden]`, C order.
    pub(super) hidden: Array2<f32>,
    /// `[n_hidden]`.
    pub(super) hidden_bias: Array1<f32>,
    /// `[n_hidden]`.
    pub(super) output: Array1<f32>,
    pub(super) output_bias: f32,
}

impl Mlp {
    /// All zeros.
    pub(super) fn zeros(n_inputs: usize, n_hidden: usize) -> Self {
        Self {
            hidden: Array2::zeros((n_inputs, n_hidden)),
            hidden_bias: Array1::zeros(n_hidden),
            output: Array1::zeros(n_hidden),
            output_bias: 0.0,
        }
    }

    /// Weights uniform within ±√(6 ÷ (inputs + outputs)) of their layer, biases 0 (Glorot and Bengio, 2010).
    pub(super) fn xavier(n_inputs: usize, n_hidden: usize, rng: &mut ChaCha8Rng) -> Self {
        let mut uniform = |fan: usize| {
            let limit = (6.0 / fan as f32).sqrt();
            limit * ((rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0)
        };
        let mut mlp = Self::zeros(n_inputs, n_hidden);
        mlp.hidden.mapv_inplace(|_| uniform(n_inputs + n_hidden));
        mlp.output.mapv_inplace(|_| uniform(n_hidden + 1));
        mlp
    }

    pub(super) fn n_inputs(&self) -> usize {
        self.hidden.nrows()
    }

    pub(super) fn n_hidden(&self) -> usize {
        self.hidden.ncols()
    }

    /// Weights and biases together.
    pub(super) fn n_parameters(&self) -> usize {
        self.hidden.len() + self.hidden_bias.len() + self.output.len() + 1
    }

    /// The parameters in the order of the file: hidden weights, hidden biases, output weights, output bias.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &f32> {
        self.hidden.iter().chain(&self.hidden_bias).chain(&self.output).chain([&self.output_bias])
    }

    /// The same, to be changed.
    pub(super) fn parameters_mut(&mut self) -> impl Iterator<Item = &mut f32> {
        self.hidden
            .iter_mut()
            .chain(&mut self.hidden_bias)
            .chain(&mut self.output)
            .chain([&mut self.output_bias])
    }

    /// What goes into the sigmoid.
    pub(super) fn forward(&self, inputs: &[f32]) -> f32 {
        let (Some(weights), Some(biases), Some(output)) =
            (self.hidden.as_slice(), self.hidden_bias.as_slice(), self.output.as_slice())
        else {
            return 0.0; // arrays that this module makes are contiguous
        };
        let n_hidden = biases.len();
        let mut sums = [0f32; LANES];
        for start in (0..n_hidden).step_by(LANES) {
            let range = start..(start + LANES).min(n_hidden);
            let mut units = [0f32; LANES];
            let units = &mut units[..range.len()];
            units.copy_from_slice(&biases[range.clone()]);
            for (input, weights) in inputs.iter().zip(weights.chunks_exact(n_hidden)) {
                for (unit, weight) in units.iter_mut().zip(&weights[range.clone()]) {
                    *unit += input * weight;
                }
            }
            for ((sum, unit), weight) in sums.iter_mut().zip(units.iter()).zip(&output[range]) {
                *sum += unit.max(0.0) * weight;
            }
        }
        sums.iter().fold(self.output_bias, |total, sum| total + sum)
    }

    /// The answer to a question, in bits.
    fn answer<const N: usize>(&self, question: &Question<N>) -> f64 {
        let z = f64::from(self.forward(&question.inputs));
        (question.offset + question.gain * sigmoid(z)).max(0.0)
    }
}

/// Six moments, hidden units, one output times [`super::MAX_BITS`]: the network of the original design.
#[derive(Debug, Clone, PartialEq)]
pub struct MomentsNet(pub(super) Mlp);

impl MomentsNet {
    pub(super) const N_INPUTS: usize = N_MOMENTS;

    /// Weights and biases: 513 with 64 hidden units.
    #[must_use]
    pub fn n_parameters(&self) -> usize {
        self.0.n_parameters()
    }
}

impl EntropyModel for MomentsNet {
    fn bits(&self, unit: &Unit, step: f64) -> f64 {
        within_range(unit, step, |step| self.0.answer(&moments_question(unit, step)))
    }
}

/// Moments and octave counts; a correction to the closed form of the latter.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileNet(pub(super) Mlp);

impl ProfileNet {
    pub(super) const N_INPUTS: usize = N_PROFILE;

    /// Weights and biases.
    #[must_use]
    pub fn n_parameters(&self) -> usize {
        self.0.n_parameters()
    }
}

impl EntropyModel for ProfileNet {
    fn bits(&self, unit: &Unit, step: f64) -> f64 {
        within_range(unit, step, |step| self.0.answer(&profile_question(unit, step)))
    }
}

impl<M: EntropyModel> EntropyModel for &M {
    fn bits(&self, unit: &Unit, step: f64) -> f64 {
        (*self).bits(unit, step)
    }
}
