//! What quantization is decided by; the loops themselves are kernels.

pub mod rdo;
