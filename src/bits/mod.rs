//! Bits and bytes: little-endian input and output, checked.

pub mod cursor;

pub use cursor::ByteCursor;
