//! What tensors take at a step, as counted rather than predicted.
//!
//! A model knows moments and octaves of units, not which thresholds their tensor will have, which of them will share a
//! table, how many low bits stay raw, and what lists of channels take. All that can be counted: of a short tensor
//! everything; of longer ones samples of some blocks, made up for what the scales of the sampled units differ from
//! those of all, and whole blocks, which say how far samples are: two of them, or more where the halves of samples differ.
//! That differs little from one step to the next, so that whole blocks are counted once, near the step that is looked for,
//! and little from one layer of a network to the next, so that of tensors alike few are.
//! Nothing is coded but tensors that are no longer than a sample.

use rayon::prelude::*;

use super::method::Method;
use super::rate;
use super::settings::LossySettings;
use super::survey::{Scale, Survey, UNIT_LEN};
use super::tensor_source::{RUN_LEN, SAMPLE_LEN, TensorSource, spread};
use crate::checkpoint::BlockSpan;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::convert;
use crate::pipeline::timings::Step;
use crate::stage::{BlockEncoder, ChannelSteps, Level, QuantRun, QuantSpec};

/// Most blocks of a tensor that are sampled: few do not stand for the others, as the first and last rows of an embedding
/// are of other tokens than the rest.
const MAX_SAMPLED_BLOCKS: usize = 16;
/// Runs of all samples of a tensor together. Twice as many do not bring rates closer.
const N_RUNS: u64 = 256;
/// Most runs of the sample of a block.
const MAX_RUNS: u64 = 32;
/// Standard error of what samples say of whole blocks, as a share of their bits, up to which two of them are counted.
const MAX_NOISE: f64 = 0.006;

/// What samples fall short of whole blocks by is taken to stay the same for fewer octaves of the step the more it is: as a share
/// of all bits, times octaves, at most this.
const MAX_DRIFT: f64 = 0.005;

/// Bits an element by which the sample of a block takes more than its scales say.
#[derive(Debug, Clone, Copy)]
struct Excess {
    bits: f64,
    /// Square of its standard error, by how its halves differ.
    noise_sq: f64,
}

/// What counting has told of a tensor so far, so that nothing is counted twice.
#[derive(Debug, Default)]
pub(super) struct Known {
    last: Option<Last>,
    anchor: Option<Anchor>,
}

/// What the tensor takes at the last step that was asked for.
#[derive(Debug)]
struct Last {
    step: f64,
    /// How it is quantized then.
    spec: QuantSpec,
    /// By its samples, or of a short tensor by all.
    bits: f64,
    /// Of each block that was sampled; none of a short tensor.
    excesses: Vec<Excess>,
}

/// By how many bits samples fall short of whole blocks.
#[derive(Debug)]
struct Anchor {
    step: f64,
    bits: f64,
}

impl Known {
    /// How the tensor is quantized at `step`, if that is what was asked for last.
    pub(super) fn spec(&self, step: f64) -> Option<&QuantSpec> {
        self.last.as_ref().filter(|last| last.step == step).map(|last| &last.spec)
    }

    /// What whole blocks take more than samples say, as a share of the latter; `None` where nothing was left to samples.
    pub(super) fn short_share(&self) -> Option<f64> {
        let last = self.last.as_ref().filter(|last| !last.excesses.is_empty())?;
        Some(self.anchor.as_ref()?.bits / last.bits)
    }

    /// Takes whole blocks to take this share more than the last samples say.
    pub(super) fn assume(&mut self, short_share: f64) {
        if let Some(last) = &self.last {
            self.anchor = Some(Anchor { step: last.step, bits: short_share * last.bits });
        }
    }

    /// Whether what was last said, of `step`, rests on whole blocks, counted at most `reach` octaves away.
    pub(super) fn is_anchored(&self, step: f64, reach: f64) -> bool {
        let Some(last) = self.last.as_ref().filter(|last| last.step == step) else { return false };
        let is_near = |anchor: &Anchor| {
            let octaves = (step / anchor.step).log2().abs();
            octaves <= reach && octaves * anchor.bits.abs() <= MAX_DRIFT * last.bits
        };
        last.excesses.is_empty() || self.anchor.as_ref().is_some_and(is_near)
    }
}

/// A tensor that is looked at, and how it is quantized.
struct Look<'a> {
    spec: &'a QuantSpec,
    rough: RoughBits,
    sampled: Vec<BlockSpan>,
}

impl TensorSource<'_> {
    /// Bits that the tensor takes by `method` at the common `step`, everything included, by what can be counted, and what
    /// the scales of `survey` say of the rest: by samples, made up for what whole blocks were found to take more at another
    /// step. These are counted anew where that is further than `reach` octaves away, if there is one.
    pub(super) fn stored_bits(
        &self,
        settings: &LossySettings,
        (survey, method): (&Survey, Method),
        step: f64,
        known: &mut Known,
        reach: Option<f64>,
    ) -> Result<f64> {
        let to_anchor = reach.is_some_and(|reach| !known.is_anchored(step, reach));
        let is_last = known.last.as_ref().is_some_and(|last| last.step == step);
        if !is_last || to_anchor {
            let spec = match known.spec(step) {
                Some(spec) => spec.clone(),
                None => self.rate_spec(settings, (method, survey.channels.as_ref()), step)?,
            };
            if self.n_elements() <= SAMPLE_LEN {
                let bits = self.counted_bits(&spec)?;
                known.last = Some(Last { step, spec, bits, excesses: Vec::new() });
            } else {
                let rough = self.rough_bits(survey, method, &spec);
                let look = Look { spec: &spec, rough, sampled: self.sampled_spans() };
                if !is_last {
                    known.last = Some(self.look_at_samples(&look, step)?);
                }
                if let (true, Some(last)) = (to_anchor, &known.last) {
                    let bits = self.whole_less_samples(&look, last)?;
                    known.anchor = Some(Anchor { step, bits });
                }
            }
        }
        let of_samples = known.last.as_ref().map_or(0.0, |last| last.bits);
        Ok(of_samples + known.anchor.as_ref().map_or(0.0, |anchor| anchor.bits))
    }

    /// The blocks that are sampled.
    fn sampled_spans(&self) -> Vec<BlockSpan> {
        let spans = self.spans();
        let n_sampled = spans.len().min(MAX_SAMPLED_BLOCKS);
        let spread = (0..n_sampled).map(|idx| (2 * idx + 1) * spans.len() / (2 * n_sampled));
        spread.filter_map(|idx| spans.get(idx).copied()).collect()
    }

    fn look_at_samples(&self, look: &Look<'_>, step: f64) -> Result<Last> {
        let max_runs = (N_RUNS / look.sampled.len().max(1) as u64).min(MAX_RUNS);
        let excesses: Vec<Result<Excess>> = look
            .sampled
            .par_iter()
            .with_max_len(1)
            .map(|span| self.excess_of_sample(look.spec, &look.rough, (span, max_runs)))
            .collect();
        let excesses = excesses.into_iter().collect::<Result<Vec<_>>>()?;
        let weighted = |(excess, span): (&Excess, &BlockSpan)| excess.bits * span.len as f64;
        let n_bytes: usize = look.sampled.iter().map(|span| span.len).sum();
        let excess = excesses.iter().zip(&look.sampled).map(weighted).sum::<f64>() / n_bytes as f64;
        let everywhere = (0..self.n_elements()).step_by(UNIT_LEN);
        let bits = (look.rough.mean(everywhere) + excess) * self.n_elements() as f64;
        Ok(Last { step, spec: look.spec.clone(), bits, excesses })
    }

    /// Bits that the tensor takes more than samples say, by some of their blocks.
    fn whole_less_samples(&self, look: &Look<'_>, last: &Last) -> Result<f64> {
        let (Look { spec, rough, sampled }, excesses) = (look, &last.excesses);
        // What samples say of blocks is as noisy as their halves are, and the noise of few blocks would count for all.
        let noise_sq = excesses.iter().map(|excess| excess.noise_sq).sum::<f64>() / sampled.len() as f64;
        let most_noise = MAX_NOISE * last.bits / self.n_elements() as f64;
        let asked = noise_sq / (most_noise * most_noise) * 2.0;
        let n_counted = (2..sampled.len()).find(|&n| n as f64 >= asked).unwrap_or(sampled.len());
        // Evenly spread.
        let counted: Vec<usize> =
            (0..n_counted).map(|idx| (2 * idx + 1) * sampled.len() / (2 * n_counted)).collect();
        let short_of = |&idx: &usize| -> Result<f64> {
            let (span, by_sample) = (&sampled[idx], excesses[idx].bits);
            let n_elements = span.len as u64 / self.unit_bytes();
            let first = self.first_element(span);
            let within = (first..first + n_elements).step_by(UNIT_LEN);
            let short = self.block_bits(span, spec)? / n_elements as f64 - rough.mean(within) - by_sample;
            Ok(short * span.len as f64)
        };
        let short: Vec<Result<f64>> = counted.par_iter().with_max_len(1).map(short_of).collect();
        let counted_bytes: usize = counted.iter().map(|&idx| sampled[idx].len).sum();
        let short = short.into_iter().sum::<Result<f64>>()? / counted_bytes as f64;
        Ok(short * self.n_elements() as f64)
    }

    /// What scales say of all units, quantized by `spec`; nothing where there are none.
    fn rough_bits(&self, survey: &Survey, method: Method, spec: &QuantSpec) -> RoughBits {
        let step = f64::from(spec.step);
        let bits = |(unit_idx, scale): (usize, &Scale)| {
            let multiplier_of =
                |channels: &ChannelSteps| channels.multiplier_of((unit_idx * UNIT_LEN) as u64);
            let multiplier = spec.channels.as_ref().map_or(1.0, multiplier_of);
            scale.rough_bits(method, step * f64::from(multiplier))
        };
        let of_units = self.time(Step::Prediction, || survey.scales.iter().enumerate().map(bits).collect());
        RoughBits { of_units }
    }

    /// Bits that the tensor takes quantized by `spec`, everything counted.
    pub(super) fn counted_bits(&self, spec: &QuantSpec) -> Result<f64> {
        let blocks: Vec<Result<f64>> =
            self.spans().par_iter().with_max_len(1).map(|span| self.block_bits(span, spec)).collect();
        // In order, so that the sum does not depend on the threads.
        blocks.into_iter().sum()
    }

    /// Bits of the record of the block at `span`, quantized by `spec`.
    fn block_bits(&self, span: &BlockSpan, spec: &QuantSpec) -> Result<f64> {
        let mut bytes = self.memory.buffer(span.len);
        self.time(Step::Read, || self.source.read(span.offset, &mut bytes))?;
        let run = QuantRun { spec, dtype: self.candidate.dtype, first_element: self.first_element(span) };
        let mut encoder = self.memory.trial_encoders.take(|| BlockEncoder::new(Level::Default, self.ctx.isa));
        let bits = self.time(Step::Prediction, || {
            if self.n_elements() <= SAMPLE_LEN {
                // What is around symbols weighs: it is written to know how much.
                let mut payload = Vec::new();
                encoder.encode_quantized_watched(run, &mut bytes, &mut payload, &mut |_| {});
                8.0 * payload.len() as f64
            } else {
                encoder.planned_quantized(run, &mut bytes)
            }
        });
        self.memory.trial_encoders.put(encoder);
        self.memory.give_back(bytes);
        Ok(bits + 8.0 * rate::RECORD_BYTES as f64)
    }

    /// By how much a sample of the block at `span`, quantized by `spec`, takes more than its scales say.
    fn excess_of_sample(
        &self,
        spec: &QuantSpec,
        rough: &RoughBits,
        (span, max_runs): (&BlockSpan, u64),
    ) -> Result<Excess> {
        let first = self.first_element(span);
        let n_elements = span.len as u64 / self.unit_bytes();
        let n_runs = (n_elements / RUN_LEN).clamp(1, max_runs);
        // In two halves, each from all over the block.
        let starts: Vec<u64> = (0..n_runs)
            .step_by(2)
            .chain((1..n_runs).step_by(2))
            .map(|idx| first + spread(idx, n_runs, n_elements, RUN_LEN))
            .collect();
        let mut bytes = self
            .memory
            .buffer(usize::try_from(n_runs * RUN_LEN.min(n_elements) * self.unit_bytes()).unwrap_or(0));
        let run_bytes = bytes.len() / starts.len().max(1);
        self.time(Step::Read, || {
            let mut runs = starts.iter().zip(bytes.chunks_mut(run_bytes.max(1)));
            runs.try_for_each(|(start, run)| {
                self.source.read(self.candidate.info.start + start * self.unit_bytes(), run)
            })
        })?;
        let half = starts.len().div_ceil(2);
        let halves: Vec<f64> = self.time(Step::Prediction, || {
            let halves = starts.chunks(half).zip(bytes.chunks_mut((half * run_bytes).max(1)));
            let excess = |(starts, sample): (&[u64], &mut [u8])| {
                let n_sampled = (sample.len() / self.candidate.dtype.unit_bytes()) as f64;
                self.estimated_bits(spec, starts, sample) / n_sampled - rough.mean(starts.iter().copied())
            };
            halves.map(excess).collect()
        });
        let excess = match *halves {
            [first, second] => {
                Excess { bits: (first + second) / 2.0, noise_sq: (first - second) * (first - second) / 4.0 }
            }
            _ => Excess { bits: halves.iter().sum(), noise_sq: 0.0 },
        };
        self.memory.give_back(bytes);
        Ok(excess)
    }

    /// Bits that `sample`, runs that begin at `starts`, takes quantized by `spec`, but for what every block takes.
    fn estimated_bits(&self, spec: &QuantSpec, starts: &[u64], sample: &mut [u8]) -> f64 {
        let dtype = self.candidate.dtype;
        let mut encoder = self.memory.trial_encoders.take(|| BlockEncoder::new(Level::Default, self.ctx.isa));
        let bits = if let Some(channels) = &spec.channels {
            // The runs do not lie together: they are brought to the common step here.
            let mut values = self.values(sample);
            for (start, run) in starts.iter().zip(values.chunks_mut(UNIT_LEN)) {
                for (element, value) in (*start..).zip(run) {
                    *value /= channels.multiplier_of(element);
                }
            }
            let mut bytes = vec![0; 4 * values.len()];
            let _ = convert::from_f32(self.ctx.isa, Dtype::F32, &values, &mut bytes);
            let spec = QuantSpec { channels: None, ..spec.clone() };
            let run = QuantRun { spec: &spec, dtype: Dtype::F32, first_element: 0 };
            encoder.estimate_quantized(run, &mut bytes).0
        } else {
            encoder.estimate_quantized(QuantRun { spec, dtype, first_element: 0 }, sample).0
        };
        self.memory.trial_encoders.put(encoder);
        bits
    }
}

/// Bits an element that scales say of units, in order.
struct RoughBits {
    of_units: Vec<f64>,
}

impl RoughBits {
    /// Their mean over the units that begin with elements `starts`.
    fn mean(&self, starts: impl Iterator<Item = u64>) -> f64 {
        let (mut sum, mut n) = (0.0, 0u64);
        for start in starts {
            let unit_idx = usize::try_from(start).unwrap_or(usize::MAX) / UNIT_LEN;
            sum += self.of_units.get(unit_idx).copied().unwrap_or(0.0);
            n += 1;
        }
        sum / n.max(1) as f64
    }
}
