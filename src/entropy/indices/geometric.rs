//! What indices take whose magnitudes are geometrically distributed, which is all that their sum tells.

use super::super::freq::log2_fast_q16;

/// Sums that are worked on side by side.
const LANES: usize = 16;

/// Bits of `n` indices whose magnitudes sum to `sum`, if these are geometrically distributed, in 1/65536.
pub(super) fn geometric_cost_q16(n: u64, sum: u64) -> u64 {
    let times_log2 = |x: u64| x * u64::from(log2_fast_q16(u32::try_from(x).unwrap_or(u32::MAX)));
    let signs = ((n * sum) << 16) / (n + sum).max(1);
    (times_log2(n + sum) + signs).saturating_sub(times_log2(n) + times_log2(sum))
}

/// The sum of [`geometric_cost_q16`] over `sums`, each of `n` magnitudes, to some thousandths; for many of them.
pub(super) fn geometric_costs_q16(n: u64, sums: &[u64]) -> u64 {
    let n = n as f32;
    let n_log2 = n * log2(n);
    let mut total = 0;
    for chunk in sums.chunks(LANES) {
        let mut lanes = [0f32; LANES];
        for (lane, &sum) in lanes.iter_mut().zip(chunk) {
            *lane = i32::try_from(sum).unwrap_or(i32::MAX) as f32;
        }
        for lane in &mut lanes {
            let (sum, both) = (*lane, n + *lane);
            *lane = both * log2(both) - n_log2 - sum * log2(sum) + n * sum / both;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let whole = |&bits: &f32| u64::from((bits * 64.0) as u32);
        total += lanes[..chunk.len()].iter().map(whole).sum::<u64>();
    }
    total << 10
}

/// The binary logarithm of a normal number, to 1e-6; a finite number for 0. A plain loop of it becomes one of vectors, and
/// since nothing is fused, every machine gives the same bits.
#[inline(always)]
fn log2(x: f32) -> f32 {
    // Of √½, so that what is left is near 1 on either side.
    const ORIGIN: i32 = 0x3f35_04f3;
    let bits = x.to_bits().cast_signed();
    let whole = (bits - ORIGIN) >> 23;
    let rest = f32::from_bits((bits - (whole << 23)).cast_unsigned());
    let r = (rest - 1.0) / (rest + 1.0);
    let r2 = r * r;
    // 2 ÷ ln 2 · artanh r.
    let series = 1.0 + r2 * (1.0 / 3.0 + r2 * (1.0 / 5.0 + r2 * (1.0 / 7.0)));
    whole as f32 + 2.0 * std::f32::consts::LOG2_E * r * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_costs_are_those_of_each() {
        for n in [1u64, 16, 64, 1000, 1 << 16] {
            let sums: Vec<u64> = (0..100).map(|idx| n * idx * idx / 80 + idx).collect();
            let each: u64 = sums.iter().map(|&sum| geometric_cost_q16(n, sum)).sum();
            let many = geometric_costs_q16(n, &sums);
            assert!(many.abs_diff(each) <= each / 500 + (100 << 11), "{n}: {many}, {each}");
        }
        assert_eq!(geometric_costs_q16(64, &[0; 20]), 0);
        assert_eq!(geometric_costs_q16(64, &[]), 0);
    }

    #[test]
    fn logarithms_are_right() {
        for idx in 0..4000u16 {
            let x = 1.0 + f32::from(idx) * f32::from(idx);
            let exact = f64::from(x).log2();
            assert!((f64::from(log2(x)) - exact).abs() < 4e-6, "{x}");
        }
        assert!(log2(0.0).is_finite());
    }
}
