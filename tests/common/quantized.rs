//! Fixtures of quantized blocks.

use alcm::Dtype;
use alcm::kernels::quantize::{ROW_LEN, Rounding, SHEET_LEN};
use alcm::kernels::trellis::{Costs, NEXT_STATE};
use alcm::stage::{ChannelSteps, Choice, Coding, Domain, IndexBackend, QuantSpec};

use super::fixtures::{Fixture, Random, f32_block, fixture};

/// Steps of the channels of `quantized-channels`: 1, 2 and 4 times the common one, five elements each.
const CHANNEL_LEN: usize = 5;

/// Columns of `quantized-columns`; every fourth is of larger scale.
const COLUMNS: usize = 12;

/// How the fixture `name` is quantized.
pub(crate) fn quant_spec(name: &str) -> QuantSpec {
    let plain = QuantSpec {
        step: 1.0 / 256.0,
        domain: Domain::Linear,
        channels: None,
        prune_below: 0.0,
        row_lens: Vec::new(),
        choice: Choice::Rounded(Rounding::Nearest),
        backend: IndexBackend::Rans,
    };
    let multipliers = [1.0, 2.0, 4.0].map(ChannelSteps::multiplier_bits).to_vec();
    let lattice = QuantSpec { choice: Choice::Rounded(Rounding::EvenSums([0.5; 32])), ..plain.clone() };
    match name {
        "quantized-trellis" => QuantSpec { choice: Choice::Trellis(Costs::FREE), ..plain },
        "quantized-channels" => {
            QuantSpec { channels: Some(ChannelSteps { inner_len: CHANNEL_LEN, multipliers }), ..plain }
        }
        "quantized-lattice" | "quantized-lattice-fine" => lattice,
        "quantized-lattice-columns" => QuantSpec { row_lens: vec![COLUMNS], ..lattice },
        "quantized-columns" => QuantSpec { row_lens: vec![COLUMNS], ..plain },
        "quantized-columns-trellis" => {
            QuantSpec { row_lens: vec![COLUMNS], choice: Choice::Trellis(Costs::FREE), ..plain }
        }
        "quantized-log" => QuantSpec { step: 1.0, domain: Domain::Log2, ..plain },
        "quantized-deflate" => QuantSpec { backend: IndexBackend::Deflate, ..plain },
        "quantized-zstd" => QuantSpec { backend: IndexBackend::Zstd, ..plain },
        _ => plain,
    }
}

/// Blocks that are multiples of a step, so that quantizing leaves them as they are; some with elements that have no
/// index.
pub(crate) fn quantized_fixtures() -> Vec<Fixture> {
    let index = |random: &mut Random| (random.bell() * 40.0) as i64 as f32;
    let plain = |random: &mut Random| (index(random) / 256.0).to_bits();
    let special = |idx: usize, random: &mut Random| match idx % 211 {
        7 => f32::NAN.to_bits() | idx as u32,
        90 => f32::NEG_INFINITY.to_bits(),
        _ => plain(random),
    };
    let channel = |idx: usize, random: &mut Random| {
        // The block begins three elements into its tensor.
        let multiplier = (1 << ((idx + 3) / CHANNEL_LEN % 3)) as f32;
        (index(random) / 256.0 * multiplier).to_bits()
    };
    let column = |idx: usize, random: &mut Random| {
        let scale = if idx.is_multiple_of(4) { 60.0 } else { 3.0 };
        ((random.bell() * scale) as i64 as f32 / 256.0).to_bits()
    };
    // What a decoder of dependent quantization gives for random indices.
    let dependent = |n: usize, seed: u64, scale: fn(usize) -> f64| {
        let mut states = [0; 32];
        let mut random = Random::new(seed);
        let mut bytes = Vec::new();
        for place in 0..n {
            let (k, state) = ((random.bell() * scale(place)) as i64 as f32, &mut states[place % 32]);
            let value = (2.0 * k - if *state % 2 == 1 && k != 0.0 { k.signum() } else { 0.0 }) / 256.0;
            bytes.extend(value.to_le_bytes());
            *state = NEXT_STATE[usize::from(*state)][usize::from(k % 2.0 != 0.0)];
        }
        bytes
    };
    // What lies on the lattice: the last of each column makes its sum even.
    let even = |n: usize, seed: u64, scale: fn(usize) -> f64| {
        let mut random = Random::new(seed);
        let mut indices: Vec<i64> = (0..n).map(|place| (random.bell() * scale(place)) as i64).collect();
        for sheet in indices.as_chunks_mut::<SHEET_LEN>().0 {
            for column in 0..ROW_LEN {
                let sum: i64 = sheet.iter().skip(column).step_by(ROW_LEN).sum();
                sheet[SHEET_LEN - ROW_LEN + column] += sum.rem_euclid(2);
            }
        }
        indices.iter().flat_map(|&k| (k as f32 / 256.0).to_le_bytes()).collect::<Vec<u8>>()
    };
    let by_column = |idx: usize| if idx.is_multiple_of(4) { 60.0 } else { 3.0 };
    let power = |_: usize, random: &mut Random| ((90 + random.below(20)) as u32) << 23;
    let fixture = |name, bytes| fixture(name, Dtype::F32, Coding::Quantized, bytes);
    vec![
        fixture("quantized-uniform", f32_block(700, 30, special)),
        fixture("quantized-trellis", dependent(700, 31, |_| 40.0)),
        fixture("quantized-channels", f32_block(400, 32, channel)),
        fixture("quantized-log", f32_block(400, 33, power)),
        fixture("quantized-deflate", f32_block(300, 34, special)),
        fixture("quantized-zstd", f32_block(300, 35, special)),
        fixture("quantized-columns", f32_block(2000, 36, column)),
        fixture("quantized-columns-trellis", dependent(2000, 37, by_column)),
        fixture("quantized-lattice", even(1500, 38, |_| 3.0)),
        fixture("quantized-lattice-fine", even(1200, 39, |_| 900.0)),
        fixture("quantized-lattice-columns", even(2100, 40, by_column)),
    ]
}
