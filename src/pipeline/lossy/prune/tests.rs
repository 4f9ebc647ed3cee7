use std::io::Write;

use super::*;
use crate::checkpoint::SafetensorsHeader;
use crate::kernels::Isa;
use crate::limits::Limits;
use crate::pipeline::context::Context;
use crate::pipeline::encode::EncodeMemory;
use crate::pipeline::lossy::method::Method;
use crate::pipeline::lossy::plan::{Candidate, TensorPlan};
use crate::pipeline::lossy::settings::{LossySettings, LossyTreatment, PruningSettings};
use crate::pipeline::source::Source;
use crate::stage::{Domain, Quantizer};

/// Numbers from 0 to 1, seeded.
fn uniforms(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    }
}

/// Three parts in ten within ±0.0035, the others within ±0.25.
fn two_scales() -> Vec<f32> {
    let mut uniform = uniforms(1);
    let mut value = || (uniform() - 0.5) * if uniform() < 0.3 { 0.007 } else { 0.5 };
    (0..1 << 16).map(|_| value()).collect()
}

/// A bound that is 3.58 times the distance of neighbouring bf16 numbers from 0.125 to 0.25: steps of twice the bound miss
/// it when they are rounded to bf16, steps of the bound itself do not.
const BOUND: f64 = 0.0035;

/// What became of a tensor.
struct Outcome {
    spec: Option<QuantSpec>,
    loss: BlockLoss,
    bytes: u64,
    holds: bool,
    saving: Saving,
}

impl Outcome {
    fn newly_zero(&self) -> f64 {
        self.loss.errors.n_zeroed as f64 / self.loss.errors.n_elements as f64
    }

    fn prune_below(&self) -> f32 {
        self.spec.as_ref().map_or(0.0, |spec| spec.prune_below)
    }
}

fn fit(dtype: Dtype, values: &[f32], settings: &LossySettings) -> Outcome {
    let mut bytes = vec![0; values.len() * dtype.unit_bytes()];
    convert::from_f32(Isa::Scalar, dtype, values, &mut bytes).unwrap();
    let json = format!(
        "{{\"w\":{{\"dtype\":\"{}\",\"shape\":[{},64],\"data_offsets\":[0,{}]}}}}",
        dtype.name(),
        values.len() / 64,
        bytes.len()
    );
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&(json.len() as u64).to_le_bytes()).unwrap();
    file.write_all(json.as_bytes()).unwrap();
    file.write_all(&bytes).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let ctx = Context::new(&pool);
    let size = 8 + json.len() as u64 + bytes.len() as u64;
    let source = Source::open(file.path(), size).unwrap();
    let header: SafetensorsHeader = source.checkpoint_header("w.safetensors", &Limits::default()).unwrap();
    let info = header.tensors()[0].clone();
    let (goal, treatment) = settings.treatment(&info).unwrap();
    let candidate = Candidate { tensor_idx: 0, info, dtype, goal, treatment };
    let memory = EncodeMemory::default();
    let tensor = TensorSource {
        ctx: &ctx,
        memory: &memory,
        source: &source,
        candidate: &candidate,
        keeps: None,
        booked_on: None,
    };
    let fitter = Fitter::new(settings, tensor);
    let fitted = pool.install(|| match goal {
        // As rate control would have it, with a step of its choice.
        Goal::Bits(_) | Goal::Ratio(_) => fitter
            .prune(tensor.rate_spec(settings, (Method::best_of(settings.quantizer), None), 0.05).unwrap())
            .unwrap(),
        _ => fitter.fit().unwrap(),
    });
    let encode = |spec: &QuantSpec| pool.install(|| tensor.encode(spec).unwrap());
    let (bytes, loss) = fitted.spec.as_ref().map(encode).unwrap_or_default();
    let plan = TensorPlan { candidate: candidate.clone(), spec: fitted.spec.clone(), saving: fitted.saving };
    Outcome { holds: plan.holds(&loss), spec: fitted.spec, loss, bytes, saving: fitted.saving }
}

fn settings(goal: Goal, pruning: PruningSettings) -> LossySettings {
    LossySettings { pruning: PruningSettings { enabled: true, ..pruning }, ..LossySettings::new(goal) }
}

fn bounded(pruning: PruningSettings) -> Outcome {
    let outcome = fit(Dtype::Bf16, &two_scales(), &settings(Goal::MaxAbsError(BOUND), pruning));
    assert!(outcome.holds);
    outcome
}

#[test]
fn a_wider_dead_zone_saves_bytes_within_a_bound() {
    let plain = fit(Dtype::Bf16, &two_scales(), &LossySettings::new(Goal::MaxAbsError(BOUND)));
    assert!(plain.holds && plain.prune_below() == 0.0 && plain.saving == Saving::default());
    let defaults = PruningSettings::default();
    let pruned = bounded(PruningSettings { threshold: 0.03, ..defaults });
    assert!(pruned.bytes < plain.bytes, "{} {}", pruned.bytes, plain.bytes);
    assert!(pruned.newly_zero() <= 0.25 && pruned.newly_zero() > plain.newly_zero());
    assert!(pruned.saving.score().unwrap() > 1.0);
    // The grid of percentiles begins at the threshold.
    let other = bounded(defaults);
    assert!(other.prune_below() > 0.0 && other.prune_below() < pruned.prune_below());
    assert_eq!(bounded(PruningSettings { threshold: 0.5, ..defaults }).bytes, plain.bytes);
    // Less may become zero, then no more than quantizing makes of it.
    let less = bounded(PruningSettings { threshold: 0.03, max_drop_ratio: 0.2, ..defaults });
    assert!(less.newly_zero() <= 0.2 && less.prune_below() > 0.0, "{}", less.newly_zero());
    assert!(less.prune_below() < pruned.prune_below());
    let none = bounded(PruningSettings { threshold: 0.03, max_drop_ratio: 0.1, ..defaults });
    assert!(none.prune_below() == 0.0 && none.bytes == plain.bytes && none.saving.score() == Some(1.0));
}

#[test]
fn rules_decide_over_the_run_and_logarithms_are_never_pruned() {
    let on = settings(Goal::RelL2(0.1), PruningSettings::default());
    let off = LossySettings::new(Goal::RelL2(0.1));
    let rule = |prune| LossyTreatment { prune, ..LossyTreatment::default() };
    assert!(on.prunes(&rule(None)) && on.prunes(&rule(Some(true))) && !on.prunes(&rule(Some(false))));
    assert!(!off.prunes(&rule(None)) && off.prunes(&rule(Some(true))) && !off.prunes(&rule(Some(false))));
    assert!(!on.prunes(&LossyTreatment { domain: Domain::Log2, ..rule(Some(true)) }));
}

/// Values of a kind by `seed`: normal or with long tails, with or without zeros and rows of another scale.
fn mixed(seed: u64) -> Vec<f32> {
    let mut uniform = uniforms(seed);
    let (power, zeros, contrast) =
        (1 + seed % 3, 0.3 * (seed / 3 % 2) as f32, 0.1 + 0.3 * (seed / 6 % 4) as f32);
    let n_elements = 8192 * (1 + usize::try_from(seed % 5).unwrap());
    let mut value = |idx: usize| {
        let x = uniform() + uniform() + uniform() - 1.5;
        let scale = if (idx / 512).is_multiple_of(3) { contrast } else { 1.0 };
        if uniform() < zeros { 0.0 } else { x.powi(2 * i32::try_from(power).unwrap() - 1) * scale }
    };
    (0..n_elements).map(&mut value).collect()
}

/// For any tensor: the goal holds, no more than `max_drop_ratio` of a pruned tensor is newly zero, and it takes no more
/// bytes than without pruning, nor, where bytes are the goal, more error.
#[test]
fn pruned_tensors_keep_to_goal_and_drop_ratio_and_only_gain() {
    let mut n_pruned = 0;
    for seed in 0..36 {
        let values = mixed(seed);
        let max_drop_ratio = [0.1, 0.25, 0.6][usize::try_from(seed % 3).unwrap()];
        let pruning = PruningSettings { threshold: 0.02, max_drop_ratio, ..PruningSettings::default() };
        let dtype = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F64][usize::try_from(seed % 4).unwrap()];
        for goal in [
            Goal::RelL2([0.02, 0.1, 0.3][usize::try_from(seed / 3 % 3).unwrap()]),
            Goal::MaxAbsError(0.0035),
            Goal::MaxRelError(0.004),
            Goal::Bits(4.0),
        ] {
            let quantizer = if seed % 2 == 0 { Quantizer::Uniform } else { Quantizer::Trellis };
            let with = LossySettings { quantizer, ..settings(goal, pruning) };
            let without = LossySettings { pruning: PruningSettings::default(), ..with.clone() };
            let (plain, pruned) = (fit(dtype, &values, &without), fit(dtype, &values, &with));
            assert!(plain.holds && pruned.holds, "{seed} {goal:?}");
            if pruned.prune_below() == 0.0 {
                assert_eq!(plain.spec, pruned.spec, "{seed} {goal:?}");
                continue;
            }
            n_pruned += 1;
            assert!(pruned.newly_zero() <= max_drop_ratio, "{seed} {goal:?}: {}", pruned.newly_zero());
            assert!(pruned.bytes <= plain.bytes, "{seed} {goal:?}: {} {}", pruned.bytes, plain.bytes);
            assert!(pruned.saving.score().unwrap() > 1.0);
            if goal.is_rate() {
                assert!(pruned.loss.errors.error_sq < plain.loss.errors.error_sq);
            }
        }
    }
    assert!(n_pruned > 0);
}
