//! Tensors that are much like earlier ones of their file, such as moving averages of weights: coded as differences.
#![cfg(all(unix, feature = "cli"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod common;

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use alcm::kernels::Isa;
use alcm::pipeline::compress::compress_file;
use alcm::pipeline::context::Context;
use alcm::pipeline::progress::Progress;
use alcm::pipeline::settings::CompressOptions;
use alcm::{Dtype, ErrorKind, Limits};
use common::delta::near_copy;
use common::fixtures::{Random, isas};
use common::{alcm, random_bytes, typed_checkpoint};
use serde_json::Value;
use tempfile::tempdir;

/// `n` normal-like F32 of a scale that differs from row to row.
fn singles(seed: u64, n: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let value = |idx: usize| random.bell() * (1 + idx / 640 % 7) as f64;
    (0..n).map(value).flat_map(|value| (value as f32).to_le_bytes()).collect()
}

/// Weights of two layers, moving averages of them, the averages of one of them once more, and a layer of its own.
fn model() -> Vec<u8> {
    let [first, second, own] = [1, 2, 3].map(|seed| singles(seed, 300_000));
    let half: Vec<u8> =
        singles(4, 200_000).as_chunks::<4>().0.iter().flat_map(|&[_, _, a, b]| [a, b]).collect();
    let average = |weights: &[u8], dtype, seed| near_copy(dtype, weights, seed);
    let averages = average(&first, Dtype::F32, 11);
    typed_checkpoint(&[
        ("a.weight", "F32", vec![300, 1000], &first),
        ("b.weight", "F32", vec![300, 1000], &second),
        ("c.weight", "BF16", vec![200, 1000], &half),
        ("ema.b", "F32", vec![300, 1000], &average(&second, Dtype::F32, 12)),
        ("ema.a", "F32", vec![300, 1000], &averages),
        ("ema.c", "BF16", vec![200, 1000], &average(&half, Dtype::Bf16, 13)),
        ("ema2.a", "F32", vec![300, 1000], &average(&averages, Dtype::F32, 14)),
        ("same.a", "F32", vec![300, 1000], &averages),
        ("own", "F32", vec![300, 1000], &own),
    ])
}

fn json(dir: &Path, args: &str) -> Value {
    let assert = alcm(dir, args).assert().code(0);
    serde_json::from_slice(&assert.get_output().stdout).unwrap()
}

#[test]
fn near_copies_are_found_and_come_back_by_every_way() {
    let dir = tempdir().unwrap();
    let model = model();
    fs::write(dir.path().join("m.safetensors"), &model).unwrap();
    let run = |args: &str| json(dir.path(), args);
    let predicted = run("compress m.safetensors -o out --dry-run --json");
    let report = run("compress m.safetensors -o out --verify --json");
    assert_eq!(predicted["dtypes"]["F32"]["stored_bytes"], report["dtypes"]["F32"]["stored_bytes"]);
    let stored = report["total"]["stored_bytes"].as_u64().unwrap();
    let archive = "out/m.safetensors.alcm";
    let inspected = run(&format!("inspect {archive} --json"));
    let coding = |name: &str| {
        let tensors = inspected["archives"][0]["tensors"].as_array().unwrap();
        let tensor = tensors.iter().find(|tensor| tensor["name"] == name).unwrap();
        tensor["codings"][0].as_str().unwrap().to_owned()
    };
    for name in ["ema.a", "ema.b", "ema.c", "ema2.a"] {
        assert_eq!(coding(name), "delta", "{name}");
    }
    assert_eq!(coding("same.a"), "reference");
    for name in ["a.weight", "b.weight", "c.weight", "own"] {
        assert_eq!(coding(name), "fields", "{name}");
    }

    alcm(dir.path(), "compress m.safetensors -o plain -q --no-dedup").assert().code(0);
    let plain = fs::metadata(dir.path().join("plain/m.safetensors.alcm")).unwrap().len();
    assert!(stored * 10 < plain * 8, "{stored} of {plain}");

    alcm(dir.path(), "verify out -q").assert().code(0);
    alcm(dir.path(), "decompress out -o back -q").assert().code(0);
    assert!(fs::read(dir.path().join("back/m.safetensors")).unwrap() == model);
    let piped = fs::read(dir.path().join(archive)).unwrap();
    let back = alcm(dir.path(), "decompress - -o - -q").write_stdin(piped).assert().code(0);
    assert!(back.get_output().stdout == model);
    alcm(dir.path(), &format!("extract {archive} --tensor ema2.a -o t.bin")).assert().code(0);
    let averages = near_copy(Dtype::F32, &singles(1, 300_000), 11);
    assert!(fs::read(dir.path().join("t.bin")).unwrap() == near_copy(Dtype::F32, &averages, 14));

    assert_eq!(run("compress m.safetensors -o out --resume --json")["resumed_files"], 1);
    assert!(
        run("compress m.safetensors -o out --resume --no-dedup --json").get("resumed_files")
            != Some(&1.into())
    );
}

#[test]
fn archives_with_near_copies_do_not_depend_on_threads_or_isa() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("m.safetensors"), model()).unwrap();
    let mut first = None;
    let runs = isas().flat_map(|isa| [1, 2, 8].map(|n| format!("--threads {n} --isa {}", isa.name())));
    for flags in runs.chain(["--deterministic".to_owned()]) {
        alcm(dir.path(), &format!("compress m.safetensors -o m.alcm -q --force {flags}")).assert().code(0);
        let archive = fs::read(dir.path().join("m.alcm")).unwrap();
        let first = first.get_or_insert_with(|| archive.clone());
        assert!(*first == archive, "{flags}");
    }
}

/// Changes the source once its header and its first tensor are coded.
struct Meddle<F: Fn() + Sync>(F, AtomicUsize);

impl<F: Fn() + Sync> Progress for Meddle<F> {
    fn begin(&self, _total_bytes: u64) {}
    fn file_started(&self, _file_idx: usize, _path: &str, _bytes: u64) {}
    fn advanced(&self, _file_idx: usize, _bytes: u64) {
        if self.1.fetch_add(1, Ordering::Relaxed) == 1 {
            (self.0)();
        }
    }
    fn file_finished(&self, _file_idx: usize) {}
}

/// Times may be set back, and then say nothing: what a difference is taken from must be what has been stored.
#[test]
fn a_tensor_that_changes_between_its_own_turn_and_that_of_its_near_copy_is_an_error() {
    let dir = tempdir().unwrap();
    let (source, out) = (dir.path().join("m.safetensors"), dir.path().join("m.alcm"));
    let weights = singles(1, 100_000);
    let between = random_bytes(2, 60 << 20);
    let file = typed_checkpoint(&[
        ("a", "F32", vec![100, 1000], &weights),
        ("between", "U8", vec![between.len()], &between),
        ("ema.a", "F32", vec![100, 1000], &near_copy(Dtype::F32, &weights, 3)),
    ]);
    fs::write(&source, &file).unwrap();
    let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::options().append(true).open(&source).unwrap().set_modified(time).unwrap();
    let change = || {
        let mut file = fs::File::options().write(true).open(&source).unwrap();
        file.seek(SeekFrom::Start(5000)).unwrap();
        file.write_all(b"meanwhile").unwrap();
        file.set_modified(time).unwrap();
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let progress = Meddle(change, AtomicUsize::new(0));
    let ctx = Context { pool: &pool, progress: &progress, isa: Isa::detect(), limits: Limits::default() };
    let report = compress_file(&ctx, &source, &out, &CompressOptions::default()).unwrap();
    let error = &report.failures[0].error;
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("like another"), "{error}");
    assert!(source.exists() && !out.exists());
}
