//! `alcm train`: losses as they come, the table of all models, the networks' file, the plot.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::json;

use super::args::TrainArgs;
use super::commands::Session;
use super::entropy_config::EntropyConfig;
use super::exit::printable;
use crate::error::Result;
use crate::lab::svg::{Axis, Chart, Mark, Series, stacked};
use crate::pipeline::paths::check_free;
use crate::pipeline::train::{Epoch, TrainReport, TrainSources, train_networks, write_file};
use crate::quantize::predictor::train::Evaluation;

pub(super) fn run_train(args: &TrainArgs) -> Result<ExitCode> {
    let config = EntropyConfig::load(args.entropy_config.as_deref())?;
    // Before the minutes that training takes.
    [Some(&args.output), args.plot.as_ref()]
        .into_iter()
        .flatten()
        .try_for_each(|output| check_free(output, args.force))?;
    let session = Session::new(&args.common, false)?;
    let sources = TrainSources { training: args.paths.clone(), held_out: args.held_out.clone() };
    let mut printed = Ok(());
    let mut on_epoch = |epoch: &Epoch| {
        if !session.json && !session.quiet && printed.is_ok() {
            session.bars.clear();
            let Epoch { network, epoch, loss, held_out } = epoch;
            let epoch = epoch + 1;
            printed = session
                .print(&format!("{network} epoch {epoch:>3}: loss {loss:.3e}, held out {held_out:.3e}\n"));
        }
    };
    let report = train_networks(&session.context(), &sources, &config.train_options(), &mut on_epoch)?;
    printed?;
    session.bars.clear();
    write_file(&args.output, &report.bytes, args.force)?;
    if let Some(plot) = &args.plot {
        write_file(plot, plot_svg(&report).as_bytes(), args.force)?;
    }
    if session.json {
        let mut value = report.to_json();
        value["command"] = json!("train");
        session.print(&format!("{value}\n"))?;
    } else if !session.quiet {
        session.print(&tables(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The models over all held-out samples, then for each file.
fn tables(report: &TrainReport) -> String {
    let (training, held_out) = report.samples;
    let mut text =
        format!("\n{training} samples trained on, {held_out} held out; networks {}\n", report.sha256);
    text += "\nmodel        mse (bits/8)²  rmse bits       R²  bias bits  bias at 2-8 bits\n";
    for (name, e) in &report.held_out {
        let Evaluation { mse, rmse_bits, r2, bias_bits, bias_2_to_8_bits } = e;
        let _ = writeln!(
            text,
            "{name:12} {mse:13.3e} {rmse_bits:10.4} {r2:8.5} {bias_bits:+10.4} {bias_2_to_8_bits:+17.4}"
        );
    }
    text += "\nrmse bits, and bias at 2 to 8 bits, by held-out file\n";
    for (file, n_samples, models) in &report.files {
        let _ = writeln!(text, "{} ({n_samples} samples)", printable(file));
        for (name, e) in models {
            let _ = writeln!(text, "  {name:12} {:8.4} {:+8.4}", e.rmse_bits, e.bias_2_to_8_bits);
        }
    }
    text
}

/// Losses by epoch, below them the larger network's predictions against what was counted.
fn plot_svg(report: &TrainReport) -> String {
    let mut names: Vec<&str> = report.epochs.iter().map(|epoch| epoch.network).collect();
    names.dedup();
    let losses = names.iter().flat_map(|name| {
        let series = |suffix: &str, loss: fn(&Epoch) -> f64, mark| {
            let epochs = report.epochs.iter().filter(|epoch| epoch.network == *name);
            let points = epochs.map(|epoch| (f64::from(epoch.epoch) + 1.0, loss(epoch))).collect();
            Series { name: format!("{name}{suffix}"), points, mark }
        };
        [
            series("", |epoch| epoch.loss, Mark::Line),
            series(", held out", |epoch| epoch.held_out, Mark::Dashed),
        ]
    });
    let losses =
        Chart { x: Axis::linear("epoch"), y: Axis::log("error in (bits/8)²"), series: losses.collect() };
    let most = report.points.iter().fold(1.0, |most: f64, (counted, bits)| most.max(*counted).max(*bits));
    let predictions = Chart {
        x: Axis::linear("counted bits"),
        y: Axis::linear("predicted bits"),
        series: vec![
            Series { name: "predictions".into(), points: report.points.clone(), mark: Mark::Dots },
            Series { name: "equal".into(), points: vec![(0.0, 0.0), (most, most)], mark: Mark::Dashed },
        ],
    };
    stacked(&[losses, predictions])
}
