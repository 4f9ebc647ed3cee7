//! Speed of each kernel on each instruction set, in original bytes of the data that it works on.
//!
//! `cargo bench --bench kernels`, or with `-- rans8_decode` one of them.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

mod common;

use std::hint::black_box;

use alcm::Dtype;
use alcm::entropy::freq::normalise;
use alcm::entropy::indices::{Dependence, IndexDecoder, IndexEncoder};
use alcm::entropy::log_freq::{Fitted, TableKind};
use alcm::kernels::fields::{self, GROUP_LEN, Layout};
use alcm::kernels::histogram::Counters;
use alcm::kernels::moments::Moments;
use alcm::kernels::quantize::{ROW_LEN as COLUMNS, SHEET_LEN};
use alcm::kernels::rans8::{self, Decoder, EncodeTable, MAX_GROUPS, Plan, SLACK_BYTES, Table};
use alcm::kernels::rans12;
use alcm::kernels::survey::or_and;
use alcm::kernels::transpose::transpose;
use alcm::kernels::{Isa, pack_bits};
use alcm::quantize::predictor::{Networks, Unit, models};
use common::{DTYPES, ROW_LEN, isas, random_bytes, weights};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Elements, and symbols, of a block.
const N: usize = 256 << 10;

/// Exponent and top mantissa bit as the symbol, everything else as the residual.
fn layout(dtype: Dtype) -> Layout {
    let exponent_bits = match dtype {
        Dtype::F16 => 5,
        Dtype::F8E4m3 => 4,
        _ => 8,
    };
    let symbol_bits = exponent_bits + 1;
    let layout = Layout {
        element_bits: u32::try_from(dtype.element_bits()).unwrap(),
        symbol_bits,
        has_sign: true,
        shared_sign: None,
        low_zero_bits: 0,
        // The exponents of weights lie around 2^-6.
        symbol_base: if symbol_bits > 8 { 64 } else { 0 },
    };
    assert!(layout.is_valid());
    layout
}

/// Symbols of weights, as the coder gets them.
fn symbols(dtype: Dtype) -> Vec<u8> {
    let (elements, layout) = (weights(dtype, 1, N), layout(dtype));
    let (mut symbols, mut planes) = (vec![0; N], vec![0; fields::planes_len(&layout, N)]);
    fields::split(Isa::Scalar, &layout, &elements, &mut symbols, &mut planes);
    symbols
}

fn bench_fields(c: &mut Criterion) {
    for (name, dtype) in DTYPES {
        let (src, layout) = (weights(dtype, 1, N), layout(dtype));
        let mut symbols = vec![0; N];
        let mut planes = vec![0; fields::planes_len(&layout, N)];
        for isa in isas() {
            let id = format!("dtype={name}/isa={}", isa.name());
            let mut group = c.benchmark_group("fields_split");
            group.throughput(Throughput::Bytes(src.len() as u64));
            group.bench_function(BenchmarkId::from_parameter(&id), |b| {
                b.iter(|| fields::split(isa, &layout, black_box(&src), &mut symbols, &mut planes));
            });
            group.finish();
            let (bytes, packed) = planes.split_at(N * layout.n_byte_planes());
            let byte_planes: Vec<&[u8]> = bytes.chunks_exact(N).collect();
            let mut dst = vec![0; src.len()];
            let mut group = c.benchmark_group("fields_join");
            group.throughput(Throughput::Bytes(src.len() as u64));
            group.bench_function(BenchmarkId::from_parameter(&id), |b| {
                b.iter(|| {
                    fields::join(isa, &layout, black_box(&symbols), &byte_planes, packed, &mut dst).unwrap();
                });
            });
            group.finish();
            // Once more for a filtered run, which has skipped them above.
            fields::split(isa, &layout, &src, &mut symbols, &mut planes);
            let (bytes, packed) = planes.split_at(N * layout.n_byte_planes());
            let byte_planes: Vec<&[u8]> = bytes.chunks_exact(N).collect();
            fields::join(isa, &layout, &symbols, &byte_planes, packed, &mut dst).unwrap();
            assert!(dst == src, "{id}: all symbols lie in the window");
        }
    }
}

/// The table that one segment of `symbols` would get.
fn table(symbols: &[u8]) -> Table {
    let mut counters = Counters::default();
    counters.count(symbols);
    Table::new(&normalise(&counters.total(), 31).pairs).unwrap()
}

fn bench_rans8(c: &mut Criterion) {
    let uniform: Vec<u8> = random_bytes(5, N).into_iter().map(|byte| byte % 16).collect();
    let mut rare = vec![7; N];
    rare.iter_mut().step_by(997).for_each(|symbol| *symbol = 9);
    for (data, symbols) in
        [("weights", symbols(Dtype::Bf16)), ("uniform16", uniform), ("nearly_constant", rare)]
    {
        let table = table(&symbols);
        let (encode_tables, tables) = ([EncodeTable::new(&table)], [table]);
        let mut states = [0; MAX_GROUPS * GROUP_LEN];
        let mut stream = vec![0; rans8::encode_buffer_len(N)];
        let mut escapes = stream.clone();
        for isa in isas() {
            let id = format!("isa={}/symbols=256Ki/data={data}", isa.name());
            let plan = Plan { groups: MAX_GROUPS, tables: &encode_tables, table_ids: &[0], segment_len: N };
            let mut encoded = None;
            let mut group = c.benchmark_group("rans8_encode");
            group.throughput(Throughput::Bytes(N as u64));
            group.bench_function(BenchmarkId::from_parameter(&id), |b| {
                b.iter(|| {
                    encoded = rans8::encode(
                        isa,
                        &plan,
                        black_box(&symbols),
                        &mut states,
                        &mut stream,
                        &mut escapes,
                    );
                });
            });
            group.finish();
            // The bench above is left out where a filter names another.
            let encoded = encoded
                .or_else(|| rans8::encode(isa, &plan, &symbols, &mut states, &mut stream, &mut escapes))
                .unwrap();
            let coded = &stream[encoded.stream_start..stream.len() - SLACK_BYTES];
            let mut queue = escapes[encoded.escapes_start..].to_vec();
            let n_escapes = queue.len() - SLACK_BYTES;
            queue.resize(n_escapes + 3 * SLACK_BYTES, 0);
            let plan = Plan { groups: MAX_GROUPS, tables: &tables, table_ids: &[0], segment_len: N };
            let mut dst = vec![0; N];
            let mut decode = || {
                let mut decoder = Decoder::new(isa, plan, &states, coded, &queue, n_escapes, N)?;
                decoder.next(&mut dst)?;
                decoder.finish()
            };
            let mut group = c.benchmark_group("rans8_decode");
            group.throughput(Throughput::Bytes(N as u64));
            group.bench_function(BenchmarkId::from_parameter(&id), |b| b.iter(|| decode().unwrap()));
            group.finish();
            decode().unwrap();
            assert!(dst == symbols, "{id}");
        }
    }
}

/// A hump of symbols around 128, of about 4 bits each.
fn hump() -> Vec<u8> {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| i32::from(byte)).sum::<i32>();
    random_bytes(8, 12 * N)
        .chunks(12)
        .map(|bytes| (128 + (sum(bytes) - 1530) / 66).to_le_bytes()[0])
        .collect()
}

fn bench_rans12(c: &mut Criterion) {
    let mut symbols = hump();
    let mut counters = Counters::default();
    counters.count(&symbols);
    let fitted = Fitted::new(TableKind::Single, &[counters.total()]);
    let freqs = fitted.freqs[0];
    // What lies beyond a table's range is not coded by it.
    symbols.iter_mut().filter(|symbol| !fitted.range.contains(**symbol)).for_each(|symbol| *symbol = 128);
    for (n_lanes, paired) in [(rans12::MANY_LANES, false), (rans12::LANES, false), (rans12::LANES, true)] {
        let n_tables = if paired { 2 } else { 1 };
        let encode_tables = vec![rans12::encode_table(&freqs); n_tables];
        let mut tables = vec![[0; rans12::SLOTS]; n_tables];
        tables.iter_mut().for_each(|slots| rans12::fill_slots(&freqs, slots).unwrap());
        let table_ids = rans12::TableIds::OfSegments { ids: &[0], segment_len: 1 << 31 };
        let plan = rans12::Plan { n_lanes, paired, table_ids };
        let mut buffer = vec![0; rans12::encode_buffer_len(N)];
        let mut quantizers = Vec::new();
        for isa in isas() {
            let id = format!("isa={}/symbols=256Ki/lanes={n_lanes}/paired={paired}", isa.name());
            let mut states = [0; rans12::MANY_LANES];
            let mut encode = || {
                states = [rans12::STATE_MIN; rans12::MANY_LANES];
                if paired {
                    rans12::trace_quantizers(isa, black_box(&symbols), &mut quantizers);
                }
                let symbols = black_box(&symbols);
                rans12::encode(isa, &plan, &encode_tables, symbols, &quantizers, &mut states, &mut buffer)
                    .unwrap()
            };
            let mut group = c.benchmark_group("rans12_encode");
            group.throughput(Throughput::Elements(N as u64));
            group.bench_function(BenchmarkId::from_parameter(&id), |b| b.iter(&mut encode));
            group.finish();
            let first_word = encode();
            let words = buffer[first_word..].as_chunks().0;
            let mut dst = vec![0; N];
            let mut decode = || {
                let mut lanes = rans12::Lanes::new(states);
                rans12::decode(isa, &plan, &tables, black_box(words), &mut lanes, &mut dst, &[]).unwrap()
            };
            let mut group = c.benchmark_group("rans12_decode");
            group.throughput(Throughput::Elements(N as u64));
            group.bench_function(BenchmarkId::from_parameter(&id), |b| b.iter(&mut decode));
            group.finish();
            assert_eq!(decode(), words.len());
            assert!(dst == symbols, "{id}");
        }
    }
}

fn bench_indices(c: &mut Criterion) {
    let symbols = hump();
    for (bits, scale) in [(4, 1), (8, 16)] {
        let low = random_bytes(9, N);
        let indices: Vec<i32> = symbols
            .iter()
            .zip(&low)
            .map(|(&symbol, &low)| (i32::from(symbol) - 128) * scale + i32::from(low) % scale)
            .collect();
        for dependence in [Dependence::None, Dependence::EvenSums, Dependence::Chains] {
            let indices = with_even_sums(&indices, dependence);
            for isa in isas() {
                let id = format!("isa={}/indices=256Ki/bits={bits}/{dependence:?}", isa.name());
                let (mut encoder, mut decoder) = (IndexEncoder::default(), IndexDecoder::default());
                let (mut section, mut back) = (Vec::new(), vec![0; N]);
                let mut encode = || {
                    section.clear();
                    encoder.encode(isa, black_box(&indices), dependence, &[], &mut section);
                };
                let mut group = c.benchmark_group("indices_encode");
                group.throughput(Throughput::Elements(N as u64));
                group.bench_function(BenchmarkId::from_parameter(&id), |b| b.iter(&mut encode));
                group.finish();
                encode();
                let mut group = c.benchmark_group("indices_decode");
                group.throughput(Throughput::Elements(N as u64));
                group.bench_function(BenchmarkId::from_parameter(&id), |b| {
                    b.iter(|| decoder.decode(isa, black_box(&section), dependence, &mut back).unwrap());
                });
                group.finish();
                decoder.decode(isa, &section, dependence, &mut back).unwrap();
                assert!(back == indices, "{id}");
            }
        }
    }
}

/// `indices`, if they are to have even sums, with the last row of each sheet changed by one where it has to be.
fn with_even_sums(indices: &[i32], dependence: Dependence) -> Vec<i32> {
    let mut indices = indices.to_vec();
    if dependence == Dependence::EvenSums {
        for sheet in indices.as_chunks_mut::<SHEET_LEN>().0 {
            for column in 0..COLUMNS {
                let sum = sheet.iter().skip(column).step_by(COLUMNS).fold(0, |sum, index| sum ^ index);
                sheet[column] ^= sum & 1;
            }
        }
    }
    indices
}

fn bench_pack_bits(c: &mut Criterion) {
    let src = random_bytes(6, N);
    for n_bits in [1, 4, 7] {
        let mut packed = vec![0; pack_bits::packed_len(n_bits, N)];
        let mut unpacked = vec![0; N];
        for isa in isas() {
            let id = format!("isa={}/bits={n_bits}/values=256Ki", isa.name());
            let mut group = c.benchmark_group("pack_bits");
            group.throughput(Throughput::Bytes(N as u64));
            group.bench_function(BenchmarkId::new("pack", &id), |b| {
                b.iter(|| pack_bits::pack(isa, n_bits, black_box(&src), &mut packed));
            });
            group.bench_function(BenchmarkId::new("unpack", &id), |b| {
                b.iter(|| pack_bits::unpack(isa, n_bits, black_box(&packed), &mut unpacked));
            });
            group.finish();
        }
    }
}

fn bench_moments(c: &mut Criterion) {
    for (name, dtype) in [("f32", Dtype::F32), ("bf16", Dtype::Bf16), ("f16", Dtype::F16)] {
        let src = weights(dtype, 1, N);
        for isa in isas() {
            let mut group = c.benchmark_group("moments");
            group.throughput(Throughput::Bytes(src.len() as u64));
            group.bench_function(
                BenchmarkId::from_parameter(format!("dtype={name}/elements=256Ki/isa={}", isa.name())),
                |b| b.iter(|| Moments::measure(isa, dtype, black_box(&src)).unwrap()),
            );
            group.finish();
        }
    }
}

/// Everything that the predictor wants to know of a unit, and its answers.
fn bench_predictor(c: &mut Criterion) {
    let src = weights(Dtype::F32, 1, N);
    let mut group = c.benchmark_group("unit");
    group.throughput(Throughput::Bytes(src.len() as u64));
    for isa in isas() {
        let id = format!("dtype=f32/elements=256Ki/isa={}", isa.name());
        group.bench_function(BenchmarkId::from_parameter(id), |b| {
            b.iter(|| Unit::measure(isa, Dtype::F32, black_box(&src)).unwrap());
        });
    }
    group.finish();
    let unit = Unit::measure(Isa::detect(), Dtype::F32, &src).unwrap();
    let mut group = c.benchmark_group("predictor");
    group.throughput(Throughput::Elements(20));
    for (name, model) in models(3.0, Networks::shipped()) {
        group.bench_function(BenchmarkId::from_parameter(format!("model={name}/steps=20")), |b| {
            let bits = |k: u32| model.bits(black_box(&unit), 0.1 * 0.8f64.powi(k.cast_signed()));
            b.iter(|| (0..20).map(bits).sum::<f64>());
        });
    }
    group.finish();
}

/// Kernels that have one variant for all instruction sets.
fn bench_portable(c: &mut Criterion) {
    let symbols = symbols(Dtype::Bf16);
    let mut turned = vec![0; N];
    let mut group = c.benchmark_group("transpose");
    group.throughput(Throughput::Bytes(N as u64));
    group.bench_function(BenchmarkId::from_parameter("symbols=256Ki/row=1024"), |b| {
        b.iter(|| transpose(black_box(&symbols), N / ROW_LEN, ROW_LEN, &mut turned));
    });
    group.finish();
    let mut group = c.benchmark_group("histogram");
    group.throughput(Throughput::Bytes(N as u64));
    for (data, bytes) in [("weights", &symbols), ("random", &random_bytes(7, N)), ("constant", &vec![7; N])] {
        group.bench_function(BenchmarkId::from_parameter(format!("symbols=256Ki/data={data}")), |b| {
            b.iter(|| {
                let mut counters = Counters::default();
                counters.count(black_box(bytes));
                counters.total()
            });
        });
    }
    group.finish();
    for (name, dtype) in DTYPES {
        let src = weights(dtype, 1, N);
        let mut group = c.benchmark_group("survey");
        group.throughput(Throughput::Bytes(src.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("dtype={name}")), |b| {
            b.iter(|| or_and(black_box(&src), dtype.unit_bytes()));
        });
        group.finish();
    }
}

criterion_group! {
    name = kernels;
    config = common::criterion();
    targets = bench_fields, bench_rans8, bench_rans12, bench_indices, bench_pack_bits, bench_moments, bench_predictor,
        bench_portable
}
criterion_main!(kernels);
