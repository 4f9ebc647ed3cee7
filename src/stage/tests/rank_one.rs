//! Matrices that are divided by factors of rows and columns.

use super::*;

/// Positive elements of `n_rows` rows of `row_len`, of which the first begins with element `row_start`.
fn matrix(dtype: Dtype, row_len: usize, n_rows: usize, row_start: usize, seed: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let uniform = |rng: &mut ChaCha8Rng| f64::from(rng.next_u32()) / f64::from(u32::MAX);
    let mut factors = |n: usize| -> Vec<f64> { (0..n).map(|_| 6.0 * uniform(&mut rng) - 6.0).collect() };
    let (columns, rows) = (factors(row_len), factors(n_rows));
    let mut bytes = Vec::new();
    for place in row_start..n_rows * row_len {
        let noise: f64 = (0..4).map(|_| uniform(&mut rng) - 0.5).sum();
        let value = (columns[place % row_len] + rows[place / row_len] + 0.7 * noise).exp2() as f32;
        match dtype {
            Dtype::Bf16 => bytes.extend(((value.to_bits() >> 16) as u16).to_le_bytes()),
            _ => bytes.extend(value.to_le_bytes()),
        }
    }
    bytes
}

/// Codes and decodes on every instruction set; how it was coded and in how many bytes at the default level.
fn matrix_round_trip(dtype: Dtype, bytes: &[u8], row_len: usize, row_start: usize) -> (Coding, usize) {
    let source = BlockSource { dtype, bytes, row_len, row_start };
    let mut first: Option<(Coding, Vec<u8>)> = None;
    for isa in isas() {
        let mut payload = Vec::new();
        let coding = BlockEncoder::new(Level::Default, isa).encode(source, &mut payload);
        let first = first.get_or_insert_with(|| (coding, payload.clone()));
        assert!(*first == (coding, payload), "{isa:?} codes otherwise");
        let mut decoded = vec![0xcc; bytes.len()];
        BlockDecoder::new(isa).decode(coding, dtype, &first.1, &mut decoded).unwrap();
        assert!(decoded == bytes, "{dtype:?} {isa:?} {row_len} {row_start}");
    }
    first.map(|(coding, payload)| (coding, payload.len())).unwrap()
}

#[test]
fn scales_of_rows_and_columns_are_taken_out() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for (row_len, n_rows, row_start) in [(300, 400, 0), (300, 400, 123), (64, 2000, 63), (2000, 60, 1)] {
            let bytes = matrix(dtype, row_len, n_rows, row_start, 51);
            let (coding, len) = matrix_round_trip(dtype, &bytes, row_len, row_start);
            assert_eq!(coding, Coding::RankOne, "{dtype:?} {row_len}");
            // Rows that are said to begin elsewhere tell less.
            let (_, other) = matrix_round_trip(dtype, &bytes, row_len, (row_start + row_len / 2) % row_len);
            let (_, none) = matrix_round_trip(dtype, &bytes, 0, 0);
            assert!(len * 100 < none * 97 && len < other, "{dtype:?} {row_len}: {len}, {other}, {none}");
        }
    }
}

#[test]
fn what_is_no_such_matrix_is_coded_otherwise() {
    let bytes = matrix(Dtype::F32, 200, 200, 0, 52);
    let mut signed = bytes.clone();
    signed.iter_mut().skip(3).step_by(12).for_each(|top| *top |= 0x80);
    assert_ne!(matrix_round_trip(Dtype::F32, &signed, 200, 0).0, Coding::RankOne);
    let weights = weights(Dtype::F32, 160_000, 53, 0);
    let positive: Vec<u8> = weights.chunks(4).flat_map(|w| [w[0], w[1], w[2], w[3] & 0x7f]).collect();
    assert_ne!(matrix_round_trip(Dtype::F32, &positive, 0, 0).0, Coding::RankOne);
    // Strange elements among the others, a sign that no sample sees, rows and columns of all lengths.
    for (at, bits) in
        [(0, 0x7f80_0000_u32), (77, 0x7fff_ffff), (19_999, 0xffff_ffff), (20_100, 0), (39_999, 1 << 31)]
    {
        let mut bytes = bytes.clone();
        bytes[4 * at..][..4].copy_from_slice(&bits.to_le_bytes());
        matrix_round_trip(Dtype::F32, &bytes, 200, 0);
    }
    for row_len in [1, 7, 8, 9, 4443, 4444, 4445, 39_999, 40_000, 50_000, usize::MAX] {
        for row_start in [0, 1, row_len - 1, row_len] {
            matrix_round_trip(Dtype::F32, &bytes, row_len, row_start);
        }
    }
}

#[test]
fn matrices_that_break_the_format_are_refused() {
    let bytes = matrix(Dtype::F32, 200, 200, 50, 54);
    let source = BlockSource { dtype: Dtype::F32, bytes: &bytes, row_len: 200, row_start: 50 };
    let mut payload = Vec::new();
    let coding = BlockEncoder::new(Level::Default, Isa::detect()).encode(source, &mut payload);
    assert_eq!(coding, Coding::RankOne);
    let kind = |dtype, payload: &[u8], len: usize| {
        let decoder = &mut BlockDecoder::new(Isa::detect());
        decoder.decode(Coding::RankOne, dtype, payload, &mut vec![0; len]).map_err(|e| e.kind())
    };
    assert_eq!(kind(Dtype::F32, &payload, bytes.len()), Ok(()));
    let corrupt = Err(ErrorKind::Corrupt);
    let with = |at: usize, part: &[u8]| [&payload[..at], part, &payload[at + part.len()..]].concat();
    for row_len in [0u32, 50, 199, 201, 39_951, u32::MAX] {
        assert_eq!(kind(Dtype::F32, &with(0, &row_len.to_le_bytes()), bytes.len()), corrupt, "{row_len}");
    }
    for header in [
        with(4, &[200]),
        with(4, &[0xff; 4]),
        with(8, &[15]),
        with(9, &[15]),
        with(10, &[1]),
        with(12, &[0xff; 4]),
    ] {
        assert_eq!(kind(Dtype::F32, &header, bytes.len()), corrupt);
    }
    for dtype in [Dtype::Bf16, Dtype::U32, Dtype::F64, Dtype::Bytes] {
        assert_eq!(kind(dtype, &payload, bytes.len()), corrupt, "{dtype:?}");
    }
    for len in [0, 4, bytes.len() - 8000, bytes.len() + 8000] {
        assert_eq!(kind(Dtype::F32, &payload, len), corrupt, "{len}");
    }
    for end in 0..payload.len().min(3000) {
        assert_eq!(kind(Dtype::F32, &payload[..end], bytes.len()), corrupt, "{end}");
    }
}
