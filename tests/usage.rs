//! What the command says: every failure with its remedy, JSON and quiet as promised, help in its place, what a lossy run
//! changed; and that no argument stops another.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;

use common::{alcm, make_tree, random_bytes, snapshot, typed_checkpoint};
use serde_json::Value;
use tempfile::tempdir;

fn json(output: &[u8]) -> Value {
    serde_json::from_slice(output).expect("one JSON object on standard output")
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn one_bad_argument_does_not_stop_the_others() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("f.bin"), random_bytes(3, 10_000)).unwrap();
    alcm(dir.path(), "compress f.bin -o good.alcm -q").assert().code(0);
    fs::write(dir.path().join("bad.alcm"), b"not an archive").unwrap();
    let stderr = |args: &str, code: i32| {
        let assert = alcm(dir.path(), args).assert().code(code);
        String::from_utf8(assert.get_output().stderr.clone()).unwrap()
    };
    let told = stderr("verify bad.alcm nodir good.alcm -q", 1);
    assert!(told.lines().count() == 2 && told.contains("bad.alcm") && told.contains("nodir"), "{told}");
    let told = stderr("decompress nothere.alcm nodir bad.alcm good.alcm -o d -q", 1);
    assert!(told.lines().count() == 3 && told.contains("nothere.alcm: cannot open"), "{told}");
    assert!(fs::read(dir.path().join("d/good")).unwrap() == random_bytes(3, 10_000));
    // Wrong usage is said before anything is done.
    stderr("decompress good.alcm f.bin -o e -q", 2);
    assert!(!dir.path().join("e").exists());
    let found = alcm(dir.path(), "verify nodir good.alcm --json").assert().code(1);
    let found = json(&found.get_output().stdout);
    assert_eq!((&found["files"], &found["failures"][0]["path"]), (&1.into(), &"nodir".into()));
}

#[test]
fn a_run_that_fails_as_a_whole_has_json_too() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("no.alcm"), b"not an archive").unwrap();
    for (args, command, code) in [
        ("compress absent -o out --json", "compress", 1),
        ("compress no.alcm -o out --json --threads 9999", "compress", 2),
        ("decompress absent.alcm -o out --json", "decompress", 1),
        ("inspect no.alcm --json", "inspect", 1),
        ("extract no.alcm --tensor x -o out --json", "extract", 1),
        ("compare no.alcm absent --json", "compare", 1),
        ("lab compare absent --json", "lab compare", 1),
    ] {
        let assert = alcm(dir.path(), args).assert().code(code);
        let found = json(&assert.get_output().stdout);
        assert_eq!(found["command"], command, "{args}");
        assert!(found["failures"][0]["message"].is_string(), "{args}: {found}");
    }
    // Where standard output is for data, nothing else goes there.
    alcm(dir.path(), "decompress no.alcm -o - --json").assert().code(1).stdout("");
}

#[test]
fn outputs_never_replace_what_they_are_made_from() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    fs::write(dir.path().join("model/config.json.alcm"), b"a file of this name").unwrap();
    alcm(dir.path(), "compress model/config.json -o x.alcm -q").assert().code(0);
    alcm(dir.path(), "compress model -o out -q").assert().code(0);
    let before = snapshot(dir.path());
    for args in [
        "compress model -o . -f",
        "compress model -o model/..",
        "decompress x.alcm -o x.alcm -f",
        "decompress x.alcm -o ./model/../x.alcm -f",
        // The archive of config.json has the name that the other file gets back.
        "decompress out -o out -f",
        "extract x.alcm --tensor t -o x.alcm -f",
    ] {
        let output = alcm(dir.path(), args).output().unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{args}");
        assert!(snapshot(dir.path()) == before, "{args}");
    }
    // A single file's archive beside it is nothing of the kind.
    alcm(&dir.path().join("model"), "compress config.json -o . -q").assert().code(1);
    alcm(&dir.path().join("model"), "compress nothing -o . -q").assert().code(0);
}

#[test]
fn messages_name_the_remedy() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    fs::write(dir.path().join("none.yaml"), "level: high\n").unwrap();
    let rules = include_str!("../configs/encoder.yaml").replace("rules: []", "rules: [{name: \"***\"}]");
    fs::write(dir.path().join("rules.yaml"), rules).unwrap();
    alcm(dir.path(), "compress model/b.safetensors -o b.alcm -q").assert().code(0);
    fs::write(dir.path().join("taken"), b"x").unwrap();
    for (args, words) in [
        ("compare model nothere", "nothere: cannot open: No such file"),
        ("train model/a.safetensors -o n", "--held-out"),
        ("train model -o taken", "taken: output exists; pass --force"),
        ("extract b.alcm --tensor own -o taken", "taken: output exists; pass --force"),
        ("extract b.alcm --tensor own -o no/t", "no/t: cannot create a file here, the folder does not exist"),
        (
            "verify b.alcm --config none.yaml",
            "none.yaml: settings do not say their version; add `version: 1`",
        ),
        ("compress model -o o --lossy --lossy-config rules.yaml", "rules.yaml: rule for"),
    ] {
        let output = alcm(dir.path(), args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains(words), "{args}: {stderr}");
        assert!(!stderr.contains("entity") && !stderr.contains("alcm-partial"), "{args}: {stderr}");
    }
    assert_eq!(fs::read(dir.path().join("taken")).unwrap(), b"x");
}

#[test]
fn help_has_every_argument_under_its_heading() {
    let dir = tempdir().unwrap();
    let help = |args: &str| String::from_utf8(alcm(dir.path(), args).output().unwrap().stdout).unwrap();
    let compress = help("compress --help");
    let (usual, lossy) = compress.split_once("Lossy compression:").unwrap();
    for flag in ["--json", "--quiet", "--threads", "--isa", "--sync", "--help"] {
        assert!(usual.contains(flag) && !lossy.contains(&format!("  {flag}")), "{flag}");
    }
    assert!(lossy.contains("--rel-l2") && !usual.contains("--rel-l2"));
    assert!(help("--help").contains("error or to a size"));
}

#[test]
fn quiet_prints_no_table() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    alcm(dir.path(), "compress model -o out -q").assert().code(0).stdout("");
    for args in ["verify out", "inspect out", "inspect out/model/a.safetensors.alcm", "compare model out"] {
        alcm(dir.path(), &format!("{args} -q")).assert().code(0).stdout("").stderr("");
    }
}

#[test]
fn a_lossy_run_says_what_it_changed() {
    let dir = tempdir().unwrap();
    let w: Vec<f32> = (0..8192).map(|i| ((i as f32) * 0.37).sin()).collect();
    let mut nan = w.clone();
    nan[5] = f32::NAN;
    let (w, nan, short) = (f32_bytes(&w), f32_bytes(&nan), f32_bytes(&[1.0, 2.0]));
    let file = typed_checkpoint(&[
        ("w", "F32", vec![64, 128], &w),
        ("nan", "F32", vec![64, 128], &nan),
        ("short", "F32", vec![2], &short),
    ]);
    fs::write(dir.path().join("f.safetensors"), file).unwrap();
    let run = |args: &str| {
        let output = alcm(dir.path(), &format!("compress f.safetensors {args}")).assert().code(0);
        String::from_utf8(output.get_output().stdout.clone()).unwrap()
    };
    let text = run("-o a/ --lossy --rel-l2 0.01");
    assert!(text.contains("lossy, rel-l2 0.01: 1 tensors changed, 1 exact as nothing smaller"), "{text}");
    assert!(text.contains("1 exact by rule; relative L2 error "), "{text}");
    for args in ["-o b/ --lossy --rel-l2 0.01 --json", "-o b/ --lossy --rel-l2 0.01 --json --resume"] {
        let loss = &json(run(args).as_bytes())["loss"];
        assert_eq!((&loss["goal"], &loss["goal_value"]), (&"rel-l2".into(), &0.01.into()));
        assert_eq!((&loss["lossy_tensors"], &loss["exact_for_goal"]), (&1.into(), &1.into()));
        let rel_l2 = loss["rel_l2"].as_f64().unwrap();
        assert!((0.001..=0.01).contains(&rel_l2), "{rel_l2}");
    }
    assert!(json(run("-o c/ --json").as_bytes())["loss"].is_null());
    assert!(json(run("-o d/ --layers 4,exact --json").as_bytes())["loss"].is_null());
    let loss = &json(run("-o e/ --lossy --layers 4,8 --json").as_bytes())["loss"];
    assert_eq!((&loss["goal_value"], &loss["lossy_tensors"]), (&8.0.into(), &1.into()));
}
