//! `lab bundles`: small sets of natural data with recorded results, checked by really compressing them.
//!
//! A bundle is a folder with a `bundle.json`: its files with their SHA-256, and what each codec made of them when
//! [`record`] last measured it. Files are checked before anything is run. Names in `bundle.json` are plain names.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::codec::{AlcmArchive, Codec, Common, Measured, Subject, SubjectKind, measure};
use super::experiment::sha256;
use super::section::{Cell, Outcome, Section, Table};
use super::stats::{caq, gain_percent, mean};
use super::untrusted::{is_plain_name, read_within};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::context::Context;
use crate::pipeline::train::write_file;
use crate::stage::Level;

/// The bundles that there are.
pub const NAMES: [&str; 4] = ["text_medium", "image_small", "mixed_stream", "checkpoint_small"];
/// Where they lie in the repository.
pub const REPOSITORY_DIR: &str = "tests/data/bundles";
/// By how much a CAQ may differ from the recorded one, per cent; it holds processor time.
pub const CAQ_TOLERANCE_PERCENT: f64 = 1.5;

/// The list of a bundle's files and results.
const LIST_NAME: &str = "bundle.json";
const MAX_LIST_BYTES: u64 = 1 << 20;
/// Largest file of a bundle, and most of them; a benchmark that is to take seconds needs no more.
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_FILES: usize = 64;

/// A `bundle.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The name of its folder too.
    pub name: String,
    /// What the data is.
    pub description: String,
    /// Its licence (SPDX).
    pub licence: String,
    /// What made the data; a note, never run.
    pub script: String,
    /// The data.
    pub files: Vec<BundleFile>,
    /// What was measured, one entry for each codec; empty before the first [`record`].
    pub expected: Vec<Expected>,
}

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleFile {
    /// A plain name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Hex digits in lower case.
    pub sha256: String,
}

/// What a codec makes of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The codec's name.
    pub codec: String,
    /// Mean over the files.
    pub caq: f64,
    /// Compressed size of each file, in the order of the list.
    pub bytes: Vec<u64>,
}

/// A bundle whose files are what its list says.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Its list.
    pub bundle: Bundle,
    /// Its files, in the order of the list.
    pub subjects: Vec<Subject>,
}

/// Reads the bundle `name` of `dir` and checks every file.
///
/// # Errors
/// Names the file: [`ErrorKind::Io`] for one that is missing, [`ErrorKind::ChecksumMismatch`] for one that differs,
/// [`ErrorKind::InvalidInput`] for a list that is broken, empty or leaves its folder.
pub fn load(dir: &Path, name: &str) -> Result<Loaded> {
    let folder = dir.join(name);
    let list_path = folder.join(LIST_NAME);
    let invalid = |message: String| Error::new(ErrorKind::InvalidInput, message).in_file(&list_path);
    let text = read_within(&folder, LIST_NAME, MAX_LIST_BYTES)?;
    let bundle: Bundle = serde_json::from_slice(&text).map_err(|e| invalid(format!("no bundle: {e}")))?;
    if bundle.name != name {
        return Err(invalid(format!("names itself \"{}\"", bundle.name.escape_debug())));
    }
    if bundle.files.is_empty() || bundle.files.len() > MAX_FILES {
        return Err(invalid(format!("{} files, not between 1 and {MAX_FILES}", bundle.files.len())));
    }
    let mut subjects = Vec::new();
    for (idx, file) in bundle.files.iter().enumerate() {
        if !is_plain_name(&file.name) || bundle.files.iter().take(idx).any(|other| other.name == file.name) {
            return Err(invalid(format!(
                "\"{}\" is no plain name, or twice there",
                file.name.escape_debug()
            )));
        }
        subjects.push(load_file(&folder, file)?);
    }
    Ok(Loaded { bundle, subjects })
}

fn load_file(folder: &Path, file: &BundleFile) -> Result<Subject> {
    let path = folder.join(&file.name);
    let differs =
        |message: String| Err(Error::new(ErrorKind::ChecksumMismatch, message).in_file(path.clone()));
    let bytes = read_within(folder, &file.name, MAX_FILE_BYTES)?;
    if bytes.is_empty() || bytes.len() as u64 != file.bytes {
        return differs(format!("{} bytes, {} are recorded", bytes.len(), file.bytes));
    }
    let sum = sha256(&bytes);
    if sum != file.sha256 {
        return differs(format!("its SHA-256 is {sum}, another is recorded"));
    }
    Ok(Subject { name: file.name.clone(), bytes, kind: SubjectKind::File(path) })
}

/// Everybody's codecs and this project's archives at each level.
#[must_use]
pub fn codecs<'a>(ctx: &'a Context<'a>) -> Vec<Box<dyn Codec + 'a>> {
    let ours = [("alcm fast", Level::Fast), ("alcm default", Level::Default), ("alcm high", Level::High)]
        .map(|(name, level)| -> Box<dyn Codec + 'a> {
            Box::new(AlcmArchive { ctx, name: name.to_owned(), level, lossy: None })
        });
    let common = Common::ALL.into_iter().map(|codec| -> Box<dyn Codec + 'a> { Box::new(codec) });
    common.chain(ours).collect()
}

/// One codec on all files of a bundle.
struct Row {
    codec: String,
    files: Vec<Measured>,
}

impl Row {
    fn mean(&self, field: impl Fn(&Measured) -> f64) -> f64 {
        mean(&self.files.iter().map(field).collect::<Vec<_>>())
    }

    fn caq(&self) -> f64 {
        self.mean(|m| caq(m.ratio, m.encode.cpu_s))
    }

    fn bytes(&self) -> Vec<u64> {
        self.files.iter().map(|m| m.encoded.len() as u64).collect()
    }
}

fn measure_all(ctx: &Context<'_>, loaded: &Loaded, runs: usize) -> Result<Vec<Row>> {
    let row = |codec: &dyn Codec| -> Result<Row> {
        let files = loaded.subjects.iter().map(|subject| measure(ctx, codec, subject, runs));
        Ok(Row { codec: codec.name().to_owned(), files: files.collect::<Result<_>>()? })
    };
    codecs(ctx).iter().map(|codec| row(codec.as_ref())).collect()
}

/// Checks the bundles of `dir`, runs every codec `runs` times on each file, and compares with what is recorded: sizes
/// exactly, CAQ to within [`CAQ_TOLERANCE_PERCENT`].
///
/// # Errors
/// As [`load`], before anything is run; what a codec reports. Results that differ from the record are in the outcome.
pub fn run(ctx: &Context<'_>, dir: &Path, runs: usize) -> Result<Outcome> {
    let bundles = NAMES.iter().map(|name| load(dir, name)).collect::<Result<Vec<_>>>()?;
    let (mut failures, mut seconds) = (Vec::new(), Vec::new());
    let columns =
        ["bundle", "codec", "bytes", "ratio", "CAQ", "recorded CAQ", "difference %", "encode CPU ms"];
    let mut table = Table::new("Every codec on every bundle", &columns);
    let mut record = Map::new();
    for loaded in &bundles {
        let start = Instant::now();
        let rows = measure_all(ctx, loaded, runs)?;
        seconds.push(format!("{} {:.2} s", loaded.bundle.name, start.elapsed().as_secs_f64()));
        let list_path = dir.join(&loaded.bundle.name).join(LIST_NAME);
        let found = differences(&loaded.bundle, &rows);
        failures.extend(
            found.into_iter().map(|e| Error::new(ErrorKind::ChecksumMismatch, e).in_file(&list_path)),
        );
        rows.iter().for_each(|row| push(&mut table, &loaded.bundle, row));
        record.insert(loaded.bundle.name.clone(), record_of(loaded, &rows));
    }
    table.note("Ratio, CAQ and time are means over the files; times are medians of the runs.");
    table.note(format!("Seconds on the wall: {}.", seconds.join(", ")));
    let intro = format!(
        "Four bundles of natural data, their SHA-256 checked first. Every codec runs for real, {runs} times on each \
         file, and is decoded and compared. Sizes must be exactly those that are recorded, CAQ within \
         ±{CAQ_TOLERANCE_PERCENT} %; recorded is what `alcm lab bundles record` measured."
    );
    let section = Section {
        command: "bundles run",
        title: "Benchmark bundles".into(),
        intro,
        tables: vec![contents(&bundles), table],
        plots: Vec::new(),
        record: Value::Object(record),
    };
    Ok(Outcome { section, failures })
}

/// What is not as recorded, one sentence each.
fn differences(bundle: &Bundle, rows: &[Row]) -> Vec<String> {
    let mut found = Vec::new();
    if bundle.expected.is_empty() {
        return vec!["has no measurement; alcm lab bundles record makes one".into()];
    }
    for expected in &bundle.expected {
        let times = bundle.expected.iter().filter(|other| other.codec == expected.codec).count();
        if times != 1 || !rows.iter().any(|row| row.codec == expected.codec) {
            let name = expected.codec.escape_debug();
            found.push(format!("the recorded codec \"{name}\" is unknown, or twice there"));
        }
    }
    for row in rows {
        let Some(expected) = bundle.expected.iter().find(|expected| expected.codec == row.codec) else {
            found.push(format!("has no measurement of {}", row.codec));
            continue;
        };
        if expected.bytes.len() != bundle.files.len() {
            found.push(format!(
                "{}: {} sizes for {} files",
                row.codec,
                expected.bytes.len(),
                bundle.files.len()
            ));
        }
        for ((file, made), recorded) in bundle.files.iter().zip(row.bytes()).zip(&expected.bytes) {
            if made != *recorded {
                found.push(format!(
                    "{} makes {made} bytes of {}, {recorded} are recorded",
                    row.codec, file.name
                ));
            }
        }
        let difference = gain_percent(row.caq(), expected.caq);
        // To a CAQ of 0 in a tampered list the difference may be NaN.
        if difference.is_nan() || difference.abs() > CAQ_TOLERANCE_PERCENT {
            found.push(format!(
                "{}: CAQ {:.4}, recorded {:.4}: {difference:+.2} %, allowed ±{CAQ_TOLERANCE_PERCENT} %",
                row.codec,
                row.caq(),
                expected.caq
            ));
        }
    }
    found
}

fn push(table: &mut Table, bundle: &Bundle, row: &Row) {
    let recorded = bundle.expected.iter().find(|expected| expected.codec == row.codec);
    let (caq, expected) = (row.caq(), recorded.map(|recorded| recorded.caq));
    table.push([
        bundle.name.as_str().into(),
        row.codec.as_str().into(),
        row.bytes().iter().sum::<u64>().into(),
        Cell::Float(row.mean(|m| m.ratio), 4),
        Cell::Float(caq, 4),
        expected.map_or(Cell::Empty, |expected| Cell::Float(expected, 4)),
        expected.map_or(Cell::Empty, |expected| Cell::Signed(gain_percent(caq, expected), 2)),
        Cell::Float(row.mean(|m| m.encode.cpu_s * 1e3), 3),
    ]);
}

fn contents(bundles: &[Loaded]) -> Table {
    let mut table = Table::new("Bundles", &["bundle", "files", "bytes", "what it is", "licence"]);
    for Loaded { bundle, .. } in bundles {
        table.push([
            bundle.name.as_str().into(),
            bundle.files.len().into(),
            bundle.files.iter().map(|file| file.bytes).sum::<u64>().into(),
            bundle.description.as_str().into(),
            bundle.licence.as_str().into(),
        ]);
    }
    table
}

fn record_of(loaded: &Loaded, rows: &[Row]) -> Value {
    let inputs: Vec<_> = loaded.bundle.files.iter().map(|file| &file.sha256).collect();
    let outputs = rows.iter().map(|row| {
        let made = row.files.iter().map(|m| json!({"bytes": m.encoded.len(), "sha256": sha256(&m.encoded)}));
        (row.codec.clone(), Value::Array(made.collect()))
    });
    json!({"inputs": inputs, "outputs": Value::Object(outputs.collect())})
}

/// Measures the bundles of `dir` and writes what came out into their lists; only where every file is as recorded.
///
/// # Errors
/// As [`run`]; [`ErrorKind::Io`] for a list that cannot be written.
pub fn record(ctx: &Context<'_>, dir: &Path, runs: usize) -> Result<Section> {
    for name in NAMES {
        let mut loaded = load(dir, name)?;
        let rows = measure_all(ctx, &loaded, runs)?;
        // Six decimals are far below what differs between two runs.
        let rounded = |caq: f64| (caq * 1e6).round() / 1e6;
        let expected = rows.iter().map(|row| Expected {
            codec: row.codec.clone(),
            caq: rounded(row.caq()),
            bytes: row.bytes(),
        });
        loaded.bundle.expected = expected.collect();
        let text = serde_json::to_string_pretty(&loaded.bundle)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot write a bundle: {e}")))?;
        write_file(&dir.join(name).join(LIST_NAME), (text + "\n").as_bytes(), true)?;
    }
    Ok(run(ctx, dir, runs)?.section)
}
