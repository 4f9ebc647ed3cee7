//! `alcm train`: losses as they come, the table of all models, the networks' file, the plot.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::json;

use super::args::TrainArgs;
use super::commands::Session;
use super::entropy_config::EntropyConfig;
use super::exit::printable;
use crate::error::Result;
use crate::pipeline::train::{Epoch, TrainReport, TrainSources, train_networks, write_file};
use crate::quantize::predictor::train::Evaluation;

pub(super) fn run_train(args: &TrainArgs) -> Result<ExitCode> {
    let config = EntropyConfig::load(args.entropy_config.as_deref())?;
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

/// Side of a panel of the plot, and the margin around it.
const PANEL: f64 = 300.0;
const MARGIN: f64 = 45.0;
/// Colours of the networks, in the order in which they are trained.
const COLOURS: [&str; 2] = ["#c2571a", "#1f5fa8"];

/// Losses by epoch on the left, the larger network's predictions against what was counted on the right.
fn plot_svg(report: &TrainReport) -> String {
    let (width, height) = (2.0 * PANEL + 3.0 * MARGIN, PANEL + 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (panel, x_label, y_label) in
        [(0, "epoch", "log10 of the error in (bits/8)²"), (1, "counted bits", "predicted bits")]
    {
        let left = MARGIN + f64::from(panel) * (PANEL + MARGIN);
        let (middle, bottom, top) = (left + PANEL / 2.0, MARGIN + PANEL + 32.0, MARGIN - 8.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{MARGIN}\" width=\"{PANEL}\" height=\"{PANEL}\" fill=\"none\" stroke=\"#999\"/>\n\
             <text x=\"{middle}\" y=\"{bottom}\" text-anchor=\"middle\">{x_label}</text>\n\
             <text x=\"{left}\" y=\"{top}\">{y_label}</text>"
        );
    }
    losses(&mut svg, report);
    predictions(&mut svg, report);
    svg + "</svg>\n"
}

fn losses(svg: &mut String, report: &TrainReport) {
    let logs = report.epochs.iter().flat_map(|e| [e.loss, e.held_out]).map(|x| x.max(1e-9).log10());
    let (low, high) = logs
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x.floor()), high.max(x.ceil())));
    let last = report.epochs.iter().map(|e| e.epoch).max().unwrap_or(0).max(1);
    let x = |epoch: u32| MARGIN + PANEL * f64::from(epoch) / f64::from(last);
    let y = |loss: f64| MARGIN + PANEL * (high - loss.max(1e-9).log10()) / (high - low).max(1.0);
    let (label_x, bottom) = (MARGIN - 6.0, MARGIN + PANEL + 14.0);
    for power in [low, high] {
        let at = y(10f64.powf(power)) + 4.0;
        let _ = writeln!(svg, "<text x=\"{label_x}\" y=\"{at}\" text-anchor=\"end\">{power}</text>");
    }
    for epoch in [0, last] {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{bottom}\" text-anchor=\"middle\">{}</text>",
            x(epoch),
            epoch + 1
        );
    }
    let mut names: Vec<&str> = report.epochs.iter().map(|e| e.network).collect();
    names.dedup();
    for (idx, (name, colour)) in names.iter().zip(COLOURS).enumerate() {
        for (dashes, is_held_out) in [("none", false), ("4 3", true)] {
            let epochs = report.epochs.iter().filter(|e| e.network == *name);
            let points: Vec<String> = epochs
                .map(|e| format!("{:.1},{:.1}", x(e.epoch), y(if is_held_out { e.held_out } else { e.loss })))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-dasharray=\"{dashes}\"/>",
                points.join(" ")
            );
        }
        let at = MARGIN + 16.0 + 14.0 * idx as f64;
        let text_x = MARGIN + 90.0;
        let _ = writeln!(
            svg,
            "<text x=\"{text_x}\" y=\"{at}\" fill=\"{colour}\">{name} (dashed: held out)</text>"
        );
    }
}

fn predictions(svg: &mut String, report: &TrainReport) {
    let left = 2.0 * MARGIN + PANEL;
    let most =
        report.points.iter().fold(1.0, |most: f64, (counted, bits)| most.max(*counted).max(*bits)).ceil();
    let (x, y) = (|bits: f64| left + PANEL * bits / most, |bits: f64| MARGIN + PANEL * (1.0 - bits / most));
    let _ = writeln!(
        svg,
        "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"#999\"/>",
        x(0.0),
        y(0.0),
        x(most),
        y(most)
    );
    let bottom = MARGIN + PANEL + 14.0;
    for bits in [0.0, most] {
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{bottom}\" text-anchor=\"middle\">{bits}</text>", x(bits));
    }
    for (counted, bits) in &report.points {
        let colour = COLOURS[1];
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"1.2\" fill=\"{colour}\" fill-opacity=\"0.5\"/>",
            x(*counted),
            y(*bits)
        );
    }
}
