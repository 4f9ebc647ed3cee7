//! `lab variance` and `lab robust`: how much size, time and score vary, over repeats of one input and over inputs.

use serde_json::json;

use super::codec::{AlcmTensor, Codec, Common, Measured, Subject, measure};
use super::experiment::{ORIGINAL_ERROR, frames, subject};
use super::section::{Cell, Plot, Section, Table};
use super::stats::{Robust, Spread, caq};
use super::svg::{Axis, Chart, Mark, Series};
use super::synthetic::N_EPOCHS;
use crate::error::Result;
use crate::pipeline::context::Context;
use crate::pipeline::tensor::{TensorGoal, TensorMode};
use crate::stage::Quantizer;

fn scores(measured: &Measured) -> Vec<f64> {
    measured.encode_runs.iter().map(|taken| caq(measured.ratio, taken.cpu_s)).collect()
}

/// Spreads of size, processor seconds and CAQ: over `runs` of the first synthetic tensor, and over all ten. One codec has
/// `ratio` as its goal.
///
/// # Errors
/// What a codec reports; [`crate::ErrorKind::InvalidConfig`] for a ratio that is not positive.
pub fn variance(ctx: &Context<'_>, runs: usize, ratio: f64) -> Result<Section> {
    let goal = AlcmTensor {
        ctx,
        name: format!("alcm, goal ratio {ratio}"),
        mode: TensorMode::Lossy(TensorGoal::Ratio(ratio), Quantizer::Trellis),
    };
    let frames = frames(ctx);
    let mut codecs: Vec<&dyn Codec> = vec![&Common::Npz];
    codecs.extend(frames.iter().map(|frame| frame as &dyn Codec));
    codecs.push(&goal);
    let subjects: Vec<Subject> = (1..=N_EPOCHS).map(subject).collect();
    let columns = ["codec", "over", "values", "of", "range %", "CV %", "IQR/median %"];
    let mut table = Table::new("", &columns);
    let mut record = serde_json::Map::new();
    for codec in codecs {
        let all: Vec<Measured> =
            subjects.iter().map(|subject| measure(ctx, codec, subject, runs)).collect::<Result<_>>()?;
        let Some(first) = all.first() else { continue };
        let sizes: Vec<usize> = all.iter().map(|m| m.encoded.len()).collect();
        // `measure` has compared the bytes of all runs: their sizes cannot differ.
        let repeats = [
            ("bytes", vec![first.encoded.len() as f64; runs.max(1)]),
            ("CPU seconds", first.encode_runs.iter().map(|taken| taken.cpu_s).collect()),
            ("CAQ", scores(first)),
        ];
        let inputs = [
            ("bytes", sizes.iter().map(|&size| size as f64).collect()),
            ("CPU seconds", all.iter().map(|m| m.encode.cpu_s).collect()),
            ("CAQ", all.iter().map(|m| caq(m.ratio, m.encode.cpu_s)).collect()),
        ];
        for (over, rows) in [("repeats of epoch 1", repeats), ("the ten tensors", inputs)] {
            for (of, values) in rows {
                let spread = Spread::of(&values);
                table.push([
                    codec.name().into(),
                    over.into(),
                    values.len().into(),
                    of.into(),
                    Cell::Float(spread.range_percent, 3),
                    Cell::Float(spread.cv_percent, 3),
                    Cell::Float(spread.iqr_percent, 3),
                ]);
            }
        }
        record.insert(codec.name().to_owned(), json!(sizes));
    }
    table.note("Range: (max − min) ÷ mean. CV: sample standard deviation ÷ mean. IQR: interquartile range.");
    table.note(
        "Every run's bytes were compared with the first run's; one that differed would have been an error.",
    );
    Ok(Section {
        command: "variance",
        title: "Variance over repeats and over inputs".into(),
        intro: format!(
            "What the original report calls variance is the range of CAQ over ten different tensors, 4.37 %, which no \
             seed can lower. Over repeats of one input the size is always the same; over different inputs it varies \
             with what is in them, unless the ratio is the goal (here {ratio})."
        ),
        tables: vec![table],
        plots: Vec::new(),
        record: record.into(),
    })
}

/// Robust estimates of the mean CAQ of the ten tensors over `runs` runs.
///
/// # Errors
/// What a codec reports.
pub fn robust(ctx: &Context<'_>, runs: usize) -> Result<Section> {
    let frames = frames(ctx);
    let codecs =
        std::iter::once(&Common::Npz as &dyn Codec).chain(frames.iter().map(|frame| frame as &dyn Codec));
    let columns = [
        "codec",
        "runs",
        "mean",
        "median",
        "trimmed 10 %",
        "winsorised 10 %",
        "MAD × 1.4826",
        "95 % low",
        "95 % high",
    ];
    let mut table = Table::new("CAQ, mean of the ten tensors, run by run", &columns);
    let mut series = Vec::new();
    for codec in codecs {
        let mut by_run = vec![0.0; runs.max(1)];
        for epoch in 1..=N_EPOCHS {
            let scores = scores(&measure(ctx, codec, &subject(epoch), runs)?);
            by_run.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score / f64::from(N_EPOCHS));
        }
        let Robust { n, mean, median, trimmed, winsorised, mad, interval } = Robust::of(&by_run);
        let decimals = |value| Cell::Float(value, 5);
        table.push([
            codec.name().into(),
            n.into(),
            decimals(mean),
            decimals(median),
            decimals(trimmed),
            decimals(winsorised),
            Cell::Small(mad),
            decimals(interval.0),
            decimals(interval.1),
        ]);
        let relative = by_run.iter().map(|score| (score / median - 1.0) * 100.0);
        let points = (1..).map(f64::from).zip(relative).collect();
        series.push(Series { name: codec.name().to_owned(), points, mark: Mark::Line });
    }
    table.note("95 %: percentile bootstrap of the mean, 2,000 resamples, seed 42.");
    let chart = Chart { x: Axis::linear("run"), y: Axis::linear("CAQ against its median, per cent"), series };
    Ok(Section {
        command: "robust",
        title: "Robust estimates of CAQ".into(),
        intro: format!(
            "CAQ differs from run to run by its seconds alone; ratios are the same each time. The lossy row's relative \
             L2 error is at most {ORIGINAL_ERROR}."
        ),
        tables: vec![table],
        plots: vec![Plot {
            caption: "CAQ of each run, against the codec's median".into(),
            svg: chart.to_svg(),
        }],
        record: serde_json::Value::Null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::tests::context;

    #[test]
    fn sizes_repeat_and_a_goal_of_ratio_holds_them_together() {
        context(|ctx| {
            let section = variance(ctx, 2, 6.0).unwrap();
            let rows = section.tables[0].to_json()["rows"].clone();
            let rows = rows.as_array().unwrap();
            assert_eq!(rows.len(), 5 * 6);
            let mut n_size_rows = 0;
            for row in rows.iter().filter(|row| row["of"] == "bytes") {
                let range = row["range %"].as_f64().unwrap();
                if row["over"] == "repeats of epoch 1" {
                    assert_eq!(range, 0.0, "{row}");
                } else if row["codec"] == "alcm, goal ratio 6" {
                    assert!(range < 1.5, "{row}");
                } else {
                    assert!(range > 0.0, "different tensors have different sizes: {row}");
                }
                n_size_rows += 1;
            }
            assert_eq!(n_size_rows, 10);
            assert_eq!(robust(ctx, 3).unwrap().tables[0].rows.len(), 4);
        });
    }
}
