//! Any bytes as a GGUF file: no panic, and regions fill the file without a gap.
#![no_main]

use alcm::Limits;
use alcm::checkpoint::{gguf_layout, gguf_regions, read_from};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let regions = gguf_regions(bytes.len() as u64, &read_from(bytes), &Limits::default()).unwrap();
    let mut end = 0;
    for region in regions.iter().flatten() {
        assert_eq!(region.offset, end);
        assert!(region.len > 0 && region.len.is_multiple_of(region.dtype.unit_bytes() as u64));
        end += region.len;
    }
    assert!(regions.is_none() || end == bytes.len() as u64);
    // In a pipe the last tensor's size is what the header claims.
    let mut end = 0;
    for region in gguf_layout(bytes, None, &Limits::default()).iter().flatten() {
        assert_eq!(region.offset, end);
        end += region.len;
    }
});
