//! `lab impact`: what compressing saves of one's own checkpoint, from a ratio and speeds measured on it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::codec::{done, scratch};
use super::section::{Cell, Plot, Section, Table};
use super::stats::median;
use super::svg::{Axis, Chart, Mark, Series};
use super::transfer::{Coding, Order, Schedule, plain_seconds};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::compare::compare;
use crate::pipeline::compress::compress_tree;
use crate::pipeline::context::Context;
use crate::pipeline::decompress::{DecompressOptions, decompress_tree};
use crate::pipeline::lossy::settings::{Goal, LossySettings};
use crate::pipeline::settings::{AsBytes, CodingSettings, CompressOptions};
use crate::stage::Level;

/// What [`impact`] is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct ImpactOptions {
    /// Effort of the encoder.
    pub level: Level,
    /// Largest relative L2 error of a tensor, where the checkpoint may change; `None` to keep every bit.
    pub rel_l2: Option<f64>,
    /// Times that the checkpoint is compressed and decompressed; times are medians.
    pub runs: usize,
    /// Where archives and restored files go for the while; `None` for the system's temporary folder.
    pub scratch: Option<PathBuf>,
    /// Nodes that write checkpoints.
    pub nodes: u32,
    /// Checkpoints of each node in an hour.
    pub per_hour: f64,
    /// How long checkpoints are kept, in hours, one schedule each.
    pub retention_hours: Vec<f64>,
    /// Bandwidths in Gbit/s (10⁹).
    pub gbits_s: Vec<f64>,
}

impl Default for ImpactOptions {
    fn default() -> Self {
        Self {
            level: Level::Default,
            rel_l2: None,
            runs: 3,
            scratch: None,
            nodes: 8,
            per_hour: 1.0,
            retention_hours: vec![24.0, 168.0, 720.0],
            gbits_s: vec![0.1, 1.0, 10.0, 25.0, 100.0],
        }
    }
}

/// One path, compressed, restored and compared.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointRun {
    /// The path as given.
    pub name: String,
    /// Bytes of its files.
    pub original_bytes: u64,
    /// Bytes of the archives, the manifest not counted: it holds times of files, so that its size is no result.
    pub stored_bytes: u64,
    /// Median seconds on the wall.
    pub encode_s: f64,
    /// Median seconds on the wall.
    pub decode_s: f64,
    /// ‖x − x̂‖₂ ÷ ‖x‖₂ over all floating-point elements.
    pub relative_l2: f64,
}

impl CheckpointRun {
    /// Ratio and speeds.
    #[must_use]
    pub fn coding(&self) -> Coding {
        let bytes = self.original_bytes as f64;
        Coding {
            ratio: bytes / self.stored_bytes as f64,
            encode_bytes_s: bytes / self.encode_s,
            decode_bytes_s: bytes / self.decode_s,
        }
    }

    /// Several as one, one after another.
    fn sum(runs: &[Self]) -> Self {
        let errors = runs.iter().map(|run| run.relative_l2);
        Self {
            name: "all".into(),
            original_bytes: runs.iter().map(|run| run.original_bytes).sum(),
            stored_bytes: runs.iter().map(|run| run.stored_bytes).sum(),
            encode_s: runs.iter().map(|run| run.encode_s).sum(),
            decode_s: runs.iter().map(|run| run.decode_s).sum(),
            relative_l2: errors.fold(0.0, f64::max),
        }
    }
}

/// Compresses `paths`, files or directories that together are one checkpoint, and says what that saves.
///
/// # Errors
/// What compressing or restoring reports; [`ErrorKind::InvalidInput`] for nothing to compress, and for a folder of
/// temporary files with too little room; [`ErrorKind::Internal`] where restored files are not what they should be.
pub fn impact(ctx: &Context<'_>, paths: &[PathBuf], options: &ImpactOptions) -> Result<Section> {
    let runs = paths.iter().map(|path| run(ctx, path, options)).collect::<Result<Vec<_>>>()?;
    let all = CheckpointRun::sum(&runs);
    if all.original_bytes == 0 {
        return Err(Error::new(ErrorKind::InvalidInput, "no bytes to compress in the given paths"));
    }
    let threads = ctx.pool.current_num_threads();
    let kind = options.rel_l2.map_or_else(
        || "bit for bit".to_owned(),
        |goal| format!("within a relative L2 error of {goal} in each tensor"),
    );
    let intro = format!(
        "The given checkpoint, compressed {kind} to files and restored from them, {} runs on {threads} threads, \
         medians; files were in the system's cache, nothing was synced. All else here is computed from that.",
        options.runs.max(1)
    );
    Ok(Section {
        command: "impact",
        title: "What compressing saves".into(),
        intro,
        tables: vec![
            measured(&runs, &all),
            schedules(&all, options),
            transfers(&all, options),
            break_even(&all),
        ],
        plots: vec![Plot {
            caption: "Transfer time by bandwidth, encoding and decoding included".into(),
            svg: chart(&all, &options.gbits_s).to_svg(),
        }],
        record: record(&runs),
    })
}

/// Sizes are the same for the same files and settings on any machine.
fn record(runs: &[CheckpointRun]) -> Value {
    let sizes = runs.iter().map(|run| {
        json!({
            "original_bytes": run.original_bytes,
            "stored_bytes": run.stored_bytes,
            "relative_l2": run.relative_l2,
        })
    });
    Value::Array(sizes.collect())
}

/// Compresses, restores and compares one path.
///
/// # Errors
/// As [`impact`].
pub fn run(ctx: &Context<'_>, path: &Path, options: &ImpactOptions) -> Result<CheckpointRun> {
    let lossy = options.rel_l2.map(|goal| LossySettings::new(Goal::RelL2(goal)));
    let coding =
        CodingSettings { level: options.level, as_bytes: AsBytes::Malformed, ..CodingSettings::default() };
    let compress = CompressOptions { coding, lossy, ..CompressOptions::default() };
    let (mut encode_s, mut decode_s) = (Vec::new(), Vec::new());
    let mut relative_l2 = 0.0;
    let mut sizes = (0, 0);
    for run_idx in 0..options.runs.max(1) {
        // A folder for each run, gone before the next: no more is ever held than one archive and one copy.
        let dir = scratch(options.scratch.as_deref())?;
        let (archives, restored) = (dir.path().join("archives"), dir.path().join("restored"));
        let report = done(compress_tree(ctx, &[path.to_owned()], &archives, &compress)?)?;
        encode_s.push(report.elapsed.as_secs_f64());
        sizes = (report.original_bytes, report.stored_bytes);
        let report = done(decompress_tree(ctx, &archives, &restored, DecompressOptions::default())?)?;
        decode_s.push(report.elapsed.as_secs_f64());
        if run_idx == 0 {
            let comparison = compare(ctx, path, &restored)?;
            let total = comparison.total();
            if !comparison.is_complete() || (options.rel_l2.is_none() && !total.is_identical()) {
                let message = "the restored files are not those that were compressed";
                return Err(Error::new(ErrorKind::Internal, message).in_file(path));
            }
            relative_l2 = total.floats.map_or(0.0, |floats| floats.relative_l2());
        }
    }
    Ok(CheckpointRun {
        name: path.display().to_string(),
        original_bytes: sizes.0,
        stored_bytes: sizes.1,
        encode_s: median(&encode_s),
        decode_s: median(&decode_s),
        relative_l2,
    })
}

const GB: f64 = 1e9;

fn measured(runs: &[CheckpointRun], all: &CheckpointRun) -> Table {
    let columns = [
        "checkpoint",
        "bytes",
        "stored bytes",
        "ratio",
        "saved bytes",
        "saved %",
        "relative L2",
        "encode MB/s",
        "decode MB/s",
    ];
    let mut table = Table::new("Measured", &columns);
    for run in runs.iter().chain((runs.len() > 1).then_some(all)) {
        let coding = run.coding();
        let saved = coding.saved_bytes(run.original_bytes as f64);
        table.push([
            run.name.as_str().into(),
            run.original_bytes.into(),
            run.stored_bytes.into(),
            Cell::Float(coding.ratio, 4),
            Cell::Signed(saved, 0),
            Cell::Float(saved / run.original_bytes as f64 * 100.0, 2),
            Cell::Small(run.relative_l2),
            Cell::Float(coding.encode_bytes_s / 1e6, 1),
            Cell::Float(coding.decode_bytes_s / 1e6, 1),
        ]);
    }
    table
}

/// A row for each retention, and one for what is written in an hour.
fn schedules(all: &CheckpointRun, options: &ImpactOptions) -> Table {
    let ImpactOptions { nodes, per_hour, .. } = options;
    let title = format!("Storage: {nodes} nodes, {per_hour} checkpoints of each in an hour");
    let columns = ["schedule", "checkpoints", "uncompressed GB", "compressed GB", "saved GB"];
    let mut table = Table::new(title, &columns);
    let (plain, coding) = (all.original_bytes as f64, all.coding());
    let mut row = |name: String, total: &dyn Fn(f64) -> f64| {
        table.push([
            name.into(),
            Cell::Float(total(1.0), 0),
            Cell::Float(total(plain) / GB, 3),
            Cell::Float(total(all.stored_bytes as f64) / GB, 3),
            Cell::Float(total(coding.saved_bytes(plain)) / GB, 3),
        ]);
    };
    let schedule = |retention_hours| Schedule { nodes: *nodes, per_hour: *per_hour, retention_hours };
    row("written in an hour".into(), &|bytes| schedule(0.0).written_bytes(bytes, 1.0));
    for &hours in &options.retention_hours {
        row(format!("kept for {hours} h"), &|bytes| schedule(hours).kept_bytes(bytes));
    }
    table.note("Each node writes a checkpoint like the measured one, all together taken as one where several are given.");
    table
}

fn transfers(all: &CheckpointRun, options: &ImpactOptions) -> Table {
    let columns =
        ["Gbit/s", "uncompressed s", "one after another s", "gain %", "overlapped s", "overlapped gain %"];
    let mut table = Table::new("Transfer of one checkpoint", &columns);
    let (bytes, coding) = (all.original_bytes as f64, all.coding());
    for &gbits_s in &options.gbits_s {
        let bits_s = gbits_s * 1e9;
        let plain = plain_seconds(bytes, bits_s);
        let one_by_one = coding.seconds(bytes, bits_s, Order::OneAfterAnother);
        let overlapped = coding.seconds(bytes, bits_s, Order::Overlapped);
        let gain = |seconds: f64| Cell::Signed((1.0 - seconds / plain) * 100.0, 1);
        table.push([
            Cell::Float(gbits_s, 2),
            Cell::Float(plain, 4),
            Cell::Float(one_by_one, 4),
            gain(one_by_one),
            Cell::Float(overlapped, 4),
            gain(overlapped),
        ]);
    }
    table.note(
        "One after another: encode, send and decode times added. Overlapped: the longest of the three.",
    );
    table.note("Gain: time saved against sending the original; below 0 compressing costs time.");
    table
}

fn break_even(all: &CheckpointRun) -> Table {
    let mut table = Table::new("Bandwidth above which compressing takes longer", &["model", "Gbit/s"]);
    for (name, order) in [("one after another", Order::OneAfterAnother), ("overlapped", Order::Overlapped)] {
        let bandwidth = all.coding().break_even_bits_s(order);
        let cell = bandwidth.map_or(Cell::from("never pays"), |bits_s| Cell::Float(bits_s / 1e9, 3));
        table.push([name.into(), cell]);
    }
    table.note("One after another 8(1 − 1/ratio) ÷ (1/E + 1/D), overlapped 8 min(E, D), E and D in GB/s.");
    table
}

/// Points of each curve.
const N_POINTS: u32 = 60;

/// Time by bandwidth, over all bandwidths asked for and both that break even.
fn chart(all: &CheckpointRun, gbits_s: &[f64]) -> Chart {
    let (bytes, coding) = (all.original_bytes as f64, all.coding());
    let orders = [Order::OneAfterAnother, Order::Overlapped];
    let known = orders.iter().filter_map(|order| coding.break_even_bits_s(*order)).map(|bits_s| bits_s / 1e9);
    let ends = known
        .chain(gbits_s.iter().copied())
        .fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), x| (low.min(x), high.max(x)));
    let (low, high) = (ends.0.log10() - 0.3, ends.1.log10() + 0.3);
    let xs: Vec<f64> = (0..N_POINTS)
        .map(|point| 10f64.powf(low + (high - low) * f64::from(point) / f64::from(N_POINTS - 1)))
        .collect();
    let series = |name: &str, seconds: &dyn Fn(f64) -> f64, mark| Series {
        name: name.to_owned(),
        points: xs.iter().map(|x| (*x, seconds(x * 1e9))).collect(),
        mark,
    };
    Chart {
        x: Axis::log("bandwidth, Gbit/s"),
        y: Axis::log("seconds"),
        series: vec![
            series("uncompressed", &|bits_s| plain_seconds(bytes, bits_s), Mark::Dashed),
            series("one after another", &|bits_s| coding.seconds(bytes, bits_s, orders[0]), Mark::Plain),
            series("overlapped", &|bits_s| coding.seconds(bytes, bits_s, orders[1]), Mark::Plain),
        ],
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::lab::tests::context;

    #[test]
    fn the_impact_of_a_real_checkpoint_is_computed_from_what_was_measured() {
        context(|ctx| {
            let paths = ["params_bf16.safetensors", "train_state.safetensors"]
                .map(|name| Path::new("tests/data/digits_resnet").join(name));
            let options = ImpactOptions { runs: 1, gbits_s: vec![0.01, 1000.0], ..ImpactOptions::default() };
            let section = impact(ctx, &paths, &options).unwrap();
            let rows = |table: usize| section.tables[table].to_json()["rows"].clone();
            let (sizes, storage, times) = (rows(0), rows(1), rows(2));
            let value = |row: &Value, column: &str| row[column].as_f64().unwrap();
            let all = &sizes[2];
            assert_eq!(all["checkpoint"], "all");
            let (bytes, stored) = (value(all, "bytes"), value(all, "stored bytes"));
            let lengths: u64 = paths.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
            assert!(bytes == lengths as f64 && stored < bytes && value(all, "relative L2") == 0.0);
            // 8 nodes, hourly, kept for a week.
            assert_eq!(storage[2]["checkpoints"], 1344.0);
            assert!((value(&storage[2], "saved GB") - 1344.0 * (bytes - stored) / 1e9).abs() < 1e-9);
            assert!((value(&times[0], "uncompressed s") - bytes * 8.0 / 1e7).abs() < 1e-12);
            assert!(value(&times[0], "overlapped gain %") > 0.0);
            assert!(value(&times[1], "gain %") < 0.0, "encoding takes longer than a Tbit/s line");
            assert_eq!(section.record[0]["original_bytes"], fs::metadata(&paths[0]).unwrap().len());
        });
    }

    #[test]
    fn a_lossy_run_shows_its_error_and_nothing_to_compress_is_refused() {
        context(|ctx| {
            let path = Path::new("tests/data/digits_resnet/params_bf16.safetensors");
            let options = ImpactOptions { runs: 1, rel_l2: Some(0.05), ..ImpactOptions::default() };
            let lossy = run(ctx, path, &options).unwrap();
            assert!(lossy.relative_l2 > 0.01 && lossy.relative_l2 <= 0.05, "{}", lossy.relative_l2);
            let dir = tempfile::tempdir().unwrap();
            for path in [dir.path().to_owned(), dir.path().join("absent")] {
                assert!(impact(ctx, &[path], &ImpactOptions::default()).is_err());
            }
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        });
    }
}
