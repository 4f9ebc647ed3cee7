//! The command line, as clap reads it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::lab::LabArgs;
use crate::kernels::Isa;
use crate::pipeline::layer_choice::LayerChoice;
use crate::pipeline::lossy::settings::{Goal, LayerGoal, RateModel};
use crate::pipeline::settings::AsBytes;
use crate::stage::{IndexBackend, Level, Quantizer};

/// Compresses machine-learning checkpoints: one archive per file, every byte back, or on request within an error or to
/// a size that you name.
#[derive(Debug, Parser)]
#[command(name = "alcm", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compress files and directory trees.
    Compress(CompressArgs),
    /// Restore what compress made.
    Decompress(DecompressArgs),
    /// Decode everything in memory and check every checksum and content hash.
    Verify(VerifyArgs),
    /// List the tensors of an archive, or the files of a directory of archives, with their sizes.
    Inspect(InspectArgs),
    /// Decode one tensor without touching the rest.
    Extract(ExtractArgs),
    /// Train the predictor of the rate of quantized tensors on checkpoints.
    Train(TrainArgs),
    /// Measure how the values of one checkpoint differ from those of another.
    Compare(CompareArgs),
    /// Reproduce and check the numbers that this project and the original report state.
    Lab(LabArgs),
}

/// Arguments that every command takes.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Print the result as one JSON object, what failed included.
    #[arg(long)]
    pub json: bool,
    /// Print no progress and no table; errors and the exit code are all that is left.
    #[arg(long, short)]
    pub quiet: bool,
    /// Worker threads; 0 for one per processor.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Instruction set of the kernels; the bytes are the same for every one.
    #[arg(long, value_enum)]
    pub isa: Option<IsaArg>,
    /// One thread, scalar kernels, seed 42; the bytes are the same without.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub deterministic: Option<bool>,
    /// Print the thread time of each step.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub timings: Option<bool>,
    /// Sync outputs to the disk before they get their names.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub sync: Option<bool>,
    /// Settings file (YAML); flags override it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `compress`.
#[derive(Debug, Args)]
pub struct CompressArgs {
    /// Files and directories; `-` alone for standard input.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Output directory; for a single file also a name that ends in `.alcm`; `-` for standard output.
    #[arg(long, short, value_name = "OUT")]
    pub output: PathBuf,
    /// Effort of the encoder.
    #[arg(long, value_enum)]
    pub level: Option<LevelArg>,
    /// Record a SHA-256 of each file besides the BLAKE3.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub sha256: Option<bool>,
    /// Store identical tensors and files once, and near copies as differences, also if the settings file says otherwise.
    #[arg(long, conflicts_with = "no_dedup")]
    pub dedup: bool,
    /// Store every tensor and file by itself.
    #[arg(long)]
    pub no_dedup: bool,
    /// Keep malformed checkpoints, as files of other formats are kept; or code all files as plain bytes.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "malformed", value_name = "WHICH")]
    pub as_bytes: Option<AsBytesArg>,
    /// Decode each output back before it gets its name.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub verify: Option<bool>,
    /// Remove the sources after all outputs are verified and synced.
    #[arg(long)]
    pub remove_source: bool,
    /// Keep outputs of an earlier run that are complete and from the same bytes and settings.
    #[arg(long)]
    pub resume: bool,
    /// Replace outputs that exist.
    #[arg(long, short)]
    pub force: bool,
    /// Encode a sample, all of small files, and predict the sizes; write nothing.
    #[arg(long, conflicts_with_all = ["resume", "remove_source"])]
    pub dry_run: bool,
    /// Arguments that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Arguments of lossy runs; last, because their heading is that of all that follows.
    #[command(flatten)]
    pub lossy: LossyArgs,
}

/// Arguments of lossy runs; without `--lossy` nothing ever changes.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Lossy compression")]
pub struct LossyArgs {
    /// Let float tensors change within a goal: one of the five below, or a preset.
    #[arg(long, conflicts_with_all = ["remove_source", "dry_run"])]
    pub lossy: bool,
    /// Goal: largest |x - x'| of any element.
    #[arg(long, value_name = "E", requires = "lossy", group = "goal")]
    pub max_abs_error: Option<f64>,
    /// Goal: largest |x - x'| relative to the largest |x| of the element's channel.
    #[arg(long, value_name = "E", requires = "lossy", group = "goal")]
    pub max_rel_error: Option<f64>,
    /// Goal: relative L2 error of each tensor.
    #[arg(long, value_name = "E", requires = "lossy", group = "goal")]
    pub rel_l2: Option<f64>,
    /// Goal: mean stored bits per element over all lossy tensors.
    #[arg(long, value_name = "B", requires = "lossy", group = "goal")]
    pub bits: Option<f64>,
    /// Goal: original size / stored size of the whole run.
    #[arg(long, value_name = "R", requires = "lossy", group = "goal")]
    pub ratio: Option<f64>,
    /// A goal and rules by name: near-lossless, balanced, small, adam, or one of the settings file.
    #[arg(long, value_name = "NAME", requires = "lossy", group = "goal")]
    pub preset: Option<String>,
    /// Layers that refine each other, such as 4,8,exact: bits per element so far, or exact at the end; where the last is
    /// not exact, --lossy is needed too.
    #[arg(
        long,
        value_name = "BITS,...",
        value_delimiter = ',',
        value_parser = layer,
        conflicts_with_all = ["goal", "quant", "backend", "correct_rate", "rate_model", "prune", "prune_after", "dry_run"]
    )]
    pub layers: Vec<LayerGoal>,
    /// How elements become indices.
    #[arg(long, value_enum, requires = "lossy")]
    pub quant: Option<QuantizerArg>,
    /// How indices are stored.
    #[arg(long, value_enum, requires = "lossy")]
    pub backend: Option<BackendArg>,
    /// Encode twice to come closer to --bits or --ratio.
    #[arg(long, requires = "lossy")]
    pub correct_rate: bool,
    /// The model of entropy that --bits and --ratio go by.
    #[arg(long, value_enum, requires = "lossy")]
    pub rate_model: Option<RateModelArg>,
    /// Set small elements to zero where that saves bits at the same goal.
    #[arg(long, requires = "lossy")]
    pub prune: bool,
    /// Prune as the next checkpoint of a series: go on from the threshold and score in DIR, an earlier run's output.
    #[arg(long, value_name = "DIR", requires = "lossy")]
    pub prune_after: Option<PathBuf>,
    /// Settings, presets and rules (YAML) in place of the built-in ones.
    #[arg(long, value_name = "FILE", requires = "lossy")]
    pub lossy_config: Option<PathBuf>,
    /// Settings of the entropy model (YAML): the floor and the cap of a channel's bits.
    #[arg(long, value_name = "FILE", requires = "lossy")]
    pub entropy_config: Option<PathBuf>,
}

impl LossyArgs {
    /// The goal among the flags.
    #[must_use]
    pub fn goal(&self) -> Option<Goal> {
        let goals = [
            self.max_abs_error.map(Goal::MaxAbsError),
            self.max_rel_error.map(Goal::MaxRelError),
            self.rel_l2.map(Goal::RelL2),
            self.bits.map(Goal::Bits),
            self.ratio.map(Goal::Ratio),
        ];
        goals.into_iter().flatten().next()
    }
}

/// A layer: a number of bits, or `exact`.
fn layer(text: &str) -> Result<LayerGoal, String> {
    if text == "exact" {
        return Ok(LayerGoal::Exact);
    }
    let bits = text.parse().map_err(|_| "a number of bits or `exact` is needed".to_owned())?;
    Goal::Bits(bits).check().map(|_| LayerGoal::Bits(bits)).map_err(|error| error.to_string())
}

/// `--quant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QuantizerArg {
    /// Each element by itself.
    Uniform,
    /// The same, but of eight elements those whose indices have an even sum, where that is better.
    Lattice,
    /// Dependent quantization by a trellis of 8 states.
    Trellis,
}

impl From<QuantizerArg> for Quantizer {
    fn from(quantizer: QuantizerArg) -> Self {
        match quantizer {
            QuantizerArg::Uniform => Self::Uniform,
            QuantizerArg::Lattice => Self::Lattice,
            QuantizerArg::Trellis => Self::Trellis,
        }
    }
}

/// `--rate-model`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RateModelArg {
    /// Closed form of the normal distribution.
    Gaussian,
    /// Closed form of generalised normal distributions.
    GeneralizedGaussian,
    /// The learned network on six moments.
    Moments,
    /// The learned network on moments and octaves.
    Profile,
    /// None: indices are counted at every step that is tried.
    Counted,
}

impl From<RateModelArg> for RateModel {
    fn from(model: RateModelArg) -> Self {
        match model {
            RateModelArg::Gaussian => Self::Gaussian,
            RateModelArg::GeneralizedGaussian => Self::GeneralizedGaussian,
            RateModelArg::Moments => Self::Moments,
            RateModelArg::Profile => Self::Profile,
            RateModelArg::Counted => Self::Counted,
        }
    }
}

/// `--backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendArg {
    /// Interleaved rANS.
    Rans,
    /// Deflate.
    Deflate,
    /// Zstd.
    Zstd,
}

impl From<BackendArg> for IndexBackend {
    fn from(backend: BackendArg) -> Self {
        match backend {
            BackendArg::Rans => Self::Rans,
            BackendArg::Deflate => Self::Deflate,
            BackendArg::Zstd => Self::Zstd,
        }
    }
}

/// Arguments of `decompress`.
#[derive(Debug, Args)]
pub struct DecompressArgs {
    /// Directories that compress made, or archives; `-` alone for standard input.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Output directory; for a single archive also a file name; `-` for standard output.
    #[arg(long, short, value_name = "OUT")]
    pub output: PathBuf,
    /// Replace files that exist.
    #[arg(long, short)]
    pub force: bool,
    /// Which layer of layered archives.
    #[command(flatten)]
    pub layer: LayerArgs,
    /// Arguments that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Which layer of layered archives is read; the finest without them.
#[derive(Debug, Clone, Copy, PartialEq, Args)]
pub struct LayerArgs {
    /// Of layered archives the layer of this number, the coarsest being 1.
    #[arg(long, value_name = "N")]
    pub layer: Option<usize>,
    /// Of layered archives the finest layer of at most this many bits per element.
    #[arg(long, value_name = "B", conflicts_with = "layer", value_parser = bound)]
    pub bits: Option<f64>,
}

impl LayerArgs {
    /// The choice.
    #[must_use]
    pub fn choice(self) -> LayerChoice {
        match (self.layer, self.bits) {
            (Some(number), _) => LayerChoice::Number(number),
            (None, Some(bits)) => LayerChoice::Bits(bits),
            (None, None) => LayerChoice::Finest,
        }
    }
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Directories that compress made, or archives.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Arguments that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Archives, whose tensors are listed; directories that compress made, whose files are.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Print instead, of this tensor of one archive, the predicted bits of each block of 1024 elements of each channel.
    #[arg(long, value_name = "NAME")]
    pub map: Option<String>,
    /// The step that --map is for; otherwise the tensor's own, or 1/16 of its root mean square.
    #[arg(long, value_name = "STEP", requires = "map")]
    pub step: Option<f64>,
    /// Arguments that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Arguments of `extract`.
#[derive(Debug, Args)]
pub struct ExtractArgs {
    /// The archive.
    #[arg(value_name = "FILE")]
    pub path: PathBuf,
    /// The tensor's name.
    #[arg(long, value_name = "NAME")]
    pub tensor: String,
    /// Where its elements go, little-endian, without a header; `-` for standard output.
    #[arg(long, short, value_name = "OUT")]
    pub output: PathBuf,
    /// Replace the output if it exists.
    #[arg(long, short)]
    pub force: bool,
    /// Which layer of a layered archive.
    #[command(flatten)]
    pub layer: LayerArgs,
    /// Arguments that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Arguments of `train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Checkpoints to train on, and directories of them.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Checkpoints to hold out and measure on; may be given several times. Without it every fourth is held out.
    #[arg(long, value_name = "PATH")]
    pub held_out: Vec<PathBuf>,
    /// Where the trained networks go.
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Where a plot of losses and predictions goes (SVG).
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// The predictor's settings (YAML).
    #[arg(long, value_name = "FILE")]
    pub entropy_config: Option<PathBuf>,
    /// Replace files that exist.
    #[arg(long, short)]
    pub force: bool,
    /// Arguments that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Arguments of `compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// What errors are relative to: a file, an archive, a tree of files or a directory that compress made.
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// What is compared with it, likewise.
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// Fail where an element of a tensor differs by more than this.
    #[arg(long, value_name = "X", value_parser = bound)]
    pub max_abs: Option<f64>,
    /// Fail where the relative L2 error of a tensor, ‖a − b‖₂ ÷ ‖a‖₂, is above this.
    #[arg(long, value_name = "X", value_parser = bound)]
    pub max_rel_l2: Option<f64>,
    /// Arguments that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// A bound on an error: a finite number that is not negative.
fn bound(text: &str) -> Result<f64, String> {
    let bound = text.parse().ok().filter(|bound: &f64| bound.is_finite() && *bound >= 0.0);
    bound.ok_or_else(|| "a finite number, 0 or more, is needed".to_owned())
}

/// `--level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LevelArg {
    /// Fastest to encode.
    Fast,
    /// The balance that the measurements are for.
    Default,
    /// Smallest.
    High,
}

impl From<LevelArg> for Level {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Fast => Self::Fast,
            LevelArg::Default => Self::Default,
            LevelArg::High => Self::High,
        }
    }
}

/// `--isa`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IsaArg {
    /// The fastest that this processor has.
    Auto,
    /// Portable code.
    Scalar,
    /// AVX2.
    Avx2,
    /// AVX-512.
    Avx512,
}

impl IsaArg {
    /// The instruction set; `None` for whatever is fastest.
    #[must_use]
    pub fn isa(self) -> Option<Isa> {
        match self {
            Self::Auto => None,
            Self::Scalar => Some(Isa::Scalar),
            Self::Avx2 => Some(Isa::Avx2),
            Self::Avx512 => Some(Isa::Avx512),
        }
    }
}

/// `--as-bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AsBytesArg {
    /// None: a malformed checkpoint is an error.
    Never,
    /// Malformed checkpoints are coded as files of other formats are.
    Malformed,
    /// All files are coded as plain bytes.
    All,
}

impl From<AsBytesArg> for AsBytes {
    fn from(as_bytes: AsBytesArg) -> Self {
        match as_bytes {
            AsBytesArg::Never => Self::Never,
            AsBytesArg::Malformed => Self::Malformed,
            AsBytesArg::All => Self::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn arguments_do_not_contradict_each_other() {
        super::Cli::command().debug_assert();
    }
}
