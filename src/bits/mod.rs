//! Bits and bytes: little-endian input and output, checked against the end of the data.

mod bit_reader;
mod bit_writer;
pub mod cursor;
mod rice;

pub use bit_reader::BitReader;
pub use bit_writer::BitWriter;
pub use cursor::ByteCursor;
pub use rice::{MAX_PARAMETER as MAX_RICE_PARAMETER, Rice, get_rice, put_rice, rice_bits};
