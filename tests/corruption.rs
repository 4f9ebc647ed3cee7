//! Damaged and hostile archives of every coding: always an error, never other bytes, a panic or a hang.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![cfg(all(unix, feature = "cli"))]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use alcm::ErrorKind;
use alcm::container::{Archive, FLAG_REFERENCES};
use alcm::kernels::Isa;
use alcm::pipeline::manifest::Manifest;
use alcm::stage::{BlockDecoder, Coding};
use common::delta::{DELTA_DTYPES, DeltaBlocks, delta_blocks};
use common::fixtures::{
    CodedBlock, Fixture, Packed, Random, archive_of, archives, fixtures, isas, other_file_archive,
    read_as_stream, read_at_random,
};
use common::{alcm, make_tree};
use tempfile::tempdir;

/// Fails if either reader takes `bytes` for an archive, into clean or dirty buffers.
fn assert_refused(bytes: &[u8], decoder: &mut BlockDecoder, what: &str) {
    for dirt in [0, 0xff] {
        assert!(read_at_random(bytes, decoder, dirt).is_err(), "{what}: accepted at random");
        assert!(read_as_stream(bytes, decoder, dirt).is_err(), "{what}: accepted as a stream");
    }
}

#[test]
fn whole_archives_decode_by_both_readers_on_every_isa() {
    for (name, Packed { archive, original }) in archives() {
        for isa in isas() {
            let mut decoder = BlockDecoder::new(isa);
            for dirt in [0, 0xff] {
                assert!(read_at_random(&archive, &mut decoder, dirt).unwrap() == original, "{name} {isa:?}");
                assert!(read_as_stream(&archive, &mut decoder, dirt).unwrap() == original, "{name} {isa:?}");
            }
        }
    }
}

#[test]
fn every_bit_flip_and_overwritten_byte_is_refused() {
    let mut decoder = BlockDecoder::new(Isa::detect());
    for (name, Packed { mut archive, .. }) in archives() {
        for at in 0..archive.len() {
            let whole = archive[at];
            let values = (0..8).map(|bit| whole ^ (1 << bit)).chain([0, 0xff]);
            for value in values.filter(|&value| value != whole) {
                archive[at] = value;
                assert_refused(&archive, &mut decoder, &format!("{name}, byte {at} as {value:#x}"));
            }
            archive[at] = whole;
        }
    }
}

#[test]
fn every_truncation_is_known_as_one_and_nothing_may_follow() {
    let mut decoder = BlockDecoder::new(Isa::detect());
    for (name, Packed { archive, .. }) in archives() {
        for len in 0..archive.len() {
            let cut = &archive[..len];
            let kind = read_at_random(cut, &mut decoder, 0).unwrap_err().kind();
            assert_eq!(kind, ErrorKind::Truncated, "{name} cut to {len}, at random");
            let kind = read_as_stream(cut, &mut decoder, 0).unwrap_err().kind();
            assert_eq!(kind, ErrorKind::Truncated, "{name} cut to {len}, as a stream");
        }
        for tail in [&[0][..], &archive] {
            assert_refused(&[&archive, tail].concat(), &mut decoder, &format!("{name} with a tail"));
        }
    }
}

#[test]
fn archive_of_another_file_s_block_needs_that_file() {
    let mut decoder = BlockDecoder::new(Isa::detect());
    let Packed { archive, .. } = other_file_archive();
    assert_eq!(read_at_random(&archive, &mut decoder, 0).unwrap_err().kind(), ErrorKind::BaseMismatch);
    for bit in 0..8 * archive.len() {
        let mut damaged = archive.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_refused(&damaged, &mut decoder, &format!("bit {bit}"));
    }
}

/// Decodes `payload` on every instruction set into clean and dirty buffers; all must agree. What is accepted must
/// then be told by the block's CRC: the archive around it, all its checksums right, must be refused too.
fn check_hostile(
    fixture: &Fixture,
    coding: Coding,
    payload: &[u8],
    decoders: &mut [BlockDecoder],
    what: &str,
) {
    let name = &fixture.name;
    let mut first: Option<Result<Vec<u8>, ErrorKind>> = None;
    for (idx, decoder) in decoders.iter_mut().enumerate() {
        for dirt in [0, 0xff] {
            let mut decoded = vec![dirt; fixture.bytes.len()];
            let result = decoder.decode(coding, fixture.dtype, payload, &mut decoded);
            let result = result.map(|()| decoded).map_err(|error| error.kind());
            let first = first.get_or_insert_with(|| result.clone());
            assert!(*first == result, "{name}, {what}: decoder {idx} with dirt {dirt:#x} differs");
        }
    }
    match first {
        Some(Err(kind)) => assert_eq!(kind, ErrorKind::Corrupt, "{name}, {what}"),
        // Another payload of the same elements is as good.
        Some(Ok(decoded)) if decoded == fixture.bytes => return,
        _ => {}
    }
    if payload.len() > fixture.bytes.len() {
        return;
    }
    let block = CodedBlock { dtype: fixture.dtype, coding, payload, decoded: &fixture.bytes };
    let flags = if coding.has_base() { FLAG_REFERENCES } else { 0 };
    let Packed { archive, .. } = archive_of(flags, &[block]);
    assert_refused(&archive, &mut decoders[0], &format!("{name}, hostile archive, {what}"));
}

/// Payloads of `fixture` with one byte or one 32-bit field changed, cut short, or longer.
fn for_each_hostile_payload(fixture: &Fixture, check: &mut dyn FnMut(Coding, &[u8], &str)) {
    let (coding, whole) = fixture.encode(Isa::detect());
    // Headers and tables stand in front: all of their bits, and every 17th place of the long streams behind.
    // Blocks that are long when decoded get a sample.
    let one_in = 1 + fixture.bytes.len() / 10_000;
    let places = (0..whole.len()).filter(|&at| at < 300 || at + 80 > whole.len() || at % 17 == 0);
    let places = places.enumerate().filter_map(|(idx, at)| (idx % one_in == 0).then_some(at));
    let mut payload = whole.clone();
    for at in places {
        let values = (0..8).map(|bit| whole[at] ^ (1 << bit)).chain([0, 1, 0x7f, 0xff]);
        for value in values.filter(|&value| value != whole[at]) {
            payload[at] = value;
            check(coding, &payload, &format!("payload byte {at} as {value:#x}"));
        }
        payload[at] = whole[at];
        if let Some(field) = payload.get_mut(at..at + 4).filter(|_| at < 300) {
            field.fill(0xff);
            check(coding, &payload, &format!("payload field {at} at its largest"));
            payload[at..at + 4].copy_from_slice(&whole[at..at + 4]);
        }
        check(coding, &whole[..at], &format!("payload cut to {at}"));
    }
    for more in [1, 4, 100] {
        payload.extend(std::iter::repeat_n(0, more));
        check(coding, &payload, &format!("payload of {} bytes", payload.len()));
    }
    // Under a coding that is not its own.
    for other in Coding::all().filter(|&other| other != Coding::Reference && other != coding) {
        check(other, &whole, &format!("payload taken for {}", other.name()));
    }
}

#[test]
fn hostile_payloads_with_right_checksums_are_refused() {
    let mut decoders: Vec<_> = isas().map(BlockDecoder::new).collect();
    for fixture in fixtures() {
        for_each_hostile_payload(&fixture, &mut |coding, payload, what| {
            check_hostile(&fixture, coding, payload, &mut decoders, what);
        });
    }
}

/// A sparse block of nothing but zeros has no dense elements: the coding inside it gets an empty block.
#[test]
fn empty_blocks_within_sparse_ones_do_not_panic() {
    let mut decoders: Vec<_> = isas().map(BlockDecoder::new).collect();
    let zeros = fixtures().into_iter().find(|fixture| fixture.name == "sparse-zeros-f8").unwrap();
    let (coding, sparse) = zeros.encode(Isa::detect());
    for inner in Coding::all() {
        for tail in [&[][..], &[0], &[1], &[2], &[4], &[8], &[0; 16], &[8; 40]] {
            let mut payload = [&sparse, tail].concat();
            // FORMAT.md, 3.4: the inner coding.
            payload[1] = inner.wire_id();
            let what = format!("inner {} and {} bytes", inner.name(), tail.len());
            check_hostile(&zeros, coding, &payload, &mut decoders, &what);
        }
    }
    for coding in Coding::all().filter(|&coding| coding != Coding::Reference) {
        for dtype in alcm::Dtype::all() {
            for payload in [&[][..], &[1], &[2], &[4], &[8], &[0; 16]] {
                let _ = decoders[0].decode(coding, dtype, payload, &mut []);
            }
        }
    }
}

/// A delta over the block that it belongs to and over others: all instruction sets agree, and what is refused is corrupt.
#[test]
fn hostile_deltas_are_refused_or_alike_everywhere() {
    let mut decoders: Vec<_> = isas().map(BlockDecoder::new).collect();
    for dtype in DELTA_DTYPES {
        let DeltaBlocks { base, near, payload: whole, .. } = delta_blocks(dtype, Isa::detect());
        let mut check = |payload: &[u8], base: &[u8], what: &str| {
            let mut first: Option<Result<Vec<u8>, ErrorKind>> = None;
            for decoder in &mut decoders {
                let mut bytes = base.to_vec();
                let added = decoder.add_delta(dtype, payload, &mut bytes);
                let added = added.map(|()| bytes).map_err(|error| error.kind());
                let first = first.get_or_insert_with(|| added.clone());
                assert!(*first == added, "{dtype:?}, {what}: two instruction sets differ");
            }
            first.unwrap()
        };
        assert!(check(&whole, &base, "whole").unwrap() == near);
        let mut payload = whole.clone();
        for at in 0..whole.len() {
            for value in (0..8).map(|bit| whole[at] ^ (1 << bit)).chain([0, 0xff]) {
                payload[at] = value;
                if let Err(kind) = check(&payload, &base, &format!("byte {at} as {value:#x}")) {
                    assert_eq!(kind, ErrorKind::Corrupt);
                }
            }
            payload[at] = whole[at];
            let cut = check(&whole[..at], &base, &format!("cut to {at}"));
            assert_eq!(cut.unwrap_err(), ErrorKind::Corrupt, "{dtype:?} cut to {at}");
        }
        for other in
            [&near[..], &[], &base[..dtype.unit_bytes()], &vec![0; base.len()], &vec![0xff; base.len()]]
        {
            let _ = check(&whole, other, "over another block");
        }
        for other in alcm::Dtype::all() {
            let _ = decoders[0].add_delta(other, &whole, &mut base.clone());
        }
    }
}

/// Set in the child that [`hostile_payloads_claim_no_memory`] starts under a bound.
const WITHIN_BOUND: &str = "ALCM_TEST_WITHIN_MEMORY_BOUND";

/// Runs the hostile payloads in a child whose anonymous memory is bounded: a claim that is believed aborts it.
#[test]
#[cfg(target_os = "linux")]
fn hostile_payloads_claim_no_memory() {
    if std::env::var_os(WITHIN_BOUND).is_some() {
        let mut decoder = BlockDecoder::new(Isa::detect());
        let mut dst = Vec::new();
        for fixture in fixtures() {
            for_each_hostile_payload(&fixture, &mut |coding, payload, _| {
                dst.resize(fixture.bytes.len(), 0);
                let _ = decoder.decode(coding, fixture.dtype, payload, &mut dst);
            });
        }
        return;
    }
    let test = std::env::current_exe().unwrap();
    // 64 MiB: about four times what the child takes for itself.
    let script = format!(
        "ulimit -d 65536; exec '{}' --exact hostile_payloads_claim_no_memory --test-threads=1",
        test.display()
    );
    let output = Command::new("sh").args(["-c", &script]).env(WITHIN_BOUND, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

/// The archive that the program makes of a file of the repository.
fn real_archive(dir: &Path) -> (Vec<u8>, Vec<u8>) {
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/digits_resnet/train_state.safetensors");
    let original = fs::read(&source).unwrap();
    fs::write(dir.join("t.safetensors"), &original).unwrap();
    alcm(dir, "compress t.safetensors -o t.alcm -q").assert().code(0);
    (fs::read(dir.join("t.alcm")).unwrap(), original)
}

#[test]
fn ten_thousand_random_flips_of_a_real_archive_are_refused() {
    let dir = tempdir().unwrap();
    let (mut bytes, original) = real_archive(dir.path());
    let mut decoder = BlockDecoder::new(Isa::detect());
    assert!(read_at_random(&bytes, &mut decoder, 0xaa).unwrap() == original);
    assert!(read_as_stream(&bytes, &mut decoder, 0xaa).unwrap() == original);
    let mut random = Random::new(2024);
    for flip in 0..10_000 {
        let (at, bit) = (random.below(bytes.len()), random.below(8));
        bytes[at] ^= 1 << bit;
        let kind = read_at_random_checks(&bytes);
        assert!(kind.is_some(), "flip {flip}: bit {bit} of byte {at} accepted");
        // The slower readers and the program itself on a sample.
        if flip % 100 == 0 {
            assert_refused(&bytes, &mut decoder, &format!("flip {flip}"));
        }
        if flip % 2500 == 0 {
            fs::write(dir.path().join("flipped.alcm"), &bytes).unwrap();
            alcm(dir.path(), "verify flipped.alcm -q").assert().code(1);
            alcm(dir.path(), "decompress flipped.alcm -o back -q").assert().code(1);
            assert!(!dir.path().join("back").exists());
        }
        bytes[at] ^= 1 << bit;
    }
}

/// The kind of the error that opening `bytes` and reading all records gives, without decoding what is sound. A
/// block is decoded only where its record is damaged and passes nevertheless, which none does.
fn read_at_random_checks(bytes: &[u8]) -> Option<ErrorKind> {
    let archive = match Archive::open(bytes, &alcm::Limits::default()) {
        Ok(archive) => archive,
        Err(error) => return Some(error.kind()),
    };
    archive.blocks().find_map(|entry| archive.record_of(&entry).err()).map(|error| error.kind())
}

#[test]
fn every_bit_flip_of_a_manifest_is_refused() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    alcm(dir.path(), "compress model -o out -q --sha256").assert().code(0);
    let text = fs::read_to_string(dir.path().join("out/alcm-manifest.json")).unwrap();
    Manifest::from_text(&text).unwrap();
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1 << bit;
            // What is no UTF-8 is refused by the reader of the file.
            let Ok(damaged) = String::from_utf8(damaged) else { continue };
            assert!(Manifest::from_text(&damaged).is_err(), "bit {bit} of byte {at} accepted");
        }
        assert!(Manifest::from_text(text.get(..at).unwrap_or_default()).is_err(), "cut to {at}");
    }
    for byte in [0, text.len() / 2, text.len() - 1] {
        let mut damaged = text.clone().into_bytes();
        damaged[byte] ^= 0x80;
        fs::write(dir.path().join("out/alcm-manifest.json"), damaged).unwrap();
        alcm(dir.path(), "verify out -q").assert().code(1);
        alcm(dir.path(), "decompress out -o back -q").assert().code(1);
        assert!(!dir.path().join("back").exists());
    }
}
