//! Any bytes as an archive read at random: no panic, and nothing that passes differs from its content hash.
#![no_main]

use alcm::Limits;
use alcm::container::{Archive, no_other_files, read_range};
use alcm::kernels::Isa;
use alcm::stage::BlockDecoder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(archive) = Archive::open(bytes, &Limits::default()) else { return };
    assert_eq!(archive.archive_bytes(), bytes.len() as u64);
    let mut decoder = BlockDecoder::new(Isa::detect());
    let mut end = 0;
    for (block_idx, entry) in (0..).zip(archive.blocks()) {
        assert_eq!((entry.block_idx, entry.original_offset), (block_idx, end));
        assert_eq!(archive.block(block_idx), Some(entry));
        assert_eq!(archive.block_at(end), Some(entry));
        end = entry.original_end();
        let Ok(record) = archive.record_of(&entry) else { continue };
        let mut decoded = vec![0; entry.decoded_bytes as usize];
        let result = archive.decode(&record, &mut decoder, &no_other_files, &mut decoded);
        if result.is_ok() && decoded.len() > 2 {
            let mut middle = vec![0; decoded.len() - 2];
            read_range(&archive, entry.original_offset + 1, &mut middle, &mut decoder, &no_other_files)
                .unwrap();
            assert!(middle == decoded[1..decoded.len() - 1]);
        }
    }
    assert_eq!(end, archive.original_bytes());
});
