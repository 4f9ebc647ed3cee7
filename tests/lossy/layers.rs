//! Layered archives: every layer is what was measured, errors fall from one to the next, and the last is the original.

use std::fs;
use std::path::Path;

use alcm::container::Archive;
use alcm::kernels::Isa;
use alcm::stage::BlockDecoder;
use alcm::{Dtype, ErrorKind, Limits};
use serde_json::Value;
use tempfile::tempdir;

use super::common::fixtures::{Random, isas, read_at_random};
use super::common::golden::{layered_archive, layered_checkpoint};
use super::common::{alcm, make_tree, snapshot, typed_checkpoint};
use super::tensors::{FLOATS, KINDS, Kind, Tensor, every_kind, file_of};

fn json(dir: &Path, args: &str) -> Value {
    serde_json::from_slice(&alcm(dir, args).assert().code(0).get_output().stdout).unwrap()
}

/// Compresses `tensors` to `layers`, checks every layer, and gives the archive.
fn check(dir: &Path, tensors: &[Tensor], layers: &str, arguments: &str) -> Vec<u8> {
    let file = file_of(tensors);
    fs::write(dir.join("f.safetensors"), &file).unwrap();
    let compress = format!("compress f.safetensors -o f.alcm -q -f --layers {layers} {arguments}");
    alcm(dir, &compress).assert().code(0);
    alcm(dir, "verify f.alcm -q").assert().code(0);
    let archive = fs::read(dir.join("f.alcm")).unwrap();
    let inspected = json(dir, "inspect f.alcm --json");
    let inspected = inspected["archives"][0]["layers"].as_array().unwrap().clone();
    if inspected.is_empty() {
        // Nothing that may be coarse.
        alcm(dir, "compare f.safetensors f.alcm -q --max-abs 0").assert().code(0);
        return archive;
    }
    assert_eq!(inspected.len(), layers.split(',').count(), "{compress}");
    let mut last_error = f64::INFINITY;
    for (number, (layer, goal)) in (1..).zip(inspected.iter().zip(layers.split(','))) {
        let end = usize::try_from(layer["archive_bytes"].as_u64().unwrap()).unwrap();
        alcm(dir, &format!("decompress f.alcm -o l.safetensors -q -f --layer {number}")).assert().code(0);
        let restored = fs::read(dir.join("l.safetensors")).unwrap();
        // The prefix is an archive.
        fs::write(dir.join("cut.alcm"), &archive[..end]).unwrap();
        alcm(dir, "verify cut.alcm -q").assert().code(0);
        alcm(dir, "decompress cut.alcm -o cut.safetensors -q -f").assert().code(0);
        assert!(restored == fs::read(dir.join("cut.safetensors")).unwrap());
        let found = json(dir, "compare f.safetensors l.safetensors --json");
        let error = found["total"]["relative_l2"].as_f64().unwrap();
        assert!(error <= last_error, "{compress}: layer {number} has an error of {error}");
        if goal == "exact" {
            assert!(restored == file, "{compress}");
        }
        // What inspect says, tensor by tensor, is what comes back.
        let losses = json(dir, "inspect cut.alcm --json");
        let tensors = losses["archives"][0]["tensors"].as_array().unwrap();
        for (told, found) in tensors.iter().zip(found["files"][0]["tensors"].as_array().unwrap()) {
            let largest = found["max_abs"].as_f64().or(found["max_abs_error"].as_f64()).unwrap();
            let told = told["loss"]["max_abs_error"].as_f64().unwrap_or(0.0);
            // Told as F32.
            let largest = largest.min(f64::from(f32::MAX));
            assert!((largest - told).abs() <= 1e-6 * told + 1e-44, "{compress}: {found} told {told}");
        }
        last_error = error;
    }
    archive
}

#[test]
fn every_kind_of_tensor_comes_back_from_layers() {
    let dir = tempdir().unwrap();
    for dtype in FLOATS {
        let tensors = every_kind(dtype);
        check(dir.path(), &tensors, "4,8,exact", "");
        check(dir.path(), &tensors, "2,2.5,3,5,7,9,11,exact", "");
        check(dir.path(), &tensors, "3", "--lossy");
        check(dir.path(), &tensors, "3,6", "--lossy");
        check(dir.path(), &tensors, "exact", "");
    }
}

#[test]
fn a_rule_may_make_layers_of_any_tensor() {
    let dir = tempdir().unwrap();
    let rules = super::with_rules(dir.path(), r#"{name: "*", despite_defaults: true}"#);
    for dtype in FLOATS {
        let mut tensors = every_kind(dtype);
        tensors
            .extend([[1, 2], [3, 5], [1, 33]].map(|shape| Tensor::new(dtype, Kind::NonFinite, &shape, 55)));
        let file = file_of(&tensors);
        check(dir.path(), &tensors, "6,10,exact", &format!("--lossy {rules}"));
        alcm(dir.path(), "decompress f.alcm -o back -q -f").assert().code(0);
        assert!(fs::read(dir.path().join("back")).unwrap() == file);
    }
}

#[test]
fn random_files_come_back_from_random_layers() {
    let dir = tempdir().unwrap();
    for seed in 0..12 {
        let mut random = Random::new(3000 + seed);
        let tensors: Vec<Tensor> = (0..5)
            .map(|tensor_idx| {
                let dtype = FLOATS[random.below(FLOATS.len())];
                let kind = KINDS[random.below(KINDS.len())];
                let shape = [40 + random.below(110), 110 + random.below(40)];
                Tensor::new(dtype, kind, &shape, seed << 8 | tensor_idx)
            })
            .collect();
        let first = 3.0 + random.below(20) as f64 / 10.0;
        let layers = format!("{first},{},exact", first + 1.0 + random.below(60) as f64 / 10.0);
        let file = file_of(&tensors);
        fs::write(dir.path().join("f.safetensors"), &file).unwrap();
        let found = alcm(dir.path(), &format!("compress f.safetensors -o f.alcm -q -f --layers {layers}"));
        let code = { found }.output().unwrap().status.code();
        // Some rates no step leads to; then nothing is written.
        if code == Some(0) {
            check(dir.path(), &tensors, &layers, "");
        } else {
            assert!(code == Some(2), "{layers}");
        }
        let _ = fs::remove_file(dir.path().join("f.alcm"));
    }
}

#[test]
fn bits_are_met_and_all_layers_cost_little_more_than_the_exact_archive() {
    let dir = tempdir().unwrap();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let tensors =
            [Tensor::new(dtype, Kind::Bell, &[300, 500], 1), Tensor::new(dtype, Kind::Bell, &[700, 90], 2)];
        let archive = check(dir.path(), &tensors, "3,4.5,6,exact", "");
        alcm(dir.path(), "compress f.safetensors -o e.alcm -q -f").assert().code(0);
        let exact = fs::read(dir.path().join("e.alcm")).unwrap();
        assert!(archive.len() * 100 < exact.len() * 104, "{dtype:?}: {} and {}", archive.len(), exact.len());
        let layers = json(dir.path(), "inspect f.alcm --json")["archives"][0]["layers"].clone();
        for (layer, goal) in [3.0, 4.5, 6.0].into_iter().enumerate() {
            let found = layers[layer]["bits_per_element"].as_f64().unwrap();
            assert!((found / goal - 1.0).abs() < 0.02, "{dtype:?}: {found} bits for {goal}");
        }
        // A Gaussian at 6 bits has a relative error of 1.9 %, and a dead zone costs a little.
        let error = layers[2]["rel_l2"].as_f64().unwrap();
        assert!(error < 0.025, "{dtype:?}: {error}");
    }
}

#[test]
fn archives_do_not_depend_on_threads_or_isa() {
    let dir = tempdir().unwrap();
    let mut tensors = every_kind(Dtype::F32);
    tensors.extend(every_kind(Dtype::F16));
    // Several blocks, the last of them shorter.
    tensors.push(Tensor::new(Dtype::F32, Kind::RowScales, &[1100, 1021], 7));
    let expected = check(dir.path(), &tensors, "4,7,exact", "");
    for (n_threads, isa) in
        [1, 2, 8].into_iter().flat_map(|n_threads| isas().map(move |isa| (n_threads, isa)))
    {
        let common = format!("--threads {n_threads} --isa {}", isa.name());
        let args = format!("compress f.safetensors -o g.alcm -q -f --layers 4,7,exact --verify {common}");
        alcm(dir.path(), &args).assert().code(0);
        assert!(fs::read(dir.path().join("g.alcm")).unwrap() == expected, "{args}");
        alcm(dir.path(), &format!("decompress g.alcm -o g.safetensors -q -f {common}")).assert().code(0);
        assert!(fs::read(dir.path().join("g.safetensors")).unwrap() == file_of(&tensors), "{args}");
    }
}

/// What every layer of `bytes` holds, the coarsest first.
fn read_layers(bytes: &[u8], decoder: &mut BlockDecoder) -> Result<Vec<Vec<u8>>, ErrorKind> {
    let archive = Archive::open(bytes, &Limits::default()).map_err(|error| error.kind())?;
    let ends = (1..=archive.n_layers()).map(|number| archive.layer(number).unwrap().archive_bytes());
    ends.map(|end| {
        let end = usize::try_from(end).unwrap();
        read_at_random(&bytes[..end], decoder, 0xaa).map_err(|error| error.kind())
    })
    .collect()
}

#[test]
fn every_bit_flip_and_every_cut_is_an_error_or_a_layer() {
    let dir = tempdir().unwrap();
    let mut bytes = layered_archive(dir.path(), "");
    let mut decoder = BlockDecoder::new(Isa::detect());
    let layers = read_layers(&bytes, &mut decoder).unwrap();
    assert!(layers.len() == 3 && layers[2] == layered_checkpoint() && layers[0] != layers[1]);
    let ends: Vec<usize> = {
        let archive = Archive::open(&bytes, &Limits::default()).unwrap();
        (1..=3)
            .map(|number| usize::try_from(archive.layer(number).unwrap().archive_bytes()).unwrap())
            .collect()
    };
    for end in 0..bytes.len() {
        let found = read_layers(&bytes[..end], &mut decoder);
        match ends.iter().position(|layer_end| *layer_end == end) {
            Some(place) => assert!(found.unwrap() == layers[..=place], "cut to {end}"),
            None => assert_eq!(found, Err(ErrorKind::Truncated), "cut to {end}"),
        }
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            assert!(read_layers(&bytes, &mut decoder).is_err(), "bit {bit} of byte {at}");
            bytes[at] ^= 1 << bit;
        }
    }
    // Layers without those before them, twice, or of another file.
    let (first, rest) = bytes.split_at(ends[0]);
    let second = &rest[..ends[1] - ends[0]];
    let third = &rest[ends[1] - ends[0]..];
    alcm(dir.path(), "compress l.safetensors -o e.alcm -q").assert().code(0);
    let exact = fs::read(dir.path().join("e.alcm")).unwrap();
    for parts in [
        &[second][..],
        &[third],
        &[first, third],
        &[first, first],
        &[first, second, second],
        &[second, third],
        &[&exact, first],
        &[first, &exact],
        &[&exact, &exact],
        &[first, second, third, third],
        &[first, second, third, first],
    ] {
        assert!(read_layers(&parts.concat(), &mut decoder).is_err());
    }
    // What is damaged in any layer is found by the program.
    for at in [100, ends[0] - 300, ends[0] + 100, ends[1] - 200, ends[2] - 200] {
        bytes[at] ^= 16;
        fs::write(dir.path().join("bad.alcm"), &bytes).unwrap();
        alcm(dir.path(), "verify bad.alcm -q").assert().code(1);
        bytes[at] ^= 16;
    }
}

#[test]
fn commands_take_a_layer_by_number_or_bits() {
    let dir = tempdir().unwrap();
    let tensors = [Tensor { name: "w".into(), ..Tensor::new(Dtype::F32, Kind::Bell, &[90, 100], 4) }];
    check(dir.path(), &tensors, "4,8,exact", "");
    let run = |args: &str, code: i32| alcm(dir.path(), args).assert().code(code).get_output().clone();
    let restored = |args: &str| {
        run(&format!("decompress f.alcm -o x -q -f {args}"), 0);
        fs::read(dir.path().join("x")).unwrap()
    };
    let layers: Vec<_> = (1..=3).map(|number| restored(&format!("--layer {number}"))).collect();
    assert!(layers[2] == file_of(&tensors) && layers[0] != layers[1]);
    for (arguments, number) in
        [("", 3), ("--bits 4", 1), ("--bits 7.9", 1), ("--bits 8", 2), ("--bits 30", 2)]
    {
        assert!(restored(arguments) == layers[number - 1], "{arguments}");
    }
    for arguments in ["--layer 0", "--layer 4", "--bits 3.9"] {
        let output = run(&format!("decompress f.alcm -o none -q {arguments}"), 1);
        assert!(String::from_utf8_lossy(&output.stderr).contains("the archive has 3"), "{arguments}");
        assert!(!dir.path().join("none").exists());
    }
    run("decompress f.alcm -o none --layer 1 --bits 4", 2);
    for (number, layer) in layers.iter().enumerate() {
        run(&format!("extract f.alcm --tensor w -o t -q -f --layer {}", number + 1), 0);
        assert!(fs::read(dir.path().join("t")).unwrap() == layer[layer.len() - 4 * 9000..]);
    }
    // Through a pipe.
    let archive = fs::read(dir.path().join("f.alcm")).unwrap();
    for (arguments, number) in [("", 3), ("--layer 1", 1), ("--bits 8", 2)] {
        let output = alcm(dir.path(), &format!("decompress - -o - -q {arguments}"))
            .write_stdin(archive.clone())
            .assert()
            .code(0)
            .get_output()
            .clone();
        assert!(output.stdout == layers[number - 1], "{arguments}");
    }
    // Of an archive without layers every choice is the whole.
    run("compress f.safetensors -o e.alcm -q", 0);
    run("decompress e.alcm -o y -q --layer 2", 0);
    assert!(fs::read(dir.path().join("y")).unwrap() == layers[2]);
    let text = run("inspect f.alcm", 0).stdout;
    assert!(String::from_utf8_lossy(&text).contains("bytes to here"));
}

#[test]
fn a_tree_of_layered_archives_is_restored_resumed_and_verified() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    let tensor = |name: &str, seed| Tensor {
        name: name.into(),
        ..Tensor::new(Dtype::F32, Kind::Bell, &[90, 100], seed)
    };
    let file = file_of(&[tensor("a", 1), tensor("b", 1), tensor("c", 2)]);
    fs::write(dir.path().join("model/w.safetensors"), &file).unwrap();
    fs::write(dir.path().join("model/deep/same.safetensors"), &file).unwrap();
    let run = |args: &str, code: i32| alcm(dir.path(), args).assert().code(code).get_output().clone();
    let layers = "--layers 4,exact";
    run(&format!("compress model -o out -q {layers} --verify"), 0);
    run("verify out -q", 0);
    run("decompress out -o back -q", 0);
    assert!(snapshot(&dir.path().join("model")) == snapshot(&dir.path().join("back/model")));
    // The coarse layer of what has layers, and all else as it is.
    run("decompress out -o coarse -q --layer 1", 0);
    let mut expected = snapshot(&dir.path().join("model"));
    let found = snapshot(&dir.path().join("coarse/model"));
    for name in ["w.safetensors", "deep/same.safetensors"] {
        assert!(found[name].4.len() == file.len() && found[name].4 != file);
        expected.insert(name.into(), found[name].clone());
    }
    assert!(found == expected);
    let before = snapshot(&dir.path().join("out"));
    let resumed = |args: &str| {
        let output = run(&format!("compress model -o out --json --resume {args}"), 0);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        report["resumed_files"].as_u64().unwrap()
    };
    let n_files = resumed(layers);
    assert!(n_files >= 8, "{n_files}");
    let contents = |snapshot: std::collections::BTreeMap<String, super::common::Entry>| -> Vec<Vec<u8>> {
        snapshot.into_values().map(|entry| entry.4).collect()
    };
    assert!(contents(before.clone()) == contents(snapshot(&dir.path().join("out"))));
    // Other layers, or none, are other archives.
    assert_eq!(resumed("--layers 4.5,exact"), n_files - 1);
    assert_eq!(resumed("--layers 4.5,6,exact"), n_files - 1);
    assert!(resumed("") < n_files);
    assert!(resumed(layers) < n_files);
    assert!(contents(before) == contents(snapshot(&dir.path().join("out"))));
}

#[test]
fn layers_must_get_finer_and_end_exactly_unless_loss_is_meant() {
    let dir = tempdir().unwrap();
    let weights = vec![7; 4 * 8192];
    let file = typed_checkpoint(&[("w", "F32", vec![64, 128], &weights)]);
    fs::write(dir.path().join("f.safetensors"), file).unwrap();
    for arguments in [
        "--layers 4",
        "--layers 4,8",
        "--layers 8,4,exact",
        "--layers 4,4,exact",
        "--layers exact,4",
        "--layers exact,exact",
        "--layers 0,exact",
        "--layers nan,exact",
        "--layers 4,best",
        "--layers 4,25,exact",
        "--layers 1,2,3,4,5,6,7,8,exact",
        "--layers 4,exact --lossy --bits 4",
        "--layers 4,exact --lossy --quant trellis",
        "--layers 4,exact --dry-run",
        "--layers 4 --lossy --remove-source",
    ] {
        alcm(dir.path(), &format!("compress f.safetensors -o f.alcm {arguments}")).assert().code(2);
        assert!(!dir.path().join("f.alcm").exists(), "{arguments}");
    }
    alcm(dir.path(), "compress - -o - --layers 4,exact").write_stdin(vec![1]).assert().code(2);
    // A constant has no layers.
    alcm(dir.path(), "compress f.safetensors -o f.alcm --layers 4,exact -q --remove-source").assert().code(0);
    assert!(!dir.path().join("f.safetensors").exists());
    alcm(dir.path(), "decompress f.alcm -o back -q").assert().code(0);
}
