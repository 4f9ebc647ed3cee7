//! The loops: each kernel has a scalar definition and faster variants that give the same bytes.
pub mod convert;
pub mod fields;
pub mod histogram;
pub mod index_split;
pub mod isa;
pub mod log_domain;
pub mod moments;
pub mod octaves;
pub mod pack_bits;
pub mod prefetch;
pub mod quantize;
pub mod rans12;
pub mod rans8;
pub mod survey;
pub mod transpose;
pub mod trellis;
pub use isa::Isa;
