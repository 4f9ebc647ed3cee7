//! The definition: power sums of a block about its pivot, in eight lanes.
//!
//! Element i of a block goes to lane i mod 8, in the order of the elements.

use super::{Block, CHUNK, LANES, padded, padding};

/// Power sums of `values` about `pivot`.
pub(super) fn block(pivot: f32, values: &[f32]) -> Block {
    let mut lanes = Lanes::new(pivot);
    let (chunks, tail) = values.as_chunks::<CHUNK>();
    for chunk in chunks {
        lanes.add(*chunk);
    }
    if !tail.is_empty() {
        lanes.add(padded(tail));
    }
    lanes.finish(padding(values.len()))
}

/// Running sums, one per lane; counts and extremes in lanes of a chunk.
pub(super) struct Lanes {
    pub(super) pivot: f32,
    pub(super) powers: [[f64; LANES]; 4],
    pub(super) abs: [f64; LANES],
    pub(super) zeros: [u32; CHUNK],
    pub(super) n_not_finite: [u32; CHUNK],
    pub(super) min: [f32; CHUNK],
    pub(super) max: [f32; CHUNK],
}

impl Lanes {
    fn new(pivot: f32) -> Self {
        Self {
            pivot,
            powers: [[0.0; LANES]; 4],
            abs: [0.0; LANES],
            zeros: [0; CHUNK],
            n_not_finite: [0; CHUNK],
            min: [pivot; CHUNK],
            max: [pivot; CHUNK],
        }
    }

    fn add(&mut self, mut chunk: [f32; CHUNK]) {
        for (lane, x) in chunk.iter_mut().enumerate() {
            self.zeros[lane] += u32::from(*x == 0.0);
            let finite = x.to_bits() & 0x7fff_ffff < 0x7f80_0000;
            self.n_not_finite[lane] += u32::from(!finite);
            *x = if finite { *x } else { self.pivot };
            self.min[lane] = if *x < self.min[lane] { *x } else { self.min[lane] };
            self.max[lane] = if *x > self.max[lane] { *x } else { self.max[lane] };
        }
        let (halves, _) = chunk.as_chunks::<LANES>();
        let pivot = f64::from(self.pivot);
        for half in halves {
            for (lane, x) in half.iter().enumerate() {
                let x = f64::from(*x);
                let d = x - pivot;
                let d2 = d * d;
                self.abs[lane] += x.abs();
                self.powers[0][lane] += d;
                self.powers[1][lane] += d2;
                self.powers[2][lane] += d2 * d;
                self.powers[3][lane] += d2 * d2;
            }
        }
    }

    /// The lanes' sums, `n_filled` lanes of the last chunk having held no element.
    pub(super) fn finish(self, n_filled: usize) -> Block {
        let count = |lanes: [u32; CHUNK]| lanes.iter().map(|n| *n as usize).sum::<usize>();
        let n_not_finite = count(self.n_not_finite);
        // The pivot stood in for them.
        let abs = sum(self.abs) - n_not_finite as f64 * f64::from(self.pivot).abs();
        Block {
            pivot: f64::from(self.pivot),
            powers: self.powers.map(sum),
            abs,
            zeros: count(self.zeros),
            n_not_finite: n_not_finite - n_filled,
            min: self.min.into_iter().fold(self.pivot, f32::min),
            max: self.max.into_iter().fold(self.pivot, f32::max),
        }
    }
}

/// The sum of the lanes, by halves.
fn sum(lanes: [f64; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}
