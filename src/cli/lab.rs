//! `alcm lab`: the laboratory's commands.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::args::{CommonArgs, LevelArg, LossyArgs};
use super::commands::Session;
use super::exit::FAILED;
use super::lab_bundles::{BundlesArgs, run_bundles};
use super::lab_leaderboard::{LeaderboardArgs, run_leaderboard};
use super::lab_machine::{EnergyArgs, MemoryArgs, TimingArgs};
use super::lab_machine::{machine_sections, run_energy, run_memory, run_timing};
use super::lossy_file::LossyFile;
use crate::error::{Error, ErrorKind, Result};
use crate::lab::ablation::ablation;
use crate::lab::codec::scratch;
use crate::lab::compare::{Preset, compare};
use crate::lab::curves::curves;
use crate::lab::experiment::synthetic;
use crate::lab::impact::{ImpactOptions, impact};
use crate::lab::leaderboard::baselines::baselines;
use crate::lab::leaderboard::render::render;
use crate::lab::section::Section;
use crate::lab::variance::{robust, variance};
use crate::lab::{bundles, report, reproduce};
use crate::pipeline::paths::check_free;
use crate::pipeline::train::write_file;

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
    /// How much size, time and CAQ vary over repeats and over inputs.
    Variance(VarianceArgs),
    /// Robust estimates of CAQ over runs.
    Robust(RunsArgs),
    /// Everybody's codecs and ours, on the synthetic tensors or on files.
    Compare(FilesArgs),
    /// Error against bits of lossy compression.
    Curves(FilesArgs),
    /// Models of entropy against what is counted, and as rate control.
    Ablation(FilesArgs),
    /// What compressing a checkpoint saves: storage by schedule, transfer time by bandwidth.
    Impact(ImpactArgs),
    /// Thread time of the five stages of lossy coding, for a small tensor and for layers.
    Timing(TimingArgs),
    /// Bytes that parts of the compressor hold, by a counting allocator, and the most that was resident.
    Memory(MemoryArgs),
    /// Joules of encoding and decoding, by the processor's counters or a model.
    Energy(EnergyArgs),
    /// Small sets of natural data with recorded results.
    Bundles(BundlesArgs),
    /// Results that anybody may send in, decoded and computed anew.
    Leaderboard(LeaderboardArgs),
    /// Run everything with --deterministic; write a record of it, or check one.
    Reproduce(ReproduceArgs),
    /// Run everything and write one page.
    Report(ReportArgs),
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
pub(super) fn positive(text: &str) -> std::result::Result<f64, String> {
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

/// Arguments of `lab variance`.
#[derive(Debug, Args)]
pub struct VarianceArgs {
    /// The ratio that one codec has as its goal.
    #[arg(long, value_name = "R", default_value_t = 6.0)]
    pub ratio: f64,
    /// Arguments of measurements that are repeated.
    #[command(flatten)]
    pub runs: RunsArgs,
}

/// Arguments of measurements on files.
#[derive(Debug, Args)]
pub struct FilesArgs {
    /// Checkpoints; without any the one of this repository, where the command is run in it.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Arguments of measurements that are repeated.
    #[command(flatten)]
    pub runs: RunsArgs,
}

/// Arguments of `lab reproduce`.
#[derive(Debug, Args)]
pub struct ReproduceArgs {
    /// A record to hold this run against.
    #[arg(long, value_name = "RECORD", required_unless_present = "output")]
    pub check: Option<PathBuf>,
    /// Where this run's record goes (JSON).
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the output if it exists.
    #[arg(long, short)]
    pub force: bool,
    /// Arguments of measurements on files.
    #[command(flatten)]
    pub files: FilesArgs,
}

/// Arguments of `lab report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Where the page goes (HTML).
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace the output if it exists.
    #[arg(long, short)]
    pub force: bool,
    /// Arguments of measurements on files.
    #[command(flatten)]
    pub files: FilesArgs,
}

/// The checkpoint that measurements are on where none is given, in the repository.
const REPOSITORY_CHECKPOINT: &str = "tests/data/digits_resnet/train_state.safetensors";
/// Presets that comparisons show.
const PRESETS: [&str; 3] = ["near-lossless", "balanced", "small"];

pub(super) fn run_lab(args: &LabArgs) -> Result<ExitCode> {
    match &args.command {
        LabCommand::Synthetic(args) => {
            one(&args.common, |session| synthetic(&session.context(), args.runs.into()))
        }
        LabCommand::Variance(args) => {
            one(&args.runs.common, |session| variance(&session.context(), args.runs.runs.into(), args.ratio))
        }
        LabCommand::Robust(args) => one(&args.common, |session| robust(&session.context(), args.runs.into())),
        LabCommand::Compare(args) => one(&args.runs.common, |session| {
            // A file that is named is what is asked for; without one there is the whole comparison.
            let with_synthetic = args.files.is_empty();
            compare(&session.context(), &args.files(), with_synthetic, &presets()?, args.runs.runs.into())
        }),
        LabCommand::Curves(args) => {
            one(&args.runs.common, |session| curves(&session.context(), &args.files()))
        }
        LabCommand::Ablation(args) => {
            one(&args.runs.common, |session| ablation(&session.context(), &args.files()))
        }
        LabCommand::Timing(args) => run_timing(args),
        LabCommand::Memory(args) => run_memory(args),
        LabCommand::Energy(args) => run_energy(args),
        LabCommand::Impact(args) => {
            one(&args.common, |session| impact(&session.context(), &args.paths, &args.options()))
        }
        LabCommand::Bundles(args) => run_bundles(args),
        LabCommand::Leaderboard(args) => run_leaderboard(args),
        LabCommand::Reproduce(args) => run_reproduce(args),
        LabCommand::Report(args) => run_report(args),
    }
}

impl FilesArgs {
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let ours = Path::new(REPOSITORY_CHECKPOINT);
        if self.files.is_empty() && ours.is_file() { vec![ours.to_owned()] } else { self.files.clone() }
    }
}

fn presets() -> Result<Vec<Preset>> {
    let file = LossyFile::load(None)?;
    let preset = |name: &&str| -> Result<Preset> {
        let flags = LossyArgs { lossy: true, preset: Some((*name).to_owned()), ..LossyArgs::default() };
        Ok(Preset { name: (*name).to_owned(), settings: file.settings(&flags)? })
    };
    PRESETS.iter().map(preset).collect()
}

/// Runs one measurement and prints it as text or JSON.
pub(super) fn one(
    common: &CommonArgs,
    measure: impl FnOnce(&Session) -> Result<Section>,
) -> Result<ExitCode> {
    let session = Session::new(common, false)?;
    let section = measure(&session)?;
    print_section(&session, &section)
}

/// Prints `section` as text or JSON.
pub(super) fn print_section(session: &Session, section: &Section) -> Result<ExitCode> {
    session.bars.clear();
    if session.json {
        session.print(&format!("{}\n", section.to_json()))?;
    } else if !session.quiet {
        session.print(&section.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The sections whose results are the same in every run.
fn exact_sections(session: &Session, files: &[PathBuf], runs: usize) -> Result<Vec<Section>> {
    let ctx = session.context();
    let mut sections = vec![
        synthetic(&ctx, runs)?,
        variance(&ctx, runs, 6.0)?,
        compare(&ctx, files, true, &presets()?, runs)?,
        curves(&ctx, files)?,
        ablation(&ctx, files)?,
    ];
    if !files.is_empty() {
        sections.push(impact(&ctx, files, &ImpactOptions { runs, ..ImpactOptions::default() })?);
    }
    let bundles_dir = Path::new(bundles::REPOSITORY_DIR);
    if bundles_dir.is_dir() {
        // What differs from the bundles' own record is told in the section.
        sections.push(bundles::run(&ctx, bundles_dir, runs)?.section);
    }
    Ok(sections)
}

fn run_reproduce(args: &ReproduceArgs) -> Result<ExitCode> {
    // What is wrong with a record is said before the minutes that a run takes.
    let expected = args.check.as_deref().map(reproduce::read).transpose()?;
    args.output.iter().try_for_each(|output| check_free(output, args.force))?;
    let common = CommonArgs { deterministic: Some(true), ..args.files.runs.common.clone() };
    let session = Session::new(&common, false)?;
    let files = args.files.files();
    let names: Vec<_> =
        files.iter().filter_map(|file| file.file_name()).map(|n| n.to_string_lossy()).collect();
    let settings = json!({"deterministic": true, "seed": 42, "files": names});
    let sections = exact_sections(&session, &files, 1)?;
    let record = reproduce::record(&session.context(), &settings, &sections);
    session.bars.clear();
    if let Some(output) = &args.output {
        let text = serde_json::to_string_pretty(&record)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot write a record: {e}")))?;
        write_file(output, (text + "\n").as_bytes(), args.force)?;
    }
    let Some(expected) = expected else {
        if session.json {
            session.print(&format!("{record}\n"))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let differences = reproduce::differences(&expected, &record);
    let is_same = differences.rows.is_empty();
    if session.json {
        let value =
            json!({"command": "lab reproduce", "reproduced": is_same, "differences": differences.to_json()});
        session.print(&format!("{value}\n"))?;
    } else if !session.quiet {
        if is_same {
            differences.notes.iter().try_for_each(|note| session.print(&format!("{note}\n")))?;
            session.print("reproduced: every size, hash and error is that of the record\n")?;
        } else {
            session.print(&differences.to_string())?;
        }
    }
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn run_report(args: &ReportArgs) -> Result<ExitCode> {
    let session = Session::new(&args.files.runs.common, false)?;
    if args.output.exists() && !args.force {
        // Before the minutes that a run takes.
        let message = "the output exists; --force replaces it";
        return Err(Error::new(ErrorKind::InvalidConfig, message).in_file(&args.output));
    }
    let (files, runs) = (args.files.files(), args.files.runs.runs.into());
    let ctx = session.context();
    let mut sections = exact_sections(&session, &files, runs)?;
    sections.push(robust(&ctx, usize::max(runs, 10))?);
    sections.extend(machine_sections(&ctx, &files, runs)?);
    let bundles_dir = Path::new(bundles::REPOSITORY_DIR);
    if bundles_dir.is_dir() {
        let board = scratch(None)?;
        baselines(&ctx, bundles_dir, board.path(), runs)?;
        sections.push(render(board.path())?);
    }
    session.bars.clear();
    let page = report::page(&sections, &reproduce::machine(&ctx));
    write_file(&args.output, page.as_bytes(), args.force)?;
    if session.json {
        let sections: Vec<_> = sections.iter().map(Section::to_json).collect();
        session.print(&format!("{}\n", json!({"command": "lab report", "sections": sections})))?;
    } else if !session.quiet {
        session.print(&format!("{} sections, {} bytes\n", sections.len(), page.len()))?;
    }
    Ok(ExitCode::SUCCESS)
}
