//! `alcm lab timing`, `memory` and `energy`: what compressing takes of this machine.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::args::CommonArgs;
use super::lab::{FilesArgs, one, positive};
use crate::error::Result;
use crate::lab::energy::energy;
use crate::lab::memory::memory;
pub use crate::lab::memory::{HeapMeter, count_heap_by};
use crate::lab::power::{DEFAULT_WATTS, Meter, POWERCAP};
use crate::lab::section::Section;
use crate::lab::timing::{LAYER_ELEMENTS, timing};
use crate::pipeline::context::Context;

/// Seconds that each codec is repeated for in a report.
const REPORT_MIN_S: f64 = 0.2;

/// Arguments of `lab timing`.
#[derive(Debug, Args)]
pub struct TimingArgs {
    /// Elements of the generated layer, rounded up to whole rows of 4096.
    #[arg(long, value_name = "N", default_value_t = LAYER_ELEMENTS, value_parser = clap::value_parser!(u64).range(1..=1 << 28))]
    pub elements: u64,
    /// Safetensors files, of each of which the largest tensor is taken.
    #[command(flatten)]
    pub files: FilesArgs,
}

/// Arguments of `lab memory`.
#[derive(Debug, Args)]
pub struct MemoryArgs {
    /// Arguments that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Arguments of `lab energy`.
#[derive(Debug, Args)]
pub struct EnergyArgs {
    /// Files to compress besides the synthetic tensors.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Watts of a busy core, for the model that stands in where the machine shows no counters.
    #[arg(long, value_name = "W", default_value_t = DEFAULT_WATTS, value_parser = positive)]
    pub watts: f64,
    /// Milliseconds that each codec is repeated for.
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=600_000))]
    pub min_ms: u32,
    /// Arguments that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

pub(super) fn run_timing(args: &TimingArgs) -> Result<ExitCode> {
    let runs = &args.files.runs;
    one(&runs.common, |session| {
        timing(&session.context(), &args.files.files(), args.elements, runs.runs.into())
    })
}

pub(super) fn run_memory(args: &MemoryArgs) -> Result<ExitCode> {
    one(&args.common, |session| memory(&session.context()))
}

pub(super) fn run_energy(args: &EnergyArgs) -> Result<ExitCode> {
    let meter = Meter::open(POWERCAP.as_ref(), args.watts);
    let min_s = f64::from(args.min_ms) / 1e3;
    one(&args.common, |session| energy(&session.context(), &meter, &args.files, min_s))
}

/// The sections of a report.
pub(super) fn machine_sections(ctx: &Context<'_>, files: &[PathBuf], runs: usize) -> Result<Vec<Section>> {
    let meter = Meter::open(POWERCAP.as_ref(), DEFAULT_WATTS);
    Ok(vec![
        timing(ctx, files, LAYER_ELEMENTS, runs)?,
        memory(ctx)?,
        energy(ctx, &meter, files, REPORT_MIN_S)?,
    ])
}
