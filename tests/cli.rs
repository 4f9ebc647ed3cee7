//! The command line: exit codes, refusals, pipes, JSON, no leftovers.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;

use common::{alcm, checkpoint, make_tree, partials, random_bytes, snapshot, weights};
use serde_json::Value;
use tempfile::tempdir;

fn json(output: &[u8]) -> Value {
    serde_json::from_slice(output).expect("one JSON object on standard output")
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("f"), b"x").unwrap();
    fs::write(dir.path().join("bad.yaml"), b"version: 1\nlevels: high\n").unwrap();
    for args in [
        "",
        "compress",
        "compress f",
        "compress f -o out --level extreme",
        "compress f -o out --isa neon",
        "compress f -o out --deterministic --threads 2",
        "compress f -o out --config bad.yaml",
        "compress f -o out --config absent.yaml",
        "compress - -o out",
        "compress f f -o -",
        "compress f f -o out",
        "compress . -o ./inside",
        "decompress f -o out/",
        "extract f",
    ] {
        alcm(dir.path(), args).assert().code(2);
    }
    alcm(dir.path(), "--help").assert().code(0);
    alcm(dir.path(), "--version").assert().code(0);
    assert!(!dir.path().join("out").join("alcm-manifest.json").exists());
    assert!(!dir.path().join("inside").exists());
}

#[test]
fn missing_and_damaged_inputs_are_1_with_a_plain_message() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("no.alcm"), b"not an archive").unwrap();
    for args in [
        "verify no.alcm",
        "inspect no.alcm",
        "decompress no.alcm -o back",
        "verify absent",
        "compress absent -o out",
    ] {
        let assert = alcm(dir.path(), args).assert().code(1);
        let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        assert!(stderr.starts_with("alcm: error: "), "{stderr}");
        for debug in ["Error {", "kind:", "Os {", "None"] {
            assert!(!stderr.contains(debug), "{stderr}");
        }
    }
    assert!(!dir.path().join("back").exists());
    assert!(partials(dir.path()).is_empty());
}

#[test]
fn outputs_are_replaced_only_by_force() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    alcm(dir.path(), "compress model -o out -q").assert().code(0).stdout("");
    let before = snapshot(&dir.path().join("out"));
    alcm(dir.path(), "compress model -o out").assert().code(1);
    assert_eq!(snapshot(&dir.path().join("out")), before);
    alcm(dir.path(), "compress model -o out --force").assert().code(0);
    let contents = |name: &str| snapshot(&dir.path().join("out"))[name].4.clone();
    assert!(before.iter().all(|(name, entry)| contents(name) == entry.4));

    alcm(dir.path(), "decompress out -o back").assert().code(0);
    fs::write(dir.path().join("back/model/config.json"), b"edited").unwrap();
    alcm(dir.path(), "decompress out -o back").assert().code(1);
    assert_eq!(fs::read(dir.path().join("back/model/config.json")).unwrap(), b"edited");
    alcm(dir.path(), "decompress out -o back --force").assert().code(0);
    assert_ne!(fs::read(dir.path().join("back/model/config.json")).unwrap(), b"edited");
    assert!(partials(dir.path()).is_empty());
}

#[test]
fn every_command_has_json() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    let run = |args: &str| json(&alcm(dir.path(), args).assert().code(0).get_output().stdout);
    let predicted = run("compress model -o out --dry-run --json");
    assert!(!dir.path().join("out").exists());
    let report = run("compress model -o out --json --deterministic --timings");
    assert_eq!(report["seed"], 42);
    assert_eq!(report["files"], 8);
    assert_eq!(report["duplicate_files"], 1);
    assert_eq!(report["total"]["original_bytes"], predicted["total"]["original_bytes"]);
    assert!(report["dtypes"]["BF16"]["elements"].as_u64().unwrap() > 1_500_000);
    assert!(report["reference_bytes"].as_u64().unwrap() >= 2 * 120_000);
    assert_eq!(run("verify out --json")["failures"], Value::Array(vec![]));
    assert_eq!(run("decompress out -o back --json")["files"], 8);
    let tree = &run("inspect out --json")["trees"][0];
    assert_eq!(tree["original_bytes"], report["total"]["original_bytes"]);
    assert_eq!(tree["stored_bytes"], report["total"]["stored_bytes"]);
    assert_eq!(tree["files"].as_array().unwrap().len(), 8);
    let archives = run("inspect out/model/a.safetensors.alcm --json");
    let tensors = archives["archives"][0]["tensors"].as_array().unwrap();
    assert_eq!(tensors.iter().map(|t| t["name"].as_str().unwrap()).collect::<Vec<_>>(), ["x", "small", "y"]);
    assert_eq!(tensors[2]["codings"][0], "reference");
    let tensor = run("extract out/model/b.safetensors.alcm --tensor tied -o t.bin --json");
    assert_eq!(tensor["dtype"], "BF16");
    assert_eq!(fs::read(dir.path().join("t.bin")).unwrap(), weights(1, 60_000));
}

#[test]
fn extract_takes_every_tensor_and_refuses_unknown_names() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    alcm(dir.path(), "compress model -o out -q").assert().code(0);
    for (name, bytes) in
        [("big", weights(3, 1_500_001)), ("tied", weights(1, 60_000)), ("own", weights(2, 50_000))]
    {
        let args = format!("extract out/model/b.safetensors.alcm --tensor {name} -o -");
        let assert = alcm(dir.path(), &args).assert().code(0);
        assert!(assert.get_output().stdout == bytes, "{name}");
    }
    let args = "extract out/model/b.safetensors.alcm --tensor absent -o x.bin";
    alcm(dir.path(), args).assert().code(1);
    assert!(!dir.path().join("x.bin").exists());
}

#[test]
fn pipes_carry_anything() {
    let dir = tempdir().unwrap();
    let tensor = weights(7, 700_000);
    let whole = checkpoint(&[("t", &tensor)]);
    let mut malformed = whole.clone();
    malformed[20] ^= 0xff;
    let streams = [
        Vec::new(),
        b"x".to_vec(),
        b"12345678{".to_vec(),
        random_bytes(1, 3_000_000),
        whole[..whole.len() - 101].to_vec(),
        [&whole[..], b"trailing"].concat(),
        malformed,
        whole.clone(),
    ];
    for (idx, stream) in streams.into_iter().enumerate() {
        let packed = alcm(dir.path(), "compress - -o - -q").write_stdin(stream.clone()).assert().code(0);
        let packed = packed.get_output().stdout.clone();
        let back = alcm(dir.path(), "decompress - -o - -q").write_stdin(packed.clone()).assert().code(0);
        assert!(back.get_output().stdout == stream, "stream {idx}");
        for cut in [0, 31, packed.len() / 2, packed.len() - 1] {
            alcm(dir.path(), "decompress - -o -").write_stdin(&packed[..cut]).assert().code(1);
        }
    }
    // A pipe's archive is a file's archive.
    fs::write(dir.path().join("w.safetensors"), &whole).unwrap();
    alcm(dir.path(), "compress w.safetensors -o w.alcm -q").assert().code(0);
    let piped = alcm(dir.path(), "compress - -o - -q").write_stdin(whole).assert().code(0);
    assert!(piped.get_output().stdout == fs::read(dir.path().join("w.alcm")).unwrap());
}

#[test]
fn archives_with_references_can_be_piped() {
    let dir = tempdir().unwrap();
    let tensor = weights(8, 70_000);
    let file = checkpoint(&[("a", &tensor), ("b", &tensor)]);
    fs::write(dir.path().join("w.safetensors"), &file).unwrap();
    alcm(dir.path(), "compress w.safetensors -o w.alcm -q").assert().code(0);
    let archive = fs::read(dir.path().join("w.alcm")).unwrap();
    assert!(archive.len() < file.len() * 3 / 5);
    let back = alcm(dir.path(), "decompress - -o - -q").write_stdin(archive).assert().code(0);
    assert!(back.get_output().stdout == file);
}

#[test]
fn closed_pipe_is_no_error() {
    use std::process::{Command, Stdio};
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("f"), random_bytes(2, 8 << 20)).unwrap();
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("alcm"))
        .args(["compress", "f", "-o", "-"])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn single_files_keep_their_names() {
    let dir = tempdir().unwrap();
    let bytes = random_bytes(3, 100_000);
    fs::write(dir.path().join("one.bin"), &bytes).unwrap();
    alcm(dir.path(), "compress one.bin -o one.bin.alcm --sha256 --verify -q").assert().code(0);
    assert!(!dir.path().join("alcm-manifest.json").exists());
    fs::create_dir(dir.path().join("into")).unwrap();
    alcm(dir.path(), "decompress one.bin.alcm -o into -q").assert().code(0);
    alcm(dir.path(), "decompress one.bin.alcm -o named -q").assert().code(0);
    assert!(fs::read(dir.path().join("into/one.bin")).unwrap() == bytes);
    assert!(fs::read(dir.path().join("named")).unwrap() == bytes);
    alcm(dir.path(), "verify one.bin.alcm -q").assert().code(0);
}

#[test]
fn settings_file_is_overridden_by_flags() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("f.bin"), random_bytes(3, 10_000)).unwrap();
    fs::write(dir.path().join("s.yaml"), "version: 1\nsha256: true\nlevel: fast\n").unwrap();
    alcm(dir.path(), "compress f.bin -o a.alcm --config s.yaml -q").assert().code(0);
    alcm(dir.path(), "compress f.bin -o b.alcm --config s.yaml --sha256=false -q").assert().code(0);
    let sha256 = |name: &str| {
        let assert = alcm(dir.path(), &format!("inspect {name} --json")).assert().code(0);
        json(&assert.get_output().stdout)["archives"][0]["sha256"].clone()
    };
    assert!(sha256("a.alcm").is_string());
    assert!(sha256("b.alcm").is_null());
}
