//! `alcm lab`: the laboratory's commands.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::args::{CommonArgs, LevelArg};
use super::commands::Session;
use crate::lab::experiment::synthetic;
use crate::lab::impact::{ImpactOptions, impact};
use crate::lab::section::Section;

/// Arguments of `lab`.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: LabCommand,
}

/// What the laboratory measures.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// The ten-epoch experiment of the original report.
    Synthetic(RunsArgs),
    /// What compressing a checkpoint saves: storage by schedule, transfer time by bandwidth.
    Impact(ImpactArgs),
}

/// Arguments of `lab impact`.
#[derive(Debug, Args)]
pub struct ImpactArgs {
    /// Files and directories that together are one checkpoint.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Effort of the encoder.
    #[arg(long, value_enum, default_value = "default")]
    pub level: LevelArg,
    /// Let tensors change within this relative L2 error; without it every bit is kept.
    #[arg(long, value_name = "BOUND", value_parser = positive)]
    pub rel_l2: Option<f64>,
    /// Times that it is compressed and restored; times are medians.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub runs: u16,
    /// Folder for archives and restored files, which needs room for both and is left as it was.
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Nodes, each of which writes a checkpoint like this one.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub nodes: u32,
    /// Checkpoints of each node in an hour.
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = positive)]
    pub per_hour: f64,
    /// Hours that checkpoints are kept; several, with commas, for several schedules.
    #[arg(long, value_name = "HOURS", value_delimiter = ',', default_value = "24,168,720", value_parser = positive)]
    pub retain_hours: Vec<f64>,
    /// Bandwidths in Gbit/s, with commas.
    #[arg(long, value_name = "GBIT/S", value_delimiter = ',', default_value = "0.1,1,10,25,100", value_parser = positive)]
    pub bandwidth: Vec<f64>,
    /// Arguments that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl ImpactArgs {
    fn options(&self) -> ImpactOptions {
        ImpactOptions {
            level: self.level.into(),
            rel_l2: self.rel_l2,
            runs: self.runs.into(),
            scratch: self.scratch.clone(),
            nodes: self.nodes,
            per_hour: self.per_hour,
            retention_hours: self.retain_hours.clone(),
            gbits_s: self.bandwidth.clone(),
        }
    }
}

/// A finite number above 0.
fn positive(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if value.is_finite() && value > 0.0 {
        Ok(value)
    } else {
        Err("allowed are finite numbers above 0".to_owned())
    }
}

/// Arguments of measurements that are repeated.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// Times that each codec runs on each input; times are medians.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub runs: u16,
    /// Arguments that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

pub(super) fn run_lab(args: &LabArgs) -> crate::error::Result<ExitCode> {
    match &args.command {
        LabCommand::Synthetic(args) => {
            let session = Session::new(&args.common, false)?;
            let section = synthetic(&session.context(), args.runs.into())?;
            print_section(&session, &section)
        }
        LabCommand::Impact(args) => {
            let session = Session::new(&args.common, false)?;
            let section = impact(&session.context(), &args.paths, &args.options())?;
            print_section(&session, &section)
        }
    }
}

/// Prints `section` as text or JSON.
fn print_section(session: &Session, section: &Section) -> crate::error::Result<ExitCode> {
    session.bars.clear();
    if session.json {
        session.print(&format!("{}\n", section.to_json()))?;
    } else if !session.quiet {
        session.print(&section.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
