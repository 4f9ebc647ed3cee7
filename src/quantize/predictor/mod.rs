//! Entropy of a unit's quantized elements at any step, predicted from one pass over them.
//!
//! Index k of element x at step Δ is x ÷ Δ rounded; what is predicted is the order-0 entropy of the indices, in bits
//! per element. Everything is measured in steps, so that scaling elements and step together changes nothing.
//! Rate control asks for thousands of units at dozens of steps; counting the indices for each would cost a pass over
//! the elements every time.
//!
//! | model | what it knows |
//! |---|---|
//! | [`Constant`] | nothing |
//! | [`Gaussian`] | mean and variance |
//! | [`GeneralizedGaussian`] | mean, variance, and a shape from the kurtosis or from the mean magnitude |
//! | [`Octaves`] | counts by sign and octave |
//! | [`MomentsNet`] | mean, variance, standard deviation, skewness, kurtosis, sparsity; learned |
//! | [`ProfileNet`] | all of the above; learned, as a correction to the closed forms |
//!
//! The networks ship trained ([`Networks::shipped`]; SHA-256 of their file
//! 8a90f6afc0cd22754cec46819eeb99e440f96da38ac450f67888abfff3bbe0b5), by
//!
//! ```text
//! alcm train crepe_full mobilenet_v2 resemblyzer nudenet_yolov8n silero_vad_16k digits_resnet/step_0300
//!   digits_resnet/grads_step_0300 byte_gpt_finetune/tuned resemblyzer.bf16 nudenet_yolov8n.fp16
//!   --held-out minilm_l6_v2 --held-out whisper_tiny_en_fp16 --held-out ppocr_v4_rec --held-out minilm_l6_v2.bf16
//!   -o shipped.nets
//! ```
//!
//! each name followed by `.safetensors`. That command printed, for 37,664 samples of checkpoints not trained on:
//!
//! | model | MSE in (bits/8)² | RMSE in bits | R² | bias at 2 to 8 bits |
//! |---|---|---|---|---|
//! | constant | 1.12e-1 | 2.682 | −0.021 | −1.366 |
//! | gaussian | 7.58e-4 | 0.220 | 0.9931 | +0.093 |
//! | gg-kurtosis | 5.82e-4 | 0.193 | 0.9947 | −0.025 |
//! | gg-mean-abs | 1.40e-4 | 0.095 | 0.9987 | +0.021 |
//! | octaves | 3.72e-5 | 0.049 | 0.9997 | +0.013 |
//! | mlp-moments | 1.46e-3 | 0.306 | 0.9868 | −0.076 |
//! | mlp-profile | 2.40e-5 | 0.039 | 0.9998 | +0.005 |
//!
//! Six moments are not enough: kurtosis follows the few largest elements, so the network on them loses to every
//! closed form but the constant. What counts near zero tells more, and the network that corrects the octaves' closed
//! form has two thirds of its squared error.

mod closed_form;
mod features;
mod mlp;
mod model_file;
pub mod target;
pub mod train;
mod unit;

pub use closed_form::{Constant, Gaussian, GeneralizedGaussian, Octaves, ShapeFrom};
pub use features::models;
pub use mlp::{MomentsNet, ProfileNet};
pub use model_file::{Networks, SHIPPED_BYTES};
pub use unit::{N_OCTAVES, Unit};

/// Most bits per element that a model predicts; wider indices are listed, not modelled.
pub const MAX_BITS: f64 = 16.0;

/// A model of the rate.
pub trait EntropyModel: Sync {
    /// Bits per finite element of the indices of `unit` at `step`: 0 to about [`MAX_BITS`], more for the closed
    /// forms. `step` is positive and finite; where it is not, or the unit has no finite elements, 0.
    fn bits(&self, unit: &Unit, step: f64) -> f64;
}

/// Whether there is anything to predict.
fn is_meaningful(unit: &Unit, step: f64) -> bool {
    unit.moments.n > 0 && step > 0.0 && step.is_finite()
}

#[cfg(test)]
mod tests;
