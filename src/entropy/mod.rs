//! Lossless models of symbol bytes: which tables, how they are written, and the sections they make.

pub mod escapes;
pub mod freq;
pub mod plan;
pub mod rans12;
pub mod rans8;
