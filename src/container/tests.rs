//! Round trips and damage over whole archives, through both readers.

use super::*;
use crate::dtype::Dtype;
use crate::error::{ErrorKind, Result};
use crate::kernels::Isa;
use crate::limits::Limits;
use crate::stage::{BlockDecoder, Coding};

fn decoder() -> BlockDecoder {
    BlockDecoder::new(Isa::Scalar)
}

/// Three stored blocks and a reference to the second of them.
fn sample() -> (Vec<u8>, Vec<u8>) {
    let blocks: [(Dtype, &[u8]); 3] =
        [(Dtype::Bytes, b"header"), (Dtype::Bf16, b"abcdefgh"), (Dtype::F32, b"0123")];
    let mut writer = ArchiveWriter::new(Vec::new(), FLAG_REFERENCES, 0x0000_0001_0000_0001).unwrap();
    let mut original = Vec::new();
    for (dtype, bytes) in blocks {
        let block = EncodedBlock {
            dtype,
            coding: Coding::Stored,
            decoded_bytes: bytes.len(),
            decoded_crc: crc64(bytes),
            payload: bytes,
        };
        let entry = writer.write_block(&block).unwrap();
        assert_eq!(entry.original_offset, original.len() as u64);
        original.extend_from_slice(bytes);
    }
    let payload = Reference::SameFile { original_offset: 6 }.to_payload();
    let block = EncodedBlock {
        dtype: Dtype::Bf16,
        coding: Coding::Reference,
        decoded_bytes: 8,
        decoded_crc: crc64(b"abcdefgh"),
        payload: &payload,
    };
    writer.write_block(&block).unwrap();
    original.extend_from_slice(b"abcdefgh");
    let (archive, summary) = writer.finish(blake3::hash(&original).into(), Some([5; 32])).unwrap();
    assert_eq!(summary.archive_bytes, archive.len() as u64);
    assert_eq!(summary.original_bytes, original.len() as u64);
    assert_eq!(summary.n_blocks, 4);
    (archive, original)
}

fn read_at_random(bytes: &[u8]) -> Result<Vec<u8>> {
    let archive = Archive::open(bytes, &Limits::default())?;
    let mut original = Vec::new();
    for block_idx in 0..archive.n_blocks() {
        let record = archive.record(block_idx)?;
        let mut decoded = vec![0xAA; record.entry.decoded_bytes as usize];
        archive.decode(&record, &mut decoder(), &no_other_files, &mut decoded)?;
        original.extend_from_slice(&decoded);
    }
    Ok(original)
}

fn read_as_stream(bytes: &[u8]) -> Result<(StreamEnd, Vec<BlockInfo>)> {
    let mut stream = StreamReader::new(bytes, &Limits::default())?;
    let mut payload = Vec::new();
    let mut blocks = Vec::new();
    while let Some(record) = stream.next_block(&mut payload)? {
        if record.entry.coding != Coding::Reference {
            let mut decoded = vec![0; record.entry.decoded_bytes as usize];
            decode_block(&record, &mut decoder(), &mut decoded)?;
        }
        blocks.push(record.entry.info());
    }
    Ok((stream.finish()?, blocks))
}

#[test]
fn both_readers_give_the_original_back() {
    let (archive, original) = sample();
    assert_eq!(read_at_random(&archive).unwrap(), original);
    let (end, blocks) = read_as_stream(&archive).unwrap();
    assert_eq!(end.original_bytes, original.len() as u64);
    assert_eq!(end.archive_bytes, archive.len() as u64);
    assert_eq!(end.content_hash, *blake3::hash(&original).as_bytes());
    assert_eq!(end.sha256, Some([5; 32]));
    let opened = Archive::open(&archive, &Limits::default()).unwrap();
    assert!(opened.blocks().map(|entry| entry.info()).eq(blocks));
    assert_eq!(opened.note(), 0x0000_0001_0000_0001);
}

#[test]
fn empty_original() {
    let writer = ArchiveWriter::new(Vec::new(), 0, 0).unwrap();
    let (archive, _) = writer.finish(blake3::hash(b"").into(), None).unwrap();
    assert_eq!(archive.len(), 32 + 24 + 128);
    assert_eq!(read_at_random(&archive).unwrap(), b"");
    assert_eq!(read_as_stream(&archive).unwrap().0.n_blocks, 0);
}

fn assert_refused(bytes: &[u8], what: &str) {
    assert!(read_at_random(bytes).is_err(), "{what} accepted at random");
    assert!(read_as_stream(bytes).is_err(), "{what} accepted as a stream");
}

#[test]
fn every_flip_and_overwrite_is_refused() {
    let (archive, _) = sample();
    for at in 0..archive.len() {
        let values = (0..8).map(|bit| archive[at] ^ (1 << bit)).chain([0, 0xFF]);
        for value in values.filter(|&value| value != archive[at]) {
            let mut damaged = archive.clone();
            damaged[at] = value;
            assert_refused(&damaged, &format!("byte {at} as {value:#x}"));
        }
    }
}

#[test]
fn every_truncation_is_known_as_one_and_nothing_may_follow() {
    let (archive, _) = sample();
    for len in 0..archive.len() {
        let cut = &archive[..len];
        assert_eq!(read_at_random(cut).unwrap_err().kind(), ErrorKind::Truncated, "{len} bytes, at random");
        assert_eq!(read_as_stream(cut).unwrap_err().kind(), ErrorKind::Truncated, "{len} bytes, as a stream");
    }
    let mut longer = archive;
    longer.push(0);
    assert_refused(&longer, "a byte after the end");
}

#[test]
fn index_that_differs_from_the_records_is_refused() {
    let (archive, original) = sample();
    let mut index = IndexBuilder::new();
    let opened = Archive::open(&archive, &Limits::default()).unwrap();
    for entry in opened.blocks() {
        let dtype = if entry.block_idx == 1 { Dtype::F16 } else { entry.dtype };
        index.push(BlockInfo { dtype, ..entry.info() });
    }
    let index_offset = usize::try_from(index.index_offset()).unwrap();
    let (tail, _) = index.finish(blake3::hash(&original).into(), None, None);
    let forged = [&archive[..index_offset], &tail].concat();
    assert_eq!(read_at_random(&forged).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(read_as_stream(&forged).unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Archives of two stored blocks, "ab" and "cd", and a third that is `reference`.
fn with_reference(flags: u32, dtype: Dtype, reference: Reference) -> Vec<u8> {
    let mut bytes = FileHeader::new(flags, 0).to_bytes().to_vec();
    let mut index = IndexBuilder::new();
    let payload = reference.to_payload();
    let blocks: [(Coding, &[u8]); 3] =
        [(Coding::Stored, b"ab"), (Coding::Stored, b"cd"), (Coding::Reference, &payload)];
    for (coding, payload) in blocks {
        let dtype = if coding == Coding::Reference { dtype } else { Dtype::Bytes };
        let info = BlockInfo::new(dtype, coding, 2, payload.len()).unwrap();
        let decoded_crc = if coding == Coding::Reference { crc64(b"ab") } else { crc64(payload) };
        bytes.extend_from_slice(&block_header_bytes(info, decoded_crc, payload).unwrap());
        bytes.extend_from_slice(payload);
        index.push(info);
    }
    bytes.extend_from_slice(&index.finish([0; 32], None, None).0);
    bytes
}

#[test]
fn references_keep_their_rules() {
    let to = |original_offset| Reference::SameFile { original_offset };
    let read = |reference| read_at_random(&with_reference(FLAG_REFERENCES, Dtype::Bytes, reference));
    assert_eq!(read(to(0)).unwrap(), b"abcdab");
    // Not a block's start, another CRC, itself, past the end.
    for original_offset in [1, 2, 4, 5, 6, u64::MAX] {
        assert_eq!(read(to(original_offset)).unwrap_err().kind(), ErrorKind::Corrupt, "{original_offset}");
    }
    let other_dtype = with_reference(FLAG_REFERENCES, Dtype::U8, to(0));
    assert_eq!(read_at_random(&other_dtype).unwrap_err().kind(), ErrorKind::Corrupt);
    let undeclared = with_reference(0, Dtype::Bytes, to(0));
    assert_eq!(read_at_random(&undeclared).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(read_as_stream(&undeclared).unwrap_err().kind(), ErrorKind::Corrupt);
    let other = OtherFile { content_hash: [1; 32], original_offset: 0 };
    let error = read(Reference::OtherFile(other)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BaseMismatch);
    assert_eq!(error.location().block_idx, Some(2));
}

#[test]
fn references_to_another_file_are_resolved_and_checked() {
    let other = OtherFile { content_hash: [1; 32], original_offset: 0 };
    let referring = with_reference(FLAG_REFERENCES, Dtype::Bytes, Reference::OtherFile(other));
    let target = with_reference(FLAG_REFERENCES, Dtype::Bytes, Reference::SameFile { original_offset: 0 });
    let (archive, target) =
        (Archive::open(&referring, &Limits::default()), Archive::open(&target, &Limits::default()));
    let (archive, target) = (archive.unwrap(), target.unwrap());
    let record = archive.record(2).unwrap();
    let mut decoded = [0; 2];
    archive
        .decode(
            &record,
            &mut decoder(),
            &|other: &OtherFile, record: &BlockRecord<'_>, decoder: &mut BlockDecoder, dst: &mut [u8]| {
                target.decode_target(other.original_offset, record, decoder, dst)
            },
            &mut decoded,
        )
        .unwrap();
    assert_eq!(&decoded, b"ab");
    // A resolver that fills in nothing is found out.
    let careless = |_: &OtherFile, _: &BlockRecord<'_>, _: &mut BlockDecoder, _: &mut [u8]| Ok(());
    let error = archive.decode(&record, &mut decoder(), &careless, &mut [9; 2]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
}

#[test]
fn any_range_and_any_block_of_a_long_archive() {
    let mut writer = ArchiveWriter::new(Vec::new(), 0, 0).unwrap();
    let mut original = Vec::new();
    let mut ends = Vec::new();
    for block_idx in 0..300_usize {
        let bytes: Vec<u8> =
            (0..=block_idx % 7).map(|i| ((block_idx + i) % 256).try_into().unwrap()).collect();
        let block = EncodedBlock {
            dtype: Dtype::Bytes,
            coding: Coding::Stored,
            decoded_bytes: bytes.len(),
            decoded_crc: crc64(&bytes),
            payload: &bytes,
        };
        writer.write_block(&block).unwrap();
        original.extend_from_slice(&bytes);
        ends.push(original.len());
    }
    let (archive, _) = writer.finish([0; 32], None).unwrap();
    let archive = Archive::open(&archive, &Limits::default()).unwrap();
    for offset in 0..original.len() {
        let expected = ends.partition_point(|end| *end <= offset) as u64;
        let entry = archive.block_at(offset as u64).unwrap();
        assert_eq!(entry.block_idx, expected);
        assert_eq!(archive.block(expected), Some(entry));
        for len in [0, 1, 6, 40].map(|len: usize| len.min(original.len() - offset)) {
            let mut dst = vec![0xAA; len];
            read_range(&archive, offset as u64, &mut dst, &mut decoder(), &no_other_files).unwrap();
            assert_eq!(dst, original[offset..offset + len]);
        }
    }
    assert_eq!(archive.block_at(original.len() as u64), None);
    assert_eq!(archive.block(300), None);
    let past = read_range(&archive, original.len() as u64, &mut [0], &mut decoder(), &no_other_files);
    assert_eq!(past.unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn limits_hold() {
    let (archive, _) = sample();
    let limits = Limits { blocks: 3, ..Limits::default() };
    assert_eq!(Archive::open(&archive, &limits).unwrap_err().kind(), ErrorKind::LimitExceeded);
    let mut stream = StreamReader::new(archive.as_slice(), &limits).unwrap();
    let mut payload = Vec::new();
    for _ in 0..3 {
        assert!(stream.next_block(&mut payload).unwrap().is_some());
    }
    assert_eq!(stream.next_block(&mut payload).unwrap_err().kind(), ErrorKind::LimitExceeded);
}

/// The archive of "abc" as one stored block: the worked example of FORMAT.md.
fn example() -> Vec<u8> {
    let mut writer = ArchiveWriter::new(Vec::new(), 0, 0x0000_0001_0000_0001).unwrap();
    let block = EncodedBlock {
        dtype: Dtype::Bytes,
        coding: Coding::Stored,
        decoded_bytes: 3,
        decoded_crc: crc64(b"abc"),
        payload: b"abc",
    };
    writer.write_block(&block).unwrap();
    writer.finish(blake3::hash(b"abc").into(), None).unwrap().0
}

#[test]
fn the_worked_example_of_the_document_is_what_is_written() {
    let document = include_str!("FORMAT.md");
    let (_, example_section) = document.split_once("## 7. Worked example").unwrap();
    let mut bytes = Vec::new();
    for line in example_section.lines().filter(|line| line.starts_with("0x")) {
        let (offset, rest) = line.split_once("  ").unwrap();
        assert_eq!(usize::from_str_radix(&offset[2..], 16).unwrap(), bytes.len(), "{line}");
        let (hex, _) = rest.split_once("  ").unwrap();
        bytes.extend(hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    assert_eq!(bytes, example());
    assert_eq!(read_at_random(&bytes).unwrap(), b"abc");
}

#[test]
fn hostile_numbers_with_good_checksums_are_refused() {
    let archive = example();
    let footer_offset = archive.len() - FOOTER_BYTES;
    let footer = Footer::parse(archive.last_chunk().unwrap(), 0).unwrap();
    for number in [0, 1, 2, 31, 66, 68, 1 << 26, (1 << 26) + 1, 1 << 32, 1 << 60, u64::MAX / 12, u64::MAX] {
        let forged = [
            Footer { archive_bytes: number, ..footer },
            Footer { index_offset: number, ..footer },
            Footer { index_bytes: number, ..footer },
            Footer { n_blocks: number, ..footer },
            Footer { n_blocks: number, index_bytes: number.wrapping_mul(12).wrapping_add(24), ..footer },
            Footer { index_offset: number, index_bytes: 103_u64.wrapping_sub(number), ..footer },
            Footer { original_bytes: number, ..footer },
        ];
        for forged in forged.into_iter().filter(|forged| *forged != footer) {
            let bytes = [&archive[..footer_offset], &forged.to_bytes()].concat();
            assert_refused(&bytes, &format!("{forged:?}"));
        }
    }
}

#[test]
fn record_that_claims_more_than_there_is_is_refused() {
    let mut archive = example();
    // Payload size of the first record, as large as the format allows.
    archive[0x28..0x30].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
    assert_eq!(read_as_stream(&archive).unwrap_err().kind(), ErrorKind::Truncated);
    archive[0x28..0x30].copy_from_slice(&[0xFF; 8]);
    assert_eq!(read_as_stream(&archive).unwrap_err().kind(), ErrorKind::Corrupt);
}
