//! `alcm lab leaderboard`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::args::CommonArgs;
use super::commands::Session;
use super::exit::{FAILED, print_error};
use super::lab::{RunsArgs, one, print_section};
use crate::error::Result;
use crate::lab::bundles::REPOSITORY_DIR;
use crate::lab::leaderboard::{baselines, render, submit};
use crate::pipeline::train::write_file;

/// Arguments of `lab leaderboard`.
#[derive(Debug, Args)]
pub struct LeaderboardArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: LeaderboardCommand,
}

/// What is done with a leaderboard.
#[derive(Debug, Subcommand)]
pub enum LeaderboardCommand {
    /// Check submissions (configs/submission.schema.json), decode their files, enter those that hold.
    Submit(SubmitArgs),
    /// Check every signature; write leaderboard.md and leaderboard.html into the board's folder.
    Render(RenderArgs),
    /// Enter everybody's codecs and this program's by running them.
    Baselines(BaselinesArgs),
}

/// Where a board and its data lie.
#[derive(Debug, Args)]
pub struct BoardArgs {
    /// The folder that holds the entries.
    #[arg(long, value_name = "DIR")]
    pub board: PathBuf,
    /// The folder that holds the bundles.
    #[arg(long, value_name = "DIR", default_value = REPOSITORY_DIR)]
    pub dir: PathBuf,
}

/// Arguments of `lab leaderboard submit`.
#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// Submissions (JSON); their compressed files lie beside them or within.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where a board and its data lie.
    #[command(flatten)]
    pub board: BoardArgs,
    /// Arguments that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Arguments of `lab leaderboard render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// The folder that holds the entries.
    #[arg(long, value_name = "DIR")]
    pub board: PathBuf,
    /// Arguments that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Arguments of `lab leaderboard baselines`.
#[derive(Debug, Args)]
pub struct BaselinesArgs {
    /// Where a board and its data lie.
    #[command(flatten)]
    pub board: BoardArgs,
    /// Arguments of measurements that are repeated.
    #[command(flatten)]
    pub runs: RunsArgs,
}

pub(super) fn run_leaderboard(args: &LeaderboardArgs) -> Result<ExitCode> {
    match &args.command {
        LeaderboardCommand::Submit(args) => {
            let session = Session::new(&args.common, false)?;
            let paths: Vec<&Path> = args.files.iter().map(PathBuf::as_path).collect();
            let outcome = submit::submit(&session.context(), &args.board.dir, &args.board.board, &paths);
            let printed = print_section(&session, &outcome.section)?;
            outcome.failures.iter().for_each(|failure| print_error(&failure.to_string()));
            Ok(if outcome.failures.is_empty() { printed } else { ExitCode::from(FAILED) })
        }
        LeaderboardCommand::Render(args) => one(&args.common, |_| {
            let section = render::render(&args.board)?;
            for (name, text) in [("md", render::markdown(&section)), ("html", render::html(&section))] {
                write_file(&args.board.join(format!("leaderboard.{name}")), text.as_bytes(), true)?;
            }
            Ok(section)
        }),
        LeaderboardCommand::Baselines(args) => one(&args.runs.common, |session| {
            let runs = args.runs.runs.into();
            baselines::baselines(&session.context(), &args.board.dir, &args.board.board, runs)
        }),
    }
}
