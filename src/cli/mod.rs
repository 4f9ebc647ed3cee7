//! The command line: arguments, settings file, progress bars, tables, exit codes. Nothing here is needed to use
//! the library.

pub mod args;
mod commands;
mod comparison;
pub mod config_file;
mod describe;
pub mod entropy_config;
pub mod exit;
pub mod lab;
pub mod lab_bundles;
pub mod lab_leaderboard;
pub mod lab_machine;
pub mod lossy_file;
pub mod progress;
mod train;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::storage::guard;

/// Parses the arguments, runs the command and gives the exit code: 0 done, 1 something failed, 2 wrong usage.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = args::Cli::command()
        .try_get_matches_from(args)
        .and_then(|matches| args::Cli::from_arg_matches(&matches).map(|cli| (cli, json_command(&matches))));
    let (cli, json_command) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version come this way too; a closed pipe is nobody's fault.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE));
        }
    };
    match guard::install().and_then(|()| commands::run(cli.command)) {
        Ok(code) => code,
        Err(error) => exit::report_error(error, json_command.as_deref()),
    }
}

/// The name of the command, if its results are to be one JSON object on standard output.
fn json_command(matches: &ArgMatches) -> Option<String> {
    let (mut names, mut matches) = (Vec::new(), matches);
    while let Some((name, below)) = matches.subcommand() {
        names.push(name);
        matches = below;
    }
    let is_set = |flag: &str| matches!(matches.try_get_one::<bool>(flag), Ok(Some(true)));
    let output = matches.try_get_one::<PathBuf>("output").ok().flatten();
    (is_set("json") && output.is_none_or(|output| output.as_os_str() != "-")).then(|| names.join(" "))
}
