//! A file tree to archives and back: real test data and a tensor of 16 Mi bf16 elements, from and to files in the
//! page cache. Prints where the thread time of one run goes after the speeds.
//!
//! `cargo bench --bench end_to_end`; `TMPDIR` says where the files lie.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alcm::Dtype;
use alcm::pipeline::compress::compress_tree;
use alcm::pipeline::context::Context;
use alcm::pipeline::decompress::{DecompressOptions, decompress_tree};
use alcm::pipeline::report::Report;
use alcm::pipeline::settings::{CodingSettings, CompressOptions};
use alcm::pipeline::verify::verify;
use alcm::stage::Level;
use common::{checkpoint, weights};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Elements of the made tensor.
const N: usize = 16 << 20;
const LEVELS: [(&str, Level); 3] =
    [("fast", Level::Fast), ("default", Level::Default), ("high", Level::High)];

/// The tree that is compressed.
fn make_tree(root: &Path) -> PathBuf {
    let tree = root.join("tree");
    fs::create_dir_all(&tree).unwrap();
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/digits_resnet");
    for entry in fs::read_dir(real).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), tree.join(entry.file_name())).unwrap();
    }
    let made = checkpoint(Dtype::Bf16, &weights(Dtype::Bf16, 11, N));
    fs::write(tree.join("weights.safetensors"), made).unwrap();
    tree
}

fn whole(report: Report) -> Report {
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    report
}

fn bench_tree(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let tree = [make_tree(dir.path())];
    let (archives, back) = (dir.path().join("archives"), dir.path().join("back"));
    let decompress_options = DecompressOptions { force: true, ..DecompressOptions::default() };
    let n_cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut breakdown = String::new();
    let mut thread_counts = vec![1, n_cpus];
    thread_counts.dedup();
    for threads in thread_counts {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let ctx = Context::new(&pool);
        for (name, level) in LEVELS {
            let coding = CodingSettings { level, ..CodingSettings::default() };
            let options = CompressOptions { coding, force: true, ..CompressOptions::default() };
            let compress = || whole(compress_tree(&ctx, &tree, &archives, &options).unwrap());
            let decompress = || whole(decompress_tree(&ctx, &archives, &back, decompress_options).unwrap());
            let total = compress().total();
            let id = format!("level={name}/threads={threads}/ratio={:.3}", total.ratio());
            let mut group = c.benchmark_group("tree");
            group.throughput(Throughput::Bytes(total.original_bytes));
            group.sample_size(10).measurement_time(Duration::from_secs(3));
            group.bench_function(BenchmarkId::new("compress", &id), |b| b.iter(compress));
            group.bench_function(BenchmarkId::new("decompress", &id), |b| b.iter(decompress));
            group.bench_function(BenchmarkId::new("verify", &id), |b| {
                b.iter(|| whole(verify(&ctx, std::slice::from_ref(&archives))));
            });
            group.finish();
            let (there, and_back) = (compress(), decompress());
            for (command, report) in [("compress", there), ("decompress", and_back)] {
                breakdown += &format!(
                    "\n{command}, {id}: {:.3} s, {:.2} GB/s\n{}",
                    report.elapsed.as_secs_f64(),
                    report.gigabytes_per_second(),
                    report.timings
                );
            }
        }
    }
    println!("{breakdown}");
    for entry in fs::read_dir(&tree[0]).unwrap() {
        let path = entry.unwrap().path();
        let restored = back.join("tree").join(path.file_name().unwrap());
        assert!(fs::read(&path).unwrap() == fs::read(restored).unwrap(), "{} differs", path.display());
    }
}

criterion_group! {
    name = end_to_end;
    config = common::criterion();
    targets = bench_tree
}
criterion_main!(end_to_end);
