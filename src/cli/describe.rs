//! What `inspect` prints of archives and trees, for people and as JSON.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::exit::printable;
use crate::container::TensorLoss;
use crate::pipeline::inspect::{ArchiveReport, LayerReport, TensorReport};
use crate::pipeline::manifest::{FileEntry, Manifest};
use crate::pipeline::map::EntropyMap;
use crate::pipeline::report::Tally;

fn tally_json(tally: &Tally) -> Value {
    json!({
        "original_bytes": tally.original_bytes,
        "stored_bytes": tally.stored_bytes,
        "elements": tally.elements,
        "ratio": tally.ratio(),
        "bits_per_element": tally.bits_per_element(),
    })
}

pub(super) fn tensor_json(tensor: &TensorReport) -> Value {
    let mut value = tally_json(&tensor.tally);
    value["name"] = json!(tensor.name);
    value["dtype"] = json!(tensor.dtype);
    value["shape"] = json!(tensor.shape);
    value["offset"] = json!(tensor.offset);
    value["codings"] = json!(tensor.codings);
    if let Some(loss) = &tensor.loss {
        value["loss"] = json!({
            "goal": loss.goal.name(),
            "goal_value": loss.goal_value,
            "exact": loss.is_exact,
            "quantizer": match (loss.is_dependent, loss.has_even_sums) {
                (true, _) => "trellis",
                (_, true) => "lattice",
                _ => "uniform",
            },
            "log_domain": loss.is_log,
            "step": loss.step,
            "max_abs_error": loss.max_abs_error,
            "rel_l2": loss.rel_l2(),
            "newly_zero": loss.newly_zero,
            "sparsity": sparsity(loss, &tensor.tally),
        });
    }
    value
}

/// Zeros ÷ elements; zeros of either sign count.
fn sparsity(loss: &TensorLoss, tally: &Tally) -> f64 {
    loss.zeros as f64 / tally.elements.max(1) as f64
}

/// A line for each channel: bits an element, block by block.
pub(super) fn map_table(map: &EntropyMap) -> String {
    let mut text = format!("bits an element by channel and block, at a step of {:.4e}\n", map.step);
    for (channel, bits) in map.bits.iter().enumerate() {
        let bits: Vec<String> = bits.iter().map(|bits| format!("{bits:.2}")).collect();
        let _ = writeln!(text, "{channel:>6}  {}", bits.join(" "));
    }
    text
}

/// A line for each tensor with a lossy goal.
fn loss_table(report: &ArchiveReport, text: &mut String) {
    let lossy = || report.tensors.iter().filter_map(|tensor| Some((tensor, tensor.loss.as_ref()?)));
    let Some(source) = report.source_blake3 else { return };
    let _ = writeln!(
        text,
        "lossy: the archive holds a reconstruction; blake3 of the source was {source}\n{:<14} {:>9} {:>10} {:>10} {:>9} {:>8} {:>8} {:>8}  tensor",
        "goal", "value", "max error", "rel L2", "step", "bits/el", "sparsity", "newly 0"
    );
    for (tensor, loss) in lossy() {
        let goal = format!("{}{}", loss.goal.name(), if loss.is_exact { " exact" } else { "" });
        let _ = writeln!(
            text,
            "{goal:<14} {:>9.3e} {:>10.3e} {:>10.3e} {:>9.3e} {:>8.3} {:>8.4} {:>8}  {}",
            loss.goal_value,
            loss.max_abs_error,
            loss.rel_l2(),
            loss.step,
            tensor.tally.bits_per_element(),
            sparsity(loss, &tensor.tally),
            loss.newly_zero,
            printable(&tensor.name)
        );
    }
}

fn layer_json(layer: &LayerReport) -> Value {
    json!({
        "archive_bytes": layer.archive_bytes,
        "goal_bits": layer.goal_bits,
        "exact": layer.goal_bits.is_none(),
        "bits_per_element": layer.bits_per_element,
        "rel_l2": layer.rel_l2,
        "max_abs_error": layer.max_abs_error,
    })
}

/// A line for each layer.
fn layer_table(report: &ArchiveReport, text: &mut String) {
    if report.layers.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "{:<6} {:>8} {:>14} {:>8} {:>10} {:>10}",
        "layer", "goal", "bytes to here", "bits/el", "rel L2", "max error"
    );
    for (number, layer) in (1..).zip(&report.layers) {
        let goal = layer.goal_bits.map_or_else(|| "exact".to_owned(), |bits| format!("{bits}"));
        let _ = writeln!(
            text,
            "{number:<6} {goal:>8} {:>14} {:>8.3} {:>10.3e} {:>10.3e}",
            layer.archive_bytes, layer.bits_per_element, layer.rel_l2, layer.max_abs_error
        );
    }
}

pub(super) fn archive_json(report: &ArchiveReport) -> Value {
    let codings: serde_json::Map<String, Value> = report
        .codings
        .iter()
        .map(|(name, (blocks, tally))| {
            let mut value = tally_json(tally);
            value["blocks"] = json!(blocks);
            ((*name).to_owned(), value)
        })
        .collect();
    json!({
        "path": report.path.display().to_string(),
        "original_bytes": report.original_bytes,
        "archive_bytes": report.archive_bytes,
        "blocks": report.n_blocks,
        "blake3": report.blake3.to_string(),
        "sha256": report.sha256.map(|digest| digest.to_string()),
        "source_blake3": report.source_blake3.map(|digest| digest.to_string()),
        "layers": report.layers.iter().map(layer_json).collect::<Vec<_>>(),
        "codings": codings,
        "tensors": report.tensors.iter().map(tensor_json).collect::<Vec<_>>(),
    })
}

pub(super) fn archive_table(report: &ArchiveReport) -> String {
    let path = printable(&report.path.display().to_string());
    let mut text = format!(
        "{path}: {} bytes of {}, {} blocks, blake3 {}\n",
        report.archive_bytes, report.original_bytes, report.n_blocks, report.blake3
    );
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:<8} {:<20} {:>14} {:>14} {:>8} {:>7}  {:<10} tensor",
        "dtype", "shape", "original", "stored", "bits/el", "ratio", "coding"
    );
    for tensor in &report.tensors {
        let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
        let _ = writeln!(
            text,
            "{:<8} {:<20} {:>14} {:>14} {:>8.3} {:>7.3}  {:<10} {}",
            printable(&tensor.dtype),
            format!("[{}]", shape.join(",")),
            tensor.tally.original_bytes,
            tensor.tally.stored_bytes,
            tensor.tally.bits_per_element(),
            tensor.tally.ratio(),
            tensor.codings.join("+"),
            printable(&tensor.name)
        );
    }
    layer_table(report, &mut text);
    loss_table(report, &mut text);
    for (name, (blocks, tally)) in &report.codings {
        let _ = writeln!(
            text,
            "{blocks} blocks coded {name}: {} bytes in {}",
            tally.original_bytes, tally.stored_bytes
        );
    }
    text
}

/// Bytes that `file` adds to the tree: none where another file's archive serves it too.
fn stored_bytes(file: &FileEntry) -> u64 {
    if file.same_as.is_some() { 0 } else { file.archive_size }
}

/// All files of a tree. Bytes only: elements are known to the archives, which are not opened.
fn tree_tally(manifest: &Manifest) -> Tally {
    let mut total = Tally::default();
    for file in &manifest.files {
        total.original_bytes += file.size;
        total.stored_bytes += stored_bytes(file);
    }
    total
}

pub(super) fn tree_json(path: &Path, manifest: &Manifest) -> Value {
    let file_json = |file: &FileEntry| {
        json!({
            "path": file.path,
            "archive": file.archive,
            "original_bytes": file.size,
            "stored_bytes": stored_bytes(file),
            "blake3": file.blake3.to_string(),
            "sha256": file.sha256.map(|digest| digest.to_string()),
            "same_as": file.same_as,
        })
    };
    let total = tree_tally(manifest);
    json!({
        "path": path.display().to_string(),
        "files": manifest.files.iter().map(file_json).collect::<Vec<_>>(),
        "directories": manifest.dirs.len(),
        "links": manifest.links.len(),
        "failed": manifest.failed.len(),
        "original_bytes": total.original_bytes,
        "stored_bytes": total.stored_bytes,
        "ratio": total.ratio(),
    })
}

pub(super) fn tree_table(path: &Path, manifest: &Manifest) -> String {
    let (n_files, n_failed) = (manifest.files.len(), manifest.failed.len());
    let (n_dirs, n_links) = (manifest.dirs.len(), manifest.links.len());
    let path = printable(&path.display().to_string());
    let mut text = format!("{path}: {n_files} files, {n_dirs} directories, {n_links} links");
    if n_failed > 0 {
        text += &format!(", {n_failed} never compressed");
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n{:>16} {:>16} {:>8} {:>7}  file", "original", "stored", "saved", "ratio");
    let mut row = |tally: &Tally, name: &str| {
        let _ = writeln!(
            text,
            "{:>16} {:>16} {:>7.2}% {:>7.3}  {name}",
            tally.original_bytes,
            tally.stored_bytes,
            tally.saved_percent(),
            tally.ratio()
        );
    };
    for file in &manifest.files {
        let tally = Tally { original_bytes: file.size, stored_bytes: stored_bytes(file), ..Tally::default() };
        match &file.same_as {
            Some(base) => row(&tally, &format!("{} = {}", printable(&file.path), printable(base))),
            None => row(&tally, &printable(&file.path)),
        }
    }
    row(&tree_tally(manifest), "total");
    text
}
