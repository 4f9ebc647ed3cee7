//! The golden files: where they are, what they must be, and the list of SHA-256 sums.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use alcm::container::FLAG_REFERENCES;
use alcm::kernels::Isa;
use alcm::stage::{Coding, Level};
use alcm::{Dtype, ErrorKind};
use sha2::{Digest, Sha256};

use super::delta::{delta_archive, delta_blocks};
use super::fixtures::{CodedBlock, archive_of, archives, fixtures, other_file_archive, reference_archive};

/// Path of a golden file or of an output, and its SHA-256 in hexadecimal.
pub(crate) type OutputSums = BTreeMap<String, String>;

/// Levels by the names that `--level` takes.
pub(crate) const LEVELS: [(Level, &str); 3] =
    [(Level::Fast, "fast"), (Level::Default, "default"), (Level::High, "high")];

/// Where the golden files are.
pub(crate) fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The checkpoints of the repository.
pub(crate) fn real_tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/digits_resnet")
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The sums of a tree's `archives` at `level`.
pub(crate) fn tree_sums(level: &str, archives: &BTreeMap<String, Vec<u8>>) -> OutputSums {
    archives.iter().map(|(name, bytes)| (format!("output/{level}/{name}"), sha256(bytes))).collect()
}

/// What `SHA256SUMS` lists.
pub(crate) fn listed_sums() -> OutputSums {
    let text = fs::read_to_string(golden_dir().join("SHA256SUMS")).unwrap();
    let lines = text.lines().map(|line| line.split_once("  ").unwrap());
    lines.map(|(sum, path)| (path.to_owned(), sum.to_owned())).collect()
}

/// The golden archives by name, coded by `isa`.
pub(crate) fn golden_archives() -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let file = |(name, packed): (String, super::fixtures::Packed)| {
        (format!("{name}.alcm"), packed.archive, packed.original)
    };
    archives().into_iter().map(file).collect()
}

/// A checkpoint for the layered golden archive: two tensors that become layers, and two that do not.
pub(crate) fn layered_checkpoint() -> Vec<u8> {
    let mut random = super::fixtures::Random::new(50);
    let mut elements = |dtype: Dtype, n_elements: usize| {
        let mut bytes = Vec::new();
        for _ in 0..n_elements {
            let value = random.bell() * 0.05;
            super::fixtures::push(dtype, value, &mut random, &mut bytes);
        }
        bytes
    };
    let (singles, halves) = (elements(Dtype::F32, 900), elements(Dtype::F16, 1100));
    let (small, integers) = (elements(Dtype::F32, 20), elements(Dtype::I16, 30));
    super::typed_checkpoint(&[
        ("a", "F32", vec![30, 30], &singles),
        ("b", "F16", vec![110, 10], &halves),
        ("c", "F32", vec![20], &small),
        ("d", "I16", vec![5, 6], &integers),
    ])
}

/// The settings under which [`layered_checkpoint`] has tensors that are large enough.
pub(crate) const LAYERED_ARGUMENTS: &str = "--layers 3,6,exact --lossy --lossy-config small.yaml";

/// Writes the checkpoint and its settings to `dir`, compresses it, and gives the layered archive.
pub(crate) fn layered_archive(dir: &Path, common: &str) -> Vec<u8> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/encoder.yaml");
    let settings = fs::read_to_string(shipped).unwrap().replace("min_elements: 4096", "min_elements: 500");
    fs::write(dir.join("small.yaml"), settings).unwrap();
    fs::write(dir.join("l.safetensors"), layered_checkpoint()).unwrap();
    super::alcm(dir, &format!("compress l.safetensors -o l.alcm -q -f {LAYERED_ARGUMENTS} {common}"))
        .assert()
        .code(0);
    fs::read(dir.join("l.alcm")).unwrap()
}

/// The CRC-64 over `range` of `bytes` put right at `at`.
fn fix_crc(bytes: &mut [u8], range: std::ops::Range<usize>, at: usize) {
    let crc = alcm::container::crc64(&bytes[range]);
    bytes[at..at + 8].copy_from_slice(&crc.to_le_bytes());
}

/// A broken archive and how `Archive` refuses it.
struct Broken {
    kind: ErrorKind,
    what: &'static str,
    bytes: Vec<u8>,
}

/// Archives that break one rule each, by file name: the kind of error, a dot, what is wrong.
pub(crate) fn reject_files() -> Vec<(String, Vec<u8>)> {
    let mut broken = broken_containers();
    broken.extend(broken_blocks());
    let name = |broken: &Broken| format!("{}.{}.alcm", broken.kind.as_str(), broken.what);
    broken.into_iter().map(|broken| (name(&broken), broken.bytes)).collect()
}

/// Header, index and footer that break a rule.
fn broken_containers() -> Vec<Broken> {
    let block =
        |decoded| CodedBlock { dtype: Dtype::Bytes, coding: Coding::Stored, payload: decoded, decoded };
    let sound = archive_of(0, &[block(b"abc"), block(b"defgh")]).archive;
    let footer = sound.len() - 128;
    // Header 32, records 35 and 37.
    let index = 32 + 35 + 37;
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = sound.clone();
        change(&mut bytes);
        bytes
    };
    let in_header = |at: usize, value: u8| {
        changed(&|bytes| {
            bytes[at] = value;
            fix_crc(bytes, 0..24, 24);
        })
    };
    let in_index = |at: usize, value: u8| {
        changed(&|bytes| {
            bytes[index + at] = value;
            fix_crc(bytes, index..footer - 8, footer - 8);
        })
    };
    let in_footer = |at: usize, value: u8| {
        changed(&|bytes| {
            bytes[footer + at] = value;
            fix_crc(bytes, footer..footer + 120, footer + 120);
        })
    };
    let file = |kind, what, bytes| Broken { kind, what, bytes };
    use ErrorKind::{ChecksumMismatch, Corrupt, LimitExceeded, Truncated, UnsupportedVersion};
    vec![
        file(Corrupt, "not-an-archive", b"PK\x03\x04 this is something else".repeat(12)),
        file(Truncated, "empty", Vec::new()),
        file(Truncated, "half-header", sound[..16].to_vec()),
        file(Truncated, "no-footer", sound[..footer].to_vec()),
        file(Truncated, "last-byte-missing", sound[..sound.len() - 1].to_vec()),
        file(Truncated, "byte-behind-the-footer", [&sound[..], &[0]].concat()),
        file(UnsupportedVersion, "major-2", in_header(8, 2)),
        file(Corrupt, "header-flag-reserved", in_header(12, 0x80)),
        file(ChecksumMismatch, "header-crc", changed(&|bytes| bytes[24] ^= 1)),
        file(ChecksumMismatch, "index-crc", changed(&|bytes| bytes[footer - 1] ^= 1)),
        file(ChecksumMismatch, "footer-crc", changed(&|bytes| bytes[footer + 127] ^= 1)),
        file(ChecksumMismatch, "block-crc", changed(&|bytes| bytes[32 + 24] ^= 1)),
        file(ChecksumMismatch, "block-payload", changed(&|bytes| bytes[32 + 32] ^= 1)),
        file(ChecksumMismatch, "content-hash", in_footer(48, sound[footer + 48] ^ 1)),
        file(Corrupt, "block-tag", changed(&|bytes| bytes[32] ^= 1)),
        file(Corrupt, "index-differs-from-record", in_index(16 + 8, 16)),
        file(Corrupt, "index-reserved", in_index(4, 1)),
        file(Corrupt, "index-dtype-unknown", in_index(16 + 8, 200)),
        file(Corrupt, "index-coding-unknown", in_index(16 + 9, 200)),
        file(Corrupt, "index-payload-over-decoded", in_index(16 + 4, 4)),
        file(Corrupt, "index-sums", in_index(16, 4)),
        file(Corrupt, "index-count", in_index(8, 1)),
        file(Corrupt, "footer-size", in_footer(8, sound[footer + 8] ^ 1)),
        file(Corrupt, "footer-index-offset", in_footer(16, 0)),
        file(Corrupt, "footer-blocks", in_footer(32, 3)),
        file(Corrupt, "footer-original-size", in_footer(40, 9)),
        file(Corrupt, "footer-sha256-denied", in_footer(80, 1)),
        file(Corrupt, "footer-flag-reserved", in_footer(112, 2)),
        file(LimitExceeded, "footer-blocks", in_footer(32 + 7, 1)),
    ]
}

/// Blocks whose payload breaks a rule while every checksum is right.
fn broken_blocks() -> Vec<Broken> {
    let fixtures = fixtures();
    let one = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let fixture = fixtures.iter().find(|fixture| fixture.name == name).unwrap();
        let (coding, mut payload) = fixture.encode(Isa::Scalar);
        change(&mut payload);
        let block = CodedBlock { dtype: fixture.dtype, coding, payload: &payload, decoded: &fixture.bytes };
        archive_of(0, &[block]).archive
    };
    let shorter = |payload: &mut Vec<u8>| payload.truncate(payload.len() - 1);
    let longer = |payload: &mut Vec<u8>| payload.push(0);
    let file = |kind, what, bytes| Broken { kind, what, bytes };
    use ErrorKind::{BaseMismatch, ChecksumMismatch, Corrupt};
    let reference = |offset: u8| {
        let mut bytes = reference_archive().archive;
        // The third record: header, "head", 40 elements of two bytes.
        let record = 32 + (32 + 4) + (32 + 80);
        bytes[record + 32 + 8] = offset;
        let crc =
            alcm::container::crc64_joined(&bytes[record..record + 24], &bytes[record + 32..record + 48]);
        bytes[record + 24..record + 32].copy_from_slice(&crc.to_le_bytes());
        bytes
    };
    // A delta with another offset than that of the block before it.
    let delta = |offset: u8| {
        let mut blocks = delta_blocks(Dtype::Bf16, Isa::Scalar);
        blocks.payload[0] = offset;
        delta_archive(FLAG_REFERENCES, &blocks).archive
    };
    let delta_of_a_delta = {
        let blocks = delta_blocks(Dtype::Bf16, Isa::Scalar);
        let block = |coding, payload, decoded| CodedBlock { dtype: Dtype::Bf16, coding, payload, decoded };
        let mut second = blocks.payload.clone();
        second[..8].copy_from_slice(&(4 + blocks.base.len() as u64).to_le_bytes());
        archive_of(
            FLAG_REFERENCES,
            &[
                block(Coding::Stored, b"head", b"head"),
                block(Coding::Stored, &blocks.base, &blocks.base),
                block(Coding::Delta, &blocks.payload, &blocks.near),
                block(Coding::Delta, &second, &blocks.near),
            ],
        )
    };
    let delta_denied = {
        let mut bytes = delta(4);
        bytes[12] = 0;
        fix_crc(&mut bytes, 0..24, 24);
        bytes
    };
    vec![
        file(Corrupt, "delta-not-earlier", delta(4 + 200)),
        file(Corrupt, "delta-within-a-block", delta(5)),
        file(Corrupt, "delta-other-size", delta(0)),
        file(Corrupt, "delta-of-a-delta", delta_of_a_delta.archive),
        file(Corrupt, "delta-denied", delta_denied),
        file(BaseMismatch, "reference-other-file", other_file_archive().archive),
        file(Corrupt, "reference-not-earlier", reference(84)),
        file(Corrupt, "reference-within-a-block", reference(5)),
        file(Corrupt, "reference-other-size", reference(0)),
        file(Corrupt, "stored-short", one("stored-bytes", &shorter)),
        file(ChecksumMismatch, "stored-other-bytes", one("stored-bytes", &|payload| payload[0] ^= 1)),
        file(Corrupt, "constant-short", one("constant-f32", &shorter)),
        file(Corrupt, "constant-long", one("constant-f32", &longer)),
        file(ChecksumMismatch, "constant-other-element", one("constant-f32", &|payload| payload[0] ^= 1)),
        file(Corrupt, "zstd-empty", one("zstd-bytes", &Vec::clear)),
        file(Corrupt, "zstd-short", one("zstd-bytes", &shorter)),
        file(Corrupt, "zstd-header-empty", one("zstd-header", &|payload| payload.truncate(1))),
        file(Corrupt, "zstd-header-short", one("zstd-header", &shorter)),
        file(Corrupt, "zstd-unit", one("zstd-header", &|payload| payload[0] = 3)),
        file(Corrupt, "adaptive-empty", one("adaptive-f32", &Vec::clear)),
        file(Corrupt, "adaptive-rest-short", one("adaptive-f32", &|payload| payload.truncate(20))),
        file(Corrupt, "adaptive-long", one("adaptive-f32", &longer)),
        file(Corrupt, "adaptive-type", one("adaptive-f32", &|payload| payload[0] = 4)),
        file(Corrupt, "adaptive-modelled-bits", one("adaptive-f32", &|payload| payload[1] = 8)),
        file(Corrupt, "adaptive-bare", one("adaptive-matches-f32", &|payload| payload[4] ^= 1)),
        file(Corrupt, "adaptive-window", one("adaptive-f32", &|payload| payload[3] = 0xff)),
        file(Corrupt, "adaptive-zeros", one("adaptive-f32", &|payload| payload[6] = 1)),
        file(Corrupt, "fields-empty", one("dtype-bf16", &Vec::clear)),
        file(Corrupt, "fields-short", one("dtype-bf16", &shorter)),
        file(Corrupt, "fields-long", one("dtype-bf16", &longer)),
        file(Corrupt, "fields-header", one("dtype-bf16", &|payload| payload[..8].fill(0xff))),
        file(Corrupt, "sparse-empty", one("sparse-f32", &Vec::clear)),
        file(Corrupt, "sparse-short", one("sparse-f32", &shorter)),
        file(Corrupt, "sparse-header", one("sparse-f32", &|payload| payload[..8].fill(0xff))),
    ]
}
