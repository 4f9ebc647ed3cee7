//! Archives whose checksums are right and whose blocks are any bytes: both readers agree on what they are.
//!
//! The input is a row of blocks: dtype, coding, decoded bytes (two bytes), payload bytes (two bytes), payload.
#![no_main]

mod common;

use alcm::Limits;
use alcm::container::{
    Archive, ArchiveWriter, EncodedBlock, FLAG_REFERENCES, StreamReader, crc64, decode_block, no_other_files,
};
use alcm::kernels::Isa;
use alcm::stage::{BlockDecoder, Coding};
use libfuzzer_sys::fuzz_target;

fn archive(mut input: &[u8]) -> Option<Vec<u8>> {
    let mut writer = ArchiveWriter::new(Vec::new(), FLAG_REFERENCES, 0).ok()?;
    while let Some((&[dtype, coding, d0, d1, p0, p1], rest)) = input.split_first_chunk() {
        let dtype = common::dtype(dtype);
        let coding = Coding::from_wire_id(coding % 6)?;
        let decoded_bytes = usize::from(u16::from_le_bytes([d0, d1])) * dtype.unit_bytes();
        let (payload, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([p0, p1])))?;
        // The CRC of what the block decodes to, where that can be known here.
        let mut decoded = vec![0; decoded_bytes];
        if coding != Coding::Reference {
            let _ = BlockDecoder::new(Isa::Scalar).decode(coding, dtype, payload, &mut decoded);
        }
        let decoded_crc = crc64(&decoded);
        writer.write_block(&EncodedBlock { dtype, coding, decoded_bytes, decoded_crc, payload }).ok()?;
        input = rest;
    }
    Some(writer.finish([0; 32], None).ok()?.0)
}

fuzz_target!(|input: &[u8]| {
    let Some(bytes) = archive(input) else { return };
    let archive = Archive::open(&bytes, &Limits::default()).unwrap();
    let mut stream = StreamReader::new(&bytes[..], &Limits::default()).unwrap();
    let mut decoder = BlockDecoder::new(Isa::detect());
    let mut payload = Vec::new();
    for entry in archive.blocks() {
        let streamed = stream.next_block(&mut payload).unwrap().unwrap();
        let record = archive.record_of(&entry).unwrap();
        assert_eq!(record, streamed);
        let mut decoded = vec![0xaa; entry.decoded_bytes as usize];
        let at_random = archive.decode(&record, &mut decoder, &no_other_files, &mut decoded);
        if at_random.is_ok() {
            assert_eq!(crc64(&decoded), record.decoded_crc);
        }
        if entry.coding != Coding::Reference {
            let mut again = vec![0x55; entry.decoded_bytes as usize];
            let in_order = decode_block(&streamed, &mut decoder, &mut again);
            assert_eq!(at_random.is_ok(), in_order.is_ok());
            assert!(at_random.is_err() || decoded == again);
        }
    }
    assert!(stream.next_block(&mut payload).unwrap().is_none());
    stream.finish().unwrap();
});
