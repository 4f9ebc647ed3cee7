//! Training: minibatches, the mean squared error in (bits ÷ 8)², Adam (Kingma and Ba, 2015).
//!
//! One thread, f32 in a fixed order, one ChaCha8 stream for initial weights and then for the order of the samples: the
//! same samples and settings give the same bytes.

use std::ops::ControlFlow;

use ndarray::Axis;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::features::{Question, moments_question, profile_question};
use super::mlp::{MAX_HIDDEN, Mlp};
use super::{EntropyModel, MomentsNet, Networks, ProfileNet, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::quantize::elementary::sigmoid;

/// Samples between two changes of the weights.
const BATCH_LEN: usize = 32;
/// Decay of the means of gradients and of their squares, as Adam's authors advise.
const BETAS: (f32, f32) = (0.9, 0.999);
/// Added to the root that Adam divides by.
const EPSILON: f32 = 1e-8;
/// Errors are in this many bits.
const ERROR_UNIT_BITS: f64 = 8.0;

/// How networks are trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainSettings {
    /// Hidden units, 1 to 1024.
    pub hidden_size: usize,
    /// Adam's step in the first epoch, above 0, at most 1.
    pub learning_rate: f64,
    /// Times that every sample is seen, 1 to 1000.
    pub epochs: u32,
    /// The learning rate of an epoch relative to that of the one before, above 0, at most 1.
    pub decay: f64,
    /// Start of the random numbers.
    pub seed: u64,
}

impl Default for TrainSettings {
    /// 64 hidden units, learning rate 0.001, 10 epochs, decay 0.95, seed 42.
    fn default() -> Self {
        Self { hidden_size: 64, learning_rate: 0.001, epochs: 10, decay: 0.95, seed: 42 }
    }
}

impl TrainSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`].
    pub fn check(&self) -> Result<()> {
        let share = |x: f64| x > 0.0 && x <= 1.0;
        let message = if !(1..=MAX_HIDDEN).contains(&self.hidden_size) {
            format!("hidden_size of {}, must be 1 to {MAX_HIDDEN}", self.hidden_size)
        } else if !share(self.learning_rate) {
            format!("learning_rate of {}, must be above 0 and at most 1", self.learning_rate)
        } else if !(1..=1000).contains(&self.epochs) {
            format!("{} epochs, must be 1 to 1000", self.epochs)
        } else if !share(self.decay) {
            format!("decay of {}, must be above 0 and at most 1", self.decay)
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }
}

/// A unit at a step, and what was counted there.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Position of the unit among the data's units.
    pub unit_idx: usize,
    /// Step.
    pub step: f64,
    /// Bits per element, as [`super::target::counted_bits`] gives them.
    pub bits: f64,
}

/// What to learn from, or to be tested on.
#[derive(Debug, Clone, Default)]
pub struct DataSet {
    /// The units, each of at least one element.
    pub units: Vec<Unit>,
    /// Samples of them.
    pub samples: Vec<Sample>,
}

/// How training goes on; returned by the trainer's onlooker.
pub type Onlooker<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// What the onlooker is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progress {
    /// So many samples of the run have been seen.
    Samples {
        /// Of the network being trained.
        seen: usize,
        /// In all epochs together.
        total: usize,
    },
    /// An epoch is over.
    Epoch {
        /// Name of the network.
        network: &'static str,
        /// From 0.
        epoch: u32,
        /// Mean squared error in (bits ÷ 8)² over the epoch's samples, each before its batch changed the weights.
        loss: f64,
        /// The same over the held-out samples, after the epoch.
        held_out: f64,
    },
}

/// Trains both networks.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] for settings out of range, [`ErrorKind::InvalidInput`] without samples to train on
/// or hold out, [`ErrorKind::LimitExceeded`] where the onlooker breaks off.
pub fn train(
    training: &DataSet,
    held_out: &DataSet,
    settings: &TrainSettings,
    onlooker: &mut Onlooker<'_>,
) -> Result<Networks> {
    settings.check()?;
    for (data, what) in [(training, "training"), (held_out, "holding out")] {
        if data.samples.is_empty() {
            let message = format!("no samples for {what}: no float tensor of at least 2048 finite elements");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
    }
    let moments =
        Trainer::new("mlp-moments", moments_question, settings).run(training, settings, onlooker, |mlp| {
            mean_squared_error(held_out, &MomentsNet(mlp.clone()))
        })?;
    let profile =
        Trainer::new("mlp-profile", profile_question, settings).run(training, settings, onlooker, |mlp| {
            mean_squared_error(held_out, &ProfileNet(mlp.clone()))
        })?;
    Ok(Networks { moments: MomentsNet(moments), profile: ProfileNet(profile) })
}

/// Mean squared error of `model` over `data`, in (bits ÷ 8)².
fn mean_squared_error(data: &DataSet, model: &dyn EntropyModel) -> f64 {
    let square = |sample: &Sample| {
        let error = (model.bits(&data.units[sample.unit_idx], sample.step) - sample.bits) / ERROR_UNIT_BITS;
        error * error
    };
    data.samples.iter().map(square).sum::<f64>() / data.samples.len().max(1) as f64
}

/// A network and what Adam keeps of its gradients.
struct Trainer<const N: usize> {
    name: &'static str,
    question: fn(&Unit, f64) -> Question<N>,
    rng: ChaCha8Rng,
    mlp: Mlp,
    gradient: Mlp,
    mean: Mlp,
    square: Mlp,
    /// β₁ᵗ and β₂ᵗ.
    powers: (f32, f32),
}

impl<const N: usize> Trainer<N> {
    fn new(name: &'static str, question: fn(&Unit, f64) -> Question<N>, settings: &TrainSettings) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let mlp = Mlp::xavier(N, settings.hidden_size, &mut rng);
        let zeros = Mlp::zeros(N, settings.hidden_size);
        Self {
            name,
            question,
            rng,
            mlp,
            gradient: zeros.clone(),
            mean: zeros.clone(),
            square: zeros,
            powers: (1.0, 1.0),
        }
    }

    fn run(
        mut self,
        training: &DataSet,
        settings: &TrainSettings,
        onlooker: &mut Onlooker<'_>,
        held_out: impl Fn(&Mlp) -> f64,
    ) -> Result<Mlp> {
        let ask = |sample: &Sample| (self.question)(&training.units[sample.unit_idx], sample.step);
        let questions: Vec<(Question<N>, f64)> =
            training.samples.iter().map(|sample| (ask(sample), sample.bits)).collect();
        let mut order: Vec<usize> = (0..questions.len()).collect();
        let total = order.len() * settings.epochs as usize;
        let (mut seen, mut rate) = (0, settings.learning_rate);
        let stopped = || Error::new(ErrorKind::LimitExceeded, "training took too long and was stopped");
        for epoch in 0..settings.epochs {
            shuffle(&mut order, &mut self.rng);
            let mut loss = 0.0;
            for batch in order.chunks(BATCH_LEN) {
                for idx in batch {
                    let (question, bits) = &questions[*idx];
                    loss += self.learn(question, *bits, batch.len());
                }
                #[expect(clippy::cast_possible_truncation, reason = "Adam's own precision")]
                self.step(rate as f32);
                seen += batch.len();
                if onlooker(Progress::Samples { seen, total }).is_break() {
                    return Err(stopped());
                }
            }
            let loss = loss / order.len() as f64;
            let report = Progress::Epoch { network: self.name, epoch, loss, held_out: held_out(&self.mlp) };
            if onlooker(report).is_break() {
                return Err(stopped());
            }
            rate *= settings.decay;
        }
        Ok(self.mlp)
    }

    /// Adds the gradient of one of a batch's `batch_len` samples, and gives its squared error.
    fn learn(&mut self, question: &Question<N>, bits: f64, batch_len: usize) -> f64 {
        let probability = sigmoid(f64::from(self.mlp.forward(&question.inputs)));
        let error = (question.offset + question.gain * probability - bits) / ERROR_UNIT_BITS;
        let slope = question.gain / ERROR_UNIT_BITS * probability * (1.0 - probability);
        #[expect(clippy::cast_possible_truncation, reason = "the parameters' own precision")]
        let delta = (2.0 * error * slope / batch_len as f64) as f32;
        // Hidden units again: keeping them from the forward pass would cost it an array.
        let mut units = self.mlp.hidden_bias.clone();
        for (input, weights) in question.inputs.iter().zip(self.mlp.hidden.axis_iter(Axis(0))) {
            units.scaled_add(*input, &weights);
        }
        self.gradient.output.zip_mut_with(&units, |gradient, unit| *gradient += delta * unit.max(0.0));
        self.gradient.output_bias += delta;
        units.zip_mut_with(&self.mlp.output, |unit, weight| {
            *unit = if *unit > 0.0 { delta * weight } else { 0.0 };
        });
        self.gradient.hidden_bias += &units;
        for (input, mut gradients) in question.inputs.iter().zip(self.gradient.hidden.axis_iter_mut(Axis(0)))
        {
            gradients.scaled_add(*input, &units);
        }
        error * error
    }

    /// Changes the parameters by Adam's rule and clears the gradient.
    fn step(&mut self, rate: f32) {
        self.powers = (self.powers.0 * BETAS.0, self.powers.1 * BETAS.1);
        let (mean_scale, square_scale) = (1.0 / (1.0 - self.powers.0), 1.0 / (1.0 - self.powers.1));
        let means = self.mean.parameters_mut().zip(self.square.parameters_mut());
        let parameters = self.mlp.parameters_mut().zip(self.gradient.parameters_mut());
        for ((parameter, gradient), (mean, square)) in parameters.zip(means) {
            *mean = BETAS.0 * *mean + (1.0 - BETAS.0) * *gradient;
            *square = BETAS.1 * *square + (1.0 - BETAS.1) * *gradient * *gradient;
            *parameter -= rate * (*mean * mean_scale) / ((*square * square_scale).sqrt() + EPSILON);
            *gradient = 0.0;
        }
    }
}

/// A random order of `items` (Fisher and Yates).
fn shuffle(items: &mut [usize], rng: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        let below = (u64::from(rng.next_u32()) * (last as u64 + 1)) >> 32;
        items.swap(last, usize::try_from(below).unwrap_or(last));
    }
}

/// How well a model predicts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean squared error in (bits ÷ 8)².
    pub mse: f64,
    /// Root of the mean squared error, in bits.
    pub rmse_bits: f64,
    /// Share of the variance that is explained, 1 − mse ÷ variance; below 0 where the mean would be better.
    pub r2: f64,
    /// Mean of prediction − counted over all samples, in bits.
    pub bias_bits: f64,
    /// The same over samples of 2 to 8 bits; 0 where there are none.
    pub bias_2_to_8_bits: f64,
}

impl Evaluation {
    /// Holds `model` against `data`.
    #[must_use]
    pub fn of(model: &dyn EntropyModel, data: &DataSet) -> Self {
        let n = data.samples.len().max(1) as f64;
        let mean = mean_bits(data);
        let (mut squares, mut sum, mut variance, mut middle) = (0.0, 0.0, 0.0, (0.0, 0.0));
        for sample in &data.samples {
            let error = model.bits(&data.units[sample.unit_idx], sample.step) - sample.bits;
            squares += error * error;
            sum += error;
            variance += (sample.bits - mean) * (sample.bits - mean);
            if (2.0..=8.0).contains(&sample.bits) {
                middle = (middle.0 + error, middle.1 + 1.0);
            }
        }
        let mse_bits = squares / n;
        Self {
            mse: mse_bits / (ERROR_UNIT_BITS * ERROR_UNIT_BITS),
            rmse_bits: mse_bits.sqrt(),
            r2: if variance > 0.0 { 1.0 - squares / variance } else { 0.0 },
            bias_bits: sum / n,
            bias_2_to_8_bits: if middle.1 > 0.0 { middle.0 / middle.1 } else { 0.0 },
        }
    }
}

/// Mean of the counted bits: the best constant for `data`.
#[must_use]
pub fn mean_bits(data: &DataSet) -> f64 {
    data.samples.iter().map(|sample| sample.bits).sum::<f64>() / data.samples.len().max(1) as f64
}
