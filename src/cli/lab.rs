//! `alcm lab`: the laboratory's commands.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::args::CommonArgs;
use super::commands::Session;
use crate::error::Result;
use crate::lab::experiment::synthetic;
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

pub(super) fn run_lab(args: &LabArgs) -> Result<ExitCode> {
    match &args.command {
        LabCommand::Synthetic(args) => {
            let session = Session::new(&args.common, false)?;
            let section = synthetic(&session.context(), args.runs.into())?;
            print_section(&session, &section)
        }
    }
}

/// Prints `section` as text or JSON.
fn print_section(session: &Session, section: &Section) -> Result<ExitCode> {
    session.bars.clear();
    if session.json {
        session.print(&format!("{}\n", section.to_json()))?;
    } else if !session.quiet {
        session.print(&section.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
