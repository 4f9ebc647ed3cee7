//! The definition: power sums of a block about its pivot, in eight lanes.
//!
//! Plain loops over arrays of eight, so that a caller compiled for wider vectors gets them; a lane's sum is in the
//! order of its elements everywhere.

use super::{Block, LANES};

/// Elements of a chunk: one load of a 512-bit register.
const CHUNK: usize = 2 * LANES;

/// Sums of the elements of `bytes`, `N` bytes each, which `widen` turns into floats.
#[inline(always)]
pub(super) fn block<const N: usize>(bytes: &[u8], widen: impl Fn([u8; N]) -> f32 + Copy) -> Block {
    let (elements, _) = bytes.as_chunks::<N>();
    let finite = |x: f32| x.to_bits() & 0x7fff_ffff < 0x7f80_0000;
    let Some(pivot) = elements.iter().map(|element| widen(*element)).find(|x| finite(*x)) else {
        return Block { n_not_finite: elements.len(), ..Block::default() };
    };
    let mut lanes = Lanes::new(pivot);
    let (chunks, tail) = elements.as_chunks::<CHUNK>();
    for chunk in chunks {
        lanes.add(chunk.map(widen));
    }
    if !tail.is_empty() {
        // What fills the last chunk is not finite, so that it counts for nothing else.
        let mut chunk = [f32::NAN; CHUNK];
        for (x, element) in chunk.iter_mut().zip(tail) {
            *x = widen(*element);
        }
        lanes.add(chunk);
    }
    lanes.finish(if tail.is_empty() { 0 } else { CHUNK - tail.len() })
}

/// Running sums, one per lane; counts and extremes in lanes of a chunk.
struct Lanes {
    pivot: f32,
    powers: [[f64; LANES]; 4],
    abs: [f64; LANES],
    zeros: [u32; CHUNK],
    n_not_finite: [u32; CHUNK],
    min: [f32; CHUNK],
    max: [f32; CHUNK],
}

impl Lanes {
    #[inline(always)]
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

    #[inline(always)]
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
    #[inline(always)]
    fn finish(self, n_filled: usize) -> Block {
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
#[inline(always)]
fn sum(lanes: [f64; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}
