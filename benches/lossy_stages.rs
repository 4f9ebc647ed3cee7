//! The five stages of a lossy run, file to file on one thread: for a tensor of 100 × 100 elements and for one of 16 Mi,
//! by an error goal and by a rate goal. Prints milliseconds and shares of one run of each after the times.
//!
//! `cargo bench --bench lossy_stages`; `TMPDIR` says where the files lie. Pruning is on, which is what most of the time of
//! a small tensor goes into.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

mod common;

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use alcm::Dtype;
use alcm::pipeline::compress::compress_file;
use alcm::pipeline::context::Context;
use alcm::pipeline::lossy::settings::{Goal, LossySettings, PruningSettings};
use alcm::pipeline::settings::CompressOptions;
use alcm::pipeline::tensor::{Tensor, TensorGoal, TensorMode, compress_tensor_timed};
use alcm::pipeline::timings::{Step, Timings};
use alcm::stage::Quantizer;
use common::{matrix, weights};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Rows and columns.
const SHAPES: [[usize; 2]; 2] = [[100, 100], [16 << 10, 1 << 10]];
const GOALS: [(&str, Goal); 2] = [("rel_l2=0.01", Goal::RelL2(0.01)), ("bits=4", Goal::Bits(4.0))];

/// Compresses the file at `path` and says where the time went.
fn run(ctx: &Context<'_>, path: &Path, goal: Goal) -> Timings {
    let pruning = PruningSettings { enabled: true, ..PruningSettings::default() };
    let lossy = Some(LossySettings { pruning, ..LossySettings::new(goal) });
    let options = CompressOptions { force: true, lossy, ..CompressOptions::default() };
    let report = compress_file(ctx, path, &path.with_extension("alcm"), &options).unwrap();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    report.timings
}

/// Times each stage of what `run` does, as `id`, and gives one run's breakdown.
fn bench_stages(c: &mut Criterion, id: &str, n_bytes: usize, run: &dyn Fn() -> Timings) -> String {
    let mut group = c.benchmark_group("lossy_stages");
    group.throughput(Throughput::Bytes(n_bytes as u64)).sample_size(10);
    for stage in Step::STAGES {
        group.bench_function(BenchmarkId::new(stage.name(), id), |b| {
            b.iter_custom(|n_runs| {
                // Of no length at all no statistics are made.
                (0..n_runs).map(|_| run().spent(stage)).sum::<Duration>().max(Duration::from_nanos(1))
            });
        });
    }
    group.finish();
    format!("\n{id}\n{}", run())
}

fn bench_files(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let ctx = Context::new(&pool);
    let mut breakdown = String::new();
    for [rows, columns] in SHAPES {
        let elements = weights(Dtype::F32, 21, rows * columns);
        let path = dir.path().join(format!("{rows}x{columns}.safetensors"));
        fs::write(&path, matrix(Dtype::F32, [rows, columns], &elements)).unwrap();
        for (name, goal) in GOALS {
            let id = format!("shape={rows}x{columns}/{name}");
            breakdown += &bench_stages(c, &id, elements.len(), &|| run(&ctx, &path, goal));
        }
    }
    println!("{breakdown}");
}

/// The small tensor as a frame of its own, without files.
fn bench_frame(c: &mut Criterion) {
    let [[rows, columns], _] = SHAPES;
    let bytes = weights(Dtype::F32, 21, rows * columns);
    let shape = [rows as u64, columns as u64];
    let mode = TensorMode::Lossy(TensorGoal::RelL2(0.01), Quantizer::Uniform);
    let run = || {
        let mut timings = Timings::default();
        let tensor = Tensor { dtype: Dtype::F32, shape: &shape, bytes: &bytes };
        let isa = alcm::kernels::Isa::detect();
        black_box(compress_tensor_timed(isa, tensor, mode, &mut timings).unwrap());
        timings
    };
    let id = format!("frame/shape={rows}x{columns}/rel_l2=0.01");
    println!("{}", bench_stages(c, &id, bytes.len(), &run));
}

criterion_group! {
    name = lossy_stages;
    config = common::criterion();
    targets = bench_files, bench_frame
}
criterion_main!(lossy_stages);
