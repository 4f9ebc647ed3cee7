//! What is no smaller quantized stays exact, and what is tried is what is coded.

use std::fs;

use alcm::Dtype;
use tempfile::tempdir;

use super::common::alcm;
use super::tensors::{FLOATS, Goal, Kind, QUANTIZERS, Tensor, check};
use super::with_rules;

#[test]
fn what_is_no_smaller_quantized_stays_exact() {
    let dir = tempdir().unwrap();
    let bell = |dtype| Tensor::new(dtype, Kind::Bell, &[200, 300], 5);
    let sparse = |dtype| Tensor::new(dtype, Kind::Sparse, &[200, 300], 6);
    let cases = [
        // Exactly it takes some 11 bits.
        (bell(Dtype::Bf16), Goal::Bits(14.0)),
        (bell(Dtype::Bf16), Goal::RelL2(1e-5)),
        (bell(Dtype::F16), Goal::RelL2(1e-6)),
        (bell(Dtype::F32), Goal::RelL2(1e-9)),
        (sparse(Dtype::Bf16), Goal::RelL2(1e-5)),
    ];
    for (tensor, goal) in cases {
        for quantizer in QUANTIZERS {
            let lossy = check(dir.path(), std::slice::from_ref(&tensor), goal, quantizer);
            alcm(dir.path(), "compress f.safetensors -o exact.alcm -q -f").assert().code(0);
            let exact = fs::read(dir.path().join("exact.alcm")).unwrap();
            // A table of what is lost, even if nothing is.
            assert!(lossy.len() <= exact.len() + 200, "{}: {} {}", tensor.name, lossy.len(), exact.len());
            alcm(dir.path(), "compare f.safetensors f.alcm -q --max-abs 0").assert().code(0);
        }
    }
}

#[test]
fn logarithms_among_zeros_lose_what_the_trial_lost() {
    let dir = tempdir().unwrap();
    let rules = with_rules(dir.path(), r#"{name: "*", log_domain: true}"#);
    for dtype in FLOATS {
        for seed in 0..4 {
            let mut tensor = Tensor::new(dtype, Kind::Sparse, &[150, 170], seed);
            // Second moments are not negative.
            let last = dtype.unit_bytes() - 1;
            tensor.bytes.iter_mut().skip(last).step_by(last + 1).for_each(|byte| *byte &= 0x7f);
            for quantizer in QUANTIZERS {
                for bound in [0.25, 0.01] {
                    let flags = format!("{quantizer} {rules}");
                    check(dir.path(), std::slice::from_ref(&tensor), Goal::RelL2(bound), &flags);
                }
            }
        }
    }
}

#[test]
fn a_rate_is_that_of_the_tensors_that_are_quantized() {
    let dir = tempdir().unwrap();
    let tensors = [
        Tensor::new(Dtype::Bf16, Kind::Bell, &[200, 300], 5),
        Tensor::new(Dtype::Bf16, Kind::Sparse, &[200, 300], 6),
        // Stored once, and no more quantized than the one it is equal to.
        Tensor { name: "tied".into(), ..Tensor::new(Dtype::Bf16, Kind::Bell, &[200, 300], 5) },
        Tensor::new(Dtype::F32, Kind::Bell, &[200, 300], 7),
    ];
    check(dir.path(), &tensors, Goal::Bits(11.0), "--correct-rate");
    let run = "compress f.safetensors -o f.alcm -q -f --lossy --bits 11 --correct-rate --json";
    let report = alcm(dir.path(), run).assert().code(0).get_output().stdout.clone();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let reached = report["rates"][0]["reached"].as_f64().unwrap();
    assert!((reached / 11.0 - 1.0).abs() < 0.005, "{report}");
    assert!(report["rate_steps"].as_u64().unwrap() > 0, "{report}");
    assert!(report["loss"]["exact_for_goal"].as_u64().unwrap() > 0, "{report}");
}
