//! Lossless models of symbols: which tables, how they are written, and the sections they make.

pub mod adaptive;
pub mod cluster;
pub mod escapes;
pub mod freq;
pub mod indices;
pub mod log_freq;
pub mod plan;
pub mod rans12;
pub mod rans8;
