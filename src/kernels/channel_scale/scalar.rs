//! The definition: plain loops, which the compiler makes vectors of for whatever is enabled where they are inlined.

use super::Headroom;

/// Maxima that are kept apart.
const LANES: usize = 16;

#[inline(always)]
pub(super) fn divide(values: &mut [f32], scales: &[f32], Headroom { largest, margin }: Headroom) {
    for (x, scale) in values.iter_mut().zip(scales) {
        // Neither the element nor, on the way to it, what is multiplied by the scale.
        let scaled = *x / *scale;
        let room = largest - margin * *scale;
        // Bitwise: a branch would cost more than the work.
        let is_near = (x.abs() > if room > 0.0 { room } else { 0.0 }) | (scaled.abs() > f32::MAX - margin);
        *x = if is_near { f32::NAN } else { scaled };
    }
}

#[inline(always)]
pub(super) fn multiply(values: &mut [f32], scales: &[f32]) {
    values.iter_mut().zip(scales).for_each(|(x, scale)| *x *= *scale);
}

#[inline(always)]
pub(super) fn largest_finite(values: &[f32]) -> f32 {
    let magnitude = |x: f32| {
        let magnitude = x.abs();
        if magnitude < f32::INFINITY { magnitude } else { 0.0 }
    };
    let mut largest = [0.0f32; LANES];
    let (rows, rest) = values.as_chunks::<LANES>();
    for row in rows {
        for lane in 0..LANES {
            let magnitude = magnitude(row[lane]);
            largest[lane] = if magnitude > largest[lane] { magnitude } else { largest[lane] };
        }
    }
    rest.iter().map(|x| magnitude(*x)).chain(largest).fold(0.0, f32::max)
}
