//! The predictor's settings file (YAML): what training and rate control take from it.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::config_file::{check_version, parse_yaml, read_settings};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::train::TrainOptions;
use crate::quantize::predictor::train::TrainSettings;

/// Longest timeout that may be asked for: a year.
const MAX_TIMEOUT_SECONDS: f64 = 31_536_000.0;

/// The settings that the file may hold; `configs/entropy.yaml` documents them.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EntropyConfig {
    /// Version of the schema; must be present in a file, and 1.
    pub version: u32,
    /// Hidden units.
    pub hidden_size: usize,
    /// Learning rate of the first epoch.
    pub learning_rate: f64,
    /// Passes over the samples.
    pub epochs: u32,
    /// Learning rate of an epoch relative to the one before.
    pub decay: f64,
    /// Least bits per element of a channel, as a fraction of the mean aimed at.
    pub min_bits: f64,
    /// Most bits per element of a channel, as a fraction of the element's width.
    pub max_bits: f64,
    /// Longest training, in seconds.
    pub timeout_seconds: f64,
    /// Start of the random numbers.
    pub seed: u64,
}

impl Default for EntropyConfig {
    fn default() -> Self {
        let settings = TrainSettings::default();
        Self {
            version: 0,
            hidden_size: settings.hidden_size,
            learning_rate: settings.learning_rate,
            epochs: settings.epochs,
            decay: settings.decay,
            min_bits: 0.2,
            max_bits: 0.9,
            timeout_seconds: 300.0,
            seed: settings.seed,
        }
    }
}

impl EntropyConfig {
    /// The settings of `path`, or the defaults without one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a file that cannot be read or does not follow the schema.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        match path {
            None => Ok(Self { version: 1, ..Self::default() }),
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
        let invalid = |message: String| Error::new(ErrorKind::InvalidConfig, message);
        let config: Self = parse_yaml(text)?;
        check_version(config.version)?;
        let Self { min_bits, max_bits, timeout_seconds, .. } = config;
        if !(0.0 <= min_bits && min_bits <= max_bits && max_bits <= 1.0) {
            let message = format!("min_bits {min_bits} and max_bits {max_bits}, must be 0 ≤ min ≤ max ≤ 1");
            return Err(invalid(message));
        }
        if !(0.0..=MAX_TIMEOUT_SECONDS).contains(&timeout_seconds) {
            let message = format!("timeout of {timeout_seconds} s, must be 0 to {MAX_TIMEOUT_SECONDS}");
            return Err(invalid(message));
        }
        config.train_options().settings.check()?;
        Ok(config)
    }

    /// What training takes.
    #[must_use]
    pub fn train_options(&self) -> TrainOptions {
        TrainOptions {
            settings: TrainSettings {
                hidden_size: self.hidden_size,
                learning_rate: self.learning_rate,
                epochs: self.epochs,
                decay: self.decay,
                seed: self.seed,
            },
            timeout: Duration::from_secs_f64(self.timeout_seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_defaults_are_the_built_in_ones() {
        let text = include_str!("../../configs/entropy.yaml");
        assert_eq!(EntropyConfig::parse(text).unwrap(), EntropyConfig::load(None).unwrap());
        let debug = format!("{:?}", EntropyConfig::default());
        for field in debug.split(['{', ',']).skip(1).filter_map(|part| part.split(':').next()) {
            let key = format!("\n{}:", field.trim());
            assert!(text.contains(&key), "{key}");
        }
    }

    #[test]
    fn every_setting_is_handed_on() {
        let text = "version: 1\nhidden_size: 8\nlearning_rate: 0.01\nepochs: 2\ndecay: 0.5\nmin_bits: 0.1\n\
                    max_bits: 0.3\ntimeout_seconds: 1.5\nseed: 7";
        let config = EntropyConfig::parse(text).unwrap();
        let settings = TrainSettings { hidden_size: 8, learning_rate: 0.01, epochs: 2, decay: 0.5, seed: 7 };
        let timeout = Duration::from_millis(1500);
        assert_eq!(config.train_options(), TrainOptions { settings, timeout });
        assert_eq!((config.min_bits, config.max_bits), (0.1, 0.3));
    }

    #[test]
    fn unknown_keys_and_values_out_of_range_are_refused() {
        for text in [
            "version: 1\nhidden: 64",
            "hidden_size: 64",
            "version: 1\nhidden_size: 0",
            "version: 1\nlearning_rate: 0",
            "version: 1\nepochs: 0",
            "version: 1\ndecay: 1.1",
            "version: 1\nmin_bits: 0.95",
            "version: 1\nmax_bits: 1.5",
            "version: 1\ntimeout_seconds: -1",
            "version: 1\ntimeout_seconds: .nan",
        ] {
            assert_eq!(EntropyConfig::parse(text).unwrap_err().kind(), ErrorKind::InvalidConfig, "{text}");
        }
    }
}
