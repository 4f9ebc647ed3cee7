//! Any bytes as an archive read front to back: what it accepts, random access accepts too, with the same blocks.
#![no_main]

use alcm::Limits;
use alcm::container::{Archive, StreamReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut stream) = StreamReader::new(bytes, &Limits::default()) else { return };
    let (mut payload, mut entries) = (Vec::new(), Vec::new());
    loop {
        match stream.next_block(&mut payload) {
            Ok(Some(record)) => entries.push(record.entry),
            Ok(None) => break,
            Err(_) => return,
        }
    }
    let Ok(end) = stream.finish() else { return };
    let archive = Archive::open(bytes, &Limits::default()).unwrap();
    assert_eq!(end.content_hash, *archive.content_hash());
    assert!(archive.blocks().eq(entries.iter().copied()));
    assert!(entries.iter().all(|entry| archive.record_of(entry).is_ok()));
});
