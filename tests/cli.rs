//! The command line: exit codes, refusals, pipes, JSON, no leftovers.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;

use common::{alcm, checkpoint, make_tree, partials, random_bytes, snapshot, typed_checkpoint, weights};
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
        "compress f -o out --lossy --rel-l2 0.1 --correct-rate",
        "compress f -o out --lossy --as-bytes=all",
        "decompress f -o out/",
        "extract f",
        "compare f",
        "compare f f --max-abs -1",
        "compare f f --max-rel-l2 inf",
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
        "compare absent no.alcm",
        "compare no.alcm absent",
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
    let stages = report["stages"].as_object().unwrap();
    assert!(stages.len() == 5 && stages["statistics"]["milliseconds"] == 0.0);
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
fn a_map_has_a_number_for_every_block_of_a_channel() {
    let dir = tempdir().unwrap();
    // The second channel is a hundred times the first, the third is zero.
    let wave = |scale: f32| (0..2500).map(move |i| scale * ((i as f32) * 0.7).sin());
    let values: Vec<f32> = wave(0.01).chain(wave(1.0)).chain(wave(0.0)).collect();
    let (mixed, flags) = (f32_bytes(&values), [1u8; 4]);
    let file =
        typed_checkpoint(&[("mixed", "F32", vec![3, 50, 50], &mixed), ("flags", "BOOL", vec![4], &flags)]);
    fs::write(dir.path().join("f.safetensors"), file).unwrap();
    alcm(dir.path(), "compress f.safetensors -o f.alcm -q").assert().success();
    let map = |args: &str| {
        let output = alcm(dir.path(), &format!("inspect f.alcm --map mixed --json {args}")).output().unwrap();
        serde_json::from_value::<Vec<Vec<f64>>>(json(&output.stdout)["map"]["bits"].clone()).unwrap()
    };
    let (fine, coarse) = (map("--step 0.001"), map("--step 0.01"));
    assert_eq!(fine.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3]);
    for (fine, coarse) in fine[1].iter().zip(&coarse[1]) {
        // Ten times the step: 3.3 bits less.
        assert!((2.8..3.8).contains(&(fine - coarse)), "{fine} {coarse}");
    }
    assert!(fine[0].iter().all(|bits| (2.5..5.5).contains(bits)) && fine[2].iter().all(|bits| *bits < 0.1));
    alcm(dir.path(), "inspect f.alcm --map mixed").assert().success();
    for (args, code) in [
        ("--map flags", 1),
        ("--map absent", 1),
        ("--map mixed --step 0", 2),
        ("--step 1", 2),
        ("f.alcm --map mixed", 2),
    ] {
        alcm(dir.path(), &format!("inspect f.alcm {args}")).assert().code(code);
    }
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

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn compare_measures_and_bounds_fail() {
    let dir = tempdir().unwrap();
    // Of w, ‖a‖ = 5 and ‖a − b‖ = 0.5; one element is newly zero.
    let tensors = |w: &[f32], n: &[u8]| {
        let (w, same) = (f32_bytes(w), f32_bytes(&[1.0, f32::NAN]));
        typed_checkpoint(&[
            ("w", "F32", vec![2, 2], &w),
            ("same", "F32", vec![2], &same),
            ("empty", "F32", vec![0, 3], &[]),
            ("n", "I16", vec![2], n),
        ])
    };
    fs::write(dir.path().join("a.safetensors"), tensors(&[3.0, 4.0, 0.3, 0.0], &[1, 0, 2, 0])).unwrap();
    fs::write(dir.path().join("b.safetensors"), tensors(&[3.0, 3.6, 0.0, 0.0], &[1, 0, 2, 0])).unwrap();
    fs::write(dir.path().join("c.safetensors"), tensors(&[3.0, 4.0, 0.3, 0.0], &[1, 0, 2, 1])).unwrap();
    let run = |args: &str, code: i32| alcm(dir.path(), args).assert().code(code).get_output().clone();
    let found = json(&run("compare a.safetensors b.safetensors --json", 0).stdout);
    let w = &found["files"][0]["tensors"][0];
    let near = |value: &Value, expected: f64| (value.as_f64().unwrap() - expected).abs() < 1e-5;
    assert!(near(&w["max_abs_error"], 0.4) && near(&w["relative_l2"], 0.5 / 25.09f64.sqrt()), "{w}");
    assert!(near(&w["snr_db"], 10.0 * (25.09f64 / 0.25).log10()) && near(&w["changed_share"], 0.5), "{w}");
    assert!(
        near(&w["newly_zero_share"], 0.25) && near(&w["cosine"], 23.4 / (25.09f64 * 21.96).sqrt()),
        "{w}"
    );
    for (tensor_idx, name) in [(1, "same"), (2, "empty"), (3, "n")] {
        let tensor = &found["files"][0]["tensors"][tensor_idx];
        assert_eq!((&tensor["name"], &tensor["identical"]), (&name.into(), &true.into()));
    }
    assert!(near(&found["total"]["changed_share"], 0.25) && found["complete"] == true);
    assert!(near(&found["changed_total"]["relative_l2"], 0.5 / 25.09f64.sqrt()));
    let table = String::from_utf8(run("compare a.safetensors b.safetensors", 0).stdout).unwrap();
    let row = table.lines().find(|line| line.ends_with("  w")).unwrap();
    assert!(row.contains("4.000e-1") && row.contains("50.000%") && row.contains("25.000%"), "{row}");
    assert!(table.lines().any(|line| line.contains("identical") && line.ends_with("  same")), "{table}");

    for (bound, code) in
        [("--max-abs 0.41", 0), ("--max-abs 0.39", 1), ("--max-rel-l2 0.1", 0), ("--max-rel-l2 0.099", 1)]
    {
        let output = run(&format!("compare a.safetensors b.safetensors -q {bound}"), code);
        assert!(output.stdout.is_empty());
        assert_eq!(String::from_utf8_lossy(&output.stderr).contains("tensor w"), code == 1, "{bound}");
    }
    // An integer that changed keeps to no bound.
    run("compare a.safetensors c.safetensors", 0);
    run("compare a.safetensors c.safetensors --max-abs 1e9", 1);
}

#[test]
fn compare_takes_archives_and_trees_in_any_mix() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    let run = |args: &str, code: i32| alcm(dir.path(), args).assert().code(code).get_output().clone();
    run("compress model -o out -q", 0);
    run("decompress out -o back -q", 0);
    for pair in ["model out", "out model", "out out", "model back", "back/model out", "model back/model"] {
        let output = run(&format!("compare {pair}"), 0);
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(table.ends_with("identical\n"), "{pair}: {table}");
    }
    let one = "out/model/b.safetensors.alcm";
    run(&format!("compare {one} model/b.safetensors --max-abs 0"), 0);
    // Sums are the same for every way of reading, thread count and instruction set.
    let mut changed = fs::read(dir.path().join("model/b.safetensors")).unwrap();
    let len = changed.len();
    changed[len - 3_000_000..len - 5000].iter_mut().step_by(1000).for_each(|byte| *byte ^= 0x55);
    fs::write(dir.path().join("changed.safetensors"), changed).unwrap();
    run("compress changed.safetensors -o changed.alcm -q", 0);
    let totals = |args: &str| {
        let found = json(&run(&format!("compare {args} --json"), 0).stdout);
        (found["files"].clone(), found["total"].clone())
    };
    let expected = totals("model/b.safetensors changed.safetensors --threads 1 --isa scalar");
    assert!(expected.1["relative_l2"].as_f64().unwrap() > 0.0);
    for threads in [1, 2, 8] {
        let found = totals(&format!("{one} changed.alcm --threads {threads}"));
        assert_eq!(found.1, expected.1);
        assert_eq!(found.0[0]["tensors"], expected.0[0]["tensors"]);
    }
}

#[test]
fn compare_fails_where_there_is_nothing_to_compare_with() {
    let dir = tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    let (x, y) = (f32_bytes(&[1.0, 2.0]), f32_bytes(&[1.0, 2.0, 3.0, 4.0]));
    write("a.safetensors", &typed_checkpoint(&[("x", "F32", vec![2], &x), ("y", "F32", vec![4], &y)]));
    write("shape.safetensors", &typed_checkpoint(&[("x", "F32", vec![2], &x), ("y", "F32", vec![2, 2], &y)]));
    write("dtype.safetensors", &typed_checkpoint(&[("x", "I32", vec![2], &x), ("y", "F32", vec![4], &y)]));
    write("less.safetensors", &typed_checkpoint(&[("x", "F32", vec![2], &x)]));
    write("text", b"no checkpoint");
    let run = |args: &str| {
        let output = alcm(dir.path(), args).assert().code(1).get_output().clone();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run("compare a.safetensors shape.safetensors").contains("y (F32 [2,2] in B)"));
    assert!(run("compare a.safetensors dtype.safetensors").contains("x (I32 [2] in B)"));
    assert!(run("compare a.safetensors less.safetensors").contains("y (only in A)"));
    assert!(run("compare less.safetensors a.safetensors").contains("y (only in B)"));
    assert!(run("compare a.safetensors text").contains("bytes differ"));
    for (tree, names) in [("one", &["a", "b"][..]), ("two", &["a", "b", "c"])] {
        fs::create_dir(dir.path().join(tree)).unwrap();
        names.iter().for_each(|name| write(&format!("{tree}/{name}"), b"same"));
    }
    assert!(run("compare one two").contains("c: only in B"));
    // A damaged archive is named, and the rest is compared all the same.
    alcm(dir.path(), "compress a.safetensors text -o out -q").assert().code(0);
    let archive = dir.path().join("out/a.safetensors.alcm");
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    let assert = alcm(dir.path(), "compare out out").assert().code(1);
    assert!(String::from_utf8_lossy(&assert.get_output().stderr).contains("a.safetensors"));
    assert!(String::from_utf8_lossy(&assert.get_output().stdout).contains("text: identical bytes"));
}

/// The state of pruning in the manifest of `dir`.
fn pruning_of(dir: &std::path::Path) -> Value {
    json(&fs::read(dir.join("alcm-manifest.json")).unwrap())["entries"]["pruning"].clone()
}

#[test]
fn a_series_of_checkpoints_hands_its_pruning_threshold_on() {
    let dir = tempdir().unwrap();
    let w = weights(5, 20_000);
    fs::write(dir.path().join("w.safetensors"), typed_checkpoint(&[("w", "BF16", vec![100, 200], &w)]))
        .unwrap();
    let run = |args: &str, code: i32| {
        alcm(dir.path(), &format!("compress w.safetensors -q --lossy --rel-l2 0.1 {args}"))
            .assert()
            .code(code);
    };
    run("-o plain/", 0);
    run("-o first/ --prune", 0);
    run("-o second/ --prune-after first", 0);
    run("-o none/ --prune-after plain", 2);
    run("-o none/ --prune-after absent", 1);
    assert!(!dir.path().join("none").exists());
    assert!(pruning_of(&dir.path().join("plain")).is_null());
    let [first, second] = ["first", "second"].map(|name| pruning_of(&dir.path().join(name)));
    assert_eq!((&first["threshold_ppb"], &first["is_rising"]), (&10_000_000.into(), &false.into()));
    assert_eq!(second["threshold_ppb"], 9_500_000);
    assert_eq!(second["scores_ppb"].as_array().unwrap().len(), 2);
    alcm(dir.path(), "verify first second -q").assert().code(0);
}
