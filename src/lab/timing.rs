//! `lab timing`: where the time of a lossy run goes, by the five stages, for a small tensor and for layers.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::codec::{done, scratch};
use super::experiment::{ORIGINAL_ERROR, subject};
use super::numpy_legacy::RandomState;
use super::section::{Cell, Plot, Section, Table};
use super::stats::median;
use super::svg::shares;
use super::synthetic;
use crate::checkpoint::SafetensorsHeader;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::convert::is_convertible;
use crate::pipeline::compress::compress_file;
use crate::pipeline::context::Context;
use crate::pipeline::lossy::settings::{Goal, LossySettings};
use crate::pipeline::settings::CompressOptions;
use crate::pipeline::tensor::{Tensor, TensorGoal, TensorMode, compress_tensor_timed};
use crate::pipeline::timings::{Step, Timings};
use crate::stage::Quantizer;
use crate::storage::MappedFile;

/// Elements of the generated layer.
pub const LAYER_ELEMENTS: u64 = 1 << 24;
/// Elements of a row of it.
const ROW_ELEMENTS: u64 = 4096;
/// Seed of its elements.
const LAYER_SEED: u32 = 42;
/// Their standard deviation, as weights of a trained layer have it.
const LAYER_SIGMA: f64 = 0.02;
/// The stages and what is outside of them.
const PARTS: [&str; 6] = ["statistics", "prediction", "quantization", "pruning", "backend", "other"];

/// A tensor, and what it is called in tables.
struct Layer {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

/// Milliseconds of each of [`PARTS`].
type Parts = [f64; PARTS.len()];

/// Times the stages: of the 100×100 tensor of epoch 1, of the largest floating-point tensor of each file, and of a
/// generated layer of `layer_elements`, each `runs` times.
///
/// # Errors
/// What is wrong with a file; [`ErrorKind::InvalidInput`] for one without floating-point tensors.
pub fn timing(ctx: &Context<'_>, files: &[PathBuf], layer_elements: u64, runs: usize) -> Result<Section> {
    let mut rows =
        vec![("100×100, epoch 1".to_owned(), synthetic::SHAPE.iter().product(), frame_parts(ctx, runs)?)];
    let layers = files.iter().map(|file| largest_tensor(ctx, file));
    for layer in layers.chain(std::iter::once_with(|| Ok(generated(layer_elements)))) {
        let layer = layer?;
        let n_elements = layer.shape.iter().product::<u64>();
        rows.push((layer.name.clone(), n_elements, archive_parts(ctx, &layer, false, runs)?));
        rows.push((format!("{}, pruned", layer.name), n_elements, archive_parts(ctx, &layer, true, runs)?));
    }
    let threads = ctx.pool.current_num_threads();
    let intro = format!(
        "Thread time of the five stages of lossy coding at a relative L2 error of {ORIGINAL_ERROR}, medians of {} runs. \
         The small tensor becomes a frame, on one thread; layers become archives of a file that holds only them, on \
         {threads} threads, with and without pruning.",
        runs.max(1)
    );
    let bars: Vec<(String, Vec<f64>)> =
        rows.iter().map(|(name, _, parts)| (name.clone(), parts.to_vec())).collect();
    Ok(Section {
        command: "timing",
        title: "Where the time goes".into(),
        intro,
        tables: vec![table(&rows)],
        plots: vec![Plot { caption: "Shares of thread time".into(), svg: shares(&PARTS, &bars) }],
        record: Value::Null,
    })
}

fn table(rows: &[(String, u64, Parts)]) -> Table {
    let mut table =
        Table::new("Milliseconds and share of each stage", &["tensor", "elements", "stage", "ms", "share %"]);
    for (name, n_elements, parts) in rows {
        let total: f64 = parts.iter().sum();
        let all = PARTS.iter().copied().zip(parts.iter().copied());
        for (stage, ms) in all.chain(std::iter::once(("all", total))) {
            let share = ms / total.max(f64::MIN_POSITIVE) * 100.0;
            table.push([
                name.as_str().into(),
                (*n_elements).into(),
                stage.into(),
                Cell::Float(ms, 3),
                Cell::Float(share, 1),
            ]);
        }
    }
    table.note("Other: reading, decoding what was made to check it, checksums, hashes, writing; of a frame all that no stage is booked for.");
    table.note("A frame by itself is never pruned. The original report: 0.5, 0.3, 1.2, 0.8, 2.2 ms; its own code takes 1.41, 0.02, 0.03, 0.24, 3.45 ms.");
    table
}

/// The five stages of `timings`, and `other`, in milliseconds.
fn parts(timings: &Timings, other_s: f64) -> Parts {
    let mut parts = [0.0; PARTS.len()];
    for (part, (_, spent)) in parts.iter_mut().zip(timings.stages()) {
        *part = spent.as_secs_f64() * 1e3;
    }
    let [.., other] = &mut parts;
    *other = other_s * 1e3;
    parts
}

fn medians(runs: &[Parts]) -> Parts {
    std::array::from_fn(|part| median(&runs.iter().map(|parts| parts[part]).collect::<Vec<_>>()))
}

fn staged_s(timings: &Timings) -> f64 {
    timings.stages().iter().map(|(_, spent)| spent.as_secs_f64()).sum()
}

fn frame_parts(ctx: &Context<'_>, runs: usize) -> Result<Parts> {
    let subject = subject(1);
    let tensor = Tensor { dtype: Dtype::F32, shape: &synthetic::SHAPE, bytes: &subject.bytes };
    let mode = TensorMode::Lossy(TensorGoal::RelL2(ORIGINAL_ERROR), Quantizer::Trellis);
    let mut all = Vec::new();
    for _ in 0..runs.max(1) {
        let mut timings = Timings::default();
        let start = Instant::now();
        compress_tensor_timed(ctx.isa, tensor, mode, &mut timings)?;
        let other_s = start.elapsed().as_secs_f64() - staged_s(&timings);
        all.push(parts(&timings, other_s));
    }
    Ok(medians(&all))
}

fn archive_parts(ctx: &Context<'_>, layer: &Layer, prunes: bool, runs: usize) -> Result<Parts> {
    let dir = scratch(None)?;
    let path = dir.path().join("layer.safetensors");
    write_safetensors(layer, &path).map_err(|e| Error::io("cannot write", e).in_file(&path))?;
    let mut lossy = LossySettings::new(Goal::RelL2(ORIGINAL_ERROR));
    lossy.pruning.enabled = prunes;
    let options = CompressOptions { lossy: Some(lossy), force: true, ..CompressOptions::default() };
    let mut all = Vec::new();
    for _ in 0..runs.max(1) {
        let report = done(compress_file(ctx, &path, &dir.path().join("layer.alcm"), &options)?)?;
        let timings = &report.timings;
        if timings.spent(Step::Quantization).is_zero() {
            let message = format!("{}: no step meets the goal, so that no stage was run", layer.name);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        all.push(parts(timings, timings.total().as_secs_f64() - staged_s(timings)));
    }
    Ok(medians(&all))
}

fn write_safetensors(layer: &Layer, path: &Path) -> std::io::Result<()> {
    let tensor =
        json!({"dtype": layer.dtype.name(), "shape": layer.shape, "data_offsets": [0, layer.bytes.len()]});
    let header = json!({ "layer": tensor }).to_string();
    let mut file = fs::File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    file.write_all(&layer.bytes)
}

/// The largest tensor of a safetensors file that lossy coding may change without being told to.
fn largest_tensor(ctx: &Context<'_>, path: &Path) -> Result<Layer> {
    let file = MappedFile::open(path)?;
    let (bytes, in_file) = (file.bytes(), |e: Error| e.in_file(path));
    let file_len = Some(bytes.len() as u64);
    let prefix_len = SafetensorsHeader::prefix_len(bytes, file_len, &ctx.limits).map_err(in_file)?;
    let prefix = usize::try_from(prefix_len).ok().and_then(|len| bytes.get(..len)).unwrap_or(bytes);
    let header = SafetensorsHeader::parse(prefix, file_len, &ctx.limits).map_err(in_file)?;
    let floats = header.tensors().iter().filter(|t| t.shape.len() > 1).filter_map(|tensor| {
        let dtype = tensor.dtype.filter(|dtype| is_convertible(*dtype))?;
        let range = usize::try_from(tensor.start).ok()?..usize::try_from(tensor.end).ok()?;
        Some((tensor, dtype, bytes.get(range)?))
    });
    // Of several as large the first in the file.
    let largest = floats.rev().max_by_key(|(tensor, ..)| tensor.byte_len());
    let (tensor, dtype, bytes) = largest.ok_or_else(|| {
        in_file(Error::new(ErrorKind::InvalidInput, "no floating-point tensor of two dimensions or more"))
    })?;
    Ok(Layer { name: tensor.name.clone(), dtype, shape: tensor.shape.clone(), bytes: bytes.to_vec() })
}

/// Normal numbers, rows of different scales, as channels of a layer have them.
fn generated(n_elements: u64) -> Layer {
    let n_rows = n_elements.div_ceil(ROW_ELEMENTS);
    let mut random = RandomState::new(LAYER_SEED);
    let mut bytes = Vec::new();
    for _ in 0..n_rows {
        let sigma = LAYER_SIGMA * (0.3 * random.randn()).exp();
        for _ in 0..ROW_ELEMENTS {
            #[expect(clippy::cast_possible_truncation, reason = "rounded to single precision")]
            let value = (sigma * random.randn()) as f32;
            bytes.extend(value.to_le_bytes());
        }
    }
    let name = format!("generated, {n_rows}×{ROW_ELEMENTS}");
    Layer { name, dtype: Dtype::F32, shape: vec![n_rows, ROW_ELEMENTS], bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::tests::context;

    #[test]
    fn stages_and_the_rest_add_up_to_all() {
        context(|ctx| {
            let file = "tests/data/digits_resnet/params_bf16.safetensors".into();
            let section = timing(ctx, &[file], 8192, 2).unwrap();
            let rows = section.tables[0].to_json()["rows"].as_array().unwrap().clone();
            assert_eq!(rows.len(), 5 * 7, "a frame, two layers, each plain and pruned");
            for tensor in rows.chunks(7) {
                let value = |row: usize, column: &str| tensor[row][column].as_f64().unwrap();
                let sum: f64 = (0..6).map(|row| value(row, "ms")).sum();
                assert!((sum / value(6, "ms") - 1.0).abs() < 1e-9);
                let share: f64 = (0..6).map(|row| value(row, "share %")).sum();
                assert!((share - 100.0).abs() < 1e-9, "{share}");
                assert!(value(2, "ms") > 0.0 && value(4, "ms") > 0.0 && value(5, "ms") >= 0.0);
                let prunes = tensor[0]["tensor"].as_str().unwrap().ends_with("pruned");
                assert_eq!(value(3, "ms") > 0.0, prunes, "{tensor:?}");
            }
            let json = "tests/data/digits_resnet/config.json".into();
            assert!(timing(ctx, &[json], 4096, 1).is_err());
        });
    }

    #[test]
    fn medians_are_of_each_part() {
        let runs = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [3.0, 1.0, 9.0, 4.0, 5.0, 0.0], [2.0; 6]];
        assert_eq!(medians(&runs), [2.0, 2.0, 3.0, 4.0, 5.0, 2.0]);
    }
}
