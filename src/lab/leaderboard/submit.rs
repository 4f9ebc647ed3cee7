//! From a submission to an entry: everything that can be computed is.

use std::path::Path;

use serde_json::Value;

use super::board::{Entry, Signed, add, rounded, sign};
use super::submission::{Run, Submission};
use super::{baselines, dataset, payload};
use crate::error::{Error, ErrorKind, Result};
use crate::lab::codec::Subject;
use crate::lab::section::{Cell, Outcome, Section, Table};
use crate::lab::stats::{Spread, caq, mean};
use crate::lab::untrusted::read_file;
use crate::pipeline::context::Context;

/// Largest submission.
const MAX_SUBMISSION_BYTES: u64 = 4 << 20;
/// By how much a stated number may differ from the computed one, per cent.
const TOLERANCE_PERCENT: f64 = 1.5;
/// Largest range of the runs' ratios, per cent.
const MAX_VARIANCE_PERCENT: f64 = 1.5;
/// By how much a stated variance may differ from the computed one, in points of per cent.
const VARIANCE_SLACK: f64 = 0.015;

/// Enters each of the submissions `paths` on the board `board_dir`; one that is refused does not stop the others.
/// What is wrong is in the outcome, each with its file.
pub fn submit(ctx: &Context<'_>, bundles_dir: &Path, board_dir: &Path, paths: &[&Path]) -> Outcome {
    let columns = ["submission", "dataset", "codec", "CAQ", "ratio", "relative L2", "signature"];
    let mut table = Table::new("Entered", &columns);
    let mut failures = Vec::new();
    for path in paths {
        let entered = verify(ctx, bundles_dir, path).and_then(|entry| {
            let signed = sign(entry)?;
            add(board_dir, &signed).map(|()| signed)
        });
        match entered {
            Ok(Signed { entry, signature }) => table.push([
                path.display().to_string().escape_debug().to_string().into(),
                entry.dataset.into(),
                entry.codec.into(),
                Cell::Float(entry.caq, 4),
                Cell::Float(entry.ratio, 4),
                Cell::Small(entry.relative_l2),
                signature.into(),
            ]),
            Err(error) => failures.push(named(&error, path)),
        }
    }
    let intro = "Every compressed file was decoded and compared, every number computed anew.".to_owned();
    let section = Section {
        command: "leaderboard submit",
        title: "Submissions".into(),
        intro,
        tables: vec![table],
        plots: Vec::new(),
        record: Value::Null,
    };
    Outcome { section, failures }
}

/// `error` under the name of the submission; the file that it names itself, a payload's or the board's, stays in it.
fn named(error: &Error, path: &Path) -> Error {
    Error::new(error.kind(), error.to_string()).in_file(path)
}

/// The entry that the submission at `path` makes.
///
/// # Errors
/// What is wrong with it; nothing that it says can lead out of its folder or take memory without bound.
pub fn verify(ctx: &Context<'_>, bundles_dir: &Path, path: &Path) -> Result<Entry> {
    let submission = Submission::parse(&read_file(path, MAX_SUBMISSION_BYTES)?)?;
    let invalid = |message: String| Err(Error::new(ErrorKind::InvalidInput, message));
    if baselines::SUBMITTERS.iter().any(|name| name.eq_ignore_ascii_case(&submission.submitter)) {
        return invalid(format!("the submitter {} stands for this program itself", submission.submitter));
    }
    let subjects = dataset::files(bundles_dir, &submission.dataset)?;
    if submission.relative_l2.is_some() && submission.dataset != dataset::SYNTHETIC {
        return invalid(format!("loss is allowed on {} alone", dataset::SYNTHETIC));
    }
    let bytes = payload_bytes(path, &submission, &subjects)?;
    let files: Vec<_> = bytes
        .iter()
        .map(|(decoder, bytes)| payload::Compressed { decoder: decoder.as_str(), bytes })
        .collect();
    let decoded = payload::decode_all(ctx, &subjects, &files, submission.relative_l2)?;
    let claimed = check_numbers(&submission, decoded.ratio)?;
    Ok(Entry {
        submitter: submission.submitter,
        date: submission.date,
        dataset_sha256: dataset::sha256_of(&subjects),
        dataset: submission.dataset,
        codec: submission.codec,
        version: submission.version,
        ratio: rounded(decoded.ratio),
        compressed_bytes: decoded.compressed_bytes,
        caq: rounded(caq(decoded.ratio, claimed.cpu_seconds)),
        variance: rounded(claimed.variance),
        is_exact: decoded.is_exact,
        relative_l2: rounded(decoded.relative_l2),
        decode_cpu_seconds: rounded(decoded.decode_cpu_seconds),
        payload_sha256: decoded.sha256,
        cpu_seconds: rounded(claimed.cpu_seconds),
        runs: submission.runs.iter().map(rounded_run).collect(),
        is_baseline: false,
        energy_joules: submission.energy_joules.map(rounded),
        device_info: submission.device_info.map(|device| super::submission::DeviceInfo {
            base_freq_mhz: device.base_freq_mhz.map(rounded),
            ..device
        }),
        notes: submission.notes,
    })
}

fn rounded_run(run: &Run) -> Run {
    Run {
        ratio: rounded(run.ratio),
        cpu_seconds: rounded(run.cpu_seconds),
        energy_joules: run.energy_joules.map(rounded),
    }
}

/// Decoder and bytes of each file of the dataset, in its order.
fn payload_bytes(
    path: &Path,
    submission: &Submission,
    subjects: &[Subject],
) -> Result<Vec<(String, Vec<u8>)>> {
    let invalid = |message: String| Error::new(ErrorKind::InvalidInput, message);
    if submission.files.len() != subjects.len() {
        let (n_files, n_subjects) = (submission.files.len(), subjects.len());
        return Err(invalid(format!("{n_files} files for the {n_subjects} of {}", submission.dataset)));
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let one = |subject: &Subject| {
        let mut named = submission.files.iter().filter(|file| file.name == subject.name);
        let (Some(file), None) = (named.next(), named.next()) else {
            return Err(invalid(format!("{} of {} is not there once", subject.name, submission.dataset)));
        };
        Ok((file.decoder.clone(), payload::read(dir, file, subject)?))
    };
    subjects.iter().map(one).collect()
}

/// What the runs say.
struct Claimed {
    cpu_seconds: f64,
    variance: f64,
}

/// Holds what is stated against what `ratio`, computed from the files, and the runs give.
fn check_numbers(submission: &Submission, ratio: f64) -> Result<Claimed> {
    let of_runs = |field: fn(&Run) -> f64| submission.runs.iter().map(field).collect::<Vec<_>>();
    let agree = |name: &str, stated: f64, computed: f64| {
        if (stated - computed).abs() <= computed.abs() * TOLERANCE_PERCENT / 100.0 {
            return Ok(());
        }
        let message =
            format!("{name} {stated} is stated, {computed:.6} computed; allowed is {TOLERANCE_PERCENT} %");
        Err(Error::new(ErrorKind::InvalidInput, message))
    };
    let ratios = of_runs(|run| run.ratio);
    let variance = Spread::of(&ratios).range_percent;
    let message = format!(
        "variance {} % is stated, the runs have {variance:.4} %, allowed are {MAX_VARIANCE_PERCENT} %",
        submission.variance
    );
    if variance.is_nan()
        || variance > MAX_VARIANCE_PERCENT
        || (variance - submission.variance).abs() > VARIANCE_SLACK
    {
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    agree("the ratio", submission.ratio, ratio)?;
    ratios.iter().try_for_each(|of_run| agree("a run's ratio", *of_run, ratio))?;
    let cpu_seconds = mean(&of_runs(|run| run.cpu_seconds));
    agree("cpu_seconds", submission.cpu_seconds, cpu_seconds)?;
    agree("caq", submission.caq, caq(ratio, cpu_seconds))?;
    let joules: Option<Vec<f64>> = submission.runs.iter().map(|run| run.energy_joules).collect();
    if let (Some(stated), Some(joules)) = (submission.energy_joules, joules) {
        agree("energy_joules", stated, mean(&joules))?;
    }
    Ok(Claimed { cpu_seconds, variance })
}
