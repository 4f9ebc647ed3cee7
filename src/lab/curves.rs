//! `lab curves`: error against bits of the lossy half, and the bits of each tensor.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::clock::{Taken, time};
use super::codec::{done, scratch};
use super::numpy_legacy::RandomState;
use super::section::{Cell, Plot, Section, Table};
use super::svg::{Axis, Chart, Mark, Series, bars};
use crate::error::{Error, Result};
use crate::pipeline::compare::compare;
use crate::pipeline::compress::compress_file;
use crate::pipeline::context::Context;
use crate::pipeline::inspect::{TensorReport, inspect};
use crate::pipeline::lossy::settings::{Goal, LossySettings};
use crate::pipeline::report::Tally;
use crate::pipeline::settings::CompressOptions;
use crate::stage::Quantizer;

/// Goals in bits per element.
const GOALS: [f64; 6] = [2.0, 3.0, 4.0, 5.0, 6.0, 8.0];
/// The goal that the bars of tensors are for.
const BARS_AT: f64 = 4.0;
/// Most tensors that are shown as bars, the largest.
const MAX_BARS: usize = 32;
/// Elements of the normal numbers.
const N_NORMAL: usize = 1 << 18;

/// A lossy run over one file.
#[derive(Debug, Clone, PartialEq)]
pub struct LossyRun {
    /// Size of the whole archive.
    pub archive_bytes: u64,
    /// Stored bits per element over the tensors that changed.
    pub bits: f64,
    /// ‖x − x̂‖₂ ÷ ‖x‖₂ over them, from what the archive decodes to.
    pub relative_l2: f64,
    /// What planning and encoding took.
    pub encode: Taken,
    /// Every tensor.
    pub tensors: Vec<TensorReport>,
}

/// Compresses `path` within `settings` into a temporary folder, decodes it, and measures.
///
/// # Errors
/// What compressing and comparing report.
pub fn lossy_run(ctx: &Context<'_>, path: &Path, settings: LossySettings) -> Result<LossyRun> {
    let dir = scratch(None)?;
    let archive = dir.path().join("archive.alcm");
    let options = CompressOptions { lossy: Some(settings), ..CompressOptions::default() };
    let (report, encode) = time(|| compress_file(ctx, path, &archive, &options));
    done(report?)?;
    let described = inspect(ctx, &archive)?;
    let mut lossy = Tally::default();
    for tensor in described.tensors.iter().filter(|tensor| tensor.loss.is_some()) {
        lossy.original_bytes += tensor.tally.original_bytes;
        lossy.stored_bytes += tensor.tally.stored_bytes;
        lossy.elements += tensor.tally.elements;
    }
    let changed = compare(ctx, path, &archive)?.changed_total();
    Ok(LossyRun {
        archive_bytes: described.archive_bytes,
        bits: lossy.bits_per_element(),
        relative_l2: changed.floats.map_or(0.0, |floats| floats.relative_l2()),
        encode,
        tensors: described.tensors,
    })
}

/// Curves of all quantizers on normal numbers, with Shannon's bound, and on each of `files`.
///
/// # Errors
/// What compressing reports.
pub fn curves(ctx: &Context<'_>, files: &[PathBuf]) -> Result<Section> {
    let dir = scratch(None)?;
    let normal = dir.path().join("normal.safetensors");
    fs::write(&normal, normal_file()).map_err(|e| Error::io("cannot write", e).in_file(&normal))?;
    let (mut tables, mut plots, mut record) = (Vec::new(), Vec::new(), Vec::new());
    for (path, is_normal) in std::iter::once((&normal, true)).chain(files.iter().map(|file| (file, false))) {
        let title = if is_normal {
            format!("{N_NORMAL} normal numbers")
        } else {
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let mut table = Table::new(
            title.clone(),
            &["quantizer", "goal bits", "bits", "relative L2", "archive bytes", "encode CPU s"],
        );
        let mut series = Vec::new();
        let mut bits_of_tensors = Vec::new();
        let quantizers = [
            ("uniform", Quantizer::Uniform),
            ("lattice", Quantizer::Lattice),
            ("trellis", Quantizer::Trellis),
        ];
        for (name, quantizer) in quantizers {
            let mut points = Vec::new();
            for goal in GOALS {
                let settings = LossySettings { quantizer, ..LossySettings::new(Goal::Bits(goal)) };
                let run = lossy_run(ctx, path, settings)?;
                points.push((run.bits, run.relative_l2));
                table.push([
                    name.into(),
                    Cell::Float(goal, 0),
                    Cell::Float(run.bits, 3),
                    Cell::Small(run.relative_l2),
                    run.archive_bytes.into(),
                    Cell::Float(run.encode.cpu_s, 3),
                ]);
                record.push(json!([title, name, goal, run.archive_bytes, run.relative_l2]));
                if goal == BARS_AT && quantizer == Quantizer::Lattice {
                    bits_of_tensors = largest(run.tensors);
                }
            }
            series.push(Series { name: name.into(), points, mark: Mark::Line });
        }
        if is_normal {
            let points = GOALS.map(|bits| (bits, (-bits).exp2())).to_vec();
            series.push(Series { name: "Shannon's bound".into(), points, mark: Mark::Dashed });
        }
        let chart =
            Chart { x: Axis::linear("stored bits per element"), y: Axis::log("relative L2 error"), series };
        plots.push(Plot { caption: format!("{title}: error against bits"), svg: chart.to_svg() });
        if !is_normal {
            let caption =
                format!("{title}: bits per element of its largest lossy tensors at a mean of {BARS_AT}");
            plots.push(Plot { caption, svg: bars(&bits_of_tensors, "bits") });
        }
        tables.push(table);
    }
    Ok(Section {
        command: "curves",
        title: "Rate and distortion".into(),
        intro: "Each point is an archive written, read back and compared with its source; bits count everything stored \
                for the tensors that may change. Tensors that stay exact have 0 error and are left out of both."
            .into(),
        tables,
        plots,
        record: Value::Array(record),
    })
}

/// The largest of the tensors that may change; those that may not would dwarf them.
fn largest(mut tensors: Vec<TensorReport>) -> Vec<(String, f64)> {
    tensors.retain(|tensor| tensor.loss.is_some());
    tensors.sort_by(|a, b| b.tally.elements.cmp(&a.tally.elements).then_with(|| a.name.cmp(&b.name)));
    tensors.truncate(MAX_BARS);
    tensors.into_iter().map(|tensor| (tensor.name, tensor.tally.bits_per_element())).collect()
}

/// A checkpoint of one tensor of normal numbers.
fn normal_file() -> Vec<u8> {
    let bytes = N_NORMAL * 4;
    let header = format!(
        r#"{{"normal":{{"dtype":"F32","shape":[{},512],"data_offsets":[0,{bytes}]}}}}"#,
        N_NORMAL / 512
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    let mut random = RandomState::new(42);
    #[expect(clippy::cast_possible_truncation, reason = "rounded to single precision")]
    file.extend((0..N_NORMAL).flat_map(|_| (random.randn() as f32).to_le_bytes()));
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::tests::context;

    #[test]
    fn errors_fall_with_bits_and_stay_above_shannons_bound() {
        context(|ctx| {
            let section = curves(ctx, &[]).unwrap();
            let rows = section.tables[0].to_json()["rows"].clone();
            let rows = rows.as_array().unwrap();
            assert_eq!(rows.len(), 3 * GOALS.len());
            for row in rows {
                let (bits, error) = (row["bits"].as_f64().unwrap(), row["relative L2"].as_f64().unwrap());
                let bound = (-bits).exp2();
                // Uniform steps with ideal coding lose 1.53 dB, 19 %, at many bits.
                assert!(error > bound && error < 1.25 * bound, "{row}");
            }
        });
    }
}
