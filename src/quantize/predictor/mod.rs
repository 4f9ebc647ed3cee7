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
//! The networks ship trained: see [`Networks::shipped`].

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
