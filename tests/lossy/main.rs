//! The promise of lossy archives: for any tensor the error of what decompress gives is within the declared bound, or
//! the tensor is exact; and the archive is the same for every thread count and instruction set.
//!
//! Errors are computed here from the restored file, independently of what the program reports.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod layers;
mod rates;
mod tensors;
mod worth;

use std::fs;
use std::path::Path;

use alcm::Dtype;
use common::fixtures::{Random, isas};
use common::{alcm, checkpoint, weights};
use serde_json::Value;
use tempfile::tempdir;
use tensors::{FLOATS, Goal, KINDS, Kind, QUANTIZERS, Tensor, check, every_kind, file_of};

#[test]
fn every_kind_of_tensor_keeps_to_the_bound() {
    let dir = tempdir().unwrap();
    let goals = [
        Goal::MaxAbs(1e-3),
        Goal::MaxAbs(1e-30),
        Goal::MaxAbs(1e6),
        Goal::MaxRel(0.02),
        Goal::MaxRel(1e-5),
        Goal::RelL2(0.3),
        Goal::RelL2(0.01),
        Goal::RelL2(1e-7),
        Goal::Bits(3.0),
        Goal::Unbounded("--preset near-lossless"),
        Goal::Unbounded("--preset balanced"),
        Goal::Unbounded("--preset small"),
    ];
    for dtype in FLOATS {
        let tensors = every_kind(dtype);
        for goal in goals {
            for quantizer in QUANTIZERS {
                check(dir.path(), &tensors, goal, quantizer);
            }
        }
    }
}

/// Writes the shipped settings with `rules` to `dir`, and gives the argument that names them.
fn with_rules(dir: &Path, rules: &str) -> String {
    let shipped =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/encoder.yaml")).unwrap();
    let settings = shipped.replacen("\nrules: []\n", &format!("\nrules: [{rules}]\n"), 1);
    assert_ne!(settings, shipped);
    fs::write(dir.join("rules.yaml"), settings).unwrap();
    "--lossy-config rules.yaml".to_owned()
}

#[test]
fn a_rule_may_take_any_tensor_and_the_bound_holds_all_the_same() {
    let dir = tempdir().unwrap();
    let rules = with_rules(dir.path(), r#"{name: "*", despite_defaults: true}"#);
    for dtype in FLOATS {
        let mut tensors = every_kind(dtype);
        tensors.extend(
            [[1, 2], [2, 1], [3, 5], [1, 33], [31, 1], [7, 9]]
                .map(|shape| Tensor::new(dtype, Kind::NonFinite, &shape, 55)),
        );
        // A channel of a vector is not what this file's check takes for one.
        tensors.retain(|tensor| tensor.shape.len() != 1);
        for goal in [Goal::MaxAbs(1e-3), Goal::MaxRel(0.02), Goal::RelL2(0.05), Goal::RelL2(1e-7)] {
            for quantizer in QUANTIZERS {
                check(dir.path(), &tensors, goal, &format!("{quantizer} {rules}"));
            }
        }
    }
}

#[test]
fn tensors_with_what_is_not_finite_are_exact_by_default() {
    let dir = tempdir().unwrap();
    let kinds = [Kind::NonFinite, Kind::NonFiniteRow];
    let tensors = kinds.map(|kind| Tensor::new(Dtype::F32, kind, &[100, 100], 3));
    check(dir.path(), &tensors, Goal::RelL2(0.1), "");
    alcm(dir.path(), "compare f.safetensors f.alcm -q --max-abs 0").assert().code(0);
    // And not where a rule says otherwise.
    let rules = with_rules(dir.path(), r#"{name: "*", despite_defaults: true}"#);
    check(dir.path(), &tensors, Goal::RelL2(0.1), &rules);
    alcm(dir.path(), "compare f.safetensors f.alcm -q --max-rel-l2 0.01").assert().code(1);
}

#[test]
fn rules_keep_tensors_exact_and_give_goals_of_their_own() {
    let dir = tempdir().unwrap();
    let tensor =
        |name: &str| Tensor { name: name.into(), ..Tensor::new(Dtype::F32, Kind::Bell, &[80, 90], 3) };
    let tensors = ["kept.w", "coarse.w", "w"].map(tensor);
    let rules = r#"{name: "kept.*", exact: true}, {name: "coarse.*", goal: {rel_l2: 0.3}}"#;
    let rules = with_rules(dir.path(), rules);
    check(dir.path(), &tensors, Goal::RelL2(0.5), &format!("{rules} --backend rans"));
    check(dir.path(), &tensors[..2], Goal::RelL2(0.3), &rules);
    check(dir.path(), &tensors[2..], Goal::RelL2(0.01), &rules);
    check(dir.path(), &tensors, Goal::RelL2(0.01 + 0.3), &rules);
    let found = alcm(dir.path(), "compare f.safetensors f.alcm --json").assert().code(0).get_output().clone();
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let error = |idx: usize| found["files"][0]["tensors"][idx]["relative_l2"].as_f64().unwrap();
    assert!(error(0) == 0.0 && error(1) > 0.1 && error(2) > 0.1, "{found}");
}

#[test]
fn adam_states_keep_their_signs_and_zeros() {
    let dir = tempdir().unwrap();
    let tensors: Vec<Tensor> = [
        ("model.w", Kind::Bell, Dtype::F32),
        ("optimizer.m.w", Kind::Bell, Dtype::F32),
        ("optimizer.v.w", Kind::Positive, Dtype::F32),
        ("optimizer.v.sparse", Kind::ZeroRows, Dtype::F32),
    ]
    .map(|(name, kind, dtype)| {
        let mut tensor = Tensor::new(dtype, kind, &[120, 130], 9);
        if name.contains(".v.") {
            // Second moments are not negative.
            tensor.bytes.iter_mut().skip(3).step_by(4).for_each(|byte| *byte &= 0x7f);
        }
        Tensor { name: name.to_owned(), ..tensor }
    })
    .into();
    let archive = check(dir.path(), &tensors, Goal::Unbounded("--preset adam"), "");
    let file = file_of(&tensors);
    let restored = fs::read(dir.path().join("back.safetensors")).unwrap();
    let tensor_bytes = tensors[0].bytes.len();
    let tensor = |file: &[u8], idx: usize| -> Vec<f32> {
        let start = file.len() - (4 - idx) * tensor_bytes;
        let elements = file[start..start + tensor_bytes].chunks_exact(4);
        elements.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    };
    assert!(tensor(&file, 0) == tensor(&restored, 0), "weights are exact");
    assert!(tensor(&file, 1) != tensor(&restored, 1), "moments are not");
    for idx in [2, 3] {
        for (x, y) in tensor(&file, idx).iter().zip(tensor(&restored, idx)) {
            assert!(y >= 0.0 && (*x == 0.0) == (y == 0.0), "{x:e} became {y:e}");
        }
    }
    assert!(archive.len() < file.len() * 5 / 8);
}

#[test]
fn backends_restore_the_same_values() {
    let dir = tempdir().unwrap();
    let tensors = every_kind(Dtype::F32);
    // The lattice is for rANS alone.
    for quantizer in &QUANTIZERS[1..] {
        check(dir.path(), &tensors, Goal::RelL2(0.05), quantizer);
        let expected = fs::read(dir.path().join("back.safetensors")).unwrap();
        for backend in ["deflate", "zstd"] {
            check(dir.path(), &tensors, Goal::RelL2(0.05), &format!("{quantizer} --backend {backend}"));
            assert!(
                fs::read(dir.path().join("back.safetensors")).unwrap() == expected,
                "{backend} {quantizer}"
            );
        }
    }
}

#[test]
fn pruning_keeps_to_the_bound_and_to_its_largest_share() {
    let dir = tempdir().unwrap();
    let tensors = every_kind(Dtype::F32);
    for goal in [Goal::RelL2(0.05), Goal::RelL2(0.02)] {
        let newly_zero = |arguments: &str| -> Vec<f64> {
            check(dir.path(), &tensors, goal, arguments);
            let found = alcm(dir.path(), "compare f.safetensors f.alcm --json").assert().code(0);
            let found: Value = serde_json::from_slice(&found.get_output().stdout).unwrap();
            let tensors = found["files"][0]["tensors"].as_array().unwrap();
            tensors.iter().map(|tensor| tensor["newly_zero_share"].as_f64().unwrap()).collect()
        };
        // Rounding alone makes zeros of what is far below the step.
        for (rounded, pruned) in newly_zero("").iter().zip(newly_zero("--prune")) {
            assert!(pruned <= rounded.max(0.25), "{goal:?}: {pruned} of a tensor, {rounded} without pruning");
        }
    }
}

#[test]
fn what_is_no_float_is_exact_for_every_goal() {
    let dir = tempdir().unwrap();
    let dtypes = [
        Dtype::I64,
        Dtype::I32,
        Dtype::I16,
        Dtype::I8,
        Dtype::U64,
        Dtype::U32,
        Dtype::U16,
        Dtype::U8,
        Dtype::Bool,
    ];
    let mut tensors: Vec<Tensor> =
        dtypes.map(|dtype| Tensor::new(dtype, Kind::HeavyTail, &[100, 100], 5)).into();
    tensors.push(Tensor::new(Dtype::F32, Kind::Bell, &[100, 100], 6));
    for goal in [Goal::RelL2(0.5), Goal::MaxAbs(1e9), Goal::MaxRel(0.9), Goal::Unbounded("--preset small")] {
        check(dir.path(), &tensors, goal, "");
    }
    // A rate can only be met by what may be lossy.
    check(dir.path(), &tensors[9..], Goal::Bits(2.0), "");
}

#[test]
fn random_files_keep_to_random_bounds() {
    let dir = tempdir().unwrap();
    for seed in 0..24 {
        let mut random = Random::new(1000 + seed);
        let tensors: Vec<Tensor> = (0..6)
            .map(|tensor_idx| {
                let dtype = FLOATS[random.below(FLOATS.len())];
                let kind = KINDS[random.below(KINDS.len())];
                let shape = [1 + random.below(150), 1 + random.below(150)];
                Tensor::new(dtype, kind, &shape, seed << 8 | tensor_idx)
            })
            .collect();
        let bound = 10f64.powi(-i32::try_from(random.below(9)).unwrap()) * (random.bell().abs() + 0.01);
        let goal = [Goal::MaxAbs(bound), Goal::MaxRel(bound), Goal::RelL2(bound)][random.below(3)];
        check(dir.path(), &tensors, goal, QUANTIZERS[random.below(3)]);
    }
}

#[test]
fn archives_do_not_depend_on_threads_or_isa_and_restore_alike() {
    let dir = tempdir().unwrap();
    let mut tensors = every_kind(Dtype::F32);
    tensors.extend(every_kind(Dtype::Bf16));
    // Several blocks, the last of them shorter.
    tensors.push(Tensor::new(Dtype::F32, Kind::RowScales, &[1100, 1021], 7));
    tensors.push(Tensor::new(Dtype::F32, Kind::Bell, &[1100, 1021], 8));
    for goal in [Goal::RelL2(0.05), Goal::MaxRel(0.01), Goal::MaxAbs(1e-3), Goal::Bits(4.0)] {
        for quantizer in QUANTIZERS {
            let expected = check(dir.path(), &tensors, goal, quantizer);
            let restored = fs::read(dir.path().join("back.safetensors")).unwrap();
            for (n_threads, isa) in
                [1, 2, 8].into_iter().flat_map(|n_threads| isas().map(move |isa| (n_threads, isa)))
            {
                let common = format!("--threads {n_threads} --isa {}", isa.name());
                let arguments = goal.arguments();
                let args = format!("compress f.safetensors -o g.alcm -q -f {arguments} {quantizer} {common}");
                alcm(dir.path(), &args).assert().code(0);
                assert!(fs::read(dir.path().join("g.alcm")).unwrap() == expected, "{args}");
                alcm(dir.path(), &format!("decompress g.alcm -o g.safetensors -q -f {common}"))
                    .assert()
                    .code(0);
                assert!(fs::read(dir.path().join("g.safetensors")).unwrap() == restored, "{args}");
            }
            // With a SHA-256 no block that is coded while its tensor is planned is kept until it is written.
            let args =
                format!("compress f.safetensors -o g.alcm -q -f {} {quantizer} --sha256", goal.arguments());
            alcm(dir.path(), &args).assert().code(0);
            let coded_again = fs::read(dir.path().join("g.alcm")).unwrap();
            let index_offset = expected.len() - 128 + 16;
            let index_offset = u64::from_le_bytes(*expected[index_offset..].first_chunk().unwrap());
            let records = ..usize::try_from(index_offset).unwrap();
            assert!(coded_again[records] == expected[records], "{args}");
        }
    }
}

#[test]
fn equal_tensors_are_stored_once() {
    let dir = tempdir().unwrap();
    let bell = |seed| Tensor::new(Dtype::F32, Kind::Bell, &[512, 700], seed);
    let twin = || Tensor { name: "twin".into(), ..bell(1) };
    for quantizer in QUANTIZERS {
        for goal in [Goal::RelL2(0.01), Goal::MaxAbs(0.003)] {
            let single = check(dir.path(), &[bell(1)], goal, quantizer).len();
            let twins = check(dir.path(), &[bell(1), twin()], goal, quantizer).len();
            assert!(twins < single + 500, "{twins} bytes, {single} of one");
        }
        // The bits of the second are the others'.
        let archive = check(dir.path(), &[bell(1), twin(), bell(2)], Goal::Bits(4.0), quantizer);
        let achieved = 8.0 * archive.len() as f64 / f64::from(3 * 512 * 700);
        assert!((achieved / 4.0 - 1.0).abs() < 0.02, "{achieved:.3} bits {quantizer}");
    }
}

/// Bytes of the training state in tests/data, compressed with `flags`, and its relative error.
fn training_state(dir: &Path, flags: &str) -> (u64, f64) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/digits_resnet/train_state.safetensors");
    fs::copy(data, dir.join("state.safetensors")).unwrap();
    alcm(dir, &format!("compress state.safetensors -o state.alcm -f -q --lossy {flags}")).assert().success();
    let output = alcm(dir, "compare state.safetensors state.alcm --json").output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    (
        fs::metadata(dir.join("state.alcm")).unwrap().len(),
        found["changed_total"]["relative_l2"].as_f64().unwrap(),
    )
}

#[test]
fn finer_quantizers_are_never_worse_on_mixed_state() {
    let dir = tempdir().unwrap();
    // Moments of Adam are so small beside the weights that hardly a bit is left for them.
    for bits in ["2", "3", "5"] {
        let [lattice, uniform, trellis] =
            QUANTIZERS.map(|quantizer| training_state(dir.path(), &format!("--bits {bits} {quantizer}")));
        assert!(lattice.1 < 0.99 * uniform.1, "{bits} bits: {lattice:?} against {uniform:?}");
        assert!((lattice.0 as f64 / uniform.0 as f64 - 1.0).abs() < 0.01, "{lattice:?} against {uniform:?}");
        assert!(trellis.1 < 0.95 * uniform.1, "{bits} bits: {trellis:?} against {uniform:?}");
        assert!((trellis.0 as f64 / uniform.0 as f64 - 1.0).abs() < 0.01, "{trellis:?} against {uniform:?}");
    }
    for goal in ["0.9", "0.5", "0.02"] {
        let [lattice, uniform, trellis] =
            QUANTIZERS.map(|quantizer| training_state(dir.path(), &format!("--rel-l2 {goal} {quantizer}")).0);
        assert!(lattice * 100 <= uniform * 101, "--rel-l2 {goal}: {lattice} bytes against {uniform}");
        assert!(trellis * 200 <= lattice * 201, "--rel-l2 {goal}: {trellis} bytes against {lattice}");
        assert!(trellis * 200 <= uniform * 201, "--rel-l2 {goal}: {trellis} bytes against {uniform}");
    }
}

#[test]
fn a_bound_buys_size_and_compare_agrees_with_it() {
    let dir = tempdir().unwrap();
    let tensors = [Tensor::new(Dtype::F32, Kind::Bell, &[300, 1000], 3)];
    let archive = check(dir.path(), &tensors, Goal::RelL2(0.01), "");
    // A uniform step would take 6.7 bits for a Gaussian; this bell is a little narrower.
    assert!(archive.len() * 8 < 300_000 * 7, "{} bytes", archive.len());
    let run = |args: &str, code: i32| alcm(dir.path(), args).assert().code(code).get_output().clone();
    let found = run("compare f.safetensors f.alcm --json --max-rel-l2 0.01", 0);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let relative_l2 = found["total"]["relative_l2"].as_f64().unwrap();
    // The bound is used: what is far below it has cost size for nothing.
    assert!(relative_l2 > 0.007, "{relative_l2}");
    run("compare f.safetensors f.alcm -q --max-rel-l2 0.005", 1);
}

#[test]
fn nothing_is_lossy_unless_asked_for_and_a_goal_is_one() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("f.safetensors"), checkpoint(&[("w", &weights(1, 50_000))])).unwrap();
    for arguments in [
        "--bits 4",
        "--rel-l2 0.1",
        "--preset balanced",
        "--quant trellis",
        "--lossy --bits 4 --rel-l2 0.1",
        "--lossy --max-abs-error 1 --max-rel-error 1",
        "--lossy --ratio 4 --preset small",
        "--lossy --bits 0",
        "--lossy --rel-l2 -0.1",
        "--lossy --max-abs-error nan",
        "--lossy --ratio inf",
        "--lossy --preset large",
    ] {
        alcm(dir.path(), &format!("compress f.safetensors -o f.alcm {arguments}")).assert().code(2);
        assert!(!dir.path().join("f.alcm").exists(), "{arguments}");
    }
    alcm(dir.path(), "compress f.safetensors -o f.alcm -q").assert().code(0);
    alcm(dir.path(), "compare f.safetensors f.alcm -q --max-abs 0").assert().code(0);
}

#[test]
fn every_stage_has_its_time() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("f.safetensors"), checkpoint(&[("x", &weights(1, 300_000))])).unwrap();
    // One dimension is left alone by default.
    let rules = with_rules(dir.path(), "{name: \"*\", despite_defaults: true}");
    for goal in ["--rel-l2 0.1", "--bits 2"] {
        let command = format!("compress f.safetensors -o out -f --lossy {goal} --prune {rules} --json");
        let found = alcm(dir.path(), &command).assert().code(0);
        let report: Value = serde_json::from_slice(&found.get_output().stdout).unwrap();
        let mut shares = 0.0;
        for stage in ["statistics", "prediction", "quantization", "pruning", "backend"] {
            let row = &report["stages"][stage];
            assert!(row["milliseconds"].as_f64().unwrap() > 0.0, "{goal}: {stage}");
            shares += row["share"].as_f64().unwrap();
        }
        assert!(shares > 0.1 && shares <= 1.0, "{goal}: {shares}");
    }
    let command = format!("compress f.safetensors -o out -f --lossy --bits 4 {rules} --timings");
    let found = alcm(dir.path(), &command).assert().code(0);
    let text = String::from_utf8(found.get_output().stdout.clone()).unwrap();
    assert!(text.contains("\nstatistics ") && text.contains("\npruning "), "{text}");
}
