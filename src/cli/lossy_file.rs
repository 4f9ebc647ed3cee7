//! The settings of lossy runs (YAML, `configs/encoder.yaml`), their presets and rules, and what the flags change.

use std::collections::BTreeMap;
use std::path::Path;

use glob::Pattern;
use serde::Deserialize;

use super::args::{BackendArg, LossyArgs, QuantizerArg};
use super::config_file::{by_name, check_version, parse_yaml, read_settings};
use super::entropy_config::EntropyConfig;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::pipeline::lossy::series::PruneSeries;
use crate::pipeline::lossy::settings::{
    Goal, LayerGoal, LossySettings, LossyTreatment, PruningSettings, Rule, Treatment,
};
use crate::pipeline::manifest::Manifest;
use crate::stage::{Domain, IndexBackend, Quantizer};

/// The defaults, which are also the presets' home.
const DEFAULTS: &str = include_str!("../../configs/encoder.yaml");

/// The file; `configs/encoder.yaml` documents it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossyFile {
    /// Version of the schema, 1.
    pub version: u32,
    /// Bits an element to aim at where no goal is given.
    pub base_precision: f64,
    /// Lowest mean bits an element that a ratio may lead to.
    pub minimum_precision: f64,
    /// Tensors of fewer elements stay exact.
    pub min_elements: u64,
    /// Longest time to look for one tensor's step, in seconds.
    pub timeout_seconds: f64,
    /// How indices are chosen.
    #[serde(deserialize_with = "by_name")]
    pub quantizer: QuantizerArg,
    /// How indices are stored.
    #[serde(deserialize_with = "by_name")]
    pub backend: BackendArg,
    /// Dynamic pruning.
    pub pruning: PruningFile,
    /// Rules before the presets' own.
    pub rules: Vec<RuleFile>,
    /// Presets by name.
    pub presets: BTreeMap<String, PresetFile>,
}

/// Dynamic pruning.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruningFile {
    /// Whether tensors are pruned.
    pub enabled: bool,
    /// Share of nonzero elements that pruning begins with.
    pub threshold: f64,
    /// Largest share of a tensor's elements that may newly become zero.
    pub max_drop_ratio: f64,
    /// Factor of the scheduler.
    pub decay: f64,
}

/// A goal: exactly one of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum GoalFile {
    /// Largest |x − x̂|.
    MaxAbsError(f64),
    /// Largest |x − x̂| relative to the channel's largest magnitude.
    MaxRelError(f64),
    /// Relative L2 error of each tensor.
    RelL2(f64),
    /// Mean bits an element.
    Bits(f64),
    /// Original ÷ stored.
    Ratio(f64),
}

/// A preset.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetFile {
    /// The goal.
    #[serde(with = "serde_yaml::with::singleton_map")]
    pub goal: GoalFile,
    /// Rules after the file's own.
    #[serde(default)]
    pub rules: Vec<RuleFile>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    /// Glob over tensor names.
    pub name: String,
    /// Dtypes, as checkpoint headers name them; any if left out.
    #[serde(default)]
    pub dtypes: Vec<String>,
    /// Fewest dimensions.
    #[serde(default)]
    pub min_dimensions: usize,
    /// Fewest elements.
    #[serde(default)]
    pub min_elements: u64,
    /// Whether the tensor keeps every bit.
    #[serde(default)]
    pub exact: bool,
    /// A goal of its own.
    #[serde(default, with = "serde_yaml::with::singleton_map")]
    pub goal: Option<GoalFile>,
    /// Whether it may be pruned, if other than the run's setting.
    #[serde(default)]
    pub prune: Option<bool>,
    /// The dimension that counts channels.
    #[serde(default)]
    pub channel_axis: Option<usize>,
    /// Whether the logarithm is quantized.
    #[serde(default)]
    pub log_domain: bool,
    /// Whether small tensors, single dimensions, NaN and infinity do not keep it exact.
    #[serde(default)]
    pub despite_defaults: bool,
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

impl GoalFile {
    fn goal(self) -> Result<Goal> {
        let goal = match self {
            Self::MaxAbsError(value) => Goal::MaxAbsError(value),
            Self::MaxRelError(value) => Goal::MaxRelError(value),
            Self::RelL2(value) => Goal::RelL2(value),
            Self::Bits(value) => Goal::Bits(value),
            Self::Ratio(value) => Goal::Ratio(value),
        };
        goal.check()
    }
}

impl RuleFile {
    fn rule(&self) -> Result<Rule> {
        let pattern = Pattern::new(&self.name)
            .map_err(|e| invalid(format!("rule for \"{}\": {e}", self.name.escape_debug())))?;
        let dtype = |name: &String| {
            Dtype::from_name(name)
                .ok_or_else(|| invalid(format!("unknown dtype \"{}\"", name.escape_debug())))
        };
        let goal = self.goal.map(GoalFile::goal).transpose()?;
        if goal.is_some_and(Goal::is_ratio) {
            return Err(invalid("a rule cannot have a ratio as its goal: it is one of the whole run".into()));
        }
        if self.exact && (goal.is_some() || self.log_domain || self.prune.is_some()) {
            return Err(invalid(format!(
                "rule for \"{}\" is exact and lossy at once",
                self.name.escape_debug()
            )));
        }
        let lossy = LossyTreatment {
            goal,
            prune: self.prune,
            channel_axis: self.channel_axis,
            domain: if self.log_domain { Domain::Log2 } else { Domain::Linear },
            despite_defaults: self.despite_defaults,
        };
        Ok(Rule {
            name: pattern,
            dtypes: self.dtypes.iter().map(dtype).collect::<Result<_>>()?,
            min_dimensions: self.min_dimensions,
            min_elements: self.min_elements,
            treatment: if self.exact { Treatment::Exact } else { Treatment::Lossy(lossy) },
        })
    }
}

/// The series that the run whose output is `dir` was of, with the threshold of the checkpoint after it.
fn series_in(dir: &Path, pruning: &PruningSettings) -> Result<PruneSeries> {
    let manifest = Manifest::read(dir, &Limits::default())?;
    let series = manifest.pruning.ok_or_else(|| {
        invalid("no series of pruned checkpoints to go on with; compress the first with --prune".into())
            .in_file(dir)
    })?;
    Ok(series.next(pruning))
}

impl LossyFile {
    /// The settings of `path`, or the defaults without one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a file that cannot be read or does not follow the schema.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        match path {
            None => Self::parse(DEFAULTS),
            Some(path) => {
                read_settings(path).and_then(|text| Self::parse(&text)).map_err(|e| e.in_file(path))
            }
        }
    }

    /// The settings of a file's text.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`].
    pub fn parse(text: &str) -> Result<Self> {
        let file: Self = parse_yaml(text)?;
        check_version(file.version)?;
        let share = |name: &str, value: f64, least: f64| {
            let message = format!("{name} of {value}, allowed are values from {least} to 1");
            if (least..=1.0).contains(&value) { Ok(()) } else { Err(invalid(message)) }
        };
        share("threshold", file.pruning.threshold, 0.0)?;
        share("max_drop_ratio", file.pruning.max_drop_ratio, 0.0)?;
        share("decay", file.pruning.decay, 0.01)?;
        let positive = |name: &str, value: f64| {
            let message = format!("{name} of {value}, allowed are positive numbers");
            if value.is_finite() && value > 0.0 { Ok(()) } else { Err(invalid(message)) }
        };
        positive("base_precision", file.base_precision)?;
        positive("minimum_precision", file.minimum_precision)?;
        positive("timeout_seconds", file.timeout_seconds)?;
        // Here rather than when a run asks for them, so that the errors are the file's.
        file.presets.values().try_for_each(|preset| preset.goal.goal().map(|_| ()))?;
        let rules = file.rules.iter().chain(file.presets.values().flat_map(|preset| &preset.rules));
        rules.into_iter().try_for_each(|rule| rule.rule().map(|_| ()))?;
        Ok(file)
    }

    /// What a run is asked to do: the file's settings with the flags' changes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for values out of range and presets that do not exist.
    pub fn settings(&self, flags: &LossyArgs) -> Result<LossySettings> {
        let entropy = EntropyConfig::load(flags.entropy_config.as_deref())?;
        let preset = match &flags.preset {
            None => None,
            Some(name) => Some(self.presets.get(name).ok_or_else(|| {
                let known: Vec<&str> = self.presets.keys().map(String::as_str).collect();
                invalid(format!("no preset \"{}\"; there are {}", name.escape_debug(), known.join(", ")))
            })?),
        };
        let goal = match (flags.goal(), preset) {
            (Some(goal), _) => goal.check()?,
            (None, Some(preset)) => preset.goal.goal()?,
            (None, None) => Goal::Bits(self.base_precision).check()?,
        };
        let preset_rules = preset.map(|preset| preset.rules.as_slice()).unwrap_or_default();
        let rules = self.rules.iter().chain(preset_rules).map(RuleFile::rule).collect::<Result<_>>()?;
        let pruning = PruningSettings {
            enabled: flags.prune || flags.prune_after.is_some() || self.pruning.enabled,
            threshold: self.pruning.threshold,
            max_drop_ratio: self.pruning.max_drop_ratio,
            decay: self.pruning.decay,
        };
        if !flags.layers.is_empty() && !flags.lossy && flags.layers.last() != Some(&LayerGoal::Exact) {
            let message = "the last layer is not exact, so that the archive would not hold the original; add `exact`, or \
                           --lossy if that is meant";
            return Err(invalid(message.into()));
        }
        let base = match flags.layers.as_slice() {
            [] => LossySettings::new(goal),
            layers => LossySettings::layered(layers)?,
        };
        let backend = flags.backend.unwrap_or(self.backend).into();
        let quantizer = flags.quant.unwrap_or(match self.quantizer {
            // What it saves is not saved there.
            QuantizerArg::Lattice if backend != IndexBackend::Rans => QuantizerArg::Uniform,
            quantizer => quantizer,
        });
        let settings = LossySettings {
            quantizer: quantizer.into(),
            backend,
            rules,
            prune_series: flags.prune_after.as_deref().map(|dir| series_in(dir, &pruning)).transpose()?,
            pruning,
            min_elements: self.min_elements,
            min_precision: self.minimum_precision,
            timeout_seconds: self.timeout_seconds,
            correct_rate: flags.correct_rate,
            rate_model: flags.rate_model.map(Into::into).unwrap_or_default(),
            min_bits: entropy.min_bits,
            max_bits: entropy.max_bits,
            ..base
        };
        check_effects(&settings)?;
        Ok(settings)
    }
}

/// Refuses what would silently have no effect.
fn check_effects(settings: &LossySettings) -> Result<()> {
    let lossy_rules = || {
        settings.rules.iter().filter_map(|rule| match &rule.treatment {
            Treatment::Exact => None,
            Treatment::Lossy(treatment) => {
                Some((rule, treatment.goal.unwrap_or(settings.goal), treatment.domain))
            }
        })
    };
    if settings.quantizer == Quantizer::Lattice && settings.backend != IndexBackend::Rans {
        return Err(invalid("the lattice saves nothing but with the backend rans; choose uniform".into()));
    }
    if settings.correct_rate && !settings.goal.is_rate() && !lossy_rules().any(|(_, goal, _)| goal.is_rate())
    {
        let goal = settings.goal.kind().name();
        return Err(invalid(format!("--correct-rate is for --bits and --ratio; the goal here is {goal}")));
    }
    let mut of_relative_bounds = lossy_rules().filter(|(_, goal, _)| matches!(goal, Goal::MaxRelError(_)));
    if let Some((rule, ..)) = of_relative_bounds.find(|(.., domain)| *domain == Domain::Log2) {
        return Err(invalid(format!(
            "rule for \"{}\": logarithms are not bounded relative to their channel; with log_domain the goal is best rel_l2",
            rule.name.as_str().escape_debug()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_of_the_defaults_makes_settings() {
        let file = LossyFile::load(None).unwrap();
        for preset in file.presets.keys() {
            let flags = LossyArgs { preset: Some(preset.clone()), ..LossyArgs::default() };
            file.settings(&flags).unwrap();
        }
        for preset in ["near-lossless", "balanced", "small", "adam"] {
            assert!(file.presets.contains_key(preset), "{preset}");
        }
        let unknown = LossyArgs { preset: Some("tiny".into()), ..LossyArgs::default() };
        assert_eq!(file.settings(&unknown).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn settings_have_the_effects_that_they_name() {
        let change = |from: &str, to: &str| {
            assert!(DEFAULTS.contains(from), "{from}");
            let file = LossyFile::parse(&DEFAULTS.replace(from, to)).unwrap();
            file.settings(&LossyArgs::default()).unwrap()
        };
        assert_eq!(change("base_precision: 8", "base_precision: 6").goal, Goal::Bits(6.0));
        assert_eq!(change("minimum_precision: 4", "minimum_precision: 3").min_precision, 3.0);
        assert_eq!(change("timeout_seconds: 300", "timeout_seconds: 2").timeout_seconds, 2.0);
        let pruning = PruningSettings::default();
        assert_eq!(
            change("enabled: false", "enabled: true").pruning,
            PruningSettings { enabled: true, ..pruning }
        );
        for (from, to, expected) in [
            ("threshold: 0.01", "threshold: 0.02", PruningSettings { threshold: 0.02, ..pruning }),
            (
                "max_drop_ratio: 0.25",
                "max_drop_ratio: 0.5",
                PruningSettings { max_drop_ratio: 0.5, ..pruning },
            ),
            ("decay: 0.95", "decay: 0.9", PruningSettings { decay: 0.9, ..pruning }),
        ] {
            assert_eq!(change(from, to).pruning, expected);
        }
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        let correcting = |goal: &str, rules: &str| {
            let text = DEFAULTS.replace("goal: {rel_l2: 0.01}", goal).replace("rules: []", rules);
            let flags =
                LossyArgs { preset: Some("balanced".into()), correct_rate: true, ..LossyArgs::default() };
            LossyFile::parse(&text).unwrap().settings(&flags).map_err(|e| e.kind())
        };
        assert!(correcting("goal: {bits: 4}", "rules: []").is_ok());
        assert!(correcting("goal: {rel_l2: 0.01}", "rules: [{name: \"*\", goal: {bits: 3}}]").is_ok());
        assert_eq!(correcting("goal: {rel_l2: 0.01}", "rules: []").unwrap_err(), ErrorKind::InvalidConfig);

        let logarithms = |goal: &str| {
            let rules = format!("rules: [{{name: \"*\", log_domain: true, goal: {goal}}}]");
            LossyFile::parse(&DEFAULTS.replace("rules: []", &rules)).unwrap().settings(&LossyArgs::default())
        };
        assert!(logarithms("{rel_l2: 0.1}").is_ok());
        assert_eq!(logarithms("{max_rel_error: 0.1}").unwrap_err().kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn what_breaks_the_schema_is_refused() {
        for (from, to) in [
            ("base_precision: 8", "base_precision: -1"),
            ("max_drop_ratio: 0.25", "max_drop_ratio: 1.5"),
            ("decay: 0.95", "decay: 0"),
            ("quantizer: lattice", "quantizer: best"),
            ("version: 1", "version: 2"),
            ("rules: []", "rules: [{name: \"*\", exact: true, goal: {bits: 3}}]"),
            ("rules: []", "rules: [{name: \"*\", goal: {ratio: 3}}]"),
            ("rules: []", "rules: [{name: \"***\"}]"),
            ("rules: []", "rules: [{name: \"*\", dtypes: [F99]}]"),
            ("rules: []", "rules: [{name: \"*\", goal: {rel_l2: -3}}]"),
            ("rules: []", "rules: [{nom: \"*\"}]"),
        ] {
            assert!(DEFAULTS.contains(from), "{from}");
            let settings = LossyFile::parse(&DEFAULTS.replace(from, to))
                .and_then(|file| file.settings(&LossyArgs::default()));
            assert_eq!(settings.unwrap_err().kind(), ErrorKind::InvalidConfig, "{to}");
        }
    }
}
