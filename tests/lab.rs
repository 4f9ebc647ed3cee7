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

#[test]
fn timing_books_all_time_on_stages_or_other() {
    let section = lab("lab timing tests/data/digits_resnet/params_bf16.safetensors --elements 8192 --runs 1");
    let rows = section["tables"][0]["rows"].as_array().unwrap();
    let stages = ["statistics", "prediction", "quantization", "pruning", "backend", "other", "all"];
    assert_eq!(rows.len(), 5 * stages.len());
    for tensor in rows.chunks(stages.len()) {
        let sum: f64 = tensor[..6].iter().map(|row| number(row, "ms")).sum();
        assert!((sum / number(&tensor[6], "ms") - 1.0).abs() < 1e-9);
        assert!(tensor.iter().zip(stages).all(|(row, stage)| row["stage"] == stage));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    alcm(root, "lab timing no-such-file").assert().code(1);
    alcm(root, "lab timing --elements 0").assert().code(2);
}

#[test]
fn memory_counts_what_parts_hold() {
    let section = lab("lab memory");
    let parts = section["tables"][0]["rows"].as_array().unwrap();
    let tensor = parts.iter().find(|row| row["part"] == "tensor").unwrap();
    assert_eq!(number(tensor, "heap bytes"), 40_000.0);
    assert!(parts.iter().all(|row| number(row, "bytes") > 0.0));
    // Five scores of 8 bytes.
    let scheduler = parts.iter().find(|row| row["part"].as_str().unwrap().starts_with("scheduler")).unwrap();
    assert_eq!(number(scheduler, "heap bytes"), 40.0);
    let calls = section["tables"][1]["rows"].as_array().unwrap();
    assert_eq!(calls.len(), 4);
    for call in calls {
        assert!(number(call, "peak heap bytes") >= number(call, "result bytes"), "{call}");
        assert!(number(call, "peak heap bytes") < 64e6, "{call}");
    }
    let most = number(&section["tables"][2]["rows"][0], "bytes");
    assert!(most > 40_000.0);
    if Path::new("/proc/self/status").exists() {
        assert!(number(&section["tables"][2]["rows"][1], "bytes") > 40_000.0);
    }
}

#[test]
fn energy_names_its_meter() {
    let section = lab("lab energy tests/data/digits_resnet/params_bf16.safetensors --watts 20 --min-ms 1");
    let rows = section["tables"][0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    for row in rows {
        let by = row["energy by"].as_str().unwrap();
        assert!(by.starts_with("RAPL") || by == "model: 20 W × processor seconds", "{by}");
        assert!(number(row, "ratio") >= 1.0);
    }
    alcm(Path::new(env!("CARGO_MANIFEST_DIR")), "lab energy --watts 0").assert().code(2);
}
