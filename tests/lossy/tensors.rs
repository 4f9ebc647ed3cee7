//! Tensors of every kind, by seed; bounds on their errors; one lossy run, restored and checked.

use std::fs;
use std::path::Path;

use alcm::checkpoint::{SafetensorsHeader, TensorInfo};
use alcm::{Dtype, Limits};

use super::common::fixtures::{Random, push};
use super::common::{alcm, typed_checkpoint};

pub(crate) const FLOATS: [Dtype; 4] = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F64];
pub(crate) const QUANTIZERS: [&str; 3] = ["", "--quant uniform", "--quant trellis"];

/// What the elements of a tensor are like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Bell,
    HeavyTail,
    RowScales,
    Sparse,
    NegativeZeros,
    Constant,
    Zeros,
    ZeroRows,
    HugeRange,
    Subnormal,
    Tiny,
    Huge,
    Outlier,
    NonFinite,
    NonFiniteRow,
    AnyBits,
    Positive,
    Ramp,
    PeriodicRows,
    Band,
}

pub(crate) const KINDS: [Kind; 20] = [
    Kind::Bell,
    Kind::HeavyTail,
    Kind::RowScales,
    Kind::Sparse,
    Kind::NegativeZeros,
    Kind::Constant,
    Kind::Zeros,
    Kind::ZeroRows,
    Kind::HugeRange,
    Kind::Subnormal,
    Kind::Tiny,
    Kind::Huge,
    Kind::Outlier,
    Kind::NonFinite,
    Kind::NonFiniteRow,
    Kind::AnyBits,
    Kind::Positive,
    Kind::Ramp,
    Kind::PeriodicRows,
    Kind::Band,
];

impl Kind {
    fn element(self, random: &mut Random, row: usize, column: usize) -> f64 {
        let bell = random.bell();
        let power = |random: &mut Random, range: usize| {
            2f64.powi(i32::try_from(random.below(2 * range)).unwrap() - i32::try_from(range).unwrap())
        };
        match self {
            Self::Bell | Self::AnyBits => 0.05 * bell,
            Self::HeavyTail => bell * bell * bell * 3.0 / (1e-3 + random.bell().abs()),
            Self::RowScales => bell * 4f64.powi(i32::try_from(row % 12).unwrap() - 6),
            Self::Sparse if random.below(10) > 0 => 0.0,
            Self::NegativeZeros if random.below(4) > 0 => [0.0, -0.0][random.below(2)],
            Self::Sparse | Self::NegativeZeros => bell,
            Self::Constant => -0.371,
            Self::Zeros => 0.0,
            Self::ZeroRows if row % 3 != 1 => 0.0,
            Self::ZeroRows => bell,
            Self::HugeRange => bell * power(random, 120),
            Self::Subnormal => bell * 2f64.powi(-130),
            // Beyond F32, where F64 reaches.
            Self::Tiny => bell * 2f64.powi(-500),
            Self::Huge => bell * 2f64.powi(500),
            Self::Outlier if random.below(3000) == 0 => 1e4 * bell,
            Self::Outlier => 1e-3 * bell,
            Self::NonFinite if random.below(100) == 0 => {
                [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0][random.below(4)]
            }
            Self::NonFiniteRow if row == 1 => [f64::NAN, f64::INFINITY][column % 2],
            Self::NonFinite | Self::NonFiniteRow => bell,
            // As Adam's second moments.
            Self::Positive => 1e-8 * bell * bell * power(random, 4),
            Self::PeriodicRows if row.is_multiple_of(8) => 6.0 * bell,
            Self::PeriodicRows => bell,
            Self::Band if row.abs_diff(column) < 20 => bell,
            Self::Band => 1e-4 * bell,
            Self::Ramp => 1e-3 * (row as f64) + 1e-5 * (column as f64),
        }
    }
}

/// The elements of a tensor of `n_rows` by `row_len`.
pub(crate) fn tensor_bytes(dtype: Dtype, kind: Kind, n_rows: usize, row_len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::new();
    for row in 0..n_rows {
        for column in 0..row_len {
            if matches!(kind, Kind::AnyBits) {
                let word = random.word().to_le_bytes();
                bytes.extend_from_slice(&word[..dtype.unit_bytes()]);
            } else {
                let value = kind.element(&mut random, row, column);
                // Truncation would make an infinity of a NaN, or a number of an infinity.
                if value.is_finite() {
                    push(dtype, value, &mut random, &mut bytes);
                } else {
                    bytes.extend(non_finite(dtype, value));
                }
            }
        }
    }
    bytes
}

pub(crate) fn non_finite(dtype: Dtype, value: f64) -> Vec<u8> {
    let sign = u16::from(value.is_sign_negative()) << 15;
    let payload = u16::from(value.is_nan());
    match dtype {
        Dtype::F64 => value.to_le_bytes().to_vec(),
        Dtype::F32 => (u32::from(sign | 0x7f80 | payload) << 16).to_le_bytes().to_vec(),
        Dtype::F16 => (sign | 0x7c00 | payload).to_le_bytes().to_vec(),
        _ => (sign | 0x7f80 | payload).to_le_bytes().to_vec(),
    }
}

pub(crate) fn value(dtype: Dtype, bytes: &[u8]) -> f64 {
    let half = || u16::from_le_bytes(bytes.try_into().unwrap());
    match dtype {
        Dtype::F64 => f64::from_le_bytes(bytes.try_into().unwrap()),
        Dtype::F32 => f32::from_le_bytes(bytes.try_into().unwrap()).into(),
        Dtype::Bf16 => f32::from_bits(u32::from(half()) << 16).into(),
        Dtype::F16 => {
            let (exponent, mantissa) = (i32::from(half() >> 10 & 0x1f), f64::from(half() & 0x3ff));
            let magnitude = match exponent {
                0 => mantissa * 2f64.powi(-24),
                31 if mantissa == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1024.0 + mantissa) * 2f64.powi(exponent - 25),
            };
            if half() >> 15 == 1 { -magnitude } else { magnitude }
        }
        _ => panic!("{} is no float", dtype.name()),
    }
}

/// A goal, and how the command line takes it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    MaxAbs(f64),
    MaxRel(f64),
    RelL2(f64),
    Bits(f64),
    /// Any other goal: no bound, but what is not finite or no float is exact all the same.
    Unbounded(&'static str),
}

impl Goal {
    pub(crate) fn arguments(self) -> String {
        match self {
            Self::MaxAbs(bound) => format!("--lossy --max-abs-error {bound:e}"),
            Self::MaxRel(bound) => format!("--lossy --max-rel-error {bound:e}"),
            Self::RelL2(bound) => format!("--lossy --rel-l2 {bound:e}"),
            Self::Bits(bits) => format!("--lossy --bits {bits}"),
            Self::Unbounded(arguments) => format!("--lossy {arguments}"),
        }
    }

    /// Checks one float tensor, of rows that are the channels.
    fn check(self, dtype: Dtype, row_len: usize, original: &[u8], restored: &[u8], what: &str) {
        let unit = dtype.unit_bytes();
        let values =
            |bytes: &[u8]| -> Vec<f64> { bytes.chunks_exact(unit).map(|b| value(dtype, b)).collect() };
        let (x, y) = (values(original), values(restored));
        for (idx, (x, y)) in x.iter().zip(&y).enumerate() {
            let range = idx * unit..(idx + 1) * unit;
            let same = original[range.clone()] == restored[range];
            assert!(same || (x.is_finite() && y.is_finite()), "{what}: element {idx} was {x} and is {y}");
        }
        let error = |(x, y): (&f64, &f64)| if x.is_finite() { (x - y).abs() } else { 0.0 };
        let norm = |values: &mut dyn Iterator<Item = f64>| {
            let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
            let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
            if largest == 0.0 {
                return 0.0;
            }
            largest * values.iter().map(|value| (value / largest).powi(2)).sum::<f64>().sqrt()
        };
        match self {
            Self::MaxAbs(bound) => {
                let largest = x.iter().zip(&y).map(error).fold(0.0, f64::max);
                assert!(largest <= bound, "{what}: an error of {largest:e}");
            }
            Self::MaxRel(bound) => {
                for (row, (x, y)) in x.chunks(row_len).zip(y.chunks(row_len)).enumerate() {
                    let finite = x.iter().filter(|x| x.is_finite());
                    let magnitude = finite.fold(0.0, |largest: f64, x| largest.max(x.abs()));
                    let largest = x.iter().zip(y).map(error).fold(0.0, f64::max);
                    let is_within = largest <= bound * magnitude;
                    assert!(is_within, "{what}: an error of {largest:e} in row {row} of up to {magnitude:e}");
                }
            }
            Self::RelL2(bound) => {
                let (error, norm) = (norm(&mut x.iter().zip(&y).map(error)), norm(&mut x.iter().copied()));
                assert!(error <= bound * norm, "{what}: an error of {error:e} in a tensor of {norm:e}");
            }
            Self::Bits(_) | Self::Unbounded(_) => {}
        }
    }
}

/// A tensor to compress.
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Tensor {
    pub(crate) fn new(dtype: Dtype, kind: Kind, shape: &[usize], seed: u64) -> Self {
        let n_rows = shape.first().copied().unwrap_or(1);
        let row_len = shape.iter().skip(1).product();
        let name = format!("{kind:?}.{}.{shape:?}.{seed}", dtype.name());
        Self { name, dtype, shape: shape.to_vec(), bytes: tensor_bytes(dtype, kind, n_rows, row_len, seed) }
    }

    pub(crate) fn row_len(&self) -> usize {
        self.shape.iter().skip(1).product::<usize>().max(1)
    }
}

pub(crate) fn file_of(tensors: &[Tensor]) -> Vec<u8> {
    let rows: Vec<_> =
        tensors.iter().map(|t| (t.name.as_str(), t.dtype.name(), t.shape.clone(), &t.bytes[..])).collect();
    typed_checkpoint(&rows)
}

pub(crate) fn is_float(dtype: Dtype) -> bool {
    FLOATS.contains(&dtype)
}

/// Compresses `tensors` to `goal` in `dir`, restores them, checks every tensor, and gives the archive.
pub(crate) fn check(dir: &Path, tensors: &[Tensor], goal: Goal, quantizer: &str) -> Vec<u8> {
    let file = file_of(tensors);
    fs::write(dir.join("f.safetensors"), &file).unwrap();
    let arguments = goal.arguments();
    alcm(dir, &format!("compress f.safetensors -o f.alcm -q -f {arguments} {quantizer}")).assert().code(0);
    alcm(dir, "verify f.alcm -q").assert().code(0);
    alcm(dir, "decompress f.alcm -o back.safetensors -q -f").assert().code(0);
    let restored = fs::read(dir.join("back.safetensors")).unwrap();
    assert_eq!(restored.len(), file.len());
    let header = SafetensorsHeader::parse(&file, Some(file.len() as u64), &Limits::default()).unwrap();
    let data_start = usize::try_from(header.prefix_bytes()).unwrap();
    assert!(restored[..data_start] == file[..data_start], "the header is exact");
    let range = |info: &TensorInfo| usize::try_from(info.start).unwrap()..usize::try_from(info.end).unwrap();
    for tensor in tensors {
        let info = header.tensors().iter().find(|info| info.name == tensor.name).unwrap();
        let (original, restored) = (&file[range(info)], &restored[range(info)]);
        let what = format!("{}, {arguments} {quantizer}", tensor.name);
        if is_float(tensor.dtype) {
            goal.check(tensor.dtype, tensor.row_len(), original, restored, &what);
        } else {
            assert!(original == restored, "{what}: changed");
        }
    }
    fs::read(dir.join("f.alcm")).unwrap()
}

/// A tensor of every kind, and shapes at which something begins or ends.
pub(crate) fn every_kind(dtype: Dtype) -> Vec<Tensor> {
    let mut tensors: Vec<Tensor> = KINDS
        .iter()
        .enumerate()
        .map(|(idx, kind)| Tensor::new(dtype, *kind, &[16 + idx, 300], idx as u64))
        .collect();
    let shapes: [&[usize]; 12] = [
        &[],
        &[1],
        &[0],
        &[0, 8192],
        &[8192, 0],
        &[64, 0, 64],
        &[1, 1],
        &[1, 5000],
        &[5000, 1],
        &[9000],
        &[8, 16, 5, 7],
        &[63, 67],
    ];
    tensors.extend(shapes.map(|shape| Tensor::new(dtype, Kind::Bell, shape, 99)));
    tensors
}
