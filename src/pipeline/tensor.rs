//! One small tensor to a frame of its own and back, exactly or within a goal.
//!
//! An archive has 230 bytes around its blocks, and tables are made for a million elements: too much for 40 KB. A frame
//! (FORMAT.md, section 6) has about 20, and its payload is coded without tables where that is smaller. It holds at
//! most one block, [`MAX_BLOCK_BYTES`](crate::limits::MAX_BLOCK_BYTES).
//!
//! The frame has one CRC, over what is stored. Decoding is a function of these bytes alone, the same on every
//! instruction set, and [`compress_tensor`] decodes each frame before it gives it away: a second CRC, over the elements,
//! would find nothing that these do not.

use super::timings::{Step, Timings};
use crate::container::{TensorFrame, tensor_bytes};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::quantize::{ErrorSums, Rounding, measure};
use crate::kernels::{Isa, convert};
use crate::quantize::rdo::{LATTICE_LAMBDA, TRELLIS_LAMBDA, Tuner, UNIFORM_LAMBDA};
use crate::stage::{
    BlockDecoder, BlockEncoder, BlockQuantizer, BlockSource, Choice, Coding, Domain, IndexBackend, Level,
    QuantRun, QuantSpec, Quantizer,
};

/// A tensor in memory.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Lengths of its dimensions, the slowest first.
    pub shape: &'a [u64],
    /// The elements, little-endian, in C order.
    pub bytes: &'a [u8],
}

/// What may become of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TensorMode {
    /// Every bit is kept.
    Exact,
    /// −0.0 becomes +0.0 in F64, F32, F16 and BF16, which no comparison of values notices; all else is kept.
    FoldNegativeZeros,
    /// Elements change, within the goal; where it cannot be met every bit is kept.
    Lossy(TensorGoal, Quantizer),
}

/// What a lossy tensor has to keep to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TensorGoal {
    /// Largest |x − x̂| of any element.
    MaxAbsError(f64),
    /// ‖x − x̂‖₂ ÷ ‖x‖₂.
    RelL2(f64),
    /// Bytes of the elements ÷ bytes of the frame: at least this, with as little error as that allows.
    Ratio(f64),
}

/// A frame and what making it has cost.
#[derive(Debug, Clone, PartialEq)]
pub struct CompressedTensor {
    /// The frame.
    pub frame: Vec<u8>,
    /// Errors of the elements that it decodes to.
    pub errors: ErrorSums,
    /// Whether it decodes to the tensor's own bits.
    pub is_exact: bool,
}

/// A tensor from a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecompressedTensor {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Lengths of its dimensions, the slowest first.
    pub shape: Vec<u64>,
    /// The elements, little-endian, in C order.
    pub bytes: Vec<u8>,
    /// Whether they are those of the tensor that was compressed, bit for bit.
    pub is_exact: bool,
}

/// A relative error this close to its goal is not improved further.
const CLOSE: f64 = 0.9995;
/// So is a size.
const CLOSE_SIZE: f64 = 0.999;
/// Most steps tried.
const MAX_TRIALS: usize = 10;

/// Compresses a tensor of at most one block. The same tensor and mode give the same bytes on every instruction set.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] where bytes and shape do not agree, [`ErrorKind::LimitExceeded`] for a tensor that is too
/// large, [`ErrorKind::InvalidConfig`] for a goal that is not positive and finite.
pub fn compress_tensor(isa: Isa, tensor: Tensor<'_>, mode: TensorMode) -> Result<CompressedTensor> {
    compress_tensor_timed(isa, tensor, mode, &mut Timings::default())
}

/// As [`compress_tensor`], its time booked on the stages of lossy coding ([`Timings::stages`]), of which a tensor by itself
/// is never pruned: converting and scaling are statistics, thresholds and costs of indices prediction, each step that is
/// tried quantization, and all else backend. Decoding what was made is booked on [`Step::Decode`].
///
/// # Errors
/// As [`compress_tensor`].
pub fn compress_tensor_timed(
    isa: Isa,
    tensor: Tensor<'_>,
    mode: TensorMode,
    timings: &mut Timings,
) -> Result<CompressedTensor> {
    let expected = tensor_bytes(tensor.dtype, tensor.shape)?;
    if tensor.bytes.len() != expected {
        let message = format!(
            "{} bytes for a tensor of shape {:?} and dtype {}, which has {expected}",
            tensor.bytes.len(),
            tensor.shape,
            tensor.dtype.name()
        );
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let framer = Framer { isa, tensor };
    let made = match mode {
        TensorMode::Exact => None,
        TensorMode::FoldNegativeZeros => Some(timings.time(Step::Backend, || framer.fold_zeros())),
        TensorMode::Lossy(goal, quantizer) => framer.quantize(goal, quantizer, timings)?,
    };
    // A reconstruction that takes more than the tensor itself is worth nothing.
    let exact = || framer.encode(tensor.bytes.to_vec());
    let encoded = match made {
        Some(made) if made.bytes != tensor.bytes => made,
        _ => timings.time(Step::Backend, exact),
    };
    timings.time(Step::Decode, || framer.finish(encoded))
}

/// The tensor of a frame.
///
/// # Errors
/// What is wrong with the frame; see [`TensorFrame::parse`].
pub fn decompress_tensor(isa: Isa, frame: &[u8]) -> Result<DecompressedTensor> {
    let TensorFrame { dtype, coding, is_exact, shape, payload } = TensorFrame::parse(frame)?;
    let mut bytes = vec![0; tensor_bytes(dtype, &shape)?];
    BlockDecoder::new(isa).decode(coding, dtype, payload, &mut bytes)?;
    Ok(DecompressedTensor { dtype, shape, bytes, is_exact })
}

/// Elements and their payload.
struct Encoded {
    bytes: Vec<u8>,
    coding: Coding,
    payload: Vec<u8>,
}

struct Framer<'a> {
    isa: Isa,
    tensor: Tensor<'a>,
}

impl Framer<'_> {
    /// Encodes elements in place of the tensor's.
    fn encode(&self, bytes: Vec<u8>) -> Encoded {
        let mut payload = Vec::new();
        let row_len = self.tensor.shape.iter().rev().find(|length| **length > 1);
        let row_len = row_len.and_then(|length| usize::try_from(*length).ok()).unwrap_or(0);
        let source = BlockSource { dtype: self.tensor.dtype, bytes: &bytes, row_len, row_start: 0 };
        let coding =
            BlockEncoder::new(Level::High, self.isa).encode_small(source, 0, &mut payload, &mut |_| {});
        Encoded { bytes, coding, payload }
    }

    fn to_frame(&self, encoded: &Encoded) -> Vec<u8> {
        TensorFrame {
            dtype: self.tensor.dtype,
            coding: encoded.coding,
            is_exact: encoded.bytes == self.tensor.bytes,
            shape: self.tensor.shape.to_vec(),
            payload: &encoded.payload,
        }
        .to_bytes()
    }

    /// Frames `encoded`, decodes it, and measures it.
    fn finish(&self, encoded: Encoded) -> Result<CompressedTensor> {
        let frame = self.to_frame(&encoded);
        let decoded = decompress_tensor(self.isa, &frame)?;
        if decoded.bytes != encoded.bytes {
            return Err(Error::new(ErrorKind::Internal, "the tensor does not decode to what was encoded"));
        }
        let errors = measure(self.isa, self.tensor.dtype, self.tensor.bytes, &decoded.bytes);
        Ok(CompressedTensor { frame, errors: errors.unwrap_or_default(), is_exact: decoded.is_exact })
    }

    fn fold_zeros(&self) -> Encoded {
        let mut bytes = self.tensor.bytes.to_vec();
        if convert::is_convertible(self.tensor.dtype) {
            for element in bytes.chunks_exact_mut(self.tensor.dtype.unit_bytes()) {
                if let [magnitude @ .., 0x80] = element
                    && magnitude.iter().all(|byte| *byte == 0)
                {
                    element.fill(0);
                }
            }
        }
        self.encode(bytes)
    }

    /// The elements quantized as coarsely, or as finely, as the goal allows; `None` where no step meets it.
    fn quantize(
        &self,
        goal: TensorGoal,
        quantizer: Quantizer,
        timings: &mut Timings,
    ) -> Result<Option<Encoded>> {
        let (TensorGoal::MaxAbsError(value) | TensorGoal::RelL2(value) | TensorGoal::Ratio(value)) = goal;
        if !(value.is_finite() && value > 0.0) {
            let message = format!("a goal of {value}, allowed are finite values above 0");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let mut values = vec![0.0; self.tensor.bytes.len() / self.tensor.dtype.unit_bytes()];
        let convert = || convert::to_f32(self.isa, self.tensor.dtype, self.tensor.bytes, &mut values);
        if timings.time(Step::Statistics, convert).is_none() {
            return Ok(None);
        }
        let mut search = Search { framer: self, values, quantizer, tuner: Tuner::default(), timings };
        Ok(match goal {
            TensorGoal::MaxAbsError(bound) => search.max_abs_error(bound),
            TensorGoal::RelL2(goal) => search.rel_l2(goal),
            TensorGoal::Ratio(ratio) => search.ratio(ratio),
        })
    }
}

/// The search for the step of a tensor.
struct Search<'a> {
    framer: &'a Framer<'a>,
    values: Vec<f32>,
    quantizer: Quantizer,
    tuner: Tuner,
    timings: &'a mut Timings,
}

impl Search<'_> {
    /// How elements are quantized at `step`; `None` for one that cannot be.
    fn spec(&mut self, step: f64) -> Option<QuantSpec> {
        #[expect(clippy::cast_possible_truncation, reason = "rounded; what it gives is measured")]
        let step = step as f32;
        let Self { values, quantizer, tuner, timings, .. } = self;
        let isa = self.framer.isa;
        let choose = || match quantizer {
            Quantizer::Uniform => Choice::Rounded(tuner.thresholds(isa, values, step, UNIFORM_LAMBDA)),
            Quantizer::Lattice => Choice::Rounded(tuner.lattice(isa, values, step, LATTICE_LAMBDA)),
            Quantizer::Trellis => Choice::Trellis(tuner.costs(isa, values, step, TRELLIS_LAMBDA)),
        };
        step.is_normal().then(|| QuantSpec {
            step,
            domain: Domain::Linear,
            channels: None,
            prune_below: 0.0,
            row_lens: Vec::new(),
            choice: timings.time(Step::Prediction, choose),
            backend: IndexBackend::Adaptive,
        })
    }

    /// The errors of `spec`.
    fn errors(&mut self, spec: &QuantSpec) -> ErrorSums {
        let Tensor { dtype, bytes, .. } = self.framer.tensor;
        let isa = self.framer.isa;
        let apply = || BlockQuantizer::default().apply(isa, spec, dtype, 0, &mut bytes.to_vec());
        self.timings.time(Step::Quantization, apply).errors
    }

    /// The elements quantized by `spec`, their indices stored in whichever way is smaller.
    fn encode(&mut self, spec: &QuantSpec) -> Encoded {
        let Tensor { dtype, bytes, .. } = self.framer.tensor;
        let mut encode = |backend| {
            let spec = QuantSpec { backend, ..spec.clone() };
            let (mut bytes, mut payload) = (bytes.to_vec(), Vec::new());
            let mut encoder = BlockEncoder::new(Level::High, self.framer.isa);
            let run = QuantRun { spec: &spec, dtype, first_element: 0 };
            let (coding, _) = self
                .timings
                .time_parts(|enter| encoder.encode_quantized_watched(run, &mut bytes, &mut payload, enter));
            Encoded { bytes, coding, payload }
        };
        let (adaptive, rans) = (encode(IndexBackend::Adaptive), encode(IndexBackend::Rans));
        if rans.payload.len() < adaptive.payload.len() { rans } else { adaptive }
    }

    /// Root mean square of the finite elements.
    fn scale(&mut self) -> f64 {
        let Self { values, timings, .. } = self;
        timings.time(Step::Statistics, || root_mean_square(values))
    }

    /// Steps of twice the bound, each element to the nearest point; less where rounding to the dtype breaks the bound.
    fn max_abs_error(&mut self, bound: f64) -> Option<Encoded> {
        for share in [2.0, 1.999, 1.0, 0.5] {
            self.quantizer = Quantizer::Uniform;
            let spec = QuantSpec { choice: Choice::Rounded(Rounding::Nearest), ..self.spec(share * bound)? };
            if self.errors(&spec).max_abs <= bound {
                return Some(self.encode(&spec));
            }
        }
        None
    }

    /// Errors are nearly proportional to steps.
    fn rel_l2(&mut self, goal: f64) -> Option<Encoded> {
        let mut step = goal * self.scale() * 12f64.sqrt();
        let mut best: Option<QuantSpec> = None;
        for _ in 0..MAX_TRIALS {
            let Some(spec) = self.spec(step) else { break };
            let found = self.errors(&spec).relative_l2();
            if found <= goal && best.as_ref().is_none_or(|best| best.step < spec.step) {
                best = Some(spec);
                if found >= CLOSE * goal {
                    break;
                }
            }
            let aim = goal * (1.0 + CLOSE) / 2.0;
            step *= if found > 0.0 { (aim / found).clamp(0.25, 4.0) } else { 4.0 };
        }
        best.map(|spec| self.encode(&spec))
    }

    /// An octave of the step is a bit for each element that is not zero.
    fn ratio(&mut self, ratio: f64) -> Option<Encoded> {
        let goal_bytes = self.framer.tensor.bytes.len() as f64 / ratio;
        let n_elements = self.values.len().max(1) as f64;
        // log2 of steps with too many and with few enough bytes.
        let (mut finer, mut coarser) = (f64::NEG_INFINITY, f64::INFINITY);
        let mut at = (self.scale() * 0.05).log2();
        let mut best = None;
        for _ in 0..MAX_TRIALS {
            let Some(spec) = self.spec(at.exp2()) else { break };
            let encoded = self.encode(&spec);
            let n_bytes = self.framer.to_frame(&encoded).len() as f64;
            let fits = n_bytes <= goal_bytes;
            if fits {
                (best, coarser) = (Some(encoded), at);
                if n_bytes >= CLOSE_SIZE * goal_bytes {
                    break;
                }
            } else {
                finer = at;
            }
            let aim = goal_bytes * (1.0 + CLOSE_SIZE) / 2.0;
            let next = at + 8.0 * (n_bytes - aim) / n_elements;
            let is_within = next > finer && next < coarser;
            at = if is_within { next } else { (finer + coarser) / 2.0 };
        }
        best
    }
}

/// Of the finite values.
fn root_mean_square(values: &[f32]) -> f64 {
    let finite = values.iter().filter(|x| x.is_finite());
    let (n, sum) =
        finite.fold((0u32, 0.0), |(n, sum), &x| (n.saturating_add(1), sum + f64::from(x) * f64::from(x)));
    (sum / f64::from(n.max(1))).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn isas() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.available())
    }

    /// Compresses on every instruction set and checks that all agree and come back.
    fn round_trip(tensor: Tensor<'_>, mode: TensorMode) -> (CompressedTensor, DecompressedTensor) {
        let made = compress_tensor(Isa::Scalar, tensor, mode).unwrap();
        let back = decompress_tensor(Isa::Scalar, &made.frame).unwrap();
        for isa in isas() {
            assert_eq!(compress_tensor(isa, tensor, mode).unwrap(), made, "{isa:?}");
            assert_eq!(decompress_tensor(isa, &made.frame).unwrap(), back, "{isa:?}");
        }
        assert_eq!((back.dtype, &back.shape[..]), (tensor.dtype, tensor.shape));
        assert_eq!(back.is_exact, back.bytes == tensor.bytes);
        (made, back)
    }

    #[test]
    fn shapes_and_dtypes_come_back() {
        for dtype in Dtype::all() {
            for shape in [&[][..], &[0], &[1], &[2, 3], &[5, 0, 7], &[40, 50], &[1, 1, 16]] {
                let n_elements: u64 = shape.iter().product();
                let Ok(len) = tensor_bytes(dtype, shape) else {
                    assert!(dtype == Dtype::F4 && n_elements % 2 == 1);
                    continue;
                };
                let bytes: Vec<u8> = (0..len).map(|i| (i * i % 251) as u8).collect();
                let tensor = Tensor { dtype, shape, bytes: &bytes };
                let (made, back) = round_trip(tensor, TensorMode::Exact);
                assert!(back.bytes == bytes && made.frame.len() <= len + 25, "{dtype:?} {shape:?}");
                let short = Tensor { bytes: &[&bytes[..], &[0]].concat(), ..tensor };
                let error = compress_tensor(Isa::Scalar, short, TensorMode::Exact).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
            }
        }
        let large = Tensor { dtype: Dtype::U8, shape: &[5 << 20], bytes: &[] };
        let error = compress_tensor(Isa::Scalar, large, TensorMode::Exact).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn negative_zeros_are_folded_and_nothing_else_changes() {
        let bytes = bytes_of(&[0.0, -0.0, -1.0, f32::from_bits(0x8000_0001), f32::NAN, -0.0]);
        let tensor = Tensor { dtype: Dtype::F32, shape: &[6], bytes: &bytes };
        let (made, back) = round_trip(tensor, TensorMode::FoldNegativeZeros);
        let expected = bytes_of(&[0.0, 0.0, -1.0, f32::from_bits(0x8000_0001), f32::NAN, 0.0]);
        assert!(back.bytes == expected && !made.is_exact && made.errors.error_sq == 0.0);
        let tensor = Tensor { bytes: &expected, ..tensor };
        assert!(round_trip(tensor, TensorMode::FoldNegativeZeros).0.is_exact);
    }

    #[test]
    fn bad_goals_are_refused() {
        let tensor = Tensor { dtype: Dtype::F32, shape: &[1], bytes: &[0; 4] };
        for goal in [TensorGoal::RelL2(0.0), TensorGoal::MaxAbsError(f64::NAN), TensorGoal::Ratio(-1.0)] {
            let mode = TensorMode::Lossy(goal, Quantizer::Uniform);
            let error = compress_tensor(Isa::Scalar, tensor, mode).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        }
    }

    fn any_values() -> impl Strategy<Value = Vec<f32>> {
        let special =
            prop_oneof![any::<f32>(), Just(0.0), Just(-0.0), Just(f32::INFINITY), Just(f32::MIN_POSITIVE)];
        prop_oneof![
            prop::collection::vec(-3f32..3.0, 0..300),
            prop::collection::vec(prop_oneof![6 => -1f32..1.0, 1 => special], 0..300),
            prop::collection::vec(Just(2.5f32), 0..40),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn goals_hold_and_damage_is_refused(
            values in any_values(),
            goal in prop_oneof![
                (1e-6f64..0.5).prop_map(TensorGoal::MaxAbsError),
                (1e-5f64..0.5).prop_map(TensorGoal::RelL2),
                (1f64..20.0).prop_map(TensorGoal::Ratio),
            ],
            trellis in any::<bool>(),
            flip in any::<prop::sample::Index>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = bytes_of(&values);
            let shape = [values.len() as u64];
            let tensor = Tensor { dtype: Dtype::F32, shape: &shape, bytes: &bytes };
            let quantizer = if trellis { Quantizer::Trellis } else { Quantizer::Uniform };
            let (made, back) = round_trip(tensor, TensorMode::Lossy(goal, quantizer));
            let errors = measure(Isa::Scalar, Dtype::F32, &bytes, &back.bytes).unwrap();
            prop_assert_eq!(errors, made.errors);
            let holds = match goal {
                TensorGoal::MaxAbsError(bound) => errors.max_abs <= bound,
                TensorGoal::RelL2(goal) => errors.relative_l2() <= goal,
                TensorGoal::Ratio(ratio) => {
                    made.is_exact || made.frame.len() as f64 * ratio <= bytes.len() as f64
                }
            };
            prop_assert!(holds, "{goal:?}: {errors:?}");
            let mut damaged = made.frame.clone();
            let bit = flip.index(8 * damaged.len());
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decompress_tensor(Isa::detect(), &damaged).is_err());
            prop_assert!(decompress_tensor(Isa::detect(), &made.frame[..cut.index(made.frame.len())]).is_err());
        }

        /// Payloads that nobody encoded, in a frame whose checksum is right.
        #[test]
        fn any_payload_is_decoded_or_refused(
            payload in prop::collection::vec(any::<u8>(), 0..200),
            n_elements in 50u64..3000,
            dtype in prop::sample::select(Dtype::all().collect::<Vec<_>>()),
            coding in prop::sample::select(Coding::all().filter(|c| *c != Coding::Reference).collect::<Vec<_>>()),
        ) {
            let shape = vec![2 * n_elements];
            let frame = TensorFrame { dtype, coding, is_exact: true, shape, payload: &payload }.to_bytes();
            let verdicts: Vec<_> = isas().map(|isa| decompress_tensor(isa, &frame).ok()).collect();
            prop_assert!(verdicts.windows(2).all(|pair| pair[0] == pair[1]));
        }
    }
}
