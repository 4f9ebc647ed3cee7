//! What quantization is decided by: models of the rate, and the elementary functions that they share.

pub mod elementary;
pub mod predictor;
pub mod rdo;
