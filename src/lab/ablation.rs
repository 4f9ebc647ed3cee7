//! `lab ablation`: what predicting entropy is worth. Every model against what is counted, and as rate control.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::curves::lossy_run;
use super::section::{Cell, Plot, Section, Table};
use super::stats::mean;
use super::svg::{Axis, Chart, Mark, Series};
use crate::error::{Error, Result};
use crate::kernels::convert::{is_convertible, to_f32};
use crate::pipeline::context::Context;
use crate::pipeline::lossy::settings::{Goal, LossySettings, RateModel};
use crate::pipeline::source::Source;
use crate::quantize::elementary::exp2;
use crate::quantize::predictor::target::counted_bits;
use crate::quantize::predictor::{Networks, Unit, models};

/// Tensors of fewer elements have too few of each index to be counted.
const MIN_ELEMENTS: usize = 4096;
/// Most elements of a tensor that are looked at, from its beginning.
const MAX_ELEMENTS: usize = 1 << 18;
/// Steps, as octaves of the standard deviation.
const STEPS_LOG2: [i32; 8] = [-6, -5, -4, -3, -2, -1, 0, 1];
/// Goals of the rate control part.
const GOALS: [f64; 3] = [2.0, 4.0, 8.0];
/// Most points of the plot.
const MAX_POINTS: usize = 1200;

/// A unit at a step: what was counted, and what each model says.
struct Sample {
    counted: f64,
    predicted: Vec<f64>,
}

/// Models of entropy on the tensors of `files`, none of which needs to be one that the networks were trained on.
///
/// # Errors
/// Files that cannot be read or are no checkpoints; what compressing reports.
pub fn ablation(ctx: &Context<'_>, files: &[PathBuf]) -> Result<Section> {
    let units = units_of(ctx, files)?;
    let (mut counted, mut counting_s) = (Vec::new(), 0.0);
    for (unit_idx, (unit, values)) in units.iter().enumerate() {
        for octaves in STEPS_LOG2 {
            let step = std_of(unit) * exp2(f64::from(octaves));
            let start = Instant::now();
            let bits = counted_bits(values, step);
            counting_s += start.elapsed().as_secs_f64();
            counted.extend(bits.map(|counted| (unit_idx, step, counted.bits)));
        }
    }
    let constant = mean(&counted.iter().map(|(_, _, bits)| *bits).collect::<Vec<_>>());
    let networks = Networks::shipped();
    let models = models(constant, networks);
    let mut samples: Vec<Sample> =
        counted.iter().map(|(_, _, bits)| Sample { counted: *bits, predicted: Vec::new() }).collect();
    let mut seconds = Vec::new();
    for (_, model) in &models {
        // Tables that a model makes once are not its cost for a step.
        let _ = units.first().map(|(unit, _)| model.bits(unit, 1.0));
        let start = Instant::now();
        for ((unit_idx, step, _), sample) in counted.iter().zip(&mut samples) {
            let Some((unit, _)) = units.get(*unit_idx) else { continue };
            sample.predicted.push(model.bits(unit, *step));
        }
        seconds.push(start.elapsed().as_secs_f64());
    }
    let names: Vec<&str> = models.iter().map(|(name, _)| *name).collect();
    let mut tables = vec![predictions(&names, &samples, &seconds, counting_s)];
    let mut record = Vec::new();
    for file in files {
        tables.push(rate_control(ctx, file, &mut record)?);
    }
    Ok(Section {
        command: "ablation",
        title: "Models of entropy".into(),
        intro: format!(
            "{} tensors at {} steps each, from σ ÷ 64 to 2 σ: bits per element of the quantized values, counted and \
             predicted. The constant is the mean of what was counted, the best that any constant could be.",
            units.len(),
            STEPS_LOG2.len()
        ),
        tables,
        plots: vec![fit(&names, &samples)],
        record: Value::Array(record),
    })
}

fn std_of(unit: &Unit) -> f64 {
    (unit.moments.m2 / unit.moments.n.max(1) as f64).sqrt()
}

/// The beginnings of all float tensors that are long enough, finite, and not constant.
fn units_of(ctx: &Context<'_>, files: &[PathBuf]) -> Result<Vec<(Unit, Vec<f32>)>> {
    let mut units = Vec::new();
    for path in files {
        let size = fs::metadata(path).map_err(|e| Error::io("cannot read", e).in_file(path))?.len();
        let source = Source::open(path, size)?;
        for tensor in source.header(&ctx.limits)?.tensors() {
            let Some(dtype) = tensor.dtype.filter(|dtype| is_convertible(*dtype)) else { continue };
            let n_elements =
                usize::try_from(tensor.n_elements()).map_or(MAX_ELEMENTS, |n| n.min(MAX_ELEMENTS));
            let mut elements = vec![0; n_elements * dtype.unit_bytes()];
            source.read(tensor.start, &mut elements)?;
            let mut values = vec![0.0; elements.len() / dtype.unit_bytes()];
            let unit = Unit::measure(ctx.isa, dtype, &elements);
            let converted = to_f32(ctx.isa, dtype, &elements, &mut values);
            if let (Some(unit), Some(_)) = (unit, converted)
                && values.len() >= MIN_ELEMENTS
                && unit.moments.n_not_finite == 0
                && std_of(&unit) > 0.0
            {
                units.push((unit, values));
            }
        }
    }
    Ok(units)
}

fn predictions(names: &[&str], samples: &[Sample], seconds: &[f64], counting_s: f64) -> Table {
    let columns = ["model", "MSE (bits/8)²", "RMSE bits", "R²", "bias bits", "µs for a unit's step"];
    let mut table = Table::new("Bits per element, predicted against counted", &columns);
    let n = samples.len() as f64;
    let middle = mean(&samples.iter().map(|sample| sample.counted).collect::<Vec<_>>());
    let spread: f64 = samples.iter().map(|sample| (sample.counted - middle).powi(2)).sum();
    for (model_idx, (name, seconds)) in names.iter().zip(seconds).enumerate() {
        let errors: Vec<f64> = samples
            .iter()
            .filter_map(|sample| Some(sample.predicted.get(model_idx)? - sample.counted))
            .collect();
        let squares: f64 = errors.iter().map(|error| error.powi(2)).sum();
        table.push([
            (*name).into(),
            Cell::Small(squares / n / 64.0),
            Cell::Float((squares / n).sqrt(), 4),
            Cell::Float(1.0 - squares / spread, 5),
            Cell::Signed(mean(&errors), 4),
            Cell::Float(seconds / n * 1e6, 2),
        ]);
    }
    table.push([
        "counted".into(),
        Cell::Small(0.0),
        Cell::Float(0.0, 4),
        Cell::Float(1.0, 5),
        Cell::Signed(0.0, 4),
        Cell::Float(counting_s / n * 1e6, 2),
    ]);
    table
}

fn fit(names: &[&str], samples: &[Sample]) -> Plot {
    let stride = samples.len() / MAX_POINTS + 1;
    let shown = ["gaussian", "mlp-moments", "mlp-profile"];
    let series = shown.iter().filter_map(|name| {
        let model_idx = names.iter().position(|other| other == name)?;
        let points = samples.iter().step_by(stride);
        let points = points.filter_map(|sample| Some((sample.counted, *sample.predicted.get(model_idx)?)));
        Some(Series { name: (*name).to_owned(), points: points.collect(), mark: Mark::Dots })
    });
    let most = samples.iter().map(|sample| sample.counted).fold(1.0, f64::max);
    let diagonal =
        Series { name: "equal".into(), points: vec![(0.0, 0.0), (most, most)], mark: Mark::Dashed };
    let chart = Chart {
        x: Axis::linear("counted bits per element"),
        y: Axis::linear("predicted bits per element"),
        series: series.chain(std::iter::once(diagonal)).collect(),
    };
    Plot { caption: "Predictor fit".into(), svg: chart.to_svg() }
}

/// What each model makes of goals in bits, over the whole of a file.
fn rate_control(ctx: &Context<'_>, file: &Path, record: &mut Vec<Value>) -> Result<Table> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let columns =
        ["goal bits", "rate model", "bits", "off goal %", "relative L2", "encode s", "encode CPU s"];
    let mut table = Table::new(format!("{name}: rate goals by each model"), &columns);
    for goal in GOALS {
        for (model, rate_model) in [
            ("gaussian", RateModel::Gaussian),
            ("generalized-gaussian", RateModel::GeneralizedGaussian),
            ("moments", RateModel::Moments),
            ("profile", RateModel::Profile),
            ("counted", RateModel::Counted),
        ] {
            let run =
                lossy_run(ctx, file, LossySettings { rate_model, ..LossySettings::new(Goal::Bits(goal)) })?;
            record.push(json!([name, goal, model, run.archive_bytes, run.relative_l2]));
            table.push([
                Cell::Float(goal, 0),
                model.into(),
                Cell::Float(run.bits, 3),
                Cell::Signed((run.bits / goal - 1.0) * 100.0, 2),
                Cell::Small(run.relative_l2),
                Cell::Float(run.encode.wall_s, 3),
                Cell::Float(run.encode.cpu_s, 3),
            ]);
        }
    }
    table.note("counted: no prediction; what tensors take is counted at every step that is tried, as fast as the encoder can.");
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::tests::context;

    #[test]
    fn networks_beat_the_constant_and_the_closed_form() {
        let file = PathBuf::from("tests/data/digits_resnet/params_bf16.safetensors");
        context(|ctx| {
            let section = ablation(ctx, &[file]).unwrap();
            let rows = section.tables[0].to_json()["rows"].clone();
            let mse = |name: &str| {
                let row = rows.as_array().unwrap().iter().find(|row| row["model"] == name).unwrap();
                row["MSE (bits/8)²"].as_f64().unwrap()
            };
            assert!(mse("mlp-profile") * 10.0 < mse("constant"));
            assert!(mse("mlp-profile") < mse("gaussian"));
            assert_eq!(section.tables[1].rows.len(), GOALS.len() * 5);
        });
    }
}
