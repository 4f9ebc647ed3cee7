//! What quantization is decided by: models of the rate, costs of indices, and the elementary functions that they share.
//! The loops themselves are kernels.

pub mod elementary;
pub mod predictor;
pub mod rdo;
