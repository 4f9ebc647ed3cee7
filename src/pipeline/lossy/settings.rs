//! What is asked of a lossy run: the goal, and rules that treat some tensors otherwise.

use glob::Pattern;

use super::series::PruneSeries;
use crate::checkpoint::TensorInfo;
use crate::container::{GoalKind, MAX_LAYERS};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::quantize::predictor::{self, EntropyModel, Networks, ShapeFrom};
use crate::stage::{Domain, IndexBackend, Quantizer};

/// What a lossy tensor has to keep to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// Largest |x − x̂| of any element.
    MaxAbsError(f64),
    /// Largest |x − x̂| ÷ the largest |x| of the element's channel.
    MaxRelError(f64),
    /// ‖x − x̂‖₂ ÷ ‖x‖₂ of the tensor.
    RelL2(f64),
    /// Mean stored bits an element, over all tensors of the run with this goal.
    Bits(f64),
    /// Original bytes ÷ stored bytes of the whole run.
    Ratio(f64),
}

impl Goal {
    /// The goal's kind.
    #[must_use]
    pub fn kind(self) -> GoalKind {
        match self {
            Self::MaxAbsError(_) => GoalKind::MaxAbsError,
            Self::MaxRelError(_) => GoalKind::MaxRelError,
            Self::RelL2(_) => GoalKind::RelL2,
            Self::Bits(_) => GoalKind::Bits,
            Self::Ratio(_) => GoalKind::Ratio,
        }
    }

    /// The goal's value, in its own unit.
    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Self::MaxAbsError(value)
            | Self::MaxRelError(value)
            | Self::RelL2(value)
            | Self::Bits(value)
            | Self::Ratio(value) => value,
        }
    }

    /// Whether the goal is met by sharing a budget over all tensors, rather than by each alone.
    #[must_use]
    pub fn is_rate(self) -> bool {
        matches!(self, Self::Bits(_) | Self::Ratio(_))
    }

    /// Whether the goal is one of the whole run.
    #[must_use]
    pub fn is_ratio(self) -> bool {
        matches!(self, Self::Ratio(_))
    }

    /// Checks the value's range.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a value that is not positive and finite, or beyond what the goal can mean.
    pub fn check(self) -> Result<Self> {
        let value = self.value();
        let most = match self {
            Self::MaxAbsError(_) => f64::from(f32::MAX),
            Self::MaxRelError(_) | Self::RelL2(_) => 1.0,
            Self::Bits(_) => 24.0,
            Self::Ratio(_) => 1e6,
        };
        if value.is_finite() && value > 0.0 && value <= most {
            return Ok(self);
        }
        let message = format!("{} of {value}, allowed are values above 0 up to {most}", self.kind().name());
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }
}

/// What becomes of a tensor that a rule matches.
#[derive(Debug, Clone, PartialEq)]
pub enum Treatment {
    /// Every bit is kept.
    Exact,
    /// The tensor may change.
    Lossy(LossyTreatment),
}

/// How a tensor may change.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LossyTreatment {
    /// A goal of its own; otherwise the run's.
    pub goal: Option<Goal>,
    /// Whether small elements may be set to zero beyond what quantization does.
    pub prune: Option<bool>,
    /// Dimension along which channels are counted.
    pub channel_axis: Option<usize>,
    /// What is quantized.
    pub domain: Domain,
    /// Whether the tensor may be lossy although it is small, has one dimension, or holds NaN or infinity (which are
    /// then kept exactly, element by element).
    pub despite_defaults: bool,
}

/// A rule: the first that matches a tensor decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Matches the tensor's name.
    pub name: Pattern,
    /// Matches the dtype; any if empty.
    pub dtypes: Vec<Dtype>,
    /// Fewest dimensions that match.
    pub min_dimensions: usize,
    /// Fewest elements that match.
    pub min_elements: u64,
    /// What is done.
    pub treatment: Treatment,
}

impl Rule {
    fn matches(&self, tensor: &TensorInfo, dtype: Dtype, n_elements: u64) -> bool {
        (self.dtypes.is_empty() || self.dtypes.contains(&dtype))
            && tensor.shape.len() >= self.min_dimensions
            && n_elements >= self.min_elements
            && self.name.matches(&tensor.name)
    }
}

/// Dynamic pruning: small elements set to zero, within the goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PruningSettings {
    /// Whether tensors are pruned that no rule says it of.
    pub enabled: bool,
    /// Share of a tensor's nonzero elements that pruning begins with: the threshold is this percentile of |x|.
    pub threshold: f64,
    /// Largest share of a tensor's elements that may newly become zero, if it is pruned, whether by pruning or by
    /// quantizing.
    pub max_drop_ratio: f64,
    /// Factor by which the scheduler changes the threshold from one checkpoint of a series to the next.
    pub decay: f64,
}

impl Default for PruningSettings {
    fn default() -> Self {
        Self { enabled: false, threshold: 0.01, max_drop_ratio: 0.25, decay: 0.95 }
    }
}

/// Which model of entropy rate goals go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RateModel {
    /// Mean and variance.
    Gaussian,
    /// Mean, variance and kurtosis.
    GeneralizedGaussian,
    /// The learned network on six moments.
    Moments,
    /// The learned network on moments and octaves.
    #[default]
    Profile,
    /// None: what tensors take is counted at every step that is tried, and floors and caps go by what units take.
    Counted,
}

impl RateModel {
    /// The model; for [`Self::Counted`] the one that slopes for corrections still go by.
    #[must_use]
    pub fn model(self) -> Box<dyn EntropyModel> {
        match self {
            Self::Gaussian => Box::new(predictor::Gaussian),
            Self::GeneralizedGaussian => Box::new(predictor::GeneralizedGaussian(ShapeFrom::Kurtosis)),
            Self::Moments => Box::new(Networks::shipped().moments.clone()),
            Self::Profile | Self::Counted => Box::new(Networks::shipped().profile.clone()),
        }
    }
}

/// How fine a layer is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LayerGoal {
    /// Mean stored bits an element over all tensors that may be coarse, with the layers before.
    Bits(f64),
    /// The tensors as they are.
    Exact,
}

/// The settings of a lossy run.
#[derive(Debug, Clone, PartialEq)]
pub struct LossySettings {
    /// The goal of tensors whose rule sets none.
    pub goal: Goal,
    /// The layers of a layered run, the coarsest first; none in any other. A layered run has no other goal.
    pub layers: Vec<LayerGoal>,
    /// How indices are chosen.
    pub quantizer: Quantizer,
    /// How indices are stored.
    pub backend: IndexBackend,
    /// Rules, the first that matches counts; then the careful defaults.
    pub rules: Vec<Rule>,
    /// Pruning where a rule or the run allows it.
    pub pruning: PruningSettings,
    /// The checkpoints of the series before this one, if there are any: the threshold is then the series'.
    pub prune_series: Option<PruneSeries>,
    /// Tensors of fewer elements stay exact.
    pub min_elements: u64,
    /// Fewest bits an element of a channel under a rate goal, as a share of the mean.
    pub min_bits: f64,
    /// Most bits an element of a channel under a rate goal, as a share of the element's own width.
    pub max_bits: f64,
    /// Model of entropy.
    pub rate_model: RateModel,
    /// Whether a rate goal is corrected once by what a whole encoding takes, which doubles the time.
    pub correct_rate: bool,
    /// Lowest mean bits an element that a ratio may lead to.
    pub min_precision: f64,
    /// Longest time that one tensor's step is looked for, in seconds; after it the tensor stays exact.
    pub timeout_seconds: f64,
}

impl LossySettings {
    /// Settings with `goal` and the defaults of `configs/encoder.yaml`.
    #[must_use]
    pub fn new(goal: Goal) -> Self {
        Self {
            goal,
            layers: Vec::new(),
            quantizer: Quantizer::Lattice,
            backend: IndexBackend::Rans,
            rules: Vec::new(),
            pruning: PruningSettings::default(),
            prune_series: None,
            min_elements: 4096,
            min_bits: 0.2,
            max_bits: 0.9,
            rate_model: RateModel::default(),
            correct_rate: false,
            min_precision: 4.0,
            timeout_seconds: 300.0,
        }
    }

    /// Settings of a layered run.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for no layers or too many, or layers that do not get finer.
    pub fn layered(layers: &[LayerGoal]) -> Result<Self> {
        let invalid = |message: &str| Err(Error::new(ErrorKind::InvalidConfig, message));
        if layers.is_empty() || layers.len() > MAX_LAYERS {
            return invalid(&format!("{} layers, allowed are 1 to {MAX_LAYERS}", layers.len()));
        }
        let mut last = 0.0;
        for layer in layers {
            let bits = match layer {
                LayerGoal::Bits(bits) => Goal::Bits(*bits).check()?.value(),
                LayerGoal::Exact => f64::INFINITY,
            };
            if bits <= last {
                return invalid(
                    "each layer must be finer than the one before it, and nothing is finer than exact",
                );
            }
            last = bits;
        }
        let first = match layers {
            [LayerGoal::Bits(bits), ..] => *bits,
            _ => 8.0,
        };
        Ok(Self { layers: layers.to_vec(), ..Self::new(Goal::Bits(first)) })
    }

    /// The goal of what decompressing gives: of a layered run the last layer's. `None` where that is exact.
    #[must_use]
    pub fn final_goal(&self) -> Option<Goal> {
        match self.layers.last() {
            None => Some(self.goal),
            Some(LayerGoal::Bits(bits)) => Some(Goal::Bits(*bits)),
            Some(LayerGoal::Exact) => None,
        }
    }

    /// How `tensor` is to be treated: its goal and treatment, or `None` where it stays exact.
    ///
    /// By default floats of 16 bits or more, of two dimensions or more and at least [`Self::min_elements`], are lossy.
    #[must_use]
    pub fn treatment(&self, tensor: &TensorInfo) -> Option<(Goal, LossyTreatment)> {
        let dtype = tensor.dtype.filter(|dtype| is_quantizable(*dtype))?;
        let n_elements = tensor.byte_len() / dtype.unit_bytes() as u64;
        if n_elements == 0 {
            return None;
        }
        let rule = self.rules.iter().find(|rule| rule.matches(tensor, dtype, n_elements));
        let treatment = match rule.map(|rule| &rule.treatment) {
            Some(Treatment::Exact) => return None,
            Some(Treatment::Lossy(treatment)) => *treatment,
            None => LossyTreatment::default(),
        };
        let is_careful = tensor.shape.iter().filter(|dimension| **dimension > 1).count() >= 2
            && n_elements >= self.min_elements;
        (is_careful || treatment.despite_defaults).then(|| (treatment.goal.unwrap_or(self.goal), treatment))
    }

    /// Whether tensors of `treatment` may be pruned. Logarithms never are: an element without one is no small element.
    #[must_use]
    pub fn prunes(&self, treatment: &LossyTreatment) -> bool {
        treatment.prune.unwrap_or(self.pruning.enabled) && treatment.domain == Domain::Linear
    }

    /// The series that this checkpoint is of, if only as its first.
    #[must_use]
    pub fn series(&self) -> PruneSeries {
        self.prune_series.clone().unwrap_or_else(|| PruneSeries::new(&self.pruning))
    }
}

/// Whether tensors of `dtype` can be quantized at all.
#[must_use]
pub fn is_quantizable(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::Bf16)
}
