//! `alcm lab bundles`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::commands::Session;
use super::exit::{FAILED, print_error};
use super::lab::{RunsArgs, one, print_section};
use crate::error::Result;
use crate::lab::bundles::{self, REPOSITORY_DIR};

/// Arguments of `lab bundles`.
#[derive(Debug, Args)]
pub struct BundlesArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: BundlesCommand,
}

/// What is done with bundles.
#[derive(Debug, Subcommand)]
pub enum BundlesCommand {
    /// Check every file, run every codec, compare with what is recorded; exit code 1 where something differs.
    Run(BundlesRunArgs),
    /// Measure, and record what came out.
    Record(BundlesRunArgs),
}

/// Arguments of both.
#[derive(Debug, Args)]
pub struct BundlesRunArgs {
    /// The folder that holds the bundles.
    #[arg(long, value_name = "DIR", default_value = REPOSITORY_DIR)]
    pub dir: PathBuf,
    /// Arguments of measurements that are repeated.
    #[command(flatten)]
    pub runs: RunsArgs,
}

pub(super) fn run_bundles(args: &BundlesArgs) -> Result<ExitCode> {
    match &args.command {
        BundlesCommand::Run(args) => {
            let session = Session::new(&args.runs.common, false)?;
            let outcome = bundles::run(&session.context(), &args.dir, args.runs.runs.into())?;
            let printed = print_section(&session, &outcome.section)?;
            outcome.failures.iter().for_each(|failure| print_error(&failure.to_string()));
            Ok(if outcome.failures.is_empty() { printed } else { ExitCode::from(FAILED) })
        }
        BundlesCommand::Record(args) => one(&args.runs.common, |session| {
            bundles::record(&session.context(), &args.dir, args.runs.runs.into())
        }),
    }
}
