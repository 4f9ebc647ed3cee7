//! One function per command: settings from arguments, the pipeline's call, the result's printing.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::{
    Command, CommonArgs, CompareArgs, CompressArgs, DecompressArgs, ExtractArgs, InspectArgs, VerifyArgs,
};
use super::comparison::{comparison_table, exceeded};
use super::config_file::{ConfigFile, RunSettings, coding};
use super::describe::{archive_json, archive_table, map_table, tensor_json, tree_json, tree_table};
use super::exit::{FAILED, is_broken_pipe, print_error, printable, report_failures};
use super::lab::run_lab;
use super::lossy_file::LossyFile;
use super::progress::Bars;
use super::train::run_train;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::pipeline::compare::compare;
use crate::pipeline::compress::{compress_file, compress_tree};
use crate::pipeline::context::Context;
use crate::pipeline::decompress::{DecompressOptions, decompress_file, decompress_tree, restored_name};
use crate::pipeline::inspect::{TensorOutput, extract_layer, inspect};
use crate::pipeline::manifest::Manifest;
use crate::pipeline::map::{BLOCK_ELEMENTS, entropy_map};
use crate::pipeline::outputs::ARCHIVE_SUFFIX;
use crate::pipeline::predict::predict;
use crate::pipeline::report::{Failure, Report};
use crate::pipeline::settings::{AsBytes, CompressOptions};
use crate::pipeline::stream::{compress_stream, decompress_stream_layer};
use crate::pipeline::verify::verify;

/// The seed that `--deterministic` names. No encoder draws random numbers today; the report says what one
/// would start from.
const SEED: u64 = 42;

/// Runs `command`.
pub(super) fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Compress(args) => run_compress(&args),
        Command::Decompress(args) => run_decompress(&args),
        Command::Verify(args) => run_verify(&args),
        Command::Inspect(args) => run_inspect(&args),
        Command::Extract(args) => run_extract(&args),
        Command::Train(args) => run_train(&args),
        Command::Compare(args) => run_compare(&args),
        Command::Lab(args) => run_lab(&args),
    }
}

/// What every command sets up: settings, threads, bars.
pub(super) struct Session {
    config: ConfigFile,
    settings: RunSettings,
    pool: rayon::ThreadPool,
    pub(super) bars: Bars,
    pub(super) json: bool,
    pub(super) quiet: bool,
    /// Whether standard output carries data, so that reports go to standard error.
    data_on_stdout: bool,
}

impl Session {
    pub(super) fn new(common: &CommonArgs, data_on_stdout: bool) -> Result<Self> {
        let config = ConfigFile::load(common.config.as_deref())?;
        let settings = RunSettings::new(&config, common)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(settings.threads)
            .thread_name(|thread_idx| format!("alcm-{thread_idx}"))
            .build()
            .map_err(|e| {
                Error::new(ErrorKind::Io, format!("cannot start {} threads: {e}", settings.threads))
            })?;
        let bars = Bars::new(common.quiet);
        Ok(Self { config, settings, pool, bars, json: common.json, quiet: common.quiet, data_on_stdout })
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context { pool: &self.pool, progress: &self.bars, isa: self.settings.isa, limits: Limits::default() }
    }

    /// Prints `text` where results go.
    pub(super) fn print(&self, text: &str) -> Result<()> {
        let written = if self.data_on_stdout {
            io::stderr().write_all(text.as_bytes())
        } else {
            io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush())
        };
        written.map_err(|e| Error::io("cannot print the result", e))
    }

    /// Prints a run's report, then its failures.
    fn finish(&self, command: &str, report: &Report) -> Result<ExitCode> {
        self.bars.clear();
        if self.json {
            let mut value = report.to_json();
            value["command"] = json!(command);
            value["threads"] = json!(self.settings.threads);
            value["isa"] = json!(self.settings.isa.name());
            if self.settings.deterministic {
                value["seed"] = json!(SEED);
            }
            self.print(&format!("{value}\n"))?;
        } else if !self.quiet {
            let mut text = report.to_string();
            if self.settings.deterministic {
                text += &format!("deterministic: 1 thread, scalar kernels, seed {SEED}\n");
            }
            if self.settings.timings {
                text += &format!("\n{}", report.timings);
            }
            self.print(&text)?;
        }
        Ok(report_failures(report))
    }
}

fn is_pipe(path: &Path) -> bool {
    path == Path::new("-")
}

fn usage(message: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

/// Standard output for data. A terminal is refused: nobody can read an archive.
fn data_output() -> Result<Box<dyn Write + Send>> {
    if io::stdout().is_terminal() {
        return Err(usage("will not write binary data to a terminal; redirect the output"));
    }
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;
        // Past the standard library's line buffer, which would copy every byte.
        let fd = io::stdout().as_fd().try_clone_to_owned();
        Ok(Box::new(std::fs::File::from(fd.map_err(|e| Error::io("cannot use standard output", e))?)))
    }
    #[cfg(not(unix))]
    {
        Ok(Box::new(io::stdout()))
    }
}

fn data_input(path: &Path) -> Result<Box<dyn Read + Send>> {
    if is_pipe(path) {
        return Ok(Box::new(io::stdin()));
    }
    let file = std::fs::File::open(path).map_err(|e| Error::io("cannot open", e).in_file(path))?;
    Ok(Box::new(file))
}

/// Whether the arguments ask for a stream; an error for half of one.
fn wants_stream(paths: &[PathBuf], output: &Path) -> Result<bool> {
    let reads = paths.iter().any(|path| is_pipe(path));
    match (reads, is_pipe(output), paths) {
        (false, false, _) => Ok(false),
        (_, true, [path]) if !path.is_dir() => Ok(true),
        (true, false, _) => Err(usage("standard input needs standard output: pass -o -")),
        _ => Err(usage("standard output takes one file or standard input")),
    }
}

fn run_compress(args: &CompressArgs) -> Result<ExitCode> {
    let streams = wants_stream(&args.paths, &args.output)?;
    let session = Session::new(&args.common, streams)?;
    let ctx = session.context();
    let coding = coding(&session.config, args);
    let lossy = if args.lossy.lossy || !args.lossy.layers.is_empty() {
        if streams {
            return Err(usage("a lossy or layered run reads its tensors twice; give it files, not a stream"));
        }
        if coding.as_bytes == AsBytes::All {
            return Err(usage(
                "--as-bytes=all keeps checkpoints as plain bytes; nothing of them can be lossy",
            ));
        }
        Some(LossyFile::load(args.lossy.lossy_config.as_deref())?.settings(&args.lossy)?)
    } else {
        None
    };
    let options = CompressOptions {
        coding,
        lossy,
        force: args.force,
        resume: args.resume,
        verify: args.verify.unwrap_or(session.config.verify),
        remove_source: args.remove_source,
        sync: args.common.sync.unwrap_or(session.config.sync),
    };
    let [path, ..] = args.paths.as_slice() else { return Err(usage("no path given")) };
    let report = if args.dry_run {
        if streams {
            return Err(usage("a stream cannot be sampled; give --dry-run a file"));
        }
        predict(&ctx, &args.paths, &coding)?
    } else if streams {
        if options.resume || options.verify || options.remove_source {
            return Err(usage("a stream can neither be resumed nor verified; use files"));
        }
        compress_stream(&ctx, data_input(path)?, &mut data_output()?, &coding)?
    } else if names_archive(&args.paths, &args.output) {
        compress_file(&ctx, path, &args.output, &options)?
    } else {
        compress_tree(&ctx, &args.paths, &args.output, &options)?
    };
    session.finish(if args.dry_run { "dry-run" } else { "compress" }, &report)
}

/// Whether a single file is to become the single archive `output`.
fn names_archive(paths: &[PathBuf], output: &Path) -> bool {
    let named = output.to_str().is_some_and(|output| output.ends_with(ARCHIVE_SUFFIX)) && !output.is_dir();
    named && matches!(paths, [path] if !path.is_dir())
}

fn run_decompress(args: &DecompressArgs) -> Result<ExitCode> {
    let streams = wants_stream(&args.paths, &args.output)?;
    let session = Session::new(&args.common, streams)?;
    let ctx = session.context();
    let options = DecompressOptions {
        force: args.force,
        sync: args.common.sync.unwrap_or(session.config.sync),
        layer: args.layer.choice(),
    };
    let mut report = Report::default();
    if streams {
        let [path, ..] = args.paths.as_slice() else { return Err(usage("no path given")) };
        report = decompress_stream_layer(&ctx, data_input(path)?, &mut data_output()?, options.layer)?;
        return session.finish("decompress", &report);
    }
    let ends_in_slash = args.output.to_string_lossy().ends_with('/');
    let into_dir = args.paths.len() > 1 || args.output.is_dir() || ends_in_slash;
    if into_dir {
        // Wrong usage is said before anything is done.
        args.paths
            .iter()
            .filter(|path| path.is_file())
            .try_for_each(|path| restored_name(path).map(|_| ()))?;
    }
    for path in &args.paths {
        let start = std::time::Instant::now();
        match decompress_path(&ctx, path, &args.output, into_dir, options) {
            Ok(part) => report.absorb(part),
            Err(error) if args.paths.len() == 1 => return Err(error),
            Err(error) => report.failures.push(Failure { path: path.display().to_string(), error }),
        }
        report.elapsed += start.elapsed();
    }
    session.finish("decompress", &report)
}

/// Restores one of the paths given to `decompress`.
fn decompress_path(
    ctx: &Context<'_>,
    path: &Path,
    output: &Path,
    into_dir: bool,
    options: DecompressOptions,
) -> Result<Report> {
    if path.is_dir() {
        return decompress_tree(ctx, path, output, options);
    }
    if !into_dir {
        return decompress_file(ctx, path, output, options);
    }
    std::fs::metadata(path).map_err(|e| Error::io("cannot open", e).in_file(path))?;
    let cannot_create = |e| Error::io("cannot create directory", e).in_file(output);
    std::fs::create_dir_all(output).map_err(cannot_create)?;
    decompress_file(ctx, path, &output.join(restored_name(path)?), options)
}

fn run_verify(args: &VerifyArgs) -> Result<ExitCode> {
    let session = Session::new(&args.common, false)?;
    let report = verify(&session.context(), &args.paths);
    session.finish("verify", &report)
}

fn run_inspect(args: &InspectArgs) -> Result<ExitCode> {
    let session = Session::new(&args.common, false)?;
    let ctx = session.context();
    if let Some(name) = &args.map {
        return print_map(&session, args, name);
    }
    let (mut archives, mut trees) = (Vec::new(), Vec::new());
    let mut failures = Report::default();
    for path in &args.paths {
        let found = if path.is_dir() {
            Manifest::read(path, &ctx.limits).map(|manifest| trees.push((path, manifest)))
        } else {
            inspect(&ctx, path).map(|report| archives.push(report))
        };
        if let Err(error) = found {
            failures.failures.push(Failure { path: path.display().to_string(), error });
        }
    }
    if session.json {
        let archives: Vec<Value> = archives.iter().map(archive_json).collect();
        let trees: Vec<Value> = trees.iter().map(|(path, manifest)| tree_json(path, manifest)).collect();
        let failed: Vec<Value> = failures.failures.iter().map(Failure::to_json).collect();
        let value = json!({"command": "inspect", "archives": archives, "trees": trees, "failures": failed});
        session.print(&format!("{value}\n"))?;
    } else if !session.quiet {
        trees.iter().try_for_each(|(path, manifest)| session.print(&tree_table(path, manifest)))?;
        archives.iter().try_for_each(|report| session.print(&archive_table(report)))?;
    }
    Ok(report_failures(&failures))
}

fn print_map(session: &Session, args: &InspectArgs, name: &str) -> Result<ExitCode> {
    let [path] = &args.paths[..] else {
        return Err(Error::new(ErrorKind::InvalidConfig, "--map is of one archive"));
    };
    let map = entropy_map(&session.context(), path, name, args.step)?;
    session.bars.clear();
    if session.json {
        let value = json!({
            "command": "inspect",
            "map": {"tensor": name, "step": map.step, "block_elements": BLOCK_ELEMENTS, "bits": map.bits},
        });
        session.print(&format!("{value}\n"))?;
    } else if !session.quiet {
        session.print(&map_table(&map))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run_extract(args: &ExtractArgs) -> Result<ExitCode> {
    let to_stdout = is_pipe(&args.output);
    let session = Session::new(&args.common, to_stdout)?;
    let ctx = session.context();
    let mut stdout;
    let output = if to_stdout {
        stdout = data_output()?;
        TensorOutput::Stream(&mut stdout)
    } else {
        TensorOutput::File { path: &args.output, force: args.force }
    };
    let tensor = match extract_layer(&ctx, &args.path, &args.tensor, args.layer.choice(), output) {
        Err(error) if is_broken_pipe(&error) => return Ok(ExitCode::SUCCESS),
        result => result?,
    };
    session.bars.clear();
    if session.json {
        session.print(&format!("{}\n", tensor_json(&tensor)))?;
    } else if !session.quiet {
        let bytes = tensor.tally.original_bytes;
        session.print(&format!(
            "{} {:?} {}: {bytes} bytes\n",
            printable(&tensor.dtype),
            tensor.shape,
            printable(&tensor.name)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run_compare(args: &CompareArgs) -> Result<ExitCode> {
    let session = Session::new(&args.common, false)?;
    let comparison = compare(&session.context(), &args.a, &args.b)?;
    session.bars.clear();
    let exceeded = exceeded(&comparison, args.max_abs, args.max_rel_l2);
    if session.json {
        let mut value = comparison.to_json();
        value["command"] = json!("compare");
        value["exceeded"] = json!(exceeded);
        session.print(&format!("{value}\n"))?;
    } else if !session.quiet {
        session.print(&comparison_table(&comparison))?;
    }
    exceeded.iter().for_each(|name| print_error(&format!("{name}: differs by more than the bound")));
    let complete = comparison.is_complete();
    let code = report_failures(&Report { failures: comparison.failures, ..Report::default() });
    Ok(if complete && exceeded.is_empty() { code } else { ExitCode::from(FAILED) })
}
