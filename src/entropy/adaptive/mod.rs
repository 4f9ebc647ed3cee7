//! Models without tables, for blocks too short to pay for one: every symbol is a few binary decisions, whose
//! probabilities adapt from one symbol to the next.
//!
//! Slow beside rANS, some five to ten million symbols a second, and within half a per cent of the entropy from a few
//! thousand symbols on. FORMAT.md, sections 3.3.6 and 3.8.

mod binary;
mod floats;
mod indices;
mod matches;

pub use floats::{FloatLayout, decode_floats, encode_floats};
pub use indices::{decode_indices, encode_indices};
