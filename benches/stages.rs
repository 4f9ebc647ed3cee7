//! What coding one block is made of, step by step, and back; all in original bytes per second.
//!
//! `cargo bench --features bench-internals --bench stages`. The steps of a run around the block (map, write) are
//! in `end_to_end`.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs, reason = "a bench")]

mod common;

use std::hint::black_box;

use alcm::Dtype;
use alcm::container::{BlockInfo, Piece, block_header_bytes, crc64};
use alcm::entropy::plan::Planner;
use alcm::entropy::rans8;
use alcm::kernels::Isa;
use alcm::kernels::fields::{self, GROUP_LEN, Layout};
use alcm::stage::bench_internals::{self as steps, Planes};
use alcm::stage::{BlockDecoder, BlockEncoder, BlockSource, Level};
use common::{DTYPES, ROW_LEN, all_data, weights};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Times `work` as `group/id`, in bytes of `original`.
fn bench(c: &mut Criterion, group: &str, id: &str, original: &[u8], mut work: impl FnMut()) {
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Bytes(original.len() as u64));
    group.bench_function(BenchmarkId::from_parameter(id), |b| b.iter(&mut work));
    group.finish();
}

/// A block after splitting.
struct Split {
    layout: Layout,
    n_elements: usize,
    symbols: Vec<u8>,
    planes: Vec<u8>,
}

fn split(isa: Isa, source: BlockSource<'_>) -> Split {
    let layout = steps::choose_layout(source, Level::Default).unwrap();
    let n_elements = source.bytes.len() * 8 / layout.element_bits as usize;
    assert!(n_elements.is_multiple_of(GROUP_LEN), "whole blocks need no padding");
    let mut split = Split {
        layout,
        n_elements,
        symbols: vec![0; rans8::buffer_len(n_elements)],
        planes: vec![0; fields::planes_len(&layout, n_elements)],
    };
    fields::split(isa, &layout, source.bytes, &mut split.symbols[..n_elements], &mut split.planes);
    split
}

fn bench_encode_steps(c: &mut Criterion) {
    let isa = Isa::detect();
    for (name, dtype) in DTYPES {
        let src = weights(dtype, 1, dtype.block_bytes() / dtype.unit_bytes());
        let source = BlockSource { dtype, bytes: &src, row_len: ROW_LEN, row_start: 0 };
        let at = |step: &str| format!("step={step}/dtype={name}/isa={}", isa.name());
        let mut snapshot = vec![1; src.len()];
        bench(c, "encode", &at("1_snapshot"), &src, || snapshot.copy_from_slice(black_box(&src)));
        bench(c, "encode", &at("2_checksum"), &src, || _ = black_box(crc64(black_box(&src))));
        bench(c, "encode", &at("3_blake3"), &src, || _ = black_box(Piece::hash(0, black_box(&src))));
        bench(c, "encode", &at("4_layout"), &src, || {
            black_box(steps::choose_layout(black_box(source), Level::Default));
        });
        let Split { layout, n_elements, mut symbols, mut planes } = split(isa, source);
        bench(c, "encode", &at("5_split"), &src, || {
            fields::split(isa, &layout, black_box(&src), &mut symbols[..n_elements], &mut planes);
        });
        let mut planner = Planner::default();
        for (level_name, level) in [("fast", Level::Fast), ("default", Level::Default), ("high", Level::High)]
        {
            let id = at(&format!("6_plan_{level_name}"));
            bench(c, "encode", &id, &src, || {
                steps::plan(isa, &mut planner, black_box(&symbols[..n_elements]), level);
            });
        }
        // The planning of step 6 is part of this one.
        let mut encoder = rans8::Encoder::default();
        let mut dst = Vec::with_capacity(2 * src.len());
        bench(c, "encode", &at("7_plan_and_symbols"), &src, || {
            dst.clear();
            steps::encode_symbols(&mut encoder, isa, Level::Default, n_elements, &mut symbols, &mut dst);
        });
        let mut coder = Planes::new(Level::Default);
        bench(c, "encode", &at("8_planes"), &src, || {
            dst.clear();
            coder.encode(isa, &layout, n_elements, black_box(&planes), &mut dst);
        });
        dst.clear();
        let coding = BlockEncoder::new(Level::Default, isa).encode(source, &mut dst);
        let info = BlockInfo::new(dtype, coding, src.len(), dst.len()).unwrap();
        bench(c, "encode", &at("9_record_checksum"), &src, || {
            black_box(block_header_bytes(info, 0, black_box(&dst)).unwrap());
        });
    }
}

fn bench_decode_steps(c: &mut Criterion) {
    let isa = Isa::detect();
    for (name, dtype) in DTYPES {
        let src = weights(dtype, 1, dtype.block_bytes() / dtype.unit_bytes());
        let source = BlockSource { dtype, bytes: &src, row_len: ROW_LEN, row_start: 0 };
        let at = |step: &str| format!("step={step}/dtype={name}/isa={}", isa.name());
        let mut payload = Vec::new();
        BlockEncoder::new(Level::Default, isa).encode(source, &mut payload);
        bench(c, "decode", &at("1_record_checksum"), &src, || _ = black_box(crc64(black_box(&payload))));
        let Split { layout, n_elements, mut symbols, planes } = split(isa, source);
        let original = symbols[..n_elements].to_vec();
        let mut section = Vec::new();
        let mut encoder = rans8::Encoder::default();
        steps::encode_symbols(&mut encoder, isa, Level::Default, n_elements, &mut symbols, &mut section);
        let mut decoder = rans8::Decoder::default();
        let mut decode =
            || steps::decode_symbols(&mut decoder, isa, black_box(&section), n_elements, &mut symbols);
        bench(c, "decode", &at("2_symbols"), &src, || decode().unwrap());
        decode().unwrap();
        assert!(symbols[..n_elements] == original);
        let (bytes, packed) = planes.split_at(n_elements * layout.n_byte_planes());
        let byte_planes: Vec<&[u8]> = bytes.chunks_exact(n_elements).collect();
        let mut dst = vec![0; src.len()];
        bench(c, "decode", &at("3_join"), &src, || {
            fields::join(isa, &layout, black_box(&original), &byte_planes, packed, &mut dst).unwrap();
        });
        bench(c, "decode", &at("4_checksum"), &src, || _ = black_box(crc64(black_box(&src))));
        bench(c, "decode", &at("5_blake3"), &src, || _ = black_box(Piece::hash(0, black_box(&src))));
    }
}

/// Whole blocks, without checksums and hash.
fn bench_blocks(c: &mut Criterion) {
    for (name, dtype) in DTYPES {
        let n = dtype.block_bytes() / dtype.unit_bytes();
        for (data, src) in all_data(dtype, n) {
            for isa in common::isas() {
                let source = BlockSource { dtype, bytes: &src, row_len: ROW_LEN, row_start: 0 };
                let mut encoder = BlockEncoder::new(Level::Default, isa);
                let mut payload = Vec::with_capacity(2 * src.len());
                let coding = encoder.encode(source, &mut payload);
                // The ratio stands beside the speed: original ÷ payload.
                let ratio = src.len() as f64 / payload.len() as f64;
                let id = format!("dtype={name}/data={data}/isa={}/ratio={ratio:.3}", isa.name());
                let mut scratch = Vec::with_capacity(2 * src.len());
                bench(c, "block_encode", &id, &src, || {
                    scratch.clear();
                    encoder.encode(black_box(source), &mut scratch);
                });
                let (mut decoder, mut dst) = (BlockDecoder::new(isa), vec![0; src.len()]);
                bench(c, "block_decode", &id, &src, || {
                    decoder.decode(coding, dtype, black_box(&payload), &mut dst).unwrap();
                });
                decoder.decode(coding, dtype, &payload, &mut dst).unwrap();
                assert!(dst == src, "{id}");
            }
        }
    }
}

/// Each level on the dtype that most checkpoints have.
fn bench_levels(c: &mut Criterion) {
    let dtype = Dtype::Bf16;
    let src = weights(dtype, 1, dtype.block_bytes() / dtype.unit_bytes());
    let source = BlockSource { dtype, bytes: &src, row_len: ROW_LEN, row_start: 0 };
    for (name, level) in [("fast", Level::Fast), ("default", Level::Default), ("high", Level::High)] {
        let mut encoder = BlockEncoder::new(level, Isa::detect());
        let mut payload = Vec::with_capacity(2 * src.len());
        encoder.encode(source, &mut payload);
        let ratio = src.len() as f64 / payload.len() as f64;
        bench(c, "block_encode_level", &format!("level={name}/dtype=bf16/ratio={ratio:.3}"), &src, || {
            payload.clear();
            encoder.encode(black_box(source), &mut payload);
        });
    }
}

criterion_group! {
    name = stages;
    config = common::criterion();
    targets = bench_encode_steps, bench_decode_steps, bench_blocks, bench_levels
}
criterion_main!(stages);
