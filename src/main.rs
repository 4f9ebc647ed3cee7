//! The `alcm` command: see [`alcm::cli`].
fn main() {}
