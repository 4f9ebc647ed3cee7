//! Codings that take a block apart and leave the parts to another, and records.

use super::super::differences;
use super::*;

/// Rows of `row_len` halves, each row times a scale of its own, rounded to singles.
fn scaled_rows(row_len: usize, n_rows: usize, seed: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bytes = Vec::new();
    for _ in 0..n_rows {
        let scale = f32::from_bits(0x3a00_0000 + rng.next_u32() % 0x0400_0000);
        for _ in 0..row_len {
            let sum: f64 = (0..4).map(|_| f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5).sum();
            let half = f32::from_bits(((sum * 0.1) as f32).to_bits() & !0x1fff);
            bytes.extend((half * scale).to_le_bytes());
        }
    }
    bytes
}

#[test]
fn halves_times_a_scale_are_found_again() {
    for (row_len, n_rows) in [(1152, 20), (256, 40), (64, 100), (5000, 2)] {
        let bytes = scaled_rows(row_len, n_rows, 5);
        for (coding, len) in round_trip(Dtype::F32, &bytes, 3) {
            assert_eq!(coding, Coding::Scaled, "rows of {row_len}");
            assert!(len * 2 < bytes.len(), "rows of {row_len}: {len} of {}", bytes.len());
        }
    }
}

#[test]
fn what_is_no_scaled_half_spoils_only_the_coding() {
    let bytes = scaled_rows(576, 10, 6);
    let strange = [f32::NAN, f32::INFINITY, -f32::INFINITY, f32::from_bits(1), f32::MAX, f32::MIN_POSITIVE];
    for at in [0, 1, 576, 2000, bytes.len() / 4 - 1] {
        for value in strange.into_iter().chain([0.0, -0.0, 1.000_000_1]) {
            let mut bytes = bytes.clone();
            bytes[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes());
            round_trip(Dtype::F32, &bytes, 0);
        }
    }
    for cut in [1, 2, 15, 63, 65, 255, 257, 1000] {
        round_trip(Dtype::F32, &bytes[..4 * cut], 0);
        round_trip(Dtype::F32, &bytes[4 * cut..], 0);
    }
}

/// Elements of `dtype` that are each one of `n_values`.
fn of_a_palette(dtype: Dtype, n: usize, n_values: u32, seed: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Products with an odd number differ in their low bits.
    let value = |k: u32| u64::from(k).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let values: Vec<[u8; 8]> = (0..n_values).map(value).collect();
    let pick = |_| values[(rng.next_u32() % n_values).min(rng.next_u32() % n_values) as usize];
    (0..n).map(pick).flat_map(|value| value.into_iter().take(dtype.unit_bytes())).collect()
}

#[test]
fn a_few_values_are_told_by_their_places() {
    for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32, Dtype::F64, Dtype::C64, Dtype::I32] {
        for n_values in [2, 3, 16, 255, 256] {
            let bytes = of_a_palette(dtype, 40_000, n_values, 31);
            let entropy = {
                let share = |k: u32| f64::from(2 * (n_values - k) - 1) / f64::from(n_values * n_values);
                (0..n_values).map(|k| -share(k) * share(k).log2()).sum::<f64>()
            };
            for (coding, len) in round_trip(dtype, &bytes, 100) {
                assert_eq!(coding, Coding::Palette, "{dtype:?} {n_values}");
                let bits = 8.0 * (len - n_values as usize * dtype.unit_bytes()) as f64 / 40_000.0;
                assert!(bits < entropy * 1.01 + 0.13, "{dtype:?} {n_values}: {bits} of {entropy}");
            }
        }
        let bytes = of_a_palette(dtype, 40_000, 300, 31);
        assert!(round_trip(dtype, &bytes, 100).iter().all(|(coding, _)| *coding != Coding::Palette));
        for n in [1, 2, 63, 64, 65, 300, 1000] {
            round_trip(dtype, &of_a_palette(dtype, n, 7, 32), 0);
        }
    }
}

#[test]
fn integers_times_a_scale_are_told_by_their_places() {
    let mut rng = ChaCha8Rng::seed_from_u64(34);
    for (row_len, most) in [(384, 127), (128, 7)] {
        let mut bytes = Vec::new();
        for _ in 0..60_000 / row_len {
            let scale = f32::from_bits(0x3a00_0000 + rng.next_u32() % 0x0400_0000);
            for _ in 0..row_len {
                let integer = rng.next_u32() % (2 * most + 1);
                bytes.extend(((integer as f32 - most as f32) * scale).to_le_bytes());
            }
        }
        for (coding, len) in round_trip(Dtype::F32, &bytes, row_len) {
            assert_eq!(coding, Coding::Scaled, "rows of {row_len}");
            let bits = (f64::from(2 * most + 1)).log2() + 64.0 / row_len as f64;
            let found = 32.0 * len as f64 / bytes.len() as f64;
            assert!(found < bits + 0.3, "rows of {row_len}: {found} bits of {bits}");
        }
    }
}

/// Numbers of a few bits, times a scale for each group, in `dtype`; `number` of a random word.
fn scaled_groups(
    dtype: Dtype,
    group_len: usize,
    n: usize,
    seed: u64,
    number: impl Fn(u32) -> f32,
) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values = Vec::new();
    while values.len() < n {
        let scale = f32::from_bits(0x3a00_0000 + rng.next_u32() % 0x0200_0000);
        values.extend((0..group_len).map(|_| number(rng.next_u32()) * scale));
    }
    let mut bytes = vec![0; n * dtype.unit_bytes()];
    from_f32(Isa::Scalar, dtype, &values[..n], &mut bytes).expect("a float");
    bytes
}

/// A random number of `bits` bits and a sign, evenly spread.
fn integer(word: u32, bits: u32) -> f32 {
    let magnitude = (word >> 1) & ((1 << bits) - 1);
    if word & 1 == 1 { -(magnitude as f32) } else { magnitude as f32 }
}

/// A random FP8 number (E4M3) of eight exponents and a sign.
fn fp8(word: u32) -> f32 {
    let magnitude = f32::from_bits((0x3f80_0000 - (word >> 4 & 7) * 0x0080_0000) | (word >> 7 & 7) << 20);
    if word & 1 == 1 { -magnitude } else { magnitude }
}

#[test]
fn quantized_weights_are_found_again_in_half_precision() {
    for dtype in [Dtype::F16, Dtype::Bf16] {
        for (group_len, bits_each, bits) in [(32, 4.0, 3), (128, 5.0, 4), (128, 4.0, 3), (384, 8.0, 7)] {
            let bytes = scaled_groups(dtype, group_len, 60_000, 41, |word| integer(word, bits));
            for (coding, len) in round_trip(dtype, &bytes, group_len) {
                assert_eq!(coding, Coding::Scaled, "{dtype:?} groups of {group_len}");
                let found = 8.0 * len as f64 / 60_000.0;
                let most = bits_each + 32.0 / group_len as f64 + 0.35;
                assert!(found < most, "{dtype:?} groups of {group_len}: {found} bits of {most}");
            }
        }
        let bytes = scaled_groups(dtype, 128, 60_000, 42, fp8);
        for (coding, len) in round_trip(dtype, &bytes, 128) {
            assert_eq!(coding, Coding::Scaled, "{dtype:?}");
            let found = 8.0 * len as f64 / 60_000.0;
            assert!(found < 7.7, "{dtype:?}: {found} bits");
        }
    }
}

#[test]
fn scaled_half_precision_survives_strange_elements() {
    let (infinity, nan) = (0x7c00u16, 0x7e00u16);
    for (dtype, group_len, n) in [(Dtype::F16, 16, 5000), (Dtype::Bf16, 32, 700), (Dtype::F16, 128, 64)] {
        let bytes = scaled_groups(dtype, group_len, n, 43, |word| integer(word, 3));
        for element in [infinity, nan, 0x7f80, 0xff80, 1, 0x8001, 0x0400, 0x0080, 0x7bff, 0x7f7f, 0, 0x8000] {
            for at in [0, 1, 7, n / 2, n - 1] {
                let mut bytes = bytes.clone();
                bytes[2 * at..2 * at + 2].copy_from_slice(&element.to_le_bytes());
                round_trip(dtype, &bytes, 0);
            }
        }
        // All zero but for a few, and subnormal throughout.
        let zeros: Vec<u8> =
            bytes.iter().enumerate().map(|(i, &byte)| if i / 2 % 50 == 0 { byte } else { 0 }).collect();
        round_trip(dtype, &zeros, 0);
        let subnormal: Vec<u8> =
            bytes.iter().enumerate().map(|(i, &byte)| if i % 2 == 0 { byte & 0x3f } else { 0 }).collect();
        round_trip(dtype, &subnormal, 0);
    }
}

#[test]
fn scaled_blocks_that_break_the_format_are_refused() {
    let mut encoder = BlockEncoder::new(Level::Default, Isa::detect());
    let bytes = scaled_groups(Dtype::Bf16, 128, 4096, 44, |word| integer(word, 3));
    let mut payload = Vec::new();
    let source = BlockSource { dtype: Dtype::Bf16, bytes: &bytes, row_len: 0, row_start: 0 };
    assert_eq!(encoder.encode(source, &mut payload), Coding::Scaled);
    let kind = |dtype, payload: &[u8], len: usize| {
        let mut dst = vec![0; len];
        let mut decoder = BlockDecoder::new(Isa::detect());
        decoder.decode(Coding::Scaled, dtype, payload, &mut dst).err().map(|error| error.kind())
    };
    let corrupt = Some(ErrorKind::Corrupt);
    assert_eq!(kind(Dtype::Bf16, &payload, bytes.len()), None);
    // Of other dtypes there are none, though they be as wide.
    assert_eq!(kind(Dtype::I16, &payload, bytes.len()), corrupt);
    assert_eq!(kind(Dtype::F64, &payload, 4 * bytes.len()), corrupt);
    for len in [0, 2, bytes.len() - 2, bytes.len() + 2, bytes.len() - 1, 2 * bytes.len()] {
        assert_eq!(kind(Dtype::Bf16, &payload, len), corrupt, "{len}");
    }
    // Number of runs, codings, reserved bytes, the runs' size.
    for (at, byte) in [(0, 0xff), (3, 1), (4, 6), (4, 1), (5, 3), (5, 9), (6, 1), (7, 1), (8, 0), (11, 0x7f)]
    {
        let mut broken = payload.clone();
        assert_ne!(broken[at], byte);
        broken[at] = byte;
        assert_eq!(kind(Dtype::Bf16, &broken, bytes.len()), corrupt, "byte {at}");
    }
    for len in [0, 1, 11, 12, 20, payload.len() - 1] {
        assert_eq!(kind(Dtype::Bf16, &payload[..len], bytes.len()), corrupt, "cut to {len}");
    }
    // Runs as they are: one of no elements, one too long, scales that are no positive normal numbers.
    let stored = |lengths: [u32; 2], scale: f32| {
        let words = [2, 0, 16, lengths[0], lengths[1], 0x3f80_0000, scale.to_bits()];
        let mut payload: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        payload.extend([0; 2 * 100]);
        kind(Dtype::F16, &payload, 200)
    };
    assert_eq!(stored([40, 60], 0.5), None);
    for lengths in [[0, 100], [100, 0], [40, 61], [40, 59], [u32::MAX, 101]] {
        assert_eq!(stored(lengths, 0.5), corrupt, "{lengths:?}");
    }
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::from_bits(1)] {
        assert_eq!(stored([40, 60], scale), corrupt, "{scale}");
    }
}

#[test]
fn palettes_that_break_the_format_are_refused() {
    let mut encoder = BlockEncoder::new(Level::Default, Isa::detect());
    let bytes = of_a_palette(Dtype::F32, 5000, 9, 33);
    let mut payload = Vec::new();
    let source = BlockSource { dtype: Dtype::F32, bytes: &bytes, row_len: 0, row_start: 0 };
    assert_eq!(encoder.encode(source, &mut payload), Coding::Palette);
    let kind = |dtype, payload: &[u8], len: usize| {
        let mut dst = vec![0; len];
        let decoded = BlockDecoder::new(Isa::detect()).decode(Coding::Palette, dtype, payload, &mut dst);
        decoded.map_err(|e| e.kind())
    };
    assert_eq!(kind(Dtype::F32, &payload, bytes.len()), Ok(()));
    let corrupt = Err(ErrorKind::Corrupt);
    // Of one value less the last index is beyond the palette; of any other dtype lengths do not fit, or units.
    let fewer = [&[payload[0], 7, 0, 0], &payload[4..4 + 8 * 4], &payload[4 + 9 * 4..]].concat();
    assert_eq!(kind(Dtype::F32, &fewer, bytes.len()), corrupt);
    for dtype in [Dtype::U8, Dtype::F8E4m3, Dtype::Bool, Dtype::Bytes] {
        assert_eq!(kind(dtype, &payload, bytes.len()), corrupt);
    }
    assert_eq!(kind(Dtype::F32, &payload, bytes.len() - 1), corrupt);
    for id in Coding::all().map(Coding::wire_id).filter(|id| !matches!(id, 0 | 2 | 3)) {
        assert_eq!(kind(Dtype::F32, &[&[id], &payload[1..]].concat(), bytes.len()), corrupt);
    }
    for end in 0..payload.len() {
        assert_eq!(kind(Dtype::F32, &payload[..end], bytes.len()), corrupt, "{end}");
    }
}

/// Rows of `row_len` numbers that change slowly from row to row, as bits of `dtype`.
fn smooth_rows(dtype: Dtype, n_words: usize, row_len: usize) -> Vec<u8> {
    let value = |idx: usize| {
        let (row, column) = ((idx / row_len) as f64, (idx % row_len) as f64);
        // Parabolas about 1.5 to 1.9, away from where exponents change.
        1.5 + 0.4 * (column * 0.37).fract() + row * 2e-5 + row * row * 1e-9
    };
    let words = (0..n_words).map(value);
    match dtype {
        Dtype::F64 => words.flat_map(f64::to_le_bytes).collect(),
        Dtype::F32 | Dtype::C64 => words.flat_map(|value| (value as f32).to_le_bytes()).collect(),
        Dtype::Bf16 | Dtype::F16 => {
            let singles: Vec<f32> = words.map(|value| value as f32).collect();
            let mut bytes = vec![0; 2 * n_words];
            from_f32(Isa::Scalar, dtype, &singles, &mut bytes).unwrap();
            bytes
        }
        Dtype::I16 | Dtype::U16 => words.flat_map(|value| ((value * 3e4) as u16).to_le_bytes()).collect(),
        Dtype::I32 | Dtype::U32 => words.flat_map(|value| ((value * 2e9) as u32).to_le_bytes()).collect(),
        _ => words.flat_map(|value| ((value * 1e15) as u64).to_le_bytes()).collect(),
    }
}

#[test]
fn smooth_rows_are_coded_by_their_differences() {
    for dtype in Dtype::all().filter(|dtype| differences::dtype_of_words(*dtype).is_some()) {
        for row_len in [1, 2, 7, 96, 2000] {
            let row_words = if dtype == Dtype::C64 { 2 * row_len } else { row_len };
            let bytes = smooth_rows(dtype, 9_000, row_words);
            for (coding, len) in round_trip(dtype, &bytes, row_len) {
                // Of half a float's mantissa few rows show a change.
                if dtype.unit_bytes() > 2 {
                    assert_eq!(coding, Coding::Differences, "{dtype:?} {row_len}");
                    assert!(len * 2 < bytes.len(), "{dtype:?} {row_len}: {len}");
                }
            }
        }
        for n_words in [2, 64, 66, 130] {
            round_trip(dtype, &smooth_rows(dtype, n_words, 2), 2);
        }
    }
    // Positions, one after another, take next to nothing.
    let positions: Vec<u8> = (0..2000u64).flat_map(u64::to_le_bytes).collect();
    assert!(round_trip(Dtype::I64, &positions, 2000).iter().all(|&(_, len)| len < 200));
}

#[test]
fn rows_as_long_as_a_header_may_claim_are_no_rows() {
    for dtype in Dtype::all() {
        let bytes = weights(dtype, 4000, 44, 0);
        for row_len in [usize::MAX, usize::MAX / 2 + 1, usize::MAX / 4 + 1, 4001, 250] {
            round_trip(dtype, &bytes, row_len);
        }
    }
}

#[test]
fn differences_that_break_the_format_are_refused() {
    let bytes = smooth_rows(Dtype::F32, 5000, 50);
    let mut payload = Vec::new();
    let source = BlockSource { dtype: Dtype::F32, bytes: &bytes, row_len: 50, row_start: 0 };
    assert_eq!(
        BlockEncoder::new(Level::Default, Isa::detect()).encode(source, &mut payload),
        Coding::Differences
    );
    let kind = |dtype, payload: &[u8], len: usize| {
        let mut dst = vec![0; len];
        let decoded = BlockDecoder::new(Isa::detect()).decode(Coding::Differences, dtype, payload, &mut dst);
        decoded.map_err(|e| e.kind())
    };
    assert_eq!(kind(Dtype::F32, &payload, bytes.len()), Ok(()));
    let corrupt = Err(ErrorKind::Corrupt);
    let with = |at: usize, part: &[u8]| [&payload[..at], part, &payload[at + part.len()..]].concat();
    for header in [with(1, &[0]), with(1, &[5]), with(1, &[255]), with(2, &[1]), with(3, &[1])] {
        assert_eq!(kind(Dtype::F32, &header, bytes.len()), corrupt);
    }
    for lag in [0, 5001, u32::MAX] {
        assert_eq!(kind(Dtype::F32, &with(4, &lag.to_le_bytes()), bytes.len()), corrupt, "{lag}");
    }
    for id in Coding::all().map(Coding::wire_id).filter(|id| !matches!(id, 0 | 2 | 3)) {
        assert_eq!(kind(Dtype::F32, &with(0, &[id]), bytes.len()), corrupt);
    }
    for dtype in [Dtype::U8, Dtype::F8E4m3, Dtype::Bool, Dtype::Bytes] {
        assert_eq!(kind(dtype, &payload, bytes.len()), corrupt);
    }
    assert_eq!(kind(Dtype::F32, &payload, bytes.len() - 1), corrupt);
    for end in 0..payload.len() {
        assert_eq!(kind(Dtype::F32, &payload[..end], bytes.len()), corrupt, "{end}");
    }
}

/// `n_bytes` of records of `record_bytes`: a scale in half precision, then integers of few bits, two a byte.
fn quantized_groups(record_bytes: usize, n_bytes: usize) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(41);
    let mut nibble = move || 4 + (0..4).map(|_| rng.next_u32() % 3).sum::<u32>() as u8;
    let byte = |idx: usize| match idx % record_bytes {
        0 => nibble().wrapping_mul(41) ^ nibble().wrapping_mul(27),
        1 => 0x20 | nibble(),
        _ => nibble() << 4 | nibble(),
    };
    (0..n_bytes).map(byte).collect()
}

#[test]
fn fields_of_records_are_told_apart() {
    for record_bytes in [2, 3, 18, 34, 210, 512] {
        for n_bytes in [16 * record_bytes, 150_000, 150_001 + record_bytes / 2] {
            let bytes = quantized_groups(record_bytes, n_bytes);
            for (coding, len) in round_trip(Dtype::Bytes, &bytes, record_bytes) {
                if n_bytes >= 150_000 {
                    assert_eq!(coding, Coding::Records, "{record_bytes}");
                    // Nibbles take 2.7 of their 4 bits.
                    assert!(len * 100 < bytes.len() * 74, "{record_bytes}: {len} of {}", bytes.len());
                }
            }
        }
    }
    let bytes = quantized_groups(18, 9000);
    for no_record in [0, 1, 513, 4000, 1 << 30] {
        assert!(
            round_trip(Dtype::Bytes, &bytes, no_record).iter().all(|(coding, _)| *coding != Coding::Records)
        );
    }
}

/// Values of six bits near the middle of their range, which no byte of a record shows: low and high bits lie apart.
#[test]
fn values_that_are_packed_apart_are_put_together() {
    let mut rng = ChaCha8Rng::seed_from_u64(44);
    let (mut bytes, mut entropy) = (Vec::new(), [0u32; 64]);
    for _ in 0..1000 {
        let mut record = [0u8; 210];
        for k in 0..256 {
            let value = (0..8).map(|_| rng.next_u32() % 7).sum::<u32>() as usize + 8;
            entropy[value] += 1;
            let (l, j, half) = (k % 32, k / 32 % 4, k / 128);
            record[64 * half + 32 * (j % 2) + l] |= ((value & 15) << (4 * (j / 2))) as u8;
            record[128 + 32 * half + l] |= ((value >> 4) << (2 * j)) as u8;
        }
        record[192..].iter_mut().for_each(|byte| *byte = (rng.next_u32() % 5) as u8);
        bytes.extend(record);
    }
    let share = |count: &u32| f64::from(*count) / 256_000.0;
    let bits: f64 = entropy.iter().filter(|count| **count > 0).map(|n| -share(n) * share(n).log2()).sum();
    let expected = (256.0 * bits + 18.0 * 5f64.log2()) / 8.0 * 1000.0;
    for tail in [0, 100] {
        bytes.extend(vec![7; tail]);
        for (coding, len) in round_trip(Dtype::Bytes, &bytes, 210) {
            assert_eq!(coding, Coding::Records);
            assert!((len as f64) < expected * 1.005 + 1200.0, "{len} of {expected}");
        }
    }
    // Records that begin elsewhere, and such as are no values at all.
    for from in [1, 100, 209] {
        round_trip(Dtype::Bytes, &bytes[from..], 210);
    }
    for record_bytes in [22, 24, 110, 176, 210] {
        for len in [16 * record_bytes, 16 * record_bytes + 1, 5000] {
            let mut noise = vec![0; len];
            rng.fill_bytes(&mut noise);
            round_trip(Dtype::Bytes, &noise, record_bytes);
            noise.iter_mut().for_each(|byte| *byte &= 0x31);
            round_trip(Dtype::Bytes, &noise, record_bytes);
        }
    }
}

#[test]
fn records_that_break_the_format_are_refused() {
    let mut bytes = vec![0; 7001];
    ChaCha8Rng::seed_from_u64(43).fill_bytes(&mut bytes);
    bytes.iter_mut().skip(1).step_by(3).for_each(|byte| *byte = 0x20 + *byte % 3);
    let mut payload = Vec::new();
    let source = BlockSource { dtype: Dtype::Bytes, bytes: &bytes, row_len: 3, row_start: 0 };
    assert_eq!(
        BlockEncoder::new(Level::Default, Isa::detect()).encode(source, &mut payload),
        Coding::Records
    );
    let kind = |payload: &[u8], len: usize| {
        let mut dst = vec![0; len];
        let decoder = &mut BlockDecoder::new(Isa::detect());
        decoder.decode(Coding::Records, Dtype::Bytes, payload, &mut dst).map_err(|e| e.kind())
    };
    assert_eq!(kind(&payload, bytes.len()), Ok(()));
    let corrupt = Err(ErrorKind::Corrupt);
    let with = |at: usize, part: &[u8]| [&payload[..at], part, &payload[at + part.len()..]].concat();
    for record_bytes in [0u16, 1, 2, 4, 513, u16::MAX] {
        assert_eq!(kind(&with(0, &record_bytes.to_le_bytes()), bytes.len()), corrupt, "{record_bytes}");
    }
    for header in [
        with(2, &[0]),
        with(2, &[1]),
        with(2, &[33]),
        with(3, &[1]),
        with(3, &[6]),
        with(4, &[16]),
        with(6, &[255]),
    ] {
        assert_eq!(kind(&header, bytes.len()), corrupt);
    }
    for len in [0, 1, bytes.len() - 2000, bytes.len() + 2000] {
        assert_eq!(kind(&payload, len), corrupt, "{len}");
    }
    for end in 0..payload.len() {
        assert_eq!(kind(&payload[..end], bytes.len()), corrupt, "{end}");
    }
}
