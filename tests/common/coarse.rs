//! The fixture of a coarse layer.

use alcm::Dtype;
use alcm::kernels::dyadic::{self, FloatFormat, Grid};
use alcm::stage::{Coding, LayerStep};

use super::fixtures::{Fixture, Random, fixture};

/// The step of `coarse-bf16`: 2^-8 for the first 300 elements, twice that for the others.
pub(crate) const COARSE_STEP: LayerStep = LayerStep { log2: 125, finer_len: 300 };

/// Elements in the middle of cells, so that a coarse layer leaves them as they are; two that are not finite.
pub(crate) fn coarse_fixture() -> Fixture {
    let mut random = Random::new(40);
    let mut indices: Vec<i32> = (0..500).map(|_| (random.bell() * 9.0) as i32).collect();
    (indices[77], indices[78]) = (dyadic::ESCAPE, dyadic::ESCAPE);
    let mut bytes = [0x80, 0x7f, 0xc1, 0xff].repeat(250);
    let format = FloatFormat::of(Dtype::Bf16).unwrap();
    let LayerStep { log2, finer_len } = COARSE_STEP;
    for (step, range) in [(log2, 0..finer_len), (log2 + 1, finer_len..500)] {
        let grid = Grid::new(format, step.into(), [128; 2]).unwrap();
        dyadic::values(
            alcm::kernels::Isa::Scalar,
            &grid,
            &indices[range.clone()],
            &mut bytes[2 * range.start..2 * range.end],
        )
        .unwrap();
    }
    fixture("coarse-bf16", Dtype::Bf16, Coding::Coarse, bytes)
}
