//! Any bytes as a file that is no safetensors file: whatever formats are seen in it, no panic, and regions fill the file
//! without a gap. A small file's blocks are encoded on trial.
#![no_main]

use alcm::Limits;
use alcm::checkpoint::{other_file_regions, read_from};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let len = bytes.len() as u64;
    let regions = other_file_regions(len, &read_from(bytes), &Limits::default()).unwrap();
    let mut end = 0;
    for region in &regions {
        assert_eq!(region.offset, end);
        assert!(region.len > 0 && region.len.is_multiple_of(region.dtype.unit_bytes() as u64));
        end += region.len;
    }
    assert_eq!(end, len);
});
