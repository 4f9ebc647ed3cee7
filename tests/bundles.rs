//! The benchmark bundles: the committed ones hold, and whatever was tampered with is refused and named.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;

use common::alcm;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

const NAMES: [&str; 4] = ["text_medium", "image_small", "mixed_stream", "checkpoint_small"];

/// A copy of the committed bundles.
fn copy() -> TempDir {
    let dir = tempdir().unwrap();
    for name in NAMES {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bundles").join(name);
        fs::create_dir_all(dir.path().join("b").join(name)).unwrap();
        for entry in fs::read_dir(source).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), dir.path().join("b").join(name).join(entry.file_name())).unwrap();
        }
    }
    dir
}

/// Standard error of a run that must fail.
fn refused(dir: &TempDir) -> String {
    let output = alcm(dir.path(), "lab bundles run --dir b --runs 1").assert().code(1).get_output().clone();
    String::from_utf8(output.stderr).unwrap()
}

fn edit(dir: &TempDir, name: &str, change: impl FnOnce(&mut Value)) {
    let path = dir.path().join("b").join(name).join("bundle.json");
    let mut list: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut list);
    fs::write(path, list.to_string()).unwrap();
}

#[test]
fn the_committed_bundles_are_as_recorded() {
    let dir = copy();
    let output = alcm(dir.path(), "lab bundles run --dir b --json").assert().code(0).get_output().clone();
    let section: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = section["tables"][1]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4 * 10, "ten codecs on four bundles");
    for row in rows.iter().filter(|row| row["codec"] != "uncompressed") {
        let ratio = row["ratio"].as_f64().unwrap();
        // Natural data: none of it is a sentence said a hundred times.
        assert!((1.0..4.0).contains(&ratio), "{row}");
    }
}

#[test]
fn sizes_are_about_what_the_report_says() {
    let bytes_of = |name: &str| -> u64 {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bundles").join(name);
        let files = fs::read_dir(path).unwrap().map(Result::unwrap);
        files.filter(|f| f.file_name() != "bundle.json").map(|f| f.metadata().unwrap().len()).sum()
    };
    for (name, about) in NAMES.into_iter().zip([30_000, 30_000, 20_000, 95_000]) {
        assert!(bytes_of(name).abs_diff(about) * 100 < about * 15, "{name}: {} bytes", bytes_of(name));
    }
}

#[test]
fn a_missing_or_changed_file_is_named() {
    let dir = copy();
    let file = dir.path().join("b/image_small/lamp.bmp");
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let error = refused(&dir);
    assert!(error.contains("lamp.bmp") && error.contains("cannot read"), "{error}");
    let mut changed = bytes.clone();
    changed[5000] ^= 1;
    fs::write(&file, changed).unwrap();
    let error = refused(&dir);
    assert!(error.contains("lamp.bmp") && error.contains("SHA-256"), "{error}");
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let error = refused(&dir);
    assert!(error.contains("lamp.bmp") && error.contains("10261 bytes, 10262 are recorded"), "{error}");
    fs::remove_dir_all(dir.path().join("b/image_small")).unwrap();
    let error = refused(&dir);
    assert!(error.contains("image_small"), "{error}");
}

#[test]
fn results_that_are_not_as_recorded_are_named() {
    let dir = copy();
    edit(&dir, "text_medium", |list| list["expected"][2]["bytes"][1] = json!(1));
    edit(&dir, "mixed_stream", |list| list["expected"][3]["caq"] = json!(4.85));
    edit(&dir, "image_small", |list| list["expected"] = json!([]));
    edit(&dir, "checkpoint_small", |list| {
        list["expected"].as_array_mut().unwrap().pop();
        list["expected"][0]["codec"] = json!("src-adaptive");
    });
    let error = refused(&dir);
    for part in [
        "bytes of lighthouse.txt, 1 are recorded",
        "recorded 4.8500",
        "image_small/bundle.json: has no measurement",
        "has no measurement of alcm high",
        "\"src-adaptive\" is unknown",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}

#[test]
fn a_list_cannot_leave_its_folder_or_be_empty() {
    for (change, message) in [
        (json!([]), "0 files"),
        (json!([{"name": "../text_medium/tides.py", "bytes": 1, "sha256": ""}]), "no plain name"),
        (json!([{"name": "/etc/hostname", "bytes": 1, "sha256": ""}]), "no plain name"),
        (json!([{"name": "lamp.bmp", "bytes": 1, "sha256": "", "command": "rm"}]), "unknown field"),
    ] {
        let dir = copy();
        edit(&dir, "image_small", |list| list["files"] = change);
        let error = refused(&dir);
        assert!(error.contains("image_small/bundle.json") && error.contains(message), "{error}");
    }
    let dir = copy();
    let file = dir.path().join("b/image_small/lamp.bmp");
    fs::rename(&file, dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &file).unwrap();
    let error = refused(&dir);
    assert!(error.contains("not a regular file"), "{error}");
}
