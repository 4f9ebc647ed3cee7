//! The lossy half of a run: which tensors may change, by how much, and with what steps.
//!
//! ```text
//! rules ─▶ candidates ─▶ survey ─▶ rate control ─▶ steps ─▶ fit ─▶ prune ─▶ plan ─▶ blocks
//!                       (one pass)  (entropy model,         (measured error)
//!                                    bounds of bits, set
//!                                    right by samples and
//!                                    a few whole blocks)
//! ```
//!
//! The plan is complete before the first byte is written: every step has been tried on the whole tensor and the
//! error measured on decoded values, so that a bound that was asked for holds, or the tensor is exact.

mod bounds;
mod calibration;
mod fit;
mod keep;
mod layers;
mod method;
mod plan;
mod prune;
mod rate;
mod samples;
mod search;
pub mod series;
pub mod settings;
mod share_out;
mod survey;
mod tensor_source;
mod trial;
mod twins;
mod whole_blocks;
mod worth;

pub(crate) use layers::{LayerBlock, LayeredPlan, LayeredPlans, LayersPlanner};
pub(crate) use plan::{FilePlan, LossyPlanner, Plans, TensorPlan, series_after};
pub(crate) use twins::stay_equal;
