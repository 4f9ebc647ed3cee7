//! Fixtures of the codings that take a block apart: scales, palettes, differences, records.

use alcm::Dtype;
use alcm::kernels::Isa;
use alcm::kernels::convert::from_f32;
use alcm::stage::Coding;

use super::fixtures::{Fixture, Random, f32_block, fixture};

/// 1400 numbers times a scale for each group, the third one 0, rounded to `dtype`.
fn scaled_groups(dtype: Dtype, seed: u64, group_len: usize, number: impl Fn(&mut Random) -> f32) -> Vec<u8> {
    let mut random = Random::new(seed);
    let scale = |idx: usize| match idx / group_len {
        2 => 0.0,
        group => f32::from_bits(0x3a80_0000 + group as u32 * 0x0012_3457),
    };
    let values: Vec<f32> = (0..1400).map(|idx| number(&mut random) * scale(idx)).collect();
    let mut bytes = vec![0; values.len() * dtype.unit_bytes()];
    from_f32(Isa::Scalar, dtype, &values, &mut bytes).expect("a float");
    bytes
}

pub(crate) fn nested_fixtures() -> Vec<Fixture> {
    let bell = |random: &mut Random| (random.bell() * 0.05) as f32;
    vec![
        // Halves times a scale for each row, a short one at the end; zeros and a subnormal half among them.
        fixture(
            "scaled-f32",
            Dtype::F32,
            Coding::Scaled,
            f32_block(1410, 23, |idx, random| {
                let scale = 0.03 * (idx / 300 * 37 % 11 + 1) as f32 / 7.0;
                let half = match random.below(200) {
                    0 => 0.0,
                    1 => (1 + random.below(900)) as f32 / f32::from_bits(0x4b80_0000),
                    _ => f32::from_bits(bell(random).to_bits() & !0x1fff),
                };
                (half * scale).to_bits() | (random.below(2) as u32) << 31
            }),
        ),
        // Integers times a scale for each row.
        fixture(
            "scaled-integers-f32",
            Dtype::F32,
            Coding::Scaled,
            f32_block(1300, 27, |idx, random| {
                let scale = f32::from_bits(0x3b00_0000 + idx as u32 / 130 * 0x0012_3457);
                ((random.below(31) as f32 - 15.0) * scale).to_bits()
            }),
        ),
        // 4-bit integers times a scale for each group, rounded to halves; one group all zero.
        fixture("scaled-integers-f16", Dtype::F16, Coding::Scaled, {
            scaled_groups(Dtype::F16, 28, 96, |random| random.below(16) as f32 - 8.0)
        }),
        // FP8 numbers times a scale.
        fixture("scaled-fp8-bf16", Dtype::Bf16, Coding::Scaled, {
            scaled_groups(Dtype::Bf16, 29, 128, |random| {
                let exponent = random.below(6) as u32;
                let sign = (random.below(2) as u32) << 31;
                f32::from_bits((127 - exponent) << 23 | (random.below(8) as u32) << 20 | sign)
            })
        }),
        // Eleven values, and the scale of the next three times as large.
        fixture(
            "palette-f32",
            Dtype::F32,
            Coding::Palette,
            f32_block(1500, 25, |idx, random| {
                let value = (bell(random) * if idx < 700 { 12.0 } else { 40.0 }) as i32;
                (value.clamp(-5, 5) as f32 * 0.37).to_bits()
            }),
        ),
        fixture("palette-f64", Dtype::F64, Coding::Palette, {
            let mut random = Random::new(26);
            (0..3000).flat_map(|_| (0.1 + random.below(200) as f64).to_le_bytes()).collect()
        }),
        // Columns that are smooth curves, in rows of 24.
        Fixture {
            row_len: 24,
            ..fixture(
                "differences-f32",
                Dtype::F32,
                Coding::Differences,
                f32_block(1200, 30, |idx, _| {
                    let (row, column) = ((idx / 24) as f32, (idx % 24) as f32);
                    (1.0 + 0.3 * column + row * (0.01 - 0.003 * column) + row * row * 0.0007).to_bits()
                }),
            )
        },
        // Positions, and complex numbers each of which differs little from the one before.
        fixture(
            "differences-i64",
            Dtype::I64,
            Coding::Differences,
            (0..600_u64).flat_map(|position| (7 * position).wrapping_sub(900).to_le_bytes()).collect(),
        ),
        fixture(
            "differences-c64",
            Dtype::C64,
            Coding::Differences,
            f32_block(1500, 31, |idx, _| {
                let place = (idx / 2) as f32 * 0.002;
                (if idx % 2 == 0 { 1.0 - place * place * 0.3 } else { place + 2.0 }).to_bits()
            }),
        ),
        // Noise around one of three values, the last record cut off.
        Fixture {
            row_len: 3,
            ..fixture("records-bytes", Dtype::Bytes, Coding::Records, {
                let mut random = Random::new(32);
                let byte = |idx: usize| match idx % 3 {
                    1 => 0x20 + random.below(3) as u8,
                    _ => random.word() as u8,
                };
                (0..7001).map(byte).collect()
            })
        },
        // Positive numbers whose scales are products of a row's and a column's, in rows of 40 of which the first is cut off.
        rank_one("rank-one-f32", Dtype::F32, 40),
        rank_one("rank-one-bf16", Dtype::Bf16, 41),
        rank_one("rank-one-f16", Dtype::F16, 42),
        packed_records("records-q5_0", 22, 35),
        packed_records("records-q5_1", 24, 36),
        packed_records("records-q3_k", 110, 37),
        packed_records("records-q5_k", 176, 38),
        packed_records("records-q6_k", 210, 39),
    ]
}

fn rank_one(name: &str, dtype: Dtype, seed: u64) -> Fixture {
    const ROW_LEN: usize = 40;
    const ROW_START: usize = 17;
    let mut random = Random::new(seed);
    // Powers of two within those of halves.
    let mut factors = |n: usize, spread: usize| -> Vec<i32> {
        (0..n).map(|_| random.below(spread) as i32 - spread as i32 / 2).collect()
    };
    let (columns, rows) = (factors(ROW_LEN, 9), factors(60, 7));
    let value = |idx: usize| {
        let place = idx + ROW_START;
        let factor = f32::from_bits(((127 + columns[place % ROW_LEN] + rows[place / ROW_LEN]) as u32) << 23);
        let bell = 1.0 + random.bell() * 0.35;
        factor * bell as f32
    };
    let values: Vec<f32> = (0..60 * ROW_LEN - ROW_START - 5).map(value).collect();
    let mut bytes = vec![0; values.len() * dtype.unit_bytes()];
    from_f32(Isa::Scalar, dtype, &values, &mut bytes).expect("a float");
    let block = fixture(name, dtype, Coding::RankOne, bytes);
    Fixture { row_len: ROW_LEN, row_start: ROW_START, ..block }
}

/// Records of ggml's type of this size, whose values are near the middle of their range, and some bytes of one more.
fn packed_records(name: &str, record_bytes: usize, seed: u64) -> Fixture {
    let mut random = Random::new(seed);
    let n_records = 20 + 6000 / record_bytes;
    let mut bytes = Vec::new();
    for _ in 0..n_records {
        let mut record: Vec<u8> = (0..record_bytes).map(|_| random.word() as u8 & 0x13).collect();
        let value = |random: &mut Random, bits: u32| {
            let middle = f64::from(1 << (bits - 1));
            (middle + random.bell() * middle * 0.2).clamp(0.0, 2.0 * middle - 1.0) as u8
        };
        // Low bits cleared first: every value is put where ggml has it.
        let mut put = |at: usize, shift: usize, bits: u8, mask: u8| {
            record[at] = record[at] & !(mask << shift) | bits << shift;
        };
        match record_bytes {
            22 | 24 => (0..32).for_each(|k| {
                let v = value(&mut random, 5);
                put(record_bytes - 16 + k % 16, 4 * (k / 16), v & 15, 15);
                put(record_bytes - 20 + k / 8, k % 8, v >> 4, 1);
            }),
            110 => (0..256).for_each(|k| {
                let (v, l, j, h) = (value(&mut random, 3), k % 32, k / 32 % 4, k / 128);
                put(32 + 32 * h + l, 2 * j, v & 3, 3);
                put(l, 4 * h + j, v >> 2, 1);
            }),
            176 => (0..256).for_each(|k| {
                let (v, l, i) = (value(&mut random, 5), k % 32, k / 32);
                put(48 + 32 * (i / 2) + l, 4 * (i % 2), v & 15, 15);
                put(16 + l, i, v >> 4, 1);
            }),
            _ => (0..256).for_each(|k| {
                let (v, l, j, h) = (value(&mut random, 6), k % 32, k / 32 % 4, k / 128);
                put(64 * h + 32 * (j % 2) + l, 4 * (j / 2), v & 15, 15);
                put(128 + 32 * h + l, 2 * j, v >> 4, 3);
            }),
        }
        bytes.extend(record);
    }
    bytes.extend((0..record_bytes / 3).map(|_| random.word() as u8));
    Fixture { row_len: record_bytes, ..fixture(name, Dtype::Bytes, Coding::Records, bytes) }
}
