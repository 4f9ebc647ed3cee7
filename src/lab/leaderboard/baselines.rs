//! Entries of everybody's codecs and of this project's, made by running them.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::board::{Entry, add, read, rounded, sign};
use super::submission::Run;
use super::{dataset, payload};
use crate::error::Result;
use crate::lab::bundles::codecs;
use crate::lab::codec::{Codec, Common, Measured, Subject, measure};
use crate::lab::experiment::frames;
use crate::lab::section::{Cell, Section, Table};
use crate::lab::stats::{caq, mean};
use crate::pipeline::context::Context;

/// Under these names this program enters everybody's codecs and its own.
pub const SUBMITTERS: [&str; 2] = ["baseline", "alcm"];
/// Fewest runs of an entry.
pub const MIN_RUNS: usize = 3;

/// Enters every codec on every dataset, each run `runs` times, at least three. Those that are there stay.
///
/// # Errors
/// What a codec or the board reports.
pub fn baselines(ctx: &Context<'_>, bundles_dir: &Path, board_dir: &Path, runs: usize) -> Result<Section> {
    let mut table = Table::new("Entered", &["dataset", "codec", "CAQ", "ratio", "CPU s", "relative L2"]);
    let date = today();
    let (runs, mut n_there) = (runs.max(MIN_RUNS), 0usize);
    let there = if board_dir.is_dir() { read(board_dir)? } else { Vec::new() };
    for name in dataset::names() {
        let subjects = dataset::files(bundles_dir, name)?;
        for (codec, decoder) in codecs_for(ctx, name) {
            let measured = subjects.iter().map(|subject| measure(ctx, codec.as_ref(), subject, runs));
            let measured = measured.collect::<Result<Vec<_>>>()?;
            let entry = entry(ctx, &subjects, codec.as_ref(), decoder, &measured)?;
            let entry = Entry { date: date.clone(), dataset: name.to_owned(), ..entry };
            let is_there = |e: &Entry| {
                (&e.dataset, &e.codec, &e.payload_sha256)
                    == (&entry.dataset, &entry.codec, &entry.payload_sha256)
            };
            if there.iter().any(|signed| is_there(&signed.entry)) {
                n_there += 1;
                continue;
            }
            table.push([
                name.into(),
                entry.codec.as_str().into(),
                Cell::Float(entry.caq, 4),
                Cell::Float(entry.ratio, 4),
                Cell::Float(entry.cpu_seconds, 6),
                Cell::Small(entry.relative_l2),
            ]);
            add(board_dir, &sign(entry)?)?;
        }
    }
    table.note(format!("{n_there} were there already."));
    Ok(Section {
        command: "leaderboard baselines",
        title: "Baselines of the leaderboard".into(),
        intro: format!("Every codec ran {runs} times on every file, was decoded and compared."),
        tables: vec![table],
        plots: Vec::new(),
        record: Value::Null,
    })
}

/// Codecs for a dataset, each with the name of its decoder.
fn codecs_for<'a>(ctx: &'a Context<'a>, name: &str) -> Vec<(Box<dyn Codec + 'a>, &'static str)> {
    const DECODERS: [&str; Common::ALL.len()] =
        ["uncompressed", "npz", "gzip", "bzip2", "zstd", "zstd", "xz"];
    if name == dataset::SYNTHETIC {
        let common = Common::ALL.into_iter().map(|codec| -> Box<dyn Codec + 'a> { Box::new(codec) });
        let ours = frames(ctx).into_iter().map(|frame| -> Box<dyn Codec + 'a> { Box::new(frame) });
        let decoders = DECODERS.into_iter().chain(std::iter::repeat("alcm-tensor"));
        return common.chain(ours).zip(decoders).collect();
    }
    codecs(ctx).into_iter().zip(DECODERS.into_iter().chain(std::iter::repeat("alcm"))).collect()
}

fn entry(
    ctx: &Context<'_>,
    subjects: &[Subject],
    codec: &dyn Codec,
    decoder: &str,
    measured: &[Measured],
) -> Result<Entry> {
    let files: Vec<_> = measured.iter().map(|m| payload::Compressed { decoder, bytes: &m.encoded }).collect();
    // As a stranger's: what the decoders of submissions make of it counts.
    let decoded = payload::decode_all(ctx, subjects, &files, codec.is_lossy().then_some(f64::INFINITY))?;
    let n_runs = measured.iter().map(|m| m.encode_runs.len()).min().unwrap_or(0);
    let seconds_of = |run_idx: usize| {
        let of_files = measured.iter().filter_map(|m| m.encode_runs.get(run_idx)).map(|taken| taken.cpu_s);
        mean(&of_files.collect::<Vec<_>>())
    };
    let seconds: Vec<f64> = (0..n_runs).map(seconds_of).collect();
    let run = |cpu_seconds: &f64| Run {
        ratio: rounded(decoded.ratio),
        cpu_seconds: rounded(*cpu_seconds),
        energy_joules: None,
    };
    let is_ours = decoder.starts_with("alcm");
    Ok(Entry {
        submitter: SUBMITTERS[usize::from(is_ours)].to_owned(),
        date: String::new(),
        dataset: String::new(),
        dataset_sha256: dataset::sha256_of(subjects),
        // Names of this project's frames have a comma and a minus sign; both are words.
        codec: codec.name().to_owned(),
        version: format!("{}alcm {}", if is_ours { "" } else { "built into " }, env!("CARGO_PKG_VERSION")),
        ratio: rounded(decoded.ratio),
        compressed_bytes: decoded.compressed_bytes,
        caq: rounded(caq(decoded.ratio, mean(&seconds))),
        // Two runs that give different bytes are an error of `measure`.
        variance: 0.0,
        is_exact: decoded.is_exact,
        relative_l2: rounded(decoded.relative_l2),
        decode_cpu_seconds: rounded(decoded.decode_cpu_seconds),
        payload_sha256: decoded.sha256,
        cpu_seconds: rounded(mean(&seconds)),
        runs: seconds.iter().map(run).collect(),
        is_baseline: true,
        energy_joules: None,
        device_info: None,
        notes: None,
    })
}

/// Today's date of universal time.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    date_of(seconds / 86_400)
}

/// `YYYY-MM-DD` of a day, counted from 1970-01-01, by the algorithm of Hinnant ("chrono-Compatible Low-Level Date
/// Algorithms", 2013): years begin in March, so that the leap day is their last.
fn date_of(day: u64) -> String {
    let shifted = day + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (day, date) in
            [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_780, "2026-11-23")]
        {
            assert_eq!(date_of(day), date);
        }
    }
}
