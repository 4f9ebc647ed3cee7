//! The header of a quantized payload (FORMAT.md, 3.7), and what it says of how indices become elements.

use super::QuantSpec;
use crate::bits::ByteCursor;
use crate::dtype::Dtype;
use crate::entropy::indices::Dependence;
use crate::kernels::trellis::ChainStates;
use crate::kernels::{Isa, channel_scale, log_domain, quantize, trellis};
use crate::stage::payload::le32;

const FLAG_DEPENDENT: u8 = 1;
const FLAG_LOG2: u8 = 2;
const FLAG_CHANNELS: u8 = 4;
const FLAG_EVEN_SUMS: u8 = 8;

/// What is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Domain {
    /// The element itself.
    #[default]
    Linear,
    /// The base-2 logarithm of a positive element, as suits Adam's second moment; other elements are kept exactly.
    Log2,
}

/// Which values an index may stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Quantizer {
    /// Multiples of the step.
    Uniform,
    /// The same, but of eight at a time those whose sum is an even multiple.
    #[default]
    Lattice,
    /// Even multiples or odd multiples (and 0) of the step, by a state machine of 8 states.
    Trellis,
}

impl Quantizer {
    /// What this tells of indices.
    pub(super) fn dependence(self) -> Dependence {
        match self {
            Self::Uniform => Dependence::None,
            Self::Lattice => Dependence::EvenSums,
            Self::Trellis => Dependence::Chains,
        }
    }
}

/// Steps that differ by channel: element *i* of the tensor is of channel (*i* div `inner_len`) mod the number of
/// channels, and its step is the common one times the channel's multiplier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSteps {
    /// Elements that stand together and share a channel; at least 1.
    pub inner_len: usize,
    /// The upper half of the bits of an `f32` for each channel, positive and normal.
    pub multipliers: Vec<u16>,
}

impl ChannelSteps {
    /// The largest multiplier that the format can hold and that is not above `multiplier`.
    #[must_use]
    pub fn multiplier_bits(multiplier: f32) -> u16 {
        let [_, _, low, high] = multiplier.clamp(f32::MIN_POSITIVE, f32::MAX).to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    fn value(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    /// Multiplier of channel `channel_idx`, 1 for one that does not exist.
    #[must_use]
    pub fn multiplier(&self, channel_idx: usize) -> f32 {
        self.multipliers.get(channel_idx).map_or(1.0, |bits| Self::value(*bits))
    }

    /// Multiplier of the tensor's element `element_idx`.
    #[must_use]
    pub fn multiplier_of(&self, element_idx: u64) -> f32 {
        let channel = element_idx / self.inner_len.max(1) as u64 % self.multipliers.len().max(1) as u64;
        self.multiplier(usize::try_from(channel).unwrap_or(usize::MAX))
    }

    /// What a block needs of this tensor: the channels that its `n_elements` elements from `first_element` on run
    /// through, in that order, and how many elements of the first channel's run lie before the block. `None` where all of them
    /// have the common step, as most blocks of a tensor have in which few channels have not.
    fn of_block(&self, first_element: u64, n_elements: usize) -> Option<BlockChannels> {
        let inner = self.inner_len.max(1) as u64;
        let skipped = usize::try_from(first_element % inner).unwrap_or(0);
        let n_channels = self.multipliers.len().max(1);
        let first = usize::try_from(first_element / inner % n_channels as u64).unwrap_or(0);
        let n_runs = (skipped + n_elements).div_ceil(self.inner_len.max(1));
        let listed = n_runs.min(n_channels);
        let multipliers: Vec<u16> = round_from(&self.multipliers, first).take(listed).copied().collect();
        let has_own = multipliers.iter().any(|bits| Self::value(*bits) != 1.0);
        has_own.then_some(BlockChannels { inner_len: self.inner_len.max(1), skipped, multipliers })
    }
}

/// `items` again and again, from number `first` on.
fn round_from<T>(items: &[T], first: usize) -> impl Iterator<Item = &T> {
    let (before, from) = items.split_at(first.min(items.len()));
    from.iter().chain(before).cycle()
}

/// The channels of one block: element *i* is of the listed channel ((`skipped` + *i*) div `inner_len`) mod their
/// number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockChannels {
    inner_len: usize,
    skipped: usize,
    multipliers: Vec<u16>,
}

impl BlockChannels {
    /// The multipliers of the elements from `from` on.
    pub(super) fn fill(&self, from: usize, dst: &mut [f32]) {
        let at = self.skipped + from;
        let mut channels = round_from(&self.multipliers, at / self.inner_len % self.multipliers.len());
        let mut rest = dst;
        let mut run_len = self.inner_len - at % self.inner_len;
        while !rest.is_empty() {
            let (run, later) = rest.split_at_mut(run_len.min(rest.len()));
            run.fill(channels.next().map_or(1.0, |bits| ChannelSteps::value(*bits)));
            rest = later;
            run_len = self.inner_len;
        }
    }
}

/// What is common to encoder and decoder of a block.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Header {
    dtype: Dtype,
    pub(super) step: f32,
    pub(super) domain: Domain,
    pub(super) quantizer: Quantizer,
    pub(super) channels: Option<BlockChannels>,
}

/// The parts of a payload behind its header.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    pub(super) dtype: Dtype,
    pub(super) codec_id: u8,
    pub(super) escapes: &'a [u8],
    pub(super) section: &'a [u8],
}

/// Float types that can be quantized; the place is the id in the payload.
const DTYPES: [Dtype; 4] = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F64];

impl Header {
    pub(super) fn of_block(spec: &QuantSpec, dtype: Dtype, first_element: u64, n_elements: usize) -> Self {
        Self {
            dtype,
            step: spec.step,
            domain: spec.domain,
            quantizer: spec.quantizer(),
            channels: spec
                .channels
                .as_ref()
                .and_then(|channels| channels.of_block(first_element, n_elements)),
        }
    }

    /// Appends the header; `None` for a dtype that cannot be quantized.
    pub(super) fn write(&self, n_escapes: usize, codec_id: u8, dst: &mut Vec<u8>) -> Option<()> {
        let dtype_id = DTYPES.iter().position(|dtype| *dtype == self.dtype)?;
        let mut flags = 0;
        for (is_set, flag) in [
            (self.quantizer == Quantizer::Trellis, FLAG_DEPENDENT),
            (self.quantizer == Quantizer::Lattice, FLAG_EVEN_SUMS),
            (self.domain == Domain::Log2, FLAG_LOG2),
            (self.channels.is_some(), FLAG_CHANNELS),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        dst.extend([dtype_id.to_le_bytes()[0], flags, codec_id, 0]);
        dst.extend(self.step.to_le_bytes());
        dst.extend(le32(n_escapes));
        if let Some(channels) = &self.channels {
            dst.extend(le32(channels.inner_len));
            dst.extend(le32(channels.skipped));
            dst.extend(le32(channels.multipliers.len()));
            channels.multipliers.iter().for_each(|bits| dst.extend(bits.to_le_bytes()));
        }
        Some(())
    }

    /// Reads the header of a block of `block_bytes`.
    pub(super) fn read(payload: &[u8], block_bytes: usize) -> Option<(Self, Opened<'_>)> {
        let mut src = ByteCursor::new(payload);
        let [dtype_id, flags, codec_id, 0] = src.array::<4>()? else { return None };
        let dtype = *DTYPES.get(usize::from(dtype_id))?;
        let step = f32::from_bits(src.u32()?);
        let n_escapes = usize::try_from(src.u32()?).ok()?;
        let n_elements = block_bytes / dtype.unit_bytes();
        let is_valid = flags & !(FLAG_DEPENDENT | FLAG_LOG2 | FLAG_CHANNELS | FLAG_EVEN_SUMS) == 0
            && flags & (FLAG_DEPENDENT | FLAG_EVEN_SUMS) != FLAG_DEPENDENT | FLAG_EVEN_SUMS
            && flags & (FLAG_LOG2 | FLAG_CHANNELS) != FLAG_LOG2 | FLAG_CHANNELS
            && step.is_finite()
            && step > 0.0
            && block_bytes.is_multiple_of(dtype.unit_bytes())
            && n_escapes <= n_elements;
        if !is_valid {
            return None;
        }
        let channels =
            if flags & FLAG_CHANNELS == 0 { None } else { Some(Self::read_channels(&mut src, n_elements)?) };
        let escapes = src.take(n_escapes * dtype.unit_bytes())?;
        let header = Self {
            dtype,
            step,
            domain: if flags & FLAG_LOG2 == 0 { Domain::Linear } else { Domain::Log2 },
            quantizer: match flags & (FLAG_DEPENDENT | FLAG_EVEN_SUMS) {
                0 => Quantizer::Uniform,
                FLAG_EVEN_SUMS => Quantizer::Lattice,
                _ => Quantizer::Trellis,
            },
            channels,
        };
        Some((header, Opened { dtype, codec_id, escapes, section: src.rest() }))
    }

    fn read_channels(src: &mut ByteCursor<'_>, n_elements: usize) -> Option<BlockChannels> {
        let mut size = || src.u32().and_then(|size| usize::try_from(size).ok());
        let (inner_len, skipped, n_channels) = (size()?, size()?, size()?);
        if skipped >= inner_len || !(1..=n_elements).contains(&n_channels) {
            return None;
        }
        let bits = src.take(2 * n_channels)?.as_chunks::<2>().0;
        let multipliers: Vec<u16> = bits.iter().map(|bits| u16::from_le_bytes(*bits)).collect();
        // Positive and normal.
        multipliers.iter().all(|bits| (0x80..0x7f80).contains(bits)).then_some(BlockChannels {
            inner_len,
            skipped,
            multipliers,
        })
    }

    /// Whether elements are multiples of the step and nothing else, each by itself.
    pub(super) fn is_plain(&self) -> bool {
        self.quantizer != Quantizer::Trellis && self.domain == Domain::Linear && self.channels.is_none()
    }

    /// What `indices` stand for in the domain that was quantized. `chains` are the states of dependent quantization's chains
    /// before and then after them.
    pub(super) fn dequantize(&self, isa: Isa, indices: &[i32], chains: &mut ChainStates, values: &mut [f32]) {
        match self.quantizer {
            Quantizer::Uniform | Quantizer::Lattice => quantize::dequantize(isa, indices, self.step, values),
            Quantizer::Trellis => trellis::dequantize(isa, indices, self.step, chains, values),
        }
    }

    /// From the domain that was quantized to elements, for a tile of the block from element `from` on.
    pub(super) fn leave_domain(
        &self,
        isa: Isa,
        from: usize,
        multipliers: &mut [f32],
        logs: &mut [f32],
        values: &mut [f32],
    ) {
        if self.domain == Domain::Log2 {
            let logs = &mut logs[..values.len()];
            logs.copy_from_slice(values);
            log_domain::exp2(isa, logs, values);
        }
        if let Some(channels) = &self.channels {
            let multipliers = &mut multipliers[..values.len()];
            channels.fill(from, multipliers);
            channel_scale::multiply(isa, values, multipliers);
        }
    }
}
