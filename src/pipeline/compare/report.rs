//! What a comparison found, for programs and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::difference::Difference;
use crate::checkpoint::TensorInfo;
use crate::pipeline::report::Failure;

/// One of the two things compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first, which errors are relative to.
    A,
    /// The second.
    B,
}

impl Side {
    /// `a` or `b`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Files of both sides, sorted by path.
    pub files: Vec<FileComparison>,
    /// Files that could not be read.
    pub failures: Vec<Failure>,
    /// Wall time.
    pub elapsed: Duration,
}

/// A file of one or both sides.
#[derive(Debug, Clone, PartialEq)]
pub struct FileComparison {
    /// Path within the tree, without what only one side has in front.
    pub path: String,
    /// What was found.
    pub outcome: FileOutcome,
}

/// What was found of a file.
#[derive(Debug, Clone, PartialEq)]
pub enum FileOutcome {
    /// It is on one side only.
    Only(Side),
    /// It is no checkpoint, at least on one side, and was compared as bytes.
    Bytes {
        /// Whether all bytes are the same.
        identical: bool,
    },
    /// Tensors in the order of A's bytes, then those that only B has in the order of theirs.
    Tensors(Vec<TensorComparison>),
}

/// A tensor of one or both sides.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorComparison {
    /// Name.
    pub name: String,
    /// Dtype, as the header of A names it, or of B where only B has it.
    pub dtype: String,
    /// Elements along each dimension, likewise.
    pub shape: Vec<u64>,
    /// What was found.
    pub outcome: TensorOutcome,
}

/// What was found of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorOutcome {
    /// It is on one side only.
    Only(Side),
    /// It has another dtype or shape in B.
    OtherLayout {
        /// Dtype in B.
        dtype: String,
        /// Shape in B.
        shape: Vec<u64>,
    },
    /// The elements were compared.
    Measured(Difference),
}

impl TensorComparison {
    /// The tensor `a` beside `b`, nothing of which has been compared yet.
    pub(super) fn new(a: &TensorInfo, b: Option<&TensorInfo>) -> Self {
        let outcome = match b {
            None => TensorOutcome::Only(Side::A),
            // The size tells tensors of unknown dtypes apart.
            Some(b) if (&a.dtype_name, &a.shape, a.byte_len()) != (&b.dtype_name, &b.shape, b.byte_len()) => {
                TensorOutcome::OtherLayout { dtype: b.dtype_name.clone(), shape: b.shape.clone() }
            }
            // Of an empty tensor no piece will come, and still it is of floats or not.
            Some(_) => TensorOutcome::Measured(super::measure(a.dtype, &[], &[])),
        };
        Self { name: a.name.clone(), dtype: a.dtype_name.clone(), shape: a.shape.clone(), outcome }
    }

    pub(super) fn only_in_b(b: &TensorInfo) -> Self {
        Self { outcome: TensorOutcome::Only(Side::B), ..Self::new(b, None) }
    }

    /// What was measured, where the tensor is on both sides and laid out alike.
    #[must_use]
    pub fn difference(&self) -> Option<&Difference> {
        match &self.outcome {
            TensorOutcome::Measured(difference) => Some(difference),
            _ => None,
        }
    }

    pub(super) fn is_measured(&self) -> bool {
        self.difference().is_some()
    }

    pub(super) fn add(&mut self, piece: &Difference) {
        if let TensorOutcome::Measured(difference) = &mut self.outcome {
            difference.add(piece);
        }
    }

    /// Whether the elements differ by more than `max_abs`, in units of the elements, or by more than `max_relative_l2`.
    /// No bound is kept by a change to what is no float, or to or from a value that is not finite.
    #[must_use]
    pub fn exceeds(&self, max_abs: Option<f64>, max_relative_l2: Option<f64>) -> bool {
        let Some(difference) = self.difference() else { return false };
        let is_bound = max_abs.is_some() || max_relative_l2.is_some();
        match &difference.floats {
            None => is_bound && !difference.is_identical(),
            Some(floats) => {
                (is_bound && floats.n_non_finite > 0)
                    || max_abs.is_some_and(|bound| floats.max_abs > bound)
                    || max_relative_l2.is_some_and(|bound| floats.relative_l2() > bound)
            }
        }
    }
}

impl Comparison {
    /// Every tensor with the path of its file.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorComparison)> {
        self.files.iter().flat_map(|file| {
            let tensors = match &file.outcome {
                FileOutcome::Tensors(tensors) => tensors.as_slice(),
                _ => &[],
            };
            tensors.iter().map(|tensor| (file.path.as_str(), tensor))
        })
    }

    /// All measured elements together.
    #[must_use]
    pub fn total(&self) -> Difference {
        self.total_of(|_| true)
    }

    /// The elements of all tensors that are not identical.
    #[must_use]
    pub fn changed_total(&self) -> Difference {
        self.total_of(|difference| !difference.is_identical())
    }

    fn total_of(&self, counts: impl Fn(&Difference) -> bool) -> Difference {
        let mut total = Difference::default();
        let measured = self.tensors().filter_map(|(_, tensor)| tensor.difference());
        measured.filter(|difference| counts(difference)).for_each(|difference| total.add(difference));
        total
    }

    /// Whether everything could be compared: the same files and tensors on both sides, of the same dtypes and shapes,
    /// and no difference in files that are no checkpoints.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let complete = |file: &FileComparison| match &file.outcome {
            FileOutcome::Only(_) => false,
            FileOutcome::Bytes { identical } => *identical,
            FileOutcome::Tensors(tensors) => tensors.iter().all(TensorComparison::is_measured),
        };
        self.failures.is_empty() && self.files.iter().all(complete)
    }

    /// The comparison as one JSON object. Shares are of 1; numbers that are infinite or undefined are `null`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let failures: Vec<Value> = self.failures.iter().map(Failure::to_json).collect();
        json!({
            "complete": self.is_complete(),
            "files": self.files.iter().map(file_json).collect::<Vec<_>>(),
            "total": difference_json(&self.total()),
            "changed_total": difference_json(&self.changed_total()),
            "seconds": self.elapsed.as_secs_f64(),
            "failures": failures,
        })
    }
}

fn file_json(file: &FileComparison) -> Value {
    let mut value = json!({"path": file.path});
    match &file.outcome {
        FileOutcome::Only(side) => value["only_in"] = json!(side.name()),
        FileOutcome::Bytes { identical } => value["identical"] = json!(identical),
        FileOutcome::Tensors(tensors) => {
            value["tensors"] = tensors.iter().map(tensor_json).collect();
        }
    }
    value
}

fn tensor_json(tensor: &TensorComparison) -> Value {
    let mut value = match &tensor.outcome {
        TensorOutcome::Only(side) => json!({"only_in": side.name()}),
        TensorOutcome::OtherLayout { dtype, shape } => json!({"b_dtype": dtype, "b_shape": shape}),
        TensorOutcome::Measured(difference) => difference_json(difference),
    };
    value["name"] = json!(tensor.name);
    value["dtype"] = json!(tensor.dtype);
    value["shape"] = json!(tensor.shape);
    value
}

fn difference_json(difference: &Difference) -> Value {
    let mut value = json!({
        "identical": difference.is_identical(),
        "elements": difference.n_elements,
        "changed": difference.n_changed,
        "changed_share": difference.changed_share(),
    });
    if let Some(floats) = &difference.floats {
        value["float_elements"] = json!(floats.n_elements);
        value["max_abs_error"] = json!(floats.max_abs);
        value["relative_l2"] = json!(floats.relative_l2());
        value["snr_db"] = json!(floats.snr_db());
        value["cosine"] = json!(floats.cosine());
        value["newly_zero"] = json!(floats.n_newly_zero);
        value["newly_zero_share"] = json!(floats.newly_zero_share());
        value["non_finite_changed"] = json!(floats.n_non_finite);
    }
    value
}
