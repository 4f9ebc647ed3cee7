//! The laboratory: what reproduces and checks the numbers that this project and the original report state.
//!
//! It stands above [`crate::pipeline`], whose functions it measures, and below the command line. Nothing of the
//! compressor uses it.

pub mod numpy_legacy;
pub mod synthetic;
