//! Files too short for tables: coded adaptively where that is asked for, alike from a file, a pipe and a dry run.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{alcm, checkpoint, weights};
use serde_json::Value;
use tempfile::tempdir;

fn bundled(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bundles/checkpoint_small").join(name)
}

/// The archive `x.alcm` that `compress` makes of `x.safetensors` in `dir`.
fn compress(dir: &Path, args: &str) -> Vec<u8> {
    alcm(dir, &format!("compress x.safetensors -o x.alcm -q -f --verify {args}")).assert().code(0);
    fs::read(dir.join("x.alcm")).unwrap()
}

/// The codings of the archive's blocks.
fn codings(dir: &Path) -> Vec<String> {
    let output = alcm(dir, "inspect x.alcm --json").assert().code(0).get_output().clone();
    let inspected: Value = serde_json::from_slice(&output.stdout).unwrap();
    inspected["archives"][0]["codings"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn small_files_are_smallest_at_default_whichever_way_they_come() {
    for name in ["adam_moments", "convolution", "layers_bf16"] {
        let dir = tempdir().unwrap();
        let source = fs::read(bundled(&format!("{name}.safetensors"))).unwrap();
        fs::write(dir.path().join("x.safetensors"), &source).unwrap();
        let fast = compress(dir.path(), "--level fast");
        assert_eq!(codings(dir.path()), ["fields", "zstd"], "{name}");
        let small = compress(dir.path(), "");
        assert_eq!(codings(dir.path()), ["adaptive", "zstd"], "{name}");
        assert!(small.len() + source.len() / 200 < fast.len(), "{name}: {} and {}", small.len(), fast.len());
        for same in ["--threads 2", "--deterministic", "--isa scalar"] {
            assert!(compress(dir.path(), same) == small, "{name} {same}");
        }
        let file = fs::File::open(dir.path().join("x.safetensors")).unwrap();
        let mut pipe = std::process::Command::new(assert_cmd::cargo::cargo_bin!("alcm"));
        let piped = pipe.args(["compress", "-", "-o", "-"]).stdin(Stdio::from(file)).output().unwrap();
        assert!(piped.status.success() && piped.stdout == small, "{name}");
        let dry = alcm(dir.path(), "compress x.safetensors -o y --dry-run --json").output().unwrap();
        let predicted: Value = serde_json::from_slice(&dry.stdout).unwrap();
        assert_eq!(predicted["total"]["stored_bytes"], small.len(), "{name}: {predicted}");
    }
}

#[test]
fn longer_files_are_coded_to_be_fast() {
    let dir = tempdir().unwrap();
    for (n_elements, level, expected) in [
        (60_000, "fast", "fields"),
        (260_000, "default", "adaptive"),
        (263_000, "default", "fields"),
        (260_000, "high", "adaptive"),
        (263_000, "high", "fields"),
    ] {
        let tensor = weights(1, n_elements);
        fs::write(dir.path().join("x.safetensors"), checkpoint(&[("t", &tensor)])).unwrap();
        compress(dir.path(), &format!("--level {level}"));
        assert_eq!(codings(dir.path())[0], expected, "{n_elements} {level}");
    }
}
