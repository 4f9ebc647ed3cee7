//! Differences from an earlier block.

use super::*;
use crate::stage::{delta_base, is_near_copy};

/// Codes `bytes` as differences from `base` on every instruction set, checks that they agree and that a decoder gets
/// `bytes` back; the size of the payload.
fn delta_round_trip(dtype: Dtype, bytes: &[u8], base: &[u8]) -> usize {
    let source = BlockSource { dtype, bytes, row_len: 0, row_start: 0 };
    let mut reference: Option<Vec<u8>> = None;
    for isa in isas() {
        let mut payload = vec![0xab];
        let mut encoder = BlockEncoder::new(Level::Default, isa);
        // What was coded before must not show.
        encoder.encode_delta(source, 1, &bytes.iter().map(|byte| !byte).collect::<Vec<_>>(), &mut Vec::new());
        encoder.encode_delta(source, 77, base, &mut payload).unwrap();
        payload.remove(0);
        assert_eq!(delta_base(&payload).unwrap(), 77);
        let reference = reference.get_or_insert_with(|| payload.clone());
        assert!(*reference == payload, "{dtype:?} {isa:?} codes otherwise");
        let mut decoded = base.to_vec();
        BlockDecoder::new(isa).add_delta(dtype, &payload, &mut decoded).unwrap();
        assert!(decoded == bytes, "{dtype:?} {isa:?}");
    }
    reference.map_or(0, |payload| payload.len())
}

/// Elements that are up to `spread` of the step 2^−14 away from those of `base`, whatever their size.
fn moved(dtype: Dtype, base: &[u8], spread: u32, seed: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let step = |rng: &mut ChaCha8Rng| (rng.next_u32() % (2 * spread + 1)) as f32 - spread as f32;
    let mut moved = |bits: u32| (f32::from_bits(bits) + step(&mut rng) / 16384.0).to_bits();
    match dtype {
        Dtype::F32 => {
            base.as_chunks().0.iter().flat_map(|&b| moved(u32::from_le_bytes(b)).to_le_bytes()).collect()
        }
        _ => {
            let wide = |half: [u8; 2]| u32::from(u16::from_le_bytes(half)) << 16;
            base.as_chunks().0.iter().flat_map(|&b| ((moved(wide(b)) >> 16) as u16).to_le_bytes()).collect()
        }
    }
}

#[test]
fn near_copies_take_far_fewer_bytes() {
    for (dtype, n_bytes, most) in [(Dtype::F32, 400_000, 0.55), (Dtype::Bf16, 200_000, 0.4)] {
        let base = weights(dtype, n_bytes, 7, 0);
        let near = moved(dtype, &base, 9, 8);
        let share = delta_round_trip(dtype, &near, &base) as f64 / n_bytes as f64;
        assert!(share < most, "{dtype:?}: {share}");
        assert!(is_near_copy(dtype, &near, &base) && is_near_copy(dtype, &base, &base));
        assert!(!is_near_copy(dtype, &weights(dtype, n_bytes, 9, 0), &base));
        // Of the same elements next to nothing is left.
        assert!(delta_round_trip(dtype, &base, &base) < 400);
    }
}

#[test]
fn a_block_that_is_no_near_copy_is_coded_for_itself() {
    let [base, other] = [3, 4].map(|seed| weights(Dtype::F32, 100_000, seed, 0));
    let source = BlockSource { dtype: Dtype::F32, bytes: &other, row_len: 0, row_start: 0 };
    let (mut own, mut near) = (Vec::new(), Vec::new());
    let mut encoder = BlockEncoder::new(Level::Default, Isa::detect());
    let coding = encoder.encode(source, &mut own);
    assert_eq!(encoder.encode_near(source, (0, &base), 0, &mut near, &mut |_| {}), coding);
    assert_eq!(near, own);
    // Neither can integers be, nor blocks of another size.
    let integers = BlockSource { dtype: Dtype::U32, ..source };
    assert_eq!(encoder.encode_delta(integers, 0, &base, &mut near), None);
    assert_eq!(encoder.encode_delta(source, 0, &base[4..], &mut near), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_elements_come_back(
        base in prop::collection::vec(any::<u32>(), 0..400),
        changes in prop::collection::vec((0usize..400, any::<u32>(), 0u32..32), 0..60),
        shift in -3000i32..3000,
        dtype in prop::sample::select(&[Dtype::F32, Dtype::F16, Dtype::Bf16][..]),
    ) {
        let mut words = base.clone();
        words.iter_mut().for_each(|word| *word = word.wrapping_add_signed(shift));
        for (at, value, n_bits) in changes {
            if let Some(word) = words.get_mut(at) {
                *word ^= value >> n_bits;
            }
        }
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        delta_round_trip(dtype, &bytes(&words), &bytes(&base));
    }
}
