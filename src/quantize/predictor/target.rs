//! What is to be predicted: the entropy of a unit's indices, counted.

use crate::quantize::elementary::{LOG2_E, log2};

/// Widest range of indices that is counted.
const MAX_RANGE: usize = 1 << 22;

/// Counted entropy of indices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    /// Bits per element, corrected for the sample's size.
    pub bits: f64,
    /// Different indices among them.
    pub n_symbols: usize,
}

/// The order-0 entropy of `values` ÷ `step`, rounded to nearest (ties to even), in bits per element, with the
/// correction of Miller (1955) and Madow (1948), (K − 1) ÷ 2n nats for K symbols among n elements: the counts of a
/// sample are more uneven than what it was drawn from.
///
/// `None` where a value is not finite, none is given, or the indices span more than 2^22.
#[must_use]
pub fn counted_bits(values: &[f32], step: f64) -> Option<Counted> {
    if values.is_empty() || values.iter().any(|x| !x.is_finite()) {
        return None;
    }
    let index = |x: f32| (f64::from(x) / step).round_ties_even();
    let (low, high) = values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(index(*x)), high.max(index(*x))));
    // A step of 0 or NaN makes the range NaN.
    if (high - low).is_nan() || high - low >= MAX_RANGE as f64 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
    let slot = |x: f32| (index(x) - low) as usize;
    let mut counts = vec![0u32; slot_count(high - low)];
    for value in values {
        counts[slot(*value)] += 1;
    }
    let n = values.len() as f64;
    let used = counts.iter().filter(|count| **count > 0);
    let n_symbols = used.clone().count();
    let sum: f64 = used.map(|count| f64::from(*count) * log2(f64::from(*count))).sum();
    let correction = (n_symbols - 1) as f64 * LOG2_E / (2.0 * n);
    Some(Counted { bits: log2(n) - sum / n + correction, n_symbols })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below MAX_RANGE")]
fn slot_count(range: f64) -> usize {
    range as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_entropies() {
        let values: Vec<f32> = (0..4096).map(|i| (i % 4) as f32).collect();
        let counted = counted_bits(&values, 1.0).unwrap();
        assert_eq!(counted.n_symbols, 4);
        assert!((counted.bits - 2.0 - 3.0 * LOG2_E / 8192.0).abs() < 1e-12);
        // 0, 1, 2, 3 at a step of 2 are 0, 0.5, 1, 1.5: ties go to 0 and 2.
        let halved = counted_bits(&values, 2.0).unwrap();
        assert!((halved.bits - 1.5).abs() < 1e-3 && halved.n_symbols == 3, "{halved:?}");
        assert_eq!(counted_bits(&[f32::NAN], 1.0), None);
        assert_eq!(counted_bits(&[], 1.0), None);
        assert_eq!(counted_bits(&[0.0, 1.0], 1e-9), None);
        assert_eq!(counted_bits(&[5.0], 1.0).unwrap().bits, 0.0);
    }
}
