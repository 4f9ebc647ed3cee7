//! Floors and caps of rate control: units that would take too few bits at the common step, or too many, get a step of
//! their own, and so do the channels that they are part of.

use rayon::prelude::*;

use super::method::Method;
use super::rate::{self, ROUGH_TOLERANCE};
use super::settings::LossySettings;
use super::survey::{Scale, Survey, UNIT_LEN};
use super::tensor_source::TensorSource;
use crate::error::Result;
use crate::pipeline::timings::Step;
use crate::quantize::predictor::target::counted_bits;
use crate::quantize::predictor::{EntropyModel, MAX_BITS};
use crate::stage::{ChannelSteps, Domain};

/// Most channels with steps of their own; their list would otherwise outgrow what the memory of a run is meant to be.
pub(super) const MAX_CHANNELS: usize = 1 << 22;
/// By how much what a scale tells may be wrong, but for elements of few values, which no step helps.
const MARGIN: f64 = 1.5;

/// Where the entropy of a unit at a step comes from.
#[derive(Clone, Copy)]
pub(super) enum Entropies<'m> {
    /// What is known of it from one pass.
    Predicted(&'m dyn EntropyModel),
    /// Its elements, quantized and counted at every step.
    Counted,
}

/// The step that others are measured by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Common {
    pub(super) step: f64,
    /// The method that it suits.
    pub(super) method: Method,
    /// Bits an element that all units take on average.
    pub(super) bits: f64,
}

/// A unit with a step of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounded {
    pub(super) unit_idx: usize,
    /// Times the common step.
    pub(super) multiplier: f64,
}

impl TensorSource<'_> {
    /// The tensor's units that are beyond the floor or the cap of `settings`, by the scales of `survey`; none of a tensor whose
    /// channels can have no steps.
    pub(super) fn bounded_units(
        &self,
        settings: &LossySettings,
        (survey, method): (&Survey, Method),
        entropies: Entropies<'_>,
        common: &Common,
    ) -> Result<Vec<Bounded>> {
        if self.candidate.treatment.domain != Domain::Linear || self.channel_shape().1 > MAX_CHANNELS {
            return Ok(Vec::new());
        }
        let floor = settings.min_bits * common.bits;
        let cap = settings.max_bits * self.candidate.dtype.element_bits() as f64;
        let step = common.step * method.step_beside(common.method);
        let is_within = |scale: &Scale| match scale {
            Scale::Tells(_) => {
                let bits = scale.rough_bits(method, step);
                bits > floor + MARGIN && bits < cap - MARGIN
            }
            Scale::Hides(_) => false,
            Scale::Constant => true,
        };
        let look = |(unit_idx, scale): (usize, &Scale)| -> Result<Option<Bounded>> {
            if is_within(scale) {
                return Ok(None);
            }
            let run = self.read_unit(unit_idx)?;
            let find = || {
                let plain = self.plain_bits(entropies, &run);
                let mut bits = |multiplier: f64| method.coded_bits(plain(step * multiplier));
                let now = bits(1.0);
                if (floor..=cap).contains(&now) {
                    return None;
                }
                let aim = if now < floor { floor } else { cap };
                // Of most distributions the rate falls by a bit where the step doubles.
                rate::find(&mut bits, ((now - aim).exp2(), 1.0), aim, ROUGH_TOLERANCE)
            };
            let found = self.time(Step::Prediction, find);
            Ok(found.map(|multiplier| Bounded { unit_idx, multiplier }))
        };
        let scales = survey.scales.par_iter().enumerate().with_min_len(256);
        scales.filter_map(|unit| look(unit).transpose()).collect()
    }

    fn read_unit(&self, unit_idx: usize) -> Result<Vec<u8>> {
        let first = (unit_idx * UNIT_LEN) as u64;
        let n_elements = (self.n_elements() - first).min(UNIT_LEN as u64);
        let mut run = vec![0; usize::try_from(n_elements * self.unit_bytes()).unwrap_or(0)];
        let offset = self.candidate.info.start + first * self.unit_bytes();
        self.time(Step::Read, || self.source.read(offset, &mut run))?;
        Ok(run)
    }

    /// The entropy of the plainly rounded indices of `run` at a step.
    fn plain_bits<'m>(&self, entropies: Entropies<'m>, run: &[u8]) -> Box<dyn Fn(f64) -> f64 + 'm> {
        match entropies {
            Entropies::Predicted(model) => {
                let unit = self.measure_unit(run).unwrap_or_default();
                Box::new(move |step| model.bits(&unit, step))
            }
            Entropies::Counted => {
                let mut values = self.values(run);
                values.retain(|x| x.is_finite());
                Box::new(move |step| counted_bits(&values, step).map_or(MAX_BITS, |counted| counted.bits))
            }
        }
    }

    /// The multipliers of the channels where units are `bounded`. Where a channel has several units, the finest counts.
    pub(super) fn channel_steps(&self, bounded: &[Bounded]) -> Option<ChannelSteps> {
        if bounded.is_empty() {
            return None;
        }
        let (inner_len, n_channels) = self.channel_shape();
        let (inner, n_elements) = (inner_len.max(1) as u64, self.n_elements());
        let mut multipliers = vec![f64::INFINITY; n_channels];
        let mut bounded = bounded.iter().peekable();
        for (unit_idx, first) in (0..n_elements).step_by(UNIT_LEN).enumerate() {
            let own = bounded.next_if(|bounded| bounded.unit_idx == unit_idx);
            let multiplier = own.map_or(1.0, |bounded| bounded.multiplier);
            let last = (first + UNIT_LEN as u64).min(n_elements) - 1;
            for channel in first / inner..=last / inner {
                let channel = usize::try_from(channel % n_channels as u64).unwrap_or(0);
                if let Some(finest) = multipliers.get_mut(channel) {
                    *finest = finest.min(multiplier);
                }
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "rounded to 8 bits right away")]
        let bits = |multiplier: &f64| ChannelSteps::multiplier_bits(multiplier.min(1e30) as f32);
        Some(ChannelSteps { inner_len, multipliers: multipliers.iter().map(bits).collect() })
    }
}
