//! Training the entropy predictor: units of the tensors of checkpoints, counted at many steps.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::context::Context;
use super::digest::Digest;
use super::source::{Source, is_checkpoint_name};
use super::tree::SourceTree;
use crate::checkpoint::TensorInfo;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::convert::{is_convertible, to_f32};
use crate::quantize::elementary::exp2;
use crate::quantize::predictor::target::counted_bits;
use crate::quantize::predictor::train::{
    self, DataSet, Evaluation, Progress, Sample, TrainSettings, mean_bits,
};
use crate::quantize::predictor::{Networks, Unit, models};
use crate::storage::{AtomicFile, Durability};

/// Fewest elements of a unit.
const MIN_UNIT_LEN: usize = 2048;
/// Lengths of units besides whole channels, and how many of each are taken of a tensor; a tensor itself is one, too.
const UNIT_LENS: [(usize, usize); 4] = [(4096, 12), (16 << 10, 10), (128 << 10, 6), (1 << 20, 3)];
/// Units of one channel, or of as many as make a unit, taken of a tensor.
const CHANNEL_UNITS: usize = 12;
/// Longest unit.
const MAX_UNIT_LEN: usize = 4 << 20;
/// Steps that each unit is counted at.
const STEPS_PER_UNIT: usize = 8;
/// Steps lie within these octaves of σ: about 0.02 to 11 bits.
const STEP_LOG2: (f64, f64) = (-7.5, 3.5);
/// Elements for each different index: with fewer, what is counted says more of the sample than of its source.
const MIN_PER_SYMBOL: usize = 8;
/// Rates that are learned from, in bits.
const RATES: (f64, f64) = (0.02, 11.0);
/// One unit in this many that is trained on has its smallest magnitudes set to zero, as pruning does. What is held
/// out stays as it is.
const PRUNED: u32 = 8;
/// Where held-out checkpoints are not named, one file in this many is held out.
const HELD_OUT_FILES: usize = 4;

/// What to train on.
#[derive(Debug, Clone, Default)]
pub struct TrainSources {
    /// Checkpoints and directories of them.
    pub training: Vec<PathBuf>,
    /// Checkpoints to hold out; of the others every fourth, by name, where there are none.
    pub held_out: Vec<PathBuf>,
}

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainOptions {
    /// What the trainer itself asks for.
    pub settings: TrainSettings,
    /// Longest time for reading, counting and training together.
    pub timeout: Duration,
}

/// One epoch of one network.
#[derive(Debug, Clone, PartialEq)]
pub struct Epoch {
    /// Name of the network.
    pub network: &'static str,
    /// From 0.
    pub epoch: u32,
    /// Mean squared error in (bits ÷ 8)² while training.
    pub loss: f64,
    /// The same over held-out samples, afterwards.
    pub held_out: f64,
}

/// A model's name and how well it predicts.
pub type ModelEvaluation = (&'static str, Evaluation);

/// What training gave.
#[derive(Debug)]
pub struct TrainReport {
    /// The networks.
    pub networks: Networks,
    /// Their file, to be written.
    pub bytes: Vec<u8>,
    /// SHA-256 of that file, in hexadecimal.
    pub sha256: String,
    /// Every epoch of either network.
    pub epochs: Vec<Epoch>,
    /// Every model against the held-out samples.
    pub held_out: Vec<ModelEvaluation>,
    /// The same for each held-out file: its name, its samples, the models.
    pub files: Vec<(String, usize, Vec<ModelEvaluation>)>,
    /// Names of the files trained on.
    pub training_files: Vec<String>,
    /// Samples trained on and held out.
    pub samples: (usize, usize),
    /// (counted, predicted) bits of the larger network, for a part of the held-out samples.
    pub points: Vec<(f64, f64)>,
}

/// Points that a plot can show.
const MAX_POINTS: usize = 1500;

/// Trains on `sources`. The networks' bytes depend on the sources' contents and names and on the settings, never on
/// threads, instruction set or time.
///
/// # Errors
/// [`ErrorKind::LimitExceeded`] after the timeout; what [`train::train`] refuses; the first file that cannot be
/// read.
pub fn train_networks(
    ctx: &Context<'_>,
    sources: &TrainSources,
    options: &TrainOptions,
    on_epoch: &mut dyn FnMut(&Epoch),
) -> Result<TrainReport> {
    let deadline = Deadline { start: Instant::now(), timeout: options.timeout };
    options.settings.check()?;
    let (training_files, held_out_files) = split(sources)?;
    let total: u64 = training_files.iter().chain(&held_out_files).map(|file| file.1).sum();
    ctx.progress.begin(total);
    let mut file_idx = 0;
    let mut read = |files: &[NamedFile], prunes: bool| -> Result<Vec<DataSet>> {
        let mut sets = Vec::new();
        for (name, size, path) in files {
            ctx.progress.file_started(file_idx, name, *size);
            let seed = options.settings.seed.wrapping_add((file_idx as u64) << 32);
            let sampling = Sampling { seed, prunes };
            sets.push(samples_of_file(ctx, path, *size, sampling, &deadline).map_err(|e| e.in_file(path))?);
            ctx.progress.advanced(file_idx, *size);
            ctx.progress.file_finished(file_idx);
            file_idx += 1;
        }
        Ok(sets)
    };
    let training = join(read(&training_files, true)?);
    let held_out_sets = read(&held_out_files, false)?;
    let held_out = join(held_out_sets.clone());
    let mut epochs = Vec::new();
    let networks = train::train(&training, &held_out, &options.settings, &mut |progress| {
        if let Progress::Epoch { network, epoch, loss, held_out } = progress {
            epochs.push(Epoch { network, epoch, loss, held_out });
            epochs.last().into_iter().for_each(&mut *on_epoch);
        }
        if deadline.check().is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .map_err(|error| deadline.check().err().unwrap_or(error))?;
    let constant = mean_bits(&training);
    let evaluate = |data: &DataSet| -> Vec<ModelEvaluation> {
        models(constant, &networks)
            .iter()
            .map(|(name, model)| (*name, Evaluation::of(model.as_ref(), data)))
            .collect()
    };
    let bytes = networks.to_bytes();
    Ok(TrainReport {
        sha256: Digest(Sha256::digest(&bytes).into()).to_string(),
        held_out: evaluate(&held_out),
        files: held_out_files
            .iter()
            .zip(&held_out_sets)
            .map(|(file, data)| (file.0.clone(), data.samples.len(), evaluate(data)))
            .collect(),
        training_files: training_files.into_iter().map(|file| file.0).collect(),
        samples: (training.samples.len(), held_out.samples.len()),
        points: points(&networks, &held_out),
        networks,
        bytes,
        epochs,
    })
}

struct Deadline {
    start: Instant,
    timeout: Duration,
}

impl Deadline {
    fn check(&self) -> Result<()> {
        if self.start.elapsed() < self.timeout {
            return Ok(());
        }
        let message =
            format!("training has not ended within its timeout of {} s", self.timeout.as_secs_f64());
        Err(Error::new(ErrorKind::LimitExceeded, message))
    }
}

/// Name within its tree, size, path.
type NamedFile = (String, u64, PathBuf);

/// The checkpoints to train on and those held out, each by name.
fn split(sources: &TrainSources) -> Result<(Vec<NamedFile>, Vec<NamedFile>)> {
    let checkpoints = |paths: &[PathBuf]| -> Result<Vec<NamedFile>> {
        let tree = SourceTree::walk(paths)?;
        let named = tree.files.into_iter().filter(|file| is_checkpoint_name(&file.path));
        Ok(named.map(|file| (file.path, file.size, file.source)).collect())
    };
    let training = checkpoints(&sources.training)?;
    let too_few = |message: &str| Err(Error::new(ErrorKind::InvalidConfig, message));
    if training.is_empty() {
        return too_few("no .safetensors file among what is to be trained on");
    }
    if training.len() == 1 && sources.held_out.is_empty() {
        return too_few("only one checkpoint, and one must be held out: name another by --held-out");
    }
    if !sources.held_out.is_empty() {
        let held_out = checkpoints(&sources.held_out)?;
        let identity = |file: &NamedFile| std::fs::canonicalize(&file.2).ok();
        let both =
            training.iter().find(|file| held_out.iter().any(|other| identity(other) == identity(file)));
        return match both {
            Some(file) => {
                let message = "is both to be trained on and to be held out";
                Err(Error::new(ErrorKind::InvalidConfig, message).in_file(&file.2))
            }
            None => Ok((training, held_out)),
        };
    }
    let (mut kept, mut held_out) = (Vec::new(), Vec::new());
    for (idx, file) in training.into_iter().enumerate() {
        if idx % HELD_OUT_FILES == 1 { held_out.push(file) } else { kept.push(file) }
    }
    Ok((kept, held_out))
}

/// How samples of a file are drawn.
#[derive(Clone, Copy)]
struct Sampling {
    seed: u64,
    prunes: bool,
}

fn join(sets: Vec<DataSet>) -> DataSet {
    let mut all = DataSet::default();
    for set in sets {
        let first = all.units.len();
        all.units.extend(set.units);
        all.samples.extend(
            set.samples.into_iter().map(|sample| Sample { unit_idx: first + sample.unit_idx, ..sample }),
        );
    }
    all
}

fn samples_of_file(
    ctx: &Context<'_>,
    path: &Path,
    size: u64,
    sampling: Sampling,
    deadline: &Deadline,
) -> Result<DataSet> {
    let source = Source::open(path, size)?;
    let header = source.header(&ctx.limits)?;
    let tensor_samples = |(idx, tensor): (usize, &TensorInfo)| -> Result<DataSet> {
        deadline.check()?;
        let Some(dtype) = tensor.dtype.filter(|dtype| is_convertible(*dtype)) else {
            return Ok(DataSet::default());
        };
        let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed.wrapping_add(idx as u64));
        let mut data = DataSet::default();
        for (start, len) in unit_ranges(tensor) {
            let mut bytes = vec![0; len * dtype.unit_bytes()];
            source.read(tensor.start + (start * dtype.unit_bytes()) as u64, &mut bytes)?;
            let mut values = vec![0f32; len];
            if to_f32(ctx.isa, dtype, &bytes, &mut values).is_some() {
                add_unit(ctx, &mut values, sampling.prunes, &mut rng, &mut data);
            }
        }
        Ok(data)
    };
    let tensors: Vec<_> = header.tensors().iter().enumerate().collect();
    let sets: Vec<Result<DataSet>> =
        ctx.pool.install(|| tensors.into_par_iter().map(tensor_samples).collect());
    source.check_unchanged()?;
    Ok(join(sets.into_iter().collect::<Result<_>>()?))
}

/// Units to take of a tensor, as (first element, elements): some of each length, spread evenly.
fn unit_ranges(tensor: &TensorInfo) -> Vec<(usize, usize)> {
    let len = usize::try_from(tensor.n_elements()).unwrap_or(usize::MAX);
    let channel_len = match (tensor.shape.first(), tensor.shape.len()) {
        (Some(channels), 2..) => len / usize::try_from(*channels).unwrap_or(usize::MAX).max(1),
        _ => 0,
    };
    let mut lens = UNIT_LENS.to_vec();
    if channel_len > 0 {
        lens.push((MIN_UNIT_LEN.div_ceil(channel_len) * channel_len, CHANNEL_UNITS));
    }
    lens.push((len.min(MAX_UNIT_LEN), 1));
    let mut ranges = Vec::new();
    for (unit_len, most) in lens {
        let n_units = if unit_len >= MIN_UNIT_LEN { len / unit_len } else { 0 };
        let taken = n_units.min(most);
        ranges.extend((0..taken).map(|idx| (idx * n_units / taken * unit_len, unit_len)));
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

/// Measures a unit, counts it at random steps and adds what came out.
fn add_unit(ctx: &Context<'_>, values: &mut [f32], prunes: bool, rng: &mut ChaCha8Rng, data: &mut DataSet) {
    let mut uniform = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
    if prunes && uniform() * f64::from(PRUNED) < 1.0 {
        prune(values, uniform());
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let Some(unit) = Unit::measure(ctx.isa, Dtype::F32, &bytes) else { return };
    let std = unit.moments.std();
    if unit.moments.n_not_finite > 0 || std <= 0.0 {
        return;
    }
    let n_before = data.samples.len();
    for _ in 0..STEPS_PER_UNIT {
        let step = std * exp2(STEP_LOG2.0 + (STEP_LOG2.1 - STEP_LOG2.0) * uniform());
        let counted = counted_bits(values, step).filter(|counted| {
            counted.n_symbols * MIN_PER_SYMBOL <= values.len() && (RATES.0..=RATES.1).contains(&counted.bits)
        });
        if let Some(counted) = counted {
            data.samples.push(Sample { unit_idx: data.units.len(), step, bits: counted.bits });
        }
    }
    if data.samples.len() > n_before {
        data.units.push(unit);
    }
}

/// Sets the smallest `share` of the magnitudes to zero, 0.9 of them at most.
fn prune(values: &mut [f32], share: f64) {
    let mut magnitudes: Vec<f32> = values.iter().map(|value| value.abs()).collect();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the slice")]
    let at = (0.9 * share * magnitudes.len() as f64) as usize;
    let (_, threshold, _) = magnitudes.select_nth_unstable_by(at, f32::total_cmp);
    let threshold = *threshold;
    values.iter_mut().filter(|value| value.abs() < threshold).for_each(|value| *value = 0.0);
}

fn points(networks: &Networks, data: &DataSet) -> Vec<(f64, f64)> {
    use crate::quantize::predictor::EntropyModel;
    let stride = data.samples.len().div_ceil(MAX_POINTS).max(1);
    let samples = data.samples.iter().step_by(stride);
    samples
        .map(|sample| (sample.bits, networks.profile.bits(&data.units[sample.unit_idx], sample.step)))
        .collect()
}

impl TrainReport {
    /// The report as JSON; the models' file is named by its SHA-256.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let evaluations = |models: &[ModelEvaluation]| -> Value {
            let one = |(name, e): &ModelEvaluation| {
                json!({
                    "model": name, "mse": e.mse, "rmse_bits": e.rmse_bits, "r2": e.r2,
                    "bias_bits": e.bias_bits, "bias_2_to_8_bits": e.bias_2_to_8_bits,
                })
            };
            models.iter().map(one).collect()
        };
        let epochs: Vec<Value> = self
            .epochs
            .iter()
            .map(|e| json!({"network": e.network, "epoch": e.epoch, "loss": e.loss, "held_out": e.held_out}))
            .collect();
        let files: Vec<Value> = self
            .files
            .iter()
            .map(|(file, n, models)| json!({"file": file, "samples": n, "models": evaluations(models)}))
            .collect();
        json!({
            "sha256": self.sha256,
            "parameters": {
                "mlp-moments": self.networks.moments.n_parameters(),
                "mlp-profile": self.networks.profile.n_parameters(),
            },
            "samples": {"training": self.samples.0, "held_out": self.samples.1},
            "training_files": self.training_files,
            "epochs": epochs,
            "held_out": evaluations(&self.held_out),
            "held_out_files": files,
        })
    }
}

/// Writes `bytes` as the file `path`, which appears only when it is whole.
///
/// # Errors
/// [`ErrorKind::Io`]; also where the file exists, unless `overwrites`.
pub fn write_file(path: &Path, bytes: &[u8], overwrites: bool) -> Result<()> {
    let mut file = AtomicFile::create(path, overwrites)?;
    file.write_all(bytes).map_err(|e| file.cannot_write(e))?;
    file.commit(Durability::ProcessEnd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::kernels::Isa;

    /// Trains for an epoch on one file of the test data and holds out the other.
    fn run(threads: usize, isa: Isa, timeout_seconds: u64) -> Result<TrainReport> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let ctx = Context { isa, ..Context::new(&pool) };
        let file =
            |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/digits_resnet").join(name);
        let sources = TrainSources {
            training: vec![file("train_state.safetensors")],
            held_out: vec![file("params_bf16.safetensors")],
        };
        let settings = TrainSettings { epochs: 1, hidden_size: 16, ..TrainSettings::default() };
        let options = TrainOptions { settings, timeout: Duration::from_secs(timeout_seconds) };
        train_networks(&ctx, &sources, &options, &mut |_| {})
    }

    #[test]
    fn networks_do_not_depend_on_threads_or_instruction_set() {
        let report = run(1, Isa::Scalar, 1000).unwrap();
        assert_eq!(run(2, Isa::detect(), 1000).unwrap().bytes, report.bytes);
        assert_eq!(Networks::from_bytes(&report.bytes).unwrap(), report.networks);
        assert_eq!((report.epochs.len(), report.held_out.len(), report.files.len()), (2, 7, 1));
        assert!(report.samples.0 > 100 && report.samples.1 > 100, "{:?}", report.samples);
        let mse = |name: &str| report.held_out.iter().find(|model| model.0 == name).unwrap().1.mse;
        assert!(mse("mlp-profile") < 0.1 * mse("constant"), "{:?}", report.held_out);
        assert_eq!(report.to_json()["sha256"].as_str().unwrap().len(), 64);
    }

    #[test]
    fn training_ends_with_its_timeout_and_never_holds_out_what_it_trains_on() {
        assert_eq!(run(1, Isa::detect(), 0).unwrap_err().kind(), ErrorKind::LimitExceeded);
        let path = PathBuf::from("tests/data/digits_resnet");
        let sources = TrainSources { training: vec![path.clone()], held_out: vec![path] };
        assert_eq!(split(&sources).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
}
