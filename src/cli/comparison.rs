//! What `compare` prints.

use std::fmt::Write as _;

use super::exit::printable;
use crate::pipeline::compare::{
    Comparison, Difference, FileComparison, FileOutcome, Side, TensorComparison, TensorOutcome,
};

/// The tensors that differ by more than a bound, each after the path of its file.
pub(super) fn exceeded(
    comparison: &Comparison,
    max_abs: Option<f64>,
    max_rel_l2: Option<f64>,
) -> Vec<String> {
    let tensors = comparison.tensors().filter(|(_, tensor)| tensor.exceeds(max_abs, max_rel_l2));
    tensors.map(|(path, tensor)| format!("{path}, tensor {}", tensor.name)).collect()
}

/// A row for each tensor, those that are identical included, and the totals.
pub(super) fn comparison_table(comparison: &Comparison) -> String {
    let mut text = String::new();
    comparison.files.iter().for_each(|file| file_rows(&mut text, file));
    let (total, changed) = (comparison.total(), comparison.changed_total());
    header_row(&mut text);
    row(&mut text, "", "", &cells(&total), "total");
    if changed.n_elements != total.n_elements && !changed.is_identical() {
        row(&mut text, "", "", &cells(&changed), "total of the tensors that changed");
    }
    if comparison.is_complete() && total.is_identical() {
        text += "identical\n";
    }
    text
}

fn file_rows(text: &mut String, file: &FileComparison) {
    let path = printable(&file.path);
    // Writing to a string cannot fail.
    let _ = match &file.outcome {
        FileOutcome::Only(side) => writeln!(text, "{path}: {}", only(*side)),
        FileOutcome::Bytes { identical: true } => writeln!(text, "{path}: identical bytes"),
        FileOutcome::Bytes { identical: false } => {
            writeln!(text, "{path}: bytes differ, and it is no checkpoint")
        }
        FileOutcome::Tensors(tensors) => {
            let differences = tensors.iter().filter_map(TensorComparison::difference);
            let n_identical = differences.filter(|difference| difference.is_identical()).count();
            let headed = writeln!(text, "{path}: {} tensors, {n_identical} of them identical", tensors.len());
            if !tensors.is_empty() {
                header_row(text);
                tensors.iter().for_each(|tensor| tensor_row(text, tensor));
            }
            headed
        }
    };
}

fn only(side: Side) -> String {
    format!("only in {}", side.name().to_uppercase())
}

fn tensor_row(text: &mut String, tensor: &TensorComparison) {
    let name = printable(&tensor.name);
    let (dtype, shape) = (printable(&tensor.dtype), shape_text(&tensor.shape));
    let (cells, name) = match &tensor.outcome {
        TensorOutcome::Only(side) => (blank_cells(), format!("{name} ({})", only(*side))),
        TensorOutcome::OtherLayout { dtype, shape } => {
            (blank_cells(), format!("{name} ({} {} in B)", printable(dtype), shape_text(shape)))
        }
        TensorOutcome::Measured(difference) if difference.is_identical() => {
            (["identical".to_owned(), "".into(), "".into(), "".into(), "".into(), "".into()], name)
        }
        TensorOutcome::Measured(difference) => {
            let n_non_finite = difference.floats.map_or(0, |floats| floats.n_non_finite);
            let note = if n_non_finite > 0 {
                format!(" ({n_non_finite} changed to or from what is not finite)")
            } else {
                String::new()
            };
            (cells(difference), name + &note)
        }
    };
    row(text, &dtype, &shape, &cells, &name);
}

fn shape_text(shape: &[u64]) -> String {
    format!("[{}]", shape.iter().map(u64::to_string).collect::<Vec<_>>().join(","))
}

/// Largest error, relative L2, SNR, cosine, changed, newly zero.
type Cells = [String; 6];

fn blank_cells() -> Cells {
    std::array::from_fn(|_| "-".to_owned())
}

fn cells(difference: &Difference) -> Cells {
    let percent = |share: f64| format!("{:.3}%", 100.0 * share);
    let mut cells = blank_cells();
    cells[4] = percent(difference.changed_share());
    if let Some(floats) = &difference.floats {
        cells[0] = format!("{:.3e}", floats.max_abs);
        cells[1] = format!("{:.3e}", floats.relative_l2());
        cells[2] = format!("{:.2}", floats.snr_db());
        cells[3] = floats.cosine().map_or("-".to_owned(), |cosine| format!("{cosine:.7}"));
        cells[5] = percent(floats.newly_zero_share());
    }
    cells
}

fn header_row(text: &mut String) {
    let heads = ["max abs", "rel L2", "SNR dB", "cosine", "changed", "zeroed"].map(str::to_owned);
    row(text, "dtype", "shape", &heads, "tensor");
}

fn row(text: &mut String, dtype: &str, shape: &str, cells: &Cells, name: &str) {
    let [max_abs, relative_l2, snr, cosine, changed, zeroed] = cells;
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{dtype:<8} {shape:<20} {max_abs:>10} {relative_l2:>10} {snr:>8} {cosine:>10} {changed:>9} {zeroed:>9}  {name}"
    );
}
