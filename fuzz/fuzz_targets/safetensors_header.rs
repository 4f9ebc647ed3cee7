//! Any bytes as a safetensors file: no panic, and a header that is accepted tiles the file without a gap.
#![no_main]

use alcm::Limits;
use alcm::checkpoint::{SafetensorsHeader, blocks, layout};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for file_len in [Some(bytes.len() as u64), None] {
        let Ok(header) = SafetensorsHeader::parse(bytes, file_len, &Limits::default()) else { continue };
        assert!(file_len.is_none_or(|file_len| file_len == header.file_len()));
        let regions = layout(&header);
        let mut end = 0;
        for region in &regions {
            assert_eq!(region.offset, end);
            assert!(region.len > 0 && region.len.is_multiple_of(region.dtype.unit_bytes() as u64));
            end += region.len;
        }
        assert_eq!(end, header.file_len());
        // A hostile header may claim exabytes where the file's length is not known: look at the first of them.
        let mut at = 0;
        for span in blocks(&regions).take(1000) {
            assert_eq!(span.offset, at);
            assert!((1..=span.dtype.block_bytes()).contains(&span.len));
            at += span.len as u64;
        }
        for tensor in header.tensors() {
            assert!(header.prefix_bytes() <= tensor.start && tensor.start <= tensor.end && tensor.end <= end);
        }
    }
});
