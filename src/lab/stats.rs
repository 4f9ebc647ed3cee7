//! The laboratory's formulas: score, gain, spread, robust estimates of a mean.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The report's score: `ratio ÷ (seconds + 1)`, seconds being process time of encoding.
///
/// It holds no error: a lossy figure means something only beside its error, and for a second's worth of work or less
/// it is hardly more than the ratio.
#[must_use]
pub fn caq(ratio: f64, seconds: f64) -> f64 {
    ratio / (seconds + 1.0)
}

/// `(value − baseline) ÷ baseline` in per cent.
#[must_use]
pub fn gain_percent(value: f64, baseline: f64) -> f64 {
    (value - baseline) / baseline * 100.0
}

/// Arithmetic mean; NaN for no values.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The value that `share` of the sorted values lie below, linear between neighbours (type 7 of Hyndman and Fan 1996,
/// NumPy's default); NaN for no values.
#[must_use]
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share.clamp(0.0, 1.0) * last as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within 0 and the last index"
    )]
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// The middle value, or the mean of the two in the middle; NaN for no values.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Three measures of spread that the original report calls variance in turn. None is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// (max − min) ÷ mean, per cent.
    pub range_percent: f64,
    /// Coefficient of variation, per cent: sample standard deviation (n − 1) ÷ mean.
    pub cv_percent: f64,
    /// Interquartile range ÷ median, per cent.
    pub iqr_percent: f64,
}

impl Spread {
    /// The spread of at least one positive value; a single one spreads by 0.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let mean = mean(values);
        let (low, high) = (quantile(values, 0.0), quantile(values, 1.0));
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / (values.len() as f64 - 1.0).max(1.0)).sqrt();
        let iqr = quantile(values, 0.75) - quantile(values, 0.25);
        Self {
            range_percent: (high - low) / mean * 100.0,
            cv_percent: deviation / mean * 100.0,
            iqr_percent: iqr / median(values) * 100.0,
        }
    }
}

/// Share of values that the trimmed and winsorised means take from each end.
const TAIL_SHARE: f64 = 0.1;
/// Resamples of the bootstrap.
const N_RESAMPLES: usize = 2000;
/// The seed of its random numbers.
const SEED: u64 = 42;
/// MAD of a normal distribution × this is its standard deviation.
const MAD_TO_SIGMA: f64 = 1.482_602_218_505_602;

/// Estimates of the centre of values, and how sure the mean is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Robust {
    /// Number of values.
    pub n: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// Mean without the lowest and the highest tenth, ⌊n ÷ 10⌋ values each.
    pub trimmed: f64,
    /// Mean with the lowest and the highest tenth replaced by the nearest value that is kept.
    pub winsorised: f64,
    /// Median absolute deviation from the median × 1.4826: the standard deviation, were the values normal.
    pub mad: f64,
    /// 95 % confidence interval of the mean: percentile bootstrap (Efron 1979), 2,000 resamples, ChaCha8 of seed 42.
    pub interval: (f64, f64),
}

impl Robust {
    /// The estimates for at least one value.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a tenth of a length")]
        let tail = (sorted.len() as f64 * TAIL_SHARE) as usize;
        let kept = &sorted[tail..sorted.len() - tail];
        let mut winsorised = sorted.clone();
        if let (Some(&first), Some(&last)) = (kept.first(), kept.last()) {
            winsorised[..tail].fill(first);
            winsorised[sorted.len() - tail..].fill(last);
        }
        let median = median(values);
        let deviations: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
        Self {
            n: values.len(),
            mean: mean(values),
            median,
            trimmed: mean(kept),
            winsorised: mean(&winsorised),
            mad: self::median(&deviations) * MAD_TO_SIGMA,
            interval: bootstrap(values),
        }
    }
}

fn bootstrap(values: &[f64]) -> (f64, f64) {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let n = values.len() as u64;
    let draw = |random: &mut ChaCha8Rng| {
        // The upper half of a 128-bit product: uniform to within n ÷ 2⁶⁴.
        let idx = (u128::from(random.next_u64()) * u128::from(n)) >> 64;
        usize::try_from(idx).ok().and_then(|idx| values.get(idx)).copied().unwrap_or(f64::NAN)
    };
    let means: Vec<f64> =
        (0..N_RESAMPLES).map(|_| (0..n).map(|_| draw(&mut random)).sum::<f64>() / n as f64).collect();
    (quantile(&means, 0.025), quantile(&means, 0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-9, "{value} is not {expected}");
    }

    #[test]
    fn score_and_gain_are_the_reports() {
        // By hand: 1.6 / 1.25 and (1.6 - 1.25) / 1.25.
        assert_close(caq(1.6, 0.25), 1.28);
        assert_close(gain_percent(1.6, 1.25), 28.0);
        assert_close(gain_percent(1.0, 1.25), -20.0);
    }

    #[test]
    fn spread_is_as_worked_by_hand() {
        // 1..=5: mean 3, deviation sqrt(10 / 4), quartiles 2 and 4.
        let spread = Spread::of(&[5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_close(spread.range_percent, 400.0 / 3.0);
        assert_close(spread.cv_percent, 2.5f64.sqrt() / 3.0 * 100.0);
        assert_close(spread.iqr_percent, 200.0 / 3.0);
        assert_eq!(Spread::of(&[7.0]), Spread { range_percent: 0.0, cv_percent: 0.0, iqr_percent: 0.0 });
        // Between neighbours quantiles are linear: 1, 2, 10 has quartiles 1.5 and 6.
        assert_close(quantile(&[10.0, 1.0, 2.0], 0.25), 1.5);
        assert_close(quantile(&[10.0, 1.0, 2.0], 0.75), 6.0);
    }

    #[test]
    fn robust_estimates_are_as_worked_by_hand() {
        // Ten values: a tenth of each end is one of them. Kept: 2..=9, their mean 5.5.
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 1000.0];
        let robust = Robust::of(&values);
        assert_eq!(robust.n, 10);
        assert_close(robust.mean, 104.5);
        assert_close(robust.median, 5.5);
        assert_close(robust.trimmed, 5.5);
        // 2, 2, 3, ..., 9, 9: 55 in all.
        assert_close(robust.winsorised, 5.5);
        // Deviations 0.5, 0.5, 1.5, 1.5, 2.5, 2.5, 3.5, 3.5, 4.5, 994.5: the median is 2.5.
        assert_close(robust.mad, 2.5 * MAD_TO_SIGMA);
        assert!(robust.interval.0 < robust.mean && robust.mean < robust.interval.1);
    }

    #[test]
    fn the_bootstrap_finds_the_error_of_a_mean() {
        // 400 values of a uniform distribution over 0..1: the mean's error is sqrt(1/12/400) = 0.01443.
        let values: Vec<f64> = (0..400).map(|idx| (f64::from(idx) * 0.618_033_988_75).fract()).collect();
        let (low, high) = bootstrap(&values);
        assert!((high - low - 2.0 * 1.96 * 0.014_43).abs() < 0.004, "{low} to {high}");
        assert_eq!(bootstrap(&values), (low, high), "the same values have the same interval");
        assert_eq!(bootstrap(&[2.0, 2.0]), (2.0, 2.0));
    }
}
