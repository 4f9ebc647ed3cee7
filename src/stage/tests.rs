use super::*;
use crate::container::{crc64, crc64_from};
use crate::error::ErrorKind;
use crate::kernels::convert::from_f32;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

mod delta;
mod nested;
mod rank_one;

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

/// Codes on every instruction set at every level, and checks that payloads are equal and decode to `bytes`.
fn round_trip(dtype: Dtype, bytes: &[u8], row_len: usize) -> Vec<(Coding, usize)> {
    let source = BlockSource { dtype, bytes, row_len, row_start: 0 };
    let mut results = Vec::new();
    for level in [Level::Fast, Level::Default, Level::High] {
        let mut reference: Option<(Coding, Vec<u8>)> = None;
        for isa in isas() {
            let mut payload = vec![0xab];
            let coding = BlockEncoder::new(level, isa).encode(source, &mut payload);
            payload.remove(0);
            assert!(payload.len() <= bytes.len(), "{dtype:?} {level:?} grows");
            let reference = reference.get_or_insert_with(|| (coding, payload.clone()));
            assert!(*reference == (coding, payload), "{dtype:?} {level:?} {isa:?} codes otherwise");
            let mut decoder = BlockDecoder::new(isa);
            for dirt in [0, 0xff] {
                let mut decoded = vec![dirt; bytes.len()];
                let folded = decoder.decode_folded(coding, dtype, &reference.1, &mut decoded).unwrap();
                assert_eq!(crc64_from(&folded, bytes), crc64(bytes));
                assert!(decoded == bytes, "{dtype:?} {level:?} {isa:?} {coding:?}");
            }
        }
        results.push(reference.map(|(coding, payload)| (coding, payload.len())).unwrap());
    }
    results
}

/// `n` bytes that look like weights: Gaussian-like floats of the dtype, scaled by row.
fn weights(dtype: Dtype, n_bytes: usize, seed: u64, zero_in: u32) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bytes = Vec::with_capacity(n_bytes);
    for idx in 0.. {
        if bytes.len() >= n_bytes {
            break;
        }
        let sum: f64 = (0..4).map(|_| f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5).sum();
        let mut value = sum * 0.05 * f64::from(1 + idx / 384 % 9);
        if zero_in > 0 && rng.next_u32() % zero_in == 0 {
            value = if rng.next_u32() % 2 == 0 { 0.0 } else { -0.0 };
        }
        let f32_bits = (value as f32).to_bits();
        match dtype {
            Dtype::F64 => bytes.extend(value.to_bits().to_le_bytes()),
            Dtype::F32 | Dtype::C64 => bytes.extend(f32_bits.to_le_bytes()),
            Dtype::Bf16 | Dtype::F16 => bytes.extend(((f32_bits >> 16) as u16).to_le_bytes()),
            _ => bytes.push((f32_bits >> 20) as u8),
        }
    }
    bytes.truncate(n_bytes / dtype.unit_bytes() * dtype.unit_bytes());
    bytes
}

#[test]
fn weights_of_every_dtype_round_trip() {
    for dtype in Dtype::all() {
        for n_bytes in [8usize, 64, 504, 8 * 1000, 8 * 4133, 300_000] {
            for zero_in in [0, 3] {
                round_trip(dtype, &weights(dtype, n_bytes, 42, zero_in), 384);
            }
        }
    }
}

#[test]
fn what_is_not_random_costs_nothing() {
    let n = 64 << 10;
    let constant = round_trip(Dtype::F32, &1.5f32.to_le_bytes().repeat(n), 0);
    assert!(constant.iter().all(|&result| result == (Coding::Constant, 4)));
    let bf16 = weights(Dtype::Bf16, 2 * n, 1, 0);
    let bf16_len = round_trip(Dtype::Bf16, &bf16, 0)[1].1;
    let widened: Vec<u8> = bf16.chunks(2).flat_map(|half| [0, 0, half[0], half[1]]).collect();
    let widened_len = round_trip(Dtype::F32, &widened, 0)[1].1;
    assert!(widened_len <= bf16_len + 16, "{widened_len} {bf16_len}");
    let positive: Vec<u8> = weights(Dtype::F32, 4 * n, 2, 0)
        .chunks(4)
        .flat_map(|element| [element[0], element[1], element[2], element[3] & 0x7f])
        .collect();
    let signed_len = round_trip(Dtype::F32, &weights(Dtype::F32, 4 * n, 2, 0), 0)[1].1;
    assert!(round_trip(Dtype::F32, &positive, 0)[1].1 + n / 8 <= signed_len + 16);
}

#[test]
fn zeros_cost_only_their_places() {
    let n = 64 << 10;
    let bytes = weights(Dtype::F32, 4 * n, 3, 2);
    for (coding, len) in round_trip(Dtype::F32, &bytes, 0) {
        assert_eq!(coding, Coding::Sparse);
        // Half the elements at up to 27 bits, two bits each for the classes.
        assert!(len * 8 < n / 2 * 27 + 2 * n, "{len}");
    }
}

#[test]
fn random_bytes_are_stored() {
    let mut bytes = vec![0; 1 << 18];
    ChaCha8Rng::seed_from_u64(5).fill_bytes(&mut bytes);
    for dtype in Dtype::all() {
        for (_, len) in round_trip(dtype, &bytes, 0) {
            assert!(len <= bytes.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn arbitrary_elements_round_trip(
        dtype in prop::sample::select(Dtype::all().collect::<Vec<_>>()),
        words in prop::collection::vec(prop_oneof![any::<u64>(), Just(0u64), (0u64..9).prop_map(|x| x << 55)], 1..5000),
        row_len in 0usize..200,
    ) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        round_trip(dtype, &bytes, row_len);
    }
}

#[test]
fn damaged_payloads_never_panic_and_agree_on_every_isa() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for dtype in [Dtype::Bf16, Dtype::F32, Dtype::F8E4m3, Dtype::I64, Dtype::Bytes] {
        for zero_in in [0, 3] {
            let bytes = weights(dtype, 6000, 9, zero_in);
            let mut payload = Vec::new();
            let source = BlockSource { dtype, bytes: &bytes, row_len: 0, row_start: 0 };
            let coding = BlockEncoder::new(Level::Default, Isa::detect()).encode(source, &mut payload);
            for _ in 0..300 {
                let mut damaged = payload.clone();
                let at = rng.next_u32() as usize % damaged.len();
                damaged[at] = rng.next_u32() as u8;
                if rng.next_u32() % 4 == 0 {
                    damaged.truncate(at);
                }
                let results: Vec<_> = isas()
                    .map(|isa| {
                        let mut decoded = vec![0x5a; bytes.len()];
                        let result = BlockDecoder::new(isa).decode(coding, dtype, &damaged, &mut decoded);
                        result.map(|()| decoded).map_err(|error| error.kind())
                    })
                    .collect();
                assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{dtype:?} {coding:?}");
            }
        }
    }
}

/// Found by fuzzing: floats of a complex tensor without its zeros are no whole number of complex elements.
#[test]
fn an_odd_number_of_dense_halves_of_complex_elements_round_trips() {
    for n in [2000usize, 4002, 30_000] {
        // Every third float is zero, the others repeat and make smaller planes than bytes.
        let bits = |i: usize| if i.is_multiple_of(3) { 0 } else { 0x3f80_0001 | (i as u32 * 37 % 211) << 8 };
        let bytes: Vec<u8> = (0..n).flat_map(|i| bits(i).to_le_bytes()).collect();
        round_trip(Dtype::C64, &bytes, 0);
    }
}

#[test]
fn many_numbers_too_small_to_be_normal_are_no_reason_to_store() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let mut bytes = weights(Dtype::F32, 200_000, 9, 0);
    for element in bytes.as_chunks_mut::<4>().0.iter_mut().step_by(5) {
        *element = (rng.next_u32() >> 9 | rng.next_u32() << 31).to_le_bytes();
    }
    for (coding, len) in round_trip(Dtype::F32, &bytes, 0) {
        assert_eq!(coding, Coding::Fields);
        assert!(len < bytes.len() * 9 / 10, "{len} of {}", bytes.len());
    }
}

#[test]
fn exponents_all_over_their_range_are_no_reason_to_store() {
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    let mut bytes = weights(Dtype::F32, 200_000, 11, 0);
    for element in bytes.as_chunks_mut::<4>().0.iter_mut().step_by(2) {
        *element = (rng.next_u32() >> 9 | ((rng.next_u32() % 90) << 23)).to_le_bytes();
    }
    for (coding, len) in round_trip(Dtype::F32, &bytes, 0) {
        assert_eq!(coding, Coding::Fields);
        assert!(len < bytes.len() * 19 / 20, "{len} of {}", bytes.len());
    }
}

#[test]
fn two_scales_in_a_small_block_get_a_table_each() {
    let mut bytes = weights(Dtype::F32, 16 << 10, 23, 0);
    let small = weights(Dtype::F32, 16 << 10, 24, 0);
    // 2^-40 of the first half's scale, as second moments are of first ones.
    bytes.extend(
        small.as_chunks().0.iter().flat_map(|value| (f32::from_le_bytes(*value) / 1e12).to_le_bytes()),
    );
    let [fast, default, high] = round_trip(Dtype::F32, &bytes, 0).try_into().unwrap();
    assert!(default.1 <= fast.1 && high.1 <= default.1 + 16, "{fast:?} {default:?} {high:?}");
}

#[test]
fn columns_of_different_scale_pay_at_every_level() {
    let mut bytes = weights(Dtype::F16, 64 << 10, 31, 0);
    for (idx, element) in bytes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        // Exponents of bf16 in fp16's place, so that only their spread matters.
        let scale = (idx % 64 * 29 % 7) as u16;
        *element = ((u16::from_le_bytes(*element) & 0x83ff) | (8 + 2 * scale) << 10).to_le_bytes();
    }
    for ((_, by_column), (_, by_row)) in
        round_trip(Dtype::F16, &bytes, 64).into_iter().zip(round_trip(Dtype::F16, &bytes, 0))
    {
        // All of the exponent, 2.8 of 16 bits, follows from the column.
        assert!(by_column * 16 < by_row * 15, "{by_column} {by_row}");
    }
}
