//! What indices take whose magnitudes are geometrically distributed, which is all that their sum tells.

use super::super::freq::log2_fast_q16;
use crate::kernels::Isa;
use crate::kernels::log_domain::log2;

/// Sums that are worked on side by side.
const LANES: usize = 64;

/// Bits of `n` indices whose magnitudes sum to `sum`, if these are geometrically distributed, in 1/65536.
pub(super) fn geometric_cost_q16(n: u64, sum: u64) -> u64 {
    let times_log2 = |x: u64| x * u64::from(log2_fast_q16(u32::try_from(x).unwrap_or(u32::MAX)));
    let signs = ((n * sum) << 16) / (n + sum).max(1);
    (times_log2(n + sum) + signs).saturating_sub(times_log2(n) + times_log2(sum))
}

/// The sum of [`geometric_cost_q16`] over `sums`, each of `n` magnitudes, to some thousandths; for many of them.
pub(super) fn geometric_costs_q16(isa: Isa, n: u64, sums: &[u64]) -> u64 {
    let n = n as f32;
    let mut n_log2 = [0.0];
    log2(Isa::Scalar, &[n], &mut n_log2);
    let n_log2 = n * n_log2[0];
    let mut total = 0;
    for chunk in sums.chunks(LANES) {
        let (mut own, mut logs, mut logs_of_both) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
        for (own, &sum) in own.iter_mut().zip(chunk) {
            *own = i32::try_from(sum).unwrap_or(i32::MAX) as f32;
        }
        // Nothing times the logarithm of 1 is nothing, too.
        log2(isa, &own.map(|sum| sum.max(1.0)), &mut logs);
        log2(isa, &own.map(|sum| n + sum), &mut logs_of_both);
        for ((&sum, &log), &log_of_both) in own.iter().zip(&logs).zip(&logs_of_both).take(chunk.len()) {
            let both = n + sum;
            let bits = both * log_of_both - n_log2 - sum * log + n * sum / both;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
            let whole = (bits * 64.0) as u32;
            total += u64::from(whole);
        }
    }
    total << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_costs_are_those_of_each() {
        for n in [1u64, 16, 64, 1000, 1 << 16] {
            let sums: Vec<u64> = (0..100).map(|idx| n * idx * idx / 80 + idx).collect();
            let each: u64 = sums.iter().map(|&sum| geometric_cost_q16(n, sum)).sum();
            let many = geometric_costs_q16(Isa::detect(), n, &sums);
            assert_eq!(many, geometric_costs_q16(Isa::Scalar, n, &sums));
            assert!(many.abs_diff(each) <= each / 500 + (100 << 11), "{n}: {many}, {each}");
        }
        assert_eq!(geometric_costs_q16(Isa::detect(), 64, &[0; 20]), 0);
        assert_eq!(geometric_costs_q16(Isa::detect(), 64, &[]), 0);
    }
}
