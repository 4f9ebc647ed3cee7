//! Exit codes and the one way in which errors are printed.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::json;

use crate::error::{Error, ErrorKind};
use crate::pipeline::report::{Failure, Report};

/// A file failed, or verify found a difference.
pub const FAILED: u8 = 1;
/// Wrong usage or settings; as clap's own.
pub const USAGE: u8 = 2;

/// `text` with control characters escaped, so that names from files cannot steer a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_debug());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// Prints `error`, which has ended a run, on standard error and gives the exit code; a reader who has gone away is no
/// error. With the name of a command whose results are JSON, an object with the error goes to standard output too.
#[must_use]
pub fn report_error(error: Error, json_command: Option<&str>) -> ExitCode {
    if is_broken_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    print_error(&error.to_string());
    let code = if error.kind() == ErrorKind::InvalidConfig { USAGE } else { FAILED };
    if let Some(command) = json_command {
        let path = error.location().file.as_ref().map(|file| file.display().to_string());
        let failure = Failure { path: path.unwrap_or_default(), error };
        let value = json!({"command": command, "failures": [failure.to_json()]});
        // Where standard output is closed there is nobody to tell.
        let _ = writeln!(io::stdout(), "{value}");
    }
    ExitCode::from(code)
}

/// Prints each failed file and each rate goal of `report` that was missed, and gives the exit code.
#[must_use]
pub fn report_failures(report: &Report) -> ExitCode {
    for failure in &report.failures {
        let text = failure.error.to_string();
        match failure.error.location().file {
            Some(_) => print_error(&text),
            None => print_error(&format!("{}: {text}", failure.path)),
        }
    }
    // A run that says nothing else says this.
    for rate in report.rates.iter().filter(|rate| !rate.is_met(&report.total())) {
        print_warning(&rate.describe(&report.total()));
    }
    if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

/// Whether `error` says that the reader of our output has gone.
#[must_use]
pub fn is_broken_pipe(error: &Error) -> bool {
    error.io_source().is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints `text` as a warning.
fn print_warning(text: &str) {
    let _ = writeln!(io::stderr(), "alcm: warning: {}", printable(text));
}

/// Prints `text` as an error.
pub(super) fn print_error(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "alcm: error: {}", printable(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_nothing_else() {
        assert_eq!(printable("a\x1b[31m\n\"é'"), "a\\u{1b}[31m\\n\"é'");
    }
}
