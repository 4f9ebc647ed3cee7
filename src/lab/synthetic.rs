//! The ten synthetic gradients of the original report: 100×100 single-precision numbers each, bit for bit.

use super::numpy_legacy::RandomState;

/// How many tensors there are, one for each epoch of the report.
pub const N_EPOCHS: u32 = 10;
/// Their shape.
pub const SHAPE: [u64; 2] = [100, 100];

/// Elements of a tensor.
const N_ELEMENTS: usize = 10_000;
/// Seed of epoch 1, less 1.
const SEED_OFFSET: u32 = 42;
/// Uniform numbers up to this one make an element zero.
const ZERO_SHARE: f64 = 0.3;

/// The tensor of `epoch`, from 1 on: normal numbers rounded to single precision, each multiplied by 0 where the uniform
/// number of the same place, drawn after all of them, is at most 0.3. Negative numbers become −0.0 by that.
#[must_use]
pub fn gradients(epoch: u32) -> Vec<f32> {
    let mut random = RandomState::new(epoch.wrapping_add(SEED_OFFSET));
    #[expect(clippy::cast_possible_truncation, reason = "rounded to single precision, as the report does")]
    let mut values: Vec<f32> = (0..N_ELEMENTS).map(|_| random.randn() as f32).collect();
    for value in &mut values {
        *value *= if random.rand() > ZERO_SHARE { 1.0 } else { 0.0 };
    }
    values
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::dtype::Dtype;
    use crate::kernels::Isa;
    use crate::pipeline::tensor::{Tensor, TensorGoal, TensorMode, compress_tensor};
    use crate::stage::Quantizer;

    /// SHA-256 of the little-endian elements in C order, as NumPy 2.4.6 made them.
    const SHA256: [&str; N_EPOCHS as usize] = [
        "5c5f057e09ac7130f6a236e516209c9942b7558a6e77d6ac39f0f6e444c9540e",
        "0b99d1079cb950eae26e78aaf7580f227c891f7024ad26b1712219470f9565c6",
        "acd9f00a6995e99e2d252eddeeb7f9c3c0808d4b81f8d90aeeb2671e58ceb830",
        "a7379961a3184346cdbd299b55bef428a47d4df0ef6400671b3384b7e10e1f35",
        "314484b0b3023baa5f04e99202c13eac2c12ceb6f73d5234685e382876b0e79d",
        "bbf2d0856800b4b5638a230e764ead44a3585f3af48ba6dec4c6b64c447927b5",
        "e47316d715d87cc838c7d9f549538ab613cb3642fbe3652e479376c41b892d8f",
        "e8557aa2fb15ef4ea30da5cfb66e3f1aa01a86d003999672ede8ab4f7f7e2c79",
        "0750f50c0d04c580753fb849b38e74f58c89c25549bca7e221b9000c23884937",
        "96666b7953ee060de82d71f2810d82bd7eda6190088ea83bde63ee976107b612",
    ];

    #[test]
    fn tensors_are_the_reports_own() {
        for (epoch, expected) in (1..=N_EPOCHS).zip(SHA256) {
            let values = gradients(epoch);
            assert_eq!(values.len() as u64, SHAPE.iter().product::<u64>());
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(sum, expected, "epoch {epoch}");
        }
    }

    /// What the ten tensors must reach on average, all bytes counted. Bounds for exact coding are the entropies of
    /// their source, 1.6229 and 1.6480; the goal of the lossy case is the error of the original report.
    #[test]
    fn ratios_reach_their_bars() {
        let lossy = TensorMode::Lossy(TensorGoal::RelL2(0.0157), Quantizer::Trellis);
        let cases = [
            ("exact", TensorMode::Exact, 1.6141),
            ("exact, -0.0 as +0.0", TensorMode::FoldNegativeZeros, 1.6388),
            ("relative L2 of 0.0157", lossy, 6.13),
        ];
        for (name, mode, bar) in cases {
            let mut sizes = Vec::new();
            for epoch in 1..=N_EPOCHS {
                let bytes: Vec<u8> = gradients(epoch).iter().flat_map(|value| value.to_le_bytes()).collect();
                let tensor = Tensor { dtype: Dtype::F32, shape: &SHAPE, bytes: &bytes };
                // It decodes and measures what it gives.
                let made = compress_tensor(Isa::detect(), tensor, mode).unwrap();
                assert!(made.errors.relative_l2() <= if mode == lossy { 0.0157 } else { 0.0 });
                assert_eq!(made.is_exact, mode == TensorMode::Exact);
                sizes.push(made.frame.len());
            }
            let ratio = sizes.iter().map(|&size| 40_000.0 / size as f64).sum::<f64>() / 10.0;
            println!("{name}: {sizes:?}, mean ratio {ratio:.4}");
            assert!(ratio >= bar, "{name}: {ratio}");
        }
    }
}
