//! Blocks for every dtype and coding, archives of them, and full decoding by both readers.
//!
//! The golden files are made from these blocks: what a fixture holds must never change. A new need gets a new
//! fixture. That is why the random numbers are written out here, and why floats take only +, −, · and casts.

use alcm::container::{
    Archive, ArchiveWriter, EncodedBlock, FLAG_LAYER, FLAG_REFERENCES, OtherFile, Reference, StreamReader,
    crc64, decode_block, no_other_files,
};
use alcm::kernels::Isa;
use alcm::stage::{BlockDecoder, BlockEncoder, BlockSource, Coding, Level, delta_base};
use alcm::{Dtype, Error, ErrorKind, Limits, Result};

use super::coarse::{COARSE_STEP, coarse_fixture};
use super::delta::{DELTA_DTYPES, delta_archive, delta_blocks};
use super::nested::nested_fixtures;
use super::quantized::{quant_spec, quantized_fixtures};

/// Encoder note of archives made here: level default, revision 1. It is not for decoding.
const NOTE: u64 = 0x0000_0001_0000_0001;

/// One block to be coded.
#[derive(Debug, Clone)]
pub(crate) struct Fixture {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) level: Level,
    pub(crate) row_len: usize,
    pub(crate) row_start: usize,
    /// How the block is expected to be coded, where that is what the fixture is for.
    pub(crate) coding: Option<Coding>,
    pub(crate) bytes: Vec<u8>,
}

/// SplitMix64 (G. Steele et al., 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }

    /// The sum of four uniform numbers in −½ to ½: near to a Gaussian of variance ⅓.
    pub(crate) fn bell(&mut self) -> f64 {
        (0..4).fold(0.0, |sum, _| sum + (self.word() >> 11) as f64 / (1_u64 << 53) as f64 - 0.5)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.word().to_le_bytes()).take(len).collect()
    }
}

/// The nearest value of a small float of `exponent_bits` and `mantissa_bits`, by truncation; out of range becomes
/// zero or the largest.
fn narrow(value: f32, exponent_bits: u32, mantissa_bits: u32) -> u32 {
    let bits = value.to_bits();
    let bias = (1_i32 << (exponent_bits - 1)) - 1;
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + bias;
    let largest = (1_i32 << exponent_bits) - 2;
    let magnitude = match exponent {
        ..=0 => 0,
        _ if exponent > largest => (largest as u32) << mantissa_bits,
        _ => (exponent as u32) << mantissa_bits | (bits & 0x7f_ffff) >> (23 - mantissa_bits),
    };
    (bits >> 31) << (exponent_bits + mantissa_bits) | magnitude
}

/// Appends `value` as an element of `dtype`.
pub(crate) fn push(dtype: Dtype, value: f64, random: &mut Random, dst: &mut Vec<u8>) {
    let single = value as f32;
    match dtype {
        Dtype::F64 => dst.extend(value.to_le_bytes()),
        Dtype::F32 => dst.extend(single.to_le_bytes()),
        Dtype::C64 => {
            dst.extend(single.to_le_bytes());
            dst.extend((random.bell() as f32).to_le_bytes());
        }
        Dtype::F16 => dst.extend((narrow(single, 5, 10) as u16).to_le_bytes()),
        Dtype::Bf16 => dst.extend(((single.to_bits() >> 16) as u16).to_le_bytes()),
        Dtype::F8E4m3 => dst.push(narrow(single, 4, 3) as u8),
        Dtype::F8E5m2 => dst.push(narrow(single, 5, 2) as u8),
        Dtype::F8E8m0 => dst.push((single.to_bits() >> 23) as u8),
        Dtype::Bool => dst.push(u8::from(value > 0.0)),
        Dtype::I8 | Dtype::U8 => dst.push((value * 40.0) as i64 as u8),
        Dtype::I16 | Dtype::U16 => dst.extend(((value * 300.0) as i64 as u16).to_le_bytes()),
        Dtype::I32 | Dtype::U32 => dst.extend(((value * 9000.0) as i64 as u32).to_le_bytes()),
        Dtype::I64 | Dtype::U64 => dst.extend(((value * 1e6) as i64).to_le_bytes()),
        Dtype::F4 => dst.push((random.word() & 0x77) as u8 | (random.word() & 0x80) as u8),
        Dtype::Bytes => dst.push(b"a checkpoint's config: {}\n"[random.below(26)]),
    }
}

/// `n_elements` of bell-shaped numbers.
pub(crate) fn bell_block(dtype: Dtype, n_elements: usize, scale: f64, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::new();
    for _ in 0..n_elements {
        let value = random.bell() * scale;
        push(dtype, value, &mut random, &mut bytes);
    }
    bytes
}

/// A block of singles whose bits `shape` makes from their index and a random number.
pub(crate) fn f32_block(n_elements: usize, seed: u64, shape: impl Fn(usize, &mut Random) -> u32) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..n_elements).flat_map(|idx| shape(idx, &mut random).to_le_bytes()).collect()
}

/// Booleans of which 1 in 50 is set.
fn rare_bools(n_elements: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..n_elements).map(|_| u8::from(random.below(50) == 0)).collect()
}

pub(crate) fn fixture(
    name: &str,
    dtype: Dtype,
    coding: impl Into<Option<Coding>>,
    bytes: Vec<u8>,
) -> Fixture {
    Fixture {
        name: name.into(),
        dtype,
        level: Level::Default,
        row_len: 0,
        row_start: 0,
        coding: coding.into(),
        bytes,
    }
}

/// One block for each dtype, named after it.
fn dtype_fixtures() -> impl Iterator<Item = Fixture> {
    Dtype::all().map(|dtype| {
        let name = format!("dtype-{}", dtype.name().to_ascii_lowercase());
        fixture(&name, dtype, None, bell_block(dtype, 777, 0.07, 100 + u64::from(dtype.wire_id())))
    })
}

/// One block for each way that a block is coded.
fn coding_fixtures() -> Vec<Fixture> {
    let bell = |random: &mut Random| (random.bell() * 0.05) as f32;
    let zeros = |one_in: usize| {
        move |_: usize, random: &mut Random| match random.below(one_in) {
            0 => bell(random).to_bits() | 1,
            _ => u32::from(random.below(9) == 0) << 31,
        }
    };
    let mut columns = fixture("columns-bf16", Dtype::Bf16, Coding::Fields, Vec::new());
    columns.row_len = 64;
    let mut random = Random::new(7);
    for idx in 0..64 * 64 {
        // Columns of scales far apart, in no order.
        let scale = f64::from(1_u32 << (idx % 64 * 29 % 13));
        let value = random.bell() * 1e-3 * scale;
        push(Dtype::Bf16, value, &mut random, &mut columns.bytes);
    }
    let mut tables = fixture("tables-f16", Dtype::F16, Coding::Fields, Vec::new());
    for idx in 0..9000 {
        let scale = [1.0, 0.01, 8.0, 0.1][idx / 1024 % 4];
        let value = random.bell() * scale;
        push(Dtype::F16, value, &mut random, &mut tables.bytes);
    }
    let mut high = Fixture { name: "high-f16".into(), level: Level::High, ..tables.clone() };
    high.bytes.truncate(8000);
    let fast = Fixture { name: "fast-bf16".into(), level: Level::Fast, ..columns.clone() };
    let mut outliers =
        fixture("outliers-f64", Dtype::F64, Coding::Fields, bell_block(Dtype::F64, 900, 0.05, 8));
    for (at, value) in [(3, 1e300), (400, -1e-300), (401, f64::INFINITY), (899, -f64::NAN)] {
        outliers.bytes[8 * at..8 * at + 8].copy_from_slice(&f64::to_le_bytes(value));
    }
    let fields = |name, bytes| fixture(name, Dtype::F32, Coding::Fields, bytes);
    vec![
        fixture("stored-bytes", Dtype::Bytes, Coding::Stored, Random::new(1).bytes(300)),
        fixture("constant-f32", Dtype::F32, Coding::Constant, 1.5_f32.to_le_bytes().repeat(100)),
        fixture(
            "zstd-bytes",
            Dtype::Bytes,
            Coding::Zstd,
            b"{\"layers\":[12,34],\"hidden\":384}\n".repeat(30),
        ),
        // Beyond the length that the dictionary is for.
        fixture("zstd-long-bytes", Dtype::Bytes, Coding::Zstd, b"0123456789abcdef".repeat(3000)),
        fixture(
            "zstd-header",
            Dtype::Bytes,
            Coding::Zstd,
            br#"{"__metadata__":{"format":"pt"},"layer1.0.conv1.weight":{"dtype":"F32","shape":[16,3,3,3],"data_offsets":[0,1728]}}"#
                .to_vec(),
        ),
        columns,
        fast,
        tables,
        high,
        outliers,
        // Lengths from which more states are interleaved.
        fixture("long-bool", Dtype::Bool, Coding::Fields, rare_bools(30_000, 17)),
        fixture("very-long-bool", Dtype::Bool, Coding::Fields, rare_bools(200_000, 18)),
        fixture("long-f16", Dtype::F16, Coding::Fields, bell_block(Dtype::F16, 3000, 0.07, 19)),
        // Mantissa bytes that no match helps with.
        fields(
            "uneven-f32",
            f32_block(1500, 20, |_, random| {
                let uneven = random.word() as u32 & random.word() as u32 & 0xffff;
                bell(random).to_bits() & !0xffff | uneven | 1
            }),
        ),
        // Half of the groups hold what fits 16 bits, as a checkpoint that was partly rounded.
        fields(
            "trimmed-f32",
            f32_block(1200, 9, |idx, random| {
                bell(random).to_bits() & if idx / 64 % 2 == 0 { 0xffff_f000 } else { u32::MAX }
            }),
        ),
        // Mantissa bytes that are no noise, and no multiples either.
        fields(
            "skewed-f32",
            f32_block(1200, 10, |_, random| {
                bell(random).to_bits() & !0xffff | ((1 << random.below(9)) + 0x4100) | 1
            }),
        ),
        fields("widened-f32", f32_block(1000, 11, |_, random| bell(random).to_bits() & 0xffff_0000)),
        fields("negative-f32", f32_block(1000, 12, |_, random| bell(random).to_bits() | 1 << 31)),
        fields("one-exponent-f32", f32_block(1000, 13, |_, random| 0x3f80_0000 | random.word() as u32 >> 9)),
        // Escapes as common as one another: their ranks want a Rice parameter.
        fields(
            "escapes-f32",
            f32_block(1500, 14, |_, random| match random.below(20) {
                0 => (random.below(250) as u32) << 23 | random.word() as u32 >> 9,
                _ => bell(random).to_bits(),
            }),
        ),
        fixture("sparse-f32", Dtype::F32, Coding::Sparse, f32_block(2000, 15, zeros(3))),
        // Of wider elements with two values in all a palette is made.
        fixture("sparse-zeros-f8", Dtype::F8E4m3, Coding::Sparse, {
            let mut random = Random::new(21);
            (0..600).map(|_| if random.below(9) == 0 { 0x80 } else { 0 }).collect()
        }),
        // An odd number of floats is left of the complex numbers, and they repeat.
        fixture(
            "sparse-repeats-c64",
            Dtype::C64,
            Coding::Sparse,
            f32_block(2000, 22, |idx, random| {
                let value = ((1 + random.below(30) as u32) << 24) | (random.below(2) as u32) << 31;
                if idx == 1 || idx % 4 == 3 { 0 } else { value }
            }),
        ),
        // Too few for a table.
        fixture("adaptive-f32", Dtype::F32, Coding::Adaptive, f32_block(150, 24, zeros(3))),
        // Magnitudes that rise and fall slowly, of one sign in the second half.
        fixture(
            "adaptive-contexts-f32",
            Dtype::F32,
            Coding::Adaptive,
            f32_block(900, 25, |idx, random| {
                let exponent = 90 + idx as u32 / 8 % 24 + random.below(2) as u32;
                let sign = if idx < 450 { random.below(2) as u32 } else { 1 };
                sign << 31 | exponent << 23 | random.word() as u32 >> 9
            }),
        ),
        // Two tensors that are the same, and a few elements of each.
        fixture("adaptive-matches-f32", Dtype::F32, Coding::Adaptive, {
            let once = bell_block(Dtype::F32, 300, 0.05, 27);
            [&once[..], &once[..400], &once[..]].concat()
        }),
        fixture("adaptive-f64", Dtype::F64, Coding::Adaptive, {
            let mut bytes = bell_block(Dtype::F64, 200, 0.05, 26);
            bytes[..16].fill(0);
            bytes[80..88].copy_from_slice(&1e300_f64.to_le_bytes());
            bytes
        }),
        fixture("sparse-few-f8", Dtype::F8E4m3, Coding::Sparse, {
            let mut random = Random::new(16);
            (0..500).map(|_| if random.below(60) == 0 { random.word() as u8 } else { 0 }).collect()
        }),
    ]
}

/// Every fixture; names are unique.
pub(crate) fn fixtures() -> Vec<Fixture> {
    let coarse = [coarse_fixture()];
    let nested = nested_fixtures();
    coding_fixtures()
        .into_iter()
        .chain(nested)
        .chain(quantized_fixtures())
        .chain(coarse)
        .chain(dtype_fixtures())
        .collect()
}

/// The instruction sets of this machine.
pub(crate) fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

/// An archive in memory and the original that it holds.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    pub(crate) archive: Vec<u8>,
    pub(crate) original: Vec<u8>,
}

/// A block with its payload.
pub(crate) struct CodedBlock<'a> {
    pub(crate) dtype: Dtype,
    pub(crate) coding: Coding,
    pub(crate) payload: &'a [u8],
    pub(crate) decoded: &'a [u8],
}

/// The archive of `blocks`, their checksums right.
pub(crate) fn archive_of(flags: u32, blocks: &[CodedBlock<'_>]) -> Packed {
    let mut writer = ArchiveWriter::new(Vec::new(), flags, NOTE).unwrap();
    for CodedBlock { dtype, coding, payload, decoded } in blocks {
        let block = EncodedBlock {
            dtype: *dtype,
            coding: *coding,
            decoded_bytes: decoded.len(),
            decoded_crc: crc64(decoded),
            payload,
        };
        writer.write_block(&block).unwrap();
    }
    let original = blocks.iter().flat_map(|block| block.decoded).copied().collect::<Vec<_>>();
    let (archive, _) = writer.finish(blake3::hash(&original).into(), None).unwrap();
    Packed { archive, original }
}

impl Fixture {
    /// The block's payload as `isa` codes it.
    pub(crate) fn encode(&self, isa: Isa) -> (Coding, Vec<u8>) {
        let source = BlockSource {
            dtype: self.dtype,
            bytes: &self.bytes,
            row_len: self.row_len,
            row_start: self.row_start,
        };
        let mut payload = Vec::new();
        let mut encoder = BlockEncoder::new(self.level, isa);
        let coding = match self.coding {
            // Only on request.
            Some(Coding::Adaptive) => encoder.encode_small(source, 0, &mut payload, &mut |_| {}),
            Some(Coding::Quantized) => {
                // The block is its own reconstruction.
                let mut rebuilt = self.bytes.clone();
                let spec = quant_spec(&self.name);
                let (coding, _) = encoder.encode_quantized(&spec, self.dtype, 3, &mut rebuilt, &mut payload);
                assert!(rebuilt == self.bytes, "{}", self.name);
                coding
            }
            Some(Coding::Coarse) => {
                let mut rebuilt = self.bytes.clone();
                let (coding, _) = encoder.encode_coarse(COARSE_STEP, self.dtype, &mut rebuilt, &mut payload);
                assert!(rebuilt == self.bytes, "{}", self.name);
                coding
            }
            _ => encoder.encode(source, &mut payload),
        };
        (coding, payload)
    }

    /// The archive of this one block.
    pub(crate) fn pack(&self, isa: Isa) -> Packed {
        let (coding, payload) = self.encode(isa);
        if let Some(expected) = self.coding {
            assert_eq!(coding, expected, "{} no longer shows what it is for", self.name);
        }
        let block = CodedBlock { dtype: self.dtype, coding, payload: &payload, decoded: &self.bytes };
        archive_of(if coding.is_of_layers() { FLAG_LAYER } else { 0 }, &[block])
    }
}

/// An archive with references to an earlier block of its own.
pub(crate) fn reference_archive() -> Packed {
    let tensor = bell_block(Dtype::Bf16, 40, 0.05, 20);
    let payload = Reference::SameFile { original_offset: 4 }.to_payload();
    let block = |coding, payload, decoded| CodedBlock { dtype: Dtype::Bf16, coding, payload, decoded };
    archive_of(
        FLAG_REFERENCES,
        &[
            block(Coding::Stored, b"head", b"head"),
            block(Coding::Stored, &tensor, &tensor),
            block(Coding::Reference, &payload, &tensor),
            block(Coding::Reference, &payload, &tensor),
        ],
    )
}

/// An archive whose only block is in another file.
pub(crate) fn other_file_archive() -> Packed {
    let tensor = bell_block(Dtype::Bf16, 40, 0.05, 20);
    let other = OtherFile { content_hash: [0x5a; 32], original_offset: 4 };
    let payload = Reference::OtherFile(other).to_payload();
    let block =
        CodedBlock { dtype: Dtype::Bf16, coding: Coding::Reference, payload: &payload, decoded: &tensor };
    archive_of(FLAG_REFERENCES, &[block])
}

/// Every fixture's archive, those with blocks that need others among them, by name.
pub(crate) fn archives() -> Vec<(String, Packed)> {
    let isa = Isa::detect();
    let mut archives: Vec<_> =
        fixtures().into_iter().map(|fixture| (fixture.name.clone(), fixture.pack(isa))).collect();
    archives.push(("reference-bf16".into(), reference_archive()));
    for dtype in DELTA_DTYPES {
        let name = format!("delta-{}", dtype.name().to_lowercase());
        archives.push((name, delta_archive(FLAG_REFERENCES, &delta_blocks(dtype, isa))));
    }
    archives
}

fn check_hash(original: Vec<u8>, recorded: &[u8; 32]) -> Result<Vec<u8>> {
    if blake3::hash(&original).as_bytes() == recorded {
        Ok(original)
    } else {
        Err(Error::new(ErrorKind::ChecksumMismatch, "content hash"))
    }
}

/// The original of an archive read at random, decoded into buffers full of `dirt`.
pub(crate) fn read_at_random(bytes: &[u8], decoder: &mut BlockDecoder, dirt: u8) -> Result<Vec<u8>> {
    let archive = Archive::open(bytes, &Limits::default())?;
    let mut original = Vec::new();
    for entry in archive.blocks() {
        let record = archive.record_of(&entry)?;
        let start = original.len();
        original.resize(start + entry.decoded_bytes as usize, dirt);
        archive.decode(&record, decoder, &no_other_files, &mut original[start..])?;
    }
    check_hash(original, archive.content_hash())
}

/// The original of an archive read front to back, decoded into buffers full of `dirt`. References are taken from
/// what has been decoded.
pub(crate) fn read_as_stream(bytes: &[u8], decoder: &mut BlockDecoder, dirt: u8) -> Result<Vec<u8>> {
    let mut stream = StreamReader::new(bytes, &Limits::default())?;
    let (mut payload, mut original) = (Vec::new(), Vec::new());
    while let Some(record) = stream.next_block(&mut payload)? {
        let start = original.len();
        let decoded_bytes = record.entry.decoded_bytes as usize;
        original.resize(start + decoded_bytes, dirt);
        let original_offset = match record.entry.coding {
            Coding::Reference => match Reference::parse(record.payload)? {
                Reference::SameFile { original_offset } => original_offset,
                Reference::OtherFile(_) => return Err(Error::new(ErrorKind::BaseMismatch, "another file")),
            },
            Coding::Delta => delta_base(record.payload)?,
            _ => {
                decode_block(&record, decoder, &mut original[start..])?;
                continue;
            }
        };
        let from = usize::try_from(original_offset).unwrap_or(usize::MAX);
        if from.checked_add(decoded_bytes).is_none_or(|end| end > start) {
            return Err(Error::new(ErrorKind::Corrupt, "reference to what is not there"));
        }
        original.copy_within(from..from + decoded_bytes, start);
        if record.entry.coding == Coding::Delta {
            decoder.add_delta(record.entry.dtype, record.payload, &mut original[start..])?;
        }
        if crc64(&original[start..]) != record.decoded_crc {
            return Err(Error::new(ErrorKind::ChecksumMismatch, "decoded CRC"));
        }
    }
    let end = stream.finish()?;
    check_hash(original, &end.content_hash)
}
