//! Speed of coding from memory to memory, both checksums of every block included: one JSON line for each file, level,
//! instruction set and number of threads.
//!
//! `cargo bench --bench ram_speed -- FILE... [--json] [--rounds N] [--threads N] [--level L] [--isa I] [--rel-l2 E]`
//!
//! With `--rel-l2` it is lossy encoding that is timed, of checkpoints, by the same yardstick. A FILE that ends in `.alcm` is an archive, exact or lossy, of which decoding alone is timed. Any other
//! file is cut into blocks as `alcm compress` does it. Speeds are original bytes per second, the median of the
//! rounds; buffers are touched before. Every round's result is compared with the original.
#![allow(
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a program for measuring, on machines of 64 bits"
)]

mod ram_lossy;

use std::sync::{Barrier, Mutex};
use std::time::Instant;

use alcm::checkpoint::{BlockSpan, SafetensorsHeader, blocks, layout, other_file_regions, read_from};
use alcm::container::{Archive, BlockRecord, OtherFile, RunningCrc, crc64, crc64_from};
use alcm::kernels::Isa;
use alcm::stage::{BlockDecoder, BlockEncoder, BlockSource, Coding, Level};
use alcm::{Dtype, Limits};

struct Options {
    files: Vec<String>,
    rounds: usize,
    threads: Vec<usize>,
    levels: Vec<Level>,
    isas: Vec<Isa>,
    rel_l2: Option<f64>,
}

const LEVELS: [(&str, Level); 3] =
    [("fast", Level::Fast), ("default", Level::Default), ("high", Level::High)];

fn options() -> Options {
    let mut options = Options {
        files: Vec::new(),
        rounds: 5,
        threads: vec![1],
        levels: LEVELS.map(|row| row.1).to_vec(),
        isas: Isa::ALL.into_iter().filter(|isa| isa.available()).collect(),
        rel_l2: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().expect("a value behind the flag");
        match arg.as_str() {
            // `--bench` comes from cargo; the output is JSON either way.
            "--json" | "--bench" => {}
            "--rounds" => options.rounds = value().parse().expect("a number of rounds"),
            "--threads" => {
                options.threads =
                    value().split(',').map(|n| n.parse().expect("a number of threads")).collect();
            }
            "--level" => {
                let name = value();
                options.levels.retain(|level| LEVELS.contains(&(name.as_str(), *level)));
            }
            "--rel-l2" => options.rel_l2 = Some(value().parse().expect("a number")),
            "--isa" => {
                let name = value();
                options.isas.retain(|isa| isa.name() == name);
            }
            _ => options.files.push(arg),
        }
    }
    options
}

fn spans(bytes: &[u8]) -> Vec<BlockSpan> {
    let limits = Limits::default();
    let len = bytes.len() as u64;
    let regions = SafetensorsHeader::prefix_len(bytes, Some(len), &limits)
        .and_then(|n| SafetensorsHeader::parse(&bytes[..n as usize], Some(len), &limits))
        .map(|header| layout(&header))
        .or_else(|_| other_file_regions(len, &read_from(bytes), &limits))
        .expect("bytes in memory can be read");
    blocks(&regions).collect()
}

struct Coded {
    coding: Coding,
    dtype: Dtype,
    payload: Vec<u8>,
    payload_crc: u64,
    decoded_crc: u64,
}

fn encode(encoder: &mut BlockEncoder, span: &BlockSpan, bytes: &[u8], coded: &mut Coded) {
    coded.dtype = span.dtype;
    let mut decoded_crc = RunningCrc::new();
    let source = BlockSource { dtype: span.dtype, bytes, row_len: span.row_len, row_start: span.row_start };
    let visit = &mut |bytes: &[u8]| decoded_crc.update(bytes);
    coded.coding = encoder.encode_over(source, 0, &mut coded.payload, visit);
    coded.decoded_crc = decoded_crc.value();
    coded.payload_crc = crc64(&coded.payload);
}

fn decode(decoder: &mut BlockDecoder, coded: &Coded, dst: &mut [u8]) {
    let folded = decoder.decode_folded(coded.coding, coded.dtype, &coded.payload, dst);
    let folded = folded.expect("what was encoded decodes");
    // In the order of `Archive::decode_entry`, which gives the reason.
    assert_eq!(crc64(&coded.payload), coded.payload_crc);
    assert_eq!(crc64_from(&folded, dst), coded.decoded_crc);
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn split_mut<'a>(spans: &[BlockSpan], mut dst: &'a mut [u8]) -> Vec<&'a mut [u8]> {
    spans.iter().map(|span| dst.split_off_mut(..span.len).expect("blocks fill the file")).collect()
}

/// Threads with a coder each, as the pipeline has them.
struct Team {
    coders: Vec<(BlockEncoder, BlockDecoder)>,
}

impl Team {
    fn new(threads: usize, level: Level, isa: Isa) -> Self {
        let coders = || (BlockEncoder::new(level, isa), BlockDecoder::new(isa));
        Self { coders: (0..threads).map(|_| coders()).collect() }
    }

    /// Seconds from the moment that all threads are there to the end of the last of `jobs`, each of which is done by
    /// the thread that is free first.
    fn time<J: Send>(
        &mut self,
        jobs: impl Iterator<Item = J> + Send,
        work: impl Fn(&mut (BlockEncoder, BlockDecoder), J) + Sync,
    ) -> f64 {
        let ready = Barrier::new(self.coders.len());
        let jobs = Mutex::new(jobs);
        let turn = |coders: &mut (BlockEncoder, BlockDecoder)| {
            ready.wait();
            let start = Instant::now();
            loop {
                let job = jobs.lock().expect("no panics").next();
                let Some(job) = job else { return start.elapsed().as_secs_f64() };
                work(coders, job);
            }
        };
        let turn = &turn;
        std::thread::scope(|scope| {
            let turns: Vec<_> =
                self.coders.iter_mut().map(|coders| scope.spawn(move || turn(coders))).collect();
            turns.into_iter().map(|turn| turn.join().expect("no panics")).fold(0.0, f64::max)
        })
    }
}

/// Runs one setting; returns stored bytes, and seconds for encoding and decoding.
fn measure(
    level: Level,
    isa: Isa,
    threads: usize,
    rounds: usize,
    bytes: &[u8],
    spans: &[BlockSpan],
) -> (usize, f64, f64) {
    let sources: Vec<&[u8]> = spans.iter().map(|s| &bytes[s.offset as usize..][..s.len]).collect();
    let mut coded: Vec<Coded> = spans
        .iter()
        .map(|span| Coded {
            coding: Coding::Stored,
            dtype: span.dtype,
            payload: vec![1; span.len * 2 + 4096],
            payload_crc: 0,
            decoded_crc: 0,
        })
        .collect();
    let mut dst = vec![1u8; bytes.len()];
    let mut team = Team::new(threads, level, isa);
    let (mut encode_seconds, mut decode_seconds) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let jobs = coded.iter_mut().zip(&sources).zip(spans);
        encode_seconds.push(
            team.time(jobs, |coders, ((coded, bytes), span)| encode(&mut coders.0, span, bytes, coded)),
        );
        if round == 0 {
            dst.fill(0xee);
        }
        let jobs = split_mut(spans, &mut dst).into_iter().zip(&coded);
        decode_seconds.push(team.time(jobs, |coders, (dst, coded)| decode(&mut coders.1, coded, dst)));
        assert!(dst == bytes, "the original comes back");
    }
    // The first round warms up.
    let stored = coded.iter().map(|coded| coded.payload.len()).sum();
    (stored, median(encode_seconds.split_off(1)), median(decode_seconds.split_off(1)))
}

/// Archives that need others are not measured.
fn no_other_file(_: &OtherFile, _: &BlockRecord<'_>, _: &mut BlockDecoder, _: &mut [u8]) -> alcm::Result<()> {
    unimplemented!("references to other archives")
}

/// Seconds for decoding all blocks of `archive`.
fn measure_archive(isa: Isa, threads: usize, rounds: usize, archive: &Archive<'_>) -> f64 {
    let mut dst = vec![1u8; archive.original_bytes() as usize];
    let mut team = Team::new(threads, Level::Default, isa);
    let round = |_| {
        let mut rest = &mut dst[..];
        let jobs = archive.blocks().map(|entry| {
            let len = entry.decoded_bytes as usize;
            (rest.split_off_mut(..len).expect("blocks fill the file"), entry)
        });
        let jobs: Vec<_> = jobs.collect();
        team.time(jobs.into_iter(), |coders, (dst, entry)| {
            archive.decode_entry(&entry, &mut coders.1, &no_other_file, dst).expect("the archive is whole");
        })
    };
    let seconds: Vec<f64> = (0..=rounds).map(round).collect();
    assert!(blake3::hash(&dst) == *archive.content_hash(), "what the archive holds comes back");
    // The first round warms up.
    median(seconds[1..].to_vec())
}

fn measure_archives(options: &Options, file: &str, bytes: &[u8]) {
    let archive = Archive::open(bytes, &Limits::default()).expect("an archive");
    for &threads in &options.threads {
        for &isa in &options.isas {
            let seconds = measure_archive(isa, threads, options.rounds, &archive);
            let original_bytes = archive.original_bytes();
            println!(
                "{}",
                serde_json::json!({
                    "file": file, "isa": isa.name(), "threads": threads,
                    "original_bytes": original_bytes, "archive_bytes": archive.archive_bytes(),
                    "decode_gbps": original_bytes as f64 / seconds / 1e9,
                })
            );
        }
    }
}

fn main() {
    let options = options();
    for file in &options.files {
        let bytes = std::fs::read(file).expect("the file can be read");
        if file.ends_with(".alcm") {
            measure_archives(&options, file, &bytes);
            continue;
        }
        if let Some(goal) = options.rel_l2 {
            ram_lossy::measure(&options, file, &bytes, goal);
            continue;
        }
        let spans = spans(&bytes);
        for &threads in &options.threads {
            for &level in &options.levels {
                for &isa in &options.isas {
                    let (stored, encode, decode) =
                        measure(level, isa, threads, options.rounds, &bytes, &spans);
                    let name = LEVELS.iter().find(|row| row.1 == level).map_or("", |row| row.0);
                    let gbps = |seconds: f64| bytes.len() as f64 / seconds / 1e9;
                    println!(
                        "{}",
                        serde_json::json!({
                            "file": file, "level": name, "isa": isa.name(), "threads": threads,
                            "original_bytes": bytes.len(), "payload_bytes": stored,
                            "saved_percent": 100.0 * (1.0 - stored as f64 / bytes.len() as f64),
                            "encode_gbps": gbps(encode), "decode_gbps": gbps(decode),
                        })
                    );
                }
            }
        }
    }
}
