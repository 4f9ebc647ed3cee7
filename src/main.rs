//! The `alcm` command: see [`alcm::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    alcm::cli::run(std::env::args_os())
}
