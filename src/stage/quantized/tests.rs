use super::*;
use crate::entropy::indices::Dependence;
use crate::quantize::rdo::{LATTICE_LAMBDA, TRELLIS_LAMBDA, Tuner, UNIFORM_LAMBDA};
use crate::stage::{BlockDecoder, BlockEncoder, Coding, Level};

/// Numbers with the bulk of a normal distribution, seeded; a few of them special.
fn values(n: usize, special: bool) -> Vec<f32> {
    let mut state = 7u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let mut values: Vec<f32> = (0..n).map(|_| (uniform() + uniform() + uniform() - 1.5) * 0.04).collect();
    if special {
        for (place, value) in
            [f32::NAN, f32::INFINITY, -0.0, 1e-41, f32::MAX, f32::NEG_INFINITY, 0.0].iter().enumerate()
        {
            if let Some(slot) = values.get_mut(place * 37 + 5) {
                *slot = *value;
            }
        }
    }
    values
}

fn bytes_of(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * dtype.unit_bytes()];
    convert::from_f32(Isa::Scalar, dtype, values, &mut bytes).unwrap();
    bytes
}

fn spec(step: f32, trellis: bool, sample: &[f32]) -> QuantSpec {
    let mut tuner = Tuner::default();
    let choice = if trellis {
        Choice::Trellis(tuner.costs(Isa::Scalar, sample, step, TRELLIS_LAMBDA))
    } else {
        Choice::Rounded(tuner.thresholds(Isa::Scalar, sample, step, UNIFORM_LAMBDA))
    };
    QuantSpec {
        step,
        domain: Domain::Linear,
        channels: None,
        prune_below: 0.0,
        row_lens: Vec::new(),
        choice,
        backend: IndexBackend::Rans,
    }
}

/// Encodes on every instruction set, checks that all give the same and that each decodes to the reconstruction.
fn round_trip(
    spec: &QuantSpec,
    dtype: Dtype,
    first_element: u64,
    bytes: &[u8],
) -> (Coding, BlockLoss, Vec<u8>) {
    let mut first: Option<(Coding, BlockLoss, Vec<u8>, Vec<u8>)> = None;
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        let (mut rebuilt, mut payload) = (bytes.to_vec(), Vec::new());
        let (coding, loss) = BlockEncoder::new(Level::Default, isa).encode_quantized(
            spec,
            dtype,
            first_element,
            &mut rebuilt,
            &mut payload,
        );
        assert!(payload.len() <= bytes.len());
        let mut decoded = vec![0xcc; bytes.len()];
        BlockDecoder::new(isa).decode(coding, dtype, &payload, &mut decoded).unwrap();
        assert!(decoded == rebuilt, "{isa:?} {dtype:?}");
        match &first {
            None => first = Some((coding, loss, rebuilt, payload)),
            Some(first) => assert!(*first == (coding, loss, rebuilt, payload), "{isa:?} {dtype:?}"),
        }
    }
    let (coding, loss, rebuilt, payload) = first.unwrap();
    assert_eq!(
        crate::kernels::quantize::measure(Isa::Scalar, dtype, bytes, &rebuilt).unwrap().max_abs,
        loss.errors.max_abs
    );
    (coding, loss, payload)
}

#[test]
fn every_dtype_quantizer_and_backend_comes_back_on_every_isa() {
    let sample = values(20_011, true);
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F64] {
        let bytes = bytes_of(dtype, &sample);
        for trellis in [false, true] {
            for backend in
                [IndexBackend::Rans, IndexBackend::Deflate, IndexBackend::Zstd, IndexBackend::Adaptive]
            {
                let spec = QuantSpec { backend, ..spec(0.002, trellis, &sample) };
                let (coding, loss, payload) = round_trip(&spec, dtype, 0, &bytes);
                assert_eq!(coding, Coding::Quantized);
                assert!(loss.escapes >= 4 && loss.escapes < 20, "{loss:?}");
                assert!(payload.len() < 20_011, "{} bytes", payload.len());
                // Finite elements stay within one step, which is half the distance of a trellis' points.
                assert!(loss.errors.max_abs <= 0.0041, "{loss:?}");
            }
        }
    }
}

/// The lattice of 512 elements a sheet, in whole and partial sheets and tiles, with and without raw low bits and columns of
/// different scale.
#[test]
fn the_lattice_comes_back_on_every_isa_and_saves_bits() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for (n, step) in [(511, 0.002), (512, 0.002), (5000, 0.0001), (20_011, 0.01), (140_000, 0.002)] {
            let mut sample = values(n, true);
            sample.iter_mut().step_by(3).for_each(|x| *x /= 8.0);
            let bytes = bytes_of(dtype, &sample);
            let plain = QuantSpec { row_lens: vec![3], ..spec(step, false, &sample) };
            let lattice = Tuner::default().lattice(Isa::Scalar, &sample, step, LATTICE_LAMBDA);
            assert_eq!(matches!(lattice, Rounding::EvenSums(_)), n >= 512);
            let (Rounding::EvenSums(table) | Rounding::Thresholds(table)) = lattice else {
                panic!("a table")
            };
            let lattice = Rounding::EvenSums(table);
            let lattice = QuantSpec { choice: Choice::Rounded(lattice), ..plain.clone() };
            assert_eq!(lattice.quantizer(), Quantizer::Lattice);
            let (coding, loss, payload) = round_trip(&lattice, dtype, 0, &bytes);
            let (_, plain_loss, plain_payload) = round_trip(&plain, dtype, 0, &bytes);
            assert_eq!((coding, loss.escapes), (Coding::Quantized, plain_loss.escapes));
            assert!(loss.errors.max_abs <= 1.01 * f64::from(step) || dtype != Dtype::F32, "{loss:?}");
            // A twelfth more error, and an eighth of a bit.
            let more_error = loss.errors.error_sq / plain_loss.errors.error_sq;
            assert!(n < 512 || (1.0..1.15).contains(&more_error), "{n} {more_error}");
            let saved = 8.0 * (plain_payload.len() as f64 - payload.len() as f64) / n as f64;
            assert!(n < 5000 || saved > 0.06, "{n} {step}: {saved} bits");
        }
    }
}

#[test]
fn channels_have_steps_of_their_own_wherever_a_block_begins() {
    let sample = values(3000, false);
    let (inner_len, n_channels) = (7, 11);
    let scale = |channel: usize| 2f32.powi(i32::try_from(channel).unwrap() - 5);
    for first_element in [0usize, 3, 7, 70, 76, 77, 1000] {
        let channel_of = |place: usize| (first_element + place) / inner_len % n_channels;
        let scaled: Vec<f32> = sample.iter().enumerate().map(|(i, x)| x * scale(channel_of(i))).collect();
        let bytes = bytes_of(Dtype::F32, &scaled);
        let multipliers =
            (0..n_channels).map(|channel| ChannelSteps::multiplier_bits(scale(channel))).collect();
        let spec = QuantSpec {
            channels: Some(ChannelSteps { inner_len, multipliers }),
            choice: Choice::Rounded(Rounding::Nearest),
            ..spec(0.004, false, &sample)
        };
        let (coding, loss, _) = round_trip(&spec, Dtype::F32, first_element as u64, &bytes);
        assert_eq!(coding, Coding::Quantized);
        assert!(loss.max_scaled > 0.0018 && loss.max_scaled <= 0.00201, "{loss:?}");
    }
}

#[test]
fn blocks_whose_channels_all_have_the_common_step_list_none() {
    let values = values(3000, false);
    let bytes = bytes_of(Dtype::F32, &values);
    for trellis in [false, true] {
        let plain = spec(0.002, trellis, &values);
        let mut multipliers = vec![ChannelSteps::multiplier_bits(1.0); 60];
        multipliers[35] = ChannelSteps::multiplier_bits(0.5);
        let with_channels =
            QuantSpec { channels: Some(ChannelSteps { inner_len: 100, multipliers }), ..plain.clone() };
        let expected = round_trip(&plain, Dtype::F32, 0, &bytes);
        assert!(round_trip(&with_channels, Dtype::F32, 0, &bytes) == expected);
        // The next block has the one that differs.
        assert!(round_trip(&with_channels, Dtype::F32, 3000, &bytes).2 != expected.2);
    }
}

#[test]
fn logarithms_keep_zeros_signs_and_relative_size() {
    let mut sample: Vec<f32> = values(9000, false).iter().map(|x| x * x * 1e-6).collect();
    sample.iter_mut().step_by(9).for_each(|x| *x = 0.0);
    sample[77] = -1.5;
    sample[1234] = f32::NAN;
    let bytes = bytes_of(Dtype::F32, &sample);
    let spec = QuantSpec { domain: Domain::Log2, ..spec(0.25, false, &[1.0; 64]) };
    let mut rebuilt = bytes.clone();
    let mut payload = Vec::new();
    let (coding, loss) = BlockEncoder::new(Level::Default, Isa::detect()).encode_quantized(
        &spec,
        Dtype::F32,
        0,
        &mut rebuilt,
        &mut payload,
    );
    assert_eq!(coding, Coding::Sparse);
    assert_eq!(loss.errors.n_zeroed, 0);
    round_trip(&spec, Dtype::F32, 0, &bytes);
    let mut decoded = vec![0.0; sample.len()];
    convert::to_f32(Isa::Scalar, Dtype::F32, &rebuilt, &mut decoded).unwrap();
    for (x, back) in sample.iter().zip(&decoded) {
        if *x > 0.0 {
            assert!((back / x).log2().abs() <= 0.2501, "{x} {back}");
        } else {
            assert_eq!(x.to_bits(), back.to_bits());
        }
    }
}

#[test]
fn nothing_finite_becomes_infinite() {
    let wave = |i: usize| (i as f32 * 0.37).sin() * 1.7;
    for (dtype, largest) in [(Dtype::F16, 65504.0), (Dtype::Bf16, 3.38e38), (Dtype::F32, f32::MAX)] {
        let values: Vec<f32> = (0..6000).map(|i| (wave(i).clamp(-1.0, 1.0)) * largest).collect();
        let bytes = bytes_of(dtype, &values);
        for (share, trellis) in [(0.3, false), (0.07, false), (0.01, false), (0.07, true), (0.01, true)] {
            let linear = spec(share * largest, trellis, &values);
            let multipliers = vec![ChannelSteps::multiplier_bits(0.3), ChannelSteps::multiplier_bits(2.5)];
            let channels = Some(ChannelSteps { inner_len: 100, multipliers });
            let log = QuantSpec { domain: Domain::Log2, step: 10.0 * share, ..linear.clone() };
            for spec in [QuantSpec { channels, ..linear.clone() }, linear, log] {
                // Measured on what a decoder gives; of anything infinite the error would be.
                let (_, loss, _) = round_trip(&spec, dtype, 0, &bytes);
                assert!(loss.errors.max_abs.is_finite(), "{dtype:?} {spec:?}");
                assert!(loss.escapes < 6000, "{dtype:?} {spec:?}");
            }
        }
    }
}

#[test]
fn what_becomes_constant_or_does_not_shrink_is_coded_otherwise() {
    let sample = values(5000, false);
    let bytes = bytes_of(Dtype::Bf16, &sample);
    // Everything is zero at so large a step.
    let (coding, loss, payload) = round_trip(&spec(10.0, false, &sample), Dtype::Bf16, 0, &bytes);
    assert_eq!((coding, payload.len(), loss.zeros), (Coding::Constant, 2, 5000));
    // Indices at so small a step are larger than the elements.
    let (coding, loss, _) = round_trip(&spec(1e-7, false, &sample), Dtype::Bf16, 0, &bytes);
    assert_ne!(coding, Coding::Quantized);
    assert!(loss.errors.max_abs < 1e-3);
    for n in [1, 2, 31, 33] {
        let _ =
            round_trip(&spec(0.001, n % 2 == 0, &sample), Dtype::F32, 0, &bytes_of(Dtype::F32, &sample[..n]));
    }
}

#[test]
fn small_elements_are_pruned_before_quantizing() {
    let sample = values(5000, false);
    let bytes = bytes_of(Dtype::F32, &sample);
    let kept = spec(0.001, false, &sample);
    let pruned = QuantSpec { prune_below: 0.01, ..kept.clone() };
    let (_, loss, payload) = round_trip(&pruned, Dtype::F32, 0, &bytes);
    let (_, fewer, larger) = round_trip(&kept, Dtype::F32, 0, &bytes);
    let small = sample.iter().filter(|x| x.abs() < 0.01).count() as u64;
    assert!(loss.zeros >= small && fewer.zeros < small / 4);
    assert!(payload.len() < larger.len());
}

#[test]
fn broken_payloads_are_refused_or_decode_to_something() {
    let sample = values(700, true);
    let bytes = bytes_of(Dtype::F32, &sample);
    let channels = ChannelSteps { inner_len: 10, multipliers: vec![ChannelSteps::multiplier_bits(0.5); 7] };
    let plain = spec(0.003, false, &sample);
    let specs = [
        plain.clone(),
        spec(0.003, true, &sample),
        QuantSpec { channels: Some(channels), ..plain.clone() },
        QuantSpec { backend: IndexBackend::Deflate, ..plain.clone() },
        QuantSpec { backend: IndexBackend::Zstd, ..plain },
    ];
    for spec in specs {
        let (coding, _, payload) = round_trip(&spec, Dtype::F32, 0, &bytes);
        assert_eq!(coding, Coding::Quantized);
        let mut decoder = BlockDecoder::new(Isa::detect());
        let mut dst = vec![0; bytes.len()];
        for end in 0..payload.len() {
            assert!(decoder.decode(coding, Dtype::F32, &payload[..end], &mut dst).is_err(), "{end}");
        }
        for place in 0..payload.len() {
            for value in [0, 0xff, payload[place] ^ 1, payload[place] ^ 0x80] {
                let mut broken = payload.clone();
                broken[place] = value;
                // The checksum of the decoded bytes tells; here nothing may panic.
                let _ = decoder.decode(coding, Dtype::F32, &broken, &mut dst);
            }
        }
    }
}

#[test]
fn headers_with_unknown_flags_or_two_that_exclude_each_other_are_refused() {
    let sample = values(700, true);
    let (_, _, payload) =
        round_trip(&spec(0.003, false, &sample), Dtype::F32, 0, &bytes_of(Dtype::F32, &sample));
    let read = |flags: u8| {
        let mut changed = payload.clone();
        changed[1] = flags;
        Header::read(&changed, 4 * sample.len()).map(|(header, _)| (header.quantizer, header.domain))
    };
    assert_eq!(read(0), Some((Quantizer::Uniform, Domain::Linear)));
    assert_eq!(read(1), Some((Quantizer::Trellis, Domain::Linear)));
    assert_eq!(read(8), Some((Quantizer::Lattice, Domain::Linear)));
    assert_eq!(read(2 | 8), Some((Quantizer::Lattice, Domain::Log2)));
    // Dependent and even sums; logarithms with steps by channel; what no version has.
    for flags in [1 | 8, 2 | 4, 1 | 2 | 8, 16, 128 | 8] {
        assert_eq!(read(flags), None, "{flags}");
    }
}

#[test]
fn a_codec_of_the_callers_own_is_used_by_its_id() {
    struct Plain;
    impl IndexCodec for Plain {
        fn wire_id(&self) -> u8 {
            FIRST_PRIVATE_ID + 3
        }
        fn encode(
            &mut self,
            _: Isa,
            indices: &[i32],
            _: Dependence,
            _: &[usize],
            dst: &mut Vec<u8>,
        ) -> Option<()> {
            indices
                .iter()
                .try_for_each(|index| i8::try_from(*index).ok().map(|index| dst.extend(index.to_le_bytes())))
        }
        fn decode(&mut self, _: Isa, section: &[u8], _: Dependence, indices: &mut [i32]) -> Option<()> {
            (section.len() == indices.len()).then_some(())?;
            indices.iter_mut().zip(section).for_each(|(index, byte)| *index = i32::from(byte.cast_signed()));
            Some(())
        }
    }
    let sample = values(500, false);
    let bytes = bytes_of(Dtype::F32, &sample);
    let (mut rebuilt, mut payload) = (bytes.clone(), Vec::new());
    let mut encoder = BlockEncoder::new(Level::Default, Isa::detect());
    encoder.set_index_codec(Box::new(Plain));
    let spec = spec(0.002, false, &sample);
    let (coding, _) = encoder.encode_quantized(&spec, Dtype::F32, 0, &mut rebuilt, &mut payload);
    assert_eq!(coding, Coding::Quantized);
    let mut decoder = BlockDecoder::new(Isa::detect());
    let mut decoded = vec![0; bytes.len()];
    assert!(
        decoder.decode(coding, Dtype::F32, &payload, &mut decoded).is_err(),
        "the codec is not known yet"
    );
    decoder.set_index_codec(Box::new(Plain));
    decoder.decode(coding, Dtype::F32, &payload, &mut decoded).unwrap();
    assert_eq!(decoded, rebuilt);
}
