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
use std::process::ExitCode;

use clap::Parser;

use crate::storage::guard;

/// Parses the arguments, runs the command and gives the exit code: 0 done, 1 something failed, 2 wrong usage.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match args::Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too; a closed pipe is nobody's fault.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE));
        }
    };
    match guard::install().and_then(|()| commands::run(cli.command)) {
        Ok(code) => code,
        Err(error) => exit::report_error(&error),
    }
}
