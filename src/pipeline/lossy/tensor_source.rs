//! A tensor that may change, within its file: its blocks, samples of it, and what a way to quantize it would cost.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rayon::prelude::*;

use super::keep::Keeps;
use super::method::Method;
use super::plan::Candidate;
use super::settings::LossySettings;
use crate::checkpoint::{BlockSpan, Region, blocks, large_block_bytes};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::moments::{Moments, Squares};
use crate::kernels::{channel_scale, convert, log_domain};
use crate::pipeline::buffers::Buffer;
use crate::pipeline::context::Context;
use crate::pipeline::encode::EncodeMemory;
use crate::pipeline::source::Source;
use crate::pipeline::timings::{Step, Timings};
use crate::quantize::rdo::Tuner;
use crate::stage::{BlockEncoder, ChannelSteps, Domain, Level, QuantSpec};

/// Elements of a sample, and of each of its runs.
pub(super) const SAMPLE_LEN: u64 = 1 << 16;
pub(super) const RUN_LEN: u64 = 1 << 10;
/// Elements that rounding is tuned by at a common step: with twice as many the error at a rate is the same to 0.1 %.
const TUNED_LEN: u64 = 1 << 14;
/// Bytes of which moments are measured at a time.
const MOMENTS_BYTES: usize = 128 << 10;

/// Elements of which the largest magnitude is looked for at a time.
const PEAKS_LEN: usize = 4096;

/// A tensor within its file.
#[derive(Clone, Copy)]
pub(super) struct TensorSource<'a> {
    pub(super) ctx: &'a Context<'a>,
    pub(super) memory: &'a EncodeMemory,
    pub(super) source: &'a Source,
    pub(super) candidate: &'a Candidate,
    /// Where what is coded while planning is kept, if it may be.
    pub(super) keeps: Option<Keeps>,
    /// The step that all work on the tensor is booked on, where that is not to be told apart.
    pub(super) booked_on: Option<Step>,
}

impl TensorSource<'_> {
    pub(super) fn unit_bytes(&self) -> u64 {
        self.candidate.dtype.unit_bytes() as u64
    }

    pub(super) fn n_elements(&self) -> u64 {
        self.candidate.info.byte_len() / self.unit_bytes()
    }

    /// The blocks as they will be encoded.
    pub(super) fn spans(&self) -> Vec<BlockSpan> {
        let info = &self.candidate.info;
        let dtype = self.candidate.dtype;
        let block_bytes = large_block_bytes(dtype);
        let region = Region { offset: info.start, len: info.byte_len(), dtype, row_len: 0, block_bytes };
        blocks(&[region]).collect()
    }

    pub(super) fn first_element(&self, span: &BlockSpan) -> u64 {
        (span.offset - self.candidate.info.start) / self.unit_bytes()
    }

    /// Does something with each block, in parallel, and gives the results in order. The time is booked on `step`, but for
    /// what `work` books itself.
    pub(super) fn map_blocks<T: Send>(
        &self,
        step: Step,
        work: impl Fn(u64, &mut [u8], &mut Timings) -> T + Sync,
    ) -> Result<Vec<T>> {
        let visit = |span: BlockSpan| {
            let (mut timings, mut parts) = (Timings::default(), Timings::default());
            let mut bytes = self.memory.buffer(span.len);
            let read = timings.time(Step::Read, || self.source.read(span.offset, &mut bytes));
            let start = Instant::now();
            let result = read.map(|()| work(self.first_element(&span), &mut bytes, &mut parts));
            timings.book(step, start.elapsed().saturating_sub(parts.total()));
            timings.add(&parts);
            self.book(&timings);
            self.memory.give_back(bytes);
            result
        };
        let results: Vec<Result<T>> = self.spans().into_par_iter().with_max_len(1).map(visit).collect();
        results.into_iter().collect()
    }

    /// Moments of the whole tensor, in pieces that do not leave the second cache.
    pub(super) fn moments(&self) -> Result<Moments> {
        self.sum_parts(|bytes| Moments::measure(self.ctx.isa, self.candidate.dtype, bytes), Moments::merge)
    }

    /// Its squares: of all that moments tell the one thing that a step for an error relative to the tensor needs.
    pub(super) fn squares(&self) -> Result<Squares> {
        self.sum_parts(|bytes| Squares::measure(self.ctx.isa, self.candidate.dtype, bytes), Squares::merge)
    }

    /// Measures the tensor part by part, and merges that in order.
    fn sum_parts<T: Default + Send>(
        &self,
        measure: impl Fn(&[u8]) -> Option<T> + Sync,
        merge: impl Fn(&mut T, &T) + Sync,
    ) -> Result<T> {
        let add = |sum: &mut T, _, bytes: &[u8]| merge(sum, &measure(bytes).unwrap_or_default());
        let mut total = T::default();
        self.map_parts(add)?.iter().for_each(|part| merge(&mut total, part));
        Ok(total)
    }

    /// Takes in each block, in parallel, in parts that do not leave the second cache, of whole units but for the last: what is
    /// known of each block so far, the element that the part begins with, and the part.
    pub(super) fn map_parts<T: Default + Send>(
        &self,
        add: impl Fn(&mut T, u64, &[u8]) + Sync,
    ) -> Result<Vec<T>> {
        let visit = |span: &BlockSpan| -> Result<T> {
            let mut timings = Timings::default();
            let mut known = T::default();
            let mut buffer = self.memory.buffer(span.len.min(MOMENTS_BYTES));
            for from in (0..span.len).step_by(MOMENTS_BYTES) {
                let part = span.part(from, MOMENTS_BYTES.min(span.len - from));
                let bytes = &mut buffer[..part.len];
                timings.time(Step::Read, || self.source.read(part.offset, bytes))?;
                timings.time(Step::Statistics, || add(&mut known, self.first_element(&part), bytes));
            }
            self.memory.give_back(buffer);
            self.book(&timings);
            Ok(known)
        };
        let parts: Vec<Result<T>> = self.spans().par_iter().with_max_len(1).map(visit).collect();
        parts.into_iter().collect()
    }

    /// The element that a run of a sample of `sample_len` begins with.
    pub(super) fn run_start(&self, run_idx: u64, sample_len: u64, run_len: u64) -> u64 {
        let n_elements = self.n_elements();
        if n_elements <= sample_len {
            return run_idx * run_len;
        }
        spread(run_idx, sample_len / run_len, n_elements, run_len)
    }

    /// How the tensor is quantized by `method` at `step`, `sample` being values of it.
    pub(super) fn plain_spec(
        &self,
        settings: &LossySettings,
        method: Method,
        sample: &[f32],
        step: f32,
    ) -> QuantSpec {
        let mut tuner = self.memory.tuners.take(Tuner::default);
        let choice = method.choice(self.ctx.isa, &mut tuner, sample, step);
        self.memory.tuners.put(tuner);
        QuantSpec {
            step,
            domain: self.candidate.treatment.domain,
            channels: None,
            prune_below: 0.0,
            row_lens: self.row_lens(),
            choice,
            backend: settings.backend,
        }
    }

    /// How the tensor is quantized by `method` where the common step is `step` and its channels have the multipliers of
    /// `channels`.
    pub(super) fn rate_spec(
        &self,
        settings: &LossySettings,
        (method, channels): (Method, Option<&ChannelSteps>),
        step: f64,
    ) -> Result<QuantSpec> {
        let sample = self.sample_of(TUNED_LEN)?;
        let step = own_step(settings, method, step);
        let plain = self.time(Step::Prediction, || self.plain_spec(settings, method, &sample, step));
        Ok(QuantSpec { channels: channels.cloned(), ..plain })
    }

    /// Books what planning has taken, where it is not to be told apart.
    pub(super) fn book(&self, timings: &Timings) {
        self.memory.book(&self.booked_on.map_or(*timings, |step| timings.all_on(step)));
    }

    /// Lends `work` an encoder of blocks for trials; the level has no say in how indices are coded.
    pub(super) fn with_trial_encoder<T>(&self, work: impl FnOnce(&mut BlockEncoder) -> T) -> T {
        let make = || BlockEncoder::new(Level::Default, self.ctx.isa);
        let mut encoder = self.memory.trial_encoders.take(make);
        let result = work(&mut encoder);
        self.memory.trial_encoders.put(encoder);
        result
    }

    /// Runs `work`, which is all on this thread, and books its time on `step`.
    pub(super) fn time<T>(&self, step: Step, work: impl FnOnce() -> T) -> T {
        self.memory.time(self.booked_on.unwrap_or(step), work)
    }

    /// Values of [`SAMPLE_LEN`] elements from all over the tensor, in the domain that is quantized.
    pub(super) fn sample(&self) -> Result<Vec<f32>> {
        self.sample_of(SAMPLE_LEN)
    }

    /// The same of `sample_len` elements.
    fn sample_of(&self, sample_len: u64) -> Result<Vec<f32>> {
        self.time(Step::Statistics, || {
            let bytes = self.read_sample(sample_len, RUN_LEN)?;
            let values = self.values(&bytes);
            self.memory.give_back(bytes);
            Ok(values)
        })
    }

    /// Runs of `run_len` elements from all over the tensor, `sample_len` in all, or the whole tensor if it has no more.
    pub(super) fn read_sample(&self, sample_len: u64, run_len: u64) -> Result<Buffer> {
        let info = &self.candidate.info;
        let n_elements = self.n_elements();
        let is_whole = n_elements <= sample_len;
        let n_runs = if is_whole { 1 } else { sample_len / run_len };
        let run_bytes = if is_whole { info.byte_len() } else { run_len * self.unit_bytes() };
        let sample_bytes = usize::try_from(n_runs * run_bytes).unwrap_or(0);
        // A large one is as long as the blocks that are read next, so that it serves for them, too.
        let block_bytes = large_block_bytes(self.candidate.dtype);
        let is_large = !is_whole && sample_bytes > block_bytes / 8;
        let mut bytes =
            self.memory.buffer(if is_large { sample_bytes.max(block_bytes) } else { sample_bytes });
        bytes.truncate(sample_bytes);
        for (run_idx, run) in (0..).zip(bytes.chunks_mut(usize::try_from(run_bytes).unwrap_or(1).max(1))) {
            let first = if is_whole { 0 } else { self.run_start(run_idx, sample_len, run_len) };
            self.source.read(info.start + first * self.unit_bytes(), run)?;
        }
        Ok(bytes)
    }

    /// At most `max_len` values of `sample`, in the domain that is quantized.
    pub(super) fn thinned(&self, sample: &[u8], max_len: usize) -> Vec<f32> {
        let unit_bytes = self.candidate.dtype.unit_bytes();
        let one_in = (sample.len() / unit_bytes).div_ceil(max_len).max(1);
        let runs = sample.chunks(unit_bytes << 9).step_by(one_in);
        let mut bytes = Vec::with_capacity(sample.len() / one_in + (unit_bytes << 9));
        runs.for_each(|run| bytes.extend_from_slice(run));
        self.values(&bytes)
    }

    /// `bytes` in the domain that is quantized; what has no logarithm is left out.
    pub(super) fn values(&self, bytes: &[u8]) -> Vec<f32> {
        let mut values = vec![0.0; bytes.len() / self.candidate.dtype.unit_bytes()];
        // The dtype is one that converts: others are no candidates.
        let _ = convert::to_f32(self.ctx.isa, self.candidate.dtype, bytes, &mut values);
        if self.candidate.treatment.domain == Domain::Log2 {
            values.retain(|x| *x != 0.0);
            let mut logs = vec![0.0; values.len()];
            log_domain::log2(self.ctx.isa, &values, &mut logs);
            values = logs;
        }
        values
    }

    /// Whether there are two different finite elements, so that something is left to quantize.
    pub(super) fn is_varied(&self, sample: &[u8]) -> Result<bool> {
        let mut values = vec![0.0; sample.len() / self.candidate.dtype.unit_bytes()];
        let _ = convert::to_f32(self.ctx.isa, self.candidate.dtype, sample, &mut values);
        let mut finite = values.iter().filter(|x| x.is_finite());
        let first = finite.next();
        if finite.any(|x| Some(x) != first) {
            return Ok(true);
        }
        let moments = self.moments()?;
        Ok(moments.n > 0 && moments.min != moments.max)
    }

    /// Length of a run of elements of one channel, and the number of channels.
    pub(super) fn channel_shape(&self) -> (usize, usize) {
        let shape = &self.candidate.info.shape;
        let axis = self.candidate.treatment.channel_axis.unwrap_or(0).min(shape.len().saturating_sub(1));
        let size = |dimension: &u64| usize::try_from(*dimension).unwrap_or(1);
        let inner_len = shape.iter().skip(axis + 1).map(size).product::<usize>().max(1);
        (inner_len, shape.get(axis).map_or(1, size).max(1))
    }

    /// Lengths of rows whose columns may differ in scale: of each axis but the first, the elements behind one place on the
    /// axis before it. Short tensors have too few rows.
    pub(super) fn row_lens(&self) -> Vec<usize> {
        /// A block has several rows yet.
        const MOST: u64 = 1 << 16;
        let mut lens = Vec::new();
        let mut len = 1u64;
        for dimension in self.candidate.info.shape.iter().skip(1).rev() {
            len = len.saturating_mul(*dimension);
            if *dimension > 1 && len <= MOST {
                lens.extend(usize::try_from(len).ok());
            }
        }
        lens
    }

    /// The largest finite |x| of each channel. Memory is for each channel once, and for those of a part.
    pub(super) fn channel_peaks(&self) -> Result<Vec<f32>> {
        let (inner_len, n_channels) = self.channel_shape();
        let dtype = self.candidate.dtype;
        // A maximum is the same in whichever order blocks come.
        let peaks = Mutex::new(vec![0.0f32; n_channels]);
        let isa = self.ctx.isa;
        self.map_parts(|(): &mut (), first_element, bytes| {
            let (mut at, mut found) = (first_element, Vec::new());
            let mut take = |values: &[f32]| {
                let mut rest = values;
                while !rest.is_empty() {
                    let left_of_run = inner_len - usize::try_from(at % inner_len as u64).unwrap_or(0);
                    let (run, others) = rest.split_at(left_of_run.min(rest.len()));
                    let channel = usize::try_from(at / inner_len as u64 % n_channels as u64).unwrap_or(0);
                    found.push((channel, channel_scale::largest_finite(isa, run)));
                    at += run.len() as u64;
                    rest = others;
                }
            };
            if dtype == Dtype::F64 {
                let mut values = [0.0; PEAKS_LEN];
                for bytes in bytes.chunks(PEAKS_LEN * dtype.unit_bytes()) {
                    let values = &mut values[..bytes.len() / dtype.unit_bytes()];
                    let _ = convert::to_f32(isa, dtype, bytes, values);
                    keep_from_vanishing(bytes, values);
                    take(values);
                }
            } else {
                // The dtype is one that converts: others are no candidates.
                let _ = convert::for_each_block::<PEAKS_LEN>(isa, dtype, bytes, |values, _| take(values));
            }
            let mut peaks = peaks.lock().unwrap_or_else(PoisonError::into_inner);
            for (channel, found) in found {
                peaks[channel] = peaks[channel].max(found);
            }
        })?;
        Ok(peaks.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The step of `method` where the common step is `step`.
pub(super) fn own_step(settings: &LossySettings, method: Method, step: f64) -> f32 {
    let step = step * method.step_beside(Method::best_of(settings.quantizer));
    #[expect(clippy::cast_possible_truncation, reason = "rounded; any step near it will do")]
    let step = step as f32;
    step.clamp(f32::MIN_POSITIVE, f32::MAX)
}

/// Where run `run_idx` of `n_runs` begins among `n_elements`, of which there are enough: at a multiple of `run_len`, since
/// units of rate control are whole runs, and anywhere within its share, by the fractions of multiples of the golden ratio.
/// Rows of a tensor often have a period, which runs at even distances may have in common with them.
pub(super) fn spread(run_idx: u64, n_runs: u64, n_elements: u64, run_len: u64) -> u64 {
    let share = n_elements / n_runs;
    let fraction = run_idx.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let place = (fraction * (share / run_len)) >> 32;
    (share * run_idx / run_len + place) * run_len
}

/// Gives F64 elements that are zero as f32, but are not zero, the smallest magnitude there is.
fn keep_from_vanishing(bytes: &[u8], values: &mut [f32]) {
    for (element, value) in bytes.as_chunks().0.iter().zip(values) {
        if *value == 0.0 && f64::from_le_bytes(*element) != 0.0 {
            *value = f32::from_bits(1);
        }
    }
}
