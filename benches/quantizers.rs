//! Speed of the lossy half's kernels on each instruction set, in bytes of F32 unless the id names a dtype.
//!
//! `cargo bench --bench quantizers`, or with `-- trellis` some of them.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

mod common;

use std::hint::black_box;

use alcm::Dtype;
use alcm::kernels::quantize::{Rounding, dequantize, measure, quantize, replace_f32};
use alcm::kernels::{Isa, convert, log_domain, trellis};
use alcm::quantize::rdo::{LATTICE_LAMBDA, TRELLIS_LAMBDA, Tuner, UNIFORM_LAMBDA};
use common::{isas, weights};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Elements of a block of F32.
const N: usize = 1 << 20;
/// Elements that are replaced at a time, of which all forms stay in the nearest cache.
const TILE_LEN: usize = 4096;
/// About 4 bits per element of the weights, whose scales lie around 0.02.
const STEP: f32 = 0.005;

fn values() -> Vec<f32> {
    let mut values = vec![0.0; N];
    convert::to_f32(Isa::detect(), Dtype::F32, &weights(Dtype::F32, 1, N), &mut values).unwrap();
    values
}

fn bench(c: &mut Criterion, name: &str, isa: Isa, n_bytes: usize, mut work: impl FnMut()) {
    let mut group = c.benchmark_group("quantizers");
    group.throughput(Throughput::Bytes(n_bytes as u64));
    group.bench_function(BenchmarkId::new(name, format!("isa={}/elements=1Mi", isa.name())), |b| {
        b.iter(&mut work)
    });
    group.finish();
}

fn bench_convert(c: &mut Criterion) {
    let mut values = values();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F64] {
        let name = dtype.name().to_lowercase();
        let mut bytes = vec![0; N * dtype.unit_bytes()];
        for isa in isas() {
            bench(c, &format!("from_f32/dtype={name}"), isa, 4 * N, || {
                convert::from_f32(isa, dtype, black_box(&values), &mut bytes).unwrap();
            });
            bench(c, &format!("to_f32/dtype={name}"), isa, 4 * N, || {
                convert::to_f32(isa, dtype, black_box(&bytes), &mut values).unwrap();
            });
            let changed: Vec<u8> = bytes.iter().map(|byte| byte & !1).collect();
            bench(c, &format!("measure/dtype={name}"), isa, bytes.len(), || {
                black_box(measure(isa, dtype, black_box(&bytes), &changed));
            });
        }
    }
}

fn bench_uniform(c: &mut Criterion) {
    let values = values();
    let (mut indices, mut back) = (vec![0; N], vec![0.0; N]);
    let mut tuner = Tuner::default();
    for isa in isas() {
        bench(c, "thresholds", isa, 4 * N, || {
            black_box(tuner.thresholds(isa, black_box(&values), STEP, UNIFORM_LAMBDA));
        });
        let thresholds = tuner.thresholds(isa, &values, STEP, UNIFORM_LAMBDA);
        bench(c, "lattice", isa, 4 * N, || {
            black_box(tuner.lattice(isa, black_box(&values), STEP, LATTICE_LAMBDA));
        });
        let lattice = tuner.lattice(isa, &values, STEP, LATTICE_LAMBDA);
        let roundings = [
            ("quantize_nearest", Rounding::Nearest),
            ("quantize_thresholds", thresholds.clone()),
            ("quantize_lattice", lattice.clone()),
        ];
        for (name, rounding) in roundings {
            bench(c, name, isa, 4 * N, || quantize(isa, black_box(&values), STEP, &rounding, &mut indices));
        }
        let (elements, mut tile) = (weights(Dtype::F32, 1, N), vec![0; 4 * TILE_LEN]);
        for (name, rounding) in [("replace", &thresholds), ("replace_lattice", &lattice)] {
            bench(c, name, isa, 4 * N, || {
                for (elements, indices) in elements.chunks(tile.len()).zip(indices.chunks_mut(TILE_LEN)) {
                    black_box(replace_f32(isa, Some(elements), &mut tile, STEP, rounding, indices, &[]));
                }
            });
        }
        bench(c, "dequantize", isa, 4 * N, || dequantize(isa, black_box(&indices), STEP, &mut back));
    }
}

fn bench_trellis(c: &mut Criterion) {
    let values = values();
    let (mut indices, mut back, mut scratch) = (vec![0; N], vec![0.0; N], vec![0; trellis::scratch_len(N)]);
    let mut tuner = Tuner::default();
    let step = STEP / 2.0;
    for isa in isas() {
        bench(c, "trellis_costs", isa, 4 * N, || {
            black_box(tuner.costs(isa, black_box(&values), step, TRELLIS_LAMBDA));
        });
        let costs = tuner.costs(isa, &values, step, TRELLIS_LAMBDA);
        bench(c, "trellis_quantize", isa, 4 * N, || {
            trellis::quantize(isa, black_box(&values), step, &costs, &mut scratch, &mut indices).unwrap();
        });
        bench(c, "trellis_dequantize", isa, 4 * N, || {
            trellis::dequantize(isa, black_box(&indices), step, &mut [0; trellis::N_CHAINS], &mut back);
        });
    }
}

fn bench_log_domain(c: &mut Criterion) {
    let squares: Vec<f32> = values().iter().map(|value| value * value).collect();
    let (mut logs, mut back) = (vec![0.0; N], vec![0.0; N]);
    for isa in isas() {
        bench(c, "log2", isa, 4 * N, || log_domain::log2(isa, black_box(&squares), &mut logs));
        bench(c, "exp2", isa, 4 * N, || log_domain::exp2(isa, black_box(&logs), &mut back));
    }
}

criterion_group! {
    name = quantizers;
    config = common::criterion();
    targets = bench_convert, bench_uniform, bench_trellis, bench_log_domain
}
criterion_main!(quantizers);
