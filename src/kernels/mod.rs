//! The loops: each kernel has a scalar definition and faster variants that give the same bytes.
pub mod isa;
pub use isa::Isa;
