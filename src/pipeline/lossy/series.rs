//! The scheduler of pruning: over checkpoints of a series, compressed one after the other, the threshold climbs the
//! score.
//!
//! A step to the next checkpoint multiplies the threshold by `decay` or divides it. As long as the score is better than
//! at the start of the window the direction stays; otherwise it turns, and the window begins anew where it turned. The
//! score is that of a tensor's saving: bits without pruning over bits with it, at the same error. Both
//! are of the same checkpoint, so that what training does to the weights is no part of it, and neither is the clock.

use serde::{Deserialize, Serialize};

use super::settings::PruningSettings;
use crate::error::{Error, ErrorKind, Result};

/// Scores that the window holds at most.
pub const WINDOW_LEN: usize = 5;
/// The threshold stays within this factor of the one that the settings begin with.
const MAX_FACTOR: f64 = 10.0;
/// What shares and scores are counted in: they stand in the manifest as whole numbers.
const BILLION: f64 = 1e9;

/// What the next checkpoint of a series needs to know of those before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneSeries {
    /// The threshold of this checkpoint: share of a tensor's nonzero elements, in billionths, 0 to 10⁹.
    pub threshold_ppb: u64,
    /// Whether the threshold is on its way up.
    pub is_rising: bool,
    /// Scores since the direction last turned, in billionths, this checkpoint's last; at most [`WINDOW_LEN`].
    pub scores_ppb: Vec<u64>,
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what u64 holds")]
fn to_ppb(value: f64) -> u64 {
    (value * BILLION).round().clamp(0.0, 1e18) as u64
}

impl PruneSeries {
    /// A series that has no checkpoint yet. Its threshold goes down first: careful pruning is nearer to none.
    #[must_use]
    pub fn new(settings: &PruningSettings) -> Self {
        Self { threshold_ppb: to_ppb(settings.threshold), is_rising: false, scores_ppb: Vec::new() }
    }

    /// The threshold, as a share of a tensor's nonzero elements.
    #[must_use]
    pub fn threshold(&self) -> f64 {
        self.threshold_ppb as f64 / BILLION
    }

    /// The series for the checkpoint after this one, with the threshold that it is to be pruned with.
    #[must_use]
    pub fn next(mut self, settings: &PruningSettings) -> Self {
        if let [first, .., newest] = self.scores_ppb[..]
            && newest <= first
        {
            self.is_rising = !self.is_rising;
            self.scores_ppb = vec![newest];
        }
        let factor = if self.is_rising { 1.0 / settings.decay } else { settings.decay };
        let least = settings.threshold / MAX_FACTOR;
        let most = (settings.threshold * MAX_FACTOR).min(1.0);
        self.threshold_ppb = to_ppb((self.threshold() * factor).clamp(least, most));
        self
    }

    /// The series with the score of its newest checkpoint.
    #[must_use]
    pub fn scored(mut self, score: f64) -> Self {
        self.scores_ppb.push(to_ppb(score));
        let excess = self.scores_ppb.len().saturating_sub(WINDOW_LEN);
        self.scores_ppb.drain(..excess);
        self
    }

    /// Checks what a manifest says.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for numbers out of range.
    pub fn check(&self) -> Result<()> {
        if self.threshold_ppb as f64 <= BILLION && (1..=WINDOW_LEN).contains(&self.scores_ppb.len()) {
            return Ok(());
        }
        let message = format!(
            "manifest has a pruning threshold of {} billionths and {} scores, allowed are 0 to 10^9 and 1 to {WINDOW_LEN}",
            self.threshold_ppb,
            self.scores_ppb.len()
        );
        Err(Error::new(ErrorKind::Corrupt, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: PruningSettings =
        PruningSettings { enabled: true, threshold: 0.01, max_drop_ratio: 0.25, decay: 0.5 };

    /// Thresholds, in ten-thousandths, of a series whose scores are a function of them.
    fn run(settings: &PruningSettings, n: usize, score: impl Fn(f64) -> f64) -> Vec<f64> {
        let mut series = PruneSeries::new(settings);
        let mut thresholds = Vec::new();
        for _ in 0..n {
            thresholds.push(series.threshold() * 1e4);
            series = series.clone().scored(score(series.threshold()));
            series.check().unwrap();
            series = series.next(settings);
        }
        thresholds
    }

    #[test]
    fn the_threshold_moves_to_where_the_score_is_best() {
        let low = run(&SETTINGS, 6, |threshold| 1.0 - threshold);
        assert_eq!(low, [100.0, 50.0, 25.0, 12.5, 10.0, 10.0]);
        let high = run(&SETTINGS, 8, |threshold| 1.0 + threshold);
        assert_eq!(high, [100.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1000.0, 1000.0]);
        // Between, it swings about the best: the window has to fall below its start before it turns.
        let between = run(&SETTINGS, 40, |threshold| 5.0 - (threshold / 0.03).ln().abs());
        let (below, above): (Vec<f64>, Vec<f64>) = between[3..].iter().partition(|t| **t < 300.0);
        assert!(below.len() > 5 && above.len() > 5, "{between:?}");
    }

    #[test]
    fn decay_sets_the_pace() {
        let slow = run(&PruningSettings { decay: 0.95, ..SETTINGS }, 3, |threshold| 1.0 - threshold);
        assert_eq!(slow, [100.0, 95.0, 90.25]);
        assert_eq!(run(&PruningSettings { decay: 1.0, ..SETTINGS }, 4, |_| 1.0), [100.0; 4]);
    }

    #[test]
    fn the_window_is_bounded_and_held_to_its_range() {
        let mut series = PruneSeries::new(&SETTINGS);
        assert!(series.check().is_err());
        for score in 0..9 {
            series = series.scored(f64::from(score));
        }
        assert_eq!(series.scores_ppb, [4, 5, 6, 7, 8].map(|score| score * 1_000_000_000));
        series.threshold_ppb = 1_000_000_001;
        assert!(series.check().is_err());
    }
}
