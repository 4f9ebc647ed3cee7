//! Blocks of every dtype and of many kinds of structure, coded at every level on every instruction set: one payload,
//! and back to the same bytes on each.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use alcm::Dtype;
use alcm::stage::{BlockDecoder, BlockEncoder, BlockSource, Coding, Level};
use common::fixtures::{Random, isas};

/// Blocks that are tried; ALCM_TEST_BLOCKS sets another number.
const N_BLOCKS: u64 = 4000;

const LEVELS: [Level; 3] = [Level::Fast, Level::Default, Level::High];

/// A number whose logarithm is about uniform, from 1 to `end` − 1.
fn about(random: &mut Random, end: usize) -> usize {
    let bits = 1 + random.below(end.ilog2() as usize);
    1 + random.below((1 << bits).min(end - 1))
}

/// Elements of `element_bytes`: words of some random shape, with repeats and zeros of both signs among them.
fn structured(random: &mut Random, element_bytes: usize, n_elements: usize) -> Vec<u8> {
    let top = 1_u64 << (8 * element_bytes - 1);
    // Bits that may be set, bits that always are.
    let mask = match random.below(4) {
        0 => u64::MAX,
        1 => u64::MAX << random.below(8 * element_bytes),
        2 => random.word() | random.word(),
        _ => u64::MAX >> random.below(64),
    };
    let always = if random.below(3) == 0 { random.word() & random.word() & random.word() } else { 0 };
    let shift = u32::try_from(random.below(8 * element_bytes)).unwrap();
    let pool: Vec<u64> = (0..about(random, 400)).map(|_| random.word() & mask | always).collect();
    let [one_in_repeats, one_in_zeros, one_in_wild] = [(); 3].map(|()| about(random, 3000));
    let kinds = random.below(8);
    let mut bytes = Vec::new();
    for _ in 0..n_elements {
        // Bell-shaped at `shift`, so that exponents are few.
        let bell = u64::from(random.word().count_ones());
        let mut word = (random.word() >> 8 | bell << 56).rotate_left(shift) & mask | always;
        if kinds & 1 == 0 && random.below(one_in_repeats) == 0 {
            word = pool[random.below(pool.len())];
        }
        if kinds & 2 == 0 && random.below(one_in_zeros) == 0 {
            word = if random.below(5) == 0 { top } else { 0 };
        }
        if kinds & 4 == 0 && random.below(one_in_wild) == 0 {
            word = random.word();
        }
        bytes.extend_from_slice(&word.to_le_bytes()[..element_bytes]);
    }
    bytes
}

#[test]
fn structured_blocks_round_trip() {
    let n_blocks = std::env::var("ALCM_TEST_BLOCKS").map_or(N_BLOCKS, |number| number.parse().unwrap());
    let mut encoders: Vec<Vec<BlockEncoder>> =
        LEVELS.iter().map(|&level| isas().map(|isa| BlockEncoder::new(level, isa)).collect()).collect();
    let mut decoders: Vec<BlockDecoder> = isas().map(BlockDecoder::new).collect();
    let mut seen = BTreeMap::<Coding, u32>::new();
    for seed in 0..n_blocks {
        let mut random = Random::new(seed);
        let dtypes: Vec<_> = Dtype::all().collect();
        let dtype = dtypes[random.below(dtypes.len())];
        // Complex numbers are pairs of floats; the parts have structure of their own.
        let element_bytes = dtype.float_bytes().unwrap_or(dtype.unit_bytes());
        let n_units = match random.below(10) {
            0 => about(&mut random, 300_000 / dtype.unit_bytes()),
            // Tables of records are worth it in longer blocks.
            1..6 if dtype == Dtype::Bytes => 1 + random.below(100_000),
            _ => about(&mut random, 6000),
        };
        let n_elements = n_units * dtype.unit_bytes() / element_bytes;
        let mut bytes = structured(&mut random, element_bytes, n_elements);
        let mut row_len = if random.below(2) == 0 { 0 } else { about(&mut random, 5000) };
        if dtype == Dtype::Bytes && row_len > 0 {
            // Records, whose fields differ.
            row_len = about(&mut random, 100);
            let masks: Vec<u8> =
                (0..row_len).map(|_| (random.word() & random.word()).to_le_bytes()[0]).collect();
            for (byte, mask) in bytes.iter_mut().zip(masks.iter().cycle()) {
                *byte = (*byte ^ random.word().to_le_bytes()[0]) & mask;
            }
        }
        let source = BlockSource { dtype, bytes: &bytes, row_len, row_start: 0 };
        let level = random.below(LEVELS.len());
        let what =
            format!("seed {seed}: {n_units} of {}, rows of {row_len}, {:?}", dtype.name(), LEVELS[level]);
        let mut first: Option<(Coding, Vec<u8>)> = None;
        for encoder in &mut encoders[level] {
            let mut payload = Vec::new();
            let coding = encoder.encode(source, &mut payload);
            assert!(payload.len() <= bytes.len(), "{what}");
            let first = first.get_or_insert_with(|| (coding, payload.clone()));
            assert!(*first == (coding, payload), "{what}: {encoder:?} codes otherwise");
        }
        let (coding, payload) = first.unwrap();
        *seen.entry(coding).or_default() += 1;
        for decoder in &mut decoders {
            let mut decoded = vec![0xa5; bytes.len()];
            let result = decoder.decode(coding, dtype, &payload, &mut decoded);
            assert!(result.is_ok() && decoded == bytes, "{what}: {coding:?} on {decoder:?}: {result:?}");
        }
    }
    // Each coding of single blocks, and none only by chance.
    assert!(n_blocks < N_BLOCKS || seen.len() == 8 && seen.values().all(|&times| times > 10), "{seen:?}");
}
