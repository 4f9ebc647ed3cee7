//! The laboratory's commands as a user meets them: each prints tables, and JSON that a program can read.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;

use common::alcm;
use serde_json::Value;
use tempfile::tempdir;

/// Runs `alcm ARGS --json` and gives what it prints.
fn lab(args: &str) -> Value {
    let output = alcm(Path::new(env!("CARGO_MANIFEST_DIR")), &format!("{args} --json --threads 1"));
    let output = { output }.assert().code(0).get_output().stdout.clone();
    let section: Value = serde_json::from_slice(&output).unwrap();
    assert!(section["title"].is_string() && section["intro"].is_string());
    section
}

fn number(row: &Value, column: &str) -> f64 {
    row[column].as_f64().unwrap_or_else(|| panic!("{column} of {row}"))
}

#[test]
fn impact_measures_and_leaves_nothing_behind() {
    let scratch = tempdir().unwrap();
    let data = "tests/data/digits_resnet";
    let options =
        format!("--runs 1 --nodes 2 --per-hour 4 --retain-hours 10 --scratch {}", scratch.path().display());
    let section = lab(&format!("lab impact {data} {options} --bandwidth 0.001,50"));
    let tables = section["tables"].as_array().unwrap();
    let measured = &tables[0]["rows"][0];
    assert!(number(measured, "ratio") > 1.1 && number(measured, "relative L2") == 0.0);
    let kept = &tables[1]["rows"][1];
    assert_eq!(number(kept, "checkpoints"), 80.0);
    let saved = 80.0 * number(measured, "saved bytes") / 1e9;
    assert!((number(kept, "saved GB") - saved).abs() < 1e-12);
    let slow = &tables[2]["rows"][0];
    assert!(number(slow, "gain %") > 0.0);
    assert!(number(slow, "overlapped s") <= number(slow, "one after another s"));
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for wrong in ["--bandwidth 0", "--bandwidth fast", "--nodes 0", "--retain-hours -1", "--rel-l2 inf"] {
        alcm(root, &format!("lab impact {data} {wrong}")).assert().code(2);
    }
    alcm(root, "lab impact no-such-path").assert().code(1);
}
